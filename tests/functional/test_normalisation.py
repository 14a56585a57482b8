"""Stochastic batch normalisation: draws, torch's own where nothing is random, whose statistics."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pbnn.functional import Moments, Statistics, batch_norm, batch_statistics, sign
from pbnn.layers import StochasticBatchNorm
from pbnn.seeding import generator

SHAPES = [(7, 3), (5, 3, 4, 2)]
often = settings(derandomize=True, deadline=None, database=None, max_examples=100)


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def moments(*shape):
    return Moments(2 * normal(*shape, of="mean") + 1, normal(*shape, of="spread").square())


def norm_of(channels=3, **options):
    """With a slope and a shift of its own for each channel, one slope negative."""
    norm = StochasticBatchNorm(channels, dtype=torch.float64, **options)
    with torch.no_grad():
        norm.gamma.copy_(normal(channels, of="gamma"))
        norm.gamma[0] = -0.7
        norm.beta.copy_(normal(channels, of="beta"))
    return norm


def torch_norm(norm, dimensions, M):
    """torch's batch normalisation, which divides by M, with slopes and eps rescaled to agree."""
    kind = torch.nn.BatchNorm1d if dimensions == 2 else torch.nn.BatchNorm2d
    share = (M - 1) / M
    other = kind(len(norm.gamma), eps=norm.eps * share, momentum=norm.momentum).double()
    with torch.no_grad():
        other.weight.copy_(norm.gamma * share**0.5)
        other.bias.copy_(norm.beta)
    return other


# Statistics


def test_the_example_of_five_units_is_what_simulation_gives(assert_moments):
    """2.858: the mean variance plus the unbiased variance of the means, over M and M − 1."""
    mean = torch.tensor([0.10, 0.38, 0.86, 0.92, 1.14], dtype=torch.float64)
    var = torch.tensor([1.0, 2.5, 4.1, 3.5, 2.28], dtype=torch.float64)
    found = batch_statistics(Moments(mean[:, None], var[:, None]))
    spread = (mean - mean.mean()).square().sum() / 4
    assert found.var.item() == pytest.approx((var.sum() / 5 + spread).item())
    assert found.var.item() == pytest.approx(2.858, abs=1e-12)
    draws = mean + var.sqrt() * normal(400_000, 5, of="draws")
    each = draws.var(1)
    error = each.std() / len(each) ** 0.5
    assert abs(each.mean() - found.var[0]) <= 5 * error
    printed = var.sum() / 4 + spread  # both sums over M − 1
    assert printed.item() == pytest.approx(3.527, abs=1e-12)
    assert abs(each.mean() - printed) > 50 * error


@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_are_expectations_over_draws(shape):
    x = moments(*shape)
    expected = batch_statistics(x)
    axes = [0, *range(2, len(shape))]
    sample = x.mean + x.var.sqrt() * normal(100_000, *shape, of="draws")
    inner = [axis + 1 for axis in axes]
    for each, value in ((sample.mean(inner), expected.mean), (sample.var(inner), expected.var)):
        assert ((each.mean(0) - value).abs() <= 5 * each.std(0) / len(each) ** 0.5).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_of_known_units_are_torchs(shape):
    x = moments(*shape).mean
    axes = [0, *range(2, len(shape))]
    for units in (x, Moments(x, torch.zeros_like(x))):
        found = batch_statistics(units)
        torch.testing.assert_close(found.mean, x.mean(axes))
        torch.testing.assert_close(found.var, x.var(axes))


@pytest.mark.parametrize(
    ("shape", "shared"),
    [
        ((7, 3), [(3,), (1, 3), (7, 1), (1,), ()]),
        ((5, 3, 4, 2), [(5, 1, 4, 2), (1, 3, 4, 2), (3, 1, 1), (1, 1, 4, 2), ()]),
    ],
)
def test_a_variance_that_is_shared_is_a_variance_of_each(shape, shared):
    norm, mean = norm_of(), moments(*shape).mean
    for some in shared:
        var = normal(*some, of="shared").square() + 0.1 if some else torch.tensor(0.3).double()
        units, full = Moments(mean, var), Moments(mean, var.expand(shape))
        for found, expected in zip(batch_statistics(units), batch_statistics(full), strict=True):
            torch.testing.assert_close(found.expand(3), expected)
        found, expected = norm(units), norm(full)
        torch.testing.assert_close(found.mean, expected.mean)
        torch.testing.assert_close(found.var.expand(shape), expected.var)


