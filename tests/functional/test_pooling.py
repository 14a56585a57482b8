"""Pooling of random units: enumeration, draws, and what the sampled maximum leaves out."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal

from pbnn.functional import (
    Moments,
    Signs,
    average_pool,
    hard_sign,
    max_pool,
    max_pool_sampled,
    sample_signs,
    sign,
)
from pbnn.seeding import generator

DRAWS = 100_000


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def means(*shape):
    return torch.tanh(normal(*shape, of="means"))


# Maximum of signs


@pytest.mark.parametrize(("size", "kernel"), [(4, 2), (6, 3), (3, 1), (5, 2), (7, 3)])
def test_the_maximum_is_the_sum_over_all_signs_of_a_window(size, kernel):
    mean = means(2, 3, size, size)
    found = max_pool(Signs(mean), kernel)
    side = size // kernel  # a remainder at the border is left out
    assert found.mean.shape == (2, 3, side, side)
    for row, column in itertools.product(range(side), repeat=2):
        window = mean[:, :, row * kernel :, column * kernel :][:, :, :kernel, :kernel].flatten(2)
        expected = torch.zeros(2, 3, dtype=torch.float64)
        for pattern in itertools.product((-1.0, 1.0), repeat=kernel**2):
            chance = ((1 + torch.tensor(pattern).double() * window) / 2).prod(-1)
            expected += max(pattern) * chance
        torch.testing.assert_close(found.mean[:, :, row, column], expected)


@pytest.mark.parametrize(("size", "kernel"), [(4, 2), (5, 2), (6, 3)])
def test_the_maximum_has_the_frequency_of_draws(size, kernel):
    mean = means(1, 2, size, size)
    draws = sample_signs(mean.expand(DRAWS, -1, -1, -1), generator(0, "draws"))
    pooled = F.max_pool2d(draws, kernel)
    assert torch.equal(max_pool(draws, kernel), pooled)
    known = max_pool(Signs(draws[:50], known=True), kernel)
    assert torch.equal(known.mean, pooled[:50])
    assert known.known
    found = max_pool(Signs(mean), kernel)
    assert not found.known
    assert ((pooled.mean(0) - found.mean[0]).abs() <= 5 * (found.var[0] / DRAWS).sqrt()).all()


def test_signs_that_are_known_after_all_pool_as_known():
    draws = sample_signs(torch.zeros(20, 2, 4, 4).double(), generator(0, "draws"))
    unknown, known = (max_pool(Signs(draws, known), 2).mean for known in (False, True))
    assert torch.equal(unknown, known)


def test_the_maximum_commutes_with_the_sign():
    a = torch.randint(-2, 3, (50, 2, 4, 4), generator=generator(0, "a")).double()
    assert torch.equal(hard_sign(max_pool(a, 2)), max_pool(hard_sign(a), 2))


def test_gradients_of_the_maximum_are_those_of_finite_differences_and_finite_at_the_edges():
    mean = means(2, 2, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: max_pool(Signs(m), 2).mean, mean)
    for edge in (-1.0, 1.0):
        ends = torch.full((1, 1, 4, 4), edge, requires_grad=True)
        (slope,) = torch.autograd.grad(max_pool(Signs(ends), 2).mean.sum(), ends)
        # All but one are −1: the last decides. Two are +1: none does.
        assert torch.equal(slope, torch.full_like(ends, float(edge < 0)))


# The largest in one draw


def chances(mean, spread, points=200_001):
    """P(unit i is the largest) of independent Gaussian units, by integration over its value."""
    z = torch.linspace(-12, 12, points, dtype=torch.float64)
    laws = [Normal(m, s) for m, s in zip(mean, spread, strict=True)]
    below = torch.stack([law.cdf(z) for law in laws])
    density = torch.stack([law.log_prob(z).exp() for law in laws])
    others = torch.stack([below[torch.arange(len(laws)) != i].prod(0) for i in range(len(laws))])
    return torch.trapezoid(density * others, z)


def test_the_largest_is_chosen_as_often_as_integration_says():
    mean = torch.tensor([0.3, -0.5, 1.0, 0.2], dtype=torch.float64)
    spread = torch.tensor([1.0, 2.0, 0.5, 0.7], dtype=torch.float64)
    expected = chances(mean, spread)
    assert expected.sum().item() == pytest.approx(1)
    image = Moments(
        *(part.view(1, 1, 2, 2).expand(DRAWS, -1, -1, -1) for part in (mean, spread**2))
    )
    found = max_pool_sampled(image, 2, generator(0, "largest"))
    chosen = (found.mean.view(-1, 1) == mean).double()
    assert (chosen.sum(1) == 1).all()
    assert torch.equal((chosen @ spread**2), found.var.view(-1))  # mean and variance of one unit
    error = (expected * (1 - expected) / DRAWS).sqrt()
    assert ((chosen.mean(0) - expected).abs() <= 5 * error).all()


def test_the_largest_of_windows_are_chosen_independently():
    mean = means(1, 2, 4, 4)
    image = Moments(mean.expand(DRAWS, -1, -1, -1), torch.ones(1, 2, 4, 4).double())
    found = max_pool_sampled(image, 2, generator(0, "largest"))
    for channel, row, column in itertools.product(range(2), repeat=3):
        window = mean[0, channel, 2 * row :, 2 * column :][:2, :2].flatten()
        expected = chances(window, torch.ones(4))
        each = (found.mean[:, channel, row, column, None] == window).double().mean(0)
        assert ((each - expected).abs() <= 5 * (expected * (1 - expected) / DRAWS).sqrt()).all()
    # Of different windows and channels: no correlation.
    correlation = torch.corrcoef(found.mean.flatten(1).T) - torch.eye(8)
    assert (correlation.abs() <= 5 / math.sqrt(DRAWS)).all()


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("centre", [-1.0, 0.0, 1.0])
def test_the_sampled_maximum_is_less_often_positive_than_the_largest_sign(kernel, centre):
    """The chosen unit is drawn anew: its sign is biased downwards, whichever unit it is."""
    shape = (4, 1, 2 * kernel, 2 * kernel)
    h = Moments(centre + normal(*shape, of="h"), 0.5 + normal(*shape, of="v").square())
    exact = max_pool(sign(h), kernel).mean
    many = Moments(*(part.repeat(5000, 1, 1, 1) for part in h))
    drawn = sign(max_pool_sampled(many, kernel, generator(0, "largest"))).mean
    assert (drawn <= exact.repeat(5000, 1, 1, 1) + 1e-12).all()
    bias = (drawn.view(5000, *exact.shape).mean(0) - exact) / 2
    print(f"kernel {kernel}, mean {centre}: P(+1) {(exact.mean() + 1) / 2:.3f}, {bias.mean():.3f}")
    low, high = {-1.0: (-0.5, -0.1), 0.0: (-0.4, -0.05), 1.0: (-0.2, -0.005)}[centre]
    assert low < bias.mean() < high
    # What maxima of draws have is the analytic form.
    draws = h.mean + h.var.sqrt() * normal(DRAWS, *shape, of="draws")
    up = (F.max_pool2d(draws.flatten(0, 1), kernel) >= 0).double().view(DRAWS, *exact.shape).mean(0)
    p = (1 + exact) / 2
    assert ((up - p).abs() <= 5 * (p * (1 - p) / DRAWS).sqrt()).all()


def test_without_variance_the_sampled_maximum_is_the_maximum():
    mean = normal(3, 2, 5, 5, of="mean")
    for var in (torch.zeros(3, 2, 5, 5).double(), torch.zeros(1, 2, 1, 1).double()):
        found = max_pool_sampled(Moments(mean, var), 2, generator(0, "largest"))
        assert torch.equal(found.mean, F.max_pool2d(mean, 2))
        assert torch.equal(found.var, torch.zeros(3, 2, 2, 2).double())


def test_the_gradient_of_the_sampled_maximum_goes_to_the_chosen_unit():
    mean = normal(2, 2, 4, 4, of="mean").requires_grad_()
    var = normal(2, 2, 4, 4, of="var").square().requires_grad_()
    found = max_pool_sampled(Moments(mean, var), 2, generator(0, "largest"))
    again = max_pool_sampled(Moments(mean, var), 2, generator(0, "largest"))
    assert torch.equal(found.mean, again.mean)
    slopes = torch.autograd.grad(2 * found.mean.sum() + 3 * found.var.sum(), (mean, var))
    for slope, factor, part, kept in zip(slopes, (2, 3), (mean, var), found, strict=True):
        assert slope.unique().tolist() == [0, factor]
        assert torch.equal(part[slope > 0].sort().values, kept.flatten().sort().values)


# Averages


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_an_average_has_the_moments_of_draws(kernel, assert_moments):
    h = Moments(normal(1, 2, 6, 6, of="h"), normal(1, 2, 6, 6, of="v").square())
    draws = F.avg_pool2d((h.mean + h.var.sqrt() * normal(DRAWS, 2, 6, 6, of="draws")), kernel)
    found = average_pool(h, kernel)
    assert_moments(draws, Moments(*(part[0] for part in found)))
    signs = Signs(torch.tanh(h.mean))
    same = average_pool(Moments(signs.mean, 1 - signs.mean.square()), kernel)
    torch.testing.assert_close(average_pool(signs, kernel), same)
    assert torch.equal(average_pool(h.mean, kernel), F.avg_pool2d(h.mean, kernel))


@pytest.mark.parametrize(
    ("shape", "kernel"), [((1, 1, 4, 4), 0), ((1, 1, 4, 4), 5), ((1, 1, 2, 4), 3), ((1, 4, 4), 2)]
)
def test_what_has_no_window_is_refused(shape, kernel):
    x = torch.zeros(shape)
    draw = generator(0, "draw")
    for pool in (
        lambda: max_pool(Signs(x), kernel),
        lambda: max_pool(x, kernel),
        lambda: average_pool(x, kernel),
        lambda: average_pool(Moments(x, x), kernel),
        lambda: max_pool_sampled(Moments(x, x), kernel, draw),
    ):
        with pytest.raises(ValueError, match=r"`x` must have shape .* at least `kernel`, got"):
            pool()
    assert max_pool(torch.zeros(1, 1, 2, 3), 2).shape == (1, 1, 1, 1)
