"""Binary-activated networks trained by their own PAC-Bayes bounds: bounds beside test errors.

For each two-class task, method and seed: train, certify, measure. `majority` is the line of
vacuity and `mlp_tanh` the real-valued baseline; `pbgnet_l` (linear loss and L2), `pbgnet_l_bnd`
(its epoch with the least bound), `elbo`, `fixed_c`, `pbgnet` and `abnet` train the same networks
from a random prior by different objectives; `pbgnet_rf` reads random binary convolutions,
`pbgnet_pre` has a prior trained on half of the data. Each runs with every network of a grid, and a
row of the table is the configuration with the least certificate. With probability 1 − δ, δ = .05, a
row's mean over seeds holds, as all certificates behind it do at once: each is computed at a much
smaller δ, divided by the number of seeds and by that of the priors that its own may have been
chosen from (1000 or more: `pac_bound_priors.py` lists them, the grid included), and shared with its
Monte-Carlo step.

    python studies/pac_bound_mnist.py                 # quick: reports/pac_bound_mnist_quick
    python studies/pac_bound_mnist.py --preset paper  # the committed reports/pac_bound_mnist
    python studies/pac_bound_mnist.py --workers 2     # runs side by side, in processes of their own
    python studies/pac_bound_mnist.py --redraw        # certificates, tables, figures once more
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from pac_bound_priors import CONVOLVED, GRID, LARGE, PRIORS, check_listed, inputs_of
from pac_bound_tables import SCHEMA_VERSION, draw, recertify, shown_of

from pbnn import reporting
from pbnn.data import DataUnavailable, Task, embedded_twin, load
from pbnn.files import write_json
from pbnn.ledger import choices, record_tried
from pbnn.methods import hidden_name, run, splits_of
from pbnn.study import describe, run_study
from pbnn.sweep import Cell, cell_key, configuration_key, run_cells

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "pac_bound_mnist"
CAPTIONS = {
    "bound_vs_error": "Each bound against the test error of the same predictor, mean over seeds "
    "with standard deviations. Below the solid line a test error exceeds its bound. On and above "
    "the dotted line, the bound of the constant predictor, a bound is vacuous; the table marks the "
    "Gibbs bounds (filled) alone.",
    "bound_by_network": "The Gibbs bound of every network of the grid by its hidden widths (unit: "
    "no hidden layer); methods with the same network stand side by side. On and above the dotted "
    "line, the bound of the constant predictor, it is vacuous. The table above takes the least of "
    "each method.",
    "learning_curves": "Training objective and risk against epochs, the KL divergence below: means "
    "over seeds, shades from the least to the largest. Each line ends at a marker.",
}
"""What its figures show."""
Method = Literal[
    "majority",
    "mlp_tanh",
    "pbgnet_l",
    "pbgnet_l_bnd",
    "elbo",
    "fixed_c",
    "pbgnet",
    "abnet",
    "pbgnet_rf",
    "pbgnet_pre",
]


@dataclass(frozen=True)
class Config:
    """What to run, on what, and where to write it. Fields left out follow the preset."""

    preset: Literal["quick", "paper"] = "quick"
    """quick: three seeds, few networks, a third of the epochs; paper: the committed report."""
    datasets: tuple[str, ...] = ("mnist17", "mnist49", "mnist56", "mnistLH", "adult", "ads")
    """Two-class tasks; see pbnn.data.TASKS."""
    methods: tuple[Method, ...] | None = None
    """Methods to compare; by default those of the preset."""
    hidden: tuple[str, ...] | None = None
    """Networks of the grid by their hidden widths: unit (one Gaussian unit), 10, 10-10, …"""
    seeds: int | None = None
    """Runs of each method; each certificate is computed at delta/seeds."""
    delta: float = 0.05
    """Probability that a row's mean bound fails, everything included."""
    data_dir: Path | None = None
    """Folder with mnist/…; by default $PBNN_DATA, then the cache, then a download."""
    offline: bool = False
    """Do not try to download."""
    out: Path | None = None
    """Output folder; by default reports/pac_bound_mnist for the paper preset, …_quick otherwise."""
    workers: int | None = None
    """Run this many cells side by side on a dask LocalCluster; by default one by one."""
    scheduler: str | None = None
    """Run the cells on a dask cluster that is already there, such as tcp://host:8786."""
    retry_failed: bool = False
    """Run again what has failed before."""
    records: str | None = None
    """Folder, or address such as s3://bucket/runs, of the records; by default runs in the output
    folder."""
    device: str = "cpu"
    """Where to train, such as cuda."""
    threads: int = 1
    """CPU threads of a run; recorded, since sums depend on it. More than one is fast on an idle
    machine and very slow on a busy one. pbgnet_pre has its priors listed for one thread only."""
    compile: bool = False
    """Compile the training loss with torch.compile."""
    redraw: bool = False
    """Certify again from certificates.json, and make tables and figures from the CSVs."""

    def __post_init__(self) -> None:
        for field in ("seeds", "threads", "workers"):
            got = getattr(self, field)
            if got is not None and got < 1:
                raise ValueError(f"`{field}` must be a positive integer, got {got}.")
        if not 0 < self.delta < 1:
            raise ValueError(f"`delta` must lie in (0, 1), got {self.delta}.")
        for field in ("datasets", "methods", "hidden"):
            values = getattr(self, field)
            if values is not None and (not values or len(set(values)) < len(values)):
                raise ValueError(f"`{field}` must be one or more distinct names, got {values}.")
        try:
            kind = torch.device(self.device).type
        except RuntimeError as error:
            raise ValueError(
                f"`device` must be one that torch knows, got {self.device!r}: {error}"
            ) from error
        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"`device` must be one that is there, got {self.device!r} without CUDA."
            )
        if self.workers is not None and self.scheduler is not None:
            raise ValueError("`workers` and `scheduler` exclude each other, got both.")
        for dataset in self.datasets:
            embedded_twin(dataset)  # A misspelt name is an error here, before anything is read.
        networks = [widths(word) for word in self.hidden or ()]
        if any(networks.count(network) > 1 for network in networks):
            raise ValueError(f"`hidden` must hold distinct networks, got {self.hidden}.")

    def filled(self) -> Config:
        """With the preset's values in the place of what was left out."""
        chosen = {name: getattr(self, name) for name in ("methods", "hidden", "seeds")}
        given = {name: value for name, value in chosen.items() if value is not None}
        return dataclasses.replace(self, **(PRESETS[self.preset] | given))


