"""Batch normalisation, sign and maximum of random units in two passes over memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pbnn.functional.moments import Moments, Signs
from pbnn.functional.normalisation import Statistics

CACHED = 2**18
"""Numbers of an intermediate table on a CPU, so that the passes over it stay in the cache."""


def normalised_sign(
    x: Moments,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    statistics: Statistics | None = None,
    window: int = 1,
) -> tuple[Signs, Statistics]:
    r"""Means of the signs of batch-normalised Gaussian units, of the largest of each window.

    The same as `batch_statistics`, `batch_norm`, `sign` and `max_pool` one after the other, with
    their gradients, but some twenty passes over the units meet them in the cache, and no more is
    kept for the gradient than what came in.

    Parameters
    ----------
    x : Moments, shape (n, channels) or (n, channels, height, width)
        The variance may be of one example for all.
    gamma, beta : Tensor, shape (channels,)
    eps : float
    statistics : Statistics, optional
        Normalise by these, as constants; by default by those of the batch.
    window : int
        Side of the windows of `max_pool`; 1 for none.

    Returns
    -------
    Signs, Statistics
        The statistics are those used, detached.

    Examples
    --------
    >>> x = Moments(torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0], [6.0]]))
    >>> signs, statistics = normalised_sign(x, torch.ones(1), torch.zeros(1), 0.0)
    >>> signs.mean.round(decimals=3), statistics.var
    (tensor([[-0.3830],
            [ 0.3170]]), tensor([7.]))
    """
    var = x.variances()
    var = var.expand(len(var), *x.mean.shape[1:])
    given = (None, None) if statistics is None else statistics
    mean, *used = _NormalisedSign.apply(x.mean, var, gamma, beta, *given, eps, window)
    return Signs(mean), Statistics(*used)


class _NormalisedSign(torch.autograd.Function):
    r"""With A = γ/√(v + ε), B = β − mA: t = (Aμ + B)/√(2A²σ²), erf t, and the pooling."""

    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        var: Tensor,
        gamma: Tensor,
        beta: Tensor,
        centre: Tensor | None,
        spread: Tensor | None,
        eps: float,
        window: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        units, variances = _channels_last(mean), _channels_last(var)
        ctx.of_batch = centre is None or spread is None
        if centre is None or spread is None:
            centre, spread = _statistics(units, variances)
        scale = gamma * (spread + eps).rsqrt()
        shift = beta - centre * scale
        sides = [size // window for size in units.shape[1:-1]]
        out = units.new_empty(len(units), *sides, units.shape[-1])
        for part in _parts(units):
            t, _ = _argument(units[part], _rows(variances, part), scale, shift)
            if window == 1:
                torch.erf(t, out=out[part])
            else:
                down = _by_place(t, window).contiguous().erfc_().mul_(0.5)
                out[part] = down.flatten(0, 1).prod(0).mul_(-2).add_(1)
        ctx.save_for_backward(units, variances, scale, shift, centre, spread)
        ctx.eps, ctx.window = eps, window
        ctx.mark_non_differentiable(centre, spread)
        return out.movedim(-1, 1), centre, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        units, variances, scale, shift, centre, spread = ctx.saved_tensors
        slope = _channels_last(slopes[0])
        to_mean, to_var = torch.empty_like(units), torch.zeros_like(variances)
        to_scale, to_shift = torch.zeros_like(scale), torch.zeros_like(scale)
        for part in _parts(units):
            mean, var = units[part], _rows(variances, part)
            t, inverse = _argument(mean, var, scale, shift)
            direct = _slope_of_sign(t, slope[part], ctx.window).mul_(inverse)
            through = t.mul_(direct).mul_(inverse)
            to_shift += _sum(direct)
            to_scale += _sum(direct * mean) - 2 * scale * _sum(through * var)
            torch.mul(direct, scale, out=to_mean[part])
            rows = _rows(to_var, part)
            rows += _reduced(through.mul_(-scale.square()), len(rows))
        to_scale -= centre * to_shift
        if ctx.of_batch:
            count = units.numel() // len(scale)
            to_spread = -to_scale * scale / (2 * (spread + ctx.eps))
            pull = 2 * to_spread / max(count - 1, 1)
            push = -scale * to_shift / count - pull * centre
            for part in _parts(units):
                to_mean[part].addcmul_(units[part], pull).add_(push)
            to_var += to_spread * len(scale) / variances.numel()
        to_gamma = to_scale * (spread + ctx.eps).rsqrt()
        found = (to_mean.movedim(-1, 1), to_var.movedim(-1, 1), to_gamma, to_shift)
        return *found, None, None, None, None


def _channels_last(x: Tensor) -> Tensor:
    """(n, channels, ...) as contiguous (n, ..., channels); no copy if it lies so in memory."""
    return x.movedim(1, -1).contiguous()


def _parts(units: Tensor) -> Iterator[slice]:
    """Slices of examples whose numbers stay in a cache; all of them at once on an accelerator."""
    size = len(units)
    if units.device.type == "cpu":
        size = max(1, CACHED // max(1, units[0].numel()))
    return (slice(start, start + size) for start in range(0, len(units), size))


def _rows(values: Tensor, part: slice) -> Tensor:
    """A part of the examples, or the one that stands for all."""
    return values if len(values) == 1 else values[part]


def _reduced(values: Tensor, count: int) -> Tensor:
    """Summed over the examples if one stands for all."""
    return values if len(values) == count else values.sum(0, keepdim=True)


def _sum(values: Tensor) -> Tensor:
    """Sum of each channel."""
    return values.flatten(0, -2).sum(0)


def _statistics(units: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Those of `batch_statistics`; deviations from the mean of a part, joined part by part."""
    channels = units.shape[-1]
    centre, squares, within = (units.new_zeros(channels) for _ in range(3))
    seen = 0
    for part in _parts(units):
        rows = units[part].flatten(0, -2)
        mine = rows.mean(0)
        step, both = mine - centre, seen + len(rows)
        deviation = rows - mine
        squares += deviation.mul_(deviation).sum(0) + step.square() * (seen * len(rows) / both)
        centre += step * (len(rows) / both)
        seen = both
    for part in _parts(variances):
        within += _sum(variances[part])
    if seen < 2:
        raise ValueError("`x` must hold at least two units a channel, got one.")
    return centre, within * (channels / variances.numel()) + squares / (seen - 1)


