"""Does a contrast with real-valued features help a binary network? CMIM on several binarisers.

Trains binary networks with and without the contrastive loss of CMIM, from the same starts and on
the same batches, and measures the information that their signs have about the class, in bits, and
their accuracy; and the same for telling the pixels of items from those of the background. The pair
contrasted is a layer's signs and its own pre-activations ("own", the paper's), or the features
before the scores and those of a trained real network ("teacher", as released). Weights of the
contrast were chosen on validation images of seeds 0 to 2, that are in no table; the test images
are used once. Differences are paired by seed, with 95% intervals.

``python studies/contrastive_binarization.py --workers 2`` writes reports/contrastive_binarization:
table.csv, the claims with their verdicts in claims.csv, contrast.md, what a contrast costs in
costs.csv, and two figures. ``--preset full --device cuda`` is CIFAR-10. Interrupt it at will: it
goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from balance_runs import splits_of
from common import Places, carry_out
from contrastive_costs import write_costs
from contrastive_page import draw
from contrastive_runs import DENSE, run

from pbnn.binarize import RECIPES
from pbnn.data import Task
from pbnn.study import run_study
from pbnn.sweep import Cell, cell_key

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "contrastive_binarization"
CAPTIONS = {
    "gains": "What each contrast adds to the information that the last layer's signs have about "
    "the class, and to accuracy or intersection over union: mean and 95% interval of differences "
    "paired by seed.",
    "costs": "Time of a training step and megabytes against the number of samples, for each kind "
    "of contrast.",
}
"""What its figures show."""

OWN = {"pair": "in_network", "count": None, "strength": 0.01, "train_heads": True}
TEACHER = {"pair": "teacher", "count": None, "strength": 1.0, "train_heads": False}
PAIRS: dict[str, Any] = {"": None, "_own": OWN, "_teacher": TEACHER}
VARIANTS: dict[str, Any] = PAIRS | {
    "_paper": OWN | {"strength": 3.2},
    "_any": TEACHER | {"rule": "any"},
    "_heads": TEACHER | {"train_heads": True},
    "_memory": TEACHER | {"count": 4096},
    "_released": TEACHER | {"count": 4096, "strength": 3.2},
}
PIXELS: dict[str, Any] = {
    "": None,
    "_own": OWN | {"positions": 8, "strength": 0.003},
    "_teacher": TEACHER | {"positions": 8, "strength": 0.03},
}
"""Arms, by the endings of their names: what is contrasted, and how much it weighs. Of classes .01
to 1 (own) and .1 to 3.2 (teacher) were tried, of pixels .003 to 1, with heads trained and not."""

SHARED: dict[str, Any] = {
    "batch": 128,
    "learning_rate": 0.02,
    "optimiser": "adam",
    "weight_decay": 0.0,
    "frozen_from": 0.7,
    "norm_bias": 0.0,
}
FEW = {"images": 6000, "epochs": 15}
SCENES = {"batch": 64, "learning_rate": 0.01, "epochs": 2}
CIFAR = {"images": 50_000, "epochs": 100, "augmentation": "crop", "learning_rate": 0.01}

Panel = tuple[dict[str, Any], dict[str, dict[str, Any]]]
"""Of a network: how it is trained, and by recipe the arms."""
NETWORKS_OF: dict[str, dict[str, Panel]] = {
    "quick": {
        "small_lenet": (FEW, {"binary_net": PAIRS, "xnor_net": VARIANTS, "ir_net": PAIRS}),
        "small_resnet": (FEW, {"bi_real_net": PAIRS}),
        DENSE: (SCENES | {"scenes": (8000, 1000, 2000)}, {"xnor_net": PIXELS}),
    },
    "full": {
        "vgg_small": (CIFAR, {"binary_net": PAIRS, "xnor_net": VARIANTS, "ir_net": PAIRS}),
        "resnet18": (CIFAR, {"bi_real_net": PAIRS}),
    },
}
DATASETS = {"quick": ("fashion_mnist",), "full": ("cifar10",)}
ALONE = {"after": None}
FIRST = 10
"""The first seed: those before served to choose."""


@dataclass(frozen=True)
class Config(Places):
    """What to train, how often, and where to write it."""

    preset: Literal["quick", "full"] = "quick"
    """quick: Fashion-MNIST, under ten minutes on two cores; full: CIFAR-10, for a GPU."""
    variants: bool = False
    """Also arms that change one thing of CMIM, on XNOR-Net: three minutes more."""
    seeds: int = 3
    """Runs of each row."""
    first: int = FIRST
    """The first seed; those before 10 served to choose."""
    out: Path | None = None
    """Output folder; by default reports/contrastive_binarization, with _full for that preset."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first < 0:
            raise ValueError(f"`first` must be a non-negative integer, got {self.first}.")

    @property
    def datasets(self) -> tuple[str, ...]:
        """What it is about."""
        return DATASETS[self.preset]

    @property
    def folder(self) -> Path:
        """Where to write."""
        return self.out or REPORTS / f"{NAME}{'_full' if self.preset == 'full' else ''}"


def arms_of(
    recipes: dict[str, dict[str, Any]], samples: int, variants: bool = True
) -> list[dict[str, Any]]:
    """Recipes without a contrast and with each one; of few samples a memory draws fewer."""
    arms = []
    for recipe, of in recipes.items():
        for ending in of if variants else PAIRS:
            how = of[ending]
            contrast = how and how | {"count": how["count"] and min(how["count"], samples // 2)}
            arm = {"method": f"{recipe}{ending}", "contrast": contrast}
            arms.append(arm | {"recipe": RECIPES[recipe].to_dict()})
    return arms


def cells_of(config: Config, tasks: dict[str, Task]) -> list[Cell]:
    """Every run: all that determines its result, and a key made of it."""
    cells = []
    for dataset, task in tasks.items():

        def cell(about: dict[str, Any], task: Task = task) -> Cell:
            return Cell(cell_key(about, {"sha256": task.sha256}), about)

        parts = splits_of(task)
        shared = SHARED | {"dataset": dataset, "threads": config.threads, "device": config.device}
        shared |= {"splits": parts.hashes(task)}
        for network, (how, recipes) in NETWORKS_OF[config.preset].items():
            arms = arms_of(recipes, min(parts.n, how.get("images", parts.n)), config.variants)
            for seed in range(config.first, config.first + config.seeds):
                base = shared | how | {"network": network, "seed": seed}
                real = cell(base | {"method": "real", "recipe": None, "contrast": None} | ALONE)
                cells.append(real)
                for arm in arms:
                    taught = arm["contrast"] and arm["contrast"]["pair"] == "teacher"
                    cells.append(cell(base | arm | ({"after": real.key} if taught else ALONE)))
    return cells


def study(config: Config) -> Path:
    """Run what is missing, then write every table and figure; returns the folder."""
    return carry_out(config, NAME, cells_of, run, "after", draw, write_costs)


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
