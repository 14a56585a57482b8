"""Runs of the study of self-supervised binary networks: a teacher, its students, what they know."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from balance_runs import NETWORKS, accuracy, at_once, splits_of
from common import Where, about_run, files_of, loaded
from safetensors.torch import load_file
from self_supervised_runs import VIEWS, fitted, trained_by_contrast, unlabelled
from torch import Generator, Tensor, nn

from pbnn.baselines import Classifier
from pbnn.binarize import RECIPES, check_latents, convert
from pbnn.binarize.layers import evaluating
from pbnn.inputs import Points
from pbnn.objectives import RiskObjective
from pbnn.representation import (
    GuidedObjective,
    ProjectionHead,
    features,
    guided_divergence,
    knn_probe,
    linear_probe,
)
from pbnn.seeding import generator
from pbnn.training import batch_sizes

HELD_OUT = 2000
"""Validation images on which student and teacher are compared."""
Cell = dict[str, Any]


class Looks:
    """How far a student is from its teacher on one view of held-out images, epoch by epoch.

    Parameters
    ----------
    network, teacher : Module
    images : Tensor
    cell : dict
        Its seed draws the view, the same one in all arms.
    """

    def __init__(self, network: nn.Module, teacher: nn.Module, images: Tensor, cell: Cell) -> None:
        self.network, self.temperature = network, cell["temperature"]
        self.view = VIEWS[cell["views"]](images, generator(cell["seed"], "held-out view"))
        self.target = embeddings(teacher, self.view)
        self.rows: list[dict[str, Any]] = []

    def look(self, epoch: int) -> None:
        """Keep the divergence after so many epochs, in nats."""
        ours = embeddings(self.network, self.view)
        value = float(guided_divergence(ours, self.target, self.temperature))
        self.rows.append({"figure": "divergence", "x": epoch, "y": value})


@torch.no_grad()
def embeddings(network: nn.Module, images: Tensor) -> Tensor:
    """What a network makes of images in evaluation mode."""
    with evaluating(network):
        return torch.cat([network(part) for part in images.split(at_once(images))])


class Lesson(NamedTuple):
    """What an arm may learn from, and where it says how far it is."""

    cell: Cell
    teacher: nn.Module | None
    x: Tensor
    y: Tensor
    after_epoch: Callable[[int], None] | None
    progress: str | None


def by_contrast(network: nn.Module, lesson: Lesson) -> list[dict[str, float]]:
    """Without teacher or labels."""
    curve: list[dict[str, float]] = []
    trained_by_contrast(
        network,
        lesson.x,
        seed=lesson.cell["seed"],
        budget=lesson.cell,
        after_epoch=lesson.after_epoch,
        curve=curve,
        progress=lesson.progress,
    )
    return curve


def by_teacher(network: nn.Module, lesson: Lesson) -> list[dict[str, float]]:
    """By a teacher's embeddings of the same views, and by contrast besides if the arm says so."""
    cell = lesson.cell
    objective = GuidedObjective(
        network,
        lesson.teacher,  # type: ignore[arg-type]
        VIEWS[cell["views"]],
        temperature=cell["temperature"],
        contrast=cell["contrast"],
        generator=generator(cell["seed"], "views"),
    )
    return fitted(
        objective,
        lesson.x,
        unlabelled(lesson.x),
        cell["seed"],
        cell,
        lesson.after_epoch,
        lesson.progress,
    )


def by_labels(network: nn.Module, lesson: Lesson) -> list[dict[str, float]]:
    """By cross-entropy, on as many views, in batches of the same images."""
    cell = lesson.cell
    source, views = generator(cell["seed"], "views"), VIEWS[cell["views"]]

    def augment(images: Tensor, _: Generator) -> Tensor:
        return views(images, source)

    objective = RiskObjective(Classifier(network), "cross_entropy")
    return fitted(
        objective,
        lesson.x,
        lesson.y,
        cell["seed"],
        cell,
        lesson.after_epoch,
        lesson.progress,
        augment,
    )


@torch.no_grad()
def by_nothing(network: nn.Module, lesson: Lesson) -> list[dict[str, float]]:
    """Not at all: it gets the batch statistics of the images."""
    network.train()
    for part in lesson.x.split(lesson.cell["batch"]):
        network(part)
    return []


