"""What each process of the study of sharded training does, the same file in all of them.

``python studies/sharded_runs.py FOLDER`` is started by `spawned.together`, with plan.json and
points.safetensors in the folder. Process 0 leaves there what is compared and timed.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import load_file, save_file
from spawned import in_turn
from torch import Tensor

from pbnn.baselines import RealNet
from pbnn.binarize import after_step, convert
from pbnn.certificates import Budget, Provenance, certify_gibbs
from pbnn.distributed import Processes, fit_sharded, sharded_drawn_risks
from pbnn.files import write_atomic
from pbnn.layers import freeze_statistics
from pbnn.networks import BLRNet
from pbnn.objectives import BoundObjective, Objective, RiskObjective
from pbnn.seeding import generator
from pbnn.training import FitConfig, load_checkpoint, save_checkpoint

TIMEOUT = 1800.0
"""Seconds that a process waits for others, whose turn it may be for long."""
Plan = dict[str, Any]
DTYPES = {"float64": torch.float64, "float32": torch.float32}
RATES = {"adam": 0.01, "sgd": 0.02}


class Points(NamedTuple):
    """The points of one number format, in all processes."""

    certified: Tensor
    labels: Tensor
    prior: Tensor


def blrnet(plan: Plan, points: Points, frozen: bool) -> Objective:
    """The bound of a BLRNet, whose statistics move, or are frozen on the prior split."""
    make: dict[str, Any] = {"generator": generator(0, "start"), "dtype": points.certified.dtype}
    network = BLRNet(points.certified.shape[1:], plan["architecture"], **make)
    if frozen:
        network.re_estimate(points.prior)
        freeze_statistics(network, plan["splits"]["prior"])
    return BoundObjective(network, len(points.labels), plan["delta"], loss="gibbs")


def binary(plan: Plan, points: Points, recipe: str) -> Objective:
    """A real network of the same layers, made binary."""
    make: dict[str, Any] = {"generator": generator(0, "start"), "dtype": points.certified.dtype}
    twin = RealNet(points.certified.shape[1:], plan["architecture"], **make)
    return RiskObjective(convert(twin, recipe).network, "cross_entropy")


FROZEN = "BLRNet, frozen"
CASES: dict[str, Callable[[Plan, Points], Objective]] = {
    "BLRNet, moving": functools.partial(blrnet, frozen=False),
    FROZEN: functools.partial(blrnet, frozen=True),
    "BinaryNet": functools.partial(binary, recipe="binary_net"),
    "XNOR-Net": functools.partial(binary, recipe="xnor_net"),
}


def trained(
    case: str, plan: Plan, points: Points, optimiser: str, epochs: int
) -> tuple[Objective, list[float], list[float]]:
    """A training on the first points: the losses of its steps, and when each was done."""
    objective = CASES[case](plan, points)
    losses: list[float] = []
    ends: list[float] = []
    objective.register_forward_hook(lambda _, __, told: losses.append(told[0].item()))

    def stepped(share: float) -> None:
        after_step(objective.network)
        ends.append(time.perf_counter())

    config = FitConfig(
        epochs, plan["batch"], RATES[optimiser], optimiser=optimiser, keep="last", kl_warmup=0.5
    )
    x, y = (part[: plan["trained"]] for part in (points.certified, points.labels))
    batches = generator(0, "batches")
    fit_sharded(objective, x, y, config, generator=batches, after_step=stepped)
    return objective, losses, ends


def equality(folder: Path, plan: Plan, points: Points, here: Processes) -> None:
    """Losses and parameters of every training, and a certificate, by a group of processes."""
    for dtype, case, optimiser in itertools.product(DTYPES, CASES, RATES):
        real = DTYPES[dtype]
        mine = points._replace(certified=points.certified.to(real), prior=points.prior.to(real))
        objective, losses, _ = trained(case, plan, mine, optimiser, 2)
        if here.rank:
            continue
        name = f"{dtype}-{list(CASES).index(case)}-{optimiser}-{here.count}"
        write_atomic(folder / f"{name}.json", json.dumps(losses))
        state = {key: value.contiguous() for key, value in objective.named_parameters()}
        save_file(state, folder / f"{name}.safetensors")
        if here.count == 1 and (dtype, case, optimiser) == ("float32", FROZEN, "adam"):
            save_checkpoint(folder / "network.safetensors", cast(BLRNet, objective.network))
    certified(folder, plan, points, here)


def certified(folder: Path, plan: Plan, points: Points, here: Processes) -> None:
    """The certificate of the network that a single process has trained, in shards."""
    network = cast(BLRNet, load_checkpoint(folder / "network.safetensors"))
    draws = {key: plan[key] for key in ("group", "passes")}
    found = sharded_drawn_risks(network, points.certified, points.labels, seed=0, **draws)
    if here.rank == 0:
        told = Provenance("the uniform law of signs", 0, plan["splits"])
        budget = Budget(plan["delta"], choices=1, family="classes")
        certificate = certify_gibbs(network, found, budget, told)
        certificate.save(folder / f"certificate-{here.count}.json")


def seconds_of(plan: Plan, points: Points, here: Processes) -> list[dict[str, Any]]:
    """Seconds of single steps by a group of processes; the first step is none."""
    rows = []
    for case in CASES:
        _, _, ends = trained(case, plan, points, "adam", 1)
        row = {"case": case, "processes": here.count}
        rows += [row | {"seconds": after - before} for before, after in itertools.pairwise(ends)]
    return rows


def work(folder: Path) -> None:
    """Every group of processes compares once; then they are timed, in rounds."""
    plan = json.loads((folder / "plan.json").read_text())
    points = Points(**load_file(folder / "points.safetensors"))
    turns, rows = plan["processes"] * (1 + plan["rounds"]), []
    for turn, here in in_turn(turns, TIMEOUT):
        if turn < len(plan["processes"]):
            equality(folder, plan["compared"], points, here)
        else:
            found = seconds_of(plan["timed"], points, here)
            rows += [row | {"turn": turn - len(plan["processes"])} for row in found]
    if os.environ["RANK"] == "0":
        write_atomic(folder / "seconds.json", json.dumps(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]))
