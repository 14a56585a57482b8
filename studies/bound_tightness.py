"""Which bound to use when: all bounds on the Gibbs risk on a grid of risk, KL divergence and n.

Part one, `tightness`: every bound of `pbnn.bounds.CATALOGUE` on the Gibbs risk that can be computed
from the empirical risk, the KL divergence and n, beside the exact test-set bound for as many errors
(which must not have seen the n examples in training) and the same on half of them. Losses of 0 or
1, and soft losses in [0, 1] whose variance is .02 of theirs. What a bound wants fixed beforehand is
fixed at one guess of risk and KL for the whole grid; "(right guess)" is the same bound with the
guess that turns out true, which nobody has.

Part two, `monte_carlo`: bounds on an empirical Gibbs risk that was estimated by m draws, on
simulated losses of known mean and variance.

What comes out, with its numbers, is in which_bound.md: for losses of 0 or 1 the kl bound with its
exact constant, unless the KL divergence is a few nats; for soft losses one that sees more than
their mean; in the Monte-Carlo step betting, but for losses of 0 or 1.

    python studies/bound_tightness.py               # reports/bound_tightness, under a minute
    python studies/bound_tightness.py --workers 2   # the same bytes, on two processes
    python studies/bound_tightness.py --redraw      # tables and figures again, from the CSVs
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bound_tightness_page import (
    BEST,
    DOMINATED,
    RIGHT,
    TEST_HALF,
    TEST_SET,
    by_n_figure,
    by_risk_figure,
    monte_carlo_figure,
    page_of,
)
from cells import KEPT, Runs, code_of
from scipy import special

import pbnn.bounds
from pbnn.bounds import CATALOGUE, betting, clopper_pearson, kl_inverse, maurer_pontil, monte_carlo
from pbnn.files import read_json, write_atomic, write_json
from pbnn.reporting.drawing import save
from pbnn.seeding import spawn_seed
from pbnn.study import describe, run_study
from pbnn.sweep import Cell, cell_key

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "bound_tightness"
CAPTIONS = {
    "excess_by_risk": "How far bounds lie above the empirical risk, for losses of 0 or 1 and n = "
    "60,000: a few as they are, below them all relative to the kl bound with its exact constant.",
    "excess_by_n": "How far bounds lie above the empirical risk, against n, at a risk of 0.02 and "
    "a KL divergence of 500 nats, for both kinds of losses.",
    "monte_carlo": "How far the bounds of the Monte-Carlo step lie above the mean of m = 10,000 "
    "losses, against the variance of the losses.",
}
"""What its figures show."""
SCHEMA_VERSION = 1
CSVS = ("tightness", "by_n", "winners", "monte_carlo")

RISKS = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
KL_PER_N = (0.0, 1e-4, 1e-3, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3)
SIZES = (100, 1_000, 10_000, 60_000, 1_000_000)
VARIANCES = {"0/1": 1.0, "soft": 0.02}
"""Variance of the losses as a share of risk (1 - risk); the soft ones are Beta distributed."""
GUESS = {"risk": 0.02, "kl_per_n": 0.01}
"""What is expected before the data, where a bound must be told."""
FIXED_KL, FIXED_RISK = 500.0, 0.02
MANY_SIZES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)

MEANS = (0.001, 0.01, 0.05, 0.2)
RATIOS = (1.0, 0.3, 0.1, 0.01, 0.001)
DRAWS = (1_000, 10_000, 100_000)
DELTA_MC = 0.01
LEVELS = 2**14
"""Soft losses are rounded at random to this many levels, which keeps their mean."""


@dataclass(frozen=True)
class Config(Runs):
    """How sure to be, and where to write."""

    delta: float = 0.05
    """Probability that a bound on the Gibbs risk may fail."""
    seeds: int = 20
    """Simulated samples behind each point of the Monte-Carlo step."""
    out: Path | None = None
    """Output folder; by default reports/bound_tightness."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.delta < 1:
            raise ValueError(f"`delta` must lie in (0, 1), got {self.delta}.")
        if self.seeds < 1:
            raise ValueError(f"`seeds` must be positive, got {self.seeds}.")