ARMS: dict[str, Callable[[nn.Module, Lesson], list[dict[str, float]]]] = {
    "teacher": by_contrast,
    "distil": by_teacher,
    "distil_contrast": by_teacher,
    "contrast": by_contrast,
    "supervised": by_labels,
    "supervised_plain": by_labels,
    "untrained": by_nothing,
}
"""How each arm learns."""


def network_of(cell: Cell, image: tuple[int, ...], classes: int) -> nn.Module:
    """The network of an arm at its start: real for the teacher, with scores if labels are known.

    All of a seed start at the same weights but for what comes after the features.
    """
    network = NETWORKS[cell["network"]](
        image, classes=classes, generator=generator(cell["seed"], "start")
    )
    if not cell["method"].startswith("supervised"):
        draw = generator(cell["seed"], "head")
        network[-1] = ProjectionHead(network[-1].in_features, cell["dim"], generator=draw)
    if cell["method"] != "teacher":
        network = convert(network, RECIPES["bi_real_net"]).network  # type: ignore[assignment]
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def teacher_of(cell: Cell, kept: Path, image: tuple[int, ...]) -> nn.Module:
    """The trained teacher of a student's seed, evaluating."""
    teacher = network_of(cell | {"method": "teacher"}, image, 1)
    teacher.load_state_dict(load_file(kept / f"{cell['after']}.safetensors"))
    return teacher.eval().requires_grad_(False)


def run(cell: Cell, where: Where) -> dict[str, Any]:
    """A record: probes of the features, the distance from the teacher, times; a teacher's state.

    A student finds its teacher in the folder `kept`, by its key.
    """
    task, points = loaded(cell, splits_of, where)
    x, y = (values[: cell["images"] or None] for values in points.certification)
    image, classes = tuple(x.shape[1:]), int(task.y.max()) + 1
    network = network_of(cell, image, classes).to(where.device)
    teacher, looks = None, None
    if cell["after"]:
        teacher = teacher_of(cell, where.kept, image).to(where.device)
        looks = Looks(network, teacher, points.prior[0][:HELD_OUT], cell)
    began = time.perf_counter()
    label = f"{cell['method']} {cell['seed']}" if where.progress else None
    lesson = Lesson(cell, teacher, x, y, looks and looks.look, label)
    curve = ARMS[cell["method"]](network, lesson)
    trained = time.perf_counter() - began
    check_latents(network)
    measures, rows = measured(cell, network.eval(), points, looks)
    seconds = {"training": trained, "all": time.perf_counter() - began}
    rows += [{"figure": "risk", "x": row["epoch"] + 1, "y": row["risk"]} for row in curve]
    measures |= {"training_images": len(x), "steps": steps_of(cell, len(x))}
    record = {"measures": measures, "curve": rows} | about_run(cell, task, seconds)
    if cell["method"] == "teacher":
        record["files"] = files_of(network.state_dict())
    return record


def measured(
    cell: Cell, network: nn.Module, points: Points, looks: Looks | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is known to the features, and the curve of the divergence."""
    (x, y), valid, test = (
        (features(network, images, batch=at_once(images)), labels)
        for images, labels in (
            tuple(values[: cell["labelled"]] for values in points.certification),
            points.prior,
            points.test,
        )
    )
    penalty = cell["inverse_penalty"]
    measures = {
        "probe": linear_probe((x, y), test, inverse_penalty=penalty),
        "neighbours": knn_probe((x, y), test),
        "validation": linear_probe((x, y), valid, inverse_penalty=penalty),
    }
    if cell["method"].startswith("supervised"):
        measures["accuracy"] = accuracy(network, *points.test)
    if looks is None:
        return measures, []
    looks.look(cell["epochs"])
    return measures | {"divergence": looks.rows[-1]["y"]}, looks.rows[:-1]


def steps_of(cell: Cell, images: int) -> int:
    """Of the training."""
    return (
        0
        if cell["method"] == "untrained"
        else cell["epochs"] * len(batch_sizes(images, cell["batch"]))
    )
