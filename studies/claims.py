"""Claims: paired differences over seeds, with 95% intervals and verdicts; rows of claims.csv."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from scipy import stats
from tabulate import tabulate

COLUMNS = (
    "system", "claim", "dataset", "network", "unit", "effect", "low", "high", "seeds", "verdict",
)  # fmt: skip
MANY = 20
"""Seeds from which on an interval of any width may be inconclusive."""
Claims = Callable[[pd.DataFrame], Iterator[dict[str, Any]]]
"""Rows of one data set and network, of a frame with one row for each run."""


def claims_of(frame: pd.DataFrame, *each: Claims) -> pd.DataFrame:
    """One row for each claim, data set and network; `frame` has one row for each run."""
    rows = [
        {"dataset": dataset, "network": network} | row
        for (dataset, network), group in frame.groupby(["dataset", "network"], sort=False)
        for claims in each
        for row in claims(group)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def chosen_apart(arms: dict[float, pd.DataFrame]) -> tuple[pd.DataFrame, str]:
    """For each seed the run of the arm that is best by validation over the other seeds.

    A network that is lucky on validation images is so on test images, too: chosen by its own
    validation it would be chosen for its luck. Takes two seeds. Also the arms chosen, as text.
    """
    rows, chosen = [], []
    for seed in sorted({*pd.concat(arms.values())["seed"]}):
        others = {
            value: float(runs[runs["seed"] != seed]["validation"].mean())
            for value, runs in arms.items()
        }
        best = max(arms, key=lambda value: others[value])
        rows.append(arms[best][arms[best]["seed"] == seed])
        chosen.append(best)
    return pd.concat(rows), ", ".join(f"{value:g}" for value in sorted({*chosen}))


UNITS = {
    "accuracy": ("points of accuracy", 100.0, 0.5),
    "weight_entropy": ("bit", 1.0, 0.005),
    "flip": ("per cent of the signs", 100.0, 0.5),
    "weight_quantisation_error": ("of the squared norm", 1.0, 0.005),
    "information": ("bit", 1.0, 0.005),
    "information_last": ("bit", 1.0, 0.005),
    "iou": ("points of intersection over union", 100.0, 0.5),
    "probe": ("points of a linear probe's accuracy", 100.0, 0.5),
    "neighbours": ("points of the neighbours' accuracy", 100.0, 0.5),
    "divergence": ("nats", 1.0, 0.005),
    "jaccard": ("of the kept weights", 1.0, 0.005),
    "certificate": ("points of the certified error", 100.0, 0.5),
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


def how_to_read(claims: pd.DataFrame) -> str:
    """What the table of claims says, and what it does not."""
    return (
        "Differences, the first less the second, of runs that share a seed, their start and their "
        "batches; 95% intervals by Student's law, one claim at a time: of seeds, on these test "
        f"images. Of {len(claims)} claims without anything in them, {0.05 * len(claims):.0f} would "
        "be decided by chance."
    )


def claims_table(claims: pd.DataFrame) -> str:
    """Claims with their intervals."""
    rows = [
        [
            row["system"],
            row["claim"],
            f"{row['dataset']}, {row['network']}",
            f"{row['effect']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]",
            row["unit"],
            row["seeds"],
            row["verdict"],
        ]
        for row in claims.to_dict("records")
    ]
    headers = ["system", "claim", "where", "effect", "in", "seeds", "verdict"]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)
