"""Bounds from data that no training has seen, and the Monte-Carlo step of a certificate."""

from __future__ import annotations

from typing import Any

import numpy as np

from pbnn.bounds import _arrays
from pbnn.bounds._arrays import Real, check, prepare, quiet
from pbnn.bounds.kl import inverse

_WIDER = 1e-10  # relative; ten times the largest error seen


def clopper_pearson(
    errors: Real, n: Real, *, delta: Real = 0.05, side: str = "upper", outward: bool = False
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
    outward : bool
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
    if side not in ("upper", "lower"):
        raise ValueError(f'`side` must be "upper" or "lower", got {side!r}.')
    xp, given, finish = prepare(errors=errors, n=n, delta=delta)
    k, n, delta = (x if xp is np else x.detach().cpu().numpy() for x in given)
    check("errors", k + 0 * n, lambda e: e <= n, "must not exceed `n`")
    value = _binomial(k, n, delta, side, outward)
    if xp is not np:
        value = xp.as_tensor(value, device=given[0].device)
    return finish(value, wide=outward)


def monte_carlo(
    risk: Real, draws: Real, *, delta: Real = 0.05, clip: bool = True, outward: bool = False
) -> Real:
    r"""Upper bound on a Gibbs risk that was estimated by drawing networks.

    .. math:: \mathrm{kl}^{+}\!\left(\hat r, \frac{\ln(1/\delta)}{m}\right)

    It holds by Chernoff's inequality for a mean of :math:`m` independent losses in [0, 1], whose
    expectations need not be equal. Put it in place of `risk` in a bound that grows with the risk;
    the two shares of delta add up.

    A draw is one independent draw of the *weights*. A fresh network for each of the `n` examples,
    repeated over `passes`, makes :math:`m = n \cdot \text{passes}`. One network shared by a batch
    makes one draw, however large the batch: :math:`m` is the number of batches, `risk` their mean
    (with unequal batches take :math:`Z_b = \text{errors}_b / n_{\max}`, bound its mean, and
    multiply by :math:`B\,n_{\max} / \sum_b n_b`). The number of draws must be fixed before looking.

    Parameters
    ----------
    risk : float, array or tensor
        Mean loss of the draws, in [0, 1].
    draws : int, array or tensor
        Number :math:`m` of independent draws.
    delta : float, array or tensor
        Probability that this step may fail, in (0, 1), to be added to that of the bound.
    clip : bool
        Without effect, as the value lies in [0, 1].
    outward : bool
        Whether to round up: not below the real value for the same inputs, see `kl_inverse`.

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
    J. Langford, R. Caruana (2001), "(Not) bounding the true error", NIPS 14, with the one-sided
    Chernoff bound.

    Examples
    --------
    >>> round(monte_carlo(0.1, 10_000), 6)
    0.107503
    """
    xp, (risk, draws, delta), finish = prepare(risk=risk, draws=draws, delta=delta)
    value = inverse(xp, risk, -xp.log(delta) / draws, round_outward=outward)
    return finish(value, wide=outward)


@quiet
def _binomial(k: Any, n: Any, delta: Any, side: str, outward: bool) -> Any:
    if side == "upper":
        # The complemented inverse: 1 - delta would lose digits of a small delta.
        value = np.where(k < n, _beta_inverse(k + 1, np.maximum(n - k, 1), delta, True), 1.0)
    else:
        value = np.where(k > 0, _beta_inverse(np.maximum(k, 1), n - k + 1, delta, False), 0.0)
    if not outward:
        return value
    value = value * (1 + _WIDER if side == "upper" else 1 - _WIDER)
    return np.clip(_arrays.outward(value, np, up=side == "upper"), 0.0, 1.0)


def _beta_inverse(a: Any, b: Any, delta: Any, complement: bool) -> Any:
    """SciPy's inverse of the incomplete beta function, with one step of Newton's method.

    SciPy's inverse is wrong by up to 1e-8 at n = 1e9. Its forward function is not, if the smaller
    of the two tails is taken.
    """
    from scipy import special

    if complement:
        value = special.betainccinv(a, b, delta)
        tail, other = special.betaincc(a, b, value), special.betainc(a, b, value)
        miss = np.where(delta < 0.5, tail - delta, (1 - delta) - other)
    else:
        value = special.betaincinv(a, b, delta)
        tail, other = special.betainc(a, b, value), special.betaincc(a, b, value)
        miss = np.where(delta < 0.5, delta - tail, other - (1 - delta))
    density = (a - 1) * np.log(value) + (b - 1) * np.log1p(-value) - special.betaln(a, b)
    step = miss / np.exp(density)
    return np.where(abs(step) < 1e-6 * value, value + step, value)
