"""What networks read: shaped by the feature or prior split alone, never by certified points."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from pbnn.features import (
    RandomConvolution,
    deskew,
    kernel_features,
    random_convolution,
    thermometer,
)
from pbnn.inputs import CANONICAL, INPUTS, Points, sample_of
from pbnn.seeding import generator

SPLITS = tuple(field.name for field in dataclasses.fields(Points))
SIZES = {"feature": 30, "prior": 20, "certification": 25, "test": 15}
CONVOLVED = {
    "filters": 4,
    "filter_size": 3,
    "pool": 4,
    "power": 0.5,
    "canonical": "none",
    "kernel": None,
    "emphasis": 0.1,
    "seed": 5,
    "centring": "image",
}

CELLS = {
    "plain": ("plain", {"centring": "image"}),
    "plain, one number": ("plain", {"centring": "pixel"}),
    "plain, as it is": ("plain", {"centring": "none"}),
    "halved": ("halved", {"centring": "pixel"}),
    "standardised": ("standardised", {}),
    "binned": ("binned", {"levels": 3, "power": 0.5, "norm": 2.0}),
    "convolved": ("convolved", CONVOLVED),
    "kernel": ("convolved", CONVOLVED | {"kernel": 0.5}),
    "kernel, as it is": ("convolved", CONVOLVED | {"kernel": 1.0, "centring": "none"}),
}
IMAGES = ("plain", "halved", "convolved")
WITHOUT = [name for name, (_, cell) in CELLS.items() if cell.get("centring") == "none"]


def inputs(name, n, seed):
    """Images of many grey levels for inputs made of images, else rows of numbers."""
    if CELLS[name][0] in IMAGES:
        x = torch.rand(n, 1, 8, 8, generator=generator(seed, "x"))
        return x * (torch.rand(n, 1, 8, 8, generator=generator(seed, "mask")) < 0.6)
    x = torch.randn(n, 4, generator=generator(seed, "x"))
    return torch.cat([x * torch.tensor([1.0, 5.0, 0.1, 1.0]) + 2, (x[:, :1] > 0.5).float()], 1)


def points(name, *, absent=(), **changed):
    """Points of all splits; those of some from another seed but for their first row."""
    parts = []
    for place, split in enumerate(SPLITS):
        n = 0 if split in absent else SIZES[split]
        x = inputs(name, n, place)
        if split in changed and n:
            other = inputs(name, n, changed[split])
            # Intensities stay in [0, 1], numbers move far away.
            other = other.square() / 3 if x.ndim == 4 else 10 * other + 50
            x = torch.cat([x[:1], other[1:]])
        parts.append((x, torch.ones(n) * (place + 1)))
    return Points(*parts)


def prepared(name, given):
    kind, cell = CELLS[name]
    found, shift = INPUTS[kind](given, cell)
    return found, torch.as_tensor(shift)


def assert_same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_every_kind_of_input_is_tested_here():
    assert {kind for kind, _ in CELLS.values()} == set(INPUTS)


@pytest.mark.parametrize("name", CELLS)
def test_certification_and_test_points_shape_nothing(name):
    """Other rows there change neither the rest nor the one row that stays."""
    found, shift = prepared(name, points(name))
    other, other_shift = prepared(name, points(name, certification=11, test=12))
    assert_same(shift, other_shift)
    for split in SPLITS:
        (x, y), (changed, labels) = getattr(found, split), getattr(other, split)
        assert torch.equal(y, labels)
        assert x.dtype == torch.float32
        if split in ("feature", "prior"):
            assert_same(x, changed)
        else:
            assert_same(x[0], changed[0])
            assert (x[1:] - changed[1:]).abs().max() > 0.1


@pytest.mark.parametrize("name", CELLS)
def test_fewer_certification_and_test_points_change_nothing(name):
    found, shift = prepared(name, points(name))
    given = points(name)
    less = {split: [part[:1] for part in getattr(given, split)] for split in SPLITS[2:]}
    other, other_shift = prepared(name, dataclasses.replace(given, **less))
    assert_same(shift, other_shift)
    for split in SPLITS:
        (x, _), (same, _) = getattr(found, split), getattr(other, split)
        assert_same(x[: len(same)], same)


@pytest.mark.parametrize("name", CELLS)
def test_the_feature_split_shapes_alone_where_there_is_one(name):
    found, shift = prepared(name, points(name))
    other, other_shift = prepared(name, points(name, prior=11))
    assert_same(shift, other_shift)
    assert_same(found.certification[0], other.certification[0])
    other, other_shift = prepared(name, points(name, feature=11))
    moved = (found.test[0] - shift, other.test[0] - other_shift)
    same = moved[0].shape == moved[1].shape and torch.allclose(*moved, atol=0.01)
    # Without centring, only a kernel reads the feature split at all.
    assert same == (name in WITHOUT and "kernel" not in name)


@pytest.mark.parametrize("name", ["plain", "plain, one number", "halved", "binned", "convolved"])
def test_the_prior_split_stands_in_for_no_feature_split(name):
    found, shift = prepared(name, points(name, absent=["feature"]))
    assert len(found.feature[0]) == 0
    other, other_shift = prepared(name, points(name, absent=["feature"], certification=11, test=12))
    assert_same(shift, other_shift)
    assert_same(found.prior[0], other.prior[0])
    assert_same(found.test[0][0], other.test[0][0])
    # As if its points were the feature split.
    given = points(name)
    twice = dataclasses.replace(given, feature=given.prior)
    same, same_shift = prepared(name, twice)
    assert_same(shift, same_shift)
    assert_same(found.certification[0], same.certification[0])


@pytest.mark.parametrize("name", [name for name in CELLS if name not in WITHOUT[:1]])
def test_with_neither_split_there_is_nothing_to_take_statistics_of(name):
    with pytest.raises(ValueError, match=r"`\w+` must"):
        prepared(name, points(name, absent=["feature", "prior"]))


def test_a_sample_is_refused_by_name():
    message = "`points` must have a feature or a prior split for these inputs, got none"
    with pytest.raises(ValueError, match=message):
        sample_of(points("plain", absent=["feature", "prior"]))


def test_inputs_without_statistics_need_no_split():
    given = points("plain", absent=["feature", "prior"])
    found, shift = prepared("plain, as it is", given)
    assert shift == 0
    assert all(getattr(found, split) == getattr(given, split) for split in SPLITS)


@pytest.mark.parametrize("name", ["standardised", "kernel"])
def test_what_only_a_feature_split_gives_is_not_taken_from_the_prior(name):
    with pytest.raises(ValueError, match="must hold"):
        prepared(name, points(name, absent=["feature"]))


@pytest.mark.parametrize("name", CELLS)
def test_every_split_is_mapped_alike(name):
    x = inputs(name, 20, 0)
    found, _ = prepared(name, Points(*((x, torch.ones(20)) for _ in SPLITS)))
    for split in SPLITS[1:]:
        assert_same(getattr(found, split)[0], found.feature[0])


def test_centring_is_by_the_mean_image_or_its_mean():
    given = points("plain")
    mean = given.feature[0].double().numpy().mean(0)
    _, shift = prepared("plain", given)
    np.testing.assert_allclose(shift.numpy(), mean, atol=1e-6)
    _, shift = prepared("plain, one number", given)
    assert shift.item() == pytest.approx(mean.mean(), abs=1e-6)


def test_half_the_resolution_is_the_mean_of_two_by_two_pixels():
    given = points("halved")
    found, shift = prepared("halved", given)
    for split in SPLITS:
        x, half = getattr(given, split)[0], getattr(found, split)[0]
        assert half.shape == (len(x), 1, 4, 4)
        quarters = [x[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
        assert_same(half, sum(quarters) / 4)
    assert shift.item() == pytest.approx(given.feature[0].mean().item(), abs=1e-6)


def test_standardised_columns_are_those_of_scikit_learn():
    given = points("standardised")
    found, shift = prepared("standardised", given)
    scaler = StandardScaler().fit(given.feature[0].double().numpy())
    assert shift == 0
    for split in SPLITS:
        expected = scaler.transform(getattr(given, split)[0].double().numpy())
        np.testing.assert_allclose(getattr(found, split)[0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("power", "norm"), [(0.0, 1.0), (0.5, 2.0), (0.5, 3.0), (1.0, 2.0)])
def test_binned_columns_are_centred_and_have_the_norm_asked_for(power, norm):
    given = points("binned")
    columns = thermometer(given.feature[0], given.feature[0], 3).double()
    found, shift = INPUTS["binned"](given, {"levels": 3, "power": power, "norm": norm})
    x = found.feature[0].double()
    assert shift == 0
    assert x.square().sum(1).mean().sqrt().item() == pytest.approx(norm, rel=1e-6)
    torch.testing.assert_close(x.mean(0), torch.zeros(x.shape[1]).double(), atol=1e-6, rtol=0)
    # Deviations are a power of what they were, but for one factor.
    spread = columns.std(0, correction=0)
    kept = spread > 0
    assert x.shape[1] == kept.sum()
    ratio = x.std(0, correction=0) / spread[kept] ** (1 - power)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-5, atol=0)
    # Each column still has two values, in the order of the thermometer's.
    assert torch.equal((x > 0).double(), columns[:, kept])
    assert all(len(column.unique()) == 2 for column in found.test[0].T)


def test_binned_inputs_leave_out_a_column_without_spread():
    given = points("binned")
    wide = given.map(lambda x: torch.cat([torch.full_like(x[:, :1], 3.0), x], 1))
    # Constant on the feature split is enough: what others do there is not looked at.
    x, y = wide.test
    wide = dataclasses.replace(wide, test=(torch.cat([1 + x[:, :1], x[:, 1:]], 1), y))
    found, _ = prepared("binned", wide)
    plain, _ = prepared("binned", given)
    for split in SPLITS:
        assert_same(getattr(found, split)[0], getattr(plain, split)[0])


@pytest.mark.parametrize("canonical", CANONICAL)
def test_convolved_images_are_the_powers_of_random_convolutions(canonical):
    given = points("convolved")
    cell = CONVOLVED | {"canonical": canonical, "power": 0.7}
    found, shift = INPUTS["convolved"](given, cell)
    spreads = {"deskewed": None, "scaled": (5, 4), "scaled small": (4.6, 3.6)}
    spreads["scaled large"] = (5.5, 4.5)

    def features(x):
        if canonical in spreads:
            spread = spreads[canonical]
            x = deskew(x, spread and (spread[0] / 28, spread[1] / 28))
        shape = RandomConvolution(filters=4, size=3, pool=4)
        return random_convolution(x, generator(5, "features"), shape).pow(0.7)

    for split in SPLITS:
        assert_same(getattr(found, split)[0], features(getattr(given, split)[0]))
    assert_same(shift, features(given.feature[0]).mean(0))


def test_with_a_kernel_the_landmarks_are_the_convolved_feature_split():
    given = points("kernel")
    convolved, _ = prepared("convolved", given)
    found, shift = prepared("kernel", given)
    landmarks = convolved.feature[0]
    for split in SPLITS:
        expected = kernel_features(getattr(convolved, split)[0], landmarks, 0.5, 0.1)
        assert_same(getattr(found, split)[0], expected)
    assert_same(shift, found.feature[0].mean(0))


def test_the_seed_draws_the_filters():
    given = points("convolved")
    found, _ = INPUTS["convolved"](given, CONVOLVED)
    other, _ = INPUTS["convolved"](given, CONVOLVED | {"seed": 6})
    assert not torch.allclose(found.test[0], other.test[0], atol=0.1)
