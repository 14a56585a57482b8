"""What packing brings: time and bytes of layers and networks of signs, the same labels, one file.

Part one, layers: dense layers from 128 to 4096 units and a convolution, from words of signs to
words of signs, beside the product alone in float32 and in int8 by torch, whose inputs and weights
lie ready; all in one run, in turn, and the ratio is that of the medians.

Part two, networks: fully binary networks trained on half of the training images, from bytes to
scores, beside their full-precision twins in torch. On all test images their labels, scores and
first signs are compared with those of the networks of torch that they are made of. Their
certificates are of the packed predictions, on the other half.

It measures time and so runs one thing after another, without workers: leave it the machine alone.

    python studies/packed_speed.py            # reports/packed_speed, about 15 minutes on two cores
    python studies/packed_speed.py --redraw   # page and figure again, from the CSVs
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from balance_runs import network_of
from common import check_finished, tasks_of, write_tables
from matplotlib.figure import Figure
from packed_networks import CHOICES, Trained, certificates, compared, trained
from tabulate import tabulate

from pbnn.data import cut
from pbnn.files import read_json, write_atomic, write_json
from pbnn.networks import SMALL_IMAGES
from pbnn.packed import available
from pbnn.packed.backends import run
from pbnn.packed.bits import pack_bits
from pbnn.packed.file import content_of
from pbnn.packed.geometry import Geometry
from pbnn.packed.layers import BitLayer, Thresholds
from pbnn.reporting.drawing import label_rows, legend, look_of, make_panels, save
from pbnn.study import SCHEMA_VERSION, describe, run_study

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "packed_speed"
CAPTIONS = {
    "packed_speed": "How many times faster than float32 a dense layer of signs is, on packed words "
    "and in int8, by its number of units and the size of the batch; below the line it is slower.",
}
"""What its figures show."""
Row = dict[str, Any]
Works = dict[str, Callable[[], Any]]
CONVOLUTION = Geometry((64, 14, 14), 64, (3, 3), border=(1, 1, 1, 1))
TURN = 0.02
"""Seconds of a turn of each work, at least one time."""
TOGETHER = 100
"""Images of a convolutional network at once in torch, which is where it is fastest."""
TWINS = {"mlp": "mlp", "lenet_3x3": "lenet_3x3", "blrnet mode": "lenet_3x3"}
"""Full-precision networks of the same shape, by the names of those that are timed."""


@dataclass(frozen=True)
class Config:
    """What to measure, and where to write it."""

    widths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    """Units of dense layers, as many inputs as outputs."""
    batches: tuple[int, ...] = (1, 32, 10_000)
    """Inputs at once."""
    threads: tuple[int, ...] = (1, 2)
    """Cores to use."""
    seconds: float = 1.0
    """For each work, but at least three rounds."""
    dataset: str = "mnist"
    """Of mnist, fashion_mnist, digits."""
    mlp_epochs: int = 10
    """Of a fully binary MLP, three hidden layers of 1024 units."""
    lenet_3x3_epochs: int = 4
    """Of a fully binary LeNet."""
    blrnet_epochs: int = 4
    """Of a BLRNet, trained straight through."""
    architecture: str = SMALL_IMAGES
    """Of the BLRNet."""
    members: int = 16
    """Networks of its vote."""
    statistics_of: int = 2000
    """Images of the prior split for batch normalisation."""
    data_dir: Path | None = None
    """Folder with mnist/…; by default $PBNN_DATA, then the cache, then a download."""
    offline: bool = False
    """Do not try to download."""
    out: Path | None = None
    """Output folder; by default reports/packed_speed."""
    redraw: bool = False
    """Make page and figure again from the CSV files."""

    def __post_init__(self) -> None:
        for name in ("widths", "batches", "threads"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ValueError(f"`{name}` must be positive integers, got {values}.")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"`seconds` must be positive, got {self.seconds}.")
        counts = ("mlp_epochs", "lenet_3x3_epochs", "blrnet_epochs", "members", "statistics_of")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {getattr(self, name)}.")

    @property
    def levels(self) -> int:
        """What a byte is divided by."""
        return 16 if self.dataset == "digits" else 255


def layer_rows(config: Config) -> Iterator[Row]:
    """Times of single layers."""
    for width in config.widths:
        geometry = Geometry((width, 1, 1), width)
        yield from times(config, f"dense {width}", geometry)
    name = "convolution 64x14x14 to 64, 3x3"
    yield from times(config, name, CONVOLUTION)


def times(config: Config, name: str, geometry: Geometry) -> Iterator[Row]:
    """Of one layer with random weights and thresholds, at every batch and number of threads."""
    draw = np.random.default_rng(0)
    shape = (geometry.width, geometry.image[0], *geometry.kernel)
    weight = draw.choice(np.int8([-1, 1]), shape)
    nothing = np.zeros(geometry.width, bool)
    level = draw.integers(-20, 21, (1, geometry.width)).astype(np.int32)
    layer = BitLayer.of(geometry, weight, Thresholds(level, nothing, nothing), name=name)
    size = {"torch_float32": 4 * weight.size, "torch_int8": weight.size}
    size["numba"] = layer.filters.nbytes
    for batch in config.batches:
        signs = draw.random((batch, geometry.image[1], geometry.image[2], geometry.image[0])) < 0.5
        for threads in config.threads:
            works = layer_works(layer, weight, signs, threads)
            yield from rows_of(config, name, batch, threads, works, size)


def layer_works(layer: BitLayer, weight: Any, signs: Any, threads: int) -> Works:
    """The same layer by torch and by the kernels; the products of torch alone."""
    torch.set_num_threads(threads)
    words = pack_bits(signs)
    images = torch.from_numpy(np.where(signs, np.float32(1), np.float32(-1)))
    real = torch.from_numpy(weight.astype(np.float32))
    works: Works = {}
    if layer.geometry.kernel == (1, 1):
        flat, matrix = images.flatten(1), real.flatten(1)
        works["torch_float32"] = lambda: torch.nn.functional.linear(flat, matrix)
        if "int8" in available():
            octets, columns = flat.to(torch.int8), matrix.to(torch.int8).T
            works["torch_int8"] = lambda: torch._int_mm(octets, columns)
    else:
        last = images.permute(0, 3, 1, 2)
        filters = real.contiguous(memory_format=torch.channels_last)
        parts = last.split(TOGETHER)
        works["torch_float32"] = lambda: [
            torch.nn.functional.conv2d(part, filters, padding=1) for part in parts
        ]
    if "numba" in available():
        works["numba"] = lambda: run(layer, words, "numba", threads)
    return works


def network_rows(config: Config, found: dict[str, Trained], task: Any) -> Iterator[Row]:
    """Times of whole networks, from bytes (torch: float32 pixels) to scores."""
    image, classes = tuple(task.x.shape[1:]), int(task.y.max()) + 1
    draw = np.random.default_rng(0)
    for name, twin_name in TWINS.items():
        cell = {"network": twin_name, "seed": 0, "recipe": None, "norm_bias": 0.0}
        twin = folded(network_of(cell, image, classes).eval())
        packed = found[name].packed
        real = sum(p.numel() for p in twin.parameters() if p.ndim > 1)
        weights = packed.sizes()["weights"]
        size = {"torch_float32": 4 * real, "int8": real, "numba": weights}
        for batch in config.batches:
            x = draw.integers(0, config.levels + 1, (batch, *image)).astype(np.uint8)
            pixels = torch.from_numpy(x).float() / config.levels
            parts = pixels.split(batch if name == "mlp" else TOGETHER)
            if name != "mlp":
                twin = twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for threads in config.threads:
                torch.set_num_threads(threads)
                works: Works = {"torch_float32": lambda parts=parts, t=twin: [t(p) for p in parts]}
                for backend in (each for each in ("int8", "numba") if each in available()):
                    works[backend] = lambda x=x, b=backend, p=packed, t=threads: p.scores(
                        x, backend=b, threads=t
                    )
                yield from rows_of(config, name, batch, threads, works, size)


@torch.no_grad()
def folded(twin: Any) -> torch.nn.Sequential:
    """An untrained twin with batch normalisation in its weights, as it would be deployed.

    Its scales are positive at the start, so that a maximum may come between.
    """
    modules: list[torch.nn.Module] = []
    weights: Any = None
    for module in twin:
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            scale = module.weight / (module.running_var + module.eps).sqrt()
            weights.weight.mul_(scale.reshape(-1, *(1,) * (weights.weight.ndim - 1)))
            weights.bias = torch.nn.Parameter(module.bias - module.running_mean * scale)
            continue
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            weights = module
        modules.append(module)
    return torch.nn.Sequential(*modules)


def rows_of(
    config: Config, name: str, batch: int, threads: int, works: Works, size: dict[str, int]
) -> Iterator[Row]:
    """Medians of works that are done in turn, each often enough at a time to find its own warm."""
    with torch.inference_mode():
        often = {each: max(1, round(TURN / seconds_of(work, 1))) for each, work in works.items()}
        seconds: dict[str, list[float]] = {each: [] for each in works}
        end = time.perf_counter() + config.seconds * len(works)
        while time.perf_counter() < end or len(seconds["torch_float32"]) < 3:
            for each, work in works.items():
                seconds[each].append(seconds_of(work, often[each]))
    medians = {each: float(np.median(found)) for each, found in seconds.items()}
    for each, median in medians.items():
        row = {"layer": name, "batch": batch, "backend": each, "threads": threads}
        row |= {"ms": 1e3 * median, "ratio_float32": medians["torch_float32"] / median}
        print(f"{name:32} {batch:6} {each:14} {threads} {1e3 * median:10.3f} ms", flush=True)
        yield row | {"bytes": size[each]}


def seconds_of(work: Callable[[], Any], often: int) -> float:
    """Seconds of a work that is done so often, once before that."""
    work()
    began = time.perf_counter()
    for _ in range(often):
        work()
    return (time.perf_counter() - began) / often


def file_rows(found: dict[str, Trained]) -> list[Row]:
    """Bytes of files, and of what is held in memory, beside weights in float32."""
    rows = []
    for name, one in found.items():
        members = one.packed.members
        real = 4 * sum(
            layer.geometry.width * layer.geometry.fan_in for layers in members for layer in layers
        )
        sizes = one.packed.sizes()
        row = {"network": name, "float32_weights": real, "file": len(content_of(one.packed))}
        row |= {"weights": sizes["weights"], "tail": sizes["tail"]}
        row |= {"weights_smaller": real / sizes["weights"], "file_smaller": real / row["file"]}
        rows.append(row)
    return rows


def study(config: Config) -> Path:
    """Measure, write every table, and draw; returns the folder."""
    folder = config.out or REPORTS / NAME
    if config.redraw:
        check_finished(folder)
        draw(folder)
        return folder
    tasks, ending = tasks_of([config.dataset], config.data_dir, config.offline)
    if ending:
        raise ValueError(f"`dataset` {config.dataset!r} is not to be had: try --dataset digits.")
    task = tasks[config.dataset]
    splits = cut(task, prior=0.5)
    torch.set_num_threads(1)
    found = trained(config, task, splits, folder / "runs")
    threads = torch.get_num_threads()
    try:
        rows = [*layer_rows(config), *network_rows(config, found, task)]
    finally:
        torch.set_num_threads(threads)
    write_tables(folder, table=pd.DataFrame(rows), records=pd.DataFrame(rows))
    equal: list[Row] = []
    promised: list[Row] = []
    for name, one in found.items():
        equal += compared(name, one, task, splits.test, config.levels)
        promised += certificates(name, one, task, splits)
    write_tables(
        folder,
        equality=pd.DataFrame(equal),
        certificates=pd.DataFrame(promised),
        files=pd.DataFrame(file_rows(found)),
    )
    leave_out = ("data_dir", "offline", "out", "redraw")
    about = describe(config, f"studies/{NAME}.py", leave_out, source=task.source)
    write_json(folder / "study.json", about)
    draw(folder)
    return folder


def draw(folder: Path) -> None:
    """Write speed.md and the figure of a finished study."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    table = pd.read_csv(folder / "table.csv")
    save(lambda: figure_of(table), folder / NAME)
    write_atomic(folder / "speed.md", page_of(about, folder, table))


