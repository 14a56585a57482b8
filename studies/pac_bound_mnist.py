"""PBGNet trained by its own PAC-Bayes bound on MNIST, certified, tabled and plotted.

For each two-class task and seed: a constant (`majority`, the line of vacuity), a tanh network
(`mlp_tanh`), PBGNet with a prior that has seen no label (`pbgnet`) and with a prior trained on half
of the data (`pbgnet_pre`); on request, PBGNet on random convolutions (`pbgnet_rf`). A `pbgnet` row
stands on a random prior and inputs centred on a feature split that does not count in n. Every
certificate holds with probability 1 − δ/seeds after paying for the Monte-Carlo step and, by
ln(choices), for the choice of its prior among those listed in `PRIORS`; so the mean over seeds
holds with probability 1 − δ.

    python studies/pac_bound_mnist.py                 # quick: reports/pac_bound_mnist_quick
    python studies/pac_bound_mnist.py --preset paper  # the committed reports/pac_bound_mnist
    python studies/pac_bound_mnist.py --redraw        # tables and figures again, from the CSVs
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pbnn import reporting
from pbnn.augmentation import random_affine
from pbnn.bounds import clopper_pearson, delta_each
from pbnn.certificates import Budget, Provenance, certify_gibbs, certify_vote, holdout_bound
from pbnn.data import DataUnavailable, Splits, Task, embedded_twin, load, split
from pbnn.environment import environment
from pbnn.evaluation import Risks, errors_of_one_draw_each, mode_error, risks, rounding_error
from pbnn.features import RandomConvolution, deskew, random_convolution
from pbnn.files import read_json, write_json
from pbnn.ledger import choices, record_tried
from pbnn.networks import MLP, PBGNet
from pbnn.objectives import BoundObjective, RiskObjective
from pbnn.seeding import generator
from pbnn.sweep import Cell, cell_key, configuration_key, run_cells
from pbnn.training import FitConfig, fit, fit_best_of, save_checkpoint

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "pac_bound_mnist"
SCHEMA_VERSION = 1
Method = Literal["majority", "mlp_tanh", "pbgnet", "pbgnet_pre", "pbgnet_rf"]


@dataclass(frozen=True)
class Config:
    """What to run, on what, and where to write it."""

    preset: Literal["quick", "paper"] = "quick"
    """quick trains for fewer epochs and starts; data, seeds and certificates are the same."""
    datasets: tuple[str, ...] = ("mnist17", "mnist49", "mnist56", "mnistLH")
    """Two-class tasks; see pbnn.data.TASKS."""
    methods: tuple[Method, ...] = ("majority", "mlp_tanh", "pbgnet", "pbgnet_pre")
    """Methods to compare."""
    seeds: int = 3
    """Runs of each method; each certificate is computed at delta/seeds."""
    delta: float = 0.05
    """Probability that a row's mean bound fails, everything included."""
    restarts: int | None = None
    """Starting points of the pbgnet posterior, by default as the task's recipe says; the prior
    stays, so trying several is free."""
    data_dir: Path | None = None
    """Folder with mnist/…; by default $PBNN_DATA, then the cache, then a download."""
    offline: bool = False
    """Do not try to download."""
    out: Path | None = None
    """Output folder; by default reports/pac_bound_mnist for the paper preset, …_quick otherwise."""
    device: str = "cpu"
    """Where to train, such as cuda."""
    threads: int = 1
    """CPU threads of a run; recorded, since sums depend on it. More than one is fast on an idle
    machine and very slow on a busy one."""
    compile: bool = False
    """Compile the training loss with torch.compile."""
    patience: int = 0
    """Stop a pbgnet training after this many epochs without a better training bound; 0: never."""
    redraw: bool = False
    """Make tables and figures again from records.csv and curves.csv, without training."""

    def __post_init__(self) -> None:
        for field in ("seeds", "restarts", "threads"):
            got = getattr(self, field)
            if got is not None and got < 1:
                raise ValueError(f"`{field}` must be a positive integer, got {got}.")
        if not 0 < self.delta < 1:
            raise ValueError(f"`delta` must lie in (0, 1), got {self.delta}.")
        for field in ("datasets", "methods"):
            values = getattr(self, field)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"`{field}` must be one or more distinct names, got {values}.")
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"`device` must be one that is there, got {self.device!r} without CUDA."
            )
        for dataset in self.datasets:
            embedded_twin(dataset)  # A misspelt name is an error here, before anything is read.


