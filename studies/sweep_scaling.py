"""How many workers a sweep can feed: what a run costs scheduler and study, and a simulation.

A sweep's runs are computed by workers side by side, but each result passes one scheduler, and one
process, the study, which writes its record and hands out the next run. Measured here, with a real
scheduler, a real study (`pbnn.sweep.run_cells`) and records of the size that they have: the seconds
that a run costs these two (runs that do nothing), and how runs that only sleep, for times that real
ones took, go on as many threads as said (`measured.csv`). With these costs and those times a
queueing simulation says what up to 1,000 workers gain, with records on this disk, in a shared
folder of 5 ms and in an object store of 50 ms a request (`simulated.csv`); where both exist, they
are compared. It should run on an idle machine and uses no cluster but its own.

    python studies/sweep_scaling.py            # reports/sweep_scaling, some minutes
    python studies/sweep_scaling.py --redraw   # simulated, drawn again from measured.csv
"""

from __future__ import annotations

import heapq
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
from common import write_tables
from fault_hosts import Host
from matplotlib.figure import Figure
from spawned import free_ports
from tabulate import tabulate
from tqdm import tqdm

from pbnn.files import read_json, write_atomic, write_json
from pbnn.reporting.drawing import look_of, make_panels, save
from pbnn.seeding import spawn_seed
from pbnn.study import SCHEMA_VERSION, describe, run_study
from pbnn.sweep import Cell, cell_key, run_cells, store

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "sweep_scaling"
CAPTIONS = {
    "sweep_scaling": "How many times faster a sweep is by its number of workers, simulated with "
    "measured costs and times, for three places of the records; dashed is the ideal.",
}
"""What its figures show."""
SOURCES = {
    "ads": ("sweep_faults/times.csv", ("seconds.training", "seconds.certificate")),
    "paper": ("pac_bound_mnist/timings.csv", ("seconds.training", "seconds.certificate")),
}
"""Where real runs say how long they took: 200 small ones, and those of a whole study."""
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
STORES = {"this disk": 0.0, "shared folder": 0.005, "object store": 0.1}
"""Seconds that a record takes besides those of this disk; an object store has two requests."""
EACH = 2
"""Runs that the study keeps with the scheduler for each worker; see pbnn.cluster."""
CURVE = 40
"""Points of a learning curve in a record here: it is then as large as one of the study `ads`."""


@dataclass(frozen=True)
class Config:
    """How much to measure and to simulate, and where to write."""

    threads: tuple[int, ...] = (1, 8, 64, 256)
    """Threads of the worker whose runs do nothing, or sleep."""
    nothing: int = 1_000
    """Runs that do nothing, for each number of threads."""
    turns: int = 6
    """Runs that sleep, for each thread."""
    simulated_turns: int = 30
    """Runs for each simulated worker."""
    seed: int = 0
    """Of which run takes how long."""
    out: Path | None = None
    """Output folder; by default reports/sweep_scaling."""
    redraw: bool = False
    """Simulate and draw again from what was measured."""

    def __post_init__(self) -> None:
        for name in ("nothing", "turns", "simulated_turns"):
            if (got := getattr(self, name)) < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {got}.")
        if not self.threads or min(self.threads) < 1:
            raise ValueError(f"`threads` must hold positive integers, got {self.threads}.")


class Costs(NamedTuple):
    """Seconds that each run costs the two processes that all runs pass."""

    scheduler: float
    study: float


def times_of(name: str) -> np.ndarray:
    """Seconds of real runs, training and certificate together, from a committed report."""
    file, columns = SOURCES[name]
    path = REPORTS / file
    if not path.exists():
        raise FileNotFoundError(f"{path} must hold times of runs: run its study first.")
    return pd.read_csv(path)[list(columns)].sum(axis=1).to_numpy()


def sleeping(cell: dict[str, Any]) -> dict[str, Any]:
    """A run that computes nothing, for as long as it is told."""
    time.sleep(cell["seconds"])
    curve = [{"epoch": epoch, "loss": 1 / (epoch + 3)} for epoch in range(CURVE)]
    return {"measures": {"bound_gibbs": 1 / 3}, "curve": curve}


def cells_of(seconds: Sequence[float]) -> list[Cell]:
    """Cells that sleep for these times."""
    configs = [{"seconds": float(each), "seed": seed} for seed, each in enumerate(seconds)]
    return [Cell(cell_key(config, {}), config) for config in configs]


