"""What the studies of images share: where they run, their data, their runs, a finished folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from cells import KEPT, Runs
from safetensors.torch import save
from torch import Tensor

from pbnn.data import DataUnavailable, Splits, Task, embedded_twin, load, load_once
from pbnn.environment import environment
from pbnn.files import write_atomic, write_json
from pbnn.inputs import Points
from pbnn.methods import points_of
from pbnn.reporting import write_curves_csv, write_records_csv, write_timings_csv
from pbnn.study import describe
from pbnn.sweep import Cell

INSTEAD = "_digits"
"""Ending of the folder where the bundled digits had to do."""
FOLDERS = ("data_dir", "offline", *KEPT)
"""Fields of a configuration that change nothing in a result."""


@dataclass(frozen=True)
class Places(Runs):
    """Where a study runs and finds its data, and whether it only draws."""

    device: str = "cpu"
    """Where to train."""
    threads: int = 1
    """Of each run on a CPU."""
    data_dir: Path | None = None
    """Folder with mnist/…; by default $PBNN_DATA, then the cache, then a download."""
    offline: bool = False
    """Do not try to download."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seeds", "threads"):
            if (got := getattr(self, name, None)) is not None and got < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {got}.")
        if self.device != "cpu" and not torch.cuda.is_available():
            raise ValueError(f"`device` must be one that is there, got {self.device!r}, no CUDA.")


class Where(NamedTuple):
    """Where a run finds what it needs: all of it changes nothing in its results."""

    kept: Path
    """Folder of the records, and of what earlier runs kept for later ones."""
    data_dir: Path | None
    offline: bool
    device: str
    progress: bool
    """Whether to show a bar: of a run alone."""


def tasks_of(
    names: Sequence[str], data_dir: Path | None, offline: bool
) -> tuple[dict[str, Task], str]:
    """Those data sets that can be had, and an ending for the folder if none can be."""
    tasks = {}
    for name in names:
        try:
            tasks[name] = load(name, data_dir, offline=offline)
        except DataUnavailable as error:
            print(f"{error}\n\nGoing on without {name}.\n")
    if tasks:
        return tasks, ""
    print("Nothing is left: the 8x8 digits of scikit-learn instead. NOT MNIST.\n")
    return {"digits": load(embedded_twin(names[0]))}, INSTEAD


def loaded(
    cell: dict[str, Any],
    split_up: Callable[[Task], Splits],
    where: Where,
) -> tuple[Task, Points]:
    """The data of a cell in its parts, on the device and with the threads that it names."""
    torch.set_num_threads(cell["threads"])
    task = load_once(cell["dataset"], where.data_dir, where.offline)
    parts = split_up(task)
    if parts.hashes(task) != cell["splits"]:
        raise ValueError(f"`splits` must be those of the data, got others for {task.name}.")
    return task, points_of(task, parts, where.device)


def write_tables(folder: Path, **tables: pd.DataFrame) -> None:
    """Write each table as a CSV file of its name."""
    for name, table in tables.items():
        text = table.to_csv(index=False, lineterminator="\n", float_format="%.6g")
        write_atomic(folder / f"{name}.csv", text)


def about_run(cell: dict[str, Any], task: Task, seconds: dict[str, float]) -> dict[str, Any]:
    """What a record says besides its results: data, machine, times."""
    data = {"source": task.source, "sha256": task.sha256, "splits": cell["splits"]}
    return {"data": data, "hardware": environment()["hardware"], "seconds": seconds}


def files_of(state: Mapping[str, Tensor]) -> dict[str, bytes]:
    """A record's file of tensors, such as a network's state for the runs that come after it."""
    return {"safetensors": save({name: value.contiguous() for name, value in state.items()})}


def carry_out(
    config: Any,
    name: str,
    cells_of: Callable[[Any, dict[str, Task]], list[Cell]],
    run: Callable[..., dict[str, Any]],
    needs: str,
    draw: Callable[[Path], None],
    also: Callable[[list[dict[str, Any]], Path], None] | None = None,
) -> Path:
    """Run what is missing, write it down, `also` what a study has besides, and draw; the folder.

    A configuration that only redraws does no more than that.
    """
    folder: Path = config.folder
    if config.redraw:
        if not (folder / "records.csv").exists() and Path(f"{folder}{INSTEAD}").exists():
            folder = Path(f"{folder}{INSTEAD}")
        check_finished(folder)
        draw(folder)
        return folder
    tasks, ending = tasks_of(config.datasets, config.data_dir, config.offline)
    folder = Path(f"{folder}{ending}")
    records = run_all(config, cells_of(config, tasks), run, needs, folder)
    if also is not None:
        also(records, folder)
    write_description(config, name, tasks, folder)
    draw(folder)
    return folder


def run_all(
    config: Places,
    cells: Sequence[Cell],
    run: Callable[..., dict[str, Any]],
    needs: str,
    folder: Path,
) -> list[dict[str, Any]]:
    """Run what is missing and write the CSV files; cells that name another in `needs` come last."""
    config.announce(cells, folder)
    alone = config.workers is None and config.scheduler is None
    where = Where(config.kept_in(folder), config.data_dir, config.offline, config.device, alone)
    one = functools.partial(run, where=where)
    config.run([cell for cell in cells if cell.config[needs] is None], one, folder)
    records = config.run(cells, one, folder)
    write_records_csv(records, folder / "records.csv")
    write_curves_csv(records, folder / "curves.csv")
    write_timings_csv(records, folder / "timings.csv")
    return records


def write_description(config: Places, name: str, tasks: dict[str, Task], folder: Path) -> None:
    """Say in the folder which command, versions and sources its results are of."""
    sources = {dataset: task.source for dataset, task in tasks.items()}
    about = describe(config, f"studies/{name}.py", FOLDERS, sources=sources)
    write_json(folder / "study.json", about)


def check_finished(folder: Path) -> None:
    """Refuse to draw what was not run."""
    if not all((folder / name).exists() for name in ("study.json", "records.csv")):
        raise FileNotFoundError(f"{folder} holds no finished study: run it first.")
