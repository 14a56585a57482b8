r"""Batches in chunks: a network computes one after another, and the loss sees all of its outputs.

What `pbnn.shards` are in several processes, chunks are in time. With :math:`o_c` the outputs of
chunk c and L the loss, which is computed once, of all outputs,

.. math::
    \frac{dL}{d\theta} = \sum_c \frac{\partial L}{\partial o_c} \frac{d o_c}{d\theta}
    + \frac{\partial L}{\partial \theta},

where a chunk is computed once more when its gradient is wanted, so that of the network only what a
single chunk keeps is ever kept. The loss need not be a mean over points, nor a bound be linear in
the risk, and a KL counts once.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from pbnn.binarize.binary_net import StochasticWeights
from pbnn.functional import Moments, PartOfDraws
from pbnn.shards import PointDraws, check_parts, draws_weights, normalisations, rows_of, shard_sizes


class Chunks:
    """While entered, a call of the network computes it in chunks and gives all outputs.

    Loss and gradient are those of the whole batch up to rounding, also where the network draws:
    each chunk draws what the whole batch draws, and takes its part. Generators are left as the
    whole batch leaves them.

    Parameters
    ----------
    network : module or None
        Called with a batch of points first; gives a row for each, a tensor or `Moments`.
    size : int, optional
        Points of a chunk at most; None computes the whole batch as ever.

    Raises
    ------
    ValueError
        From a call, if the network cannot be computed in chunks: batch normalisation with the
        statistics of the batch, buffers that move, hooks, dropout, an unknown generator, no row
        for each point.

    Examples
    --------
    >>> network = nn.Linear(3, 2)
    >>> x = torch.ones(5, 3)
    >>> with Chunks(network, size=2):
    ...     output = network(x)
    >>> torch.allclose(output, network(x))
    True
    """

    def __init__(self, network: nn.Module | None, size: int | None = None) -> None:
        self.network: Any = network
        self.size = size

    def __enter__(self) -> None:
        if self.size is not None:
            self.network.forward = self.forward

    def __exit__(self, *_: object) -> None:
        if self.size is not None:
            del self.network.forward

    def forward(self, x: Tensor, *more: Any, **options: Any) -> Tensor | Moments:
        """The outputs of a batch."""
        assert self.size is not None
        whole = functools.partial(type(self.network).forward, self.network)
        if len(x) <= self.size:
            return whole(x, *more, **options)
        _check_chunkable(self.network)
        draws, start, outputs = _Draws(self.network), 0, []

        def compute(start: int, part: Tensor) -> Any:
            with draws.of(start, len(x)):
                return whole(part, *more, **options)

        before = [buffer._version for buffer in self.network.buffers()]
        sizes = shard_sizes(len(x), -(-len(x) // self.size))
        for size in sizes:
            part = x[start : start + size]
            outputs.append(checkpoint(compute, start, part, use_reentrant=False))
            start += size
        draws.finish()
        if before != [buffer._version for buffer in self.network.buffers()]:
            raise ValueError("`objective.network` must leave its buffers alone to be chunked.")
        parts = [rows_of(output, size) for output, size in zip(outputs, sizes, strict=True)]
        joined = [torch.cat(each) for each in zip(*parts, strict=True)]
        return joined[0] if isinstance(outputs[0], Tensor) else Moments(*joined)


class _Draws:
    """What a call of the network draws for a batch, chunk by chunk and again.

    Parameters
    ----------
    network : module
    """

    def __init__(self, network: nn.Module) -> None:
        self.modules = [m for m in PointDraws(network).modules if not draws_weights(m)]
        parts = [part for part in network.modules() if isinstance(part, StochasticWeights)]
        sources = [part.source for part in (*PointDraws(network).modules, *parts)]
        self.sources: list[Generator] = [*{id(s): s for s in sources if s is not None}.values()]
        self.start = self.end = self._states()

    def _states(self) -> list[Tensor]:
        return [source.get_state() for source in self.sources]

    def _put(self, states: list[Tensor]) -> None:
        for source, state in zip(self.sources, states, strict=True):
            source.set_state(state)

    @contextlib.contextmanager
    def of(self, start: int, points: int) -> Iterator[None]:
        """While a chunk is computed whose first point is `start`, of so many `points` in all."""
        now, whole = self._states(), [module.source for module in self.modules]
        self._put(self.start)
        for module in self.modules:
            module.source = PartOfDraws(module.source, start, points)
        try:
            yield
        finally:
            for module, source in zip(self.modules, whole, strict=True):
                module.source = source
            self.end = self._states()
            self._put(now)

    def finish(self) -> None:
        """Leave the generators as the whole batch does."""
        self._put(self.end)


def _check_chunkable(network: nn.Module) -> None:
    """Refuse what would not be the same in chunks."""
    check_parts(network)
    ours, others = normalisations(network)
    of_batch = [norm for norm in ours if norm.training and not norm.frozen]
    of_batch += [norm for norm in others if norm.training or norm.running_mean is None]
    if of_batch:
        raise ValueError(
            "`objective.network` must have the statistics of its batch normalisation frozen to be "
            "computed in chunks (`freeze_statistics`, or `frozen_from=0` for torch's), got "
            f"{len(of_batch)} with those of the batch, which couple its points."
        )
    if any(part._forward_hooks or part._forward_pre_hooks for part in network.modules()):
        raise ValueError("`objective.network` must have no hooks to be computed in chunks.")
