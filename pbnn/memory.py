"""Memory of a training, predicted before it starts; chunks, or what to lower, if it is too much."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pbnn.chunks import Chunks
from pbnn.objectives import Objective
from pbnn.seeding import copied
from pbnn.shards import PointDraws, TorchNorm, draws_weights

MOMENTS = {"adam": 2, "sgd": 1}
"""Numbers that an optimiser keeps for each parameter."""
LOOKED_AT = 0.1
"""Share of what is there that a coarse guess must reach before anything is predicted."""
PER_INPUT = 200
"""Bytes kept for each byte of an input, a coarse guess: small convolutional networks keep 100."""
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Memory(NamedTuple):
    """Bytes of a training.

    Attributes
    ----------
    parameters : int
        Parameters, their gradients, what the optimiser keeps, buffers, and the best epoch's state.
    fixed : int
        Kept for the gradient of a step whatever the batch.
    example : int
        Kept for the gradient of a step for each example of its batch.
    whole : int, optional
        The part of `example` that chunks (`pbnn.chunks`) do not save: inputs, outputs, losses, and
        draws. By default all of it.
    """

    parameters: int
    fixed: int
    example: int
    whole: int | None = None

    def of(self, batch: int, chunk: int | None = None) -> int:
        """Peak with this batch: what is kept, and half of it again for results on the way.

        Computed in chunks of so many examples, or as a whole.
        """
        at_once = batch if chunk is None else min(chunk, batch)
        others = (batch - at_once) * _with_others(self._of_whole())
        return self.parameters + self.fixed + at_once * _with_others(self.example) + others

    def batch_within(self, available: int) -> int:
        """The largest batch that fits; 0 if none does."""
        left = available - self.parameters - self.fixed
        return max(0, left // max(1, _with_others(self.example)))

    def chunk_within(self, available: int, batch: int) -> int:
        """The largest chunk in which this batch fits; 0 if none does."""
        saved = _with_others(self.example) - _with_others(self._of_whole())
        left = available - self.of(batch, 0)
        return min(batch, max(0, left // max(1, saved)))

    def _of_whole(self) -> int:
        return self.example if self.whole is None else min(self.whole, self.example)


def _with_others(size: int) -> int:
    return size + size // 2


def predict(
    objective: Objective,
    x: Tensor,
    y: Tensor,
    optimiser: str = "adam",
    *,
    chunked: bool = False,
    frozen: bool = False,
) -> Memory:
    """Memory of a training, from two steps on copies, of two and of four examples.

    All draws of a step are in it (T of a sampled network). The objective, its generators and its
    batch statistics stay as they are.

    Parameters
    ----------
    objective : Objective
    x, y : Tensor
        At least four points.
    optimiser : {"adam", "sgd"}
    chunked : bool
        Foretell too what chunks do not save, from two more steps.
    frozen : bool
        Whether torch's batch normalisations keep their running statistics from the first step.

    Raises
    ------
    ValueError
        For fewer points, or if the network cannot be computed in chunks that are asked for.

    Examples
    --------
    >>> from pbnn.networks import BLRNet
    >>> from pbnn.objectives import RiskObjective
    >>> network = BLRNet((1, 8, 8), "4C3-MP2-SM10", generator=torch.Generator())
    >>> x, y = torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
    >>> predict(RiskObjective(network, "cross_entropy"), x, y).example > 4 * 64
    True
    """
    if len(x) < 4:
        raise ValueError(f"`x` must hold at least four points, got {len(x)}.")

    def kept(points: int, size: int | None = None) -> int:
        # A step computes with a copy of the points that it is of.
        few = x[:points].clone(), y[:points].clone()
        return kept_bytes(copied(objective), *few, size, frozen)

    two, four = kept(2), kept(4)
    own = sum(p.numel() * p.element_size() for p in objective.parameters())
    others = sum(b.numel() * b.element_size() for b in objective.buffers())
    example = max(0, four - two) // 2
    total = own * (3 + MOMENTS.get(optimiser, 2)) + 2 * others
    whole = None
    if chunked:
        whole = max(0, kept(4, 1) - kept(2, 1)) // 2
        if any(not draws_weights(module) for module in PointDraws(objective.network).modules):
            whole += example // 4  # what is drawn for all points at once, a coarse guess
    return Memory(total, max(0, two - 2 * example), example, whole)


def kept_bytes(
    objective: Objective, x: Tensor, y: Tensor, chunk: int | None = None, frozen: bool = False
) -> int:
    """Bytes that one step keeps for its gradient, each storage once; parameters left out.

    Of a step in chunks: what is kept outside of the network.
    """
    own = {p.untyped_storage().data_ptr() for p in objective.parameters()}
    seen: dict[int, int] = {}
    alive = []

    def keep(tensor: Tensor) -> Tensor:
        # Not the tensor itself: the graph holds this function, and would never be freed.
        tensor, storage = tensor.detach(), tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or its address may be somebody else's next
        return tensor

    objective.train()
    for norm in objective.modules() if frozen else ():
        if isinstance(norm, TorchNorm):
            norm.eval()
    objective.meet(torch.arange(len(x)))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        Chunks(getattr(objective, "network", None), chunk),
    ):
        objective(x, y, 1.0)
    return sum(seen.values())


def available(device: torch.device | str = "cpu") -> int:
    """Bytes that are free on a device, within the limit of a container."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    for name in LIMITS:
        try:
            limit = int(Path(name).read_text())
        except (OSError, ValueError):
            continue
        free = min(free, max(0, limit - psutil.Process().memory_info().rss))
    return free


