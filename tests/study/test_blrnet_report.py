"""The committed report on BLRNets: it follows from its records, and holds what it is quoted for."""

from __future__ import annotations

import shutil
from pathlib import Path

import blrnet_accuracy
import pandas as pd
import pytest

from pbnn.reporting import records_from_csv

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "reports" / "blrnet_accuracy"


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(REPORT / "table.csv").set_index(["dataset", "method"])


@pytest.fixture(scope="module")
def records():
    return records_from_csv(REPORT / "records.csv")


def test_redrawn_it_is_the_same(tmp_path):
    copy = tmp_path / "report"
    shutil.copytree(REPORT, copy)
    for name in ("table.csv", "accuracy.md"):
        (copy / name).unlink()
    blrnet_accuracy.study(blrnet_accuracy.Config(preset="cpu", out=copy, redraw=True))
    for name in ("table.csv", "accuracy.md"):
        assert (copy / name).read_bytes() == (REPORT / name).read_bytes(), name


def test_every_run_of_the_preset_is_there(table, records):
    seeds = blrnet_accuracy.SEEDS["cpu"]
    expected = {(d, m): n for d, methods in seeds.items() for m, n in methods.items()}
    assert table["seeds"].to_dict() == expected
    assert len(records) == sum(expected.values())
    images = {(r["config"]["dataset"], r["measures"]["images"]) for r in records}
    assert images == {("mnist", 60_000), ("cifar10", 40_000)}


def test_deployed_networks_reach_what_is_required_on_mnist(table):
    row = table.loc["mnist", "straight_through"]
    assert row["seeds"] >= 3
    assert 1 - row["mode"] >= 0.99
    assert 1 - row["ensemble_16"] >= 0.991
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("mode", "ensemble_16"):
        assert f"{100 * (1 - row[name]):.2f}%" in text


def test_stopped_ensembles_differ_from_the_full_one_no_more_often_than_they_promise(records):
    drawn = [r["measures"] for r in records if r["config"]["method"] != "real"]
    assert len(drawn) > 5
    for measures in drawn:
        for alpha in (0.0, 0.01, 0.05, 0.2):
            assert measures[f"anytime_{alpha:g}_differs"] <= alpha
            assert 1 <= measures[f"anytime_{alpha:g}_members"] <= 16
