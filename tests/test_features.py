"""Features fixed before the data: what they undo, and what they do not look at."""

from __future__ import annotations

import pytest
import torch

from pbnn import features
from pbnn.features import RandomConvolution, deskew, draw_filters, random_convolution
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


def test_each_image_is_looked_at_alone():
    images = torch.cat([bar(0.5), bar(-0.3, row=10), bar(0.1, column=17)])
    alone = torch.cat([deskew(image[None]) for image in images])
    torch.testing.assert_close(deskew(images), alone)


def test_a_blank_image_stays_blank():
    blank = torch.zeros(1, 1, 28, 28)
    assert torch.equal(deskew(blank), blank)


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


def test_scaling_gives_every_image_the_spread_asked_for():
    """Ellipses of several sizes and slants come out with the same moments."""
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    images = []
    for height, width, slant in ((4.0, 3.0, 0.0), (5.5, 3.0, 0.4), (4.0, 5.0, -0.3)):
        down, along = rows - 13, columns - 14
        along = along - slant * down
        images.append(torch.exp(-(down / height).square() / 2 - (along / width).square() / 2))
    found = deskew(torch.stack(images)[:, None], spread=(1 / 7, 1 / 9))[:, 0]
    share = found / found.sum((1, 2), keepdim=True)
    row, column = (share * rows).sum((1, 2)), (share * columns).sum((1, 2))
    down, along = rows - row[:, None, None], columns - column[:, None, None]
    for value, expected in (
        ((share * down.square()).sum((1, 2)).sqrt(), 4.0),
        ((share * along.square()).sum((1, 2)).sqrt(), 28 / 9),
        ((share * down * along).sum((1, 2)), 0.0),
    ):
        torch.testing.assert_close(value, torch.full((3,), expected), atol=0.15, rtol=0)


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
