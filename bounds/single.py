"""Bounds on the risk of one network: drawn once from the posterior, or written as a code.

The loss lies in [0, 1] and the `n` examples are independent draws from one distribution. `delta`,
`clip` and `certify` are those of `pbnn.bounds.gibbs`.
"""

from __future__ import annotations

import math

from pbnn.bounds._arrays import ABOVE_ONE, COST, SLACK, Real, close, prepare
from pbnn.bounds.catalogue import catalogued
from pbnn.bounds.constants import log_constant
from pbnn.bounds.kl import inverse

DRAWN = "risk of one network drawn from the posterior"
CODED = "risk of a network with a code"
ONE_DRAW = (
    "losses in [0, 1]; n independent examples; the prior does not depend on them; "
    "one network, drawn once after the posterior is fixed"
)
PREFIX_FREE = (
    "losses in [0, 1]; n independent examples; a prefix-free code that does not depend on them; "
    "holds for every network at once"
)


@catalogued(DRAWN, ONE_DRAW, "Rivasplata et al. 2020, Theorem 1(i)")
def rivasplata(
    risk: Real,
    log_ratio: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""Bound on the risk of one network, drawn from the posterior.

    .. math:: \mathrm{kl}^{+}\!\left(\hat R(h), \frac1n \max\Bigl(0,
              \ln\frac{dQ}{dP}(h) + \ln\frac{2\sqrt n}{\delta}\Bigr)\right),
              \qquad h \sim Q

    It holds with probability at least 1 - delta over the examples and the draw `h`, for *one* `h`,
    drawn *once* after the posterior `Q` is fixed. Hence

    - the best of `N` draws costs :math:`\ln N`: pass ``delta / N``;
    - the mode of the posterior is no draw from it: `occam` covers it, with
      ``nats = -ln P(mode)`` for discrete weights;
    - an ensemble of `N` draws that stay fixed is one draw from :math:`Q^N`: pass the sum of the
      `N` log-ratios, and as `risk` the mean of theirs; the vote of the ensemble then has the
      factor 2 of Markov's inequality, as does a vote of `N` networks drawn afresh for each example;
    - a vote whose number of voters depends on the example (one that stops early) is covered by
      neither.

    Parameters
    ----------
    risk : float, array or tensor
        Empirical risk of `h`, in [0, 1].
    log_ratio : float, array or tensor
        Logarithm of the density of `Q` relative to the prior `P` at `h` in nats. It may be
        negative, but `Q` must be absolutely continuous with respect to `P`: its mean is the KL
        divergence.
    n : int, array or tensor
        Number of examples behind `risk`.
    delta, constant, clip, certify
        As for `maurer`, but that no constant makes it hold for all `n` at once, except "union": a
        network that is drawn knows which `n` its posterior was made for.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape. Errors are those of `maurer`.

    References
    ----------
    O. Rivasplata, I. Kuzborskij, C. Szepesvari, J. Shawe-Taylor (2020), "PAC-Bayes analysis beyond
    the usual bounds", Theorem 1(i), https://arxiv.org/abs/2006.13057.

    Examples
    --------
    >>> round(rivasplata(0.1, 50.0, 10_000), 6)
    0.135468
    >>> rivasplata(0.1, -50.0, 10_000)
    0.1
    """
    domains = {"log_ratio": (lambda x: x > -math.inf, "must be above -inf")}
    given = prepare(domains, risk=risk, log_ratio=log_ratio, n=n, delta=delta)
    xp, (risk, log_ratio, n, delta), finish = given
    price = log_constant(xp, n, delta, constant)
    evidence = log_ratio + price
    if certify:
        # A negative log-ratio may cancel the price, and with it their relative accuracy.
        evidence = evidence + SLACK * (abs(log_ratio) + price)
    budget = xp.clip(evidence, 0.0, None) / n
    return finish(inverse(xp, risk, budget, round_outward=certify), wide=certify)


@catalogued(DRAWN, ONE_DRAW, "Viallard et al. 2024")
def viallard(
    risk: Real,
    divergence: Real,
    n: Real,
    *,
    alpha: Real = 2.0,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""Bound on the risk of one network drawn from the posterior, whose price is no random number.

    .. math:: \mathrm{kl}^{+}\!\left(\hat R(h), \frac1n\left(D_\alpha(Q \| P)
              + \frac{2\alpha - 1}{\alpha - 1}\ln\frac2\delta + \ln 2\sqrt n\right)\right),
              \qquad h \sim Q

    The Renyi divergence takes the place of the log-ratio at `h` of `rivasplata`, of which the rest
    is as said there: one `h`, drawn once after the posterior is fixed. `alpha` must not depend on
    the examples.

    Parameters
    ----------
    risk : float, array or tensor
        Empirical risk of `h`, in [0, 1].
    divergence : float, array or tensor
        Renyi divergence of order `alpha` from prior to posterior in nats, at least 0; of Gaussians
        of one width it is :math:`\alpha \lVert w - v \rVert^2 / (2 \sigma^2)`.
    n : int, array or tensor
        Number of examples behind `risk`.
    alpha : float, array or tensor
        Order, above 1.
    delta, constant, clip, certify
        As for `maurer`, but that no constant makes it hold for all `n` at once, except "union": a
        network that is drawn knows which `n` its posterior was made for.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape. Errors are those of `maurer`.

    References
    ----------
    P. Viallard, P. Germain, A. Habrard, E. Morvant (2024), "A general framework for the practical
    disintegration of PAC-Bayesian bounds", Machine Learning 113, https://arxiv.org/abs/2102.08649.

    Examples
    --------
    >>> round(viallard(0.1, 50.0, 10_000), 6)
    0.13806
    """
    given = prepare(
        {"alpha": ABOVE_ONE}, risk=risk, divergence=divergence, n=n, alpha=alpha, delta=delta
    )
    xp, (risk, divergence, n, alpha, delta), finish = given
    # (2 alpha - 1) / (alpha - 1) = 1 + alpha / (alpha - 1)
    price = log_constant(xp, n, delta / 2, constant) - alpha / (alpha - 1) * xp.log(delta / 2)
    budget = (divergence + price) / n
    return finish(inverse(xp, risk, budget, round_outward=certify), wide=certify)


@catalogued(CODED, PREFIX_FREE, "Blumer et al. 1987; Langford 2005")
def occam(
    risk: Real,
    nats: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""Occam's bound: the risk of a network that a short code describes.

    .. math:: \mathrm{kl}^{+}\!\left(\hat R(h), \frac{L(h) + \ln\frac1\delta}{n}\right)

    for every network `h` at once, when the code was fixed before the examples were seen and is
    prefix-free: :math:`\sum_h e^{-L(h)} \le 1`. A number of bits that does not tell where the code
    ends (the size of a file) is no such length. A prior on discrete weights is a code: for the mode
    of binary weights, :math:`L(h) = -\ln P(h) = \sum_i \ln\frac{2}{1 + h_i \theta_i}`, where
    :math:`\theta_i` is the prior mean of the weight :math:`h_i = \pm 1`.

    Parameters
    ----------
    risk : float, array or tensor
        Empirical risk of `h`, in [0, 1].
    nats : float, array or tensor
        Code length :math:`L(h)` in nats, at least 0: bits times ln 2.
    n : int, array or tensor
        Number of examples behind `risk`.
    delta, clip, certify
        As for `maurer`.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape. Errors are those of `maurer`.

    References
    ----------
    A. Blumer, A. Ehrenfeucht, D. Haussler, M. Warmuth (1987), "Occam's razor", Inf. Process. Lett.
    24. J. Langford (2005), "Tutorial on practical prediction theory for classification", JMLR 6.

    Examples
    --------
    >>> round(occam(0.1, 50.0, 10_000), 6)
    0.133684
    """
    xp, (risk, nats, n, delta), finish = prepare(
        {"nats": COST}, risk=risk, nats=nats, n=n, delta=delta
    )
    budget = (nats - xp.log(delta)) / n
    return finish(inverse(xp, risk, budget, round_outward=certify), wide=certify)


@catalogued(CODED, PREFIX_FREE, "Blumer et al. 1987; Hoeffding 1963")
def occam_hoeffding(
    risk: Real, nats: Real, n: Real, *, delta: Real = 0.05, clip: bool = True
) -> Real:
    r"""Occam's bound with Hoeffding's inequality: `occam` relaxed by that of Pinsker.

    .. math:: \hat R(h) + \sqrt{\frac{L(h) + \ln\frac1\delta}{2n}}

    The code must be prefix-free and fixed before the examples were seen. Arguments and errors as
    for `occam`.

    References
    ----------
    A. Blumer, A. Ehrenfeucht, D. Haussler, M. Warmuth (1987), "Occam's razor", Inf. Process. Lett.
    24. W. Hoeffding (1963), "Probability inequalities for sums of bounded random variables".

    Examples
    --------
    >>> round(occam_hoeffding(0.1, 50.0, 10_000), 6)
    0.151476
    """
    xp, (risk, nats, n, delta), finish = prepare(
        {"nats": COST}, risk=risk, nats=nats, n=n, delta=delta
    )
    value = risk + xp.sqrt((nats - xp.log(delta)) / (2 * n))
    return close(value, xp, finish, clip=clip)
