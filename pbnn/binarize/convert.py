"""From an ordinary torch model to a binary one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Iterable
from fnmatch import fnmatch
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils.hooks import RemovableHandle

from pbnn.binarize.layers import (
    LAYERS,
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    _BinaryLayer,
    binary_layers,
    evaluating,
)
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
    replace: tuple[str, ...] | None = None,
    example: Tensor | None = None,
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
    replace : tuple of str, optional
        Which activations that are never negative to replace; by default all, also those before
        layers that stay real.
    example : Tensor, optional
        Some inputs, to notice a layer whose inputs are never negative, as behind a ``relu`` that is
        called in a ``forward``, and to see how many channels a replaced activation has: by default
        those of the last layer or normalisation that the model registers before it.
    generator : torch.Generator, optional
        A CPU generator for what a recipe draws (ASD); of seed 0 by default.

    Returns
    -------
    Converted

    Raises
    ------
    ValueError
        For an unknown recipe, a named layer that is not there or cannot be binarised, latents that
        are not finite, an activation of several widths to be replaced by one that has parameters,
        or if no layer is left to be made binary.

    Warns
    -----
    UserWarning
        Naming the layers whose signs of the `example` all are +1.

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
    found = {name or ".": m for name, m in network.named_modules() if _has_weights(m)}
    never = [n for n, m in network.named_modules() if isinstance(m, NEVER_NEGATIVE)]
    _check_names("layers", layers, found, "layers")
    _check_names("replace", replace, never, "activations that are never negative")
    order = [name for name, module in found.items() if isinstance(module, MULTIPLYING)]
    reasons = {name: _reason(name, m, order, recipe, layers) for name, m in found.items()}
    for name in layers or ():
        if reasons[name]:
            text = f"got {name!r}: {reasons[name]}."
            raise ValueError(f"`layers` must be such as can be binarised, {text}")
    binary = tuple(name for name, reason in reasons.items() if not reason)
    if not binary:
        raise ValueError(f"`model` must have a layer to make binary, left alone: {reasons}.")
    new: dict[int, nn.Module] = {}
    for name in binary:
        layer = found[name]
        channels = _channels(layer)
        activation = None if name == order[0] else recipe.activation(channels, generator)
        new[id(layer)] = _binary(layer, recipe, activation)
    replaced = {}
    widths = _widths(network, never, example)
    for name in never if replace is None else replace:
        module = network.get_submodule(name)
        made = NONLINEARITIES[recipe.nonlinearity](max({1, *widths[name]}))
        odd = len(widths[name]) > 1 or 0 in widths[name]
        if odd and next(made.parameters(), None) is not None:
            got = f"{name!r} with {sorted(widths[name])} channels"
            raise ValueError(
                f"Activations with parameters must have one width, got {got}: give an `example`, "
                "use a module for each place, or leave it by `replace`."
            )
        like = next(network.parameters())
        new[id(module)] = made.to(like.device, like.dtype).train(module.training)
        replaced[name] = f"{type(module).__name__} by {recipe.nonlinearity}"
    left = {name: reason for name, reason in reasons.items() if reason}
    converted = Converted(_with(network, new), binary, left, replaced)
    if example is not None:
        _warn_of_constants(converted.network, example)
    return converted


def _check_names(
    argument: str, names: tuple[str, ...] | None, known: Collection[str], what: str
) -> None:
    if isinstance(names, str):
        raise ValueError(f"`{argument}` must be a tuple of names, got {names!r}.")
    for name in names or ():
        if name not in known:
            raise ValueError(f"`{argument}` must name {what} of the model, got {name!r}.")


def _widths(network: nn.Module, names: list[str], example: Tensor | None) -> dict[str, set[int]]:
    """Channels of activations: as an example shows them, or else of what is registered before."""
    found: dict[str, set[int]] = {name: set() for name in names}
    if example is not None:
        hooks = [
            network.get_submodule(name).register_forward_hook(
                lambda module, given, out, n=name: found[n].add(out.shape[1] if out.ndim > 1 else 0)
            )
            for name in names
        ]
        _look(network, example, hooks)
        return found
    last = 0
    for name, module in network.named_modules():
        last = next((n for own in WIDTHS if (n := getattr(module, own, None))), last)
        if name in found:
            found[name].add(last)
    return found


WIDTHS = ("out_channels", "out_features", "num_features")
"""What layers and normalisations call the number of their channels."""


@torch.no_grad()
def _look(network: nn.Module, example: Tensor, hooks: Iterable[RemovableHandle]) -> None:
    """Show an example to a network with hooks, and remove them."""
    if not len(example):
        raise ValueError("`example` must hold some inputs, got none.")
    try:
        with evaluating(network):
            network(example)
    finally:
        for hook in hooks:
            hook.remove()


def _warn_of_constants(network: nn.Module, example: Tensor) -> None:
    """Name the layers all of whose signs are +1, of all bases where there are several."""
    constant: dict[str, bool] = {}

    def look(name: str, activation: BinaryActivation, given: tuple[Tensor, ...]) -> None:
        every = bool((activation.margin(given[0]) >= 0).all())
        constant[name] = constant.get(name, True) and every

    hooks = [
        part.register_forward_pre_hook(lambda a, given, n=name: look(n, a, given))
        for name, layer in binary_layers(network).items()
        for part in layer.modules()
        if isinstance(part, BinaryActivation)
    ]
    _look(network, example, hooks)
    if names := [name for name, every in constant.items() if every]:
        text = "is a ReLU called in a `forward`? Make it a module, or remove it."
        warnings.warn(f"All signs that enter {names} are +1: {text}", stacklevel=3)


MULTIPLYING = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.modules.conv._ConvNd)
"""Layers among which a first and a last one are told."""


def _has_weights(module: nn.Module) -> bool:
    """Whether a module itself has weights."""
    own = module.parameters(recurse=False)
    return any(p.ndim > 1 for p in own) or isinstance(module, LazyModuleMixin)


def _with(network: nn.Module, new: dict[int, nn.Module]) -> nn.Module:
    """The network with new modules for old ones, by their identity, in all their places."""
    if id(network) in new:
        return new[id(network)]
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if id(module) in new:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, new[id(module)])
    return network


def _reason(
    name: str, module: nn.Module, order: list[str], recipe: Recipe, layers: tuple[str, ...] | None
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
    if name == order[0] and not recipe.first:
        return "first layer"
    if name == order[-1] and not recipe.last:
        return "last layer"
    if any(fnmatch(name, pattern) for pattern in recipe.keep):
        return "kept by the recipe"
    return ""


def _channels(layer: nn.Module) -> int:
    channels = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
    return int(channels)  # type: ignore[arg-type]


def _binary(layer: nn.Module, recipe: Recipe, activation: nn.Module | None) -> _BinaryLayer:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    binariser = recipe.binariser(weight)
    if binariser is not None:
        binariser.to(weight.device, weight.dtype).start(weight)
    if isinstance(layer, nn.Conv2d):
        made: _BinaryLayer = BinaryConv2d(layer, binariser, activation, recipe.padding_value)
    else:
        made = BinaryLinear(layer, binariser, activation)
    return made.to(weight.device, weight.dtype).train(layer.training)
