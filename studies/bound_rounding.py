"""Certified rounding of the kl inverse: float64 results against interval arithmetic.

Random inputs over the whole range of float64. For each, whether ``kl_inverse(..., certify=True)``
is outside the real inverse, and how many floats nearer to q are so too; beside it, how often the
plain result is inside. Needs python-flint (the extra ``exact``).

    python studies/bound_rounding.py             # reports/bound_rounding, some minutes on one core
    python studies/bound_rounding.py --redraw    # the page again, from rounding.csv
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from pbnn.bounds import kl_inverse
from pbnn.files import write_atomic, write_json
from pbnn.study import describe, run_study

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "bound_rounding"
BITS = (192, 1280, 4096)
SMALLEST = 1e-290  # below 1e-300 the certified lower inverse is 0


@dataclass(frozen=True)
class Config:
    """What to run and where to write it."""

    inputs: int = 1_000_000
    """Random inputs for each side."""
    seed: int = 0
    """Seed of the inputs."""
    out: Path | None = None
    """Output folder; by default reports/bound_rounding."""
    redraw: bool = False
    """Make the page again from rounding.csv."""

    def __post_init__(self) -> None:
        if self.inputs < 1:
            raise ValueError(f"`inputs` must be a positive integer, got {self.inputs}.")
        if self.seed < 0:
            raise ValueError(f"`seed` must be at least 0, got {self.seed}.")


def draw_inputs(size: int, seed: int) -> tuple[Any, Any]:
    """Observed means near 0, near 1 and between, and budgets from 1e-300 to 1e3 nats."""
    rng = np.random.default_rng(seed)
    small = 10 ** rng.uniform(-300, 0, size)
    kinds = [small, 1 - 10 ** rng.uniform(-16, 0, size), rng.uniform(0, 1, size)]
    q = np.choose(rng.integers(0, 3, size), kinds)
    scales = [rng.uniform(-300, 3, size), rng.uniform(-16, 3, size)]
    return q, 10 ** np.choose(rng.integers(0, 2, size), scales)


def outside(q: float, c: float, p: float, side: str) -> bool:
    """Whether p is at the inverse of q, c or beyond it, which is whether kl(q || p) >= c."""
    import flint

    if p in (0.0, 1.0) or c == 0:
        return p == (1.0 if side == "upper" else 0.0) or p == q
    if (p <= q) if side == "upper" else (p >= q):
        return False
    for bits in BITS:
        flint.ctx.prec = bits
        a, b = flint.arb(q), flint.arb(p)
        kl = a * (a / b).log() if q > 0 else flint.arb(0)
        kl = kl + (1 - a) * ((1 - a) / (1 - b)).log() if q < 1 else kl
        if kl >= c:
            return True
        if kl < c:
            return False
    return False  # that near, it does not count as outside


def steps_beyond(q: float, c: float, p: float, side: str) -> int:
    """How many floats closer to q are outside as well."""
    towards = q if side == "upper" else 1.0

    def nearer(count: int) -> float:
        # Floats of one sign are ordered as their bits are.
        bits = np.float64(p).view(np.int64) + (-count if side == "upper" else count)
        return float(np.int64(bits).view(np.float64))

    def still(count: int) -> bool:
        x = nearer(count)
        return ((x >= towards) if side == "upper" else (x <= towards)) and outside(q, c, x, side)

    low, high = 0, 1
    while still(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if still(middle) else (low, middle)
    return low


def rows(config: Config) -> list[dict[str, Any]]:
    """One row for each side and each kind of result."""
    q, c = draw_inputs(config.inputs, config.seed)
    found = []
    for side in ("upper", "lower"):
        sure, plain = (
            kl_inverse(q, c, side, certify=certify).tolist() for certify in (True, False)
        )
        inside = {"certified": 0, "plain": 0}
        steps = []
        pairs = zip(q.tolist(), c.tolist(), sure, plain, strict=True)
        for a, b, best, near in tqdm(pairs, total=config.inputs, desc=side):
            if outside(a, b, best, side):
                if best >= SMALLEST:
                    steps.append(steps_beyond(a, b, best, side))
            else:
                inside["certified"] += 1
            inside["plain"] += not outside(a, b, near, side)
        told = {"side": side, "inputs": config.inputs, "result": "certified"}
        told |= {"inside": inside["certified"], "median_ulps": float(np.median(steps))}
        found.append(told | {"most_ulps": max(steps)})
        plain_row = {"side": side, "inputs": config.inputs, "result": "plain"}
        found.append(plain_row | {"inside": inside["plain"], "median_ulps": math.nan})
    return found


def draw(folder: Path) -> None:
    """The page, from rounding.csv alone."""
    frame = pd.read_csv(folder / "rounding.csv")
    head = (
        "Results of `kl_inverse` on random inputs (q near 0, near 1 and between, down to 1e-300; "
        "c from 1e-300 to 1e3 nats), held against interval arithmetic. Inside: on the wrong side "
        "of the real inverse, so that a certificate would be too good. Ulps: how many float64 "
        "numbers nearer to q are outside as well, for results from 1e-290 on; below 1e-300 the "
        "lower inverse is certified as 0, and above its slack grows with ln(q/p)."
    )
    table = frame.to_markdown(index=False, intfmt=",", floatfmt=",.0f", missingval="")
    write_atomic(folder / "rounding.md", f"{head}\n\n{table}\n")


def study(config: Config) -> Path:
    """Compare, then write the table and the page; returns the folder."""
    folder = config.out or REPORTS / NAME
    if not config.redraw:
        frame = pd.DataFrame(rows(config))
        write_atomic(folder / "rounding.csv", frame.to_csv(index=False, lineterminator="\n"))
        about = describe(config, f"studies/{NAME}.py", ("out", "redraw"))
        write_json(folder / "study.json", about)
    draw(folder)
    print((folder / "rounding.md").read_text(encoding="utf-8"))
    return folder


if __name__ == "__main__":
    run_study(study, Config, __doc__)
