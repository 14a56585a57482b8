"""The files of a finished study: every figure follows from records and certificates."""

from __future__ import annotations

import csv
import json
import math
import statistics

import pac_bound_tables as tables
import pandas as pd
import pytest
import torch
from scipy.stats import beta, binom

from pbnn.certificates import Certificate, verify
from pbnn.data import load, split
from pbnn.evaluation import mode_error, risks
from pbnn.methods import hidden_name
from pbnn.reporting import write_records_csv
from pbnn.reporting.drawing import look_of
from pbnn.training import load_checkpoint

BASELINES = ["pbgnet_l", "pbgnet_l_bnd", "elbo", "fixed_c"]
CERTIFIED = [*BASELINES, "pbgnet", "abnet", "pbgnet_rf", "pbgnet_pre"]
SHOWN = ["majority", "mlp_tanh", *CERTIFIED]
GRID = [
    ("majority", ""),
    ("mlp_tanh", ""),
    *((name, "unit") for name in BASELINES),
    *(("pbgnet", name) for name in ("2", "unit", "10-10")),
    ("abnet", "10-10"),
    ("pbgnet_rf", "unit"),
    ("pbgnet_pre", "500"),
]


def read(path):
    """A table, its words as words: the width 2 is no number, an empty one no gap."""
    words = {"hidden": str, "vacuous": str}
    return pd.read_csv(path, dtype=words).fillna(dict.fromkeys(words, ""))


def refuse(constant):
    raise AssertionError(f"{constant} in a record")


@pytest.fixture(scope="module")
def records(finished):
    paths = sorted((finished / "runs").glob("[0-9a-f]*.json"))
    return [json.loads(path.read_text(), parse_constant=refuse) for path in paths]


def of(records, method, hidden):
    """Records of a row, by seed."""
    mine = [
        record
        for record in records
        if (record["config"]["method"], hidden_name(record["config"].get("hidden")) or "")
        == (method, hidden)
    ]
    return sorted(mine, key=lambda record: record["config"]["seed"])


@pytest.fixture(scope="module")
def table(finished):
    return read(finished / "table.csv").set_index("method")


def test_the_grid_has_every_configuration_with_its_mean(finished, records):
    grid = read(finished / "grid.csv")
    assert list(zip(grid["method"], grid["hidden"], strict=True)) == GRID
    assert set(grid["dataset"]) == {"digits17"}
    assert len(records) == 2 * len(GRID)
    for row in grid.to_dict("records"):
        mine = of(records, row["method"], row["hidden"])
        assert [record["config"]["seed"] for record in mine] == [0, 1]
        for name in ("bound_gibbs", "kl", "error_test", "mode_test", "gibbs_train"):
            values = [record["measures"].get(name) for record in mine]
            if values == [None, None]:
                assert math.isnan(row[name])
            else:
                assert row[name] == pytest.approx(statistics.mean(values), rel=1e-12)
                assert row[f"{name}_std"] == pytest.approx(statistics.stdev(values), rel=1e-9)


def test_a_row_is_the_network_with_the_least_mean_bound(finished, table):
    assert [name for name in table.index if name != "pbgnet_mode"] == SHOWN
    grid = read(finished / "grid.csv").set_index(["method", "hidden"])
    bounds = {hidden: grid["bound_gibbs"]["pbgnet", hidden] for hidden in ("unit", "2", "10-10")}
    assert len(set(bounds.values())) == 3
    least = min(bounds, key=bounds.get)
    assert table["hidden"]["pbgnet"] == least == "unit", "not the first one"
    assert table["bound_gibbs"]["pbgnet"] == bounds[least]
    assert table["bound_gibbs"]["pbgnet"] < max(bounds.values())
    same = [name for name in grid.columns if name not in ("dataset", "vacuous")]
    for method, row in table.drop(index="pbgnet_mode").iterrows():
        found = grid.loc[(method, row["hidden"])]
        pd.testing.assert_series_equal(found[same], row[same], check_names=False)


