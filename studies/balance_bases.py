"""What the bases of an ABC-Net cost in time, memory and bits, and what accuracy they buy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from balance_runs import NETWORKS
from claims import interval
from common import write_tables
from matplotlib.figure import Figure
from measured import saved_bytes, timed
from recipes_studied import AXES, METHODS, SHARED, bases_of
from torch import Tensor, nn

from pbnn.binarize import base_scales, convert, count_operations, weight_bases
from pbnn.reporting.drawing import label_rows, legend, look_of, make_panels, save
from pbnn.seeding import generator

NAME = "bases"
IMAGES = {
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "digits": (1, 8, 8),
    "cifar10": (3, 32, 32),
}
"""Shape of an input."""
WEIGHTS = 1_000_000
"""Drawn from N(0, 1), to tell by how much so many bases miss them."""
COSTS = {
    "step": "time of a training step,\ntimes that of the fewest",
    "saved_megabytes": "kept for the gradient\nof a step, MB",
    "parameter_bits": "parameters, kbit",
    "binary": "binary operations\nof an image, 10⁶",
}
"""What is drawn, and its label."""
SCALE = {"parameter_bits": 1e-3, "binary": 1e-6}


def arms_of(frame: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Methods with bases, M and N."""
    return [(m, *sizes) for m in frame["method"].unique() if (sizes := bases_of(m))]


def write_costs(records: list[dict[str, Any]], folder: Path) -> None:
    """Measure and write bases.csv: for each image and network, one row for each M and N."""
    frame = pd.DataFrame([record["config"] for record in records])
    rows: list[dict[str, Any]] = []
    for (dataset, network), group in frame.groupby(["dataset", "network"], sort=False):
        if network in AXES and (arms := arms_of(group)):
            rows += costs(str(dataset), str(network), arms)
    if rows:
        write_tables(folder, **{NAME: pd.DataFrame(rows)})


def costs(dataset: str, network: str, arms: list[tuple[str, int, int]]) -> list[dict[str, Any]]:
    """Rows of one network: seconds and bytes of a step, bits, operations."""
    threads, image = torch.get_num_threads(), IMAGES[dataset]
    torch.set_num_threads(1)
    twin = NETWORKS[network](image, generator=generator(0, "costs"))
    x = torch.rand(SHARED["batch"], *image, generator=generator(0, "images"))
    y = torch.randint(10, (len(x),), generator=generator(0, "labels"))
    x = x.contiguous(memory_format=torch.channels_last)
    networks = {
        method: convert(twin, METHODS[method]).network.to(memory_format=torch.channels_last)  # type: ignore[arg-type, call-overload]
        for method, _, _ in arms
    }
    try:
        steps = timed({name: lambda n=n: step(n, x, y) for name, n in networks.items()})
    finally:
        torch.set_num_threads(threads)
    rows = []
    for method, m, n in arms:
        row = {"dataset": dataset, "network": network, "method": method, "M": m, "N": n}
        row["step_seconds"] = steps[method]
        row["saved_megabytes"] = (
            saved_bytes(networks[method].train(), lambda n=networks[method]: loss_of(n, x, y)) / 1e6
        )
        row |= count_operations(networks[method], image)._asdict()
        row["gaussian_error"] = gaussian_error(m)
        rows.append(row)
    return rows


def step(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """Forward and backward; what the optimiser does is the same for all."""
    loss_of(network.train(), x, y).backward()
    network.zero_grad(set_to_none=True)


def loss_of(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What a step minimises."""
    return F.cross_entropy(network(x), y)


def gaussian_error(bases: int) -> float:
    """Of N(0, 1): the squared norm of what so many bases miss, by that of the weights."""
    weight = torch.randn(1, WEIGHTS, generator=generator(0, "gaussian"), dtype=torch.float64)
    signs = weight_bases(weight, bases)
    rest = weight - torch.tensordot(base_scales(weight, signs), signs, dims=1)
    return float(rest.square().sum() / weight.square().sum())


def draw_costs(frame: pd.DataFrame, folder: Path) -> None:
    """The figure: accuracy against each cost, a row of panels for each data set."""
    if (path := folder / f"{NAME}.csv").exists():
        table = pd.read_csv(path)
        save(lambda: figure_of(frame, table), folder / NAME)


def figure_of(frame: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Test accuracy with 95% intervals against time, memory, bits and operations."""
    panels = [
        (where, cost)
        for where, _ in table.groupby(["dataset", "network"], sort=False)
        for cost in COSTS
    ]
    figure, (axes_of,) = make_panels(len(panels), [1.0], height=2.2, share=False, across=len(COSTS))
    order = [f"N = {n}" for n in sorted(table["N"].unique())]
    for axes, ((dataset, network), cost) in zip(axes_of, panels, strict=True):
        of = table[(table["dataset"] == dataset) & (table["network"] == network)]
        one = of.sort_values(["M", "N"])["step_seconds"].iloc[0]
        of = of.assign(step=of["step_seconds"] / one)
        for n, mine in of.groupby("N"):
            look = look_of(order, f"N = {n}")
            x, y, half = [], [], []
            for row in mine.sort_values("M").to_dict("records"):
                runs = frame[(frame["dataset"] == dataset) & (frame["method"] == row["method"])]
                mean, spread = interval(100 * runs["accuracy"])
                x.append(row[cost] * SCALE.get(cost, 1.0))
                y.append(mean)
                half.append(0.0 if spread == float("inf") else spread)
                axes.annotate(
                    str(row["M"]), (x[-1], mean), (3, 2), textcoords="offset points", fontsize=5
                )
            axes.errorbar(x, y, yerr=half, capsize=1.5, linewidth=0.7, **look)
        axes.set_xlabel(COSTS[cost])
        axes.set_title(dataset)
        if cost == "binary":
            axes.set_xscale("log")
    label_rows(axes_of, "test accuracy, %")
    legend(figure, order, order, [], len(COSTS))
    return figure
