"""Objectives that the bound is compared with: risk, penalised risk and variational Bayes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pbnn.baselines import MLP
from pbnn.bounds import maurer
from pbnn.networks import PBGNet
from pbnn.objectives import (
    BoundObjective,
    RiskObjective,
    SelectedByBound,
    VariationalObjective,
    linear_loss,
    log_loss,
)
from pbnn.seeding import generator

N, DELTA = 500, 0.04


def problem(make=BoundObjective, *args, **options):
    """An objective of a network whose posterior lies apart from its prior, and points."""
    x = torch.randn(40, 3, generator=generator(0, "x"), dtype=torch.float64)
    y = torch.where(x[:, 0] + 0.3 * x[:, 1] >= 0, 1.0, -1.0).double()
    net = PBGNet(3, (4,), generator=generator(0, "prior"), dtype=torch.float64)
    with torch.no_grad():
        net.hidden[0].weight.mean.add_(net.hidden[0].weight.mean)
        net.output.weight.mean.add_(1)
    return make(net, *(args or (N, DELTA)), **options), x, y


def risk_and_kl(objective, x, y):
    return linear_loss(objective.network(x), y).mean().item(), objective.network.kl().item()


@pytest.mark.parametrize(("name", "loss"), [("linear", linear_loss), ("log", log_loss)])
@pytest.mark.parametrize("network", [PBGNet, MLP])
def test_the_risk_objective_is_the_mean_loss_without_prior(network, name, loss):
    _, x, y = problem()
    net = network(3, (4,), generator=generator(0, "net"), dtype=torch.float64)
    objective = RiskObjective(net, name)
    value, risk = objective(x, y)
    assert value.item() == pytest.approx(loss(net(x), y).mean().item())
    assert risk.item() == pytest.approx(linear_loss(net(x), y).mean().item())
    assert value.requires_grad
    assert not risk.requires_grad
    assert objective(x, y, 0.0)[0] == value
    assert objective.value(0.25) == {"objective": 0.25, "risk": 0.25}


def gradient_of_penalty(make, args, decay):
    """What a penalty adds to the gradient of each parameter of the network."""
    gradients = []
    for options in ({}, {"decay": decay}):
        objective, x, y = problem(make, *args, **options)
        weights = list(objective.network.parameters())
        gradients.append(torch.autograd.grad(objective(x, y)[0], weights))
    return weights, [two - one for one, two in zip(*gradients, strict=True)]


@pytest.mark.parametrize(
    ("make", "args"),
    [(RiskObjective, ("linear",)), (RiskObjective, ("log",)), (SelectedByBound, (N, DELTA))],
)
def test_the_penalty_adds_a_multiple_of_the_weights_to_the_gradient(make, args):
    weights, added = gradient_of_penalty(make, args, 0.3)
    assert len(weights) == 2
    for weight, part in zip(weights, added, strict=True):
        torch.testing.assert_close(part, 0.3 * weight, rtol=1e-10, atol=1e-14)


def test_the_penalty_takes_in_every_parameter_of_the_baseline_and_no_buffer():
    _, x, y = problem()
    net = MLP(3, (4,), shift=7.0, generator=generator(0, "net"), dtype=torch.float64)
    with torch.no_grad():
        net.hidden_bias.fill_(2.0)
    value, risk = RiskObjective(net, "log", decay=0.5)(x, y)
    squares = sum(p.square().sum().item() for p in net.parameters())
    assert squares > 16
    expected = log_loss(net(x), y).mean().item() + squares / 4
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert risk.item() == linear_loss(net(x), y).mean().item()


def test_selection_by_the_bound_minimises_the_risk_alone():
    objective, x, y = problem(SelectedByBound, decay=0.02)
    risk, kl = risk_and_kl(objective, x, y)
    squares = sum(p.square().sum().item() for p in objective.network.parameters())
    for weight in (0.0, 1.0):
        value, gibbs = objective(x, y, weight)
        assert value.item() == pytest.approx(risk + 0.01 * squares, rel=1e-12)
        assert gibbs.item() == risk
        assert not gibbs.requires_grad
    bound, _, _ = problem()
    row = objective.value(risk)
    assert row == bound.value(risk)
    assert row["objective"] == pytest.approx(maurer(risk, kl, N, delta=DELTA), rel=1e-12)
    assert "log_c" not in dict(objective.named_parameters())
    plain, _, _ = problem(SelectedByBound)
    assert plain(x, y)[0].item() == risk


def chance_of_being_right(net, x, y):
    """By enumeration of the hidden signs, each point and pattern by itself."""
    standard = Normal(0.0, 1.0)
    hidden, output = (layer.weight.mean.detach() for layer in net.layers())
    chances = []
    for point, label in zip(x, y, strict=True):
        on = standard.cdf(hidden @ point / point.norm())
        right = 0.0
        for signs in itertools.product([1.0, -1.0], repeat=len(hidden)):
            s = torch.tensor(signs, dtype=torch.float64)
            pattern = torch.where(s > 0, on, 1 - on).prod()
            right += pattern * standard.cdf(label * (output[0] @ s) / math.sqrt(len(s)))
        chances.append(right.item())
    return chances


@pytest.mark.parametrize("c", [1.0, 0.25])
@pytest.mark.parametrize("loss", ["linear", "log"])
def test_variational_bayes_is_the_loss_of_the_chance_of_being_right_and_the_kl(c, loss):
    objective, x, y = problem(VariationalObjective, 40, C=c, loss=loss)
    net = objective.network
    right = chance_of_being_right(net, x, y)
    expected = sum(1 - p if loss == "linear" else -math.log(p) for p in right) / len(x)
    pairs = [(layer.weight.mean, layer.weight.prior_mean) for layer in net.layers()]
    kl = sum(kl_divergence(Normal(q, 1.0), Normal(p, 1.0)).sum().item() for q, p in pairs)
    assert kl > 1
    value, risk = objective(x, y)
    assert value.item() == pytest.approx(expected + kl / c / len(x), rel=1e-12)
    assert risk.item() == pytest.approx(expected, rel=1e-12)
    assert not risk.requires_grad
    half, _ = objective(x, y, 0.5)
    assert half.item() == pytest.approx(expected + kl / c / 2 / len(x), rel=1e-12)
    row = objective.value(risk.item())
    assert set(row) == {"objective", "risk", "kl"}
    assert row["objective"] == pytest.approx(value.item(), rel=1e-12)
    assert row["kl"] == pytest.approx(kl, rel=1e-12)


def test_the_linear_loss_is_the_default_of_variational_bayes():
    (default, x, y), (linear, _, _) = (
        problem(VariationalObjective, N, **options) for options in ({}, {"loss": "linear"})
    )
    assert default(x, y)[0] == linear(x, y)[0]
    assert default.C == 1


def unit(mean):
    """One Gaussian weight read by its sign, from a centred prior."""
    net = PBGNet(1, (), prior_scale=0.0, generator=generator(0, "net"), dtype=torch.float64)
    with torch.no_grad():
        net.output.weight.mean.fill_(mean)
    return net


@pytest.mark.parametrize("c", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("right", [0, 2, 5])
def test_with_the_linear_loss_it_is_an_evidence_lower_bound(c, right):
    n = 5
    x = torch.ones(n, 1, dtype=torch.float64)
    y = torch.tensor([1.0] * right + [-1.0] * (n - right), dtype=torch.float64)
    # A positive weight has so many points right, a negative one the others.
    norm = math.log(1 + math.exp(-c))
    likelihoods = [math.exp(-c * wrong - n * norm) for wrong in (n - right, right)]
    evidence = math.log(sum(likelihoods) / 2)
    for mean in torch.linspace(-3, 3, 25).tolist():
        value, _ = VariationalObjective(unit(mean), n, c)(x, y)
        bound = -c * n * value.item() - n * norm
        positive = Normal(0.0, 1.0).cdf(torch.tensor(mean, dtype=torch.float64)).item()
        logs = [math.log(likelihood) for likelihood in likelihoods]
        exact = positive * logs[0] + (1 - positive) * logs[1] - mean**2 / 2
        assert bound == pytest.approx(exact, rel=1e-10)
        assert bound <= evidence + 1e-12


def test_with_the_log_loss_it_is_none():
    one = torch.ones(1, 1, dtype=torch.float64)
    value, _ = VariationalObjective(unit(0.5), 1, loss="log")(one, one[:, 0])
    assert -value.item() > math.log(1 / 2) + 0.1  # the evidence of one label


@pytest.mark.parametrize("c", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize(
    ("make", "args"), [(BoundObjective, (N, DELTA)), (VariationalObjective, (N,))]
)
def test_a_c_that_is_no_temperature_is_refused(make, args, c):
    with pytest.raises(ValueError, match=f"`C` must be positive and finite, got {c}"):
        problem(make, *args, C=c)


@pytest.mark.parametrize("decay", [-0.1, math.inf, math.nan])
@pytest.mark.parametrize(
    ("make", "args"), [(RiskObjective, ("linear",)), (SelectedByBound, (N, DELTA))]
)
def test_a_decay_that_is_no_factor_is_refused(make, args, decay):
    with pytest.raises(ValueError, match=f"`decay` must be .* at least 0, got {decay}"):
        problem(make, *args, decay=decay)


@pytest.mark.parametrize(("make", "args"), [(RiskObjective, ()), (VariationalObjective, (N,))])
def test_an_unknown_loss_is_refused(make, args):
    net = MLP(3, (4,), generator=generator(0, "net"))
    with pytest.raises(
        ValueError, match=r"`loss` must be one of \[.*'linear', 'log'\], got 'hinge'"
    ):
        make(net, *args, loss="hinge")
