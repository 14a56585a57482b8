"""The study of costs on little work: what it measures, and that its CSV files suffice to draw."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "studies" / "costs.py"


@pytest.fixture(scope="module")
def costs():
    spec = importlib.util.spec_from_file_location("costs_under_test", SCRIPT)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def small(costs, monkeypatch, tmp_path):
    """One race, and growth without processes of its own."""
    monkeypatch.setattr(costs, "HIDDEN", {"sampled, 1 hidden": (1,), "pbnn, no hidden": ()})
    rows = [
        {"varied": varied, "value": value, "network": "PBGNet", "work": work}
        | {"seconds": 0.5 * value, "megabytes": 3.0}
        for varied, values in costs.DOUBLED.items()
        for value in values
        for work in costs.WORK
    ]
    monkeypatch.setattr(costs, "growth", lambda config: iter(rows))
    return costs.Config(("digits17",), seeds=2, epochs=3, offline=True, out=tmp_path / "out")


@pytest.mark.parametrize(("target", "epochs"), [(0.99, 1), (0.0, 3)])
def test_the_race_stops_at_the_bound_or_after_the_epochs(costs, small, monkeypatch, target, epochs):
    monkeypatch.setitem(costs.RERUN, "digits17", target)
    rows = list(costs.race(small))
    assert [(row["seed"], row["competitor"]) for row in rows] == [
        (seed, name) for seed in (0, 1) for name in costs.HIDDEN
    ]
    for row in rows:
        assert row["reached"] == (row["bound"] <= target)
        assert row["epochs"] == epochs
        assert row["seconds"] > 0


@pytest.mark.parametrize("work", ["epoch", "certificate"])
@pytest.mark.parametrize("network", ["PBGNet", "ABNet"])
def test_a_work_is_timed_and_its_peak_is_that_of_a_process_with_torch(costs, network, work):
    seconds, megabytes = costs.measure(network, {"n": 60, "width": 13, "depth": 2}, work)
    assert seconds > 0
    assert 50 < megabytes < 50_000


def test_what_was_measured_is_drawn_again_from_the_csv_files(costs, small, monkeypatch):
    folder = costs.study(small)
    page = (folder / "costs.md").read_text(encoding="utf-8")
    assert "2.00" in page, "the factor of a doubling"
    assert len(pd.read_csv(folder / "race.csv")) == 4
    assert "--datasets digits17" in json.loads((folder / "study.json").read_text())["command"]
    for name in ("costs.md", "growth.svg"):
        (folder / name).unlink()
    monkeypatch.setattr(costs, "race", lambda config: 1 / 0)
    costs.study(costs.Config(out=folder, redraw=True))
    assert (folder / "costs.md").read_text(encoding="utf-8") == page
    assert (folder / "growth.svg").exists()


@pytest.mark.parametrize("field", ["seeds", "epochs", "repeats"])
def test_a_senseless_configuration_is_refused(costs, field):
    with pytest.raises(ValueError, match=f"`{field}` must be positive, got 0"):
        costs.Config(**{field: 0})


def test_a_race_on_no_task_is_refused(costs):
    with pytest.raises(ValueError, match="`datasets` must name one or more tasks"):
        costs.Config(datasets=())
