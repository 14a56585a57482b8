"""Moments of layers with independent random weights, by the central limit theorem in the end."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pbnn.functional.signs import hard_sign

SQRT_TWO_OVER_PI = math.sqrt(2 / math.pi)
"""Lipschitz constant of z ↦ erf(z/√2)."""


class Moments(NamedTuple):
    """Mean and variance of independent units, of shape (..., features) or (n, channels, h, w).

    The variance may be of a shape that broadcasts to that of the mean.
    """

    mean: Tensor
    var: Tensor

    def variances(self) -> Tensor:
        """The variances, with as many axes as the means."""
        return self.var[(None,) * (self.mean.ndim - self.var.ndim)]


class Signs(NamedTuple):
    """Independent random signs, given by their means in [−1, 1]; their second moment is 1.

    `known` promises that every mean is −1 or +1, which saves passes over them.
    """

    mean: Tensor
    known: bool = False

    @property
    def var(self) -> Tensor:
        """The variance 1 − mean²."""
        return 1 - self.mean.square()


Units = Tensor | Moments | Signs
"""What a layer reads: known values, independent units, or independent signs."""

Product = Callable[[Tensor, Tensor], Tensor]
"""Multiplies units by weights and sums: linear in both."""


def linear(x: Units, weight: Tensor, law: str = "gaussian") -> Moments:
    r"""Moments of :math:`W x` for independent random weights of mean w and independent units.

    With m, v the moments of the units and :math:`v_w` the variance of a weight, which is 1 for the
    law "gaussian", :math:`\mathcal N(w, 1)`, and :math:`1 - w^2` for "bernoulli", a sign of mean w,

    .. math::
        \mathbb{E}[Wx]_i = \sum_j w_{ij} m_j, \qquad
        \operatorname{Var}[Wx]_i = \sum_j v_{w,ij} m_j^2 + (v_{w,ij} + w_{ij}^2) v_j.

    Parameters
    ----------
    x : Tensor, Moments or Signs, shape (..., in_features)
        A tensor is a known input (variance zero).
    weight : Tensor, shape (out_features, in_features)
        The means w of the weights; in [−1, 1] for signs.
    law : {"gaussian", "bernoulli"}

    References
    ----------
    Peters and Welling (2018). Probabilistic Binary Neural Networks, Section 3.
    https://arxiv.org/abs/1809.03368 (its Eq. 7 prints Σ θ² h² for Σ (1 − θ²) h²).

    Examples
    --------
    >>> linear(torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 0.0]]))
    Moments(mean=tensor([3.]), var=tensor([25.]))
    >>> linear(torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 0.0]]), "bernoulli")
    Moments(mean=tensor([3.]), var=tensor([16.]))
    """

    def total(second: Tensor) -> Tensor:
        return second.sum(-1, keepdim=True)

    mean = mean_of(x)
    ones = mean.new_ones(*[1] * (mean.ndim - 1), weight.shape[1])
    return Moments(F.linear(mean, weight), _variance(law)(x, weight, ones, F.linear, total))


def conv2d(
    x: Units,
    weight: Tensor,
    law: str = "gaussian",
    *,
    stride: int = 1,
    padding: int = 0,
    padding_value: float = 0.0,
    groups: int = 1,
) -> Moments:
    r"""Moments of a convolution with independent random weights; laws and formula of `linear`.

    Parameters
    ----------
    x : Tensor, Moments or Signs, shape (n, channels, height, width)
    weight : Tensor, shape (out_channels, channels / groups, kernel, kernel)
    law : {"gaussian", "bernoulli"}
    stride, padding, groups : int
        Those of `torch.nn.functional.conv2d`.
    padding_value : {0, −1, +1}
        What surrounds the image. A zero contributes neither mean nor variance, so that units at
        the border count fewer inputs; a sign is a known input like any other.

    Examples
    --------
    >>> image, weight = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 3, 3)
    >>> conv2d(image, weight, "bernoulli", padding=1).var[0, 0]
    tensor([[4., 4.],
            [4., 4.]])
    >>> conv2d(image, weight, "bernoulli", padding=1, padding_value=-1).var[0, 0, 0, 0].item()
    9.0
    """
    if padding_value not in (0, -1, 1):
        raise ValueError(f"`padding_value` must be 0, -1 or 1, got {padding_value}.")
    if padding and padding_value:
        x, padding = _surrounded(x, padding, padding_value), 0
    product = functools.partial(F.conv2d, stride=stride, padding=padding, groups=groups)
    one_filter = weight.new_ones(groups, *weight.shape[1:])

    def total(second: Tensor) -> Tensor:
        each = product(second, one_filter)
        return each if groups == 1 else each.repeat_interleave(len(weight) // groups, dim=1)

    mean = mean_of(x)
    ones = mean.new_ones(1, *mean.shape[1:])
    return Moments(product(mean, weight), _variance(law)(x, weight, ones, product, total))


Variance = Callable[[Units, Tensor, Tensor, Product, Callable[[Tensor], Tensor]], Tensor]
"""From units, weight means, the second moments of one example of signs, and both ways to sum."""


def _gaussian_variance(
    x: Units, weight: Tensor, ones: Tensor, product: Product, total: Callable[[Tensor], Tensor]
) -> Tensor:
    if isinstance(x, Tensor):
        return total(x.square())
    if isinstance(x, Signs) and x.known:
        return total(ones)
    second = ones if isinstance(x, Signs) else x.mean.square() + x.var
    return total(second) + product(x.var.expand_as(x.mean), weight.square())


def _bernoulli_variance(
    x: Units, weight: Tensor, ones: Tensor, product: Product, total: Callable[[Tensor], Tensor]
) -> Tensor:
    if isinstance(x, Tensor):
        return product(x.square(), 1 - weight.square())
    if isinstance(x, Moments):
        return total(x.var.expand_as(x.mean)) + product(x.mean.square(), 1 - weight.square())
    if x.known:
        return product(ones, 1 - weight.square())
    # Fewer passes than with the variances of the signs; rounding may leave less than nothing.
    return torch.relu_(total(ones) - product(x.mean.square(), weight.square()))


LAWS: dict[str, Variance] = {"gaussian": _gaussian_variance, "bernoulli": _bernoulli_variance}
"""Variance of a sum over inputs by the law of the weights."""


def _variance(law: str) -> Variance:
    if law not in LAWS:
        raise ValueError(f"`law` must be one of {sorted(LAWS)}, got {law!r}.")
    return LAWS[law]


def mean_of(x: Units) -> Tensor:
    """The means of units; known values are their own."""
    return x if isinstance(x, Tensor) else x.mean


def _surrounded(x: Units, padding: int, value: float) -> Units:
    """Images with a border of known signs."""

    def pad(image: Tensor, filling: float) -> Tensor:
        return F.pad(image, (padding,) * 4, value=filling)

    if isinstance(x, Tensor):
        return pad(x, value)
    if isinstance(x, Signs):
        return x._replace(mean=pad(x.mean, value))
    return Moments(pad(x.mean, value), pad(x.var.expand_as(x.mean), 0.0))


def sign(h: Moments) -> Signs:
    r"""Means of :math:`\operatorname{sgn}(h)` for Gaussian :math:`h`, with sgn(0) = +1.

    .. math:: \mathbb{E}[\operatorname{sgn} h] = \operatorname{erf}(\mu / (\sqrt 2 \sigma))

    Examples
    --------
    >>> sign(Moments(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 0.0]))).mean
    tensor([ 0., -1.])
    """
    # At zero variance h is a point; the substitute 1 keeps NaN out of forward and backward.
    spread = torch.where(h.var > 0, h.var, 1.0)
    mean = torch.erf(h.mean * (2 * spread).rsqrt())
    return Signs(torch.where(h.var > 0, mean, hard_sign(h.mean)))
