"""Tables, claims and figures of the study of activation balance, from its CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from balance_bases import draw_costs
from balance_claims import CLAIMS, RUN
from claims import claims_of, claims_table, how_to_read, interval
from common import write_tables
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from recipes_studied import ABOUT, BASES
from tabulate import tabulate

from pbnn.files import read_json, write_atomic
from pbnn.reporting import curves_from_csv, records_from_csv
from pbnn.reporting.drawing import GREY, label_rows, legend, line_of, look_of, make_panels, save
from pbnn.study import SCHEMA_VERSION

SHOWN = 0.4
"""The threshold drawn beside 0 where there is room for two."""


def draw(folder: Path) -> None:
    """Write table.csv, claims.csv, balance.md and the figures of a finished study."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    records = records_from_csv(folder / "records.csv")
    frame = frame_of(records)
    curves = {r["key"]: pd.DataFrame(r["curve"]) for r in curves_from_csv(folder / "curves.csv")}
    claims, rows = claims_of(frame, *CLAIMS), table_of(frame)
    write_tables(folder, table=rows, claims=claims)
    page = page_of(about, frame, rows, claims)
    write_atomic(folder / "balance.md", page)
    save(lambda: threshold_figure(frame), folder / "accuracy_threshold")
    save(lambda: entropy_figure(rows), folder / "entropy_accuracy")
    save(lambda: layers_figure(frame, curves), folder / "layers")
    save(lambda: histogram_figure(frame, curves), folder / "preactivations")
    draw_costs(frame, folder)
    print(page)


def frame_of(records: list[dict[str, Any]]) -> pd.DataFrame:
    """One row for each run: its key and configuration, and from ``training_error`` on measures."""
    about = pd.DataFrame([{"key": record["key"]} | record["config"] for record in records])
    return about.join(pd.DataFrame([record["measures"] for record in records]))


