"""Losses against their formulas, and the bound objective against the bounds it stands for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pbnn.bounds import catoni, catoni_optimal_c, maurer
from pbnn.networks import PBGNet
from pbnn.objectives import (
    BoundObjective,
    VariationalObjective,
    linear_loss,
    log_loss,
)
from pbnn.seeding import generator

N, DELTA = 500, 0.04


def problem(c=None):
    """The bound of a network whose posterior lies apart from its prior, and points."""
    x = torch.randn(40, 3, generator=generator(0, "x"), dtype=torch.float64)
    y = torch.where(x[:, 0] + 0.3 * x[:, 1] >= 0, 1.0, -1.0).double()
    net = PBGNet(3, (4,), generator=generator(0, "prior"), dtype=torch.float64)
    with torch.no_grad():
        net.hidden[0].weight.mean.add_(net.hidden[0].weight.mean)
        net.output.weight.mean.add_(1)
    return BoundObjective(net, N, DELTA, c), x, y


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


def test_the_learned_c_goes_to_the_optimum():
    objective, x, y = problem()
    optimiser = torch.optim.LBFGS([objective.log_c], line_search_fn="strong_wolfe", max_iter=100)

    def loss():
        optimiser.zero_grad()
        bound, _ = objective(x, y)
        bound.backward()
        return bound

    optimiser.step(loss)
    best = catoni_optimal_c(*risk_and_kl(objective, x, y), N, delta=DELTA)
    assert abs(math.log(best)) > 0.1  # where it started
    assert objective.log_c.exp().item() == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("c", [0.2, 2.0])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_with_c_fixed_the_gradient_is_that_of_tempered_variational_bayes(c, weight):
    objective, x, y = problem(c)
    bayes = VariationalObjective(objective.network, N, c, "linear")
    weights = list(objective.network.parameters())

    def gradient(value):
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, weights)])

    of_bound = gradient(objective(x, y, weight)[0])
    of_bayes = gradient(bayes(x, y, weight)[0])
    risk = linear_loss(objective.network(x), y).mean()
    of_both = gradient(c * N * risk + weight * objective.network.kl())
    for other in (of_bayes, of_both):
        assert torch.cosine_similarity(of_bound, other, dim=0) > 1 - 1e-10
    # d(bound)/d(C n risk + KL) is one positive number for all weights.
    risk, kl = risk_and_kl(objective, x, y)
    share = 1 - math.exp(-c)
    factor = (1 - by_hand(risk, weight * kl, c) * share) / (N * share)
    assert factor > 0
    torch.testing.assert_close(of_bound, factor * of_both, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(of_bayes, of_both / (c * N), rtol=1e-10, atol=1e-14)


def test_a_fixed_c_is_no_parameter_and_stays():
    objective, x, y = problem(3.0)
    learned, _, _ = problem()
    names = {name for name, _ in learned.named_parameters()}
    assert {name for name, _ in objective.named_parameters()} == names - {"log_c"}
    assert set(objective.state_dict()) == set(learned.state_dict())
    optimiser = torch.optim.SGD(objective.parameters(), lr=1.0)
    before, _ = objective(x, y)
    before.backward()
    optimiser.step()
    after, risk = objective(x, y)
    assert after < before
    assert objective.value(risk.item())["C"] == pytest.approx(3, rel=1e-14)
    kl = objective.network.kl().item()
    assert after.item() == pytest.approx(by_hand(risk.item(), kl, 3.0), rel=1e-12)
    # What is selected on is a certificate's bound, with the best C.
    assert objective.value(risk.item())["objective"] == maurer_of(risk.item(), kl)


def maurer_of(risk, kl):
    return pytest.approx(maurer(risk, kl, N, delta=DELTA), rel=1e-12)


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