def test_one_unit_a_channel_has_no_statistics():
    for x in (
        torch.ones(1, 3),
        torch.ones(1, 3, 1, 1),
        Moments(torch.ones(1, 3), torch.ones(1, 3)),
    ):
        with pytest.raises(
            ValueError, match=r"`x` must hold at least two units a channel, got one"
        ):
            batch_statistics(x)
    assert batch_statistics(torch.ones(1, 3, 1, 2)).var.tolist() == [0, 0, 0]


# Normalisation


@pytest.mark.parametrize("shape", SHAPES)
def test_normalised_units_have_the_moments_of_normalised_draws(shape, assert_moments):
    x, norm = moments(*shape), norm_of()
    norm.re_estimate(x)
    norm.eval()
    draws = x.mean + x.var.sqrt() * normal(100_000, *shape, of="draws")
    # A known unit is normalised as it is: draws as one batch of many.
    known = norm(draws.flatten(0, 1)).view(draws.shape).detach()
    expected = norm(x)
    assert_moments(known, Moments(expected.mean.detach(), expected.var.detach()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_without_variance_this_is_the_batch_norm_of_torch(shape, eps):
    norm = norm_of(eps=eps, momentum=0.3)
    M = torch.ones(shape).numel() // shape[1]
    other = torch_norm(norm, len(shape), M)
    x = moments(*shape).mean.requires_grad_()
    towards = normal(*shape, of="towards")
    for training in (True, True, False):
        expected = other.train(training)(x)
        scale = 1.0
        if not training:
            # The running variance of both is the unbiased one: no share to make up for.
            shares = (norm.gamma / other.weight) * ((norm.running_var + other.eps).sqrt())
            scale = shares / (norm.running_var + eps).sqrt()
            scale = scale.view(-1, *[1] * (len(shape) - 2))
            shift = other.bias.view(scale.shape)
            expected = (expected - shift) * scale + shift
        (slope,) = torch.autograd.grad((expected * towards).sum(), x)
        zero = torch.zeros_like(x)
        before = norm.statistics.mean.clone(), norm.statistics.var.clone()
        for units in (x, Moments(x, zero)):
            for running, old in zip(norm.statistics, before, strict=True):
                running.copy_(old)
            found = norm.train(training)(units)
            mean = found if isinstance(found, torch.Tensor) else found.mean
            torch.testing.assert_close(mean, expected)
            (gradient,) = torch.autograd.grad((mean * towards).sum(), x)
            torch.testing.assert_close(gradient, slope)
            if isinstance(found, Moments):
                assert (found.var == 0).all()
        torch.testing.assert_close(norm.running_mean, other.running_mean)
        torch.testing.assert_close(norm.running_var, other.running_var)


def test_running_statistics_move_by_the_momentum():
    norm, x = norm_of(momentum=0.25), moments(9, 3)
    batch = batch_statistics(x)
    norm(x)
    torch.testing.assert_close(norm.running_mean, 0.25 * batch.mean)
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * batch.var)
    norm(x)
    torch.testing.assert_close(norm.running_mean, (1 - 0.75**2) * batch.mean)
    assert not norm.running_var.requires_grad
    norm.re_estimate(x)
    torch.testing.assert_close(norm.statistics, batch)


def test_frozen_and_in_evaluation_the_running_statistics_serve_and_stay():
    norm, x = norm_of(), moments(6, 3)
    norm.re_estimate(moments(50, 3))
    before = [part.clone() for part in norm.statistics]
    batch = norm(x).mean
    for running, old in zip(norm.statistics, before, strict=True):
        running.copy_(old)
    evaluated = norm.eval()(x)
    assert not torch.allclose(evaluated.mean, batch)
    norm.freeze()
    assert norm.frozen
    torch.testing.assert_close(norm.train()(x), evaluated)
    assert all(map(torch.equal, norm.statistics, before))
    fresh = batch_norm(x, Statistics(*before), norm.gamma, norm.beta, norm.eps)
    assert torch.equal(fresh.mean, evaluated.mean)
    # Frozen statistics can still be replaced on purpose.
    norm.re_estimate(x)
    torch.testing.assert_close(norm.statistics, batch_statistics(x))


def test_frozen_neither_gamma_nor_beta_learns():
    """No KL pays for them, so a bound would let them learn for free."""
    norm, x = norm_of(), moments(6, 3)
    norm.freeze()
    assert not any(part.requires_grad for part in norm.parameters())
    mean = x.mean.clone().requires_grad_()
    for units in (norm(x._replace(mean=mean)), norm.signs(x._replace(mean=mean))):
        units.mean.square().sum().backward()
    assert all(part.grad is None for part in norm.parameters())
    assert mean.grad.abs().min() > 0


@pytest.mark.parametrize("known", [True, False])
def test_only_in_training_does_a_point_depend_on_the_others(known):
    norm, x, other = norm_of(), moments(4, 3, 2, 2), moments(8, 3, 2, 2)
    mixed = Moments(*(torch.cat([a[:1], 5 + b[4:]]) for a, b in zip(x, other, strict=True)))
    pairs = [(x.mean, mixed.mean)] if known else [(x, mixed)]
    for one, two in pairs:
        for training in (True, False):
            first, second = (norm.train(training)(units) for units in (one, two))
            parts = ((first, second),) if known else zip(first, second, strict=True)
            assert all(torch.equal(a[0], b[0]) for a, b in parts) is (not training)


@often
@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3),
    st.lists(st.floats(0, 1e3, width=32) | st.just(0.0), min_size=3, max_size=3),
    st.floats(-10, 10, width=32),
)
def test_variances_are_never_negative(mean, var, gamma):
    x = Moments(torch.tensor(mean)[:, None], torch.tensor(var)[:, None])
    found = batch_statistics(x)
    assert found.var >= 0
    one = torch.ones(1)
    assert (batch_norm(x, found, gamma * one, one, 1e-5).var >= 0).all()


