"""Layers of random sizes: three back ends, torch's own convolution, and what panels hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pbnn.packed.backends import available, chosen, run
from pbnn.packed.bits import pack_bits, unpack_bits
from pbnn.packed.geometry import Geometry, pooled
from pbnn.packed.layers import BitLayer, RealLayer, Scores, Thresholds
from pbnn.packed.panels import (
    bits_of_panels,
    panels_of_bits,
    panels_of_words,
    words_of_panels,
)

pytest.importorskip("numba")
from pbnn.packed.kernels import pool_words

BACKENDS = ("numba", "int8", "float32")
SEEDS = st.integers(0, 2**32 - 1)
EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True)


def some(draw: np.random.Generator, least: int, most: int) -> int:
    return int(draw.integers(least, most + 1))


def geometry_of(draw: np.random.Generator, reads: str) -> Geometry:
    """Odd widths, borders of their own on each side, strides, gaps, windows that overlap."""
    image = (some(draw, 1, 70), some(draw, 1, 8), some(draw, 1, 8))
    kernel = tuple(some(draw, 1, min(side, 4)) for side in image[1:])
    gaps = [some(draw, 1, 2) for _ in kernel]
    dilation = tuple(
        gap if gap * (k - 1) < side else 1
        for gap, k, side in zip(gaps, kernel, image[1:], strict=True)
    )
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    border = tuple(some(draw, 0, reach[place // 2] - 1) for place in range(4))
    filling = some(draw, -1, 1) if reads == "signs" else some(draw, 0, 1)
    moves = {"stride": (some(draw, 1, 2), some(draw, 1, 2)), "dilation": dilation}
    made = Geometry(image, some(draw, 1, 150), kernel, border=border, filling=filling, **moves)
    if draw.random() < 0.5:
        pool = tuple(some(draw, 1, min(2, side)) for side in made.positions)
        steps = (some(draw, 1, 2), some(draw, 1, 2))
        moves |= {"pool": pool, "pool_stride": steps}
    return Geometry(image, made.width, kernel, border=border, filling=filling, **moves)


def layer_of(draw: np.random.Generator, geometry: Geometry, reads: str) -> BitLayer:
    """Signs or ternary weights; scores, or thresholds of which some are never or always met."""
    values = [-1, 1] if draw.random() < 0.6 else [-1, 0, 1]
    width = geometry.width
    weight = draw.choice(np.int8(values), (width, geometry.image[0], *geometry.kernel))
    if draw.random() < 0.3:
        steps = (
            ("mul", draw.standard_normal(width).astype(np.float32)),
            ("fma", draw.standard_normal((2, width)).astype(np.float32)),
        )
        return BitLayer.of(geometry, weight, Scores(steps, np.dtype("float32")), input=reads)
    spread = int(geometry.fan_in**0.5) * (1 if reads == "signs" else 128)
    apart = all(a >= b for a, b in zip(geometry.pool_stride, geometry.pool, strict=True))
    places = geometry.out[1] * geometry.out[2] if apart and draw.random() < 0.3 else 1
    level = draw.integers(-spread - 1, spread + 2, (places, width)).astype(np.int32)
    level[:, draw.random(width) < 0.1] = np.iinfo(np.int32).min
    level[:, draw.random(width) < 0.1] = np.iinfo(np.int32).max
    flip, every = draw.random(width) < 0.3, draw.random(width) < 0.3
    tail = Thresholds(level, flip, every & geometry.pools)
    return BitLayer.of(geometry, weight, tail, input=reads)


def by_torch(layer: BitLayer, values: np.ndarray) -> np.ndarray:
    """Integer pre-activations by torch's convolution in float64."""
    shape = layer.geometry
    top, bottom, left, right = shape.border
    images = torch.from_numpy(values).double().permute(0, 3, 1, 2)
    filling = shape.filling * (1 if layer.input == "signs" else 255)
    images = F.pad(images, (left, right, top, bottom), value=float(filling))
    weight = torch.from_numpy(layer.weight(np.float64)).permute(0, 3, 1, 2)
    out = F.conv2d(images, weight, stride=shape.stride, dilation=shape.dilation)
    return out.permute(0, 2, 3, 1).numpy().astype(np.int64)


