"""Does a process that trains again and again grow? 2,000 short trainings in one, each certified.

Networks of six kinds in turn on the bundled 8x8 digits: PBGNet and ABNet for two classes, a BLRNet
and the packed vote of one for ten, a binarised convolutional network by every recipe, and one that
is packed. Each is trained by `fit` and certified; checkpoints are written and read. After each, the
process's resident memory, open file descriptors and threads are noted, and every 50 trainings, once
garbage is collected, the Python objects that are left.

Each training comes back after 120 others and must end in the same certificate, bit for bit.

    python studies/soak.py             # reports/soak, about 10 minutes on one idle core
    python studies/soak.py --redraw    # page and figure again, from the CSV files

A soak is one process: one that is interrupted keeps nothing and starts anew.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from common import write_tables
from matplotlib.figure import Figure
from scipy.stats import theilslopes
from soak_works import KINDS
from tabulate import tabulate
from tqdm.auto import tqdm

from pbnn.files import read_json, sha256, write_atomic, write_json
from pbnn.reporting.drawing import make_panels, save
from pbnn.study import SCHEMA_VERSION, describe, run_study

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "soak"
CAPTIONS = {
    "soak": "What the process holds against the trainings it has done: every quantity of which "
    "growth would be a leak; the dotted line is half of them.",
}
"""What its figures show."""
LIMITS = {"rss_mb": 2.0, "objects": 100.0, "fds": 1.0, "threads": 1.0}
"""Growth in 1,000 trainings that is none: 2 kB of memory a training, where the least network and
its optimiser take more, a tenth of an object, a thousandth of a descriptor or thread."""
LABELS = {
    "rss_mb": "resident memory, MB",
    "objects": "Python objects",
    "fds": "file descriptors",
    "threads": "threads",
}
SAMPLES = np.dtype(
    [
        ("training", "i8"),
        ("kind", "U16"),
        ("seed", "i8"),
        ("seconds", "f8"),
        ("certificate", "U16"),
        ("rss_mb", "f8"),
        ("objects", "i8"),
        ("fds", "i8"),
        ("threads", "i8"),
    ]
)
NOT_COUNTED = -1


@dataclass(frozen=True)
class Config:
    """How long to train, and where to write."""

    trainings: int = 2000
    """Trainings in all."""
    variants: int = 20
    """Of each kind, by seed, before they are repeated."""
    every: int = 50
    """Trainings between two counts of objects, and of a block whose median enters a slope."""
    out: Path | None = None
    """Output folder; by default reports/soak."""
    redraw: bool = False
    """Make page and figure again from the CSV files."""

    def __post_init__(self) -> None:
        for name in ("trainings", "variants", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {getattr(self, name)}.")
        if self.trainings < 8 * self.every:
            text = f"at least {8 * self.every}, four blocks a half, got {self.trainings}"
            raise ValueError(f"`trainings` must be {text}.")


def soaked(config: Config, works: Mapping[str, Any]) -> pd.DataFrame:
    """What the process holds after each training; works come in turn, with seeds of theirs.

    Room for all samples is taken beforehand, so that it does not grow by being watched.
    """
    process, names = psutil.Process(), list(works)
    opened = getattr(process, "num_fds", None) or process.num_handles
    samples = np.full(config.trainings, np.zeros((), SAMPLES))
    for index in tqdm(range(config.trainings), desc=NAME, disable=None):
        turn, place = divmod(index, len(names))
        kind, seed = names[place], turn % config.variants
        began = time.perf_counter()
        found = works[kind](seed)
        seconds = time.perf_counter() - began
        objects = NOT_COUNTED
        if (index + 1) % config.every == 0:
            gc.collect()
            objects = len(gc.get_objects())
        memory = process.memory_info().rss / 2**20
        digest = sha256(json.dumps(found, sort_keys=True).encode())[:16]
        counts = objects, opened(), process.num_threads()
        samples[index] = (index + 1, kind, seed, seconds, digest, memory, *counts)
    table = pd.DataFrame(samples)
    return table.assign(objects=table["objects"].astype("Int64").replace(NOT_COUNTED, pd.NA))


def growth(table: pd.DataFrame, every: int) -> pd.DataFrame:
    """First, middle and last values, and by how much each quantity grows in 1,000 trainings.

    By Theil and Sen, over medians of blocks of the second half, with a 95 % interval.
    """
    rows = []
    blocks = table.groupby((table["training"] - 1) // every)
    for name, limit in LIMITS.items():
        values = table[["training", name]].dropna()
        medians = blocks[name].median().astype(float).to_numpy()
        later = medians[len(medians) // 2 :]
        places = np.arange(len(later)) * every / 1000
        slope, _, low, high = theilslopes(later, places, alpha=0.95)
        middle = (values["training"] - len(table) / 2).abs().idxmin()
        shown = {"first": values.index[0], "middle": middle, "last": values.index[-1]}
        row = {"quantity": name} | {key: float(values[name][at]) for key, at in shown.items()}
        row |= {"slope": slope, "low": low, "high": high, "limit": limit}
        rows.append(row | {"verdict": verdict(low, high, limit)})
    return pd.DataFrame(rows)


def verdict(low: float, high: float, limit: float) -> str:
    """Whether it grows, from the interval of its slope and what is let pass."""
    if low > limit:
        return "grows"
    return "steady" if high <= limit else "undecided"


def study(config: Config) -> Path:
    """Train, write the tables, and draw; returns the folder."""
    folder = config.out or REPORTS / NAME
    if not config.redraw:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            table = soaked(config, KINDS)
            about = describe(config, f"studies/{NAME}.py", ("out", "redraw"))
        except KeyboardInterrupt:
            raise SystemExit("\nInterrupted. A soak is one process: start it anew.") from None
        finally:
            torch.set_num_threads(threads)
        write_tables(folder, table=table, growth=growth(table, config.every))
        write_json(folder / "study.json", about)
    draw(folder)
    return folder


def draw(folder: Path) -> None:
    """Write soak.md and the figure of a finished soak."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    table, grown = pd.read_csv(folder / "table.csv"), pd.read_csv(folder / "growth.csv")
    save(lambda: figure_of(table), folder / NAME)
    write_atomic(folder / f"{NAME}.md", page_of(about, table, grown))


