"""What a study's folder holds, as tables and statements for its page."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from pbnn.reporting.csvs import records_from_csv
from pbnn.reporting.markup import Block
from pbnn.reporting.meaning import FIRST, near, up, widths

PAGE = "index.html"
TOLD = {"schema_version", "command", "versions", "hardware", "source", "sources", "seed", "seeds"}
"""What a description says in places of its own on the page."""
MACHINE = {"cpu": "Processor", "gpu": "GPU"}
MOST_ROWS = 200
"""Of a CSV file that are shown; the rest is in the file."""
MOST_RECORDS = 2000
MOST_DATA = 2_000_000
"""Characters of all that is known of the records: fewer of them are shown if need be."""
MOST_COLUMNS = 8
"""Of a configuration, and of measures, in the table of records."""
NUMERIC = re.compile(r"[+−-]?\.?\d[\d.,]*(e[+-]?\d+)?( ?(±|×|%).*)?")
HASH = re.compile(r"[0-9a-f]{12,}")


class Table(NamedTuple):
    """A table of the page; every row has as many cells as the head."""

    caption: str | Markup
    head: Sequence[str | Markup]
    rows: Sequence[Sequence[str | Markup]]
    sortable: bool = False
    note: str = ""
    keys: Sequence[str] = ()
    """Of a table of records: each row's record."""
    kind: str = "table"

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers alone."""
        columns = zip(*self.rows, strict=True)
        filled = ([str(cell) for cell in column if cell] for column in columns)
        found = [bool(cells) and all(map(NUMERIC.fullmatch, cells)) for cells in filled]
        return found or [False] * len(self.head)


def of_markdown(blocks: Iterable[Block], title: str) -> list[Block | Table]:
    """Blocks of a page without its title and its images; tables are named by their headings."""
    found: list[Block | Table] = []
    used: dict[str, int] = {}
    heading = title
    for block in blocks:
        if block.kind == "heading":
            heading = block.text.striptags() if block.level > 1 else heading
        if block.kind == "table":
            used[heading] = used.get(heading, 0) + 1
            caption = f"{heading} ({used[heading]})" if used[heading] > 1 else heading
            found.append(Table(caption, block.rows[0], block.rows[1:]))
        elif block.kind != "image" and (block.kind, block.level) != ("heading", 1):
            found.append(block)
    return found


def of_csv(path: Path) -> Table:
    """The first rows of a CSV file; what is certified is rounded up."""
    with open(path, newline="", encoding="utf-8") as stream:
        head, *rows = list(csv.reader(stream)) or [[]]
    shown = [
        [printed(name, cell) for name, cell in zip(head, row, strict=False)]
        + [""] * (len(head) - len(row))
        for row in rows[:MOST_ROWS]
    ]
    note = ""
    if len(rows) > MOST_ROWS:
        note = f"Shown are the first {MOST_ROWS} of {len(rows):,} rows; {path.name} has all."
    count = f"{len(rows):,} row{'s' * (len(rows) != 1)}"
    return Table(f"{path.name}, {count}", head, shown, sortable=True, note=note)


def printed(name: str, value: object) -> str:
    """A value for a cell: long fractions to six digits, upward if they are bounds."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    if re.fullmatch(r"-?\d*\.\d+(e[+-]?\d+)?", text) and len(text) > 8:
        certified = "bound" in name or "certificate" in name
        return up(float(text), 6) if certified else near(float(text), 6)
    return text


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder with their timings; none if records.csv is missing or of others."""
    path = folder / "records.csv"
    if not path.exists():
        return []
    try:
        records = records_from_csv(path)
    except ValueError:
        # Some studies call another table so.
        return []
    timings = _timings(folder / "timings.csv")
    return [record | timings.get(record["key"], {}) for record in records]


def _timings(path: Path) -> dict[str, dict[str, Any]]:
    """Seconds and hardware by key."""
    if not path.exists():
        return {}
    found: dict[str, dict[str, Any]] = {}
    with open(path, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            parts: dict[str, Any] = {"seconds": {}, "hardware": {}}
            for name, cell in row.items():
                part, _, field = str(name).partition(".")
                if part in parts and cell:
                    parts[part][field] = near(float(cell)) if part == "seconds" else cell
            found[row["key"]] = parts
    return found


def table_of_records(
    records: Sequence[Mapping[str, Any]], main: Sequence[str]
) -> tuple[Table, Markup, list[tuple[str, str]]]:
    """The table, all that is known of its rows as JSON, and what is the same in all of them.

    Measures that are columns of the study's `main` table come first.
    """
    shown = records[:MOST_RECORDS]
    while len(data := _data(shown)) > MOST_DATA and len(shown) > 1:
        shown = shown[: len(shown) // 2]
    configs, measures = _columns(shown, "config"), _columns(shown, "measures")
    firsts = [name for name in FIRST if name in configs]
    others = [name for name in configs if name not in (*FIRST, "seed")]
    last = ["seed"] if "seed" in configs else []
    configs = [*firsts, *others][: MOST_COLUMNS - len(last)] + last
    measures = sorted(measures, key=lambda name: main.index(name) if name in main else len(main))
    measures = measures[:MOST_COLUMNS]
    rows = [
        [record["key"], *(_config(name, record["config"].get(name)) for name in configs)]
        + [printed(name, record["measures"].get(name)) for name in measures]
        for record in shown
    ]
    note = "Where scripts run, its button shows all that is known of it; records.csv has it, too."
    if len(shown) < len(records):
        note += f" Shown are the first {len(shown):,} of {len(records):,} records."
    keys = [record["key"] for record in shown]
    count = f"records.csv, {len(records):,} record{'s' * (len(records) != 1)}"
    table = Table(count, ["key", *configs, *measures], rows, sortable=True, note=note, keys=keys)
    return table, data, _constants(shown)


def _config(name: str, value: object) -> str:
    return printed(name, widths(value) if name in FIRST else value)


def _fields(records: Sequence[Mapping[str, Any]], part: str) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record.get(part, ())))


def _values(records: Sequence[Mapping[str, Any]], part: str, name: str) -> list[Any]:
    return [record.get(part, {}).get(name) for record in records]


def _columns(records: Sequence[Mapping[str, Any]], part: str) -> list[str]:
    """Fields that differ between records and fit into a cell."""
    found = []
    for name in _fields(records, part):
        values = _values(records, part, name)
        shown = map(widths, values) if name in FIRST else values
        plain = not any(isinstance(value, dict | list) for value in shown)
        short = not any(isinstance(value, str) and HASH.fullmatch(value) for value in values)
        if plain and short and len(set(map(json.dumps, values))) > 1:
            found.append(name)
    return found


def _parts(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Every field with its values, one a record."""
    return [
        (f"{part}.{name}", _values(records, part, name))
        for part in ("config", "measures", "seconds", "hardware")
        for name in _fields(records, part)
    ]


