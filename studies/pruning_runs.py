"""One run of the study of pruning: find masks, or train with masks held, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from balance_runs import accuracy, network_of, splits_of, training
from common import Where, about_run, files_of, loaded
from safetensors.torch import load_file
from torch import Tensor, nn

from pbnn.baselines import Classifier
from pbnn.binarize import binary_layers, check_latents
from pbnn.data import Task
from pbnn.inputs import Points
from pbnn.objectives import Objective, RiskObjective
from pbnn.representation import (
    Held,
    RotationObjective,
    clusters,
    features,
    jaccard,
    jaccard_by_chance,
    jaccard_by_groups,
    linear_probe,
    magnitude_groups,
    magnitude_masks,
    prunable,
    prune_in_rounds,
    random_masks,
    rotated,
    shuffled_masks,
    sparsity_of,
)
from pbnn.representation.pruning import Masks
from pbnn.seeding import generator, spawn_seed

Record = dict[str, Any]
AGAIN, OTHER = "labels_again", 10_000
"""Masks of labels from other batches, those of the seed and so many."""
SIDE = 4
"""To which maps are averaged for a probe of a block."""
BINS = 50
"""Groups of each layer's weights by the start's magnitudes."""


def run(cell: dict[str, Any], where: Where) -> Record:
    """A record: of masks their file, else accuracies with masks held, and overlaps of masks."""
    task, points = loaded(cell, splits_of, where)
    began, worked = time.perf_counter(), time.process_time()
    record = ROLES[cell["role"]](cell, task, points, where)
    seconds = {"all": time.perf_counter() - began, "cpu": time.process_time() - worked}
    return record | about_run(cell, task, seconds)


def find_masks(cell: dict[str, Any], task: Task, points: Points, where: Where) -> Record:
    """Masks after each round, of a network that learns what the source of masks says."""
    x, y = training_points(cell, points)
    source = cell["source"]
    network = start_of(cell, points, SCORES[source](cell, task)).to(where.device)
    curve: list[dict[str, Any]] = []
    looked_at = [x]  # what clusters are of: pixels, then features

    def train(network: nn.Module) -> None:
        done = len(looked_at)
        classes = y
        if source == "clusters":
            seed = spawn_seed(cell["seed"], "clusters", done) % 2**32
            classes = clusters(looked_at[-1], cell["clusters"], seed)
        how = cell | ({"seed": OTHER + cell["seed"]} if source == AGAIN else {})
        rows = learn(how, network, source, x, classes, where.progress)
        curve.extend({"figure": f"round {done}", "x": r["epoch"] + 1, "y": r["risk"]} for r in rows)
        looked_at.append(features(network, x) if source == "clusters" else x)

    rounds = prune_in_rounds(network, train, network.state_dict(), sparsities=cell["sparsity"])
    files = {
        f"{sparsity:g}/{name}": mask.cpu()
        for sparsity, masks in zip(cell["sparsity"], rounds, strict=True)
        for name, mask in masks.items()
    }
    measures = {"training_error": curve[-1]["y"]}
    return {"measures": measures, "curve": curve, "files": files_of(files)}


def learn_labels(cell: dict[str, Any], task: Task, points: Points, where: Where) -> Record:
    """Accuracy of a network trained on labels with masks held, and what the masks overlap with."""
    x, y = training_points(cell, points)
    network = start_of(cell, points, SCORES["labels"](cell, task)).to(where.device)
    masks = masks_of(cell, network, where)
    measures: dict[str, Any] = {}
    if masks:
        measures |= overlaps(cell, network, masks, where)
    measures |= learn_held(cell, network, masks, "labels", x, y, where)
    for name, part in (("validation", points.prior), ("accuracy", points.test)):
        measures[name] = accuracy(network, *part)
    rows = [
        {"figure": f"kept {name}", "x": cell["sparsity"], "y": float(mask.float().mean())}
        for name, mask in masks.items()
    ]
    return {"measures": measures, "curve": rows}


def learn_rotation(cell: dict[str, Any], task: Task, points: Points, where: Where) -> Record:
    """A linear probe, on other images, of a network trained by rotation with masks held."""
    x, y = training_points(cell, points)
    network = start_of(cell, points, SCORES["rotation"](cell, task)).to(where.device)
    masks = masks_of(cell, network, where)
    measures = learn_held(cell, network, masks, "rotation", x, y, where)
    turned = rotated(points.prior[0], generator(cell["seed"], "validation turns"))
    measures["turns"] = accuracy(network, *turned)
    _, other = loaded(cell | cell["probed"], splits_of, where)
    few, penalty = cell["probed"]["images"], cell["probed"]["inverse_penalty"]
    parts = [(x[:few], y[:few]) for x, y in (other.certification, other.prior, other.test)]
    rows = []
    for place, layer in enumerate(weighted(network)[1:], start=1):
        train, valid, test = ((features(network, x, layer, side=SIDE), y) for x, y in parts)
        measures["probe"] = linear_probe(train, test, inverse_penalty=penalty)
        rows.append({"figure": "probe of block", "x": place, "y": measures["probe"]})
    # Of the last block, whose features are those of the network, as is the probe's figure.
    measures["validation"] = linear_probe(train, valid, inverse_penalty=penalty)
    return {"measures": measures, "curve": rows}


def weighted(network: nn.Module) -> list[str]:
    """Layers with weights, each of which reads what a block before it has made."""
    return [name.removesuffix(".weight") for name in prunable(network, last=True)]


ROLES: dict[str, Callable[[dict[str, Any], Task, Points, Where], Record]] = {
    "masks": find_masks,
    "labels": learn_labels,
    "probe": learn_rotation,
}
SCORES: dict[str, Callable[[dict[str, Any], Task], int]] = {
    "labels": lambda cell, task: int(task.y.max()) + 1,
    AGAIN: lambda cell, task: int(task.y.max()) + 1,
    "rotation": lambda cell, task: 4,
    "clusters": lambda cell, task: int(cell["clusters"]),
}
"""Scores of a network, by what it learns."""


def training_points(cell: dict[str, Any], points: Points) -> tuple[Tensor, Tensor]:
    """The images to train on and their labels."""
    x, y = (values[: cell["images"] or None] for values in points.certification)
    return x, y


def start_of(cell: dict[str, Any], points: Points, scores: int) -> nn.Module:
    """The seed's network; but for its last layer the same whatever the number of its scores."""
    return network_of(cell, tuple(points.test[0].shape[1:]), scores)


