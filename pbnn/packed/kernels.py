"""Kernels of numba: layers of bits and of bytes for a range of rows, real layers in order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pbnn.packed.vectors import ROWS, block

TOGETHER = 64
"""Rows that meet one chunk of filters after another, to find them near by."""
OPTIONS: dict[str, Any] = {
    "boundscheck": False,
    "error_model": "numpy",
    "nogil": True,
    "cache": True,
}


@njit(**OPTIONS)
def rows_of_filters(  # type: ignore[no-untyped-def]
    x,
    stride,
    starts,
    offsets,
    pixels,
    words,
    panel,
    mask,
    halves,
    levels,
    pattern,
    out,
    eighths,
    rows,
    lo,
    hi,
):
    """Bits, or numbers, of the rows lo to hi for all filters.

    Parameters
    ----------
    x : array of uint32, or of uint8
        Words of bits, or bytes.
    stride, starts, offsets
        In words of `x`, or bytes: from one image to the next, from its start to the row of each
        position, from there to each segment.
    pixels, words
        How many pixels of how many words a segment has; of bytes one of so many quads.
    panel, mask : array of uint8; a mask may be None
        Of filters in chunks of 64, then 32 or 16 of those left, each (segments, words, chunk).
    halves : int
        Half bytes of a filter for each word or quad.
    levels : (patterns, filters) array of int32
        Filters rounded up to 16.
    pattern : (positions,) array
    out : (rows, bytes) array of uint8, or (rows, filters) of int32
    eighths : int
        Eighths of a byte of each filter in the output.
    rows : int
        Of a block, `pbnn.packed.vectors.rows_of`.
    """
    positions, segments = len(starts), len(offsets)
    filters, across = levels.shape[1], out.strides[0]
    whole = segments * pixels * words
    first_level, level_row = levels.ctypes.data, levels.strides[0]
    first_out = out.ctypes.data
    place, level, to = np.empty((3, TOGETHER + ROWS), np.int64)
    image, position = lo // positions, lo % positions
    for near in range(lo, hi, TOGETHER):
        count = min(TOGETHER, hi - near)
        for row in range(count):  # without a division, which takes as long as a block
            place[row] = image * stride + starts[position]
            level[row] = pattern[position] * level_row
            to[row] = (near + row) * across
            position += 1
            if position == positions:
                image, position = image + 1, 0
        for row in range(count, count + ROWS):  # what is beyond the end is the last row once more
            place[row], level[row], to[row] = place[count - 1], level[count - 1], to[count - 1]
        chunk = 0
        while chunk < filters:
            left = filters - chunk
            at = chunk * whole * halves // 2
            row_out, row_level = first_out + chunk * eighths // 8, first_level + 4 * chunk
            for r in range(0, count, rows):
                places = (place[r], place[r + 1], place[r + 2], place[r + 3])
                limits = (
                    row_level + level[r],
                    row_level + level[r + 1],
                    row_level + level[r + 2],
                    row_level + level[r + 3],
                )
                outs = (
                    row_out + to[r],
                    row_out + to[r + 1],
                    row_out + to[r + 2],
                    row_out + to[r + 3],
                )
                sizes = (segments, pixels, words)
                if left >= 64:
                    block(4, x, offsets, sizes, panel, mask, out, places, at, limits, outs)
                elif left >= 32:
                    block(2, x, offsets, sizes, panel, mask, out, places, at, limits, outs)
                else:
                    block(1, x, offsets, sizes, panel, mask, out, places, at, limits, outs)
            chunk += 64 if left >= 64 else 32 if left >= 32 else 16


@njit(**OPTIONS)
def ordered_products(x, weight, out, lo, hi):  # type: ignore[no-untyped-def]
    """Sums of x (rows, k) times weight (k, filters) in float64, k by k, of the rows lo to hi."""
    inputs, filters = weight.shape
    for row in range(lo, hi):
        for filter in range(filters):
            out[row, filter] = 0.0
        for k in range(inputs):
            value = x[row, k]
            for filter in range(filters):
                out[row, filter] += value * weight[k, filter]


@njit(**OPTIONS)
def pool_words(x, tall, wide, down, across, every, out):  # type: ignore[no-untyped-def]
    """Whether any bit of each window is 1, or where `every` is 1 all are, into (n, rows, columns).

    Of words (n, height, width, words); windows are tall · wide, so far apart.
    """
    n, rows, columns, words = out.shape
    for image in range(n):
        for row in range(rows):
            for column in range(columns):
                for word in range(words):
                    some = x[image, row * down, column * across, word]
                    whole = some
                    for i in range(tall):
                        for j in range(wide):
                            bits = x[image, row * down + i, column * across + j, word]
                            some |= bits
                            whole &= bits
                    asked = every[word]
                    out[image, row, column, word] = (some & ~asked) | (whole & asked)
