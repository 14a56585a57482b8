"""The binary kl divergence and its two inverses, accurate in relative terms."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from pbnn.bounds import _arrays
from pbnn.bounds._arrays import SLACK, Real, prepare, quiet

_HUGE = 1.7e308  # stands for an infinite ratio whose weight is zero
_NORMAL = 2.0**-1022
_STEPS = 6  # four reach double precision for q in [1e-300, 1 - 2^-53] and c in [1e-13, 1e3]


def binary_kl(q: Real, p: Real) -> Real:
    r"""Kullback-Leibler divergence between two biased coins, in nats.

    .. math:: \mathrm{kl}(q \| p) = q \ln\frac{q}{p} + (1-q) \ln\frac{1-q}{1-p},
              \qquad 0 \ln 0 = 0.

    It is summed as :math:`q\,\varphi(d/q) + (1-q)\,\varphi(-d/(1-q))` with :math:`d = p - q` and
    :math:`\varphi(x) = x - \ln(1+x)`, whose terms are never negative: nothing cancels when `p` is
    close to `q`.

    Parameters
    ----------
    q, p : float, array or tensor
        Probabilities in [0, 1]; they broadcast.

    Returns
    -------
    float, array or tensor
        In [0, inf]; infinite where `p` is 0 or 1 and `q` is not the same.

    Raises
    ------
    ValueError
        If a value is outside [0, 1]. Tensors that require gradients are not checked.

    Examples
    --------
    >>> round(binary_kl(0.1, 0.2), 6)
    0.03669
    >>> binary_kl(0.0, 1.0)
    inf
    """
    xp, (q, p), finish = prepare(q=q, p=p)
    if hasattr(xp, "broadcast_tensors"):
        q, p = xp.broadcast_tensors(q, p)
        function, _ = _functions()
        return finish(function.apply(q, p))
    return finish(divergence(xp, q, p))


def kl_inverse(q: Real, c: Real, side: str = "upper", *, certify: bool = False) -> Real:
    r"""The largest (or smallest) mean within a kl budget of an observed one.

    .. math:: \mathrm{kl}^{+}(q, c) = \sup\{p \in [q, 1] : \mathrm{kl}(q \| p) \le c\}, \qquad
              \mathrm{kl}^{-}(q, c) = \inf\{p \in [0, q] : \mathrm{kl}(q \| p) \le c\}.

    Found by Newton's method on :math:`u = \ln\frac{1-q}{1-p}` (upper) or :math:`\ln\frac{q}{p}`
    (lower), where the function is convex and every iterate stays outside the root. The relative
    error is a few units in the last place of `p` (times :math:`1 + \ln(q/p)` for the lower side).

    Parameters
    ----------
    q : float, array or tensor
        Observed mean, in [0, 1].
    c : float, array or tensor
        Budget in nats, at least 0; infinity gives 1 (upper) or 0 (lower).
    side : {"upper", "lower"}
        Which inverse.
    certify : bool
        Round away from `q`: the float64 result is then never below (upper) or above (lower) the
        real value for these very `q` and `c`, even when `c` itself carries a relative error of
        1e-14; it exceeds it by a relative 4e-14 at most (upper). It carries no gradient.

    Returns
    -------
    float, array or tensor
        Probability, of the broadcast shape. Gradients are implicit,
        :math:`\partial p/\partial c = \frac{p(1-p)}{p-q}` and
        :math:`\partial p/\partial q = \ln\frac{(1-q)\,p}{(1-p)\,q}\;\partial p/\partial c`.
        At ``q = 0`` the upper inverse has :math:`\partial p/\partial c = e^{-c}` and
        :math:`\partial p/\partial q = +\infty` (train with ``q.clamp(min=1e-12)``); as `c` goes to
        0 they tend to infinity and to 1. The lower inverse is the mirror image,
        :math:`\mathrm{kl}^{-}(q, c) = 1 - \mathrm{kl}^{+}(1 - q, c)`.

    Raises
    ------
    ValueError
        If `q` is outside [0, 1], `c` negative or NaN, or `side` unknown. Tensors that require
        gradients are not checked.

    References
    ----------
    J. Langford (2005), "Tutorial on practical prediction theory for classification", JMLR 6.

    Examples
    --------
    >>> round(kl_inverse(0.1, 0.02), 6)
    0.170384
    >>> kl_inverse(0.0, float("inf"))
    1.0
    """
    if side not in ("upper", "lower"):
        raise ValueError(f'`side` must be "upper" or "lower", got {side!r}.')
    xp, (q, c), finish = prepare(q=q, c=c)
    value = inverse(xp, q, c, side=side, round_outward=certify)
    return finish(value, wide=certify)


def inverse(xp: Any, q: Any, c: Any, *, side: str = "upper", round_outward: bool = False) -> Any:
    """`kl_inverse` on float64 arrays of the namespace `xp`, unchecked."""
    if hasattr(xp, "kl_inverse"):
        return xp.kl_inverse(q, c, side)
    if round_outward:
        q = _arrays.detached(q)
        value = _solve(xp, q, _arrays.outward(c, xp), side, slack=SLACK)
        beyond = xp.zeros_like(value) + (2.0 if side == "upper" else -1.0)
        value = xp.clip(xp.nextafter(value, beyond), 0.0, 1.0)
        if side == "lower":
            # Subnormal numbers have no relative accuracy to rely on.
            value = xp.where(value < 1e-300, 0.0, value)
        # The inverse is q itself where the budget is zero, and there rounding is not needed.
        return xp.where(c == 0, q, value)
    if xp is not np:
        q, c = xp.broadcast_tensors(q, c)
        _, function = _functions()
        return function.apply(q, c, side)
    return _solve(xp, q, c, side)


@quiet
def divergence(xp: Any, q: Any, p: Any) -> Any:
    """`binary_kl` on float64 arrays of the namespace `xp`, unchecked."""
    if hasattr(xp, "binary_kl"):
        return xp.binary_kl(q, p)
    return _excess(xp, q, p, p - q) + _excess(xp, 1 - q, 1 - p, q - p)


def _excess(xp: Any, a: Any, b: Any, d: Any) -> Any:
    """The term a ln(a/b) + b - a >= 0, where d = b - a."""
    y = d / (a + b)
    near = abs(y) < 0.25
    y = xp.where(near, y, 0.0)
    # ln(b/a) = 2 (y + y^3/3 + y^5/5 + ...), of which the first term cancels against b - a.
    tail = 0.0 * y
    for k in range(14, -1, -1):
        tail = tail * (y * y) + 1 / (2 * k + 3)
    small = d * y - 2 * a * y * y * y * tail
    large = d - a * xp.log(xp.clip(b / a, None, _HUGE))
    return xp.where(d == 0, 0.0, xp.where(near, small, large))


@quiet
def exponent(xp: Any, a: Any, b: Any, c: Any) -> Any:
    """Solve a u - b ln(1 + a (1 - exp(-u)) / b) = c for u > 0; a, b, c > 0 and a + b = 1.

    With (a, b) = (1 - q, q) this is ln((1 - q) / (1 - p)) for the upper inverse p, with (q, 1 - q)
    it is ln(q / p) for the lower one. The left side is convex and increasing, so Newton's method
    from the right of the root stays there, but for rounding: with elementary functions good to 4
    units in the last place an evaluation is wrong by at most 28 units of 2^-53 of a u. This moves
    the upper p by 28 such units of itself, the lower one by 28 (1 + u).
    """
    scale = xp.sqrt(0.5 * a) * xp.sqrt(c)  # a c may be below the least float64
    reach = 2 * scale * (scale + xp.sqrt(b + scale * scale)) / a
    log_b = xp.where(b < 0.5, xp.log(b), xp.log1p(-a))
    # Rounding must not put the start to the left: nothing after it may go beyond.
    far = (1 + SLACK) * (c - b * log_b) / a
    start = xp.minimum(far, -xp.log1p(-xp.clip((1 + SLACK) * reach, None, 1.0)))
    u = start = xp.clip(start, None, 1e300)
    for _ in range(_STEPS):
        d = -a * xp.expm1(-u)
        value = a * u - b * xp.log1p(xp.clip(d / b, None, _HUGE))
        u = xp.minimum(start, xp.maximum(u - (value - c) * ((b + d) / d), c / a))
    return u


def _solve(xp: Any, q: Any, c: Any, side: str, slack: float = 0.0) -> Any:
    # What is no number stays so: unchecked in training, it must not come out as a vacuous bound.
    unknown = (q != q) | (c != c)
    return xp.where(unknown, math.nan, _solved(xp, q, c, side, slack))


@quiet
def _solved(xp: Any, q: Any, c: Any, side: str, slack: float) -> Any:
    inside = (q > 0) & (q < 1) & (c > 0) & (c < math.inf)
    r, budget = xp.where(inside, q, 0.5), xp.where(inside, c, 1.0)
    if side == "upper":
        u = exponent(xp, 1 - r, r, budget)
        edge = xp.where(q == 0, -xp.expm1(-c), xp.where(c == 0, q, 1.0))
        return xp.where(inside, r - (1 - r) * xp.expm1(-u), edge) * (1 + slack)
    # Means below the least normal float have no relative accuracy to keep: their inverse is 0.
    inside, r = inside & (q >= _NORMAL), xp.where(q >= _NORMAL, r, 0.5)
    u = exponent(xp, r, 1 - r, budget)
    edge = xp.where(q == 1, xp.exp(-(1 + slack) * c), xp.where(c == 0, q, 0.0))
    return xp.where(inside, r * xp.exp(-u - slack * (1 + u)), edge) * (1 - slack)


@functools.cache
def _functions() -> tuple[Any, Any]:
    """The two autograd functions, defined once a tensor has come in."""
    import torch

    class Divergence(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(q: Any, p: Any) -> Any:
            return divergence(torch, q, p)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            q, p = ctx.saved_tensors
            slope = (p - q) / (p * (1 - p))
            slope = torch.where(q == 0, 1 / (1 - p), torch.where(q == 1, -1 / p, slope))
            log_odds = _log_ratio(torch, q, p) - _log_ratio(torch, 1 - q, 1 - p)
            return grads[0] * torch.where(p == q, 0.0, log_odds), grads[0] * slope

    class Inverse(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(q: Any, c: Any, side: str) -> Any:
            return _solve(torch, q, c, side)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.side = inputs[2]
            ctx.save_for_backward(*inputs[:2], output)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            q, c, p = ctx.saved_tensors
            by_q, by_c = _slopes(torch, q, c, p, ctx.side)
            return grads[0] * by_q, grads[0] * by_c, None

    return Divergence, Inverse


def _log_ratio(xp: Any, b: Any, a: Any) -> Any:
    """The logarithm of b / a, accurate both near 1 and near 0."""
    x = (b - a) / a
    return xp.where(abs(x) < 0.5, xp.log1p(x), xp.log(b / a))


def _slopes(xp: Any, q: Any, c: Any, p: Any, side: str) -> tuple[Any, Any]:
    """Implicit derivatives of the inverse `p` by `q` and `c`, with their limits at the ends."""
    near, far, sign = (0.0, 1.0, 1.0) if side == "upper" else (1.0, 0.0, -1.0)
    gap = abs(p - q)
    steep = p * (1 - p) / gap
    by_c = xp.where(p == far, 0.0, steep)
    by_c = sign * xp.where(q == near, xp.exp(-c), by_c)
    log_odds = abs(_log_ratio(xp, p, q) - _log_ratio(xp, 1 - p, 1 - q))
    by_q = xp.where(gap == 0, 1.0, log_odds * steep)
    by_q = xp.where(p == far, 0.0, by_q)
    by_q = xp.where((q == near) & (c < math.inf), math.inf, by_q)
    return xp.where(c == 0, 1.0, by_q), by_c
