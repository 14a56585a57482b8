"""Which example serves for what: index sets fixed by a seed before a label is looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbnn.data.tasks import Task
from pbnn.files import sha256


@dataclass(frozen=True, eq=False)
class Splits:
    """Disjoint sets of indices into one task, each of dtype int64.

    Attributes
    ----------
    feature : (f,) array
        Examples that may shape features or preprocessing; may be empty.
    prior : (p,) array
        Examples the prior may be trained on; may be empty.
    certification : (n,) array
        Examples the bound is evaluated on: neither prior nor features may depend on them.
    test : (t,) array
        Examples seen by nothing but the final evaluation; may be empty.

    Raises
    ------
    TypeError
        If a part is not made of integers.
    ValueError
        If a part is not one-dimensional, holds a negative index, an index occurs twice, or
        `certification` is empty.

    Examples
    --------
    >>> Splits(feature=[], prior=[4], certification=[0, 2], test=[1, 3]).n
    2
    """

    feature: NDArray[np.int64]
    prior: NDArray[np.int64]
    certification: NDArray[np.int64]
    test: NDArray[np.int64]

    def __post_init__(self) -> None:
        for field in fields(self):
            part = indices(getattr(self, field.name), field.name)
            object.__setattr__(self, field.name, part)
        if not self.n:
            raise ValueError("`certification` must hold at least one index, got none.")
        values, counts = np.unique(np.concatenate(self._parts()), return_counts=True)
        if counts.max() > 1:
            twice = values[counts > 1]
            raise ValueError(
                "the parts must be disjoint and without repetition, "
                f"but index {twice[0]} occurs twice (of {len(twice)} such)."
            )

    def _parts(self) -> tuple[NDArray[np.int64], ...]:
        return self.feature, self.prior, self.certification, self.test

    @property
    def n(self) -> int:
        """The n of a certificate: the number of certification examples."""
        return len(self.certification)

    def hashes(self, task: Task) -> dict[str, str]:
        """SHA-256 of each part: of the task's own hash followed by the indices as little-endian
        int64, so that a part's hash stands for its examples and their order.

        Raises
        ------
        ValueError
            If an index lies outside the task.

        Examples
        --------
        >>> import numpy as np
        >>> task = Task.of("two", np.float32([[0], [1]]), np.float32([-1, 1]), "by hand")
        >>> sorted(Splits([], [], [0], [1]).hashes(task))
        ['certification', 'feature', 'prior', 'test']
        """
        largest = max(int(part.max(initial=-1)) for part in self._parts())
        if largest >= len(task.y):
            raise ValueError(
                f"`task` must have an example for every index, "
                f"but index {largest} is beyond its {len(task.y)} examples."
            )
        return {
            field.name: sha256(task.sha256.encode() + part.astype("<i8").tobytes())
            for field, part in zip(fields(self), self._parts(), strict=True)
        }


def indices(part: Any, name: str) -> NDArray[np.int64]:
    """The argument `name` as a one-dimensional array of indices >= 0."""
    part = np.asarray(part)
    if part.ndim != 1:
        raise ValueError(f"`{name}` must be one-dimensional, got shape {part.shape}.")
    if part.size == 0:
        return np.empty(0, dtype=np.int64)
    if not np.issubdtype(part.dtype, np.integer):
        raise TypeError(f"`{name}` must hold integers, got dtype {part.dtype}.")
    if part.min() < 0:
        raise ValueError(f"`{name}` must hold indices >= 0, got {part.min()}.")
    return part.astype(np.int64)


def split(
    task: Task, *, seed: int = 42, test: float = 0.25, feature: int = 0, prior: float = 0.0
) -> Splits:
    r"""Split the examples of a task at random, without looking at features or labels.

    A permutation of the N examples drawn from the seed is cut into
    :math:`\lceil \text{test} \cdot N \rceil` test examples and, in this order, `feature` feature
    examples, :math:`\lfloor \text{prior} \cdot m \rfloor` of the m that remain for the prior, and
    the rest for certification. The test part equals that of scikit-learn's `train_test_split`
    with the same seed, as in the experiments of the reference.

    Parameters
    ----------
    task : Task
        Only its number of examples is used.
    seed : int in [0, 2**32)
        Fixes all four parts.
    test : float in [0, 1)
        Fraction of all examples.
    feature : int
        Number of examples.
    prior : float in [0, 1)
        Fraction of what test and feature leave.

    Returns
    -------
    Splits
        Disjoint parts that cover the task.

    Raises
    ------
    ValueError
        If an argument is outside its domain, or leaves nothing for certification.

    References
    ----------
    Letarte, Germain, Guedj and Laviolette, Dichotomize and Generalize (2019), section 6.
    https://arxiv.org/abs/1905.10259

    Examples
    --------
    >>> import numpy as np
    >>> task = Task.of("ten", np.zeros((10, 1), np.float32), np.ones(10, np.float32), "by hand")
    >>> parts = split(task, prior=0.5)
    >>> len(parts.test), len(parts.prior), parts.n
    (3, 3, 4)
    """
    _check(seed, feature, test=test, prior=prior)
    size = len(task.y)
    tested = math.ceil(test * size)
    if tested + feature >= size:
        raise ValueError(
            f"`test` and `feature` must leave examples for certification, got {tested} and "
            f"{feature} of {size} examples."
        )
    order = _permutation(size, seed)
    return _cut(order[tested:], order[:tested], feature, prior)


def published_split(task: Task, *, prior: float = 0.0, feature: int = 0, seed: int = 42) -> Splits:
    r"""Keep the published test set, and split the published training examples at random.

    A permutation of the `Task.train` leading rows drawn from the seed is cut, in this order, into
    `feature` feature examples, :math:`\lfloor \text{prior} \cdot m \rfloor` of the m that remain
    for the prior, and the rest for certification; neither features nor labels are looked at.
    A certificate supposes that the certification examples are drawn like the new ones it speaks
    of. The test examples, drawn by the publisher, only check it.

    Parameters
    ----------
    task : Task
        With a published test set; only `Task.train` and its number of examples are used.
    prior : float in [0, 1)
        Fraction of what the feature examples leave.
    feature : int
        Number of examples.
    seed : int in [0, 2**32)
        Fixes the three parts of the training examples.

    Returns
    -------
    Splits
        Disjoint parts that cover the task, `test` in the publisher's order.

    Raises
    ------
    TypeError
        If `feature` or `seed` is no integer.
    ValueError
        If no test set of the task is published, if an argument is outside its domain, or if
        nothing is left for certification.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.zeros((10, 1), np.float32), np.ones(10, np.float32)
    >>> parts = published_split(Task.of("ten", x, y, "by hand", train=8), prior=0.5)
    >>> len(parts.prior), parts.n, parts.test.tolist()
    (4, 4, [8, 9])
    """
    _check(seed, feature, prior=prior)
    if task.train is None:
        raise ValueError(f"`task` must have a published test set, got {task.name!r} without one.")
    if feature >= task.train:
        raise ValueError(
            f"`feature` must leave examples for certification, got {feature} of {task.train} "
            "training examples."
        )
    order = _permutation(task.train, seed)
    return _cut(order, np.arange(task.train, len(task.y)), feature, prior)


def cut(task: Task, *, prior: float = 0.0, feature: int = 0, seed: int = 42) -> Splits:
    """The published test examples apart, or a quarter where nobody has published any.

    Parameters are those of `published_split` and `split`.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.zeros((8, 1), np.float32), np.ones(8, np.float32)
    >>> [len(cut(Task.of("t", x, y, "by hand", train=train)).test) for train in (5, None)]
    [3, 2]
    """
    how = split if task.train is None else published_split
    return how(task, prior=prior, feature=feature, seed=seed)


def _check(seed: Any, feature: Any, **fractions: float) -> None:
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ValueError(f"`{name}` must lie in [0, 1), got {fraction}.")
    for name, count, end in (("seed", seed, 2**32), ("feature", feature, None)):
        if isinstance(count, bool) or not isinstance(count, int | np.integer):
            raise TypeError(f"`{name}` must be an integer, got {count!r}.")
        if count < 0 or (end is not None and count >= end):
            domain = ">= 0" if end is None else f"in [0, {end})"
            raise ValueError(f"`{name}` must be {domain}, got {count}.")


def _permutation(size: int, seed: int) -> NDArray[np.int64]:
    # The legacy generator on purpose: it is the one whose permutation scikit-learn cuts.
    return np.random.RandomState(seed).permutation(size)


def _cut(order: NDArray[np.int64], test: NDArray[np.int64], feature: int, prior: float) -> Splits:
    """The test examples aside, the others cut into feature, prior and certification part."""
    trained = math.floor(prior * (len(order) - feature))
    features, priors, certification = np.split(order, np.cumsum([feature, trained]))
    return Splits(features, priors, certification, test)
