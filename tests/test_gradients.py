"""Estimators of the gradient against enumeration over draws, finite differences and each other."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

import pbnn.gradients as gradients
from pbnn.functional import hard_sign
from pbnn.gradients import ESTIMATORS, Gradient, conditional, exact, reinforce
from pbnn.networks import PBGNet
from pbnn.objectives import linear_loss
from pbnn.seeding import generator

SAMPLED = ("reinforce", "reinforce_baseline", "straight_through", "conditional")
UNBIASED = ("reinforce", "reinforce_baseline", "conditional")
BIASED = ("mean_field", "straight_through")


@functools.cache
def problem(units=3, features=5, points=4, seed=0, scale=1.0):
    """Means of about one, far from a linear regime, and points that agree with no label rule."""

    def normal(purpose, *shape):
        return torch.randn(*shape, generator=generator(seed, purpose), dtype=torch.float64)

    output = scale * normal("output", 1, units)
    x, y = normal("x", points, features), hard_sign(normal("y", points))
    return normal("hidden", units, features), output, x, y


def flat(gradient):
    return torch.cat([part.flatten() for part in gradient])


def replicated(name, draws, replications, data, purpose="draws"):
    """One flat estimate a row, each from draws of its own."""
    source = generator(0, purpose, name, draws)
    return torch.stack([flat(ESTIMATORS[name](*data, draws, source)) for _ in range(replications)])


def averaged_over_all_draws(monkeypatch, name, draws, data):
    """The estimator's expectation: a sum over every outcome of its draws at a single point."""
    hidden, _, x, _ = data
    units = len(hidden)
    up = Normal(0.0, 1.0).cdf(hidden @ x[0] / x[0].norm())
    total = 0.0
    for outcome in itertools.product((-1.0, 1.0), repeat=draws * units):
        signs = torch.tensor(outcome, dtype=torch.float64).reshape(draws, 1, units)
        monkeypatch.setattr(gradients, "sample_signs", lambda mean, _, signs=signs: signs)
        probability = torch.where(signs > 0, up, 1 - up).prod()
        total = total + probability * flat(ESTIMATORS[name](*data, draws, torch.Generator()))
    return total


