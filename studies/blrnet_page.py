"""Table, page and figures of the study of BLRNets, from its CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from blrnet_runs import STRAIGHT
from matplotlib.figure import Figure
from tabulate import tabulate

from pbnn.files import read_json, write_atomic
from pbnn.networks import COLOUR_IMAGES, SMALL_IMAGES
from pbnn.reporting import curves_from_csv, records_from_csv
from pbnn.reporting.drawing import GREY, label_rows, legend, line_of, look_of, make_panels, save
from pbnn.study import SCHEMA_VERSION

COLUMNS = {
    "propagated": "propagated",
    "mode_running": "mode, running statistics",
    "mode": "mode",
    "ternary": "ternary",
    "single": "one draw (mean of 16)",
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
            {"ensemble_2": 99.25, "ensemble_5": 99.29, "ensemble_16": 99.30},
        ),
        ("PBNet-S-Ternary BCE", {"ternary": 99.26}),
        ("FPNet", {"propagated": 99.48}),
    ],
    "cifar10": [
        ("Binarized NN", {"mode": 88.17}),
        ("PBNet-MAP BCE", {"propagated": 88.24, "mode": 79.98}),
        ("PBNet-S-MAP BCE", {"propagated": 89.58, "mode": 89.10}),
        (
            "PBNet-S ensembles",
            {"ensemble_2": 89.75, "ensemble_5": 90.75, "ensemble_16": 91.28},
        ),
        ("PBNet-S-Ternary BCE", {"ternary": 89.70}),
        ("FPNet", {"propagated": 92.45}),
    ],
}
"""Test accuracy in per cent of Peters and Welling (2018), https://arxiv.org/abs/1809.03368."""

PUBLISHED_FOR = {"mnist": (SMALL_IMAGES, 60_000), "cifar10": (COLOUR_IMAGES, 50_000)}
"""Network and number of training images of the published figures."""

SCORES = ("propagated", "confidence", "entropy", "variance")
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
        f"`{about['command']}`, {about['hardware']['cpu']}, {frame['threads'].iloc[0]} thread(s) a "
        "run. Accuracy on test images in per cent, mean ± standard deviation over seeds. No code "
        "chooses anything by a test image; people saw test figures of earlier runs while they "
        "developed, and chose loss, learning rate and augmentation on the last 10,000 training "
        "images of MNIST.\n",
    ]
    for dataset, group in frame.groupby("dataset", sort=False):
        parts += dataset_part(str(dataset), group, about["sources"][dataset])
    return "\n".join(parts)


def dataset_part(dataset: str, group: pd.DataFrame, source: str) -> list[str]:
    """Tables of one data set, and what stands in them."""
    first = group.iloc[0]
    images, count = int(first["images"]), int(first["test_images"])
    split = "published" if first["published_split"] else "random"
    wrong = group["propagated"].mean()
    parts = [
        f"## {dataset}\n",
        f"{first['architecture']}, {images} training images, {count} test images of a {split} "
        f"split. {source}. An accuracy of {100 * (1 - wrong):.1f} has a "
        f"standard error of {100 * (wrong * (1 - wrong) / count) ** 0.5:.2f} by its test images "
        "alone.\n",
        accuracy_table(dataset, group) + "\n",
        recipe(first) + "\n",
    ]
    if dataset in PUBLISHED_FOR:
        network, published_images = PUBLISHED_FOR[dataset]
        parts.append(
            f"In italics: Peters and Welling (2018), {network}, {published_images} training images."
            "\n"
        )
    if stochastic(group).empty:
        return parts
    outside = ""
    if group.get("auroc_entropy", pd.Series()).notna().any():
        outside = " AUROC: the same scores telling images of another data set."
    return [
        *parts,
        "Propagated is the accuracy of the propagated probabilities, for a real-valued network "
        "simply its own; mode that of the most probable binary network. Batch normalisation, where "
        "there is one, is re-estimated on "
        f"{stochastic(group)['re_estimated_on'].iloc[0]:.0f} training images for all binary "
        "networks.\n",
        ensemble_table(group) + "\n",
        "Probabilities are the soft-max of scores divided by a temperature, fitted on the same few "
        "training images: one for the propagated scores and one for all draws. ECE: expected "
        "calibration error, 15 bins. AURC, in 10⁻⁴: area under error against coverage. It is "
        "always the ensemble of 16 whose errors count; its images are ranked by 1 − the largest "
        "propagated probability, 1 − the ensemble's largest, the entropy of the ensemble's mean, "
        f"or the variance among its members.{outside}\n",
        anytime_table(group) + "\n",
        "The anytime ensemble stops, example by example, as soon as a sequential test at level "
        "α says that the members of 16 not yet asked would not change the prediction; `differs`"
        " is the share of test images on which it did differ from all 16.\n",
    ]