def _argument(mean: Tensor, var: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """t and 1/√(2A²σ²), so that erf t is the mean of the sign.

    At zero variance a hair of each takes t far out to the right side, 0 counting as positive; it
    is lost in rounding elsewhere.
    """
    hair = 100 * torch.finfo(mean.dtype).tiny
    inverse = (var * (2 * scale.square())).add_(2 * hair).rsqrt_()
    t = torch.addcmul(shift, mean, scale).add_(40 * math.sqrt(hair)).mul_(inverse)
    return t, inverse.expand_as(t)


def _by_place(x: Tensor, window: int) -> Tensor:
    """A view (window, window, n, height, width, channels): the places in a window come first."""
    height, width = (size // window for size in x.shape[1:3])
    whole = x[:, : height * window, : width * window]
    places = whole.unflatten(2, (width, window)).unflatten(1, (height, window))
    return places.permute(2, 4, 0, 1, 3, 5)


def _slope_of_sign(t: Tensor, slope: Tensor, window: int) -> Tensor:
    """Derivative with respect to t: that of erf, times the chance that all others are −1."""
    if window == 1:
        return _bell(t).mul_(slope)
    found = torch.zeros_like(t)
    places = _by_place(t, window).contiguous().flatten(0, 1)
    down, factor = torch.erfc(places).mul_(0.5), _bell(places)
    before = slope
    for each, mine in zip(down, factor, strict=True):
        mine *= before
        before = before * each
    after = down[-1]
    for each, mine in zip(down[:-1].flip(0), factor.unbind()[-2::-1], strict=True):
        mine *= after
        after = after * each
    _by_place(found, window).copy_(factor.unflatten(0, (window, window)))
    return found


def _bell(t: Tensor) -> Tensor:
    """The derivative of erf."""
    return (t * t).neg_().exp_().mul_(2 / math.sqrt(math.pi))
