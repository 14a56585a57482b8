"""Can a binary network learn without labels, and from whom? S2-BNN by Shen et al. (2021).

A real-valued teacher learns by contrast. Binary students, of the same start, steps and batches,
learn from its embeddings (`distil`), from both (`distil_contrast`), by contrast alone (`contrast`)
or by labels (`supervised`), or not at all (`untrained`). What their features know is asked by a
linear probe and by nearest neighbours, and how far they are from the teacher on images held out.
Labels are for the probes and the supervised twin only. All that was chosen was so on validation
images; the test images are used once, for the figures. Differences are paired by seed, with 95%
intervals.

``python studies/self_supervised_bnn.py --workers 2`` takes ten minutes on two cores and writes
reports/self_supervised_bnn: table.csv, claims.csv, self_supervised.md and two figures.
``--seeds 20`` adds to what is there. ``--preset full --device cuda`` is a ResNet-18 on CIFAR-10.
Interrupt it at will: it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from balance_runs import splits_of
from common import Places, carry_out
from self_supervised_arms import ARMS, run
from self_supervised_page import draw

from pbnn.data import Task
from pbnn.study import run_study
from pbnn.sweep import Cell, cell_key

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "self_supervised_bnn"
CAPTIONS = {
    "probes": "Accuracy of a linear probe and of nearest neighbours on the features of each arm, "
    "with 95% intervals over seeds.",
    "divergence": "How far the students are from the teacher on images held out, in the course of "
    "the training: mean over seeds.",
}
"""What its figures show."""
Dataset = Literal["fashion_mnist", "mnist", "cifar10", "digits"]

SHARED: dict[str, Any] = {
    "network": "small_resnet",
    "dim": 128,
    "temperature": 0.2,
    "batch": 256,
    "images": 40_000,
    "views": "crop_contrast_erase",
    "frozen_from": 0.7,
    "both_from": 0.5,
    "labelled": 5_000,
    "inverse_penalty": 0.01,
}
"""How all are trained and asked. `both_from` is the share of the steps after which weights are
binary, too; `labelled` the number of images with labels for the probes."""
TEACHER: dict[str, dict[str, Any]] = {
    "quick": {"epochs": 8, "learning_rate": 0.01},
    "full": {"epochs": 200, "learning_rate": 0.001},
}
STUDENTS: dict[str, dict[str, Any]] = {
    "quick": {"epochs": 4, "learning_rate": 0.03},
    "full": {"epochs": 100, "learning_rate": 0.0003},
}
"""Budgets by preset. Learning rates of the quick one are those of .003, .01 and .03 (the teacher's
of .001, .003 and .01) with the best linear probe on validation images, seed 100."""
FULL: dict[str, Any] = {"network": "resnet18", "images": 0}
DIGITS: dict[str, Any] = {"batch": 64, "images": 0, "labelled": 500, "epochs": 4}
"""What the bundled digits have otherwise in every preset."""
PLAIN = {"views": "none"}
"""The twin that learns from labels as one would: from the images as they are."""
CONTRAST = {"distil": 0.0, "distil_contrast": 1.0}
"""Weight of the contrast beside the distillation."""


@dataclass(frozen=True)
class Config(Places):
    """What to train, how often, and where to write it."""

    preset: Literal["quick", "full"] = "quick"
    """quick: a small residual network on Fashion-MNIST; full: a ResNet-18 on CIFAR-10, for a
    GPU."""
    dataset: Dataset | None = None
    """Another data set than the preset's."""
    seeds: int = 3
    """Runs of each arm; more of them go into the same folder."""
    out: Path | None = None
    """Output folder; by default reports/self_supervised_bnn, with endings _full, and _part for
    another data set."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """The one data set."""
        return (self.dataset or ("cifar10" if self.preset == "full" else "fashion_mnist"),)

    @property
    def folder(self) -> Path:
        """Where to write: the quick preset as it is, is the committed report."""
        part = self.datasets != Config(preset=self.preset).datasets
        ending = ("_full" if self.preset == "full" else "") + ("_part" if part else "")
        return self.out or REPORTS / f"{NAME}{ending}"


def cells_of(config: Config, tasks: dict[str, Task]) -> list[Cell]:
    """Every run: all that determines its result, and a key made of it."""
    cells = []
    for dataset, task in tasks.items():
        shared = {"dataset": dataset, "threads": config.threads, "device": config.device}
        shared |= {"splits": splits_of(task).hashes(task)} | SHARED
        shared |= FULL if config.preset == "full" else {}
        for seed in range(config.seeds):
            teacher = None
            for method in ARMS:
                budget = (TEACHER if method == "teacher" else STUDENTS)[config.preset]
                mine = shared | budget | (DIGITS if dataset == "digits" else {})
                mine |= PLAIN if method == "supervised_plain" else {}
                mine |= {"method": method, "contrast": CONTRAST.get(method, 0.0), "seed": seed}
                mine["after"] = None if method.startswith("supervised") else teacher
                key = cell_key(mine, {"sha256": task.sha256})
                teacher = key if method == "teacher" else teacher
                cells.append(Cell(key, mine))
    return cells


def study(config: Config) -> Path:
    """Run what is missing, then write every table and figure; returns the folder."""
    return carry_out(config, NAME, cells_of, run, "after", draw)


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