def recipe(first: pd.Series) -> str:
    """How each method was trained."""
    epochs, before, after = (first[f] for f in ("epochs", "pretraining", "posterior_epochs"))
    return (
        f"straight_through: the most probable network is trained as it is deployed, {epochs} epochs"
        f" from a real-valued one of {before}; the posterior gives each of its weights probability "
        f"{(1 + first['committed']) / 2:g}, untrained. pbnet_s and pbnet go on from there for "
        f"{after} epochs. real and the ablations pbnet_s_…: {epochs} epochs."
    )


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
    outside = [score for score in SCORES if group.get(f"auroc_{score}", pd.Series()).notna().any()]
    names |= {f"auroc_{score}": f"AUROC {score}" for score in outside}
    scale = {name: 1e4 if name.startswith("aurc") else 1.0 for name in names}
    rows = [
        [method, *(spread(scale[name] * mine[name], 3) for name in names)]
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
    chosen = [r for r in curves if r["config"]["method"] == STRAIGHT]
    chosen = chosen or [r for r in curves if r["config"]["method"] != "real"]
    datasets = list(dict.fromkeys(r["config"]["dataset"] for r in chosen))
    figure, (panels,) = make_panels(max(len(datasets), 1), [1.0], height=2.3, share=False)
    for axes, dataset in zip(panels, datasets, strict=False):
        errs: list[float] = []
        for record in (r for r in chosen if r["config"]["dataset"] == dataset):
            for score in SCORES:
                points = [p for p in record["curve"] if p["figure"] == f"coverage {score}"]
                look = line_of(SCORES, score)
                axes.plot([p["x"] for p in points], [p["y"] for p in points], **look, lw=0.9)
                errs += [p["x"] for p in points if p["y"] > 0]
        axes.set_title(f"{dataset}, {chosen[0]['config']['method']}")
        axes.set_xlabel("coverage")
        axes.set_ylim(bottom=0)
        # Where nothing errs there is nothing to see.
        axes.set_xlim(max(0.0, min(errs, default=0.0) - 0.02), 1.0)
    label_rows(panels, "error among the covered")
    legend(figure, SCORES, SCORES, [], len(panels), lines=True)
    return figure


def ensemble_figure(frame: pd.DataFrame) -> Figure:
    """Error against members: ensembles of a fixed size, and those that stop by themselves."""
    frame = stochastic(frame)
    datasets, order = list(frame["dataset"].unique()), list(frame["method"].unique())
    figure, (panels,) = make_panels(max(len(datasets), 1), [1.0], height=2.5, share=False)
    for axes, dataset in zip(panels, datasets, strict=False):
        for method, mine in frame[frame["dataset"] == dataset].groupby("method", sort=False):
            look = look_of(order, str(method))
            sizes = (1, 2, 5, 16)
            fixed = [mine[f"ensemble_{size}"].mean() for size in sizes]
            axes.plot(sizes, fixed, **look, lw=0.9)
            members = [mine[f"anytime_{alpha}_members"].mean() for alpha in ALPHAS]
            wrong = [mine[f"anytime_{alpha}_error"].mean() for alpha in ALPHAS]
            axes.plot(members, wrong, **look | {"marker": "x"}, linestyle="none")
        same = frame["architecture"][frame["dataset"] == dataset].iloc[0]
        values = dict(PUBLISHED.get(dataset, [])).get("PBNet-S ensembles", {})
        if dataset in PUBLISHED_FOR and same != PUBLISHED_FOR[dataset][0]:
            values = {}
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
