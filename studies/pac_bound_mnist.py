"""Binary-activated networks trained by their own PAC-Bayes bounds: bounds beside test errors.

For each two-class task, method and seed: train, certify, measure. `majority` is the line of
vacuity and `mlp_tanh` the real-valued baseline; `pbgnet_l` (linear loss and L2), `pbgnet_l_bnd`
(its epoch with the least bound), `elbo`, `fixed_c`, `pbgnet` and `abnet` train the same networks
from a random prior by different objectives; `pbgnet_rf` reads random binary convolutions,
`pbgnet_pre` has a prior trained on half of the data. Each runs with every network of a grid, and a
row of the table is the configuration with the least certificate. A certificate holds with
probability 1 − δ/seeds after paying for the Monte-Carlo step and, by ln(choices), for the choice of
its prior among those listed in `PRIORS`, the grid included; so a row's mean over seeds holds with
probability 1 − δ.

    python studies/pac_bound_mnist.py                 # quick: reports/pac_bound_mnist_quick
    python studies/pac_bound_mnist.py --preset paper  # the committed reports/pac_bound_mnist
    python studies/pac_bound_mnist.py --workers 2     # runs side by side, in processes of their own
    python studies/pac_bound_mnist.py --redraw        # tables and figures again, from the CSVs
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from pbnn import reporting
from pbnn.data import DataUnavailable, Task, embedded_twin, load
from pbnn.files import read_json, write_atomic, write_json
from pbnn.ledger import choices, record_tried
from pbnn.methods import hidden_name, run, splits_of
from pbnn.study import describe, run_study
from pbnn.sweep import Cell, cell_key, configuration_key, run_cells

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "pac_bound_mnist"
SCHEMA_VERSION = 1
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
    device: str = "cpu"
    """Where to train, such as cuda."""
    threads: int = 1
    """CPU threads of a run; recorded, since sums depend on it. More than one is fast on an idle
    machine and very slow on a busy one."""
    compile: bool = False
    """Compile the training loss with torch.compile."""
    redraw: bool = False
    """Make tables and figures again from records.csv and curves.csv, without training."""

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
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"`device` must be one that is there, got {self.device!r} without CUDA."
            )
        if self.workers is not None and self.scheduler is not None:
            raise ValueError("`workers` and `scheduler` exclude each other, got both.")
        for dataset in self.datasets:
            embedded_twin(dataset)  # A misspelt name is an error here, before anything is read.
        for word in self.hidden or ():
            widths(word)

    def filled(self) -> Config:
        """With the preset's values in the place of what was left out."""
        chosen = {name: getattr(self, name) for name in ("methods", "hidden", "seeds")}
        given = {name: value for name, value in chosen.items() if value is not None}
        return dataclasses.replace(self, **(PRESETS[self.preset] | given))


GRID = ([], [1], [10], [50], [100], [10, 10], [100, 100])
"""Hidden widths of the paper preset."""

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


# What a network reads. The centre and the scales are those of a feature split of unlabelled
# points that does not count in n; adult's numbers become 0/1 columns too, ads has raw ones.
FEATURE_POINTS = 500
IMAGES = {"inputs": "plain", "centring": "image", "bias": False, "feature_points": FEATURE_POINTS}
MANY = IMAGES | {"inputs": "halved", "centring": "pixel"}
TABLE = {
    "inputs": "binned",
    "levels": 8,
    "power": 0.5,
    "norm": 2.0,
    "bias": True,
    "feature_points": FEATURE_POINTS,
}
BINARY = {
    "inputs": "plain",
    "centring": "none",
    "bias": True,
    "prior_bias": -3.0,
    "feature_points": 0,
}
CONVOLVED = IMAGES | {
    "inputs": "convolved",
    "canonical": "scaled",
    "filters": 300,
    "filter_size": 5,
    "pool": 7,
    "power": 0.5,
    "kernel": 0.5,
    "emphasis": 0.0,
    "prior_scale": 0.0,
}


def inputs_of(dataset: str) -> dict[str, Any]:
    """Inputs of the methods that train from a random prior."""
    if dataset in ("adult", "breast_cancer"):
        return TABLE
    if dataset == "ads":
        return BINARY
    return MANY if dataset.endswith(LARGE) else IMAGES


