"""Figures: bounds against errors, and learning curves, as PDF, SVG and PNG."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pbnn.reporting.drawing import (
    GREY,
    bars,
    draw_level,
    fit,
    label_rows,
    legend,
    level_key,
    line_of,
    look_of,
    make_panels,
    reach,
    save,
)
from pbnn.reporting.grids import constant_bounds


def bound_vs_error(
    frame: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    majority: str = "majority",
    order: Sequence[str] | None = None,
) -> list[Path]:
    """Draw each bound against the test error of the same predictor, one panel per data set.

    Filled markers are randomised networks (``bound_gibbs`` against ``gibbs_test``), hollow ones
    votes (``bound_vote`` against ``error_test``); bars are standard deviations over seeds. Below
    the diagonal a test error exceeds its bound; on and above the dotted line, the bound of the
    constant predictor, a bound is vacuous.

    Parameters
    ----------
    frame : DataFrame
        From `pbnn.reporting.table`.
    path : path
        The files' name without suffix.
    title : str, optional
        Printed above the panels.
    majority : str
        The method whose bound is the level of vacuity; it has no marker.
    order : sequence of str, optional
        All methods of a study, so that each looks the same in all its figures.

    Returns
    -------
    list of Path
        The PDF, the SVG and the PNG.

    Raises
    ------
    ValueError
        If no row has a bound with the test error of its predictor.
    """
    pairs = _pairs(frame[frame["method"] != majority])
    if pairs.empty:
        raise ValueError("`frame` must hold a bound and its test error, got none.")
    levels = constant_bounds(frame, majority)
    levels = levels[levels.index.isin(pairs["dataset"])]
    datasets, methods = _unique(pairs["dataset"]), _unique(pairs["method"])
    places = list(order or methods)
    errors = reach(zip(pairs["error_least"], pairs["error_most"], strict=True))
    bounds = reach(zip(pairs["bound_least"], pairs["bound_most"], strict=True))
    # The largest test error among the bounds, so that the diagonal is in sight.
    bounds += [*levels, pairs["error"].max()]

    def draw() -> Figure:
        figure, (panels,) = make_panels(len(datasets), [1.0], height=1.9)
        for axes, dataset in zip(panels, datasets, strict=True):
            axes.set_title(dataset)
            _draw_pairs(axes, pairs[pairs["dataset"] == dataset], places)
            fit(axes, "x", errors)
            fit(axes, "y", bounds)
            _draw_diagonal(axes, [*errors, *bounds])
            if dataset in levels:
                draw_level(axes, levels[dataset])
            axes.set_xlabel("test error")
        label_rows(panels, "bound")
        legend(figure, methods, places, _pair_keys(pairs, not levels.empty), len(datasets))
        if title:
            figure.suptitle(title)
        return figure

    return save(draw, path)


def _pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """Long form: one row per predictor with a bound and the test error of that predictor."""
    parts = []
    for kind, error, bound in (
        ("randomised", "gibbs_test", "bound_gibbs"),
        ("vote", "error_test", "bound_vote"),
    ):
        part = frame[["dataset", "method"]].copy()
        part["kind"] = kind
        for name, column in (("error", error), ("bound", bound)):
            part[name] = frame[column].astype(float)
            ends = bars(part[name], frame[f"{column}_std"].fillna(0.0).astype(float))
            part[f"{name}_least"], part[f"{name}_most"] = zip(*ends, strict=True)
        parts.append(part)
    return pd.concat(parts).dropna(subset=["error", "bound"])


def _draw_pairs(axes: Axes, pairs: pd.DataFrame, methods: Sequence[str]) -> None:
    for row in pairs.to_dict("records"):
        look = look_of(methods, row["method"])
        axes.errorbar(
            row["error"],
            row["bound"],
            xerr=_bar(row, "error"),
            yerr=_bar(row, "bound"),
            marker=look["marker"],
            color=look["color"],
            markerfacecolor=look["color"] if row["kind"] == "randomised" else "white",
            linestyle="none",
            elinewidth=0.7,
            zorder=3,
        )


def _bar(row: Mapping[Any, Any], name: str) -> list[list[float]] | None:
    """How far an error bar reaches down and up; None if it does not."""
    down, up = row[name] - row[f"{name}_least"], row[f"{name}_most"] - row[name]
    return [[down], [up]] if down or up else None


def _draw_diagonal(axes: Axes, values: Sequence[float]) -> None:
    """The line bound = test error, point by point: with a zero it bends on mixed axes."""
    positive = [value for value in values if value > 0]
    line = [0.0, *np.geomspace(min(positive) / 10, 10 * max(positive), 300)]
    axes.plot(line, line, color=GREY, linewidth=0.8, zorder=1, scalex=False, scaley=False)


def _pair_keys(pairs: pd.DataFrame, vacuity: bool) -> list[Line2D]:
    keys = []
    for kind, face in (("randomised", GREY), ("vote", "white")):
        if kind in set(pairs["kind"]):
            keys.append(
                Line2D(
                    [],
                    [],
                    linestyle="none",
                    marker="o",
                    color=GREY,
                    markerfacecolor=face,
                    label=f"{kind} network" if kind == "randomised" else kind,
                )
            )
    keys.append(Line2D([], [], color=GREY, linewidth=0.8, label="bound = test error"))
    return [*keys, level_key()] if vacuity else keys


def learning_curves(
    records: Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    order: Sequence[str] | None = None,
) -> list[Path]:
    """Draw objective (solid) and risk (dashed) against epochs, the KL below, by data set.

    Lines are means over seeds, shades reach from the smallest to the largest; both end where the
    first seed of a method stops, at a marker.

    Parameters
    ----------
    records : iterable of mappings
        Each with ``config`` (``dataset``, ``method``) and ``curve``, a list of points with
        ``epoch``, ``objective``, ``risk`` and, where a bound is trained, ``kl``; those without a
        curve are left out. The objective of a bound is an estimate during training, and no
        certificate.
    path : path
        The files' name without suffix.
    title : str, optional
        Printed above the panels.
    order : sequence of str, optional
        All methods of a study, so that each looks the same in all its figures.

    Returns
    -------
    list of Path
        The PDF, the SVG and the PNG.

    Raises
    ------
    ValueError
        If no record has a curve.
    """
    curves = _curves(records)
    if curves.empty:
        raise ValueError("`records` must hold a curve, got none.")
    datasets, methods = _unique(curves["dataset"]), _unique(curves["method"])
    places = list(order or methods)
    risks = [*curves["objective"].dropna(), *curves["risk"].dropna()]

    def draw() -> Figure:
        figure, (top, bottom) = make_panels(len(datasets), [2.2, 1.0], height=2.5)
        for column, dataset in enumerate(datasets):
            of_dataset = curves[curves["dataset"] == dataset]
            top[column].set_title(dataset)
            for method in _unique(of_dataset["method"]):
                look = line_of(places, method)
                every = _every(of_dataset["epoch"].nunique(), places.index(method))
                runs = of_dataset[of_dataset["method"] == method]
                _draw_range(top[column], runs, "objective", look, "-", every)
                _draw_range(top[column], runs, "risk", look, "--", every)
                _draw_range(bottom[column], runs, "kl", look, "-", every)
            fit(top[column], "y", risks)
            bottom[column].set_xlabel("epoch")
            bottom[column].xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for row, label in ((top, "objective, risk"), (bottom, "KL")):
            label_rows(row, label)
        figure.align_ylabels()
        styles = [
            Line2D([], [], color=GREY, linestyle="-", label="training objective"),
            Line2D([], [], color=GREY, linestyle="--", label="risk"),
        ]
        legend(figure, methods, places, styles, len(datasets), lines=True)
        if title:
            figure.suptitle(title)
        return figure

    return save(draw, path)


def _curves(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    rows = [
        {"dataset": record["config"]["dataset"], "method": record["config"]["method"], "run": run}
        | {name: point.get(name) for name in ("epoch", "objective", "risk", "kl")}
        for run, record in enumerate(records)
        for point in record.get("curve") or ()
    ]
    columns = ["dataset", "method", "run", "epoch", "objective", "risk", "kl"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype(dict.fromkeys(columns[3:], float))


def _every(epochs: int, place: int) -> tuple[int, int]:
    """First point with a marker, and every which: at other epochs than its neighbours' in order."""
    step = max(epochs // 6, 1)
    return step * (place % 5) // 5, step


def _draw_range(
    axes: Axes,
    runs: pd.DataFrame,
    name: str,
    look: dict[str, Any],
    style: str,
    every: tuple[int, int],
) -> None:
    by_epoch = runs.dropna(subset=[name]).groupby("epoch")[name]
    shown = by_epoch.agg(["mean", "min", "max", "size"])
    shown = shown[shown["size"] == runs["run"].nunique()]
    start, step = every
    # One where a line ends: that of a few epochs would not be seen without.
    marked = [*range(start, len(shown) - 1 - step // 2, step), *range(len(shown))[-1:]]
    axes.plot(shown.index, shown["mean"], **look | {"markevery": marked}, linestyle=style)
    shade = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
    axes.fill_between(shown.index, shown["min"], shown["max"], **shade)


def _unique(values: pd.Series[str]) -> list[str]:
    return [str(value) for value in values.unique()]
