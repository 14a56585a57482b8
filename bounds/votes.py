"""Bounds on the risk of a majority vote, from what a Gibbs classifier tells about it.

The conditions, `kl`, `n`, `delta`, `constant`, `clip` and `certify` are those of
`pbnn.bounds.gibbs`. The vote of two classes errs where at least half of the voters do. Of two
independent voters, let `e` be the probability that both err, the tandem loss, and `d` the
probability that they disagree; then e = r - d/2 for the Gibbs risk `r`.

`risk`, `tandem_loss` and `disagreement_rate` must be exact for the sample. Where Monte-Carlo
estimates stand in for them, each needs its own bound and share of delta, see
`pbnn.bounds.monte_carlo`: a *lower* one where the formula decreases, as in the disagreement. Pairs
of independent draws estimate `e` and `d`; the square of one Monte-Carlo average does not.
"""

from __future__ import annotations

import math
import operator
from typing import Any

from pbnn.bounds._arrays import Real, close, compare, detached, prepare, quiet
from pbnn.bounds.catalogue import EVERY_POSTERIOR, catalogued
from pbnn.bounds.constants import log_constant
from pbnn.bounds.kl import inverse

VOTE = "risk of the vote"
TWO_CLASSES = "two classes; " + EVERY_POSTERIOR


