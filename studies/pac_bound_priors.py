"""What the networks of `pac_bound_mnist.py` read, and every prior that its certificates pay for."""

from __future__ import annotations

from typing import Any

import listed
from listed import Lists

GRID = ([], [1], [10], [50], [100], [10, 10], [100, 100])
"""Hidden widths of the paper preset."""

LARGE = ("LH", "EO")
"""Endings of the tasks of all ten digits, which are no linear ones."""

# What a network reads. The centre and the scales are those of a feature split of unlabelled
# points that does not count in n; adult's numbers become 0/1 columns too, ads has raw ones.
FEATURE_POINTS = 500
IMAGES = {"inputs": "plain", "centring": "image", "bias": False, "feature_points": FEATURE_POINTS}
MANY = IMAGES | {"inputs": "halved", "centring": "pixel"}
TABLE = {
    "inputs": "binned",
    "levels": 8,
    "power": 0.5,
    "norm": 2.0,
    "bias": True,
    "feature_points": FEATURE_POINTS,
}
BINARY = {
    "inputs": "plain",
    "centring": "none",
    "bias": True,
    "prior_bias": -3.0,
    "feature_points": 0,
}
CONVOLVED = IMAGES | {
    "inputs": "convolved",
    "canonical": "scaled",
    "filters": 300,
    "filter_size": 5,
    "pool": 7,
    "power": 0.5,
    "kernel": 0.5,
    "emphasis": 0.0,
    "prior_scale": 0.0,
}


def inputs_of(dataset: str) -> dict[str, Any]:
    """Inputs of the methods that train from a random prior."""
    if dataset in ("adult", "breast_cancer"):
        return TABLE
    if dataset == "ads":
        return BINARY
    return MANY if dataset.endswith(LARGE) else IMAGES


