"""Tables and figures of `pac_bound_mnist.py`, from its CSV files alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom
from tabulate import tabulate

from pbnn import reporting
from pbnn.bounds import maurer
from pbnn.certificates import Certificate, recertified
from pbnn.files import read_json, write_atomic, write_json
from pbnn.methods import hidden_name
from pbnn.reporting.grids import constant_bounds
from pbnn.reporting.tables import as_text

SCHEMA_VERSION = 1
LOOKS = (
    *("pbgnet_l", "pbgnet_rf", "pbgnet_pre", "elbo", "abnet", "fixed_c", "pbgnet"),
    "pbgnet_l_bnd",
)
"""Methods with a place in figures: one colour and marker each, whichever of them ran. There are
seven colours, and the last shares that of the first, of which it is the best epoch."""


def draw(folder: Path) -> None:
    """Tables and figures of a folder, from its CSV files alone."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    records = reporting.records_from_csv(folder / "records.csv")
    curves = reporting.curves_from_csv(folder / "curves.csv")
    frame = grid_of(records)
    write_atomic(folder / "grid.csv", frame.to_csv(index=False, lineterminator="\n"))
    rows = rows_of(frame)
    order = list(dict.fromkeys([*LOOKS, *frame["method"]]))
    what, digits = about["source"], "_digits" if about["substitute"] else ""
    others = published()
    others = others[others["dataset"].isin(frame["dataset"])]
    reporting.write_table(
        rows,
        folder,
        caption=caption_of(about, rows, len(others) > 0),
        published=others if len(others) else None,
        labels=LABELS,
    )
    for suffix in (".md", ".tex") if digits else ():
        (folder / f"table{suffix}").replace(folder / f"table{digits}{suffix}")
    if frame.loc[frame["method"] != "majority", "bound_gibbs"].notna().any():
        title = f"Bound against test error\n{what}"
        path = folder / f"bound_vs_error{digits}"
        reporting.bound_vs_error(rows[rows["method"] != MODE], path, title=title, order=order)
        title = f"Bound of every network of the grid\n{what}"
        reporting.bound_by_network(
            frame, folder / f"bound_by_network{digits}", title=title, order=order
        )
    if curves:
        title = f"Training by the bound\n{what}"
        reporting.learning_curves(
            curves, folder / f"learning_curves{digits}", title=title, order=order
        )
    print(narrow(rows))
    print(f"All columns, and what they mean: {folder / f'table{digits}.md'}")


def recertify(folder: Path) -> None:
    """Compute the certificates of a folder again, rounded outward, and enter them in its CSV.

    Each must agree with its ingredients and with the row that quotes it: a ValueError says which
    does not. A folder without certificates is left as it is.
    """
    path = folder / "certificates.json"
    if not path.exists():
        return
    kept = read_json(path, "certificates", SCHEMA_VERSION)
    records = reporting.records_from_csv(folder / "records.csv")
    by_key = {record["key"]: record["measures"] for record in records}
    for key, pair in kept.items():
        if key == "schema_version":
            continue
        for name, fields in pair.items():
            old = Certificate.from_dict(fields, f"{path}, {key}")
            if by_key[key][f"bound_{name}"] != old.bound:
                raise ValueError(f"{folder / 'records.csv'}: {key} does not quote its certificate.")
            new = recertified(old)
            pair[name], by_key[key][f"bound_{name}"] = new.to_dict(), new.bound
    write_json(path, kept)
    reporting.write_records_csv(records, folder / "records.csv")


