"""Signs with the gradient of something smooth: networks of signs trained as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def sign_with_slope(x: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
    r"""`hard_sign` with a gradient estimator :math:`g` in the place of its derivative.

    .. math:: \operatorname{sgn} x, \qquad \frac{\partial L}{\partial x} = g(x)\,
        \frac{\partial L}{\partial \operatorname{sgn} x}

    Parameters
    ----------
    x : Tensor
        Any shape.
    slope : callable
        :math:`g`, point by point, such as those of `pbnn.binarize.ESTIMATORS`. It is called in the
        backward pass and gets no gradient itself.

    Examples
    --------
    >>> x = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    >>> signs = sign_with_slope(x, lambda x: (x.abs() <= 1).to(x.dtype))
    >>> signs.sum().backward()
    >>> signs.detach(), x.grad
    (tensor([-1.,  1.,  1.]), tensor([0., 1., 1.]))
    """
    signs: Tensor = _SignWithSlope.apply(x, slope)
    return signs


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
    return sign_with_slope(x, gaussian_slope)


def gaussian_slope(x: Tensor) -> Tensor:
    r"""Derivative of a Gaussian unit's mean sign: :math:`\sqrt{2/\pi}\, e^{-x^2/2}`.

    Examples
    --------
    >>> gaussian_slope(torch.zeros(1))
    tensor([0.7979])
    """
    return (x * x).div_(-2).exp_().mul_(math.sqrt(2 / math.pi))


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, smooth: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor]:
        return None, slope


class _SignWithSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return hard_sign(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.slope(x) * gradient, None
