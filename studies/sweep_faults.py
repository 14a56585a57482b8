"""A sweep on a cluster that breaks, beside the same sweep undisturbed: the same bytes in the end.

200 runs of `studies/pac_bound_mnist.py` (the task `ads` by default: each trains a network by its
bound for more than a second and certifies it) three times: by one worker of this machine, by two,
and on a dask cluster of a scheduler and three workers, each in a network of its own where this
process may make one. The third worker joins late; workers, and whole hosts, are killed by SIGKILL;
so is the process that drives the study; its disk is full for a while, and read-only. After each
end the same command is given again. The plan of faults is drawn by a seed: each comes a random
moment after a random number of finished runs. In the end every file that the study writes, but for
its times, must be that of the undisturbed sweep.

    python studies/sweep_faults.py            # reports/sweep_faults; about 20 minutes on two cores
    python studies/sweep_faults.py --redraw   # page and figure again, from the CSV files
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from common import write_tables
from fault_hosts import Disk, Host, administrator, networks
from matplotlib.figure import Figure
from spawned import free_ports
from tabulate import tabulate
from tqdm import tqdm

from pbnn.files import read_json, sha256, write_atomic, write_json
from pbnn.reporting.drawing import GREY, look_of, make_panels, save
from pbnn.seeding import spawn_seed
from pbnn.study import SCHEMA_VERSION, describe, run_study

STUDIES = Path(__file__).resolve().parent
REPORTS = STUDIES.parent / "reports"
NAME = "sweep_faults"
CAPTIONS = {
    "sweep_faults": "Finished runs of the disturbed sweep over time, with each fault where it "
    "struck.",
}
"""What its figures show."""
TIMES, PAGE = "timings.csv", "index.html"
"""The files that may differ: in both are seconds."""
UNDISTURBED, TWO, DISTURBED = "1 worker", "2 workers", "disturbed"
WORKER, HOST, CLIENT = "worker killed", "host killed", "client killed"
FULL, READ_ONLY, LATE = "disk full", "disk read-only", "worker joins late"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
HOSTS = ("scheduler", "first", "second", "third")
PATIENCE = 600.0
"""Seconds without a finished run that end the study."""


@dataclass(frozen=True)
class Config:
    """Which sweep, how many faults, and where to write."""

    datasets: tuple[str, ...] = ("ads",)
    """Tasks of the sweep; see studies/pac_bound_mnist.py."""
    methods: tuple[str, ...] = ("pbgnet",)
    """Its methods."""
    hidden: tuple[str, ...] = ("unit", "1", "50", "100")
    """Its networks."""
    preset: str = "paper"
    """Its preset."""
    seeds: int = 50
    """Runs of each configuration: with the other defaults 200 in all."""
    workers_killed: int = 8
    """How many times a worker is killed, which is started again where it was."""
    hosts_killed: int = 6
    """How many times all processes of a host are killed; another host takes its place."""
    clients_killed: int = 3
    """How many times the process that drives the study is killed."""
    disks: int = 2
    """How many times the disk is full, and how many times it is read-only."""
    seed: int = 0
    """Of the plan of faults."""
    data_dir: Path | None = None
    """Folder with ads/…; by default $PBNN_DATA, then the cache, then a download."""
    out: Path | None = None
    """Output folder; by default reports/sweep_faults."""
    redraw: bool = False
    """Page and figure again from the CSV files."""

    def __post_init__(self) -> None:
        for name in ("seeds", "workers_killed", "hosts_killed", "clients_killed", "disks", "seed"):
            if (got := getattr(self, name)) < (name == "seeds"):
                raise ValueError(f"`{name}` must be a natural number, got {got}.")


class Fault(NamedTuple):
    """What breaks: `delay` seconds after so many runs are finished."""

    after: int
    delay: float
    kind: str


def plan(config: Config, cells: int, disk: bool) -> list[Fault]:
    """The faults in order, spread over the sweep; those of the disk only where there is one."""
    often = {WORKER: config.workers_killed, HOST: config.hosts_killed}
    often |= {CLIENT: config.clients_killed, LATE: 1}
    often |= {FULL: config.disks, READ_ONLY: config.disks} if disk else {}
    source = np.random.default_rng(spawn_seed(config.seed, "faults"))
    kinds = [kind for kind, count in often.items() for _ in range(count)]
    # The last tenth is left alone: what breaks after the last run breaks nothing.
    afters = source.integers(1, max(2, int(0.9 * cells)), len(kinds)).tolist()
    delays = source.uniform(0, 2, len(kinds)).round(2).tolist()
    return sorted(map(Fault, afters, delays, kinds))


def command(config: Config, out: Path, *more: str) -> list[str]:
    """The sweep as a command."""
    words = [sys.executable, str(STUDIES / "pac_bound_mnist.py"), "--preset", config.preset]
    words += ["--datasets", *config.datasets, "--methods", *config.methods]
    words += ["--hidden", *config.hidden]
    words += ["--seeds", str(config.seeds), "--out", str(out), "--offline"]
    words += ["--data-dir", str(config.data_dir)] if config.data_dir else []
    return [*words, *more]


def finished(folder: Path) -> int:
    """Runs that are stored whole."""
    return sum(len(path.stem) == 16 for path in (folder / "runs").glob("*.json"))


def undisturbed(config: Config, work: Path, workers: int) -> float:
    """Seconds of the sweep by so many workers of this machine."""
    out = work / f"workers_{workers}"
    began = time.perf_counter()
    client = Host(
        command(config, out, "--workers", str(workers)), work / f"{out.name}.log", ONE_THREAD
    )
    client.start()
    try:
        assert client.process is not None
        if client.process.wait():
            raise RuntimeError(f"The undisturbed sweep failed:\n{client.tail()}")
    finally:
        client.kill()
    return time.perf_counter() - began


class Cluster:
    """Scheduler, workers and the client of one sweep, and what has happened to them."""

    def __init__(
        self, config: Config, work: Path, where: dict[str, tuple[str | None, str]], out: Path
    ) -> None:
        self.began, self.out, self.disk = time.perf_counter(), out, Disk(out)
        self.source = np.random.default_rng(spawn_seed(config.seed, "targets"))
        self.happened: list[dict[str, Any]] = []
        self.finished: list[tuple[float, int]] = []
        network, address = where["scheduler"]
        port = free_ports(1)[0]
        at = f"tcp://{address}:{port}"
        words = [sys.executable, "-m", "dask"]
        listen = ["--host", address, "--port", port, "--no-dashboard"]
        self.scheduler = Host([*words, "scheduler", *listen], work / "scheduler.log", {}, network)
        alone = ["--nthreads", "1", "--no-dashboard", "--memory-limit", "0"]
        alone += ["--local-directory", str(work / "dask")]
        self.workers = {
            name: Host(
                [*words, "worker", at, *alone, "--host", where[name][1]],
                work / f"{name}.log",
                ONE_THREAD,
                where[name][0],
            )
            for name in HOSTS[1:]
        }
        driver = command(config, out, "--scheduler", at)
        self.client = Host(driver, work / "client.log", ONE_THREAD)

    def start(self) -> None:
        """All but the worker that joins late."""
        self.scheduler.start()
        for name in HOSTS[1:3]:
            self.workers[name].start()
        self.client.start()

    def stop(self) -> None:
        """The end of all processes."""
        for host in (self.client, *self.workers.values(), self.scheduler):
            host.kill()

    def strike(self, fault: Fault) -> None:
        """Let one thing break, and mend it as its user would."""
        live = [name for name, host in self.workers.items() if host.alive]
        target = str(self.source.choice(live)) if fault.kind in (WORKER, HOST) else ""
        before, said = finished(self.out), ""
        if fault.kind == LATE:
            self.workers[HOSTS[3]].start()
        elif fault.kind == WORKER:
            said = "" if self.workers[target].kill_worker() else "it was not up"
        elif fault.kind == HOST:
            self.workers[target].kill()
            self.workers[target].start()
        elif fault.kind == CLIENT:
            self.client.kill()
            self.client.start()
        else:
            said = self.no_room(fault.kind)
        seconds = round(time.perf_counter() - self.began, 1)
        row = {"seconds": seconds, "finished": before, "fault": fault.kind, "target": target}
        self.happened.append(row | {"said": said})

    def no_room(self, kind: str) -> str:
        """The disk takes nothing, until the client has ended; what it said."""
        full = kind == FULL
        self.disk.fill() if full else self.disk.read_only(True)
        process = self.client.process
        assert process is not None
        try:
            code = process.wait(PATIENCE)
        finally:
            self.disk.free() if full else self.disk.read_only(False)
        said = self.client.tail().rpartition("error: ")[2]
        self.client.start()
        # Without the file's name, which is another each time.
        return f"status {code}, {said.partition(':')[0].strip()}"

    def follow(self, faults: list[Fault], cells: int) -> None:
        """Wait for the sweep, and let things break on the way."""
        waiting, last = list(faults), time.perf_counter()
        due: float | None = None
        with tqdm(total=cells, unit="run", desc=DISTURBED) as bar:
            while True:
                now, count = time.perf_counter(), finished(self.out)
                if not self.finished or count > self.finished[-1][1]:
                    self.finished.append((round(now - self.began, 1), count))
                    bar.update(count - bar.n)
                    last = now
                if waiting and count >= waiting[0].after and due is None:
                    due = now + waiting[0].delay
                if due is not None and now >= due and self.client.alive:
                    self.strike(waiting.pop(0))
                    due, last = None, time.perf_counter()
                elif not self.client.alive:
                    break
                if now - last > PATIENCE:
                    raise RuntimeError(f"No run ended in {PATIENCE:g} s:\n{self.client.tail()}")
                time.sleep(0.05)
        assert self.client.process is not None
        if self.client.process.wait() or waiting:
            raise RuntimeError(f"The disturbed sweep failed, {waiting}:\n{self.client.tail()}")


def compared(one: Path, other: Path) -> pd.DataFrame:
    """Every file that either folder has but for records and times, and whether both have it."""
    files = [path for folder in (one, other) for path in folder.iterdir() if path.is_file()]
    names = {path.name for path in files if not path.name.startswith(".")}
    rows = []
    for name in sorted(names - {TIMES, PAGE}):
        there = all((folder / name).exists() for folder in (one, other))
        contents = [(folder / name).read_bytes() for folder in (one, other)] if there else []
        same = there and contents[0] == contents[1]
        rows.append(
            {
                "file": name,
                "bytes": len(contents[0]) if there else 0,
                "same": same,
                "sha256": sha256(contents[0])[:16] if same else "",
            }
        )
    return pd.DataFrame(rows)


def leftovers(folder: Path) -> int:
    """Files that belong to no finished run, such as failures, and halves left by a kill."""
    runs = list((folder / "runs").iterdir())
    records = {path.stem for path in runs if path.suffix == ".json" and len(path.stem) == 16}
    halves = [path for path in folder.iterdir() if path.name.startswith(".")]
    return len(halves) + sum(path.stem not in records for path in runs)


def measured(config: Config, work: Path, folder: Path) -> dict[str, Any]:
    """Run the three sweeps and write their tables; what the page says besides."""
    seconds = {UNDISTURBED: undisturbed(config, work, 1), TWO: undisturbed(config, work, 2)}
    whole = work / "workers_1"
    cells = finished(whole)
    out, able = work / "disturbed", administrator()
    faults = plan(config, cells, able)
    with Disk(out).mounted(able), networks(HOSTS, able) as where:
        cluster = Cluster(config, work, where, out)
        try:
            cluster.start()
            cluster.follow(faults, cells)
        finally:
            cluster.stop()
        seconds[DISTURBED] = time.perf_counter() - cluster.began
        files = [
            compared(whole, other).assign(sweep=name)
            for name, other in ((TWO, work / "workers_2"), (DISTURBED, out))
        ]
        stray = leftovers(out)
    times = pd.read_csv(whole / TIMES)
    runs = pd.DataFrame({"sweep": seconds.keys(), "seconds": seconds.values()})
    write_tables(
        folder,
        faults=pd.DataFrame(cluster.happened),
        files=pd.concat(files),
        progress=pd.DataFrame(cluster.finished, columns=["seconds", "finished"]),
        sweeps=runs.assign(faults=[0, 0, len(cluster.happened)]),
        times=times[["method", "seed", "seconds.training", "seconds.certificate"]],
    )
    return {"cells": cells, "apart": able, "leftovers": stray}


def study(config: Config) -> Path:
    """Run the sweeps, then write tables, page and figure; returns the folder."""
    folder = config.out or REPORTS / NAME
    if not config.redraw:
        with tempfile.TemporaryDirectory(prefix=NAME, ignore_cleanup_errors=True) as work:
            more = measured(config, Path(work), folder)
        about = describe(config, f"studies/{NAME}.py", ("data_dir", "out", "redraw"), **more)
        write_json(folder / "study.json", about)
    draw(folder)
    return folder


def draw(folder: Path) -> None:
    """The page and the figure from the CSV files."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    tables = {
        name: pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
        for name in ("faults", "files", "progress", "sweeps", "times")
    }
    page = page_of(about, **tables)
    write_atomic(folder / "faults.md", page)
    save(lambda: figure_of(tables["progress"], tables["faults"]), folder / NAME)
    print(page)


