"""What does a prior learned without labels buy? Certificates on one split, four extractors.

Half of the training images is the prior split: on it a binary network is trained by contrast alone,
by labels, or not at all (and a real network by contrast), and its features are frozen. The other
half certifies a Gaussian read-out of them, exactly and without a draw: with a prior N(0, I) that
has seen no label at all, or with one learned with the labels of the prior split. An extractor's
file says which images it has seen, by their hashes, and a certificate on one of them is refused.
Of the eight rows the reader may take the best, so each pays for all of them, and for all seeds; and
for the lists that views, rates and sizes were chosen from in other studies, which saw these images.

``python studies/self_supervised_prior.py --workers 2`` writes reports/self_supervised_prior:
table.csv, claims.csv, certificates.json and priors.md. Interrupt it at will: it goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from balance_runs import at_once
from certified_readouts import along_axes, readout_along
from certified_records import write_certificates
from claims import claim, claims_of, claims_table
from common import Places, Where, about_run, carry_out, files_of, loaded, write_tables
from safetensors.torch import load_file
from self_supervised_arms import ARMS, Lesson, network_of
from self_supervised_bnn import PLAIN, SHARED
from tabulate import tabulate
from torch import nn

from pbnn.binarize import check_latents
from pbnn.data import Splits, Task, check_unseen, cut, example_hashes
from pbnn.files import read_json, write_atomic
from pbnn.inputs import Points
from pbnn.reporting import records_from_csv
from pbnn.representation import features
from pbnn.study import SCHEMA_VERSION, run_study
from pbnn.sweep import Cell, cell_key

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "self_supervised_prior"

EXTRACTORS = {
    "untrained": "at its start, with the batch statistics of the prior split's images",
    "contrast": "by contrast on the prior split's images, without labels",
    "teacher": "a real network by contrast on the prior split's images, without labels",
    "supervised": "by the labels of the prior split, of the images as they are",
}
READOUTS = {
    "data_free": "N(0, I) along axes of 2000 images of the prior split, without labels",
    "learned": "the posterior of that prior on the prior split, with its labels",
}
LISTS = {
    "views": 5,
    "learning rate of the extractor": 3,
    "axes": 5,
    "epochs and learning rate of the read-out's prior": 4,
    "all else": 100,
}
"""From how long a list was chosen what shapes a prior, on images that certify here: those of
`self_supervised_runs.VIEWS`, `self_supervised_bnn` and `certified_priors`."""
CHOICES = len(EXTRACTORS) * len(READOUTS) * math.prod(LISTS.values())
PRIOR_SHARE = 0.5
TRAINING: dict[str, Any] = SHARED | {"images": 0, "epochs": 6, "contrast": 0.0}
LEARNING_RATE = {"teacher": 0.01}
"""Of an extractor, otherwise .03, as in `self_supervised_bnn.py`."""
READOUT: dict[str, Any] = {
    "axes": 256,
    "emphases": [0.0, 0.25, 0.5, 0.75],
    "epochs": 10,
    "trial_epochs": 2,
    "batch": 500,
    "learning_rate": 0.05,
    "prior_training": None,
}
DIGITS: dict[str, Any] = {"batch": 64, "axes": 32}


@dataclass(frozen=True)
class Config(Places):
    """What to certify, how often, and where to write it."""

    dataset: Literal["fashion_mnist", "mnist", "cifar10", "digits"] = "fashion_mnist"
    """Whose images."""
    seeds: int = 3
    """Runs of each row, whose certificates share δ: other seeds are another study."""
    delta: float = 0.05
    """Probability that any certificate fails, everything included."""
    out: Path | None = None
    """Output folder; by default reports/self_supervised_prior, with _part for another data set,
    seeds or delta."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.delta < 1:
            raise ValueError(f"`delta` must lie in (0, 1), got {self.delta}.")

    @property
    def datasets(self) -> tuple[str, ...]:
        """The one data set."""
        return (self.dataset,)

    @property
    def folder(self) -> Path:
        """Where to write: the study as it is, is the committed report."""
        names = ("dataset", "seeds", "delta", "device")
        part = any(getattr(self, name) != getattr(Config(), name) for name in names)
        return self.out or REPORTS / f"{NAME}{'_part' if part else ''}"


def halves(task: Task) -> Splits:
    """The published test images apart, or a quarter; of the rest, half for the prior."""
    return cut(task, prior=PRIOR_SHARE)


