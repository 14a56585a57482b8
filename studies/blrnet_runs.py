"""One run of the study of BLRNets: train a network, and measure what can be made of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from common import Where
from torch import Tensor, nn

from pbnn.augmentation import AffineRange, random_affine
from pbnn.baselines import RealNet
from pbnn.data import Splits, Task, cut, load_once
from pbnn.ensembles import stopping_times
from pbnn.environment import environment
from pbnn.functional import mean_of
from pbnn.networks import BinaryNetwork, BLRNet, binarise, transfer
from pbnn.objectives import RiskObjective
from pbnn.posteriors import BernoulliPosterior
from pbnn.seeding import generator
from pbnn.training import Augmentation, FitConfig, checkpoint_bytes, fit, load_checkpoint
from pbnn.uncertainty import (
    area_under_error_coverage,
    auroc,
    calibration_error,
    ensemble_variance,
    error_coverage,
    fitted_temperature,
    predictive_entropy,
)

STRAIGHT = "straight_through"
METHODS: dict[str, dict[str, Any]] = {
    STRAIGHT: {"activation": "analytic", "trained_as": "mode", "start": "real"},
    "pbnet_s": {"activation": "concrete", "start": "binary"},
    "pbnet": {"activation": "analytic", "start": "binary"},
    "real": {},
    "pbnet_s_real": {"activation": "concrete", "start": "real"},
    "pbnet_s_uniform": {"activation": "concrete"},
    "pbnet_s_no_norm": {"activation": "concrete", "start": "real", "batch_norm": False},
}
"""How each method's network is made, and where its training starts.

At a real-valued network, uniformly, or at a binary one: the posterior committed to the most
probable network that `STRAIGHT` has trained as it is deployed.
"""

ENSEMBLES = (1, 2, 5, 16)
ALPHAS = (0.0, 0.01, 0.05, 0.2)
AT_ONCE = {"cpu": 50}
"""Images at once on a device, else 500: on a processor few enough that a layer stays in its cache,
which takes half the time of 500."""
CURVE_POINTS = 60


def run(cell: dict[str, Any], where: Where) -> dict[str, Any]:
    """A record: errors on the test images, curves, how long it took, and the network itself.

    A run that goes on from a binary network finds it in the folder `kept`, by its key.
    """
    torch.set_num_threads(cell["threads"])
    task = load_once(cell["dataset"], where.data_dir, where.offline)
    parts = parts_of(task)
    rows = parts.certification[: cell["images"] or None]
    x, y, test, label = (
        torch.from_numpy(values[index]).to(where.device)
        for index in (rows, parts.test)
        for values in (task.x, task.y)
    )
    began = time.perf_counter()
    network, curve = trained(cell, x, y, where.kept, where.progress)
    seconds = {"training": time.perf_counter() - began}
    if isinstance(network, RealNet):
        measures = {"propagated": error(scores_of(network, test), label)}
    else:
        outside = None
        if cell["outside"] is not None:
            other = load_once(cell["outside"]["dataset"], where.data_dir, where.offline)
            outside = torch.from_numpy(other.x[parts_of(other).test]).to(where.device)
        few = slice(cell["re_estimated_on"])
        measures, more = measured(cell, network, x[few], y[few], test, label, outside)
        curve += more
    seconds["all"] = time.perf_counter() - began
    measures |= {"images": len(x), "test_images": len(label)}
    about = {"hardware": environment()["hardware"], "seconds": seconds}
    files = {"safetensors": checkpoint_bytes(network)}
    return {"measures": measures, "curve": curve, "files": files} | about


def parts_of(task: Task) -> Splits:
    """The published test images apart, or a quarter where nobody has published any."""
    return cut(task)


def trained(
    cell: dict[str, Any], x: Tensor, y: Tensor, kept: Path, progress: bool
) -> tuple[BLRNet | RealNet, list[dict[str, Any]]]:
    """The network of a cell, and its training's curve."""
    seed, options = cell["seed"], dict(cell["options"])
    make: dict[str, Any] = {"generator": generator(seed, "start"), "device": x.device}
    shape = (tuple(x.shape[1:]), cell["architecture"])
    more: dict[str, Any] = {
        "generator": generator(seed, "batches"),
        "augment": augmentation(AffineRange(**cell["shifts"])) if cell["shifts"] else None,
        "progress": f"{cell['method']} {seed}" if progress else None,
    }

    def fitted(network: nn.Module, loss: str, epochs: int, rate: float) -> list[dict[str, Any]]:
        config = FitConfig(epochs, cell["batch"], rate)
        return training_rows(fit(RiskObjective(network, loss), x, y, config, **more))

    real = RealNet(*shape, **make)
    if cell["method"] == "real":
        curve = fitted(real, "cross_entropy", cell["epochs"], cell["real_rate"])
        return real.eval(), curve
    start, trained_as = options.pop("start", None), options.pop("trained_as", None)
    source = generator(seed, "signs", device=x.device)
    network = BLRNet(*shape, **options, **make, source=source)
    if start == "real":
        fitted(real, "cross_entropy", cell["pretraining"], cell["real_rate"])
        transfer(real, network)
    if trained_as is not None:
        network.activation = trained_as
        curve = fitted(network, "cross_entropy", cell["epochs"], cell["binary_rate"])
        network.activation = options["activation"]
        for weight in posteriors(network):
            weight.commit(cell["committed"])
        network.re_estimate(x[: cell["re_estimated_on"]])
    elif start == "binary":
        binary = load_checkpoint(kept / f"{cell['binary']}.safetensors", device=x.device)
        network.load_state_dict(binary.state_dict())
        curve = fitted(network, cell["loss"], cell["posterior_epochs"], cell["posterior_rate"])
    else:
        curve = fitted(network, cell["loss"], cell["epochs"], cell["learning_rate"])
    return network.eval(), curve


