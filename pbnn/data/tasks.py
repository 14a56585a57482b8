"""Tasks: named arrays of inputs and labels, with their source and the hash of their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbnn.files import add_array


@dataclass(frozen=True, eq=False)
class Task:
    """A classification task as arrays; make one of your own data with `Task.of`.

    Attributes
    ----------
    name : str
        What it is called.
    x : (N, ...) float32 array
        Inputs, finite; images are (N, channels, height, width) in [0, 1]. A row may be all zeros.
    y : (N,) array
        Labels: float32 of -1 and +1, or int64 class numbers from 0.
    source : str
        Where the data come from, for people.
    sha256 : str
        SHA-256 of the content: types, shapes and bytes of `x` and `y`, little-endian.
    train : int in [1, N), optional
        How many rows, the leading ones, the publisher calls training, the others being the test
        set; None where no test set is published. See `published_split`.

    Raises
    ------
    TypeError
        If `x`, `y` or `train` has another type.
    ValueError
        Naming the row, if an input is not finite or a label is outside its range; or if `train`
        is outside its own.
    """

    name: str
    x: NDArray[np.float32]
    y: NDArray[Any]
    source: str
    sha256: str
    train: int | None = None

    def __post_init__(self) -> None:
        _check(self.x, self.y)
        _check_train(self.train, len(self.y))

    @classmethod
    def of(
        cls,
        name: str,
        x: NDArray[np.float32],
        y: NDArray[Any],
        source: str,
        *,
        train: int | None = None,
    ) -> Task:
        """A task with the hash of its content.

        Examples
        --------
        >>> task = Task.of("xor", np.float32([[0, 1], [1, 1]]), np.float32([1, -1]), "by hand")
        >>> len(task.sha256)
        64
        """
        return cls(name, x, y, source, _content_hash(x, y), train)


def _content_hash(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        add_array(digest, np.asarray(array))
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


def _check_train(train: Any, size: int) -> None:
    if train is None:
        return
    if isinstance(train, bool) or not isinstance(train, int | np.integer):
        raise TypeError(f"`train` must be an integer or None, got {train!r}.")
    if not 0 < train < size:
        raise ValueError(f"`train` must lie in [1, {size}), got {train}.")
