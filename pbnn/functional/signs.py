"""Signs: hard, drawn, enumerated."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pbnn.functional.draws import PartOfDraws, draw_points


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


def sample_positions(
    chance: Tensor, generator: torch.Generator, largest: float | None = None
) -> Tensor:
    r"""Where independent events happen, in the flat order of their probabilities.

    Candidates are as far apart as the geometric law of the largest probability says, and each is
    kept in proportion to its own: the time is that of the events, not of the places, if all are
    about as rare.

    Parameters
    ----------
    chance : Tensor of float64
        Probabilities. With u = 2⁻⁵³, the law of all events is off by at most 100 u a place in total
        variation: the 37/p steps of a gap's distribution function by 41 u/p together, of about p
        gaps a place, and an acceptance by 3 u.
    generator : torch.Generator
    largest : float, optional
        The largest of the probabilities, for who draws often and would find it every time.

    Returns
    -------
    Tensor of int64, rising

    Examples
    --------
    >>> sample_positions(torch.tensor([0.0, 1.0, 0.0, 1.0]).double(), torch.Generator())
    tensor([1, 3])
    """
    chance = chance.flatten()
    places = len(chance)
    largest = float(chance.max()) if largest is None else largest
    make: dict[str, Any] = {
        "generator": generator,
        "dtype": torch.float64,
        "device": chance.device,
    }
    if not largest > 0:
        return torch.empty(0, dtype=torch.int64, device=chance.device)
    # Certain events follow each other without a gap.
    rate = math.log1p(-largest) if largest < 1 else -math.inf
    expected = places * largest
    count, end, found = int(expected + 6 * expected**0.5) + 10, -1, []
    while end < places:
        # A uniform number of [0, 1), so that its logarithm below is finite.
        away = torch.log1p(-torch.rand(count, **make)) / rate
        steps = away.clamp_max(places).floor().long() + 1
        found.append(end + steps.cumsum(0))
        end = int(found[-1][-1])
    candidates = torch.cat(found)
    candidates = candidates[candidates < places]
    own = chance[candidates]
    if bool((own > largest).any()):
        raise ValueError(f"`largest` must be no less than any probability, got {largest}.")
    return candidates[torch.rand(len(candidates), **make) * largest < own]


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


def hard_concrete(
    mean: Tensor, generator: torch.Generator | PartOfDraws, temperature: float = 1.0
) -> Tensor:
    r"""Signs drawn with the given means, with the gradient of a binary concrete variable.

    .. math::
        s = \operatorname{sgn}(c), \qquad
        c = \tanh \frac{\operatorname{logit} p + \operatorname{logit} u}{2 \tau}, \qquad
        p = \tfrac12 (1 + m), \quad u \sim \mathcal U(0, 1)

    Forward these are exact draws, +1 with probability p; backward :math:`\partial s/\partial m`
    is taken to be :math:`\partial c/\partial m`. At means of ±1 the gradient is that of the
    nearest number which is not.

    References
    ----------
    Maddison, Mnih, Teh (2017). The Concrete Distribution. https://arxiv.org/abs/1611.00712
    Peters and Welling (2018), Section 3.2. https://arxiv.org/abs/1809.03368

    Examples
    --------
    >>> hard_concrete(torch.tensor([1.0, -1.0]), torch.Generator())
    tensor([ 1., -1.])
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}.")
    uniform = draw_points(torch.rand, mean.shape, generator, mean)
    return _HardConcrete.apply(mean, uniform, temperature)


class _HardConcrete(torch.autograd.Function):
    """The sign of a concrete variable forward, its slope backward."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, uniform: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(mean, uniform)
        ctx.temperature = temperature
        # c ≥ 0 iff u ≥ 1 − p; written so that means of ±1 are kept exactly.
        return choose_sign(uniform < (1 + mean) / 2, mean)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        mean, uniform = ctx.saved_tensors
        tiny = torch.finfo(mean.dtype).eps
        up, below = (part.clamp(tiny, 1 - tiny) for part in ((1 + mean) / 2, uniform))
        concrete = torch.tanh((torch.logit(up) - torch.logit(below)) / (2 * ctx.temperature))
        return (
            slope * (1 - concrete.square()) / (4 * ctx.temperature * up * (1 - up)),
            None,
            None,
        )
