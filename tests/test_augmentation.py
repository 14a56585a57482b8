"""Random affine changes: the identity, whole pixels, quarter turns and the generator."""

from __future__ import annotations

import math

import pytest
import torch

from pbnn.augmentation import AffineRange, random_affine, random_crop
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
