"""Probabilistic binary convolutional networks on images of ten classes: what is lost on the way?

A network is trained as a distribution over binary networks; what is deployed is one of them, or
several. The study puts side by side the error of the propagated probabilities, of the most
probable binary network before and after its batch normalisation is re-estimated, of the ternary
one, and of ensembles of drawn networks; without batch normalisation and from a uniform start for
comparison; and how well an ensemble knows what it does not know, and when it may stop asking
members.

    python studies/blrnet_accuracy.py                    # reports/blrnet_accuracy_quick
    python studies/blrnet_accuracy.py --preset cpu --workers 2
    python studies/blrnet_accuracy.py --preset gpu --device cuda
    python studies/blrnet_accuracy.py --preset cpu --redraw
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from blrnet_page import draw
from blrnet_runs import METHODS, STRAIGHT, parts_of, run
from common import Places, check_finished, run_all, tasks_of, write_description

from pbnn.data import DataUnavailable, Task, load
from pbnn.networks import COLOUR_IMAGES, SMALL_IMAGES
from pbnn.study import run_study
from pbnn.sweep import Cell, cell_key

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "blrnet_accuracy"
CAPTIONS = {
    "ensembles": "Test error against the number of drawn networks that vote; crosses are ensembles "
    "that stop asking members by themselves, stars published figures.",
    "error_coverage": "Error among the most certain test images against their share, by four "
    "measures of certainty; one line a seed.",
}
"""What its figures show."""

TRAINING = {
    "batch": 128,
    "learning_rate": 0.1,
    "loss": "bce",
    "real_rate": 0.003,
    "binary_rate": 0.01,
    "posterior_rate": 0.02,
    "committed": 0.95,
    "re_estimated_on": 20 * 128,
}
"""Of every network; the real-valued ones at their own learning rate, by cross-entropy."""
SHIFTS = {"rotation": 0.08, "scale": 0.05, "shear": 0.05, "shift": 1 / 18}
"""Limits of the affine augmentation of `pbnn.augmentation`."""
OUTSIDE = {"mnist": "fashion_mnist", "fashion_mnist": "mnist"}
"""What is out of the distribution of a data set."""
TINY = "16C3-MP2-32C3-MP2-128FC-SM10"
SMALL_COLOUR = "32C3-MP2-64C3-MP2-128C3-MP2-256FC-SM10"


def stages(real: int, binary: int, posterior: int) -> dict[str, int]:
    """Epochs of a real-valued start, of a network, and of one more on top of a binary network."""
    return {"pretraining": real, "epochs": binary, "posterior_epochs": posterior}


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "mnist": {"architecture": TINY, "images": 10_000} | stages(1, 3, 1),
    },
    "cpu": {
        "mnist": {"architecture": SMALL_IMAGES, "images": 0} | stages(2, 30, 3),
        "cifar10": {"architecture": SMALL_COLOUR, "images": 0} | stages(2, 10, 3),
    },
    "gpu": {
        "mnist": {"architecture": SMALL_IMAGES, "images": 0} | stages(20, 80, 20),
        "cifar10": {"architecture": COLOUR_IMAGES, "images": 0} | stages(60, 160, 40),
    },
}
"""Network, training images (0 for all) and epochs of each data set."""
DIGITS = {"architecture": TINY, "images": 0} | stages(4, 8, 4)
"""The same where only the bundled digits can be had."""
SEEDS: dict[str, dict[str, dict[str, int]]] = {
    "quick": {"mnist": dict.fromkeys(METHODS, 1)},
    "cpu": {
        "mnist": {STRAIGHT: 3, "pbnet_s": 3, "pbnet": 1, "real": 1},
        "cifar10": dict.fromkeys(METHODS, 1) | {STRAIGHT: 2, "pbnet_s": 2},
    },
    "gpu": dict.fromkeys(("mnist", "cifar10"), dict.fromkeys(METHODS, 3)),
}
"""Runs of each method unless told otherwise; as in the paper, CIFAR-10 shows the ablations."""


@dataclass(frozen=True)
class Config(Places):
    """What to run, on what, and where to write it."""

    preset: Literal["quick", "cpu", "gpu"] = "quick"
    """quick: ten minutes; cpu: all of MNIST and a small network on CIFAR-10; gpu: the paper's."""
    datasets: tuple[str, ...] | None = None
    """Of mnist and cifar10, those of the preset, or digits; all of the preset's by default."""
    methods: tuple[str, ...] | None = None
    """Of straight_through, real, pbnet, pbnet_s, pbnet_s_real, pbnet_s_uniform, pbnet_s_no_norm; by
    default the preset's. pbnet and pbnet_s go on from straight_through, which is run too."""
    seeds: int | None = None
    """Runs of each method; by default the preset's number."""
    out: Path | None = None
    """Output folder; by default reports/blrnet_accuracy, with the ending _quick or _gpu."""

    def __post_init__(self) -> None:
        super().__post_init__()
        datasets = {*PRESETS[self.preset], "digits"}
        for name, known in (("datasets", datasets), ("methods", {*METHODS})):
            if odd := set(getattr(self, name) or ()) - set(known):
                raise ValueError(f"`{name}` must be among {sorted(known)}, got {sorted(odd)}.")
            given = getattr(self, name)
            if given is not None and (not given or len({*given}) < len(given)):
                raise ValueError(f"`{name}` must be some, each once, got {given}.")

    @property
    def folder(self) -> Path:
        """Where to write: the cpu preset is the committed report."""
        ending = {"quick": "_quick", "cpu": "", "gpu": "_gpu"}[self.preset]
        return self.out or REPORTS / f"{NAME}{ending}"


