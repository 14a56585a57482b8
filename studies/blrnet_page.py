"""Table, page and figures of the study of BLRNets, from its CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from pbnn.files import read_json, write_atomic
from pbnn.reporting import curves_from_csv, records_from_csv
from pbnn.reporting.drawing import GREY, label_rows, legend, look_of, make_panels, save
from pbnn.study import SCHEMA_VERSION

COLUMNS = {
    "propagated": "propagated",
    "mode_running": "mode, running statistics",
    "mode": "mode",
    "ternary": "ternary",
    "single": "one draw",
    "ensemble_2": "2 draws",
    "ensemble_5": "5 draws",
    "ensemble_16": "16 draws",
}
"""Errors shown, by measure."""

PUBLISHED: dict[str, list[tuple[str, dict[str, float]]]] = {
    "mnist": [
        ("Binarized NN", {"mode": 99.17}),
        ("PBNet-MAP BCE", {"propagated": 99.35, "mode": 99.13}),
        ("PBNet-S-MAP BCE", {"propagated": 99.26, "mode": 99.22}),
        (
            "PBNet-S ensembles",
            {"ternary": 99.26, "ensemble_2": 99.25, "ensemble_5": 99.29, "ensemble_16": 99.30},
        ),
        ("FPNet", {"propagated": 99.48}),
    ],
    "cifar10": [
        ("Binarized NN", {"mode": 88.17}),
        ("PBNet-MAP BCE", {"propagated": 88.24, "mode": 79.98}),
        ("PBNet-S-MAP BCE", {"propagated": 89.58, "mode": 89.10}),
        (
            "PBNet-S ensembles",
            {"ternary": 89.70, "ensemble_2": 89.75, "ensemble_5": 90.75, "ensemble_16": 91.28},
        ),
        ("FPNet", {"propagated": 92.45}),
    ],
}
"""Test accuracy in per cent of Peters and Welling (2018), https://arxiv.org/abs/1809.03368."""

SCORES = ("softmax", "entropy", "variance")
ALPHAS = ("0", "0.01", "0.05", "0.2")


def draw(folder: Path) -> None:
    """Write table.csv, accuracy.md and the figures of a finished study."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    records = records_from_csv(folder / "records.csv")
    curves = curves_from_csv(folder / "curves.csv")
    frame = pd.DataFrame([r["config"] | r["measures"] for r in records])
    rows = table_rows(frame)
    write_atomic(folder / "table.csv", pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    page = page_of(about, frame)
    write_atomic(folder / "accuracy.md", page)
    save(lambda: coverage_figure(curves), folder / "error_coverage")
    save(lambda: ensemble_figure(frame), folder / "ensembles")
    print(page)


def table_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of every measure."""
    identity = ["dataset", "method"]
    rows = []
    for (dataset, method), group in frame.groupby(identity, sort=False):
        row: dict[str, Any] = {"dataset": dataset, "method": method, "seeds": len(group)}
        row["architecture"] = group["architecture"].iloc[0]
        for name in group.columns[group.columns.get_loc("propagated") :]:
            values = group[name].dropna()
            if len(values):
                row[name] = values.mean()
                row[f"{name}_std"] = values.std(ddof=1) if len(values) > 1 else float("nan")
        rows.append(row)
    return rows


def page_of(about: dict[str, Any], frame: pd.DataFrame) -> str:
    """The page for people."""
    parts = [
        "# Probabilistic binary networks on images\n",
        f"`{about['command']}`, {about['hardware']['cpu']}, {about['hardware']['threads']} thread "
        "a run. Accuracy on the published test images in per cent, mean ± standard deviation over "
        "seeds; the published figures are those of Peters and Welling (2018). Nothing was chosen "
        "on test images.\n",
    ]
    for dataset, group in frame.groupby("dataset", sort=False):
        first = group.iloc[0]
        parts += [
            f"## {dataset}\n",
            f"{first['architecture']}, {first['images']:.0f} training images. "
            f"{about['sources'][dataset]}\n",
            accuracy_table(str(dataset), group) + "\n",
            "Mode is the most probable binary network, its batch normalisation re-estimated on "
            "2560 training images as for all columns to its right; propagated is the error of the "
            "probabilities, for a real-valued network simply its own.\n",
            ensemble_table(group) + "\n",
            "ECE: expected calibration error, 15 bins. AURC: area under error against coverage, "
            "examples ranked by the soft-max score of the propagated probabilities, the entropy of "
            "the ensemble's mean, or the variance among its members. AUROC: the same scores "
            "telling images of another data set.\n",
            anytime_table(group) + "\n",
            "The anytime ensemble stops, example by example, as soon as a sequential test at level "
            "α says that the members of 16 not yet asked would not change the prediction; `differs`"
            " is the share of test images on which it did differ from all 16.\n",
        ]
    return "\n".join(parts)