def test_the_row_of_the_mode_has_its_errors_and_nothing_else(finished, table, records):
    row, chosen = table.loc["pbgnet_mode"], table["hidden"]["pbgnet"]
    assert row["hidden"] == chosen
    assert row["n"] == table["n"]["pbgnet"]
    task = load("digits17")
    parts = split(task, feature=27)
    for part, points in (("train", parts.certification), ("test", parts.test)):
        x, y = (torch.from_numpy(array[points]) for array in (task.x, task.y))
        errors = []
        for record in of(records, "pbgnet", chosen):
            path = finished / "runs" / f"{record['key']}.safetensors"
            errors.append(mode_error(load_checkpoint(path), x, y))
        assert row[f"error_{part}"] == pytest.approx(statistics.mean(errors))
        assert row[f"error_{part}_std"] == pytest.approx(statistics.stdev(errors))
    others = [name for name in table.columns if name.startswith(("bound", "gibbs", "kl", "gap"))]
    assert len(others) > 10
    assert row[others].isna().all()
    assert row["vacuous"] == ""


def made_up(dataset, method, bound, **more):
    measures = {"bound_gibbs": bound} | more
    config = {"dataset": dataset, "method": method, "seed": 0}
    return {"key": f"{dataset}{method}{more}", "config": config, "measures": measures}


def test_what_bounds_no_better_than_the_constant_is_marked(study):
    records = [made_up("a", "majority", 0.4), made_up("b", "majority", 0.2)]
    records += [made_up("a", "elbo", 0.3), made_up("b", "elbo", 0.3)]
    records += [made_up("a", "fixed_c", 0.4), made_up("b", "fixed_c", 0.19)]
    records += [made_up("a", "mlp_tanh", None), made_up("c", "elbo", 0.9)]
    # Its mode may err more than the constant: it has no bound to be vacuous.
    records += [made_up("a", "pbgnet", 0.5, mode_train=0.6, mode_test=0.7)]
    rows = tables.rows_of(tables.grid_of(records)).set_index(["dataset", "method"])
    marked = {place for place, mark in rows["vacuous"].items() if mark == "yes"}
    assert marked == {("b", "elbo"), ("a", "fixed_c"), ("a", "pbgnet")}
    assert set(rows["vacuous"]) == {"yes", ""}
    assert rows["error_test"]["a", "pbgnet_mode"] == 0.7
    assert list(rows.index.unique("dataset")) == ["a", "b", "c"]