@dataclass(frozen=True)
class Points:
    """Points at which bounds are compared, and what is known of the losses there."""

    losses: str
    risk: np.ndarray
    kl: np.ndarray
    n: np.ndarray
    delta: float

    @property
    def spread(self) -> np.ndarray:
        """Variance of the losses of one predictor; the same for all, which is the worst case."""
        return VARIANCES[self.losses] * self.risk * (1 - self.risk)

    def guessed(self) -> Points:
        """These points as they were expected to be."""
        risk = np.full_like(self.risk, GUESS["risk"])
        return Points(self.losses, risk, GUESS["kl_per_n"] * self.n, self.n, self.delta)

    def above(self, mu: np.ndarray) -> np.ndarray:
        """The mean of max(0, loss - mu)."""
        if self.losses == "0/1":
            return self.risk * (1 - mu)
        shape = 1 / VARIANCES[self.losses] - 1
        inside = self.risk > 0
        a, b = shape * np.where(inside, self.risk, 0.5), shape * (1 - self.risk)
        value = self.risk * special.betaincc(a + 1, b, mu) - mu * special.betaincc(a, b, mu)
        return np.where(inside, np.clip(value, 0, 1 - mu), 0.0)


Arguments = dict[str, Any]

KNOWN: dict[str, Callable[[Points], Any]] = {
    "risk": lambda at: at.risk,
    "loss": lambda at: at.risk,
    "kl": lambda at: at.kl,
    "n": lambda at: at.n,
    "variance": lambda at: at.spread * at.n / (at.n - 1),
    "second_moment": lambda at: at.risk**2 + at.spread,
}
"""Arguments that the point itself gives."""
MISSING = {
    "divergence": "another divergence than KL",
    "frequency": "several posteriors, each with frequencies of its own",
    "s2": "`alquier` for losses in [0, 1], of which s2 = 1/4 and c = 0 are known",
}
"""Why a bound with this argument is left out."""


def temperature(at: Points) -> np.ndarray:
    """The best C of Catoni's bound at a fixed temperature for this risk and KL."""
    risk = np.maximum(at.risk, 1e-6)
    p = kl_inverse(risk, (at.kl - np.log(at.delta)) / at.n)
    return np.log(p * (1 - risk)) - np.log(risk * (1 - p))


def hoeffding(at: Points) -> np.ndarray:
    """The best `lam` of Alquier's bound for this KL."""
    return np.sqrt(8 * at.n * (at.kl - np.log(at.delta)))


def split(at: Points, mu: np.ndarray) -> Arguments:
    """Arguments of split-kl for losses in [0, 1] split at `mu`."""
    plus = at.above(mu)
    minus = np.clip(plus - at.risk + mu, 0, mu)
    return {"plus": plus, "minus": minus, "a": 0.0, "b": 1.0, "mu": mu}


def zero_one(at: Points) -> Arguments | None:
    """Arguments of the discrete split-kl bound, for losses of 0 or 1."""
    if at.losses != "0/1":
        return None
    return {"frequency": at.risk[..., None], "values": (0.0, 1.0)}


VARIANTS: dict[str, dict[str, Callable[[Points], Arguments | None]]] = {
    "quadratic": {" (tight)": lambda at: {"tight": True}, "": lambda at: {}},
    "catoni_fixed": {
        "": lambda at: {"C": temperature(at.guessed())},
        RIGHT: lambda at: {"C": temperature(at)},
    },
    "alquier": {
        "": lambda at: {"lam": hoeffding(at.guessed())},
        RIGHT: lambda at: {"lam": hoeffding(at)},
    },
    "split_kl": {
        "": lambda at: split(at, at.guessed().risk),
        RIGHT: lambda at: split(at, at.risk),
    },
    "split_kl_discrete": {"": zero_one},
    # It holds for every temperature: the least over many may be taken.
    "catoni_union": {"": lambda at: {"lam": np.geomspace(1e-3, 1e2, 301)[:, None] * at.n + 1}},
}
"""Name → ending → further arguments of a bound; None where it does not apply."""


