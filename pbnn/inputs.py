"""What a network reads: maps that are fixed beforehand or shaped by the feature split alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pbnn.data import standardise
from pbnn.features import (
    RandomConvolution,
    deskew,
    kernel_features,
    random_convolution,
    thermometer,
)
from pbnn.seeding import generator

Part = tuple[Tensor, Tensor]
"""Inputs and labels of one split."""


@dataclass(frozen=True)
class Points:
    """The splits of a task as tensors on the device."""

    feature: Part
    prior: Part
    certification: Part
    test: Part

    def map(self, change: Callable[[Tensor], Tensor]) -> Points:
        """The same points with other inputs, each split by itself."""
        parts = (getattr(self, field.name) for field in dataclasses.fields(self))
        return Points(*((change(x) if len(x) else x, y) for x, y in parts))


Prepared = tuple[Points, Tensor | float]
"""Points, and what a network subtracts from its inputs."""


def plain(points: Points, cell: Mapping[str, Any]) -> Prepared:
    """Inputs as they are, centred as the cell says."""
    return points, centre_of(points, cell["centring"])


def halved(points: Points, cell: Mapping[str, Any]) -> Prepared:
    """Images at half their resolution, means of 2x2 pixels, centred as the cell says."""
    return plain(points.map(lambda x: F.avg_pool2d(x, 2)), cell)


def standardised(points: Points, cell: Mapping[str, Any]) -> Prepared:
    """Columns shifted and scaled by their mean and deviation on the feature split."""
    x, _ = points.feature
    rows = range(len(x))

    def scaled(part: Tensor) -> Tensor:
        both = torch.cat([x, part]).cpu().numpy()
        return torch.from_numpy(standardise(both, rows)[len(x) :]).to(part)

    return points.map(scaled), 0.0


def binned(points: Points, cell: Mapping[str, Any]) -> Prepared:
    """Columns as 0/1 columns at quantiles, then centred and made more alike in their spread.

    Quantiles, means and deviations are those of the feature or prior split. A column is divided by
    a power of its deviation, and all of them by one number, so that inputs have the root mean
    square norm that the cell asks for beside the constant 1 of the bias.
    """
    sample = sample_of(points)
    points = points.map(lambda x: thermometer(x, sample, cell["levels"]))
    sample = sample_of(points).double()
    spread = sample.std(0, correction=0)
    kept = spread > 0
    scale = spread[kept] ** cell["power"]
    centred = (sample[:, kept] - sample[:, kept].mean(0)) / scale
    factor = cell["norm"] / centred.square().sum(1).mean().sqrt() / scale
    mean = sample[:, kept].mean(0)
    return points.map(lambda x: ((x[:, kept].double() - mean) * factor).to(x)), 0.0


def convolved(points: Points, cell: Mapping[str, Any]) -> Prepared:
    """Random binary convolutions of canonical images: a draw of the prior, with no KL.

    With a kernel, the feature split's images are the landmarks of a Gaussian kernel on them.
    """
    shape = RandomConvolution(cell["filters"], cell["filter_size"], cell["pool"])

    def features(x: Tensor) -> Tensor:
        canonical = CANONICAL[cell["canonical"]](x)
        shares = random_convolution(canonical, generator(cell["seed"], "features"), shape)
        return shares ** cell["power"]

    points = points.map(features)
    if cell["kernel"]:
        landmarks, _ = points.feature
        shaped = {"width": cell["kernel"], "emphasis": cell["emphasis"]}
        points = points.map(lambda x: kernel_features(x, landmarks, **shaped))
    return points, centre_of(points, cell["centring"])


def centre_of(points: Points, centring: str) -> Tensor | float:
    """A statistic of the inputs that are there for it."""
    if centring == "none":
        return 0.0
    x = sample_of(points)
    return x.mean(0) if centring == "image" else x.mean()


def sample_of(points: Points) -> Tensor:
    """Inputs that statistics may be taken of: of the feature split, else of the prior's."""
    feature, prior = points.feature[0], points.prior[0]
    if not len(feature) + len(prior):
        raise ValueError(
            "`points` must have a feature or a prior split for these inputs, got none."
        )
    return feature if len(feature) else prior


CANONICAL: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "deskewed": deskew,
    "scaled": lambda x: deskew(x, (5 / 28, 4 / 28)),
    "scaled small": lambda x: deskew(x, (4.6 / 28, 3.6 / 28)),
    "scaled large": lambda x: deskew(x, (5.5 / 28, 4.5 / 28)),
}
"""Canonical forms of an image, each made from that image alone; shares of 28 pixels."""

INPUTS: dict[str, Callable[[Points, Mapping[str, Any]], Prepared]] = {
    "plain": plain,
    "halved": halved,
    "standardised": standardised,
    "binned": binned,
    "convolved": convolved,
}
"""Inputs by the name a cell gives."""
