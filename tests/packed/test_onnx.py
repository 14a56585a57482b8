"""ONNX models of packed networks, run by onnxruntime, against the packed networks themselves."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from pbnn.backbones import conv_chain, lenet, mlp, vgg_small
from pbnn.binarize import Recipe, convert
from pbnn.export import to_onnx
from pbnn.networks import BLRNet, PBGNet, binarise
from pbnn.packed import pack
from pbnn.packed.geometry import Geometry
from pbnn.packed.layers import BitLayer, RealLayer, Scores, Thresholds
from pbnn.packed.network import PackedNetwork, Preprocessing
from pbnn.seeding import generator, spawn_seed

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

IMAGE = (1, 12, 12)
NEVER, ALWAYS = np.iinfo(np.int32).max, np.iinfo(np.int32).min


def numbers(of):
    return np.random.default_rng(spawn_seed(0, of))


@pytest.fixture
def outputs(tmp_path):
    """Scores and labels of the ONNX model of a packed network."""

    def run(packed, x, **options):
        path = tmp_path / "folder" / "network.onnx"
        to_onnx(packed, path, **options)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        assert [each.name for each in session.get_outputs()] == ["scores", "label"]
        return session.run(None, {"x": x.reshape(len(x), *packed.preprocessing.image)})

    return run


@pytest.fixture
def agree(outputs):
    """Assert that the model gives what the packed network gives, bit for bit.

    Also of "fma": for a difference 29 bits of a float64 would have to be those of a tie.
    """

    def check(packed, x):
        scores, label = outputs(packed, x)
        expected = packed.scores(x, backend="float32")
        if expected.ndim == 4:
            expected = expected.transpose(0, 3, 1, 2)
        assert scores.dtype == expected.dtype
        assert scores.shape == expected.shape
        assert np.array_equal(scores, expected)
        assert label.dtype == np.int64
        assert np.array_equal(label, packed.predict(x, backend="float32"))
        # Otherwise there would be little to tell apart.
        assert len(np.unique(scores.reshape(len(x), -1), axis=0)) >= 8

    return check


def perturbed(network, of):
    """The network with statistics, factors of either sign, and summands that are none of ours."""
    draw = generator(0, of)
    for module in network.modules():
        if hasattr(module, "running_mean"):
            module.running_mean.normal_(0, 3, generator=draw)
            module.running_var.uniform_(0.5, 200, generator=draw)
            for name in ("gamma", "weight", "beta", "bias"):
                if hasattr(module, name):
                    getattr(module, name).data.normal_(generator=draw)
    return network.eval()


@torch.no_grad()
def re_estimated(network, x):
    """The network with statistics of these inputs: without them signs hardly depend on any."""
    for module in network.modules():
        if hasattr(module, "running_mean"):
            module.momentum = 1.0
    network.train()(torch.from_numpy(x).float() / 255)
    return network.eval()


def pixels(n=40, image=IMAGE):
    return numbers("pixels").integers(0, 256, (n, *image), dtype=np.uint8)


def thresholds_of(packed):
    return [each.tail for each in packed.members[0] if isinstance(each.tail, Thresholds)]


# Networks of this project


@pytest.mark.parametrize("weights", ["mode", "ternary"])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("padding_value", [-1, 0, 1])
def test_a_blrnet(agree, padding_value, batch_norm, weights):
    network = BLRNet(
        IMAGE,
        "6C3-MP2-33C5-MP2-40FC-SM7",
        padding_value=padding_value,
        batch_norm=batch_norm,
        generator=generator(padding_value + 5, "net"),
    )
    network = binarise(perturbed(network, "norms"), weights)
    x = pixels()
    if padding_value < 0:  # no byte
        packed, x = pack(network, input="real"), x.astype(np.float32) / 255
    else:
        packed = pack(network, scale=1 / 255 if padding_value else 1 / 256)
    masked = [layer.mask is not None for layer in packed.members[0] if layer.input == "signs"]
    assert any(masked) == (weights == "ternary")
    if batch_norm:
        assert any(tail.flip.any() for tail in thresholds_of(packed))
        assert any(tail.every.any() for tail in thresholds_of(packed))
    agree(packed, x)


@pytest.mark.parametrize(
    "make",
    [
        lambda draw: mlp(IMAGE, (40, 50), generator=draw),
        lambda draw: lenet(IMAGE, (8, 16), 32, kernel=3, generator=draw),
        lambda draw: vgg_small(IMAGE, 8, generator=draw),
        lambda draw: conv_chain(IMAGE, (8, 9, 10), stride=2, generator=draw),
    ],
    ids=["mlp", "lenet", "vgg_small", "conv_chain"],
)
def test_a_converted_network(agree, make):
    model = perturbed(make(generator(0, "net")), "norms")
    recipe = Recipe(weights="bi_real", first=True, last=True)
    network = re_estimated(convert(model, recipe).network, pixels())
    packed = pack(network, image=IMAGE)
    assert any(tail.flip.any() for tail in thresholds_of(packed))
    agree(packed, pixels())


@pytest.mark.parametrize("bias", [True, False])
def test_a_network_of_one_score_and_real_weights(agree, bias):
    network = PBGNet(144, (5, 4), bias=bias, shift=0.3, generator=generator(0, "net"))
    agree(pack(network), numbers("x").normal(size=(60, 144)).astype(np.float32))


# Layers of any geometry, of which the sums are exact


GEOMETRIES = [
    Geometry((3, 9, 8), 6),
    Geometry((3, 9, 8), 6, (3, 2), (2, 1), (1, 2), (1, 0, 2, 1), 1),
    Geometry((3, 9, 8), 6, (2, 3), (1, 2), (2, 1), (2, 1, 0, 2), -1),
    Geometry((3, 9, 8), 6, (3, 3), border=(1, 1, 1, 1), pool=(2, 3), pool_stride=(2, 3)),
    Geometry((3, 9, 8), 6, (2, 2), pool=(3, 2), pool_stride=(1, 2)),
    Geometry((3, 9, 8), 6, (1, 2), border=(0, 0, 1, 0), filling=1, pool_stride=(2, 3)),
]


def thresholds(draw, geometry, level):
    """With these levels, of which one is always and one never reached."""
    level = level.copy()
    low, high = (ALWAYS, NEVER) if level.dtype == np.int32 else (-np.inf, np.inf)
    level[0, 0], level[-1, 1] = low, high
    flip, every = (draw.integers(0, 2, geometry.width).astype(bool) for _ in range(2))
    flip[2:6] = [False, True, False, True]
    every[2:6] = [False, False, True, True]
    return Thresholds(level, flip, every)


def levels(draw, geometry, spread):
    """About 0, of all places or of each, by whether windows are apart."""
    apart = all(a >= b for a, b in zip(geometry.pool_stride, geometry.pool, strict=True))
    places = np.prod(geometry.out[1:]) if apart else 1
    return draw.integers(-spread, spread + 1, (places, geometry.width))


def ending(draw, image, dtype, width=5):
    """A dense layer of signs, a third of its weights 0, and steps of every kind."""
    geometry = Geometry(image, width, image[1:])
    weight = draw.integers(-1, 2, (width, *image)).astype(np.int8)
    values = draw.normal(size=(5, width)).astype(dtype)
    steps = (("mul", values[0]), ("sub", values[1]), ("fma", values[2:4]), ("add", values[4]))
    return BitLayer.of(geometry, weight, Scores(steps, np.dtype(dtype)), name="end")


@pytest.mark.parametrize(
    ("kind", "geometry"),
    [
        (kind, geometry)
        for kind in ("uint8", "signs")
        for geometry in GEOMETRIES
        if kind == "signs" or geometry.filling >= 0  # no byte is negative
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_of_bits(agree, kind, dtype, geometry):
    draw = numbers("layers")
    weight = draw.integers(-1, 2, (6, 3, *geometry.kernel)).astype(np.int8)
    spread = 200 if kind == "uint8" else 2
    tail = thresholds(draw, geometry, levels(draw, geometry, spread).astype(np.int32))
    first = BitLayer.of(geometry, weight, tail, input=kind, name="first")
    packed = PackedNetwork(
        Preprocessing(geometry.image, kind), ((first, ending(draw, geometry.out, dtype)),)
    )
    x = pixels(image=geometry.image)
    if kind == "signs":  # some are 0, whose sign is +1
        x = x.astype(np.float32).round(-2) - 100
    agree(packed, x)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_of_real_weights(agree, dtype, geometry):
    draw = numbers("layers")
    # Of 20 bits, so that sums are too long for float32, but not for float64.
    fraction, whole = np.array(2**-19, dtype), 2**20
    values = draw.integers(-whole, whole, (6, *geometry.kernel, 3)).astype(dtype) * fraction
    height, width = geometry.image[1:]
    shift = draw.integers(0, 9, (height, width, 3)).astype(dtype)
    tail = thresholds(draw, geometry, levels(draw, geometry, 3).astype(dtype))
    first = RealLayer(geometry, "real", values, shift, tail, "first")
    image = geometry.out
    dense = Geometry(image, 5, image[1:])
    values = draw.integers(-whole, whole, (5, *image[1:], image[0])).astype(dtype) * fraction
    bias = draw.normal(size=5).astype(dtype)
    shift = np.ones((*image[1:], image[0]), dtype)  # signs have none
    last = RealLayer(dense, "signs", values, shift, Scores((("add", bias),), np.dtype(dtype)), "")
    packed = PackedNetwork(Preprocessing(geometry.image, dtype), ((first, last),))
    agree(packed, draw.integers(0, 9, (40, *geometry.image)).astype(dtype))


@pytest.mark.parametrize("width", [1, 3])
def test_scores_of_many_places_are_not_what_a_runtime_makes_of_fused_weights(agree, width):
    # onnxruntime multiplies the weights of a convolution by a factor, and adds a summand to its
    # sums before they are complete: both round otherwise.
    draw = numbers("places")
    geometry = Geometry((33, 6, 5), width, (3, 3), border=(1, 1, 1, 1))
    weight = np.where(draw.integers(0, 2, (width, 33, 3, 3)), 1, -1)
    factor, summand = draw.normal(size=(2, width)).astype(np.float32)
    tail = Scores((("mul", factor), ("add", summand)), np.dtype("float32"))
    layer = BitLayer.of(geometry, weight, tail, name="last")
    packed = PackedNetwork(Preprocessing(geometry.image, "signs"), ((layer,),))
    agree(packed, draw.normal(size=(9, *geometry.image)).astype(np.float32))


def test_the_first_of_equal_scores_and_a_score_of_0(outputs):
    geometry = Geometry((2, 1, 1), 3)
    weight = np.array([[1, -1], [1, 1], [1, 1]]).reshape(3, 2, 1, 1)
    tail = Scores((), np.dtype("float32"))
    x = np.float32([[1, 1], [1, -1], [-1, 1]])
    for rows, expected in ((slice(0, 3), [1, 0, 1]), (slice(0, 1), [1, 1, -1])):
        part = weight[rows]
        layer = BitLayer.of(Geometry((2, 1, 1), len(part)), part, tail, name="only")
        packed = PackedNetwork(Preprocessing(geometry.image, "signs"), ((layer,),))
        scores, label = outputs(packed, x)
        assert np.array_equal(scores, packed.scores(x, backend="float32"))
        assert label.tolist() == expected


def test_the_greatest_sums_that_float32_counts(outputs):
    most = 65793  # times 255 is 2^24 − 1
    weight = np.ones((2, most, 1, 1), np.int8)
    weight[1, 0] = -1
    greatest = np.full((1, most, 1, 1), 255, np.uint8)
    tail = Scores((), np.dtype("float64"))
    layer = BitLayer.of(Geometry((most, 1, 1), 2), weight, tail, input="uint8", name="wide")
    packed = PackedNetwork(Preprocessing((most, 1, 1), "uint8"), ((layer,),))
    assert outputs(packed, greatest)[0].tolist() == [[2**24 - 1, 2**24 - 1 - 510]]


# What is refused


def test_sums_that_float32_would_round_are_refused(tmp_path):
    many, tail = 65794, Scores((), np.dtype("float32"))
    weight = np.ones((1, many, 1, 1), np.int8)
    layer = BitLayer.of(Geometry((many, 1, 1), 1), weight, tail, input="uint8", name="wide")
    packed = PackedNetwork(Preprocessing((many, 1, 1), "uint8"), ((layer,),))
    with pytest.raises(ValueError, match=r"`network` must .* got 16777470 in 'wide'"):
        to_onnx(packed, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_one_of_several_members_is_chosen(outputs, tmp_path):
    image, x = (1, 6, 6), pixels(image=(1, 6, 6))
    packed = pack([BLRNet(image, "5C3-SM4", generator=generator(k, "net")) for k in range(2)])
    found = [outputs(packed, x, member=member)[0] for member in range(2)]
    assert not np.array_equal(*found)
    for member, scores in enumerate(found):
        assert np.array_equal(scores, packed.scores(x, backend="float32", member=member))
    for member in (None, 2, -1):
        with pytest.raises(ValueError, match=r"`member` must be one of 0, …, 1"):
            to_onnx(packed, tmp_path / "other.onnx", member=member)


def test_without_onnx_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    packed = pack(BLRNet((1, 4, 4), "SM3", generator=generator(0, "net")))
    with pytest.raises(ImportError, match=r"pip install 'pbnn\[onnx\]'"):
        to_onnx(packed, tmp_path / "network.onnx")
