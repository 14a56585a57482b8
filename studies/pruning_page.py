"""Table, claims, page and figure of the study of pruning, from its CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from claims import claims_of, claims_table, how_to_read, interval
from common import write_tables
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pruning_claims import CLAIMS
from pruning_runs import BINS, SIDE
from tabulate import tabulate

from pbnn.files import read_json, write_atomic
from pbnn.reporting import curves_from_csv, records_from_csv
from pbnn.reporting.drawing import GREY, label_rows, legend, look_of, make_panels, save
from pbnn.study import SCHEMA_VERSION

ARM = ["dataset", "network", "method", "role", "source", "sparsity"]
MEASURES = (
    "validation", "accuracy", "probe", "turns", "training_error", "zeros", "jaccard",
    "jaccard_chance", "jaccard_layers", "jaccard_groups", "jaccard_start", "jaccard_again",
)  # fmt: skip
SOURCES = ("labels", "rotation", "clusters", "shuffled", "shuffled_rotation", "random")


def draw(folder: Path) -> None:
    """Write table.csv, claims.csv, pruning.md and the figure of a finished study."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    frame = frame_of(records_from_csv(folder / "records.csv"))
    curves = pd.DataFrame(
        [
            {"key": record["key"]} | row
            for record in curves_from_csv(folder / "curves.csv")
            for row in record["curve"]
        ]
    )
    rows, claims = table_of(frame), claims_of(frame, *CLAIMS)
    write_tables(folder, table=rows, claims=claims)
    page = page_of(about, frame, rows, claims, curves)
    write_atomic(folder / "pruning.md", page)
    save(lambda: sparsity_figure(frame), folder / "accuracy_sparsity")
    print(page)


def frame_of(records: list[dict[str, Any]]) -> pd.DataFrame:
    """One row for each training with masks held, or without any."""
    rows = [
        {"key": record["key"]} | record["config"] | record["measures"]
        for record in records
        if record["config"]["role"] != "masks"
    ]
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=list(dict.fromkeys([*frame.columns, *MEASURES])))


def table_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of every measure, and the standard deviations of the accuracies."""
    rows = []
    for arm, group in frame.groupby(ARM, sort=False):
        row = dict(zip(ARM, arm, strict=True)) | {"seeds": len(group)}
        row |= {name: group[name].mean() for name in MEASURES}
        row |= {f"{name}_std": group[name].std(ddof=1) for name in ("accuracy", "probe")}
        rows.append(row)
    return pd.DataFrame(rows)


def kept_of(frame: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Share of weights kept, mean over seeds: a row for each kind and source, a column a layer.

    At the largest sparsity.
    """
    rows = curves[curves["figure"].str.startswith("kept ")]
    rows = rows.merge(frame[["key", "method", "source", "sparsity"]], on="key")
    rows = rows[rows["sparsity"] == rows["sparsity"].max()]
    rows = rows.assign(layer=rows["figure"].str.removeprefix("kept "))
    table = rows.pivot_table(index=["method", "source"], columns="layer", values="y", sort=False)
    return table.reset_index()


def page_of(
    about: dict[str, Any],
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    claims: pd.DataFrame,
    curves: pd.DataFrame,
) -> str:
    """The page for people."""
    first = frame.iloc[0]
    probed = next(p for p in frame["probed"] if isinstance(p, dict))
    return "\n".join(
        [
            "# Pruning with self-supervision, of binary networks\n",
            question(about, first),
            "## Accuracy after training on labels\n",
            accuracy_table(rows) + "\n",
            "![accuracy against sparsity](accuracy_sparsity.svg)\n",
            "## Overlap of masks with those of labels\n",
            "Jaccard index, mean over seeds; beside it what two masks of this sparsity overlap by "
            "chance, what masks with as many weights in each layer do, or in each layer and each "
            f"of {BINS} groups of it by the magnitude at the start; the overlap with the masks of "
            "the start's own magnitudes, which have learned nothing; and of labels, with masks of "
            "labels from the same start and other batches.\n",
            overlap_table(rows) + "\n",
            f"## Transfer: a linear probe on {probed['dataset']}\n",
            f"Logistic regression on the features of {probed['images']} images at most, of "
            f"networks trained by rotation on {first['dataset']} with the mask held; besides, "
            "their accuracy at telling turns of validation images.\n",
            probe_table(rows) + "\n",
            f"The same of the features after each block, maps averaged to {SIDE}x{SIDE}; those of "
            "the last are the ones above.\n",
            blocks_part(frame, curves) + "\n",
            kept_part(kept_of(frame, curves)),
            "## Claims\n",
            how_to_read(claims) + "\n",
            claims_table(claims) + "\n",
        ]
    )


def question(about: dict[str, Any], first: pd.Series) -> str:
    """What was asked, and how."""
    sources = "; ".join(f"{name}: {source}" for name, source in about["sources"].items())
    return (
        f"`{about['command']}`, {about['hardware']['cpu']}, {first['threads']} thread(s) a run. "
        f"{sources}.\n\n"
        "Do masks found without labels serve labels (Caron et al. 2020, "
        "https://arxiv.org/abs/2001.03554)? Networks are pruned by magnitude, all layers but the "
        "last together, in rounds to 50, 80 and 90% with a rewind to the seed's start, after "
        f"learning labels, turns of images (4 classes) or clusters ({first['clusters']}, of "
        "pixels, then of features); then trained on labels from the same start with the mask held. "
        "In `xnor_net` a mask makes the binary weights ternary; `real` is its twin of real weights "
        "and ReLU. `random` masks are of the same sparsity, `shuffled` and `shuffled_rotation` "
        "ones keep as many weights of each layer as those of labels and of rotation.\n\n"
        f"{first['dataset']}, {first['network']}: {first['epochs']} epochs of "
        f"{first['images'] or 'all'} images for every training, batches of {first['batch']}, "
        f"{first['optimiser']}, peak learning rate {first['learning_rate']:g}. A sixth of the "
        "training images is for choices; the test images are used once, for these figures. Per "
        "cent, mean ± standard deviation over seeds.\n"
    )