def fitting(
    objective: Objective,
    x: Tensor,
    y: Tensor,
    batch: int,
    optimiser: str = "adam",
    *,
    frozen: bool = False,
    chunked: bool = True,
) -> Chunks:
    """How to compute the steps of a training so that they fit: as a whole, or in chunks.

    Chunks give the loss, the gradient and the draws of the whole batch, so that the memory that
    happens to be free decides on rounding alone. Predicted only where a coarse guess is a tenth of
    what is there, and where no hooks listen.

    Parameters
    ----------
    objective, x, y, optimiser
        Those of the training.
    batch : int
    frozen : bool
        Whether torch's batch normalisations keep their running statistics from the first step.
    chunked : bool
        Whether chunks may be used.

    Returns
    -------
    Chunks
        To be entered around each step's loss.

    Raises
    ------
    ValueError
        Naming `batch`, what a step needs, what is there, and what to lower, if neither fits.

    Warns
    -----
    UserWarning
        If there are chunks, with their size.
    """
    network = getattr(objective, "network", None)
    free = available(x.device)
    batch = min(batch, len(x))
    guess = batch * (x[0].numel() * x.element_size()) * PER_INPUT
    if guess < LOOKED_AT * free or len(x) < 4 or _is_watched(objective):
        return Chunks(network)
    memory = predict(objective, x, y, optimiser, frozen=frozen)
    if (needed := memory.of(batch)) <= free:
        return Chunks(network)
    why = "it was not to be computed in chunks"
    if chunked:
        try:
            memory = predict(objective, x, y, optimiser, chunked=True, frozen=frozen)
            why = "no chunk of it fits either"
        except ValueError as error:
            why = f"it cannot be computed in chunks: {str(error).removesuffix('.')}"
    if chunk := memory.chunk_within(free, batch):
        told = f"{needed / 1e9:.3g} GB would be needed, and {free / 1e9:.3g} GB are free"
        warnings.warn(f"A step is computed in chunks of {chunk} examples: {told}.", stacklevel=4)
        return Chunks(network, chunk)
    most = memory.batch_within(free)
    advice = f"lower it to {most} or fewer" if most else "the network alone is too large"
    raise ValueError(
        f"`batch` must fit into memory: a step of {batch} examples needs about "
        f"{needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free: {advice}, or lower the "
        f"width, or the draws of a step ({why})."
    )


def _is_watched(objective: nn.Module) -> bool:
    return any(m._forward_hooks or m._forward_pre_hooks for m in objective.modules())
