"""Table and page of the study of ten-class certificates, from its CSV files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from certified_figures import curves_figure, risk_figure, split_figure
from certified_published import ONLY_CERTIFICATE, PBB_DRAWS, PUBLISHED
from tabulate import tabulate

from pbnn.certificates import Certificate, verify
from pbnn.files import read_json, write_atomic
from pbnn.reporting import curves_from_csv, records_from_csv
from pbnn.reporting.drawing import save
from pbnn.study import SCHEMA_VERSION

PREDICTORS = ("gibbs", "vote", "single", "mode")
OF_A_ROW = ("dataset", "network", "prior", "prior_share", "weights")
COLUMNS = [*OF_A_ROW, "predictor", "certificate", "worst", "risk_train", "error_test"]
BOUNDS = {"certificate", "worst", "bound_holdout"}
COLUMNS += ["bound_holdout", "kl", "n", "delta", "choices", "draws", "seeds", "theorem"]


def draw(folder: Path) -> None:
    """Write table.csv, certificates.md and the figures of a finished study."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    records = records_from_csv(folder / "records.csv")
    runs = pd.DataFrame([r["config"] | r["measures"] | {"key": r["key"]} for r in records])
    certificates = read_json(folder / "certificates.json", "certificates", SCHEMA_VERSION)
    for key, name, certificate in stored(certificates):
        verify(Certificate.from_dict(certificate), f"certificates.json, {key}, {name}")
    table = pd.DataFrame(table_rows(runs, certificates))[COLUMNS]
    write_atomic(folder / "table.csv", table.to_csv(index=False, lineterminator="\n"))
    timings = pd.read_csv(folder / "timings.csv")[["key", "seconds.draws", "seconds.all"]]
    page = page_of(about, table, runs.merge(timings, on="key"))
    write_atomic(folder / "certificates.md", page)
    curves = {r["key"]: r["curve"] for r in curves_from_csv(folder / "curves.csv")}
    save(lambda: risk_figure(table), folder / "certificate_vs_error")
    save(lambda: split_figure(table), folder / "certificate_vs_prior_split")
    save(lambda: curves_figure(runs, curves), folder / "learning_curves")
    print(page)


