"""From a network of torch to a packed one: what is multiplied, and where signs change."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pbnn.baselines import Classifier
from pbnn.binarize.layers import (
    BinaryActivation,
    BinaryConv2d,
    _BinaryLayer,
)
from pbnn.binarize.react_net import RPReLU
from pbnn.binarize.recipes import Together
from pbnn.binarize.unbalanced import Hardtanh, Threshold
from pbnn.layers import Convolution, StochasticBatchNorm, ThresholdSign, statistics_splits
from pbnn.networks import BinaryNetwork, BLRNet, SignNetwork, binarise
from pbnn.packed.geometry import Geometry
from pbnn.packed.layers import PIXEL, BitLayer, Layer, RealLayer, Scores, Thresholds
from pbnn.packed.network import PackedNetwork, Preprocessing
from pbnn.packed.switches import switches

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


@torch.no_grad()
def pack(
    network: nn.Module | Sequence[nn.Module],
    *,
    image: Sequence[int] | None = None,
    input: str = "uint8",
    scale: float = 1 / PIXEL,
    statistics: str = "",
) -> PackedNetwork:
    r"""A network of signs as bits: it predicts what the network predicts, sign by sign.

    Where signs change is found with the network's own modules: batch normalisation, biases, scales
    of weights and thresholds of activations become one integer a channel, the least pre-activation
    that gives +1, or −1 where they fall; a maximum becomes "any", or "all". What is left after the
    last layer stays a few rounded operations on its integers. Sums of signs are exact in both, so
    that all signs behind the first layer's, and the scores, are the same bit for bit. The first
    layer's sums of bytes are exact here and rounded there: its signs are those of the network in
    float64, and in float32 those may differ whose pre-activation is off a threshold by no more than
    that rounding.

    Parameters
    ----------
    network : Module, or sequence of modules
        A `BinaryNetwork`, the most probable network of a `BLRNet`, `PBGNet` or `ABNet`, or a chain
        of layers that `pbnn.binarize.convert` made binary, all of them. Several of the same inputs
        and classes vote.
    image : (channels, height, width), optional
        Of an input, for networks that do not tell.
    input : {"uint8", "real"}
        Whether inputs are bytes times `scale`, or any numbers. A first layer of real weights has
        the latter, and one whose inputs are signs, signs.
    scale : float
        Of bytes: 1/255 for pixels from 0 to 1.
    statistics : str
        Hash of the split that batch normalisation, with γ and β, comes from, where the network's is
        not frozen with one (`freeze_statistics`): the caller's word, for a certificate.

    Raises
    ------
    ValueError
        Naming the layer that is not made of signs, or what no threshold can replace.

    Examples
    --------
    >>> from pbnn.networks import BLRNet
    >>> network = BLRNet((1, 8, 8), "8C3-MP2-SM10", generator=torch.Generator().manual_seed(0))
    >>> packed = pack(network)
    >>> images = np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8)
    >>> scores = packed.scores(images)
    >>> bool((scores == binarise(network)(torch.from_numpy(images) / 255).numpy()).all())
    True
    """
    if input not in ("uint8", "real"):
        raise ValueError(f"`input` must be 'uint8' or 'real', got {input!r}.")
    if not scale > 0 or not np.isfinite(scale):
        raise ValueError(f"`scale` must be positive, got {scale}.")
    several = list(network) if isinstance(network, Sequence) else [network]
    if not several:
        raise ValueError("`network` must be one or several, got none.")
    members, readings = [], []
    for one in several:
        reading, layers = _packed(one, image, input, scale)
        members.append(layers)
        readings.append(reading)
    if any(reading != readings[0] for reading in readings):
        raise ValueError("`network` must be several that read the same inputs, got others.")
    shape, kind = readings[0]
    origins = {split for one in several for split in statistics_splits(one)}
    known = {statistics if split is None else split for split in origins}
    preprocessing = Preprocessing(shape, kind, float(scale) if kind == "uint8" else 1.0)
    return PackedNetwork(preprocessing, tuple(members), tuple(sorted(known)))


def _packed(
    network: nn.Module, image: Sequence[int] | None, input: str, scale: float
) -> tuple[tuple[tuple[int, int, int], str], tuple[Layer, ...]]:
    stages, own = stages_of(network)
    shape = own or image
    first = stages[0]
    if shape is None and not first.moves:
        shape = (first.weight.shape[1], 1, 1)
    if shape is None or len(shape) != 3:
        raise ValueError(f"`image` must be (channels, height, width), got {shape}.")
    given = (int(shape[0]), int(shape[1]), int(shape[2]))
    dtype = str(first.weight.dtype).removeprefix("torch.")
    kind = "signs" if first.signs else dtype if input == "real" or not first.binary else "uint8"
    reads = "signs" if first.signs else "uint8" if kind == "uint8" else "real"
    layers: list[Layer] = []
    at = given
    for place, stage in enumerate(stages):
        if place and not stage.signs:
            raise ValueError(f"`network` must have signs before {stage.name!r}, got real numbers.")
        layer = _layer(stage, at, reads, scale if reads == "uint8" else 1.0, stage is stages[-1])
        layers.append(layer)
        at, reads = layer.geometry.out, "signs"
    return (given, kind), tuple(layers)


def _layer(stage: Stage, at: tuple[int, int, int], reads: str, scale: float, last: bool) -> Layer:
    """A stage whose inputs are of this shape and kind."""
    weight = stage.weight.detach().cpu()
    geometry = _geometry(stage, at)
    around = geometry.filling if reads == "uint8" and any(geometry.border) else 0
    if around < 0 or (around > 0 and abs(PIXEL * scale - 1) > 1e-9):
        raise ValueError(
            f"`input` must be 'real' where images are surrounded by {around}, which is no byte "
            f"times {scale:.6g}."
        )
    if not stage.moves:
        weight = weight.reshape(len(weight), geometry.image[0], *geometry.kernel)
    groups = stage.moves.get("groups", 1)
    if groups > 1:
        weight = _ungrouped(weight, groups)
    exact = stage.binary and reads != "real"
    most = geometry.fan_in * (PIXEL if reads == "uint8" else 1)
    # What a byte stands for has no float32: the signs of bytes are those of float64.
    told = stage.doubled() if reads == "uint8" else stage
    dtype = told.weight.dtype
    whole = (-most - 1, most + 1) if exact else None

    def before(values: Tensor) -> Tensor:
        return told.chain(told.before, told.value(values.to(dtype), scale))

    def after(values: Tensor) -> Tensor:
        return told.chain(told.after, values)

    tail: Thresholds | Scores
    if last:
        if geometry.pools:
            raise ValueError(f"`network` must not pool the scores of {stage.name!r}.")
        tail = _scores(stage, scale, whole)
    else:
        out = geometry.out if stage.by_place else (stage.width, 1, 1)
        if stage.by_place and not _apart(geometry):
            raise ValueError(
                f"`network` must not have windows that overlap after {stage.name!r}, where places "
                "have thresholds of their own."
            )
        tail = switches(before, after, out, whole or dtype, stage.name)
        if not geometry.pools:
            tail = dataclasses.replace(tail, every=np.zeros(stage.width, bool))
    if exact:
        return BitLayer.of(geometry, weight.numpy(), tail, input=reads, name=stage.name)
    values = np.ascontiguousarray(weight.numpy().transpose(0, 2, 3, 1))
    off = torch.zeros(geometry.image, dtype=dtype) if stage.shift is None else stage.shift
    shift = np.ascontiguousarray(off.reshape(geometry.image).numpy().transpose(1, 2, 0))
    return RealLayer(geometry, reads, values, shift, tail, stage.name)


def _geometry(stage: Stage, at: tuple[int, int, int]) -> Geometry:
    pool: dict[str, Any] = {}
    if stage.pool is not None:
        sizes = (stage.pool.kernel_size, stage.pool.stride)
        pool = dict(zip(("pool", "pool_stride"), map(_pair, sizes), strict=True))
    if not stage.moves:
        if stage.weight.shape[1] != np.prod(at):
            raise ValueError(
                f"`network` must fit its inputs: {stage.name!r} reads {stage.weight.shape[1]} "
                f"numbers, and gets {at}."
            )
        return Geometry(at, stage.width, kernel=at[1:], **pool)
    moves = {name: value for name, value in stage.moves.items() if name != "groups"}
    if stage.weight.shape[1] * stage.moves["groups"] != at[0]:
        raise ValueError(
            f"`network` must fit its inputs: {stage.name!r} reads {stage.weight.shape[1]} "
            f"channels, and gets {at}."
        )
    kernel = (int(stage.weight.shape[2]), int(stage.weight.shape[3]))
    return Geometry(at, stage.width, kernel, **moves, **pool)


def _apart(geometry: Geometry) -> bool:
    """Whether windows have no position in common."""
    return all(a >= b for a, b in zip(geometry.pool_stride, geometry.pool, strict=True))


def _ungrouped(weight: Tensor, groups: int) -> Tensor:
    """Filters that see every channel, with weights 0 for those of other groups."""
    width, each = weight.shape[:2]
    whole = weight.new_zeros(width, groups * each, *weight.shape[2:])
    for group in range(groups):
        rows = slice(group * width // groups, (group + 1) * width // groups)
        whole[rows, group * each : (group + 1) * each] = weight[rows]
    return whole


def _scores(stage: Stage, scale: float, whole: tuple[int, int] | None) -> Scores:
    """What makes scores of products, by steps that are rounded as the network's."""
    dtype = stage.weight.dtype
    steps: list[tuple[str, Tensor]] = []
    if scale != 1:
        steps.append(("mul", torch.full((stage.width,), scale, dtype=dtype)))
    steps += [("mul", stage.factor)] if stage.factor is not None else []
    steps += [("add", stage.bias)] if stage.bias is not None else []
    for module in stage.before:
        if isinstance(module, StochasticBatchNorm):
            factor = module.gamma * (module.running_var + module.eps).rsqrt()
            steps += [("sub", module.running_mean), ("mul", factor), ("add", module.beta)]
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            steps.append(("fma", _folded(stage, module)))
        elif not isinstance(module, (*CONSTANT, nn.Flatten)):
            kind = type(module).__name__
            raise ValueError(f"`network` must have plain scores at the end, got a {kind}.")
    made = Scores(
        tuple((name, value.detach().cpu().numpy().copy()) for name, value in steps),
        np.dtype(str(dtype).removeprefix("torch.")),
    )
    if whole is not None:
        # Of at most a million integers, evenly spread.
        low, high = whole
        every = torch.arange(low, high + 1, max(1, (high - low) // 10**6))
        for values in every.split(2**14):
            column = values[:, None].expand(-1, stage.width)
            images = column.to(dtype)[:, :, None, None]
            true = stage.chain(stage.before, stage.value(images, scale)).flatten(1)
            if not np.array_equal(made(column.numpy()), true.cpu().numpy()):
                warnings.warn(
                    f"Scores of {stage.name!r} differ from torch's in the last bit.", stacklevel=4
                )
                break
    return made


def _folded(stage: Stage, norm: Any) -> Tensor:
    """A factor and a summand of each channel that torch's normalisation multiplies and adds."""
    values = torch.linspace(-1000, 1000, 401, dtype=stage.weight.dtype)
    column = values[:, None].expand(-1, stage.width).contiguous()
    images = column[:, :, None, None]
    found = stage.chain([norm], images).flatten(1).cpu().numpy()
    summand = stage.chain([norm], torch.zeros_like(images[:1])).flatten()
    gamma = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
    spread = norm.running_var + norm.eps
    best: Tensor | None = None
    fewest = np.full(stage.width, len(values) + 1)
    for factor in (gamma * (1 / spread.sqrt()), gamma / spread.sqrt(), gamma * spread.rsqrt()):
        both = torch.stack([factor, summand])
        made = Scores((("fma", both.cpu().numpy()),), found.dtype)(column.cpu().numpy())
        wrong = (made != found).sum(0)
        best = both if best is None else torch.where(torch.as_tensor(wrong < fewest), both, best)
        fewest = np.minimum(wrong, fewest)
    assert best is not None
    return best


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
                "stride": _pair(product.stride),
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
            sound = not module.padding and _pair(module.dilation) == (1, 1)
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
        moves |= {each: _pair(layer.moves[each]) for each in ("stride", "dilation")}
        moves["groups"] = layer.moves["groups"]
    elif isinstance(layer, nn.Conv2d):
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise ValueError(f"`network` must have plain padding, got {name!r}, {layer}.")
        (down, across) = _pair(layer.padding)
        moves = {"border": (down, down, across, across), "groups": layer.groups}
        moves |= {each: _pair(getattr(layer, each)) for each in ("stride", "dilation")}
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


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
