"""What all figures share: panels, scales, legends and files that are the same on every run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from pbnn.files import atomic

STYLE = Path(__file__).parents[1] / "pbnn.mplstyle"
NARROW, WIDE = 3.25, 6.75
MARKERS = "osD^vPX*<>h"
GREY = "0.35"
LEVEL: Mapping[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 0.9}
# Without dates and versions, the same figure is the same file.
METADATA: Mapping[str, dict[str, Any]] = {
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
    ".png": {"Software": None},
}


def make_panels(
    count: int,
    heights: Sequence[float],
    height: float,
    *,
    share: bool = True,
    across: int | None = None,
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with bands of three or four panels, or `across`; of `heights`, their axes in order.

    All panels of the first height `share` their vertical axis.
    """
    across = across or (count if count <= 4 else 3)
    bands = -(-count // across)
    width = NARROW if count == 1 else WIDE
    figure = Figure(figsize=(width, 0.75 + bands * height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(bands * len(heights), across, height_ratios=[*heights] * bands)
    rows: list[list[Axes]] = [[] for _ in heights]
    for index in range(count):
        band, column = divmod(index, across)
        for level, row in enumerate(rows):
            axes = figure.add_subplot(
                grid[band * len(heights) + level, column],
                sharex=rows[0][index] if level else None,
                sharey=row[0] if share and row and level == 0 else None,
            )
            if level < len(heights) - 1:
                axes.tick_params(labelbottom=False)
            if share and column and level == 0:
                axes.tick_params(labelleft=False)
            row.append(axes)
    return figure, rows


def label_rows(axes_row: Iterable[Axes], text: str) -> None:
    """Label the vertical axis of the first panel of each band."""
    for axes in axes_row:
        place = axes.get_subplotspec()
        if place is not None and place.is_first_col():
            axes.set_ylabel(text)


def fit(axes: Axes, name: str, values: Sequence[float]) -> None:
    """Limits and ticks for all values: logarithmic if they span much, down to a zero if need be."""
    positive = [value for value in values if value > 0]
    if not positive or max(positive) < 4 * min(positive):
        pad = 0.08 * ((max(values) - min(values)) or 1.0)
        getattr(axes, f"set_{name}lim")(min(values) - pad, max(values) + pad)
        return
    low, high = min(positive), max(positive)
    first, ticks = low / 1.3, _ticks(low / 1.3, high * 1.3)
    if min(values) <= 0:
        getattr(axes, f"set_{name}scale")("symlog", linthresh=low, linscale=0.5)
        first, ticks = -low / 4, [0.0, *(tick for tick in ticks if tick >= low)]
    else:
        getattr(axes, f"set_{name}scale")("log")
    getattr(axes, f"set_{name}lim")(first, high * 1.3)
    axis = getattr(axes, f"{name}axis")
    axis.set_ticks(ticks, labels=_tick_labels(ticks))
    axis.set_minor_locator(NullLocator())


def _ticks(low: float, high: float) -> list[float]:
    """At most five of the series 1, 2, 5, or, over many decades, some powers of ten."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for series in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{digit}e{decade}") for decade in decades for digit in series]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 5:
            return ticks
    return ticks[:: -(-len(ticks) // 5)]


def _tick_labels(ticks: Sequence[float]) -> list[str]:
    """Plain numbers, or, if one of them is long, all but 0 as digits and powers of ten."""
    if all(tick == 0 or 1e-4 <= tick < 1e5 for tick in ticks):
        return [f"{tick:g}" for tick in ticks]
    labels = []
    for tick in ticks:
        digit, power = f"{tick:.0e}".split("e")
        times = "" if digit == "1" else rf"{digit} \times "
        labels.append(f"${times}10^{{{int(power)}}}$" if tick else "0")
    return labels


def bars(values: Iterable[float], spreads: Iterable[float]) -> list[tuple[float, float]]:
    """The ends of error bars of what is never negative.

    Examples
    --------
    >>> bars([0.5, 0.5], [0.25, 0.75])
    [(0.25, 0.75), (0.0, 1.25)]
    """
    pairs = zip(values, spreads, strict=True)
    return [(max(value - spread, 0.0), value + spread) for value, spread in pairs]


def reach(ends: Iterable[tuple[float, float]]) -> list[float]:
    """What `fit` shows of error bars: one that nearly ends at 0 does, lest a scale run after it.

    Examples
    --------
    >>> reach([(0.25, 0.75), (0.001, 0.999)])
    [0.25, 0.75, 0.0, 0.999]
    """
    return [end for low, high in ends for end in (low if low > high / 20 else 0.0, high)]


def draw_level(axes: Axes, level: float) -> None:
    """The dotted line of the constant predictor's bound: on it and above a bound is vacuous."""
    axes.axhline(level, **LEVEL)


def level_key() -> Line2D:
    """What the legend says of that line."""
    return Line2D([], [], **LEVEL, label="bound of the constant")


def look_of(order: Sequence[str], method: str) -> dict[str, str]:
    """Colour and marker of a method, by its place in an order: the same in all panels."""
    index = order.index(method)
    colors = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return {"color": colors[index % len(colors)], "marker": MARKERS[index % len(MARKERS)]}


def line_of(order: Sequence[str], method: str) -> dict[str, Any]:
    """The look of a long line, with a few of its markers, at other places than its neighbours'."""
    places = (0.03 * (order.index(method) % 5), 0.15)
    return look_of(order, method) | {"markersize": 2.5, "markevery": places}


def legend(
    figure: Figure,
    methods: Sequence[str],
    order: Sequence[str],
    others: list[Line2D],
    panels: int,
    lines: bool = False,
) -> None:
    """One legend below all panels, where it covers nothing."""
    handles = []
    for method in methods:
        style = line_of(order, method) if lines else look_of(order, method)
        handles.append(Line2D([], [], **style, linestyle="-" if lines else "none", label=method))
    columns = 2 if panels == 1 else 5
    figure.legend(handles=handles + others, loc="outside lower center", ncols=columns)


def save(draw: Callable[[], Figure], path: str | os.PathLike[str]) -> list[Path]:
    """Draw under the style alone, whatever the user's settings, and write each format."""
    stem = Path(path)
    paths = [stem.with_name(stem.name + suffix) for suffix in METADATA]
    with matplotlib.style.context(["default", STYLE]):
        figure = draw()
        for target in paths:
            with atomic(target) as part:
                figure.savefig(part, metadata=METADATA[target.suffix])
    return paths
