"""Random changes of images: what they are by hand, their ranges, and the generator."""

from __future__ import annotations

import math

import pytest
import torch

from pbnn.augmentation import (
    AffineRange,
    chained,
    random_affine,
    random_contrast,
    random_crop,
    random_erase,
    random_resized_crop,
)
from pbnn.seeding import generator

STILL = AffineRange(rotation=0, scale=0, shear=0, shift=0)


def images(count=3, height=8, width=8):
    return torch.rand(count, 2, height, width, generator=generator(0, "images"))


@pytest.fixture
def change(monkeypatch):
    """Change an image by a given rotation, scale, shear and shift instead of drawn ones."""

    def changed(image, *, rotation=0.0, scale=(0.0, 0.0), shear=0.0, shift=(0.0, 0.0)):
        numbers = torch.tensor([[rotation, *scale, shear, *shift]], dtype=torch.float64)
        monkeypatch.setattr(torch, "rand", lambda *_, **__: (numbers / 10 + 1) / 2)
        return random_affine(image, generator(0, "unused"), AffineRange(10, 10, 10, 10))

    return changed


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 12)])
def test_ranges_of_zero_change_nothing(height, width):
    x = images(height=height, width=width)
    torch.testing.assert_close(random_affine(x, generator(0, "a"), STILL), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (2, -3), (-1, 2)])
def test_a_shift_by_whole_pixels_is_a_roll_away_from_the_border(change, right, down):
    x = images(1, height=10, width=16)
    # Pixels are looked up at u + t, so the image moves by −t; the whole image measures 2.
    shifted = change(x, shift=(-2 * right / 16, -2 * down / 10))
    rolled = x.roll((down, right), dims=(2, 3))
    inside = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(shifted[inside], rolled[inside], atol=1e-5, rtol=0)
    assert not torch.allclose(shifted, rolled, atol=1e-5)


def test_what_comes_from_outside_is_zero(change):
    half_gone = change(torch.ones(1, 1, 8, 8), shift=(1.0, 0.0))
    assert half_gone[0, 0, :, :4].tolist() == torch.ones(8, 4).tolist()
    assert half_gone[0, 0, :, 4:].tolist() == torch.zeros(8, 4).tolist()


