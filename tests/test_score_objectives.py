"""Objectives of networks that give Gaussian scores, on the smallest one: a Gaussian read-out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pbnn.bounds import maurer
from pbnn.functional import Moments, linear
from pbnn.networks import BLRNet, PBGNet
from pbnn.objectives import (
    LOSSES,
    BoundObjective,
    RiskObjective,
    SelectedByBound,
    VariationalObjective,
)
from pbnn.scores import (
    binary_cross_entropy,
    bounded_cross_entropy,
    cross_entropy,
    error_of_means,
    gibbs_loss,
)
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit

N, DELTA = 500, 0.04
SCORE_LOSSES = {
    "gibbs": gibbs_loss,
    "cross_entropy": cross_entropy,
    "bounded_cross_entropy": bounded_cross_entropy,
    "bce": binary_cross_entropy,
}
BOUNDED = ["bounded_cross_entropy", "gibbs"]
OPTIONS = {
    BoundObjective: {"n": N, "delta": DELTA},
    VariationalObjective: {"n": N},
    RiskObjective: {},
}


class Readout(nn.Module):
    """Scores W x of inputs that are flattened, W of unit variances and centred a priori."""

    def __init__(self, means):
        super().__init__()
        self.means = nn.Parameter(means)

    def forward(self, x):
        return linear(x.flatten(1), self.means)

    def kl(self):
        return self.means.square().sum() / 2


def points(n=60, dtype=torch.float64):
    """Small images of three classes, each with a mean of its own."""
    y = torch.arange(n) % 3
    x = torch.randn(n, 1, 2, 2, generator=generator(0, "x"), dtype=dtype)
    x[torch.arange(n), 0, y // 2, y % 2] += 2
    return x, y


def problem(make=BoundObjective, **options):
    means = torch.randn(3, 4, generator=generator(0, "means"), dtype=torch.float64)
    return make(Readout(means), **(OPTIONS[make] | options)), *points()


def mean_of(loss, objective, x, y):
    return SCORE_LOSSES[loss](objective.network(x), y).mean().item()


def test_the_table_holds_these_losses_and_says_which_are_bounded():
    assert {name for name, loss in LOSSES.items() if loss.function in SCORE_LOSSES.values()} == set(
        SCORE_LOSSES
    )
    for name, function in SCORE_LOSSES.items():
        assert LOSSES[name].function is function
        assert LOSSES[name].bounded == (name in BOUNDED)
    assert [name for name in LOSSES if name not in SCORE_LOSSES] == ["linear", "log"]
    # Far off, an unbounded loss leaves [0, 1] and a bounded one does not.
    scores = Moments(torch.tensor([[-200.0, 0.0]]), torch.ones(1, 2))
    for loss in (LOSSES[name] for name in SCORE_LOSSES):
        assert (loss.function(scores, torch.tensor([0])).item() <= 1) == loss.bounded


@pytest.mark.parametrize("loss", BOUNDED)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_bound_is_catoni_of_the_mean_loss(loss, weight):
    objective, x, y = problem(loss=loss)
    with torch.no_grad():
        objective.log_c.fill_(math.log(2.0))
    bound, risk = objective(x, y, weight)
    mean, kl = mean_of(loss, objective, x, y), objective.network.kl().item()
    assert kl > 1
    inside = -2 * mean - (weight * kl + math.log(2 * math.sqrt(N) / DELTA)) / N
    assert bound.item() == pytest.approx((1 - math.exp(inside)) / (1 - math.exp(-2)), rel=1e-12)
    assert risk.item() == mean
    assert not risk.requires_grad
    row = objective.value(mean)
    assert row["objective"] == pytest.approx(maurer(mean, kl, N, delta=DELTA), rel=1e-12)
    assert (row["risk"], row["kl"]) == (mean, kl)


def test_two_classes_are_the_sign_of_a_gaussian_unit():
    means = torch.randn(4, generator=generator(0, "unit"), dtype=torch.float64)
    unit = PBGNet(4, (), prior_scale=0.0, generator=generator(0, "net"), dtype=torch.float64)
    readout = Readout(torch.stack([-means, means]) / math.sqrt(2))
    with torch.no_grad():
        unit.output.weight.mean.copy_(means)
    x, y = points()
    x, y = x.flatten(1), y % 2
    one = BoundObjective(unit, N, DELTA)(x, 2.0 * y - 1)
    two = BoundObjective(readout, N, DELTA, loss="gibbs")(x, y)
    # The training step leaves an error of this order for two equal variances.
    for a, b in zip(one, two, strict=True):
        assert a.item() == pytest.approx(b.item(), abs=1e-12)


def test_the_gibbs_loss_is_the_risk_of_drawn_networks():
    objective, x, y = problem(loss="gibbs")
    draws, source = 4_000, generator(0, "draws")
    noise = torch.randn(draws, 3, 4, generator=source, dtype=torch.float64)
    scores = torch.einsum("dkj,nj->dnk", objective.network.means.detach() + noise, x.flatten(1))
    risks = (scores.argmax(-1) != y).double().mean(1)
    _, risk = objective(x, y)
    assert abs(risks.mean() - risk) <= 5 * risks.std() / math.sqrt(draws)


@pytest.mark.parametrize("loss", BOUNDED)
@pytest.mark.parametrize("c", [0.3, 3.0])
def test_with_c_fixed_the_gradient_is_that_of_tempered_variational_bayes(loss, c):
    bound, x, y = problem(BoundObjective, C=c, loss=loss)
    bayes, _, _ = problem(VariationalObjective, C=c, loss=loss)
    gradients = [
        torch.autograd.grad(objective(x, y)[0], objective.network.means)[0].flatten()
        for objective in (bound, bayes)
    ]
    assert torch.cosine_similarity(*gradients, dim=0) > 1 - 1e-12
    assert bound.state_dict()["log_c"] == math.log(c)


@pytest.mark.parametrize("loss", SCORE_LOSSES)
def test_variational_bayes_adds_the_kl(loss):
    objective, x, y = problem(VariationalObjective, n=40, C=0.5, loss=loss)
    value, risk = objective(x, y, 0.25)
    kl = objective.network.kl().item()
    assert risk.item() == mean_of(loss, objective, x, y)
    assert value.item() == pytest.approx(risk.item() + 0.25 * kl / 20, rel=1e-12)
    assert objective.value(0.5) == {"objective": 0.5 + kl / 20, "risk": 0.5, "kl": kl}


@pytest.mark.parametrize("loss", SCORE_LOSSES)
def test_the_risk_objective_shows_the_error_of_the_largest_mean(loss):
    objective, x, y = problem(RiskObjective, loss=loss, decay=0.5)
    value, risk = objective(x, y)
    squares = objective.network.means.square().sum().item()
    assert value.item() == pytest.approx(mean_of(loss, objective, x, y) + squares / 4, rel=1e-12)
    wrong = (x.flatten(1) @ objective.network.means.T).argmax(1) != y
    assert 0 < wrong.double().mean().item() < 1
    assert risk.item() == pytest.approx(wrong.double().mean().item())
    assert LOSSES[loss].risk is error_of_means
    assert not risk.requires_grad


@pytest.mark.parametrize(
    ("make", "loss"),
    [
        *((BoundObjective, loss) for loss in BOUNDED),
        *((RiskObjective, loss) for loss in SCORE_LOSSES),
        *((VariationalObjective, loss) for loss in SCORE_LOSSES),
    ],
)
def test_training_lowers_the_objective_and_learns_the_classes(make, loss):
    x, y = points(120, torch.float32)
    objective = make(Readout(torch.zeros(3, 4)), **OPTIONS[make], loss=loss)
    before = objective(x, y)[0].item()
    curve = fit(objective, x, y, FitConfig(epochs=15, batch=40), generator=generator(0, "order"))
    assert objective(x, y)[0].item() < 0.9 * before
    assert error_of_means(objective.network(x), y).mean() < 0.25
    assert ("C" in curve[-1]) == (make is BoundObjective)
    assert all(parameter.dtype == torch.float32 for parameter in objective.parameters())


@pytest.mark.parametrize("loss", ["log", "bce", "cross_entropy", "hinge"])
def test_a_bound_of_an_unbounded_loss_is_refused(loss):
    listed = r"\['bounded_cross_entropy', 'gibbs', 'linear'\]"
    with pytest.raises(ValueError, match=f"`loss` must be one of {listed}, got '{loss}'"):
        problem(loss=loss)


@pytest.mark.parametrize("make", [RiskObjective, VariationalObjective])
def test_an_unknown_loss_is_refused(make):
    with pytest.raises(ValueError, match=r"`loss` must be one of \['bce', .*\], got 'hinge'"):
        problem(make, loss="hinge")


@pytest.mark.parametrize("make", [BoundObjective, RiskObjective, VariationalObjective])
def test_points_of_the_wrong_kind_are_refused(make):
    objective, x, y = problem(make, loss="gibbs")
    objective.check(x, y)
    with pytest.raises(TypeError, match=r"`y` must be an int64 tensor .* got torch\.float64"):
        objective.check(x, y.double())
    with pytest.raises(TypeError, match="`y` must be an int64 tensor of classes, got list"):
        objective.check(x, y.tolist())
    with pytest.raises(TypeError, match="`x` and `y` must be torch tensors, got list and Tensor"):
        objective.check(x.tolist(), y)
    with pytest.raises(ValueError, match="`y` must hold classes of at least 0, got -1"):
        objective.check(x, y - 1)
    with pytest.raises(ValueError, match="got 60 points and labels of shape"):
        objective.check(x, y[:-1])
    with pytest.raises(ValueError, match="got 0 points"):
        objective.check(x[:0], y[:0])
    with pytest.raises(ValueError, match="`x` must be finite"):
        objective.check(x / 0, y)
    # Signs are labels of the two-class losses only, and classes of the others.
    with pytest.raises(ValueError, match="`y` must hold labels −1 and \\+1 only"):
        problem(make, loss="linear")[0].check(x, y)


def test_labels_beyond_the_classes_of_the_network_are_refused():
    objective, x, y = problem(loss="gibbs")
    objective.check(x, y + 1)  # as long as the network does not say
    objective.network.classes = 3
    objective.check(x, y)
    with pytest.raises(ValueError, match="`y` must hold classes below 3, got 3"):
        objective.check(x, y + 1)


def test_selection_by_the_bound_is_for_two_classes():
    _, x, y = problem()
    objective = SelectedByBound(Readout(torch.zeros(3, 4)), N, DELTA)
    with pytest.raises(ValueError, match="`y` must hold labels"):
        objective.check(x, y)


def test_a_bound_of_a_network_that_hands_on_its_mode_is_warned_of():
    start = generator(0, "start")
    network = BLRNet((1, 4, 4), "SM3", activation="mode", batch_norm=False, generator=start)
    objective = BoundObjective(network, 10, 0.05, loss="gibbs")
    with pytest.warns(UserWarning, match="activation"):
        objective.check(torch.zeros(6, 1, 4, 4), torch.arange(6) % 3)
