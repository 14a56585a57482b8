"""The study of self-supervised binary networks on the bundled digits: who learns from what."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import self_supervised_arms as arms
import self_supervised_bnn
import self_supervised_page
import self_supervised_runs
import torch
from balance_runs import splits_of
from claims import claims_of
from safetensors.torch import load_file
from self_supervised_arms import Lesson, Looks

from pbnn.binarize import binary_layers
from pbnn.data import load
from pbnn.methods import points_of
from pbnn.reporting import curves_from_csv, records_from_csv

BRIEF = {"batch": 64, "images": 320, "labelled": 200, "epochs": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_supervised_bnn, "DIGITS", BRIEF)
        folder = tmp_path_factory.mktemp("self_supervised")
        config = self_supervised_bnn.Config(dataset="digits", seeds=2, out=folder, offline=True)
        self_supervised_bnn.study(config)
        yield config, folder


@pytest.fixture(scope="module")
def points():
    task = load("digits")
    return points_of(task, splits_of(task), "cpu")


@pytest.fixture(scope="module")
def cells():
    """The arms of one seed, by name, at a tiny budget."""
    config = self_supervised_bnn.Config(dataset="digits", seeds=1)
    made = self_supervised_bnn.cells_of(config, {"digits": load("digits")})
    return {cell.config["method"]: cell.config | BRIEF for cell in made}


def trained(cell, points, y=None, teacher=None):
    """An arm's network after its training, and the labels it was given changed at will."""
    x = points.certification[0][: cell["images"]]
    y = points.certification[1][: cell["images"]] if y is None else y
    network = arms.network_of(cell, (1, 8, 8), 10)
    arms.ARMS[cell["method"]](network, Lesson(cell, teacher, x, y, None, None))
    return network


def a_teacher(cells):
    return arms.network_of(cells["teacher"], (1, 8, 8), 10).eval().requires_grad_(False)


