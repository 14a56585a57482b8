"""Watching the signs of a network while it computes, and measuring them over a data set."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pbnn.balance.signs import SignStatistics
from pbnn.balance.weights import has_signs, sign_figures, weight_balance


class Balance(NamedTuple):
    """Balance of a network's signs.

    Attributes
    ----------
    activations : dict of str to dict
        Figures of each layer's signs, by name.
    weights : dict of str to dict
        Figures of each layer's weights, by name.
    channels : dict of str to dict
        Figures of each layer's signs by channel, as lists.
    """

    activations: dict[str, dict[str, float]]
    weights: dict[str, dict[str, float]]
    channels: dict[str, dict[str, list[float]]]


class Watcher:
    """Statistics of every layer that is watched; made by `watch`."""

    def __init__(self, classes: int, every: int, full: bool) -> None:
        self.classes, self.every, self.full = classes, every, full
        self.labels: Tensor | None = None
        self.statistics: dict[str, SignStatistics] = {}
        self._calls: dict[str, int] = {}

    def reset(self) -> None:
        """Forget what was counted, as at the start of an epoch."""
        self.statistics = {}

    @torch.no_grad()
    def see(self, name: str, module: Any, layer: Any, given: Tensor, result: Any) -> None:
        """Count one result of a watched method."""
        calls = self._calls[name] = self._calls.get(name, -1) + 1
        if calls % self.every:
            return
        known = isinstance(result, Tensor)
        signs = result if known else result.mean.double()
        if self.full and known and not bool((signs.abs() == 1).all()):
            raise ValueError(f"Results of {name!r} must be ±1, or moments with a `mean`.")
        if name not in self.statistics:
            self.statistics[name] = SignStatistics(self.classes, full=self.full)
        kept = self.statistics[name]
        margin = module.margin(given) if hasattr(module, "margin") else None
        labels = self.labels
        if labels is not None and len(signs) > len(labels) > 0:
            # Several rows of units a sample, as of a sequence.
            labels = labels.repeat_interleave(len(signs) // len(labels))
        # A slope may cost more than all the rest, such as EDE's hyperbolic tangent.
        slope = getattr(module, "slope", None) if self.full else None
        kept.update(signs, labels, margin, slope)
        if self.full and layer is not None and has_signs(layer) and not layer.real_weights:
            weight = layer.signs()
            fan_in = weight[0].numel()
            by_channel = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
            # Grouped filters see only some channels; a shift of theirs is not told apart.
            if by_channel.shape[1] == signs.shape[1]:
                kept.count_outputs(layer.product(signs, weight), fan_in, by_channel)

    def layers(self) -> dict[str, dict[str, float]]:
        """Figures of each layer's signs so far."""
        return {name: kept.layer() for name, kept in self.statistics.items()}


@contextlib.contextmanager
def watch(
    model: nn.Module, *, classes: int = 0, every: int = 1, full: bool = False
) -> Iterator[Watcher]:
    """Count the signs of a network whenever it computes them, until the block ends.

    Watched are the modules with ``sign_methods``, names of methods whose results are signs, or
    moments of random ones: the activations of `pbnn.binarize`, the layers of `PBGNet` and
    `BLRNet`. The network computes what it always does.

    Parameters
    ----------
    model : Module
    classes : int
        Of the labels, for the information; set the watcher's ``labels`` before each batch.
    every : int
        Count every so-maniest call of a layer: 10 costs a training next to nothing.
    full : bool
        Whether to keep all figures; without, those that cost a few passes over the signs.

    Examples
    --------
    >>> from pbnn.binarize import BinaryActivation, clipped
    >>> model = nn.Sequential(BinaryActivation(clipped))
    >>> with watch(model) as watcher:
    ...     _ = model(torch.tensor([[0.5, -0.5], [2.0, 0.1]]))
    >>> watcher.layers()["0"]["share"]
    0.75
    """
    if every < 1:
        raise ValueError(f"`every` must be a positive integer, got {every}.")
    watcher = Watcher(classes, every, full)
    layers = {id(m.activation): m for m in model.modules() if hasattr(m, "product")
                 and isinstance(getattr(m, "activation", None), nn.Module)}  # fmt: skip

    def see(name: str, module: nn.Module, given: Any, result: Any) -> None:
        watcher.see(name, module, layers.get(id(module)), given, result)

    with intercepted(model, see):
        yield watcher


