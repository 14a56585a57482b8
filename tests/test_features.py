"""Features fixed before the data: what they undo, and what they do not look at."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pbnn import features
from pbnn.features import (
    SCALE_LIMIT,
    RandomConvolution,
    along,
    deskew,
    draw_filters,
    principal_axes,
    random_convolution,
)
from pbnn.seeding import generator


def bar(slope: float, row: float = 13.5, column: float = 13.5) -> torch.Tensor:
    """A slanted Gaussian bar on 28 x 28 pixels."""
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    down, across = rows - row, columns - column - slope * (rows - row)
    return torch.exp(-((down / 5) ** 2) - (across / 1.5) ** 2)[None, None]


def test_deskewing_undoes_a_shift_and_a_shear():
    straight = deskew(bar(0.0))
    for slanted in (bar(0.5), bar(-0.4), bar(0.3, row=11, column=16)):
        found = deskew(slanted)
        assert (found - straight).abs().max() < 0.12
        assert (slanted - straight).abs().max() > 0.4


def test_a_straight_image_in_the_middle_stays():
    torch.testing.assert_close(deskew(bar(0.0)), bar(0.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("spread", [None, (0.2, 0.15)])
def test_each_image_is_looked_at_alone(spread):
    images = torch.cat([bar(0.5), bar(-0.3, row=10), bar(0.1, column=17)])
    alone = torch.cat([deskew(image[None], spread) for image in images])
    torch.testing.assert_close(deskew(images, spread), alone)


@pytest.mark.parametrize("spread", [None, (0.2, 0.15)])
def test_a_blank_image_stays_blank(spread):
    images = torch.cat([torch.zeros(1, 1, 28, 28), bar(0.5)])
    found = deskew(images, spread)
    assert torch.equal(found[0], images[0])
    assert found.isfinite().all()


def test_no_images_give_no_features():
    assert random_convolution(deskew(torch.zeros(0, 1, 28, 28)), generator(0, "w")).shape == (
        0,
        4900,
    )


@pytest.mark.parametrize("shape", [(3, 28, 28), (2, 3, 8, 8), (4, 784)])
def test_what_is_no_grey_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"`images` must have shape \(n, 1, h, w\)"):
        deskew(torch.zeros(shape))


def test_the_features_are_the_pooled_shares_of_pixels_above_the_threshold():
    shape = RandomConvolution(filters=3, size=3, pool=2)
    images = torch.rand(2, 1, 4, 4, generator=generator(0, "x"), dtype=torch.float64)
    weight, threshold = draw_filters(shape, generator(0, "w"))
    expected = torch.zeros(2, 3, 2, 2, dtype=torch.float64)
    padded = torch.nn.functional.pad(images[:, 0], (1, 1, 1, 1))
    for i in range(2):
        for k in range(3):
            for r in range(4):
                for c in range(4):
                    score = (padded[i, r : r + 3, c : c + 3] * weight[k, 0]).sum()
                    expected[i, k, r // 2, c // 2] += 0.25 * (score > threshold[k])
    found = random_convolution(images, generator(0, "w"), shape)
    torch.testing.assert_close(found, expected.flatten(1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_features_of_many_images_are_those_of_a_product_of_patches(layout):
    shape = RandomConvolution(filters=7, size=5, pool=3)
    images = torch.rand(103, 1, 12, 14, generator=generator(0, "x"), dtype=torch.float64).round()
    before = images.clone()
    weight, threshold = draw_filters(shape, generator(0, "w"))
    patches = torch.nn.functional.unfold(images, 5, padding=2)  # (103, 25, 12 * 14)
    above = (weight.flatten(1) @ patches > threshold[:, None]).double()
    assert 0.05 < above.mean() < 0.95
    # The last two of 14 columns fill no square.
    squares = above.reshape(103, 7, 4, 3, 14)[..., :12].reshape(103, 7, 4, 3, 4, 3)
    expected = squares.mean((3, 5)).flatten(1)
    found = random_convolution(images.to(memory_format=layout), generator(0, "w"), shape)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert found.is_contiguous()
    assert torch.equal(images, before)


def test_filters_have_zero_mean_and_unit_norm_and_come_from_the_generator_alone():
    weight, threshold = draw_filters(RandomConvolution(), generator(1, "w"))
    flat = weight.flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(100).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(flat.norm(dim=1), torch.ones(100).double())
    assert 0.1 <= threshold.min() < 0.2 < 0.8 < threshold.max() <= 0.9
    assert torch.equal(draw_filters(RandomConvolution(), generator(1, "w"))[0], weight)
    assert not torch.equal(draw_filters(RandomConvolution(), generator(2, "w"))[0], weight)


def test_the_batch_only_bounds_memory(monkeypatch):
    images = torch.rand(7, 1, 8, 8, generator=generator(0, "x"))
    whole = random_convolution(deskew(images), generator(0, "w"))
    monkeypatch.setattr(features, "BATCH", 3)
    torch.testing.assert_close(random_convolution(deskew(images), generator(0, "w")), whole)


def ellipse(height, width, slant=0.0, *, size=(28, 28), centre=(13.0, 14.0)):
    """An image (1, h, w) of a Gaussian with these deviations, sheared."""
    rows, columns = torch.arange(float(size[0]))[:, None], torch.arange(float(size[1]))
    down, along = rows - centre[0], columns - centre[1]
    along = along - slant * down
    return torch.exp(-(down / height).square() / 2 - (along / width).square() / 2)[None]


def moments(images):
    """Centre, deviations and covariance of the mass of each image, in pixels."""
    share = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
    rows = torch.arange(float(images.shape[2]))[:, None]
    columns = torch.arange(float(images.shape[3]))
    row, column = (share * rows).sum((1, 2)), (share * columns).sum((1, 2))
    down, along = rows - row[:, None, None], columns - column[:, None, None]
    deviations = [(share * part.square()).sum((1, 2)).sqrt() for part in (down, along)]
    return row, column, *deviations, (share * down * along).sum((1, 2))


@pytest.mark.parametrize("size", [(28, 28), (24, 36)])
def test_scaling_gives_every_image_the_spread_asked_for(size):
    """Ellipses of several sizes, slants and places come out with the same moments."""
    shapes = [(4.0, 3.0, 0.0), (5.0, 3.0, 0.4), (3.0, 4.5, -0.3)]
    images = [ellipse(*shape, size=size, centre=(11, 15)) for shape in shapes]
    found = moments(deskew(torch.stack(images), spread=(4 / size[0], 3 / size[1])))
    expected = ((size[0] - 1) / 2, (size[1] - 1) / 2, 4.0, 3.0, 0.0)
    for values, value in zip(found, expected, strict=True):
        torch.testing.assert_close(values, torch.full((3,), value), atol=0.15, rtol=0)


def test_without_a_spread_size_stays():
    images = torch.stack([ellipse(4.0, 3.0, 0.4), ellipse(3.0, 2.0, -0.2)])
    _, _, height, width, covariance = moments(deskew(images))
    for values, expected in ((height, [4.0, 3.0]), (width, [3.0, 2.0]), (covariance, [0.0, 0.0])):
        torch.testing.assert_close(values, torch.tensor(expected), atol=0.15, rtol=0)


def test_no_image_is_scaled_by_more_than_the_limit():
    small, large = ellipse(2.0, 1.6), ellipse(4.0, 4.0)
    _, _, height, width, _ = moments(deskew(small[None], spread=(8 / 28, 3.2 / 28)))
    assert height.item() == pytest.approx(2 * SCALE_LIMIT, abs=0.15)
    assert width.item() == pytest.approx(3.2, abs=0.15)
    _, _, height, width, _ = moments(deskew(large[None], spread=(3 / 28, 0.5 / 28)))
    assert height.item() == pytest.approx(3, abs=0.15)
    assert width.item() == pytest.approx(4 / SCALE_LIMIT, abs=0.15)


def test_a_spread_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match=r"`spread` must hold two positive shares, got \(0, 1\)"):
        deskew(torch.ones(1, 1, 4, 4), spread=(0, 1))


@pytest.mark.parametrize("field", ["filters", "size", "pool"])
def test_sizes_below_one_are_refused(field):
    with pytest.raises(ValueError, match=f"`{field}` must be a positive integer, got 0"):
        RandomConvolution(**{field: 0})


def test_an_even_filter_is_refused():
    with pytest.raises(ValueError, match="`size` must be odd, got 4"):
        RandomConvolution(size=4)


def test_all_axes_keep_the_angles_and_fewer_project():
    source = generator(0, "points")
    sample, x = (torch.rand(m, 9, generator=source, dtype=torch.float64) for m in (30, 4))
    centred = x - sample.mean(0)
    cosines = F.cosine_similarity(centred[:, None], centred[None], dim=2)
    axes = principal_axes(sample, 9)
    torch.testing.assert_close(axes.directions @ axes.directions.T, torch.eye(9).double())
    found = along(x, axes)
    torch.testing.assert_close(found @ found.T, cosines)
    few = along(x, principal_axes(sample, 3))
    torch.testing.assert_close(few, found[:, :3] / found[:, :3].norm(dim=1, keepdim=True))


def test_principal_axes_are_those_of_scikit_learn():
    from sklearn.decomposition import TruncatedSVD

    sample = torch.rand(30, 9, generator=generator(0, "sample"), dtype=torch.float64)
    unit = sample - sample.mean(0)
    unit = unit / unit.norm(dim=1, keepdim=True)
    expected = TruncatedSVD(4, algorithm="arpack", random_state=0).fit(unit.numpy()).components_
    found = principal_axes(sample, 4).directions.numpy()
    assert abs((found * expected).sum(1)) == pytest.approx(1)
    with pytest.raises(ValueError, match="count"):
        principal_axes(sample, 10)
