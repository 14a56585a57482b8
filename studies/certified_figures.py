"""Figures of the study of ten-class certificates."""

from __future__ import annotations

from typing import Any

import pandas as pd
from certified_published import ONLY_CERTIFICATE, PUBLISHED
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from pbnn.reporting.drawing import GREY, fit, label_rows, legend, line_of, look_of, make_panels

SIZES = {"gibbs": 5.0, "vote": 3.0, "single": 7.0, "mode": 9.0}
"""Of the markers of each predictor."""
SHARES = {0.0: "-", 0.05: "--", 0.5: ":"}
"""Prior splits whose learning curves are shown."""
NOTE: dict[str, Any] = {
    "textcoords": "offset points",
    "fontsize": 5,
    "color": GREY,
    "zorder": 4,
    "path_effects": [withStroke(linewidth=1.5, foreground="white")],
}
"""Names of published points, readable where they lie on others."""
LINES = {"gibbs": "-", "vote": ":", "single": "--", "mode": "-."}


def risk_figure(table: pd.DataFrame) -> Figure:
    """Certificate against test error of the same predictor, with every published point."""
    datasets = list(table["dataset"].unique())
    # The network names the prior, but for this one.
    kinds = table["network"].where(table["prior"] != "small_split", table["prior"])
    order = list(kinds.unique())
    figure, (panels,) = make_panels(len(datasets), [1.0], height=3.2, share=False)
    for axes, dataset in zip(panels, datasets, strict=True):
        mine, notes = table[table["dataset"] == dataset], []
        for kind, row in zip(kinds[mine.index], mine.to_dict("records"), strict=True):
            if row["certificate"] >= 1:
                continue
            point = row["error_test"], row["certificate"]
            size = SIZES[row["predictor"]]
            look = look_of(order, kind)
            axes.plot(*point, **look, linestyle="none", markersize=size, fillstyle="none")
        for name, _, bound, wrong in PUBLISHED.get(dataset, []):
            axes.plot(wrong, bound, marker="*", color=GREY, linestyle="none")
            notes.append((name, wrong, bound))
        for name, _, bound in ONLY_CERTIFICATE.get(dataset, []):
            axes.axhline(bound, color=GREY, lw=0.6, ls=":")
            place = {"xycoords": ("axes fraction", "data"), "xytext": (0, 2)}
            axes.annotate(name, (0.02, bound), **place, **NOTE)
        known = [(wrong, bound) for _, _, bound, wrong in PUBLISHED.get(dataset, [])]
        only = [bound for _, _, bound in ONLY_CERTIFICATE.get(dataset, [])]
        shown = mine[mine["certificate"] < 1]
        errors = [*shown["error_test"], *(wrong for wrong, _ in known)]
        bounds = [*shown["certificate"], *(bound for _, bound in known), *only]
        fit(axes, "x", errors)
        fit(axes, "y", bounds)
        for name, wrong, bound in notes:
            # Towards the middle, where there is room.
            left = wrong < (min(errors) * max(errors)) ** 0.5
            place = {"xytext": (3 if left else -3, 3), "ha": "left" if left else "right"}
            axes.annotate(name, (wrong, bound), **place, **NOTE)
        least, most = min(errors + bounds), max(errors + bounds)
        axes.plot([least, most], [least, most], color=GREY, lw=0.5, scalex=False, scaley=False)
        axes.set_title(dataset)
        axes.set_xlabel("test error (★ published, real-valued)")
    label_rows(panels, "certificate")
    names = {"gibbs": "randomised", "vote": "vote", "single": "one network", "mode": "the mode"}
    sizes = [
        Line2D([], [], ls="none", marker="o", ms=SIZES[p], mfc="none", color=GREY, label=names[p])
        for p in SIZES
    ]
    legend(figure, order, order, sizes, len(panels))
    return figure


def split_figure(table: pd.DataFrame) -> Figure:
    """Certificate against the share of the points that learn the prior."""
    datasets, order = list(table["dataset"].unique()), list(table["network"].unique())
    figure, (panels,) = make_panels(len(datasets), [1.0], height=2.6, share=False)
    for axes, dataset in zip(panels, datasets, strict=True):
        mine = table[(table["dataset"] == dataset) & (table["certificate"] < 1)]
        for (network, predictor), rows in mine.groupby(["network", "predictor"], sort=False):
            rows = rows.sort_values("prior_share")
            look = look_of(order, str(network))
            shares = rows["prior_share"]
            axes.plot(shares, rows["certificate"], **look, ls=LINES[str(predictor)], lw=0.9, ms=3)
            if (network, predictor) == ("random_features", "gibbs"):
                same = table[(table["dataset"] == dataset) & (table["network"] == network)]
                held_out = same.groupby("prior_share")["bound_holdout"].min()
                axes.plot(held_out.index, held_out, color=look["color"], lw=0.4, marker="_")
        fit(axes, "y", [*mine["certificate"], *_below_one(mine["bound_holdout"])])
        axes.set_title(dataset)
        axes.set_xlabel("share of the points in the prior split")
    label_rows(panels, "certificate")
    styles = [Line2D([], [], color=GREY, ls=ls, label=name) for name, ls in LINES.items()]
    styles.append(Line2D([], [], color=GREY, lw=0.4, marker="_", label="prior alone, its best"))
    legend(figure, order, order, styles, len(panels))
    return figure


def curves_figure(runs: pd.DataFrame, curves: dict[str, list[dict[str, Any]]]) -> Figure:
    """What training minimises, no certificate, and the training error, against the epoch."""
    runs = runs[runs["key"].isin(curves.keys()) & runs["prior_share"].isin([0.0, 0.05, 0.5])]
    datasets, order = list(runs["dataset"].unique()), list(runs["network"].unique())
    figure, (panels,) = make_panels(len(datasets), [1.0], height=2.6, share=False)
    for axes, dataset in zip(panels, datasets, strict=True):
        shown = runs[runs["dataset"] == dataset]
        values: list[float] = []
        for row in shown.to_dict("records"):
            look = line_of(order, row["network"]) | {"linestyle": SHARES[row["prior_share"]]}
            values += _curve(axes, curves[row["key"]], look)
        fit(axes, "y", values)
        axes.set_title(dataset)
        axes.set_xlabel("epoch")
    label_rows(panels, "training objective (thin: risk)")
    styles = [
        Line2D([], [], color=GREY, ls=ls, label=f"prior split {share:g}")
        for share, ls in SHARES.items()
    ]
    legend(figure, order, order, styles, len(panels), lines=True)
    return figure


def _below_one(values: pd.Series) -> list[float]:
    return [value for value in values if value < 1]


def _curve(axes: Axes, curve: list[dict[str, Any]], look: dict[str, Any]) -> list[float]:
    """Draw one curve, and hand back its values."""
    bounds = [point["objective"] for point in curve if "objective" in point]
    risks = [float(point.get("risk", point.get("y", 0.0))) for point in curve]
    epochs = range(1, len(curve) + 1)
    if bounds:
        axes.plot(epochs, bounds, **look, lw=0.9)
    axes.plot(epochs, risks, **look, lw=0.4)
    return [*_below_one(pd.Series(bounds)), *risks]
