"""Files of records without a header, as CIFAR's: label bytes, then the bytes of one image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Records(NamedTuple):
    """What a file of records holds.

    Attributes
    ----------
    images : (N, channels, height, width) array of unsigned bytes
        Read-only, as stored.
    labels : (N, L) array of unsigned bytes
        One column per label byte, the finest last.
    jpeg : int, optional
        How many images carry the pixels of a JPEG copy; None if the content is not a known one.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    jpeg: int | None = None


def record_size(classes: Sequence[int], shape: Sequence[int]) -> int:
    """Bytes of one record: a byte per label, then the image."""
    return len(classes) + math.prod(shape)


def parse(
    content: bytes, where: str, count: int, classes: Sequence[int], shape: Sequence[int]
) -> Records:
    """The records in the bytes of a file that must hold so many.

    Nothing is copied: both arrays are read-only views of `content`.

    Parameters
    ----------
    content : bytes
        The file, decompressed.
    where : str
        Its name, for the error message.
    count : int
        How many records it must hold.
    classes : sequence of int
        For each label byte the number of its classes.
    shape : sequence of int
        Channels, height and width of an image.

    Raises
    ------
    ValueError
        If the number of bytes is wrong, or naming the record, if a label is out of range.

    References
    ----------
    Krizhevsky, Learning multiple layers of features from tiny images (2009).
    https://www.cs.toronto.edu/~kriz/cifar.html

    Examples
    --------
    >>> images, labels, _ = parse(bytes([3, 10, 20, 1, 30, 40]), "pairs", 2, (10,), (1, 1, 2))
    >>> images.tolist(), labels.tolist()
    ([[[[10, 20]]], [[[30, 40]]]], [[3], [1]])
    """
    size = record_size(classes, shape)
    if len(content) != count * size:
        fault = "is cut short" if len(content) < count * size else "goes on"
        raise ValueError(f"{where} {fault}: it must hold {count} records of {size} bytes.")
    records = np.frombuffer(content, dtype=np.uint8).reshape(count, size)
    labels = records[:, : len(classes)]
    wrong = (labels >= np.array(classes)).any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{where}, record {row}: labels must lie below {', '.join(map(str, classes))}, "
            f"got {', '.join(map(str, labels[row]))}."
        )
    return Records(records[:, len(classes) :].reshape(count, *shape), labels)
