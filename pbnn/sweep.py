"""Many runs: keys, atomic records, resuming, and the ledger of what was tried on a data set."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pbnn
from pbnn.files import check_schema_version, read_json, sha256, write_atomic, write_json

SCHEMA_VERSION = 1
PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "scikit-learn", "distributed")
LEDGER = ("dataset", "configuration", "count", "note")

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
    todo = missing(study, folder)
    if progress:
        from tqdm import tqdm

        with tqdm(total=len(study), initial=len(study) - len(todo), unit="run") as bar:
            for cell in todo:
                bar.set_description(cell.name)
                run_and_store(cell, run, folder)
                bar.update()
    else:
        for cell in todo:
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


def record_tried(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Enter configurations whose results people saw into a ledger, each once.

    Parameters
    ----------
    path : path
        A CSV with the columns ``dataset, configuration, count, note``; made if missing. It has one
        writer at a time.
    rows : iterable of mappings
        ``dataset``; ``configuration``, the `configuration_key`; ``count``, how many choices the
        row stands for (default 1); ``note`` (default empty). Entered again, a configuration keeps
        the larger count.

    Raises
    ------
    ValueError
        For an empty dataset or configuration, or a count that is no positive integer.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "tried.csv"
    >>> row = {"dataset": "mnist17", "configuration": configuration_key({"method": "a"})}
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


def environment() -> dict[str, dict[str, Any]]:
    """What a record says of where it was made: ``versions`` and ``hardware``, no names or paths.

    Examples
    --------
    >>> sorted(environment())
    ['hardware', 'versions']
    """
    versions: dict[str, Any] = {"python": platform.python_version(), "pbnn": pbnn.__version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    versions["commit"] = _commit()
    # Whoever runs without torch is not made to wait for its import.
    torch = sys.modules.get("torch")
    hardware = {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch else None,
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
    }
    return {"versions": versions, "hardware": hardware}


def _cpu() -> str:
    """Model of the processor, as its system names it."""
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _commit() -> str | None:
    """Commit of the checkout we run from; None elsewhere, even inside somebody else's checkout."""
    root = Path(__file__).resolve().parents[1]
    top = _output("git", "-C", str(root), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:
        return None
    return _output(
        "git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"
    )


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
