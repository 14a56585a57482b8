"""Bounds on the risk of a Gibbs classifier: one drawn from the posterior for each example.

They share their terms. The loss lies in [0, 1]; the `n` examples are independent draws from one
distribution; the prior does not depend on them (one learned on part of a sample leaves the other
part to be counted in `n`). With probability at least 1 - delta over the examples, each bound holds
for every posterior at once, so posteriors may be chosen, and the bound watched, freely. `risk`
must be exact or itself bounded from above, see `pbnn.bounds.monte_carlo`.

With ``certify=True`` the float64 result is not below the real value for the same inputs; it
exceeds it by a relative 1e-13 at most (more for a log-ratio that cancels its price, see
`pbnn.bounds.rivasplata`), and carries no gradient. `pbnn.bounds.exact` gives the nearest such
number, for every bound with a closed form.
"""

from __future__ import annotations

import functools
import math

from pbnn.bounds._arrays import Real, close, prepare
from pbnn.bounds.catalogue import EVERY_POSTERIOR, catalogued
from pbnn.bounds.constants import log_constant
from pbnn.bounds.kl import inverse

GIBBS = "Gibbs risk"
MEAN = "mean loss under the posterior"


@catalogued(GIBBS, EVERY_POSTERIOR, "Maurer 2004, Theorem 5")
def maurer(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""The Langford-Seeger bound on the Gibbs risk with Maurer's constant.

    .. math:: \mathrm{kl}^{+}\!\left(\hat R,
              \frac{\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{n}\right)

    Nothing but the posterior may depend on the examples. With ``constant="xi"`` it is a little
    tighter, with ``constant="kt"`` it may be looked at after every example, and with "seeger" it
    is Seeger's original. `clip` is without effect, as the value lies in [0, 1].

    Parameters
    ----------
    risk : float, array or tensor
        Empirical Gibbs risk, in [0, 1].
    kl : float, array or tensor
        KL divergence from prior to posterior in nats, at least 0; infinity gives a vacuous bound.
    n : int, array or tensor
        Number of examples behind `risk`.
    delta : float, array or tensor
        Probability that the bound may fail, in (0, 1).
    constant : {"maurer", "xi", "kt", "seeger", "union"}
        What stands in the place of :math:`2\sqrt n`, see `pbnn.bounds.constants`; to be chosen
        without the data. With "kt" (and "union") the bound holds for all `n` at once.
    clip : bool
        Whether to clip to [0, 1]; training wants the gradient that clipping removes.
    certify : bool
        Whether to round up, see the head of this module.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape.

    Raises
    ------
    ValueError
        If an argument is outside its domain, shapes do not broadcast, or `constant` is unknown.

    References
    ----------
    A. Maurer (2004), "A note on the PAC Bayesian theorem", Theorem 5,
    https://arxiv.org/abs/cs/0411099. M. Seeger (2002), "PAC-Bayesian generalisation error bounds
    for Gaussian process classification", JMLR 3, Theorem 1 (n + 1). J. Langford (2005), "Tutorial
    on practical prediction theory for classification", JMLR 6.

    Examples
    --------
    >>> round(maurer(0.1, 50.0, 10_000), 6)
    0.135468
    """
    xp, (risk, kl, n, delta), finish = prepare(risk=risk, kl=kl, n=n, delta=delta)
    budget = (kl + log_constant(xp, n, delta, constant)) / n
    return finish(inverse(xp, risk, budget, round_outward=certify), wide=certify)


for _name, _constant, _conditions, _source in (
    ("maurer_xi", "xi", EVERY_POSTERIOR, "Germain et al. 2009, Corollary 2.1"),
    ("anytime", "kt", EVERY_POSTERIOR + ", and for all n", "Chugg et al. 2023; Krichevsky 1981"),
    ("seeger", "seeger", EVERY_POSTERIOR, "Seeger 2002, Theorem 1"),
):
    catalogued(GIBBS, _conditions, _source, name=_name)(
        functools.partial(maurer, constant=_constant)
    )


@catalogued(GIBBS, EVERY_POSTERIOR, "McAllester 1999, Theorem 1")
def mcallester(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""McAllester's bound on the Gibbs risk, with Maurer's constant.

    .. math:: \hat R + \sqrt{\frac{\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{2 n}}

    It is `maurer` relaxed by Pinsker's inequality. Nothing but the posterior may depend on the
    examples. Arguments and errors as for `maurer`.

    References
    ----------
    D. McAllester (1999), "PAC-Bayesian model averaging", COLT, Theorem 1.
    A. Maurer (2004), https://arxiv.org/abs/cs/0411099 (the constant).

    Examples
    --------
    >>> round(mcallester(0.1, 50.0, 10_000), 6)
    0.153988
    """
    xp, (risk, kl, n, delta), finish = prepare(risk=risk, kl=kl, n=n, delta=delta)
    value = risk + xp.sqrt((kl + log_constant(xp, n, delta, constant)) / (2 * n))
    return close(value, xp, finish, clip=clip, round_up=certify)


@catalogued(GIBBS, EVERY_POSTERIOR, "Perez-Ortiz et al. 2021, eq. (5)")
def quadratic(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    tight: bool = False,
    constant: str = "maurer",
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""The quadratic bound on the Gibbs risk, faster than `mcallester` where the risk is small.

    .. math:: \left(\sqrt{\hat R + a} + \sqrt{a}\right)^2,
              \qquad a = \frac{\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{2n}

    It is `maurer` relaxed by :math:`\mathrm{kl}(q \| p) \ge (p-q)^2 / 2p`, and equals `thiemann`
    at its best `lam`. With ``tight=True`` :math:`a` is multiplied by :math:`1 - \hat R`, which
    :math:`\mathrm{kl}(q \| p) \ge (p-q)^2 / 2p(1-q)` allows. Nothing but the posterior
    may depend on the examples. Arguments and errors as for `maurer`.

    References
    ----------
    M. Perez-Ortiz, O. Rivasplata, J. Shawe-Taylor, C. Szepesvari (2021), "Tighter risk
    certificates for neural networks", JMLR 22, https://arxiv.org/abs/2007.12911.

    Examples
    --------
    >>> round(quadratic(0.1, 50.0, 10_000), 6)
    0.140468
    """
    xp, (risk, kl, n, delta), finish = prepare(risk=risk, kl=kl, n=n, delta=delta)
    a = (kl + log_constant(xp, n, delta, constant)) / (2 * n)
    if tight:
        a = a * (1 - risk)
    finite = xp.where(a == math.inf, 1.0, a)
    value = (xp.sqrt(risk + finite) + xp.sqrt(finite)) ** 2
    value = xp.where(a == math.inf, math.inf, value)
    return close(value, xp, finish, clip=clip, round_up=certify)


@catalogued(GIBBS, EVERY_POSTERIOR, "Tolstikhin and Seldin 2013, eq. (3)")
def tolstikhin_seldin(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
) -> Real:
    r"""The explicit relaxation of `maurer` by Tolstikhin and Seldin, here with Maurer's constant.

    .. math:: \hat R + \sqrt{2 \hat R \kappa} + 2 \kappa,
              \qquad \kappa = \frac{\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{n}

    With :math:`\kappa/2` in the place of :math:`\kappa`, as some code has it, it is no bound.
    Nothing but the posterior may depend on the examples. Arguments and errors as for `maurer`.

    References
    ----------
    I. Tolstikhin, Y. Seldin (2013), "PAC-Bayes-empirical-Bernstein inequality", NIPS 26, eq. (3).

    Examples
    --------
    >>> round(tolstikhin_seldin(0.1, 50.0, 10_000), 6)
    0.145804
    """
    xp, (risk, kl, n, delta), finish = prepare(risk=risk, kl=kl, n=n, delta=delta)
    budget = (kl + log_constant(xp, n, delta, constant)) / n
    # Two roots, for 0 times infinity, and its slope, would be no number.
    finite = xp.where(budget == math.inf, 1.0, budget)
    value = risk + xp.sqrt(2 * risk) * xp.sqrt(finite) + 2 * finite
    return close(xp.where(budget == math.inf, math.inf, value), xp, finish, clip=clip)


@catalogued(
    GIBBS,
    EVERY_POSTERIOR,
    "Begin et al. 2016, Theorem 9",
    coverage="it is `maurer` with a larger divergence",
)
def renyi(
    risk: Real,
    divergence: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""The kl bound with a Renyi divergence, for posteriors whose KL divergence is not at hand.

    .. math:: \mathrm{kl}^{+}\!\left(\hat R,
              \frac{D_\alpha(Q \| P) + \ln\frac{2\sqrt n}{\delta}}{n}\right),
              \qquad D_\alpha = \frac{1}{\alpha - 1} \ln \mathbb{E}_{h \sim P}
              \left(\frac{dQ}{dP}(h)\right)^{\alpha}

    for any :math:`\alpha > 1`. Since :math:`D_\alpha \ge \mathrm{KL}` it is never below `maurer`,
    and :math:`\alpha` may be chosen freely. Nothing but the posterior may depend on the examples.
    `divergence` is :math:`D_\alpha` in nats; other arguments and errors as for `maurer`.

    References
    ----------
    L. Begin, P. Germain, F. Laviolette, J.-F. Roy (2016), "PAC-Bayesian bounds based on the Renyi
    divergence", AISTATS, Theorem 9.

    Examples
    --------
    >>> round(renyi(0.1, 60.0, 10_000), 6)
    0.13866
    """
    given = prepare(risk=risk, divergence=divergence, n=n, delta=delta)
    xp, (risk, divergence, n, delta), finish = given
    budget = (divergence + log_constant(xp, n, delta, constant)) / n
    return finish(inverse(xp, risk, budget, round_outward=certify), wide=certify)


@catalogued(GIBBS, EVERY_POSTERIOR, "Alquier and Guedj 2018, Theorem 1")
def chi_square(
    risk: Real, divergence: Real, n: Real, *, delta: Real = 0.05, clip: bool = True
) -> Real:
    r"""The bound by Chebyshev's inequality, with a chi-square divergence.

    .. math:: \hat R + \sqrt{\frac{1 + \chi^2(Q \| P)}{4 n \delta}}, \qquad
              \chi^2 = \mathbb{E}_{h \sim P}\left(\frac{dQ}{dP}(h)\right)^2 - 1

    Only the second moment of the loss enters, and the price is :math:`1/\delta` instead of its
    logarithm. Nothing but the posterior may depend on the examples. `divergence` is
    :math:`\chi^2`, at least 0; other arguments and errors as for `maurer`.

    References
    ----------
    P. Alquier, B. Guedj (2018), "Simpler PAC-Bayesian bounds for hostile data", Machine Learning
    107, Theorem 1, https://arxiv.org/abs/1610.07193.

    Examples
    --------
    >>> round(chi_square(0.1, 3.0, 10_000), 6)
    0.144721
    """
    given = prepare(risk=risk, divergence=divergence, n=n, delta=delta)
    xp, (risk, divergence, n, delta), finish = given
    value = risk + xp.sqrt((1 + divergence) / (4 * n * delta))
    return close(value, xp, finish, clip=clip)