# LH and EO are no linear task: the KL comes in late and the best of several starts is kept, since
# some end in a poor optimum. Both move the posterior only, and are free.
LARGE = ("LH", "EO")


def training_of(dataset: str, hidden: list[int], method: Method, quick: bool) -> dict[str, Any]:
    """How a posterior is trained: no part of the prior, so nothing here is paid for."""
    large, widest = dataset.endswith(LARGE), max(hidden, default=0)
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

# Every prior a method's certificate may have been chosen from: the lists that ln(choices) is for.
# Whatever moves the posterior only is free, and named here.
FREE = {"dataset", "method", "seeds", "delta", "threads", "compile", "device", "splits", "choices"}
FREE |= {"draws", "objective", "C", "decay", "epochs", "batch", "learning_rate"}
FREE |= {"kl_warmup", "restarts"}
Lists = dict[str, tuple[Any, ...]]
READ = "inputs centring feature_points bias prior_bias levels power norm"
RANDOM: Lists = {
    "network": ("tree", "chain"),
    "hidden": ([], *([width] for width in range(1, 13)), [50], [100], [10, 10], [100, 100]),
    "prior_scale": (0.0, 1.0),
    READ: (
        ("plain", "image", 100, False, 0.0, None, None, None),
        ("plain", "image", FEATURE_POINTS, False, 0.0, None, None, None),
        ("plain", "pixel", 100, False, 0.0, None, None, None),
        ("plain", "pixel", FEATURE_POINTS, False, 0.0, None, None, None),
        ("halved", "pixel", FEATURE_POINTS, False, 0.0, None, None, None),
        ("standardised", None, FEATURE_POINTS, True, 0.0, None, None, None),
        ("binned", None, FEATURE_POINTS, True, 0.0, 4, 0.5, 1.0),
        ("binned", None, FEATURE_POINTS, True, 0.0, 4, 0.5, 2.0),
        ("binned", None, FEATURE_POINTS, True, 0.0, 8, 0.5, 1.0),
        ("binned", None, FEATURE_POINTS, True, 0.0, 8, 0.5, 2.0),
        ("binned", None, FEATURE_POINTS, True, -1.0, 8, 0.5, 2.0),
    ),
}
CONVOLUTIONS: Lists = {
    "canonical": ("deskewed", "scaled", "scaled small", "scaled large"),
    "filters filter_size pool": (
        *((100, size, pool) for size in (3, 5, 7) for pool in (4, 7)),
        (300, 3, 7),
        (300, 5, 7),
    ),
    "power": (0.5, 1.0),
    "kernel emphasis": (
        (0.0, 0.0),
        (0.5, 0.0),
        (1.5, 0.0),
        (0.5, 0.15),
        (1.0, 0.15),
        (1.5, 0.15),
    ),
    "network hidden": (("tree", []),),
    "prior_scale prior_bias bias": ((0.0, 0.0, False),),
    "inputs centring feature_points": (("convolved", "image", FEATURE_POINTS),),
}
EARLIER_CONVOLUTIONS: Lists = {
    "canonical": ("deskewed", "none"),
    "filters": (50, 100, 200),
    "filter_size": (3, 5, 7),
    "pool": (2, 4),
    "hidden": ([], [1], [8]),
    "centring": ("image", "pixel"),
    "feature_points": (100, FEATURE_POINTS),
    "network power kernel emphasis": (("tree", 1.0, 0.0, 0.0),),
    "inputs prior_scale prior_bias bias": (("convolved", 1.0, 0.0, False),),
}
# A trained prior depends on the arithmetic of its training too.
MACHINE: Lists = {"threads compile device": ((1, False, "cpu"),)}
TRAINED = "prior_share prior_loss prior_decay prior_augmented"
IMAGES_TRAINED: Lists = MACHINE | {
    "hidden": ([100], [300], [500], [1000]),
    "prior_batch": (64, 128, 256, 512),
    "prior_rate": (0.03, 0.1, 0.3),
    "prior_epochs": (10, 12, 20, 25, 30, 40, 60, 100),
    TRAINED: ((0.5, "linear", 0.0, True), (0.5, "log", 0.0, True)),
    "network prior_scale": (("tree", 1.0),),
    READ: (("plain", "pixel", 0, False, 0.0, None, None, None),),
}
TABLE_TRAINED: Lists = MACHINE | {
    "hidden": ([100], [300]),
    "prior_batch": (64, 256),
    "prior_rate": (0.03, 0.1, 0.3),
    "prior_epochs": (10, 20, 40),
    TRAINED: tuple(
        (0.5, loss, decay, False) for loss in ("linear", "log") for decay in (0.0, 1e-5)
    ),
    "network prior_scale": (("tree", 1.0),),
    READ: tuple(("binned", None, 0, True, 0.0, levels, 0.5, 2.0) for levels in (8, 16)),
}
# Each method's lists: a prior must be on one of them, and all their members are counted.
PRIORS: dict[str, tuple[Lists, ...]] = dict.fromkeys(
    ("pbgnet_l", "pbgnet_l_bnd", "elbo", "fixed_c", "pbgnet", "abnet"), (RANDOM,)
) | {"pbgnet_rf": (CONVOLUTIONS, EARLIER_CONVOLUTIONS), "pbgnet_pre": (IMAGES_TRAINED,)}
TABLE_PRIORS = PRIORS | {"pbgnet_pre": (TABLE_TRAINED,)}
# ads has raw columns, and a prior for how its labels lean.
SHORT: Lists = {
    "network hidden": (
        *(("tree", hidden) for hidden in GRID),
        *(("chain", hidden) for hidden in GRID if len(hidden) > 1),
    ),
    "prior_scale": (0.0, 1.0),
    READ: tuple(("plain", "none", 0, True, float(mean), None, None, None) for mean in range(-4, 5)),
}
SHORT_TRAINED: Lists = MACHINE | {
    "hidden": ([100], [300]),
    "prior_batch prior_rate": ((64, 0.1), (64, 0.3)),
    "prior_epochs": (40, 60),
    TRAINED: tuple(
        (share, "linear", decay, False) for share in (0.3, 0.5, 0.6) for decay in (0.0, 1e-5)
    ),
    "network prior_scale": (("tree", 1.0),),
    READ: tuple(("plain", "none", 0, True, mean, None, None, None) for mean in (0.0, -3.0)),
}
LISTS: dict[str, dict[str, tuple[Lists, ...]]] = {
    "adult": TABLE_PRIORS,
    "breast_cancer": TABLE_PRIORS,
    "ads": dict.fromkeys(PRIORS, (SHORT,)) | {"pbgnet_pre": (SHORT_TRAINED,)},
}
"""By data set where they differ from `PRIORS`."""


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


