"""Where the cells of a study run, and where their records are kept: what all studies share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbnn.files import sha256
from pbnn.sweep import Cell, run_cells

KEPT = ("out", "redraw", "workers", "scheduler", "retry_failed", "records")
"""Fields of a configuration that change nothing in a result."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Where the cells of a study run, and whether it only draws."""

    workers: int | None = None
    """Run on this many processes of this machine."""
    scheduler: str | None = None
    """Or on the dask cluster with this scheduler: address or scheduler file."""
    retry_failed: bool = False
    """Run again what has failed before."""
    records: Path | None = None
    """Folder of the records; by default runs in the output folder."""
    redraw: bool = False
    """Make tables and figures again from the CSV files."""

    def __post_init__(self) -> None:
        if (got := self.workers) is not None and got < 1:
            raise ValueError(f"`workers` must be a positive integer, got {got}.")

    def kept_in(self, folder: Path) -> Path:
        """The folder of the records."""
        return self.records or folder / "runs"

    def announce(self, cells: Sequence[Cell], folder: Path) -> None:
        """Say how much there is to do."""
        kept = self.kept_in(folder)
        print(f"Runs: {len(cells)}, kept one by one in {kept}; interrupt and go on at will.")

    def run(
        self, cells: Sequence[Cell], run: Callable[..., dict[str, Any]], folder: Path
    ) -> list[dict[str, Any]]:
        """The records of all cells in their order; those that are missing are run."""
        places: dict[str, Any] = {"workers": self.workers, "scheduler": self.scheduler}
        places["retry_failed"] = self.retry_failed
        return run_cells(cells, run, self.kept_in(folder), **places)


def code_of(files: Iterable[Path]) -> dict[str, str]:
    """A hash of source files, for the keys of cells that test code: changed code, other cells.

    Examples
    --------
    >>> sorted(code_of([Path(__file__)]))
    ['sha256']
    """
    return {"sha256": sha256("".join(path.read_text(encoding="utf-8") for path in sorted(files)))}
