"""Layers of bits by the kernels of numba, from words to words, on one thread or several."""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pbnn.packed.bits import Array, Words, pack_bits, thirds, words_of
from pbnn.packed.geometry import Geometry, surrounded
from pbnn.packed.kernels import pool_words, rows_of_filters
from pbnn.packed.layers import PIXEL, BitLayer, Scores, Thresholds
from pbnn.packed.panels import QUAD, rounded_up
from pbnn.packed.vectors import rows_of

LEAST = 2**23
"""Words of rows times filters that are worth a thread, some tenth of a millisecond."""
AT_ONCE = 2**24
"""Bytes that a layer holds at once beside its output, about."""


class _Places(NamedTuple):
    """Where rows and their segments are, in words or bytes, and what a segment has."""

    stride: int
    starts: Array
    offsets: Array
    pixels: int
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
            layer.kernel_mask,
            halves,
            layer.limits,
            layer.kinds,
            out,
            eighths,
            rows_of(layer.input == "signs", layer.kernel_mask is not None),
        ),
        rows,
        min(
            threads,
            1 + rows * shape.width * places.pixels * places.words * len(places.offsets) // LEAST,
        ),
    )
    if isinstance(tail, Scores):
        counts = out[:, : shape.width].reshape(len(x), *shape.positions, shape.width)
        return tail(counts if layer.input == "uint8" else _pre_activations(layer, counts))
    words = out.view(np.uint32).reshape(len(x), *shape.positions, words_of(shape.width))
    if shape.pools:
        words = _pooled(layer, words)
    return words if tail.flip_words is None else words ^ tail.flip_words


def _pooled(layer: BitLayer, x: Words) -> Words:
    """Words of windows."""
    shape, tail = layer.geometry, layer.tail
    assert isinstance(tail, Thresholds)
    _, rows, columns = shape.out
    out = np.empty((len(x), rows, columns, x.shape[-1]), np.uint32)
    every = np.zeros(x.shape[-1], np.uint32) if tail.every_words is None else tail.every_words
    pool_words(x, *shape.pool, *shape.pool_stride, every, out)
    return out


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
        top, _, left, _ = shape.border
        _, height, width, _ = x.shape
        whole = np.zeros((1, *x.shape[1:3], 1), bool)
        whole = np.where(surrounded(shape, whole, True), filling, np.uint32(0))
        whole = np.repeat(whole, len(x), axis=0)
        whole[:, top : top + height, left : left + width] = x
        x = whole
    else:
        x = surrounded(shape, x, 0)
    words = x.shape[-1]
    x = np.ascontiguousarray(x if layer.mask is not None else thirds(x))
    return x.reshape(-1), _places(shape, words, shape.segments[1], words)


def _of_bytes(layer: BitLayer, x: Array) -> tuple[Array, _Places]:
    """Bytes with their border, and where the quads of each row are in them."""
    shape = layer.geometry
    channels = shape.image[0]
    size = shape.segments[1] * channels
    flat = np.ascontiguousarray(surrounded(shape, x, PIXEL * shape.filling)).reshape(-1)
    if size % QUAD:  # the last quad of the last row reads beyond it
        flat = np.append(flat, np.zeros(QUAD, np.uint8))
    return flat, _places(shape, channels, 1, -(-size // QUAD))


@functools.lru_cache(maxsize=1024)
def _places(shape: Geometry, pixel: int, pixels: int, words: int) -> _Places:
    """Where rows and segments are, of so many words or bytes a pixel."""
    top, bottom, left, right = shape.border
    height, width = shape.image[1] + top + bottom, shape.image[2] + left + right
    (rows, columns), (down, across) = shape.positions, shape.stride
    starts = (np.arange(rows)[:, None] * down * width + np.arange(columns) * across) * pixel
    (row, column), (tall, wide) = shape.dilation, shape.kernel
    corners = (np.arange(tall)[:, None] * row * width + np.arange(wide) * column) * pixel
    count, _ = shape.segments
    offsets = corners.reshape(-1)[:: tall * wide // count]
    return _Places(height * width * pixel, starts.reshape(-1), offsets.copy(), pixels, words)


def _in_threads(work: functools.partial[None], rows: int, threads: int) -> None:
    """Rows 0 to the last by one thread, or shared out among several."""
    threads = max(1, min(threads, rows))
    if threads == 1:
        work(0, rows)
        return
    cuts = [rows * part // threads for part in range(threads + 1)]
    parts = [_pool(threads - 1).submit(work, *cuts[part : part + 2]) for part in range(1, threads)]
    work(0, cuts[1])
    for done in parts:
        done.result()


@functools.lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work: to start them takes longer than most of it."""
    return ThreadPoolExecutor(threads, thread_name_prefix="pbnn")
