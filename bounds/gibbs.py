"""Bounds on the risk of a Gibbs classifier: one drawn from the posterior for each example.

They share their terms. The loss lies in [0, 1]; the `n` examples are independent draws from one
distribution; the prior does not depend on them (one learned on part of a sample leaves the other
part to be counted in `n`). With probability at least 1 - delta over the examples, each bound holds
for every posterior at once, so posteriors may be chosen, and the bound watched, freely. `risk`
must be exact or itself bounded from above, see `pbnn.bounds.holdout.monte_carlo`.

With ``outward=True`` the float64 result is not below the real value for the same inputs; it
exceeds it by a relative 1e-13 at most, and carries no gradient.
"""

from __future__ import annotations

import math

from pbnn.bounds._arrays import Real, close, log_constant, prepare, quiet
from pbnn.bounds.kl import exponent, inverse


def catoni(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    C: Real | None = None,
    fixed: bool = False,
    clip: bool = True,
    outward: bool = False,
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
    clip : bool
        Whether to clip to [0, 1]; training wants the gradient that clipping removes.
    outward : bool
        Whether to round up, see the head of this module.

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
        return maurer(risk, kl, n, delta=delta, clip=clip, outward=outward)
    xp, (risk, kl, n, delta, C), finish = prepare(risk=risk, kl=kl, n=n, delta=delta, C=C)
    price = -xp.log(delta) if fixed else log_constant(xp, n, delta)
    value = xp.expm1(-C * risk - (kl + price) / n) / xp.expm1(-C)
    return close(value, xp, finish, clip=clip, round_up=outward)


def maurer(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    clip: bool = True,
    outward: bool = False,
) -> Real:
    r"""The Langford-Seeger bound on the Gibbs risk with Maurer's constant.

    .. math:: \mathrm{kl}^{+}\!\left(\hat R,
              \frac{\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{n}\right)

    Nothing but the posterior may depend on the examples. Arguments and errors as for `catoni`,
    which it never exceeds; `clip` is without effect, as the value lies in [0, 1].

    References
    ----------
    A. Maurer (2004), "A note on the PAC Bayesian theorem", Theorem 5,
    https://arxiv.org/abs/cs/0411099.

    Examples
    --------
    >>> round(maurer(0.1, 50.0, 10_000), 6)
    0.135468
    """
    xp, (risk, kl, n, delta), finish = prepare(risk=risk, kl=kl, n=n, delta=delta)
    budget = (kl + log_constant(xp, n, delta)) / n
    return finish(inverse(xp, risk, budget, round_outward=outward), wide=outward)


@quiet
def catoni_optimal_c(risk: Real, kl: Real, n: Real, *, delta: Real = 0.05) -> Real:
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
    budget = (kl + log_constant(xp, n, delta)) / n
    risk, budget = (x.detach() if hasattr(x, "detach") else x for x in (risk, budget))
    inside = (risk > 0) & (risk < 1) & (budget < math.inf)
    r = xp.where(inside, risk, 0.5)
    u = exponent(xp, 1 - r, r, xp.where(inside, budget, 1.0))
    return finish(xp.where(inside, u + xp.log1p(-(1 - r) * xp.expm1(-u) / r), math.inf))


def mcallester(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    clip: bool = True,
    outward: bool = False,
) -> Real:
    r"""McAllester's bound on the Gibbs risk, with Maurer's constant.

    .. math:: \hat R + \sqrt{\frac{\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{2 n}}

    It is `maurer` relaxed by Pinsker's inequality. Nothing but the posterior may depend on the
    examples. Arguments and errors as for `catoni`.

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
    value = risk + xp.sqrt((kl + log_constant(xp, n, delta)) / (2 * n))
    return close(value, xp, finish, clip=clip, round_up=outward)


def quadratic(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    clip: bool = True,
    outward: bool = False,
) -> Real:
    r"""The quadratic bound on the Gibbs risk, faster than `mcallester` where the risk is small.

    .. math:: \left(\sqrt{\hat R + a} + \sqrt{a}\right)^2,
              \qquad a = \frac{\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{2n}

    It is `maurer` relaxed by :math:`\mathrm{kl}(q \| p) \ge (p-q)^2 / 2p`, and equals `thiemann`
    at its best `lam`. Nothing but the posterior may depend on the examples. Arguments and errors
    as for `catoni`.

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
    a = (kl + log_constant(xp, n, delta)) / (2 * n)
    value = (xp.sqrt(risk + a) + xp.sqrt(a)) ** 2
    return close(value, xp, finish, clip=clip, round_up=outward)


def thiemann(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    lam: Real | None = None,
    clip: bool = True,
    outward: bool = False,
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
        evidence = kl + log_constant(xp, n, delta)
        lam = 2 / (xp.sqrt(2 * n * risk / evidence + 1) + 1)
    else:
        xp, (risk, kl, n, delta, lam), finish = prepare(risk=risk, kl=kl, n=n, delta=delta, lam=lam)
        evidence = kl + log_constant(xp, n, delta)
    value = (risk + evidence / (n * lam)) / (1 - lam / 2)
    return close(value, xp, finish, clip=clip, round_up=outward)
