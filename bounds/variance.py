"""Bounds on the mean of a loss that gain from its small variance.

The conditions are those of `pbnn.bounds.gibbs`: independent examples, and a prior that does not
depend on them. `kl`, `n`, `delta` and `constant` are those of `maurer`.
"""

from __future__ import annotations

from typing import Any

from pbnn.bounds._arrays import (
    ABOVE_ONE,
    COUNT,
    FINITE,
    POSITIVE,
    Real,
    at_most,
    close,
    compare,
    prepare,
    quiet,
)
from pbnn.bounds.catalogue import EVERY_POSTERIOR, catalogued
from pbnn.bounds.gibbs import GIBBS, MEAN

_GRID = 32  # points at most: more than n = 1e19 asks for
_PAIRS = (lambda x: COUNT[0](x) & (x >= 2), "must be a whole number, at least 2")


@catalogued(
    GIBBS, EVERY_POSTERIOR + "; c1 and c2 fixed beforehand", "Tolstikhin and Seldin 2013, Theorem 4"
)
@quiet
def empirical_bernstein(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    variance: Real,
    delta: Real = 0.05,
    c1: Real = 1.15,
    c2: Real = 1.15,
    clip: bool = True,
) -> Real:
    r"""The empirical Bernstein bound of Tolstikhin and Seldin on the Gibbs risk.

    .. math:: \hat R + (1 + c_1) \sqrt{\frac{(e - 2)\,\bar V K_1}{n}}
              \;\text{ if }\; K_1 \le (e - 2)\,\bar V n,
              \;\text{ else }\; \hat R + \frac{2 K_1}{n},

    .. math:: \bar V = \min\left\{\tfrac14,\; \hat V + (1 + c_2) \sqrt{\frac{\hat V K_2}{2(n - 1)}}
              + \frac{2 c_2 K_2}{n - 1}\right\}, \qquad
              K_j = \mathrm{KL} + \ln\frac{2 \nu_j}{\delta},

    .. math:: \nu_1 = \max\left\{1, 1 + \left\lceil
              \frac{\ln\sqrt{(e - 2)\,n / 4 \ln\frac2\delta}}{\ln c_1} \right\rceil\right\},
              \qquad \nu_2 = \left\lceil \frac{\ln\left(\frac12 \sqrt{(n - 1)/\ln\frac2\delta + 1}
              + \frac12\right)}{\ln c_2} \right\rceil.

    Two events, each at delta/2, give the bound on the variance and the one by it; the second holds
    at each of :math:`\nu_1` temperatures, the first at each of :math:`\nu_2`. For a small `n` the
    paper's :math:`\nu_1` would fall below 1; then one temperature is enough. `c1` and `c2` must not
    depend on the examples. The bound is not monotone everywhere: where its two forms meet it falls,
    and so it does in steps of :math:`\nu_j`.

    Parameters
    ----------
    risk, kl, delta : float, array or tensor
        As for `maurer`.
    n : int, array or tensor
        Number of examples behind both `risk` and `variance`, at least 2.
    variance : float, array or tensor
        Posterior mean of the unbiased sample variance (divided by n - 1) of the losses of one
        predictor, at least 0. It is not the variance of the mean loss of the posterior. Where it
        is 0 its infinite derivative is left out of the gradient.
    c1, c2 : float, array or tensor
        Ratios of the grids of temperatures, above 1.
    clip : bool
        Whether to clip to [0, 1].

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape.

    Raises
    ------
    ValueError
        If an argument is outside its domain or shapes do not broadcast.

    References
    ----------
    I. Tolstikhin, Y. Seldin (2013), "PAC-Bayes-empirical-Bernstein inequality", NIPS 26, Theorem 4.

    Examples
    --------
    >>> round(empirical_bernstein(0.02, 50.0, 10_000, variance=0.001), 6)
    0.038284
    """
    domains = {"n": _PAIRS, "c1": ABOVE_ONE, "c2": ABOVE_ONE}
    xp, (risk, kl, n, variance, delta, c1, c2), finish = prepare(
        domains, risk=risk, kl=kl, n=n, variance=variance, delta=delta, c1=c1, c2=c2
    )
    e_less_2 = xp.exp(0.0 * n + 1) - 2
    price = -xp.log(delta / 2)
    first = xp.ceil(xp.log(e_less_2 * n / (4 * price)) / (2 * xp.log(c1))) + 1
    second = xp.ceil(xp.log((xp.sqrt((n - 1) / price + 1) + 1) / 2) / xp.log(c2))
    evidence = kl + price + xp.log(xp.clip(first, 1.0, None))
    doubt = (kl + price + xp.log(second)) / (n - 1)
    # A root of its own, with no derivative at 0: there its infinity would meet the zeros of the
    # branches not taken.
    root = xp.sqrt(xp.where(variance > 0, variance, 1.0))
    root = xp.where(variance > 0, root, 0.0) * xp.sqrt(doubt / 2)
    spread = e_less_2 * xp.clip(variance + (1 + c2) * root + 2 * c2 * doubt, None, 0.25)
    slow = 2 * evidence / n
    fast = (1 + c1) * xp.sqrt(spread * evidence / n)
    value = risk + xp.where(evidence <= spread * n, fast, slow)
    return close(value, xp, finish, clip=clip)