@catalogued(VOTE, EVERY_POSTERIOR, "Langford and Shawe-Taylor 2003")
def first_order(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""Twice the Gibbs risk bounds the risk of the majority vote.

    .. math:: 2\,\mathrm{kl}^{+}\!\left(\hat R,
              \frac{\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{n}\right)

    By Markov's inequality: where the vote errs, at least half of the voters do. Arguments and
    errors as for `maurer`.

    References
    ----------
    J. Langford, J. Shawe-Taylor (2003), "PAC-Bayes & margins", NIPS 15.

    Examples
    --------
    >>> round(first_order(0.1, 50.0, 10_000), 6)
    0.270937
    """
    xp, (risk, kl, n, delta), finish = prepare(risk=risk, kl=kl, n=n, delta=delta)
    budget = (kl + log_constant(xp, n, delta, constant)) / n
    value = 2 * inverse(xp, risk, budget, round_outward=certify)
    return close(value, xp, finish, clip=clip, round_up=certify)


@catalogued(VOTE, EVERY_POSTERIOR, "Masegosa et al. 2020, Theorem 9")
def tandem(
    tandem_loss: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""Four times the tandem loss bounds the risk of the majority vote.

    .. math:: 4\,\mathrm{kl}^{+}\!\left(\hat e,
              \frac{2\,\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{n}\right)

    The tandem loss is the probability that two independent voters err on the same example. By
    Markov's inequality for the squared share of voters that err. Of `k` voters drawn independently,
    distinct pairs estimate it; the squared share of those that err does not, as it pairs voters
    with themselves. Pairs that share a voter are not independent draws: for the Monte-Carlo step
    draw two voters for each. Other arguments and errors as for `maurer`.

    Parameters
    ----------
    tandem_loss : float, array or tensor
        Empirical tandem loss, in [0, 1].
    kl : float, array or tensor
        KL divergence of *one* voter in nats; that of a pair is twice as much.
    n : int, array or tensor
        Number of examples behind `tandem_loss`.

    References
    ----------
    A. Masegosa, S. Lorenzen, C. Igel, Y. Seldin (2020), "Second order PAC-Bayesian bounds for the
    weighted majority vote", Theorem 9, https://arxiv.org/abs/2007.13532.

    Examples
    --------
    >>> round(tandem(0.02, 50.0, 10_000), 6)
    0.191549
    """
    given = prepare(tandem_loss=tandem_loss, kl=kl, n=n, delta=delta)
    xp, (tandem_loss, kl, n, delta), finish = given
    budget = (2 * kl + log_constant(xp, n, delta, constant)) / n
    value = 4 * inverse(xp, tandem_loss, budget, round_outward=certify)
    return close(value, xp, finish, clip=clip, round_up=certify)


@catalogued(VOTE, TWO_CLASSES, "Masegosa et al. 2020, Theorem 10")
def disagreement(
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
    r"""`tandem` by way of the Gibbs risk and the disagreement, which needs no labels.

    .. math:: 4\,\mathrm{kl}^{+}\!\left(\hat R,
              \frac{\mathrm{KL} + \ln\frac{4\sqrt n}{\delta}}{n}\right)
              - 2\,\mathrm{kl}^{-}\!\left(\hat d,
              \frac{2\,\mathrm{KL} + \ln\frac{4\sqrt{n'}}{\delta}}{n'}\right)

    Both events have half of delta. Other arguments and errors as for `maurer`.

    Parameters
    ----------
    risk : float, array or tensor
        Empirical Gibbs risk, in [0, 1].
    disagreement_rate : float, array or tensor
        How often two independent voters disagree, in [0, 1].
    kl : float, array or tensor
        KL divergence of *one* voter in nats; that of a pair is twice as much.
    n : int, array or tensor
        Number of examples behind `risk`.
    n_pairs : int, array or tensor, optional
        Number of examples, labelled or not, behind `disagreement_rate`, if it is not `n`. Like
        those of `risk` they must not have been used for the prior.

    References
    ----------
    A. Masegosa, S. Lorenzen, C. Igel, Y. Seldin (2020), "Second order PAC-Bayesian bounds for the
    weighted majority vote", Theorem 10, https://arxiv.org/abs/2007.13532.

    Examples
    --------
    >>> round(disagreement(0.1, 0.15, 50.0, 10_000), 6)
    0.337799
    """
    n_pairs = n if n_pairs is None else n_pairs
    given = prepare(
        risk=risk, disagreement_rate=disagreement_rate, kl=kl, n=n, n_pairs=n_pairs, delta=delta
    )
    xp, (risk, rate, kl, n, n_pairs, delta), finish = given
    gibbs, pair = budgets(xp, kl, n, n_pairs, delta, constant)
    value = 4 * inverse(xp, risk, gibbs) - 2 * inverse(xp, rate, pair, side="lower")
    return close(value, xp, finish, clip=clip)


@catalogued(VOTE, TWO_CLASSES, "Masegosa et al. 2020, C-tandem; Germain et al. 2015")
@quiet
def c_tandem(
    risk: Real,
    tandem_loss: Real,
    kl: Real,
    n: Real,
    *,
    n_pairs: Real | None = None,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
) -> Real:
    r"""The C-bound of the Gibbs risk and the tandem loss.

    .. math:: \frac{e^{+} - (r^{-})^2}{e^{-} - r^{+} + \frac14}, \qquad
              r^{\pm} = \mathrm{kl}^{\pm}\!\left(\hat R,
              \tfrac1n\bigl(\mathrm{KL} + \ln\tfrac{4\sqrt n}{\delta}\bigr)\right), \quad
              e^{\pm} = \mathrm{kl}^{\pm}\!\left(\hat e,
              \tfrac1{n'}\bigl(2\,\mathrm{KL} + \ln\tfrac{4\sqrt{n'}}{\delta}\bigr)\right)

    and 1 where :math:`r^{+} \ge \frac12` or the denominator is not positive. It is the inequality
    of Cantelli for the share of voters that err. Both events, each of which gives both inverses,
    have half of delta. With ``clip=False`` it may exceed 1. `n_pairs` is the number of examples
    behind `tandem_loss`, if it is not `n`; other arguments and errors as for `disagreement`.

    References
    ----------
    A. Masegosa, S. Lorenzen, C. Igel, Y. Seldin (2020), "Second order PAC-Bayesian bounds for the
    weighted majority vote", https://arxiv.org/abs/2007.13532.

    Examples
    --------
    >>> round(c_tandem(0.1, 0.02, 50.0, 10_000), 6)
    0.358485
    """
    n_pairs = n if n_pairs is None else n_pairs
    given = prepare(risk=risk, tandem_loss=tandem_loss, kl=kl, n=n, n_pairs=n_pairs, delta=delta)
    xp, (risk, loss, kl, n, n_pairs, delta), finish = given
    gibbs, pair = budgets(xp, kl, n, n_pairs, delta, constant)
    most = inverse(xp, risk, gibbs)
    width = inverse(xp, loss, pair, side="lower") - most + 0.25
    silent = (most >= 0.5) | (width <= 0)  # false for NaN, which goes through
    # The slope of the lower inverse is infinite at 1, where nothing is told.
    least = inverse(xp, xp.where(silent, 0.25, risk), gibbs, side="lower")
    excess = inverse(xp, loss, pair) - least * least
    value = xp.where(silent, 1.0, excess / xp.where(silent, 1.0, width))
    return close(value, xp, finish, clip=clip)


def budgets(xp: Any, kl: Any, n: Any, n_pairs: Any, delta: Any, constant: str) -> tuple[Any, Any]:
    """Those of the Gibbs risk and of pairs of voters, each at half of delta."""
    return (
        (kl + log_constant(xp, n, delta / 2, constant)) / n,
        (2 * kl + log_constant(xp, n_pairs, delta / 2, constant)) / n_pairs,
    )


@catalogued(
    VOTE,
    "those of the bound on the Gibbs risk; the constants hold for every input",
    "Leblanc and Germain 2025",
    coverage="it holds wherever the bound on the Gibbs risk does",
)
@quiet
def derandomised(
    gibbs_bound: Real,
    lower_right: Real = 0.0,
    lower_wrong: Real = 0.5,
    *,
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""Bound on the risk of the aggregated classifier from one on the Gibbs risk.

    .. math:: R_{\text{vote}} \le \frac{B - b}{c - b}

    when the Gibbs loss on an example is at least :math:`b` where the aggregate is right and at
    least :math:`c` where it is wrong. With :math:`(b, c) = (0, \frac12)` this is the factor 2. It
    holds on the same event as the bound :math:`B`, at no further price in delta. Outside of that
    event :math:`B < b` may occur, and then the clipped value is 1.

    Parameters
    ----------
    gibbs_bound : float, array or tensor
        Upper bound :math:`B` on the Gibbs risk, in [0, 1].
    lower_right, lower_wrong : float, array or tensor
        The constants :math:`b < c`, in [0, 1]. They must hold for *every* input, not only on the
        sample; they may depend on the posterior.
    clip : bool
        Whether to clip to [0, 1].
    certify : bool
        Whether to round up: the float64 result is not below the real value.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape.

    Raises
    ------
    ValueError
        If an argument is outside [0, 1] or `lower_right` is not below `lower_wrong`.

    References
    ----------
    B. Leblanc, P. Germain (2025), "A framework for bounding deterministic risk with PAC-Bayes:
    applications to majority votes", https://arxiv.org/abs/2510.25569.

    Examples
    --------
    >>> derandomised(0.125)
    0.25
    >>> round(derandomised(0.125, 0.05, 0.5), 6)
    0.166667
    """
    xp, (bound, b, c), finish = prepare(
        gibbs_bound=gibbs_bound, lower_right=lower_right, lower_wrong=lower_wrong
    )
    compare(xp, "lower_right", b, operator.lt, c, "must be below `lower_wrong`")
    excess, width = bound - b, c - b
    if certify:
        # The differences may cancel, so each is rounded before they are divided.
        excess, width = detached(excess), detached(width)
        excess = xp.nextafter(excess, xp.zeros_like(excess) + math.inf)
        width = xp.nextafter(width, xp.zeros_like(width))
    value = excess / width
    if clip:
        # A Gibbs bound below b is wrong, and nothing follows from it.
        value = xp.where(bound < b, 1.0, value)
    return close(value, xp, finish, clip=clip, round_up=certify)
