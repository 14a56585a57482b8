"""What the commands of `pbnn` share: how they open files and data, and what they say of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pbnn.data import TASKS, Splits, Task, cut, load
from pbnn.packed import Check, PackedNetwork

if TYPE_CHECKING:
    from pbnn.networks import BLRNet

Backend = Literal["auto", "numba", "int8", "float32"]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    data_dir: Path | None = None
    """Folder with mnist/…; by default $PBNN_DATA, then the cache, then a download."""
    offline: bool = False
    """Do not try to download."""
    backend: Backend = "auto"
    """All have the same results; auto is the fastest that is there."""
    threads: int = 1
    """Threads of the back end numba."""

    def task(self, name: str) -> Task:
        """The data set by its name."""
        try:
            return load(name, self.data_dir, offline=self.offline)
        except ValueError as error:
            if name in TASKS:
                raise
            raise ValueError(
                f"{str(error).rstrip('.')}. A command knows data sets by their names alone: a "
                "table of your own goes through `pbnn.data.from_csv` in Python (docs/tutorial.md)."
            ) from error

    @property
    def how(self) -> dict[str, Any]:
        """How a packed network runs."""
        return {"backend": self.backend, "threads": self.threads}


def splits_of(task: Task, made: dict[str, Any]) -> Splits:
    """The splits of a data set as a file says they are made."""
    known = {name: made[name] for name in ("prior", "feature", "seed") if name in made}
    try:
        return cut(task, **known)
    except TypeError as error:
        raise ValueError(f"`data` of the file makes no splits: {error}") from error


def is_packed(path: Path) -> bool:
    """Whether a file calls itself a packed network."""
    return b"packed network" in _beginning(path, 2**20)


def is_json(path: Path) -> bool:
    """Whether a file begins as a JSON object; one of safetensors has zeros in its first 8 bytes."""
    head = _beginning(path, 8)
    return head.lstrip().startswith(b"{") and 0 not in head


def _beginning(path: Path, size: int) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file.")
    with path.open("rb") as stream:
        return stream.read(size)


def checkpoint_of(path: Path) -> BLRNet:
    """The posterior in a checkpoint."""
    from pbnn.networks import BLRNet
    from pbnn.training import load_checkpoint

    network = load_checkpoint(path)
    if not isinstance(network, BLRNet):
        got = type(network).__name__
        raise ValueError(f"`model` must be the checkpoint of a BLRNet, got that of a {got}.")
    return network


def shape_of(packed: PackedNetwork) -> str:
    """What a file holds, in a few words."""
    widths = "-".join(str(layer.geometry.width) for layer in packed.members[0])
    image = "x".join(map(str, packed.preprocessing.image))
    several = (
        f"a vote of {len(packed.members)} networks" if len(packed.members) > 1 else "a network"
    )
    return f"{several} of {image} to {widths}"


def show(checks: list[Check]) -> int:
    """Print what was looked at; 1 if anything does not hold."""
    for check in checks:
        print(f"{'ok    ' if check.holds else 'FAILED'} {check.what}: {check.told}")
    return int(not all(check.holds for check in checks))
