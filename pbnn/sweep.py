"""Many runs: keys, atomic records, resuming."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pbnn
from pbnn.cluster import check_place, run_on_cluster
from pbnn.files import check_schema_version, json_bytes, parse_json, sha256
from pbnn.stores import store_at

SCHEMA_VERSION = 1

Run = Callable[[dict[str, Any]], dict[str, Any]]
FAILED = "failed"
"""Suffix, before ``.json``, of what is kept of a cell that failed."""


class CellsFailed(RuntimeError):
    """Cells of a study failed; all others are finished, and their records are kept.

    Attributes
    ----------
    failures : list of dict
        As they are stored, see `failure_of`.
    """

    def __init__(self, failures: list[dict[str, Any]], folder: str | os.PathLike[str]) -> None:
        self.failures = failures
        shown = [f"{f['name']} ({f['key']}): {f['error']}" for f in failures[:3]]
        more = f"\nand {len(failures) - 3} more" if len(failures) > 3 else ""
        super().__init__(
            f"{len(failures)} runs failed, and all others are finished:\n"
            + "\n".join(shown)
            + f"{more}\nTheir tracebacks are in {folder}/*.{FAILED}.json; run them again with "
            "`retry_failed` (--retry-failed)."
        )


class Cell(NamedTuple):
    """One run of a study: the key of its record and its configuration (plain JSON)."""

    key: str
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """What a person calls the cell, such as ``mnist17/pbgnet/0``."""
        parts = [self.config.get(field) for field in ("dataset", "method", "hidden", "seed")]
        parts = ["-".join(map(str, p)) or "unit" if isinstance(p, list) else p for p in parts]
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
    workers: int | None = None,
    scheduler: str | os.PathLike[str] | None = None,
    retry_failed: bool = False,
) -> list[dict[str, Any]]:
    """Records of all cells, running only those that `folder` does not hold yet.

    Each finished run is written at once as ``<folder>/<key>.json``, whole or not at all, so that
    an interrupted study goes on where it stopped. A run that raises an error does not stop the
    others: it is written as ``<folder>/<key>.failed.json`` with its traceback, and not tried again
    unless `retry_failed` says so. Where a cell runs changes nothing in what it
    measures, if `run` draws from generators of its own only.

    Parameters
    ----------
    cells : sequence of Cell, or of (key, config)
        The study, with distinct keys.
    run : callable
        Takes a configuration and returns a record (``measures``, ``curve``, ...), plain JSON. Its
        ``files``, bytes by suffix, are no part of the record: they are written before it, as
        ``<folder>/<key>.<suffix>``. To run elsewhere than in this process it must be picklable by
        cloudpickle, and a script must start under ``if __name__ == "__main__":``.
    folder : path or address
        Where the records are kept: a folder, or an address that fsspec knows, such as
        ``s3://bucket/runs``. Only this process writes there.
    progress : bool
        Whether to show a progress bar with the name of the running cell, or, on a cluster, of the
        last one finished; where stderr is no terminal, a line for each that is finished.
    workers : int, optional
        Run on this many processes of this machine, with one thread each.
    scheduler : str or path, optional
        Run on the dask cluster with this scheduler: its address, such as ``tcp://host:8786``, or
        its scheduler file. Its workers need one thread each and the same version of this package.
    retry_failed : bool
        Whether to run again what has failed before.

    Returns
    -------
    list of dict
        The records as stored, in the order of `cells`.

    Raises
    ------
    ValueError
        For a key that is not 16 hexadecimal digits or occurs twice, a record of a newer schema,
        a result with a number that is not finite, or both `workers` and `scheduler`.
    CellsFailed
        When all others are finished, if cells failed, now or before: they raised an error, returned
        what cannot be stored, or their process died again each time it was tried elsewhere.
    OSError
        If a record cannot be written; what is finished is kept.

    Warns
    -----
    UserWarning
        Naming the file, for a damaged record or failure, which is run again.

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
    check_place(workers, scheduler)
    unfinished = {cell.key: cell for cell in missing(study, folder)}
    failures = {} if retry_failed else {key: failure_of(c, folder) for key, c in unfinished.items()}
    failed = {key: failure for key, failure in failures.items() if failure is not None}
    unfinished = {key: cell for key, cell in unfinished.items() if key not in failed}
    finished = len(study) - len(unfinished)
    with _bar(progress, len(study), finished) as show:

        def keep(key: str, result: Callable[[], dict[str, Any]]) -> None:
            cell = unfinished[key]
            with _named(cell):
                found = _outcome(result)
                if "error" not in found:
                    try:
                        store(cell, found["result"], folder)
                    except (TypeError, ValueError) as error:  # of what it returned, not the disk's
                        found = _told(error)
                if "error" in found:
                    failed[key] = store_failure(cell, found, folder)
            show(cell.name if key not in failed else f"{cell.name} failed", 1)

        # As they are stored: tuples become lists, wherever they run.
        configs = {key: json.loads(_canonical(cell.config)) for key, cell in unfinished.items()}
        attempt = functools.partial(_attempt, run)
        if workers is None and scheduler is None:
            for key, config in configs.items():
                show(unfinished[key].name, 0)
                keep(key, functools.partial(attempt, config))
        elif configs:
            run_on_cluster(attempt, configs, keep, workers=workers, scheduler=scheduler)
    if failed:
        raise CellsFailed([failed[cell.key] for cell in study if cell.key in failed], folder)
    return collect(study, folder)