def figure_of(table: pd.DataFrame) -> Figure:
    """Times faster than float32, against the width of dense layers: a panel for each batch."""
    dense = table[table["layer"].str.startswith("dense")].copy()
    dense["width"] = dense["layer"].str.removeprefix("dense ").astype(int)
    batches = sorted(dense["batch"].unique())
    figure, (axes_of,) = make_panels(len(batches), [1.0], height=2.2, across=len(batches))
    order = [
        f"{backend}, {threads} core{'s' if threads > 1 else ''}"
        for backend in ("numba", "torch_int8")
        for threads in sorted(dense["threads"].unique())
    ]
    for axes, batch in zip(axes_of, batches, strict=True):
        for (backend, threads), of in dense[dense["batch"] == batch].groupby(
            ["backend", "threads"]
        ):
            if backend == "torch_float32":
                continue
            name = f"{backend}, {threads} core{'s' if threads > 1 else ''}"
            look = look_of(order, name)
            axes.plot(of["width"], of["ratio_float32"], linewidth=0.8, markersize=3, **look)
        axes.axhline(1, color="0.35", linewidth=0.6)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("units")
        axes.set_title(f"batch {batch:,}")
    label_rows(axes_of, "times faster than float32")
    legend(figure, order, order, [], len(order))
    return figure