BASELINES = ([], [10])
"""Those that the other objectives are trained with."""

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "methods": ("majority", "mlp_tanh", "pbgnet", "pbgnet_rf", "pbgnet_pre"),
        "hidden": ("unit", "10"),
        "seeds": 3,
    },
    "paper": {
        "methods": get_args(Method),
        "hidden": tuple(hidden_name(hidden) for hidden in GRID),
        "seeds": 5,
    },
}


def widths(word: str) -> list[int]:
    """Hidden widths from a word: ``unit`` is none, ``10-10`` two layers of ten.

    Examples
    --------
    >>> widths("unit"), widths("100-100")
    ([], [100, 100])
    """
    parts = [] if word == "unit" else word.split("-")
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"`hidden` must hold `unit` or widths such as 10 or 10-10, got {word!r}.")
    return [int(part) for part in parts]


def training_of(dataset: str, hidden: list[int], method: Method, quick: bool) -> dict[str, Any]:
    """How a posterior is trained: no part of the prior, so nothing here is paid for."""
    large, widest = dataset.endswith(LARGE), max(hidden, default=0)
    # No linear task: the KL comes in late, and of several starts some end in a poor optimum.
    several = large and hidden == [10] and method == "pbgnet"
    epochs = 100 if widest <= 1 else 60 if hidden == [10] else 40
    return {
        "epochs": epochs // 3 if quick else epochs,
        "batch": 512 if large or dataset == "adult" else 256,
        "learning_rate": 0.1 if widest <= 10 or large else 0.03,
        "kl_warmup": 0.5 if widest > 1 else 0.0,
        "restarts": (2 if quick else 3) if several else 1,
    }


OBJECTIVE: dict[str, dict[str, Any]] = {
    "pbgnet_l": {"objective": "risk", "decay": 1e-4},
    "pbgnet_l_bnd": {"objective": "selected_by_bound", "decay": 1e-4},
    "elbo": {"objective": "elbo", "C": 1.0},
    "fixed_c": {"objective": "fixed_c", "C": 2.0},
}

DRAWS = (1_000_000, 100)
"""Least draws on the certification points, and a point, where no sum is exact."""