def figure_of(table: pd.DataFrame) -> Figure:
    """Every quantity against the trainings that are done."""
    figure, (panels,) = make_panels(len(LIMITS), [1.0], height=1.9, share=False, across=2)
    for axes, name in zip(panels, LIMITS, strict=True):
        values = table[["training", name]].dropna()
        axes.plot(values["training"], values[name], linewidth=0.7)
        axes.axvline(len(table) / 2, color="0.6", linewidth=0.5, linestyle=":")
        axes.set_ylabel(LABELS[name])
        axes.set_xlabel("trainings")
        if (least := values[name].min()) == values[name].max():
            axes.set_ylim(least - 1, least + 1)
            axes.set_yticks([least])
    return figure


def page_of(about: dict[str, Any], table: pd.DataFrame, grown: pd.DataFrame) -> str:
    """The page: growth and verdicts, repeated trainings, kinds and times."""
    lines = []
    for row in grown.to_dict("records"):
        ends = [f"{row[key]:,.6g}" for key in ("first", "middle", "last")]
        slope = f"{row['slope']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
        lines.append([LABELS[row["quantity"]], *ends, slope, f"{row['limit']:g}", row["verdict"]])
    head = ["", "first", "middle", "last", "growth in 1,000 trainings", "let pass", "verdict"]
    kinds = table.groupby("kind", sort=False)["seconds"]
    times = [[kind, len(of), f"{of.median():.3f}", f"{of.max():.3f}"] for kind, of in kinds]
    distinct = table.groupby(["kind", "seed"])["certificate"].nunique()
    parts = [
        "# Trainings without end\n",
        f"`{about['command']}`, {about['hardware']['cpu']}, torch {about['versions']['torch']}, "
        "one thread.\n",
        f"{len(table):,} trainings with certificates in one process, "
        f"{table['seconds'].sum() / 60:.1f} minutes of them.\n",
        tabulate(lines, head, tablefmt="pipe", disable_numparse=True),
        "\nThe slope is Theil's and Sen's over the second half, of medians of blocks, with its "
        "95 % interval; that takes blocks for independent, which they are not quite. Steady: the "
        "interval ends at or below what is let pass; it grows if the interval begins above that. "
        "Objects are counted after garbage is collected, all else as it is.\n",
        f"![Memory, objects, descriptors, threads]({NAME}.svg)\n",
        "## The same again\n",
        f"{len(distinct)} different trainings, each {repetitions(table)}: "
        f"{int((distinct == 1).sum())} of them ended in one and the same certificate every time, "
        "bit for bit.\n",
        tabulate(
            times,
            ["kind", "trainings", "median seconds", "most"],
            tablefmt="pipe",
            disable_numparse=True,
        ),
    ]
    return "\n".join(parts) + "\n"


def repetitions(table: pd.DataFrame) -> str:
    """How often each different training was done."""
    counts = table.groupby(["kind", "seed"]).size()
    least, most = counts.min(), counts.max()
    return f"{least} times" if least == most else f"{least} to {most} times"


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
