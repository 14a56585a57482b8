"""The fit loop, restarts and checkpoints: reproducible, honest about the best, and refusing."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pbnn.networks import MLP, PBGNet
from pbnn.objectives import BoundObjective, Objective, RiskObjective
from pbnn.seeding import generator
from pbnn.training import (
    SCHEMA_VERSION,
    FitConfig,
    fit,
    fit_best_of,
    kl_weight,
    load_checkpoint,
    save_checkpoint,
    snapshot,
)

DATA = Path(__file__).parent / "data"
N = 160
SHORT = FitConfig(epochs=4, batch=40)


def points():
    x = torch.randn(N, 5, generator=generator(0, "x"))
    return x, torch.where(x[:, 0] - x[:, 1] >= 0, 1.0, -1.0)


def bound_objective(width=4, seed=0):
    return BoundObjective(PBGNet(5, (width,), generator=generator(seed, "prior")), N, 0.05)


def fitted(config=SHORT, *, seed=0, prior=0, width=4):
    objective = bound_objective(width, prior)
    curve = fit(objective, *points(), config, generator=generator(seed, "batches"))
    return objective, curve


def same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class Scripted(Objective):
    """Has the objective values it is told, a constant gradient, and records what it is given."""

    def __init__(self, values=()):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.values = iter(values)
        self.batches, self.kl_weights, self.weights, self.ends = [], [], [], []

    def forward(self, x, y, kl_weight):
        self.batches.append((x, y))
        self.kl_weights.append(kl_weight)
        self.weights.append(self.weight.item())
        return self.weight + 0, x.double().mean()

    def value(self, risk):
        self.ends.append(self.weight.item())
        return {"objective": next(self.values, 0.0), "risk": risk}


def run(objective, n=6, **config):
    x = torch.arange(float(n))[:, None]
    return fit(objective, x, -x[:, 0], FitConfig(**config), generator=generator(0, "batches"))


@pytest.mark.parametrize("width", [4, 20])  # exact and mean-field
def test_the_bound_falls(width):
    _, curve = fitted(FitConfig(epochs=20, batch=32), width=width)
    assert [row["epoch"] for row in curve] == list(range(len(curve)))
    assert all(set(row) == {"epoch", "objective", "risk", "kl", "C"} for row in curve)
    assert curve[0]["objective"] > 0.6
    assert min(row["objective"] for row in curve) < 0.45
    assert curve[-1]["risk"] < curve[0]["risk"] - 0.2


def test_the_bound_of_the_kept_state_is_a_bound_on_its_exact_risk():
    objective, curve = fitted(FitConfig(epochs=30, batch=N))
    x, y = points()
    risk = ((1 - y * objective.network(x)) / 2).mean().item()
    assert objective.value(risk)["objective"] <= min(row["objective"] for row in curve) + 0.02


def test_the_baseline_learns():
    x, y = points()
    net = MLP(5, (4,), generator=generator(0, "net"))
    config = FitConfig(epochs=15, batch=32, learning_rate=0.03)
    curve = fit(RiskObjective(net, "log"), x, y, config, generator=generator(0, "batches"))
    assert curve[-1]["objective"] < 0.2 < 0.5 < curve[0]["objective"]
    assert (net.mode(x) == y).float().mean() > 0.95


def test_the_seeds_decide_every_bit():
    first, curve = fitted()
    again, repeated = fitted()
    assert curve == repeated
    assert same_state(first, again)
    for seeds in ({"seed": 1}, {"prior": 1}):
        other, changed = fitted(**seeds)
        assert curve != changed
        assert not same_state(first, other)


@pytest.mark.parametrize("config", [SHORT, FitConfig(epochs=12, batch=16, learning_rate=3.0)])
def test_the_best_state_of_the_curve_is_kept(config):
    objective, curve = fitted(config)
    best = min(curve, key=lambda row: row["objective"])
    assert objective.network.kl().item() == best["kl"]
    assert objective.log_c.exp().item() == best["C"]
    assert objective.value(best["risk"])["objective"] == best["objective"]


def test_the_kept_state_is_that_at_the_end_of_the_best_epoch():
    objective = Scripted([5.0, 3.0, 4.0, 3.0, 6.0])
    curve = run(objective, epochs=5, batch=2)
    assert [row["objective"] for row in curve] == [5, 3, 4, 3, 6]
    assert len(set(objective.ends)) == 5
    assert objective.weight.item() == objective.ends[1]  # the first of equals


@pytest.mark.parametrize(
    ("values", "patience", "epochs"),
    [
        ([5, 4, 3, 4, 4, 4, 4, 4], 2, 5),
        ([5, 4, 3, 3, 3, 3, 3, 3], 1, 4),
        ([5, 6, 4, 6, 6, 3, 6, 6], 3, 8),
        ([5, 6, 4, 6, 6, 6, 6, 6], 3, 6),
        ([5, 6, 6, 6, 6, 6, 6, 6], 0, 8),
    ],
)
def test_patience_counts_epochs_without_a_better_objective(values, patience, epochs):
    curve = run(Scripted(map(float, values)), epochs=8, batch=6, patience=patience)
    assert len(curve) == epochs


def test_patience_does_not_count_while_the_weight_of_the_kl_rises():
    rising = [float(value) for value in range(20)]
    assert len(run(Scripted(rising), epochs=20, batch=6, patience=2)) == 3
    # The weight is below 1 through epoch 8 (after 9/20 of the training) and 1 from epoch 9 on.
    late = run(Scripted(rising), epochs=20, batch=6, patience=2, kl_warmup=0.5)
    assert [row["epoch"] for row in late] == list(range(11))


def test_the_weight_of_the_kl_rises_in_every_step():
    objective = Scripted()
    run(objective, epochs=4, batch=2, kl_warmup=0.5, patience=0)
    assert objective.kl_weights == pytest.approx([min(1, k / 6) for k in range(1, 13)])
    constant = Scripted()
    run(constant, epochs=4, batch=2, patience=0)
    assert constant.kl_weights == [1.0] * 12


def test_the_weight_of_the_kl_is_a_ramp():
    assert [kl_weight(share, 0.4) for share in (0, 0.1, 0.2, 0.4, 1)] == [0, 0.25, 0.5, 1, 1]
    assert kl_weight(0.001, 0) == 1


def test_a_ramp_lets_the_posterior_move_further():
    # With few points the KL outweighs the risk unless its weight starts at nothing.
    kls = {}
    for warmup in (0.0, 1.0):
        config = FitConfig(epochs=5, batch=32, kl_warmup=warmup)
        _, curve = fitted(config)
        kls[warmup] = curve[1]["kl"]
    assert kls[1.0] > kls[0.0]


def test_every_epoch_visits_every_point_once_in_a_new_order():
    objective = Scripted()
    curve = run(objective, n=7, epochs=3, batch=3, patience=0)
    assert [len(x) for x, _ in objective.batches] == [3, 3, 1] * 3
    orders = []
    for start in (0, 3, 6):
        epoch = objective.batches[start : start + 3]
        orders.append([value for x, _ in epoch for value in x[:, 0].tolist()])
        assert all(torch.equal(y, -x[:, 0]) for x, y in epoch)
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    # The risk of an epoch is the mean over points, also when the last batch is smaller.
    assert [row["risk"] for row in curve] == pytest.approx([3.0] * 3)


def test_the_learning_rate_peaks_after_a_tenth_of_the_steps():
    rates = []
    handle = register_optimizer_step_pre_hook(
        lambda optimiser, *_: rates.append(optimiser.param_groups[0]["lr"])
    )
    try:
        run(Scripted(), epochs=100, batch=6, learning_rate=0.1, patience=0)
    finally:
        handle.remove()
    assert len(rates) == 100
    assert rates[9] == max(rates) == pytest.approx(0.1)
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[0] < 0.01
    assert rates[-1] < 1e-4


@pytest.mark.parametrize("epochs", range(1, 13))
def test_any_number_of_steps_will_do(epochs):
    assert len(run(Scripted(), epochs=epochs, batch=6, patience=0)) == epochs


def test_each_epoch_is_augmented_from_the_original_points():
    seen = []

    def augment(x, source):
        seen.append(x.clone())
        return x + 100 * torch.rand(1, generator=source)

    x = torch.arange(4.0)[:, None]
    objective = Scripted()
    source = generator(0, "batches")
    fit(objective, x, x[:, 0], FitConfig(epochs=3, batch=4), generator=source, augment=augment)
    assert all(torch.equal(before, x) for before in seen)
    assert len(seen) == 3
    offsets = [(given - y[:, None]).mean().item() for given, y in objective.batches]
    assert len(set(offsets)) == 3


def test_the_objective_is_compiled_on_request(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    objective = Scripted()
    run(objective, epochs=1, batch=6)
    assert compiled == []
    run(objective, epochs=1, batch=6, compile=True)
    assert compiled == [objective]


def test_progress_is_shown_on_a_terminal_under_its_label_and_only_with_one(capsys, monkeypatch):
    x, y = points()
    config = FitConfig(epochs=2, batch=N)
    fit(bound_objective(), x, y, config, generator=generator(0, "b"))
    fit(bound_objective(), x, y, config, generator=generator(0, "b"), progress="to a log")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit(bound_objective(), x, y, config, generator=generator(0, "b"), progress="the task")
    shown = capsys.readouterr().err
    assert "the task" in shown
    assert "bound=" in shown


@pytest.mark.parametrize("rate", [1e10, 1e30])
def test_a_diverging_training_is_stopped(rate):
    with pytest.raises(FloatingPointError, match="lower `learning_rate`"):
        fitted(FitConfig(epochs=20, batch=32, learning_rate=rate))


@pytest.mark.parametrize("make", [BoundObjective, RiskObjective])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_points_that_are_no_numbers_are_found_out(make, bad):
    x, y = points()
    x[3, 2] = bad
    net = PBGNet(5, (4,), generator=generator(0, "prior"))
    objective = make(net, N, 0.05) if make is BoundObjective else make(net)
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    with pytest.raises(ValueError, match="`x` must be finite"):
        fit(objective, x, y, SHORT, generator=generator(0, "batches"))
    assert all(torch.equal(start[name], value) for name, value in objective.state_dict().items())


@pytest.mark.parametrize("make", [BoundObjective, RiskObjective])
def test_labels_that_are_no_signs_are_refused(make):
    x, y = points()
    net = PBGNet(5, (4,), generator=generator(0, "prior"))
    objective = make(net, N, 0.05) if make is BoundObjective else make(net)
    for labels in ((y + 1) / 2, y[:, None]):
        with pytest.raises(ValueError, match="labels"):
            fit(objective, x, labels, SHORT, generator=generator(0, "batches"))
    with pytest.raises(TypeError, match="torch tensors, got ndarray"):
        fit(objective, x.numpy(), y.numpy(), SHORT, generator=generator(0, "batches"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", -3),
        ("batch", 0),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("kl_warmup", -0.1),
        ("kl_warmup", 1.1),
        ("kl_warmup", math.nan),
        ("patience", -1),
    ],
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must .*, got {value}"):
        FitConfig(**{name: value})


@pytest.mark.parametrize(("rows", "labels"), [(0, 0), (3, 2), (2, 3)])
def test_points_that_do_not_belong_together_are_refused(rows, labels):
    with pytest.raises(ValueError, match=f"`x` and `y` must .*, got {rows} and {labels}"):
        Scripted().check(torch.zeros(rows, 1), torch.zeros(labels))
    with pytest.raises(ValueError, match="`x` and `y` must"):
        fit(
            bound_objective(),
            torch.zeros(rows, 5),
            torch.zeros(labels),
            SHORT,
            generator=generator(0, "batches"),
        )


def test_restarts_keep_the_prior_and_never_end_above_the_single_start():
    x, y = points()
    _, single_curve = fitted()
    objective = bound_objective()
    prior = {k: v.clone() for k, v in objective.state_dict().items() if "prior" in k}
    assert len(prior) == 2
    curve = fit_best_of(3, objective, x, y, SHORT, generator=generator(0, "batches"))
    assert all(torch.equal(objective.state_dict()[name], prior[name]) for name in prior)
    best = min(curve, key=lambda row: row["objective"])
    assert best["objective"] <= min(row["objective"] for row in single_curve)
    assert objective.value(best["risk"])["objective"] == best["objective"]
    assert objective.network.kl().item() == best["kl"]


def test_a_single_start_is_the_plain_fit():
    plain, plain_curve = fitted()
    objective = bound_objective()
    curve = fit_best_of(1, objective, *points(), SHORT, generator=generator(0, "batches"))
    assert curve == plain_curve
    assert same_state(objective, plain)


@pytest.mark.parametrize("best", range(3))
def test_the_best_of_the_restarts_is_kept_and_each_begins_afresh(monkeypatch, best):
    objective, starts, ends = bound_objective(), [], []
    first = snapshot(objective)

    def fake_fit(objective, x, y, config, **_):
        starts.append(snapshot(objective))
        with torch.no_grad():
            objective.network.output.weight.mean.add_(1)
            objective.log_c.add_(1)
        ends.append(snapshot(objective))
        value = 1.0 if len(starts) == best + 1 else 2.0
        return [{"objective": value, "run": len(ends)}, {"objective": 3.0}]

    monkeypatch.setattr("pbnn.training.fit", fake_fit)
    curve = fit_best_of(3, objective, *points(), SHORT, generator=generator(0, "batches"))
    assert curve[0]["run"] == best + 1
    kept = objective.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in ends[best].items())
    assert all(torch.equal(starts[0][name], value) for name, value in first.items())
    assert [start["log_c"].item() for start in starts] == [0, 0, 0]
    for one, other in itertools.combinations(starts, 2):
        for layer in ("hidden.0", "output"):
            name = f"network.{layer}.weight"
            assert not torch.equal(one[f"{name}.mean"], other[f"{name}.mean"])
            assert torch.equal(one[f"{name}.prior_mean"], other[f"{name}.prior_mean"])


@pytest.mark.parametrize("restarts", [0, -1])
def test_fewer_than_one_start_is_refused(restarts):
    with pytest.raises(ValueError, match=f"`restarts` must be a positive integer, got {restarts}"):
        fit_best_of(
            restarts, bound_objective(), *points(), SHORT, generator=generator(0, "batches")
        )


def test_a_snapshot_is_left_alone():
    objective = bound_objective()
    state = snapshot(objective)
    before = {name: value.clone() for name, value in state.items()}
    with torch.no_grad():
        objective.network.output.weight.mean.add_(1)
    assert all(torch.equal(state[name], before[name]) for name in before)


SHIFT = torch.linspace(-1, 1, 5)


@pytest.mark.parametrize(
    "net",
    [
        PBGNet(5, (3,), bias=True, shift=SHIFT, generator=generator(0, "net")),
        PBGNet(5, (3,), aggregate="mean_field", generator=generator(0, "net")),
        PBGNet(5, (3,), shift=0.1, generator=generator(0, "net"), dtype=torch.float64),
        MLP(5, (3,), shift=SHIFT, generator=generator(0, "net")),
    ],
    ids=["bias", "mean field", "float64", "MLP"],
)
def test_a_checkpoint_brings_back_every_bit(net, tmp_path):
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters(), start=1):
            parameter.add_(number / 3)
    path = tmp_path / "new" / "net.safetensors"
    save_checkpoint(path, net)
    back = load_checkpoint(path)
    assert type(back) is type(net)
    assert back.config == net.config
    assert same_state(back, net)
    assert {v.dtype for v in back.state_dict().values()} == {net.shift.dtype}
    x = torch.randn(4, 5, generator=generator(0, "x"), dtype=net.shift.dtype)
    assert torch.equal(back(x), net(x))
    assert list(path.parent.iterdir()) == [path]
    # Readable by those who may read any other file here, see pbnn.files.atomic.
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_the_header_of_a_checkpoint_is_json(tmp_path):
    path = tmp_path / "net.safetensors"
    net = PBGNet(5, (3,), generator=generator(0, "net"))
    save_checkpoint(path, net)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["pbnn"])
    assert header == {"schema_version": SCHEMA_VERSION, "network": "PBGNet", "config": net.config}


def test_the_checkpoint_of_version_1_loads():
    net = load_checkpoint(DATA / "checkpoint_v1.safetensors")
    assert isinstance(net, PBGNet)
    assert net.config == {"in_features": 3, "hidden": [2], "bias": True, "aggregate": "exact"}
    eighths = torch.arange(-4.0, 4.0).reshape(2, 4) / 8
    assert torch.equal(net.hidden[0].weight.mean, eighths)
    assert torch.equal(net.hidden[0].weight.prior_mean, torch.full((2, 4), 0.25))
    assert torch.equal(net.output.weight.mean, torch.tensor([[1.0, -0.5, 0.25]]))
    assert torch.equal(net.output.weight.prior_mean, torch.zeros(1, 3))
    assert net.shift.tolist() == [0, 0.5, 1]
    kl = (eighths - 0.25).square().sum() / 2 + (1 + 0.25 + 0.0625) / 2
    assert net.kl().item() == pytest.approx(kl.item())


def test_a_checkpoint_of_a_later_version_is_refused():
    path = DATA / "checkpoint_v999.safetensors"
    with pytest.raises(ValueError, match=r"checkpoint_v999.*schema_version 999.* up to 1"):
        load_checkpoint(path)


def stored(path, state=None, **changes):
    """A checkpoint with another header, or without a part of it where a change is None."""
    net = PBGNet(3, (2,), generator=generator(0, "net"))
    header = {"schema_version": 1, "network": "PBGNet", "config": net.config} | changes
    header = {name: value for name, value in header.items() if value is not None}
    save_file(snapshot(net) if state is None else state, path, {"pbnn": json.dumps(header)})


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": None},
        {"schema_version": 0},
        {"schema_version": "1"},
        {"network": None},
        {"network": "ABNet"},
        {"network": ["PBGNet"]},
        {"network": "MLP"},
        {"config": None},
        {"config": []},
        {"config": {"in_features": 3}},
        {"config": {"in_features": 3, "hidden": [4]}},
        {"config": {"in_features": 4, "hidden": [2]}},
        {"config": {"in_features": 0, "hidden": [2]}},
        {"config": {"in_features": 3, "hidden": [2], "bias": True}},
        {"config": {"in_features": 3, "hidden": [2], "depth": 3}},
        {"config": {"in_features": "3", "hidden": [2]}},
    ],
    ids=json.dumps,
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, changes):
    path = tmp_path / "net.safetensors"
    stored(path)
    load_checkpoint(path)
    stored(path, **changes)
    with pytest.raises(ValueError, match=r"net\.safetensors"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"shift": torch.zeros(3)},
        {"shift": torch.zeros(3), "hidden.0.weight.mean": torch.zeros(2, 4)},
        {**PBGNet(3, (2,), generator=generator(0, "net")).state_dict(), "more": torch.zeros(1)},
        {**PBGNet(3, (2,), generator=generator(0, "net")).state_dict(), "shift": torch.zeros(4)},
    ],
    ids=["none", "some", "missing", "more", "shape"],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, state):
    path = tmp_path / "net.safetensors"
    stored(path, state)
    with pytest.raises(ValueError, match=r"net\.safetensors: the tensors do not fit"):
        load_checkpoint(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"pbnn": "{"}, {"pbnn": "[]"}])
def test_a_file_of_somebody_else_is_refused(tmp_path, metadata):
    path = tmp_path / "net.safetensors"
    save_file({"shift": torch.zeros(3)}, path, metadata)
    with pytest.raises(ValueError, match=r"net\.safetensors is not a .*checkpoint"):
        load_checkpoint(path)


def test_a_truncated_or_garbled_checkpoint_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    stored(path)
    data = path.read_bytes()
    for kept in (0, 7, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:kept])
        with pytest.raises(ValueError, match=r"net\.safetensors is not a readable"):
            load_checkpoint(path)
    for garbage in (b"garbage" * 50, b"\xff" * 400, data + b"more", b"\0" * 8 + data[8:]):
        path.write_bytes(garbage)
        with pytest.raises(ValueError, match=r"net\.safetensors is not a readable"):
            load_checkpoint(path)


class Mischief:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(thing)])
def test_nothing_is_unpickled(tmp_path, write):
    mischief = Mischief(tmp_path / "done")
    path = tmp_path / "net.safetensors"
    write(mischief if write is torch.save else pickle.dumps(mischief), path)
    with pytest.raises(ValueError, match=r"net\.safetensors is not a readable"):
        load_checkpoint(path)
    assert not mischief.path.exists()
    pickle.loads(pickle.dumps(mischief))
    assert mischief.path.exists()  # as it would have been
