"""From an ordinary torch model to a binary one, and what its training does besides steps."""

from __future__ import annotations

import copy
from fnmatch import fnmatch
from typing import NamedTuple

import torch
from torch import Generator, nn

from pbnn.binarize.layers import LAYERS, BinaryConv2d, BinaryLinear, _BinaryLayer, binary_layers
from pbnn.binarize.recipes import NONLINEARITIES, Recipe, recipe_named

NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Softplus, nn.Hardsigmoid)
"""Activations whose signs are all +1."""


class Converted(NamedTuple):
    """A binary network and what was done to make it.

    Attributes
    ----------
    network : Module
    binary : tuple of str
        Names of the layers that became binary.
    left : dict of str to str
        Why each other layer with weights was left alone, by name.
    replaced : dict of str to str
        What took the place of an activation that is never negative, by name.
    """

    network: nn.Module
    binary: tuple[str, ...]
    left: dict[str, str]
    replaced: dict[str, str]


def convert(
    model: nn.Module,
    recipe: str | Recipe,
    *,
    layers: tuple[str, ...] | None = None,
    generator: Generator | None = None,
) -> Converted:
    """A binary copy of an ordinary model: each dense layer and convolution binarises its inputs.

    The first layer's inputs stay real. Layers count in the order in which the model registers them.
    Activations that are never negative (`NEVER_NEGATIVE`) are replaced, as their signs would all be
    +1; those in a ``forward`` rather than in a module are not seen. Parameters keep their names, so
    that the copy loads a state of the model, and the model is left as it is.

    Parameters
    ----------
    model : Module
        With `torch.nn.Linear` or `torch.nn.Conv2d`; its weights become the latent ones.
    recipe : str or Recipe
        A name of `RECIPES`, or one of your own.
    layers : tuple of str, optional
        The layers to make binary, whatever the recipe leaves alone; by default it decides.
    generator : torch.Generator, optional
        A CPU generator for what a recipe draws (ASD); of seed 0 by default.

    Returns
    -------
    Converted

    Raises
    ------
    ValueError
        For an unknown recipe, a named layer that is not there or cannot be binarised, latents that
        are not finite, or if no layer is left to be made binary.

    Examples
    --------
    >>> model = nn.Sequential(
    ...     nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2)
    ... )
    >>> converted = convert(model, "xnor_net")
    >>> converted.binary, converted.left
    (('3',), {'0': 'first layer', '4': 'last layer'})
    >>> converted.network(torch.ones(2, 4)).shape
    torch.Size([2, 2])
    """
    recipe = recipe_named(recipe)
    network = copy.deepcopy(model)
    if binary_layers(network):
        raise ValueError("`model` must be an ordinary model, got one with binary layers.")
    generator = generator or torch.Generator().manual_seed(0)
    found = {name: m for name, m in network.named_modules() if _has_weights(m)}
    for name in layers or ():
        if name not in found:
            raise ValueError(f"`layers` must name layers of the model, got {name!r}.")
    reasons = {name: _reason(name, m, list(found), recipe, layers) for name, m in found.items()}
    for name in layers or ():
        if reasons[name]:
            raise ValueError(f"`layers` must be such as can be binarised, got {name!r}: "
                             f"{reasons[name]}.")  # fmt: skip
    binary = tuple(name for name, reason in reasons.items() if not reason)
    if not binary:
        raise ValueError(f"`model` must have a layer to make binary, left alone: {reasons}.")
    first = next(iter(found))
    for name in binary:
        layer = found[name]
        channels = _channels(layer)
        activation = None if name == first else recipe.activation(channels, generator)
        _replace(network, name, _binary(layer, recipe, activation))
    replaced = {}
    for name, module in list(network.named_modules()):
        if isinstance(module, NEVER_NEGATIVE):
            _replace(network, name, NONLINEARITIES[recipe.nonlinearity]())
            replaced[name] = f"{type(module).__name__} by {recipe.nonlinearity}"
    device = next(network.parameters()).device
    left = {name: reason for name, reason in reasons.items() if reason}
    return Converted(network.to(device).train(model.training), binary, left, replaced)


def _has_weights(module: nn.Module) -> bool:
    """Whether a module itself multiplies by weights."""
    own = dict(module.named_parameters(recurse=False))
    return any(p.ndim > 1 for p in own.values()) or isinstance(
        module, nn.modules.lazy.LazyModuleMixin
    )


def _reason(
    name: str, module: nn.Module, found: list[str], recipe: Recipe, layers: tuple[str, ...] | None
) -> str:
    """Why a layer is left alone; empty if it is not."""
    if type(module) not in LAYERS:
        return f"{type(module).__name__} is neither Linear nor Conv2d"
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        return f"padding mode {module.padding_mode}"
    if not bool(torch.isfinite(module.weight).all()):  # type: ignore[arg-type]
        raise ValueError(f"`model` must have finite weights, got others in {name!r}.")
    if layers is not None:
        return "" if name in layers else "not among `layers`"
    if name == found[0] and not recipe.first:
        return "first layer"
    if name == found[-1] and not recipe.last:
        return "last layer"
    if any(fnmatch(name, pattern) for pattern in recipe.keep):
        return "kept by the recipe"
    return ""


def _channels(layer: nn.Module) -> int:
    channels = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
    return int(channels)  # type: ignore[arg-type]


def _binary(layer: nn.Module, recipe: Recipe, activation: nn.Module | None) -> _BinaryLayer:
    binariser = recipe.binariser(layer.weight)  # type: ignore[arg-type]
    if isinstance(layer, nn.Conv2d):
        return BinaryConv2d(layer, binariser, activation, recipe.padding_value)  # type: ignore[arg-type]
    return BinaryLinear(layer, binariser, activation)  # type: ignore[arg-type]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


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
