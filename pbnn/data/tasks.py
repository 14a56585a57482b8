"""Tasks: named arrays of inputs and labels, with their source and the hash of their content."""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbnn.data.files import obtain
from pbnn.data.registry import ADS, ADULT, FASHION_MNIST, MNIST, Collection
from pbnn.data.uci import ADULT_CONTINUOUS, encode_ads, encode_adult

# Which digits a task keeps and the sign it gives them: the lower one, or the even ones, are -1.
_SIGNS = {
    "17": {1: -1, 7: 1},
    "49": {4: -1, 9: 1},
    "56": {5: -1, 6: 1},
    "LH": {digit: -1 if digit < 5 else 1 for digit in range(10)},
    "EO": {digit: -1 if digit % 2 == 0 else 1 for digit in range(10)},
}
_CLASSES = 10
_COLLECTIONS: dict[str, Collection[Any]] = {
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "adult": ADULT,
    "ads": ADS,
}
_VARIANTS = {
    stem + variant: (stem, variant) for stem in ("mnist", "digits") for variant in ("", *_SIGNS)
} | {"fashion_mnist": ("fashion_mnist", "")}

_ENCODINGS = {"adult": encode_adult, "ads": encode_ads}
_NOTES = {
    "adult": f". Columns 0 to {len(ADULT_CONTINUOUS) - 1} are continuous and raw "
    f"({', '.join(ADULT_CONTINUOUS)}), the others one-hot; >50K is +1",
    "ads": " without its first four columns. All are 0 or 1; an advertisement is +1",
}

TASKS: tuple[str, ...] = (*_VARIANTS, "breast_cancer", *_ENCODINGS)
"""The names `load` knows."""


@dataclass(frozen=True, eq=False)
class Task:
    """A classification task as arrays; make one of your own data with `Task.of`.

    Attributes
    ----------
    name : str
        What it is called.
    x : (N, ...) float32 array
        Inputs, finite; images are (N, 1, height, width) in [0, 1]. A row may be all zeros.
    y : (N,) array
        Labels: float32 of -1 and +1, or int64 class numbers from 0.
    source : str
        Where the data come from, for people.
    sha256 : str
        SHA-256 of the content: types, shapes and bytes of `x` and `y`, little-endian.

    Raises
    ------
    TypeError
        If `x` or `y` has another type.
    ValueError
        Naming the row, if an input is not finite or a label is outside its range.
    """

    name: str
    x: NDArray[np.float32]
    y: NDArray[Any]
    source: str
    sha256: str

    def __post_init__(self) -> None:
        _check(self.x, self.y)

    @classmethod
    def of(cls, name: str, x: NDArray[np.float32], y: NDArray[Any], source: str) -> Task:
        """A task with the hash of its content.

        Examples
        --------
        >>> task = Task.of("xor", np.float32([[0, 1], [1, 1]]), np.float32([1, -1]), "by hand")
        >>> len(task.sha256)
        64
        """
        return cls(name, x, y, source, _content_hash(x, y))


