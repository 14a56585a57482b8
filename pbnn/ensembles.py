"""Anytime ensembles: members join one at a time, and a sequential test stops each example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

Member = Callable[[Tensor], Tensor]

FRACTIONS = (0.5, 0.75, 1.0)
"""Shares of the capital to bet, side by side: all of it suits unanimity, less suits close calls."""
GRID = 2.0**32
"""Probabilities are rounded to multiples of 1/GRID: float64 adds up to 2²¹ of them exactly."""


@dataclass(frozen=True)
class AnytimePrediction:
    """What an ensemble says of n examples, each after as many members as it needed.

    Attributes
    ----------
    prediction : Tensor of int64, shape (n,)
        The class with the largest probability, the first of several.
    probability : Tensor of float64, shape (n, K)
        Mean of the probabilities that the members used give.
    members : Tensor of int64, shape (n,)
        How many members were used.
    """

    prediction: Tensor
    probability: Tensor
    members: Tensor


@torch.no_grad()
def anytime(members: Sequence[Member], x: Tensor, *, alpha: float = 0.05) -> AnytimePrediction:
    r"""Predict as the ensemble of all members would, with as few of them as each example needs.

    All N members together predict w, the class of the largest sum of probabilities (the first of
    several). An example stops at the leading class a once every other class b is rejected: for
    certain, when the members to come cannot bring it to the front, or by a bet that w ≠ b. While a
    leads b by L > 0, with r members to come and D = p_a − p_b the lead that the next one adds, the
    capital bet against b, at first 1, grows by

    .. math:: 1 - c + c\, \frac{(1 + D)\, r}{r - L},

    and b is rejected once the average capital over the `FRACTIONS` c has reached 1/alpha. Then,
    for every example,

    .. math:: \mathbb P(\text{prediction} \ne w) \le \alpha

    over the random order of the members. Proof: if b = w, then all D sum to at most 0, whatever a;
    given the past, the r members to come are in random order, so D has mean at most −L/r and the
    capital is a non-negative supermartingale. By Ville's inequality it ever reaches 1/alpha with
    probability at most alpha, and a wrong stop has rejected w. The bet is on one leader, known
    before the next member is seen, so that nothing is paid for the number of classes.

    Probabilities are rounded to multiples of 2⁻³², so that sums are exact: ties are ties, a certain
    rejection is certain, and w does not depend on the order. Beside the members themselves, about
    20 float64 numbers are held for every class of a running example: 16 MB for 10,000 examples of
    ten classes.

    Parameters
    ----------
    members : sequence of N callables
        Each maps inputs (k, ...) to probabilities (k, K), each row by itself. Their order must be
        random and know nothing of the data: networks drawn independently may come as they are. A
        member is called at most once, on the examples still running.
    x : Tensor, shape (n, ...)
    alpha : float
        In [0, 1), fixed before looking; 0 stops an example only when its prediction is certain.

    Raises
    ------
    ValueError
        If `alpha` is outside [0, 1), there is no member, or one does not return probabilities in
        [0, 1] of K ≥ 2 classes (that sum to 1 or not).

    References
    ----------
    Waudby-Smith & Ramdas (2020). Confidence sequences for sampling without replacement. NeurIPS.
    https://arxiv.org/abs/2006.04347; Stark (2023). ALPHA: audit that learns from previously
    hand-audited ballots. Annals of Applied Statistics 17.

    Examples
    --------
    >>> unanimous = [lambda x: torch.tensor([[0.0, 1.0]]).expand(len(x), -1)] * 16
    >>> anytime(unanimous, torch.zeros(2, 3)).members
    tensor([5, 5])
    >>> anytime(unanimous, torch.zeros(2, 3), alpha=0).members
    tensor([9, 9])
    """
    if not 0 <= alpha < 1:
        raise ValueError(f"`alpha` must lie in [0, 1), got {alpha}.")
    p = _evaluate(members, 0, x)
    mean, used = torch.zeros_like(p), p.new_zeros(len(x), dtype=torch.int64)
    rows, audit = torch.arange(len(x), device=p.device), _start(p)
    for place in range(len(members)):
        if place:
            p = _evaluate(members, place, x[rows], classes=p.shape[1])
        audit = _add(audit, p, len(members) - place, alpha)
        mean[rows] = audit.total / (place + 1)
        used[rows] = place + 1
        running = ~(audit.rejected.scatter(1, audit.leader, True).all(1))
        rows, audit = rows[running], _Audit(*(each[running] for each in audit))
        if not len(rows):
            break
    return AnytimePrediction(mean.argmax(1), mean, used)


@torch.no_grad()
def full_ensemble(members: Sequence[Member], x: Tensor) -> Tensor:
    r"""Mean probabilities over all members, float64 of shape (n, K): what `anytime` foresees.

    .. math:: \bar p_k = \frac1N \sum_{i=1}^N p_{i,k}

    Rounded and checked as in `anytime`, whose predictions are to be compared with the ``argmax(1)``
    of this.

    Examples
    --------
    >>> votes = [lambda x: torch.eye(2)[[0]], lambda x: torch.eye(2)[[1]]]
    >>> full_ensemble(votes, torch.zeros(1, 3))
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    total = _evaluate(members, 0, x)
    for place in range(1, len(members)):
        total += _evaluate(members, place, x, classes=total.shape[1])
    return total / len(members)


