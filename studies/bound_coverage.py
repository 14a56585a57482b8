"""How often each bound fails: the promise of all of them, simulated, and mistakes it must catch.

Samples are drawn in worlds of `bound_worlds`, where true risks are known sums and posteriors are
chosen after the data to overfit, some by an adversary who knows the truth. A trial counts as a
failure if any of the posteriors that the bound holds for has a risk above it. No bound may fail
more often than delta; the same bounds with a mistake built in must. Beside the simulation stand
exact searches for the worst case of `bound_adversary`.

    python studies/bound_coverage.py              # reports/bound_coverage, two minutes on one core
    python studies/bound_coverage.py --workers 2  # the same bytes, on two processes
    python studies/bound_coverage.py --redraw     # table and figure again, from the CSV files
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bound_adversary
import numpy as np
import pandas as pd
from bound_claims import BROKEN, CLAIMS, Claim
from bound_worlds import DELTAS, WORLDS, Draws
from cells import KEPT, Runs, code_of
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tabulate import tabulate

import pbnn.bounds
from pbnn.bounds import clopper_pearson
from pbnn.files import read_json, write_atomic, write_json
from pbnn.reporting.drawing import GREY, make_panels, save
from pbnn.seeding import spawn_seed
from pbnn.study import SCHEMA_VERSION, describe, run_study
from pbnn.sweep import Cell, cell_key

REPORTS = Path(__file__).resolve().parents[1] / "reports"
NAME = "bound_coverage"
CAPTIONS = {
    "coverage": "How often each bound failed, as a share of δ, in the world where it failed most, "
    "and the limits between which its probability of failure lies. The dashed line is the promise; "
    "diamonds are bounds with a mistake built in.",
}
"""What its figures show."""
CHUNK = 500
CERTAIN = 1e-4
"""How often, at most, one test of one rate is wrong by chance."""
ADVERSARY_N, ADVERSARY_FEW = 60, 8


@dataclass(frozen=True)
class Config(Runs):
    """How much to simulate, and where to write it."""

    trials: int = 20_000
    """Samples drawn in each world."""
    seed: int = 0
    """Of all draws."""
    out: Path | None = None
    """Output folder; by default reports/bound_coverage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("trials", 1), ("seed", 0)):
            if getattr(self, field) < least:
                raise ValueError(f"`{field}` must be at least {least}, got {getattr(self, field)}.")


def simulate(claims: Sequence[Claim], trials: int, seed: int) -> list[dict[str, Any]]:
    """A row for each claim and delta; claims on one world share its draws."""
    found = [
        pair
        for world in dict.fromkeys(claim.world for claim in claims)
        for pair in simulate_world(claims, world, trials, seed)
    ]
    return in_order(found)


def simulate_world(
    claims: Sequence[Claim], world: str, trials: int, seed: int
) -> list[tuple[int, dict[str, Any]]]:
    """The rows of the claims on one world, each with the place of its claim."""
    members = [(index, claim) for index, claim in enumerate(claims) if claim.world == world]
    failures: dict[tuple[int, float], int] = defaultdict(int)
    counts: dict[int, int] = defaultdict(int)
    rng = np.random.default_rng(spawn_seed(seed, "coverage", world))
    for start in range(0, trials, CHUNK):
        size = min(CHUNK, trials - start)
        draws = WORLDS[world](rng, size)
        for index, claim in members:
            if claim.at_most is not None and start >= claim.at_most:
                continue
            counts[index] += size
            for delta in DELTAS:
                failed = np.asarray(claim.fails(draws, delta))
                failures[index, delta] += int(failed.reshape(size, -1).any(1).sum())
    return [
        (index, row(claim, draws, delta, counts[index], failures[index, delta]))
        for index, claim in members
        for delta in DELTAS
    ]