MODE = "pbgnet_mode"
LABELS = {
    "dataset": "data set",
    "method": "method",
    "hidden": "hidden",
    "n": "n",
    "kl": "KL",
    "gibbs_test": "Gibbs test",
    "bound_gibbs": "Gibbs bound",
    "bound_gibbs_max": "its worst seed",
    "bound_uncharged": "uncharged",
    "error_train": "vote train",
    "error_test": "vote test",
    "bound_vote": "vote bound",
    "bound_holdout": "hold-out bound",
    "vacuous": "Gibbs vacuous",
}
NARROW = {
    "dataset": "data set",
    "method": "method",
    "hidden": "hidden",
    "bound_gibbs": "Gibbs\nbound",
    "gibbs_test": "Gibbs\ntest",
    "bound_vote": "vote\nbound",
    "error_test": "vote\ntest",
}
"""Columns of a terminal."""


def narrow(rows: pd.DataFrame) -> str:
    """Means of the bounds, each before the test error of its predictor, within 80 columns."""
    text = as_text(rows[[*NARROW]], dict(zip(NARROW, NARROW, strict=True)))
    return tabulate(
        [list(row) for row in text.itertuples(index=False)],
        headers=[NARROW[name] for name in text],
        tablefmt="simple",
        disable_numparse=True,
        colalign=["left" if name in ("dataset", "method") else "right" for name in text],
    )


def shown_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records behind the rows of the table."""
    fields = ["dataset", "method", "hidden"]
    shown = set(reporting.least(grid_of(records))[fields].itertuples(index=False, name=None))

    def row(record: dict[str, Any]) -> tuple[str, str, str]:
        config = record["config"]
        return config["dataset"], config["method"], hidden_name(config.get("hidden")) or ""

    return [record for record in records if row(record) in shown]


def grid_of(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row for each data set, method and network, over the seeds."""
    named = [
        record
        | {"config": record["config"] | {"hidden": hidden_name(record["config"].get("hidden"))}}
        | {"measures": record["measures"] | uncharged(record["measures"])}
        for record in records
    ]
    measures = (*reporting.MEASURES, "bound_uncharged", "mode_train", "mode_test")
    measures += ("undecided_test", "draws_a_point")
    return reporting.table(named, measures, by=("dataset", "method", "hidden"))


def uncharged(measures: dict[str, Any]) -> dict[str, float]:
    """The bound at δ = .05 for this run alone, as others report theirs: no certificate."""
    if measures.get("kl") is None:
        return {}
    bound = maurer(measures["gibbs_train"], measures["kl"], measures["n"], delta=0.05)
    return {"bound_uncharged": float(bound)}


