"""Tables, claims and figures of the study of self-supervised binary networks, from CSV files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from claims import claim, claims_of, claims_table, how_to_read, interval
from common import write_tables
from matplotlib.figure import Figure
from self_supervised_arms import ARMS, HELD_OUT
from tabulate import tabulate

from pbnn.files import read_json, write_atomic
from pbnn.reporting import curves_from_csv, records_from_csv
from pbnn.reporting.drawing import fit, label_rows, legend, look_of, make_panels, save
from pbnn.study import SCHEMA_VERSION

SYSTEM = "S2-BNN"
MEASURES = {
    "probe": "linear probe",
    "neighbours": "neighbours",
    "validation": "linear probe, validation",
    "accuracy": "own scores",
    "divergence": "nats from the teacher",
    "seconds": "seconds",
}
"""Columns of the table."""
ABOUT = {
    "teacher": "real-valued, by contrast",
    "distil": "binary, by the teacher's embeddings",
    "distil_contrast": "binary, by the teacher's embeddings and by contrast, 1:1",
    "contrast": "binary, by contrast",
    "supervised": "binary, by labels, at the views and the rate that suit contrast",
    "supervised_plain": "binary, by labels, of the images as they are",
    "untrained": "binary, at its start, with the batch statistics of the images",
}
"""What the arms are."""


def draw(folder: Path) -> None:
    """Write table.csv, claims.csv, self_supervised.md and the figures of a finished study."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    records = records_from_csv(folder / "records.csv")
    frame = pd.DataFrame([{"key": r["key"]} | r["config"] | r["measures"] for r in records])
    times = pd.read_csv(folder / "timings.csv").set_index("key")["seconds.training"]
    frame["seconds"] = frame["key"].map(times)
    curves = curves_from_csv(folder / "curves.csv")
    claims, rows = claims_of(frame, s2_bnn), table_of(frame)
    write_tables(folder, table=rows, claims=claims)
    page = page_of(about, frame, rows, claims)
    write_atomic(folder / "self_supervised.md", page)
    save(lambda: probe_figure(frame), folder / "probes")
    save(lambda: divergence_figure(curves), folder / "divergence")
    print(page)