def page_of(
    about: dict[str, Any],
    faults: pd.DataFrame,
    files: pd.DataFrame,
    progress: pd.DataFrame,
    sweeps: pd.DataFrame,
    times: pd.DataFrame,
) -> str:
    """What was run, the files compared, faults by kind, seconds."""
    machine, apart = about["hardware"], "each in a network namespace of its own"
    training, certificate = times["seconds.training"], times["seconds.certificate"]
    same = files.groupby("sweep", sort=False)["same"].agg(["sum", "count"])
    equal = "; ".join(f"{name}: {row['sum']} of {row['count']}" for name, row in same.iterrows())
    parts = [
        "# A sweep on a cluster that breaks",
        f"`{about['command']}`; {machine['cpu']}, {machine['cores']} cores. {about['cells']} runs, "
        f"each a training ({training.min():.2f} to {training.max():.2f} s, median "
        f"{training.median():.2f}) and its certificate (median {certificate.median():.2f} s). The "
        "cluster: a scheduler and three workers, "
        f"{apart if about['apart'] else 'processes of one network'}.",
        f"Files that are byte for byte those of one undisturbed worker: {equal}. Files of the "
        f"disturbed sweep that belong to no finished run, or were left half: {about['leftovers']}.",
        faults_table(faults),
        sweeps_table(sweeps),
        f"![Finished runs]({NAME}.svg)",
        "Compared were:",
        tabulate(files[["sweep", "file", "bytes", "same"]], "keys", "pipe", showindex=False),  # type: ignore[arg-type]
    ]
    return "\n\n".join(parts) + "\n"


