"""What the studies of images share: their data, their devices, and a finished folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pbnn.data import DataUnavailable, Task, embedded_twin, load


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
    return {"digits": load(embedded_twin(names[0]))}, "_digits"


def check_finished(folder: Path) -> None:
    """Refuse to draw what was not run."""
    if not all((folder / name).exists() for name in ("study.json", "records.csv")):
        raise FileNotFoundError(f"{folder} holds no finished study: run it first.")


def check_device(device: str) -> None:
    """Refuse an accelerator that is not there."""
    if device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"`device` must be one that is there, got {device!r}, no CUDA.")
