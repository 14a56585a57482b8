"""A dense task: which pixels of a composed image are items, and which are background?"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from pbnn.balance import evaluating, mutual_information
from pbnn.balance.watching import intercepted
from pbnn.objectives import Objective

SIDE = 40
"""Pixels of a composed image, either way; items have 28."""
ITEMS = 2
FOREGROUND = 0.1
"""Least intensity of an item's pixel."""
NOISE = 0.1
AT_ONCE = 100
"""Images at once where nothing is trained."""


def composed(images: Tensor, count: int, source: Generator) -> tuple[Tensor, Tensor]:
    """Items at random places before clouds of their own intensity, with noise, and their masks.

    Parameters
    ----------
    images : Tensor, shape (n, 1, h, w)
        Items before a background of 0, each at most 40 pixels wide and high.
    count : int
    source : torch.Generator
        A CPU generator: of items, places, clouds and noise.

    Returns
    -------
    (Tensor, Tensor)
        Images (count, 1, 40, 40) in [0, 1] and masks (count, 20, 20), 1 where an item is: of every
        second pixel.
    """
    height, width = images.shape[2:]
    draw: dict[str, Any] = {"generator": source}
    clouds = F.interpolate(
        torch.rand(count, 1, 6, 6, **draw), (SIDE, SIDE), mode="bicubic", align_corners=True
    )
    scene, mask = clouds.clamp(0, 1)[:, 0], torch.zeros(count, SIDE, SIDE, dtype=torch.int64)
    each = torch.arange(count)[:, None, None]
    for _ in range(ITEMS):
        item = images[torch.randint(len(images), (count,), **draw), 0].cpu()
        down = torch.randint(SIDE - height + 1, (count, 1), **draw) + torch.arange(height)
        across = torch.randint(SIDE - width + 1, (count, 1), **draw) + torch.arange(width)
        place = each, down[:, :, None], across[:, None, :]
        solid = item > FOREGROUND
        scene[place] = torch.where(solid, item, scene[place])
        mask[place] = torch.where(solid, 1, mask[place])
    noisy = (scene + NOISE * torch.randn(scene.shape, **draw)).clamp(0, 1)
    return noisy[:, None].to(images.device), mask[:, ::2, ::2].to(images.device)


class PixelObjective(Objective):
    """Cross-entropy of every pixel; the curve's risk is the share of wrong ones."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The mean loss to minimise, and the share of pixels that are wrong."""
        scores = self.network(x)
        return F.cross_entropy(scores, y), (scores.argmax(1) != y).float().mean().detach()


@torch.no_grad()
def intersection_over_union(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Of the foreground that a network finds and the true one, over all pixels together."""
    both = either = 0
    with evaluating(network):
        for image, mask in zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True):
            found = network(image).argmax(1)
            both += int((found & mask).sum())
            either += int((found | mask).sum())
    return both / max(1, either)


@torch.no_grad()
def pixel_information(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Bits that a sign has about the class of its own pixel, by layer: the mean over channels."""
    counts: dict[str, Tensor] = {}

    def count(mask: Tensor, name: str, _: nn.Module, __: Any, signs: Tensor) -> None:
        ones = (signs > 0).double().transpose(0, 1).flatten(1)
        member = F.one_hot(mask.flatten(), 2).double()
        positive, sizes = ones @ member, member.sum(0)
        table = torch.stack([sizes - positive, positive], -1)
        counts[name] = counts.get(name, torch.zeros_like(table)) + table

    with evaluating(network):
        for image, mask in zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True):
            see = functools.partial(count, mask)
            with intercepted(network, see):
                network(image)
    return {name: float(mutual_information(table).mean()) for name, table in counts.items()}