def cells_of(
    config: Config, tasks: dict[str, Task], others: dict[str, dict[str, str]]
) -> list[Cell]:
    """Every run: all that determines its result, and a key made of it.

    A run that goes on from a binary network comes after that one, and names its key.
    """
    cells = []
    for dataset, task in tasks.items():
        common = TRAINING | {"dataset": dataset, "splits": parts_of(task).hashes(task)}
        common |= {"published_split": task.train is not None, "shifts": SHIFTS}
        common |= {"outside": others.get(dataset)}
        common |= {"device": torch.device(config.device).type, "threads": config.threads}
        keys: dict[int, str] = {}
        for method, seeds in seeds_of(config, dataset).items():
            for seed in range(seeds):
                cell = PRESETS[config.preset].get(dataset, DIGITS) | common
                cell |= {"method": method, "options": METHODS[method], "seed": seed}
                starts = METHODS[method].get("start") == "binary"
                cell["binary"] = keys[seed] if starts else None
                key = cell_key(cell, {"sha256": task.sha256})
                cells.append(Cell(key, cell))
                if method == STRAIGHT:
                    keys[seed] = key
    return cells


def seeds_of(config: Config, dataset: str) -> dict[str, int]:
    """How often to run each method on a data set."""
    usual = SEEDS[config.preset].get(dataset, dict.fromkeys(METHODS, 1))
    wanted = config.methods or usual
    found = {name: config.seeds or usual.get(name, 1) for name in METHODS if name in wanted}
    from_binary = [n for name, n in found.items() if METHODS[name].get("start") == "binary"]
    least = max([found.get(STRAIGHT, 0), *from_binary])
    return ({STRAIGHT: least} if least else {}) | {
        name: n for name, n in found.items() if name != STRAIGHT
    }


def study(config: Config) -> Path:
    """Run what is missing, then write every table and figure; returns the folder."""
    folder = config.folder
    if config.redraw:
        check_finished(folder)
        draw(folder)
        return folder
    read = functools.partial(load, data_dir=config.data_dir, offline=config.offline)
    names = config.datasets or tuple(PRESETS[config.preset])
    tasks, ending = tasks_of(names, config.data_dir, config.offline)
    folder = Path(f"{folder}{ending}")
    cells = cells_of(config, tasks, outside_of(tasks, read))
    run_all(config, cells, run, "binary", folder)
    write_description(config, NAME, tasks, folder)
    draw(folder)
    return folder


def outside_of(tasks: Iterable[str], read: Callable[[str], Task]) -> dict[str, dict[str, str]]:
    """By data set, the one outside its distribution, where that can be had."""
    found = {}
    for name in (name for name in tasks if name in OUTSIDE):
        try:
            sha256 = read(OUTSIDE[name]).sha256
        except (DataUnavailable, FileNotFoundError):
            continue
        found[name] = {"dataset": OUTSIDE[name], "sha256": sha256}
    return found


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
