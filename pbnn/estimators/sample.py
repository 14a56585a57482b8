"""What a classifier learns from: points as tensors, their splits, and inputs that leak nothing."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils import check_array, check_random_state, get_tags
from torch import Tensor

from pbnn.data import Splits, Task, split

LEAST = 2
"""Points of a part: of a single one there is no variance."""
LONE = 8
"""Points that are looked at one by one."""

NAMED = {"standard": StandardScaler, "norm": Normalizer}
"""Preprocessing by name."""


@dataclass(frozen=True)
class Sample:
    """Points as a network reads them, and which of them serve for what.

    Attributes
    ----------
    x : Tensor, shape (N, ...)
    y : Tensor, shape (N,)
        Labels ±1 in float32, or classes in int64.
    splits : Splits
    hashes : dict
        Of the splits, as `Splits.hashes` gives them.
    seed : int
    """

    x: Tensor
    y: Tensor
    splits: Splits
    hashes: dict[str, str]
    seed: int

    def prior(self) -> tuple[Tensor, Tensor]:
        """Points that the prior may be made of; there may be none."""
        return self.x[self.splits.prior], self.y[self.splits.prior]

    def certification(self) -> tuple[Tensor, Tensor]:
        """Points that the bound is evaluated on."""
        return self.x[self.splits.certification], self.y[self.splits.certification]


def seed_of(random_state: Any) -> int:
    """A seed from what scikit-learn takes for randomness: an integer is its own seed.

    Examples
    --------
    >>> seed_of(3), seed_of(np.random.RandomState(0))
    (3, 209652396)
    """
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def split_of(task: Task, seed: int, prior_share: float) -> Splits:
    """A random share of the points for the prior, the others for certification; no label is read.

    Raises
    ------
    ValueError
        If a share of points leaves the prior or the certificate less than two.
    """
    splits = split(task, seed=seed, test=0.0, prior=prior_share)
    if prior_share and min(len(splits.prior), splits.n) < LEAST:
        raise ValueError(
            f"`prior_share` must leave at least {LEAST} points to the prior and to the "
            f"certificate, got {prior_share} with n_samples = {len(task.y)}."
        )
    return splits


def preprocessor_of(given: Any, *, learned: bool) -> Any:
    """The transformer that a parameter names, not fitted; None for none.

    Parameters
    ----------
    given : {"standard", "norm"}, transformer or None
    learned : bool
        Whether there is a prior split to fit it on. Without one only a transformer that needs no
        fit is taken (`requires_fit` of its tags).

    Raises
    ------
    ValueError
        For another name, and for a transformer with statistics where nothing may shape them.

    Examples
    --------
    >>> preprocessor_of("norm", learned=False)
    Normalizer()
    """
    if given is None:
        return None
    if isinstance(given, str) and given not in NAMED:
        raise ValueError(
            f"`preprocessing` must be 'auto', one of {sorted(NAMED)}, a transformer or None, "
            f"got {given!r}."
        )
    step = NAMED[given]() if isinstance(given, str) else clone(given)
    if why := next(filter(None, map(_known_before, _parts(step))), None):
        raise ValueError(
            "`preprocessing` must be fitted here, on the prior split alone, and never before: got "
            f"{step}, in which {why}."
        )
    if not learned and get_tags(step).requires_fit:
        raise ValueError(
            "`preprocessing` must need no fit where `prior_share` is 0, as no point may shape "
            f"it; got {step}. 'norm' divides each point by its norm."
        )
    return step


def _parts(step: Any) -> Iterator[Any]:
    """A transformer and all that its parameters hold."""
    yield step
    if hasattr(step, "get_params"):
        yield from step.get_params(deep=True).values()


def _known_before(part: Any) -> str:
    """Why a clone may know points that it was not fitted on here, or nothing."""
    if not hasattr(part, "fit") or isinstance(part, type):
        return ""
    func = getattr(part, "func", None)
    while isinstance(func, functools.partial):
        func = func.func
    if hasattr(getattr(func, "__self__", None), "fit"):
        return "the function is a method of an estimator"
    clones = BaseEstimator.__sklearn_clone__
    if getattr(type(part), "__sklearn_clone__", clones) is not clones:
        return f"{type(part).__name__} keeps what it was fitted on when it is cloned"
    if getattr(part, "prefit", False) is True or getattr(part, "cv", None) == "prefit":
        return f"{type(part).__name__} is fitted before"
    if any(name.endswith("_") and not name.startswith("_") for name in vars(part)):
        return f"{type(part).__name__} is fitted although it was cloned"
    return ""


def table_of(x: Any) -> Any:
    """A table as it is, numbers or not, missing or not, for a transformer that treats it.

    Raises
    ------
    ValueError
        If it has no rows and columns.
    """
    return x if hasattr(x, "iloc") else check_array(x, dtype=None, ensure_all_finite=False)


def rows_of(x: Any, rows: Any) -> Any:
    """Rows of an array or a data frame, which keeps its columns."""
    return x.iloc[rows] if hasattr(x, "iloc") else x[rows]


def lone_rows(x: Any, draws: np.random.RandomState) -> list[int]:
    """Some rows to look at one by one, of those with gaps as many as of all."""
    gaps = np.flatnonzero(pd.DataFrame(x).isna().any(axis=1))
    some = [draws.permutation(rows)[:LONE] for rows in (np.arange(len(x)), gaps)]
    return sorted({int(row) for row in np.concatenate(some)})


def alone(x: Any, row: int) -> Any:
    """One row, without the levels of a column that are those of others."""
    one = rows_of(x, slice(row, row + 1))
    if not hasattr(one, "iloc"):
        return one
    levels = one.select_dtypes("category").columns
    return one.assign(**{name: one[name].cat.remove_unused_categories() for name in levels})


def content_of(x: Any) -> NDArray[np.float32]:
    """Numbers that stand for the points in the hash of a split: theirs, or four of their content.

    The latter, if some are text, missing or infinite.

    Examples
    --------
    >>> frame = pd.DataFrame({"size": [1.5, None, 1.5], "kind": ["a", "b", "a"]})
    >>> first, second, third = content_of(frame).tolist()
    >>> first == third, first == second
    (True, False)
    """
    frame = pd.DataFrame(x)
    if all(pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes):
        numbers = as_float32(frame)
        if np.isfinite(numbers).all():
            return numbers
    hashes = pd.util.hash_pandas_object(frame.astype(object), index=False).to_numpy("<u8")
    return hashes.view("<u2").reshape(len(frame), 4).astype(np.float32)


def as_float32(values: Any) -> NDArray[np.float32]:
    """A copy in float32, infinite where that has no such numbers, for the checks that follow."""
    values = values.toarray() if hasattr(values, "toarray") else values
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32, order="C")
