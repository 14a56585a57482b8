"""The committed report of ten-class certificates: its figures are those of its certificates."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import certified_mnist
import certified_page
import certified_published
import pandas as pd
import pytest

from pbnn.certificates import Certificate, verify

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "reports" / "certified_mnist"


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(REPORT / "table.csv")


@pytest.fixture(scope="module")
def best(table):
    """The least certificate of each data set, prior and predictor."""
    return table.groupby(["dataset", "prior", "predictor"])["certificate"].min()


def test_redrawn_it_is_the_same(tmp_path):
    copy = tmp_path / "report"
    shutil.copytree(REPORT, copy)
    for name in ("table.csv", "certificates.md"):
        (copy / name).unlink()
    certified_mnist.study(certified_mnist.Config(preset="full", out=copy, redraw=True))
    for name in ("table.csv", "certificates.md"):
        assert (copy / name).read_bytes() == (REPORT / name).read_bytes(), name


def test_every_certificate_holds_and_every_mean_is_of_them(table):
    stored = json.loads((REPORT / "certificates.json").read_text(encoding="utf-8"))
    found = {}
    records = pd.read_csv(REPORT / "records.csv").set_index("key")
    for key, name, record in certified_page.stored(stored):
        certificate = Certificate.from_dict(record)
        verify(certificate)
        row = records.loc[key]
        assert certificate.provenance.splits == json.loads(row["config.splits"])
        assert certificate.budget.seeds == 3
        assert certificate.network
        kind = row["config.dataset"], row["config.network"], row["config.prior_share"], name
        found.setdefault(kind, []).append(certificate.bound)
    named = table.set_index(["dataset", "network", "prior_share", "predictor"])["certificate"]
    assert named.to_dict() == pytest.approx({k: sum(v) / 3 for k, v in found.items()})
    assert {len(values) for values in found.values()} == {3}


def test_what_the_project_promises_of_mnist_holds(best):
    mnist = best["mnist"]
    assert mnist["data_free", "gibbs"] <= 0.07
    assert mnist["data_free", "single"] <= 0.07
    assert mnist["data_free", "mode"] <= 0.07
    assert mnist["learned_50", "gibbs"] <= 0.0155
    assert mnist["learned_50", "single"] <= 0.012
    assert best["fashion_mnist"]["learned_50", "single"] <= 0.110


def test_certificates_are_above_the_risks_beside_them(table):
    assert (table["certificate"] > table["risk_train"]).all()
    assert (table["worst"] >= table["certificate"]).all()
    # Of another draw of points; a certificate below its test error would be a rare event.
    assert (table["certificate"] > table["error_test"]).all()


def test_one_kind_of_sampling_takes_less_than_two_per_cent():
    page = (REPORT / "certificates.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| (\w+) +\| (\w+) +\| \d+ +\| \d+ +\| \d+ +\| ([\d.]+)% +\| (\d+)", page)
    of_the_bound = {(dataset, network): float(share) for dataset, network, share, _ in rows}
    assert of_the_bound["mnist", "binary_readout"] < 2
    assert all(int(fewer) >= 100 for *_, fewer in rows)
    assert len(rows) == 4


def test_the_published_figures_are_drawn_as_they_are_quoted():
    page = (REPORT / "certificates.md").read_text(encoding="utf-8")
    for dataset in ("mnist", "fashion_mnist"):
        for name, _, bound, wrong in certified_published.PUBLISHED[dataset]:
            row = next(line for line in page.splitlines() if line.startswith(f"| {name} "))
            assert {f"{bound:g}", f"{wrong:g}"} <= {cell.strip() for cell in row.split("|")} or (
                sum(line.startswith(f"| {name} ") for line in page.splitlines()) > 1
            )


def test_the_readme_quotes_the_report(table):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text.split("### Ten classes")[1].split("## What appears where")[0]
    quoted = {f"0{cell}" for cell in re.findall(r"(?<![\d.])\.\d{3,4}\b", part)}
    known = set()
    for name in ("certificate", "bound_holdout"):
        known |= {certified_page.bound_text(v) for v in table[name].dropna()}
    known |= {f"{v:.4f}" for v in table["error_test"]}
    published = [*certified_published.PUBLISHED["mnist"]]
    known |= {f"{bound:g}" for _, _, bound, _ in published}
    known |= {f"{bound:g}" for *_, bound in certified_published.ONLY_CERTIFICATE["mnist"]}
    assert quoted - known - {"0.05"} == set()
