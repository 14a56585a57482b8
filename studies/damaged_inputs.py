"""What becomes of damaged and forged inputs: thousands of each kind, and how readers take them.

Sound inputs of every kind (arguments and command lines, data files, certificates, checkpoints,
packed networks, records of runs) are cut, turned bit by bit, overwritten, and changed field by
field, from a seed, and read. Counted is what comes of it:

- refused: an error that is documented and says what is wrong; of a record, that it is run again;
- harmless: accepted, and what was read is what the sound input says;
- no checksum: accepted as another sound input, which no reader without a checksum could tell;
- crash: any other error, or more than five seconds or a gigabyte;
- silent: accepted with another meaning, where an independent check sees that it is none.

    python studies/damaged_inputs.py           # reports/damaged_inputs, some minutes on one core
    python studies/damaged_inputs.py --redraw  # the page again, from table.csv
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
from damaged_arguments import bounds, command_lines, objects
from damaged_cases import CRASH, OUTCOMES, SILENT, Case, outcome
from damaged_data import idx_files, image_folders, record_files, tables, verified_files
from damaged_networks import checkpoints, packed_files, resume_files
from damaged_records import certificates, run_failures, run_records
from tabulate import tabulate
from tqdm import tqdm

from pbnn.files import read_json, write_atomic, write_json
from pbnn.study import SCHEMA_VERSION, describe, run_study

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "damaged_inputs"
Kind = Callable[[Random, Path], Iterator[Case]]
KINDS: dict[str, Kind] = {
    "command lines of studies": command_lines,
    "arguments of classes and functions": objects,
    "arguments of bounds": bounds,
    "IDX files": idx_files,
    "files with a known hash": verified_files,
    "files of image records": record_files,
    "CSV files": tables,
    "folders of images": image_folders,
    "certificates": certificates,
    "checkpoints": checkpoints,
    "files to resume from": resume_files,
    "packed files": packed_files,
    "records of runs": run_records,
    "failures of runs": run_failures,
}
"""Damaged inputs without end, by what they were."""


@dataclass(frozen=True)
class Config:
    """How many inputs to damage, and where to write what became of them."""

    inputs: int = 2000
    """Of each kind."""
    seed: int = 0
    """Of all damage."""
    out: Path | None = None
    """Output folder; by default reports/damaged_inputs."""
    redraw: bool = False
    """Make the page again from table.csv."""

    def __post_init__(self) -> None:
        for field, least in (("inputs", 1), ("seed", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"`{field}` must be at least {least}, got {getattr(self, field)}.")


def attack(
    kinds: Mapping[str, Kind], inputs: int, seed: int, progress: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of counts, one for each kind and damage, and what is known of the faults."""
    rows, faults = [], []
    with (
        tqdm(total=inputs * len(kinds), disable=not progress, unit="input") as bar,
        tempfile.TemporaryDirectory() as folder,
    ):
        for number, (kind, cases) in enumerate(kinds.items()):
            bar.set_description(kind)
            (place := Path(folder) / str(number)).mkdir()
            counts: dict[str, Counter[str]] = {}
            for case in itertools.islice(cases(Random(f"{seed} {kind}"), place), inputs):
                found, what = outcome(case)
                counts.setdefault(case.damage, Counter())[found] += 1
                if found in (CRASH, SILENT):
                    about = {"kind": kind, "damage": case.damage, "outcome": found}
                    faults.append(about | {"what": what})
                bar.update()
            for damage, counted in sorted(counts.items()):
                row = {"kind": kind, "damage": damage, "inputs": counted.total()}
                rows.append(row | {name: counted[name] for name in OUTCOMES})
    return rows, faults


def study(config: Config) -> Path:
    """Damage and read, then write table and page; returns the folder."""
    folder = config.out or REPORTS / NAME
    if not config.redraw:
        rows, faults = attack(KINDS, config.inputs, config.seed, progress=True)
        columns = ["kind", "damage", "outcome", "what"]
        for name, frame in (
            ("table", pd.DataFrame(rows)),
            ("faults", pd.DataFrame(faults, columns=columns)),
        ):
            write_atomic(folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
        given = {"inputs": config.inputs, "seed": config.seed}
        about = describe(config, f"studies/{NAME}.py", ("out", "redraw"), **given)
        write_json(folder / "study.json", about)
    page = page_of(pd.read_csv(folder / "table.csv"), pd.read_csv(folder / "faults.csv"))
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    page = f"{page}\n`{about['command']}`\n"
    write_atomic(folder / f"{NAME}.md", page)
    print(page)
    return folder


def page_of(table: pd.DataFrame, faults: pd.DataFrame) -> str:
    """Counts by kind, in Markdown, with the faults if there are any, and what the words mean."""
    head = (
        f"What became of {table['inputs'].sum():,} damaged or forged inputs: "
        f"{table[CRASH].sum():,} crashes, {table[SILENT].sum():,} silent acceptances."
    )
    names = ["inputs", *OUTCOMES]
    sums = table.groupby("kind", sort=False)[names].sum()
    total = ("together", *sums.sum())
    rows = [(kind, *values) for kind, values in zip(sums.index, sums.to_numpy(), strict=True)]
    parts = [head, tabulate([*rows, total], ("kind", *names), tablefmt="pipe"), MEANING]
    if len(faults):
        shown = [tuple(row) for row in faults.head(30).to_numpy()]
        parts.append(tabulate(shown, tuple(faults.columns), tablefmt="pipe"))
    return "\n\n".join(parts) + "\n"


MEANING = """\
- **refused**: by a documented error that says what is wrong, and of a file names it. A damaged
  record of a run is run again with a warning, and so is a failure that cannot be read.
- **harmless**: what was read is equal to what the sound input says: blanks in JSON, quotes or a
  byte-order mark in a CSV file, the time in the head of a gzip file, an argument that is allowed.
- **no checksum**: accepted, another sound input of its own, and no reader could tell. IDX files,
  records of images, CSV files of one's own, checkpoints, files to resume from, certificates and
  records of runs carry no checksum: a pixel, a number of a table, a weight, a text in a certificate
  or a measure in a record may be another one. The data sets that `pbnn.data.load` knows by a hash,
  and packed files by their seal, have none of it; a packed file that is sealed anew after a change
  is another network, whose certificate `pbnn.packed.verify` refuses.
- **crash**: any other error, or more than five seconds or a gigabyte for one input.
- **silent**: accepted, though an independent check sees that the input is none: an argument out of
  its domain, a CSV file that another reader cannot read so, a certificate whose bound is below what
  its own statement gives by other formulas, a network that is not what stands in its file.

Sizes of networks are drawn small where a user names them, since a large one may be meant; in files
they lie as they like. `table.csv` has the counts of each damage."""


if __name__ == "__main__":
    run_study(study, Config, __doc__)
