"""One run of the study of contrastive binarisation: train a network, with a contrast or without."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from balance_runs import (
    MEASURED,
    accuracy,
    average,
    network_of,
    objective_of,
    splits_of,
    training,
)
from common import Where, about_run, files_of, loaded
from composed_images import (
    PixelObjective,
    composed,
    intersection_over_union,
    pixel_information,
)
from safetensors.torch import load_file
from torch import Tensor, nn

from pbnn.balance import measure
from pbnn.binarize import binary_layers, check_latents
from pbnn.inputs import Part, Points
from pbnn.objectives import Objective
from pbnn.representation import CMIM
from pbnn.seeding import generator

DENSE = "pixels"
"""The network of the dense task."""
MEASURES = {DENSE: "iou"}
"""What a network is good for, if it is not the accuracy of classes."""


class Data(NamedTuple):
    """Inputs and labels to train on, to choose by, and for the tables."""

    train: Part
    valid: Part
    test: Part


def images_of(cell: dict[str, Any], points: Points) -> Data:
    """The images as they are, with their classes."""
    x, y = points.certification
    return Data((x[: cell["images"]], y[: cell["images"]]), points.prior, points.test)


def scenes_of(cell: dict[str, Any], points: Points) -> Data:
    """Composed images with their masks: the same for all runs of a seed, and for choices."""
    parts = zip(("certification", "prior", "test"), cell["scenes"], strict=True)
    return Data(*(
        composed(getattr(points, part)[0], count, generator(cell["seed"], "scenes", part))
        for part, count in parts
    ))  # fmt: skip


def classified(network: nn.Module, data: Data, classes: int) -> dict[str, float]:
    """Accuracies, and the information that signs have about the class, of validation images."""
    few = [part[:MEASURED].split(100) for part in data.valid]
    measures = {"validation": accuracy(network, *data.valid)}
    measures["accuracy"] = accuracy(network, *data.test)
    if binary_layers(network):
        found = measure(network, zip(*few, strict=True), classes=classes).activations
        measures |= informed({name: row["information"] for name, row in found.items()})
        measures["entropy"] = average(row["entropy"] for row in found.values())
    return measures


def segmented(network: nn.Module, data: Data, classes: int) -> dict[str, float]:
    """The same of the foreground: intersection over union, and the information of a pixel."""
    measures = {"validation": intersection_over_union(network, *data.valid)}
    measures["iou"] = intersection_over_union(network, *data.test)
    if binary_layers(network):
        measures |= informed(pixel_information(network, *data.valid))
    return measures


def informed(layers: dict[str, float]) -> dict[str, float]:
    """Of all layers, and of the last binary one."""
    return {"information": average(layers.values()), "information_last": [*layers.values()][-1]}


def run(cell: dict[str, Any], where: Where) -> dict[str, Any]:
    """A record: how accurate the network is, and how much its signs say about the classes."""
    task, points = loaded(cell, splits_of, where)
    dense = cell["network"] == DENSE
    data = (scenes_of if dense else images_of)(cell, points)
    x, y = data.train
    image, classes = tuple(x.shape[1:]), 2 if dense else int(task.y.max()) + 1
    network = network_of(cell, image, classes).to(where.device)
    teacher = None
    if cell["after"]:
        teacher = network_of(cell | {"recipe": None}, image, classes).to(where.device).eval()
        teacher.load_state_dict(load_file(where.kept / f"{cell['after']}.safetensors"))
    objective = PixelObjective(network) if dense else objective_of(cell, network)
    began = time.perf_counter()
    curve = training(cell, contrasted(cell, objective, x, y, teacher), x, y, where.progress)
    seconds = {"training": time.perf_counter() - began}
    check_latents(network)
    measures = {"training_error": curve[-1]["risk"]}
    measures |= (segmented if dense else classified)(network, data, classes)
    record = {"measures": measures, "curve": []} | about_run(cell, task, seconds)
    if cell["method"] == "real":
        record["files"] = files_of(network.state_dict())
    return record


def contrasted(
    cell: dict[str, Any], objective: Objective, x: Tensor, y: Tensor, teacher: nn.Module | None
) -> Objective:
    """The objective with the contrast that the cell asks for."""
    if cell["contrast"] is None:
        return objective
    source = generator(cell["seed"], "contrast")
    return CMIM(objective, x, y, teacher=teacher, generator=source, **cell["contrast"])
