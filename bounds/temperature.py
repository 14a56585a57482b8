r"""Bounds on the Gibbs risk that are linear in the risk and the KL divergence, at a temperature.

Terms and conditions are those of `pbnn.bounds.gibbs`. Some hold for every temperature at once,
which may then be chosen on the data; in the others it must be fixed beforehand, and a grid of
values costs ``union_price(len(grid))``.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

from pbnn.bounds._arrays import (
    ABOVE_ONE,
    COST,
    POSITIVE,
    Real,
    close,
    compare,
    detached,
    prepare,
    quiet,
)
from pbnn.bounds.catalogue import EVERY_POSTERIOR, catalogued
from pbnn.bounds.constants import log_constant
from pbnn.bounds.gibbs import GIBBS, maurer
from pbnn.bounds.kl import exponent

BETWEEN_0_AND_2 = (lambda x: (x > 0) & (x < 2), "must lie in (0, 2)")
FIXED = EVERY_POSTERIOR + "; the temperature is fixed beforehand"
EVERY_TEMPERATURE = EVERY_POSTERIOR + " and every temperature"


@catalogued(GIBBS, EVERY_TEMPERATURE, "Letarte et al. 2019, Theorem 3")
def catoni(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    C: Real | None = None,
    fixed: bool = False,
    constant: str = "maurer",
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""Catoni's bound on the Gibbs risk, with its temperature chosen freely or in advance.

    .. math:: \frac{1 - \exp\left(-C\,\hat R - \frac{\mathrm{KL} + M}{n}\right)}{1 - e^{-C}},
              \qquad M = \ln\frac{2\sqrt n}{\delta}.

    This holds for every :math:`C > 0` at once. Its infimum over `C` is `maurer`, and that is what
    ``C=None`` returns. With ``fixed=True`` the price is only :math:`M = \ln\frac{1}{\delta}`, but
    `C` must not depend on the examples: a grid of values costs ``union_price(len(grid))``.

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
    C : float, array or tensor, optional
        Inverse temperature, positive.
    fixed : bool
        Whether `C` was fixed before the examples were seen.
    constant : str
        What stands in the place of :math:`2\sqrt n`, as for `maurer`; without effect if `fixed`.
    clip : bool
        Whether to clip to [0, 1]; training wants the gradient that clipping removes.
    certify : bool
        Whether to round up, see `pbnn.bounds.gibbs`.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape.

    Raises
    ------
    ValueError
        If an argument is outside its domain, or ``fixed=True`` comes without `C`.

    References
    ----------
    O. Catoni (2007), "PAC-Bayesian supervised classification", Theorem 1.2.1 (fixed).
    G. Letarte, P. Germain, B. Guedj, F. Laviolette (2019), "Dichotomize and generalize",
    Theorem 3 (every C), https://arxiv.org/abs/1905.10259.

    Examples
    --------
    >>> round(catoni(0.1, 50.0, 10_000), 6)
    0.135468
    >>> round(catoni(0.1, 50.0, 10_000, C=1.0, fixed=True), 6)
    0.158111
    """
    if C is None:
        if fixed:
            raise ValueError("`C` must be given when `fixed` is true, got None.")
        return maurer(risk, kl, n, delta=delta, constant=constant, certify=certify)
    given = prepare({"C": POSITIVE}, risk=risk, kl=kl, n=n, delta=delta, C=C)
    xp, (risk, kl, n, delta, C), finish = given
    price = -xp.log(delta) if fixed else log_constant(xp, n, delta, constant)
    value = xp.expm1(-C * risk - (kl + price) / n) / xp.expm1(-C)
    return close(value, xp, finish, clip=clip, round_up=certify)


catalogued(GIBBS, FIXED, "Catoni 2007, Theorem 1.2.1", name="catoni_fixed")(
    functools.partial(catoni, fixed=True)
)


