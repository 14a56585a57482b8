"""One run of the study of ten-class certificates: prior, posterior, certificates, test errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from blrnet_runs import METHODS as IMAGE_METHODS
from blrnet_runs import STRAIGHT, error, scores_of, trained
from certified_readouts import (
    AT_ONCE,
    binary_readout,
    gaussian_readout,
    recursive_readout,
    risks_of_draws,
    trained_network,
)
from certified_records import (
    Cell,
    Result,
    budget_of,
    cost_of_draws,
    holdout,
    provenance_of,
    result_of,
)
from common import Where, loaded
from torch import Tensor

from pbnn.bounds import exact, monte_carlo
from pbnn.certificates import certify_gibbs, certify_one
from pbnn.data import Splits, Task, cut
from pbnn.environment import environment
from pbnn.inputs import CANONICAL, Points
from pbnn.layers import freeze_statistics
from pbnn.networks import BinaryNetwork, binarise
from pbnn.seeding import generator
from pbnn.training import checkpoint_bytes


def run(cell: Cell, where: Where) -> dict[str, Any]:
    """A record: certificates by predictor, measures, curve, times, and the network itself.

    A run with the network of a prior training finds it in the folder `kept`, by its key.
    """
    task, points = loaded(cell, lambda task: splits_of(task, cell), where)
    began = time.perf_counter()
    result = NETWORKS[cell["network"]](cell, points, where.kept, where.progress)
    result["seconds"]["all"] = time.perf_counter() - began
    data = {"source": task.source, "sha256": task.sha256, "splits": cell["splits"]}
    files = {"safetensors": checkpoint_bytes(result.pop("network"))}
    return result | {"data": data, "files": files} | environment()


def splits_of(task: Task, cell: Cell) -> Splits:
    """The published test images apart, or a quarter; then what inputs and prior may look at."""
    return cut(task, feature=cell["feature_points"], prior=cell["prior_share"])


def prior_training(cell: Cell, points: Points, _: Path, progress: bool) -> Result:
    """Train a binary convolutional network straight through, on the prior split alone."""
    began = time.perf_counter()
    how = cell | {"method": STRAIGHT, "options": IMAGE_METHODS[STRAIGHT]}
    network, curve = trained(how, *canonical(cell, points).prior, Path(), progress)
    return result_of(network, {}, {}, curve, {"training": time.perf_counter() - began})


def binary_network(cell: Cell, points: Points, kept: Path, _: bool) -> Result:
    """The binary convolutional network of the prior split: its posterior is its prior.

    The certification points only measure it, so every certificate is a hold-out bound in effect.
    """
    began = time.perf_counter()
    points = canonical(cell, points)
    (x, y), (test, label) = points.certification, points.test
    seed, budget, provenance = cell["seed"], budget_of(cell, "fixed"), provenance_of(cell)
    prior = cell["splits"]["prior"]
    network = trained_network(cell, kept, x.device)
    network.adopt_as_prior()
    freeze_statistics(network, prior)
    train, tested = risks_of_draws(cell, network, points)
    seconds = {"draws": time.perf_counter() - began}
    few = points.prior[0][: cell["re_estimated_on"]]
    source = generator(seed, "members", device=x.device)
    members = [binarise(network, "sample", source) for _ in range(cell["members"])]
    fixed = {"single": [binarise(network)], "vote": members}
    certificates = {"gibbs": certify_gibbs(network, train, budget, provenance, fixed=True)}
    errors = {"gibbs": tested.gibbs}
    # With the whole δ of the row, less what the draws take.
    held_out = certificates["gibbs"].risk_upper, len(y)
    chernoff = exact.upper(monte_carlo, *held_out, delta=0.9 * budget.each())
    measures: dict[str, Any] = {"gibbs_bound_holdout": chernoff}
    for name, networks in fixed.items():
        for member in networks:
            freeze_statistics(member.re_estimate(few), prior)
        wrong = round(error(averaged(networks, x), y) * len(y))
        voters = networks if name == "vote" else networks[0]
        certificates[name] = certify_one(voters, wrong, len(y), budget, provenance, fixed=True)
        errors[name] = error(averaged(networks, test), label)
        measures[f"{name}_bound_holdout"] = holdout(wrong, len(y), budget)
    seconds["certificate"] = time.perf_counter() - began - sum(seconds.values())
    measures |= cost_of_draws(certificates["gibbs"], len(y) * cell["passes"])
    return result_of(network, certificates, errors, [], seconds, **measures)


def canonical(cell: Cell, points: Points) -> Points:
    """Each image in its canonical form, which depends on that image alone."""
    form = CANONICAL[cell["canonical"]]
    return points.map(lambda x: torch.cat([form(part) for part in x.split(AT_ONCE)]))


def averaged(networks: list[BinaryNetwork], x: Tensor) -> Tensor:
    """Mean class probabilities of networks, whose scores batch normalisation has scaled alike."""
    return torch.stack([scores_of(each, x).softmax(1) for each in networks]).mean(0)


NETWORKS: dict[str, Callable[[Cell, Points, Path, bool], Result]] = {
    "random_features": gaussian_readout,
    "learned_features": gaussian_readout,
    "binary_readout": binary_readout,
    "recursive_features": recursive_readout,
    "prior_training": prior_training,
    "binary_cnn": binary_network,
}
"""Networks by the name a cell gives."""
