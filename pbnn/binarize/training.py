"""What the training of a binary network does besides steps."""

from __future__ import annotations

import torch
from torch import Generator, nn

from pbnn.binarize.binary_net import StochasticWeights
from pbnn.binarize.layers import binary_layers


def set_progress(model: nn.Module, share: float) -> None:
    """Tell every estimator with a schedule where the training is, from 0 to 1.

    Raises
    ------
    ValueError
        If `share` is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"`share` must lie in [0, 1], got {share}.")
    for module in model.modules():
        if callable(advance := getattr(module, "set_progress", None)):
            advance(share)


@torch.no_grad()
def after_step(model: nn.Module) -> None:
    """Clip or centre latent weights where the recipe says so; call it after each step."""
    for layer in binary_layers(model).values():
        if layer.binariser is not None:
            layer.binariser.after_step(layer.weight)
            if layer.mask is not None:  # centring moves what is pruned, too
                layer.weight.mul_(layer.mask)


def set_stage(model: nn.Module, stage: str) -> None:
    """Choose the stage of a two-stage training: "activations" (weights still real) or "both".

    References
    ----------
    Martinez, Yang, Bulat, Tzimiropoulos (2020). Training binary neural networks with
    real-to-binary convolutions. https://arxiv.org/abs/2003.11535

    Raises
    ------
    ValueError
        For another stage.
    """
    if stage not in ("activations", "both"):
        raise ValueError(f"`stage` must be 'activations' or 'both', got {stage!r}.")
    for layer in binary_layers(model).values():
        layer.real_weights = stage == "activations"


def set_source(model: nn.Module, generator: Generator) -> None:
    """Give weights that are drawn (`StochasticWeights`) a generator on their device."""
    for layer in binary_layers(model).values():
        if isinstance(layer.binariser, StochasticWeights):
            layer.binariser.source = generator


def check_latents(model: nn.Module) -> None:
    """Refuse a network with latent weights that are not finite; waits for a GPU.

    Raises
    ------
    ValueError
        Naming the layer.
    """
    for name, layer in binary_layers(model).items():
        if not bool(torch.isfinite(layer.weight).all()):
            raise ValueError(
                f"The latent weights of {name!r} must be finite, got NaN or infinity: lower the "
                "learning rate."
            )
