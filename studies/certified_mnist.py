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

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from certified_page import draw
from certified_priors import COLOUR, LARGE, TINY, check_listed
from certified_records import write_certificates
from certified_runs import run, splits_of
from common import Places, carry_out

from pbnn.data import Task
from pbnn.networks import SMALL_IMAGES
from pbnn.study import run_study
from pbnn.sweep import Cell, cell_key

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "certified_mnist"
CAPTIONS = {
    "certificate_vs_error": "Each certificate against the test error of the same predictor; below "
    "the line it would be violated on the test set. Stars are published results of real-valued "
    "networks, which charge less.",
    "certificate_vs_prior_split": "Certificates against the share of the points that made the "
    "prior; the thin line holds the other points out and certifies the prior's own best network.",
    "learning_curves": "The training objective, and thin the risk, against epochs; one line a "
    "seed.",
}
"""What its figures show."""

CHOICES = 1000
"""Priors that a reported one may have been chosen from, with the data in sight: at least as many
as are listed in certified_priors.py for its row."""
FEATURES = {
    "network": "random_features",
    "weights": "gaussian",
    "filters": 200,
    "filter_size": 5,
    "pool": 7,
    "power": 0.5,
    "feature_points": 500,
    "prior_share": 0.0,
    "axes": 499,
    "emphases": [0.0, 0.25, 0.5, 0.75],
    "trial_epochs": 2,
    "batch": 500,
    "learning_rate": 0.05,
}
"""Random binary convolutions and a Gaussian read-out, whose prior has one of several scales."""
LEARNED = {"feature_points": 0, "prior_share": 0.5, "re_estimated_on": 20 * 128}
"""Half of the points are the prior's."""
TRAINING = LEARNED | {
    "network": "prior_training",
    "batch": 128,
    "real_rate": 0.003,
    "binary_rate": 0.01,
    "committed": 0.999,
    "shifts": {"rotation": 0.1, "scale": 0.07, "shear": 0.07, "shift": 1 / 28},
}
"""Binary weights and activations, trained straight through on the prior split."""
DIGITS = {"feature_points": 100, "pool": 2, "batch": 50}
"""Features of images of 8x8, for the digits that stand in for data that cannot be had."""
CANONICAL = {
    "mnist": "scaled",
    "fashion_mnist": "none",
    "cifar10": "none",
    "digits": "none",
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "data_free": [
        FEATURES | {"prior_text": "isotropic along axes of 500 unlabelled images set aside"},
        FEATURES
        | {
            "network": "binary_readout",
            "weights": "binary",
            "axes": 150,
            "emphases": [0.0],
            "learning_rate": 0.1,
            "group": 10,
            "passes": 40,
            "prior_text": "uniform signs along axes of 500 unlabelled images set aside",
        },
    ],
    "small_split": [
        FEATURES
        | {
            "feature_points": 0,
            "prior_share": share,
            "prior_text": "posterior of a data-free prior on the prior split",
        }
        for share in (0.01, 0.05, 0.1, 0.25, 0.5)
    ],
    "recursive": [
        FEATURES
        | {
            "network": "recursive_features",
            "emphases": [0.5],
            "shares": [1 / 16, 3 / 16, 1 / 4, 1 / 2],
            "prior_text": "data-free; then the posterior of each part the prior of the next",
        }
    ],
    "learned_50": [
        LEARNED
        | {
            "network": "binary_cnn",
            "weights": "binary",
            "group": 10,
            "members": 16,
            "prior_text": "trained on the prior split alone, augmented",
        },
        FEATURES
        | LEARNED
        | {
            "network": "learned_features",
            "axes": 256,
            "prior_text": "read-out of the binary network, by the bound on the prior split",
        },
    ],
}
"""What a prior may look at, what it is, and the networks that it is tried with."""
QUICK = {"architecture": TINY, "pretraining": 1, "epochs": 4}
FULL = {"architecture": SMALL_IMAGES, "pretraining": 2, "epochs": 15}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "random_features": {"epochs": 5},
        "binary_readout": {"epochs": 5, "passes": 5},
        "recursive_features": {"epochs": 3},
        "learned_features": {"epochs": 3},
        "binary_cnn": {"passes": 1},
        "prior_training": QUICK,
        "prior_training digits": QUICK | {"epochs": 12, "batch": 32},
    },
    "full": {
        "random_features": {"epochs": 20},
        "random_features small_split": {"epochs": 10},
        "binary_readout": {"epochs": 20},
        "recursive_features": {"epochs": 10},
        "learned_features": {"epochs": 10},
        "binary_cnn": {"passes": 20},
        "prior_training": FULL,
        "prior_training mnist": FULL | {"architecture": LARGE, "epochs": 40},
        "prior_training cifar10": FULL | {"architecture": COLOUR},
        "prior_training digits": FULL | {"epochs": 45, "batch": 32},
    },
}
"""Training and draws of each network, of a data set or prior of its own where that is named."""
SHARES = {"quick": (0.0, 0.05, 0.5), "full": (0.0, 0.01, 0.05, 0.1, 0.25, 0.5)}
"""Prior splits of each preset, as shares of the points."""