def same(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_writes_a_table_claims_a_page_and_figures(finished):
    _, folder = finished
    table = pd.read_csv(folder / "table.csv").set_index("method")
    assert list(table.index) == list(arms.ARMS)
    assert (table["seeds"] == 2).all()
    assert table[["probe", "neighbours", "validation"]].gt(0.3).all(axis=None)
    # A distance for those who have a teacher and a head, scores of its own for who has labels.
    measured = table["divergence"].notna()
    assert set(table.index[measured]) == {"distil", "distil_contrast", "contrast", "untrained"}
    assert set(table.index[table["accuracy"].notna()]) == {"supervised", "supervised_plain"}
    assert table["steps"].to_dict() == dict.fromkeys(arms.ARMS, 10) | {"untrained": 0}
    claims = pd.read_csv(folder / "claims.csv")
    assert len(claims) == 8
    assert (claims["seeds"] == 2).all()
    page = (folder / "self_supervised.md").read_text(encoding="utf-8")
    assert "python studies/self_supervised_bnn.py --preset quick --dataset digits" in page
    assert all(f"`{arm}`" in page for arm in arms.ARMS)
    for name in ("probes", "divergence"):
        assert (folder / f"{name}.svg").stat().st_size > 1000


def test_it_goes_on_from_its_records_and_redraws(finished, monkeypatch):
    config, folder = finished
    before = (folder / "self_supervised.md").read_bytes()
    monkeypatch.setattr(self_supervised_bnn, "DIGITS", BRIEF)
    monkeypatch.setattr(self_supervised_bnn, "run", lambda *_: pytest.fail("it ran again"))
    self_supervised_bnn.study(config)
    self_supervised_bnn.study(self_supervised_bnn.Config(out=folder, redraw=True))
    assert (folder / "self_supervised.md").read_bytes() == before


def test_more_seeds_go_into_the_same_folder():
    tasks = {"digits": load("digits")}
    few, many = (
        {c.key for c in self_supervised_bnn.cells_of(self_supervised_bnn.Config(seeds=n), tasks)}
        for n in (2, 3)
    )
    assert few < many
    assert len(many - few) == len(arms.ARMS)
    usual = self_supervised_bnn.Config()
    assert usual.folder == self_supervised_bnn.Config(seeds=30).folder
    assert usual.folder.name == "self_supervised_bnn"
    assert self_supervised_bnn.Config(dataset="mnist").folder.name == "self_supervised_bnn_part"
    full = self_supervised_bnn.Config(preset="full")
    assert (full.folder.name, full.datasets) == ("self_supervised_bnn_full", ("cifar10",))


def test_students_are_taught_by_the_teacher_of_their_seed(finished):
    _, folder = finished
    records = records_from_csv(folder / "records.csv")
    teachers = {r["config"]["seed"]: r for r in records if r["config"]["method"] == "teacher"}
    for record in records:
        config = record["config"]
        if config["method"] in ("teacher", "supervised", "supervised_plain"):
            assert config["after"] is None
        else:
            assert config["after"] == teachers[config["seed"]]["key"]
    kept = {path.stem for path in (folder / "runs").glob("*.safetensors")}
    assert kept == {record["key"] for record in teachers.values()}


def test_no_label_is_looked_at_but_by_the_supervised_twin(cells, points):
    y = points.certification[1][: BRIEF["images"]]
    other, teacher = (y + 3) % 10, a_teacher(cells)
    for method, cell in cells.items():
        unchanged = same(trained(cell, points, y, teacher), trained(cell, points, other, teacher))
        assert unchanged == (not method.startswith("supervised")), method


def test_the_teacher_stays_as_it_is(cells, points):
    teacher, untouched = a_teacher(cells), a_teacher(cells)
    for method in ("distil", "distil_contrast"):
        student = trained(cells[method], points, teacher=teacher)
        assert same(teacher, untouched)
        assert not any(module.training for module in teacher.modules())
        assert not same(student, arms.network_of(cells[method], (1, 8, 8), 10))


def test_what_is_kept_is_the_teacher_after_its_training(finished, cells, points):
    _, folder = finished
    records = records_from_csv(folder / "records.csv")
    (key,) = (
        r["key"] for r in records if (r["config"]["method"], r["config"]["seed"]) == ("teacher", 0)
    )
    stored = load_file(folder / "runs" / f"{key}.safetensors")
    expected = trained(cells["teacher"], points).state_dict()
    assert all(torch.equal(stored[name], value) for name, value in expected.items())
    again = arms.teacher_of(cells["distil"] | {"after": key}, folder / "runs", (1, 8, 8))
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_all_start_at_the_same_weights(cells):
    networks = {method: arms.network_of(cell, (1, 8, 8), 10) for method, cell in cells.items()}
    states = {method: network.state_dict() for method, network in networks.items()}
    last = max(name.split(".")[0] for name in states["distil"])
    shared = [n for n in states["teacher"] if not n.startswith(last) and n.endswith("weight")]
    assert len(shared) > 10
    for state in states.values():
        assert all(torch.equal(state[name], states["teacher"][name]) for name in shared)
    for method, network in networks.items():
        assert bool(binary_layers(network)) == (method != "teacher")
    assert networks["supervised"](torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert networks["distil"](torch.zeros(2, 1, 8, 8)).shape == (2, 128)


def test_signs_of_inputs_come_first_and_those_of_weights_after(cells, points, monkeypatch):
    stages = []
    after_step = self_supervised_runs.after_step

    def watched(network):
        stages.append({layer.real_weights for layer in binary_layers(network).values()})
        after_step(network)

    monkeypatch.setattr(self_supervised_runs, "after_step", watched)
    for method in ("contrast", "distil", "supervised"):
        stages.clear()
        network = trained(cells[method], points, teacher=a_teacher(cells))
        # Told before the stage of the next step is chosen: five of ten steps with real weights.
        assert stages == [{True}] * 5 + [{False}] * 5
        assert not any(layer.real_weights for layer in binary_layers(network).values())
        assert not network.training


def test_the_arms_see_the_same_batches(cells, points, monkeypatch):
    orders, randperm = [], torch.randperm

    def remembered(*args, **more):
        orders.append(randperm(*args, **more))
        return orders[-1]

    monkeypatch.setattr(torch, "randperm", remembered)
    taken = {}
    for method in ("contrast", "distil", "distil_contrast", "supervised"):
        orders.clear()
        trained(cells[method], points, teacher=a_teacher(cells))
        assert len(orders) == BRIEF["epochs"]
        # Views, too, are drawn while it trains, of however many there are.
        taken[method] = torch.cat(orders).tolist()
    assert all(order == taken["contrast"] for order in taken.values())


def test_learning_without_labels_takes_images_only_and_any_network(points, cells):
    images = points.certification[0][:128]
    real = arms.network_of(cells["teacher"], (1, 8, 8), 10)
    curve, epochs = [], []
    result = self_supervised_runs.trained_by_contrast(
        real, images, seed=3, budget=cells["teacher"], after_epoch=epochs.append, curve=curve
    )
    assert result is real
    assert not real.training
    assert epochs == [1, 2]
    assert [row["epoch"] for row in curve] == [0, 1]
    other = arms.network_of(cells["teacher"], (1, 8, 8), 10)
    self_supervised_runs.trained_by_contrast(other, images, seed=3, budget=cells["teacher"])
    assert same(real, other)
    third = arms.network_of(cells["teacher"], (1, 8, 8), 10)
    self_supervised_runs.trained_by_contrast(third, images, seed=4, budget=cells["teacher"])
    assert not same(real, third)


def test_the_held_out_distance_is_of_one_view_for_all_arms(cells, points):
    teacher, images = a_teacher(cells), points.prior[0][:50]
    looks = Looks(teacher, teacher, images, cells["distil"])
    looks.look(0)
    assert looks.rows == [{"figure": "divergence", "x": 0, "y": 0.0}]
    network = arms.network_of(cells["distil"], (1, 8, 8), 10).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ours, theirs = (Looks(network, teacher, images, cells[m]) for m in ("distil", "contrast"))
    assert torch.equal(ours.view, theirs.view)
    assert not torch.equal(ours.view, images)
    ours.look(1)
    assert ours.rows[0]["y"] > 0.01
    # Looking changes neither the mode nor the statistics of the network.
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], v) for name, v in network.state_dict().items())


