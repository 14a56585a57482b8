"""Seconds of works done in turn, and bytes that autograd keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

ROUNDS = 30
"""Steps timed of each, all in turn, so that all meet the same load."""


def timed(works: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Least seconds of each work, all done in turn."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(ROUNDS + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - began)
    return {name: min(found) for name, found in times.items()}


def saved_bytes(module: nn.Module, compute: Callable[[], Any]) -> int:
    """Bytes that autograd keeps of a computation, but for parameters, each storage once."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    return sum(seen.values())
