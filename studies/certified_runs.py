"""One run of the study of ten-class certificates: prior, posterior, certificates, test errors."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from blrnet_runs import METHODS as IMAGE_METHODS
from blrnet_runs import STRAIGHT, error, scores_of, trained
from torch import Tensor

from pbnn.bounds import clopper_pearson, exact, monte_carlo
from pbnn.certificates import (
    Budget,
    Certificate,
    Provenance,
    Step,
    certify_gibbs,
    certify_one,
    certify_recursive,
    certify_vote,
    kl_upper,
    log_ratio_upper,
)
from pbnn.class_risks import drawn_risks, readout_errors, readout_risks
from pbnn.data import Splits, Task, load, published_split, split
from pbnn.environment import environment
from pbnn.features import RandomConvolution, along, principal_axes, random_convolution
from pbnn.inputs import CANONICAL, Part, Points, sample_of
from pbnn.layers import freeze_statistics
from pbnn.methods import points_of
from pbnn.networks import BinaryNetwork, BLRNet, GaussianReadout, binarise
from pbnn.objectives import BoundObjective
from pbnn.seeding import generator
from pbnn.training import FitConfig, checkpoint_bytes, fit

Cell = dict[str, Any]
Result = dict[str, Any]


def run(
    cell: Cell, data_dir: Path | None, offline: bool, device: str, progress: bool
) -> dict[str, Any]:
    """A record: certificates by predictor, measures, curve, times, and the network itself."""
    torch.set_num_threads(cell["threads"])
    task = load(cell["dataset"], data_dir, offline=offline)
    parts = splits_of(task, cell)
    if parts.hashes(task) != cell["splits"]:
        raise ValueError(f"`splits` must be those of the data, got others for {task.name}.")
    began = time.perf_counter()
    result = NETWORKS[cell["network"]](cell, points_of(task, parts, device), progress)
    result["seconds"]["all"] = time.perf_counter() - began
    data = {"source": task.source, "sha256": task.sha256, "splits": cell["splits"]}
    files = {"safetensors": checkpoint_bytes(result.pop("network"))}
    return result | {"data": data, "files": files} | environment()


def splits_of(task: Task, cell: Cell) -> Splits:
    """The published test images apart, or a quarter; then what inputs and prior may look at."""
    cut: Callable[..., Splits] = split if task.train is None else published_split
    return cut(task, feature=cell["feature_points"], prior=cell["prior_share"])


def random_features(cell: Cell, points: Points, progress: bool) -> Result:
    """A Gaussian read-out of random binary convolutions, certified exactly."""
    began = time.perf_counter()
    points = featured(points, cell)
    x, y = points.certification
    seed, budget = cell["seed"], budget_of(cell)
    delta = budget.events(exact=True)["gibbs"]
    readout = GaussianReadout(x.shape[1], cell["classes"], device=x.device)
    seconds = {"features": time.perf_counter() - began}

    def fitted(part: Part, purpose: str) -> list[dict[str, float]]:
        objective = BoundObjective(readout, len(part[1]), delta, loss="gibbs")
        config = FitConfig(cell["epochs"], cell["batch"], cell["learning_rate"])
        label = f"{cell['dataset']} {cell['prior']} {seed} {purpose}" if progress else None
        source = generator(seed, purpose)
        return fit(objective, *part, config, generator=source, progress=label)

    measures: dict[str, Any] = {}
    if len(points.prior[1]):
        fitted(points.prior, "prior batches")
        readout.adopt_as_prior()
        source = generator(seed, "hold-out", device=x.device)
        random = int(readout_errors(readout, x, y, generator=source).sum())
        known = int(readout_errors(readout, x, y, weight=readout.weight.mode().detach()).sum())
        for name, wrong in {"gibbs": random, "vote": known, "single": known}.items():
            measures[f"{name}_bound_holdout"] = holdout(wrong, len(y), cell)
    curve = fitted(points.certification, "batches")
    seconds["training"] = time.perf_counter() - began - sum(seconds.values())
    provenance = Provenance(cell["prior_text"], seed, cell["splits"])
    train, test = (readout_risks(readout, *part) for part in (points.certification, points.test))
    draw = generator(seed, "the one draw", device=x.device)
    weight = copy.deepcopy(readout.weight).double().sample(draw)
    errors, test_errors = (
        int(readout_errors(readout, *part, weight=weight).sum())
        for part in (points.certification, points.test)
    )
    ratio = log_ratio_upper(readout.weight, weight)
    certificates = {
        "gibbs": certify_gibbs(readout, train, budget, provenance),
        "vote": certify_vote(readout, train, budget, provenance),
        "single": certify_one(readout, errors, len(y), budget, provenance, log_ratio=ratio),
    }
    tested = {"gibbs": test.gibbs, "vote": test.vote, "single": test_errors / test.n}
    measures |= rows_of(certificates, tested) | {"vote_train": train.vote}
    seconds["certificate"] = time.perf_counter() - began - sum(seconds.values())
    return result_of(readout, certificates, measures, curve, seconds)


def recursive_features(cell: Cell, points: Points, progress: bool) -> Result:
    """The read-out of random features again, its prior learned on one part after another."""
    began = time.perf_counter()
    points = featured(points, cell)
    x, y = points.certification
    seed, budget = cell["seed"], budget_of(cell)
    delta = budget.events(exact=False)["gibbs"] / len(cell["shares"])
    readout = GaussianReadout(x.shape[1], cell["classes"], device=x.device)
    ends = [0, *(round(share * len(y)) for share in accumulate(cell["shares"]))]
    source = generator(seed, "certification draws", device=x.device)
    seconds = {"features": time.perf_counter() - began}
    steps, curve = [], []
    for start, end in pairwise(ends):
        before = copy.deepcopy(readout)
        readout.adopt_as_prior()
        objective = BoundObjective(readout, len(y) - start, delta, loss="gibbs")
        config = FitConfig(cell["epochs"], cell["batch"], cell["learning_rate"])
        order = generator(seed, "batches", end)
        label = f"{cell['dataset']} {cell['prior']} {seed} {end}" if progress else None
        curve = fit(objective, x[:end], y[:end], config, generator=order, progress=label)
        fresh = x[start:], y[start:]
        wrong = readout_errors(readout, *fresh, generator=source)
        prior_wrong = readout_errors(before, *fresh, generator=source) if start else None
        steps.append(Step(kl_upper(readout), wrong, prior_wrong))
    seconds["training"] = time.perf_counter() - began - sum(seconds.values())
    provenance = Provenance(cell["prior_text"], seed, cell["splits"])
    certificates = {"gibbs": certify_recursive(steps, budget, provenance)}
    test = readout_risks(readout, *points.test)
    seconds["certificate"] = time.perf_counter() - began - sum(seconds.values())
    measures = rows_of(certificates, {"gibbs": test.gibbs})
    return result_of(readout, certificates, measures, curve, seconds)


def featured(points: Points, cell: Cell) -> Points:
    """Random binary convolutions of canonical images along the axes of the unlabelled sample."""
    shape = RandomConvolution(cell["filters"], cell["filter_size"], cell["pool"])

    def convolved(x: Tensor) -> Tensor:
        canonical = CANONICAL[cell["canonical"]](x)
        shares = random_convolution(canonical, generator(cell["seed"], "features"), shape)
        return shares ** cell["power"]

    sample = convolved(sample_of(points)[: cell["axes"] + 1])
    axes = principal_axes(sample, min(cell["axes"], len(sample) - 1, sample.shape[1]))
    # A part at a time: the features of all images would be many times larger than what is kept.
    return points.map(lambda x: torch.cat([along(convolved(part), axes) for part in x.split(1000)]))


def binary_network(cell: Cell, points: Points, progress: bool) -> Result:
    """A binary convolutional network trained on the prior split alone: its posterior is its prior.

    The certification points only measure it, so every certificate is a hold-out bound in effect.
    """
    began = time.perf_counter()
    (x, y), (test, label) = points.certification, points.test
    seed, budget = cell["seed"], budget_of(cell)
    how = cell | {"method": STRAIGHT, "options": IMAGE_METHODS[STRAIGHT]}
    network, curve = trained(how, *points.prior, Path(), progress)
    few = points.prior[0][: cell["re_estimated_on"]]
    network.adopt_as_prior()
    freeze_statistics(network, cell["splits"]["prior"])
    seconds = {"training": time.perf_counter() - began}
    provenance = Provenance(cell["prior_text"], seed, cell["splits"])
    draws = generator(seed, "certification draws", device=x.device)
    train = drawn_risks(network, x, y, group=cell["group"], passes=cell["passes"], generator=draws)
    test_draws = generator(seed, "test draws", device=x.device)
    tested = drawn_risks(network, test, label, group=cell["group"], passes=1, generator=test_draws)
    seconds["draws"] = time.perf_counter() - began - sum(seconds.values())
    source = generator(seed, "members", device=x.device)
    members = [binarise(network, "sample", source) for _ in range(cell["members"])]
    fixed = {"single": [binarise(network)], "vote": members}
    for member in (member for networks in fixed.values() for member in networks):
        freeze_statistics(member.re_estimate(few), cell["splits"]["prior"])
    certificates = {"gibbs": certify_gibbs(network, train, budget, provenance)}
    errors = {"gibbs": tested.gibbs}
    for name, networks in fixed.items():
        wrong = round(error(averaged(networks, x), y) * len(y))
        voters = networks if name == "vote" else networks[0]
        certificates[name] = certify_one(voters, wrong, len(y), budget, provenance)
        errors[name] = error(averaged(networks, test), label)
    measures = rows_of(certificates, errors) | {"point_evaluations": len(y) * cell["passes"]}
    # Chernoff: losses of fresh networks on fresh points are what the step of draws is for, too.
    held_out = certificates["gibbs"].risk_upper, len(y)
    measures["gibbs_bound_holdout"] = exact.upper(monte_carlo, *held_out, delta=0.9 * budget.each())
    for name in fixed:
        wrong = round(certificates[name].risk * len(y))
        measures[f"{name}_bound_holdout"] = holdout(wrong, len(y), cell)
    return result_of(network, certificates, measures, curve, seconds)


def averaged(networks: list[BinaryNetwork], x: Tensor) -> Tensor:
    """Mean class probabilities of networks, whose scores batch normalisation has scaled alike."""
    return torch.stack([scores_of(each, x).softmax(1) for each in networks]).mean(0)


def result_of(
    network: BLRNet | GaussianReadout,
    certificates: dict[str, Certificate],
    measures: dict[str, Any],
    curve: list[dict[str, Any]],
    seconds: dict[str, float],
) -> Result:
    """What every run hands back."""
    stored = {name: each.to_dict() for name, each in certificates.items()}
    result = {"measures": measures, "certificates": stored, "curve": curve, "seconds": seconds}
    return result | {"network": network}


def rows_of(certificates: dict[str, Certificate], errors: dict[str, float]) -> dict[str, Any]:
    """What the table shows of each predictor."""
    measures: dict[str, Any] = {}
    for name, each in certificates.items():
        measures |= {
            f"{name}_certificate": each.bound,
            f"{name}_risk_train": each.risk,
            f"{name}_risk_upper": each.risk_upper,
            f"{name}_error_test": errors[name],
            f"{name}_kl": each.kl,
            f"{name}_draws": each.draws,
        }
    return measures | {"n": next(iter(certificates.values())).n}


def holdout(errors: int, n: int, cell: Cell) -> float:
    """What the prior alone is certified at, with the whole δ of the row."""
    return exact.upper(clopper_pearson, errors, n, delta=budget_of(cell).each())


def budget_of(cell: Cell) -> Budget:
    """How this cell's δ is divided."""
    return Budget(cell["delta"], cell["seeds"], cell["choices"], "classes")


NETWORKS: dict[str, Callable[[Cell, Points, bool], Result]] = {
    "random_features": random_features,
    "recursive_features": recursive_features,
    "binary_cnn": binary_network,
}
"""Networks by the name a cell gives."""
