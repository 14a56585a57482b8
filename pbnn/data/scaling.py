"""Scaling by statistics of rows that serve for nothing else."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pbnn.data.splits import indices

Float = TypeVar("Float", bound="np.floating[Any]")


def standardise(x: NDArray[Float], feature_rows: ArrayLike) -> NDArray[Float]:
    r"""Shift and scale every column by its mean and deviation over the given rows alone.

    .. math:: x'_{ij} = (x_{ij} - m_j) / s_j, \quad
        m_j = \tfrac1f \sum_{i \in F} x_{ij}, \quad
        s_j^2 = \tfrac1f \sum_{i \in F} (x_{ij} - m_j)^2

    The f rows F must be neither certification nor test examples: a bound holds for inputs whose
    encoding is fixed before the certification examples are seen, and a test error is honest only
    if the test examples shaped nothing. Take `Splits.feature`, or the prior's examples. A column
    that is constant on these rows is shifted and not scaled (:math:`s_j = 1`).

    Parameters
    ----------
    x : (N, ...) float32 or float64 array
        Inputs, finite; it stays as it is.
    feature_rows : (f,) integers in [0, N)
        At least one; a row given twice counts twice.

    Returns
    -------
    (N, ...) array
        Of the dtype of `x`; the statistics are computed in float64.

    Raises
    ------
    TypeError
        If `x` is no array of floats, or a row no integer.
    ValueError
        If the rows are empty or outside `x`, if `x` is not finite, or if a result is not.

    Examples
    --------
    >>> standardise(np.array([[1.0, 5.0], [3.0, 5.0], [9.0, 7.0]]), [0, 1])
    array([[-1.,  0.],
           [ 1.,  0.],
           [ 7.,  2.]])
    """
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
        got = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"`x` must be a float32 or float64 array, got {got}.")
    if x.ndim < 2:
        raise ValueError(f"`x` must have shape (N, ...), got {x.shape}.")
    rows = indices(feature_rows, "feature_rows")
    if not len(rows):
        raise ValueError("`feature_rows` must hold at least one row, got none.")
    if rows.max() >= len(x):
        raise ValueError(f"`feature_rows` must lie in [0, {len(x)}), got {rows.max()}.")
    if not np.isfinite(x).all():
        raise ValueError("`x` must be finite, got an infinite value or NaN.")
    mean, scale = _statistics(x[rows].astype(np.float64))
    with np.errstate(all="ignore"):
        result = ((x - mean) / scale).astype(x.dtype)
    if not (finite := np.isfinite(result).reshape(len(x), -1).all(axis=1)).all():
        raise ValueError(f"`x` is beyond {x.dtype} once scaled, in row {np.argmin(finite)}.")
    return result


def _statistics(sample: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale of each column."""
    constant = sample.min(axis=0) == sample.max(axis=0)
    with np.errstate(all="ignore"):
        # Rounding gives the mean of equal numbers, hence their deviation, a tiny error.
        mean = np.where(constant, sample[0], sample.mean(axis=0))
        scale = np.where(constant, 1.0, sample.std(axis=0))
    # Else a deviation that overflows would turn its column into zeros.
    return mean, np.where(np.isfinite(scale), scale, np.nan)