@quiet
def catoni_optimal_c(
    risk: Real, kl: Real, n: Real, *, delta: Real = 0.05, constant: str = "maurer"
) -> Real:
    r"""The `C` at which `catoni` is smallest, where it equals `maurer`.

    .. math:: C^{*} = \ln\frac{p\,(1 - \hat R)}{\hat R\,(1 - p)},
              \qquad p = \text{maurer}(\hat R, \mathrm{KL}, n)

    It depends on the examples, so it may serve the bound that holds for every `C`, never the
    one with ``fixed=True``. It is infinite at a risk of 0 or 1, and carries no gradient: at the
    smallest value the bound does not change with `C`. Arguments and errors as for `catoni`.

    References
    ----------
    G. Letarte, P. Germain, B. Guedj, F. Laviolette (2019), "Dichotomize and generalize",
    Theorem 3, https://arxiv.org/abs/1905.10259.

    Examples
    --------
    >>> C = catoni_optimal_c(0.1, 50.0, 10_000)
    >>> abs(catoni(0.1, 50.0, 10_000, C=C) - maurer(0.1, 50.0, 10_000)) < 1e-12
    True
    """
    xp, (risk, kl, n, delta), finish = prepare(risk=risk, kl=kl, n=n, delta=delta)
    budget = (kl + log_constant(xp, n, delta, constant)) / n
    # At the best temperature a bound does not change with it.
    risk, budget = detached(risk), detached(budget)
    inside = (risk > 0) & (risk < 1) & (budget < math.inf)
    r = xp.where(inside, risk, 0.5)
    u = exponent(xp, 1 - r, r, xp.where(inside, budget, 1.0))
    return finish(xp.where(inside, u + xp.log1p(-(1 - r) * xp.expm1(-u) / r), math.inf))


@catalogued(GIBBS, EVERY_TEMPERATURE, "Catoni 2007, Theorem 1.2.6")
def catoni_union(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    lam: Real,
    delta: Real = 0.05,
    alpha: Real = 1.1,
    clip: bool = True,
) -> Real:
    r"""Catoni's bound for every temperature at once, by a union over a geometric grid.

    .. math:: \Phi^{-1}_{\lambda/n}\!\left(\hat R + \frac{\alpha}{\lambda}\left[\mathrm{KL}
              + \ln\frac1\delta + 2 \ln\frac{\ln \alpha^2 \lambda}{\ln \alpha}\right]\right),
              \qquad \Phi^{-1}_a(q) = \frac{1 - e^{-a q}}{1 - e^{-a}}

    `lam` may depend on the examples, `alpha` may not.

    Parameters
    ----------
    risk, kl, n, delta, clip
        As for `maurer`.
    lam : float, array or tensor
        Inverse temperature :math:`\lambda > 1`, of the order of n.
    alpha : float, array or tensor
        Ratio of the grid, above 1, fixed beforehand.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape.

    Raises
    ------
    ValueError
        If an argument is outside its domain.

    References
    ----------
    O. Catoni (2007), "PAC-Bayesian supervised classification", Theorem 1.2.6,
    https://arxiv.org/abs/0712.0248. W. Zhou, V. Veitch, M. Austern, R. Adams, P. Orbanz (2019),
    "Non-vacuous generalization bounds at the ImageNet scale", Theorem 4.1,
    https://arxiv.org/abs/1804.05862.

    Examples
    --------
    >>> round(catoni_union(0.1, 50.0, 10_000, lam=3_000.0), 6)
    0.13944
    """
    domains = {"lam": ABOVE_ONE, "alpha": ABOVE_ONE}
    given = prepare(domains, risk=risk, kl=kl, n=n, delta=delta, lam=lam, alpha=alpha)
    xp, (risk, kl, n, delta, lam, alpha), finish = given
    steps = xp.log(alpha * alpha * lam) / xp.log(alpha)
    level = risk + alpha / lam * (kl - xp.log(delta) + 2 * xp.log(steps))
    value = xp.expm1(-lam / n * level) / xp.expm1(-lam / n)
    return close(value, xp, finish, clip=clip)


