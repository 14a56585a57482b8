"""What a contrast costs: seconds of a step and bytes, within a batch and with a memory of n."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from balance_runs import network_of, objective_of
from common import write_tables
from measured import saved_bytes, timed
from torch import Tensor, nn

from pbnn.binarize import RECIPES
from pbnn.objectives import Objective
from pbnn.representation import CMIM
from pbnn.seeding import generator

NAME = "costs"
IMAGE, BATCH = (1, 28, 28), 128
SIZES = (6_000, 60_000, 1_000_000)
"""Samples to train on, n."""
ARMS: dict[str, dict[str, Any]] = {
    "own, in a batch": {"count": None},
    "teacher, in a batch": {"count": None, "pair": "teacher"},
    "teacher, memory, N = 512": {"count": 512, "pair": "teacher"},
    "teacher, memory, N = 4096": {"count": 4096, "pair": "teacher"},
}


def write_costs(_: list[dict[str, Any]], folder: Path) -> None:
    """Measure and write costs.csv: one row for each variant and n, and one of no contrast."""
    write_tables(folder, **{NAME: pd.DataFrame(costs())})


def costs() -> list[dict[str, Any]]:
    """Of a small LeNet with the recipe of XNOR-Net, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [row for n in SIZES for row in costs_of(n)]
    finally:
        torch.set_num_threads(threads)


def costs_of(n: int) -> list[dict[str, Any]]:
    """Rows of n samples: the step's seconds, what autograd keeps of it, what is held all along."""
    x = torch.rand(BATCH, *IMAGE, generator=generator(0, "images"))
    labels = torch.randint(10, (n,), generator=generator(0, "labels"))
    index = torch.randperm(n, generator=generator(0, "index"))[:BATCH]
    arms = {"no contrast": None} | ARMS
    objectives = {name: made(x, labels, how) for name, how in arms.items()}
    y = labels[index]

    def loss(objective: Objective) -> Tensor:
        objective.meet(index)
        found: Tensor = objective(x, y)[0]
        return found

    def step(objective: Objective) -> None:
        loss(objective).backward()
        objective.zero_grad(set_to_none=True)

    seconds = timed({name: lambda o=o: step(o) for name, o in objectives.items()})
    rows = []
    for name, objective in objectives.items():
        row = {"variant": name, "n": n, "step_seconds": seconds[name]}
        row["step_ratio"] = seconds[name] / seconds["no contrast"]
        row["saved_megabytes"] = saved_bytes(objective, lambda o=objective: loss(o)) / 1e6  # type: ignore[misc]
        row["held_megabytes"] = held(objective) / 1e6
        rows.append(row)
    return rows


def made(x: Tensor, labels: Tensor, how: dict[str, Any] | None) -> Objective:
    """Cross-entropy of a network at its start, with a contrast or without."""
    cell = {"network": "small_lenet", "seed": 0, "norm_bias": 0.0}
    cell |= {"recipe": RECIPES["xnor_net"].to_dict()}
    objective = objective_of(cell, network_of(cell, IMAGE, 10)).train()
    if how is None:
        return objective
    teacher = None
    if how.get("pair") == "teacher":
        teacher = network_of(cell | {"recipe": None}, IMAGE, 10).eval()
    return CMIM(objective, x, labels, teacher=teacher, generator=generator(0, "heads"), **how)


def held(objective: nn.Module) -> int:
    """Bytes of heads, memories and tables of a contrast."""
    if not isinstance(objective, CMIM):
        return 0
    contrast = objective.contrast
    own = vars(contrast.strangers).values() if contrast.strangers else ()
    tables = [value for value in own if isinstance(value, Tensor)]
    return sum(t.nbytes for t in (*tables, *contrast.parameters(), *contrast.buffers()))