def learn(
    cell: dict[str, Any], network: nn.Module, what: str, x: Tensor, y: Tensor, progress: bool
) -> list[dict[str, float]]:
    """Train a network on classes, or on turns, which look at no class; the curve of the fit."""
    objective: Objective = RiskObjective(Classifier(network), "cross_entropy")
    if what == "rotation":
        objective = RotationObjective(objective, generator(cell["seed"], "turns"))
    curve = training(cell, objective, x, y, progress)
    check_latents(network)
    return curve


def learn_held(
    cell: dict[str, Any],
    network: nn.Module,
    masks: Masks,
    what: str,
    x: Tensor,
    y: Tensor,
    where: Where,
) -> dict[str, Any]:
    """Train with masks held, and see that they were; the training error and the share of zeros.

    The masks stay held: without them what is pruned of a binary layer would be sgn(0) = +1.
    """
    Held(network, masks)
    curve = learn(cell, network, what, x, y, where.progress)
    weights = multiplied(network)
    if any(bool(weights[name][~mask].any()) for name, mask in masks.items()):
        raise RuntimeError("A pruned weight is not 0 after the training.")
    zeros = sparsity_of({name: weight != 0 for name, weight in weights.items()})
    return {"training_error": curve[-1]["risk"], "zeros": zeros}


def multiplied(network: nn.Module) -> Masks:
    """The weights that are multiplied, of layers that can be pruned: binary ones, where they are.

    By the names of `prunable`.
    """
    weights: Masks = {**prunable(network)}
    for name, layer in binary_layers(network).items():
        if f"{name}.weight" in weights:
            weights[f"{name}.weight"] = layer.binary_weight().detach()
    return weights


def masks_of(cell: dict[str, Any], network: nn.Module, where: Where) -> Masks:
    """The masks of a cell: drawn, or those of an earlier run; none of an unpruned network."""
    source, sparsity = cell["source"], cell["sparsity"]
    if source == "unpruned":
        return {}
    if source == "random":
        draw = generator(cell["seed"], "random masks")
        return random_masks(prunable(network), sparsity, draw)
    masks = found_before(cell["after"]["masks"], sparsity, where)
    if source.startswith("shuffled"):
        return shuffled_masks(masks, generator(cell["seed"], "shuffled masks"))
    return masks


def found_before(key: str, sparsity: float, where: Where) -> Masks:
    """Masks of a sparsity, from the file of the run with this key."""
    stored = load_file(where.kept / f"{key}.safetensors", device=where.device)
    head = f"{sparsity:g}/"
    return {n.removeprefix(head): mask for n, mask in stored.items() if n.startswith(head)}


def overlaps(
    cell: dict[str, Any], network: nn.Module, masks: Masks, where: Where
) -> dict[str, float]:
    """Overlap with the labels' masks, and what of it chance, layers and the start explain.

    The network is at its start.
    """
    sparsity = cell["sparsity"]
    labels = found_before(cell["after"]["labels"], sparsity, where)
    weights = prunable(network)
    found = {
        "jaccard": jaccard(masks, labels),
        "jaccard_chance": jaccard_by_chance(sparsity),
        "jaccard_layers": jaccard_by_groups(masks, labels),
        "jaccard_groups": jaccard_by_groups(masks, labels, magnitude_groups(weights, BINS)),
        "jaccard_start": jaccard(masks, magnitude_masks(weights, sparsity)),
    }
    if again := cell["after"].get("again"):
        found["jaccard_again"] = jaccard(masks, found_before(again, sparsity, where))
    return found
