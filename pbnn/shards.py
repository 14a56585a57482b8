r"""Batches in parts: each process computes a network on its own, and all have the whole outputs.

With :math:`o_r` the outputs of process r of R and L the loss, which every process computes of all
outputs,

.. math::
    \frac{dL}{d\theta} = \sum_r \frac{\partial L}{\partial o_r} \frac{d o_r}{d\theta}
    + \frac{\partial L}{\partial \theta}
    = \frac1R \sum_r \Bigl(R \frac{\partial L}{\partial o_r} \frac{d o_r}{d\theta}
    + \frac{\partial L}{\partial \theta}\Bigr),

so a process takes the gradient of its own outputs R times, and gradients of parameters are
averaged: shares of the points add up, and what all compute alike, as a KL, counts once. The loss
need not be a mean over points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable

from pbnn.binarize.binary_net import SignWeights, StochasticWeights
from pbnn.functional import Moments, Statistics, batch_norm, mean_of
from pbnn.layers import StochasticBatchNorm
from pbnn.networks import BLRNet
from pbnn.sampled import SampledPBGNet
from pbnn.seeding import spawn_seed

CACHED = 2**18
"""Numbers of an intermediate table on a CPU."""
TorchNorm = nn.modules.batchnorm._BatchNorm
GLOBAL_DRAWS = (nn.modules.dropout._DropoutNd, nn.RReLU)
"""Modules that draw from torch's global generator."""


def place() -> tuple[int, int]:
    """The number of this process and how many there are; 0 and 1 without a process group.

    Examples
    --------
    >>> place()
    (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def shard_sizes(n: int, count: int) -> list[int]:
    """Points of each of `count` processes, in the order of the points: equal, or one more.

    Examples
    --------
    >>> shard_sizes(8, 3), shard_sizes(1, 2)
    ([3, 3, 2], [1, 0])
    """
    return [n // count + (rank < n % count) for rank in range(count)]


class PointDraws:
    """Generators of what is drawn for each point in a pass: of each process, anew in each epoch.

    Handed to `BLRNet` and `SampledPBGNet` for their passes, except for weights, which all processes
    draw alike from the network's own `source`.

    Parameters
    ----------
    network : module
    """

    def __init__(self, network: nn.Module) -> None:
        drawing = [m for m in network.modules() if isinstance(m, BLRNet | SampledPBGNet)]
        self.modules: list[Any] = [module for module in drawing if module.source is not None]
        self.sources: list[Generator] = [module.source for module in self.modules]
        self.own = [Generator(source.device) for source in self.sources]
        self.root = 0

    def draw_root(self) -> None:
        """Take the root of all seeds from the first source, which moves on if it is not used."""
        for module, source in zip(self.modules[:1], self.sources[:1], strict=True):
            before = source.get_state()
            self.root = int(torch.randint(2**62, (), generator=source, device=source.device))
            if _trains_on_weights(module):
                source.set_state(before)

    def start(self, epoch: int) -> None:
        """Begin an epoch."""
        for number, own in enumerate(self.own):
            own.manual_seed(spawn_seed(self.root, "shard", place()[0], number, epoch))

    def hand_out(self) -> None:
        """Before a pass."""
        for module, source, own in zip(self.modules, self.sources, self.own, strict=True):
            module.source = source if draws_weights(module) else own

    def take_back(self) -> None:
        """After it."""
        for module, source in zip(self.modules, self.sources, strict=True):
            module.source = source


def draws_weights(module: nn.Module) -> bool:
    """Whether it is weights for a batch that it draws in the mode that it is in."""
    return _trains_on_weights(module) and module.training


def _trains_on_weights(module: nn.Module) -> bool:
    """Whether it is weights for a batch that it draws in training."""
    return isinstance(module, BLRNet) and module.activation == "sample"


def normalisations(network: nn.Module) -> tuple[list[StochasticBatchNorm], list[Any]]:
    """Batch normalisations of points: ours, and torch's."""
    # Those of weights (`WeightMapping`) look at no points.
    binarisers = [m for m in network.modules() if isinstance(m, SignWeights)]
    of_weights = {id(part) for module in binarisers for part in module.modules()}
    parts = [part for part in network.modules() if id(part) not in of_weights]
    ours = [part for part in parts if isinstance(part, StochasticBatchNorm)]
    return ours, [part for part in parts if isinstance(part, TorchNorm)]


