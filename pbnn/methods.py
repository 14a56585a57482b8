"""Methods of a bound-versus-error table: from a configuration and points to certified measures."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from pbnn.augmentation import random_affine
from pbnn.baselines import MLP
from pbnn.bounds import clopper_pearson, delta_each, exact
from pbnn.certificates import Budget, Provenance, certify_gibbs, certify_vote, holdout_bound
from pbnn.data import Splits, Task, load_once, split
from pbnn.environment import environment
from pbnn.evaluation import Risks, errors_of_one_draw_each, mode_error, risks, rounding_error
from pbnn.inputs import INPUTS, Part, Points
from pbnn.networks import ABNet, PBGNet, SignNetwork
from pbnn.objectives import (
    BoundObjective,
    Objective,
    RiskObjective,
    SelectedByBound,
    VariationalObjective,
)
from pbnn.seeding import generator
from pbnn.training import FitConfig, checkpoint_bytes, fit, fit_best_of

Cell = dict[str, Any]
"""Configuration of one run, plain JSON."""


def run(
    cell: Cell,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """One run: load, train, certify, measure.

    Parameters
    ----------
    cell : dict
        The configuration, with ``dataset``, ``method``, ``seed``, ``threads`` and what the method
        needs.
    data_dir, offline
        As for `pbnn.data.load`.
    device : str
    progress : bool
        Whether to show a bar of the training.

    Returns
    -------
    dict
        ``measures``, ``certificates``, ``curve``, ``seconds``, ``data`` and the environment, and
        the trained network as a checkpoint under ``files``.
    """
    torch.set_num_threads(cell["threads"])
    task = load_once(cell["dataset"], data_dir, offline)
    parts = splits_of(task, cell)
    if parts.hashes(task) != cell["splits"]:
        raise ValueError(f"`splits` must be those of the data, got others for {task.name}.")
    points = points_of(task, parts, device)
    started = time.perf_counter()
    result = METHODS[cell["method"]](cell, points, name(cell) if progress else None)
    seconds = {"certificate": 0.0} | result.pop("seconds", {})
    seconds["training"] = time.perf_counter() - started - seconds["certificate"]
    network = result.pop("network", None)
    if network is not None:
        result["files"] = {"safetensors": checkpoint_bytes(network)}
    data = {"source": task.source, "sha256": task.sha256, "splits": cell["splits"]}
    return result | {"data": data, "seconds": seconds} | environment()


def splits_of(task: Task, cell: Cell) -> Splits:
    """Splits by seed 42: a quarter for the test, then what inputs and prior may look at."""
    # Small data sets give up at most a tenth of their training points.
    feature = min(cell.get("feature_points", 0), len(task.y) * 3 // 40)
    return split(task, feature=feature, prior=cell.get("prior_share", 0.0))


def points_of(task: Task, parts: Splits, device: str) -> Points:
    """The task's splits as tensors on the device."""

    def tensors(index: Any) -> Part:
        x, y = (torch.from_numpy(array[index]).to(device) for array in (task.x, task.y))
        return x, y

    return Points(*(tensors(getattr(parts, f.name)) for f in dataclasses.fields(Points)))


def majority(cell: Cell, points: Points, label: str | None) -> dict[str, Any]:
    """The constant that errs less on the certification split, chosen among two and paid for."""
    (_, y), (_, y_test) = points.certification, points.test
    errors, errors_test = int((y < 0).sum()), float((y_test < 0).double().mean())
    if 2 * errors > len(y):
        errors, errors_test = len(y) - errors, 1 - errors_test
    delta = delta_each(cell["delta"], 2 * cell["seeds"])
    risk = errors / len(y)
    bound = exact.upper(clopper_pearson, errors, len(y), delta=delta)
    measures = {"n": len(y), "gibbs_train": risk, "gibbs_test": errors_test}
    measures |= {"error_train": risk, "error_test": errors_test}
    return {"measures": measures | {"bound_gibbs": bound, "bound_vote": bound}}


def mlp_tanh(cell: Cell, points: Points, label: str | None) -> dict[str, Any]:
    """A real-valued tanh network trained on all points but the test, by the linear loss."""
    points, shift = INPUTS[cell["inputs"]](points, cell)
    parts = (points.feature, points.prior, points.certification)
    x, y = (torch.cat([part[i] for part in parts if len(part[1])]) for i in (0, 1))
    seed = cell["seed"]
    network = MLP(
        x[0].numel(), (100,), shift=shift, generator=generator(seed, "weights"), device=x.device
    )
    curve = fit(
        RiskObjective(network),
        x,
        y,
        fit_config(cell),
        generator=generator(seed, "batches"),
        progress=label,
    )
    measures = {"error_train": mode_error(network, x, y)}
    measures |= {"error_test": mode_error(network, *points.test)}
    return {"measures": measures, "curve": curve, "network": network}


def sign_network(cell: Cell, points: Points, label: str | None) -> dict[str, Any]:
    """A binary-activated network with certificates, its prior random or trained.

    The cell says which aggregate (``network``), which inputs, which prior and which objective.
    """
    points, shift = INPUTS[cell["inputs"]](points, cell)
    x, y = points.certification
    seed, budget = cell["seed"], budget_of(cell)
    network = NETWORKS[cell["network"]](
        x[0].numel(),
        tuple(cell["hidden"]),
        bias=cell["bias"],
        shift=shift,
        prior_scale=cell["prior_scale"],
        prior_bias=cell["prior_bias"],
        generator=generator(seed, "prior"),
        device=x.device,
    )
    measures = train_prior(cell, points, network, label) if cell.get("prior_share") else {}
    delta = budget.events(exact=network.summable)["gibbs"]
    curve = fit_best_of(
        cell["restarts"],
        OBJECTIVES[cell["objective"]](network, len(x), delta, cell),
        x,
        y,
        fit_config(cell),
        generator=generator(seed, "batches"),
        progress=label,
    )
    result = certified(cell, network, points)
    result["measures"] |= measures
    return {"curve": curve} | result


