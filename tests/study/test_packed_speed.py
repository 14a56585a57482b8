"""The study of packed networks on the bundled digits, and its committed report."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import packed_speed
import pandas as pd
import pytest
import torch

from pbnn.packed import available

pytest.importorskip("numba")
ROOT = Path(__file__).parents[2]
REPORT = ROOT / "reports" / "packed_speed"
TABLES = ("table", "equality", "files", "certificates")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "packed"
    config = packed_speed.Config(
        dataset="digits",
        widths=(64,),
        batches=(1, 40),
        threads=(1, 2),
        seconds=0.001,
        mlp_epochs=1,
        lenet_3x3_epochs=1,
        blrnet_epochs=1,
        architecture="4C3-MP2-SM10",
        members=2,
        out=folder,
    )
    threads = torch.get_num_threads()
    assert packed_speed.study(config) == folder
    assert torch.get_num_threads() == threads
    return config, folder


def test_every_work_is_timed_and_compared_with_float32(finished):
    config, folder = finished
    table = pd.read_csv(folder / "table.csv")
    columns = ["layer", "batch", "backend", "threads", "ms", "ratio_float32", "bytes"]
    assert list(table.columns) == columns
    for _, group in table.groupby(["layer", "batch", "threads"]):
        by = group.set_index("backend")
        assert {"torch_float32", "numba"} <= set(by.index)
        ratio = by.loc["torch_float32", "ms"] / by["ms"]
        assert by["ratio_float32"].to_numpy() == pytest.approx(ratio.to_numpy(), rel=1e-4)
        assert by.loc["torch_float32", "bytes"] > 20 * by.loc["numba", "bytes"] or (
            "dense" not in group["layer"].iloc[0]  # first layers of few channels are rounded up
        )
    networks = {"mlp", "lenet_3x3", "blrnet mode"}
    assert networks < set(table["layer"])
    assert len(table["layer"].unique()) == len(config.widths) + 1 + len(networks)


def test_packed_networks_are_the_same_by_every_back_end(finished):
    _, folder = finished
    table = pd.read_csv(folder / "equality.csv")
    assert len(table) == 5 * len(available())
    assert table["same_as_others"].all()
    for name in ("labels_off_float64", "first_signs_off_float64"):
        assert (table[name] == 0).all()
    assert (table["first_signs"] > table["images"]).all()


def test_certificates_are_above_their_risks_and_name_their_predictor(finished):
    _, folder = finished
    table = pd.read_csv(folder / "certificates.csv")
    assert set(table["predictor"]) == {
        "fixed network",
        "fixed vote",
        "drawn network",
        "drawn vote",
        "coded network",
    }
    assert (table["bound"] > table["risk"]).all()
    assert (table.loc[table["theorem"] == "clopper_pearson", "kl"] == 0).all()


def test_it_resumes_with_the_networks_it_has_trained(finished, monkeypatch):
    config, folder = finished
    monkeypatch.setattr("packed_networks.training", None)
    monkeypatch.setattr("packed_networks.fit", None)
    before = (folder / "equality.csv").read_bytes()
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    packed_speed.study(dataclasses.replace(config, out=copy))
    assert (copy / "equality.csv").read_bytes() == before


@pytest.mark.parametrize(
    "bad",
    [
        *({"widths": ()}, {"batches": (0,)}, {"seconds": 0.0}, {"seconds": float("inf")}),
        *({"mlp_epochs": 0}, {"members": -1}, {"statistics_of": 0}),
    ],
)
def test_bad_configurations_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        packed_speed.Config(**bad)


# The committed report


def test_redrawn_it_is_the_same(tmp_path):
    copy = tmp_path / "report"
    shutil.copytree(REPORT, copy)
    (copy / "speed.md").unlink()
    packed_speed.study(packed_speed.Config(out=copy, redraw=True))
    assert (copy / "speed.md").read_bytes() == (REPORT / "speed.md").read_bytes()


def test_the_report_holds_what_is_required():
    table = pd.read_csv(REPORT / "table.csv")
    one = table[(table["threads"] == 1) & (table["backend"] == "numba")]
    wide = one[(one["layer"] == "dense 1024") & (one["batch"] >= 32)]
    assert len(wide) >= 2
    assert (wide["ratio_float32"] >= 10).all()
    whole = one[(one["layer"] == "mlp") & (one["batch"] >= 32)]
    assert (whole["ratio_float32"] >= 2).all()
    real = table[table["backend"] == "torch_float32"].set_index(["layer", "batch", "threads"])
    ratio = real["bytes"] / one.set_index(["layer", "batch", "threads"])["bytes"]
    assert (ratio.dropna()[["dense 1024", "mlp", "lenet_3x3"]] >= 30).all()
    equality = pd.read_csv(REPORT / "equality.csv")
    assert (equality["images"] == 10_000).all()
    assert equality["same_as_others"].all()
    for name in ("labels_off_float64", "first_signs_off_float64"):
        assert (equality[name] == 0).all()
    certificates = pd.read_csv(REPORT / "certificates.csv")
    assert (certificates["bound"] > certificates["test_error"]).all()
