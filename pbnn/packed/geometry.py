"""How a layer moves over images: a dense layer is a convolution whose filter is the whole image."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pbnn.packed.bits import Array

Pair = tuple[int, int]

LARGEST = 2**24
"""Numbers that one image may be at any place of a network; sizes beyond are taken for damage."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of one layer, as torch counts them.

    Attributes
    ----------
    image : (channels, height, width)
        Of an input; a vector of d features is (d, 1, 1).
    width : int
        Filters.
    kernel, stride, dilation : pair of int
        Down and across.
    border : (top, bottom, left, right)
        Rows and columns around the image.
    filling : {−1, 0, +1}
        What stands there.
    pool, pool_stride : pair of int
        Windows of which the maximum is taken; (1, 1) without.

    Raises
    ------
    ValueError
        Naming what is out of its domain.
    """

    image: tuple[int, int, int]
    width: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    filling: int = 0
    pool: Pair = (1, 1)
    pool_stride: Pair = (1, 1)

    def __post_init__(self) -> None:
        for name, least, length in (
            ("image", 1, 3),
            ("kernel", 1, 2),
            ("stride", 1, 2),
            ("dilation", 1, 2),
            ("border", 0, 4),
            ("pool", 1, 2),
            ("pool_stride", 1, 2),
        ):
            value = getattr(self, name)
            sound = isinstance(value, tuple) and len(value) == length
            if not sound or any(type(v) is not int or not least <= v <= LARGEST for v in value):
                raise ValueError(
                    f"`{name}` must be {length} integers from {least} to {LARGEST}, got {value!r}."
                )
        if type(self.width) is not int or self.width < 1:
            raise ValueError(f"`width` must be a positive integer, got {self.width!r}.")
        if type(self.filling) is not int or self.filling not in (-1, 0, 1):
            raise ValueError(f"`filling` must be −1, 0 or +1, got {self.filling!r}.")
        top, bottom, left, right = self.border
        if max(top, bottom) >= self.reach[0] or max(left, right) >= self.reach[1]:
            raise ValueError(f"`border` must be narrower than filters, got {self.border}.")
        channels, height, across = self.image
        numbers = (channels * (height + top + bottom) * (across + left + right), self.fan_in)
        if max(numbers) > LARGEST:
            raise ValueError(f"`image` must have at most {LARGEST} numbers, got {self.image}.")
        if min(self.positions) < 1 or min(self.out[1:]) < 1:
            raise ValueError(
                f"`image` must be as large as filters {self.kernel} and windows {self.pool}, "
                f"got {self.image}."
            )
        if self.width * math.prod(self.positions) > LARGEST:
            raise ValueError(f"`width` must give at most {LARGEST} numbers, got {self.width}.")

    @functools.cached_property
    def fan_in(self) -> int:
        """Inputs of a unit."""
        return self.image[0] * math.prod(self.kernel)

    @functools.cached_property
    def reach(self) -> Pair:
        """Rows and columns from a filter's first to its last."""
        (down, across), (k, m) = self.dilation, self.kernel
        return down * (k - 1) + 1, across * (m - 1) + 1

    @functools.cached_property
    def positions(self) -> Pair:
        """Rows and columns of where filters are put."""
        top, bottom, left, right = self.border
        _, height, across = self.image
        rows = height + top + bottom - self.reach[0]
        columns = across + left + right - self.reach[1]
        return rows // self.stride[0] + 1, columns // self.stride[1] + 1

    @functools.cached_property
    def out(self) -> tuple[int, int, int]:
        """Channels, height and width of the output."""
        sizes = zip(self.positions, self.pool, self.pool_stride, strict=True)
        height, across = ((size - window) // step + 1 for size, window, step in sizes)
        return self.width, height, across

    @functools.cached_property
    def pools(self) -> bool:
        """Whether there are windows of more than one position."""
        return self.pool != (1, 1) or self.pool_stride != (1, 1)

    @property
    def apart(self) -> bool:
        """Whether windows of the maximum have no position in common."""
        return all(a >= b for a, b in zip(self.pool_stride, self.pool, strict=True))

    @functools.cached_property
    def segments(self) -> Pair:
        """What a filter sees in parts that lie one after another: how many, and pixels of each."""
        (tall, wide), (row, column) = self.kernel, self.dilation
        across = self.image[2] + self.border[2] + self.border[3]
        if wide == across and row == column == 1:
            return 1, tall * wide
        return (tall, wide) if column == 1 else (tall * wide, 1)

    @functools.cached_property
    def patterns(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which taps of a filter meet the image, as it happens, and which case each position is.

        Shapes (patterns, *kernel) and (positions,): one pattern within, others at a border of 0.
        """
        count = math.prod(self.positions)
        if not any(self.border) or self.filling:
            return np.ones((1, *self.kernel), bool), np.zeros(count, np.int64)
        inside = np.ones((1, *self.image[1:], 1), bool)
        taps = windows(self, inside, False).reshape(count, -1)
        found, which = np.unique(taps, axis=0, return_inverse=True)
        return found.reshape(-1, *self.kernel), which.reshape(-1)

    @functools.cached_property
    def places(self) -> NDArray[np.int64]:
        """Of each position the place among the outputs whose window it is in, (positions,).

        Where windows do not overlap; positions in none have any.
        """
        (rows, columns), (down, across) = self.positions, self.pool_stride
        _, tall, wide = self.out
        row = np.minimum(np.arange(rows) // down, tall - 1)
        column = np.minimum(np.arange(columns) // across, wide - 1)
        return (row[:, None] * wide + column).reshape(-1)


def surrounded(geometry: Geometry, x: Array, filling: object) -> Array:
    """Images (n, height, width, channels) with their border."""
    top, bottom, left, right = geometry.border
    if not any(geometry.border):
        return x
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    return np.pad(x, around, constant_values=filling)  # type: ignore[call-overload]


def windows(geometry: Geometry, x: Array, filling: object) -> Array:
    """What each filter sees of images (n, height, width, channels): (n, rows, columns, taps)."""
    (down, across), (row, column) = geometry.stride, geometry.dilation
    views = sliding_window_view(surrounded(geometry, x, filling), geometry.reach, axis=(1, 2))
    views = views[:, ::down, ::across, :, ::row, ::column]
    n, rows, columns = views.shape[:3]
    taps = geometry.kernel[0] * geometry.kernel[1] * x.shape[-1]
    return views.transpose(0, 1, 2, 4, 5, 3).reshape(n, rows, columns, taps)


def pooled(geometry: Geometry, x: NDArray[np.bool_], every: NDArray[np.bool_]) -> Array:
    """Whether any bit of each window is 1, or all are where `every` says so, channel by channel.

    Bits are (n, rows, columns, channels), before and after.
    """
    if not geometry.pools:
        return x
    (height, across), (down, right) = geometry.pool, geometry.pool_stride
    _, rows, columns = geometry.out
    some = whole = None
    for y in range(height):
        for z in range(across):
            part = x[:, y : y + down * rows : down, z : z + right * columns : right]
            part = part[:, :rows, :columns]
            some = part if some is None else some | part
            whole = part if whole is None else whole & part
    assert some is not None
    assert whole is not None
    return np.where(every, whole, some)