def test_a_quarter_turn_is_that_of_torch(change):
    x = images(1)
    turned = change(x, rotation=math.pi / 2)
    torch.testing.assert_close(turned, torch.rot90(x, dims=(2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_scale_of_minus_one_mirrors_its_axis(change, axis):
    x = images(1)
    scale = [0.0, 0.0]
    scale[axis] = -2.0  # relative to 1
    torch.testing.assert_close(change(x, scale=scale), x.flip(3 - axis), atol=1e-5, rtol=0)


def test_pixels_are_looked_up_at_the_rotation_of_the_scaled_place(change):
    x = images(1)
    # So the image is turned first and mirrored then; the two do not commute.
    both = change(x, rotation=math.pi / 2, scale=(-2.0, 0.0))
    torch.testing.assert_close(both, torch.rot90(x, dims=(2, 3)).flip(3), atol=1e-5, rtol=0)


def test_a_shear_shifts_each_row_in_proportion_to_its_height(change):
    x = images(1, height=4, width=16)
    # Rows lie at −3/4, −1/4, 1/4 and 3/4: a shear of 8/16 looks −3, −1, 1 and 3 pixels aside.
    sheared = change(x, shear=8 / 16)
    for row, pixels in enumerate((-3, -1, 1, 3)):
        expected = x[0, :, row].roll(-pixels, dims=-1)
        torch.testing.assert_close(sheared[0, :, row, 4:12], expected[:, 4:12], atol=1e-5, rtol=0)


def test_the_generator_alone_decides_and_images_differ():
    x = images(1).expand(4, -1, -1, -1)
    first = random_affine(x, generator(0, "a"))
    assert torch.equal(first, random_affine(x, generator(0, "a")))
    assert not torch.equal(first, random_affine(x, generator(1, "a")))
    assert not torch.equal(first[0], first[1])
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    source = generator(0, "a")
    random_affine(x, source)
    assert not torch.equal(first, random_affine(x, source))


def test_the_changes_reach_both_ends_of_their_range():
    # A single bright column moves by up to three of twenty pixels either way.
    x = torch.zeros(2_000, 1, 1, 20)
    x[..., 10] = 1
    flat = AffineRange(rotation=0, scale=0, shear=0, shift=6 / 20)
    moved = random_affine(x.expand(-1, -1, 20, -1), generator(0, "a"), flat)[:, 0, 10]
    position = (moved * torch.arange(20.0)).sum(1) / moved.sum(1)
    assert position.min().item() == pytest.approx(7, abs=0.05)
    assert position.max().item() == pytest.approx(13, abs=0.05)
    assert position.mean().item() == pytest.approx(10, abs=5 * 3 / math.sqrt(3 * 2_000))


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (1, 3, 1, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`images` must have shape .*, got"):
        random_affine(torch.zeros(shape), generator(0, "a"))


def test_a_crop_is_the_image_moved_and_mirrored():
    images = torch.rand(200, 2, 5, 6, generator=generator(0, "images"))
    cropped = random_crop(images, generator(0, "crop"), padding=2)
    framed = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for image, result in zip(framed, cropped, strict=True):
        found = {
            (down, across, mirror)
            for down in range(5)
            for across in range(5)
            for mirror in (False, True)
            if torch.equal(
                result,
                image[:, down : down + 5, across : across + 6].flip(2 if mirror else ()),
            )
        }
        assert len(found) == 1
        seen |= found
    assert len(seen) > 40  # of fifty


def test_a_crop_without_a_mirror_never_mirrors():
    image = torch.arange(4.0).reshape(1, 1, 1, 4).expand(60, 1, 1, 4)
    same = random_crop(image, generator(0, "crop"), 0, mirror=False)
    assert torch.equal(same, image)
    turned = random_crop(image, generator(0, "crop"), 0)
    assert 15 < int((turned[:, 0, 0, 0] == 3).sum()) < 45


def test_bad_crops_are_refused():
    with pytest.raises(ValueError, match="`images` must have shape"):
        random_crop(torch.zeros(3, 3), generator(0, "crop"))
    with pytest.raises(ValueError, match="`padding` must be at least 0, got -1"):
        random_crop(torch.zeros(1, 1, 3, 3), generator(0, "crop"), -1)


VIEWS = [random_resized_crop, random_contrast, random_erase, chained(random_erase, random_crop)]


@pytest.mark.parametrize("change", VIEWS)
def test_a_view_is_decided_by_its_generator_and_leaves_its_image(change):
    x = images(1).expand(6, -1, -1, -1).contiguous()
    before, source = x.clone(), generator(0, "a")
    first = change(x, source)
    assert torch.equal(x, before)
    assert torch.equal(first, change(x, generator(0, "a")))
    assert not torch.equal(first, change(x, source))
    assert not torch.equal(first[0], first[1])
    assert first.shape == x.shape
    # Drawn in the same precision for all images.
    twice = change(x.double(), generator(0, "a"))
    torch.testing.assert_close(first, twice.float(), atol=1e-5, rtol=0)


def parts(count=3000, **more):
    """Middles and signed sides of the parts that are enlarged, relative to the image."""
    side = torch.linspace(-1, 1, 33)
    ramps = torch.stack([side.expand(33, 33), side[:, None].expand(33, 33)])
    views = random_resized_crop(ramps.expand(count, -1, -1, -1), generator(0, "a"), **more)
    # Away from the border, beyond which pixels are repeated.
    lines = views[:, 0, 16, 1:-1], views[:, 1, 1:-1, 16]
    lengths = [(line[:, -1] - line[:, 0]) / 2 * 32 / 30 for line in lines]
    return torch.stack([views[:, 0, 16, 16], views[:, 1, 16, 16]]), torch.stack(lengths)


def test_parts_have_the_areas_and_ratios_asked_for():
    _, (across, down) = parts(share=(0.25, 0.5), ratio=2.0)
    area, ratio = (across * down).abs(), (across / down).abs()
    assert area.min().item() == pytest.approx(0.25, abs=0.005)
    assert area.max().item() == pytest.approx(0.5, abs=0.01)
    assert area.mean().item() == pytest.approx(0.375, abs=5 * 0.25 / math.sqrt(12 * 3000))
    assert ratio.min().item() == pytest.approx(0.5, abs=0.01)
    assert ratio.max().item() == pytest.approx(2, abs=0.02)
    assert ratio.log().mean().abs().item() < 5 * 2 * math.log(2) / math.sqrt(12 * 3000)
    assert bool((down > 0).all())
    assert float((across < 0).float().mean()) == pytest.approx(0.5, abs=5 * 0.5 / 3000**0.5)


def test_parts_lie_anywhere_inside_the_image():
    middles, sides = parts(share=(0.25, 0.25), ratio=1.0)
    torch.testing.assert_close(sides.abs(), torch.full_like(sides, 0.5), atol=1e-4, rtol=0)
    # The ramp ends with the middle of the last pixel, at 32/33 of the way to the border.
    limit = 0.5 * 33 / 32
    assert middles.abs().max().item() == pytest.approx(limit, abs=0.01)
    assert middles.abs().max().item() < limit + 1e-4
    assert middles.mean().abs().item() < 5 * limit / math.sqrt(3 * 6000)


def test_a_part_has_no_rim_and_the_whole_is_the_image_or_its_mirror():
    flat = random_resized_crop(torch.ones(50, 1, 8, 8), generator(0, "a"), (0.1, 0.9))
    torch.testing.assert_close(flat, torch.ones_like(flat))
    x = images(40, 5, 12)
    whole = random_resized_crop(x, generator(0, "a"), (1, 1), 1)
    same = (whole - x).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (whole - x.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert bool((same ^ mirrored).all())
    assert same.any()
    assert mirrored.any()


def test_contrast_is_a_gain_and_an_offset_of_each_channel():
    x = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2).expand(2000, 3, 1, 2)
    changed = random_contrast(x, generator(0, "a"), gain=0.5, offset=0.1)[:, :, 0]
    offset, gain = changed[..., 0], changed[..., 1] - changed[..., 0]
    for values, middle, reach in ((gain, 1, 0.5), (offset, 0, 0.1)):
        assert values.min().item() == pytest.approx(middle - reach, abs=0.002)
        assert values.max().item() == pytest.approx(middle + reach, abs=0.002)
        # Channels and images are apart, as are gain and offset.
        assert abs(float(torch.corrcoef(values.T)[0, 1])) < 5 / 2000**0.5
    both = torch.stack([gain.flatten(), offset.flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 5 / 6000**0.5


def test_what_is_erased_is_a_rectangle_of_the_mean():
    x = images(1, 8, 12).expand(4000, -1, -1, -1)
    changed = random_erase(x, generator(0, "a"), side=0.5)
    gone = changed != x
    # All channels at the same place.
    assert torch.equal(gone[:, 0], gone[:, 1])
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(changed[gone], mean[gone])
    rows, columns = gone[:, 0].any(2), gone[:, 0].any(1)
    assert torch.equal(gone[:, 0], rows[:, :, None] & columns[:, None, :])
    for line, longest in ((rows, 4), (columns, 6)):
        assert set(line.sum(1).tolist()) == {*range(longest + 1)}
        # In one piece, and anywhere: as often at one end as at the other.
        assert int((line[:, 1:] & ~line[:, :-1]).sum(1).max()) == 1
        first, last = line[:, 0].sum().item(), line[:, -1].sum().item()
        assert first > 100
        assert abs(first - last) < 5 * math.sqrt(first + last)


def test_a_chain_draws_in_its_order():
    x, source = images(), generator(0, "a")
    expected = random_contrast(random_erase(x, source), source)
    assert torch.equal(chained(random_erase, random_contrast)(x, generator(0, "a")), expected)
    assert chained()(x, source) is x


@pytest.mark.parametrize(
    ("change", "options", "name"),
    [
        (random_resized_crop, {"share": (0.0, 1.0)}, "share"),
        (random_resized_crop, {"share": (0.5, 0.4)}, "share"),
        (random_resized_crop, {"share": (0.5, 1.1)}, "share"),
        (random_resized_crop, {"ratio": 0.9}, "ratio"),
        (random_contrast, {"gain": 1.1}, "gain"),
        (random_contrast, {"offset": -0.1}, "offset"),
        (random_contrast, {"offset": math.nan}, "offset"),
        (random_erase, {"side": 1.1}, "side"),
    ],
)
def test_ranges_of_views_outside_their_domain_are_refused(change, options, name):
    with pytest.raises(ValueError, match=f"`{name}` must .*, got"):
        change(images(), generator(0, "a"), **options)
    with pytest.raises(ValueError, match=r"`images` must have shape .*, got \(8, 8\)"):
        change(torch.zeros(8, 8), generator(0, "a"))