@catalogued(
    MEAN,
    EVERY_POSTERIOR.replace("losses in [0, 1]", "losses of at most b"),
    "Mhammedi et al. 2019, with the grid of Wu and Seldin 2022",
)
def unexpected_bernstein(
    loss: Real,
    kl: Real,
    n: Real,
    *,
    second_moment: Real,
    b: Real = 1.0,
    delta: Real = 0.05,
    clip: bool = True,
) -> Real:
    r"""The bound by the empirical second moment of a loss that is at most `b`.

    .. math:: \min_{i = 1, \dots, k} \; \hat L
              + \frac{-\gamma_i b - \ln(1 - \gamma_i b)}{\gamma_i b^2}\, \hat V_2
              + \frac{\mathrm{KL} + \ln\frac{k}{\delta}}{\gamma_i n}, \qquad
              \gamma_i = \frac{1}{2^i b},

    .. math:: k = \max\left\{1, \left\lceil \log_2\left(
              \frac12 \sqrt{\frac{n}{\ln\frac1\delta}} \right) \right\rceil\right\}
              \quad \text{(and at most 32).}

    It holds at every :math:`\gamma_i` at once: :math:`\ln k` is the price of choosing. That grid
    depends on `n`, `delta` and `b` alone, and `b` must not depend on the examples. From
    below the loss needs no bound.

    Parameters
    ----------
    loss : float, array or tensor
        Posterior mean of the empirical loss, at most `b`; it may be negative.
    kl, n, delta : float, array or tensor
        As for `maurer`.
    second_moment : float, array or tensor
        Posterior mean of the empirical mean of the squared loss, not centred, at least 0.
    b : float, array or tensor
        Largest value that the loss can take, positive.
    clip : bool
        Whether to clip to [0, b].

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape.

    Raises
    ------
    ValueError
        If an argument is outside its domain or shapes do not broadcast.

    References
    ----------
    Z. Mhammedi, P. Grunwald, B. Guedj (2019), "PAC-Bayes un-expected Bernstein inequality",
    NeurIPS 32, https://arxiv.org/abs/1905.13367. Y.-S. Wu, Y. Seldin (2022), "Split-kl and
    PAC-Bayes-split-kl inequalities for ternary random variables", NeurIPS 35 (the grid),
    https://arxiv.org/abs/2206.00706.

    Examples
    --------
    >>> round(unexpected_bernstein(-0.01, 50.0, 10_000, second_moment=0.01), 6)
    0.004784
    """
    xp, (loss, kl, n, second_moment, b, delta), finish = prepare(
        {"loss": FINITE, "b": POSITIVE},
        loss=loss,
        kl=kl,
        n=n,
        second_moment=second_moment,
        b=b,
        delta=delta,
    )
    compare(xp, "loss", loss, at_most, b, "must be at most `b`")
    price = -xp.log(delta)
    size = xp.ceil(xp.log(n / (4 * price)) / xp.log(0.0 * n + 4))
    size = xp.clip(size, 1.0, float(_GRID))
    evidence = b * (kl + price + xp.log(size)) / n
    second_moment = second_moment / b

    def at(i: int) -> Any:
        u = 2.0**-i
        slope = -1 - xp.log1p(0.0 * n - u) / u
        return loss + slope * second_moment + evidence / u

    value = at(1)
    for i in range(2, _GRID + 1):
        value = xp.minimum(value, xp.where(size >= i, at(i), value))
    return finish(xp.clip(xp.minimum(value, b), 0.0, None) if clip else value)