def table_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of every measure, and the standard deviation of the accuracies."""
    start = frame.columns.get_loc("training_error")
    measures = list(frame.columns[start:])
    rows = []
    for run, group in frame.groupby(RUN, sort=False, dropna=False):
        row = dict(zip(RUN, run, strict=True)) | {"seeds": len(group)}
        row["accuracy"] = group["accuracy"].mean()
        row["accuracy_std"] = group["accuracy"].std(ddof=1)
        row |= {name: group[name].mean() for name in (*FIRST, *measures) if name in group}
        rows.append(row)
    return pd.DataFrame(rows)


FIRST = ("entropy", "dead", "flip", "information")


def page_of(
    about: dict[str, Any], frame: pd.DataFrame, rows: pd.DataFrame, claims: pd.DataFrame
) -> str:
    """The page for people."""
    first = frame.iloc[0]
    parts = [
        "# Balanced or unbalanced signs?\n",
        f"`{about['command']}`, {about['hardware']['cpu']}, {first['threads']} thread(s) a run. "
        f"Batches of {first['batch']}, Adam, peak learning rate {first['learning_rate']:g} unless "
        "said otherwise. A "
        "sixth of the training images is for choices; the test images are used once, for these "
        "figures. In all networks the first and the last layer are real. Accuracy in per cent, "
        "mean ± standard deviation over seeds; the balance is that of the first 2000 validation "
        "images, a mean over the binary layers, and flips are signs of weights from one eighth of "
        "the training to the next (docs/balance.md says what each figure is). Of several bases, "
        "weights are those of the middle one.\n",
        arms_of(frame) + "\n",
        "## Claims\n",
        how_to_read(claims) + " ASD reduces the 16 channels of the first binary layer to one unit, "
        "as in the ResNet-20 of its paper.\n",
        claims_table(claims) + "\n",
    ]
    for (dataset, network), group in rows.groupby(["dataset", "network"], sort=False):
        base = BASES[str(network)]
        of = frame[(frame["dataset"] == dataset) & (frame["network"] == network)]
        epochs = of[of["after"].isna() & (of["method"] != f"{base}_long")]["epochs"].min()
        about_it = f"{about['sources'][dataset]}; epochs: {epochs}, unless said otherwise.\n"
        parts += [f"## {dataset}, {network}\n", about_it, balance_table(group) + "\n"]
        long = of[of["method"] == f"{base}_long"]
        if len(long):
            short = of[(of["method"] == base) & (of["threshold"] == 0)]
            pairs = long.merge(short, on="seed", suffixes=("", "_short"))
            gap = 100 * (pairs["accuracy"] - pairs["accuracy_short"]).mean()
            parts.append(
                f"At the full budget of {long['epochs'].iloc[0]} epochs the unmodified {base} has "
                f"{100 * long['accuracy'].mean():.2f}, {gap:.2f} points more than at this one "
                f"({len(pairs)} seed).\n"
            )
    return "\n".join(parts)


def arms_of(frame: pd.DataFrame) -> str:
    """What the arms are that were run."""
    run = " ".join(frame["method"].unique())
    parts = {name: name.replace("MxN", "").replace("ρ", "") for name in ABOUT}
    said = [f"`{name}` {text}" for name, text in ABOUT.items() if parts[name] in run]
    return f"Arms: {'; '.join(said)}."


SHOWN_FIGURES = (
    "share",
    "entropy",
    "entropy_pooled",
    "instance_std",
    "dead",
    "alive",
    "flip",
    "information",
    "information_shuffled",
    "correlation",
    "effective_rank",
    "output_entropy",
    "output_shift",
    "weight_entropy",
    "weight_quantisation_error",
)
"""Figures of the balance, by the names of docs/balance.md."""


def balance_table(group: pd.DataFrame) -> str:
    """Accuracy and balance of each row."""
    rows = []
    for row in group.to_dict("records"):
        threshold = "" if pd.isna(row["threshold"]) else f"{row['threshold']:+g}"
        accuracy = f"{100 * row['accuracy']:.2f}"
        if row["seeds"] > 1:
            accuracy += f" ± {100 * row['accuracy_std']:.2f}"
        cells = ["" if pd.isna(row.get(n)) else f"{row[n]:.3f}" for n in SHOWN_FIGURES]
        rows.append([row["method"], threshold, row["seeds"], accuracy, *cells])
    headers = [
        "",
        "threshold",
        "seeds",
        "accuracy",
        *(name.replace("_", " ") for name in SHOWN_FIGURES),
    ]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def panels_of(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Data sets and networks, in order."""
    pairs = frame[["dataset", "network"]].drop_duplicates()
    return [(str(a), str(b)) for a, b in pairs.itertuples(index=False)]


def threshold_figure(frame: pd.DataFrame) -> Figure:
    """Test accuracy against the threshold, with 95% intervals."""
    panels = panels_of(frame)
    figure, (row,) = make_panels(len(panels), [1.0], height=2.2, share=False)
    for axes, (dataset, network) in zip(row, panels, strict=True):
        of = frame[(frame["dataset"] == dataset) & (frame["network"] == network)]
        base = BASES[network]
        swept = of[of["method"] == base].groupby("threshold")["accuracy"]
        points = [(threshold, *interval(100 * values)) for threshold, values in swept]
        x, y, half = zip(*sorted(points), strict=True)
        shown = [0.0 if each == float("inf") else each for each in half]
        axes.errorbar(x, y, yerr=shown, marker="o", capsize=2, linewidth=0.9)
        axes.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
        axes.set_title(f"{dataset}\n{base}")
        axes.set_xlabel("threshold")
    label_rows(row, "test accuracy, %")
    return figure


def entropy_figure(rows: pd.DataFrame) -> Figure:
    """Test accuracy against the entropy of the activations' signs, of networks trained alike."""
    more = rows["method"].str.contains("_long|abc_net|_tuned|noisy")  # longer, or from another
    rows = rows[rows["entropy"].notna() & ~more]
    panels, order = panels_of(rows), list(dict.fromkeys(rows["method"]))
    figure, (row,) = make_panels(len(panels), [1.0], height=2.2, share=False)
    for axes, (dataset, network) in zip(row, panels, strict=True):
        of = rows[(rows["dataset"] == dataset) & (rows["network"] == network)]
        for method, mine in of.groupby("method", sort=False):
            axes.plot(
                mine["entropy"], 100 * mine["accuracy"], linestyle="none",
                **look_of(order, str(method)),
            )  # fmt: skip
        axes.set_title(f"{dataset}\n{network}")
        axes.set_xlabel("entropy, bit")
    label_rows(row, "test accuracy, %")
    legend(figure, order, order, [], len(panels))
    return figure


