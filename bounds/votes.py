"""Bounds on the risk of a majority vote, from what a Gibbs classifier tells about it.

The conditions, `kl`, `n`, `delta`, `clip` and `outward` are those of `pbnn.bounds.gibbs`.
"""

from __future__ import annotations

import math

import numpy as np

from pbnn.bounds._arrays import Real, check, close, log_constant, prepare, quiet
from pbnn.bounds.kl import inverse


def first_order(
    risk: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    clip: bool = True,
    outward: bool = False,
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
    budget = (kl + log_constant(xp, n, delta)) / n
    value = 2 * inverse(xp, risk, budget, round_outward=outward)
    return close(value, xp, finish, clip=clip, round_up=outward)


def tandem(
    tandem_loss: Real,
    kl: Real,
    n: Real,
    *,
    delta: Real = 0.05,
    clip: bool = True,
    outward: bool = False,
) -> Real:
    r"""Four times the tandem loss bounds the risk of the majority vote.

    .. math:: 4\,\mathrm{kl}^{+}\!\left(\hat e,
              \frac{2\,\mathrm{KL} + \ln\frac{2\sqrt n}{\delta}}{n}\right)

    The tandem loss is the probability that two independent voters err on the same example. It
    must be estimated from pairs of independent draws: the square of one Monte-Carlo average is
    biased upward, but no bound. Other arguments and errors as for `maurer`.

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
    budget = (2 * kl + log_constant(xp, n, delta)) / n
    value = 4 * inverse(xp, tandem_loss, budget, round_outward=outward)
    return close(value, xp, finish, clip=clip, round_up=outward)


@quiet
def derandomised(
    gibbs_bound: Real,
    lower_right: Real = 0.0,
    lower_wrong: Real = 0.5,
    *,
    clip: bool = True,
    outward: bool = False,
) -> Real:
    r"""Bound on the risk of the aggregated classifier from one on the Gibbs risk.

    .. math:: R_{\text{vote}} \le \frac{B - b}{c - b}

    when the Gibbs loss on an example is at least :math:`b` where the aggregate is right and at
    least :math:`c` where it is wrong. With :math:`(b, c) = (0, \frac12)` this is the factor 2. It
    holds on the same event as the bound :math:`B`, at no further price in delta.

    Parameters
    ----------
    gibbs_bound : float, array or tensor
        Upper bound :math:`B` on the Gibbs risk, in [0, 1].
    lower_right, lower_wrong : float, array or tensor
        The constants :math:`b < c`, in [0, 1]. They must hold for *every* input, not only on the
        sample; they may depend on the posterior.
    clip : bool
        Whether to clip to [0, 1].
    outward : bool
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
    B. Leblanc, P. Germain (2025), on derandomising PAC-Bayes bounds of aggregated classifiers.

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
    if not getattr(b, "requires_grad", False) and not getattr(c, "requires_grad", False):
        check("lower_right", b + 0 * c, lambda x: x < c, "must be below `lower_wrong`")
    excess, width = bound - b, c - b
    if outward:
        # The differences may cancel, so each is rounded before they are divided.
        if xp is not np:
            excess, width = excess.detach(), width.detach()
        excess = xp.nextafter(excess, xp.zeros_like(excess) + math.inf)
        width = xp.nextafter(width, xp.zeros_like(width))
    return close(excess / width, xp, finish, clip=clip, round_up=outward)