def posteriors(network: BLRNet) -> list[BernoulliPosterior]:
    """Those of all layers, which here are signs."""
    weights = [block.layer.weight for block in network.layers()]
    return [weight for weight in weights if isinstance(weight, BernoulliPosterior)]


def augmentation(limits: AffineRange) -> Augmentation:
    """Images moved a little, each in its own way."""
    return lambda images, source: random_affine(images, source, limits)


def training_rows(curve: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Training error against the epoch."""
    return [{"figure": "training", "x": n, "y": row["risk"]} for n, row in enumerate(curve, 1)]


def measured(
    cell: dict[str, Any],
    network: BLRNet,
    few: Tensor,
    few_labels: Tensor,
    test: Tensor,
    label: Tensor,
    outside: Tensor | None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Errors of everything a posterior can be turned into, and the curves of its ensemble.

    Batch normalisation is estimated again, and temperatures are fitted, on a few training images.
    """
    draws = generator(cell["seed"], "members", device=test.device)
    mode, ternary = binarise(network), binarise(network, "ternary").re_estimate(few)
    drawn = [binarise(network, "sample", draws).re_estimate(few) for _ in range(max(ENSEMBLES))]
    warm = fitted_temperature(scores_of(network, few), few_labels)
    warm_drawn = fitted_temperature(scores_of(drawn[0], few), few_labels)
    log_propagated = log_probabilities(network, test, warm)
    propagated = log_propagated.exp()
    weights = torch.cat([block.weight.flatten() for block in ternary.layers()])
    measures: dict[str, Any] = {
        "propagated": error(propagated, label),
        "mode_running": error(scores_of(mode, test), label),
        "mode": error(scores_of(mode.re_estimate(few), test), label),
        "ternary": error(scores_of(ternary, test), label),
        "zeros": float((weights == 0).double().mean()),
        "parameters": len(weights),
        "temperature_propagated": warm,
        "temperature": warm_drawn,
        "re_estimated_on": len(few),
    }
    members = probabilities(drawn, test, warm_drawn)
    single = [error(each, label) for each in members]
    measures["single"] = sum(single) / len(single)
    for size in ENSEMBLES:
        measures[f"ensemble_{size}"] = error(members[:size].mean(0), label)
    scores = uncertainties(log_propagated, members)
    measures |= {
        "calibration_propagated": calibration_error(propagated, label),
        "calibration_ensemble": calibration_error(members.mean(0), label),
    }
    curve = []
    wrong = members.mean(0).argmax(1) != label
    for name, score in scores.items():
        measures[f"aurc_{name}"] = area_under_error_coverage(score, wrong)
        curve += coverage_rows(name, *error_coverage(score, wrong))
    if outside is not None:
        beyond = log_probabilities(network, outside, warm)
        found = uncertainties(beyond, probabilities(drawn, outside, warm_drawn))
        measures |= {f"auroc_{name}": auroc(scores[name], found[name]) for name in scores}
    stopped, more = anytime_rows(members, label)
    return measures | stopped, curve + more


def log_probabilities(network: BLRNet | BinaryNetwork, x: Tensor, temperature: float) -> Tensor:
    """Logarithms of class probabilities, shape (n, classes), in float64."""
    return (scores_of(network, x).double() / temperature).log_softmax(1)


def probabilities(members: list[BinaryNetwork], x: Tensor, temperature: float) -> Tensor:
    """Class probabilities of each member, shape (members, n, classes)."""
    return torch.stack([log_probabilities(each, x, temperature).exp() for each in members])


def uncertainties(log_propagated: Tensor, members: Tensor) -> dict[str, Tensor]:
    """Scores that should be large where the ensemble's prediction is wrong."""
    mean = members.mean(0)
    largest = log_propagated.argmax(1, keepdim=True)
    return {
        # The logarithm of 1 − the largest, which itself would be 0 for most images, and tie them.
        "propagated": log_propagated.scatter(1, largest, -torch.inf).logsumexp(1),
        "confidence": 1 - mean.max(1).values,
        "entropy": predictive_entropy(mean),
        "variance": ensemble_variance(members),
    }


def coverage_rows(name: str, coverage: Tensor, wrong: Tensor) -> list[dict[str, Any]]:
    """A curve of error against coverage at some of its points, the last among them."""
    step = max(1, len(coverage) // CURVE_POINTS)
    chosen = range(len(coverage) - 1, -1, -step)
    return [
        {"figure": f"coverage {name}", "x": float(coverage[i]), "y": float(wrong[i])}
        for i in reversed(chosen)
    ]


def anytime_rows(members: Tensor, label: Tensor) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Average members, error and share of other predictions than the full ensemble's."""
    full = stopping_times(members, alpha=0.0).prediction
    measures, rows = {}, []
    for alpha in ALPHAS:
        found = stopping_times(members, alpha=alpha)
        figures = {
            "members": float(found.members.double().mean()),
            "error": float((found.prediction != label).double().mean()),
            "differs": float((found.prediction != full).double().mean()),
        }
        measures |= {f"anytime_{alpha:g}_{name}": value for name, value in figures.items()}
        rows.append({"figure": "anytime", "x": figures["members"], "y": figures["error"]})
    return measures, rows


@torch.no_grad()
def scores_of(network: BLRNet | RealNet | BinaryNetwork, x: Tensor) -> Tensor:
    """Scores, or their means, shape (n, classes)."""
    at_once = AT_ONCE.get(x.device.type, 500)
    return torch.cat([mean_of(network(part)) for part in x.split(at_once)])


def error(scores: Tensor, label: Tensor) -> float:
    """Share of wrong predictions."""
    return float((scores.argmax(1) != label).double().mean())