@dataclass(frozen=True)
class Config(Places):
    """What to certify, on what, and where to write it."""

    preset: Literal["quick", "full"] = "quick"
    """quick: ten minutes, one seed of each; full: the committed report."""
    datasets: tuple[str, ...] = ("mnist", "fashion_mnist")
    """Of mnist, fashion_mnist, cifar10, digits."""
    priors: tuple[str, ...] = tuple(ROWS)
    """Of data_free, small_split, recursive, learned_50."""
    seeds: int | None = None
    """Runs of each row, whose certificates share δ; by default 1 (quick) or 3."""
    delta: float = 0.05
    """Probability that any certificate of a row fails, everything included."""
    out: Path | None = None
    """Output folder; by default reports/certified_mnist, with endings _quick, and _part for other
    data sets, priors, seeds or delta."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("datasets", {*CANONICAL}), ("priors", {*ROWS})):
            if odd := set(getattr(self, name)) - known:
                raise ValueError(f"`{name}` must be among {sorted(known)}, got {sorted(odd)}.")
            if not (got := getattr(self, name)) or len({*got}) < len(got):
                raise ValueError(f"`{name}` must be some, each once, got {got}.")
        if not 0 < self.delta < 1:
            raise ValueError(f"`delta` must lie in (0, 1), got {self.delta}.")

    @property
    def folder(self) -> Path:
        """Where to write: the full preset as it is, is the committed report."""
        usual = Config(preset=self.preset)
        chosen = ("datasets", "priors", "seeds", "delta", "device")
        part = any(getattr(self, name) != getattr(usual, name) for name in chosen)
        ending = ("_quick" if self.preset == "quick" else "") + ("_part" if part else "")
        return self.out or REPORTS / f"{NAME}{ending}"


def cells_of(config: Config, tasks: dict[str, Task]) -> list[Cell]:
    """Every run: all that determines its result, and a key made of it.

    A run with the binary network that the prior split has trained names the key of that training.
    """
    cells = []
    seeds = config.seeds or (1 if config.preset == "quick" else 3)
    preset = PRESETS[config.preset]
    for dataset, task in tasks.items():
        sha256 = {"sha256": task.sha256}
        here = {"dataset": dataset, "canonical": CANONICAL[dataset], "threads": config.threads}
        here |= {"device": torch.device(config.device).type}
        certified = {"classes": int(task.y.max()) + 1, "delta": config.delta, "seeds": seeds}
        certified |= {"choices": CHOICES}
        training: dict[int, Cell] = {}
        if "learned_50" in config.priors:
            cell = TRAINING | preset["prior_training"] | preset.get(f"prior_training {dataset}", {})
            cell |= here | {"splits": splits_of(task, cell).hashes(task)}
            for seed in range(seeds):
                mine = cell | {"seed": seed, "prior_training": None}
                training[seed] = Cell(cell_key(mine, sha256), mine)
        cells += training.values()
        for prior, row in ((name, row) for name in config.priors for row in ROWS[name]):
            if row["prior_share"] not in SHARES[config.preset]:
                continue
            here_too = preset.get(f"{row['network']} {prior}", {})
            cell = row | preset[row["network"]] | here_too | here | certified | {"prior": prior}
            if dataset == "digits":
                cell |= {name: value for name, value in DIGITS.items() if row.get(name)}
            cell |= {"splits": splits_of(task, cell).hashes(task)}
            for seed in range(seeds):
                trained = training[seed] if prior == "learned_50" else None
                mine = cell | {"seed": seed, "prior_training": trained and trained.key}
                check_listed(mine, trained and trained.config)
                cells.append(Cell(cell_key(mine, sha256), mine))
    return cells


def study(config: Config) -> Path:
    """Run what is missing, then write every table and figure; returns the folder."""
    return carry_out(config, NAME, cells_of, run, "prior_training", draw, write_certificates)


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