def compared() -> tuple[list[str], dict[str, str]]:
    """Names in the catalogue that this study compares, and why the others are left out."""
    chosen, left_out = [], {}
    for name, bound in CATALOGUE.items():
        parameters = inspect.signature(bound.function).parameters.values()
        asked = [p.name for p in parameters if p.default is inspect.Parameter.empty]
        unknown = [argument for argument in asked if argument not in KNOWN]
        if bound.quantity not in ("Gibbs risk", "mean loss under the posterior"):
            left_out[name] = f"bounds on the {bound.quantity}"
        elif unknown and name not in VARIANTS:
            reasons = [MISSING[argument] for argument in unknown if argument in MISSING]
            left_out[name] = (reasons or [f"no rule for `{unknown[0]}`"])[0]
        else:
            chosen.append(name)
    return chosen, left_out


def values(at: Points) -> Iterator[tuple[str, np.ndarray]]:
    """Each bound at all points: the catalogue's, then the test set's."""
    for name in compared()[0]:
        function = CATALOGUE[name].function
        asked = inspect.signature(function).parameters
        for ending, further in VARIANTS.get(name, {"": lambda at: {}}).items():
            arguments = further(at)
            if arguments is None:
                continue
            known = {key: give(at) for key, give in KNOWN.items() if key in asked}
            value = function(**known, **arguments, delta=at.delta)
            yield name + ending, value.min(0) if value.ndim > at.n.ndim else value
    for name, n in ((TEST_SET, at.n), (TEST_HALF, at.n // 2)):
        if at.losses == "0/1":
            yield name, clopper_pearson(np.floor(at.risk * n + 0.5), n, delta=at.delta)


def rows(at: Points) -> pd.DataFrame:
    """One row for each point and bound."""
    columns = {"risk": at.risk, "kl_per_n": at.kl / at.n, "n": at.n, "delta": at.delta}
    parts = [
        pd.DataFrame({"losses": at.losses, "point": range(len(at.n)), **columns, "bound": name})
        .assign(value=value)
        .assign(excess=value - at.risk)
        for name, value in values(at)
    ]
    frame = pd.concat(parts, ignore_index=True)
    usable = ~frame["bound"].str.endswith((RIGHT, TEST_SET, TEST_HALF))
    least = frame[usable].groupby("point")["value"].min()
    frame["ratio"] = frame["value"] / frame["point"].map(least)
    return frame.sort_values("point", kind="stable").drop(columns="point")


def tightness(config: Config) -> pd.DataFrame:
    """All bounds on the grid; `ratio` is to the least of those that need no right guess."""
    grid = np.array([*product(RISKS, KL_PER_N, SIZES)])
    risk, kl_per_n, n = grid.T
    parts = [Points(kind, risk, kl_per_n * n, n.astype(int), config.delta) for kind in VARIANCES]
    return pd.concat([rows(part) for part in parts], ignore_index=True)


def by_n(config: Config) -> pd.DataFrame:
    """All bounds at a fixed risk and KL as n grows."""
    n = np.array(MANY_SIZES)
    risk, kl = np.full(n.shape, FIXED_RISK), np.full(n.shape, FIXED_KL)
    parts = [Points(kind, risk, kl, n, config.delta) for kind in VARIANCES]
    return pd.concat([rows(part) for part in parts], ignore_index=True)


def winners(frame: pd.DataFrame) -> pd.DataFrame:
    """The least bound at each point of the grid, and the least with a closed form."""
    found = []
    for point, group in frame.groupby(["losses", "risk", "kl_per_n", "n", "delta"], sort=False):
        value = group.set_index("bound")["value"]
        out = [*DOMINATED, "split_kl_discrete", TEST_SET, TEST_HALF]
        fair = value[[not name.endswith(RIGHT) and name not in out for name in value.index]]
        closed = value[["quadratic (tight)", "quadratic", "tolstikhin_seldin", "mcallester"]]
        won = {
            "least": fair.idxmin() if fair.min() < 1 else "vacuous",
            "value": fair.min(),
            BEST: value[BEST],
            "gain": 1 - fair.min() / value[BEST],
            # At no risk at all some are equal but for rounding.
            "closed_form": closed.round(12).idxmin() if closed.min() < 1 else "vacuous",
            "closed_form_value": closed.min(),
            "closed_form_loss": closed.min() / fair.min() - 1,
        }
        keys = ("losses", "risk", "kl_per_n", "n", "delta")
        found.append(dict(zip(keys, point, strict=True)) | won)
    return pd.DataFrame(found)


def simulated(mean: float, ratio: float, m: int, seed: int) -> np.ndarray:
    """Losses of this mean and this share of the largest variance: of 0 or 1, or Beta."""
    source = np.random.default_rng(spawn_seed(seed, "losses", str(mean), str(ratio), m))
    if ratio == 1:
        return (source.random(m) < mean).astype(float)
    shape = 1 / ratio - 1
    losses = source.beta(shape * mean, shape * (1 - mean), m)
    return np.floor(losses * LEVELS + source.random(m)) / LEVELS


def steps(losses: np.ndarray) -> dict[str, float]:
    """Each bound on the mean of the losses; all but Clopper and Pearson's are for any in [0, 1]."""
    mean, m = losses.mean(), len(losses)
    found = {
        "monte_carlo": monte_carlo(mean, m, delta=DELTA_MC),
        "maurer_pontil": maurer_pontil(mean, m, variance=losses.var(ddof=1), delta=DELTA_MC),
        "betting": betting(losses, delta=DELTA_MC),
    }
    if set(np.unique(losses)) <= {0.0, 1.0}:
        found["clopper_pearson"] = clopper_pearson(losses.sum(), m, delta=DELTA_MC)
    return {name: float(value) for name, value in found.items()}


def cells_of(config: Config) -> list[Cell]:
    """A cell for each law of the losses in the Monte-Carlo step."""
    code = code_of([Path(__file__), *Path(pbnn.bounds.__file__).parent.glob("*.py")])
    cells = [
        {
            "dataset": f"mean {mean:g}",
            "method": f"ratio {ratio:g}",
            "mean": mean,
            "ratio": ratio,
            "draws": list(DRAWS),
            "seeds": config.seeds,
        }
        for mean, ratio in product(MEANS, RATIOS)
    ]
    return [Cell(cell_key(cell, code), cell) for cell in cells]


def run(cell: dict[str, Any]) -> dict[str, Any]:
    """The rows of a cell, for each number of draws."""
    law, seeds = (cell["mean"], cell["ratio"]), cell["seeds"]
    return {"rows": [row for m in cell["draws"] for row in monte_carlo_rows(*law, m, seeds)]}


def monte_carlo_rows(mean: float, ratio: float, m: int, seeds: int) -> Iterator[dict[str, Any]]:
    """The median excess of each bound over the true mean, and how many fell below it."""
    runs = [steps(simulated(mean, ratio, m, seed)) for seed in range(seeds)]
    # All samples of a few soft losses may happen to hold only zeros.
    names = [name for name in runs[0] if ratio == 1 or name != "clopper_pearson"]
    excess = {name: np.array([run[name] for run in runs]) - mean for name in names}
    least = min(names, key=lambda name: float(np.median(excess[name])))
    for name in names:
        yield {
            "mean": mean,
            "variance_ratio": ratio,
            "m": m,
            "delta": DELTA_MC,
            "bound": name,
            "excess": float(np.median(excess[name])),
            "least": name == least,
            "failures": int((excess[name] < 0).sum()),
            "seeds": seeds,
        }


def study(config: Config) -> Path:
    """Compute, then write the CSV files, the page and the figures; returns the folder."""
    folder = config.out or REPORTS / NAME
    if not config.redraw:
        grid = tightness(config)
        cells = cells_of(config)
        config.announce(cells, folder)
        drawn = [row for record in config.run(cells, run, folder) for row in record["rows"]]
        frames = (grid, by_n(config), winners(grid), pd.DataFrame(drawn))
        for name, frame in zip(CSVS, frames, strict=True):
            text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
            write_atomic(folder / f"{name}.csv", text)
        chosen, left_out = compared()
        more = {"compared": chosen, "left_out": left_out, "guess": GUESS}
        more["variances"] = VARIANCES
        about = describe(config, f"studies/{NAME}.py", KEPT, **more)
        write_json(folder / "study.json", about)
    draw(folder)
    return folder


def draw(folder: Path) -> None:
    """The page and the figures from the CSV files."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    grid, grown, won, drawn = (pd.read_csv(folder / f"{name}.csv") for name in CSVS)
    page = page_of(about, grid, won, drawn)
    write_atomic(folder / "which_bound.md", page)
    save(lambda: by_risk_figure(grid), folder / "excess_by_risk")
    save(lambda: by_n_figure(grown), folder / "excess_by_n")
    save(lambda: monte_carlo_figure(drawn), folder / "monte_carlo")
    print(page)


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
