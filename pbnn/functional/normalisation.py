"""Batch normalisation of random units, and its folding into thresholds of their signs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pbnn.functional.moments import Moments


class Statistics(NamedTuple):
    """Mean and variance of each channel, of shape (channels,)."""

    mean: Tensor
    var: Tensor


def batch_statistics(x: Moments | Tensor) -> Statistics:
    r"""Mean and variance of each channel over a batch of random units.

    .. math::
        m = \frac1M \sum_i \mu_i, \qquad
        v = \frac1M \sum_i \sigma_i^2 + \frac1{M-1} \sum_i (\mu_i - m)^2

    v is unbiased for the variance of a unit of the batch; for known units it is (M/(M−1)) times
    what torch normalises a batch by.

    Parameters
    ----------
    x : Moments or Tensor, shape (n, channels) or (n, channels, height, width)

    References
    ----------
    Peters and Welling (2018), Section 3.3 (where both sums are divided by M − 1).
    https://arxiv.org/abs/1809.03368

    Examples
    --------
    >>> batch_statistics(Moments(torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0], [6.0]])))
    Statistics(mean=tensor([2.]), var=tensor([7.]))
    """
    mean = x if isinstance(x, Tensor) else x.mean
    axes = [0, *range(2, mean.ndim)]
    if mean.numel() == mean.shape[1]:
        raise ValueError("`x` must hold at least two units a channel, got one.")
    var, centre = torch.var_mean(mean, axes)
    if not isinstance(x, Tensor):
        var = var + x.variances().mean(axes)
    return Statistics(centre, var)


def batch_norm(
    x: Moments | Tensor, statistics: Statistics, gamma: Tensor, beta: Tensor, eps: float
) -> Moments | Tensor:
    r"""Units shifted and scaled channel by channel; statistics count as constants.

    .. math::
        \hat\mu = \frac{\gamma (\mu - m)}{\sqrt{v + \epsilon}} + \beta, \qquad
        \hat\sigma^2 = \frac{\gamma^2 \sigma^2}{v + \epsilon}

    Examples
    --------
    >>> one = torch.ones(1)
    >>> batch_norm(Moments(one[None], one[None]), Statistics(0 * one, 4 * one), one, one, 0.0)
    Moments(mean=tensor([[1.5000]]), var=tensor([[0.2500]]))
    """
    scale = gamma * (statistics.var + eps).rsqrt()
    if isinstance(x, Tensor):
        # In this order, which rounds monotonically: `threshold` counts on it.
        return (x - _by_channel(statistics.mean, x)) * _by_channel(scale, x) + _by_channel(beta, x)
    shift = beta - statistics.mean * scale
    mean = torch.addcmul(_by_channel(shift, x.mean), x.mean, _by_channel(scale, x.mean))
    return Moments(mean, x.var * _by_channel(scale.square(), x.mean))


class Threshold(NamedTuple):
    """A channel's sign is +1 iff direction · a ≥ direction · level; each of shape (channels,)."""

    level: Tensor
    direction: Tensor


def threshold(statistics: Statistics, gamma: Tensor, beta: Tensor, eps: float) -> Threshold:
    r"""Where the sign of a batch-normalised known unit changes, to the last bit.

    .. math::
        \operatorname{sgn}(\hat a) = +1 \iff \begin{cases}
        a \ge m - \beta \sqrt{v + \epsilon} / \gamma & \gamma > 0 \\
        a \le m - \beta \sqrt{v + \epsilon} / \gamma & \gamma < 0 \\
        \beta \ge 0 & \gamma = 0
        \end{cases}

    Of finite units, that is: ±∞ and NaN have no side. Rounded, `batch_norm` is still monotone in a,
    so the floats of sign +1 are all those on one side of one of them. It is found by bisection of
    the floats with `batch_norm` itself: no formula for the threshold, rounded, would agree with it
    on every input.

    Returns
    -------
    Threshold
        In the dtype of the statistics. A level of ∓∞ with direction ±1 means always +1.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> threshold(Statistics(3 * one, one), -one, 2 * one, 0.0)
    Threshold(level=tensor([5.]), direction=tensor([-1.]))
    """
    one = torch.ones_like(gamma)
    direction = torch.where(gamma < 0, -one, one)
    low, high = -order_of(torch.finfo(gamma.dtype).max * one), order_of(torch.inf * one)
    always, never = low, high
    while bool((low < high).any()):
        middle = (low & high) + ((low ^ high) >> 1)  # their mean, without overflow
        a = direction * ordered(middle, gamma.dtype)
        up = torch.as_tensor(batch_norm(a[None], statistics, gamma, beta, eps))[0] >= 0
        low, high = torch.where(up, low, middle + 1), torch.where(up, middle, high)
    level = torch.where(low == always, -torch.inf, ordered(low, gamma.dtype))
    level = torch.where(low == never, torch.inf, level)
    return Threshold(direction * level, direction)


def order_of(x: Tensor) -> Tensor:
    """The place of floats among all floats, as integers of as many bits; 0 for both zeros.

    Examples
    --------
    >>> order_of(torch.tensor([-0.0, 0.0, 1e-45]))
    tensor([0, 0, 1], dtype=torch.int32)
    """
    bits = x.view(torch.int64 if x.element_size() == 8 else torch.int32)
    return torch.where(bits >= 0, bits, torch.iinfo(bits.dtype).min - bits)


def ordered(place: Tensor, dtype: torch.dtype) -> Tensor:
    """The floats at places that `order_of` gives.

    Examples
    --------
    >>> ordered(order_of(torch.tensor([1.5])), torch.float32)
    tensor([1.5000])
    """
    least = torch.iinfo(place.dtype).min
    return torch.where(place >= 0, place, least - place).view(dtype)


def _by_channel(values: Tensor, like: Tensor) -> Tensor:
    """One value a channel, in a shape that broadcasts to (n, channels, ...)."""
    return values.view(-1, *[1] * (like.ndim - 2))