def measure(threads: int, seconds: Sequence[float], work: Path) -> dict[str, float]:
    """Wall time of cells on so many threads, and the processor time of scheduler and study."""
    from distributed import Client

    at = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    listen = ["--host", "127.0.0.1", "--port", at.rpartition(":")[2], "--no-dashboard"]
    scheduler = Host([sys.executable, "-m", "dask", "scheduler", *listen], work / "scheduler", {})
    words = ["worker", at, "--nthreads", str(threads), "--no-dashboard", "--memory-limit", "0"]
    words += ["--local-directory", str(work / "dask")]
    worker = Host([sys.executable, "-m", "dask", *words], work / "worker", {})
    try:
        scheduler.start()
        worker.start()
        with Client(at, set_as_default=False, timeout=60) as client:
            client.wait_for_workers(1, timeout=120)
        assert scheduler.process is not None
        processes = [psutil.Process(scheduler.process.pid), psutil.Process()]
        before = [sum(process.cpu_times()[:2]) for process in processes]
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=work) as folder:
            run_cells(cells_of(seconds), sleeping, folder, scheduler=at, progress=False)
        wall = time.perf_counter() - began
        used = [sum(p.cpu_times()[:2]) - b for p, b in zip(processes, before, strict=True)]
    finally:
        worker.kill()
        scheduler.kill()
    return {"seconds": wall, "scheduler": used[0], "study": used[1]}


def store_seconds(work: Path, often: int = 200) -> float:
    """Median seconds of writing one record."""
    found = []
    for cell in cells_of([0.0] * often):
        result = sleeping(cell.config)
        began = time.perf_counter()
        store(cell, result, work / "stored")
        found.append(time.perf_counter() - began)
    return float(np.median(found))


def simulate(
    times: np.ndarray, workers: int, turns: int, costs: Costs, seed: int
) -> tuple[float, float]:
    """Seconds until all runs are stored, and the sum of their times.

    There are `workers` servers, and a scheduler and a study behind them all.

    A result waits for the scheduler, then for the study, which hands out the next run; the
    scheduler gives a worker that is free the next run that it has.
    """
    source = np.random.default_rng(spawn_seed(seed, "scaling", workers))
    runs = deque(source.choice(times, workers * turns).tolist())
    total = sum(runs)
    ready, free = deque(), workers
    handed, scheduler, study = min(EACH * workers, len(runs)), 0.0, 0.0
    events: list[tuple[float, int, str]] = []
    count = left = len(runs)
    for number in range(handed):  # paid for when their results are stored, like all others
        heapq.heappush(events, (0.0, number, "submitted"))
    while left:
        now, _, what = heapq.heappop(events)
        count += 1
        if what == "submitted":
            ready.append(runs.popleft())
        elif what == "computed":  # the scheduler is told, tells the study, and frees the worker
            scheduler = max(now, scheduler) + costs.scheduler
            heapq.heappush(events, (scheduler, count, "told"))
        elif what == "told":
            free += 1
            study = max(now, study) + costs.study
            left -= 1
            heapq.heappush(events, (study, count, "stored"))
        elif handed < workers * turns:
            handed += 1
            heapq.heappush(events, (now, count, "submitted"))
        while ready and free:
            free -= 1
            count += 1
            heapq.heappush(events, (now + ready.popleft(), count, "computed"))
    return study, total


def measured(config: Config, work: Path) -> Iterator[dict[str, Any]]:
    """Rows: runs that do nothing, then runs that sleep as long as those of `ads`."""
    times = times_of("ads")
    source = np.random.default_rng(spawn_seed(config.seed, "sleep"))
    for threads in tqdm(config.threads, desc="measured"):
        for kind, seconds in (
            ("nothing", np.zeros(config.nothing)),
            ("sleep", source.choice(times, threads * config.turns)),
        ):
            found = measure(threads, seconds, work)
            row = {"runs": kind, "threads": threads, "cells": len(seconds)} | found
            yield row | {"ideal": float(seconds.sum()) / threads}


def costs_of(found: pd.DataFrame) -> Costs:
    """From runs that do nothing on as many threads as there are: the rate of the slower one.

    The scheduler costs its processor time; the study what a run takes altogether.
    """
    nothing = found[found["runs"] == "nothing"]
    most = nothing.loc[nothing["threads"].idxmax()]
    return Costs(most["scheduler"] / most["cells"], most["seconds"] / most["cells"])


def simulated(config: Config, costs: Costs) -> Iterator[dict[str, Any]]:
    """Rows: what each number of workers gains, for each source of times and each store."""
    for name in SOURCES:
        times = times_of(name)
        for place, more in STORES.items():
            for workers in WORKERS:
                paid = Costs(costs.scheduler, costs.study + more)
                took, total = simulate(times, workers, config.simulated_turns, paid, config.seed)
                row = {"times": name, "mean": float(times.mean()), "store": place}
                row |= {"workers": workers, "seconds": took, "gain": total / took}
                yield row | {"efficiency": total / took / workers}


