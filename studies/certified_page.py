"""Table, page and figures of the study of ten-class certificates, from its CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from pbnn.files import read_json, write_atomic
from pbnn.reporting import records_from_csv
from pbnn.reporting.drawing import GREY, label_rows, legend, look_of, make_panels, save
from pbnn.study import SCHEMA_VERSION

PREDICTORS = ("gibbs", "vote", "single")
COLUMNS = ["dataset", "network", "prior", "predictor", "weights", "certificate", "risk_train"]
COLUMNS += ["error_test", "bound_holdout", "kl", "n", "delta", "draws", "seeds", "worst"]

PUBLISHED: dict[str, list[tuple[str, str, float, float]]] = {
    "mnist": [
        ("PBB, data-free", "gibbs", 0.3155, 0.0951),
        ("Recursive PAC-Bayes", "gibbs", 0.1857, 0.0955),
        ("PBB, learned 50%, CNN", "gibbs", 0.0155, 0.0127),
        ("PBB, corrected re-run", "gibbs", 0.0369, 0.0108),
        ("Viallard et al., 50%", "single", 0.012, 0.006),
    ],
    "fashion_mnist": [
        ("Viallard et al., 50%", "single", 0.110, 0.104),
        ("PBB CNN, corrected", "gibbs", 0.1674, 0.0931),
    ],
}
"""Source, predictor, certificate and test error: Pérez-Ortiz et al. (2021), Wu et al. (2024),
Viallard et al. (2024). All are real-valued networks."""
ONLY_CERTIFICATE = {"mnist": [("Lotfi et al. 2022, data-free", 0.116)]}
"""Published without a test error beside it."""


def draw(folder: Path) -> None:
    """Write table.csv, certificates.md and the figures of a finished study."""
    about = read_json(folder / "study.json", "study description", SCHEMA_VERSION)
    rows = table_rows(records_from_csv(folder / "records.csv"))
    table = pd.DataFrame(rows)[COLUMNS]
    write_atomic(folder / "table.csv", table.to_csv(index=False, lineterminator="\n"))
    page = page_of(about, table)
    write_atomic(folder / "certificates.md", page)
    save(lambda: risk_figure(table), folder / "certificate_vs_error")
    print(page)


def table_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each predictor of each prior: means over seeds, and the worst certificate."""
    frame = pd.DataFrame([r["config"] | r["measures"] for r in records])
    rows = []
    for _, group in frame.groupby(["dataset", "prior", "network"], sort=False):
        first = group.iloc[0]
        for predictor in (name for name in PREDICTORS if f"{name}_certificate" in group):
            if group[f"{predictor}_certificate"].isna().any():
                continue
            mine = {
                name: group[f"{predictor}_{name}"].mean()
                for name in ("certificate", "risk_train", "error_test", "kl", "draws")
            }
            row = {name: first[name] for name in ("dataset", "network", "prior", "weights")}
            row |= {"predictor": predictor, "n": int(first["n"]), "delta": first["delta"]}
            row |= mine | {"seeds": len(group), "draws": int(mine["draws"])}
            row["worst"] = group[f"{predictor}_certificate"].max()
            held_out = group.get(f"{predictor}_bound_holdout", pd.Series(dtype=float))
            row["bound_holdout"] = held_out.mean()
            rows.append(row)
    return rows


def page_of(about: dict[str, Any], table: pd.DataFrame) -> str:
    """The page for people."""
    parts = [
        "# Certificates of ten-class networks with binary activations\n",
        f"`{about['command']}`, {about['hardware']['cpu']}. δ = {table['delta'].iloc[0]} a row, "
        "shared among its predictors, its seeds, its draws, and a thousand priors it might have "
        "been chosen from. Certificates are means over seeds, with the worst beside them.\n",
    ]
    for dataset, group in table.groupby("dataset", sort=False):
        shown = group.drop(columns=["dataset", "delta"])
        text = [[cell_text(v) for v in row] for row in shown.itertuples(index=False)]
        parts += [f"## {dataset}\n", f"{about['sources'][dataset]}.\n"]
        parts.append(tabulate(text, list(shown), tablefmt="pipe", disable_numparse=True) + "\n")
        parts += [helped(group), published_part(str(dataset))]
    return "\n".join(parts)


def cell_text(value: Any) -> str:
    """Four decimals of a share, one of nats, nothing for what there is not."""
    if not isinstance(value, float):
        return str(value)
    return "" if value != value else f"{value:.4f}" if value < 1 else f"{value:.1f}"


def helped(group: pd.DataFrame) -> str:
    """Whether PAC-Bayes helped: only where a certificate is below what the prior alone has."""
    lines = []
    for row in group.dropna(subset="bound_holdout").to_dict("records"):
        below = "is below" if row["certificate"] < row["bound_holdout"] else "is not below"
        lines.append(
            f"- {row['prior']}, {row['predictor']}: {row['certificate']:.4f} {below} the hold-out "
            f"bound of the prior, {row['bound_holdout']:.4f}."
        )
    return "\n".join(lines) + "\n"


def published_part(dataset: str) -> str:
    """The published figures."""
    rows = [[*row] for row in PUBLISHED.get(dataset, [])]
    rows += [[name, "single", bound, ""] for name, bound in ONLY_CERTIFICATE.get(dataset, [])]
    if not rows:
        return ""
    headers = ["published (real-valued networks)", "predictor", "certificate", "error_test"]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True) + "\n"


def risk_figure(table: pd.DataFrame) -> Figure:
    """Certificate against test error of the same predictor, with every published point."""
    datasets, order = list(table["dataset"].unique()), list(table["prior"].unique())
    figure, (panels,) = make_panels(len(datasets), [1.0], height=2.6)
    for axes, dataset in zip(panels, datasets, strict=True):
        mine = table[table["dataset"] == dataset]
        for row in mine.to_dict("records"):
            look = look_of(order, row["prior"])
            size = {"gibbs": 5, "vote": 3, "single": 7}[row["predictor"]]
            point = row["error_test"], row["certificate"]
            axes.plot(*point, **look, linestyle="none", markersize=size, fillstyle="none")
        for name, _, bound, wrong in PUBLISHED.get(dataset, []):
            axes.plot(wrong, bound, marker="*", color=GREY, linestyle="none")
            axes.annotate(name, (wrong, bound), fontsize=5, color=GREY)
        for name, bound in ONLY_CERTIFICATE.get(dataset, []):
            axes.axhline(bound, color=GREY, lw=0.6, ls=":")
            axes.annotate(name, (axes.get_xlim()[0], bound), fontsize=5, color=GREY)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(dataset)
        axes.set_xlabel("test error")
    label_rows(panels, "certificate")
    legend(figure, order, order, [], len(panels))
    return figure
