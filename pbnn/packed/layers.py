"""What a packed network is made of: layers of bits or of real weights, thresholds and scores."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbnn.packed.bits import Array, Words, pack_bits, signs_of, thirds, unpack_bits, words_of
from pbnn.packed.geometry import Geometry
from pbnn.packed.panels import (
    QUAD,
    Panels,
    bits_of_panels,
    panels_of_bits,
    panels_of_words,
    rounded_up,
    words_of_panels,
)

PIXEL = 255
"""The largest byte."""


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Signs of pre-activations: +1 where a ≥ level, or where it is not, channel by channel.

    Attributes
    ----------
    level : (places, width) array
        int32 for integer pre-activations, else of their dtype; one for all places of the output, or
        one for each.
    flip : (width,) bool array
        Where +1 and −1 change places, after pooling.
    every : (width,) bool array
        Where a window gives 1 if all its bits are 1, not if any is.
    """

    level: Array
    flip: NDArray[np.bool_]
    every: NDArray[np.bool_]

    @functools.cached_property
    def flip_words(self) -> Words | None:
        """`flip` as words; None if nothing changes places."""
        return pack_bits(self.flip) if self.flip.any() else None

    @functools.cached_property
    def every_words(self) -> Words | None:
        """`every` as words; None if no window asks for all."""
        return pack_bits(self.every) if self.every.any() else None

    def activated(self, a: Array, geometry: Geometry) -> NDArray[np.bool_]:
        """Bits of pre-activations (n, rows, columns, width), before pooling."""
        level = self.level
        if len(level) > 1:
            level = level[geometry.places].reshape(*geometry.positions, -1)
        bits: NDArray[np.bool_] = a >= level
        return bits


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of pre-activations by steps that are rounded one by one, channel by channel.

    Attributes
    ----------
    steps : tuple of (str, array)
        "add", "sub", "mul" with an array (width,) of one dtype; "fma" with (2, width): a factor and
        a summand, rounded together.
    dtype : numpy dtype
        float32 or float64, in which pre-activations are taken, too.
    """

    steps: tuple[tuple[str, Array], ...]
    dtype: Any

    def __call__(self, a: Array) -> Array:
        """Of pre-activations (n, width)."""
        scores = a.astype(self.dtype)
        for name, value in self.steps:
            scores = STEPS[name](scores, value)
        return scores


def fused(x: Array, value: Array) -> Array:
    """x · value[0] + value[1], rounded once: what processors call a fused multiply-add.

    Of float32 by float64: a product is exact there, and a sum is rounded to odd, which leaves the
    last rounding what it should be. Of float64 both are rounded.

    Examples
    --------
    >>> fused(np.float32([3]), np.float32([[0.1], [1]]))
    array([1.3], dtype=float32)
    """
    if x.dtype != np.float32:
        return x * value[0] + value[1]
    product, summand = x.astype(np.float64) * value[0], value[1].astype(np.float64)
    total = product + summand
    with np.errstate(invalid="ignore"):  # of what is not finite, where nothing is lost
        back = total - product
        lost = (product - (total - back)) + (summand - back)
    bits = total.view(np.int64)
    # Towards what was lost, if anything was and the last bit is 0.
    outwards = np.where((lost > 0) == (total > 0), 1, -1)
    even = np.isfinite(total) & (lost != 0) & (bits & 1 == 0)
    odd = np.where(even, bits + outwards, bits)
    return odd.view(np.float64).astype(np.float32)


STEPS: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "fma": fused,
}
"""What scores are made by, by name."""


@dataclass(frozen=True, eq=False)
class BitLayer:
    """Weights ±1, or 0 where a mask says so, and what follows them.

    Attributes
    ----------
    geometry : Geometry
    input : {"signs", "uint8"}
    filters : array of uint8
        Bits of the weights as `pbnn.packed.panels` lays them: 1 for +1, of bytes for −1. Of signs
        without a mask the words of each pixel are `thirds`.
    mask : array of uint8, optional
        Likewise 1 where a weight is not 0.
    tail : Thresholds or Scores
    name : str
        Of the layer in the network it comes from.
    """

    geometry: Geometry
    input: str
    filters: Panels
    mask: Panels | None
    tail: Thresholds | Scores
    name: str

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        weight: Array,
        tail: Thresholds | Scores,
        *,
        input: str = "signs",
        name: str = "",
    ) -> BitLayer:
        """From weights (width, channels, height, width) of −1, +1 and 0."""
        if not np.isin(weight, (-1, 0, 1)).all():
            raise ValueError(f"`{name}` must have weights −1, 0 or +1, got others.")
        if input == "uint8" and geometry.fan_in * PIXEL >= 2**31:
            raise ValueError(f"`{name}` must read fewer bytes than 2³¹/255, got {geometry.fan_in}.")
        last = np.ascontiguousarray(weight.transpose(0, 2, 3, 1))
        whole = bool((last != 0).all())

        def panels(bits: NDArray[np.bool_]) -> Panels:
            if input == "uint8":
                return panels_of_bits(bits.reshape(len(bits), geometry.segments[0], -1))
            words = pack_bits(bits)
            return panels_of_words((thirds(words) if whole else words).reshape(len(bits), -1))

        filters = panels(last < 0 if input == "uint8" else last > 0)
        mask = None if whole else panels(last != 0)
        return cls(geometry, input, filters, mask, tail, name)

    def bits(self, panels: Panels) -> NDArray[np.bool_]:
        """Bits of panels, (width, height, width, channels)."""
        shape = self.geometry
        sizes = (shape.width, *shape.kernel, shape.image[0])
        if self.input == "uint8":
            segments, pixels = shape.segments
            bits = bits_of_panels(panels, shape.width, segments, pixels * shape.image[0])
            return bits.reshape(sizes)
        words = words_of_panels(panels, shape.width).reshape(*sizes[:-1], -1)
        return unpack_bits(words if self.mask is not None else thirds(words), shape.image[0])

    def weight(self, dtype: Any = np.int8) -> Array:
        """The weights as numbers, (width, height, width, channels)."""
        signs = signs_of(self.bits(self.filters) ^ (self.input == "uint8"), dtype)
        return signs if self.mask is None else signs * self.bits(self.mask)

    @functools.cached_property
    def kernel_mask(self) -> Panels | None:
        """`mask`, or that of the bytes beyond the last of a segment, which are read with it."""
        segments, pixels = self.geometry.segments
        size = pixels * self.geometry.image[0]
        if self.mask is not None or self.input == "signs" or size % QUAD == 0:
            return self.mask
        return panels_of_bits(np.ones((self.geometry.width, segments, size), bool))

    @functools.cached_property
    def base(self) -> NDArray[np.int64]:
        """a = base − 2 · (bits that differ) of signs, for each pattern of a border and filter."""
        inside, _ = self.geometry.patterns
        weight = self.weight()
        taps = np.abs(weight).sum(-1, dtype=np.int64)
        # Outside there is nothing, which looks like −1: what differs from it is taken off.
        ones = (weight > 0).sum(-1, dtype=np.int64)
        return np.stack([(taps * one + 2 * ones * ~one).sum((1, 2)) for one in inside])

    @functools.cached_property
    def limits(self) -> NDArray[np.int32]:
        """What kernels compare with, (kinds of positions, filters of a panel).

        Of signs up to how many bits may differ for a ≥ level; of bytes the levels. Of filters
        beyond the last what nothing fulfils. Kinds are places, within patterns of a border.
        """
        width, signs = self.geometry.width, self.input == "signs"
        level = np.zeros((1, width), np.int64)
        if isinstance(self.tail, Thresholds):
            level = self.tail.level.astype(np.int64)
        if signs:
            level = ((self.base[:, None] - level) // 2).reshape(-1, width)
        most = np.iinfo(np.int32).max
        beyond = ((0, 0), (0, rounded_up(width) - width))
        whole = np.pad(level, beyond, constant_values=-1 if signs else most)
        return np.clip(whole, -1 if signs else -most, most).astype(np.int32)

    @functools.cached_property
    def kinds(self) -> NDArray[np.int64]:
        """Of each position its row in `limits`."""
        pattern = self.geometry.patterns[1] if self.input == "signs" else self.geometry.places * 0
        places = len(self.tail.level) if isinstance(self.tail, Thresholds) else 1
        return pattern * places + (self.geometry.places if places > 1 else 0)


@dataclass(frozen=True, eq=False)
class RealLayer:
    """Real weights of real inputs or of signs, and what follows them.

    A sum runs in float64, in the order of rows, columns and channels of a filter, one product
    after another, so that every machine and every back end has the same one.

    Attributes
    ----------
    geometry : Geometry
    input : {"real", "signs"}
    values : (width, height, width, channels) array
        Weights.
    shift : (height, width, channels) array
        What is taken off the inputs, in their dtype.
    tail : Thresholds or Scores
        Of pre-activations, which are rounded to the dtype of the weights first.
    name : str
    """

    geometry: Geometry
    input: str
    values: Array
    shift: Array
    tail: Thresholds | Scores
    name: str

    def weight(self, dtype: Any = None) -> Array:
        """The weights, (width, height, width, channels)."""
        return self.values if dtype is None else self.values.astype(dtype)


Layer = BitLayer | RealLayer


def sizes(layer: Layer) -> dict[str, int]:
    """Bytes of a layer's weights and of all that follows them, as they are held for inference."""
    if isinstance(layer, BitLayer):
        weights = layer.filters.nbytes * (1 if layer.mask is None else 2)
    else:
        weights = layer.values.nbytes + layer.shift.nbytes
    tail = layer.tail
    if isinstance(tail, Thresholds):
        return {"weights": weights, "tail": tail.level.nbytes + 2 * 4 * words_of(len(tail.flip))}
    return {"weights": weights, "tail": sum(value.nbytes for _, value in tail.steps)}
