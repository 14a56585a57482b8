"""Architectures as papers write them: shapes, numbers of parameters, and what is none."""

from __future__ import annotations

import itertools

import pytest

from pbnn.networks import COLOUR_IMAGES, SMALL_IMAGES
from pbnn.networks.architecture import Pool, Stage, parse
from pbnn.networks.blrnet import product_of, weight_shapes

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def count(image, architecture):
    total = 0
    for shape in weight_shapes(image, parse(architecture)):
        size = 1
        for side in shape:
            size *= side
        total += size
    return total


def test_the_published_network_for_mnist_has_the_published_shapes():
    assert SMALL_IMAGES == "32C3-MP2-64C3-MP2-512FC-SM10"
    shapes = weight_shapes(MNIST, parse(SMALL_IMAGES))
    assert shapes == [(32, 1, 3, 3), (64, 32, 3, 3), (512, 64 * 7 * 7), (10, 512)]
    assert count(MNIST, SMALL_IMAGES) == 288 + 18_432 + 1_605_632 + 5_120


def test_the_published_network_for_cifar_has_the_published_shapes():
    assert COLOUR_IMAGES == "2x128C3-MP2-2x256C3-MP2-2x512C3-MP2-1024FC-SM10"
    widths = [3, 128, 128, 256, 256, 512, 512]
    filters = [(out, inside, 3, 3) for inside, out in itertools.pairwise(widths)]
    shapes = weight_shapes(CIFAR, parse(COLOUR_IMAGES))
    assert shapes == [*filters, (1024, 512 * 4 * 4), (10, 1024)]
    assert (
        count(CIFAR, COLOUR_IMAGES)
        == 3_456 + 147_456 + 294_912 + 589_824 + 1_179_648 + 2_359_296 + 8_388_608 + 10_240
    )
    assert [stage.pool is not None for stage in parse(COLOUR_IMAGES)] == [0, 1, 0, 1, 0, 1, 0, 0]


def test_every_part_is_read():
    assert parse("3x4C5-AP3-6C1-MP2-2x7FC-SM2") == (
        Stage(4, 5),
        Stage(4, 5),
        Stage(4, 5, Pool("average", 3)),
        Stage(6, 1, Pool("max", 2)),
        Stage(7),
        Stage(7),
        Stage(2),
    )
    assert parse("2×4C3-SM10") == parse("4C3-4C3-SM10") == parse("1x4C3-1x4C3-SM10")
    assert parse("SM3") == (Stage(3, 0, None),)


def test_convolutions_keep_the_size_of_the_image():
    assert product_of(Stage(4, 5), -1.0).padding == 2
    assert product_of(Stage(4, 1)).padding == 0
    assert product_of(Stage(4, 3), -1.0).padding_value == -1
    assert product_of(Stage(4, 3)).padding_value == 0
    assert (product_of(Stage(4, 3)).stride, product_of(Stage(4, 3)).groups) == (1, 1)


def test_a_pooling_leaves_a_remainder_out():
    assert weight_shapes((2, 7, 11), parse("3C3-MP2-4C3-AP2-SM5"))[-1] == (5, 4 * 1 * 2)
    assert weight_shapes((2, 3, 5), parse("SM5")) == [(5, 30)]
    assert weight_shapes((2, 3, 5), parse("4FC-6FC-SM5")) == [(4, 30), (6, 4), (5, 6)]


@pytest.mark.parametrize(
    ("architecture", "part"),
    [
        ("", ""),
        ("32C3", "32C3"),
        ("32C3-SM", "SM"),
        ("32C3-SM1", "SM1"),
        ("32C3-SM10-SM10", "SM10"),
        ("32C3--SM10", ""),
        ("32C3-sm10", "sm10"),
        ("32c3-SM10", "32c3"),
        (" 32C3-SM10", " 32C3"),
        ("32C-SM10", "32C"),
        ("C3-SM10", "C3"),
        ("0C3-SM10", "0C3"),
        ("0FC-SM10", "0FC"),
        ("-3C3-SM10", ""),
        ("32C4-SM10", "32C4"),
        ("32C0-SM10", "32C0"),
        ("0x32C3-SM10", "0x32C3"),
        ("2*32C3-SM10", "2*32C3"),
        ("MP2-32C3-SM10", "MP2"),
        ("32C3-MP0-SM10", "MP0"),
        ("32C3-MP-SM10", "MP"),
        ("32C3-XP2-SM10", "XP2"),
        ("32C3-MP2-MP2-SM10", "MP2"),
        ("32C3-MP2-AP2-SM10", "AP2"),
        ("8FC-MP2-SM10", "MP2"),
        ("8FC-32C3-SM10", "32C3"),
    ],
)
def test_what_is_no_architecture_is_refused_with_the_part_that_is_wrong(architecture, part):
    with pytest.raises(ValueError, match="`architecture` must be convolutions") as error:
        parse(architecture)
    assert str(error.value).endswith(f"got {architecture!r} with {part!r}.")


@pytest.mark.parametrize("image", [(28, 28), (1, 1, 28, 28), (1, 0, 28), (1, 28, -1)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match=r"`image` must be \(channels, height, width\), got"):
        weight_shapes(image, parse("SM10"))


@pytest.mark.parametrize("image", [(1, 3, 8), (1, 8, 3)])
def test_an_image_too_small_for_its_poolings_is_refused(image):
    with pytest.raises(ValueError, match=r"`image` must be large enough for every pooling, got"):
        weight_shapes(image, parse("2C3-MP2-2C3-MP2-SM10"))
    assert weight_shapes((1, 4, 4), parse("2C3-MP2-2C3-MP2-SM10"))[-1] == (10, 2)


@pytest.mark.parametrize("architecture", [None, 3, b"2C3-SM3", ["2C3", "SM3"]])
def test_what_is_no_text_is_no_architecture(architecture):
    with pytest.raises(TypeError, match="`architecture` must be a text"):
        parse(architecture)


def test_very_many_layers_are_refused():
    assert len(parse("1000x1FC-SM3")) == 1001
    with pytest.raises(ValueError, match="'1001x1FC'"):
        parse("1001x1FC-SM3")