def _constants(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    pairs = []
    for name, values in _parts(records):
        first = values[0]
        if all(value == first for value in values[1:]) and len(values) > 1:
            text = first if isinstance(first, str) else json.dumps(first, ensure_ascii=False)
            pairs.append((name, text))
    return pairs


def _data(records: Sequence[Mapping[str, Any]]) -> Markup:
    """Columns as JSON that may stand in a page; what repeats stands once."""
    columns = []
    for name, values in _parts(records):
        texts = [json.dumps(value, sort_keys=True) for value in values]
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        if len(places) > len(texts) / 2:
            columns.append({"name": name, "values": values})
        else:
            codes = [places[text] for text in texts]
            distinct = [json.loads(text) for text in places]
            columns.append({"name": name, "values": distinct, "codes": codes})
    text = json.dumps(columns, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def escaped(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Markup]]:
    """Names and values for a list of the page; what is no text as JSON."""
    return [
        (name, escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
        for name, value in pairs
    ]


def origin(
    folder: Path, about: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """How the study is run again: of which code, where, on which data."""
    command, versions = about.get("command"), dict(about.get("versions", {}))
    commit = versions.pop("commit", None)
    steps = [f"git checkout {commit}"] * bool(commit) + ["make venv"]
    seeds = about.get("seeds", about.get("seed"))
    drawn = {str(record["config"].get("seed", "")) for record in records} - {""}
    told = {
        "Data": about.get("sources", about.get("source")),
        "Seeds": seeds,
        "Seeds of the records": ", ".join(sorted(drawn, key=lambda text: (len(text), text))),
        "Commit": commit,
    }
    hardware = about.get("hardware", {})
    pairs = [(name, _words(value)) for name, value in told.items() if value not in (None, "")]
    pairs += [(MACHINE.get(name, name.capitalize()), _words(hardware[name])) for name in hardware]
    files = [path.name for path in sorted(folder.iterdir()) if path.is_file()]
    return {
        "command": command,
        "steps": [*steps, f".venv/bin/{command}"] if command else [],
        "origin": escaped(pairs),
        "versions": escaped(versions.items()),
        "others": escaped((name, value) for name, value in about.items() if name not in TOLD),
        "files": [name for name in files if name != PAGE and not name.startswith(".")],
    }


def _words(value: object) -> object:
    """A mapping as text, and no value as "none"."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(each)}" for key, each in value.items())
    return "none" if value is None else value
