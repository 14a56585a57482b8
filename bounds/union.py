"""How a probability of failure is shared among statements that must all hold."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from pbnn.bounds._arrays import directed


@dataclass(frozen=True)
class Choice:
    """The least of several bounds, as `best_of` found it.

    Attributes
    ----------
    name : str
        Whose bound it is.
    bound : float
        Its value.
    delta : float
        Its share of the probability of failure.
    price : float
        What the choice cost it, ln(delta / share) in nats.
    bounds : dict of str to float
        All bounds, each at its share; with probability 1 - delta they hold together.
    """

    name: str
    bound: float
    delta: float
    price: float
    bounds: dict[str, float]


def union_price(count: int) -> float:
    r"""The price in nats of choosing one of `count` bounds after seeing the data.

    .. math:: \ln \frac{1}{\delta/\text{count}} = \ln\frac{1}{\delta} + \ln(\text{count})

    Added to the KL divergence it pays for a grid of parameters, of priors or of models. The grid
    must not depend on the data, and every member that could have been chosen counts. Bounds that
    are not a function of :math:`\mathrm{KL} + \ln\frac1\delta`, such as `viallard` and
    `chi_square`, take ``delta_each`` instead.

    Parameters
    ----------
    count : int
        Number of bounds to choose from, at least 1.

    Raises
    ------
    ValueError
        If `count` is below 1.
    TypeError
        If `count` is not an integer.

    References
    ----------
    J. Langford (2005), "Tutorial on practical prediction theory for classification", JMLR 6
    (union bound).

    Examples
    --------
    >>> union_price(1)
    0.0
    >>> round(union_price(1000), 6)
    6.907755
    """
    return math.log(_whole(count))


def share_delta(delta: float, weights: Mapping[str, float]) -> dict[str, float]:
    r"""Share a probability of failure in proportion to weights chosen before seeing the data.

    .. math:: \delta_i = w_i\,\delta, \qquad \sum_i w_i \le 1

    By the union bound all statements hold together with probability at least
    :math:`1 - \sum_i \delta_i \ge 1 - \delta`. Shares are rounded down, so that this sum does not
    exceed `delta`, neither as real numbers nor when added up in floating point.

    Parameters
    ----------
    delta : float
        Probability that any of the statements may fail, in (0, 1).
    weights : mapping of str to float
        Positive weights with a sum of at most 1 (give or take 1e-9, for weights such as thirds).

    Raises
    ------
    ValueError
        If `delta` or a weight is outside its domain, there is none, or they sum to more than 1.

    References
    ----------
    J. Langford (2005), "Tutorial on practical prediction theory for classification", JMLR 6
    (Occam's razor bound).

    Examples
    --------
    >>> share_delta(0.05, {"bound": 0.5, "draws": 0.25})
    {'bound': 0.025, 'draws': 0.0125}
    """
    _check_delta(delta)
    if not isinstance(weights, Mapping):
        raise TypeError(f"`weights` must be a mapping, got {type(weights).__name__}.")
    if not weights:
        raise ValueError("`weights` must hold at least one weight, got none.")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            kind = type(weight).__name__
            raise TypeError(f"`weights` must be real numbers, got {kind} for {name!r}.")
        if not 0 < weight < math.inf:
            raise ValueError(f"`weights` must be positive, got {weight!r} for {name!r}.")
    total = sum(map(Fraction, weights.values()))
    if total > 1 + 1e-9:
        raise ValueError(f"`weights` must sum to at most 1, got {float(total)!r}.")
    whole = Fraction(delta) / max(total, Fraction(1))
    shares = {
        name: directed(whole * Fraction(weight), up=False) for name, weight in weights.items()
    }
    while sum(shares.values()) > delta:
        shares = {name: math.nextafter(share, 0.0) for name, share in shares.items()}
    return shares


def delta_each(delta: float, count: int) -> float:
    r"""The equal share of a probability of failure among `count` statements, rounded down.

    .. math:: \delta / \text{count}

    Parameters
    ----------
    delta : float
        Probability that any of the statements may fail, in (0, 1).
    count : int
        Number of statements, at least 1, fixed before seeing the data.

    Raises
    ------
    ValueError
        If `delta` is outside (0, 1) or `count` below 1.
    TypeError
        If `count` is not an integer.

    References
    ----------
    O. J. Dunn (1961), "Multiple comparisons among means", JASA 56 (Bonferroni's inequality).

    Examples
    --------
    >>> delta_each(0.05, 2)
    0.025
    """
    _check_delta(delta)
    return directed(Fraction(delta) / _whole(count), up=False)


def best_of(
    candidates: Mapping[str, Callable[..., float]],
    *,
    delta: float = 0.05,
    weights: Mapping[str, float] | None = None,
) -> Choice:
    r"""The least of several bounds, each evaluated at its share of the probability of failure.

    .. math:: \min_i B_i(\delta_i), \qquad \delta_i = w_i\,\delta, \qquad \sum_i w_i \le 1

    Neither the candidates nor their weights may depend on the data; which one wins may.

    Parameters
    ----------
    candidates : mapping of str to callable
        Name -> bound, a function of the keyword `delta` that returns a float, such as
        ``functools.partial(maurer, 0.1, 50.0, 1000)``.
    delta : float
        Probability that any of the bounds may fail, in (0, 1).
    weights : mapping of str to float, optional
        Positive weights of the same names, with a sum of at most 1; equal ones by default. See
        `share_delta`.

    Returns
    -------
    Choice
        The least bound, the first of them where several are.

    Raises
    ------
    ValueError
        If there is no candidate, the names of `weights` differ, a bound is NaN, or `delta` or a
        weight is outside its domain.
    TypeError
        If a candidate returns something else than a float.

    References
    ----------
    J. Langford (2005), "Tutorial on practical prediction theory for classification", JMLR 6
    (union bound).

    Examples
    --------
    >>> from functools import partial
    >>> from pbnn.bounds import chernoff, maurer_pontil
    >>> best = best_of({"kl": partial(chernoff, 20, 200),
    ...                 "variance": partial(maurer_pontil, 0.1, 200, variance=0.001)})
    >>> best.name, round(best.bound, 6), best.delta
    ('variance', 0.158, 0.025)
    """
    _check_delta(delta)
    if not candidates:
        raise ValueError("`candidates` must hold at least one bound, got none.")
    if weights is None:
        shares = dict.fromkeys(candidates, delta_each(delta, len(candidates)))
    elif set(weights) != set(candidates):
        odd = sorted(map(repr, set(weights) ^ set(candidates)))
        raise ValueError(f"`weights` must name the candidates, got a difference in {odd[0]}.")
    else:
        shares = share_delta(delta, weights)
    bounds = {name: _number(name, bound(delta=shares[name])) for name, bound in candidates.items()}
    name = min(bounds, key=bounds.__getitem__)
    share = shares[name]
    return Choice(name, bounds[name], share, math.log(delta / share), bounds)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        kind = type(value).__name__
        raise TypeError(f"`candidates` must return a float, got {kind} from {name!r}.")
    if math.isnan(value):
        raise ValueError(f"`candidates` must return a number, got nan from {name!r}.")
    return float(value)


def _check_delta(delta: float) -> None:
    if isinstance(delta, bool) or not isinstance(delta, int | float):
        raise TypeError(f"`delta` must be a real number, got {type(delta).__name__}.")
    if not 0 < delta < 1:
        raise ValueError(f"`delta` must lie in (0, 1), got {delta!r}.")


def _whole(count: int) -> int:
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"`count` must be an integer, got {type(count).__name__}.")
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}.")
    return operator.index(count)
