"""Layers of bits by the kernels of numba, from words to words, on one thread or several."""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pbnn.packed.bits import Array, Words, pack_bits, words_of
from pbnn.packed.geometry import pooled, surrounded
from pbnn.packed.kernels import bytes_of_windows, rows_of_filters
from pbnn.packed.layers import PIXEL, BitLayer, Scores
from pbnn.packed.panels import QUAD, rounded_up

LEAST = 64
"""Rows of a thread below which another one costs more than it brings."""
AT_ONCE = 2**24
"""Bytes that a layer holds at once beside its output, about."""


class _Places(NamedTuple):
    """Where rows and their segments are, in words, or quads of bytes."""

    stride: int
    starts: Array
    offsets: Array
    words: int


def run_by_kernels(layer: BitLayer, x: Array, threads: int) -> Array:
    """The output of a layer, as `pbnn.packed.backends.run` gives it."""
    shape = layer.geometry
    each = math.prod(shape.positions) * (shape.fan_in + 4 * shape.width)
    size = max(1, AT_ONCE // each)
    parts = [_run(layer, x[at : at + size], threads) for at in range(0, max(len(x), 1), size)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _run(layer: BitLayer, x: Array, threads: int) -> Array:
    shape, tail = layer.geometry, layer.tail
    given, places = (_of_signs if layer.input == "signs" else _of_bytes)(layer, x)
    rows = len(x) * math.prod(shape.positions)
    if isinstance(tail, Scores):
        out = np.empty((rows, rounded_up(shape.width)), np.int32)
    else:
        out = np.zeros((rows, 4 * words_of(shape.width)), np.uint8)
    halves, eighths = 8 if layer.input == "signs" else 1, 1 if out.dtype == np.uint8 else 32
    _in_threads(
        functools.partial(
            rows_of_filters,
            given,
            *places,
            layer.filters,
            layer.mask,
            halves,
            layer.limits,
            layer.kinds,
            out,
            eighths,
        ),
        rows,
        threads,
    )
    if isinstance(tail, Scores):
        counts = out[:, : shape.width].reshape(len(x), *shape.positions, -1)
        return tail(counts if layer.input == "uint8" else _pre_activations(layer, counts))
    words = out.view(np.uint32).reshape(len(x), *shape.positions, -1)
    every = pack_bits(tail.every) if tail.every.any() else None
    words = pooled(shape, words, every)
    return words ^ pack_bits(tail.flip) if tail.flip.any() else words


def _pre_activations(layer: BitLayer, counts: Array) -> Array:
    """From how many bits differ."""
    _, which = layer.geometry.patterns
    base = layer.base[which].reshape(1, *layer.geometry.positions, -1)
    return base - 2 * counts


def _of_signs(layer: BitLayer, x: Words) -> tuple[Array, _Places]:
    """Words with their border, and where the words of each row are in them."""
    shape = layer.geometry
    if any(shape.border) and shape.filling > 0:
        filling = pack_bits(np.ones(shape.image[0], bool))
        top, bottom, left, right = shape.border
        n, height, width, words = x.shape
        whole = np.empty((n, height + top + bottom, width + left + right, words), np.uint32)
        whole[:] = filling
        whole[:, top : top + height, left : left + width] = x
        x = whole
    else:
        x = surrounded(shape, x, 0)
    x = np.ascontiguousarray(x)
    _, height, width, words = x.shape
    (rows, columns), (down, across) = shape.positions, shape.stride
    starts = (np.arange(rows)[:, None] * down * width + np.arange(columns) * across) * words
    (row, column), (tall, wide) = shape.dilation, shape.kernel
    if wide == width and row == column == 1:
        offsets, length = np.zeros(1, np.int64), tall * wide * words
    elif column == 1:
        offsets, length = np.arange(tall) * row * width * words, wide * words
    else:
        offsets = (np.arange(tall)[:, None] * row * width + np.arange(wide) * column) * words
        length = words
    stride = height * width * words
    return x.reshape(-1), _Places(stride, starts.reshape(-1), offsets.reshape(-1), length)


def _of_bytes(layer: BitLayer, x: Array) -> tuple[Array, _Places]:
    """What each filter sees of bytes, in whole quads."""
    shape = layer.geometry
    count, quads = math.prod(shape.positions), -(-shape.fan_in // QUAD)
    places = _Places(
        count * quads,
        np.arange(count) * quads,
        np.zeros(1, np.int64),
        quads,
    )
    x = np.ascontiguousarray(surrounded(shape, x, PIXEL * shape.filling))
    if count == 1 and shape.fan_in == QUAD * quads and x[0].size == shape.fan_in:
        return x.reshape(-1), places
    seen = np.zeros((len(x), count, QUAD * quads), np.uint8)
    bytes_of_windows(x, *shape.kernel, *shape.stride, *shape.dilation, shape.positions[1], seen)
    return seen.reshape(-1), places


def _in_threads(work: functools.partial[None], rows: int, threads: int) -> None:
    """Rows 0 to the last by one thread, or shared out among several."""
    threads = max(1, min(threads, rows // LEAST))
    if threads == 1:
        work(0, rows)
        return
    cuts = [rows * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, *cuts[part : part + 2]) for part in range(threads)]:
            done.result()