def stored(certificates: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Key, predictor and record of every certificate of the file."""
    for key, each in certificates.items():
        if key != "schema_version":
            yield from ((key, name, certificate) for name, certificate in each.items())


def table_rows(runs: pd.DataFrame, certificates: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each predictor of each network: means over seeds, and the worst certificate."""
    rows = []
    for _, group in runs.groupby(list(OF_A_ROW), sort=False):
        first = group.iloc[0]
        for predictor in PREDICTORS:
            if group.get(f"{predictor}_certificate", pd.Series(dtype=float)).isna().all():
                continue
            row = {name: first[name] for name in (*OF_A_ROW, "delta")}
            row |= {"predictor": predictor, "n": int(first["n"]), "seeds": len(group)}
            for name in ("risk_train", "error_test", "kl"):
                row[name] = group[f"{predictor}_{name}"].mean()
            bounds = pd.Series([certificates[key][predictor]["bound"] for key in group["key"]])
            row |= {"certificate": bounds.mean(), "worst": bounds.max()}
            certificate = certificates[first["key"]][predictor]
            row |= {name: certificate[name] for name in ("theorem", "draws")}
            row["choices"] = certificate["budget"]["choices"]
            held_out = group.get(f"{predictor}_bound_holdout", pd.Series(dtype=float))
            row["bound_holdout"] = held_out.mean()
            rows.append(row)
    return rows


def page_of(about: dict[str, Any], table: pd.DataFrame, runs: pd.DataFrame) -> str:
    """The page for people."""
    parts = [
        "# Certificates of ten-class networks with binary activations\n",
        f"`{about['command']}`, {about['hardware']['cpu']}. δ = {table['delta'].iloc[0]} a row, "
        "shared among its predictors, its seeds, its draws, and the `choices` of priors it might "
        "have been made from. Certificates are means over seeds, with the worst beside them. "
        "`risk_train` and `error_test` are that predictor's, on certification and test points. "
        "What each row rests on, and what was paid for it, is said in docs/certificates.md.",
        "",
    ]
    for dataset, group in table.groupby("dataset", sort=False):
        shown = group.drop(columns=["dataset", "delta"])
        text = [
            [cell_text(value, name) for name, value in zip(shown, row, strict=True)]
            for row in shown.itertuples(index=False)
        ]
        parts += [f"## {dataset}\n", f"{about['sources'][dataset]}.\n", table_of(text, shown)]
        parts += [published_part(str(dataset)), helped(group)]
    return "\n".join([*parts, cost_part(runs), seconds_part(runs)])


def table_of(rows: list[list[Any]], headers: Any) -> str:
    """A table of text."""
    return tabulate(rows, list(headers), tablefmt="pipe", disable_numparse=True) + "\n"


def cell_text(value: Any, name: str) -> str:
    """Four decimals of a share, bounds rounded up; one of nats; nothing for what there is not."""
    if not isinstance(value, float):
        return str(value)
    if value != value:
        return ""
    if name in BOUNDS:
        return bound_text(value)
    return (
        f"{value:.1f}"
        if name == "kl"
        else f"{value:g}"
        if name == "prior_share"
        else f"{value:.4f}"
    )


def bound_text(bound: float) -> str:
    """Four decimals, rounded up: what is printed is a bound too."""
    return f"{math.ceil(bound * 10**4) / 10**4:.4f}"


def helped(group: pd.DataFrame) -> str:
    """Whether PAC-Bayes helped: only where a certificate is below what the prior alone has."""
    learned = group.dropna(subset="bound_holdout")
    if learned.empty:
        return ""
    lines = ["Learned priors: did the certification points help beyond measuring?\n"]
    least = learned.groupby("prior_share")["bound_holdout"].min()
    for row in learned.to_dict("records"):
        below = row["certificate"] < row["bound_holdout"]
        lines.append(
            f"- {row['network']}, {row['prior']} ({row['prior_share']:g}), {row['predictor']}: "
            f"{bound_text(row['certificate'])} {'is below' if below else 'is not below'} the "
            f"hold-out bound of the prior, {bound_text(row['bound_holdout'])}; the least of any "
            f"predictor with that split is {bound_text(least[row['prior_share']])}."
        )
    return "\n".join(lines) + "\n"


def published_part(dataset: str) -> str:
    """The published figures."""
    rows = [[*row] for row in PUBLISHED.get(dataset, [])]
    rows += [[*row, ""] for row in ONLY_CERTIFICATE.get(dataset, [])]
    if not rows:
        return ""
    return table_of(
        rows, ["published (real-valued networks)", "predictor", "certificate", "error_test"]
    )


def cost_part(runs: pd.DataFrame) -> str:
    """What the draws cost, and what they took from the bound."""
    rows = []
    drawn = runs[runs["gibbs_bound_of_no_draws"].notna()]
    for (dataset, network), group in drawn.groupby(["dataset", "network"], sort=False):
        first = group.iloc[0]
        taken = 1 - group["gibbs_bound_of_no_draws"] / group["gibbs_certificate"]
        fewer = PBB_DRAWS * first["n"] / first["point_evaluations"]
        row = [dataset, network, int(first["gibbs_draws"]), int(first["point_evaluations"])]
        seconds = f"{group['seconds.draws'].mean():.0f}"
        rows.append([*row, seconds, f"{100 * taken.mean():.1f}%", f"{fewer:.0f}"])
    headers = ["dataset", "network", "networks drawn", "points evaluated", "seconds"]
    headers += ["of the bound", "times fewer evaluations than PBB"]
    text = f"PBB draws {PBB_DRAWS} networks and evaluates each on all data (computed, not run)."
    return f"## What sampling costs\n\n{text}\n\n{table_of(rows, headers)}"


def seconds_part(runs: pd.DataFrame) -> str:
    """How long each kind of run took."""
    rows = [
        [dataset, network, f"{group['seconds.all'].mean():.0f}"]
        for (dataset, network), group in runs.groupby(["dataset", "network"], sort=False)
    ]
    return f"## Seconds a run\n\n{table_of(rows, ['dataset', 'network', 'seconds'])}"
