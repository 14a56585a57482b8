"""Read-outs of features that are fixed beforehand: priors, posteriors, certificates."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from blrnet_runs import error, scores_of
from certified_records import (
    Cell,
    Result,
    budget_of,
    cost_of_draws,
    holdout,
    label_of,
    provenance_of,
    result_of,
)
from torch import Tensor, nn

from pbnn.certificates import (
    Step,
    certify_gibbs,
    certify_one,
    certify_recursive,
    certify_vote,
    check_statistics,
    code_length,
    kl_upper,
    log_ratio_upper,
)
from pbnn.class_risks import drawn_risks, readout_errors, readout_risks
from pbnn.evaluation import Risks
from pbnn.features import (
    Axes,
    RandomConvolution,
    along,
    emphasised,
    principal_axes,
    random_convolution,
)
from pbnn.inputs import CANONICAL, Part, Points, sample_of
from pbnn.layers import freeze_statistics
from pbnn.networks import BLRNet, GaussianReadout, binarise
from pbnn.objectives import BoundObjective
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit, load_checkpoint

AT_ONCE = 1000
"""Points whose features are held at once: those of all would be many times what is kept."""
SAMPLE_UP_TO = 2000
"""Points of the feature or prior split that axes are taken of."""


def gaussian_readout(cell: Cell, points: Points, kept: Path, progress: bool) -> Result:
    """A Gaussian read-out, certified without a draw."""
    began = time.perf_counter()
    return readout_along(cell, *on_axes(cell, points, kept), progress, began)


def readout_along(cell: Cell, points: Points, axes: Axes, progress: bool, began: float) -> Result:
    """The same of points that are coordinates already; its prior is learned where there is one."""
    seconds = {"features": time.perf_counter() - began}
    seed, has_prior = cell["seed"], len(points.prior[1]) > 0
    # The scale of the prior is free where the prior split chooses it; else each one is paid for.
    budget = budget_of(cell, choices=1 if has_prior else len(cell["emphases"]))
    delta = budget.events(exact=True)["gibbs"]
    device, width = points.test[0].device, len(axes.directions)

    def new() -> GaussianReadout:
        return GaussianReadout(width, cell["classes"], device=device)

    def trial(power: float) -> float:
        x, y = points.prior if has_prior else points.certification
        part = emphasised(x, axes, power), y
        curve = train(new(), cell, part, delta, "trial", cell["trial_epochs"])
        return min(row["objective"] for row in curve)

    power = min(cell["emphases"], key=trial)
    points = points.map(lambda x: emphasised(x, axes, power))
    x, y = points.certification
    readout, label = new(), label_of(cell, progress)
    measures: dict[str, Any] = {"emphasis": power}
    if has_prior:
        train(readout, cell, points.prior, delta, "prior batches", progress=label)
        readout.adopt_as_prior()
        source = generator(seed, "hold-out", device=device)
        random = int(readout_errors(readout, x, y, generator=source).sum())
        known = int(readout_errors(readout, x, y, weight=readout.weight.mode().detach()).sum())
        for name, wrong in {"gibbs": random, "vote": known, "single": known}.items():
            measures[f"{name}_bound_holdout"] = holdout(wrong, len(y), budget)
    curve = train(readout, cell, points.certification, delta, "batches", progress=label)
    seconds["training"] = time.perf_counter() - began - sum(seconds.values())
    risks, test = (readout_risks(readout, *part) for part in (points.certification, points.test))
    weight = copy.deepcopy(readout.weight).double().sample(the_draw(cell, device))
    one = readout.known(weight)
    wrong, test_wrong = (
        int(readout_errors(readout, *part, weight=weight).sum())
        for part in (points.certification, points.test)
    )
    provenance, ratio = provenance_of(cell), log_ratio_upper(readout.weight, weight)
    certificates = {
        "gibbs": certify_gibbs(readout, risks, budget, provenance),
        "vote": certify_vote(readout, risks, budget, provenance),
        "single": certify_one(one, wrong, len(y), budget, provenance, log_ratio=ratio),
    }
    errors = {"gibbs": test.gibbs, "vote": test.vote, "single": test_wrong / test.n}
    seconds["certificate"] = time.perf_counter() - began - sum(seconds.values())
    own = {"vote": risks.vote}
    return result_of(readout, certificates, errors, curve, seconds, own, **measures)


def binary_readout(cell: Cell, points: Points, kept: Path, progress: bool) -> Result:
    """A read-out of random signs: drawn for groups of points, drawn once, and the most probable."""
    began = time.perf_counter()
    points, axes = on_axes(cell, points, kept)
    points = points.map(lambda x: x[:, None, None, :])
    seconds = {"features": time.perf_counter() - began}
    seed, budget = cell["seed"], budget_of(cell, "coded")
    (x, y), (test, label) = points.certification, points.test
    shape = (1, 1, len(axes.directions)), f"SM{cell['classes']}"
    start = generator(seed, "start")
    network = BLRNet(*shape, batch_norm=False, start=0.01, generator=start, device=x.device)
    delta, name = budget.events(exact=False)["gibbs"], label_of(cell, progress)
    curve = train(network, cell, points.certification, delta, "batches", progress=name)
    seconds["training"] = time.perf_counter() - began - sum(seconds.values())
    risks, tested = risks_of_draws(cell, network, points)
    seconds["draws"] = time.perf_counter() - began - sum(seconds.values())
    source = the_draw(cell, x.device)
    one = binarise(copy.deepcopy(network).double(), "sample", source).to(x.dtype)
    mode = binarise(network)
    ratio = log_ratio_upper(network, one)
    provenance, n = provenance_of(cell), len(y)
    certificates = {"gibbs": certify_gibbs(network, risks, budget, provenance)}
    errors = {"gibbs": tested.gibbs}
    prices = {"single": {"log_ratio": ratio}, "mode": {"nats": code_length(network)}}
    for name, known in {"single": one, "mode": mode}.items():
        wrong = errors_of(known, x, y)
        certificates[name] = certify_one(known, wrong, n, budget, provenance, **prices[name])
        errors[name] = errors_of(known, test, label) / len(label)
    seconds["certificate"] = time.perf_counter() - began - sum(seconds.values())
    cost = cost_of_draws(certificates["gibbs"], n * cell["passes"])
    return result_of(network, certificates, errors, curve, seconds, **cost)


def recursive_readout(cell: Cell, points: Points, kept: Path, progress: bool) -> Result:
    """A Gaussian read-out whose prior is learned on one part after another."""
    began = time.perf_counter()
    points, axes = on_axes(cell, points, kept)
    points = points.map(lambda x: emphasised(x, axes, *cell["emphases"]))
    x, y = points.certification
    seed, budget = cell["seed"], budget_of(cell, "recursive")
    delta = budget.events(exact=False)["gibbs"] / len(cell["shares"])
    readout = GaussianReadout(x.shape[1], cell["classes"], device=x.device)
    ends = [0, *(round(share * len(y)) for share in accumulate(cell["shares"]))]
    source = generator(seed, "certification draws", device=x.device)
    seconds = {"features": time.perf_counter() - began}
    steps, curve = [], []
    for start, end in pairwise(ends):
        before = copy.deepcopy(readout)
        readout.adopt_as_prior()
        part, n = (x[:end], y[:end]), len(y) - start
        purpose, label = f"batches {end}", label_of(cell, progress)
        curve = train(readout, cell, part, delta, purpose, n=n, progress=label)
        fresh = x[start:], y[start:]
        wrong = readout_errors(readout, *fresh, generator=source)
        prior_wrong = readout_errors(before, *fresh, generator=source) if start else None
        steps.append(Step(kl_upper(readout), wrong, prior_wrong))
    seconds["training"] = time.perf_counter() - began - sum(seconds.values())
    certificates = {"gibbs": certify_recursive(readout, steps, budget, provenance_of(cell))}
    test = readout_risks(readout, *points.test)
    seconds["certificate"] = time.perf_counter() - began - sum(seconds.values())
    return result_of(readout, certificates, {"gibbs": test.gibbs}, curve, seconds)


def train(
    network: nn.Module,
    cell: Cell,
    part: Part,
    delta: float,
    purpose: str,
    epochs: int | None = None,
    n: int | None = None,
    progress: str | None = None,
) -> list[dict[str, float]]:
    """Minimise the bound of the random network on these points, and hand back the curve."""
    objective = BoundObjective(network, n or len(part[1]), delta, loss="gibbs")
    config = FitConfig(epochs or cell["epochs"], cell["batch"], cell["learning_rate"])
    source = generator(cell["seed"], purpose)
    return fit(objective, *part, config, generator=source, progress=progress)


def on_axes(cell: Cell, points: Points, kept: Path) -> tuple[Points, Axes]:
    """Coordinates of the points' features along the axes of a sample that serves for that."""
    from_training = cell["prior_training"] is not None
    features = learned(cell, points, kept) if from_training else partial(convolved, cell)
    return along_axes(cell, points, features)


