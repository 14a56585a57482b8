"""The ledger of what was tried on a data set, so that choosing among it can be paid for."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pbnn.files import write_atomic

LEDGER = ("dataset", "configuration", "count", "note")


def record_tried(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Enter configurations whose results people saw into a ledger, each once.

    Parameters
    ----------
    path : path
        A CSV with the columns ``dataset, configuration, count, note``; made if missing. It has one
        writer at a time.
    rows : iterable of mappings
        ``dataset``; ``configuration``, the `pbnn.sweep.configuration_key`; ``count``, how many
        choices the row stands for (default 1); ``note`` (default empty). Entered again, a
        configuration keeps the larger count.

    Raises
    ------
    ValueError
        For an empty dataset or configuration, or a count that is no positive integer.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "tried.csv"
    >>> row = {"dataset": "mnist17", "configuration": "of method a"}
    >>> record_tried(path, [row, row])
    >>> record_tried(path, [row])
    >>> read_tried(path)
    {'mnist17': 1}
    """
    ledger = _read_ledger(path) if Path(path).exists() else {}
    for row in rows:
        _enter(ledger, row, "`rows`")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LEDGER)
    writer.writerows((*entry, count, note) for entry, (count, note) in sorted(ledger.items()))
    write_atomic(path, text.getvalue())


def read_tried(path: str | os.PathLike[str]) -> dict[str, int]:
    """How many choices a ledger charges to each data set (see `record_tried`)."""
    return _totals(_read_ledger(path))


def choices(paths: Iterable[str | os.PathLike[str]], dataset: str, floor: int = 1000) -> int:
    r"""Number of choices to charge to a certificate on a data set: :math:`\ln` of it is the price.

    The total count over the distinct configurations in all the ledgers, and at least `floor`.

    Examples
    --------
    >>> choices([], "mnist17")
    1000
    """
    if isinstance(floor, bool) or not isinstance(floor, int) or floor < 1:
        raise ValueError(f"`floor` must be a positive integer, got {floor!r}.")
    ledger: dict[tuple[str, str], tuple[int, str]] = {}
    for path in paths:
        _read_ledger(path, ledger)
    return max(floor, _totals(ledger).get(dataset, 0))


def _totals(ledger: Mapping[tuple[str, str], tuple[int, str]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for (dataset, _), (count, _) in sorted(ledger.items()):
        totals[dataset] = totals.get(dataset, 0) + count
    return totals


def _read_ledger(
    path: str | os.PathLike[str], ledger: dict[tuple[str, str], tuple[int, str]] | None = None
) -> dict[tuple[str, str], tuple[int, str]]:
    """Enter the rows of a file; a missing file is an error, as it would charge too little."""
    ledger = {} if ledger is None else ledger
    with open(path, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != LEDGER:
            raise ValueError(f"{path} must have the columns {LEDGER}, got {reader.fieldnames}.")
        for row in reader:
            _enter(ledger, row, f"{path}, line {reader.line_num}")
    return ledger


def _enter(
    ledger: dict[tuple[str, str], tuple[int, str]], row: Mapping[str, Any], where: str
) -> None:
    dataset, configuration = row.get("dataset"), row.get("configuration")
    if not (
        isinstance(dataset, str) and dataset and isinstance(configuration, str) and configuration
    ):
        raise ValueError(f"{where}: expected a dataset and a configuration, got {dict(row)!r}.")
    count = str(row.get("count", 1))
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        raise ValueError(f"{where}: `count` must be a positive integer, got {count!r}.")
    known_count, known_note = ledger.get((dataset, configuration), (0, ""))
    note = str(row.get("note") or known_note)
    ledger[dataset, configuration] = (max(int(count), known_count), note)