def test_curves_are_kept_of_every_student(finished):
    _, folder = finished
    for record in curves_from_csv(folder / "curves.csv"):
        points = [p for p in record["curve"] if p["figure"] == "divergence"]
        method = record["config"]["method"]
        learns = method in ("distil", "distil_contrast", "contrast")
        assert [p["x"] for p in points] == ([1, 2] if learns else []), method


def test_claims_are_paired_by_seed_and_say_which_is_better():
    rows = []
    for seed, luck in enumerate((0.0, 0.2, -0.1)):
        for method, probe, divergence in (
            ("teacher", 0.7, None),
            ("distil", 0.6, 0.01),
            ("distil_contrast", 0.62 + 0.001 * seed, 0.03),
            ("contrast", 0.5 + 0.001 * seed, 0.02),
            ("supervised", 0.65 - 0.001 * seed, None),
            ("supervised_plain", 0.7, None),
            ("untrained", 0.4 + 0.001 * seed, 0.5),
        ):
            row = {"dataset": "d", "network": "n", "method": method, "seed": seed}
            row |= {"probe": probe + luck, "neighbours": 1 - probe - luck}
            rows.append(row | {"divergence": divergence})
    claims = claims_of(pd.DataFrame(rows), self_supervised_page.s2_bnn).set_index("claim")
    probe, neighbours, alone, closer, closer_both, untrained, twin, plain = claims.to_dict(
        "records"
    )
    assert probe["effect"] == pytest.approx(9.9)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert probe["high"] - probe["effect"] == pytest.approx(half, rel=1e-5)
    assert neighbours["effect"] == pytest.approx(-9.9)
    assert alone["effect"] == pytest.approx(-2.1)
    assert (closer["effect"], closer_both["effect"]) == pytest.approx((-0.01, -0.02))
    assert untrained["effect"] == pytest.approx(19.9)
    assert twin["effect"] == pytest.approx(4.9)
    assert plain["effect"] == pytest.approx(10)
    verdicts = [row["verdict"] for row in claims.to_dict("records")]
    yes, no = "reproduced", "not reproduced"
    assert verdicts == [yes, no, no, yes, yes, yes, yes, yes]
