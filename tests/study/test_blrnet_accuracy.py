"""The study of BLRNets on little work: what it writes, that it resumes, and that it can redraw."""

from __future__ import annotations

import json

import blrnet_accuracy
import blrnet_runs
import numpy as np
import pandas as pd
import pytest
import torch
from common import Where

from pbnn.data import load
from pbnn.training import load_checkpoint


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two methods on the bundled digits."""
    with pytest.MonkeyPatch.context() as patch:
        for name, epochs in blrnet_accuracy.stages(2, 8, 2).items():
            patch.setitem(blrnet_accuracy.DIGITS, name, epochs)
        patch.setitem(blrnet_accuracy.DIGITS, "architecture", "4C3-MP2-16FC-SM10")
        patch.setitem(blrnet_accuracy.TRAINING, "batch", 32)
        folder = tmp_path_factory.mktemp("study")
        config = blrnet_accuracy.Config(
            datasets=("digits",), methods=("pbnet_s", "real"), out=folder, offline=True
        )
        blrnet_accuracy.study(config)
        yield config, folder


def test_the_table_has_a_row_for_each_method(finished):
    _, folder = finished
    table = pd.read_csv(folder / "table.csv").set_index("method")
    # pbnet_s goes on from the other, which is run without being asked for.
    assert list(table.index) == ["straight_through", "pbnet_s", "real"]
    drawn = table.loc["pbnet_s"]
    assert 0 < drawn["mode"] < 0.9
    assert drawn["ensemble_1"] != drawn["ensemble_16"]
    # By the formula of the architecture: 4·9 + 16·(4·16) + 10·16 weights.
    assert drawn["parameters"] == 36 + 1024 + 160
    assert pd.isna(table.loc["real", "mode"])


@pytest.mark.parametrize("method", blrnet_runs.METHODS)
def test_it_trains_on_the_training_images_and_measures_on_the_others(method, monkeypatch, tmp_path):
    trained_on, measured_on = [], []
    fit, error = blrnet_runs.fit, blrnet_runs.error

    def watched_fit(objective, x, y, *args, **options):
        trained_on.append((x, y))
        return fit(objective, x, y, *args, **options)

    def watched_error(scores, label):
        measured_on.append(label)
        return error(scores, label)

    monkeypatch.setattr(blrnet_runs, "fit", watched_fit)
    monkeypatch.setattr(blrnet_runs, "error", watched_error)
    small = {"architecture": "4C3-MP2-8FC-SM10"} | blrnet_accuracy.stages(1, 1, 1)
    for name, value in small.items():
        monkeypatch.setitem(blrnet_accuracy.DIGITS, name, value)
    config = blrnet_accuracy.Config(datasets=("digits",), methods=(method,))
    task = load("digits")
    for key, cell in blrnet_accuracy.cells_of(config, {"digits": task}, {}):
        record = blrnet_runs.run(cell, Where(tmp_path, None, True, "cpu", False))
        (tmp_path / f"{key}.safetensors").write_bytes(record["files"]["safetensors"])
    parts = blrnet_runs.parts_of(task)
    assert not {*parts.certification.tolist()} & {*parts.test.tolist()}
    for x, y in trained_on:
        assert np.array_equal(x.numpy(), task.x[parts.certification])
        assert np.array_equal(y.numpy(), task.y[parts.certification])
    assert measured_on
    assert all(np.array_equal(label.numpy(), task.y[parts.test]) for label in measured_on)
    assert record["measures"]["images"] == 1347  # three quarters of 1797
    assert record["measures"]["test_images"] == 450


@pytest.mark.parametrize("method", ["straight_through", "pbnet_s"])
def test_the_trained_network_is_kept(method, finished):
    _, folder = finished
    (path,) = (p for p in (folder / "runs").glob("*.json") if f'"{method}"' in p.read_text())
    record = json.loads(path.read_text())
    network = load_checkpoint(path.with_suffix(".safetensors")).eval()
    task = load("digits")
    test = blrnet_runs.parts_of(task).test
    scores = blrnet_runs.scores_of(network, torch.from_numpy(task.x[test]))
    wrong = blrnet_runs.error(scores, torch.from_numpy(task.y[test]))
    assert wrong == record["measures"]["propagated"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SHIFTS", {}),
        ("TRAINING", {**blrnet_accuracy.TRAINING, "real_rate": 1.0}),
        # Of the network it goes on from:
        ("METHODS", {**blrnet_accuracy.METHODS, "straight_through": {"activation": "analytic"}}),
        ("METHODS", {**blrnet_accuracy.METHODS, "pbnet_s": {"activation": "analytic"}}),
        ("DIGITS", {**blrnet_accuracy.DIGITS, "epochs": 1}),
    ],
)
def test_a_recipe_that_is_changed_makes_other_keys(name, value, monkeypatch):
    config = blrnet_accuracy.Config(datasets=("digits",), methods=("pbnet_s",))
    tasks = {"digits": load("digits")}
    before = blrnet_accuracy.cells_of(config, tasks, {})
    assert before == blrnet_accuracy.cells_of(config, tasks, {})
    monkeypatch.setattr(blrnet_accuracy, name, value)
    assert before[-1].key != blrnet_accuracy.cells_of(config, tasks, {})[-1].key


def test_it_goes_on_from_its_records_and_redraws_the_same(finished, monkeypatch):
    config, folder = finished
    files = ("table.csv", "accuracy.md", "ensembles.svg", "error_coverage.svg")
    before = {name: (folder / name).read_bytes() for name in files}
    monkeypatch.setattr(blrnet_accuracy, "run", lambda *a, **k: pytest.fail("it ran again"))
    blrnet_accuracy.study(config)
    blrnet_accuracy.study(blrnet_accuracy.Config(out=folder, redraw=True))
    assert {name: (folder / name).read_bytes() for name in files} == before


def test_the_anytime_ensemble_at_level_0_is_the_full_one(finished):
    _, folder = finished
    row = pd.read_csv(folder / "table.csv").iloc[0]
    assert row["anytime_0_differs"] == 0
    assert row["anytime_0_error"] == pytest.approx(row["ensemble_16"], abs=1e-12)
    assert 1 <= row["anytime_0.2_members"] <= row["anytime_0_members"] <= 16


def test_a_coverage_curve_ends_with_all_examples():
    share = torch.linspace(0.01, 1, 500)
    rows = blrnet_runs.coverage_rows("entropy", share, share / 10)
    assert rows[-1]["x"] == 1
    assert len(rows) <= blrnet_runs.CURVE_POINTS + 10


def test_images_the_propagated_probability_is_sure_of_are_not_tied():
    # In single precision 1 − the largest probability would be 0 for all but the first.
    scores = torch.tensor([[3.0, 1.0, 0.0], [60.0, 1.0, 0.0], [90.0, 1.0, 0.0], [900.0, 1.0, 0.0]])
    log_propagated = scores.double().log_softmax(1)
    members = log_propagated.exp().expand(2, 4, 3)
    found = blrnet_runs.uncertainties(log_propagated, members)["propagated"]
    assert (found.diff() < 0).all()
    assert found[0].exp().item() == pytest.approx(1 - scores[0].softmax(0)[0].item(), rel=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        *({"methods": ("pbnet_t",)}, {"seeds": 0}, {"datasets": ("ads",)}, {"device": "gpu"}),
        *({"methods": ()}, {"datasets": ()}, {"methods": ("pbnet", "pbnet")}),
    ],
)
def test_what_it_does_not_know_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        blrnet_accuracy.Config(**bad)