@dataclass(frozen=True)
class Recipe:
    """How `pbgnet` is trained on a task: the prior's part of it is a choice that is paid for."""

    hidden: int = 1
    centring: Literal["image", "pixel"] = "image"
    epochs: int = 100
    batch: int = 256
    learning_rate: float = 0.1
    kl_warmup: float = 0.0
    restarts: int = 1


# One unit has the least KL where a linear rule does. LH and EO need several, a KL that comes in
# late, and several starts, since some end in a poor optimum.
LARGE = ("LH", "EO")
LARGE_RECIPE = Recipe(8, "pixel", 80, 512, kl_warmup=0.5, restarts=3)
FEATURE_POINTS = 500
PRE_HIDDEN = 500
DRAWS = 1_000_000
DRAWS_A_POINT = 100

# Every prior a method's certificate may have been chosen from: the lists that ln(choices) is for.
# Settings that move the posterior only (epochs, warm-up, restarts) are free and not on it.
PRIORS: dict[str, dict[str, tuple[Any, ...]]] = {
    "pbgnet": {
        "hidden": tuple(range(1, 13)),
        "centring": ("image", "pixel"),
        "feature_points": (100, FEATURE_POINTS),
    },
    "pbgnet_pre": {
        "hidden": (100, 300, PRE_HIDDEN, 1000),
        "prior_loss": ("linear", "log"),
        "prior_batch": (64, 128, 256, 512),
        "prior_rate": (0.03, 0.1, 0.3),
        "prior_epochs": (12, 20, 25, 30, 40, 60, 100),
    },
    "pbgnet_rf": {
        "canonical": ("deskew", "none"),
        "filters": (50, 100, 200),
        "filter_size": (3, 5, 7),
        "pool": (2, 4),
        "hidden": (0, 1, 8),
        "centring": ("image", "pixel"),
        "feature_points": (100, FEATURE_POINTS),
    },
}


@dataclass(frozen=True)
class Points:
    """The splits of a task as tensors on the device."""

    feature: tuple[Tensor, Tensor]
    prior: tuple[Tensor, Tensor]
    certification: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def majority(cell: dict[str, Any], points: Points) -> dict[str, Any]:
    """The constant that errs less on the certification split, chosen among two and paid for."""
    (_, y), (_, y_test) = points.certification, points.test
    errors, errors_test = int((y < 0).sum()), float((y_test < 0).double().mean())
    if 2 * errors > len(y):
        errors, errors_test = len(y) - errors, 1 - errors_test
    delta = delta_each(cell["delta"], 2 * cell["seeds"])
    risk = errors / len(y)
    bound = float(clopper_pearson(errors, len(y), delta=delta, outward=True))
    measures = {"n": len(y), "gibbs_train": risk, "gibbs_test": errors_test}
    measures |= {"error_train": risk, "error_test": errors_test}
    return {"measures": measures | {"bound_gibbs": bound, "bound_vote": bound}}


def mlp_tanh(cell: dict[str, Any], points: Points) -> dict[str, Any]:
    """A real-valued tanh network trained on all training points by the linear loss: no bound."""
    parts = (points.feature, points.prior, points.certification)
    x, y = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    seed = cell["seed"]
    network = MLP(
        x[0].numel(), (100,), shift=x.mean(), generator=generator(seed, "weights"), device=x.device
    )
    config = FitConfig(cell["epochs"], cell["batch"], learning_rate=0.003, compile=cell["compile"])
    curve = fit(
        RiskObjective(network),
        x,
        y,
        config,
        generator=generator(seed, "batches"),
        progress=name(cell),
    )
    x_test, y_test = points.test
    measures = {"error_train": mode_error(network, x, y)}
    return {
        "measures": measures | {"error_test": mode_error(network, x_test, y_test)},
        "curve": curve,
        "network": network,
    }