def stopping_times(probabilities: Tensor, *, alpha: float = 0.05) -> AnytimePrediction:
    """What `anytime` does with members that have been evaluated already, in the order given.

    Parameters
    ----------
    probabilities : Tensor, shape (N, n, K)
        Of N members on n examples.
    alpha : float
        In [0, 1).

    Examples
    --------
    >>> votes = torch.eye(3)[torch.tensor([[0, 0], [0, 1], [0, 2], [0, 1]])]
    >>> stopping_times(votes, alpha=0).members
    tensor([2, 4])
    """
    if probabilities.ndim != 3:
        raise ValueError(
            f"`probabilities` must have shape (N, n, K), got {tuple(probabilities.shape)}."
        )
    rows = torch.arange(probabilities.shape[1], device=probabilities.device)
    return anytime([partial(torch.index_select, p, 0) for p in probabilities], rows, alpha=alpha)


class _Audit(NamedTuple):
    """The test of k running examples."""

    total: Tensor  # (k, K): sums of the probabilities so far
    leader: Tensor  # (k, 1): the class of the largest sum
    lead: Tensor  # (k, K): of the leader over each class
    capital: Tensor  # (k, fractions, K): bet against each class
    rejected: Tensor  # (k, K): not the full ensemble's prediction


def _start(p: Tensor) -> _Audit:
    nothing, rejected = torch.zeros_like(p), torch.zeros_like(p, dtype=torch.bool)
    leader = torch.zeros_like(rejected[:, :1], dtype=torch.int64)
    capital = p.new_ones(len(p), len(FRACTIONS), p.shape[1])
    return _Audit(nothing, leader, nothing, capital, rejected)


def _add(audit: _Audit, p: Tensor, remaining: int, alpha: float) -> _Audit:
    """The test after the next member, the first of `remaining`, has said p."""
    gap = remaining - audit.lead
    gain = 1 + p.gather(1, audit.leader) - p
    # At a lead of 0 it is a toss-up which class to bet on; at no gap the class is rejected or ties.
    payoff = torch.where((audit.lead > 0) & (gap > 0), gain * remaining / gap, 1.0)
    fraction = p.new_tensor(FRACTIONS)[:, None]
    capital = audit.capital * (1 + fraction * (payoff[:, None] - 1))

    total, to_come = audit.total + p, remaining - 1
    leader = total.argmax(1, keepdim=True)
    lead = total.gather(1, leader) - total
    behind_in_a_tie = leader < torch.arange(p.shape[1], device=p.device)
    certain = (lead > to_come) | ((lead == to_come) & behind_in_a_tie)
    rejected = audit.rejected | certain | (alpha * capital.mean(1) >= 1)
    return _Audit(total, leader, lead, capital, rejected)


def _evaluate(
    members: Sequence[Member], place: int, x: Tensor, classes: int | None = None
) -> Tensor:
    """Probabilities of one member, checked and rounded to the grid, in float64."""
    if not len(members):
        raise ValueError("`members` must hold at least one member, got none.")
    p = members[place](x)
    if p.ndim != 2 or len(p) != len(x) or p.shape[1] < 2 or p.shape[1] != (classes or p.shape[1]):
        raise ValueError(
            f"`members[{place}]` must return shape ({len(x)}, {classes or 'K ≥ 2'}), "
            f"got {tuple(p.shape)}."
        )
    if not ((p >= 0) & (p <= 1)).all():
        low, high = p.min().item(), p.max().item()
        raise ValueError(f"`members[{place}]` must return values in [0, 1], got {low} to {high}.")
    return (p.double() * GRID).round() / GRID