def in_order(found: Iterable[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows in the order of their claims."""
    return [made for _, made in sorted(found, key=lambda pair: pair[0])]


def simulated() -> dict[str, Sequence[Claim]]:
    """Claims by the table that they are in."""
    return {"coverage": CLAIMS, "broken": BROKEN}


def cells_of(config: Config) -> list[Cell]:
    """A cell for each world of either table, and one for the searches at each delta."""
    cells: list[dict[str, Any]] = [
        {"method": table, "dataset": world, "trials": config.trials, "seed": config.seed}
        for table, claims in simulated().items()
        for world in dict.fromkeys(claim.world for claim in claims)
    ]
    sizes = {"largest": ADVERSARY_N, "few": ADVERSARY_FEW}
    cells += [
        {"method": "adversary", "dataset": f"delta {delta:g}", "delta": delta} | sizes
        for delta in DELTAS
    ]
    here = Path(__file__).parent
    code = code_of([*here.glob("bound_*.py"), *Path(pbnn.bounds.__file__).parent.glob("*.py")])
    return [Cell(cell_key(cell, code), cell) for cell in cells]


def run(cell: dict[str, Any]) -> dict[str, Any]:
    """The rows of a cell; simulated ones with the places of their claims."""
    if cell["method"] == "adversary":
        found = bound_adversary.searches(cell["delta"], cell["largest"], cell["few"])
        return {"rows": list(found)}
    claims = simulated()[cell["method"]]
    return {"rows": simulate_world(claims, cell["dataset"], cell["trials"], cell["seed"])}


def tables_of(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each CSV file."""
    rows: dict[str, list[Any]] = defaultdict(list)
    for record in records:
        rows[record["config"]["method"]] += record["rows"]
    return {name: in_order(found) if name in simulated() else found for name, found in rows.items()}


def row(claim: Claim, draws: Draws, delta: float, trials: int, failures: int) -> dict[str, Any]:
    """What was counted, and between which limits the probability of failure lies."""
    n = draws.get("n", "")
    return {
        "bound": claim.bound,
        "setting": claim.setting,
        "world": claim.world,
        "n": max(n) if isinstance(n, list) else n,
        "delta": delta,
        "trials": trials,
        "failures": failures,
        "rate": failures / trials,
        "low": clopper_pearson(failures, trials, delta=CERTAIN, side="lower"),
        "limit": clopper_pearson(failures, trials, delta=CERTAIN),
    }


def broken_promises(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose bound certainly fails more often than delta."""
    return frame[frame["low"] > frame["delta"]]


def study(config: Config) -> Path:
    """Simulate and search, then write CSV files, table and figure; returns the folder."""
    folder = config.out or REPORTS / NAME
    if not config.redraw:
        cells = cells_of(config)
        config.announce(cells, folder)
        found = tables_of(config.run(cells, run, folder))
        for name, rows in found.items():
            text = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
            write_atomic(folder / f"{name}.csv", text)
        about = describe(config, f"studies/{NAME}.py", KEPT, trials=config.trials, seed=config.seed)
        write_json(folder / "study.json", about)
    draw(folder)
    return folder


def draw(folder: Path) -> None:
    """Table and figure from the CSV files."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    names = ("coverage", "broken", "adversary")
    coverage, broken, adversary = (
        pd.read_csv(folder / f"{name}.csv", keep_default_na=False) for name in names
    )
    page = page_of(coverage, broken, adversary, about)
    write_atomic(folder / "coverage.md", page)
    save(lambda: figure_of(coverage, broken), folder / "coverage")
    print(page)


def page_of(
    coverage: pd.DataFrame, broken: pd.DataFrame, adversary: pd.DataFrame, about: dict[str, Any]
) -> str:
    """The three tables, in Markdown."""
    over = len(broken_promises(coverage))
    mistakes = broken["setting"].nunique()
    caught = broken_promises(broken)["setting"].nunique()
    head = (
        f"How often {coverage['bound'].nunique()} bounds failed on {about['trials']:,} samples a "
        "world (fewer where said), with posteriors chosen to overfit, some by an adversary who "
        "knows the true risks: a sample counts once any of them has a risk above its bound. Of "
        f"{len(coverage)} rates in `coverage.csv` (δ = .05, .2 and .5), {over} exceed δ beyond "
        f"chance (one-sided exact binomial test at {CERTAIN:g}). Of {mistakes} mistakes built into "
        f"bounds {caught} are caught. Below: for each bound, the row where the rate is the "
        "largest share of δ; ≤: the upper limit on the probability, from the same test. "
        "`One predictor` leaves nothing to overfit; the bounds are tightest there. A bound that "
        "never failed is loose in all of these worlds, and the simulation tells little of it."
    )
    search = [
        (r.search, f"{r.delta:g}", r.n_up_to, r.n, short(r.p), f"{r.probability:.4f}")
        for r in adversary.itertuples()
    ]
    columns = ("exact search", "δ", "n up to", "worst n", "true risk", "largest probability")
    return "\n\n".join(
        [
            head,
            table(worst(coverage, "bound"), "bound"),
            "Mistakes, which must be caught.",
            table(worst(broken, "setting"), "mistake"),
            "Mistakes that simulation need not show, as they may stay below δ: the worst case, "
            "found exactly. For one predictor the one-sided bound with ln(1/δ) is Chernoff's, "
            "which holds, and the infimum over C is the same; for every posterior at once it is an "
            "open problem. The kl event on both sides does break the promise.",
            tabulate(search, columns, tablefmt="pipe", disable_numparse=True) + "\n",
        ]
    )


def short(value: Any) -> str:
    """A risk to four digits; two of them are a text."""
    try:
        return f"{float(value):.4f}"
    except ValueError:
        return str(value)


def worst(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Of each group, the row whose rate is the largest share of delta, in the order given."""
    share = frame.assign(share=frame["rate"] / frame["delta"])
    # Never to have failed tells most where delta is large.
    first = share.sort_values(["share", "delta"], ascending=False, kind="stable")
    return first.drop_duplicates(by).set_index(by).loc[frame[by].drop_duplicates()].reset_index()


def table(frame: pd.DataFrame, kind: str) -> str:
    """One row a bound or mistake, in Markdown."""
    rows = []
    for r in frame.to_dict("records"):
        where = (
            r["world"]
            if kind == "mistake" or not r["setting"]
            else (f"{r['world']}; {r['setting']}")
        )
        first = f"{r['setting']} (`{r['bound']}`)" if kind == "mistake" else f"`{r['bound']}`"
        counted = f"{r['failures']} of {r['trials']}"
        rows.append(
            (
                *(first, where, r["n"], f"{r['delta']:g}", counted),
                *(f"{r[name]:.4f}" for name in ("rate", "limit")),
            )
        )
    headers = (kind, "world", "n", "δ", "failures", "rate", "≤")
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def figure_of(coverage: pd.DataFrame, broken: pd.DataFrame) -> Figure:
    """The rate as a share of delta, for each bound at its worst, and for each mistake."""
    good, bad = worst(coverage, "bound"), worst(broken, "setting")
    labels = [*good["bound"], *bad["setting"]]
    figure, ((axes,),) = make_panels(1, [1.0], height=0.14 * len(labels) + 0.2)
    figure.set_size_inches(5.0, figure.get_size_inches()[1])
    left = min(1e-4, float((good["limit"] / good["delta"]).min()) / 2)
    for kind, marker, color, start in ((good, "o", "C0", 0), (bad, "D", "C1", len(good))):
        for place, r in enumerate(kind.to_dict("records"), start):
            ends = [max(r["low"] / r["delta"], left), r["limit"] / r["delta"]]
            axes.plot(ends, [place, place], color=color, linewidth=0.8)
            at = r["rate"] / r["delta"]
            face = color if at else "white"
            axes.plot(
                max(at, left), place, marker, color=color, markerfacecolor=face, clip_on=False
            )
    axes.axvline(1.0, color=GREY, linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(left, 1.3 / DELTAS[0])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("rate of failure / δ")
    look: dict[str, Any] = {"linestyle": "none"}
    handles = [
        Line2D([], [], marker="o", color="C0", label="bound", **look),
        Line2D([], [], marker="o", color="C0", markerfacecolor="white", label="no failure", **look),
        Line2D([], [], marker="D", color="C1", label="with a mistake", **look),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


if __name__ == "__main__":
    run_study(study, Config, __doc__, CAPTIONS)