@catalogued(GIBBS, EVERY_TEMPERATURE, "Thiemann et al. 2017, Theorem 3")
def thiemann(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    lam: Real | None = None,
    constant: str = "maurer",
    clip: bool = True,
    certify: bool = False,
) -> Real:
    r"""Thiemann's bound on the Gibbs risk: linear in the risk and the KL divergence.

    .. math:: \frac{\hat R}{1 - \lambda/2}
              + \frac{\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{n \lambda (1 - \lambda/2)}

    It holds for every :math:`\lambda \in (0, 2)` at once, so `lam` may depend on the examples;
    ``lam=None`` takes the best one in closed form,
    :math:`\lambda^{*} = 2 / (\sqrt{2 n \hat R / (\mathrm{KL} + M) + 1} + 1)`. Other arguments and
    errors as for `catoni`; `lam` outside (0, 2) is a ValueError.

    References
    ----------
    N. Thiemann, C. Igel, O. Wintenberger, Y. Seldin (2017), "A strongly quasiconvex PAC-Bayesian
    bound", Theorem 3 and eq. (8), https://arxiv.org/abs/1608.05610.

    Examples
    --------
    >>> round(thiemann(0.1, 50.0, 10_000, lam=0.5), 6)
    0.148878
    >>> round(thiemann(0.1, 50.0, 10_000), 6)
    0.140468
    """
    if lam is None:
        xp, (risk, kl, n, delta), finish = prepare(risk=risk, kl=kl, n=n, delta=delta)
        evidence = kl + log_constant(xp, n, delta, constant)
        lam = 2 / (xp.sqrt(2 * n * risk / evidence + 1) + 1)
    else:
        domains = {"lam": BETWEEN_0_AND_2}
        given = prepare(domains, risk=risk, kl=kl, n=n, delta=delta, lam=lam)
        xp, (risk, kl, n, delta, lam), finish = given
        evidence = kl + log_constant(xp, n, delta, constant)
    value = (risk + evidence / (n * lam)) / (1 - lam / 2)
    return close(value, xp, finish, clip=clip, round_up=certify)


@catalogued(GIBBS, EVERY_TEMPERATURE, "Rodriguez-Galvez et al. 2024, Theorem 7")
def fast_rate(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    gamma: Real | None = None,
    constant: str = "maurer",
    clip: bool = True,
) -> Real:
    r"""The fast-rate bound: `catoni` linearised in the KL divergence.

    .. math:: \gamma \ln\!\left(\frac{\gamma}{\gamma - 1}\right) \hat R
              + \gamma\, \frac{\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{n}

    It holds for every :math:`\gamma > 1` at once, so `gamma` may depend on the examples;
    ``gamma=None`` takes the best one, :math:`1 + 1/x` with
    :math:`\hat R\,(x - \ln(1 + x)) = (\mathrm{KL} + M)/n`. Other arguments and errors as for
    `maurer`; `gamma` outside (1, inf) is a ValueError.

    References
    ----------
    B. Rodriguez-Galvez, R. Thobaben, M. Skoglund (2024), "More PAC-Bayes bounds: from bounded
    losses, to losses with general tail behaviors, to anytime validity", JMLR 25, Theorem 7,
    https://arxiv.org/abs/2306.12214.

    Examples
    --------
    >>> round(fast_rate(0.1, 50.0, 10_000, gamma=1.5), 6)
    0.173536
    >>> round(fast_rate(0.1, 50.0, 10_000), 6)
    0.138137
    """
    if gamma is None:
        xp, (risk, kl, n, delta), finish = prepare(risk=risk, kl=kl, n=n, delta=delta)
        budget = (kl + log_constant(xp, n, delta, constant)) / n
        x = detached(_best_odds(xp, risk, budget))
    else:
        domains = {"gamma": ABOVE_ONE}
        given = prepare(domains, risk=risk, kl=kl, n=n, delta=delta, gamma=gamma)
        xp, (risk, kl, n, delta, gamma), finish = given
        budget = (kl + log_constant(xp, n, delta, constant)) / n
        x = 1 / (gamma - 1)
    value = (1 + 1 / x) * (xp.log1p(x) * risk + budget)
    return close(value, xp, finish, clip=clip)


