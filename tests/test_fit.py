"""Training of networks: it learns, seeds decide it, the better state is kept, and it refuses."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
import torch

from pbnn.baselines import MLP
from pbnn.bounds import catoni
from pbnn.networks import PBGNet
from pbnn.objectives import (
    BoundObjective,
    Objective,
    RiskObjective,
    SelectedByBound,
    VariationalObjective,
)
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit, fit_best_of, snapshot

N, DELTA = 160, 0.05
SHORT = FitConfig(epochs=4, batch=40)
OBJECTIVES = {
    BoundObjective: (N, DELTA),
    SelectedByBound: (N, DELTA),
    VariationalObjective: (N,),
    RiskObjective: (),
}


def points():
    x = torch.randn(N, 5, generator=generator(0, "x"))
    return x, torch.where(x[:, 0] - x[:, 1] >= 0, 1.0, -1.0)


def objective_of(make, width=4, seed=0):
    return make(PBGNet(5, (width,), generator=generator(seed, "prior")), *OBJECTIVES[make])


def bound_objective(width=4, seed=0):
    return objective_of(BoundObjective, width, seed)


def fitted(config=SHORT, *, seed=0, prior=0, width=4):
    objective = bound_objective(width, prior)
    curve = fit(objective, *points(), config, generator=generator(seed, "batches"))
    return objective, curve


def same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def has_state(objective, state):
    return all(torch.equal(state[name], part) for name, part in objective.state_dict().items())


def bound_on_all_points(network):
    x, y = (part.double() for part in points())
    risk = ((1 - y * network(x)) / 2).double().mean().item()
    return catoni(risk, network.kl().item(), N, delta=DELTA)


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


def train(make, config):
    """The trained objective, its curve, and each epoch's last network with its exact bound."""
    objective, states = objective_of(make).double(), []
    value = objective.value
    objective.value = lambda risk: states.append(snapshot(objective)) or value(risk)
    x, y = (part.double() for part in points())
    curve = fit(objective, x, y, config, generator=generator(0, "batches"))
    ends, other = states[: len(curve)], objective_of(make).double()
    bounds = []
    for state in ends:
        other.load_state_dict(state)
        bounds.append(bound_on_all_points(other.network))
    return objective, curve, ends, bounds


@pytest.mark.parametrize(
    ("config", "flattered"),
    [
        (FitConfig(epochs=12, batch=48, learning_rate=1.0), True),
        (FitConfig(epochs=12, batch=48, learning_rate=3.0), False),
    ],
    ids=["last", "best"],
)
def test_the_running_risk_does_not_decide_which_state_is_kept(config, flattered):
    objective, curve, ends, bounds = train(BoundObjective, config)
    best = min(range(len(curve)), key=lambda epoch: curve[epoch]["objective"])
    assert best != len(curve) - 1
    if flattered:
        # By the mean over its states the epoch is better than either state on all points.
        assert curve[best]["objective"] < bounds[-1] < bounds[best] - 0.01
    else:
        assert bounds[best] < bounds[-1]
    kept = ends[-1] if flattered else ends[best]
    assert has_state(objective, kept)
    assert bound_on_all_points(objective.network) == min(bounds[best], bounds[-1])


def test_a_network_selected_by_its_bound_is_not_trained_past_it():
    config = FitConfig(epochs=30, batch=40, learning_rate=0.3)
    objective, curve, ends, bounds = train(SelectedByBound, config)
    best = min(range(len(curve)), key=lambda epoch: curve[epoch]["objective"])
    assert 0 < best < len(curve) - 1
    assert curve[-1]["risk"] < curve[best]["risk"]
    assert curve[-1]["kl"] > curve[best]["kl"] + 1
    assert bounds[-1] > bounds[best] + 0.01
    assert has_state(objective, ends[best])


def test_a_fixed_c_stays_and_a_learned_one_goes_to_the_optimum_of_the_curve():
    config = FitConfig(epochs=20, batch=N, learning_rate=0.1)
    _, learned = fitted(config)
    assert abs(learned[-1]["C"] - 1) > 0.1
    fixed = BoundObjective(bound_objective().network, N, DELTA, C=2.0)
    curve = fit(fixed, *points(), config, generator=generator(0, "batches"))
    assert [row["C"] for row in curve] == pytest.approx([2.0] * 20)
    assert curve[-1]["objective"] < curve[0]["objective"] - 0.1


