"""CSV files of records, curves and timings, from which tables and figures can be made again.

A cell holds JSON, except that a text which is not itself JSON stands without quotes; an empty cell
is an absent field. Types therefore survive the round trip.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pbnn.files import write_atomic

IDENTITY = ("dataset", "method", "seed")

Record = Mapping[str, Any]


def write_records_csv(records: Iterable[Record], path: str | os.PathLike[str]) -> None:
    """Write one row per record: ``key``, ``config.<field>`` and ``measures.<name>``.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "records.csv")
    >>> record = {"key": "0a", "config": {"seed": 0, "tag": "1"}, "measures": {"kl": 0.5}}
    >>> write_records_csv([record], path)
    >>> records_from_csv(path) == [record]
    True
    """
    rows = [
        {"key": record["key"]} | _flat(record, "config") | _flat(record, "measures")
        for record in records
    ]
    _write(rows, ["key"], path)


def records_from_csv(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Records as written by `write_records_csv`: ``key``, ``config``, ``measures``.

    Raises
    ------
    ValueError
        Naming the file, if a row has too few or too many cells or the key is missing.
    """
    records = []
    for row in _read(path, ["key"]):
        record: dict[str, Any] = {"key": row.pop("key"), "config": {}, "measures": {}}
        for name, value in row.items():
            part, _, field = name.partition(".")
            if part not in ("config", "measures"):
                raise ValueError(f"{path}: expected config.* and measures.*, got column {name!r}.")
            record[part][field] = value
        records.append(record)
    return records


def write_curves_csv(records: Iterable[Record], path: str | os.PathLike[str]) -> None:
    """Write one row per record and epoch: key, dataset, method, seed, then the curve's fields."""
    rows = [
        _identity(record) | dict(point) for record in records for point in record.get("curve") or ()
    ]
    _write(rows, ["key", *IDENTITY], path)


def curves_from_csv(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Records with ``key``, ``config`` (dataset, method, seed) and ``curve``, one per run."""
    records: dict[Any, dict[str, Any]] = {}
    for row in _read(path, ["key", *IDENTITY]):
        key = row.pop("key")
        config = {name: row.pop(name) for name in IDENTITY if name in row}
        record = records.setdefault(key, {"key": key, "config": config, "curve": []})
        record["curve"].append(row)
    return list(records.values())


def write_timings_csv(records: Iterable[Record], path: str | os.PathLike[str]) -> None:
    """Write one row per record: who it is, ``seconds.<phase>`` and ``hardware.<field>``."""
    rows = [
        _identity(record) | _flat(record, "seconds") | _flat(record, "hardware")
        for record in records
    ]
    _write(rows, ["key", *IDENTITY], path)


def _identity(record: Record) -> dict[str, Any]:
    config = record["config"]
    known = {name: config[name] for name in IDENTITY if name in config}
    return {"key": record["key"]} | known


def _flat(record: Record, part: str) -> dict[str, Any]:
    return {f"{part}.{name}": value for name, value in (record.get(part) or {}).items()}


def _write(
    rows: Sequence[Mapping[str, Any]], first: Sequence[str], path: str | os.PathLike[str]
) -> None:
    columns = list(dict.fromkeys([*first, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        [_encode(row[name]) if name in row else "" for name in columns] for row in rows
    )
    write_atomic(path, text.getvalue())


def _read(path: str | os.PathLike[str], first: Sequence[str]) -> list[dict[str, Any]]:
    with open(path, newline="", encoding="utf-8") as stream:
        reader = csv.reader(stream)
        columns = next(reader, [])
        if columns[: len(first)] != list(first):
            raise ValueError(f"{path} must begin with the columns {list(first)}, got {columns}.")
        rows = []
        for cells in reader:
            if len(cells) != len(columns):
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected {len(columns)} cells, "
                    f"got {len(cells)}."
                )
            named = zip(columns, cells, strict=True)
            rows.append({name: _decode(cell) for name, cell in named if cell})
    return rows


def _encode(value: Any) -> str:
    # The csv module leaves a bare carriage return unquoted and then reads it as the end of a row.
    plain = isinstance(value, str) and value and value[0] != '"' and "\r" not in value
    if plain and isinstance(_decode(value), str):
        return str(value)
    return json.dumps(value, allow_nan=False)


def _decode(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return cell