def page_of(about: Row, folder: Path, table: pd.DataFrame) -> str:
    """The page: times, equality, bytes, certificates."""
    wide = table.pivot_table(
        index=["layer", "batch", "threads"],
        columns="backend",
        values=["ms", "ratio_float32"],
        sort=False,
    )
    lines = []
    for (layer, batch, threads), row in wide.iterrows():  # type: ignore[misc]
        cells = [layer, f"{batch:,}", threads, f"{row['ms', 'torch_float32']:.3g}"]
        for backend in ("torch_int8", "int8", "numba"):
            ms, ratio = row.get(("ms", backend)), row.get(("ratio_float32", backend))
            cells.append("–" if ms is None or ms != ms else f"{ms:.3g} ({ratio:.2g}×)")
        lines.append(cells)
    head = ["layer or network", "batch", "cores", "float32 of torch, ms"]
    head += ["int8 of torch", "back end int8", "back end numba"]
    parts = [
        "# Packed networks\n",
        f"`{about['command']}`, {about['hardware']['cpu']}, torch {about['versions']['torch']}. "
        f"{about['source']}.\n",
        "Milliseconds, and how many times faster than torch's float32, medians of works done in "
        "turn. Dense layers and the convolution: signs to signs where they are packed, the product "
        "alone in torch. Networks: bytes to scores, beside full-precision twins in torch (eager, "
        "batch normalisation folded into their weights), images of convolutional ones "
        f"{TOGETHER} at a time. Below 1× packing is slower.\n",
        tabulate(lines, head, tablefmt="pipe", disable_numparse=True),
        f"\n![Ratios]({NAME}.svg)\n",
        "## The same predictions\n",
        "On all test images: signs behind the first layer, images with another score, and another "
        "label, than torch has in float32, where pixels are rounded; first signs and labels of "
        "torch in float64 (of a vote: its first member); whether signs, scores and labels are "
        "those of the other back ends, bit for bit.\n",
        markdown(folder / "equality.csv"),
        "\n## Bytes\n",
        "Weights in float32, the file with everything in it, weights and thresholds in memory.\n",
        markdown(folder / "files.csv"),
        "\n## Certificates\n",
        "Of the packed predictions, on the other half of the training images, δ = .05 each, shared "
        f"among {CHOICES} choices: how these networks are trained was chosen before, with images "
        "among these in sight. Each row by itself. Fixed: the network is made of the prior split "
        "alone, and pays nothing else (binomial tail). Rivasplata: drawn of a posterior that is "
        "its prior, log-ratio 0. Occam: by the length of its code.\n",
        markdown(folder / "certificates.csv"),
    ]
    return "\n".join(parts) + "\n"


def markdown(path: Path) -> str:
    """A CSV file as a table."""
    return tabulate(pd.read_csv(path), "keys", tablefmt="pipe", showindex=False, floatfmt=".4g")  # type: ignore[arg-type]


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
