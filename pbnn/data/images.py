"""Collections of images as stored, and their pixels as numbers in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pbnn.data.records import Records
from pbnn.data.registry import Collection

_DIGITS = 10


class Images(NamedTuple):
    """Images in parts, in the order of their examples, training before test.

    Attributes
    ----------
    parts : sequence of (N_i, channels, height, width) arrays
        Pixels from 0 to `white`, as stored.
    classes : (N,) array of integers
        The classes of all parts, from 0.
    white : int
        The largest pixel.
    source : str
        Where they come from, for people.
    train : int, optional
        How many are published as training images; None where no test set is published.
    """

    parts: Sequence[NDArray[Any]]
    classes: NDArray[Any]
    white: int
    source: str
    train: int | None

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Pixels over white of the given rows, which ascend: (rows, channels, height, width)."""
        x = np.empty((len(rows), *self.parts[0].shape[1:]), dtype=np.float32)
        start = filled = 0
        # Part by part into one array: the pixels exist but once as floats.
        for part in self.parts:
            chosen = rows[(start <= rows) & (rows < start + len(part))] - start
            out = x[filled : filled + len(chosen)]
            np.divide(part[chosen], np.float32(self.white), out=out, dtype=np.float32)
            start, filled = start + len(part), filled + len(chosen)
        return x


def from_idx(collection: Collection[NDArray[np.uint8]], contents: Mapping[str, Any]) -> Images:
    """The grey images and the classes of a collection in the layout of MNIST.

    Raises
    ------
    ValueError
        Naming the row, if a class is not in 0 to 9.
    """
    arrays = contents.values()
    classes = np.concatenate([array for array in arrays if array.ndim == 1])
    if (wrong := np.flatnonzero(classes >= _DIGITS)).size:
        raise ValueError(
            f"the classes of {collection.title} must lie in 0 to {_DIGITS - 1}, "
            f"got {classes[wrong[0]]} in row {wrong[0]}."
        )
    parts = [array[:, None] for array in arrays if array.ndim == 3]
    return Images(parts, classes, 255, collection.title, collection.train(len(classes)))


def from_records(collection: Collection[Records], contents: Mapping[str, Records]) -> Images:
    """The images of a collection in records, by their finest classes; the source says what they
    are and what is missing."""
    classes = np.concatenate([records.labels[:, -1] for records in contents.values()])
    train = collection.train(len(classes))
    remarks = []
    if collection.published and train != collection.published[0]:
        remarks.append(f"{train:,} of the {collection.published[0]:,} training images")
    if jpeg := sum(records.jpeg or 0 for records in contents.values()):
        remarks.append(
            f"rebuilt, not the official files: {jpeg} of the images carry the pixels of a JPEG copy"
        )
    if unknown := [name for name, records in contents.items() if records.jpeg is None]:
        remarks.append(f"unverified content: {', '.join(unknown)}")
    source = collection.title + (f" ({'; '.join(remarks)})" if remarks else "")
    parts = [records.images for records in contents.values()]
    return Images(parts, classes, 255, source, train)


def embedded_digits() -> Images:
    """The small digits that scikit-learn carries."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    source = "scikit-learn digits (bundled, 8x8; not MNIST)"
    return Images([bunch.images[:, None]], bunch.target, 16, source, None)
