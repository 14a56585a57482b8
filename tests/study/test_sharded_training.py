"""The study of training by several processes: on the bundled digits by one and by two."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import sharded_training
import spawned
import torch
from safetensors.torch import save_file

REPORT = Path(__file__).parents[2] / "reports" / "sharded_training"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "sharded"
    config = sharded_training.Config(
        dataset="digits",
        processes=(1, 2),
        architecture="2C3-MP2-4FC-SM10",
        batch=12,
        group=100,
        passes=1,
        timed_architecture="2C3-MP2-4FC-SM10",
        timed_batch=20,
        steps=2,
        rounds=2,
        out=folder,
    )
    assert sharded_training.study(config) == folder
    return folder


@pytest.mark.slow
def test_two_processes_train_as_one_does(finished):
    table = pd.read_csv(finished / "equality.csv")
    assert len(table) == 4 * 2 * 2
    assert (table["steps"] == 20).all()
    assert (table["processes"] == 2).all()
    exact = table[(table["dtype"] == "float64") & (table["case"] != "XNOR-Net")]
    assert (exact["loss_off"] < 1e-11).all()
    assert (exact["parameters_off"] < 1e-8).all()
    # Rounding decides ties of a maximum where weights are no signs, and what Adam makes of nothing.
    ties = table["case"] == "XNOR-Net"
    nothing = (table["case"] == "BinaryNet") & (table["dtype"] == "float32")
    assert table["met"][~ties & ~nothing].all()
    assert (table["loss_off"] > 0).any(), "sums in another order"


def test_losses_and_parameters_are_compared_with_those_of_one(tmp_path, monkeypatch):
    found = {1: ([4.0, 2.0, 1.0], 0.5), 2: ([4.0, 2.0 + 1e-6, 1.5], 0.25)}

    def read(stem):
        losses, value = found[int(stem.name[-1])]
        return torch.tensor(losses).double(), {"weight": torch.tensor([1.0, value])}

    monkeypatch.setattr(sharded_training, "read", read)
    config = sharded_training.Config(processes=(1, 2))
    row = sharded_training.equality_rows(config, tmp_path)[0]
    assert (row["steps"], row["steps_kept"], row["met"]) == (3, 2, False)
    assert (row["loss_off"], row["parameters_off"]) == (0.5, 0.25)


def test_losses_are_read_in_float64(tmp_path):
    (tmp_path / "run.json").write_text("[0.1]")
    save_file({"weight": torch.ones(1)}, tmp_path / "run.safetensors")
    losses, state = sharded_training.read(tmp_path / "run")
    assert losses.tolist() == [0.1]
    assert state["weight"].dtype == torch.float64


@pytest.mark.slow
def test_shards_make_one_certificate(finished):
    table = pd.read_csv(finished / "certificates.csv")
    assert list(table["processes"]) == [1, 2]
    assert table["equal"].all()
    assert (table["draws"] == 7).all()  # 674 points, 100 a network


@pytest.mark.slow
def test_every_step_is_timed_but_the_first(finished):
    table = pd.read_csv(finished / "speed.csv")
    assert len(table) == 4 * 2 * 2 * 2
    assert (table["seconds"] > 0).all()
    assert (table.groupby(["case", "processes"])["turn"].nunique() == 2).all()


@pytest.mark.slow
def test_page_and_figure_follow_from_the_csv_files(finished, monkeypatch):
    page = (finished / "sharded_training.md").read_text(encoding="utf-8")
    kept = int(pd.read_csv(finished / "equality.csv")["met"].sum())
    assert f"{kept} of 16 keep to the 1e-6" in page
    assert "They are equal in every figure" in page
    for name in ("sharded_training.md", "sharded_training.svg"):
        (finished / name).unlink()
    monkeypatch.setattr(sharded_training, "shared_out", None)
    sharded_training.study(sharded_training.Config(out=finished, redraw=True))
    assert (finished / "sharded_training.md").read_text(encoding="utf-8") == page
    assert (finished / "sharded_training.svg").exists()


@pytest.mark.slow
def test_a_difference_is_told(finished, tmp_path):
    for name in ("equality", "certificates"):
        table = pd.read_csv(finished / f"{name}.csv")
        flag = "met" if name == "equality" else "equal"
        changed = table.assign(**{flag: [False] + [True] * (len(table) - 1)})
        changed.to_csv(tmp_path / f"{name}.csv", index=False)
    about = json.loads((finished / "study.json").read_text())
    page = sharded_training.page_of(about, tmp_path, pd.read_csv(finished / "speed.csv"))
    assert "15 of 16 keep to the 1e-6" in page
    assert "They are NOT all equal in every figure" in page


@pytest.mark.parametrize("failing", ["0", "1"])
def test_who_fails_is_told_and_nobody_waits(failing):
    text = f"import os, time; os.environ['RANK'] == '{failing}' and 1 / 0; time.sleep(60)"
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        spawned.together([sys.executable, "-c", text], 2, timeout=50)


def test_who_takes_too_long_is_ended():
    with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        spawned.together([sys.executable, "-c", "import time; time.sleep(60)"], 1, timeout=0.2)


@pytest.mark.parametrize(
    "given", [{"processes": (2, 4)}, {"processes": ()}, {"steps": 0}, {"rounds": 0}]
)
def test_a_senseless_configuration_is_refused(given):
    with pytest.raises(ValueError, match=f"`{next(iter(given))}` must be"):
        sharded_training.Config(**given)


def test_batches_of_more_points_than_there_are_are_refused(tmp_path):
    config = sharded_training.Config(dataset="digits", out=tmp_path)
    with pytest.raises(ValueError, match="Batches must be of 674 points"):
        sharded_training.study(config)


def test_the_committed_report_keeps_what_the_documentation_says():
    table = pd.read_csv(REPORT / "equality.csv").set_index(["case", "dtype"]).sort_index()
    assert set(table["processes"]) == {2, 4}
    for case in ("BLRNet, moving", "BLRNet, frozen"):
        assert table["met"][case].all()
        assert (table["parameters_off"][case] < 2e-4).all()
    assert (table["loss_off"]["BinaryNet", "float64"] < 1e-11).all()
    assert (table["parameters_off"]["BinaryNet", "float64"] < 1e-8).all()
    assert pd.read_csv(REPORT / "certificates.csv")["equal"].all()
    assert (pd.read_csv(REPORT / "speed.csv").groupby(["case", "processes"]).size() >= 20).all()