def check_listed(cell: dict[str, Any]) -> None:
    """Refuse to certify a prior that the price does not cover."""
    lists = LISTS.get(cell["dataset"], PRIORS).get(cell["method"], ())
    faults = [fault(cell, listed) for listed in lists]
    if faults and all(faults):
        raise ValueError(faults[0])
    if sum(math.prod(map(len, listed.values())) for listed in lists) > cell["choices"]:
        raise ValueError(f"`choices` must cover the lists of priors, got {cell['choices']}.")


def fault(cell: dict[str, Any], listed: Lists) -> str:
    """Why a cell's prior is not on a list; empty if it is."""
    for fields, values in listed.items():
        names = fields.split()
        got = tuple(cell.get(name) for name in names) if len(names) > 1 else cell[fields]
        if got not in values:
            return f"`{fields}` must be one of the listed {values}, got {got!r}."
    unlisted = set(cell) - FREE - {name for fields in listed for name in fields.split()}
    if unlisted:
        return f"`cell` must hold listed and free fields only, got {sorted(unlisted)}."
    return ""


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
        draw(folder)
        return folder
    given, config = config, config.filled()
    tasks, substitute = tasks_of(config)
    folder = folder_of(config, substitute)
    ledger = folder / "tried.csv"
    # Entered before it is charged for: the next time the same command finds the same number.
    record_tried(ledger, tried(config, tasks))
    ledgers = [path for path in {REPORTS / NAME / "tried.csv", ledger} if path.exists()]
    cells = cells_of(config, tasks, ledgers)
    print(f"Runs: {len(cells)}, kept one by one in {folder / 'runs'}; interrupt and go on at will.")
    one = functools.partial(
        run,
        data_dir=config.data_dir,
        offline=config.offline,
        device=config.device,
        progress=config.workers is None and config.scheduler is None,
    )
    records = run_cells(
        cells, one, folder / "runs", workers=config.workers, scheduler=config.scheduler
    )
    reporting.write_records_csv(records, folder / "records.csv")
    reporting.write_timings_csv(records, folder / "timings.csv")
    shown = shown_of(records)
    reporting.write_curves_csv(
        [r for r in shown if r["config"].get("objective") == "bound"], folder / "curves.csv"
    )
    certificates = {r["key"]: r["certificates"] for r in shown if "certificates" in r}
    write_json(folder / "certificates.json", {"schema_version": SCHEMA_VERSION} | certificates)
    sources = ", ".join(dict.fromkeys(task.source for task in tasks.values()))
    told = {"source": sources, "substitute": substitute, "preset": config.preset}
    told |= {"seeds": config.seeds, "delta": config.delta}
    where = ("data_dir", "out", "redraw", "workers", "scheduler")
    write_json(folder / "study.json", describe(given, f"studies/{NAME}.py", where, **told))
    draw(folder)
    return folder