def settings(config: Config, dataset: str, method: Method, hidden: list[int]) -> dict[str, Any]:
    """The configuration of a method on a data set with a network, without its seed."""
    quick = config.preset == "quick"
    cell = {name: getattr(config, name) for name in ("seeds", "delta", "threads", "compile")}
    cell |= {"dataset": dataset, "method": method, "device": torch.device(config.device).type}
    if method == "majority":
        return cell
    if method == "mlp_tanh":
        training = {"epochs": 5 if quick else 20, "batch": 64, "learning_rate": 0.003}
        return cell | inputs_of(dataset) | training
    cell |= {"hidden": hidden, "draws": list(DRAWS), "objective": "bound"}
    cell |= {"prior_scale": 1.0, "prior_bias": 0.0}
    cell |= {"network": "chain" if method == "abnet" else "tree"}
    if method == "pbgnet_pre":
        return cell | pretraining_of(dataset, quick)
    cell |= CONVOLVED if method == "pbgnet_rf" else inputs_of(dataset)
    cell |= training_of(dataset, hidden, method, quick)
    if method == "pbgnet_rf":
        cell |= {"epochs": 20 if quick else 40, "batch": 512, "learning_rate": 0.3}
        if not dataset.endswith(LARGE):
            cell |= {"kernel": 1.0, "emphasis": 0.15}
    return cell | OBJECTIVE.get(method, {})


def pretraining_of(dataset: str, quick: bool) -> dict[str, Any]:
    """How the prior of `pbgnet_pre` is trained, and its posterior after it."""
    read = inputs_of(dataset)
    prior = {"hidden": [500], "prior_share": 0.5, "prior_decay": 0.0, "prior_augmented": True}
    posterior = {"batch": 256, "epochs": 2 if quick else 10, "learning_rate": 3e-4, "restarts": 1}
    if read["bias"]:
        table = {"hidden": [100], "prior_loss": "linear", "prior_augmented": False}
        if dataset == "ads":
            table |= {"prior_batch": 64, "prior_rate": 0.1, "prior_epochs": 40}
            table |= {"prior_decay": 1e-5}
            posterior |= {"batch": 128, "epochs": 40, "learning_rate": 0.005}
        else:
            table |= {"prior_batch": 256, "prior_rate": 0.03, "prior_epochs": 10, "levels": 16}
        return read | {"feature_points": 0} | prior | table | posterior
    large = dataset.endswith(LARGE)
    prior |= {
        "prior_loss": "linear" if large else "log",
        "prior_batch": 256 if large else 64,
        "prior_rate": 0.1,
        "prior_epochs": (12 if large else 20) if quick else 100,
    }
    return read | {"inputs": "plain", "centring": "pixel", "feature_points": 0} | prior | posterior


def grid(config: Config, dataset: str, method: Method) -> list[list[int]]:
    """The networks that a method runs with: of one hidden layer, a chain is a tree."""
    if method in ("majority", "mlp_tanh"):
        return [[]]
    if method in ("pbgnet_rf", "pbgnet_pre"):
        return [settings(config, dataset, method, [])["hidden"]]
    chosen = [widths(word) for word in config.hidden or ()]
    if method == "abnet":
        return [hidden for hidden in chosen if len(hidden) > 1]
    return chosen if method == "pbgnet" else [h for h in chosen if h in BASELINES]


def methods_of(config: Config, task: Task) -> list[Method]:
    """The methods that make sense on a task: convolutions need images."""
    return [m for m in config.methods or () if m != "pbgnet_rf" or task.x.ndim == 4]


def cells_of(config: Config, tasks: dict[str, Task], ledgers: list[Path]) -> list[Cell]:
    """Every run of the study: all that determines its result, and a key made of it."""
    cells = []
    for cell in configurations(config, tasks):
        task = tasks[cell["dataset"]]
        cell |= {"splits": splits_of(task, cell).hashes(task)}
        cell |= {"choices": choices(ledgers, task.name)}
        check_listed(cell)
        for seed in range(cell["seeds"]):
            cell = cell | {"seed": seed}
            cells.append(Cell(cell_key(cell, {"sha256": task.sha256}), cell))
    return cells


def configurations(config: Config, tasks: dict[str, Task]) -> list[dict[str, Any]]:
    """Every configuration of the study, without seeds."""
    return [
        settings(config, dataset, method, hidden)
        for dataset, task in tasks.items()
        for method in methods_of(config, task)
        for hidden in grid(config, dataset, method)
    ]


