"""A network of torch as stages: weights, and what follows them up to the next ones."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pbnn.baselines import Classifier
from pbnn.binarize.layers import BinaryActivation, BinaryConv2d, _BinaryLayer
from pbnn.binarize.react_net import RPReLU
from pbnn.binarize.recipes import Together
from pbnn.binarize.unbalanced import Hardtanh, Threshold
from pbnn.layers import Convolution, StochasticBatchNorm, ThresholdSign
from pbnn.networks import BinaryNetwork, BLRNet, SignNetwork, binarise

CONSTANT = (nn.Identity, nn.Dropout, nn.Dropout2d)
"""What changes nothing in evaluation."""
RISING = (nn.BatchNorm1d, nn.BatchNorm2d, StochasticBatchNorm, ThresholdSign, nn.Hardtanh, Hardtanh)
"""What rises or falls with each channel, whatever its parameters."""
RECTIFIED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, RPReLU)
"""What rises if its slopes are not negative."""


@dataclass
class Stage:
    """Weights, and what follows them up to the next ones.

    Attributes
    ----------
    weight : Tensor
        ±1 and 0 of a binary layer.
    binary : bool
    factor, bias : Tensor or None
        What products are multiplied by, and what is added then, channel by channel.
    moves : dict
        Stride, dilation, border, filling, groups of a convolution; empty of a dense layer.
    before, after : list of Module
        Before a maximum is taken, and after it.
    pool : Module, optional
    shift : Tensor, optional
        What is taken off the inputs of real weights.
    """

    name: str
    weight: Tensor
    binary: bool
    factor: Tensor | None = None
    bias: Tensor | None = None
    moves: dict[str, Any] = field(default_factory=dict)
    before: list[nn.Module] = field(default_factory=list)
    after: list[nn.Module] = field(default_factory=list)
    pool: Any = None
    shift: Tensor | None = None
    signs: bool = False

    @property
    def width(self) -> int:
        """Filters."""
        return len(self.weight)

    def value(self, products: Tensor, scale: float) -> Tensor:
        """What a layer of torch makes of its products (m, width, rows, columns)."""
        value = products if scale == 1 else products * scale
        if self.factor is not None:
            value = value * self.factor[:, None, None]
        return value if self.bias is None else value + self.bias[:, None, None]

    def chain(self, modules: Sequence[nn.Module], value: Tensor) -> Tensor:
        """Modules on values (m, width, rows, columns), shaped as they know them."""
        value = value if self.moves else value.flatten(1)
        for module in modules:
            value = module(value)
        return value

    def doubled(self) -> Stage:
        """The same in float64."""

        def of(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.double()

        return dataclasses.replace(
            self,
            weight=self.weight.double(),
            factor=of(self.factor),
            bias=of(self.bias),
            before=[copy.deepcopy(module).double() for module in self.before],
            after=[copy.deepcopy(module).double() for module in self.after],
        )

    @property
    def by_place(self) -> bool:
        """Whether what follows tells the places of an image apart: what has more than one number
        and stands behind a `Flatten`."""
        modules = [*self.before, *self.after]
        flat = [isinstance(module, nn.Flatten) for module in modules]
        behind = modules[flat.index(True) :] if any(flat) and self.moves else []
        numbers = [t for module in behind for t in (*module.parameters(), *module.buffers())]
        return any(number.numel() > 1 for number in numbers)


def stages_of(network: nn.Module) -> tuple[list[Stage], tuple[int, int, int] | None]:
    """The stages of a network, and the shape of its images if it tells.

    Raises
    ------
    ValueError
        For a network that is no chain of known layers.
    """
    if isinstance(network, BLRNet):
        network = binarise(network)
    if isinstance(network, BinaryNetwork):
        return list(_of_blocks(network)), network.image  # type: ignore[return-value]
    if isinstance(network, SignNetwork):
        return list(_of_units(network)), None
    if isinstance(network, Classifier):
        network = network.net
    return _of_modules(network), None


def _of_blocks(network: BinaryNetwork) -> Iterator[Stage]:
    for place, block in enumerate(network.layers()):
        moves: dict[str, Any] = {}
        if isinstance(block.product, Convolution):
            product = block.product
            moves = {
                "stride": pair(product.stride),
                "border": (product.padding,) * 4,
                "filling": int(product.padding_value),
                "groups": product.groups,
            }
        pool = None
        if block.tail.pool is not None:
            if block.tail.pool.kind != "max":
                raise ValueError("`network` must pool maxima, got averages.")
            pool = nn.MaxPool2d(block.tail.pool.size)
        weight = block.weight.detach()
        binary = bool((weight.abs().eq(1) | weight.eq(0)).all())
        before = [] if block.tail.norm is None else [block.tail.norm.eval()]
        yield Stage(
            f"blocks.{place}",
            weight,
            binary,
            moves=moves,
            before=before,
            pool=pool,
            signs=place > 0,
        )


def _of_units(network: SignNetwork) -> Iterator[Stage]:
    for place, layer in enumerate(network.layers()):
        weight, bias = layer.weight.mode().detach(), None
        if layer.bias:
            weight, bias = weight[:, :-1], weight[:, -1]
        name = f"layers.{place}"
        shift = None if place else network.shift.detach().cpu()
        yield Stage(name, weight, False, bias=bias, shift=shift, signs=place > 0)


def _of_modules(network: nn.Module) -> list[Stage]:
    """Of a chain of modules, some of which are binary."""
    stages: list[Stage] = []
    for name, module in _leaves(network, ""):
        if isinstance(module, _BinaryLayer | nn.Linear | nn.Conv2d):
            stage = _of_layer(name, module)
            if isinstance(module, _BinaryLayer) and module.activation is not None:
                stage.signs = True
                margin = _Margin(name, module.activation)
                if stages:
                    last = stages[-1]
                    (last.before if last.pool is None else last.after).append(margin)
                elif margin.shifts:
                    raise ValueError(f"`network` must have plain signs before {name!r}.")
            stages.append(stage)
        elif not stages:
            if not isinstance(module, (*CONSTANT, nn.Flatten)):
                got = type(module).__name__
                raise ValueError(f"`network` must begin with weights, got a {got}.")
        elif isinstance(module, nn.MaxPool2d):
            sound = not module.padding and pair(module.dilation) == (1, 1)
            if stages[-1].pool is not None or not sound or module.ceil_mode:
                raise ValueError(f"`network` must have plain pooling, got {name!r}, {module}.")
            stages[-1].pool = module
        elif not isinstance(module, CONSTANT):
            _check_rising(name, module)
            made = copy.deepcopy(module).eval()
            (stages[-1].before if stages[-1].pool is None else stages[-1].after).append(made)
    if not any(stage.binary for stage in stages):
        raise ValueError(f"`network` must have binary layers, got a {type(network).__name__}.")
    return stages


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Modules in the order in which a chain runs them."""
    if isinstance(module, nn.Sequential):
        for child, part in module.named_children():
            yield from _leaves(part, f"{name}.{child}" if name else child)
        return
    weights = (_BinaryLayer, nn.Linear, nn.Conv2d)
    known = (*weights, nn.MaxPool2d, nn.Flatten, *CONSTANT, *RISING, *RECTIFIED)
    if not isinstance(module, known):
        raise ValueError(
            "`network` must be a chain (torch.nn.Sequential) of dense layers, convolutions, "
            "maximum pooling, normalisation and activations that rise, got "
            f"{name or 'a'} {type(module).__name__}."
        )
    yield name, module