def check_parts(network: nn.Module) -> None:
    """Refuse networks that would draw or remember something else of a batch in parts.

    Raises
    ------
    ValueError
        For dropout, running statistics of instances, generators of unknown modules.
    """
    for name, part in network.named_modules():
        if isinstance(part, GLOBAL_DRAWS) and float(getattr(part, "p", 1.0)) > 0:
            what = "draw from generators that are passed in, to be computed in parts"
        elif isinstance(part, nn.modules.instancenorm._InstanceNorm) and part.track_running_stats:
            what = "have no running statistics of instances"
        elif _strange_generators(part):
            what = "draw from known generators (`BLRNet`, `SampledPBGNet`, `StochasticWeights`)"
        else:
            continue
        got = f"{name or 'itself'!r}, a {type(part).__name__}"
        raise ValueError(f"`objective.network` must {what}, got {got}.")


def _strange_generators(part: nn.Module) -> bool:
    """Whether it has generators of which one does not know what they draw."""
    known = [*PointDraws(part).modules, part if isinstance(part, StochasticWeights) else None]
    return part not in known and any(isinstance(v, Generator) for v in vars(part).values())


def rows_of(output: Any, points: int) -> list[Tensor]:
    """The tensors of an output, one or those of `Moments`, which must have a row for each point."""
    if not isinstance(output, Tensor | Moments):
        got = type(output).__name__
        raise ValueError(f"`network` must give a tensor or Moments to be joined, got a {got}.")
    if isinstance(output, Tensor):
        parts = [output]
    else:
        parts = [output.mean, output.variances().expand_as(output.mean)]
    for part in parts:
        if not part.ndim or len(part) != points:
            got = f"shape {tuple(part.shape)} for {points} points"
            raise ValueError(f"`network` must give a row for each point, got {got}.")
    return parts


