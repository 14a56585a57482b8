"""The study of BLRNets on little work: what it writes, that it resumes, and that it can redraw."""

from __future__ import annotations

import json

import blrnet_accuracy
import blrnet_runs
import pandas as pd
import pytest
import torch

from pbnn.networks import BLRNet
from pbnn.seeding import generator


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two methods on the bundled digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(blrnet_accuracy.DIGITS, "epochs", 2)
        patch.setitem(blrnet_accuracy.DIGITS, "architecture", "4C3-MP2-16FC-SM10")
        folder = tmp_path_factory.mktemp("study")
        config = blrnet_accuracy.Config(
            datasets=("digits",), methods=("pbnet_s", "real"), out=folder, offline=True
        )
        blrnet_accuracy.study(config)
        yield config, folder


def test_the_table_has_a_row_for_each_method(finished):
    _, folder = finished
    table = pd.read_csv(folder / "table.csv").set_index("method")
    assert list(table.index) == ["pbnet_s", "real"]
    drawn = table.loc["pbnet_s"]
    assert 0 < drawn["mode"] < 0.9
    assert drawn["ensemble_1"] != drawn["ensemble_16"]
    # By the formula of the architecture: 4·9 + 16·(4·16) + 10·16 weights.
    assert drawn["parameters"] == 36 + 1024 + 160
    assert pd.isna(table.loc["real", "mode"])


def test_no_error_is_measured_on_images_of_the_training(finished):
    _, folder = finished
    for path in (folder / "runs").glob("*.json"):
        record = json.loads(path.read_text())
        assert record["measures"]["images"] == 1347  # three quarters of 1797


def test_it_goes_on_from_its_records_and_redraws_the_same(finished, monkeypatch):
    config, folder = finished
    files = ("table.csv", "accuracy.md", "ensembles.svg", "error_coverage.svg")
    before = {name: (folder / name).read_bytes() for name in files}
    monkeypatch.setattr(blrnet_accuracy, "run", lambda *a: pytest.fail("it ran again"))
    blrnet_accuracy.study(config)
    blrnet_accuracy.study(blrnet_accuracy.Config(out=folder, redraw=True))
    assert {name: (folder / name).read_bytes() for name in files} == before


def test_the_anytime_ensemble_at_level_0_is_the_full_one(finished):
    _, folder = finished
    row = pd.read_csv(folder / "table.csv").iloc[0]
    assert row["anytime_0_differs"] == 0
    assert row["anytime_0_error"] == pytest.approx(row["ensemble_16"], abs=1e-12)
    assert 1 <= row["anytime_0.2_members"] <= row["anytime_0_members"] <= 16


def test_signs_are_sharpened_by_the_factor_in_the_second_half():
    network = BLRNet((1, 4, 4), "3FC-SM2", generator=generator(0, "net"))
    before = [block.layer.weight.half_logit.clone() for block in network.layers()]
    for step in range(1, 8):
        blrnet_runs.sharpened(network, 2.5, step, 7)
        if step == 3:
            for block, old in zip(network.layers(), before, strict=True):
                assert torch.equal(block.layer.weight.half_logit, old)
    for block, old in zip(network.layers(), before, strict=True):
        torch.testing.assert_close(block.layer.weight.half_logit, 2.5 * old)


def test_a_coverage_curve_ends_with_all_examples():
    share = torch.linspace(0.01, 1, 500)
    rows = blrnet_runs.coverage_rows("entropy", share, share / 10)
    assert rows[-1]["x"] == 1
    assert len(rows) <= blrnet_runs.CURVE_POINTS + 10


@pytest.mark.parametrize("bad", [{"methods": ("pbnet_t",)}, {"seeds": 0}, {"datasets": ("ads",)}])
def test_what_it_does_not_know_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        blrnet_accuracy.Config(**bad)
