"""Tables, claims and figures of the study of contrastive binarisation, from its CSV files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from claims import claim, claims_of, claims_table, how_to_read, interval
from common import write_tables
from contrastive_costs import NAME as COSTS
from contrastive_runs import MEASURES
from matplotlib.figure import Figure
from tabulate import tabulate

from pbnn.files import read_json, write_atomic
from pbnn.reporting import records_from_csv
from pbnn.reporting.drawing import GREY, label_rows, legend, look_of, make_panels, save
from pbnn.study import SCHEMA_VERSION

ABOUT = {
    "_own": "the last binary layer's signs and its own pre-activations, the paper's pair",
    "_paper": "the same at the strength of the paper",
    "_teacher": "the features before the scores and those of the trained real network, heads as "
    "they are drawn, strangers of other classes within the batch",
    "_any": "the same, strangers of any class",
    "_heads": "the same as _teacher, heads trained",
    "_memory": "the same as _teacher, strangers from a memory of all samples",
    "_released": "the same as _memory, at the strength of the released code",
}
"""What the arms are, by the endings of their names."""


def draw(folder: Path) -> None:
    """Write table.csv, claims.csv, contrast.md and the figures of a finished study."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    records = records_from_csv(folder / "records.csv")
    frame = pd.DataFrame([record["config"] | record["measures"] for record in records])
    frame["good"] = [row[measure_of(row["network"])] for row in frame.to_dict("records")]
    claims, rows = claims_of(frame, each_recipe, all_recipes, variants), table_of(frame)
    write_tables(folder, table=rows, claims=claims)
    costs = pd.read_csv(folder / f"{COSTS}.csv")
    page = page_of(about, frame, rows, claims, costs)
    write_atomic(folder / "contrast.md", page)
    save(lambda: gain_figure(frame), folder / "gains")
    save(lambda: costs_figure(costs), folder / COSTS)
    print(page)


def measure_of(network: str) -> str:
    """What its runs are good for."""
    return MEASURES.get(network, "accuracy")


def recipe_and_arm(method: str) -> tuple[str, str]:
    """A binariser, and the ending that says what is contrasted."""
    for ending in ABOUT:
        if method.endswith(ending):
            return method.removesuffix(ending), ending
    return method, ""


