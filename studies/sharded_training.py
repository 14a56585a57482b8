"""One model on several processes: does it train as by one, and how long does a step take?

Part one, equality: a BLRNet with statistics that move and with frozen ones, and a network made
binary by `pbnn.binarize`, with weights ±1 (BinaryNet) and ±α (XNOR-Net), each in float64 and
float32, by Adam and by SGD, trained by 1, 2 and 4 processes (gloo). Of every step the loss is
compared with one process's, of the end the parameters. The same losses to 1e-6 are asked for. Then
the network of one process is certified by `sharded_drawn_risks` of as many shards: the certificates
must be equal.

Part two, speed: seconds of single steps of larger networks, groups of 1, 2 and 4 processes one
after another and again, so that they meet the same load. One thread each.

    python studies/sharded_training.py             # reports/sharded_training, 10 minutes, two cores
    python studies/sharded_training.py --redraw    # page and figure again, from the CSV files
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from common import tasks_of, write_tables
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from sharded_runs import CASES, DTYPES, RATES, TIMEOUT
from spawned import together
from tabulate import tabulate

from pbnn.certificates import Certificate, verify
from pbnn.data import Splits, Task, cut
from pbnn.files import read_json, write_atomic, write_json
from pbnn.reporting.drawing import label_rows, make_panels, save
from pbnn.study import SCHEMA_VERSION, describe, run_study

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "sharded_training"
CAPTIONS = {
    "sharded_training": "Milliseconds of a training step by the number of processes: every step, "
    "and median and quartiles beside them.",
}
"""What its figures show."""
RUNS = Path(__file__).with_name("sharded_runs.py")
REQUIRED = 1e-6
"""Largest relative difference of a loss that is asked for."""
DELTA = 0.05


@dataclass(frozen=True)
class Config:
    """What to compare and to time, and where to write it."""

    dataset: str = "mnist"
    """Of mnist, fashion_mnist, digits."""
    processes: tuple[int, ...] = (1, 2, 4)
    """Numbers of processes; the first is what others are compared with, and must be 1."""
    architecture: str = "8C3-MP2-16C3-MP2-32FC-SM10"
    """Of the networks that are compared."""
    batch: int = 96
    """Of their steps; of ten an epoch the last one is a third smaller."""
    group: int = 500
    """Certification points that share a drawn network."""
    passes: int = 2
    """Drawn networks that every point meets."""
    timed_architecture: str = "32C3-MP2-64C3-MP2-128FC-SM10"
    """Of the networks that are timed."""
    timed_batch: int = 256
    """Of their steps."""
    steps: int = 5
    """Steps of a turn that are timed, after a first one that is not."""
    rounds: int = 4
    """Turns of each number of processes."""
    data_dir: Path | None = None
    """Folder with mnist/…; by default $PBNN_DATA, then the cache, then a download."""
    offline: bool = False
    """Do not try to download."""
    out: Path | None = None
    """Output folder; by default reports/sharded_training."""
    redraw: bool = False
    """Make page and figure again from the CSV files."""

    def __post_init__(self) -> None:
        if self.processes[:1] != (1,) or min(self.processes) < 1:
            raise ValueError(f"`processes` must be positive, 1 first, got {self.processes}.")
        for name in ("batch", "group", "passes", "timed_batch", "steps", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {getattr(self, name)}.")

    @property
    def plan(self) -> dict[str, Any]:
        """What processes are told."""
        compared = {"architecture": self.architecture, "batch": self.batch}
        compared |= {"group": self.group, "passes": self.passes}
        compared |= {"trained": 10 * self.batch - self.batch // 3}
        timed = {"architecture": self.timed_architecture, "batch": self.timed_batch}
        timed |= {"trained": (self.steps + 1) * self.timed_batch}
        told = {"compared": compared, "timed": timed}
        return told | {"processes": self.processes, "rounds": self.rounds}


def shared_out(config: Config, task: Task, splits: Splits, folder: Path) -> None:
    """Leave plan and points in the folder, and have processes of this machine do the rest there."""
    plan = config.plan
    for part in ("compared", "timed"):
        if plan[part]["trained"] > splits.n:
            raise ValueError(f"Batches must be of {splits.n} points, got {plan[part]}.")
        plan[part] |= {"delta": DELTA, "splits": splits.hashes(task)}
    write_atomic(folder / "plan.json", json.dumps(plan))
    tensors = {
        "certified": torch.from_numpy(task.x[splits.certification]),
        "labels": torch.from_numpy(task.y[splits.certification]),
        "prior": torch.from_numpy(task.x[splits.prior[:500]]),
    }
    save_file(tensors, folder / "points.safetensors")
    command = [sys.executable, "-W", "ignore", str(RUNS), str(folder)]
    turns = len(config.processes) * (1 + config.rounds)
    together(command, max(config.processes), turns=turns, timeout=4 * TIMEOUT)


def equality_rows(config: Config, folder: Path) -> list[dict[str, Any]]:
    """How far losses and parameters by several processes are from those by one."""
    rows = []
    for dtype, (place, case), optimiser in itertools.product(DTYPES, enumerate(CASES), RATES):
        files = [folder / f"{dtype}-{place}-{optimiser}-{count}" for count in config.processes]
        losses, states = zip(*map(read, files), strict=True)
        for count, loss, state in zip(config.processes[1:], losses[1:], states[1:], strict=True):
            row = {"case": case, "dtype": dtype, "optimiser": optimiser, "processes": count}
            off = (loss - losses[0]).abs() / losses[0].abs()
            kept = int((off <= REQUIRED).long().cumprod(0).sum())
            row |= {"steps": len(loss), "steps_kept": kept, "loss_off": off.max().item()}
            row["met"] = kept == len(loss)
            pairs = [(state[name], value) for name, value in states[0].items()]
            parameters = max((mine - one).abs().max().item() for mine, one in pairs)
            rows.append(row | {"parameters_off": parameters})
    return rows


def read(stem: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Losses and parameters of a training, in float64."""
    losses = json.loads(stem.with_name(f"{stem.name}.json").read_text())
    state = load_file(stem.with_name(f"{stem.name}.safetensors"))
    exact = {name: value.double() for name, value in state.items()}
    return torch.tensor(losses, dtype=torch.float64), exact