def along_axes(
    cell: Cell, points: Points, features: Callable[[Tensor], Tensor]
) -> tuple[Points, Axes]:
    """The same of any features that were fixed before the certification points."""
    sample = features(sample_of(points)[:SAMPLE_UP_TO])
    axes = principal_axes(sample, min(cell["axes"], len(sample) - 1, sample.shape[1]))

    def coordinates(x: Tensor) -> Tensor:
        return torch.cat([along(features(part), axes) for part in x.split(AT_ONCE)])

    return points.map(coordinates), axes


def convolved(cell: Cell, x: Tensor) -> Tensor:
    """Shares of random binary convolutions of canonical images: a draw of the prior, no KL."""
    shape = RandomConvolution(cell["filters"], cell["filter_size"], cell["pool"])
    canonical = CANONICAL[cell["canonical"]](x)
    shares = random_convolution(canonical, generator(cell["seed"], "features"), shape)
    return shares ** cell["power"]


def learned(cell: Cell, points: Points, kept: Path) -> Callable[[Tensor], Tensor]:
    """Signs before the scores of the binary network that the prior split has trained."""
    network = trained_network(cell, kept, points.test[0].device)
    canonical = CANONICAL[cell["canonical"]]
    few = canonical(points.prior[0][: cell["re_estimated_on"]])
    fixed = binarise(network).re_estimate(few)
    freeze_statistics(fixed, cell["splits"]["prior"])
    check_statistics(fixed, provenance_of(cell))
    blocks = fixed.layers()[:-1]

    @torch.no_grad()
    def signs(x: Tensor) -> Tensor:
        x = canonical(x)
        for block in blocks:
            x = block(x)
        return x.flatten(1)

    return signs


def trained_network(cell: Cell, kept: Path, device: torch.device) -> BLRNet:
    """The network of the prior training that this cell names."""
    network = load_checkpoint(kept / f"{cell['prior_training']}.safetensors", device=device)
    assert isinstance(network, BLRNet)
    return network


def risks_of_draws(cell: Cell, network: BLRNet, points: Points) -> tuple[Risks, Risks]:
    """Of drawn networks on the certification points, and in one pass on the test points."""
    (x, y), group = points.certification, cell["group"]
    draws, test_draws = (
        generator(cell["seed"], use, device=x.device) for use in ("draws", "test draws")
    )
    risks = drawn_risks(network, x, y, group=group, passes=cell["passes"], generator=draws)
    return risks, drawn_risks(network, *points.test, group=group, passes=1, generator=test_draws)


def errors_of(network: nn.Module, x: Tensor, y: Tensor) -> int:
    """Errors of one network."""
    return round(error(scores_of(network, x), y) * len(y))


def the_draw(cell: Cell, device: torch.device) -> torch.Generator:
    """The one draw of a network that is certified by itself: its seed is fixed beforehand."""
    return generator(cell["seed"], "the one draw", device=device)