def faults_table(faults: pd.DataFrame) -> str:
    """How often each kind struck, and how the study ended where it did by itself."""
    said = faults[faults["said"] != ""].groupby("fault", sort=False)["said"].unique()
    counts = faults["fault"].value_counts(sort=False)
    rows = [(kind, count, "; ".join(said.get(kind, []))) for kind, count in counts.items()]
    return tabulate([*rows, ("all", len(faults), "")], ("fault", "times", "note"), "pipe")


def sweeps_table(sweeps: pd.DataFrame) -> str:
    """Seconds of each sweep, beside those of one worker."""
    base = float(sweeps["seconds"].iloc[0])
    rows = [
        (row["sweep"], row["faults"], f"{row['seconds']:.0f}", f"{base / row['seconds']:.2f}")
        for row in sweeps.to_dict("records")
    ]
    return tabulate(rows, ("sweep", "faults", "seconds", "times as fast as one"), "pipe")


def figure_of(progress: pd.DataFrame, faults: pd.DataFrame) -> Figure:
    """Finished runs over time, with each fault where it struck."""
    figure, ((axes,),) = make_panels(1, [1.0], height=2.4)
    steps = progress["finished"]
    axes.plot(progress["seconds"], steps, color=GREY, linewidth=0.8, drawstyle="steps-post")
    order = list(dict.fromkeys(faults["fault"]))
    for kind, rows in faults.groupby("fault", sort=False):
        look = look_of(order, str(kind))
        axes.plot(
            rows["seconds"], rows["finished"], linestyle="none", markersize=4, label=kind, **look
        )
    axes.set_xlabel("seconds")
    axes.set_ylabel("finished runs")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