def arms_of(group: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Runs by recipe and arm, without the real networks."""
    binary = group[group["method"] != "real"]
    return {recipe_and_arm(str(method)): runs for method, runs in binary.groupby("method")}


def each_recipe(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Shang et al. (2022): with the contrast signs say more about the class, and it is accurate."""
    arms, good = arms_of(group), measure_of(group["network"].iloc[0])
    for (recipe, ending), runs in arms.items():
        if ending in ("_own", "_teacher"):
            for measure, text in (("information", RAISES), ("information_last", RAISES_LAST),
                                  (good, BEATS)):  # fmt: skip
                said = f"{recipe}: {text.format(PAIR[ending])}"
                yield claim("CMIM", said, runs, arms[recipe, ""], measure)


PAIR = {"_own": "the pair in the network", "_teacher": "the pair with a teacher"}
RAISES = "{} raises I(b; Y), mean over layers"
RAISES_LAST = "{} raises I(b; Y) of the last binary layer"
BEATS = "{} beats no contrast"


def all_recipes(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The same for a seed's mean over the recipes."""
    arms, good = arms_of(group), measure_of(group["network"].iloc[0])
    recipes = sorted({recipe for recipe, _ in arms})
    if len(recipes) < 2:
        return
    for ending, pair in PAIR.items():
        means = [
            pd.concat([arms[recipe, which] for recipe in recipes])
            .groupby("seed")[["information_last", good]].mean().reset_index()
            for which in (ending, "")
        ]  # fmt: skip
        for measure, text in (("information_last", RAISES_LAST), (good, BEATS)):
            said = f"mean of {', '.join(recipes)}: {text.format(pair)}"
            yield claim("CMIM", said, *means, measure)


def variants(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What might be done otherwise, one change at a time."""
    arms = arms_of(group)
    for recipe, ending in arms:
        for usual, text, same in CHANGES.get(ending, ()):
            pair = arms[recipe, usual], arms[recipe, ending]
            yield claim("CMIM", f"{recipe}: {text}", *pair, "accuracy", same=same)


CHANGES = {
    "_any": [("_teacher", "strangers of other classes beat those of any class", False)],
    "_heads": [("_teacher", "heads as they are drawn beat trained ones", False)],
    "_memory": [("_teacher", "strangers of the batch do what a memory does", True)],
    "_released": [("_memory", "with a memory, the strength chosen here beats 3.2", False)],
    "_paper": [
        ("_own", "of the pair in the network, the strength chosen here beats 3.2", False),
        ("", "no contrast beats the pair in the network at strength 3.2", False),
    ],
}
"""By the ending of an arm: what it is compared with, what is claimed, and whether of sameness."""


MEANS = ("good", "validation", "information", "information_last", "entropy", "training_error")


def table_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, and the standard deviation of what the runs are good for."""
    rows = []
    for run, group in frame.groupby(["dataset", "network", "method"], sort=False):
        row = dict(zip(("dataset", "network", "method"), run, strict=True))
        row |= {"measure": measure_of(run[1]), "seeds": len(group)}
        row |= {name: group[name].mean() for name in MEANS}
        rows.append(row | {"good_std": group["good"].std(ddof=1)})
    return pd.DataFrame(rows)


def page_of(
    about: dict[str, Any],
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    claims: pd.DataFrame,
    costs: pd.DataFrame,
) -> str:
    """The page for people."""
    first = frame.iloc[0]
    sources = "; ".join(f"{name}: {source}" for name, source in about["sources"].items())
    arms = "; ".join(f"`{ending}` {text}" for ending, text in ABOUT.items())
    strengths = strengths_of(frame)
    parts = [
        "# Does a contrast with real-valued features help a binary network?\n",
        f"`{about['command']}`, {about['hardware']['cpu']}, {first['threads']} thread(s) a run. "
        f"{sources}. Seeds {frame['seed'].min()} to {frame['seed'].max()}; those below 10 served "
        "to choose what a contrast weighs, on the sixth of the training images that is for "
        "choices. The test images are used once, for these figures: accuracy in per cent, and of "
        "`pixels` intersection over union of the foreground, mean ± standard deviation over "
        "seeds. Information of a sign about the class is in bits, corrected by Miller and Madow: "
        "of classes a mean over the units of a layer, of `pixels` over its channels, all positions "
        "together; mean over the binary layers, and of the last one, which is what the pair in the "
        "network contrasts (the pair with a teacher contrasts real numbers behind it); "
        "on validation images. In all networks the first and the last layer are real.\n",
        f"Arms: {arms}. Strengths: {strengths}. Of the pair in the network the least strength that "
        "was tried did best on validation images.\n",
        "## Claims\n",
        how_to_read(claims) + "\n",
        claims_table(claims) + "\n",
    ]
    for (dataset, network), group in rows.groupby(["dataset", "network"], sort=False):
        of = frame[(frame["dataset"] == dataset) & (frame["network"] == network)].iloc[0]
        count = of["scenes"][0] if network in MEASURES else of["images"]
        seen = f"{count:.0f} images, {of['epochs']} epochs.\n"
        parts += [f"## {dataset}, {network}\n", seen, results_table(group) + "\n"]
    parts += ["## Costs\n", COSTS_TEXT, costs_table(costs)]
    return "\n".join(parts) + "\n"


def strengths_of(frame: pd.DataFrame) -> str:
    """What each contrast weighs, by network and ending."""
    found: dict[str, str] = {}
    for row in frame[frame["contrast"].notna()].to_dict("records"):
        _, ending = recipe_and_arm(row["method"])
        found[f"{row['network']} {ending}"] = f"{row['contrast']['strength']:g}"
    return ", ".join(f"{name} {value}" for name, value in found.items())


COSTS_TEXT = (
    "A step (forward and backward) of a small LeNet by the recipe of XNOR-Net, batch 128, one "
    "thread, the least of many timed in turn, against that without a contrast; what autograd keeps "
    "of it; and what heads, memories and tables hold all along.\n"
)


def results_table(group: pd.DataFrame) -> str:
    """What each row is good for, and its information."""
    lines = []
    for row in group.to_dict("records"):
        spread = "" if row["seeds"] == 1 else f" ± {100 * row['good_std']:.2f}"
        bits = [row["information"], row["information_last"], row["entropy"]]
        cells = ["" if pd.isna(value) else f"{value:.4f}" for value in bits]
        lines.append([row["method"], row["seeds"], f"{100 * row['good']:.2f}{spread}", *cells,
                      f"{100 * row['training_error']:.2f}"])  # fmt: skip
    headers = ["", "seeds", group["measure"].iloc[0], "I(b; Y), bit", "of the last layer",
               "entropy, bit", "training error"]  # fmt: skip
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)


def costs_table(costs: pd.DataFrame) -> str:
    """Ratios of time, and megabytes."""
    lines = [
        [row["variant"], f"{row['n']:,}", f"{row['step_ratio']:.2f}",
         f"{row['saved_megabytes']:.1f}", f"{row['held_megabytes']:.1f}"]
        for row in costs.to_dict("records")
    ]  # fmt: skip
    headers = ["", "n", "step, times that without", "kept for the gradient, MB", "held, MB"]
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)


def gain_figure(frame: pd.DataFrame) -> Figure:
    """What each contrast adds to the information of the last layer and to accuracy, by recipe."""
    measures = {"information_last": ("information of the last\nlayer's signs, bit", 1.0),
                "good": ("accuracy, or intersection\nover union, points", 100.0)}  # fmt: skip
    figure, (axes_of,) = make_panels(2, [1.0], height=2.4, share=False)
    panels = [(str(d), str(n)) for d, n in frame.groupby(["dataset", "network"], sort=False).groups]
    labels: list[str] = []
    for dataset, network in panels:
        of = frame[(frame["dataset"] == dataset) & (frame["network"] == network)]
        arms = arms_of(of)
        for recipe in dict.fromkeys(recipe for recipe, _ in arms):
            at = len(labels)
            labels.append(f"{recipe}\n{network}")
            for place, ending in enumerate(PAIR):
                pair = [arms[recipe, which].set_index("seed") for which in (ending, "")]
                for axes, (measure, (_, scale)) in zip(axes_of, measures.items(), strict=True):
                    mean, half = interval(scale * (pair[0][measure] - pair[1][measure]))
                    axes.errorbar(
                        [mean], [at + 0.2 * place], xerr=[0.0 if half == float("inf") else half],
                        capsize=1.5, linewidth=0.8, **look_of([*PAIR.values()], PAIR[ending]),
                    )  # fmt: skip
    for axes, (text, _) in zip(axes_of, measures.values(), strict=True):
        axes.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
        axes.set_xlabel(f"gain in {text}")
        axes.set_yticks(range(len(labels)), labels if axes is axes_of[0] else [])
        axes.set_ylim(len(labels) - 0.4, -0.6)
    legend(figure, [*PAIR.values()], [*PAIR.values()], [], 2)
    return figure


def costs_figure(costs: pd.DataFrame) -> Figure:
    """Time of a step and megabytes against the number of samples."""
    shown = {"step_ratio": "step, times that without", "saved_megabytes": "kept for a gradient, MB",
             "held_megabytes": "held all along, MB"}  # fmt: skip
    figure, (axes_of,) = make_panels(len(shown), [1.0], height=2.2, share=False)
    order = [str(name) for name in costs["variant"].unique()]
    for axes, (column, text) in zip(axes_of, shown.items(), strict=True):
        for variant, mine in costs.groupby("variant", sort=False):
            axes.plot(mine["n"], mine[column], linewidth=0.8, clip_on=False,
                      **look_of(order, str(variant)))  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=1.0)
        axes.set_ylim(0, 1.5 * costs[column].max())
        axes.set_xlabel("samples n")
        axes.set_title(text)
    label_rows(axes_of, "")
    legend(figure, order, order, [], 2)
    return figure