def s2_bnn(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Shen et al. (2021): distillation without contrast is best, and needs no labels."""
    arms = {str(method): runs for method, runs in group.groupby("method")}
    if not ARMS.keys() <= arms.keys():
        return
    distil = arms["distil"]
    for measure, said in (("probe", "linear probe"), ("neighbours", "neighbours")):
        text = f"distillation beats contrast alone ({said})"
        yield claim(SYSTEM, text, distil, arms["contrast"], measure)
    text = "distillation alone beats distillation and contrast (linear probe)"
    yield claim(SYSTEM, text, distil, arms["distil_contrast"], "probe")
    for arm, said in (("contrast", "contrast alone"), ("distil_contrast", "with contrast")):
        text = f"distillation, which minimises it, ends closer to the teacher than {said}"
        yield claim(SYSTEM, text, distil, arms[arm], "divergence", lower=True)
    text = "distillation beats untrained features (linear probe)"
    yield claim(SYSTEM, text, distil, arms["untrained"], "probe")
    for twin, how in (("supervised", "on the same views"), ("supervised_plain", "without views")):
        text = f"the supervised twin, {how}, beats distillation (linear probe)"
        yield claim(SYSTEM, text, arms[twin], distil, "probe")


def table_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds of every measure."""
    rows = []
    for (dataset, network, method), group in frame.groupby(
        ["dataset", "network", "method"], sort=False
    ):
        first = group.iloc[0]
        row = {"dataset": dataset, "network": network, "method": method, "seeds": len(group)}
        row |= {name: first[name] for name in ("training_images", "epochs", "steps")}
        for name in MEASURES:
            values = group[name].astype(float)
            row |= {name: values.mean(), f"{name}_std": values.std(ddof=1)}
        rows.append(row)
    return pd.DataFrame(rows)


def page_of(
    about: dict[str, Any], frame: pd.DataFrame, rows: pd.DataFrame, claims: pd.DataFrame
) -> str:
    """The page for people."""
    first = frame[frame["method"] == "distil"].iloc[0]
    arms = "; ".join(f"`{name}` {text}" for name, text in ABOUT.items())
    parts = [
        "# Binary networks that learn without labels\n",
        f"`{about['command']}`, {about['hardware']['cpu']}, {first['threads']} thread(s) a run. "
        "What do the features of a binary network know if it learns from a real-valued teacher "
        "that has never seen a label, and what if it learns by contrast of its own views? "
        f"Arms: {arms}.\n",
        "All students of a seed start at the same weights and take the same number of steps, of "
        f"the same batches of {first['batch']} images; views are made by the same rule "
        f"(`{first['views']}`). Where there is contrast, each step passes two views instead of one "
        "(and the teacher's pass comes with distillation): the seconds say what that costs. Inputs "
        f"of layers are signs from the start, weights from {100 * first['both_from']:.0f}% of the "
        "steps on; the first and the last layer are real. Embeddings are of length 1 in "
        f"{first['dim']} dimensions, the temperature is {first['temperature']:g}.\n",
        "A sixth of the training images is for choices, as of views and learning rates "
        f"({first['learning_rate']:g} for the students); the test images are used once, for these "
        "figures. Probes are of the features before the head, learned from "
        f"{min(first['labelled'], first['training_images'])} training images with labels: a "
        "logistic regression, and the 20 nearest by angle. The distance from the teacher is a "
        f"Kullback-Leibler divergence of softened embeddings, of one view of at most {HELD_OUT} "
        "validation images, coordinate by coordinate: nothing makes a student that learns by "
        "contrast alone choose the teacher's coordinates, so its distance says little of its "
        "features. The curves leap where weights become signs. Accuracies in per cent, "
        "mean ± standard deviation over seeds; seconds of training.\n",
    ]
    for (dataset, network), group in rows.groupby(["dataset", "network"], sort=False):
        parts += [f"## {dataset}, {network}\n", f"{about['sources'][dataset]}.\n"]
        parts.append(arms_table(group) + "\n")
    parts += [
        "## Claims\n",
        how_to_read(claims) + "\n",
        claims_table(claims) + "\n",
    ]
    return "\n".join(parts)


def arms_table(group: pd.DataFrame) -> str:
    """What each arm's features know."""
    rows = []
    for row in group.to_dict("records"):
        cells = [shown(row, name) for name in MEASURES]
        rows.append([row["method"], row["seeds"], row["training_images"], row["steps"], *cells])
    headers = ["", "seeds", "images", "steps", *MEASURES.values()]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


FORMATS = {"divergence": (1, ".4f"), "seconds": (1, ".0f")}


def shown(row: dict[str, Any], name: str) -> str:
    """Mean ± standard deviation; nothing where there is nothing."""
    scale, form = FORMATS.get(name, (100, ".2f"))
    value, spread = (scale * row[each] for each in (name, f"{name}_std"))
    if pd.isna(value):
        return ""
    return f"{value:{form}}" + ("" if pd.isna(spread) else f" ± {spread:{form}}")


def probe_figure(frame: pd.DataFrame) -> Figure:
    """Accuracy of both probes by arm, with 95% intervals over seeds."""
    figure, (row,) = make_panels(2, [1.0], height=2.4)
    order = list(ARMS)
    for axes, name in zip(row, ("probe", "neighbours"), strict=True):
        for place, arm in enumerate(order):
            mean, half = interval(100 * frame[frame["method"] == arm][name])
            bar = 0.0 if half == float("inf") else half
            look = look_of(order, arm)
            axes.errorbar([place], [mean], yerr=[bar], capsize=2, linestyle="none", **look)
        axes.set_title(MEASURES[name])
        axes.set_xticks(range(len(order)), order, rotation=40, ha="right")
    label_rows(row, "test accuracy, %")
    return figure


def divergence_figure(curves: list[dict[str, Any]]) -> Figure:
    """The students' distance from the teacher in the course of the training, mean over seeds."""
    points = pd.DataFrame(
        [
            {"method": curve["config"]["method"]} | point
            for curve in curves
            for point in curve["curve"]
            if point["figure"] == "divergence"
        ]
    )
    order = list(ARMS)
    figure, ((axes,),) = make_panels(1, [1.0], height=2.4)
    present = [arm for arm in order if (points["method"] == arm).any()]
    for arm in present:
        means = points[points["method"] == arm].groupby("x")["y"].mean()
        axes.plot(means.index, means, linewidth=0.9, **look_of(order, arm))
    fit(axes, "y", [float(value) for line in axes.lines for value in line.get_ydata()])
    axes.set_xticks(range(1, int(points["x"].max()) + 1))
    axes.set_xlabel("epoch")
    axes.set_ylabel("nats from the teacher, held out")
    legend(figure, present, order, [], 1)
    return figure
