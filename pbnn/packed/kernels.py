"""Kernels of numba: layers of bits and of bytes for a range of rows, real layers in order."""

from __future__ import annotations

from typing import Any

from numba import njit

from pbnn.packed.vectors import block

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
    for near in range(lo, hi, TOGETHER):
        end = min(near + TOGETHER, hi)
        chunk = 0
        while chunk < filters:
            left = filters - chunk
            at = chunk * whole * halves // 2
            row_out, row_level = first_out + chunk * eighths // 8, first_level + 4 * chunk
            for row in range(near, end, rows):
                # What is beyond the end is the last row once more.
                g0, g1 = row, min(row + 1, end - 1)
                g2, g3 = min(row + 2, end - 1), min(row + 3, end - 1)
                p0, p1, p2, p3 = g0 % positions, g1 % positions, g2 % positions, g3 % positions
                places = (
                    g0 // positions * stride + starts[p0],
                    g1 // positions * stride + starts[p1],
                    g2 // positions * stride + starts[p2],
                    g3 // positions * stride + starts[p3],
                )
                limits = (
                    row_level + pattern[p0] * level_row,
                    row_level + pattern[p1] * level_row,
                    row_level + pattern[p2] * level_row,
                    row_level + pattern[p3] * level_row,
                )
                outs = (
                    row_out + g0 * across,
                    row_out + g1 * across,
                    row_out + g2 * across,
                    row_out + g3 * across,
                )
                if left >= 64:
                    block(
                        4,
                        x,
                        offsets,
                        segments,
                        pixels,
                        words,
                        panel,
                        mask,
                        out,
                        places,
                        at,
                        limits,
                        outs,
                    )
                elif left >= 32:
                    block(
                        2,
                        x,
                        offsets,
                        segments,
                        pixels,
                        words,
                        panel,
                        mask,
                        out,
                        places,
                        at,
                        limits,
                        outs,
                    )
                else:
                    block(
                        1,
                        x,
                        offsets,
                        segments,
                        pixels,
                        words,
                        panel,
                        mask,
                        out,
                        places,
                        at,
                        limits,
                        outs,
                    )
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
