"""Many runs: keys, atomic records, resuming."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pbnn
from pbnn.files import check_schema_version, read_json, sha256, write_json

SCHEMA_VERSION = 1

Run = Callable[[dict[str, Any]], dict[str, Any]]


class Cell(NamedTuple):
    """One run of a study: the key of its record and its configuration (plain JSON)."""

    key: str
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """What a person calls the cell, such as ``mnist17/pbgnet/0``."""
        parts = [self.config.get(field) for field in ("dataset", "method", "seed")]
        return "/".join(str(part) for part in parts if part is not None) or self.key


def cell_key(config: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Key of a run: 16 hexadecimal digits of the SHA-256 of all that determines its result.

    These are the configuration, the version of this package and the hashes of the data.

    Parameters
    ----------
    config : mapping
        The configuration, plain JSON.
    data : mapping
        What identifies the data, such as ``{"sha256": ..., "splits": {...}}``. Its ``source`` is
        a text for people and does not enter the key.

    Raises
    ------
    TypeError
        If something is not plain JSON.
    ValueError
        If a number is not finite.

    Examples
    --------
    >>> data = {"sha256": "ab", "splits": {}}
    >>> len(cell_key({"dataset": "digits17", "seed": 0}, data))
    16
    >>> cell_key({"a": 1, "b": 2}, data) == cell_key({"b": 2, "a": 1}, data)
    True
    """
    hashes = {name: value for name, value in data.items() if name != "source"}
    content = {"config": config, "version": pbnn.__version__, "data": hashes}
    return sha256(_canonical(content))[:16]


def configuration_key(config: Mapping[str, Any]) -> str:
    """Key of a configuration without its seed, as the ledger of tried configurations counts it.

    The version of the package enters: code changed after a look at the data is another choice.

    Examples
    --------
    >>> configuration_key({"method": "a", "seed": 0}) == configuration_key({"method": "a"})
    True
    """
    return cell_key({name: value for name, value in config.items() if name != "seed"}, {})


def _canonical(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except TypeError as error:
        raise TypeError(f"`config` and `data` must be plain JSON: {error}.") from error
    except ValueError as error:
        raise ValueError(f"`config` and `data` must hold finite numbers: {error}.") from error


def run_cells(
    cells: Sequence[Cell | tuple[str, dict[str, Any]]],
    run: Run,
    folder: str | os.PathLike[str],
    *,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Records of all cells, running only those that `folder` does not hold yet.

    Each finished run is written at once as ``<folder>/<key>.json``, whole or not at all, so that
    an interrupted study goes on where it stopped.

    Parameters
    ----------
    cells : sequence of Cell, or of (key, config)
        The study, with distinct keys.
    run : callable
        Takes a configuration and returns a record (``measures``, ``curve``, ...), plain JSON.
    folder : path
        Where the records are kept.
    progress : bool
        Whether to show a progress bar with the name of the running cell.

    Returns
    -------
    list of dict
        The records as stored, in the order of `cells`.

    Raises
    ------
    ValueError
        For a key that is not 16 hexadecimal digits or occurs twice, a record of a newer schema,
        or a result with a number that is not finite.

    Warns
    -----
    UserWarning
        Naming the file, for a damaged record, which is run again.

    Examples
    --------
    >>> import tempfile
    >>> config = {"method": "constant", "seed": 0}
    >>> cells = [Cell(cell_key(config, {}), config)]
    >>> folder = tempfile.mkdtemp()
    >>> records = run_cells(cells, lambda c: {"measures": {"n": 3}}, folder, progress=False)
    >>> records == run_cells(cells, lambda c: 1 / 0, folder, progress=False)
    True
    """
    study = check_cells(cells)
    unfinished = missing(study, folder)
    if progress:
        from tqdm import tqdm

        with tqdm(total=len(study), initial=len(study) - len(unfinished), unit="run") as bar:
            for cell in unfinished:
                bar.set_description(cell.name)
                run_and_store(cell, run, folder)
                bar.update()
    else:
        for cell in unfinished:
            run_and_store(cell, run, folder)
    return collect(study, folder)


def check_cells(cells: Iterable[Cell | tuple[str, dict[str, Any]]]) -> list[Cell]:
    """The cells as `Cell`, refusing keys that are no keys or occur twice."""
    study = [Cell(*cell) for cell in cells]
    seen: set[str] = set()
    for key, _ in study:
        if len(key) != 16 or not set(key) <= set("0123456789abcdef"):
            raise ValueError(f"`cells` must have keys of 16 hexadecimal digits, got {key!r}.")
        if key in seen:
            raise ValueError(f"`cells` must have distinct keys, got {key!r} twice.")
        seen.add(key)
    return study


def missing(cells: Iterable[Cell], folder: str | os.PathLike[str]) -> list[Cell]:
    """The cells without a sound record in `folder`, in order."""
    return [cell for cell in cells if stored(cell, folder) is None]


def stored(cell: Cell, folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The record of a cell, or None if there is none or, with a warning, if it is damaged."""
    path = Path(folder) / f"{cell.key}.json"
    try:
        record = read_json(path, "run record", sys.maxsize)
    except FileNotFoundError:
        return None
    except ValueError as error:
        warnings.warn(f"{path} is damaged and is run again: {error}", stacklevel=2)
        return None
    check_schema_version(record["schema_version"], str(path), "run record", SCHEMA_VERSION)
    if record.get("key") != cell.key or record.get("config") != json.loads(_canonical(cell.config)):
        warnings.warn(f"{path} holds another cell and is run again.", stacklevel=2)
        return None
    return record


def run_and_store(cell: Cell, run: Run, folder: str | os.PathLike[str]) -> Path:
    """Run one cell and write its record atomically; an error says which cell it came from."""
    try:
        result = run(json.loads(_canonical(cell.config)))
        head = {"schema_version": SCHEMA_VERSION, "key": cell.key, "config": cell.config}
        path = Path(folder) / f"{cell.key}.json"
        write_json(path, head | {name: result[name] for name in result if name not in head})
    except Exception as error:
        error.add_note(f"In cell {cell.name} ({cell.key}).")
        raise
    return path


def collect(cells: Iterable[Cell], folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The stored records in the order of the cells; a missing one is an error."""
    records = []
    for cell in cells:
        record = stored(cell, folder)
        if record is None:
            raise ValueError(f"`folder` must hold a record of each cell, got none of {cell.name}.")
        records.append(record)
    return records