def cells_of(config: Config, tasks: dict[str, Task]) -> list[Cell]:
    """Every run: all that determines its result, and a key made of it."""
    cells = []
    for dataset, task in tasks.items():
        shared = {"dataset": dataset, "threads": config.threads, "device": config.device}
        shared |= {"splits": halves(task).hashes(task)}
        digits = DIGITS if dataset == "digits" else {}
        certified = {"delta": config.delta, "seeds": config.seeds, "choices": CHOICES}
        certified |= {"classes": int(task.y.max()) + 1}
        for seed in range(config.seeds):
            for extractor in EXTRACTORS:
                views = PLAIN if extractor == "supervised" else {}
                about = shared | {"method": extractor, "seed": seed}
                rate = {"learning_rate": LEARNING_RATE.get(extractor, 0.03)}
                training = TRAINING | rate | views | about | digits | {"after": None}
                key = cell_key(training, {"sha256": task.sha256})
                cells.append(Cell(key, training))
                for readout, text in READOUTS.items():
                    prior = {"prior_text": f"extractor {key}: {EXTRACTORS[extractor]}; {text}"}
                    mine = READOUT | certified | about | digits | prior
                    mine |= {"readout": readout, "after": key, "network": SHARED["network"]}
                    mine |= {"dim": SHARED["dim"], "prior": extractor}
                    cells.append(Cell(cell_key(mine, {"sha256": task.sha256}), mine))
    return cells


def run(cell: dict[str, Any], where: Where) -> dict[str, Any]:
    """A record: an extractor and the hashes of what it saw, or certificates of its features."""
    task, points = loaded(cell, halves, where)
    one = extractor_trained if cell["after"] is None else certified
    record = one(cell, points, where.kept, where.progress)
    return record | about_run(cell, task, record["seconds"])


def extractor_trained(
    cell: dict[str, Any], points: Points, kept: Path, progress: bool
) -> dict[str, Any]:
    """Train an extractor on the prior split."""
    x, y = points.prior
    network = network_of(cell, tuple(x.shape[1:]), int(y.max()) + 1).to(x.device)
    began = time.perf_counter()
    label = f"{cell['method']} {cell['seed']}" if progress else None
    curve = ARMS[cell["method"]](network, Lesson(cell, None, x, y, None, label))
    check_latents(network)
    rows = [{"figure": "risk", "x": row["epoch"] + 1, "y": row["risk"]} for row in curve]
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    hashes = sorted(example_hashes(x.cpu().numpy()))
    seen = torch.tensor([list(bytes.fromhex(each)) for each in hashes], dtype=torch.uint8)
    files = files_of(state | {"seen": seen})
    seconds = {"training": time.perf_counter() - began}
    return {"measures": {"seen": len(hashes)}, "curve": rows, "seconds": seconds, "files": files}


def extractor_kept(cell: dict[str, Any], kept: Path, points: Points) -> nn.Module:
    """The extractor that the cell names, evaluating; refused if it has seen what certifies."""
    state = load_file(kept / f"{cell['after']}.safetensors")
    seen = {bytes(row).hex() for row in state.pop("seen").tolist()}
    x, _ = points.certification
    check_unseen(seen, x.cpu().numpy())
    network = network_of(cell, tuple(x.shape[1:]), cell["classes"])
    network.load_state_dict({n.removeprefix("network."): value for n, value in state.items()})
    return network.to(x.device).eval()


def certified(cell: dict[str, Any], points: Points, kept: Path, progress: bool) -> dict[str, Any]:
    """Certificates of a Gaussian read-out of an extractor's features, computed in equal batches."""
    began = time.perf_counter()
    extractor = extractor_kept(cell, kept, points)
    size = at_once(points.test[0])
    points, axes = along_axes(cell, points, lambda x: features(extractor, x, batch=size))
    if cell["readout"] == "data_free":
        points = replace(points, prior=(points.prior[0][:0], points.prior[1][:0]))
    result = readout_along(cell, points, axes, progress, began)
    del result["network"]
    return result


PREDICTORS = ("gibbs", "vote", "single")


