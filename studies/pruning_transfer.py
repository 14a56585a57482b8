"""Do masks found without labels serve labels? Pruning with self-supervision, of binary networks.

Caron et al. (2020) prune by magnitude, in rounds with a rewind, what has learned labels, or turns
of images, or clusters; then the networks are trained on labels with each mask held. A mask makes
the weights of a binary network ternary. The rewind is to the start of the seed, the same for all
sources of masks to the bit: a state after a warm-up would favour the task of the warm-up. Only the
last layer, whose size is that of the task, is a source's own, and is not pruned. Clusters are of
pixels before the first round, then of the features that the round before has learned.

Controls: `random` masks of the same sparsity; `shuffled` ones, which keep as many weights of each
layer as the labels' masks do, at random places; and the overlap with masks of the start's own
magnitudes, as what starts at one state may end with the same large weights whatever it learned.

Transfer: networks trained by rotation with a mask held, and a linear probe of their features on
other images. A sixth of the training images is for choices; test images are used once, for the
figures of the tables.

``python studies/pruning_transfer.py --workers 2`` writes reports/pruning_transfer: table.csv,
claims.csv, pruning.md and a figure. ``--preset full --device cuda`` is a ResNet-18 on CIFAR-10.
Interrupt it at will: it goes on, also with more seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from balance_runs import splits_of
from common import Places, carry_out
from pruning_claims import SPARSE
from pruning_page import draw
from pruning_runs import AGAIN, run
from recipes_studied import METHODS

from pbnn.data import Task
from pbnn.study import run_study
from pbnn.sweep import Cell, cell_key

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "pruning_transfer"
CAPTIONS = {
    "accuracy_sparsity": "Test accuracy after training on labels against sparsity, by the source "
    "of the masks, with 95% intervals over seeds; dashed without pruning.",
}
"""What its figures show."""
DATASETS = {"quick": ("fashion_mnist", "mnist"), "full": ("cifar10", "cifar100")}
"""What is trained on, and what the probe is of."""
KINDS = ("xnor_net", "real")
SPARSITIES = (0.5, 0.8, 0.9)
"""After each round."""
LEARNED = ("labels", "rotation", "clusters")
"""Sources of masks that are trained on."""
SHUFFLED = {"shuffled": "labels", "shuffled_rotation": "rotation"}
"""Masks with as many weights in each layer as others, at random places."""

QUICK: dict[str, Any] = {
    "network": "small_lenet",
    "epochs": 3,
    "images": 10_000,
    "batch": 128,
    "learning_rate": 0.02,
    "optimiser": "adam",
    "weight_decay": 0.0,
    "frozen_from": 0.7,
    "augmentation": "none",
    "clusters": 30,
}
FULL: dict[str, Any] = QUICK | {
    "network": "resnet18",
    "epochs": 120,
    "images": 0,
    "learning_rate": 0.1,
    "optimiser": "sgd",
    "weight_decay": 1e-4,
    "augmentation": "crop",
    "clusters": 100,
}
BUDGETS = {"quick": QUICK, "full": FULL}
"""How every network is trained, whatever it learns, on the first images of the training part. The
learning rate of the quick preset is the better of 0.005 and 0.02 by validation images, seed 100."""
PROBED = {"images": 5000, "inverse_penalty": 1.0}
"""First images of each part that a probe is trained and tested on, and its penalty."""
DIGITS: dict[str, Any] = QUICK | {"epochs": 12, "images": 0, "clusters": 20}
"""Where no other data can be had."""


@dataclass(frozen=True)
class Config(Places):
    """What to train, how often, and where to write it."""

    preset: Literal["quick", "full"] = "quick"
    """quick: a LeNet on Fashion-MNIST, ten minutes on two cores; full: a ResNet-18 on CIFAR-10, for
    a GPU."""
    seeds: int = 3
    """Runs of each row; more of them go on in the same folder."""
    out: Path | None = None
    """Output folder; by default reports/pruning_transfer, with the ending _full."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """What is trained on, and what the probe is of."""
        return DATASETS[self.preset]

    @property
    def folder(self) -> Path:
        """Where to write."""
        return self.out or REPORTS / f"{NAME}{'_full' if self.preset == 'full' else ''}"


def cells_of(config: Config, tasks: dict[str, Task]) -> list[Cell]:
    """Every run: all that determines its result, and a key made of it.

    Of the data that can be had, the first is trained on and the last is probed.
    """
    task, other = next(iter(tasks.values())), next(reversed(tasks.values()))
    shared = {"dataset": task.name, "threads": config.threads, "device": config.device}
    shared |= {"splits": splits_of(task).hashes(task), "norm_bias": 0.0}
    shared |= DIGITS if task.name == "digits" else BUDGETS[config.preset]
    probed = PROBED | {"dataset": other.name, "splits": splits_of(other).hashes(other)}
    cells: list[Cell] = []

    def add(cell: dict[str, Any]) -> str:
        key = cell_key(cell, {"sha256": task.sha256})
        cells.append(Cell(key, cell))
        return key

    for method in KINDS:
        recipe = METHODS[method]
        kind = shared | {"method": method, "recipe": recipe and recipe.to_dict()}
        for seed in range(config.seeds):
            mine = kind | {"seed": seed}
            keys = {
                source: add(
                    mine
                    | {"role": "masks", "source": source, "sparsity": list(SPARSITIES)}
                    | {"after": None}
                )
                for source in (*LEARNED, AGAIN)
            }
            for arm in arms(keys):
                add(mine | arm | ({"probed": probed} if arm["role"] == "probe" else {}))
    return cells


def arms(keys: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What is trained of a kind and a seed with masks held, after the runs of these keys."""
    whole = {"source": "unpruned", "sparsity": 0.0, "after": None}
    yield whole | {"role": "labels"}
    for sparsity in SPARSE:
        for source in (*LEARNED, "random", *SHUFFLED):
            after = {"masks": keys.get(SHUFFLED.get(source, source)), "labels": keys["labels"]}
            if source == "labels":
                after["again"] = keys[AGAIN]
            yield {"role": "labels", "source": source, "sparsity": sparsity, "after": after}
    yield whole | {"role": "probe"}
    for sparsity in SPARSE:
        after = {"masks": keys["rotation"]}
        arm = {"role": "probe", "sparsity": sparsity}
        yield arm | {"source": "rotation", "after": after}
        yield arm | {"source": "shuffled_rotation", "after": after}
        yield arm | {"source": "random", "after": None}


def study(config: Config) -> Path:
    """Run what is missing, then write every table and the figure; returns the folder."""
    return carry_out(config, NAME, cells_of, run, "after", draw)


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