def draw(folder: Path) -> None:
    """Tables and figures of a folder, from its CSV files alone."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    records = reporting.records_from_csv(folder / "records.csv")
    curves = reporting.curves_from_csv(folder / "curves.csv")
    frame = grid_of(records)
    write_atomic(folder / "grid.csv", frame.to_csv(index=False, lineterminator="\n"))
    rows = rows_of(frame)
    order = list(dict.fromkeys(frame["method"]))
    what, digits = about["source"], "_digits" if about["substitute"] else ""
    others = published()
    others = others[others["dataset"].isin(frame["dataset"])]
    reporting.write_table(
        rows,
        folder,
        caption=caption_of(about, len(others) > 0),
        published=others if len(others) else None,
        labels=LABELS,
    )
    for suffix in (".md", ".tex") if digits else ():
        (folder / f"table{suffix}").replace(folder / f"table{digits}{suffix}")
    if frame.loc[frame["method"] != "majority", "bound_gibbs"].notna().any():
        title = f"Bound against test error\n{what}"
        path = folder / f"bound_vs_error{digits}"
        reporting.bound_vs_error(rows[rows["method"] != MODE], path, title=title, order=order)
        title = f"Bound of every network of the grid\n{what}"
        reporting.bound_by_network(
            frame, folder / f"bound_by_network{digits}", title=title, order=order
        )
    if curves:
        title = f"Training by the bound\n{what}"
        reporting.learning_curves(
            curves, folder / f"learning_curves{digits}", title=title, order=order
        )
    print((folder / f"table{digits}.md").read_text(encoding="utf-8"))


MODE = "pbgnet_mode"
LABELS = {
    "dataset": "data set",
    "method": "method",
    "hidden": "hidden",
    "n": "n",
    "kl": "KL",
    "gibbs_test": "Gibbs test",
    "bound_gibbs": "Gibbs bound",
    "bound_gibbs_max": "its worst seed",
    "error_train": "vote train",
    "error_test": "vote test",
    "bound_vote": "vote bound",
    "bound_holdout": "hold-out bound",
    "vacuous": "vacuous",
}


def shown_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records behind the rows of the table."""
    fields = ["dataset", "method", "hidden"]
    shown = set(reporting.least(grid_of(records))[fields].itertuples(index=False, name=None))

    def row(record: dict[str, Any]) -> tuple[str, str, str]:
        config = record["config"]
        return config["dataset"], config["method"], hidden_name(config.get("hidden")) or ""

    return [record for record in records if row(record) in shown]


