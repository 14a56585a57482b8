"""Estimators of the gradient of a network of signs side by side, and one of its output.

Part one, `gradients`: bias and variance of the estimators in `pbnn.gradients` against the number T
of draws, on a fixed batch of real images, for two widths, before and after a short training.

Part two, `bias`: the layerwise estimate of a deeper network's output. It draws T signs of a layer
from the estimated means of the layer below, all T from the same ones. With T = 1 this is a draw of
the network, and so unbiased for its mean output (`ABNet`); as T grows it goes to the tree, whose
units do not share what is below them (`PBGNet`); in between it is the mean of neither.

    python studies/estimators.py                  # reports/estimators, about 75 s on one core
    python studies/estimators.py --workers 2      # the same bytes, on two processes
    python studies/estimators.py --redraw         # tables and figure again, from the CSVs
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from cells import KEPT, Runs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tabulate import tabulate
from torch import Tensor

from pbnn.data import DataUnavailable, Task, embedded_twin, load, load_once, split
from pbnn.environment import environment
from pbnn.files import read_json, write_atomic, write_json
from pbnn.functional import sample_signs
from pbnn.gradients import ESTIMATORS, Gradient, exact
from pbnn.networks import ABNet, PBGNet
from pbnn.objectives import RiskObjective
from pbnn.reporting.drawing import GREY, fit, label_rows, legend, look_of, make_panels, save
from pbnn.seeding import generator
from pbnn.study import command_of, run_study
from pbnn.sweep import Cell, cell_key
from pbnn.training import FitConfig
from pbnn.training import fit as train

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "estimators"
CAPTIONS = {
    "gradients": "Bias and variance of estimators of the gradient against the number of draws, "
    "relative to the exact gradient; hollow where the bias is zero within 5 standard errors.",
}
"""What its figures show."""
SCHEMA_VERSION = 1
FOLDERS = ("data_dir", "offline", *KEPT)

SAMPLED = ("reinforce", "reinforce_baseline", "straight_through", "conditional")
DRAWS = (1, 2, 10, 100, 1000)
WIDTHS = (4, 10)
STATES = ("initial", "trained")
TRAINING = FitConfig(epochs=3, batch=64, learning_rate=0.03)
SIGNIFICANT = 5.0
"""Standard errors from zero beyond which a bias is drawn as one."""

DEEP = (5, 4, 4)
"""Inputs and hidden widths of the deeper networks, which have one output."""
DEEP_SCALE = 2.0
DEEP_CANDIDATES = 200
DEEP_SHOWN = 4
DEEP_DRAWS = (1, 10, 100, 1000)
ROWS_AT_ONCE = 50_000


@dataclass(frozen=True)
class Config(Runs):
    """What to run, on what, and where to write it."""

    dataset: str = "mnist17"
    """Two-class task of the first part; its 8x8 twin where MNIST cannot be had."""
    points: int = 48
    """Points of the batch whose gradient is estimated."""
    replications: int = 500
    """Independent estimates behind a bias and a variance."""
    deep_draws: int = 2_000_000
    """Draws behind each estimate of a deeper network's output."""
    seed: int = 0
    """Of weights, batches and draws."""
    data_dir: Path | None = None
    """Folder with mnist/…; by default $PBNN_DATA, then the cache, then a download."""
    offline: bool = False
    """Do not try to download."""
    out: Path | None = None
    """Output folder; by default reports/estimators, with the ending _digits on the twin."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("points", 1), ("replications", 2), ("seed", 0)):
            got = getattr(self, field)
            if got < least:
                raise ValueError(f"`{field}` must be at least {least}, got {got}.")
        if self.deep_draws < 2 * max(DEEP_DRAWS):
            raise ValueError(
                f"`deep_draws` must be at least {2 * max(DEEP_DRAWS)}, got {self.deep_draws}."
            )
        if not self.dataset.startswith(("mnist", "digits")):
            raise ValueError(f"`dataset` must be a task of digits, got {self.dataset!r}.")
        embedded_twin(self.dataset)  # A misspelt name is an error here, before anything is read.


def gradient_cells(config: Config, task: Task) -> list[Cell]:
    """A cell for each network whose gradient is estimated."""
    if set(np.unique(task.y)) != {-1, 1}:
        raise ValueError(f"`dataset` must name a two-class task, got {config.dataset!r}.")
    shared = {"dataset": task.name, "draws": list(DRAWS), "seed": config.seed}
    shared |= {"points": config.points, "replications": config.replications}
    cells = [
        shared | {"method": f"{state}, {width} wide", "width": width, "state": state}
        for width in WIDTHS
        for state in STATES
    ]
    return [Cell(cell_key(cell, {"sha256": task.sha256}), cell) for cell in cells]


def run_gradients(
    cell: dict[str, Any], data_dir: Path | None = None, offline: bool = False
) -> dict[str, Any]:
    """Bias and variance of each estimator at one network, for each number of draws."""
    torch.set_num_threads(1)
    task = load_once(cell["dataset"], data_dir, offline)
    index = split(task).certification
    seed, width, state = (cell[name] for name in ("seed", "width", "state"))
    x, y = (torch.from_numpy(a[index]).double() for a in (task.x, task.y))
    chosen = torch.randperm(len(x), generator=generator(seed, "points"))[: cell["points"]]
    network = network_of(seed, width, state, x, y)
    hidden, output = (layer.weight.mean.detach() for layer in network.layers())
    batch = network.features(x[chosen]), y[chosen]
    truth = exact(hidden, output, *batch, 1, generator(seed, "unused"))
    rows = []
    for name, draws in settings(cell["draws"]):
        # The same for all estimators, so that they see the same signs.
        source = generator(seed, "draws", state, width, draws)
        estimates = [
            ESTIMATORS[name](hidden, output, *batch, max(draws, 1), source)
            for _ in range(cell["replications"] if draws else 1)
        ]
        about = {"width": width, "state": state, "estimator": name, "draws": draws}
        rows += [about | row for row in summaries(estimates, truth)]
    return {"rows": rows}


def network_of(seed: int, width: int, state: str, x: Tensor, y: Tensor) -> PBGNet:
    """A network as it is initialised, or trained for a few passes by its exact Gibbs risk."""
    source = generator(seed, "weights", width)
    network = PBGNet(x[0].numel(), (width,), shift=x.mean(), generator=source, dtype=torch.float64)
    if state == "trained":
        batches = generator(seed, "batches", width)
        train(RiskObjective(network), x, y, TRAINING, generator=batches)
    return network


def settings(numbers: list[int]) -> Iterator[tuple[str, int]]:
    """Every estimator with its numbers of draws; 0 for what does not sample."""
    yield "mean_field", 0
    for name in SAMPLED:
        for draws in numbers[1 if name == "reinforce_baseline" else 0 :]:
            yield name, draws


def summaries(estimates: list[Gradient], truth: Gradient) -> Iterator[dict[str, Any]]:
    """Relative bias and variance for the weights of each layer."""
    for layer, exact_part in truth._asdict().items():
        parts = torch.stack([getattr(estimate, layer).flatten() for estimate in estimates])
        yield {"layer": layer, "replications": len(parts)} | summary(parts, exact_part.flatten())


def summary(estimates: Tensor, truth: Tensor) -> dict[str, float]:
    r"""Relative bias and variance of estimates, one a row.

    With R estimates, mean error e and total variance V: ``bias`` is ‖e‖/‖truth‖, ``bias_se`` the
    root mean square √(V/R)/‖truth‖ that chance alone would give it, ``bias_z`` the unbiased
    estimate ‖e‖² − V/R of the squared bias in standard errors of an unbiased estimator, and
    ``variance`` is V/‖truth‖². A single estimate is deterministic and has no ``bias_z``.
    """
    count, scale = len(estimates), float(truth.norm())
    bias = float((estimates.mean(0) - truth).norm()) / scale
    if count == 1:
        return {"bias": bias, "bias_se": 0.0, "variance": 0.0}
    centred = estimates - estimates.mean(0)
    gram = centred @ centred.T / scale**2
    variance = float(gram.trace()) / (count - 1)
    # The squared bias is a mean over pairs of different replications of their errors' product.
    squares = (gram.square().sum() - gram.diagonal().square().sum()) / (count * (count - 1))
    error = math.sqrt(2 * float(squares) / (count * (count - 1)))
    return {
        "bias": bias,
        "bias_se": math.sqrt(variance / count),
        "bias_z": (bias**2 - variance / count) / error,
        "variance": variance,
    }


def exact_rows(seed: int) -> tuple[list[dict[str, Any]], list[int]]:
    """Mean outputs of deeper networks, and those networks where the tree is furthest off."""
    pairs = [deep_networks(seed, index) for index in range(DEEP_CANDIDATES)]
    values = torch.stack([torch.cat([tree(x), chain(x)]) for tree, chain, x in pairs])
    rows: list[dict[str, Any]] = []
    for index, (of_tree, of_network) in enumerate(values.tolist()):
        rows.append({"network": index, "quantity": "tree", "value": of_tree})
        rows.append({"network": index, "quantity": "network", "value": of_network})
    gaps = (values[:, 1] - values[:, 0]).abs()
    return rows, gaps.argsort(descending=True)[:DEEP_SHOWN].tolist()


def bias_cells(config: Config, networks: list[int]) -> list[Cell]:
    """A cell for each deeper network whose output is estimated."""
    shared = {"deep_draws": config.deep_draws, "draws": list(DEEP_DRAWS), "seed": config.seed}
    cells = [shared | {"method": f"deep {index}", "network": index} for index in networks]
    return [Cell(cell_key(cell, {}), cell) for cell in cells]


def run_bias(cell: dict[str, Any]) -> dict[str, Any]:
    """Estimates of one deeper network's output."""
    torch.set_num_threads(1)
    seed, index, total = cell["seed"], cell["network"], cell["deep_draws"]
    tree, chain, x = deep_networks(seed, index)
    source, rows = generator(seed, "layerwise", index), []
    for draws in cell["draws"]:
        estimates = layerwise(tree, x, draws, total // draws, source)
        about = {"network": index, "quantity": "layerwise", "draws": draws}
        rows.append(about | mean_and_error(estimates))
    estimates = chains(chain, x, total, generator(seed, "chains", index))
    about = {"network": index, "quantity": "chains", "draws": 1}
    return {"rows": [*rows, about | mean_and_error(estimates)]}


@torch.no_grad()
def deep_networks(seed: int, index: int) -> tuple[PBGNet, ABNet, Tensor]:
    """A tree and a network of the same weights, normal times `DEEP_SCALE`, and a normal input."""
    source = generator(seed, "deep", index)
    in_features, *hidden = DEEP
    tree = PBGNet(in_features, hidden, generator=source, dtype=torch.float64)
    chain = ABNet(in_features, hidden, generator=source, dtype=torch.float64)
    for one, other in zip(tree.layers(), chain.layers(), strict=True):
        one.weight.mean.normal_(0.0, DEEP_SCALE, generator=source)
        other.weight.mean.copy_(one.weight.mean)
    x = torch.randn(1, in_features, generator=source, dtype=torch.float64)
    return tree.requires_grad_(False), chain.requires_grad_(False), x


def layerwise(
    network: PBGNet, x: Tensor, draws: int, replications: int, source: torch.Generator
) -> Tensor:
    """Replications of the layerwise estimate of F(x): T signs a layer, all from the same means."""
    first, *rest = network.layers()
    known = first.activation(network.features(x)).mean
    results = []
    for portion in torch.arange(replications).split(max(1, ROWS_AT_ONCE // draws)):
        means = known.expand(len(portion), -1)
        for layer in rest:
            signs = sample_signs(means.expand(draws, *means.shape), source)
            means = layer.activation(signs).mean.mean(0)
        results.append(means.squeeze(-1))
    return torch.cat(results)


def chains(network: ABNet, x: Tensor, count: int, source: torch.Generator) -> Tensor:
    """Outputs of independent draws of the whole network, the last layer averaged."""
    means = network.hidden_moments(x).mean
    portions = torch.arange(count).split(ROWS_AT_ONCE)
    return torch.cat(
        [network.sample_mean(means.expand(len(part), -1), source) for part in portions]
    )


def mean_and_error(values: Tensor) -> dict[str, float]:
    """Mean of independent values and its standard error."""
    return {"value": values.mean().item(), "error": values.std().item() / math.sqrt(len(values))}


def task_of(config: Config) -> tuple[Task, bool]:
    """The task, and whether bundled digits stand in for MNIST, which could not be had."""
    try:
        return load(config.dataset, config.data_dir, config.offline), False
    except DataUnavailable as error:
        print(
            f"{error}\n\nGoing on with scikit-learn's bundled 8x8 digits instead: "
            "what follows is NOT MNIST.\n"
        )
    return load(embedded_twin(config.dataset), config.data_dir, config.offline), True


def folder_of(config: Config, substitute: bool) -> Path:
    """Where to write."""
    return config.out or REPORTS / (f"{NAME}_digits" if substitute else NAME)


def rows_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all records."""
    return [row for record in records for row in record["rows"]]


def study(config: Config) -> Path:
    """Run both parts, or only draw them; returns the folder."""
    if config.redraw:
        folders = [folder_of(config, substitute) for substitute in (False, True)]
        folder = next((f for f in folders if (f / "study.json").exists()), folders[0])
        draw(folder)
        return folder
    torch.set_num_threads(1)
    task, substitute = task_of(config)
    folder = folder_of(config, substitute)
    known, furthest = exact_rows(config.seed)
    gradients, bias = gradient_cells(config, task), bias_cells(config, furthest)
    config.announce([*gradients, *bias], folder)
    one = functools.partial(run_gradients, data_dir=config.data_dir, offline=config.offline)
    parts = {
        "gradients": rows_of(config.run(gradients, one, folder)),
        "bias": known + rows_of(config.run(bias, run_bias, folder)),
    }
    for part, rows in parts.items():
        frame = pd.DataFrame(rows)
        frame["draws"] = frame["draws"].astype("Int64")
        write_atomic(folder / f"{part}.csv", frame.to_csv(index=False, lineterminator="\n"))
    described: dict[str, Any] = {"dataset": task.name, "sha256": task.sha256}
    described |= {name: getattr(config, name) for name in ("points", "replications", "seed")}
    described |= {
        "deep_draws": config.deep_draws,
        "command": command_of(config, f"studies/{NAME}.py", FOLDERS),
    }
    write_json(
        folder / "study.json", {"schema_version": SCHEMA_VERSION} | described | environment()
    )
    draw(folder)
    return folder


def draw(folder: Path) -> None:
    """Tables and figure of a folder, from its CSV files alone."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    gradients = pd.read_csv(folder / "gradients.csv")
    write_atomic(folder / "gradients.md", gradient_tables(gradients, about))
    draw_gradients(gradients, about, folder / "gradients")
    write_atomic(folder / "bias.md", bias_table(pd.read_csv(folder / "bias.csv"), about))
    for part in ("gradients", "bias"):
        print((folder / f"{part}.md").read_text(encoding="utf-8"))


def gradient_tables(frame: pd.DataFrame, about: dict[str, Any]) -> str:
    """Relative bias and variance in the hidden weights, in Markdown."""
    hidden = frame[frame["layer"] == "hidden"]
    bias = hidden.assign(
        cell=[
            f"{row.bias:.4f}" + (f" ± {row.bias_se:.4f}" if row.draws else "")
            for row in hidden.itertuples()
        ]
    )
    variance = hidden.assign(cell=[f"{value:.4g}" for value in hidden["variance"]])
    output = frame[(frame["layer"] == "output") & (frame["estimator"] == "mean_field")]
    of_output = [f"{row.bias:.4f} ({row.state}, h = {row.width})" for row in output.itertuples()]
    return (
        "Bias of each estimator of the gradient in the hidden weights: norm of the mean error over "
        f"{about['replications']} replications, relative to the norm of the exact gradient, on "
        f"{about['points']} points of {about['dataset']}. ±: the root mean square that chance "
        "alone would give this norm, so that an estimator without bias shows about its ±. "
        "`conditional` is `reinforce` computed in closed form, on the same draws.\n\n"
        f"{wide(bias)}\n\n"
        "Variance, summed over the weights and relative to the squared norm of the exact "
        "gradient.\n\n"
        f"{wide(variance[variance['draws'] > 0])}\n\n"
        "In the output weights what samples is one and the same unbiased average; the bias of "
        f"`mean_field` is {', '.join(of_output)}.\n"
    )


def wide(frame: pd.DataFrame) -> str:
    """One row an estimator and T, one column a network."""
    cells = frame.pivot(index=["estimator", "draws"], columns=["state", "width"], values="cell")
    order = frame[["estimator", "draws"]].drop_duplicates().itertuples(index=False)
    columns = [(state, width) for width in WIDTHS for state in STATES]
    rows = [
        [name, draws or "none", *(cells.loc[(name, draws), column] for column in columns)]
        for name, draws in order
    ]
    headers = ["estimator", "T", *(f"{state}, h = {width}" for state, width in columns)]
    return tabulate(rows, headers, "pipe", disable_numparse=True, colalign=("left", *["right"] * 5))


def draw_gradients(frame: pd.DataFrame, about: dict[str, Any], path: Path) -> None:
    """Relative bias above and relative variance below against T, one panel a network."""
    hidden = frame[(frame["layer"] == "hidden") & (frame["estimator"] != "conditional")]
    # The two coincide, so that one would hide the other.
    hidden = hidden.replace({"estimator": {"reinforce": "reinforce = conditional"}})
    order = [*hidden.loc[hidden["draws"] > 0, "estimator"].unique(), "mean_field"]

    def figure() -> Figure:
        panels = [(state, width) for width in WIDTHS for state in STATES]
        dashed = look_of(order, "mean_field")["color"]
        made, (top, bottom) = make_panels(len(panels), [1.0, 1.0], height=3.2)
        for column, (state, width) in enumerate(panels):
            top[column].set_title(f"{state}, h = {width}")
            shown = hidden[(hidden["state"] == state) & (hidden["width"] == width)]
            for name, runs in shown.groupby("estimator", sort=False):
                if name == "mean_field":
                    top[column].axhline(runs["bias"].item(), color=dashed, linestyle="--")
                    continue
                draw_line(top[column], runs, "bias", look_of(order, str(name)))
                draw_line(bottom[column], runs, "variance", look_of(order, str(name)))
            fit(top[column], "x", [*DRAWS])
            fit(top[column], "y", [*hidden["bias"]])
            fit(bottom[column], "y", [*hidden.loc[hidden["draws"] > 0, "variance"]])
            bottom[column].tick_params(labelleft=column == 0)
            bottom[column].set_xlabel("draws T")
        label_rows(top, "relative bias")
        label_rows(bottom, "relative variance")
        made.align_ylabels()
        legend(made, order[:-1], order, keys(dashed), len(panels))
        what = f"{about['dataset']}, {about['points']} points"
        made.suptitle(f"Estimators of the gradient in the hidden weights\n{what}")
        return made

    save(figure, path)


def draw_line(axes: Axes, runs: pd.DataFrame, name: str, look: dict[str, str]) -> None:
    """A line over T; of a bias, hollow markers where it may be zero."""
    axes.plot(runs["draws"], runs[name], color=look["color"], linewidth=0.8)
    for row in runs.to_dict("records"):
        hollow = name == "bias" and row["bias_z"] < SIGNIFICANT
        face = "white" if hollow else look["color"]
        axes.plot(
            row["draws"],
            row[name],
            marker=look["marker"],
            color=look["color"],
            markerfacecolor=face,
            linestyle="none",
            zorder=3,
            clip_on=False,
        )


def keys(color: str) -> list[Line2D]:
    """What the legend says besides the estimators."""
    marker: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": GREY}
    return [
        Line2D([], [], color=color, linestyle="--", label="mean_field"),
        Line2D([], [], **marker, markerfacecolor="white", label="zero within 5 standard errors"),
    ]


def bias_table(frame: pd.DataFrame, about: dict[str, Any]) -> str:
    """Mean outputs of the deeper networks, in Markdown."""
    summed = frame[frame["quantity"].isin(["tree", "network"])]
    exact_values = summed.pivot(index="network", columns="quantity", values="value")
    gaps = (exact_values["network"] - exact_values["tree"]).abs()
    labels = {
        "tree": "tree (PBGNet), exact",
        "network": "network (ABNet), exact",
        "layerwise": "layerwise, T = {:.0f}",
        "chains": "independent chains (ABNet)",
    }
    indices = list(frame.loc[frame["quantity"] == "chains", "network"])
    rows: dict[str, list[str]] = {}
    for index in indices:
        for row in frame[frame["network"] == index].to_dict("records"):
            error = "" if math.isnan(row["error"]) else f" ± {row['error']:.4f}"
            label = labels[row["quantity"]].format(row["draws"])
            rows.setdefault(label, []).append(f"{row['value']:.4f}{error}")
    grid = tabulate(
        [[label, *cells] for label, cells in rows.items()],
        ["mean output F(x)", *(f"network {index}" for index in indices)],
        "pipe",
        disable_numparse=True,
        colalign=("left", *["right"] * len(indices)),
    )
    return (
        f"Mean output F(x) of {'-'.join(map(str, (*DEEP, 1)))} networks of random weights at one "
        f"random point each; ±: standard error of a mean over {about['deep_draws']:,} draws in "
        "all, T of them in one layerwise estimate. Weight means and inputs are normal with "
        f"standard deviations {DEEP_SCALE:g} and 1. Tree and network are {gaps.mean():.4f} apart "
        f"on average over {len(gaps)} such networks; shown are the {len(indices)} that are "
        f"furthest apart.\n\n{grid}\n"
    )


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
