"""Training without labels: a network learns by contrast, on images alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pbnn.augmentation import chained, random_contrast, random_erase, random_resized_crop
from pbnn.binarize import after_step, set_progress, set_stage
from pbnn.objectives import Objective
from pbnn.representation import ContrastiveObjective
from pbnn.representation.s2_bnn import Views
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit

VIEWS: dict[str, Views] = {
    "none": lambda images, _: images,
    "crop": random_resized_crop,
    "crop_contrast": chained(random_resized_crop, random_contrast),
    "crop_erase": chained(random_resized_crop, random_erase),
    "crop_contrast_erase": chained(random_resized_crop, random_contrast, random_erase),
}
"""What another view of an image is, by name. Chosen among the last four: on validation images of
Fashion-MNIST the features of a teacher of seed 100 had 85.2, 87.7, 85.6 and 87.6 per cent by the
linear probe and 77.6, 83.6, 78.6 and 83.9 by neighbours, after 468 steps."""


def trained_by_contrast(
    network: nn.Module,
    images: Tensor,
    *,
    seed: int,
    budget: Mapping[str, Any],
    after_epoch: Callable[[int], None] | None = None,
    curve: list[dict[str, float]] | None = None,
    progress: str | None = None,
) -> nn.Module:
    """Train a network by contrast on images without labels; the same network, evaluating.

    Parameters
    ----------
    network : Module
        Gives embeddings of unit length. Of binary layers the inputs are signs from the start, the
        weights from the share `both_from` of the steps on.
    images : Tensor, shape (n, channels, height, width)
    seed : int
        Of the batches and the views.
    budget : mapping
        `epochs`, `batch`, `learning_rate`, `temperature`, `views` (of `VIEWS`), `frozen_from` and
        `both_from`.
    after_epoch : callable, optional
        Called after each epoch with its number.
    curve : list, optional
        Where to put the loss of each epoch.
    progress : str, optional
        Label of a progress bar.
    """
    source = generator(seed, "views")
    objective = ContrastiveObjective(network, VIEWS[budget["views"]], budget["temperature"], source)
    rows = fitted(objective, images, unlabelled(images), seed, budget, after_epoch, progress)
    if curve is not None:
        curve += rows
    return network.eval()


def unlabelled(images: Tensor) -> Tensor:
    """The number that the loop wants for each image: always the same."""
    return torch.zeros(len(images), dtype=torch.int64, device=images.device)


def fitted(
    objective: Objective,
    x: Tensor,
    y: Tensor,
    seed: int,
    budget: Mapping[str, Any],
    after_epoch: Callable[[int], None] | None,
    progress: str | None,
    augment: Views | None = None,
) -> list[dict[str, float]]:
    """Train in the two stages of binary networks; the curve of the fit."""
    network = objective.network

    def each_step(share: float) -> None:
        after_step(network)
        set_progress(network, share)
        set_stage(network, "activations" if share < budget["both_from"] else "both")

    set_progress(network, 0.0)
    set_stage(network, "activations" if budget["both_from"] else "both")
    config = FitConfig(
        budget["epochs"],
        budget["batch"],
        budget["learning_rate"],
        keep="last",
        frozen_from=budget["frozen_from"],
    )
    return fit(
        objective,
        x,
        y,
        config,
        generator=generator(seed, "batches"),
        augment=augment,
        after_step=each_step,
        after_epoch=after_epoch,
        progress=progress,
    )
