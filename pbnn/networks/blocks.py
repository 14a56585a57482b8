"""One layer of weights with what follows it: normalisation, pooling, sign."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Generator, Tensor, nn

from pbnn.functional import (
    Moments,
    PartOfDraws,
    Signs,
    Units,
    average_pool,
    gaussian_slope,
    max_pool,
    max_pool_sampled,
    sign,
    sign_with_slope,
)
from pbnn.layers import StochasticBatchNorm, StochasticLayer
from pbnn.networks.architecture import Pool


class Tail(nn.Module):
    """What follows pre-activations: normalisation, pooling and, except at the end, sign.

    Parameters
    ----------
    norm : module or None
        `StochasticBatchNorm`, or what takes its place.
    pool : Pool or None
    last : bool
        Whether these are the scores, which have no sign.
    slope : callable
        The gradient estimator of known signs.
    """

    def __init__(
        self,
        norm: nn.Module | None,
        pool: Pool | None,
        last: bool,
        slope: Callable[[Tensor], Tensor] = gaussian_slope,
    ) -> None:
        super().__init__()
        self.norm, self.pool, self.last, self.slope = norm, pool, last, slope

    @property
    def sign_methods(self) -> tuple[str, ...]:
        """Methods whose results are signs, or means of random ones, for `pbnn.balance`."""
        return () if self.last else ("known", "analytic")

    def known(self, a: Tensor) -> Tensor:
        """Signs, with the gradient of `slope`, or scores, of known pre-activations."""
        if self.norm is not None:
            a = self.norm(a)
        if self.pool is not None:
            a = (max_pool if self.pool.kind == "max" else average_pool)(a, self.pool.size)
        return a if self.last else sign_with_slope(a, self.slope)

    def analytic(
        self, h: Moments, draw_maximum: Generator | PartOfDraws | None = None
    ) -> Moments | Signs:
        """Means of the signs, or moments of the scores, of random pre-activations.

        With a generator the largest of a window is drawn (`max_pool_sampled`).
        """
        pool = self.pool
        whole = pool is None or (pool.kind == "max" and draw_maximum is None)
        if isinstance(self.norm, StochasticBatchNorm) and whole and not self.last:
            return self.norm.signs(h, pool.size if pool else 1)
        if self.norm is not None:
            h = self.norm(h)
        if self.last:
            return h
        if pool is None:
            return sign(h)
        if pool.kind == "average":
            return sign(average_pool(h, pool.size))
        if draw_maximum is None:
            return max_pool(sign(h), pool.size)
        return sign(max_pool_sampled(h, pool.size, draw_maximum))


class Block(nn.Module):
    """A stochastic layer and its tail."""

    def __init__(self, layer: StochasticLayer, tail: Tail) -> None:
        super().__init__()
        self.layer, self.tail = layer, tail

    def analytic(
        self, x: Units, draw_maximum: Generator | PartOfDraws | None = None
    ) -> Moments | Signs:
        """Moments in, moments out."""
        return self.tail.analytic(self.layer.analytic(x), draw_maximum)

    def sample(
        self, x: Tensor, generator: Generator, fresh: Literal["batch", "datum"] = "batch"
    ) -> Tensor:
        """Signs of known inputs under one draw of the weights for all, or one each."""
        return self.tail.known(self.layer.sample(x, generator, fresh))

    def mode(self, x: Tensor) -> Tensor:
        """Signs of known inputs under the most probable weights."""
        return self.tail.known(self.layer.mode(x))