def test_a_ramp_lets_the_posterior_move_further():
    # With few points the KL outweighs the risk unless its weight starts at nothing.
    kls = {}
    for warmup in (0.0, 1.0):
        config = FitConfig(epochs=5, batch=32, kl_warmup=warmup)
        _, curve = fitted(config)
        kls[warmup] = curve[1]["kl"]
    assert kls[1.0] > kls[0.0]


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


@pytest.mark.parametrize("make", OBJECTIVES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_points_that_are_no_numbers_are_found_out(make, bad):
    x, y = points()
    x[3, 2] = bad
    objective = objective_of(make)
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    with pytest.raises(ValueError, match="`x` must be finite"):
        fit(objective, x, y, SHORT, generator=generator(0, "batches"))
    assert all(torch.equal(start[name], value) for name, value in objective.state_dict().items())


@pytest.mark.parametrize("make", OBJECTIVES)
def test_labels_that_are_no_signs_are_refused(make):
    x, y = points()
    objective = objective_of(make)
    for labels in ((y + 1) / 2, y[:, None]):
        with pytest.raises(ValueError, match="labels"):
            fit(objective, x, labels, SHORT, generator=generator(0, "batches"))
    with pytest.raises(TypeError, match="torch tensors, got ndarray"):
        fit(objective, x.numpy(), y.numpy(), SHORT, generator=generator(0, "batches"))


@pytest.mark.parametrize(("rows", "labels"), [(0, 0), (3, 2), (2, 3)])
def test_points_that_do_not_belong_together_are_refused(rows, labels):
    with pytest.raises(ValueError, match=f"`x` and `y` must .*, got {rows} and {labels}"):
        Objective().check(torch.zeros(rows, 1), torch.zeros(labels))
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
        # The curve flatters the first start.
        return [{"objective": float(len(ends)), "run": len(ends)}]

    def on_all_points(*_):
        return 1.0 if len(ends) == best + 1 else 2.0

    monkeypatch.setattr("pbnn.training.fit", fake_fit)
    monkeypatch.setattr("pbnn.training.objective_on", on_all_points)
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


@pytest.mark.parametrize(
    "field",
    ["epochs", "batch", "learning_rate", "kl_warmup", "patience", "weight_decay", "frozen_from"],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1, True, "1", None, 1j, [1]])
def test_a_training_of_no_number_is_refused(field, value):
    with pytest.raises(ValueError, match=f"`{field}` must"):
        FitConfig(**{field: value})


def test_epochs_are_whole_and_compile_is_a_flag():
    for bad in ({"epochs": 1.5}, {"batch": 64.0}, {"patience": 0.5}, {"compile": 1}):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
            FitConfig(**bad)


@pytest.mark.parametrize("make", [BoundObjective, SelectedByBound])
def test_an_objective_of_no_points_or_certainty_is_refused(make):
    network = PBGNet(3, (2,), generator=generator(0, "net"))
    for n in (0, -1, 1.5, math.nan, True, "3"):
        with pytest.raises(ValueError, match="`n` must be a positive integer"):
            make(network, n, 0.05)
    for delta in (0.0, 1.0, math.nan, True, "0.5"):
        with pytest.raises(ValueError, match=r"`delta` must lie in \(0, 1\)"):
            make(network, 10, delta)


def test_a_temperature_or_a_decay_that_is_none_is_refused():
    network = PBGNet(3, (2,), generator=generator(0, "net"))
    for value in (math.nan, math.inf, -1, "1", True):
        with pytest.raises(ValueError, match="`C` must be positive"):
            VariationalObjective(network, 10, value)
        with pytest.raises(ValueError, match="`decay` must be a number"):
            RiskObjective(network, decay=value)
    with pytest.raises(ValueError, match="`n` must be a positive integer"):
        VariationalObjective(network, 0)