@EXAMPLES
@given(SEEDS, st.sampled_from(["signs", "uint8"]))
def test_back_ends_agree_with_each_other_and_with_torch(seed, reads):
    draw = np.random.default_rng(seed)
    layer = layer_of(draw, geometry_of(draw, reads), reads)
    channels, height, across = layer.geometry.image
    n = some(draw, 1, 6)
    bits = draw.random((n, height, across, channels)) < 0.5
    octets = draw.integers(0, 256, bits.shape).astype(np.uint8)
    x, values = (pack_bits(bits), 2.0 * bits - 1) if reads == "signs" else (octets, octets)
    a = by_torch(layer, values)
    if isinstance(layer.tail, Scores):
        expected = layer.tail(a)
    else:
        level = layer.tail.level
        if len(level) > 1:  # of each place of the output, by windows
            _, rows, columns = layer.geometry.out
            whole = level.reshape(rows, columns, -1)
            down, right = layer.geometry.pool_stride
            whole = whole.repeat(down, 0).repeat(right, 1)
            short = [(0, max(0, s - w)) for s, w in zip(a.shape[1:3], whole.shape, strict=False)]
            level = np.pad(whole, [*short, (0, 0)], "edge")[: a.shape[1], : a.shape[2]]
        signs = torch.from_numpy((a >= level).astype(np.float32)).permute(0, 3, 1, 2)
        window = {"kernel_size": layer.geometry.pool, "stride": layer.geometry.pool_stride}
        any_of, all_of = F.max_pool2d(signs, **window), -F.max_pool2d(-signs, **window)
        found = torch.where(torch.from_numpy(layer.tail.every)[:, None, None], all_of, any_of)
        expected = pack_bits(found.permute(0, 2, 3, 1).numpy().astype(bool) ^ layer.tail.flip)
    for backend in BACKENDS:
        out = run(layer, x, backend, some(draw, 1, 2))
        assert out.dtype == expected.dtype
        assert np.array_equal(out, expected), backend


@EXAMPLES
@given(SEEDS)
def test_panels_give_back_what_they_hold(seed):
    draw = np.random.default_rng(seed)
    width = some(draw, 1, 150)
    words = draw.integers(0, 2**32, (width, some(draw, 1, 9)), dtype=np.uint32)
    assert np.array_equal(words_of_panels(panels_of_words(words), width), words)
    bits = draw.random((width, some(draw, 1, 3), some(draw, 1, 30))) < 0.5
    assert np.array_equal(bits_of_panels(panels_of_bits(bits), *bits.shape), bits)


@EXAMPLES
@given(SEEDS)
def test_words_give_back_their_bits_and_hold_nothing_else(seed):
    draw = np.random.default_rng(seed)
    bits = draw.random((2, some(draw, 1, 100))) < 0.5
    words = pack_bits(bits)
    assert np.array_equal(unpack_bits(words, bits.shape[1]), bits)
    assert np.bitwise_count(words).sum() == bits.sum()


@pytest.mark.parametrize("rows", [64, 129, 1000])
def test_threads_share_out_every_row_once(rows):
    draw = np.random.default_rng(0)
    geometry = Geometry((100, 1, 1), 70)
    tail = Thresholds(np.zeros((1, 70), np.int32), *np.zeros((2, 70), bool))
    layer = BitLayer.of(geometry, draw.choice(np.int8([-1, 1]), (70, 100, 1, 1)), tail)
    x = pack_bits(draw.random((rows, 1, 1, 100)) < 0.5)
    alone = run(layer, x, "numba", 1)
    for threads in (2, 3, 8):
        assert np.array_equal(run(layer, x, "numba", threads), alone)


def test_no_input_gives_no_output():
    geometry = Geometry((5, 1, 1), 3)
    layer = BitLayer.of(geometry, np.ones((3, 5, 1, 1), np.int8), Scores((), np.dtype("float32")))
    for backend in BACKENDS:
        assert run(layer, pack_bits(np.zeros((0, 1, 1, 5), bool)), backend).shape == (0, 1, 1, 3)


