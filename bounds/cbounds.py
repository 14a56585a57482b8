"""C-bounds: the vote's risk from the first two moments of its margin."""

from __future__ import annotations

import math
from typing import Any

from pbnn.bounds._arrays import ROUNDING, SLACK, Real, check, close, detached, prepare, quiet
from pbnn.bounds.catalogue import catalogued
from pbnn.bounds.constants import log_constant
from pbnn.bounds.kl import inverse
from pbnn.bounds.multiclass import largest_mean, refuse_intervals
from pbnn.bounds.votes import TWO_CLASSES, VOTE, budgets

_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 44  # golden sections, to 1e-9, whose square is the error


@catalogued(VOTE, TWO_CLASSES, "Germain et al. 2015, PAC-Bound 1")
@quiet
def c_bound(
    risk: Real,
    disagreement_rate: Real,
    kl: Real,
    n: Real,
    *,
    n_pairs: Real | None = None,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
) -> Real:
    r"""The C-bound of the Gibbs risk and the disagreement.

    .. math:: 1 - \frac{(1 - 2 r)^2}{1 - 2 d}, \qquad
              r = \mathrm{kl}^{+}\!\left(\hat R,
              \tfrac1n\bigl(\mathrm{KL} + \ln\tfrac{4\sqrt n}{\delta}\bigr)\right), \quad
              d = \mathrm{kl}^{-}\!\left(\hat d,
              \tfrac1{n'}\bigl(2\,\mathrm{KL} + \ln\tfrac{4\sqrt{n'}}{\delta}\bigr)\right)

    and 1 where :math:`r \ge \frac12` or :math:`d \ge \frac12`. Both events have half of delta.
    Arguments and errors as for `disagreement`.

    References
    ----------
    P. Germain, A. Lacasse, F. Laviolette, M. Marchand, J.-F. Roy (2015), "Risk bounds for the
    majority vote: from a PAC-Bayesian analysis to a learning algorithm", JMLR 16, PAC-Bound 1,
    https://arxiv.org/abs/1503.08329.

    Examples
    --------
    >>> round(c_bound(0.1, 0.15, 50.0, 10_000), 6)
    0.332252
    """
    n_pairs = n if n_pairs is None else n_pairs
    given = prepare(
        risk=risk, disagreement_rate=disagreement_rate, kl=kl, n=n, n_pairs=n_pairs, delta=delta
    )
    xp, (risk, rate, kl, n, n_pairs, delta), finish = given
    gibbs, pair = budgets(xp, kl, n, n_pairs, delta, constant)
    r, d = inverse(xp, risk, gibbs), inverse(xp, rate, pair, side="lower")
    silent = (r >= 0.5) | (d >= 0.5)  # false for NaN, which goes through
    # Where nothing is told, nothing may come back through an infinite slope.
    d = inverse(xp, xp.where(silent, 0.25, rate), pair, side="lower")
    value = (4 * r * (1 - r) - 2 * d) / xp.where(silent, 1.0, 1 - 2 * d)
    return close(xp.where(silent, 1.0, value), xp, finish, clip=clip)


@catalogued(VOTE, TWO_CLASSES, "Germain et al. 2015, PAC-Bound 2")
@quiet
def c_bound_joint(
    tandem_loss: Real,
    disagreement_rate: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
) -> Real:
    r"""The C-bound of tandem loss and disagreement, observed on the same examples, at one price.

    .. math:: \sup\left\{1 - \frac{(1 - 2e - d)^2}{1 - 2d} :
              \mathrm{kl}(\hat e, \hat d \,\|\, e, d) \le
              \frac{2\,\mathrm{KL} + \ln\frac{2\sqrt n + n}{\delta}}{n}, \;
              d \le 2\sqrt e - 2e\right\}

    and 1 where some :math:`e + d/2 \ge \frac12` is among the pairs; kl is that of three outcomes,
    both voters err, they disagree, neither errs. Among all pairs with a value of at least 0,
    the last condition holds by itself. The mean of :math:`e^{n\,\mathrm{kl}}` is
    :math:`\xi(n) + n`, which ``constant="xi"`` takes as it is.

    The supremum is at most, and equal where any pair fulfils the conditions, the infimum over
    :math:`t \ge 0` and :math:`\nu > \max(2, 1 - t)` of

    .. math:: (1 - t)^2 + 2t\left(\nu - e^{-c}\,(\nu - 2)^{\hat e}\,(\nu - 1 + t)^{\hat d}\,
              \nu^{1 - \hat e - \hat d}\right),

    as :math:`-x^2 / y = \inf_t\,(t^2 y - 2tx)` and by `vector_kl_worst`. Each :math:`(t, \nu)`
    gives a bound, so the search for the best one cannot end below the supremum; the float64 result
    is rounded up and carries no gradient.

    Parameters
    ----------
    tandem_loss, disagreement_rate : float, array or tensor
        How often two independent voters both err, and disagree; their sum is at most 1.
    kl : float, array or tensor
        KL divergence of *one* voter in nats; that of a pair is twice as much.
    n : int, array or tensor
        Number of examples behind both.
    delta, constant, clip
        As for `maurer`, but that "kt" is not known to make it hold for all `n` at once. The value
        lies in [0, 1] anyway.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape.

    Raises
    ------
    ValueError
        If an argument is outside its domain.
    TypeError
        For the intervals of `pbnn.bounds.exact`: the result is rounded up as it is.

    References
    ----------
    P. Germain, A. Lacasse, F. Laviolette, M. Marchand, J.-F. Roy (2015), "Risk bounds for the
    majority vote: from a PAC-Bayesian analysis to a learning algorithm", JMLR 16, PAC-Bound 2,
    https://arxiv.org/abs/1503.08329.

    Examples
    --------
    >>> round(c_bound_joint(0.025, 0.15, 50.0, 10_000), 6)
    0.221666
    """
    given = prepare(
        tandem_loss=tandem_loss, disagreement_rate=disagreement_rate, kl=kl, n=n, delta=delta
    )
    xp, (e, d, kl, n, delta), finish = given
    refuse_intervals(xp, "c_bound_joint")
    e, d, kl, n, delta = map(detached, (e, d, kl, n, delta))
    right = 1 - e + ROUNDING
    check("disagreement_rate", d + 0 * e, lambda x: x <= right, "must be at most 1 - `tandem_loss`")
    # ln((2 sqrt(n) + n) / delta)
    others = log_constant(xp, n, delta, constant) + xp.log(delta) - xp.log(n)
    budget = (2 * kl + xp.log1p(xp.exp(others)) + xp.log(n) - xp.log(delta)) / n
    zero = xp.zeros_like(e + d + budget)
    q = xp.stack([e + zero, d + zero, xp.clip(1 - e - d, 0.0, None) + zero], -1)

    def value(u: Any) -> Any:
        t = u / (1 - u)
        weights = xp.stack([2 + 0 * t, 1 - t, 0 * t], -1)
        mean = largest_mean(xp, q, budget[..., None], weights)
        return (1 - t) ** 2 + 2 * t * mean + SLACK * (1 + t) ** 2

    low, high = zero, zero + 1
    left, right = high - _GOLDEN, low + _GOLDEN
    at_left, at_right = value(left), value(right)
    for _ in range(_STEPS):
        falls = at_left > at_right
        low, high = xp.where(falls, left, low), xp.where(falls, high, right)
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        new = value(xp.where(falls, right, left))
        at_left, at_right = xp.where(falls, at_right, new), xp.where(falls, new, at_left)
    return finish(xp.clip(xp.minimum(at_left, at_right), 0.0, 1.0), wide=True)