# Every prior a method's certificate may have been chosen from: the lists that ln(choices) is for.
# Whatever moves the posterior only is free, and named here.
FREE = {"dataset", "method", "seeds", "delta", "threads", "compile", "device", "splits", "choices"}
FREE |= {"draws", "objective", "C", "decay", "epochs", "batch", "learning_rate"}
FREE |= {"kl_warmup", "restarts"}
READ = "inputs centring feature_points bias prior_bias levels power norm"
RANDOM: Lists = {
    "network": ("tree", "chain"),
    "hidden": ([], *([width] for width in range(1, 13)), [50], [100], [10, 10], [100, 100]),
    "prior_scale": (0.0, 1.0),
    READ: (
        ("plain", "image", 100, False, 0.0, None, None, None),
        ("plain", "image", FEATURE_POINTS, False, 0.0, None, None, None),
        ("plain", "pixel", 100, False, 0.0, None, None, None),
        ("plain", "pixel", FEATURE_POINTS, False, 0.0, None, None, None),
        ("halved", "pixel", FEATURE_POINTS, False, 0.0, None, None, None),
        ("standardised", None, FEATURE_POINTS, True, 0.0, None, None, None),
        ("binned", None, FEATURE_POINTS, True, 0.0, 4, 0.5, 1.0),
        ("binned", None, FEATURE_POINTS, True, 0.0, 4, 0.5, 2.0),
        ("binned", None, FEATURE_POINTS, True, 0.0, 8, 0.5, 1.0),
        ("binned", None, FEATURE_POINTS, True, 0.0, 8, 0.5, 2.0),
        ("binned", None, FEATURE_POINTS, True, -1.0, 8, 0.5, 2.0),
    ),
}
CONVOLUTIONS: Lists = {
    "canonical": ("deskewed", "scaled", "scaled small", "scaled large"),
    "filters filter_size pool": (
        *((100, size, pool) for size in (3, 5, 7) for pool in (4, 7)),
        (300, 3, 7),
        (300, 5, 7),
    ),
    "power": (0.5, 1.0),
    "kernel emphasis": (
        (0.0, 0.0),
        (0.5, 0.0),
        (1.5, 0.0),
        (0.5, 0.15),
        (1.0, 0.15),
        (1.5, 0.15),
    ),
    "network hidden": (("tree", []),),
    "prior_scale prior_bias bias": ((0.0, 0.0, False),),
    "inputs centring feature_points": (("convolved", "image", FEATURE_POINTS),),
}
EARLIER_CONVOLUTIONS: Lists = {
    "canonical": ("deskewed", "none"),
    "filters": (50, 100, 200),
    "filter_size": (3, 5, 7),
    "pool": (2, 4),
    "hidden": ([], [1], [8]),
    "centring": ("image", "pixel"),
    "feature_points": (100, FEATURE_POINTS),
    "network power kernel emphasis": (("tree", 1.0, 0.0, 0.0),),
    "inputs prior_scale prior_bias bias": (("convolved", 1.0, 0.0, False),),
}
# A trained prior depends on the arithmetic of its training too.
MACHINE: Lists = {"threads compile device": ((1, False, "cpu"),)}
TRAINED = "prior_share prior_loss prior_decay prior_augmented"
IMAGES_TRAINED: Lists = MACHINE | {
    "hidden": ([100], [300], [500], [1000]),
    "prior_batch": (64, 128, 256, 512),
    "prior_rate": (0.03, 0.1, 0.3),
    "prior_epochs": (10, 12, 20, 25, 30, 40, 60, 100),
    TRAINED: ((0.5, "linear", 0.0, True), (0.5, "log", 0.0, True)),
    "network prior_scale": (("tree", 1.0),),
    READ: (("plain", "pixel", 0, False, 0.0, None, None, None),),
}
TABLE_TRAINED: Lists = MACHINE | {
    "hidden": ([100], [300]),
    "prior_batch": (64, 256),
    "prior_rate": (0.03, 0.1, 0.3),
    "prior_epochs": (10, 20, 40),
    TRAINED: tuple(
        (0.5, loss, decay, False) for loss in ("linear", "log") for decay in (0.0, 1e-5)
    ),
    "network prior_scale": (("tree", 1.0),),
    READ: tuple(("binned", None, 0, True, 0.0, levels, 0.5, 2.0) for levels in (8, 16)),
}
# Each method's lists: a prior must be on one of them, and all their members are counted.
PRIORS: dict[str, tuple[Lists, ...]] = dict.fromkeys(
    ("pbgnet_l", "pbgnet_l_bnd", "elbo", "fixed_c", "pbgnet", "abnet"), (RANDOM,)
) | {"pbgnet_rf": (CONVOLUTIONS, EARLIER_CONVOLUTIONS), "pbgnet_pre": (IMAGES_TRAINED,)}
TABLE_PRIORS = PRIORS | {"pbgnet_pre": (TABLE_TRAINED,)}
# ads has raw columns, and a prior for how its labels lean.
SHORT: Lists = {
    "network hidden": (
        *(("tree", hidden) for hidden in GRID),
        *(("chain", hidden) for hidden in GRID if len(hidden) > 1),
    ),
    "prior_scale": (0.0, 1.0),
    READ: tuple(("plain", "none", 0, True, float(mean), None, None, None) for mean in range(-4, 5)),
}
SHORT_TRAINED: Lists = MACHINE | {
    "hidden": ([100], [300]),
    "prior_batch prior_rate": ((64, 0.1), (64, 0.3)),
    "prior_epochs": (40, 60),
    TRAINED: tuple(
        (share, "linear", decay, False) for share in (0.3, 0.5, 0.6) for decay in (0.0, 1e-5)
    ),
    "network prior_scale": (("tree", 1.0),),
    READ: tuple(("plain", "none", 0, True, mean, None, None, None) for mean in (0.0, -3.0)),
}
LISTS: dict[str, dict[str, tuple[Lists, ...]]] = {
    "adult": TABLE_PRIORS,
    "breast_cancer": TABLE_PRIORS,
    "ads": dict.fromkeys(PRIORS, (SHORT,)) | {"pbgnet_pre": (SHORT_TRAINED,)},
}
"""By data set where they differ from `PRIORS`."""


def check_listed(cell: dict[str, Any]) -> None:
    """Refuse to certify a prior that the price does not cover."""
    listed.check_listed(cell, LISTS.get(cell["dataset"], PRIORS).get(cell["method"], ()), FREE)
