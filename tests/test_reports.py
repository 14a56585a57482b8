"""The committed report: its figures are those of its certificates, and of the README."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import statistics
import sys
from pathlib import Path

import pac_bound_tables as tables
import pandas as pd
import pytest

from pbnn.certificates import Certificate, verify
from pbnn.ledger import read_tried
from pbnn.methods import hidden_name
from pbnn.reporting import records_from_csv

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "reports" / "pac_bound_mnist"
IMAGES = ("mnist17", "mnist49", "mnist56", "mnistLH")
TABLES = ("adult", "ads")
PLAIN = {"majority", "mlp_tanh"}
MEASURES = ("n", "kl", "gibbs_train", "gibbs_test", "error_train", "error_test", "bound_gibbs",
            "bound_vote", "bound_holdout")  # fmt: skip


@pytest.fixture(scope="module")
def study():
    path = ROOT / "studies" / "pac_bound_mnist.py"
    spec = importlib.util.spec_from_file_location("study_of_the_report", path)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def about():
    return json.loads((REPORT / "study.json").read_text(encoding="utf-8"))


def row_of(record):
    config = record["config"]
    return config["dataset"], config["method"], hidden_name(config.get("hidden")) or ""


@pytest.fixture(scope="module")
def rows():
    """Records by data set, method and network."""
    found = {}
    for record in records_from_csv(REPORT / "records.csv"):
        found.setdefault(row_of(record), []).append(record)
    return found


def read(name):
    """A table by data set, method and network, the latter a word."""
    frame = pd.read_csv(REPORT / name, dtype={"hidden": str}).fillna({"hidden": ""})
    return frame.set_index(["dataset", "method", "hidden"])


def mean(records, name):
    """Over the seeds; NaN where it was not measured."""
    values = [record["measures"].get(name) for record in records]
    return math.nan if None in values else statistics.fmean(values)


def test_every_method_ran_on_every_task_with_every_seed(study, about, rows):
    assert about["preset"] == "paper"
    assert about["command"] == "python studies/pac_bound_mnist.py --preset paper"
    assert about["substitute"] is False
    methods = set(study.get_args(study.Method))
    expected = {(dataset, method) for dataset in (*IMAGES, *TABLES) for method in methods}
    expected -= {(dataset, "pbgnet_rf") for dataset in TABLES}
    assert {row[:2] for row in rows} == expected
    config = study.Config(preset="paper").filled()
    for row, records in rows.items():
        assert [record["config"]["seed"] for record in records] == list(range(config.seeds)), row
    for dataset in (*IMAGES, *TABLES):
        for method in methods - PLAIN - {"pbgnet_rf"}:
            found = {hidden for d, m, hidden in rows if (d, m) == (dataset, method)}
            assert found == set(map(hidden_name, study.grid(config, dataset, method)))
    assert about["seeds"] == config.seeds


def test_the_grid_follows_from_the_records(rows):
    grid = read("grid.csv")
    assert set(grid.index) == set(rows)
    for row, records in rows.items():
        assert grid["seeds"][row] == len(records)
        for name in MEASURES:
            assert grid[name][row] == pytest.approx(mean(records, name), rel=1e-12, nan_ok=True)


def test_the_table_is_the_least_bound_of_each_method(rows):
    table = read("table.csv")
    modes = table[table.index.get_level_values("method") == "pbgnet_mode"]
    table = table.drop(index=modes.index)
    assert len(table) == len({row[:2] for row in rows})
    level = table["bound_gibbs"].xs("majority", level="method").droplevel("hidden")
    for row, found in table.iterrows():
        for name in MEASURES:
            assert found[name] == pytest.approx(mean(rows[row], name), rel=1e-12, nan_ok=True)
        if row[1] == "mlp_tanh":
            continue
        bounds = [mean(rows[other], "bound_gibbs") for other in rows if other[:2] == row[:2]]
        assert found["bound_gibbs"] == pytest.approx(min(bounds), rel=1e-12)
        worst = max(record["measures"]["bound_gibbs"] for record in rows[row])
        assert found["bound_gibbs_max"] == worst
        vacuous = row[1] != "majority" and found["bound_gibbs"] >= level[row[0]]
        assert found["vacuous"] == "yes" if vacuous else pd.isna(found["vacuous"])
    assert len(modes) == len(level)
    for (dataset, _, hidden), found in modes.iterrows():
        records = rows[dataset, "pbgnet", hidden]
        assert (dataset, "pbgnet", hidden) in table.index
        for part in ("train", "test"):
            assert found[f"error_{part}"] == pytest.approx(mean(records, f"mode_{part}"))
        assert pd.isna(found["bound_gibbs"])


def test_every_reported_bound_is_that_of_a_sound_certificate(about, rows):
    certificates = json.loads((REPORT / "certificates.json").read_text(encoding="utf-8"))
    del certificates["schema_version"]
    tried = read_tried(REPORT / "tried.csv")
    shown = [row for row in read("table.csv").index if row[1] not in PLAIN | {"pbgnet_mode"}]
    for row in shown:
        least = max(1000, tried[row[0]])
        for record in rows[row]:
            pair = certificates.pop(record["key"])
            for name in ("gibbs", "vote"):
                certificate = Certificate.from_dict(pair[name])
                verify(certificate)
                assert certificate.bound == record["measures"][f"bound_{name}"]
                assert certificate.n == record["measures"]["n"]
                assert certificate.budget.choices >= least
                assert certificate.budget.seeds == about["seeds"] == len(rows[row])
                assert certificate.budget.delta == about["delta"] == 0.05
                assert certificate.provenance.splits == record["config"]["splits"]
                assert certificate.provenance.seed == record["config"]["seed"]
            assert pair["gibbs"]["kl"] == record["measures"]["kl"]
    assert shown
    assert not certificates, "of the table's rows alone"


def test_every_certified_prior_was_on_its_list_and_in_the_ledger(study, rows):
    ledger = pd.read_csv(REPORT / "tried.csv")
    entered = set(zip(ledger["dataset"], ledger["note"], strict=True))
    certified = [row for row in rows if row[1] not in PLAIN]
    for dataset, method, hidden in certified:
        assert (dataset, f"{method} {hidden}, paper preset") in entered
        for record in rows[dataset, method, hidden]:
            config = {k: v for k, v in record["config"].items() if k != "seed" and v is not None}
            study.check_listed(config)
    assert certified


COLUMNS = {
    "pbgnet bound": ("pbgnet", "bound_gibbs"),
    "Gibbs test": ("pbgnet", "gibbs_test"),
    "re-run": ("pbgnet", "re-run"),
    "pbgnet_rf bound": ("pbgnet_rf", "bound_gibbs"),
    "Gibbs test ": ("pbgnet_rf", "gibbs_test"),
    "pbgnet_pre bound": ("pbgnet_pre", "bound_gibbs"),
    "Gibbs test  ": ("pbgnet_pre", "gibbs_test"),
    "hold-out": ("pbgnet_pre", "bound_holdout"),
    "re-run ": ("pbgnet_pre", "re-run"),
}
"""Of the README's table after the task, in order; the spaces tell equal names apart."""


