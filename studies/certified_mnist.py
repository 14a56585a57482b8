"""Certificates of ten-class networks with binary activations: prior × network × predictor.

Which risk can be promised of a randomised network, of a vote, and of one deployed network, on
MNIST and Fashion-MNIST (CIFAR-10 by flag), when the prior has seen nothing but 500 unlabelled
images, a twentieth of the points, or half of them? Every row's δ covers its data, its draws, its
seeds and the choice of its prior.

    python studies/certified_mnist.py                    # reports/certified_mnist_quick
    python studies/certified_mnist.py --preset full --workers 2
    python studies/certified_mnist.py --preset full --redraw
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from certified_page import draw
from certified_runs import run, splits_of

from pbnn.data import DataUnavailable, Task, embedded_twin, load
from pbnn.files import write_json
from pbnn.networks import SMALL_IMAGES
from pbnn.reporting import write_curves_csv, write_records_csv, write_timings_csv
from pbnn.study import describe, run_study
from pbnn.sweep import Cell, cell_key, run_cells

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "certified_mnist"
FOLDERS = ("data_dir", "offline", "out", "redraw", "workers", "scheduler")

CHOICES = 1000
"""Priors that a reported one may have been chosen from, with the data in sight."""
FEATURES = {
    "network": "random_features",
    "weights": "gaussian",
    "filters": 200,
    "filter_size": 5,
    "pool": 7,
    "power": 0.5,
    "axes": 499,
    "batch": 500,
    "learning_rate": 0.05,
}
"""Random binary convolutions and a Gaussian read-out."""
BINARY = {
    "network": "binary_cnn",
    "weights": "binary",
    "batch": 128,
    "real_rate": 0.003,
    "binary_rate": 0.01,
    "committed": 0.99,
    "re_estimated_on": 20 * 128,
    "shifts": {"rotation": 0.08, "scale": 0.05, "shear": 0.05, "shift": 1 / 18},
    "group": 100,
    "members": 16,
}
"""Binary weights and activations, trained straight through on the prior split."""
CANONICAL = {
    "mnist": "scaled",
    "fashion_mnist": "none",
    "cifar10": "none",
    "digits": "none",
}
PRIORS: dict[str, dict[str, Any]] = {
    "data_free": FEATURES
    | {
        "feature_points": 500,
        "prior_share": 0.0,
        "prior_text": "isotropic; axes and centre of 500 images that are set aside, unlabelled",
    },
    "small_split": FEATURES
    | {
        "feature_points": 0,
        "prior_share": 0.05,
        "prior_text": "posterior of a data-free prior on a twentieth of the points",
    },
    "recursive": FEATURES
    | {
        "network": "recursive_features",
        "feature_points": 500,
        "prior_share": 0.0,
        "shares": [1 / 16, 3 / 16, 1 / 4, 1 / 2],
        "prior_text": "data-free; then the posterior of each part the prior of the next",
    },
    "learned_50": BINARY
    | {
        "feature_points": 0,
        "prior_share": 0.5,
        "prior_text": "trained on half of the points, augmented, without the others",
    },
}
"""What a prior may look at, and what it is."""
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "data_free": {"epochs": 5},
        "small_split": {"epochs": 5},
        "recursive": {"epochs": 3},
        "learned_50": {
            "architecture": "16C3-MP2-32C3-MP2-128FC-SM10",
            "pretraining": 1,
            "epochs": 4,
            "passes": 1,
        },
    },
    "full": {
        "data_free": {"epochs": 20},
        "small_split": {"epochs": 20},
        "recursive": {"epochs": 10},
        "learned_50": {
            "architecture": SMALL_IMAGES,
            "pretraining": 2,
            "epochs": 40,
            "passes": 20,
        },
    },
}
"""Training and draws of each prior."""


@dataclass(frozen=True)
class Config:
    """What to certify, on what, and where to write it."""

    preset: Literal["quick", "full"] = "quick"
    """quick: ten minutes, one seed of each; full: the committed report."""
    datasets: tuple[str, ...] = ("mnist", "fashion_mnist")
    """Of mnist, fashion_mnist, cifar10, digits."""
    priors: tuple[str, ...] = tuple(PRIORS)
    """Of data_free, small_split, recursive, learned_50."""
    seeds: int | None = None
    """Runs of each row, whose certificates share δ; by default 1 (quick) or 3."""
    delta: float = 0.05
    """Probability that any certificate of a row fails, everything included."""
    device: str = "cpu"
    """Where to train."""
    threads: int = 1
    """Of each run on a CPU."""
    workers: int | None = None
    """Run on this many processes of this machine."""
    scheduler: str | None = None
    """Or on the dask cluster with this scheduler: address or scheduler file."""
    data_dir: Path | None = None
    """Folder with mnist/…; by default $PBNN_DATA, then the cache, then a download."""
    offline: bool = False
    """Do not try to download."""
    out: Path | None = None
    """Output folder; by default reports/certified_mnist, with the ending _quick."""
    redraw: bool = False
    """Make tables and figures again from the CSV files."""

    def __post_init__(self) -> None:
        for name, known in (("datasets", {*CANONICAL}), ("priors", {*PRIORS})):
            if odd := set(getattr(self, name)) - known:
                raise ValueError(f"`{name}` must be among {sorted(known)}, got {sorted(odd)}.")
        for name in ("seeds", "threads"):
            if (got := getattr(self, name)) is not None and got < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {got}.")
        if not 0 < self.delta < 1:
            raise ValueError(f"`delta` must lie in (0, 1), got {self.delta}.")

    @property
    def folder(self) -> Path:
        """Where to write: the full preset is the committed report."""
        return self.out or REPORTS / (NAME + ("_quick" if self.preset == "quick" else ""))


def cells_of(config: Config, tasks: dict[str, Task]) -> list[Cell]:
    """Every run: all that determines its result, and a key made of it."""
    cells = []
    seeds = config.seeds or (1 if config.preset == "quick" else 3)
    for dataset, task in tasks.items():
        for prior in config.priors:
            cell = PRIORS[prior] | PRESETS[config.preset][prior]
            cell |= {"dataset": dataset, "prior": prior, "canonical": CANONICAL[dataset]}
            cell |= {"classes": int(task.y.max()) + 1, "delta": config.delta, "seeds": seeds}
            cell |= {"choices": CHOICES, "threads": config.threads}
            cell |= {"device": torch.device(config.device).type}
            cell |= {"splits": splits_of(task, cell).hashes(task)}
            for seed in range(seeds):
                cell = cell | {"seed": seed}
                cells.append(Cell(cell_key(cell, {"sha256": task.sha256}), cell))
    return cells


def study(config: Config) -> Path:
    """Run what is missing, then write every table and figure; returns the folder."""
    folder = config.folder
    if config.redraw:
        draw(folder)
        return folder
    read = functools.partial(load, data_dir=config.data_dir, offline=config.offline)
    try:
        tasks = {name: read(name) for name in config.datasets}
    except DataUnavailable as error:
        print(f"{error}\n\nGoing on with the 8x8 digits of scikit-learn instead. NOT MNIST.\n")
        tasks = {"digits": load(embedded_twin(config.datasets[0]))}
        folder = Path(f"{folder}_digits")
    cells = cells_of(config, tasks)
    print(f"Runs: {len(cells)}, kept one by one in {folder / 'runs'}; interrupt and go on at will.")
    alone = config.workers is None and config.scheduler is None
    one = functools.partial(_run, where=(config.data_dir, config.offline, config.device, alone))
    records = run_cells(
        cells, one, folder / "runs", workers=config.workers, scheduler=config.scheduler
    )
    write_records_csv(records, folder / "records.csv")
    write_curves_csv(records, folder / "curves.csv")
    write_timings_csv(records, folder / "timings.csv")
    certificates = {record["key"]: record["certificates"] for record in records}
    write_json(folder / "certificates.json", {"schema_version": 1} | certificates)
    sources = {name: task.source for name, task in tasks.items()}
    about = describe(config, f"studies/{NAME}.py", FOLDERS, sources=sources)
    write_json(folder / "study.json", about)
    draw(folder)
    return folder


def _run(cell: dict[str, Any], where: tuple[Any, ...]) -> dict[str, Any]:
    return run(cell, *where)


if __name__ == "__main__":
    run_study(study, Config, __doc__)