def accuracy_table(dataset: str, group: pd.DataFrame) -> str:
    """Accuracies in per cent, ours and the published."""
    rows = []
    for method, mine in group.groupby("method", sort=False):
        cells = [spread(100 * (1 - mine[name])) if name in mine else "" for name in COLUMNS]
        rows.append([method, len(mine), *cells])
    for name, values in PUBLISHED.get(dataset, []):
        cells = [f"{values[column]:.2f}" if column in values else "" for column in COLUMNS]
        rows.append([f"*{name}*", "", *cells])
    headers = ["", "seeds", *COLUMNS.values()]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def ensemble_table(group: pd.DataFrame) -> str:
    """Calibration, ranking and detection of each method's ensemble of 16."""
    names = {"calibration_propagated": "ECE propagated", "calibration_ensemble": "ECE ensemble"}
    names |= {f"aurc_{score}": f"AURC {score}" for score in SCORES}
    names |= {f"auroc_{score}": f"AUROC {score}" for score in SCORES if f"auroc_{score}" in group}
    rows = [
        [method, *(spread(mine[name], 4) for name in names)]
        for method, mine in stochastic(group).groupby("method", sort=False)
    ]
    return tabulate(rows, ["", *names.values()], tablefmt="pipe", disable_numparse=True)


def anytime_table(group: pd.DataFrame) -> str:
    """Members used, accuracy and disagreement with the full ensemble at each level."""
    rows = []
    for method, mine in stochastic(group).groupby("method", sort=False):
        for alpha in ALPHAS:
            members, wrong, differs = (
                mine[f"anytime_{alpha}_{name}"] for name in ("members", "error", "differs")
            )
            figures = [spread(members), spread(100 * (1 - wrong)), spread(differs, 4)]
            rows.append([method, alpha, *figures])
    headers = ["", "α", "members used", "accuracy", "differs"]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def stochastic(group: pd.DataFrame) -> pd.DataFrame:
    """The rows of networks that have draws."""
    return group[group["method"] != "real"]


def spread(values: pd.Series, digits: int = 2) -> str:
    """Mean ± standard deviation, or the one value, or nothing."""
    values = values.dropna()
    if values.empty:
        return ""
    text = f"{values.mean():.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {values.std(ddof=1):.{digits}f}"


def coverage_figure(curves: list[dict[str, Any]]) -> Figure:
    """Error among the most certain test images against their share; one line a seed."""
    chosen = [r for r in curves if r["config"]["method"] == "pbnet_s"]
    chosen = chosen or [r for r in curves if r["config"]["method"] != "real"]
    datasets = list(dict.fromkeys(r["config"]["dataset"] for r in chosen))
    figure, (panels,) = make_panels(max(len(datasets), 1), [1.0], height=2.3)
    for axes, dataset in zip(panels, datasets, strict=False):
        for record in (r for r in chosen if r["config"]["dataset"] == dataset):
            for score in SCORES:
                points = [p for p in record["curve"] if p["figure"] == f"coverage {score}"]
                color = look_of(SCORES, score)["color"]
                axes.plot([p["x"] for p in points], [p["y"] for p in points], color=color, lw=0.9)
        axes.set_title(f"{dataset}, {chosen[0]['config']['method']}")
        axes.set_xlabel("coverage")
        axes.set_ylim(bottom=0)
    label_rows(panels, "error among the covered")
    legend(figure, SCORES, SCORES, [], len(panels), lines=True)
    return figure


def ensemble_figure(frame: pd.DataFrame) -> Figure:
    """Error against members: ensembles of a fixed size, and those that stop by themselves."""
    frame = stochastic(frame)
    datasets, order = list(frame["dataset"].unique()), list(frame["method"].unique())
    figure, (panels,) = make_panels(max(len(datasets), 1), [1.0], height=2.5)
    for axes, dataset in zip(panels, datasets, strict=False):
        for method, mine in frame[frame["dataset"] == dataset].groupby("method", sort=False):
            look = look_of(order, str(method))
            sizes = (1, 2, 5, 16)
            fixed = [mine[f"ensemble_{size}"].mean() for size in sizes]
            axes.plot(sizes, fixed, **look, lw=0.9)
            members = [mine[f"anytime_{alpha}_members"].mean() for alpha in ALPHAS]
            wrong = [mine[f"anytime_{alpha}_error"].mean() for alpha in ALPHAS]
            axes.plot(members, wrong, **look | {"marker": "x"}, linestyle="none")
        values = dict(PUBLISHED.get(dataset, [])).get("PBNet-S ensembles", {})
        for size in (2, 5, 16):
            if f"ensemble_{size}" in values:
                wrong_then = 1 - values[f"ensemble_{size}"] / 100
                axes.plot(size, wrong_then, marker="*", color=GREY, linestyle="none")
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        axes.set_title(dataset)
        axes.set_xlabel("members (× stopped, ★ published)")
    label_rows(panels, "test error")
    legend(figure, order, order, [], len(panels))
    return figure