def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table: the network with the least bound, and its mode beside it."""
    rows = reporting.least(frame)
    above = rows["bound_gibbs"] >= rows["dataset"].map(constant_bounds(rows))
    rows = rows.assign(vacuous=above.map({True: "yes", False: ""}))
    rows.loc[rows["method"] == "majority", "vacuous"] = ""
    mode = rows[rows["method"] == "pbgnet"].assign(method=MODE, vacuous="")
    for part in ("train", "test"):
        for suffix in ("", "_std"):
            mode[f"error_{part}{suffix}"] = mode[f"mode_{part}{suffix}"]
    kept = ["dataset", "method", "hidden", "seeds", "n", "vacuous"]
    kept += [f"error_{part}{suffix}" for part in ("train", "test") for suffix in ("", "_std")]
    mode.loc[:, [name for name in mode if name not in kept]] = np.nan
    both = pd.concat([rows, mode.dropna(axis=1, how="all")])
    datasets, methods = list(frame["dataset"].unique()), list(frame["method"].unique())
    # The mode stands below the network that it is the mode of.
    rank = {name: float(place) for place, name in enumerate(methods)}
    rank[MODE] = rank.get("pbgnet", 0.0) + 0.5
    both["place"] = [
        (datasets.index(dataset), rank[method])
        for dataset, method in zip(both["dataset"], both["method"], strict=True)
    ]
    return both.sort_values("place", kind="stable").drop(columns="place")


def caption_of(about: dict[str, Any], rows: pd.DataFrame, compared: bool) -> str:
    """What a reader needs to read the table."""
    runs = "one seed" if about["seeds"] == 1 else f"means over {about['seeds']} seeds"
    caption = (
        f"Binary-activated networks trained by their own bounds on {about['source']}; "
        f"{about['preset']} preset, {runs}, one split; of each method the network with the least "
        "bound (grid.csv has all). Each figure of a bound, taken alone, fails with probability at "
        f"most {about['delta']:g}: the certificates behind it are computed at a much smaller δ "
        "each, divided by the number of seeds and of priors to choose from, the grid included, and "
        "shared with the Monte-Carlo step, so that all of them hold at once. Gibbs: a random "
        "network of the posterior; vote: the sign of the exact aggregate (of 100 or more draws for "
        "wide chains); hold-out: a random network of the trained prior, binomial; "
        f"{MODE}: the one sign network at the posterior mean of pbgnet, which no bound here "
        "covers; Gibbs vacuous: the Gibbs bound is not below that of the constant predictor, "
        "majority (a vote bound may be vacuous without a mark); uncharged: the Gibbs bound at "
        "δ = .05 for one seed with nothing paid, as other people's, and no certificate. "
        "±: standard deviation over seeds."
    ) + sampled(rows, about.get("test_points", {}))
    if compared:
        caption += (
            " Letarte et al. (2019), https://arxiv.org/abs/1905.10259 (error of the vote on "
            "training and test set, and bound), and a public re-run of their code bound the Gibbs "
            "risk and pay for none of their choices."
        )
    return caption


def sampled(rows: pd.DataFrame, points: Mapping[str, int]) -> str:
    """A sentence on the rows whose test error exceeds their bound; none if there are none."""
    told = []
    for row in rows.to_dict("records"):
        pairs = (("error_test", "bound_vote"), ("gibbs_test", "bound_gibbs"))
        above = [(row[error], row[bound]) for error, bound in pairs if row[error] > row[bound]]
        if above and (n := points.get(row["dataset"])):
            chance = min(binom.sf(round(error * n) - 1, n, bound) for error, bound in above)
            words = (
                f"{n:,} test points: as many errors have probability {chance:.2g}, were the risk"
            )
            told.append(f"{row['method']} on {row['dataset']} ({words} the bound)")
        elif above:
            told.append(f"{row['method']} on {row['dataset']}")
    if not told:
        return ""
    return (
        " A bound is of the risk, and a test set is a sample, too: its error exceeds the bound of "
        f"{' and of '.join(told)}."
    )


def published() -> pd.DataFrame:
    """The paper's table, train/test(/bound), and bounds of a public re-run (seed 42)."""
    tasks = ("ads", "adult", "mnist17", "mnist49", "mnist56", "mnistLH")
    paper = {
        "mlp_tanh": (".021/.037", ".128/.149", ".003/.004", ".002/.013", ".002/.009", ".004/.017"),
        "pbgnet_l": (".018/.032", ".136/.148", ".008/.005", ".003/.018", ".002/.009", ".005/.019"),
        "pbgnet": (
            ".024/.038/.283",
            ".158/.154/.227",
            ".007/.009/.067",
            ".034/.039/.153",
            ".022/.026/.103",
            ".071/.073/.186",
        ),
        "pbgnet_pre": (
            ".034/.033/.058",
            ".153/.151/.165",
            ".003/.005/.009",
            ".018/.021/.030",
            ".008/.008/.017",
            ".026/.026/.033",
        ),
    }
    rerun = {
        "pbgnet": (".2030", ".2140", ".0399", ".1388", ".0894", ".1617"),
        "pbgnet_pre": (".0623", ".1636", ".0107", ".0305", ".0181", ".0325"),
    }
    rows = [
        (task, method, figures[place], rerun[method][place] if method in rerun else "")
        for method, figures in paper.items()
        for place, task in enumerate(tasks)
    ]
    return pd.DataFrame(rows, columns=["dataset", "method", "Letarte et al. 2019", "re-run"])
