"""The grid of a study: the row that a table prints of each method, and a picture of the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pbnn.reporting.drawing import GREY, fit, label_rows, legend, look_of, make_panels, save

PAIR = ["dataset", "method"]


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


def bound_by_network(
    grid: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    majority: str = "majority",
    order: Sequence[str] | None = None,
) -> list[Path]:
    """Draw the bound of every configuration, one panel per data set, hidden widths along.

    Bars are standard deviations over seeds; the dotted line is the constant's bound.

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
    levels = grid[grid["method"] == majority].set_index("dataset")["bound_gibbs"].dropna()
    datasets = list(drawn["dataset"].unique())
    methods = list(drawn["method"].unique())
    networks = sorted(set(drawn["hidden"]), key=_size)
    places = list(order or methods)

    def draw() -> Figure:
        figure, (panels,) = make_panels(len(datasets), [1.0], height=1.9)
        for axes, dataset in zip(panels, datasets, strict=True):
            axes.set_title(dataset)
            mine = drawn[drawn["dataset"] == dataset]
            for place, (method, rows) in enumerate(mine.groupby("method", sort=False)):
                look = look_of(places, str(method))
                # Side by side, so that methods that agree do not hide each other.
                shift = 0.5 * (place / max(mine["method"].nunique() - 1, 1) - 0.5)
                axes.errorbar(
                    [networks.index(name) + shift for name in rows["hidden"]],
                    rows["bound_gibbs"].astype(float),
                    yerr=rows["bound_gibbs_std"].fillna(0.0).astype(float),
                    linestyle="none",
                    marker=look["marker"],
                    color=look["color"],
                    markersize=3,
                )
            if dataset in levels:
                axes.axhline(levels[dataset], color=GREY, linestyle=":", linewidth=0.9)
            fit(axes, "y", [*drawn["bound_gibbs"].astype(float), *levels])
            axes.set_xticks(range(len(networks)), networks, rotation=45, fontsize="small")
        label_rows(panels, "bound")
        legend(figure, methods, places, [], len(datasets))
        if title:
            figure.suptitle(title)
        return figure

    return save(draw, path)


def _size(hidden: str) -> tuple[int, ...]:
    """Depth, then widths; what is no list of widths, such as ``unit``, comes first."""
    parts = hidden.split("-")
    known = all(part.isdigit() for part in parts)
    return (len(parts), *map(int, parts)) if known else (0,)
