"""How accurate is a network of signs? Fully binary networks, and those of CIFAR-10's tables.

On MNIST every layer of a LeNet, and of an MLP with three hidden layers of 1024 units, has weights
±1 and all but the pixels are signs; they start at the weights of their full-precision twins,
trained for an epoch or two. On CIFAR-10 a residual network with
the recipe of IR-Net and of SD-BNN, to be set beside the published figures. Nothing is chosen on
test images: recipes were, on the sixth of the training images that is not trained on.

``python studies/binary_accuracy.py --workers 2`` writes reports/binary_accuracy: table.csv and
accuracy.md, with operations and bits of parameters, and operations.csv of every backbone.
``--preset gpu --device cuda`` is the published networks and numbers of epochs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from balance_runs import NETWORKS, accuracy, network_of, objective_of, splits_of, training
from common import Places, Where, about_run, carry_out, loaded, write_tables
from tabulate import tabulate

from pbnn.binarize import (
    RECIPES,
    Recipe,
    binary_layers,
    check_latents,
    convert,
    count_operations,
)
from pbnn.data import Task
from pbnn.files import read_json, write_atomic
from pbnn.reporting import records_from_csv
from pbnn.seeding import generator
from pbnn.study import SCHEMA_VERSION, run_study
from pbnn.sweep import Cell, cell_key

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "binary_accuracy"

FULLY_BINARY = Recipe(weights="bi_real", estimator="gaussian", first=True, last=True)
RECIPE: dict[str, Recipe] = {
    "fully_binary": FULLY_BINARY,
    "ir_net": RECIPES["ir_net"],
    "sd_bnn": RECIPES["sd_bnn"],
}
DIGITS_TRAINING: dict[str, Any] = {
    "batch": 64,
    "learning_rate": 0.01,
    "optimiser": "adam",
    "weight_decay": 0.0,
    "frozen_from": 0.8,
    "images": 0,
    "augmentation": "affine",
}
DENSE: dict[str, Any] = {
    "batch": 128,
    "learning_rate": 0.005,
    "augmentation": "wide",
    "epochs": 40,
    "pretraining": 1,
}
"""Dense layers know nothing of shifts, and need to see more of them."""
PHOTOGRAPH_TRAINING: dict[str, Any] = DIGITS_TRAINING | {"augmentation": "crop"}
PAPER_TRAINING: dict[str, Any] = PHOTOGRAPH_TRAINING | {
    "batch": 128,
    "optimiser": "sgd",
    "weight_decay": 1e-4,
    "learning_rate": 0.1,
    "frozen_from": 1.0,
}
Row = dict[str, Any]
ROWS: dict[str, dict[str, list[Row]]] = {
    "cpu": {
        "mnist": [
            DIGITS_TRAINING
            | {"network": "lenet_3x3", "method": "fully_binary", "epochs": 16, "pretraining": 1},
            DIGITS_TRAINING | DENSE | {"network": "mlp", "method": "fully_binary"},
        ],
        "cifar10": [
            PHOTOGRAPH_TRAINING
            | {"network": "resnet20", "method": m, "epochs": 3, "pretraining": 0, "seeds": 1}
            for m in ("ir_net", "sd_bnn")
        ],
        "digits": [
            DIGITS_TRAINING
            | {"network": "small_lenet", "method": "fully_binary", "epochs": 20, "pretraining": 2}
        ],
    },
    "gpu": {
        "mnist": [
            DIGITS_TRAINING
            | {"network": "lenet", "method": "fully_binary", "epochs": 100, "pretraining": 5}
        ],
        "cifar10": [
            PAPER_TRAINING | {"network": n, "method": m, "epochs": e, "pretraining": 0}
            for n, e in (("resnet20", 500), ("resnet18", 600))
            for m in ("ir_net", "sd_bnn")
        ],
    },
}
"""What is trained in each preset, and how."""
PUBLISHED = {
    ("mnist", "mlp", "fully_binary"): "98.88 (3 hidden layers of 1024)",
    ("mnist", "lenet", "fully_binary"): "99.23 (an XNOR LeNet-5)",
    ("mnist", "lenet_3x3", "fully_binary"): "99.23 (an XNOR LeNet-5)",
    ("cifar10", "resnet20", "ir_net"): "86.5",
    ("cifar10", "resnet20", "sd_bnn"): "86.9",
    ("cifar10", "resnet18", "ir_net"): "91.5",
    ("cifar10", "resnet18", "sd_bnn"): "92.5",
}
"""Test accuracy in per cent, on 50,000 training images of CIFAR-10: Qin et al. (2020),
https://arxiv.org/abs/1909.10788; Xue et al. (2021), https://arxiv.org/abs/2103.02394, at the epoch
that is best on the test images."""


@dataclass(frozen=True)
class Config(Places):
    """What to train, how often, and where to write it."""

    preset: Literal["cpu", "gpu"] = "cpu"
    """cpu: a LeNet and an MLP on MNIST, a look at CIFAR-10; gpu: the published networks and
    epochs."""
    datasets: tuple[str, ...] = ("mnist", "cifar10")
    """Of mnist, cifar10, digits."""
    seeds: int = 3
    """Runs of each row; of the cpu preset's CIFAR-10 one."""
    out: Path | None = None
    """Output folder; by default reports/binary_accuracy, with endings _gpu, and _part for other
    data sets or seeds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = set(ROWS[self.preset])
        if odd := set(self.datasets) - known:
            raise ValueError(f"`datasets` must be among {sorted(known)}, got {sorted(odd)}.")
        if not self.datasets or len({*self.datasets}) < len(self.datasets):
            raise ValueError(f"`datasets` must be some, each once, got {self.datasets}.")

    @property
    def folder(self) -> Path:
        """Where to write: the cpu preset as it is, is the committed report."""
        usual = Config(preset=self.preset)
        part = (self.datasets, self.seeds) != (usual.datasets, usual.seeds)
        ending = ("_gpu" if self.preset == "gpu" else "") + ("_part" if part else "")
        return self.out or REPORTS / f"{NAME}{ending}"


def cells_of(config: Config, tasks: dict[str, Task]) -> list[Cell]:
    """Every run: all that determines its result, and a key made of it."""
    cells = []
    for dataset, task in tasks.items():
        shared = {"dataset": dataset, "threads": config.threads, "device": config.device}
        shared |= {"splits": splits_of(task).hashes(task), "norm_bias": 0.0, "after": None}
        for row in ROWS[config.preset].get(dataset, ROWS["cpu"]["digits"]):
            recipe = RECIPE[row["method"]].to_dict()
            cell = shared | row | {"recipe": recipe}
            for seed in range(min(config.seeds, cell.pop("seeds", config.seeds))):
                mine = cell | {"seed": seed}
                cells.append(Cell(cell_key(mine, {"sha256": task.sha256}), mine))
    return cells


def run(cell: dict[str, Any], where: Where) -> dict[str, Any]:
    """A record: accuracies, operations and bits of parameters, the curve of the training."""
    task, points = loaded(cell, splits_of, where)
    x, y = (values[: cell["images"] or None] for values in points.certification)
    (valid, valid_label), (test, label) = points.prior, points.test
    image, classes = tuple(x.shape[1:]), int(task.y.max()) + 1
    began = time.perf_counter()
    twin = network_of(cell | {"recipe": None}, image, classes).to(where.device)
    if cell["pretraining"]:
        how = cell | {"epochs": cell["pretraining"], "learning_rate": 0.003}
        training(how, objective_of(how, twin), x, y, where.progress)
    network = network_of(cell, image, classes, twin.state_dict()).to(where.device)
    curve = training(cell, objective_of(cell, network), x, y, where.progress)
    seconds = {"training": time.perf_counter() - began}
    check_latents(network)
    measures = {
        "training_error": curve[-1]["risk"],
        "validation": accuracy(network, valid, valid_label),
        "accuracy": accuracy(network, test, label),
        "training_images": len(x),
        "binary_layers": len(binary_layers(network)),
    }
    counts = count_operations(network, image)._asdict()
    twin_counts = count_operations(twin, image)
    measures |= counts | {"real_parameter_bits": twin_counts.parameter_bits}
    rows = [{"figure": "training", "x": row["epoch"] + 1, "y": row["risk"]} for row in curve]
    return {"measures": measures, "curve": rows} | about_run(cell, task, seconds)


def draw(folder: Path) -> None:
    """Write table.csv and accuracy.md of a finished study."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    records = records_from_csv(folder / "records.csv")
    frame = pd.DataFrame([r["config"] | r["measures"] for r in records])
    rows, lines = [], []
    for (dataset, network, method), group in frame.groupby(
        ["dataset", "network", "method"], sort=False
    ):
        first = group.iloc[0]
        row = {"dataset": dataset, "network": network, "method": method, "seeds": len(group)}
        row |= {"epochs": first["epochs"], "training_images": first["training_images"]}
        row |= {"accuracy": group["accuracy"].mean(), "accuracy_std": group["accuracy"].std()}
        row["validation"] = group["validation"].mean()
        row |= {name: first[name] for name in ("binary", "real", "parameter_bits")}
        row["published"] = PUBLISHED.get((str(dataset), str(network), str(method)), "")
        rows.append(row)
        spread = "" if len(group) == 1 else f" ± {100 * row['accuracy_std']:.2f}"
        smaller = first["real_parameter_bits"] / first["parameter_bits"]
        lines.append(
            [
                dataset,
                network,
                method,
                row["training_images"],
                row["epochs"],
                len(group),
                f"{100 * row['accuracy']:.2f}{spread}",
                row["published"],
                f"{row['binary'] / 1e6:.2f}",
                f"{row['real'] / 1e6:.2f}",
                f"{row['parameter_bits'] / 8e3:.1f}",
                f"{smaller:.1f}",
            ]
        )
    write_tables(folder, table=pd.DataFrame(rows))
    headers = ["data set", "network", "recipe", "training images", "epochs", "seeds", "accuracy"]
    headers += ["published", "10⁶ binary op.", "10⁶ real op.", "kB", "smaller than its twin, times"]
    sources = "; ".join(f"{name}: {source}" for name, source in about["sources"].items())
    page = (
        "# Accuracy of networks of signs\n\n"
        f"`{about['command']}`, {about['hardware']['cpu']}. {sources}. A sixth of the training "
        "images is for choices. Accuracy on the test images in per cent, mean ± standard deviation "
        "over seeds. In a fully binary network every weight is ±1 and every input of a layer a "
        "sign, but for the pixels; in the others the first and the last layer, and shortcuts that "
        "add channels, are real.\n\n"
        + tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)
        + "\n"
    )
    write_atomic(folder / "accuracy.md", page)
    print(page)


