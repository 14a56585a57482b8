"""The study of estimators: its statistics, its deeper networks, and its files."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import sklearn.datasets  # noqa: F401 - draws from a global generator when first imported
import torch

from pbnn.data import DataUnavailable, load
from pbnn.functional import sign_patterns
from pbnn.seeding import generator

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "studies" / "estimators.py"
FIGURES = ["gradients.pdf", "gradients.svg", "gradients.png"]
DRAWN = ["gradients.md", "bias.md", *FIGURES]


@pytest.fixture(scope="module")
def study():
    """The study as a module of this process, with fewer draws and candidates."""
    spec = importlib.util.spec_from_file_location("estimators_under_test", SCRIPT)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.DRAWS, module.DEEP_CANDIDATES, module.DEEP_SHOWN = (1, 2, 10, 100), 20, 2
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("estimators") / "out"
    config = study.Config(
        "digits17", points=16, replications=60, deep_draws=20_000, offline=True, out=out
    )
    assert study.study(config) == out
    return out


def test_help_explains_every_flag(study, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "PYTHONUTF8": "1"}
    text = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout
    for field in dataclasses.fields(study.Config):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "studies/estimators.py --redraw" in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("points", 0),
        ("replications", 1),
        ("deep_draws", 1999),
        ("seed", -1),
        ("dataset", "mnist71"),
        ("dataset", "adult"),
    ],
)
def test_a_senseless_configuration_is_refused(study, field, value):
    with pytest.raises(ValueError, match=f"`({field}|name)`"):
        study.Config(**{field: value})


def test_more_than_two_classes_are_refused(study, tmp_path):
    config = study.Config("digits", offline=True, out=tmp_path / "out")
    with pytest.raises(ValueError, match="`dataset` must name a two-class task, got 'digits'"):
        study.study(config)
    assert not list(tmp_path.iterdir())


def test_digits_stand_in_for_mnist_under_another_name(study, monkeypatch, capsys):
    def unavailable(name, *others):
        if name.startswith("mnist"):
            raise DataUnavailable("no MNIST")
        return load(name, *others)

    monkeypatch.setattr(study, "load", unavailable)
    task, substitute = study.task_of(study.Config(offline=True))
    assert task.name == "digits17"
    assert "NOT MNIST" in capsys.readouterr().out
    assert study.folder_of(study.Config(), substitute).name == "estimators_digits"
    assert study.folder_of(study.Config(), False).name == "estimators"


@pytest.mark.parametrize("size", [0.0, 0.3])
def test_the_squared_bias_in_standard_errors_is_standard_when_there_is_none(study, size):
    truth, spread = torch.tensor([3.0, 0.0, 4.0, 0.0]).double(), torch.tensor([1.0, 2.0, 0.5, 1.0])
    bias = size * torch.tensor([0.0, 1.0, 0.0, 0.0])
    source = generator(0, "summary", str(size))
    rows = [
        study.summary(
            truth + bias + spread * torch.randn(40, 4, generator=source, dtype=torch.float64), truth
        )
        for _ in range(1_000)
    ]
    frame = pd.DataFrame(rows)
    variance = float(spread.square().sum()) / 25
    assert frame["variance"].mean() == pytest.approx(variance, rel=0.05)
    assert (frame["bias_se"] ** 2 * 40).mean() == pytest.approx(variance, rel=0.05)
    squared = frame["bias"] ** 2 - frame["bias_se"] ** 2
    assert abs(squared.mean() - (size / 5) ** 2) <= 5 * squared.std() / math.sqrt(len(frame))
    if size == 0:
        assert abs(frame["bias_z"].mean()) <= 5 / math.sqrt(len(frame))
        assert frame["bias_z"].std() == pytest.approx(1.0, abs=0.2)


def test_a_deterministic_estimate_has_a_bias_and_no_variance(study):
    row = study.summary(torch.tensor([[3.0, 5.0]]), torch.tensor([3.0, 4.0]))
    assert row == {"bias": 0.2, "bias_se": 0.0, "variance": 0.0}


def enumerated(network, x, draws):
    """Expectation of the layerwise estimate: a sum over all that T draws of the first layer say."""
    first, second, last = network.layers()
    patterns = sign_patterns(4, dtype=torch.float64, device="cpu")
    chance = ((1 + patterns * first.activation(x).mean) / 2).prod(1)
    given = torch.erf(patterns @ second.weight.mean.T / math.sqrt(8))
    outputs = torch.erf(patterns @ last.weight.mean[0] / math.sqrt(8))
    total = 0.0
    for rows in itertools.product(range(16), repeat=draws):
        means = given[list(rows)].mean(0)
        total += chance[list(rows)].prod() * (((1 + patterns * means) / 2).prod(1) @ outputs)
    return total.item()


def within(values, expected):
    return abs(values.mean() - expected) <= 5 * values.std() / math.sqrt(len(values))


def test_the_layerwise_estimate_is_that_of_the_network_for_one_draw_and_of_the_tree_for_many(study):
    tree, chain, x = study.deep_networks(0, 106)
    of_tree, of_network = tree(x).item(), chain(x).item()
    assert abs(of_tree - of_network) > 0.1
    source = generator(0, "layerwise")
    assert enumerated(tree, x, 1) == pytest.approx(of_network, abs=1e-12)
    assert within(study.layerwise(tree, x, 1, 100_000, source), of_network)
    in_between = enumerated(tree, x, 2)
    assert abs(in_between - of_network) > 0.02
    assert abs(in_between - of_tree) > 0.02
    assert within(study.layerwise(tree, x, 2, 100_000, source), in_between)
    assert abs(study.layerwise(tree, x, 1_000, 300, source).mean().item() - of_tree) < 0.01
    assert within(study.chains(chain, x, 100_000, source), of_network)


def test_tree_and_network_share_weights_and_depend_on_the_index(study):
    tree, chain, x = study.deep_networks(0, 1)
    for one, other in zip(tree.layers(), chain.layers(), strict=True):
        assert torch.equal(one.weight.mean, other.weight.mean)
    assert [tuple(layer.weight.mean.shape) for layer in tree.layers()] == [(4, 5), (4, 4), (1, 4)]
    assert x.shape == (1, 5)
    assert not torch.equal(x, study.deep_networks(0, 2)[2])


def test_the_gradients_table_has_its_rows_and_finds_the_biased_ones(finished):
    frame = pd.read_csv(finished / "gradients.csv")
    keys = ["width", "state", "estimator", "draws", "layer"]
    assert not frame.duplicated(keys).any()
    assert len(frame) == 2 * 2 * 2 * (1 + 4 + 3 + 4 + 4)
    assert set(frame["estimator"]) == {
        "mean_field",
        "reinforce",
        "reinforce_baseline",
        "straight_through",
        "conditional",
    }
    unbiased = frame["estimator"].isin(["reinforce", "reinforce_baseline", "conditional"])
    assert (frame.loc[unbiased, "bias_z"].abs() < 5).all()
    assert (frame.loc[frame["layer"] == "output", "bias_z"].dropna().abs() < 5).all()
    passed = frame[(frame["estimator"] == "straight_through") & (frame["draws"] == 100)]
    assert (passed.loc[passed["layer"] == "hidden", "bias_z"] > 5).all()
    still = frame[frame["estimator"] == "mean_field"]
    assert (still["bias"] > 0).all()
    assert (still["variance"] == 0).all()
    assert (still["replications"] == 1).all()


def test_the_papers_rows_are_those_of_reinforce(finished):
    frame = pd.read_csv(finished / "gradients.csv")
    one, other = (
        frame[frame["estimator"] == name].drop(columns=["estimator", "state", "layer"])
        for name in ("reinforce", "conditional")
    )
    assert one.to_numpy() == pytest.approx(other.to_numpy(), rel=1e-8)


def test_the_bias_table_shows_the_networks_that_are_furthest_apart(finished):
    frame = pd.read_csv(finished / "bias.csv")
    exact = frame[frame["error"].isna()].pivot(index="network", columns="quantity", values="value")
    assert len(exact) == 20
    gaps = (exact["tree"] - exact["network"]).abs().sort_values(ascending=False)
    shown = list(frame.loc[frame["quantity"] == "chains", "network"])
    assert shown == list(gaps.index[:2])
    for network in shown:
        assert f"network {network}" in (finished / "bias.md").read_text(encoding="utf-8")
    assert f"{gaps.mean():.4f} apart" in (finished / "bias.md").read_text(encoding="utf-8")
    sampled = frame[frame["error"].notna()]
    assert list(sampled["draws"]) == [1, 10, 100, 1000, 1] * 2


def test_a_redraw_makes_the_same_files_from_the_csvs_alone(study, finished):
    before = {name: (finished / name).read_bytes() for name in DRAWN}
    for name in DRAWN:
        (finished / name).unlink()
    study.study(study.Config(out=finished, redraw=True))
    assert {name: (finished / name).read_bytes() for name in DRAWN} == before


def test_what_was_run_is_written_down(finished):
    about = json.loads((finished / "study.json").read_text(encoding="utf-8"))
    assert about["command"] == (
        "python studies/estimators.py --dataset digits17 --points 16 --replications 60 "
        "--deep-draws 20000"
    )
    assert about["dataset"] == "digits17"
    assert {"schema_version", "sha256", "versions", "hardware"} <= set(about)
