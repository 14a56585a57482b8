"""IDX files: what is whole comes back, what is not is refused by name."""

from __future__ import annotations

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from pbnn.data.files import obtain
from pbnn.data.idx import parse, read_bytes

LABELS = "train-labels-idx1-ubyte"
IMAGES = "train-images-idx3-ubyte"


@pytest.mark.parametrize("gzipped", [True, False])
def test_raw_and_gzipped_files_give_the_arrays_written(small, tmp_path, gzipped):
    small.write(tmp_path, gzipped=gzipped)
    arrays = obtain(small.collection(), tmp_path)
    assert list(arrays) == list(small.files)
    assert np.array_equal(arrays[IMAGES], small.images[:30])
    assert np.array_equal(arrays["t10k-labels-idx1-ubyte"], small.classes[30:])


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\x01", b"\0\0\x08\x01\0\0\0"])
def test_a_file_that_ends_inside_its_header_is_refused(content):
    with pytest.raises(ValueError, match=r"^labels .*(begin with|ends inside)"):
        parse(content, "labels", (3,))


@pytest.mark.parametrize("magic", [b"\1\0\x08\1", b"\0\0\x0d\1", b"\0\0\x08\3", b"\x1f\x8b\x08\0"])
def test_a_wrong_magic_number_is_refused(magic):
    with pytest.raises(ValueError, match=f"labels .* got {magic.hex()}"):
        parse(magic + struct.pack(">I", 3) + b"abc", "labels", (3,))


@pytest.mark.parametrize(("body", "fault"), [(b"ab", "cut short"), (b"abcd", "goes on")])
def test_a_body_of_another_length_is_refused(body, fault):
    with pytest.raises(ValueError, match=f"labels .*{fault}.* 3 bytes"):
        parse(b"\0\0\x08\1" + struct.pack(">I", 3) + body, "labels", (3,))


def test_a_wrong_count_of_items_is_refused(small, tmp_path):
    path = small.write(tmp_path, gzipped=False) / LABELS
    path.write_bytes(b"\0\0\x08\1" + struct.pack(">I", 29) + bytes(29))
    with pytest.raises(ValueError, match=rf"{LABELS} must hold .*\(30,\).*\(29,\)"):
        obtain(small.collection(), tmp_path)


def test_a_forged_header_and_a_gzip_bomb_allocate_nothing_large(small, tmp_path):
    home = small.write(tmp_path)
    header = b"\0\0\x08\3" + struct.pack(">3I", 2**32 - 1, 2**16, 2**16)
    (home / f"{IMAGES}.gz").write_bytes(gzip.compress(header + bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=IMAGES):
        obtain(small.collection(), tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_long_raw_file_is_read_no_further_than_one_byte_too_many(tmp_path):
    (tmp_path / "long").write_bytes(bytes(1000))
    assert len(read_bytes(tmp_path / "long", 10)) == 11


@pytest.mark.parametrize("keep", [5, 40, -9, -1])
def test_a_truncated_gzip_file_is_refused(small, tmp_path, keep):
    path = small.write(tmp_path) / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{IMAGES}\.gz is truncated"):
        obtain(small.collection(), tmp_path)


def test_what_is_not_gzip_is_refused(small, tmp_path):
    path = small.write(tmp_path) / f"{IMAGES}.gz"
    path.write_bytes(b"<html>not here</html>")
    with pytest.raises(ValueError, match=rf"{IMAGES}\.gz is not a valid gzip file"):
        obtain(small.collection(), tmp_path)


def test_a_damaged_gzip_body_is_refused(small, tmp_path):
    path = small.write(tmp_path) / f"{IMAGES}.gz"
    content = bytearray(path.read_bytes())
    content[100] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{IMAGES}\.gz (is not a valid gzip|is trunc|must have)"):
        obtain(small.collection(), tmp_path)


def test_a_well_formed_file_with_one_other_bit_is_refused(small, tmp_path):
    path = small.write(tmp_path, gzipped=False) / IMAGES
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    expected = small.files[IMAGES].sha256
    with pytest.raises(ValueError, match=f"{IMAGES} must have the SHA-256 {expected}, got"):
        obtain(small.collection(), tmp_path)