def pbgnet(cell: dict[str, Any], points: Points) -> dict[str, Any]:
    """PBGNet from a random prior, trained by the bound that certifies it."""
    x_feature, _ = points.feature
    centre = x_feature.mean(0) if cell["centring"] == "image" else x_feature.mean()
    seed = cell["seed"]
    network = PBGNet(
        centre_size(x_feature),
        (cell["hidden"],) if cell["hidden"] else (),
        shift=centre,
        generator=generator(seed, "prior"),
        device=x_feature.device,
    )
    x, y = points.certification
    budget = budget_of(cell)
    objective = BoundObjective(network, len(x), budget.events(exact=network.exact)["gibbs"])
    config = FitConfig(
        cell["epochs"],
        cell["batch"],
        cell["learning_rate"],
        kl_warmup=cell["kl_warmup"],
        patience=cell["patience"],
        compile=cell["compile"],
    )
    curve = fit_best_of(
        cell["restarts"],
        objective,
        x,
        y,
        config,
        generator=generator(seed, "batches"),
        progress=name(cell),
    )
    prior = "Xavier-normal draw; inputs centred on the feature split, whose labels are not used"
    if "filters" in cell:
        prior += "; random binary convolutions drawn from the seed"
    return {"curve": curve} | certified(cell, network, points, prior)


