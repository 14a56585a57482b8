"""One run of the study of activation balance: train a network, and measure its signs on the way."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from common import Where, about_run, files_of, loaded
from recipes_studied import KEPT
from safetensors.torch import load_file
from torch import Tensor, nn

from pbnn.augmentation import AffineRange, random_affine, random_crop
from pbnn.backbones import BACKBONES, conv_chain, lenet, resnet
from pbnn.balance import Flips, evaluating, measure, watch, weights_of
from pbnn.baselines import Classifier
from pbnn.binarize import (
    Recipe,
    after_step,
    check_latents,
    convert,
    set_progress,
    supervision,
)
from pbnn.data import Splits, Task, cut
from pbnn.distillation import DistributionalObjective
from pbnn.objectives import Objective, PenalisedObjective, RiskObjective
from pbnn.seeding import generator
from pbnn.training import Augmentation, FitConfig, fit

NETWORKS: dict[str, Callable[..., nn.Sequential]] = BACKBONES | {
    "lenet_3x3": functools.partial(lenet, kernel=3),
    "small_lenet": functools.partial(lenet, widths=(16, 32), dense=128, kernel=3),
    "small_resnet": functools.partial(
        resnet, widths=(16, 32), blocks=1, around="each", stem_stride=2, averaged=False
    ),
    "pixels": functools.partial(conv_chain, widths=(16, 32, 32, 32), stride=2),
}
"""Backbones by name, and smaller ones."""

AT_ONCE = {"cpu": 50}
"""Images at once where nothing is trained, else 500."""
SNAPSHOTS = 8
"""Looks at the signs in the course of a training, besides the one before it."""
PROBE, MEASURED = 500, 2000
"""Validation images for those looks (of flips those that are computed at once), and for all figures
at the end."""
BINS = 81
SPAN = 4.0
"""Bins of the histogram of pre-activations, and how far it reaches either way."""


def run(cell: dict[str, Any], where: Where) -> dict[str, Any]:
    """A record: accuracies, balance of the signs before, while and after training, times.

    A run that comes after another finds its network in the folder `kept`, by its key.
    """
    task, points = loaded(cell, splits_of, where)
    x, y = (values[: cell["images"] or None] for values in points.certification)
    (valid, valid_label), (test, label) = points.prior, points.test
    image, classes = tuple(x.shape[1:]), int(task.y.max()) + 1
    before = load_file(where.kept / f"{cell['after']}.safetensors") if cell["after"] else None
    teacher = None
    if cell.get("role") == "teacher":
        teacher = (
            network_of(cell | {"recipe": None}, image, classes, before).to(where.device).eval()
        )
        before = None
    network = network_of(cell, image, classes, before).to(where.device)
    began = time.perf_counter()
    looks = Looks(network, valid[:PROBE])
    curve = training(cell, objective_of(cell, network, teacher), x, y, where.progress, looks)
    seconds = {"training": time.perf_counter() - began - looks.seconds, "looks": looks.seconds}
    check_latents(network)
    measures: dict[str, Any] = {
        "training_error": curve[-1]["risk"],
        "validation": accuracy(network, valid, valid_label),
        "accuracy": accuracy(network, test, label),
    }
    rows = looks.rows
    if looks.watched:
        few = valid[:MEASURED], valid_label[:MEASURED]
        more, final = balance_of(network, *few, classes=classes)
        measures |= more | looks.flips()
        rows += final + histograms(network, valid[:PROBE])
    seconds["all"] = time.perf_counter() - began
    # One seed's curves are enough to look at; what is compared over seeds is a measure.
    kept_rows = [row | {"y": float(f"{row['y']:.6g}")} for row in rows if row["y"] == row["y"]]
    measures = {name: value for name, value in measures.items() if value == value}
    curve = kept_rows if cell["seed"] == 0 else []
    record = {"measures": measures, "curve": curve} | about_run(cell, task, seconds)
    if cell["method"] in KEPT and not cell["threshold"]:
        record["files"] = files_of(network.state_dict())
    return record


SHIFTS = AffineRange(rotation=0.08, scale=0.05, shear=0.05, shift=1 / 18)
WIDE = AffineRange(rotation=0.17, scale=0.1, shear=0.1, shift=1 / 14)
AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "affine": lambda images, source: random_affine(images, source, SHIFTS),
    "wide": lambda images, source: random_affine(images, source, WIDE),
    "crop": random_crop,
}
"""What each epoch's images are made by: digits moved a little; photographs moved and mirrored."""