def certificate_rows(config: Config, folder: Path) -> list[dict[str, Any]]:
    """Certificates by number of shards, and whether they are that of one."""
    rows = []
    found = [Certificate.load(folder / f"certificate-{count}.json") for count in config.processes]
    for count, certificate in zip(config.processes, found, strict=True):
        verify(certificate)
        row: dict[str, Any] = {"processes": count, "n": certificate.n, "draws": certificate.draws}
        row |= {"risk": certificate.risk, "bound": certificate.bound}
        rows.append(row | {"equal": certificate == found[0]})
    return rows


def study(config: Config) -> Path:
    """Compare, time, write every table, and draw; returns the folder."""
    folder = config.out or REPORTS / NAME
    if config.redraw:
        draw(folder)
        return folder
    tasks, ending = tasks_of([config.dataset], config.data_dir, config.offline)
    folder = Path(f"{folder}{ending}")
    task = next(iter(tasks.values()))
    splits = cut(task, prior=0.5)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shared_out(config, task, splits, place)
        equal = pd.DataFrame(equality_rows(config, place))
        promised = pd.DataFrame(certificate_rows(config, place))
        seconds = pd.DataFrame(json.loads((place / "seconds.json").read_text()))
    write_tables(folder, equality=equal, certificates=promised, speed=seconds)
    about = describe(
        config,
        f"studies/{NAME}.py",
        ("data_dir", "offline", "out", "redraw"),
        source=task.source,
        compared=config.architecture,
        timed=f"{config.timed_architecture}, batch {config.timed_batch}",
    )
    write_json(folder / "study.json", about)
    draw(folder)
    return folder


def draw(folder: Path) -> None:
    """Write the page and the figure of a finished study."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    seconds = pd.read_csv(folder / "speed.csv")
    save(lambda: figure_of(seconds), folder / NAME)
    write_atomic(folder / f"{NAME}.md", page_of(about, folder, seconds))


def quartiles(seconds: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds of a step by case and number of processes, and how many there are of them."""
    of = seconds.assign(ms=1e3 * seconds["seconds"]).groupby(["case", "processes"], sort=False)
    names = {"least": 0.0, "first": 0.25, "median": 0.5, "third": 0.75}
    parts = {name: of["ms"].quantile(share) for name, share in names.items()}
    return pd.DataFrame(parts | {"steps": of.size()}).reset_index()


