"""The claims of the papers, as paired differences over seeds with 95% intervals and verdicts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from recipes_studied import BASES, RATES, bases, noisy
from scipy import stats

COLUMNS = (
    "system", "claim", "dataset", "network", "unit", "effect", "low", "high", "seeds", "verdict",
)  # fmt: skip
MANY = 20
"""Seeds from which on an interval of any width may be inconclusive."""
RUN = ["dataset", "network", "method", "threshold"]


def claims_of(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each claim, data set and network; `frame` has one row for each run."""
    rows = [
        {"dataset": dataset, "network": network} | row
        for (dataset, network), group in frame.groupby(["dataset", "network"], sort=False)
        for claims in (unbalanced, libra, self_distribution, several_bases, supervised, reactive)
        for row in claims(group)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def unbalanced(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Kim et al. (2021): the threshold with the best validation accuracy, against 0."""
    base = BASES[group["network"].iloc[0]]
    swept = group[group["method"] == base]
    balanced = swept[swept["threshold"] == 0]
    others = swept[swept["threshold"] != 0]
    if len(others):
        validated = others.groupby("threshold")["validation"].mean()
        best = float(validated.idxmax())
        chosen = others[others["threshold"] == best]
        share = chosen["share"].mean()
        yield claim(
            "unbalanced",
            f"{base}: threshold {best:+g}, best by validation (share of +1 {share:.2f}), beats 0",
            chosen, balanced, "accuracy",
        )  # fmt: skip
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
    """Lin et al. (2017): more bases of the weights, and of the activations, are more accurate."""
    runs = group[group["method"].str.startswith("abc_net_")]
    sizes = sorted({*runs["method"].str.removeprefix("abc_net_").str.split("x").explode()}, key=int)
    for fewer, more in itertools.pairwise(sizes):
        for other in sizes:
            for name, kind, arms in (
                ("M", "N", [bases(int(m), int(other)) for m in (more, fewer)]),
                ("N", "M", [bases(int(other), int(n)) for n in (more, fewer)]),
            ):
                ours, theirs = (runs[runs["method"] == arm] for arm in arms)
                text = f"{name} = {more} beats {name} = {fewer}, at {kind} = {other}"
                yield claim("ABC-Net", text, ours, theirs, "accuracy")


def supervised(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Han et al. (2020): a mapping supervised by noisy signs against plain fine-tuning."""
    base = BASES[group["network"].iloc[0]]
    plain, free = (group[group["method"] == m] for m in (f"{base}_tuned", "noisy_off"))
    arms = {rate: group[group["method"] == noisy(rate)] for rate in RATES}
    if not len(plain) or not all(map(len, arms.values())):
        return
    system = "noisy supervision"
    for rate, arm in arms.items():
        text = f"rate {rate:g}: fewer signs of weights flip than in plain fine-tuning"
        yield claim(system, text, arm, plain, "flip", lower=True)
    for rate, arm in arms.items():
        yield claim(system, f"rate {rate:g} beats plain fine-tuning", arm, plain, "accuracy")
    best = max(RATES[1:], key=lambda rate: float(arms[rate]["validation"].mean()))
    text = f"rate {best:g}, best by validation, beats rate 0"
    yield claim(system, text, arms[best], arms[0.0], "accuracy")
    if len(free):
        text = "the mapping without supervision: fewer signs flip than in plain fine-tuning"
        yield claim(system, text, free, plain, "flip", lower=True)
        text = "the mapping without supervision beats plain fine-tuning"
        yield claim(system, text, free, plain, "accuracy")


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


UNITS = {
    "accuracy": ("points of accuracy", 100.0, 0.5),
    "weight_entropy": ("bit", 1.0, 0.005),
    "flip": ("per cent of the signs", 100.0, 0.5),
    "weight_quantisation_error": ("of the squared norm", 1.0, 0.005),
}
"""Unit of a measure, the factor to it, and half the widest interval that may be inconclusive."""


def claim(
    system: str,
    text: str,
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    measure: str,
    *,
    lower: bool = False,
    same: bool = False,
) -> dict[str, Any]:
    """A row: the mean difference of runs that share a seed, its interval, and what it says.

    Accuracies are the `same` within half a point, or within a tenth of the error if that is less.
    """
    unit, scale, narrow = UNITS[measure]
    pair = [frame.set_index("seed")[measure] for frame in (ours, theirs)]
    differences = scale * (pair[0] - pair[1]).dropna()
    effect, half = interval(differences)
    row = {"system": system, "claim": text, "unit": unit, "effect": effect, "low": effect - half}
    row |= {"high": effect + half, "seeds": len(differences)}
    if same:
        margin = min(narrow, scale * (1 - float(pair[1].mean())) / 10)
        row["claim"] += f", to {margin:.2f}"
        return row | {"verdict": verdict_of_sameness(row, margin, narrow)}
    return row | {"verdict": verdict_of_gain(row, -1 if lower else 1, narrow)}


def interval(values: pd.Series) -> tuple[float, float]:
    """Mean, and half the width of its 95% interval by Student's law; infinite for one value."""
    if len(values) < 2:
        return float(values.mean()), math.inf
    error = values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(stats.t.ppf(0.975, len(values) - 1) * error)


def verdict_of_gain(row: dict[str, Any], sign: int, narrow: float) -> str:
    """Of a claim that something is larger (+1) or smaller (−1)."""
    if sign * row["low"] > 0 and sign * row["high"] > 0:
        return "reproduced"
    if sign * row["low"] < 0 and sign * row["high"] < 0:
        return "not reproduced"
    return undecided(row, narrow)


def verdict_of_sameness(row: dict[str, Any], margin: float, narrow: float) -> str:
    """Of a claim that there is no difference of more than a margin."""
    if max(abs(row["low"]), abs(row["high"])) <= margin:
        return "reproduced"
    if row["low"] > margin or row["high"] < -margin:
        return "not reproduced"
    return undecided(row, narrow)


def undecided(row: dict[str, Any], narrow: float) -> str:
    """Inconclusive, if that can be said of so wide an interval; else more seeds are needed."""
    sound = row["high"] - row["low"] <= 2 * narrow or row["seeds"] >= MANY
    return "inconclusive" if sound else "needs more seeds"
