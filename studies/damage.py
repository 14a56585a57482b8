"""How a sound input is damaged or forged: bytes, JSON records and their text, from a generator."""

from __future__ import annotations

import copy
import gzip
import io
import json
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Path = tuple[str | int, ...]
"""Where a value stands in a record: names of fields, numbers of entries."""

DEEP = (20, 600, 100_000)
"""Brackets inside brackets: few, as many as a decoder may bear, and very many."""
PLACE = "@place@"
ODD = (
    *(None, True, False, 0, 1, -1, 2, 2**31, 2**63, 10**30, -(10**30)),
    *(0.5, -0.0, 1.5, -1e-9, 5e-324, 1e308, math.nan, math.inf, -math.inf),
    *("", "x", "é", "0.5", "1", [], {}, [[]], [0], [None], {"x": 1}, ["x"]),
)
"""What no field expects, or few do."""


def odd_value(rng: Random, value: Any) -> Any:
    """Another value: of another type, out of all bounds, or beside the old one."""
    near: list[Any] = []
    if isinstance(value, bool):
        near = [not value]
    elif isinstance(value, int | float):
        near = [-value, value + 1, value - 1, 2 * value, float(value), str(value), [value]]
        near += [math.nextafter(value, math.inf), math.nextafter(value, -math.inf), value / 2]
    elif isinstance(value, str):
        near = [value + "x", value[1:], value.upper(), value * 50, [value]]
    elif isinstance(value, list):
        near = [value[1:], value + value[:1], value[::-1], value * 30, dict(enumerate(value))]
    elif isinstance(value, dict):
        near = [list(value), list(value.values()), value | {"odd": 1}]
    return copy.deepcopy(rng.choice(near if near and rng.random() < 0.4 else ODD))


def places_in(record: Any, path: Path = ()) -> Iterator[Path]:
    """Where the values of a record stand, those inside of others included."""
    items = record.items() if isinstance(record, dict) else enumerate(record)
    for name, value in items:
        yield (*path, name)
        if isinstance(value, dict | list):
            yield from places_in(value, (*path, name))


def at(record: Any, path: Path) -> Any:
    """The value at a place."""
    for name in path:
        record = record[name]
    return record


def replaced(record: Any, path: Path, value: Any) -> Any:
    """A copy of a record with another value at a place."""
    changed = copy.deepcopy(record)
    at(changed, path[:-1])[path[-1]] = value
    return changed


def record_damaged(rng: Random, record: Any) -> tuple[str, Any]:
    """What was done, and a record of which one field is changed, left out, joined or moved."""
    path = rng.choice(list(places_in(record)))
    how = rng.choices(("changed", "left out", "joined", "swapped"), (8, 2, 1, 1))[0]
    changed = copy.deepcopy(record)
    holder, name = at(changed, path[:-1]), path[-1]
    if how == "left out":
        del holder[name]
    elif how == "joined" and isinstance(holder, dict):
        holder["odd"] = odd_value(rng, None)
    elif how == "joined":
        holder.append(odd_value(rng, holder[0]))
    elif how == "swapped":
        names = list(holder) if isinstance(holder, dict) else range(len(holder))
        other = rng.choice(list(names))
        holder[name], holder[other] = holder[other], holder[name]
    else:
        holder[name] = odd_value(rng, holder[name])
    return f"field {how}", changed


def text_damaged(rng: Random, record: Any) -> tuple[str, str]:
    """What was done, and a text of a record that says a thing twice, too deep, or too large."""
    path = rng.choice(list(places_in(record)))
    how = rng.choice(("key twice", "deep", "long number", "no number", "other text"))
    if how == "other text":
        indent = rng.choice((None, 0, 3))
        text = json.dumps(record, indent=indent, sort_keys=rng.random() < 0.5, ensure_ascii=False)
        return how, rng.choice(("", " \n", "\t")) + text + rng.choice(("", "\n\n"))
    if how == "key twice":
        owners = [p for p in [(), *places_in(record)] if isinstance(at(record, p), dict)]
        owner = rng.choice([p for p in owners if at(record, p)])
        inner = at(record, owner)
        name = rng.choice(list(inner))
        pair = f"{json.dumps(name)}: {json.dumps(odd_value(rng, inner[name]))}"
        whole = json.dumps(inner)
        twice = f"{{{pair}, {whole[1:]}" if rng.random() < 0.5 else f"{whole[:-1]}, {pair}}}"
        return how, placed(record, owner, twice)
    depth = rng.choice(DEEP)
    values = {
        "deep": rng.choice(("[" * depth + "]" * depth, '{"x":' * depth + "1" + "}" * depth)),
        "long number": rng.choice(
            ("1" * 400, "-" + "1" * 5000, "1e999", "-1e999", "0." + "1" * 99)
        ),
        "no number": rng.choice(("NaN", "Infinity", "-Infinity", "nan", "1_000", "0x1", "01")),
    }
    return how, placed(record, path, values[how])


def canonical(value: Any) -> str:
    """A value as text, in which the order of keys is nothing, and 1, 1.0 and true are three."""
    return json.dumps(value, sort_keys=True)


def placed(record: Any, path: Path, text: str) -> str:
    """The text of a record with a text at a place."""
    if not path:
        return text
    return json.dumps(replaced(record, path, PLACE)).replace(json.dumps(PLACE), text)


def bytes_damaged(rng: Random, content: bytes, most: int | None = None) -> tuple[str, bytes]:
    """What was done, and bytes that are cut, turned, overwritten or somebody else's.

    Parameters
    ----------
    rng : Random
    content : bytes
    most : int, optional
        Bytes from the beginning among which single ones are changed; all by default.
    """
    changed = bytearray(content)
    place = rng.randrange(min(most or len(content), len(content)))
    how = rng.choice(tuple(BYTES))
    return how, BYTES[how](rng, changed, place)


def _turned(rng: Random, content: bytearray, place: int) -> bytes:
    content[place] ^= 1 << rng.randrange(8)
    return bytes(content)


def _overwritten(rng: Random, content: bytearray, place: int) -> bytes:
    size = rng.randint(1, 16)
    content[place : place + size] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return bytes(content)


def _lies(rng: Random, content: bytearray, place: int) -> bytes:
    size = rng.choice((2, 4, 8))
    number = rng.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1))
    order: Any = rng.choice(("little", "big"))
    content[place : place + size] = (number % 2 ** (8 * size)).to_bytes(size, order)
    return bytes(content)


def _stranger(rng: Random, content: bytearray, place: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("inside"), bytes(content))
    others = (b"", b"text\n", b"{}", b"null", bytes(100), b"\x7fELF" + bytes(50), stream.getvalue())
    others += (pickle.dumps({"x": [1, 2]}), gzip.compress(bytes(content), mtime=0))
    return rng.choice((*others, rng.randbytes(rng.randint(1, 300))))


BYTES: dict[str, Callable[[Random, bytearray, int], bytes]] = {
    "cut": lambda rng, content, place: bytes(content[: rng.randrange(len(content))]),
    "bit turned": _turned,
    "overwritten": _overwritten,
    "sizes that lie": _lies,
    "inserted": lambda rng, content, place: bytes(
        content[:place] + rng.randbytes(rng.randint(1, 8)) + content[place:]
    ),
    "taken out": lambda rng, content, place: bytes(
        content[:place] + content[place + rng.randint(1, 8) :]
    ),
    "goes on": lambda rng, content, place: (
        bytes(content) + rng.choice((b"\0", b"\n", b"more", bytes(content)))
    ),
    "somebody else's": _stranger,
}
"""Ways to damage bytes at a place."""
