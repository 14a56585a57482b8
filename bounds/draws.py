"""Bounds on a Gibbs risk that was estimated by drawing networks.

Put one in place of `risk` in a bound that grows with the risk; the two shares of delta add up. They
hold over the draws, for the sample as it is, and for any order in which it was visited.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from pbnn.bounds._arrays import COST, POSITIVE, PROBABILITY, Real, close, compare, detached, prepare
from pbnn.bounds.catalogue import catalogued
from pbnn.bounds.holdout import check_side
from pbnn.bounds.kl import inverse

_QUANTITY = "mean of independent losses, such as the empirical Gibbs risk over draws of networks"
_CONDITIONS = (
    "losses in [0, 1], independent, not necessarily of one distribution; {}; "
    "their number is fixed before looking"
)
_BOLD = 1 - 2.0**-10  # the largest share of the capital at stake: a loss of 1 never takes it all
_PLAIN = 2 / 3  # the share of the capital that is staked as if losses were 0 or 1
_ROUNDING = 2.0**-40  # of the logarithm of a factor, see `_log_capital`
_WIDTH = 1e-10  # relative, of the interval in which bisection leaves the bound


@catalogued(
    _QUANTITY,
    _CONDITIONS.format("one loss for each draw"),
    "Hoeffding 1963, Theorem 1; Langford and Caruana 2001",
)
def monte_carlo(
    risk: Real, draws: Real, *, delta: Real = 0.05, side: str = "upper", certify: bool = False
) -> Real:
    r"""Bound on a Gibbs risk that was estimated by drawing networks.

    .. math:: \mathrm{kl}^{\pm}\!\left(\hat r, \frac{\ln(1/\delta)}{m}\right)

    It holds by Chernoff's inequality for a mean of :math:`m` independent losses in [0, 1], whose
    expectations need not be equal. The lower side is for estimates that enter a bound with a minus
    sign or through the lower kl inverse; each side that is used has its own share of delta.

    A draw is one independent draw of the *weights*. A fresh network for each of the `n` examples,
    repeated over `passes`, makes :math:`m = n \cdot \text{passes}`. One network shared by a batch
    makes one draw, however large the batch: :math:`m` is the number of batches, `risk` their mean;
    for batches of unequal sizes there is `monte_carlo_batches`. The number of draws must be fixed
    before looking.

    Parameters
    ----------
    risk : float, array or tensor
        Mean loss of the draws, in [0, 1].
    draws : int, array or tensor
        Number :math:`m` of independent draws.
    delta : float, array or tensor
        Probability that this step may fail, in (0, 1), to be added to that of the bound.
    side : {"upper", "lower"}
        Which bound.
    certify : bool
        Whether to round outward: not inside the real value for the same inputs, see `kl_inverse`.

    Returns
    -------
    float, array or tensor
        Probability, of the broadcast shape.

    Raises
    ------
    ValueError
        If an argument is outside its domain.

    References
    ----------
    W. Hoeffding (1963), "Probability inequalities for sums of bounded random variables", JASA 58,
    Theorem 1. J. Langford, R. Caruana (2001), "(Not) bounding the true error", NIPS 14.

    Examples
    --------
    >>> round(monte_carlo(0.1, 10_000), 6)
    0.107503
    """
    check_side(side)
    xp, (risk, draws, delta), finish = prepare(risk=risk, draws=draws, delta=delta)
    value = inverse(xp, risk, -xp.log(delta) / draws, side=side, round_outward=certify)
    return finish(value, wide=certify)


@catalogued(
    _QUANTITY,
    _CONDITIONS.format("one draw for each batch, whose size is fixed before"),
    "Hoeffding 1963, Theorem 1, for batches scaled to the largest",
)
def monte_carlo_batches(
    errors: Real, sizes: Real, *, delta: float = 0.05, clip: bool = True, certify: bool = False
) -> Real:
    r"""Upper bound on a Gibbs risk that was estimated with one network for each batch.

    .. math:: \frac{B\,n_{\max}}{N}\,
              \mathrm{kl}^{+}\!\left(\frac{\sum_b k_b}{B\,n_{\max}}, \frac{\ln(1/\delta)}{B}\right),
              \qquad N = \sum_b n_b

    for the :math:`B` independent :math:`Z_b = k_b / n_{\max}` in [0, 1]: the examples of a batch
    share its network, so batches are counted, not examples. With equal sizes it is `monte_carlo`
    with `B` draws. Bounds what `monte_carlo` does, on the same conditions; the sizes must not
    depend on the networks either.

    Parameters
    ----------
    errors : sequence, array or tensor of shape (..., B)
        Number of errors, or sum of losses in [0, 1], of each batch.
    sizes : sequence, array or tensor of shape (..., B)
        Number of examples of each batch, positive.
    delta : float
        Probability that this step may fail, in (0, 1), to be added to that of the bound.
    clip : bool
        Whether to clip to [0, 1].
    certify : bool
        Whether to round up: not below the real value for the same inputs.

    Returns
    -------
    float, array or tensor
        Probability, of the broadcast shape without its last axis.

    Raises
    ------
    ValueError
        If an argument is outside its domain, `errors` exceeds `sizes`, or there is no batch.
    TypeError
        If `delta` is not one number, or an argument is an interval.

    Examples
    --------
    >>> round(monte_carlo_batches([3, 5, 2, 1], [100, 100, 100, 40]), 6)
    0.690708
    """
    given = errors
    errors, sizes = series("errors", errors, sizes), series("sizes", sizes, errors)
    one_number("delta", delta)
    domains = {"errors": COST, "sizes": POSITIVE}
    xp, (k, n, share), finish = prepare(domains, errors=errors, sizes=sizes, delta=delta)
    k, n = k + xp.zeros_like(n), n + xp.zeros_like(k)
    count = k.shape[-1]
    if not count:
        raise ValueError("`sizes` must hold at least one batch, got none.")
    compare(xp, "errors", k, operator.le, n, "must not exceed `sizes`")
    if certify:
        k, n = detached(k), detached(n)
    # A sum of non-negative numbers is wrong by a unit of 2^-53 of itself for each, at most.
    slack = (count + 4) * 2.0**-52 if certify else 0.0
    whole = count * xp.amax(n, -1)
    mean = xp.clip(k.sum(-1) / whole * (1 + slack), 0.0, 1.0)
    value = inverse(xp, mean, -xp.log(share) / count, round_outward=certify)
    value = value * (whole / n.sum(-1) * (1 + slack))
    return _like(given, close(value, xp, finish, clip=clip, round_up=certify))


@catalogued(
    _QUANTITY,
    _CONDITIONS.format("one loss for each draw"),
    "Waudby-Smith and Ramdas 2024, with a mixture of fixed stakes",
)
def betting(losses: Real, *, delta: float = 0.05) -> Real:
    r"""Upper bound on the mean of losses in [0, 1] by betting against every larger mean.

    .. math:: \inf\Bigl\{m : \sum_j w_j \prod_{i=1}^n
              \Bigl(1 + \kappa_j\,\frac{m - x_i}{1 - m}\Bigr) \ge \frac1\delta\Bigr\},
              \qquad \kappa_j(m) = \min\Bigl(1 - 2^{-10},\;
              2^j \sqrt{2c\,\tfrac{1 - m}{m}}\Bigr).

    Who stakes the share :math:`\kappa` of a capital of 1 at the odds that are fair for the mean
    :math:`m` ends with a product. Its expectation, if `m` is the average of the expectations
    :math:`\mu_i`, is :math:`\prod_i (1 + \kappa (m - \mu_i)/(1 - m)) \le 1`, as the geometric mean
    is not above the arithmetic one. By Markov's inequality the capital reaches :math:`1/\delta`
    with probability `delta` at most. It grows with `m`: a factor is linear in the loss, and both
    :math:`1 - \kappa` (at a loss of 1) and :math:`1 + \kappa m/(1-m)` (at a loss of 0) grow. So all
    means from the bound on are refused together.

    The stake :math:`j = 0`, with two thirds of the capital and :math:`c = \ln\frac{3}{2\delta}/n`,
    is about that of Chernoff's bound `monte_carlo`. The others share the last third equally, up to
    the least :math:`2^j \ge (2c)^{-1/2}` (if that is 1, the first has all); they are for losses
    whose standard deviation is :math:`2^j` times smaller than that of losses of 0 or 1. For these
    last the bound exceeds Chernoff's by some per cent of its distance to the mean; for losses of
    low variance it is many times closer to the mean.

    The losses must be independent, given the sample that was visited, and their *number fixed*
    before looking. Nothing else is asked: their expectations may differ and follow any order, as
    with one draw for each example of a data set. (Stakes that learn from earlier losses, or the
    best bound over all numbers of losses, would need examples and weights drawn i.i.d.: with data
    in a fixed order such a bound fails always where the easy examples come first.)

    Parameters
    ----------
    losses : sequence, array or tensor of shape (..., n)
        Losses in [0, 1].
    delta : float
        Probability that the bound may fail, in (0, 1).

    Returns
    -------
    float, array or tensor
        The bound, without the last axis. Always rounded up, by 1e-7 of itself at most for n up to
        1e5; float64, without gradient. For a lower bound take
        ``1 - betting(1 - losses)``.

    Raises
    ------
    ValueError
        If a loss is outside [0, 1], there is none, or `delta` is outside (0, 1).
    TypeError
        If `losses` are no real numbers, or intervals, or `delta` is not one number.

    References
    ----------
    I. Waudby-Smith, A. Ramdas (2024), "Estimating means of bounded random variables by betting",
    JRSS B 86, https://arxiv.org/abs/2010.09686.
    W. Hoeffding (1963), "Probability inequalities for sums of bounded random variables", JASA 58.

    Examples
    --------
    >>> round(betting([0.2, 0.3] * 500), 5), round(monte_carlo(0.25, 1000), 5)
    (0.25508, 0.28447)
    """
    sequence, losses = losses, series("losses", losses)
    one_number("delta", delta)
    losses = detached(losses)
    domains = {"losses": PROBABILITY}
    xp, given, finish = prepare(domains, losses=losses, delta=delta)
    rows, share = (x if xp is np else x.cpu().numpy() for x in given)
    if rows.shape[-1] == 0:
        raise ValueError("`losses` must hold at least one loss, got none.")
    values = [_refused(row, float(share)) for row in rows.reshape(-1, rows.shape[-1])]
    value: Any = np.array(values, dtype=np.float64).reshape(rows.shape[:-1])
    if xp is not np:
        value = xp.as_tensor(value, device=given[0].device)
    return _like(sequence, finish(value, wide=True))


def _refused(losses: Any, delta: float) -> float:
    """A mean that is refused with certainty, next to the least one; 1 if there is none."""
    n = len(losses)
    goal = -math.log(delta) + _ROUNDING * (n + 1)
    c = -math.log(_PLAIN * delta) / n
    count = max(0, math.ceil(-math.log2(2 * c) / 2))
    weights = np.array([_PLAIN, *[(1 - _PLAIN) / count] * count] if count else [1.0])
    stakes = np.ldexp(math.sqrt(2 * c), np.arange(count + 1))
    x, times = np.unique(losses, return_counts=True)
    low, high = 0.0, 1.0
    while high - low > _WIDTH * high:
        mean = (low + high) / 2
        if _log_capital(x, times, mean, stakes, weights) >= goal:
            high = mean
        else:
            low = mean
    return high


def _log_capital(x: Any, times: Any, mean: float, stakes: Any, weights: Any) -> float:
    """The logarithm of the capital after all bets against `mean`.

    A stake is at most `_BOLD`, so its few roundings move the logarithm of a factor by less than
    2^12 units of 2^-53; those of the sum, pairwise, by less than 2^9 units on average.
    """
    stake = np.minimum(_BOLD, stakes * math.sqrt((1 - mean) / mean))[:, None]
    factors = (1 - stake) + stake * ((1 - x) / (1 - mean))
    logs = (times * np.log(factors)).sum(axis=-1) + np.log(weights)
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).sum()))


def series(name: str, value: Any, beside: Any = None) -> Any:
    """A list or tuple as an array, or a tensor `beside` one; without a last axis a TypeError."""
    if isinstance(value, (list, tuple)) and any(isinstance(each, bool) for each in value):
        raise TypeError(f"`{name}` must hold real numbers, got True or False.")
    if isinstance(value, (list, tuple)) and hasattr(beside, "new_tensor"):
        value = beside.double().new_tensor(value)
    if isinstance(value, (list, tuple)):
        value = np.asarray(value) if len(value) else np.zeros(0)
    if not len(getattr(value, "shape", ())):
        raise TypeError(
            f"`{name}` must be a sequence, a NumPy array or a torch tensor with at least one axis, "
            f"got {type(value).__name__}."
        )
    return value


def _like(given: Any, value: Any) -> Any:
    """A float for a flat sequence of numbers."""
    return float(value) if isinstance(given, (list, tuple)) and not value.shape else value


def one_number(name: str, value: Any) -> None:
    """Refuse arrays, which would have to be matched with a last axis that is summed over."""
    if getattr(value, "namespace", None) is not None:
        raise TypeError("A bound of sequences of losses has no interval form.")
    if len(getattr(value, "shape", ())):
        raise TypeError(f"`{name}` must be one number, got {type(value).__name__}.")