def train_prior(
    cell: Cell, points: Points, network: SignNetwork, label: str | None
) -> dict[str, float]:
    """Train the prior on its split; returns the hold-out bound of the prior itself."""
    x, y = points.prior
    seed = cell["seed"]
    config = FitConfig(
        cell["prior_epochs"], cell["prior_batch"], cell["prior_rate"], compile=cell["compile"]
    )
    fit(
        RiskObjective(network, cell["prior_loss"], cell["prior_decay"]),
        x,
        y,
        config,
        generator=generator(seed, "prior batches"),
        augment=random_affine if cell["prior_augmented"] else None,
        progress=label and f"{label} prior",
    )
    network.adopt_as_prior()
    x, y = points.certification
    held_out = errors_of_one_draw_each(network, x, y, generator(seed, "hold-out", device=x.device))
    rounding = rounding_error(network, len(x))
    return {"bound_holdout": holdout_bound(held_out, len(x), budget_of(cell), rounding)}


def certified(cell: Cell, network: SignNetwork, points: Points) -> dict[str, Any]:
    """Both certificates of a trained network beside the figures of the predictor each bounds."""
    started = time.perf_counter()
    seed = cell["seed"]
    draws, draws_a_point = cell["draws"]

    def measured(part: Part, purpose: str, least: int) -> Risks:
        source = generator(seed, purpose, device=part[0].device)
        draws = max(least, draws_a_point * len(part[1]))
        return risks(network, *part, draws=draws, generator=source)

    train = measured(points.certification, "certification draws", draws)
    test = measured(points.test, "test draws", 1)
    budget, provenance = budget_of(cell), Provenance(prior_of(cell), seed, cell["splits"])
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
        "mode_train": mode_error(network, *points.certification),
        "mode_test": mode_error(network, *points.test),
        "undecided_test": test.undecided,
        "draws": train.draws,
        "draws_a_point": train.draws // train.n,
    }
    return {
        "measures": measures,
        "certificates": {"gibbs": gibbs.to_dict(), "vote": vote.to_dict()},
        "network": network,
        "seconds": {"certificate": time.perf_counter() - started},
    }


def prior_of(cell: Cell) -> str:
    """What the prior is and which data shaped it, for a certificate."""
    if cell.get("prior_share"):
        augmented = " with random affine maps" if cell["prior_augmented"] else ""
        return f"trained on the prior split{augmented}; inputs: {cell['inputs']}"
    draw = f"Xavier-normal draw times {cell['prior_scale']:g}, output bias {cell['prior_bias']:g}"
    return f"{draw}; inputs: {cell['inputs']}"


def _learned_c(network: SignNetwork, n: int, delta: float, cell: Cell) -> Objective:
    return BoundObjective(network, n, delta)


def _fixed_c(network: SignNetwork, n: int, delta: float, cell: Cell) -> Objective:
    return BoundObjective(network, n, delta, C=cell["C"])


def _elbo(network: SignNetwork, n: int, delta: float, cell: Cell) -> Objective:
    return VariationalObjective(network, n, cell["C"])


def _risk(network: SignNetwork, n: int, delta: float, cell: Cell) -> Objective:
    return RiskObjective(network, "linear", cell["decay"])


def _selected_by_bound(network: SignNetwork, n: int, delta: float, cell: Cell) -> Objective:
    return SelectedByBound(network, n, delta, cell["decay"])


OBJECTIVES: dict[str, Callable[[SignNetwork, int, float, Cell], Objective]] = {
    "bound": _learned_c,
    "fixed_c": _fixed_c,
    "elbo": _elbo,
    "risk": _risk,
    "selected_by_bound": _selected_by_bound,
}
"""What trains the posterior, by the name a cell gives."""

NETWORKS: dict[str, type[SignNetwork]] = {"tree": PBGNet, "chain": ABNet}
"""Which aggregate is trained and certified."""

METHODS: dict[str, Callable[[Cell, Points, str | None], dict[str, Any]]] = {
    "majority": majority,
    "mlp_tanh": mlp_tanh,
} | dict.fromkeys(
    (
        "pbgnet_l",
        "pbgnet_l_bnd",
        "elbo",
        "fixed_c",
        "pbgnet",
        "abnet",
        "pbgnet_rf",
        "pbgnet_pre",
    ),
    sign_network,
)
"""Methods by name; those of sign networks differ in their configuration alone."""


def fit_config(cell: Cell) -> FitConfig:
    """How the cell's posterior is trained."""
    return FitConfig(
        cell["epochs"],
        cell["batch"],
        cell["learning_rate"],
        kl_warmup=cell.get("kl_warmup", 0.0),
        patience=cell.get("patience", 0),
        compile=cell["compile"],
    )


def budget_of(cell: Cell) -> Budget:
    """How this cell's δ is divided."""
    return Budget(cell["delta"], cell["seeds"], cell["choices"])


def name(cell: Cell) -> str:
    """What a person calls a cell."""
    fields = (cell["dataset"], cell["method"], hidden_name(cell.get("hidden")), cell["seed"])
    return "/".join(str(field) for field in fields if field is not None)


def hidden_name(hidden: list[int] | None) -> str | None:
    """Hidden widths as a word: ``unit`` for none, ``10-10`` for two layers of ten."""
    if hidden is None:
        return None
    return "-".join(map(str, hidden)) or "unit"
