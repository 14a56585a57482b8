"""Randomness by purpose: every draw comes from a generator made of a seed and what it is for."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, TypeVar

from pbnn.files import sha256

if TYPE_CHECKING:
    import torch

_Module = TypeVar("_Module", bound="torch.nn.Module")


def spawn_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, so that no two purposes share a stream of random numbers.

    Examples
    --------
    >>> spawn_seed(0, "prior") == spawn_seed(0, "prior")
    True
    >>> spawn_seed(0, "prior") == spawn_seed(0, "batches")
    False
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"`seed` must be a non-negative integer, got {seed!r}.")
    # JSON keeps ("a", "b") and ("a/b",), 1 and "1", apart, which joining the texts would not.
    return int(sha256(json.dumps((seed, *purpose)))[:16], 16) >> 1


def generator(
    seed: int, *purpose: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator for one purpose; the global generator is never touched."""
    import torch

    return torch.Generator(device=device).manual_seed(spawn_seed(seed, *purpose))


def copied(module: _Module) -> _Module:
    """A deep copy of a torch module, whose generators go on from where those of the module are.

    `copy.deepcopy` gives the same, but for every generator that it copies torch keeps the memory of
    one for ever (seen with 2.13).

    Examples
    --------
    >>> import torch
    >>> module = torch.nn.Identity()
    >>> module.source = generator(0, "draws")
    >>> own = torch.rand(2, generator=copied(module).source)
    >>> bool((own == torch.rand(2, generator=module.source)).all())
    True
    """
    import torch

    kept = {
        id(value): value.clone_state()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Generator)
    }
    return copy.deepcopy(module, kept)