class Shards:
    """While entered, a call of the network computes this process's part and gives all outputs.

    Batch normalisation in training mode has the statistics of the whole batch, and gradients flow
    through them as they do in one process. With a single process nothing happens.

    Parameters
    ----------
    network : module
        Called with a batch of points first; gives a row for each, a tensor or `Moments`.
    draws : PointDraws
    """

    def __init__(self, network: nn.Module, draws: PointDraws) -> None:
        self.network, self.draws = network, draws
        self.rank, self.count = place()
        self.sizes: list[int] | None = None  # of the batch that is being computed
        self.handles: list[Any] = []
        self.stochastic, self.others = normalisations(network)

    def __enter__(self) -> None:
        if self.count == 1:
            return
        self.handles = [
            self.network.register_forward_pre_hook(self.take),
            self.network.register_forward_hook(self.join),
        ]
        for norm in self.stochastic:
            norm.estimate = self.statistics
        for other in self.others:
            other.forward = functools.partial(self.normalise, other)

    def __exit__(self, *_: object) -> None:
        if self.count == 1:
            return
        self.sizes = None
        self.draws.take_back()
        for handle in self.handles:
            handle.remove()
        for norm in self.stochastic:
            norm.estimate = None
        for other in self.others:
            del other.forward

    def without(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call what is to compute as if nothing were shared, and may do so in one process alone."""
        self.__exit__()
        try:
            return call(*args)
        finally:
            self.__enter__()

    def take(self, network: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """This process's part of a batch.

        One that is left without points computes one that does not count, as all take part in sums.
        """
        x, *more = args
        sizes = shard_sizes(len(x), self.count)
        start, size = sum(sizes[: self.rank]), sizes[self.rank]
        self.sizes = sizes
        self.draws.hand_out()
        return x[start : start + size] if size else x[:1], *more

    def join(self, network: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """The outputs of the whole batch."""
        sizes, self.sizes = self.sizes, None
        self.draws.take_back()
        assert sizes is not None
        parts = rows_of(output, len(args[0]))
        whole = [_Gathered.apply(part[: sizes[self.rank]], sizes, self.rank) for part in parts]
        return whole[0] if isinstance(output, Tensor) else Moments(*whole)

    def statistics(self, x: Moments | Tensor) -> Statistics:
        """`pbnn.functional.batch_statistics` of the whole batch."""
        mean = mean_of(x)
        within = mean.new_zeros(mean.shape[1])
        if not isinstance(x, Tensor):
            within = x.variances().mean(_axes(mean)).expand_as(within)
        centre, squares, within, units = self._moments(mean, within)
        return Statistics(centre, within + squares / (units - 1))

    def _moments(self, x: Tensor, within: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        """Of each channel of the whole batch: mean, squared deviations, mean of `within`; units.

        Parts are joined by their means and deviations: in sums of squares digits would cancel.
        """
        if self.sizes is None:
            raise ValueError("`x` must be normalised in a call of the network, got another one.")
        each, rest = divmod(x.numel() // x.shape[1], max(1, self.sizes[self.rank]))
        units = each * sum(self.sizes)
        if rest or units < 2:
            raise ValueError(
                f"`x` must hold at least two units a channel, as many of each point, got {units}."
            )
        mine = torch.stack([*_Deviations.apply(x), within])
        parts = _rows_of_all(mine, self.rank, self.count)
        weight = torch.tensor(self.sizes, dtype=x.dtype, device=x.device)[:, None] * each
        centre = (weight * parts[:, 0]).sum(0) / units
        squares = (weight * (parts[:, 1] + (parts[:, 0] - centre).square())).sum(0)
        return centre, squares, (weight * parts[:, 2]).sum(0) / units, units

    def normalise(self, norm: Any, x: Tensor) -> Tensor:
        """What a batch normalisation of torch computes, with the statistics of the whole batch."""
        if not norm.training and norm.running_mean is not None:
            alone: Tensor = type(norm).forward(norm, x)
            return alone
        norm._check_input_dim(x)
        centre, squares, _, units = self._moments(x, x.new_zeros(x.shape[1]))
        if norm.training and norm.running_mean is not None:
            _move(norm, centre.detach(), squares.detach() / (units - 1))
        gamma = torch.ones_like(centre) if norm.weight is None else norm.weight
        beta = torch.zeros_like(centre) if norm.bias is None else norm.bias
        found = batch_norm(x, Statistics(centre, squares / units), gamma, beta, norm.eps)
        assert isinstance(found, Tensor)
        return found


@torch.no_grad()
def _move(norm: Any, mean: Tensor, var: Tensor) -> None:
    """Move running statistics as torch does."""
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), share)
    norm.running_var.lerp_(var.to(norm.running_var), share)


def _axes(x: Tensor) -> list[int]:
    """All but that of the channels."""
    return [0, *range(2, x.ndim)]


class _Deviations(torch.autograd.Function):
    """Mean and mean squared deviation of each channel, in passes that meet the units in the cache.

    What `torch.var_mean` gives, at an eighth of the time on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        units = x.movedim(1, -1).contiguous()
        rows = units.flatten(0, -2)
        centre = rows.mean(0)
        squares = torch.zeros_like(centre)
        at_once = len(rows) if x.device.type != "cpu" else max(1, CACHED // len(centre))
        for part in rows.split(at_once):
            deviation = part - centre
            squares += deviation.mul_(deviation).sum(0)
        ctx.save_for_backward(units, centre)
        return centre, squares / len(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_centre: Tensor, to_spread: Tensor) -> Tensor:
        units, centre = ctx.saved_tensors
        count = units.numel() // len(centre)
        pull = 2 * to_spread / count
        return torch.addcmul(to_centre / count - pull * centre, units, pull).movedim(-1, 1)


class _Gathered(torch.autograd.Function):
    """The rows of all processes; the gradient is that of the own ones, once for each process."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, sizes: list[int], rank: int) -> Tensor:
        ctx.sizes, ctx.rank = sizes, rank
        padded = part.new_zeros(max(sizes), *part.shape[1:])
        padded[: len(part)] = part
        found = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(found, padded)
        return torch.cat([rows[:size] for rows, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        start = sum(ctx.sizes[: ctx.rank])
        own = slope[start : start + ctx.sizes[ctx.rank]]
        return own * len(ctx.sizes), None, None


class _Summed(torch.autograd.Function):
    """The sum over all processes; so is its gradient, as all of them go on with the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _total(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return _total(slope)


def _total(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _rows_of_all(own: Tensor, rank: int, count: int) -> Tensor:
    """The tensors of all processes, stacked, with gradients."""
    at = torch.zeros(count, *(1,) * own.ndim, dtype=own.dtype, device=own.device)
    at[rank] = 1
    found: Tensor = _Summed.apply(at * own)
    return found


@torch.no_grad()
def average_gradients(module: nn.Module) -> None:
    """Make each gradient the mean of those of all processes, all of one type in one piece."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for parameter in module.parameters():
        if parameter.grad is not None:
            kinds.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in kinds.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.div_(place()[1]).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
