"""Moments of binary-activated networks with random weights: pure functions on tensors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Moments(NamedTuple):
    """Mean and variance of independent units, each of shape (*, features)."""

    mean: Tensor
    var: Tensor


def linear(x: Moments | Tensor, weight: Tensor) -> Moments:
    r"""Moments of :math:`W x` for independent :math:`W_{ij} \sim \mathcal{N}(w_{ij}, 1)`.

    .. math::
        \mathbb{E}[Wx]_i = \sum_j w_{ij} m_j, \qquad
        \operatorname{Var}[Wx]_i = \sum_j (m_j^2 + v_j) + \sum_j w_{ij}^2 v_j

    Parameters
    ----------
    x : Moments or Tensor, shape (*, in_features)
        Moments of independent inputs; a tensor is a known input (variance zero), for which the
        result is exact and one matrix product is saved.
    weight : Tensor, shape (out_features, in_features)
        The means :math:`w` of the weights.

    Examples
    --------
    >>> linear(torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 0.0]]))
    Moments(mean=tensor([3.]), var=tensor([25.]))
    """
    if isinstance(x, Tensor):
        mean = F.linear(x, weight)
        return Moments(mean, x.square().sum(-1, keepdim=True).expand_as(mean))
    second_moment = x.mean.square() + x.var
    var = second_moment.sum(-1, keepdim=True) + F.linear(x.var, weight.square())
    return Moments(F.linear(x.mean, weight), var)


def sign(h: Moments) -> Moments:
    r"""Moments of :math:`\operatorname{sgn}(h)` for Gaussian :math:`h`, with sgn(0) = +1.

    .. math:: \mathbb{E}[\operatorname{sgn} h] = \operatorname{erf}(\mu / (\sqrt 2 \sigma))

    Examples
    --------
    >>> sign(Moments(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 0.0]))).mean
    tensor([ 0., -1.])
    """
    # At zero variance h is a point; the substitute 1 keeps NaN out of forward and backward.
    spread = torch.where(h.var > 0, h.var, 1.0)
    mean = torch.erf(h.mean * (2 * spread).rsqrt())
    mean = torch.where(h.var > 0, mean, hard_sign(h.mean))
    return Moments(mean, 1 - mean.square())


def hard_sign(x: Tensor) -> Tensor:
    """+1 where `x` ≥ 0 and −1 elsewhere: unlike `torch.sign`, never 0.

    Examples
    --------
    >>> hard_sign(torch.tensor([-2.0, 0.0, 3.0]))
    tensor([-1.,  1.,  1.])
    """
    return choose_sign(x >= 0, x)


def choose_sign(positive: Tensor, like: Tensor) -> Tensor:
    """+1 where `positive` holds and −1 elsewhere, in the dtype of `like`."""
    # Three times faster than torch.where with two scalars.
    return positive.to(like.dtype).mul_(2).sub_(1)


def sample_signs(mean: Tensor, generator: torch.Generator) -> Tensor:
    """Independent signs with the given means: +1 with probability (1 + mean)/2.

    Examples
    --------
    >>> sample_signs(torch.tensor([1.0, -1.0]), torch.Generator())
    tensor([ 1., -1.])
    """
    uniform = torch.rand(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    # u lies in [0, 1), so u < 1 always and u < 0 never: means of ±1 are kept exactly.
    return choose_sign(uniform < (mean + 1) / 2, mean)


def append_one(x: Tensor) -> Tensor:
    """Append the constant input 1 that carries a layer's bias: (*, d) to (*, d + 1).

    Examples
    --------
    >>> append_one(torch.zeros(2, 3)).shape
    torch.Size([2, 4])
    """
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)


def sign_patterns(width: int, *, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """All 2^width rows of signs, shape (2^width, width), the first unit varying slowest.

    Examples
    --------
    >>> sign_patterns(2, dtype=torch.float32, device="cpu")
    tensor([[-1., -1.],
            [-1.,  1.],
            [ 1., -1.],
            [ 1.,  1.]])
    """
    index = torch.arange(2**width, device=device)[:, None]
    place = torch.arange(width - 1, -1, -1, device=device)
    return (2 * ((index >> place) & 1) - 1).to(dtype)


def expect_over_signs(values: Tensor, mean: Tensor) -> Tensor:
    r"""Expectation of functions of independent signs, summed exactly over all patterns.

    .. math:: \sum_{s \in \{\pm1\}^d} f(s) \prod_i \tfrac12 (1 + s_i m_i)

    The sum is multilinear in the means, so units are contracted one at a time: the cost is
    O(2^d) a point, without the factor d of a product over units. Several functions share the
    probabilities of the patterns, built up in the same way.

    Parameters
    ----------
    values : Tensor, shape (2^d,) or (k, 2^d)
        f on the rows of `sign_patterns(d)`, or k such functions.
    mean : Tensor, shape (n, d)
        Means of the signs, in [−1, 1].

    Returns
    -------
    Tensor, shape (n,) or (n, k)

    Examples
    --------
    >>> expect_over_signs(torch.tensor([0.0, 4.0]), torch.tensor([[0.0], [0.5]]))
    tensor([2., 3.])
    """
    up = (1 + mean) / 2
    if values.ndim == 2 and len(values) > 1:
        chance = up.new_ones(len(up), 1)
        for unit in range(up.shape[-1]):
            share = torch.stack([1 - up[:, unit], up[:, unit]], dim=-1)
            chance = (chance[:, :, None] * share[:, None]).flatten(1)
        return chance @ values.T
    table = values.expand(len(mean), -1)
    for unit in range(mean.shape[-1]):
        low, high = table.chunk(2, dim=-1)
        table = torch.lerp(low, high, up[:, unit : unit + 1])
    return table if values.ndim == 2 else table.squeeze(-1)


SQRT_TWO_OVER_PI = math.sqrt(2 / math.pi)
"""Lipschitz constant of z ↦ erf(z/√2)."""
