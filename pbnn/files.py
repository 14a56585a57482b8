"""Files that are whole or absent: atomic writes, hashes, and JSON with a schema version."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEEPEST = 100
"""Levels of a record; deeper ones are taken for damage."""


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it on success and vanishes on failure.

    The parent folder is made if missing. The temporary name keeps the suffix of `path`, so that
    libraries which choose a format by suffix write the right one.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic(folder / "a.txt") as part:
    ...     _ = part.write_text("whole")
    >>> (folder / "a.txt").read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    # Not by tempfile, whose files are private: others may read a report as far as the umask says.
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Write text or bytes so that a reader, or a crash, never sees half a file."""
    with atomic(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


def sha256(data: str | bytes | os.PathLike[str]) -> str:
    """SHA-256 in hexadecimal of bytes, of a text, or of the content of a file given as a path."""
    if isinstance(data, os.PathLike):
        with open(data, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def little_endian(array: NDArray[Any]) -> NDArray[Any]:
    """An array as every machine writes it: little-endian, in C order; itself if it is so."""
    return array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)


def add_array(digest: hashlib._Hash, array: NDArray[Any], name: str = "") -> None:
    """Let a hash stand for an array, too: its name, type, shape and bytes, little-endian."""
    whole = little_endian(array)
    digest.update(f"{name}{whole.dtype.str}{whole.shape}".encode())
    digest.update(whole.data)


def write_json(path: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Write a record atomically as JSON; it must carry its `schema_version`."""
    write_atomic(path, json_bytes(record))


def json_bytes(record: dict[str, Any]) -> bytes:
    """A record as the content of a file; it must carry its `schema_version`."""
    if "schema_version" not in record:
        raise ValueError("`record` must hold a `schema_version`, got none.")
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def read_json(path: str | os.PathLike[str], kind: str, schema_version: int) -> dict[str, Any]:
    """Read a record written by `write_json`, refusing what is damaged or newer than we know.

    Parameters
    ----------
    path : path
        The file.
    kind : str
        What the file should hold ("certificate", "run record"), for the error message.
    schema_version : int
        The newest version this code understands.

    Raises
    ------
    ValueError
        Naming the file, if it is not JSON, not a record, has no version, or a newer one; for NaN
        and infinity, for a key that stands twice, and for a record deeper than `DEEPEST` levels.
    """
    return parse_json(Path(path).read_bytes(), str(path), kind, schema_version)


def parse_json(data: bytes, where: str, kind: str, schema_version: int) -> dict[str, Any]:
    """A record of the content of a file, as `read_json` of the file."""
    try:
        record = strict_json(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not a readable {kind}: {error}.") from error
    if not isinstance(record, dict):
        raise ValueError(
            f"{where} is not a {kind}: expected an object, got a {type(record).__name__}."
        )
    check_schema_version(record.get("schema_version"), where, kind, schema_version)
    return record


def strict_json(data: bytes | str) -> Any:
    """A value of JSON that means one thing only: finite numbers, keys once, not too deep.

    Raises
    ------
    ValueError, RecursionError
        For all else, also what Python would read, such as NaN.

    Examples
    --------
    >>> strict_json('{"kl": 0.5}')
    {'kl': 0.5}
    """
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    value = json.loads(text, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
    level = [value]
    for _ in range(DEEPEST):
        inner = [each for each in level if isinstance(each, dict | list)]
        level = [part for each in inner for part in _parts(each)]
    if level:
        raise ValueError(f"it is deeper than {DEEPEST} levels")
    return value


def _parts(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"a key stands twice among {sorted(record)}")
    return record


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no finite number")
    return number


def check_schema_version(found: object, where: str, kind: str, newest: int) -> None:
    """Refuse a version that is no positive integer, or newer than `newest`."""
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ValueError(f"{where}: `schema_version` must be a positive integer, got {found!r}.")
    if found > newest:
        raise ValueError(
            f"{where}: this {kind} has schema_version {found}, but this pbnn reads up to {newest}; "
            "a newer pbnn wrote it."
        )
