"""The priors that a certificate of `certified_mnist.py` may have been chosen from, all paid for."""

from __future__ import annotations

from typing import Any

import listed
from listed import Lists

from pbnn.networks import SMALL_IMAGES

TINY = "16C3-MP2-32C3-MP2-128FC-SM10"
LARGE = "32C5-MP2-64C5-MP2-512FC-SM10"
COLOUR = "32C3-MP2-64C3-MP2-128C3-MP2-256FC-SM10"

# What says which row it is, what a run needs, and what moves the posterior only. Where a run
# chooses among scales of the prior (`emphases`) by certification points, each is counted on top.
FREE = {"dataset", "network", "prior", "prior_share", "feature_points", "prior_text", "weights"}
FREE |= {"classes", "delta", "seeds", "seed", "choices", "threads", "device", "splits"}
FREE |= {"prior_training", "group", "passes", "members", "trial_epochs"}
TRAINING = {"epochs", "batch", "learning_rate"}
FORMS = ("none", "deskewed", "scaled")
FEATURES: Lists = {
    "canonical": FORMS,
    "filters filter_size pool": (
        (100, 5, 4),
        (100, 7, 4),
        (200, 5, 4),
        (200, 5, 7),
        (200, 7, 4),
        (300, 5, 7),
    ),
    "power": (0.5, 1.0),
    "axes": (150, 200, 300, 499),
}
CHOSEN_IN_A_RUN: Lists = {"emphases": ([0.0, 0.25, 0.5, 0.75],)}
GAUSSIAN = FEATURES | CHOSEN_IN_A_RUN
BINARY = FEATURES | {"emphases": ([-0.25], [0.0], [0.25], [0.5], [1.0])}
# What trains a prior shapes it.
READOUT_TRAINED = GAUSSIAN | {
    "epochs batch learning_rate": ((3, 500, 0.05), (5, 500, 0.05), (10, 500, 0.05), (20, 500, 0.05))
}
IN_PARTS = READOUT_TRAINED | {
    "axes": (499,),
    "emphases": ([0.0], [0.25], [0.5], [0.75]),
    "shares": ([1 / 16, 3 / 16, 1 / 4, 1 / 2],),
}
SHIFTS = (
    {"rotation": 0.08, "scale": 0.05, "shear": 0.05, "shift": 1 / 18},
    {"rotation": 0.08, "scale": 0.05, "shear": 0.05, "shift": 1 / 28},
    {"rotation": 0.1, "scale": 0.07, "shear": 0.07, "shift": 1 / 28},
    {"rotation": 0.15, "scale": 0.1, "shear": 0.12, "shift": 1 / 28},
)
DEPLOYED: Lists = {
    "architecture pretraining training_epochs": (
        (TINY, 1, 4),
        (SMALL_IMAGES, 2, 10),
        (SMALL_IMAGES, 2, 15),
        (LARGE, 2, 10),
        (LARGE, 2, 40),
        (COLOUR, 2, 15),
    ),
    "canonical": FORMS,
    "shifts": SHIFTS,
    "committed": (0.975, 0.99, 0.999),
    "binary_rate": (0.003, 0.01),
    "training_batch real_rate re_estimated_on": ((128, 0.003, 20 * 128),),
}
LEARNED_FEATURES = (
    DEPLOYED
    | CHOSEN_IN_A_RUN
    | {
        "filters filter_size pool power axes": ((200, 5, 7, 0.5, 256),),
        "epochs batch learning_rate": ((3, 500, 0.05), (10, 500, 0.05)),
    }
)
LISTS: dict[tuple[str, str], tuple[Lists, set[str]]] = {
    ("data_free", "random_features"): (GAUSSIAN, FREE | TRAINING),
    ("data_free", "binary_readout"): (BINARY, FREE | TRAINING),
    ("small_split", "random_features"): (READOUT_TRAINED, FREE),
    ("recursive", "recursive_features"): (IN_PARTS, FREE),
    ("learned_50", "binary_cnn"): (DEPLOYED, FREE),
    ("learned_50", "learned_features"): (LEARNED_FEATURES, FREE),
}
"""By prior and network: the list, and the fields that are on none."""


def check_listed(cell: dict[str, Any], training: dict[str, Any] | None) -> None:
    """Refuse to certify a prior that the price does not cover, its training included."""
    if cell["dataset"] == "digits":  # They stand in for data that cannot be had.
        return
    lists, free = LISTS[cell["prior"], cell["network"]]
    whole = dict(cell)
    if training is not None:
        own = {"epochs": "training_epochs", "batch": "training_batch"}
        whole = {own.get(name, name): value for name, value in training.items()} | whole
    listed.check_listed(whole, [lists], free)