@contextlib.contextmanager
def intercepted(
    model: nn.Module, see: Callable[[str, nn.Module, Any, Any], None]
) -> Iterator[None]:
    """Show every result of a module's ``sign_methods`` to `see`, with its name and its input."""

    def shown(name: str, module: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(given: Any, *args: Any, **options: Any) -> Any:
            result = original(given, *args, **options)
            see(name, module, given, result)
            return result

        return method

    wrapped = []
    try:
        for name, module in model.named_modules():
            methods = getattr(module, "sign_methods", ())
            if isinstance(methods, str):
                raise ValueError(f"`sign_methods` of {name!r} must be a tuple, got {methods!r}.")
            for method in methods:
                # On the instance, where it hides the method of the class, or what hid it before.
                wrapped.append((module, method, module.__dict__.get(method)))
                module.__dict__[method] = shown(name or ".", module, getattr(module, method))
        yield
    finally:
        for module, method, before in reversed(wrapped):
            if before is None:
                module.__dict__.pop(method, None)
            else:
                module.__dict__[method] = before


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode until the block ends, then each module in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def measure(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    classes: int = 0,
    forward: Callable[[Tensor], Any] | None = None,
) -> Balance:
    """All figures of a network's signs over a data set, in evaluation mode.

    Parameters
    ----------
    model : Module
        Left in the mode it was in.
    batches : iterable of Tensor or of (Tensor, Tensor)
        Inputs, or inputs and labels: a `torch.utils.data.DataLoader` or a list.
    classes : int
        Of the labels, which count from 0; 0 to leave out the information about them.
    forward : callable, optional
        How to compute, such as a network's ``mode``; by default the network itself.

    Returns
    -------
    Balance

    Raises
    ------
    ValueError
        If `classes` is given without labels, or no layer of the model makes signs.

    Examples
    --------
    >>> from pbnn.backbones import mlp
    >>> from pbnn.binarize import convert
    >>> make = torch.Generator().manual_seed(0)
    >>> network = convert(mlp((1, 4, 4), (8, 8), generator=make), "binary_net").network
    >>> x = torch.rand(32, 1, 4, 4, generator=make)
    >>> balance = measure(network, [(x, torch.arange(32) % 2)], classes=2)
    >>> sorted(balance.activations), balance.weights["4"]["channels"]
    (['4.activation'], 8.0)
    """
    batches_seen = 0
    with evaluating(model), watch(model, classes=classes, full=True) as watcher:
        for batch in batches:
            x, watcher.labels = (*batch, None)[:2] if isinstance(batch, Sequence) else (batch, None)
            if classes:
                _check_labels(watcher.labels, classes)
            (forward or model)(x)
            batches_seen += 1
    if not batches_seen:
        raise ValueError("`batches` must hold some, got none.")
    if not watcher.statistics:
        raise ValueError("`model` must have layers that make signs, with `sign_methods`.")
    channels = {name: kept.channels() for name, kept in watcher.statistics.items()}
    return Balance(watcher.layers(), weights_of(model), channels)


def _check_labels(labels: Tensor | None, classes: int) -> None:
    """Refuse labels that are no classes."""
    if labels is None:
        raise ValueError("`classes` must be 0 without labels, got batches of inputs.")
    if labels.ndim != 1 or bool(((labels < 0) | (labels >= classes)).any()):
        raise ValueError(
            f"Labels must be one class of 0 to {classes - 1} a sample, got shape "
            f"{tuple(labels.shape)} from {labels.min().item():g} to {labels.max().item():g}."
        )


def weights_of(model: nn.Module) -> dict[str, dict[str, float]]:
    """Figures of the weights of every layer with binary ones: signs, or means of random ones."""
    rows = {}
    for name, module in model.named_modules():
        if has_signs(module):
            rows[name] = weight_balance(module)
        elif (law := getattr(module, "law", None)) in MEAN_SIGNS:
            mean: Tensor = module.mean.detach()
            rows[name] = sign_figures(MEAN_SIGNS[law](mean), mean)
    return rows


MEAN_SIGNS: dict[str, Callable[[Tensor], Tensor]] = {
    "bernoulli": lambda mean: mean,
    "gaussian": lambda mean: torch.erf(mean / math.sqrt(2)),
}
"""Mean signs of random weights by their law: weights ±1 with this mean, or N(mean, 1)."""