def figure_of(seconds: pd.DataFrame) -> Figure:
    """Every step, with median and quartiles, by number of processes: a panel for each case."""
    summary = quartiles(seconds)
    cases = list(dict.fromkeys(summary["case"]))
    figure, (panels,) = make_panels(len(cases), [1.0], height=2.0)
    for axes, case in zip(panels, cases, strict=True):
        of, mine = seconds[seconds["case"] == case], summary[summary["case"] == case]
        places = {count: place for place, count in enumerate(mine["processes"])}
        spots = of["processes"].map(places)
        axes.plot(spots - 0.18, 1e3 * of["seconds"], ".", color="0.7", markersize=2)
        spread = (mine["median"] - mine["first"], mine["third"] - mine["median"])
        axes.errorbar(range(len(mine)), mine["median"], spread, fmt="o-", markersize=3, capsize=2)
        axes.set_xticks(range(len(mine)), [str(count) for count in mine["processes"]])
        axes.set_xlim(-0.5, len(mine) - 0.5)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("processes")
        axes.set_title(case)
    label_rows(panels, "ms a step")
    return figure


def page_of(about: dict[str, Any], folder: Path, seconds: pd.DataFrame) -> str:
    """The page: equality, certificates, times."""
    equal = pd.read_csv(folder / "equality.csv")
    promised = pd.read_csv(folder / "certificates.csv")
    told = equal.assign(
        loss_off=[f"{value:.1e}" for value in equal["loss_off"]],
        met=["yes" if met else "no" for met in equal["met"]],
        parameters_off=[f"{value:.1e}" for value in equal["parameters_off"]],
    )
    head = ["", "numbers", "by", "processes", "steps", "within 1e-6 until", "losses off", "met"]
    shown = {"tablefmt": "pipe", "showindex": False, "disable_numparse": True}
    hardware = about["hardware"]
    same = "are equal" if promised["equal"].all() else "are NOT all equal"
    parts = [
        "# One model on several processes\n",
        f"`{about['command']}`, {hardware['cpu']}, {hardware['cores']} cores, one thread for each "
        f"process, gloo, torch {about['versions']['torch']}. {about['source']}.\n",
        "## The same training\n",
        f"Networks {about['compared']}. The largest relative difference of a step's loss from that "
        "by one process, and the largest difference of a parameter at the end. "
        f"{int(equal['met'].sum())} of {len(equal)} keep to the 1e-6 that is asked for.\n",
        tabulate(told, [*head, "parameters off"], **shown),  # type: ignore[arg-type]
        "\nLosses of binary networks jump where rounding turns a sign or a maximum, which it does "
        "in float32 after a few steps: gradients are sums whose order matters, and a latent weight "
        "next to 0 changes its sign by their last bit. Adam divides a gradient by its own size, "
        "also one that is nothing but rounding, as before batch normalisation that moves: "
        "parameters are further apart there.\n",
        "## The same certificate\n",
        f"Of the network of one process, in shards. They {same} in every figure.\n",
        tabulate(promised, "keys", tablefmt="pipe", showindex=False, floatfmt=".6g"),  # type: ignore[arg-type]
        "\n## Time of a step\n",
        f"Networks {about['timed']}, float32, by Adam. Groups in turn, on a machine that others "
        "may use too. More processes than cores cannot be faster.\n",
        tabulate(speed_lines(seconds), SPEED_HEAD, tablefmt="pipe", disable_numparse=True),
        f"\n![Milliseconds a step]({NAME}.svg)",
    ]
    return "\n".join(parts) + "\n"


SPEED_HEAD = ["", "processes", "steps", "median ms", "quartiles", "least", "times faster than one"]


def speed_lines(seconds: pd.DataFrame) -> list[list[str]]:
    """Rows of the table of times."""
    lines = []
    for case, rows in quartiles(seconds).groupby("case", sort=False):
        alone = rows["median"].iloc[0]
        for row in rows.to_dict("records"):
            line = [str(case), f"{row['processes']}", f"{row['steps']}", f"{row['median']:.0f}"]
            line += [f"{row['first']:.0f} – {row['third']:.0f}", f"{row['least']:.0f}"]
            lines.append([*line, f"{alone / row['median']:.2f}"])
    return lines


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
