"""Signs with the gradient of something smooth: networks of signs trained as they are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pbnn.functional.signs import hard_sign


def straight_through(value: Tensor, smooth: Tensor) -> Tensor:
    """`value`, bit for bit, with the gradient of `smooth`.

    References
    ----------
    Bengio, Léonard, Courville (2013). Estimating or propagating gradients through stochastic
    neurons. https://arxiv.org/abs/1308.3432

    Examples
    --------
    >>> w = torch.tensor([0.3, -0.7], requires_grad=True)
    >>> straight_through(hard_sign(w), w).sum().backward()
    >>> w.grad
    tensor([1., 1.])
    """
    through: Tensor = _StraightThrough.apply(value, smooth)
    return through


def straight_through_sign(x: Tensor) -> Tensor:
    r"""`hard_sign` with the gradient of the mean sign of a Gaussian unit of variance 1.

    .. math:: \operatorname{sgn} x, \qquad
        \frac{\partial}{\partial x} \operatorname{erf} \frac{x}{\sqrt 2}
        = \sqrt{\tfrac2\pi}\, e^{-x^2/2}

    Variance 1 suits units that are batch-normalised.

    References
    ----------
    As for `straight_through`; the width is that of the analytic layers here.

    Examples
    --------
    >>> straight_through_sign(torch.tensor([-2.0, 0.0, 3.0]))
    tensor([-1.,  1.,  1.])
    """
    signs: Tensor = _StraightThroughSign.apply(x)
    return signs


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, smooth: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor]:
        return None, slope


class _StraightThroughSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return hard_sign(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (x * x).div_(-2).exp_().mul_(math.sqrt(2 / math.pi)).mul_(slope)
