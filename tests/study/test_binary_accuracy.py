"""The study of accuracies on the bundled digits: every layer binary, starting at its twin."""

from __future__ import annotations

import binary_accuracy
import pandas as pd
import pytest
import torch
from common import Where

from pbnn.binarize import binary_layers


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(binary_accuracy.ROWS["cpu"]["digits"][0], "epochs", 6)
        folder = tmp_path_factory.mktemp("accuracy")
        config = binary_accuracy.Config(datasets=("digits",), seeds=2, out=folder, offline=True)
        binary_accuracy.study(config)
        yield config, folder


def test_the_table_says_how_accurate_and_how_large(finished):
    _, folder = finished
    (row,) = pd.read_csv(folder / "table.csv").to_dict("records")
    assert row["seeds"] == 2
    assert row["accuracy"] > 0.8
    # 16 filters of 9 pixels, real inputs; all else signs by signs.
    assert row["real"] == 64 * 16 * 9
    assert row["binary"] == 16 * 32 * 16 * 9 + 128 * 128 + 10 * 128
    norms = 2 * (16 + 32 + 128 + 10)
    weights = 16 * 9 + 32 * 16 * 9 + 128 * 128 + 10 * 128
    assert row["parameter_bits"] == weights + 32 * norms
    assert "±" in (folder / "accuracy.md").read_text(encoding="utf-8")


def test_operations_of_every_backbone_are_written(finished):
    _, folder = finished
    table = pd.read_csv(folder / "operations.csv").set_index(["network", "kind"])
    for name in binary_accuracy.IMAGES:
        real, some, most = (table.loc[name, kind] for kind in ("real", "binary", "all binary"))
        # A product is one of signs or not, and a weight one bit or 32.
        assert real["binary"] == 0
        assert some["binary"] + some["real"] == most["binary"] + most["real"] == real["real"]
        assert most["parameter_bits"] < some["parameter_bits"] < real["parameter_bits"]
    # Known from He et al. (2016): 41 million multiplications of ResNet-20.
    assert table.loc["resnet20", "real"]["real"] == pytest.approx(41e6, rel=0.02)


def test_it_goes_on_from_its_records(finished, monkeypatch):
    config, folder = finished
    before = (folder / "accuracy.md").read_bytes()
    monkeypatch.setattr(binary_accuracy, "run", lambda *a, **k: pytest.fail("it ran again"))
    binary_accuracy.study(config)
    binary_accuracy.study(binary_accuracy.Config(out=folder, redraw=True))
    assert (folder / "accuracy.md").read_bytes() == before


def test_the_binary_network_starts_at_its_trained_twin(monkeypatch, tmp_path):
    states = []
    training = binary_accuracy.training

    def watched(cell, objective, *args):
        states.append([p.detach().clone() for p in objective.network.parameters()])
        result = training(cell, objective, *args)
        states.append([p.detach().clone() for p in objective.network.parameters()])
        return result

    monkeypatch.setattr(binary_accuracy, "training", watched)
    config = binary_accuracy.Config(datasets=("digits",), seeds=1)
    from pbnn.data import load

    cell = binary_accuracy.cells_of(config, {"digits": load("digits")})[0].config
    binary_accuracy.run(cell | {"epochs": 1}, Where(tmp_path, None, True, "cpu", False))
    _, twin, start, _ = states
    assert all(torch.equal(a, b) for a, b in zip(twin, start, strict=True))
    network = binary_accuracy.network_of(cell, (1, 8, 8), 10)
    assert len(binary_layers(network)) == 4


def test_the_rows_of_the_papers_are_theirs():
    rows = binary_accuracy.ROWS["gpu"]["cifar10"]
    assert {(r["network"], r["epochs"]) for r in rows} == {("resnet20", 500), ("resnet18", 600)}
    assert all(r["optimiser"] == "sgd" and r["weight_decay"] == 1e-4 for r in rows)
    with pytest.raises(ValueError, match="`datasets` must be among"):
        binary_accuracy.Config(datasets=("svhn",))
