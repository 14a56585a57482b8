"""Bounds on the risk of one fixed predictor from data that no training has seen.

The predictor, the number of examples and `delta` must not depend on these data. They hold for one
predictor: to choose among several by what they tell, share `delta` among all of them first, see
`pbnn.bounds.union`.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from pbnn.bounds._arrays import (
    COUNT,
    Real,
    check,
    close,
    compare,
    detached,
    outward,
    prepare,
    quiet,
)
from pbnn.bounds.catalogue import FIXED_PREDICTOR, catalogued
from pbnn.bounds.kl import inverse

_WIDER = 1e-10  # relative; ten times the largest error seen
_ERRORS = FIXED_PREDICTOR.replace("losses in [0, 1]", "losses of 0 or 1")


@catalogued(
    "risk of a fixed predictor",
    _ERRORS,
    "Clopper and Pearson 1934; Langford 2005",
)
def clopper_pearson(
    errors: Real, n: Real, *, delta: Real = 0.05, side: str = "upper", certify: bool = False
) -> Real:
    r"""The exact binomial bound on the risk of one fixed classifier from a held-out sample.

    .. math:: \sup\{p : \Pr[\mathrm{Bin}(n, p) \le k] \ge \delta\}
              = \mathrm{BetaInv}(1 - \delta;\, k + 1,\, n - k),

    which is 1 at :math:`k = n`; the lower one, 0 at :math:`k = 0`, is

    .. math:: \inf\{p : \Pr[\mathrm{Bin}(n, p) \ge k] \ge \delta\}
              = \mathrm{BetaInv}(\delta;\, k,\, n - k + 1).

    The classifier, `n` and `delta` must not depend on the sample.

    Parameters
    ----------
    errors : int, array or tensor
        Number of errors, from 0 to `n`.
    n : int, array or tensor
        Number of independent examples.
    delta : float, array or tensor
        Probability that the (one-sided) bound may fail, in (0, 1).
    side : {"upper", "lower"}
        Which bound.
    certify : bool
        Widen by a relative 1e-10. The incomplete beta function has no proved accuracy; against 40
        digits, for n up to 1e9, the error of the result was 8e-12 at most.

    Returns
    -------
    float, array or tensor
        Probability, of the broadcast shape; tensors are computed on the CPU, without gradient.

    Raises
    ------
    ValueError
        If an argument is outside its domain, or `errors` exceeds `n`.

    References
    ----------
    C. Clopper, E. Pearson (1934), "The use of confidence or fiducial limits illustrated in the
    case of the binomial", Biometrika 26.

    Examples
    --------
    >>> round(clopper_pearson(104, 10_000), 6)
    0.012229
    >>> clopper_pearson(10, 10)
    1.0
    """
    check_side(side)
    xp, given, finish = prepare(errors=errors, n=n, delta=delta)
    if hasattr(xp, "binomial_inverse"):
        return finish(xp.binomial_inverse(*given, side))
    k, n, delta = (x if xp is np else x.detach().cpu().numpy() for x in given)
    check("errors", k + 0 * n, lambda e: e <= n, "must not exceed `n`")
    value = _binomial(k, n, delta, side, certify)
    if xp is not np:
        value = xp.as_tensor(value, device=given[0].device)
    return finish(value, wide=certify)


@catalogued(
    "risk of a fixed predictor",
    _ERRORS,
    "Chernoff 1952; Hoeffding 1963, Theorem 1",
)
def chernoff(
    errors: Real, n: Real, *, delta: Real = 0.05, side: str = "upper", certify: bool = False
) -> Real:
    r"""Chernoff's bound on the risk of one fixed classifier from a held-out sample.

    .. math:: \mathrm{kl}^{\pm}\!\left(\frac kn, \frac{\ln(1/\delta)}{n}\right)

    It is `clopper_pearson` in closed form, and never tighter. For losses between 0 and 1 it is
    `pbnn.bounds.monte_carlo`. Arguments and errors as for `clopper_pearson`, except

    Parameters
    ----------
    certify : bool
        Whether to round outward: not inside the real value for the same inputs, see `kl_inverse`.

    References
    ----------
    W. Hoeffding (1963), "Probability inequalities for sums of bounded random variables", JASA 58,
    Theorem 1. J. Langford (2005), "Tutorial on practical prediction theory for classification",
    JMLR 6.

    Examples
    --------
    >>> round(chernoff(104, 10_000), 6)
    0.013082
    """
    check_side(side)
    xp, (k, n, delta), finish = prepare(errors=errors, n=n, delta=delta)
    if hasattr(xp, "kl_inverse"):
        return finish(inverse(xp, k / n, -xp.log(delta) / n, side=side))
    compare(xp, "errors", k, operator.le, n, "must not exceed `n`")
    q = k / n
    if certify:
        beyond = xp.zeros_like(q) + (1.0 if side == "upper" else 0.0)
        q = detached(q)
        q = xp.where((k > 0) & (k < n), xp.nextafter(q, beyond), q)
    value = inverse(xp, q, -xp.log(delta) / n, side=side, round_outward=certify)
    return finish(value, wide=certify)


@catalogued(
    "risk of a fixed predictor",
    FIXED_PREDICTOR + "; n is at least 2",
    "Maurer and Pontil 2009, Theorem 4",
)
def maurer_pontil(
    risk: Real, n: Real, *, variance: Real, delta: Real = 0.05, clip: bool = True
) -> Real:
    r"""The empirical Bernstein bound on the risk of one fixed predictor, from a held-out sample.

    .. math:: \hat r + \sqrt{\frac{2 V \ln(2/\delta)}{n}} + \frac{7 \ln(2/\delta)}{3 (n - 1)}

    The predictor, `n` and `delta` must not depend on the sample. It beats Chernoff's bound where
    the losses vary much less than those of 0 or 1 with the same mean; where the losses
    themselves are at hand, `pbnn.bounds.betting` is tighter.

    Parameters
    ----------
    risk : float, array or tensor
        Mean loss, in [0, 1].
    n : int, array or tensor
        Number of independent examples, at least 2.
    variance : float, array or tensor
        Unbiased variance :math:`V` of the losses, with :math:`n - 1` in its denominator.
    delta : float, array or tensor
        Probability that the (one-sided) bound may fail, in (0, 1).
    clip : bool
        Whether to clip to [0, 1].

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
    A. Maurer, M. Pontil (2009), "Empirical Bernstein bounds and sample variance penalization",
    COLT, Theorem 4, https://arxiv.org/abs/0907.3740.

    Examples
    --------
    >>> round(maurer_pontil(0.1, 10_000, variance=0.001), 6)
    0.10172
    """
    domains = {"n": (lambda x: COUNT[0](x) & (x >= 2), "must be a whole number, at least 2")}
    given = prepare(domains, risk=risk, n=n, variance=variance, delta=delta)
    xp, (risk, n, variance, delta), finish = given
    price = -xp.log(delta / 2)
    value = risk + xp.sqrt(variance) * xp.sqrt(2 * price / n) + 7 * price / (3 * (n - 1))
    return close(value, xp, finish, clip=clip)


def check_side(side: str) -> None:
    """Raise a ValueError unless `side` names one."""
    if side not in ("upper", "lower"):
        raise ValueError(f'`side` must be "upper" or "lower", got {side!r}.')


@quiet
def _binomial(k: Any, n: Any, delta: Any, side: str, certify: bool) -> Any:
    if side == "upper":
        # The complemented inverse: 1 - delta would lose digits of a small delta.
        value = np.where(k < n, _beta_inverse(k + 1, np.maximum(n - k, 1), delta, True), 1.0)
    else:
        value = np.where(k > 0, _beta_inverse(np.maximum(k, 1), n - k + 1, delta, False), 0.0)
    if not certify:
        return value
    value = value * (1 + _WIDER if side == "upper" else 1 - _WIDER)
    return np.clip(outward(value, np, up=side == "upper"), 0.0, 1.0)


def _beta_inverse(a: Any, b: Any, delta: Any, complement: bool) -> Any:
    """SciPy's inverse of the incomplete beta function, with one step of Newton's method.

    SciPy's inverse is wrong by up to 1e-8 at n = 1e9. Its forward function is not, if the smaller
    of the two tails is taken.
    """
    from scipy import special

    if complement:
        value = special.betainccinv(a, b, delta)
        value = np.where(np.isnan(value), 1.0, value)  # as below, seen from 1
        tail, other = special.betaincc(a, b, value), special.betainc(a, b, value)
        miss = np.where(delta < 0.5, tail - delta, (1 - delta) - other)
    else:
        value = special.betaincinv(a, b, delta)
        # SciPy has no answer below about 1e-54, where x^a / (a B(a, b)) is as good as exact.
        first = np.exp((np.log(delta) + np.log(a) + special.betaln(a, b)) / a)
        value = np.where(np.isnan(value), first, value)
        tail, other = special.betainc(a, b, value), special.betaincc(a, b, value)
        miss = np.where(delta < 0.5, delta - tail, other - (1 - delta))
    density = (a - 1) * np.log(value) + (b - 1) * np.log1p(-value) - special.betaln(a, b)
    step = miss / np.exp(density)
    return np.where(abs(step) < 1e-6 * value, value + step, value)