def accuracy_table(rows: pd.DataFrame) -> str:
    """A row for each kind and source of masks, a column for each sparsity."""
    of = rows[rows["role"] == "labels"]
    columns = sorted(of["sparsity"].unique())
    lines = []
    for (method, source), group in of.groupby(["method", "source"], sort=False):
        cells = group.set_index("sparsity")
        line = [shown(cells.loc[s], "accuracy") if s in cells.index else "" for s in columns]
        lines.append([method, source, group["seeds"].max(), *line])
    heads = ["", "masks of", "seeds", *(f"{100 * s:.0f}% pruned" for s in columns)]
    return tabulate(lines, heads, tablefmt="pipe", disable_numparse=True)


def shown(row: pd.Series, measure: str) -> str:
    """Per cent, with a standard deviation where there is one."""
    spread = row[f"{measure}_std"]
    return f"{100 * row[measure]:.2f}" + ("" if pd.isna(spread) else f" ± {100 * spread:.2f}")


def overlap_table(rows: pd.DataFrame) -> str:
    """A row for each kind, sparsity and source of masks."""
    of = rows[rows["jaccard"].notna() & (rows["role"] == "labels")]
    names = ["jaccard", "jaccard_chance", "jaccard_layers", "jaccard_groups", "jaccard_start",
             "jaccard_again"]  # fmt: skip
    lines = [
        [row["method"], f"{100 * row['sparsity']:.0f}%", row["source"]]
        + ["" if pd.isna(row[name]) else f"{row[name]:.3f}" for name in names]
        for row in of.sort_values(["method", "sparsity"], kind="stable").to_dict("records")
    ]
    heads = ["", "pruned", "masks of", "overlap with labels", "chance", "chance, by layers",
             "by layers and start", "overlap with the start", "with labels again"]  # fmt: skip
    return tabulate(lines, heads, tablefmt="pipe", disable_numparse=True)


def probe_table(rows: pd.DataFrame) -> str:
    """A row for each kind, sparsity and source of masks."""
    lines = [
        [
            row["method"],
            f"{100 * row['sparsity']:.0f}%",
            row["source"],
            row["seeds"],
            shown(row, "probe"),
            f"{100 * row['turns']:.2f}",
        ]
        for _, row in rows[rows["role"] == "probe"].iterrows()
    ]
    heads = ["", "pruned", "masks of", "seeds", "probe", "turns"]
    return tabulate(lines, heads, tablefmt="pipe", disable_numparse=True)


def blocks_part(frame: pd.DataFrame, curves: pd.DataFrame) -> str:
    """The probe of every block's features, mean over seeds."""
    rows = curves[curves["figure"] == "probe of block"]
    rows = rows.merge(frame[["key", *ARM[2:]]], on="key")
    table = rows.pivot_table(index=["method", "sparsity", "source"], columns="x", values="y")
    lines = [
        [method, f"{100 * sparsity:.0f}%", source, *(f"{100 * each:.2f}" for each in values)]
        for (method, sparsity, source), values in zip(table.index, table.to_numpy(), strict=True)
    ]
    heads = ["", "pruned", "masks of", *(f"block {place:.0f}" for place in table.columns)]
    return tabulate(lines, heads, tablefmt="pipe", disable_numparse=True)


def kept_part(kept: pd.DataFrame) -> str:
    """Where the weights are that are kept, if there are few layers."""
    if kept.shape[1] > 10:
        return ""
    lines = [
        [row[0], row[1], *(f"{100 * share:.1f}" for share in row[2:])]
        for row in kept.itertuples(index=False)
    ]
    table = tabulate(
        lines, ["", "masks of", *kept.columns[2:]], tablefmt="pipe", disable_numparse=True
    )
    return f"## Weights kept at the largest sparsity, per cent by layer\n\n{table}\n"


def sparsity_figure(frame: pd.DataFrame) -> Figure:
    """Test accuracy against sparsity by source of masks, with 95% intervals."""
    of = frame[frame["role"] == "labels"]
    methods = list(dict.fromkeys(of["method"]))
    figure, (row,) = make_panels(len(methods), [1.0], height=2.4, share=False)
    for axes, method in zip(row, methods, strict=True):
        mine = of[of["method"] == method]
        ticks = sorted({*mine["sparsity"]} - {0.0})
        for place, source in enumerate(SOURCES):
            runs = mine[mine["source"] == source].groupby("sparsity")["accuracy"]
            points = [(s, *interval(100 * values)) for s, values in runs]
            if not points:
                continue
            x, y, half = zip(*points, strict=True)
            # Side by side, so that no interval hides another.
            x = [ticks.index(each) + 0.07 * (place - 2.5) for each in x]
            error = [0.0 if each == float("inf") else each for each in half]
            axes.errorbar(
                x, y, yerr=error, capsize=2, linewidth=0.9, **look_of(SOURCES, source)
            )  # fmt: skip
        whole = 100 * mine[mine["source"] == "unpruned"]["accuracy"].mean()
        axes.axhline(whole, color=GREY, linewidth=0.8, linestyle="--")
        axes.set_title(str(method))
        axes.set_xticks(range(len(ticks)), [f"{100 * tick:.0f}" for tick in ticks])
        axes.set_xlabel("pruned, %")
    label_rows(row, "test accuracy, %")
    handle = Line2D([], [], color=GREY, linestyle="--", label="unpruned")
    legend(figure, SOURCES, SOURCES, [handle], len(methods))
    return figure
