from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from pbnn.files import atomic, check_schema_version, read_json, sha256, write_atomic, write_json


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_atomic(path, "old")

    def write_half() -> None:
        with atomic(path) as part:
            part.write_text("half of the new")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_atomic(path, "old")
    with atomic(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_part_lies_beside_the_file_and_keeps_its_suffix(tmp_path: Path) -> None:
    # Another folder may be another file system, where a rename is no longer atomic.
    with atomic(tmp_path / "deep" / "figure.pdf") as part:
        assert part.parent == tmp_path / "deep"
        assert part.suffix == ".pdf"
        assert part.name.startswith(".")


def test_two_writers_do_not_share_a_part(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic(path) as first, atomic(path) as second:
        assert first != second


def test_the_part_may_be_written_by_renaming_onto_it(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.txt") as part:
        other = tmp_path / "other"
        other.write_text("moved")
        other.replace(part)
    assert (tmp_path / "a.txt").read_text() == "moved"


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "a.txt", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


def test_text_is_written_as_utf8_without_translation(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", "δ\r\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xce\xb4\r\n"
    write_atomic(tmp_path / "a.bin", b"\x00\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"


def test_sha256_is_the_same_for_bytes_text_and_file(tmp_path: Path) -> None:
    # NIST's example for FIPS 180-4.
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256("abc") == sha256(b"abc") == sha256(tmp_path / "abc") == abc
    assert sha256("δ") == hashlib.sha256("δ".encode()).hexdigest()


def test_json_round_trip_keeps_floats_exactly(tmp_path: Path) -> None:
    record = {"schema_version": 1, "bound": 0.1 + 0.2, "tiny": 5e-324, "name": "δ", "none": None}
    write_json(tmp_path / "r.json", record)
    assert read_json(tmp_path / "r.json", "run record", 1) == record


def test_what_json_cannot_hold_is_refused_and_nothing_written(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"schema_version": 1, "bound": float("nan")})
    with pytest.raises(ValueError, match="`record` must hold a `schema_version`"):
        write_json(path, {"bound": 0.5})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema_version": 1, "bou', "is not a readable run record"),
        (b"", "is not a readable run record"),
        (b"\xff\xfe", "is not a readable run record"),
        (b"[1, 2]", "expected an object, got a list"),
        (b"{}", "must be a positive integer, got None"),
        (b'{"schema_version": 3}', "has schema_version 3, but this pbnn reads up to 2"),
    ],
)
def test_a_damaged_or_newer_file_is_refused_by_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_json(path, "run record", 2)
    assert "damaged.json" in str(caught.value)


@pytest.mark.parametrize("found", [None, 0, -1, 1.0, "1", True])
def test_a_schema_version_is_a_positive_integer(found: object) -> None:
    with pytest.raises(ValueError, match="must be a positive integer"):
        check_schema_version(found, "here", "certificate", 2)


def test_every_known_schema_version_is_read(tmp_path: Path) -> None:
    for version in (1, 2):
        (tmp_path / "r.json").write_text(json.dumps({"schema_version": version}))
        assert read_json(tmp_path / "r.json", "certificate", 2) == {"schema_version": version}


@pytest.mark.parametrize(
    "value",
    [
        *("NaN", "-Infinity", "1e999", "1" * 5000, "[" * 200 + "]" * 200, "[" * 100_000),
        *('{"a": 1, "a": 1}', '[{"b": {"c": 1, "d": 2, "c": 1}}]'),
    ],
)
def test_json_that_means_nothing_or_two_things_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(f'{{"schema_version": 1, "kl": {value}}}')
    with pytest.raises(ValueError, match=r"record\.json is not a readable record"):
        read_json(path, "record", 1)


def test_a_record_of_many_levels_is_read(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(f'{{"schema_version": 1, "kl": {"[" * 98}0.5{"]" * 98}}}')
    assert str(read_json(path, "record", 1)["kl"]).strip("[]") == "0.5"