def operations() -> pd.DataFrame:
    """Operations of an input and bits of parameters, of each backbone and of the binary one."""
    rows = []
    for name, image in IMAGES.items():
        twin = NETWORKS[name](image, generator=generator(0, "operations"))
        for kind, recipe in (("real", None), ("binary", "binary_net"), ("all binary", ENDS)):
            network = twin if recipe is None else convert(twin, recipe).network
            counts = count_operations(network, image)._asdict()
            rows.append(
                {"network": name, "image": "x".join(map(str, image)), "kind": kind} | counts
            )
    return pd.DataFrame(rows)


ENDS = Recipe(weights="clipped", first=True, last=True)
IMAGES = {
    "mlp": (1, 28, 28),
    "lenet": (1, 28, 28),
    "lenet_3x3": (1, 28, 28),
    "vgg_small": (3, 32, 32),
    "resnet20": (3, 32, 32),
    "resnet18": (3, 32, 32),
}
"""Shape of an input of each backbone whose operations are counted."""


def write_operations(_: list[dict[str, Any]], folder: Path) -> None:
    """Write operations.csv, of every backbone."""
    write_tables(folder, operations=operations())


def study(config: Config) -> Path:
    """Run what is missing, then write every table; returns the folder."""
    return carry_out(config, NAME, cells_of, run, "after", draw, write_operations)


if __name__ == "__main__":
    run_study(study, Config, __doc__)