def chosen(frame: pd.DataFrame, dataset: str, network: str, threshold: float) -> str | None:
    """The key of the base's first run at a threshold."""
    of = frame[(frame["dataset"] == dataset) & (frame["network"] == network)]
    of = of[(of["method"] == BASES[network]) & (of["threshold"] == threshold) & (of["seed"] == 0)]
    return str(of["key"].iloc[0]) if len(of) else None


def layers_figure(frame: pd.DataFrame, curves: dict[str, pd.DataFrame]) -> Figure:
    """Entropy of each layer's signs in the course of the training, at two thresholds."""
    panels = panels_of(frame)
    figure, (row,) = make_panels(len(panels), [1.0], height=2.2, share=False)
    deepest = 0
    for axes, (dataset, network) in zip(row, panels, strict=True):
        of = frame[(frame["dataset"] == dataset) & (frame["network"] == network)]
        for threshold, style in ((0.0, "-"), (SHOWN, "--")):
            key = chosen(frame, dataset, network, threshold)
            if key not in curves:
                continue
            curve = curves[key]
            names = [n for n in curve["figure"].unique()
                     if n.startswith("activations ") and n.endswith(" entropy")]  # fmt: skip
            deepest = max(deepest, len(names))
            for place, name in enumerate(names):
                mine = curve[curve["figure"] == name]
                look = line_of([str(n) for n in range(9)], str(place % 9))
                epochs = mine["x"] * of["epochs"].min()
                axes.plot(epochs, mine["y"], **look, linestyle=style, linewidth=0.9)
        axes.set_title(f"{dataset}\n{BASES[network]}")
        axes.set_xlabel("epoch")
        axes.set_ylim(top=1.02)
    label_rows(row, "entropy of the signs, bit")
    names = [f"binary layer {place + 1}" for place in range(deepest)]
    styles = [
        Line2D([], [], color=GREY, linestyle=style, label=f"threshold {threshold:g}")
        for threshold, style in ((0.0, "-"), (SHOWN, "--"))
    ]
    legend(figure, names, names, styles, len(panels), lines=True)
    return figure


def histogram_figure(frame: pd.DataFrame, curves: dict[str, pd.DataFrame]) -> Figure:
    """Pre-activations of the first binary layer, with their threshold drawn in."""
    panels = panels_of(frame)
    figure, (row,) = make_panels(len(panels), [1.0], height=2.2, share=False)
    for axes, (dataset, network) in zip(row, panels, strict=True):
        for threshold in (0.0, SHOWN):
            key = chosen(frame, dataset, network, threshold)
            if key not in curves:
                continue
            curve = curves[key]
            names = [n for n in curve["figure"].unique() if n.startswith("histogram ")]
            mine = curve[curve["figure"] == names[0]]
            color = look_of(["0.0", str(SHOWN)], str(threshold))["color"]
            # What was counted are pre-activations less their threshold.
            axes.fill_between(mine["x"] + threshold, mine["y"], color=color, alpha=0.25, lw=0)
            axes.plot(mine["x"] + threshold, mine["y"], color=color, linewidth=0.7)
            axes.axvline(threshold, color=color, linewidth=1.0, linestyle="--")
        axes.set_title(f"{dataset}\n{BASES[network]}")
        axes.set_xlabel("pre-activation")
        axes.set_xlim(-3, 3)
    label_rows(row, "density, first binary layer")
    handles = [
        Line2D(
            [], [], color=look_of(["0.0", str(SHOWN)], place)["color"], label=f"threshold {place}"
        )
        for place in ("0.0", str(SHOWN))
    ]  # densities are too jagged for markers
    handles.append(Line2D([], [], color=GREY, linestyle="--", label="the threshold"))
    legend(figure, [], [], handles, len(panels))
    return figure