def draw(folder: Path) -> None:
    """Write table.csv, claims.csv and priors.md of a finished study."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    records = records_from_csv(folder / "records.csv")
    frame = pd.DataFrame([r["config"] | r["measures"] for r in records if r["config"]["after"]])
    frame["certificate"] = frame["gibbs_certificate"]
    claims, rows = claims_of(frame, certified_better), table_of(frame)
    write_tables(folder, table=rows, claims=claims)
    page = page_of(about, frame, rows, claims)
    write_atomic(folder / "priors.md", page)
    print(page)


def certified_better(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What labels and images of the prior split are worth, of the randomised network."""
    runs = {arm: of for arm, of in group.groupby(["method", "readout"])}
    for readout in READOUTS:
        for ours, theirs in (("contrast", "untrained"), ("teacher", "contrast"),
                             ("supervised", "contrast"), ("supervised", "teacher")):  # fmt: skip
            text = f"read-out {readout}: {ours} is certified at less than {theirs}"
            pair = runs[ours, readout], runs[theirs, readout]
            yield claim("prior", text, *pair, "certificate", lower=True)
    text = "contrast without any label is certified at less than untrained with those of the prior"
    pair = runs["contrast", "data_free"], runs["untrained", "learned"]
    yield claim("prior", text, *pair, "certificate", lower=True)


def table_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds: a certificate of each is one of their mean, as they share δ."""
    names = [f"{p}_{what}" for p in PREDICTORS for what in ("certificate", "risk_train",
             "error_test")] + ["gibbs_kl", "n"]  # fmt: skip
    rows = []
    for arm, group in frame.groupby(["dataset", "method", "readout"], sort=False):
        row = dict(zip(("dataset", "extractor", "readout"), arm, strict=True))
        row |= {"seeds": len(group)} | {name: group[name].mean() for name in names}
        rows.append(row | {"spread": group["gibbs_certificate"].std(ddof=1)})
    return pd.DataFrame(rows)


def page_of(
    about: dict[str, Any], frame: pd.DataFrame, rows: pd.DataFrame, claims: pd.DataFrame
) -> str:
    """The page for people."""
    first = frame.iloc[0]
    sources = "; ".join(f"{name}: {source}" for name, source in about["sources"].items())
    lines = [
        [row["extractor"], row["readout"], row["seeds"], f"{row['gibbs_kl']:.0f}"]
        + [f"{row[f'{p}_certificate']:.4f} ({row[f'{p}_risk_train']:.4f}, "
           f"{row[f'{p}_error_test']:.4f})" for p in PREDICTORS]
        for row in rows.to_dict("records")
    ]  # fmt: skip
    headers = ["extractor", "read-out's prior", "seeds", "KL, nats", "randomised", "vote",
               "one draw"]  # fmt: skip
    parts = [
        "# What does a prior learned without labels buy?\n",
        f"`{about['command']}`, {about['hardware']['cpu']}, {first['threads']} thread(s) a run. "
        f"{sources}. Half of the training images trains the extractor, the other half, n = "
        f"{first['n']}, certifies. Error rates: the certificate, in brackets the empirical and the "
        f"test error of that predictor; means over seeds. Together, all rows and seeds, they hold "
        f"with probability {1 - first['delta']:g}: each has a share of "
        f"1/({first['seeds']} · {first['choices']}) of δ, for the seeds, the rows and the lists "
        f"that {', '.join(LISTS)} were chosen from ({', '.join(map(str, LISTS.values()))}); "
        "where a scale of a data-free prior is chosen on the certification split, of a quarter of "
        "that. The vote is certified through the randomised network.\n",
        "Extractors: " + "; ".join(f"`{n}` {text}" for n, text in EXTRACTORS.items()) + ". "
        "Priors of the read-out: " + "; ".join(f"`{n}` {t}" for n, t in READOUTS.items()) + ".\n",
        tabulate(lines, headers, tablefmt="pipe", disable_numparse=True) + "\n",
        "## Claims\n",
        "Paired by seed, of the randomised network; 95% intervals by Student's law, one claim at a "
        f"time: of seeds, on these images. Of {len(claims)} claims without anything in them, "
        f"{0.05 * len(claims):.1f} would be decided by chance.\n",
        claims_table(claims),
    ]
    return "\n".join(parts) + "\n"


def study(config: Config) -> Path:
    """Run what is missing, then write every table; returns the folder."""
    return carry_out(config, NAME, cells_of, run, "after", draw, write_certificates)


if __name__ == "__main__":
    run_study(study, Config, __doc__)