def splits_of(task: Task) -> Splits:
    """A sixth of the training images to choose by (as ``prior``), the rest to train on.

    The published test images apart, or a quarter where nobody has published any.
    """
    return cut(task, prior=1 / 6)


def network_of(
    cell: dict[str, Any],
    image: tuple[int, ...],
    classes: int,
    before: dict[str, Tensor] | None = None,
) -> nn.Module:
    """The network of a cell at its start, the same in all cells of a seed but for their recipe.

    The state of a trained network, real or binary, makes it start there.
    """
    draw = generator(cell["seed"], "start")
    network: nn.Module = NETWORKS[cell["network"]](image, classes=classes, generator=draw)
    if before is not None:
        network.load_state_dict(before)
    if cell["recipe"] is not None:
        options = {n: tuple(v) if isinstance(v, list) else v for n, v in cell["recipe"].items()}
        draw = generator(cell["seed"], "shifts")
        network = convert(network, Recipe(**options), generator=draw).network
    with torch.no_grad():
        for norm in norms_of_signs(network) if cell["norm_bias"] else ():
            norm.bias.add_(cell["norm_bias"])
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def norms_of_signs(network: Any) -> list[Any]:
    """Batch normalisations of a chain of modules whose outputs become signs."""
    found, last = [], None
    for module in network:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            last = module
        elif next(module.parameters(), None) is not None:
            if last is not None and getattr(module, "activation", None) is not None:
                found.append(last)
            last = None
    return found


def training(
    cell: dict[str, Any],
    objective: Objective,
    x: Tensor,
    y: Tensor,
    progress: bool = False,
    looks: Looks | None = None,
) -> list[dict[str, float]]:
    """Minimise an objective with the budget, the batches and the images of a cell; the curve."""

    def each_step(share: float) -> None:
        after_step(objective.network)
        set_progress(objective.network, share)
        if looks is not None:
            looks.maybe(share)

    set_progress(objective.network, 0.0)
    config = FitConfig(
        cell["epochs"],
        cell["batch"],
        cell["learning_rate"],
        optimiser=cell["optimiser"],
        weight_decay=cell["weight_decay"],
        keep="last",
        frozen_from=cell["frozen_from"],
    )
    return fit(
        objective,
        x,
        y,
        config,
        generator=generator(cell["seed"], "batches"),
        augment=AUGMENTATIONS[cell.get("augmentation", "none")],
        after_step=each_step,
        progress=f"{cell['method']} {cell['seed']}" if progress else None,
    )


def objective_of(
    cell: dict[str, Any], network: nn.Module, teacher: nn.Module | None = None
) -> Objective:
    """What the training minimises."""
    if teacher is not None:
        return DistributionalObjective(Classifier(network), teacher)
    objective = RiskObjective(Classifier(network), "cross_entropy")
    if (rate := cell.get("noise")) is None:
        return objective
    strength = cell["strength"]
    return PenalisedObjective(objective, lambda: strength * supervision(network, rate, rate))