def test_sums_that_float32_would_round_are_exact():
    """255 · 66,000 > 2²⁴: a sum of float32 numbers would lose its last bit."""
    inputs = 66_001
    weight = np.ones((16, inputs, 1, 1), np.int8)
    weight[:8, ::2] = -1
    layer = BitLayer.of(
        Geometry((inputs, 1, 1), 16), weight, Scores((), np.dtype("float64")), input="uint8"
    )
    x = np.random.default_rng(0).integers(0, 256, (3, 1, 1, inputs)).astype(np.uint8)
    expected = x[:, 0, 0].astype(np.int64) @ weight[:, :, 0, 0].T.astype(np.int64)
    assert expected.max() > 2**23
    for backend in BACKENDS:
        assert np.array_equal(run(layer, x, backend)[:, 0, 0], expected), backend


@EXAMPLES
@given(SEEDS)
def test_real_sums_run_in_order_with_and_without_numba(seed):
    """One definition of the sum: products of floats, added in float64 one after another."""
    draw = np.random.default_rng(seed)
    geometry = Geometry((some(draw, 1, 5), 4, 3), some(draw, 1, 4), (2, 2), border=(1, 0, 0, 1))
    values = draw.standard_normal((geometry.width, 2, 2, geometry.image[0])).astype(np.float32)
    shift = draw.standard_normal((4, 3, geometry.image[0])).astype(np.float32)
    layer = RealLayer(geometry, "real", values, shift, Scores((), np.dtype("float32")), "")
    x = draw.standard_normal((2, 4, 3, geometry.image[0])).astype(np.float32)
    padded = np.pad((x - shift).astype(np.float64), ((0, 0), (1, 0), (0, 1), (0, 0)))
    out = run(layer, x, "float32")
    for n, i, j, f in np.ndindex(out.shape):
        total = 0.0
        for k, m, c in np.ndindex(2, 2, geometry.image[0]):
            total += padded[n, i + k, j + m, c] * float(values[f, k, m, c])
        assert out[n, i, j, f] == np.float32(total)


def test_a_back_end_is_chosen_by_what_is_there(monkeypatch):
    assert available() == BACKENDS
    assert chosen("auto") == "numba"
    monkeypatch.setattr("pbnn.packed.backends.find_spec", lambda name: None)
    assert chosen("auto") in ("int8", "float32")
    with pytest.raises(ValueError, match=r"pbnn\[fast\]"):
        chosen("numba")
    with pytest.raises(ValueError, match="must be one of"):
        chosen("cuda")


def test_where_int8_cannot_be_multiplied_float32_does(monkeypatch):
    from pbnn.packed import backends

    def fails(*_):
        raise RuntimeError("not here")

    backends._multiplies_int8.cache_clear()
    monkeypatch.setattr(torch, "_int_mm", fails)
    try:
        assert available() == ("numba", "float32")
        with pytest.raises(ValueError, match="int8"):
            chosen("int8")
    finally:
        backends._multiplies_int8.cache_clear()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"image": (0, 1, 1)}, "image"),
        ({"image": (1, 2.0, 1)}, "image"),
        ({"width": True}, "width"),
        ({"kernel": (2, 1)}, "filters"),
        ({"stride": (0, 1)}, "stride"),
        ({"border": (0, 0, 1, 0)}, "border"),
        ({"filling": 2}, "filling"),
        ({"pool": (2, 1)}, "windows"),
        ({"image": (1, 2**13, 2**12)}, "numbers"),
    ],
)
def test_sizes_that_are_none_are_refused(bad, told):
    with pytest.raises(ValueError, match=told):
        Geometry(**({"image": (3, 1, 1), "width": 2} | bad))


def test_windows_of_any_and_of_all():
    geometry = Geometry((1, 2, 4), 2, pool=(2, 2), pool_stride=(2, 2))
    bits = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], bool).reshape(1, 2, 4, 1).repeat(2, 3)
    found = pooled(geometry, bits, np.array([False, True]))
    assert found[0, 0].tolist() == [[True, False], [False, False]]
    words = np.empty((1, 1, 2, 1), np.uint32)
    pool_words(pack_bits(bits), 2, 2, 2, 2, pack_bits(np.array([False, True])), words)
    assert np.array_equal(words, pack_bits(found))
