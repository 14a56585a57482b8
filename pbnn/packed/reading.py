"""From a network of torch to a packed one: what is multiplied, and where signs change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pbnn.layers import statistics_splits
from pbnn.packed.geometry import Geometry
from pbnn.packed.layers import PIXEL, BitLayer, Layer, RealLayer, Scores, Thresholds
from pbnn.packed.network import PackedNetwork, Preprocessing
from pbnn.packed.rounding import scores_of
from pbnn.packed.stages import Stage, pair, stages_of
from pbnn.packed.switches import switches


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
    >>> from pbnn.networks import BLRNet, binarise
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
        tail = scores_of(stage, scale, whole)
    else:
        out = geometry.out if stage.by_place else (stage.width, 1, 1)
        if stage.by_place and not geometry.apart:
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
        pool = dict(zip(("pool", "pool_stride"), map(pair, sizes), strict=True))
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


def _ungrouped(weight: Tensor, groups: int) -> Tensor:
    """Filters that see every channel, with weights 0 for those of other groups."""
    width, each = weight.shape[:2]
    whole = weight.new_zeros(width, groups * each, *weight.shape[2:])
    for group in range(groups):
        rows = slice(group * width // groups, (group + 1) * width // groups)
        whole[rows, group * each : (group + 1) * each] = weight[rows]
    return whole