def _of_layer(name: str, layer: Any) -> Stage:
    """Weights and moves of one layer of torch, real or binary."""
    bias = None if layer.bias is None else layer.bias.detach()
    moves: dict[str, Any] = {}
    if isinstance(layer, BinaryConv2d):
        left, right, top, bottom = layer.border
        moves = {"border": (top, bottom, left, right), "filling": int(layer.padding_value)}
        moves |= {each: pair(layer.moves[each]) for each in ("stride", "dilation")}
        moves["groups"] = layer.moves["groups"]
    elif isinstance(layer, nn.Conv2d):
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise ValueError(f"`network` must have plain padding, got {name!r}, {layer}.")
        (down, across) = pair(layer.padding)
        moves = {"border": (down, down, across, across), "groups": layer.groups}
        moves |= {each: pair(getattr(layer, each)) for each in ("stride", "dilation")}
    if not isinstance(layer, _BinaryLayer):
        return Stage(name, layer.weight.detach(), False, bias=bias, moves=moves)
    if layer.binariser is None or layer.real_weights:
        raise ValueError(f"`network` must have binary weights in {name!r}, got real ones.")
    signs, factor = layer.parts()
    if not bool((signs.abs().eq(1) | signs.eq(0)).all()):
        raise ValueError(f"`network` must have one base of weights in {name!r}, got several.")
    flat = None if factor is None else factor.detach().expand(len(signs), *factor.shape[1:])
    factor = None if flat is None else flat.reshape(-1)
    return Stage(name, signs.detach(), True, factor, bias, moves)


class _Margin(nn.Module):
    """What a sign is taken of: a value with thresholds that know no other value."""

    def __init__(self, name: str, activation: nn.Module) -> None:
        super().__init__()
        if not isinstance(activation, BinaryActivation):
            got = type(activation).__name__
            raise ValueError(f"`network` must have one sign a unit before {name!r}, got a {got}.")
        given = activation.shift
        parts = list(given.shifts) if isinstance(given, Together) else [given] if given else []
        if not all(isinstance(part, Threshold) for part in parts):
            got = ", ".join(type(part).__name__ for part in parts)
            raise ValueError(
                f"`network` must have thresholds that do not depend on inputs before {name!r}, "
                f"got {got}."
            )
        self.activation, self.shifts = activation, parts

    def forward(self, x: Tensor) -> Tensor:
        margin: Tensor = self.activation.margin(x)
        return margin


def _check_rising(name: str, module: nn.Module) -> None:
    """Refuse activations that rise here and fall there."""
    slopes = {
        nn.LeakyReLU: lambda m: torch.tensor(m.negative_slope),
        nn.PReLU: lambda m: m.weight,
        RPReLU: lambda m: m.slope,
    }
    of: Callable[[Any], Tensor] | None = slopes.get(type(module))
    if of is not None and bool((of(module) < 0).any()):
        raise ValueError(
            f"`network` must have activations that rise, got {name!r} with a negative slope: no "
            "threshold can replace it."
        )


def pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