def study(config: Config) -> Path:
    """Measure and simulate, then write tables, page and figure; returns the folder."""
    folder = config.out or REPORTS / NAME
    if not config.redraw:
        with tempfile.TemporaryDirectory(prefix=NAME, ignore_cleanup_errors=True) as work:
            found = pd.DataFrame(measured(config, Path(work)))
            written = store_seconds(Path(work))
        costs = costs_of(found)
        write_tables(folder, measured=with_simulation(found, costs, config))
        more = {"costs": costs._asdict(), "store_seconds": written}
        write_json(
            folder / "study.json",
            describe(config, f"studies/{NAME}.py", ("out", "redraw"), **more),
        )
    found = pd.read_csv(folder / "measured.csv")
    write_tables(folder, simulated=pd.DataFrame(simulated(config, costs_of(found))))
    draw(folder)
    return folder


def with_simulation(found: pd.DataFrame, costs: Costs, config: Config) -> pd.DataFrame:
    """What was measured, beside what the simulation says of the same workers and runs."""
    times = times_of("ads")
    told = [
        simulate(times, row.threads, config.turns, costs, config.seed)[0]
        if row.runs == "sleep"
        else np.nan
        for row in found.itertuples()
    ]
    return found.assign(simulated=told)


def draw(folder: Path) -> None:
    """The page and the figure from the CSV files."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    found, rows = (pd.read_csv(folder / f"{name}.csv") for name in ("measured", "simulated"))
    page = page_of(about, found, rows)
    write_atomic(folder / "scaling.md", page)
    save(lambda: figure_of(rows), folder / NAME)
    print(page)


def page_of(about: dict[str, Any], found: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Costs, what was measured, and where each store saturates."""
    machine, costs = about["hardware"], about["costs"]
    each = found.assign(
        rate=found["cells"] / found["seconds"],
        scheduler=1e3 * found["scheduler"] / found["cells"],
        study=1e3 * found["study"] / found["cells"],
    )
    shown = each[["runs", "threads", "cells", "ideal", "seconds", "simulated", "rate"]].join(
        each[["scheduler", "study"]]
    )
    heads = [*shown.columns[:6], "runs/s", "scheduler, ms a run", "study, ms a run"]
    parts = [
        "# How many workers a sweep can feed",
        f"`{about['command']}`; {machine['cpu']}, {machine['cores']} cores, shared by the "
        "scheduler, the study and the worker.",
        "Measured. Seconds of a real sweep whose runs do nothing, or sleep as long as real ones "
        "took, on one worker with so many threads; ideal: without any costs; simulated: by the "
        "costs below; ms: processor time.",
        tabulate(shown.to_numpy().tolist(), heads, "pipe", floatfmt=".3g", missingval=""),
        f"A run costs the study {1e3 * costs['study']:.2g} ms in all, of which "
        f"{1e3 * about['store_seconds']:.2g} ms write its record, and the scheduler "
        f"{1e3 * costs['scheduler']:.2g} ms. So many workers keep these busy; before that, what a "
        "sweep of uneven runs loses are workers that wait for its last and longest ones:",
        saturation_table(rows, costs),
        f"![Gain against workers]({NAME}.svg)",
    ]
    return "\n\n".join(parts) + "\n"


def saturation_table(rows: pd.DataFrame, costs: dict[str, float]) -> str:
    """For each source of times and store: gains, and the number of workers past which none is."""
    table = []
    for (name, place), group in rows.groupby(["times", "store"], sort=False):
        mean, slowest = group["mean"].iloc[0], max(costs["scheduler"], costs["study"])
        full = mean / max(slowest, costs["study"] + STORES[str(place)])
        good = group.loc[group["efficiency"] >= 0.8, "workers"]
        by = group.set_index("workers")
        gains = [f"{by.loc[count, 'gain']:.0f}" for count in (64, 256, 1000)]
        most = int(good.max()) if len(good) else 0
        table.append((name, f"{mean:.1f}", place, *gains, most, f"{full:.0f}"))
    heads = ["times of", "mean s", "records in", "gain of 64", "of 256", "of 1,000"]
    return tabulate(table, [*heads, "efficiency 80% up to", "saturated at"], "pipe")


def figure_of(rows: pd.DataFrame) -> Figure:
    """Gain against workers, a panel for each source of times."""
    names = list(dict.fromkeys(rows["times"]))
    figure, (panels,) = make_panels(len(names), [1.0], height=2.4)
    for axes, name in zip(panels, names, strict=True):
        of = rows[rows["times"] == name]
        axes.plot(WORKERS, WORKERS, color="0.35", linestyle="--", linewidth=0.8, label="ideal")
        for place, line in of.groupby("store", sort=False):
            look = look_of(list(STORES), str(place))
            axes.plot(line["workers"], line["gain"], label=place, markersize=3, **look)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("workers")
        axes.set_title(f"{name}: {of['mean'].iloc[0]:.1f} s a run")
    panels[0].set_ylabel("times as fast as one")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