def pbgnet_rf(cell: dict[str, Any], points: Points) -> dict[str, Any]:
    """PBGNet on random binary convolutions of canonical images: a draw of the prior, with no KL."""
    shape = RandomConvolution(cell["filters"], cell["filter_size"], cell["pool"])

    def features(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, y = part
        source = generator(cell["seed"], "features")
        canonical = deskew(x) if cell["canonical"] == "deskew" else x
        return random_convolution(canonical, source, shape), y

    made = Points(*(features(getattr(points, f.name)) for f in dataclasses.fields(Points)))
    return pbgnet(cell, made)


def pbgnet_pre(cell: dict[str, Any], points: Points) -> dict[str, Any]:
    """PBGNet whose prior was trained on the prior split, its posterior by the bound on the rest."""
    x_prior, y_prior = points.prior
    seed = cell["seed"]
    network = PBGNet(
        centre_size(x_prior),
        (cell["hidden"],),
        aggregate="mean_field",
        shift=x_prior.mean(),
        generator=generator(seed, "prior"),
        device=x_prior.device,
    )
    config = FitConfig(
        cell["prior_epochs"],
        cell["prior_batch"],
        cell["prior_rate"],
        compile=cell["compile"],
    )
    fit(
        RiskObjective(network, cell["prior_loss"]),
        x_prior,
        y_prior,
        config,
        generator=generator(seed, "prior batches"),
        augment=random_affine if x_prior.ndim == 4 else None,
        progress=f"{name(cell)} prior",
    )
    network.adopt_as_prior()
    x, y = points.certification
    held_out = errors_of_one_draw_each(network, x, y, generator(seed, "hold-out", device=x.device))
    budget, rounding = budget_of(cell), rounding_error(network, len(x))
    objective = BoundObjective(network, len(x), budget.events(exact=False)["gibbs"])
    config = FitConfig(
        cell["epochs"], cell["batch"], learning_rate=cell["learning_rate"], compile=cell["compile"]
    )
    curve = fit(objective, x, y, config, generator=generator(seed, "batches"), progress=name(cell))
    result = certified(cell, network, points, "trained on the prior split with random affine maps")
    result["measures"]["bound_holdout"] = holdout_bound(held_out, len(x), budget, rounding)
    return {"curve": curve} | result


METHODS: dict[Method, Callable[[dict[str, Any], Points], dict[str, Any]]] = {
    "majority": majority,
    "mlp_tanh": mlp_tanh,
    "pbgnet": pbgnet,
    "pbgnet_pre": pbgnet_pre,
    "pbgnet_rf": pbgnet_rf,
}


def certified(cell: dict[str, Any], network: PBGNet, points: Points, prior: str) -> dict[str, Any]:
    """Both certificates of a trained network beside the figures of the predictor each bounds."""
    started = time.perf_counter()
    seed = cell["seed"]

    def measured(part: tuple[Tensor, Tensor], purpose: str, draws: int) -> Risks:
        source = generator(seed, purpose, device=part[0].device)
        return risks(network, *part, draws=draws, generator=source)

    n = len(points.certification[1])
    train = measured(points.certification, "certification draws", max(DRAWS, DRAWS_A_POINT * n))
    test = measured(points.test, "test draws", DRAWS_A_POINT * len(points.test[1]))
    budget, provenance = budget_of(cell), Provenance(prior, seed, cell["splits"])
    gibbs = certify_gibbs(network, train, budget, provenance)
    vote = certify_vote(network, train, budget, provenance)
    measures = {
        "n": train.n,
        "kl": gibbs.kl,
        "gibbs_train": train.gibbs,
        "gibbs_test": test.gibbs,
        "error_train": train.vote,
        "error_test": test.vote,
        "bound_gibbs": gibbs.bound,
        "bound_vote": vote.bound,
        "mode_test": mode_error(network, *points.test),
        "undecided_test": test.undecided,
        "draws": train.draws,
    }
    return {
        "measures": measures,
        "certificates": {"gibbs": gibbs.to_dict(), "vote": vote.to_dict()},
        "network": network,
        "seconds": {"certificate": time.perf_counter() - started},
    }


def cells_of(config: Config, tasks: dict[str, Task], ledgers: list[Path]) -> list[Cell]:
    """Every run of the study: all that determines its result, and a key made of it."""
    cells = []
    for dataset, task in tasks.items():
        charged = choices(ledgers, dataset)
        for method in config.methods:
            cell = settings(config, dataset, method)
            cell |= {"splits": splits_of(task, method).hashes(task), "choices": charged}
            check_listed(cell)
            for seed in range(config.seeds):
                cell = cell | {"seed": seed}
                cells.append(Cell(cell_key(cell, {"sha256": task.sha256}), cell))
    return cells


def settings(config: Config, dataset: str, method: Method) -> dict[str, Any]:
    """The configuration of a method on a data set, without its seed."""
    quick = config.preset == "quick"
    common = {name: getattr(config, name) for name in ("seeds", "delta", "threads", "compile")}
    common |= {"dataset": dataset, "method": method, "device": torch.device(config.device).type}
    large = dataset.endswith(LARGE)
    if method == "majority":
        return common
    if method == "mlp_tanh":
        return common | {"epochs": 5 if quick else 20, "batch": 64}
    if method == "pbgnet":
        recipe = LARGE_RECIPE if large else Recipe()
        values = dataclasses.asdict(recipe) | {"feature_points": FEATURE_POINTS}
        starts = min(recipe.restarts, 2) if quick else recipe.restarts
        values |= {"restarts": config.restarts or starts, "patience": config.patience}
        return common | values | {"epochs": recipe.epochs // 3 if quick else recipe.epochs}
    if method == "pbgnet_rf":
        recipe = Recipe(0, "image", 40, 512, 0.3)
        values = dataclasses.asdict(recipe) | dataclasses.asdict(RandomConvolution())
        values["filter_size"] = values.pop("size")
        values |= {"canonical": "deskew", "feature_points": FEATURE_POINTS, "patience": 0}
        return common | values | {"epochs": recipe.epochs // 2 if quick else recipe.epochs}
    prior = {
        "hidden": PRE_HIDDEN,
        "prior_loss": "linear" if large else "log",
        "prior_batch": 256 if large else 64,
        "prior_rate": 0.1,
        "prior_epochs": (12 if large else 20) if quick else 100,
    }
    posterior = {"batch": 256, "epochs": 2 if quick else 10, "learning_rate": 3e-4}
    return common | prior | posterior | {"draws": [DRAWS, DRAWS_A_POINT]}


def check_listed(cell: dict[str, Any]) -> None:
    """Refuse to certify a prior that the price does not cover."""
    listed = PRIORS.get(cell["method"], {})
    for field, values in listed.items():
        if cell[field] not in values:
            raise ValueError(f"`{field}` must be one of the listed {values}, got {cell[field]!r}.")
    if math.prod(map(len, listed.values())) > cell["choices"]:
        raise ValueError(f"`choices` must cover the list of priors, got {cell['choices']}.")


def splits_of(task: Task, method: Method) -> Splits:
    """Splits by seed 42: a quarter for the test, then what the method's prior may look at."""
    if method == "pbgnet_pre":
        return split(task, prior=0.5)
    if method in ("pbgnet", "pbgnet_rf"):
        # Small data sets give up at most a tenth of their training points.
        return split(task, feature=min(FEATURE_POINTS, len(task.y) * 3 // 40))
    return split(task)


def points_of(task: Task, parts: Splits, device: str) -> Points:
    """The task's splits as tensors on the device."""

    def tensors(index: np.ndarray) -> tuple[Tensor, Tensor]:
        return tuple(torch.from_numpy(a[index]).to(device) for a in (task.x, task.y))  # type: ignore[return-value]

    return Points(*(tensors(getattr(parts, f.name)) for f in dataclasses.fields(Points)))


def run(
    cell: dict[str, Any], *, tasks: dict[str, Task], folder: Path, device: str
) -> dict[str, Any]:
    """One run: train, certify, measure; the trained network goes beside the record."""
    torch.set_num_threads(cell["threads"])
    task = tasks[cell["dataset"]]
    parts = splits_of(task, cell["method"])
    points = points_of(task, parts, device)
    started = time.perf_counter()
    result = METHODS[cell["method"]](cell, points)
    total = time.perf_counter() - started
    seconds = result.pop("seconds", {})
    seconds["training"] = total - seconds.get("certificate", 0.0)
    network = result.pop("network", None)
    if network is not None:
        key = cell_key(cell, {"sha256": task.sha256})
        save_checkpoint(folder / f"{key}.safetensors", network)
    data = {"source": task.source, "sha256": task.sha256, "splits": cell["splits"]}
    return result | {"data": data, "seconds": seconds} | environment()


def budget_of(cell: dict[str, Any]) -> Budget:
    """How this cell's δ is divided."""
    return Budget(cell["delta"], cell["seeds"], cell["choices"])


def name(cell: dict[str, Any]) -> str:
    """What a person calls a cell."""
    return Cell("", cell).name


def centre_size(x: Tensor) -> int:
    """Numbers in one flattened input."""
    return x[0].numel()


def tasks_of(config: Config) -> tuple[dict[str, Task], bool]:
    """The tasks, and whether bundled digits stand in for MNIST, which could not be had."""
    read = functools.partial(load, data_dir=config.data_dir, offline=config.offline)
    try:
        return two_class(map(read, config.datasets)), False
    except DataUnavailable as error:
        print(
            f"{error}\n\nGoing on with scikit-learn's bundled 8x8 digits instead: "
            "what follows is NOT MNIST.\n"
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


def draw(folder: Path) -> None:
    """Tables and figures of a folder, from its CSV files alone."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    records = reporting.records_from_csv(folder / "records.csv")
    curves = reporting.curves_from_csv(folder / "curves.csv")
    frame = reporting.table(records)
    order = list(frame["method"].unique())
    what = about["source"]
    others = published()
    others = others[others["dataset"].isin(frame["dataset"])]
    runs = "one seed" if about["seeds"] == 1 else f"means over {about['seeds']} seeds"
    caption = (
        f"PBGNet trained by its own bound on {what}; {about['preset']} preset, {runs}, one split. "
        f"Each bound, taken alone, fails with probability at most {about['delta']:g}; the "
        "Monte-Carlo step and the choice of the prior from a list are paid for. Gibbs: a random "
        "network of the posterior; vote: the sign of the aggregate (of 100 or more draws where it "
        "is not summed exactly); hold-out: a random network of the trained prior, binomial; gap: "
        "Gibbs bound minus Gibbs test risk, which has the test set's own error. ±: standard "
        "deviation over seeds."
    )
    if len(others):
        caption += (
            " Letarte et al. (2019), https://arxiv.org/abs/1905.10259, and a public re-run of "
            "their code bound the Gibbs risk and pay for none of their choices."
        )
    digits = "_digits" if about["substitute"] else ""
    reporting.write_table(frame, folder, caption=caption, published=others if len(others) else None)
    for suffix in (".md", ".tex") if digits else ():
        (folder / f"table{suffix}").replace(folder / f"table{digits}{suffix}")
    if frame.loc[frame["method"] != "majority", "bound_gibbs"].notna().any():
        title = f"Bound against test error\n{what}"
        reporting.bound_vs_error(
            frame, folder / f"bound_vs_error{digits}", title=title, order=order
        )
    if curves:
        title = f"Training by the bound\n{what}"
        reporting.learning_curves(
            curves, folder / f"learning_curves{digits}", title=title, order=order
        )
    print((folder / f"table{digits}.md").read_text(encoding="utf-8"))


def published() -> pd.DataFrame:
    """Bounds of the paper's table and of a public re-run of its code (seed 42)."""
    rows = [
        ("mnist17", "pbgnet", ".067", ".0399"),
        ("mnist49", "pbgnet", ".153", ".1388"),
        ("mnist56", "pbgnet", ".103", ".0894"),
        ("mnistLH", "pbgnet", ".186", ".1617"),
        ("mnist17", "pbgnet_pre", ".009", ".0107"),
        ("mnist49", "pbgnet_pre", ".030", ".0305"),
        ("mnist56", "pbgnet_pre", ".017", ".0181"),
        ("mnistLH", "pbgnet_pre", ".033", ".0325"),
    ]
    return pd.DataFrame(rows, columns=["dataset", "method", "Letarte et al. 2019", "re-run"])


def study(config: Config) -> Path:
    """Run what is missing, then write every table and figure; returns the folder."""
    if config.redraw:
        folders = [folder_of(config, substitute) for substitute in (False, True)]
        folder = next((f for f in folders if (f / "study.json").exists()), folders[0])
        draw(folder)
        return folder
    tasks, substitute = tasks_of(config)
    folder = folder_of(config, substitute)
    ledger = folder / "tried.csv"
    # Entered before it is charged for: the next time the same command finds the same number.
    record_tried(ledger, tried(config, tasks))
    ledgers = [path for path in {REPORTS / NAME / "tried.csv", ledger} if path.exists()]
    cells = cells_of(config, tasks, ledgers)
    print(f"Runs: {len(cells)}, kept one by one in {folder / 'runs'}; interrupt and go on at will.")
    one = functools.partial(run, tasks=tasks, folder=folder / "runs", device=config.device)
    records = run_cells(cells, one, folder / "runs")
    reporting.write_records_csv(records, folder / "records.csv")
    reporting.write_curves_csv(records, folder / "curves.csv")
    reporting.write_timings_csv(records, folder / "timings.csv")
    certificates = {r["key"]: r["certificates"] for r in records if "certificates" in r}
    write_json(folder / "certificates.json", {"schema_version": SCHEMA_VERSION} | certificates)
    write_json(folder / "study.json", about(config, tasks, substitute))
    draw(folder)
    return folder


def tried(config: Config, tasks: dict[str, Task]) -> list[dict[str, Any]]:
    """Rows of the ledger: the configurations that this study certifies."""
    certified_methods = [m for m in config.methods if m.startswith("pbgnet")]
    return [
        {
            "dataset": dataset,
            "configuration": configuration_key(settings(config, dataset, method)),
            "note": f"{method}, {config.preset} preset",
        }
        for dataset in tasks
        for method in certified_methods
    ]


def about(config: Config, tasks: dict[str, Task], substitute: bool) -> dict[str, Any]:
    """What a reader must know of a finished study, and a redraw cannot see in the CSV files."""
    sources = list(dict.fromkeys(task.source for task in tasks.values()))
    described = {name: getattr(config, name) for name in ("preset", "seeds", "delta")}
    described |= {"command": command_of(config), "source": ", ".join(sources)}
    described |= {"substitute": substitute}
    return {"schema_version": SCHEMA_VERSION} | described | environment()


def command_of(config: Config) -> str:
    """The command that repeats a study, without the folders, which differ between machines."""
    words = [f"python studies/{NAME}.py --preset {config.preset}"]
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        if value == field.default or field.name in ("preset", "data_dir", "out", "redraw"):
            continue
        words.append(f"--{field.name}")
        if not isinstance(value, bool):
            words.append(" ".join(value) if isinstance(value, tuple) else str(value))
    return " ".join(words)


def parse() -> Config:
    """The configuration from the command line."""
    try:
        import tyro
    except ImportError:
        if len(sys.argv) > 1:
            raise SystemExit("Flags need the package tyro: pip install tyro") from None
        return Config()
    return tyro.cli(Config, description=__doc__)


def main() -> None:
    """Run the study from the command line."""
    config = parse()
    try:
        folder = study(config)
    except (OSError, ValueError) as error:
        # An error inside a run carries a note with its cell, and its traceback is worth seeing.
        if getattr(error, "__notes__", None):
            raise
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        text = "\nInterrupted. Finished runs are kept: give the same command to go on."
        raise SystemExit(text) from None
    print(f"Tables and figures are in {folder}")


if __name__ == "__main__":
    main()
