"""Bounds on the frequencies of several types of error at once, such as a confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pbnn.bounds._arrays import FINITE, SLACK, Real, check, detached, prepare, quiet
from pbnn.bounds.catalogue import catalogued
from pbnn.bounds.constants import CONSTANTS

MOST_TYPES = 2**16
_STEPS = (
    46  # bisections of an interval of length 750 to a relative 1e-11, whose square is the error
)


@catalogued(
    "kl divergence from the true to the empirical frequencies of the error types",
    "each loss a vector of frequencies that sum to 1; n independent examples; the prior does not "
    "depend on them; holds for every posterior at once",
    "Adams et al. 2024",
)
def vector_kl(
    kl: Real, n: Real, *, types: int, delta: Real = 0.05, constant: str = "adams"
) -> Real:
    r"""Bound on the divergence between the empirical and the true frequencies of error types.

    .. math:: \mathrm{kl}(\hat{\mathbf R} \,\|\, \mathbf R) \le \frac1n\left(\mathrm{KL} + \ln
              \frac{\sqrt\pi\,e^{1/(12n)}}{\delta} \left(\frac n2\right)^{\frac{M-1}{2}}
              \sum_{z=0}^{M-1} \binom Mz \frac{(2/n)^{z/2}}{\Gamma\bigl(\frac{M-z}{2}\bigr)}\right)

    where each of `M` types (being right is one of them) has an empirical frequency in
    :math:`\hat{\mathbf R}` and a true one in :math:`\mathbf R`, both under the posterior. The
    types and their number must not depend on the examples. `vector_kl_worst` turns the result into
    a bound on the mean cost of an error.

    The logarithm bounds the mean of :math:`e^{n\,\mathrm{kl}}` by Stirling's formula for every
    `n`, also below `M`. With ``constant="xi"`` it is that mean itself, the multinomial sum

    .. math:: \xi_M(n) = \sum_{k_1 + \dots + k_M = n} \frac{n!}{k_1! \cdots k_M!}
              \prod_j \Bigl(\frac{k_j}{n}\Bigr)^{k_j}, \qquad
              \xi_{M+2}(n) = \xi_{M+1}(n) + \frac nM\,\xi_M(n),

    which is tighter, and with two types is that of `maurer`. The form with
    :math:`(\pi n)^{-z/2}` for :math:`(2/n)^{z/2}` is left out: it falls below :math:`\xi_M(n)` on
    small samples (four types and one example, eleven types and twelve), hence is no bound.

    Parameters
    ----------
    kl : float, array or tensor
        KL divergence from prior to posterior in nats, at least 0; infinity gives infinity.
    n : int, array or tensor
        Number of examples.
    types : int
        Number `M` of types, at least 2: a Python integer.
    delta : float, array or tensor
        Probability that the bound may fail, in (0, 1).
    constant : {"adams", "xi"}
        Which bound on the mean of :math:`e^{n\,\mathrm{kl}}`; to be chosen without the data.

    Returns
    -------
    float, array or tensor
        In nats per example, not clipped.

    Raises
    ------
    ValueError
        If an argument is outside its domain or `constant` unknown.
    TypeError
        If `types` is no integer.

    References
    ----------
    R. Adams, J. Shawe-Taylor, B. Guedj (2024), "Controlling multiple errors simultaneously with a
    PAC-Bayes bound", NeurIPS, https://arxiv.org/abs/2202.05560. P. Kontkanen, P. Myllymaki (2007),
    "A linear-time algorithm for computing the multinomial stochastic complexity", Inf. Process.
    Lett. 103 (the recursion).

    Examples
    --------
    >>> round(vector_kl(10.0, 1000, types=3), 6)
    0.020019
    >>> round(vector_kl(10.0, 1000, types=3, constant="xi"), 6)
    0.019943
    """
    xp, (kl, n, delta), finish = prepare(kl=kl, n=n, delta=delta)
    if constant not in _MULTINOMIAL:
        raise ValueError(f"`constant` must be one of {sorted(_MULTINOMIAL)}, got {constant!r}.")
    log_mean = _MULTINOMIAL[constant](xp, n, _whole(types))
    return finish((kl + log_mean - xp.log(delta)) / n)


@quiet
def vector_kl_worst(frequency: Real, budget: Real, weights: Real) -> Real:
    r"""The largest mean cost whose frequencies are within a kl budget of the observed ones.

    .. math:: \sup\Bigl\{\sum_j w_j p_j : \mathrm{kl}(\mathbf q \,\|\, \mathbf p) \le c\Bigr\}
              = \inf_{\nu > \max_j w_j} \nu - e^{-c} \prod_j (\nu - w_j)^{q_j}

    With the budget :math:`c` of `vector_kl` it bounds the true mean cost, for any number of cost
    vectors at once: they may depend on the examples. For two types of costs 0 and 1 it is
    ``kl_inverse``. Each :math:`\nu` gives a bound, so an inexact search for the best one loses
    nothing but tightness; the float64 result is rounded up, hence never below the real value, and
    carries no gradient.

    Parameters
    ----------
    frequency : array or tensor
        Observed frequencies :math:`q_j`, of shape (..., types), with sum 1 but for rounding: they
        are divided by it.
    budget : float, array or tensor
        Nats per example, at least 0, of shape (...); infinity gives the largest cost.
    weights : array or tensor
        Costs :math:`w_j`, finite, of shape (..., types).

    Returns
    -------
    float, array or tensor
        Of shape (...).

    Raises
    ------
    ValueError
        If an argument is outside its domain or frequencies do not sum to 1.
    TypeError
        For the intervals of `pbnn.bounds.exact`: the result is rounded up as it is.

    References
    ----------
    A. Owen (1990), "Empirical likelihood ratio confidence regions", Ann. Statist. 18 (the dual).

    Examples
    --------
    >>> import numpy as np
    >>> float(vector_kl_worst(np.array([0.1, 0.2, 0.7]), 0.02, np.array([5.0, 1.0, 0.0])).round(6))
    1.043386
    """
    if getattr(budget, "shape", ()):
        budget = budget[..., None]
    domains = {"budget": (lambda x: x >= 0, "must be non-negative"), "weights": FINITE}
    given = prepare(domains, frequency=frequency, budget=budget, weights=weights)
    xp, (frequency, budget, weights), finish = given
    refuse_intervals(xp, "vector_kl_worst")
    for name, value in (("frequency", frequency), ("weights", weights)):
        if not value.shape:
            raise ValueError(f"`{name}` must have an axis of types, got a single number.")
    frequency, budget, weights = map(detached, (frequency, budget, weights))
    total = frequency.sum(-1)
    check("frequency", total, lambda x: abs(x - 1) <= 1e-6, "must sum to 1 over the types")
    value = largest_mean(xp, frequency / total[..., None], budget, weights)
    return finish(value, wide=True)


def largest_mean(xp: Any, q: Any, budget: Any, weights: Any) -> Any:
    """`vector_kl_worst` on float64 arrays of the namespace `xp`; the last axis is that of types.

    The best nu is where p_j, in proportion to q_j / (nu - w_j), is at the distance `budget` from
    q; the distance falls with nu. At any nu, by the inequality of the arithmetic and the geometric
    mean, sum_j p_j (nu - w_j) >= exp(-kl(q || p)) prod_j (nu - w_j)^q_j.
    """
    low, top = xp.amin(weights, -1)[..., None], xp.amax(weights, -1)[..., None]
    scale = top - low
    unit = xp.where(scale > 0, scale, 1.0)
    w, gap = (weights - low) / unit, (top - weights) / unit

    def log_rest(v: Any) -> Any:
        """The mean of ln(1 - w / nu), nu = 1 + v."""
        x = w / (1 + v)
        return (q * xp.where(x < 0.5, xp.log1p(-x), xp.log((v + gap) / (1 + v)))).sum(-1)[..., None]

    near = xp.zeros_like((q * w).sum(-1)[..., None] + budget) - 700.0
    far = near + 750.0
    for _ in range(_STEPS):
        middle = 0.5 * (near + far)
        v = xp.exp(middle)
        distance = log_rest(v) + xp.log1p((q * (w / (v + gap))).sum(-1)[..., None])
        too_far = distance < budget
        near, far = xp.where(too_far, near, middle), xp.where(too_far, middle, far)
    v = xp.exp(far)
    share = -(1 + v) * xp.expm1((1 + SLACK) * (log_rest(v) - budget))
    value = low + scale * share + SLACK * (abs(low) + scale * share)
    return xp.minimum(xp.nextafter(value, value + math.inf), top + 0 * value)[..., 0]


def refuse_intervals(xp: Any, name: str) -> None:
    """TypeError in the interval namespace, for what is a search and not a formula."""
    if hasattr(xp, "kl_inverse"):
        raise TypeError(f"`{name}` has no interval form; its float64 result is rounded up already.")


def _whole(types: Any) -> int:
    if hasattr(types, "ends"):  # an interval of `pbnn.bounds.exact`, which is a point
        types = int(types.ends()[0])
    if not isinstance(types, int) or isinstance(types, bool):
        raise TypeError(f"`types` must be an integer, got {type(types).__name__}.")
    if types < 2:
        raise ValueError(f"`types` must be at least 2, got {types}.")
    if types > MOST_TYPES:  # over which it sums one by one
        raise ValueError(f"`types` must be at most {MOST_TYPES}, got {types}.")
    return types


def _log_adams(xp: Any, n: Any, types: int) -> Any:
    # The sum over k = types - z of binom(types, k) sqrt(pi) y^(k-1) / Gamma(k/2), y = sqrt(n/2),
    # gathered as logarithms, for it may leave the range of floats. `share` is that of the last term
    # in the sum so far; successive ratios of Gamma functions have the product (k - 1) / 2.
    y = xp.sqrt(n / 2)
    total, share, gammas = xp.log(0 * n + types), 1 + 0 * n, 1 / xp.sqrt(0 * n + xp.pi)
    for k in range(2, types + 1):
        growth = share * y * (types - k + 1) / (k * gammas)
        total = total + xp.log1p(growth)
        share = growth / (1 + growth)
        gammas = (k - 1) / (2 * gammas)
    return 1 / (12 * n) + total


def _log_multinomial(xp: Any, n: Any, types: int) -> Any:
    total = CONSTANTS["xi"](xp, n)
    ratio = xp.exp(total)
    for m in range(1, types - 1):
        ratio = 1 + n / (m * ratio)
        total = total + xp.log(ratio)
    return total


_MULTINOMIAL: dict[str, Callable[[Any, Any, int], Any]] = {
    "adams": _log_adams,
    "xi": _log_multinomial,
}
