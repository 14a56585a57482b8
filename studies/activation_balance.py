"""Balanced or unbalanced signs? Binary networks at seven thresholds, and the systems that argue.

Trains an XNOR-Net and a Bi-Real-Net at every threshold of their activations, and the other systems
at theirs, on shared networks, budget, batches and starts, and measures the balance of their signs
on the way (`pbnn.balance`). Some start at another's trained network, or learn from it. Thresholds
are chosen on validation images; the test images are used once, for the figures of the tables.
Differences are paired by seed, with 95% intervals.

``python studies/activation_balance.py --workers 2`` writes reports/activation_balance: table.csv
and balance.md, the claims of the papers with their verdicts in claims.csv, what the bases of an
ABC-Net cost in bases.csv, and five figures.
``--preset quick`` is a look at it in a few minutes. Interrupt it at will: it goes on.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from balance_bases import write_costs
from balance_page import draw
from balance_runs import run, splits_of
from common import Places, carry_out
from recipes_studied import (
    AXES,
    BASES,
    CHECK,
    METHODS,
    MOST_BASES,
    NETWORKS_OF,
    bases,
    budget,
    recipe_of,
)

from pbnn.data import Task
from pbnn.study import run_study
from pbnn.sweep import Cell, cell_key

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "activation_balance"
CAPTIONS = {
    "accuracy_threshold": "Test accuracy against the threshold of all activations, with 95% "
    "intervals over seeds; the dotted line is the plain sign.",
    "entropy_accuracy": "Test accuracy against the entropy of the activations' signs, of networks "
    "trained alike: every arm of the study, mean over seeds.",
    "layers": "Entropy of each binary layer's signs in the course of the training, at threshold 0 "
    "and at 0.4.",
    "preactivations": "Densities of what the first binary layer's signs are taken of, with the "
    "threshold drawn in.",
    "bases": "What bases cost in an ABC-Net: test accuracy, with 95% intervals, against time, "
    "memory, bits of parameters and operations; N activation bases by colour, M weight bases "
    "beside the points.",
}
"""What its figures show."""
Arm = tuple[str, float, dict[str, Any]]
"""Method, threshold, and what else is other than usual."""
DATASETS = ("mnist", "fashion_mnist", "cifar10", "digits")


@dataclass(frozen=True)
class Config(Places):
    """What to train, how often, and where to write it."""

    preset: Literal["quick", "full"] = "full"
    """full: the committed report, an hour and a half on two cores; quick: two seeds, one epoch,
    three thresholds."""
    datasets: tuple[str, ...] = ("mnist", "fashion_mnist")
    """Of mnist, fashion_mnist, cifar10, digits."""
    networks: tuple[str, ...] = tuple(NETWORKS_OF)
    """Of small_lenet and small_resnet."""
    thresholds: tuple[float, ...] | None = None
    """Of the XNOR-Net and the Bi-Real-Net; 0 is always among them."""
    bases: tuple[int, ...] = (1, 3, 5)
    """M and N, bases of the weights and of the activations of an ABC-Net on small_lenet."""
    seeds: int | None = None
    """Runs of each row; by default 5 (full) or 2."""
    out: Path | None = None
    """Output folder; by default reports/activation_balance, with endings _quick, and _part for
    other data sets, networks, thresholds, bases, seeds or another device."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (
            ("datasets", {*DATASETS}),
            ("networks", {*NETWORKS_OF}),
            ("bases", {*range(1, MOST_BASES + 1)}),
        ):
            if odd := set(getattr(self, name)) - known:
                raise ValueError(f"`{name}` must be among {sorted(known)}, got {sorted(odd)}.")
            if not (got := getattr(self, name)) or len({*got}) < len(got):
                raise ValueError(f"`{name}` must be some, each once, got {got}.")
        for threshold in self.thresholds or ():
            if not abs(threshold) <= 3:
                raise ValueError(f"`thresholds` must lie in [−3, 3], got {threshold}.")

    @property
    def swept(self) -> tuple[float, ...]:
        """The thresholds with 0, in order."""
        usual = (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6) if self.preset == "full" else (-0.4, 0.4)
        return tuple(sorted({0.0, *(usual if self.thresholds is None else self.thresholds)}))

    @property
    def folder(self) -> Path:
        """Where to write: the full preset as it is, is the committed report."""
        usual = Config(preset=self.preset)
        chosen = ("datasets", "networks", "thresholds", "bases", "seeds", "device")
        part = any(getattr(self, name) != getattr(usual, name) for name in chosen)
        ending = ("_quick" if self.preset == "quick" else "") + ("_part" if part else "")
        return self.out or REPORTS / f"{NAME}{ending}"


def cells_of(config: Config, tasks: dict[str, Task]) -> list[Cell]:
    """Every run: all that determines its result, and a key made of it."""
    cells = []
    seeds = config.seeds or (5 if config.preset == "full" else 2)
    for dataset, task in tasks.items():
        shared = {"dataset": dataset, "threads": config.threads, "device": config.device}
        shared |= {"splits": splits_of(task).hashes(task)}
        for network in config.networks:
            base = BASES[network]
            swept: list[Arm] = [(base, threshold, {}) for threshold in config.swept]
            others: list[Arm] = [(m, 0.0, more) for m, more in NETWORKS_OF[network].items()]
            for m, n in itertools.product(config.bases, repeat=2) if network in AXES else ():
                others.append((bases(m, n), 0.0, AXES[network]))
            keys: dict[Any, str] = {}
            if CHECK[config.preset]:
                others.append((f"{base}_long", 0.0, CHECK[config.preset]))
            for method, threshold, more in swept + others:
                recipe = recipe_of(METHODS[method], threshold)
                cell = (
                    shared
                    | budget(config.preset, dataset, network)
                    | {
                        "network": network,
                        "method": method,
                        "threshold": recipe.threshold if recipe else None,
                        "norm_bias": 0.0,
                        "recipe": recipe and recipe.to_dict(),
                        "after": None,
                    }
                    | more
                )
                count = min(seeds, cell.pop("seeds", seeds))
                for seed in range(count):
                    mine = cell | {"seed": seed}
                    if mine["after"]:
                        mine["after"] = keys[mine["after"], seed]
                    key = cell_key(mine, {"sha256": task.sha256})
                    if not threshold:
                        keys[method, seed] = key
                    cells.append(Cell(key, mine))
    return cells


def study(config: Config) -> Path:
    """Run what is missing, then write every table and figure; returns the folder."""
    return carry_out(config, NAME, cells_of, run, "after", draw, write_costs)


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