def grid_of(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row for each data set, method and network, over the seeds."""
    named = [
        record
        | {"config": record["config"] | {"hidden": hidden_name(record["config"].get("hidden"))}}
        for record in records
    ]
    measures = (*reporting.MEASURES, "mode_train", "mode_test", "undecided_test", "draws_a_point")
    return reporting.table(named, measures, by=("dataset", "method", "hidden"))


def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table: the network with the least bound, and its mode beside it."""
    rows = reporting.least(frame)
    level = rows[rows["method"] == "majority"].set_index("dataset")["bound_gibbs"]
    above = rows["bound_gibbs"] >= rows["dataset"].map(level)
    rows = rows.assign(vacuous=above.map({True: "yes", False: ""}))
    rows.loc[rows["method"] == "majority", "vacuous"] = ""
    mode = rows[rows["method"] == "pbgnet"].assign(method=MODE, vacuous="")
    for part in ("train", "test"):
        for suffix in ("", "_std"):
            mode[f"error_{part}{suffix}"] = mode[f"mode_{part}{suffix}"]
    kept = ["dataset", "method", "hidden", "seeds", "n", "vacuous"]
    kept += [f"error_{part}{suffix}" for part in ("train", "test") for suffix in ("", "_std")]
    mode.loc[:, [name for name in mode if name not in kept]] = np.nan
    both = pd.concat([rows, mode.dropna(axis=1, how="all")])
    order = {name: place for place, name in enumerate((*frame["method"].unique(), MODE))}
    place = [list(frame["dataset"].unique()).index(name) for name in both["dataset"]]
    rank = [order[name] + (0.5 if name == MODE else 0) for name in both["method"]]
    return (
        both.assign(_place=place, _rank=rank)
        .sort_values(["_place", "_rank"], kind="stable")
        .drop(columns=["_place", "_rank"])
    )


def caption_of(about: dict[str, Any], compared: bool) -> str:
    """What a reader needs to read the table."""
    runs = "one seed" if about["seeds"] == 1 else f"means over {about['seeds']} seeds"
    caption = (
        f"Binary-activated networks trained by their own bounds on {about['source']}; "
        f"{about['preset']} preset, {runs}, one split; of each method the network with the least "
        "bound (grid.csv has all). Each bound, taken alone, fails with probability at most "
        f"{about['delta']:g}; the Monte-Carlo step and the choice of the prior from a list, the "
        "grid included, are paid for. Gibbs: a random network of the posterior; vote: the sign of "
        "the exact aggregate (of 100 or more draws for wide chains); hold-out: a random network of "
        f"the trained prior, binomial; {MODE}: the one sign network at the posterior mean of "
        "pbgnet, which no bound here covers; vacuous: not below the constant's bound. ±: standard "
        "deviation over seeds."
    )
    if compared:
        caption += (
            " Letarte et al. (2019), https://arxiv.org/abs/1905.10259 (error of the vote on "
            "training and test set, and bound), and a public re-run of their code bound the Gibbs "
            "risk and pay for none of their choices."
        )
    return caption


def published() -> pd.DataFrame:
    """The paper's table, train/test(/bound), and bounds of a public re-run (seed 42)."""
    tasks = ("ads", "adult", "mnist17", "mnist49", "mnist56", "mnistLH")
    paper = {
        "mlp_tanh": (".021/.037", ".128/.149", ".003/.004", ".002/.013", ".002/.009", ".004/.017"),
        "pbgnet_l": (".018/.032", ".136/.148", ".008/.005", ".003/.018", ".002/.009", ".005/.019"),
        "pbgnet": (
            ".024/.038/.283",
            ".158/.154/.227",
            ".007/.009/.067",
            ".034/.039/.153",
            ".022/.026/.103",
            ".071/.073/.186",
        ),
        "pbgnet_pre": (
            ".034/.033/.058",
            ".153/.151/.165",
            ".003/.005/.009",
            ".018/.021/.030",
            ".008/.008/.017",
            ".026/.026/.033",
        ),
    }
    rerun = {
        "pbgnet": (".2030", ".2140", ".0399", ".1388", ".0894", ".1617"),
        "pbgnet_pre": (".0623", ".1636", ".0107", ".0305", ".0181", ".0325"),
    }
    rows = [
        (task, method, figures[place], rerun[method][place] if method in rerun else "")
        for method, figures in paper.items()
        for place, task in enumerate(tasks)
    ]
    return pd.DataFrame(rows, columns=["dataset", "method", "Letarte et al. 2019", "re-run"])


if __name__ == "__main__":
    run_study(study, Config, __doc__)