def _attempt(run: Run, config: dict[str, Any]) -> dict[str, Any]:
    """What a run returns, or what it raised, where it ran."""
    try:
        return {"result": run(config)}
    except Exception as error:
        return _told(error)


def _told(error: BaseException) -> dict[str, Any]:
    kind = type(error).__name__
    return {"error": f"{kind}: {error}", "traceback": "".join(traceback.format_exception(error))}


def _outcome(result: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was attempted, or that its process died each time."""
    try:
        return result()
    except Exception as error:
        # By name, as the library that has it may not be there.
        if type(error).__name__ != "KilledWorker":
            raise
        return _told(error)


@contextlib.contextmanager
def _bar(progress: bool, total: int, finished: int) -> Iterator[Callable[[str, int], None]]:
    """A progress bar, to be told a name and how many more cells are finished; a line in a log."""
    if not progress:
        yield lambda name, more: None
        return
    if not sys.stderr.isatty():
        count = itertools.count(finished + 1)

        def tell(name: str, more: int) -> None:
            for _ in range(more):
                print(f"{next(count)}/{total} {name}", file=sys.stderr, flush=True)

        yield tell
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=finished, unit="run") as bar:

        def show(name: str, more: int) -> None:
            bar.set_description(name)
            bar.update(more)

        yield show


@contextlib.contextmanager
def _named(cell: Cell) -> Iterator[None]:
    """Let an error that is not of the cell say at which one it came."""
    try:
        yield
    except Exception as error:
        error.add_note(f"In cell {cell.name} ({cell.key}).")
        raise


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
    kept, name = store_at(folder), f"{cell.key}.json"
    path = kept.where(name)
    try:
        record = parse_json(kept.read(name), path, "run record", sys.maxsize)
    except FileNotFoundError:
        return None
    except ValueError as error:
        warnings.warn(f"{path} is damaged and is run again: {error}", stacklevel=2)
        return None
    check_schema_version(record["schema_version"], path, "run record", SCHEMA_VERSION)
    if not _is_of(record, cell):
        warnings.warn(f"{path} holds another cell and is run again.", stacklevel=2)
        return None
    return record


def _is_of(record: Mapping[str, Any], cell: Cell) -> bool:
    """Whether a stored record is that of a cell: also 1, 1.0 and true are told apart."""
    config = record.get("config")
    same = isinstance(config, dict) and _canonical(config) == _canonical(cell.config)
    return same and record.get("key") == cell.key


def store(cell: Cell, result: Mapping[str, Any], folder: str | os.PathLike[str]) -> None:
    """Write what a run returned: its files, then its record, each of them atomically."""
    head = {"schema_version": SCHEMA_VERSION, "key": cell.key, "config": cell.config}
    if not isinstance(result, Mapping):
        raise TypeError(f"`run` must return a mapping, got a {type(result).__name__}.")
    files = result.get("files", {})
    for suffix, data in files.items():
        # The record marks a cell as finished: no file may pass for it.
        if not re.fullmatch("[A-Za-z0-9]+", suffix) or suffix.lower() == "json":
            raise ValueError(f"`files` must have suffixes of letters and digits, got {suffix!r}.")
        if not isinstance(data, bytes):
            raise TypeError(f"`files` must hold bytes, got a {type(data).__name__}.")
    kept, apart = store_at(folder), {*head, "files"}
    record = json_bytes(head | {name: result[name] for name in result if name not in apart})
    for suffix, data in files.items():
        kept.write(f"{cell.key}.{suffix}", data)
    kept.write(f"{cell.key}.json", record)
    kept.remove(f"{cell.key}.{FAILED}.json")


def store_failure(
    cell: Cell, found: Mapping[str, Any], folder: str | os.PathLike[str]
) -> dict[str, Any]:
    """Write what is known of a cell that failed: its error and its traceback."""
    failure = {"schema_version": SCHEMA_VERSION, "key": cell.key, "name": cell.name}
    failure |= {"config": cell.config, "error": found["error"], "traceback": found["traceback"]}
    store_at(folder).write(f"{cell.key}.{FAILED}.json", json_bytes(failure))
    return failure


def failure_of(cell: Cell, folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What is stored of a cell's failure (``name``, ``error``, ``traceback``), or None if there is
    nothing or, with a warning, if it is damaged."""
    kept, name = store_at(folder), f"{cell.key}.{FAILED}.json"
    path = kept.where(name)
    try:
        failure = parse_json(kept.read(name), path, "failure", SCHEMA_VERSION)
    except FileNotFoundError:
        return None
    except ValueError as error:
        warnings.warn(f"{path} is damaged, and its cell is run again: {error}", stacklevel=2)
        return None
    texts = all(isinstance(failure.get(name), str) for name in ("name", "error", "traceback"))
    if not texts or not _is_of(failure, cell):
        warnings.warn(f"{path} is of no failure of its cell, which is run again.", stacklevel=2)
        return None
    return failure


def collect(cells: Iterable[Cell], folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The stored records in the order of the cells; a missing one is an error."""
    records = []
    for cell in cells:
        record = stored(cell, folder)
        if record is None:
            raise ValueError(f"`folder` must hold a record of each cell, got none of {cell.name}.")
        records.append(record)
    return records
