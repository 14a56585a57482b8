"""The grid of a study: the row that a table prints of each method, and a picture of the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pbnn.reporting.drawing import (
    bars,
    draw_level,
    fit,
    label_rows,
    legend,
    level_key,
    look_of,
    make_panels,
    reach,
    save,
)

PAIR = ["dataset", "method"]
STEP, ROOM = 0.16, 0.7
"""Between neighbours at one tick, and for all of them, where ticks are 1 apart."""


def least(grid: pd.DataFrame, bound: str = "bound_gibbs") -> pd.DataFrame:
    """The configuration with the least mean bound of each data set and method, in their order.

    Where the configurations are priors, choosing among them must have been paid for in the bound.
    A method without bounds keeps its first configuration.

    Examples
    --------
    >>> frame = pd.DataFrame({"dataset": "a", "method": "b", "bound_gibbs": [0.3, 0.2]})
    >>> least(frame).index.tolist()
    [1]
    """
    order = grid.assign(bound=grid[bound].astype(float).fillna(float("inf")))
    chosen = order.sort_values("bound", kind="stable").drop_duplicates(PAIR)
    return grid.loc[chosen.index.sort_values()]


def constant_bounds(grid: pd.DataFrame, majority: str = "majority") -> pd.Series[float]:
    """The bound of the constant predictor by data set: one that is not below it is vacuous."""
    bounds = grid[grid["method"] == majority].set_index("dataset")["bound_gibbs"]
    return bounds.astype(float).dropna()


def bound_by_network(
    grid: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    majority: str = "majority",
    order: Sequence[str] | None = None,
) -> list[Path]:
    """Draw the bound of every configuration, one panel per data set, hidden widths along.

    Bars are standard deviations over seeds; the dotted line is the constant's bound, on and above
    which a bound is vacuous. Methods at one tick stand side by side.

    Parameters
    ----------
    grid : DataFrame
        From `pbnn.reporting.table` with ``by=("dataset", "method", "hidden")``.
    path : path
        The files' name without suffix.
    title : str, optional
    majority : str
        The method whose bound is the level of vacuity.
    order : sequence of str, optional
        All methods of a study, so that each looks the same in all its figures.

    Raises
    ------
    ValueError
        If no configuration has a bound.
    """
    bounded = grid["bound_gibbs"].notna() & grid["hidden"].astype(bool)
    drawn = grid[(grid["method"] != majority) & bounded]
    if drawn.empty:
        raise ValueError("`grid` must hold a bound, got none.")
    levels = constant_bounds(grid, majority)
    levels = levels[levels.index.isin(drawn["dataset"])]
    datasets = list(drawn["dataset"].unique())
    methods = list(drawn["method"].unique())
    networks = sorted(set(drawn["hidden"]), key=_size)
    places = list(order or methods)
    ends = bars(drawn["bound_gibbs"].astype(float), drawn["bound_gibbs_std"].fillna(0.0))
    drawn = drawn.assign(least=[low for low, _ in ends], most=[high for _, high in ends])
    drawn["x"] = _side_by_side(drawn, networks)

    def draw() -> Figure:
        figure, (panels,) = make_panels(len(datasets), [1.0], height=1.9)
        for axes, dataset in zip(panels, datasets, strict=True):
            axes.set_title(dataset)
            for method, rows in drawn[drawn["dataset"] == dataset].groupby("method", sort=False):
                look, bound = look_of(places, str(method)), rows["bound_gibbs"].astype(float)
                axes.errorbar(
                    rows["x"],
                    bound,
                    yerr=[bound - rows["least"], rows["most"] - bound],
                    linestyle="none",
                    marker=look["marker"],
                    color=look["color"],
                    markersize=3,
                )
            if dataset in levels:
                draw_level(axes, levels[dataset])
            fit(axes, "y", [*reach(ends), *levels])
            axes.set_xlim(-0.6, len(networks) - 0.4)
            axes.set_xlabel("hidden widths")
            axes.set_xticks(range(len(networks)), networks, rotation=45, fontsize="small")
        label_rows(panels, "bound")
        keys = [] if levels.empty else [level_key()]
        legend(figure, methods, places, keys, len(datasets))
        if title:
            figure.suptitle(title)
        return figure

    return save(draw, path)


def _side_by_side(drawn: pd.DataFrame, networks: Sequence[str]) -> pd.Series[float]:
    """Each row's place: its network's tick, around which the methods that have it stand."""
    same = drawn.groupby(["dataset", "hidden"])
    many = same["method"].transform("size")
    step = (ROOM / (many - 1).clip(lower=1)).clip(upper=STEP)
    ticks = drawn["hidden"].map(networks.index).astype(float)
    return ticks + step * (same.cumcount() - (many - 1) / 2)


def _size(hidden: str) -> tuple[int, ...]:
    """Depth, then widths; what is no list of widths, such as ``unit``, comes first."""
    parts = hidden.split("-")
    known = all(part.isdigit() for part in parts)
    return (len(parts), *map(int, parts)) if known else (0,)