@pytest.mark.parametrize("gamma", [1.0, 0.0, -2.0])
def test_nothing_is_nan_where_a_channel_is_constant(gamma):
    norm = StochasticBatchNorm(2)
    with torch.no_grad():
        norm.gamma.fill_(gamma)
    mean = torch.ones(4, 2, 3, 3, requires_grad=True)
    var = torch.zeros(4, 2, 3, 3, requires_grad=True)
    for training in (True, False):
        for units in (mean, Moments(mean, var)):
            out = norm.train(training)(units)
            total = (
                out.sum()
                if isinstance(out, torch.Tensor)
                else sum(out).sum() + sign(out).mean.sum()
            )
            leaves = [mean, norm.gamma, norm.beta] + [var] * isinstance(out, Moments)
            assert total.isfinite()
            for gradient in torch.autograd.grad(total, leaves):
                assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [{"channels": 0}, {"eps": -1e-9}, {"eps": float("nan")}, {"momentum": 0.0}, {"momentum": 1.1}],
)
def test_what_is_no_normalisation_is_refused(options):
    with pytest.raises(ValueError, match=r"`channels` must be .*, `eps` .* and `momentum` .*, got"):
        StochasticBatchNorm(**{"channels": 2} | options)


def test_the_limits_of_what_is_allowed():
    norm = StochasticBatchNorm(1, eps=0.0, momentum=1.0, dtype=torch.float64)
    assert {part.dtype for part in norm.state_dict().values()} == {torch.float64}
    assert set(norm.state_dict()) == {"gamma", "beta", "running_mean", "running_var"}
    assert [name for name, _ in norm.named_parameters()] == ["gamma", "beta"]
    assert (norm.eps, StochasticBatchNorm(1).eps, StochasticBatchNorm(1).momentum) == (0, 1e-5, 0.1)
    x = torch.tensor([[1.0], [4.0]], dtype=torch.float64)
    assert norm.eval()(x).equal(x)  # mean 0, variance 1