def readme():
    """Cells of the README's table by task, under its heads."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    heads = ["task", *(name.strip() for name in COLUMNS)]
    start = cells.index(heads) if heads in cells else pytest.fail(f"README.md has no table {heads}")
    names = (*IMAGES, *TABLES)
    return {row[0]: row[1:] for row in cells[start + 2 :] if row[0] in names}


@pytest.mark.parametrize("column", range(len(COLUMNS)), ids=lambda place: list(COLUMNS)[place])
def test_the_readme_prints_the_tables_means(study, column):
    method, measure = list(COLUMNS.values())[column]
    table = read("table.csv").droplevel("hidden")
    published = tables.published().set_index(["dataset", "method"])
    printed = readme()
    assert set(printed) == {*IMAGES, *TABLES}
    for dataset, row in printed.items():
        cell = row[column].strip("* ")
        if (dataset, method) not in table.index:
            assert cell in ("", "–", "—")
        elif measure == "re-run":
            assert cell == published["re-run"][dataset, method]
        else:
            assert re.fullmatch(r"\.\d{4}", cell)
            value = table[measure][dataset, method]
            # Bounds are rounded up.
            if measure.startswith("bound"):
                assert 0 <= float(cell) - value < 1e-4
            else:
                assert abs(float(cell) - value) <= 0.5e-4 + 1e-12