@pytest.mark.parametrize(
    ("name", "draws"),
    [("reinforce", 1), ("conditional", 1), ("conditional", 2), ("reinforce_baseline", 3)],
)
@pytest.mark.parametrize("units", [1, 3])
def test_the_mean_over_every_outcome_of_the_draws_is_the_gradient(monkeypatch, name, draws, units):
    data = problem(units=units, points=1)
    expected = flat(exact(*data, 1, torch.Generator()))
    torch.testing.assert_close(
        averaged_over_all_draws(monkeypatch, name, draws, data), expected, rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("name", UNBIASED)
@pytest.mark.parametrize("draws", [2, 5])
def test_the_mean_over_replications_is_the_gradient_within_its_standard_error(name, draws):
    data = problem()
    estimates = replicated(name, draws, 2_000, data)
    error = estimates.mean(0) - flat(exact(*data, 1, torch.Generator()))
    assert (error.abs() <= 5 * estimates.std(0) / math.sqrt(len(estimates))).all()


@pytest.mark.parametrize("name", SAMPLED)
def test_the_gradient_in_the_output_weights_is_unbiased(name):
    data = problem()
    source = generator(0, "output", name)
    estimates = torch.stack([ESTIMATORS[name](*data, 2, source).output for _ in range(2_000)])
    error = estimates.mean(0) - exact(*data, 1, torch.Generator()).output
    assert (error.abs() <= 5 * estimates.std(0) / math.sqrt(len(estimates))).all()


@pytest.mark.parametrize("name", BIASED)
def test_straight_through_and_mean_field_are_biased_in_the_hidden_weights(name):
    data = problem(scale=2.0)
    truth = exact(*data, 1, torch.Generator()).hidden
    source = generator(0, "bias", name)
    estimates = torch.stack([ESTIMATORS[name](*data, 10, source).hidden for _ in range(500)])
    error = (estimates.mean(0) - truth).abs()
    assert (error > 10 * estimates.std(0) / math.sqrt(500)).any()
    assert error.norm() > 0.05 * truth.norm()


def test_more_draws_do_not_mend_straight_through():
    # One unit: m erf(w/√2) has the derivative erf(w/√2) in m, straight-through says √(2/π) w e^….
    hidden, output, x, y = problem(units=1)
    w = float(output)
    biased = math.sqrt(2 / math.pi) * w * math.exp(-(w**2) / 2)
    for draws in (1, 50):
        estimate = ESTIMATORS["straight_through"](hidden, output, x, y, draws, torch.Generator())
        truth = exact(hidden, output, x, y, 1, torch.Generator())
        torch.testing.assert_close(
            estimate.hidden / truth.hidden,
            torch.full_like(hidden, biased / math.erf(w / math.sqrt(2))),
        )


def test_straight_through_is_right_where_the_output_is_linear_in_the_signs():
    data = problem(scale=1e-4)
    estimate, truth = (
        ESTIMATORS[name](*data, 1, torch.Generator()).hidden
        for name in ("straight_through", "exact")
    )
    torch.testing.assert_close(estimate, truth, rtol=1e-6, atol=0.0)


def test_straight_through_is_the_written_average():
    hidden, output, x, y = problem(points=1)
    source = generator(0, "written")
    estimate = ESTIMATORS["straight_through"](hidden, output, x, y, 7, source)
    means = torch.erf(hidden @ x[0] / (math.sqrt(2) * x[0].norm()))
    signs = gradients.sample_signs(means.expand(7, 1, -1), generator(0, "written"))[:, 0]
    units = len(hidden)
    slope = torch.exp(-((signs @ output[0]) ** 2) / (2 * units)).mean()
    e = math.sqrt(2 / math.pi) * torch.exp(-((hidden @ x[0] / x[0].norm()) ** 2) / 2)
    by_mean = math.sqrt(2 / (math.pi * units)) * output[0] * slope
    expected = -y / 2 * (e * by_mean)[:, None] * x / x.norm()
    torch.testing.assert_close(estimate.hidden, expected)


def test_the_baseline_is_the_mean_of_the_other_draws():
    hidden, output, x, y = problem(points=1)
    draws, units = 4, len(hidden)
    estimate = ESTIMATORS["reinforce_baseline"](
        hidden, output, x, y, draws, generator(0, "baseline")
    )
    w = hidden.clone().requires_grad_()
    up = Normal(0.0, 1.0).cdf(x @ w.T / x.norm())[0]
    signs = gradients.sample_signs((2 * up - 1).expand(draws, -1), generator(0, "baseline"))
    reward = torch.erf(signs.detach() @ output[0] / math.sqrt(2 * units))
    log_prob = Bernoulli(up).log_prob((signs.detach() + 1) / 2).sum(1)
    terms = [
        (reward[t] - sum(reward[u] for u in range(draws) if u != t) / (draws - 1)) * log_prob[t]
        for t in range(draws)
    ]
    (by_hand,) = torch.autograd.grad(-y[0] / 2 * sum(terms) / draws, w)
    torch.testing.assert_close(estimate.hidden, by_hand)


@pytest.mark.parametrize("draws", [1, 2, 30])
def test_the_papers_estimator_is_reinforce_draw_by_draw(draws):
    data = problem(units=6, points=9)
    paper, score = (
        estimate(*data, draws, generator(0, "same")) for estimate in (conditional, reinforce)
    )
    for one, other in zip(paper, score, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-14)


def test_the_exact_gradient_is_that_of_finite_differences():
    hidden, output, x, y = problem(units=4)
    patterns = list(itertools.product((-1.0, 1.0), repeat=4))

    def loss(weights):
        w1, w2 = weights[:-4].reshape(hidden.shape), weights[-4:]
        up = Normal(0.0, 1.0).cdf(x @ w1.T / x.norm(dim=1, keepdim=True))
        total = torch.zeros(len(x), dtype=torch.float64)
        for pattern in patterns:
            s = torch.tensor(pattern, dtype=torch.float64)
            right = Normal(0.0, 1.0).cdf(w2 @ s / s.norm())
            total += torch.where(s > 0, up, 1 - up).prod(1) * (2 * right - 1)
        return ((1 - y * total) / 2).mean()

    weights, step = torch.cat([hidden.flatten(), output.flatten()]), 1e-5
    differences = [
        (loss(weights + step * unit) - loss(weights - step * unit)) / (2 * step)
        for unit in torch.eye(len(weights), dtype=torch.float64)
    ]
    torch.testing.assert_close(
        flat(exact(hidden, output, x, y, 1, torch.Generator())),
        torch.stack(differences),
        rtol=1e-8,
        atol=1e-11,
    )


@pytest.mark.parametrize(("name", "aggregate"), [("exact", "exact"), ("mean_field", "mean_field")])
def test_exact_and_mean_field_are_the_gradients_of_the_networks_aggregates(name, aggregate):
    hidden, output, x, y = problem()
    network = PBGNet(
        5, (3,), aggregate=aggregate, generator=generator(0, "net"), dtype=torch.float64
    )
    first, last = (layer.weight.mean for layer in network.layers())
    with torch.no_grad():
        first.copy_(hidden)
        last.copy_(output)
    linear_loss(network(x), y).mean().backward()
    estimate = ESTIMATORS[name](hidden, output, x, y, 1, torch.Generator())
    torch.testing.assert_close(estimate, Gradient(first.grad, last.grad))


@pytest.mark.parametrize("name", SAMPLED)
def test_the_variance_halves_when_the_draws_double(name):
    data = problem()
    size, draws = 1_000, 32
    squares = {}
    for count in (draws, 2 * draws):
        estimates = replicated(name, count, size, data, "variance")
        squares[count] = (estimates - estimates.mean(0)).square().sum(1)
    low, high = (squares[count].mean() for count in (2 * draws, draws))
    errors = [squares[count].std() / math.sqrt(size) for count in (2 * draws, draws)]
    assert abs(high - 2 * low) <= 5 * math.hypot(2 * errors[0], errors[1])
    assert 5 * math.hypot(2 * errors[0], errors[1]) < 0.5 * high


@pytest.mark.parametrize(("mean", "ratio"), [(0.8, (0.0, 0.6)), (0.0, (1.0, 1.5))])
def test_the_baseline_lowers_the_variance_only_where_the_output_is_far_from_zero(mean, ratio):
    weights = torch.full((3, 5), mean).double(), torch.full((1, 3), 4.0).double()
    data = *weights, problem()[2].abs(), torch.ones(4)
    plain, baseline = (
        replicated(name, 10, 1_000, data).var(0).sum()
        for name in ("reinforce", "reinforce_baseline")
    )
    assert ratio[0] < baseline / plain < ratio[1]


@pytest.mark.parametrize("name", ["exact", "mean_field"])
def test_what_does_not_sample_draws_nothing(name):
    source = torch.Generator().manual_seed(3)
    before = source.get_state()
    results = [ESTIMATORS[name](*problem(), draws, source) for draws in (1, 9)]
    assert torch.equal(source.get_state(), before)
    torch.testing.assert_close(*results, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_portions_of_the_points_add_up(monkeypatch, name):
    data = problem(points=7)
    monkeypatch.setattr(gradients, "NUMBERS_AT_ONCE", 1)
    # Signs that follow from the means alone, as the order of the draws depends on the portions.
    monkeypatch.setattr(gradients, "sample_signs", lambda mean, _: hard_sign(mean))
    apart = ESTIMATORS[name](*data, 2, torch.Generator())
    monkeypatch.setattr(gradients, "NUMBERS_AT_ONCE", 10**6)
    torch.testing.assert_close(apart, ESTIMATORS[name](*data, 2, torch.Generator()))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_point_at_the_origin_and_saturated_units_give_finite_gradients(name):
    hidden, output, x, y = problem()
    x = torch.cat([torch.zeros(1, 5, dtype=torch.float64), x])
    y = torch.cat([y[:1], y])
    for scale in (1.0, 1e6):
        for part in ESTIMATORS[name](scale * hidden, output, x, y, 5, torch.Generator()):
            assert torch.isfinite(part).all()
    only = ESTIMATORS[name](hidden, output, x[:1], y[:1], 5, torch.Generator())
    assert not only.hidden.any()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_graph_is_left_and_the_arguments_stay(name):
    hidden, output, x, y = (part.clone() for part in problem())
    hidden.requires_grad_()
    with torch.no_grad():
        gradient = ESTIMATORS[name](hidden, output, x, y, 3, torch.Generator())
    assert not any(part.requires_grad for part in gradient)
    assert hidden.grad is None
    assert not output.requires_grad
    assert [part.shape for part in gradient] == [hidden.shape, output.shape]
    again = ESTIMATORS[name](*(p.detach().float() for p in (hidden, output, x, y)), 3, generator(1))
    assert {part.dtype for part in again} == {torch.float32}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"hidden": torch.zeros(3)}, ValueError),
        ({"hidden": torch.zeros(3, 4)}, ValueError),
        ({"hidden": torch.zeros(0, 2), "output": torch.zeros(1, 0)}, ValueError),
        ({"hidden": [[0.0, 0.0]]}, TypeError),
        ({"hidden": torch.zeros(3, 2, dtype=torch.float64)}, TypeError),
        ({"output": torch.zeros(3)}, ValueError),
        ({"output": torch.zeros(1, 4)}, ValueError),
        ({"output": torch.zeros(1, 3, dtype=torch.int64)}, TypeError),
        ({"x": torch.zeros(4, 2, 1)}, ValueError),
        ({"x": torch.full((4, 2), math.nan)}, ValueError),
        ({"y": torch.zeros(4)}, ValueError),
        ({"y": torch.ones(3)}, ValueError),
        ({"draws": 0}, ValueError),
        ({"draws": 2.0}, TypeError),
        ({"draws": True}, TypeError),
        ({"generator": None}, TypeError),
    ],
)
def test_bad_arguments_are_named(name, changed, error):
    good = {
        "hidden": torch.zeros(3, 2),
        "output": torch.zeros(1, 3),
        "x": torch.ones(4, 2),
        "y": torch.ones(4),
        "draws": 2,
        "generator": torch.Generator(),
    }
    ESTIMATORS[name](**good)
    with pytest.raises(error, match=f"`{next(iter(changed))}`"):
        ESTIMATORS[name](**good | changed)


def test_a_single_draw_has_no_leave_one_out_baseline():
    with pytest.raises(ValueError, match="`draws` must be at least 2"):
        ESTIMATORS["reinforce_baseline"](*problem(), 1, torch.Generator())


def test_the_exact_gradient_of_a_wide_layer_is_refused():
    data = torch.zeros(21, 2), torch.zeros(1, 21), torch.ones(1, 2), torch.ones(1)
    with pytest.raises(ValueError, match="`hidden` must have at most 20 units"):
        exact(*data, 1, torch.Generator())