def tried(config: Config, tasks: dict[str, Task]) -> list[dict[str, Any]]:
    """Rows of the ledger: the configurations that this study certifies."""
    return [
        {
            "dataset": cell["dataset"],
            "configuration": configuration_key(cell),
            "note": f"{cell['method']} {hidden_name(cell['hidden'])}, {config.preset} preset",
        }
        for cell in configurations(config, tasks)
        if cell["method"] in PRIORS
    ]


def tasks_of(config: Config) -> tuple[dict[str, Task], bool]:
    """The tasks, and whether bundled data stand in for those that could not be had."""
    read = functools.partial(load, data_dir=config.data_dir, offline=config.offline)
    try:
        return two_class(map(read, config.datasets)), False
    except DataUnavailable as error:
        print(
            f"{error}\n\nGoing on with data bundled with scikit-learn instead: 8x8 digits and "
            "breast cancer. What follows is NOT MNIST.\n"
        )
    return two_class(map(read, map(embedded_twin, config.datasets))), True


def two_class(tasks: Iterable[Task]) -> dict[str, Task]:
    """The tasks by name, refusing those with more than two classes."""
    named = {task.name: task for task in tasks}
    for dataset, task in named.items():
        if set(np.unique(task.y)) != {-1, 1}:
            raise ValueError(f"`datasets` must name two-class tasks, got {dataset!r}.")
    return named


def folder_of(config: Config, substitute: bool) -> Path:
    """Where to write: the paper preset on its own data is the committed report."""
    if config.out is not None:
        return config.out
    ending = ("" if config.preset == "paper" else "_quick") + ("_digits" if substitute else "")
    return REPORTS / f"{NAME}{ending}"


def study(config: Config) -> Path:
    """Run what is missing, then write every table and figure; returns the folder."""
    if config.redraw:
        folders = [folder_of(config, substitute) for substitute in (False, True)]
        folder = next((f for f in folders if (f / "study.json").exists()), folders[0])
        recertify(folder)
        draw(folder)
        return folder
    given, config = config, config.filled()
    torch.set_num_threads(config.threads)
    tasks, substitute = tasks_of(config)
    if not cells_of(config, tasks, []):
        raise ValueError("`methods` and `hidden` must leave something to run, got nothing.")
    folder = folder_of(config, substitute)
    ledger = folder / "tried.csv"
    # Entered before it is charged for: the next time the same command finds the same number.
    record_tried(ledger, tried(config, tasks))
    ledgers = [path for path in {REPORTS / NAME / "tried.csv", ledger} if path.exists()]
    cells = cells_of(config, tasks, ledgers)
    kept = config.records or folder / "runs"
    print(f"Runs: {len(cells)}, kept one by one in {kept}; interrupt and go on at will.")
    one = functools.partial(
        run,
        data_dir=config.data_dir,
        offline=config.offline,
        device=config.device,
        progress=config.workers is None and config.scheduler is None,
    )
    records = run_cells(
        cells,
        one,
        kept,
        workers=config.workers,
        scheduler=config.scheduler,
        retry_failed=config.retry_failed,
    )
    reporting.write_records_csv(records, folder / "records.csv")
    reporting.write_timings_csv(records, folder / "timings.csv")
    shown = shown_of(records)
    reporting.write_curves_csv(
        [r for r in shown if r["config"].get("objective") == "bound"], folder / "curves.csv"
    )
    certificates = {r["key"]: r["certificates"] for r in shown if "certificates" in r}
    write_json(folder / "certificates.json", {"schema_version": SCHEMA_VERSION} | certificates)
    # The first sentence of each: the others are about columns.
    sources = ", ".join(dict.fromkeys(task.source.split(". ")[0] for task in tasks.values()))
    told = {"source": sources, "substitute": substitute, "preset": config.preset}
    told |= {"seeds": config.seeds, "delta": config.delta}
    told |= {"test_points": {name: len(splits_of(task, {}).test) for name, task in tasks.items()}}
    where = ("data_dir", "out", "redraw", "workers", "scheduler", "retry_failed", "records")
    write_json(folder / "study.json", describe(given, f"studies/{NAME}.py", where, **told))
    draw(folder)
    return folder


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
