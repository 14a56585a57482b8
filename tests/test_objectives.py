"""Losses against their formulas, and the bound objective against the bounds it stands for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pbnn.bounds import catoni, catoni_optimal_c, maurer
from pbnn.networks import MLP, PBGNet
from pbnn.objectives import BoundObjective, RiskObjective, linear_loss, log_loss
from pbnn.seeding import generator

N, DELTA = 500, 0.04


def problem():
    x = torch.randn(40, 3, generator=generator(0, "x"), dtype=torch.float64)
    y = torch.where(x[:, 0] + 0.3 * x[:, 1] >= 0, 1.0, -1.0).double()
    net = PBGNet(3, (4,), generator=generator(0, "prior"), dtype=torch.float64)
    with torch.no_grad():
        net.hidden[0].weight.mean.add_(net.hidden[0].weight.mean)
        net.output.weight.mean.add_(1)
    return BoundObjective(net, N, DELTA), x, y


def set_c(objective, c):
    with torch.no_grad():
        objective.log_c.fill_(math.log(c))


def risk_and_kl(objective, x, y):
    return linear_loss(objective.network(x), y).mean().item(), objective.network.kl().item()


def by_hand(risk, kl, c):
    inside = -c * risk - (kl + math.log(2 * math.sqrt(N) / DELTA)) / N
    return (1 - math.exp(inside)) / (1 - math.exp(-c))


def test_the_losses_are_their_formulas():
    output = torch.linspace(-0.99, 0.99, 12, dtype=torch.float64)
    label = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(6)
    right = torch.where(label > 0, (1 + output) / 2, (1 - output) / 2)
    torch.testing.assert_close(linear_loss(output, label), 1 - right)
    expected = torch.nn.functional.binary_cross_entropy(
        (1 + output) / 2, (label + 1) / 2, reduction="none"
    )
    torch.testing.assert_close(log_loss(output, label), expected)


def test_the_log_loss_of_a_certain_error_is_finite():
    output = torch.tensor([-1.0, 1.0], requires_grad=True)
    loss = log_loss(output, torch.ones(2))
    assert loss.tolist() == pytest.approx([6 * math.log(10), 0], rel=1e-5)
    loss.sum().backward()
    assert output.grad.isfinite().all()


def test_the_linear_loss_is_the_risk_of_a_random_network():
    objective, x, y = problem()
    draws, source = 100_000, generator(0, "draws")
    wrong = torch.zeros((), dtype=torch.float64)
    means = objective.network.hidden_moments(x).mean.detach()
    for _ in range(draws // 50):
        output = objective.network.sample_mean(means.repeat(50, 1), source).detach()
        wrong += linear_loss(output, y.repeat(50)).sum()
    risk, _ = risk_and_kl(objective, x, y)
    # Each of the 40 points is an independent draw with values in [0, 1].
    assert wrong.item() / (draws * 40) == pytest.approx(risk, abs=5 * 0.5 / math.sqrt(draws * 40))


@pytest.mark.parametrize("c", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_objective_is_catoni_and_the_weight_enters_only_its_kl(c, weight):
    objective, x, y = problem()
    set_c(objective, c)
    bound, gibbs = objective(x, y, weight)
    risk, kl = risk_and_kl(objective, x, y)
    assert kl > 1
    assert gibbs.item() == risk
    assert not gibbs.requires_grad
    assert bound.item() == pytest.approx(by_hand(risk, weight * kl, c), rel=1e-12)


def test_the_objective_is_not_clipped_at_one():
    objective, x, y = problem()
    set_c(objective, 0.01)
    bound, _ = objective(x, -y)
    assert bound > 1
    bound.backward()
    assert objective.network.output.weight.mean.grad.abs().sum() > 0


def test_the_learned_c_is_stationary_at_the_optimum_where_the_bound_is_maurer():
    objective, x, y = problem()
    risk, kl = risk_and_kl(objective, x, y)
    best = catoni_optimal_c(risk, kl, N, delta=DELTA)
    slopes = []
    for c in (best / 2, best, 2 * best):
        set_c(objective, c)
        slopes.append(torch.autograd.grad(objective(x, y)[0], objective.log_c)[0].item())
    assert slopes[0] < -1e-3
    assert slopes[1] == pytest.approx(0, abs=1e-12)
    assert slopes[2] > 1e-3
    set_c(objective, best)
    assert objective(x, y)[0].item() == pytest.approx(maurer(risk, kl, N, delta=DELTA), rel=1e-12)


def test_the_minimum_over_c_is_the_bound_of_the_curve():
    objective, x, y = problem()
    values = []
    for c in np.geomspace(0.1, 10, 2_001):
        set_c(objective, c)
        values.append(objective(x, y)[0].item())
    risk, kl = risk_and_kl(objective, x, y)
    row = objective.value(risk)
    assert set(row) == {"objective", "risk", "kl", "C"}
    assert row["objective"] == pytest.approx(min(values), rel=1e-6)
    assert row["objective"] == pytest.approx(maurer(risk, kl, N, delta=DELTA), rel=1e-12)
    assert row["objective"] <= min(values)
    assert (row["risk"], row["kl"]) == (risk, kl)
    assert row["C"] == pytest.approx(10)


@pytest.mark.parametrize("c", [0.2, 2.0])
def test_with_c_fixed_the_gradient_is_that_of_tempered_variational_bayes(c):
    objective, x, y = problem()
    set_c(objective, c)
    weights = list(objective.network.parameters())
    bound, _ = objective(x, y)
    of_bound = torch.autograd.grad(bound, weights)
    risk = linear_loss(objective.network(x), y).mean()
    of_bayes = torch.autograd.grad(c * N * risk + objective.network.kl(), weights)
    # d(bound)/d(C n risk + KL) is one positive number for all weights.
    factor = (1 - by_hand(*risk_and_kl(objective, x, y), c) * (1 - math.exp(-c))) / (
        N * (1 - math.exp(-c))
    )
    assert factor > 0
    for one, other in zip(of_bound, of_bayes, strict=True):
        torch.testing.assert_close(one, factor * other, rtol=1e-10, atol=1e-14)


def test_the_gradient_of_the_objective_is_that_of_finite_differences():
    objective, x, y = problem()
    names = [name for name, _ in objective.named_parameters()]
    assert set(names) == {"log_c", "network.hidden.0.weight.mean", "network.output.weight.mean"}
    inputs = [value.detach().clone().requires_grad_() for value in objective.parameters()]

    def bound(*values):
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(objective, state, (x, y, 0.7))[0]

    assert torch.autograd.gradcheck(bound, inputs)


def test_rounding_does_not_push_the_risk_out_of_the_bound():
    objective, _, _ = problem()
    kl = objective.network.kl().item()
    assert objective.value(1 + 1e-7)["objective"] == 1
    assert objective.value(-1e-9)["objective"] == pytest.approx(catoni(0.0, kl, N, delta=DELTA))


def test_a_diverged_training_has_no_bound():
    objective, _, _ = problem()
    assert math.isnan(objective.value(math.nan)["objective"])
    with torch.no_grad():
        objective.network.output.weight.mean.fill_(math.inf)
    assert math.isnan(objective.value(0.5)["objective"])


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


def test_an_unknown_loss_is_refused():
    net = MLP(3, (4,), generator=generator(0, "net"))
    with pytest.raises(ValueError, match=r"`loss` must be one of \['linear', 'log'\], got 'hinge'"):
        RiskObjective(net, "hinge")