def test_the_marks_reach_the_printed_table(study, finished, copy, table):
    assert (table["vacuous"] == "").all(), "all are below the constant here"
    records = study.reporting.records_from_csv(copy / "records.csv")
    for record in records:
        if record["config"]["method"] == "elbo":
            record["measures"]["bound_gibbs"] = 0.9
    write_records_csv(records, copy / "records.csv")
    study.draw(copy)
    marked = read(copy / "table.csv").set_index("method")["vacuous"]
    assert list(marked.index[marked == "yes"]) == ["elbo"]
    lines = (copy / "table.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[2].strip() for line in lines if "yes" in line] == ["elbo"]
    assert "| Gibbs vacuous |" in " ".join(lines[2].split())


def test_a_test_error_above_its_bound_is_explained_where_there_is_one():
    def rows(*errors):
        records = [
            made_up(dataset, "majority", 0.2, bound_vote=0.2, gibbs_test=error, error_test=error)
            for dataset, error in zip("abc", errors, strict=True)
        ]
        return tables.rows_of(tables.grid_of(records))

    told = tables.sampled(rows(0.21, 0.2, 0.3), {"a": 1820, "b": 7})
    assert "a test set is a sample, too" in told
    chance = 1 - binom.cdf(381, 1820, 0.2)  # of 382 errors and more
    assert "majority on a (1,820 test points: as many errors have" in told
    assert f"have probability {chance:.2g}, were the risk the bound)" in told
    assert told.endswith("and of majority on c.")
    assert tables.sampled(rows(0.1, 0.2, 0.0), {}) == ""


def test_a_method_looks_the_same_whichever_others_ran(study):
    quick, paper = (study.Config(preset=name).filled().methods for name in ("quick", "paper"))
    assert {*tables.LOOKS} == {*paper} - {"majority", "mlp_tanh"}
    assert {*quick} <= {*paper}
    looks = [tuple(look_of(tables.LOOKS, method).values()) for method in tables.LOOKS]
    assert len({*looks}) == len(looks)


def test_what_is_printed_at_the_end_fits_a_terminal(copy, study, capsys):
    study.draw(copy)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[-1].endswith(str(copy / "table.md"))
    found = [line.split()[:5] for line in lines if " pbgnet_pre " in line]
    row = read(copy / "table.csv").set_index("method").loc["pbgnet_pre"]
    ((dataset, _, hidden, bound, test),) = found
    assert (dataset, hidden) == (row["dataset"], row["hidden"])
    assert 0 <= float(bound) - row["bound_gibbs"] <= 1e-4
    assert float(test) == pytest.approx(row["gibbs_test"], abs=5.1e-5)


def test_bounds_of_the_rows_follow_from_the_certificates_and_only_theirs_are_kept(
    finished, table, records
):
    stored = json.loads((finished / "certificates.json").read_text(), parse_constant=refuse)
    assert stored.pop("schema_version") == 1
    expected = set()
    for method in CERTIFIED:
        mine = of(records, method, table["hidden"][method])
        expected |= {record["key"] for record in mine}
        for kind in ("gibbs", "vote"):
            certificates = [Certificate.from_dict(stored[r["key"]][kind]) for r in mine]
            for record, certificate in zip(mine, certificates, strict=True):
                verify(certificate)
                budget = certificate.budget
                assert (budget.delta, budget.seeds, budget.choices) == (0.05, 2, 1000)
                assert certificate.provenance.splits == record["data"]["splits"]
                assert certificate.provenance.seed == record["config"]["seed"]
                assert certificate.n == table["n"][method]
            bounds = [certificate.bound for certificate in certificates]
            assert table[f"bound_{kind}"][method] == pytest.approx(sum(bounds) / 2, rel=1e-12)
            if kind == "gibbs":
                assert table["bound_gibbs_max"][method] == max(bounds)
                kl = sum(certificate.kl for certificate in certificates) / 2
                assert table["kl"][method] == pytest.approx(kl, rel=1e-12)
    assert set(stored) == expected
    assert len(expected) == 2 * len(CERTIFIED)
    gaps = table["bound_gibbs"] - table["gibbs_test"] - table["gap"]
    assert gaps.abs().max() < 1e-12


def test_each_method_is_certified_on_all_that_its_prior_left(table):
    task = load("digits17")
    for method in CERTIFIED:
        asked = {"prior": 0.5} if method == "pbgnet_pre" else {"feature": 27}
        assert table["n"][method] == len(split(task, **asked).certification)
    assert table["n"]["majority"] == len(split(task).certification)


def test_the_constant_pays_for_its_two_signs_and_the_seeds(table):
    row = table.loc["majority"]
    task = load("digits17")
    y = task.y[split(task).certification]
    errors = min((y < 0).sum(), (y > 0).sum())
    upper = beta.ppf(1 - 0.05 / 2 / 2, errors + 1, len(y) - errors)
    assert row["bound_gibbs"] == pytest.approx(upper, rel=1e-9)
    assert row["error_train"] == errors / len(y)


def test_the_bounds_hold_on_their_own_sample_and_only_where_they_exist(table):
    bounded = table.loc[["majority", *CERTIFIED]]
    assert (bounded["bound_gibbs"] > bounded["gibbs_train"]).all()
    assert (bounded["bound_vote"] > bounded["error_train"]).all()
    assert (bounded["bound_vote"] <= 2 * bounded["bound_gibbs"] + 1e-12).all()
    assert list(table["bound_holdout"].dropna().index) == ["pbgnet_pre"]
    assert table.loc["mlp_tanh", ["bound_gibbs", "bound_vote", "n", "gibbs_test"]].isna().all()


def test_the_stored_networks_have_the_certified_risk(finished, records):
    task = load("digits17")
    points = split(task, feature=27).certification
    x, y = (torch.from_numpy(array[points]) for array in (task.x, task.y))
    seen = set()
    for record in records:
        method = record["config"]["method"]
        if method in {*BASELINES, "pbgnet", "abnet"}:
            network = load_checkpoint(finished / "runs" / f"{record['key']}.safetensors")
            assert type(network).__name__ == ("ABNet" if method == "abnet" else "PBGNet")
            assert list(network.widths) == record["config"]["hidden"]
            assert risks(network, x, y).gibbs == pytest.approx(record["measures"]["gibbs_train"])
            seen.add(method)
    assert seen == {*BASELINES, "pbgnet", "abnet"}


def test_the_objectives_differ_and_training_by_the_bound_has_the_least(records):
    bounds = {
        method: [record["measures"]["bound_gibbs"] for record in of(records, method, "unit")]
        for method in (*BASELINES, "pbgnet")
    }
    assert len({tuple(values) for values in bounds.values()}) >= 4
    assert all(sum(bounds["pbgnet"]) <= sum(values) for values in bounds.values())


def test_all_files_are_there_and_say_what_was_done(finished):
    about = json.loads((finished / "study.json").read_text())
    assert (about["seeds"], about["delta"], about["preset"]) == (2, 0.05, "quick")
    assert about["source"] == "scikit-learn digits (bundled, 8x8; not MNIST)"
    assert about["substitute"] is False, "these are the data that were asked for"
    assert about["test_points"] == {"digits17": len(split(load("digits17")).test)}
    figures = ("bound_vs_error", "bound_by_network", "learning_curves")
    names = {f"{name}.{kind}" for name in figures for kind in ("pdf", "svg", "png")}
    names |= {"table.csv", "table.md", "table.tex", "grid.csv", "tried.csv", "timings.csv"}
    names |= {"records.csv", "curves.csv", "certificates.json", "study.json", "runs"}
    assert {path.name for path in finished.iterdir()} == names
    for name in names:
        assert (finished / name).stat().st_size > 100, name
    for name in ("timings.csv", "records.csv"):
        with open(finished / name, newline="", encoding="utf-8") as stream:
            assert len(list(csv.DictReader(stream))) == 2 * len(GRID)
    page = (finished / "table.md").read_text(encoding="utf-8")
    assert "means over 2 seeds" in page
    assert "Letarte" not in page, "nobody published figures on these data"


def test_the_ledger_has_what_is_certified_once_whatever_its_seeds(finished):
    tried = pd.read_csv(finished / "tried.csv")
    expected = [f"{method} {hidden}, quick preset" for method, hidden in GRID[2:]]
    assert sorted(tried["note"]) == sorted(expected)
    assert set(tried["count"]) == {1}
    assert tried["configuration"].is_unique


def test_published_figures_stand_beside_the_rows_they_are_of(study, copy):
    text = (copy / "records.csv").read_text(encoding="utf-8").replace("digits17", "mnist17")
    (copy / "records.csv").write_text(text, encoding="utf-8")
    study.draw(copy)
    lines = (copy / "table.md").read_text(encoding="utf-8").splitlines()
    assert "https://arxiv.org/abs/1905.10259" in lines[0]
    cells = {line.split("|")[2].strip(): line.split("|")[-3:-1] for line in lines[4:]}
    found = {name: [cell.strip() for cell in pair] for name, pair in cells.items()}
    assert set(found) == {*SHOWN, "pbgnet_mode"}
    assert {name: pair for name, pair in found.items() if any(pair)} == {
        "mlp_tanh": [".003/.004", ""],
        "pbgnet_l": [".008/.005", ""],
        "pbgnet": [".007/.009/.067", ".0399"],
        "pbgnet_pre": [".003/.005/.009", ".0107"],
    }


def test_the_bound_is_drawn_where_it_is_the_objective_of_training(study, copy, table):
    curves = pd.read_csv(copy / "curves.csv")
    assert set(curves["method"]) == {"pbgnet", "abnet", "pbgnet_rf", "pbgnet_pre"}
    assert curves["kl"].notna().all()
    assert not curves.duplicated(["method", "seed", "epoch"]).any(), "of the row's network alone"
    before = (copy / "learning_curves.svg").read_bytes()
    # Were only the risk and the KL drawn, nothing would change.
    curves.loc[curves["method"] == "pbgnet", "objective"] *= 0.75
    curves.to_csv(copy / "curves.csv", index=False)
    study.draw(copy)
    assert (copy / "learning_curves.svg").read_bytes() != before


def test_no_record_or_table_holds_a_number_that_is_none(finished, records):
    assert records, "each was read without NaN or Infinity"
    for path in finished.glob("*.csv"):
        cells = path.read_text(encoding="utf-8").lower().replace("\n", ",").split(",")
        assert not {"nan", "inf", "-inf", "infinity"} & set(cells), path