@catalogued(GIBBS, FIXED, "Alquier, Ridgway and Chopin 2016, Theorem 4.1")
def alquier(
    risk: Real, kl: Real, n: Real, *, lam: Real, delta: Real = 0.05, clip: bool = True
) -> Real:
    r"""The bound of Alquier, Ridgway and Chopin by Hoeffding's lemma.

    .. math:: \hat R + \frac{\lambda}{8 n} + \frac{\mathrm{KL} + \ln\frac1\delta}{\lambda}

    `lam` must not depend on the examples: best is about
    :math:`\sqrt{8 n (\mathrm{KL} + \ln\frac1\delta)}` at the KL divergence one expects.
    Arguments and errors as for `maurer`; `lam` outside (0, inf) is a ValueError.

    References
    ----------
    P. Alquier, J. Ridgway, N. Chopin (2016), "On the properties of variational approximations of
    Gibbs posteriors", JMLR 17, Theorem 4.1, https://arxiv.org/abs/1506.04091.

    Examples
    --------
    >>> round(alquier(0.1, 50.0, 10_000, lam=2_000.0), 6)
    0.151498
    """
    given = prepare({"lam": POSITIVE}, risk=risk, kl=kl, n=n, delta=delta, lam=lam)
    xp, (risk, kl, n, delta, lam), finish = given
    value = risk + lam / (8 * n) + (kl - xp.log(delta)) / lam
    return close(value, xp, finish, clip=clip)


@catalogued(
    GIBBS,
    FIXED.replace("losses in [0, 1]", "the deviations of a loss are sub-gamma (s2, c)"),
    "Germain et al. 2016, Corollary 5",
    coverage="at s2 = 1/4 and c = 0 it is `alquier`, which is simulated",
)
def sub_gamma(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    lam: Real,
    s2: Real,
    c: Real,
    delta: Real = 0.05,
    clip: bool = True,
) -> Real:
    r"""The bound for losses whose deviations are sub-gamma.

    .. math:: \hat R + \frac{\mathrm{KL} + \ln\frac1\delta}{\lambda}
              + \frac{\lambda s^2}{2 n (1 - c \lambda / n)}, \qquad c \lambda < n

    where :math:`\ln \mathbb{E} e^{t (R(h) - \ell(h))} \le t^2 s^2 / 2 (1 - c t)` for every `h` and
    :math:`0 < t < 1/c`. None of `lam`, `s2` and `c` may depend on the examples. Losses in [0, 1]
    have ``s2=1/4, c=0``, which is `alquier`.

    Parameters
    ----------
    risk, kl, n, delta, clip
        As for `maurer`.
    lam : float, array or tensor
        Inverse temperature, positive, with ``c * lam < n``.
    s2 : float, array or tensor
        Variance factor, positive.
    c : float, array or tensor
        Scale, at least 0.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape.

    Raises
    ------
    ValueError
        If an argument is outside its domain, or ``c * lam`` is not below `n`.

    References
    ----------
    P. Germain, F. Bach, A. Lacoste, S. Lacoste-Julien (2016), "PAC-Bayesian theory meets Bayesian
    inference", NIPS 29, Corollary 5 (with :math:`\lambda = n`), https://arxiv.org/abs/1605.08636.

    Examples
    --------
    >>> round(sub_gamma(0.1, 50.0, 10_000, lam=2_000.0, s2=0.25, c=0.0), 6)
    0.151498
    """
    domains = {"lam": POSITIVE, "s2": POSITIVE, "c": COST}
    given = prepare(domains, risk=risk, kl=kl, n=n, delta=delta, lam=lam, s2=s2, c=c)
    xp, (risk, kl, n, delta, lam, s2, c), finish = given
    share = c * lam / n
    compare(xp, "c * lam / n", share, operator.lt, 1.0, "must be below 1")
    value = risk + (kl - xp.log(delta)) / lam + lam * s2 / (2 * n * (1 - share))
    return close(value, xp, finish, clip=clip)


@quiet
def _best_odds(xp: Any, risk: Any, budget: Any) -> Any:
    """The root of risk (x - ln(1 + x)) = budget, by Newton's method from its right."""
    t = xp.clip(budget / xp.clip(risk, 1e-300, None), None, 1e300)
    x = t + xp.sqrt(2 * t)
    for _ in range(6):
        x = x - (x - xp.log1p(x) - t) * (1 + x) / x
    return x
