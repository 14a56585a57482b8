"""Tasks from folders of images: order, channels, sizes, and every fault by its file."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from pbnn.data import from_images, split

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 5, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)


@pytest.fixture
def write(tmp_path):
    """Write images (arrays, or bytes of a file) at their places below a folder; return it."""

    def make(images):
        for place, image in images.items():
            path = tmp_path / "zoo" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(image, bytes):
                path.write_bytes(image)
            else:
                (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path)
        return tmp_path / "zoo"

    return make


def three(images):
    return dict(zip(("b/2.png", "a/9.png", "b/10.bmp"), images, strict=False))


def test_two_classes_are_signs_and_all_is_in_the_order_of_names(write):
    task = from_images(write(three(GREY)))
    assert task.x.shape == (3, 1, 5, 6)
    assert np.array_equal(task.x[:, 0], GREY[[1, 2, 0]].astype(np.float32) / np.float32(255))
    assert task.y.dtype == np.float32
    assert task.y.tolist() == [-1, 1, 1]
    assert (task.name, task.source, task.train) == ("zoo", "images of a, b (+1)", None)
    assert split(task, test=0.3).n == 2


def test_more_classes_are_numbers(write):
    folder = write(three(COLOUR) | {"Z/i.ppm": COLOUR[3]})
    task = from_images(folder, name="pets")
    assert task.x.shape == (4, 3, 5, 6)
    expected = COLOUR[[3, 1, 2, 0]].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    assert np.array_equal(task.x, expected)
    assert task.y.dtype == np.int64
    assert task.y.tolist() == [0, 1, 2, 2]
    assert (task.name, task.source) == ("pets", "images of Z, a, b")


def test_one_colour_image_gives_the_grey_ones_three_equal_channels(write):
    task = from_images(write(three(GREY[:2]) | {"b/c.png": COLOUR[0]}))
    assert task.x.shape == (3, 3, 5, 6)
    for channel in range(3):
        assert np.array_equal(np.rint(task.x[0, channel] * 255), GREY[1])
    assert np.array_equal(np.rint(task.x[2] * 255), COLOUR[0].transpose(2, 0, 1))


def test_black_and_white_is_grey(write):
    image = Image.fromarray(GREY[0] > 127)
    assert image.mode == "1"
    task = from_images(write({"a/a.png": image, "b/b.png": GREY[1]}))
    assert np.array_equal(task.x[0, 0], (GREY[0] > 127).astype(np.float32))


def test_hidden_names_and_files_beside_the_classes_do_not_count(write):
    others = dict.fromkeys(("readme.txt", "a/.DS_Store", ".git/c.png"), b"no image")
    assert len(from_images(write(three(GREY) | others)).y) == 3


def test_images_of_other_sizes_are_resized_and_those_of_the_size_are_not(write):
    # Each new pixel weighs the old ones by a triangle twice as wide: 3, 3, 1 within the border.
    ramp = np.tile(np.uint8([0, 80, 160, 240]), (2, 1))
    folder = write({"a/a.png": ramp, "b/b.png": GREY[0, :2, :2]})
    task = from_images(folder, size=(2, 2))
    assert task.x.shape == (2, 1, 2, 2)
    assert np.array_equal(np.rint(task.x[1, 0] * 255), GREY[0, :2, :2])
    left = (3 * 0 + 3 * 80 + 1 * 160) / 7
    assert task.x[0, 0] * 255 == pytest.approx(np.tile([left, 240 - left], (2, 1)), abs=0.51)
    assert task.source == "images of a, b (+1), resized to 2x2 (height x width)"


def test_height_comes_before_width(write):
    rows = np.repeat(GREY[:3, :, :1], 6, axis=2)
    x = from_images(write(three(rows)), size=(3, 7)).x
    assert x.shape == (3, 1, 3, 7)
    assert np.array_equal(x, np.repeat(x[..., :1], 7, axis=3))


def test_the_folder_gives_its_name_also_from_inside(write, monkeypatch):
    monkeypatch.chdir(write(three(GREY)))
    assert from_images(".").name == "zoo"


def test_formats_that_lose_colours_are_refused(write):
    folder = write(three(COLOUR) | {"a/odd.gif": COLOUR[3]})
    with pytest.raises(ValueError, match=r"odd\.gif must be a readable BMP, JPEG, PNG, PPM image"):
        from_images(folder)


def test_mixed_sizes_are_refused_with_both(write):
    folder = write(three(GREY) | {"b/z.png": GREY[3, :, :4]})
    message = r"z\.png must be as large as 9\.png, 5x6, unless `size` is given, got 5x4"
    with pytest.raises(ValueError, match=message):
        from_images(folder)


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        ((0, 3), ValueError, r"`size` must be \(height, width\), both >= 1, got \(0, 3\)"),
        ((3,), ValueError, r"got \(3,\)"),
        ((3, 3, 3), ValueError, r"got \(3, 3, 3\)"),
        (3, TypeError, "`size` must be a pair of integers .* got 3"),
        ((3.0, 3), TypeError, r"got \(3.0, 3\)"),
        ((True, 3), TypeError, r"got \(True, 3\)"),
    ],
)
def test_a_senseless_size_is_refused(write, size, error, message):
    with pytest.raises(error, match=message):
        from_images(write(three(GREY)), size=size)


def test_a_missing_folder_and_missing_classes_are_errors(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`folder` names no folder: .*nowhere"):
        from_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"two or more classes, got none\."):
        from_images(write({"a.png": GREY[0]}))
    with pytest.raises(ValueError, match=r"two or more classes, got a\."):
        from_images(write({"a/a.png": GREY[0]}))
    (tmp_path / "zoo" / "b").mkdir()
    with pytest.raises(ValueError, match=r"zoo/b must hold at least one image, got none"):
        from_images(tmp_path / "zoo")


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (RNG.integers(0, 256, (5, 6, 4), dtype=np.uint8), "RGBA"),
        (RNG.integers(0, 60_000, (5, 6), dtype=np.uint16), "I;16"),
        (Image.fromarray(COLOUR[0]).quantize(4), "P"),
    ],
)
def test_an_image_that_would_lose_something_is_refused(write, image, mode):
    folder = write(three(GREY) | {"a/odd.png": image})
    with pytest.raises(ValueError, match=rf"odd\.png must be grey or RGB.* got mode '{mode}'"):
        from_images(folder)


@pytest.mark.parametrize("suffix", ["bmp", "jpg", "png", "ppm"])
def test_a_file_that_is_cut_is_named(write, suffix):
    folder = write(three(GREY) | {f"a/odd.{suffix}": COLOUR[0]})
    path = folder / "a" / f"odd.{suffix}"
    whole = path.read_bytes()
    # The end of a file may be what its pixels do not need.
    for cut in range(0, len(whole) // 2, 1 + len(whole) // 100):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=rf"odd\.{suffix} must be a readable"):
            from_images(folder)


@pytest.mark.parametrize("content", [b"", b"no image", b"GIF89a" + bytes(50), b"P6 x"])
def test_what_is_no_image_is_named(write, content):
    folder = write(three(GREY) | {"a/odd.png": content})
    with pytest.raises(ValueError, match=r"odd\.png must be a readable BMP, JPEG, PNG, PPM image"):
        from_images(folder)


def test_a_folder_among_the_images_is_named(write):
    folder = write(three(GREY))
    (folder / "a" / "deeper").mkdir()
    with pytest.raises(ValueError, match="deeper must be a readable"):
        from_images(folder)


def test_pillow_is_loaded_only_when_used():
    code = "import sys, pbnn.data; assert 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_chunk_that_says_it_is_large_costs_nothing(write):
    folder = write(three(GREY))
    content = (folder / "a" / "9.png").read_bytes()
    assert content[37:41] == b"IDAT"
    write({"a/9.png": content[:33] + b"\xff" * 4 + content[37:]})
    tracemalloc.start()
    try:
        with contextlib.suppress(ValueError):
            from_images(folder)
        assert tracemalloc.get_traced_memory()[1] < 10**8
    finally:
        tracemalloc.stop()
