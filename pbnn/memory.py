"""Memory of a training, predicted before it starts, and what to lower if it does not fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pbnn.objectives import Objective

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
    """

    parameters: int
    fixed: int
    example: int

    def of(self, batch: int) -> int:
        """Peak with this batch: what is kept, and as much again for the largest single result."""
        return self.parameters + self.fixed + batch * (self.example + self.example // 4)

    def batch_within(self, available: int) -> int:
        """The largest batch that fits; 0 if none does."""
        left = available - self.parameters - self.fixed
        return max(0, left // max(1, self.example + self.example // 4))


def predict(objective: Objective, x: Tensor, y: Tensor, optimiser: str = "adam") -> Memory:
    """Memory of a training, from two steps on copies, of two and of four examples.

    All draws of a step are in it (T of a sampled network). The objective, its generators and its
    batch statistics stay as they are.

    Parameters
    ----------
    objective : Objective
    x, y : Tensor
        At least four points.
    optimiser : {"adam", "sgd"}

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
    two, four = (kept_bytes(copy.deepcopy(objective), x[:size], y[:size]) for size in (2, 4))
    own = sum(p.numel() * p.element_size() for p in objective.parameters())
    others = sum(b.numel() * b.element_size() for b in objective.buffers())
    example = max(0, four - two) // 2
    total = own * (3 + MOMENTS.get(optimiser, 2)) + 2 * others
    return Memory(total, max(0, two - 2 * example), example)


def kept_bytes(objective: Objective, x: Tensor, y: Tensor) -> int:
    """Bytes that one step keeps for its gradient, each storage once; parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in objective.parameters()}
    seen: dict[int, int] = {}
    alive = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or its address may be somebody else's next
        return tensor

    objective.train()
    objective.meet(torch.arange(len(x)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
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


def check_fits(
    objective: Objective, x: Tensor, y: Tensor, batch: int, optimiser: str = "adam"
) -> None:
    """Refuse a training that cannot fit, and say which batch would.

    Predicted only where a coarse guess is a tenth of what is there, and where no hooks listen.

    Raises
    ------
    ValueError
        Naming `batch`, what a step needs and what is there.
    """
    free = available(x.device)
    batch = min(batch, len(x))
    guess = batch * (x[0].numel() * x.element_size()) * PER_INPUT
    if guess < LOOKED_AT * free or len(x) < 4 or _is_watched(objective):
        return
    memory = predict(objective, x, y, optimiser)
    if (needed := memory.of(batch)) > free:
        most = memory.batch_within(free)
        advice = f"lower it to {most} or fewer" if most else "the network alone is too large"
        raise ValueError(
            f"`batch` must fit into memory: a step of {batch} examples needs about "
            f"{needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free: {advice}, or lower the "
            "width, or the draws of a step."
        )


def _is_watched(objective: nn.Module) -> bool:
    return any(m._forward_hooks or m._forward_pre_hooks for m in objective.modules())
