"""Pooling of random units."""

from __future__ import annotations

from typing import TypeVar, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from pbnn.functional.draws import PartOfDraws, draw_points
from pbnn.functional.moments import Moments, Signs, Units

SignsOrKnown = TypeVar("SignsOrKnown", Signs, Tensor)


def max_pool(x: SignsOrKnown, kernel: int) -> SignsOrKnown:
    r"""The largest unit of each window: for independent signs +1 unless all are −1.

    .. math:: P(\max = +1) = 1 - \prod_i (1 - p_i)

    The windows do not overlap and a remainder at the border is left out. The maximum commutes with
    the sign, so pooling signs is the same as pooling what they are the signs of.

    Parameters
    ----------
    x : Signs or Tensor, shape (n, channels, height, width)
        A tensor is known and is pooled as it is.

    Examples
    --------
    >>> max_pool(Signs(torch.zeros(1, 1, 2, 2)), 2).mean
    tensor([[[[0.8750]]]])
    """
    check_window(x if isinstance(x, Tensor) else x.mean, kernel)
    if isinstance(x, Tensor):
        return F.max_pool2d(x, kernel)
    if x.known:
        return Signs(F.max_pool2d(x.mean, kernel), known=True)
    down = (1 - x.mean) / 2
    height, width = (size // kernel * kernel for size in down.shape[2:])
    for axis, size in ((2, height), (3, width)):
        first, *rest = (
            down[(slice(None),) * axis + (slice(start, size, kernel),)] for start in range(kernel)
        )
        down = first
        for part in rest:
            down = down * part
    return Signs(1 - 2 * down)


def max_pool_sampled(x: Moments, kernel: int, generator: torch.Generator | PartOfDraws) -> Moments:
    r"""Moments of the unit that is the largest of each window in one draw of Gaussian units.

    .. math::
        (\mu, \sigma^2) = (\mu_{i^*}, \sigma^2_{i^*}), \qquad
        i^* = \operatorname{arg\,max}_i z_i, \quad z_i \sim \mathcal N(\mu_i, \sigma_i^2)

    The moments of the chosen unit are not those of the maximum: its sign is less often +1 than the
    largest of the signs, see `max_pool`.

    References
    ----------
    Peters and Welling (2018), Section 3.4. https://arxiv.org/abs/1809.03368

    Examples
    --------
    >>> units = Moments(torch.tensor([[[[0.0, 9.0]] * 2]]), torch.ones(1, 1, 2, 2))
    >>> max_pool_sampled(units, 2, torch.Generator()).mean
    tensor([[[[9.]]]])
    """
    check_window(x.mean, kernel)
    mean, var = x.mean, x.var.expand_as(x.mean)
    with torch.no_grad():
        noise = draw_points(torch.randn, mean.shape, generator, mean).to(mean)
        draw = torch.addcmul(mean, noise, var.sqrt())
        _, index = F.max_pool2d(draw, kernel, return_indices=True)
    flat = index.flatten(2)
    return Moments(*(part.flatten(2).gather(2, flat).view(index.shape) for part in (mean, var)))


@overload
def average_pool(x: Tensor, kernel: int) -> Tensor: ...


@overload
def average_pool(x: Moments | Signs, kernel: int) -> Moments: ...


def average_pool(x: Units, kernel: int) -> Moments | Tensor:
    r"""Mean of each window: for independent units :math:`\bar\mu` and :math:`\bar{\sigma^2}/k^2`.

    Examples
    --------
    >>> average_pool(Signs(torch.zeros(1, 1, 2, 2)), 2)
    Moments(mean=tensor([[[[0.]]]]), var=tensor([[[[0.2500]]]]))
    """
    check_window(x if isinstance(x, Tensor) else x.mean, kernel)
    if isinstance(x, Tensor):
        return F.avg_pool2d(x, kernel)
    return Moments(F.avg_pool2d(x.mean, kernel), F.avg_pool2d(x.var, kernel) / kernel**2)


def check_window(x: Tensor, kernel: int) -> None:
    """Refuse what has no window of this size."""
    if x.ndim != 4 or kernel < 1 or min(x.shape[2:]) < kernel:
        raise ValueError(
            f"`x` must have shape (n, channels, height, width) with sides of at least `kernel`, "
            f"got {tuple(x.shape)} and {kernel}."
        )