class Looks:
    """Balance of a network's signs, and those that flip, a few times in the course of a training.

    Parameters
    ----------
    network : Module
    probe : Tensor
        Images, always the same.
    """

    def __init__(self, network: nn.Module, probe: Tensor) -> None:
        self.network, self.parts = network, probe.split(at_once(probe))
        self.watched = any(getattr(m, "sign_methods", ()) for m in network.modules())
        self.rows: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._flips = Flips(network, self.parts[0])
        self._ratios: list[dict[str, dict[str, float]]] = []
        self._next = 0
        self.maybe(0.0)

    def maybe(self, share: float) -> None:
        """Look, if that share of the training is reached."""
        if not self.watched or share < self._next / SNAPSHOTS:
            return
        # A training of few steps passes several marks in one.
        self._next = max(self._next, int(share * SNAPSHOTS))
        began = time.perf_counter()
        ratios = self._flips.look()
        with torch.no_grad(), evaluating(self.network), watch(self.network) as watcher:
            for part in self.parts:
                self.network(part)
        for kind, found in (
            ("activations", watcher.layers()),
            ("weights", weights_of(self.network)),
        ):
            for layer, row in found.items():
                row["flip"] = ratios[kind].get(layer, 0.0)
                self.rows += _rows(f"{kind} {layer}", row, self._next / SNAPSHOTS)
        if self._next:  # at the start there is nothing to compare with
            self._ratios.append(ratios)
        self._next += 1
        self.seconds += time.perf_counter() - began

    def flips(self) -> dict[str, float]:
        """Signs that changed from one look to the next: mean over layers and looks."""
        names = {"weights": "flip", "activations": "flip_activations"}
        return {
            name: average(ratio for look in self._ratios for ratio in look[kind].values())
            for kind, name in names.items()
        }


LOOKED_AT = ("share", "entropy", "flip")


def _rows(figure: str, row: dict[str, float], x: float) -> list[dict[str, Any]]:
    return [{"figure": f"{figure} {n}", "x": x, "y": row[n]} for n in LOOKED_AT if n in row]


def balance_of(
    network: nn.Module, x: Tensor, y: Tensor, classes: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """All figures of a trained network: means over its layers, and those of each layer."""
    size = at_once(x)
    balance = measure(network, zip(x.split(size), y.split(size), strict=True), classes=classes)
    rows = []
    for kind, found in (("activations", balance.activations), ("weights", balance.weights)):
        for layer, row in found.items():
            rows += [{"figure": f"final {kind} {layer} {n}", "x": 1.0, "y": row[n]} for n in row]
    names = next(iter(balance.activations.values()))
    layers = balance.activations.values()
    measures = {n: average(row[n] for row in layers) for n in names if n not in SIZES}
    for n in ("entropy", "quantisation_error", "mean_sign", "latent_mean"):
        measures[f"weight_{n}"] = average(row[n] for row in balance.weights.values())
    return measures, rows


SIZES = ("channels", "samples")


def histograms(network: nn.Module, x: Tensor) -> list[dict[str, Any]]:
    """Pre-activations of every layer, their thresholds subtracted, as densities."""
    counts: dict[str, Tensor] = {}
    hooks = []
    for name, module in network.named_modules():
        if hasattr(module, "margin"):

            def count(module: Any, given: Any, _: Any, name: str = name) -> None:
                margin = module.margin(given[0]).detach().float().cpu()
                found = torch.histc(margin, BINS, -SPAN, SPAN)
                counts[name] = counts.get(name, 0) + found

            hooks.append(module.register_forward_hook(count))
    try:
        with torch.no_grad():
            for part in x.split(at_once(x)):
                network.eval()(part)
    finally:
        for hook in hooks:
            hook.remove()
    width = 2 * SPAN / BINS
    return [
        {"figure": f"histogram {name}", "x": -SPAN + (place + 0.5) * width, "y": density}
        for name, found in counts.items()
        for place, density in enumerate((found / found.sum().clamp_min(1) / width).tolist())
    ]


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of images whose largest score is that of their class, in evaluation mode."""
    parts = zip(x.split(at_once(x)), y.split(at_once(x)), strict=True)
    right = torch.stack([(network.eval()(a).argmax(1) == b).sum() for a, b in parts]).sum()
    return float(right) / len(y)


def at_once(x: Tensor) -> int:
    """Images at once where nothing is trained."""
    return AT_ONCE.get(x.device.type, 500)


def average(values: Any) -> float:
    """Mean of the numbers among the values; NaN without any."""
    numbers = [value for value in values if value == value]
    return sum(numbers) / len(numbers) if numbers else float("nan")
