"""What training and certifying cost: time to a bound, growth with the work, memory.

Part one, `race`: seconds of training until the PAC-Bayes bound falls to that of a public re-run of
the reference code, for PBGNet as this package trains it (exact aggregate, batch 256) and for a
plain sampled one (T = 100 draws, batch 32), on the same machine in the same run, both by Adam at a
constant rate. Bounds are of the exact Gibbs risk at δ = .05 with nothing else charged, as the
re-run's; evaluating them is not timed.

Part two, `growth`: seconds and peak memory of an epoch, and of a certificate, as the width, the
depth and the number of points double, each in a process of its own, on random data.

It measures time and so runs one thing after another, without workers: leave it the machine alone.

    python studies/costs.py             # reports/costs, about 10 minutes on one idle core
    python studies/costs.py --redraw    # table and figure again, from the CSVs
"""

from __future__ import annotations

import csv
import io
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from tabulate import tabulate

from pbnn.bounds import maurer
from pbnn.data import DataUnavailable, embedded_twin, load, split
from pbnn.evaluation import risks
from pbnn.files import read_json, write_atomic, write_json
from pbnn.networks import ABNet, PBGNet, SignNetwork
from pbnn.objectives import BoundObjective
from pbnn.reporting.drawing import look_of, make_panels, save
from pbnn.sampled import SampledPBGNet
from pbnn.seeding import generator
from pbnn.study import describe, run_study
from pbnn.training import FitConfig, fit

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "costs"
CAPTIONS = {
    "growth": "Seconds of an epoch and of a certificate as one thing grows: width, depth, number "
    "of examples.",
}
"""What its figures show."""
SCHEMA_VERSION = 1
RERUN = {"mnist17": 0.0399, "mnist49": 0.1388, "mnist56": 0.0894}
DELTA = 0.05
HIDDEN = {
    "sampled, 10 hidden": (10,),
    "pbnn, 10 hidden": (10,),
    "sampled, 1 hidden": (1,),
    "pbnn, 1 hidden": (1,),
    "pbnn, no hidden": (),
}
FEATURES = 784
BASE = {"width": 100, "depth": 1, "n": 10_000}
DOUBLED = {
    "width": (50, 100, 200, 400),
    "depth": (1, 2, 4),
    "n": (5_000, 10_000, 20_000, 40_000),
}
WORK = ("epoch", "certificate")


@dataclass(frozen=True)
class Config:
    """What to measure, and where to write it."""

    datasets: tuple[str, ...] = ("mnist17", "mnist56")
    """Tasks of the race."""
    seeds: int = 3
    """Races on each task."""
    epochs: int = 40
    """Epochs after which a competitor is out."""
    repeats: int = 2
    """Measurements of each point of the growth; the least is kept."""
    data_dir: Path | None = None
    """Folder with mnist/…; by default $PBNN_DATA, then the cache, then a download."""
    offline: bool = False
    """Do not try to download."""
    out: Path | None = None
    """Output folder; by default reports/costs."""
    redraw: bool = False
    """Make table and figure again from the CSV files."""

    def __post_init__(self) -> None:
        for field in ("seeds", "epochs", "repeats"):
            if getattr(self, field) < 1:
                raise ValueError(f"`{field}` must be positive, got {getattr(self, field)}.")
        if not self.datasets:
            raise ValueError("`datasets` must name one or more tasks, got none.")
        for dataset in self.datasets:
            embedded_twin(dataset)