def _content_hash(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        array = np.asarray(array)
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _check(x: NDArray[Any], y: NDArray[Any]) -> None:
    for name, array in (("x", x), ("y", y)):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"`{name}` must be a NumPy array, got {type(array).__name__}.")
    if x.dtype != np.float32:
        raise TypeError(f"`x` must be of dtype float32, got {x.dtype}.")
    if y.dtype not in (np.float32, np.int64):
        raise TypeError(f"`y` must be float32 (-1, +1) or int64 (classes), got {y.dtype}.")
    if x.ndim < 2 or y.shape != x.shape[:1] or not x.size:
        raise ValueError(
            f"`x` and `y` must have shapes (N, ...) and (N,) with N >= 1, got {x.shape}, {y.shape}."
        )
    finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if not finite.all():
        raise ValueError(f"`x` must be finite, but row {np.argmin(finite)} is not.")
    allowed = np.abs(y) == 1 if y.dtype == np.float32 else y >= 0
    if not allowed.all():
        row, domain = np.argmin(allowed), "-1 or +1" if y.dtype == np.float32 else ">= 0"
        raise ValueError(f"`y` must hold labels {domain}, got {y[row]} in row {row}.")


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: bool = True,
) -> Task:
    r"""Load a task by its name, from a folder, the cache, a mirror, or scikit-learn.

    ``mnist17``, ``mnist49`` and ``mnist56`` tell two digits apart (the lower is -1), ``mnistLH``
    tells 0-4 (-1) from 5-9, ``mnistEO`` even (-1) from odd, ``mnist`` has all ten classes; each
    uses all 70,000 images, training before test, with pixels :math:`/255`. ``digits17`` and so
    on are their small twins, made of the 8x8 digits (:math:`/16`) that scikit-learn carries, and
    ``breast_cancer`` its 30 raw features (malignant is -1): these need no file and no network.

    ``adult`` predicts an income of more than 50K (+1) from 6 continuous columns, raw, followed
    by 102 of 0 and 1; it has the examples of both files, ``adult.data`` first. ``ads`` tells
    advertisements (+1) from other images by 1554 columns of 0 and 1, without the first four
    columns of the file, some of whose values are missing. No value of either depends on another
    example: see `standardise`.

    Parameters
    ----------
    name : str
        One of `TASKS`.
    data_dir : path, optional
        The folder that holds ``mnist/`` and ``fashion-mnist/`` with the four IDX files,
        ``adult/`` with ``adult.data`` and ``adult.test``, ``ads/`` with ``ad.data``, each raw or
        gzipped; by default the environment variable ``PBNN_DATA``. If it is named, nothing else
        is searched. If not, the user's cache is searched, then the mirrors.
    offline : bool
        Whether to leave the mirrors alone.
    progress : bool
        Whether to show a bar while downloading.

    Raises
    ------
    ValueError
        For an unknown name, or naming a file whose content is not what it must be.
    FileNotFoundError
        If the named folder or a file in it is missing.
    DataUnavailable
        If no folder was named and neither cache nor mirror has the files.

    References
    ----------
    Letarte, Germain, Guedj and Laviolette, Dichotomize and Generalize (2019), section 6.
    https://arxiv.org/abs/1905.10259

    Becker and Kohavi, Adult (1996), UCI. https://doi.org/10.24432/C5XW20

    Kushmerick, Internet Advertisements (1998), UCI. https://doi.org/10.24432/C5V011

    Examples
    --------
    >>> task = load("digits17")
    >>> task.x.shape, task.source
    ((361, 1, 8, 8), 'scikit-learn digits (bundled, 8x8; not MNIST)')
    """
    _check_name(name)
    if name == "breast_cancer":
        return _breast_cancer()
    if name in _ENCODINGS:
        collection = _COLLECTIONS[name]
        tables = obtain(collection, data_dir, offline=offline, progress=progress)
        return Task.of(name, *_ENCODINGS[name](tables), collection.title + _NOTES[name])
    stem, variant = _VARIANTS[name]
    if stem in _COLLECTIONS:
        images, classes = _images(_COLLECTIONS[stem], data_dir, offline, progress)
        source, white = _COLLECTIONS[stem].title, 255
    else:
        images, classes = _embedded_digits()
        source, white = "scikit-learn digits (bundled, 8x8; not MNIST)", 16
    rows, y = _choose(classes, variant, source)
    return Task.of(name, images[rows, None].astype(np.float32) / np.float32(white), y, source)


def embedded_twin(name: str) -> str:
    """The task of the same kind that needs neither file nor network.

    Examples
    --------
    >>> [embedded_twin(name) for name in ("mnist17", "adult", "breast_cancer")]
    ['digits17', 'breast_cancer', 'breast_cancer']
    """
    _check_name(name)
    if name in _ENCODINGS:
        return "breast_cancer"
    stem, variant = _VARIANTS.get(name, (name, ""))
    return f"digits{variant}" if stem in _COLLECTIONS else name


def _check_name(name: str) -> None:
    if name not in TASKS:
        close = difflib.get_close_matches(str(name), TASKS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(TASKS)}."
        raise ValueError(f"`name` must be a known task, got {name!r}: {hint}")


def _images(
    collection: Collection[Any],
    data_dir: str | os.PathLike[str] | None,
    offline: bool,
    progress: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All images and classes of a collection, training before test."""
    arrays = obtain(collection, data_dir, offline=offline, progress=progress)
    images = [array for array in arrays.values() if array.ndim == 3]
    classes = [array for array in arrays.values() if array.ndim == 1]
    return np.concatenate(images), np.concatenate(classes)


def _embedded_digits() -> tuple[NDArray[Any], NDArray[Any]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target


def _breast_cancer() -> Task:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    # Raw on purpose: standardising would let every example depend on the test examples.
    x, y = bunch.data.astype(np.float32), (2 * bunch.target - 1).astype(np.float32)
    return Task.of("breast_cancer", x, y, "scikit-learn breast cancer (Wisconsin, bundled)")


def _choose(
    classes: NDArray[Any], variant: str, source: str
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The rows that a variant of a ten-class data set keeps, and their labels."""
    if (wrong := np.flatnonzero((classes < 0) | (classes >= _CLASSES))).size:
        raise ValueError(
            f"the classes of {source} must lie in 0 to {_CLASSES - 1}, "
            f"got {classes[wrong[0]]} in row {wrong[0]}."
        )
    if not variant:
        return np.arange(len(classes)), classes.astype(np.int64)
    table = np.array([_SIGNS[variant].get(c, 0) for c in range(_CLASSES)], dtype=np.float32)
    signs = table[classes]
    rows = np.flatnonzero(signs)
    return rows, signs[rows]
