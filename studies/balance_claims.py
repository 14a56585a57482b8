"""The claims of the papers, as paired differences over seeds with 95% intervals and verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pandas as pd
from claims import chosen_apart, claim
from recipes_studied import BASES, RATES, TUNING, bases_of, noisy

RUN = ["dataset", "network", "method", "threshold"]


def unbalanced(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Kim et al. (2021): the threshold with the best validation accuracy, against 0."""
    base = BASES[group["network"].iloc[0]]
    swept = group[group["method"] == base]
    balanced = swept[swept["threshold"] == 0]
    others = swept[swept["threshold"] != 0]
    if others["seed"].nunique() > 1:
        chosen, best = chosen_apart({float(th): runs for th, runs in others.groupby("threshold")})
        text = (
            f"{base}: the threshold that is best on validation images of the other seeds ({best})"
        )
        yield claim("unbalanced", f"{text} beats 0", chosen, balanced, "accuracy")
    if len(trained := group[group["method"] == f"{base}_trained"]):
        text = f"{base}: thresholds trained by channel from 0.3 beat 0"
        yield claim("unbalanced", text, trained, balanced, "accuracy")
    if len(shifted := group[group["method"] == f"{base}_bias"]):
        start = -shifted["norm_bias"].iloc[0]
        same = swept[swept["threshold"] == start]
        if len(same):
            text = f"{base}: threshold {start:g} is the same as biases that start at {-start:g}"
            yield claim("unbalanced", text, shifted, same, "accuracy", same=True)


def libra(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Qin et al. (2020): balanced weights against plain signs."""
    balanced, plain = (group[group["method"] == m] for m in ("ir_net", "ir_net_no_libra"))
    if len(balanced) and len(plain):
        text = "Libra-PB has a higher entropy of weight signs than plain signs, after training"
        yield claim("IR-Net", text, balanced, plain, "weight_entropy")
        text = (
            "Libra-PB has a lower quantisation error than plain signs, after training, each of "
            "what it rounds, at the best scale"
        )
        yield claim("IR-Net", text, balanced, plain, "weight_quantisation_error", lower=True)
        yield claim("IR-Net", "Libra-PB beats plain signs", balanced, plain, "accuracy")


def self_distribution(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Xue et al. (2021): the shift by ASD against none, a constant one, and a centred one."""
    arms = {
        name: group[group["method"] == f"sd_bnn{ending}"]
        for name, ending in {
            "asd": "", "none": "_no_asd", "constant": "_constant", "centred": "_centred",
        }.items()
    }  # fmt: skip
    if not all(map(len, arms.values())):
        return
    yield claim("SD-BNN", "ASD beats no shift", arms["asd"], arms["none"], "accuracy")
    text = "a constant shift of +0.5 beats no shift"
    yield claim("SD-BNN", text, arms["constant"], arms["none"], "accuracy")
    text = "ASD does what a constant shift of +0.5 does"
    yield claim("SD-BNN", text, arms["asd"], arms["constant"], "accuracy", same=True)
    text = "ASD beats its centred variant, 2σ − 1"
    yield claim("SD-BNN", text, arms["asd"], arms["centred"], "accuracy")


def several_bases(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Lin et al. (2017): more bases of the weights, and of the activations, are more accurate.

    The mean of a seed's runs over the other axis.
    """
    sizes = group["method"].map(bases_of)
    runs = group[sizes.notna()].assign(M=sizes.dropna().str[0], N=sizes.dropna().str[1])
    if not len(runs):
        return
    for axis, other in (("M", "N"), ("N", "M")):
        means = runs.groupby([axis, "seed"])["accuracy"].mean().reset_index()
        listed = ", ".join(str(size) for size in sorted({*runs[other]}))
        for fewer, more in itertools.pairwise(sorted({*runs[axis]})):
            text = f"{axis} = {more} beats {axis} = {fewer}, mean over {other} = {listed}"
            ours, theirs = (means[means[axis] == size] for size in (more, fewer))
            yield claim("ABC-Net", text, ours, theirs, "accuracy")


def supervised(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Han et al. (2020): a mapping supervised by noisy signs against plain fine-tuning."""
    base = BASES[group["network"].iloc[0]]
    arms = {method: runs for method, runs in group.groupby("method")}
    for slow, learning_rate in TUNING.items():
        if not all(f"{arm}{slow}" in arms for arm in (f"{base}_tuned", "noisy_off", noisy(0.0))):
            continue
        plain, free = arms[f"{base}_tuned{slow}"], arms[f"noisy_off{slow}"]
        rates = {rate: arms[f"{noisy(rate)}{slow}"] for rate in RATES}
        system, at = "noisy supervision", f"learning rate {learning_rate:g}, "
        for name, ours in [*((f"rate {r:g}", runs) for r, runs in rates.items()),
                           ("the mapping without supervision", free)]:  # fmt: skip
            text = f"{at}{name}: fewer signs of weights flip than in plain fine-tuning"
            yield claim(system, text, ours, plain, "flip", lower=True)
            yield claim(system, f"{at}{name} beats plain fine-tuning", ours, plain, "accuracy")
        text = f"{at}rate 0: fewer signs of weights flip than by the mapping without supervision"
        yield claim(system, text, rates[0.0], free, "flip", lower=True)
        text = f"{at}rate 0 beats the mapping without supervision"
        yield claim(system, text, rates[0.0], free, "accuracy")
        if plain["seed"].nunique() > 1:
            chosen, best = chosen_apart({rate: rates[rate] for rate in RATES[1:]})
            text = f"{at}the rate that is best on validation images of the other seeds ({best})"
            yield claim(system, f"{text} beats rate 0", chosen, rates[0.0], "accuracy")


def reactive(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Liu et al. (2020): RSign, RPReLU and a teacher, on a Bi-Real-Net."""
    plain = group[(group["method"] == "bi_real_net") & (group["threshold"] == 0)]
    taught, labelled = (group[group["method"] == m] for m in ("react_net", "react_net_labels"))
    if not all(map(len, (plain, taught, labelled))):
        return
    yield claim("ReActNet", "ReActNet beats Bi-Real-Net", taught, plain, "accuracy")
    text = "RSign and RPReLU, trained by labels, beat Bi-Real-Net"
    yield claim("ReActNet", text, labelled, plain, "accuracy")
    text = "the distributional loss beats labels"
    yield claim("ReActNet", text, taught, labelled, "accuracy")


CLAIMS = (unbalanced, libra, self_distribution, several_bases, supervised, reactive)
"""Of each data set and network."""