def race(config: Config) -> Iterator[dict[str, Any]]:
    """Seconds of training to the re-run's bound, for both competitors."""
    for dataset in config.datasets:
        task = load(dataset, config.data_dir, offline=config.offline)
        parts = split(task, feature=min(500, len(task.y) // 20))
        x, y = (torch.from_numpy(a[parts.certification]) for a in (task.x, task.y))
        centre = torch.from_numpy(task.x[parts.feature]).mean(0)
        target = RERUN.get(dataset, 0.5)
        for seed in range(config.seeds):
            for name in HIDDEN:
                network, step = competitor(name, seed, centre)
                seconds, epochs, bound = to_bound(network, step, x, y, target, config.epochs, seed)
                yield {
                    "dataset": dataset,
                    "seed": seed,
                    "competitor": name,
                    "target": target,
                    "reached": bound <= target,
                    "seconds": seconds,
                    "epochs": epochs,
                    "bound": bound,
                }


def competitor(name: str, seed: int, centre: torch.Tensor) -> tuple[PBGNet, FitConfig]:
    """A network and how it is trained for one epoch: the same centred inputs for all."""
    source, hidden = generator(seed, "prior"), HIDDEN[name]
    if name.startswith("sampled"):
        draws = {"draws": 100, "source": generator(seed, "draws")}
        network = SampledPBGNet(centre.numel(), hidden, shift=centre, generator=source, **draws)
        return network, FitConfig(1, 32, 0.01)
    network = PBGNet(centre.numel(), hidden, shift=centre, generator=source)
    return network, FitConfig(1, 256, 0.03)


def to_bound(
    network: PBGNet,
    step: FitConfig,
    x: torch.Tensor,
    y: torch.Tensor,
    target: float,
    epochs: int,
    seed: int,
) -> tuple[float, int, float]:
    """Training seconds, epochs and bound when the target is reached or the epochs are over."""
    objective = BoundObjective(network, len(x), DELTA)
    optimiser = torch.optim.Adam(objective.parameters(), lr=step.learning_rate)
    source = generator(seed, "batches")
    seconds, bound, done = 0.0, 1.0, 0
    while done < epochs and bound > target:
        start = time.perf_counter()
        for index in torch.randperm(len(x), generator=source).split(step.batch):
            loss, _ = objective(x[index], y[index])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        seconds, done = seconds + time.perf_counter() - start, done + 1
        kl = network.kl().item()
        bound = float(maurer(risks(network, x, y).gibbs, kl, len(x), delta=DELTA))
    return seconds, done, bound


def growth(config: Config) -> Iterator[dict[str, Any]]:
    """Seconds and peak memory of each work as one size doubles, in fresh processes."""
    context = multiprocessing.get_context("spawn")
    for varied, values in DOUBLED.items():
        for network in ("PBGNet", "ABNet") if varied == "depth" else ("PBGNet",):
            for value in values:
                sizes = BASE | {varied: value}
                for work in WORK:
                    jobs = [(network, sizes, work)] * config.repeats
                    # One task a process: a process keeps the memory it once had.
                    with context.Pool(1, maxtasksperchild=1) as pool:
                        found = pool.starmap(measure, jobs, chunksize=1)
                    yield {
                        "varied": varied,
                        "value": value,
                        "network": network,
                        "work": work,
                        "seconds": min(seconds for seconds, _ in found),
                        "megabytes": statistics.median(peak for _, peak in found),
                    }


def measure(name: str, sizes: dict[str, int], work: str) -> tuple[float, float]:
    """Seconds of the work, and the peak memory in megabytes of this process, which did no other."""
    torch.set_num_threads(1)
    kind: type[SignNetwork] = {"PBGNet": PBGNet, "ABNet": ABNet}[name]
    n, hidden = sizes["n"], (sizes["width"],) * sizes["depth"]
    network = kind(FEATURES, hidden, generator=generator(0, "prior"))
    x = torch.rand(n, FEATURES, generator=generator(0, "x"))
    y = torch.where(x[:, 0] > 0.5, 1.0, -1.0)
    objective = BoundObjective(network, n, DELTA)
    few = min(n, 500)
    fit(objective, x[:few], y[:few], FitConfig(1, 256, 1e-3), generator=generator(0, "warm"))
    start = time.perf_counter()
    if work == "epoch":
        fit(objective, x, y, FitConfig(1, 256, 1e-3), generator=generator(0, "batches"))
    else:
        risks(network, x, y, draws=10 * n, generator=generator(0, "draws"))
    return time.perf_counter() - start, peak_megabytes()


def peak_megabytes() -> float:
    """Largest resident size of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # On Linux the other figure is inherited from the process that started us.
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def study(config: Config) -> Path:
    """Measure, then write the CSV files, the table and the figure; returns the folder."""
    folder = config.out or REPORTS / NAME
    if not config.redraw:
        torch.set_num_threads(1)
        try:
            runs = list(race(config))
        except DataUnavailable as error:
            raise SystemExit(f"error: {error}") from None
        write_rows(runs, folder / "race.csv")
        write_rows(list(growth(config)), folder / "growth.csv")
        about = describe(config, f"studies/{NAME}.py", ("data_dir", "out", "redraw"))
        write_json(folder / "study.json", about)
    draw(folder)
    return folder


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def draw(folder: Path) -> None:
    """Table and figure from the CSV files."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    runs, grown = pd.read_csv(folder / "race.csv"), pd.read_csv(folder / "growth.csv")
    machine = about["hardware"]
    head = f"{machine['cpu']}, {machine['cores']} cores; one thread."
    page = f"{head}\n\n{race_table(runs)}\n\n{growth_table(grown)}\n"
    write_atomic(folder / "costs.md", page)
    save(lambda: figure_of(grown), folder / "growth")
    print(page)


def race_table(runs: pd.DataFrame) -> str:
    """Mean seconds to the target, or the bound where it was not reached."""
    rows = []
    for (dataset, name), group in runs.groupby(["dataset", "competitor"], sort=False):
        seconds = f"{group['seconds'].mean():.2f} ± {group['seconds'].std(ddof=1):.2f}"
        reached = f"{int(group['reached'].sum())} of {len(group)}"
        bound = f"{group['bound'].mean():.4f}"
        epochs = f"{group['epochs'].mean():.0f}"
        rows.append(
            (dataset, f"{group['target'].iloc[0]:.4f}", name, reached, seconds, epochs, bound)
        )
    headers = ("task", "bound to reach", "competitor", "reached", "seconds", "epochs", "bound then")
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def growth_table(grown: pd.DataFrame) -> str:
    """Seconds, megabytes and the factor from one size to the next."""
    rows = []
    for (varied, network, work), group in grown.groupby(["varied", "network", "work"], sort=False):
        before = np.nan
        for row in group.to_dict("records"):
            factor = "" if np.isnan(before) else f"{row['seconds'] / before:.2f}"
            before = row["seconds"]
            rows.append(
                (
                    varied,
                    row["value"],
                    network,
                    work,
                    f"{row['seconds']:.3f}",
                    factor,
                    f"{row['megabytes']:.0f}",
                )
            )
    headers = ("varied", "value", "network", "work", "seconds", "factor", "peak MB")
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def figure_of(grown: pd.DataFrame) -> Figure:
    """Seconds against each size, both axes logarithmic."""
    figure, (panels,) = make_panels(len(DOUBLED), [1.0], height=2.1)
    lines = list(dict.fromkeys(zip(grown["network"], grown["work"], strict=True)))
    for axes, varied in zip(panels, DOUBLED, strict=True):
        mine = grown[grown["varied"] == varied]
        for network, work in lines:
            rows = mine[(mine["network"] == network) & (mine["work"] == work)]
            look = look_of([str(line) for line in lines], str((network, work)))
            axes.plot(rows["value"], rows["seconds"], label=f"{network}, {work}", **look)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        values = list(DOUBLED[varied])
        axes.set_xticks(values, [str(value) for value in values])
        axes.set_xlabel(varied)
    panels[0].set_ylabel("seconds")
    # Both networks run where the depth varies.
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
