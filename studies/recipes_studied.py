"""The recipes of the study of activation balance: systems, their arms, and how all are trained."""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import Any

from pbnn.binarize import RECIPES, Recipe

replace = dataclasses.replace
SD = replace(RECIPES["sd_bnn"], shift="")

METHODS: dict[str, Recipe | None] = {
    "real": None,
    "binary_net": RECIPES["binary_net"],
    "xnor_net": RECIPES["xnor_net"],
    "bi_real_net": RECIPES["bi_real_net"],
    "xnor_net_long": RECIPES["xnor_net"],
    "bi_real_net_long": RECIPES["bi_real_net"],
    "xnor_net_bias": RECIPES["xnor_net"],
    "xnor_net_moving": RECIPES["xnor_net"],
    "xnor_net_trained": RECIPES["unbalanced"],
    "bi_real_net_trained": replace(RECIPES["bi_real_net"], threshold=0.3, trainable="channel"),
    "ir_net": RECIPES["ir_net"],
    "ir_net_no_libra": replace(RECIPES["ir_net"], weights="sign"),
    "sd_bnn": RECIPES["sd_bnn"],
    "sd_bnn_no_asd": SD,
    "sd_bnn_constant": replace(SD, threshold=-0.5),
    "sd_bnn_centred": replace(RECIPES["sd_bnn"], shift="asd_centred"),
    "react_net": RECIPES["react_net"],
    "react_net_labels": RECIPES["react_net"],
}
"""Systems and their arms (`ABOUT`)."""
MOST_BASES = 9
RATES = (0.0, 0.05, 0.1, 0.2)
"""Of noise, of both signs."""


def noisy(rate: float) -> str:
    """The arm of this rate of noise."""
    return f"noisy_{rate:g}"


def tuned_arms(slow: str = "") -> dict[str, dict[str, Any]]:
    """Arms that go on from the trained base, and how."""
    how = TUNED | {"learning_rate": TUNING[slow]}
    supervised = {noisy(rate): {"noise": rate, "strength": STRENGTH} for rate in RATES}
    arms: dict[str, dict[str, Any]] = {"bi_real_net_tuned": {}, "noisy_off": {}, **supervised}
    return {f"{arm}{slow}": how | more for arm, more in arms.items()}


def bases(weights: int, activations: int) -> str:
    """The arm of so many bases."""
    return f"abc_net_{weights}x{activations}"


def bases_of(arm: str) -> tuple[int, int] | None:
    """M and N of an arm of `bases`; None of another."""
    match = re.fullmatch(r"abc_net_(\d+)x(\d+)", arm)
    return (int(match[1]), int(match[2])) if match else None


TUNING = {"": 0.005, "_slow": 0.001}
"""Peak learning rates of the fine-tuning, by the ending of its arms."""
TUNED: dict[str, Any] = {"after": "bi_real_net", "role": "start", "epochs": 1}
STRENGTH = 0.1
"""Of the supervision: of .01, .1 and 1, by validation images of Fashion-MNIST, seeds 0 and 1."""
METHODS |= {
    arm: RECIPES["bi_real_net" if arm.startswith("bi_real_net") else "noisy_supervision"]
    for slow in TUNING
    for arm in tuned_arms(slow)
}
METHODS |= {
    bases(m, n): replace(RECIPES["abc_net"], weight_bases=m, activation_bases=n)
    for m, n in itertools.product(range(1, MOST_BASES + 1), repeat=2)
}

BASES = {"small_lenet": "xnor_net", "small_resnet": "bi_real_net"}
"""The system whose thresholds are swept, by network."""

NETWORKS_OF: dict[str, dict[str, dict[str, Any]]] = {
    "small_lenet": {
        "real": {},
        "binary_net": {},
        "xnor_net_bias": {"norm_bias": -0.4},
        "xnor_net_moving": {"frozen_from": 1.0},
        "xnor_net_trained": {},
        "ir_net": {},
        "ir_net_no_libra": {},
        "sd_bnn": {},
        "sd_bnn_no_asd": {},
        "sd_bnn_constant": {},
        "sd_bnn_centred": {},
    },
    "small_resnet": {
        "real": {},
        "bi_real_net_trained": {},
        "react_net": {"after": "real", "role": "teacher"},
        "react_net_labels": {},
        **tuned_arms(),
        **tuned_arms("_slow"),
    },
}
"""Other systems on each network, and what else is other than usual: `after` is the arm whose
network of the same seed is the start, or the teacher."""
ABOUT = {
    "_long": "at the full budget",
    "_bias": "biases of batch normalisation start at −0.4, instead of a threshold of 0.4",
    "_moving": "batch statistics move to the end of the training",
    "_trained": "a trained threshold a channel, from 0.3",
    "_no_libra": "plain signs of weights",
    "_no_asd": "no shift",
    "_constant": "a shift of +0.5",
    "_centred": "the shift 2σ − 1",
    "_labels": "trained by the labels, where react_net is trained by the probabilities of `real`",
    "abc_net_MxN": "M bases of weights and N of activations, starting at the trained `real`",
    "_tuned": f"trained for {TUNED['epochs']} epoch more, starting at the network trained at "
    f"threshold 0, with a peak learning rate of {TUNING['']:g}",
    "noisy_ρ": f"the same by a learned mapping of the weights, supervised at strength {STRENGTH:g} "
    "and noise rate ρ of both signs; noisy_off: by nothing",
    "_slow": f"at a learning rate of {TUNING['_slow']:g}",
}
"""What the arms are, by names or their endings."""
AXES = {"small_lenet": {"after": "real", "role": "start"}}
"""Networks whose bases are an axis of the study, and how they are trained."""
KEPT = {"real", *BASES.values()}
"""Arms whose networks are kept for those that come after them."""

SHARED: dict[str, Any] = {
    "batch": 128,
    "learning_rate": 0.02,
    "optimiser": "adam",
    "weight_decay": 0.0,
    "images": 0,
    "frozen_from": 0.7,
}
EPOCHS = {"mnist": 2, "fashion_mnist": 3, "fashion_mnist small_resnet": 4, "digits": 20}
"""Of a data set, or of a network on it; else 3. Chosen on validation images, so that the unmodified
base comes within a point of its accuracy at the full budget."""
CHECK: dict[str, dict[str, Any]] = {"full": {"epochs": 15, "seeds": 1}, "quick": {}}
"""The full budget, at which the unmodified base is trained to compare."""


def budget(preset: str, dataset: str, network: str) -> dict[str, Any]:
    """How every network of a panel is trained."""
    if preset == "quick":
        return SHARED | {"epochs": 1, "images": 10_000}
    return SHARED | {"epochs": EPOCHS.get(f"{dataset} {network}", EPOCHS.get(dataset, 3))}


def recipe_of(recipe: Recipe | None, threshold: float) -> Recipe | None:
    """The recipe with a threshold, where it has none of its own."""
    if recipe is None or recipe.threshold or not threshold:
        return recipe
    return replace(recipe, threshold=threshold)
