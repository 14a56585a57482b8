"""Moments, signs and exact sums: closed forms against draws, enumeration and the normal law."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from pbnn.functional import (
    SQRT_TWO_OVER_PI,
    Moments,
    append_one,
    expect_over_signs,
    hard_sign,
    linear,
    sample_signs,
    sign,
    sign_patterns,
)
from pbnn.seeding import generator

DRAWS = 200_000
WEIGHT = torch.tensor([[0.3, -1.2, 0.8], [2.0, 0.0, -0.5]], dtype=torch.float64)
MEAN = torch.tensor([0.9, -0.4, 0.1], dtype=torch.float64)


def normal(*shape, of, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(0, of), dtype=dtype)


def assert_moments(draws, expected, errors=5):
    """Sample mean and variance (over dimension 0) lie within `errors` standard errors."""
    mean, var = draws.mean(0), draws.var(0)
    fourth = (draws - mean).pow(4).mean(0)
    assert ((mean - expected.mean).abs() <= errors * (var / len(draws)).sqrt()).all()
    spread = ((fourth - var.square()) / len(draws)).sqrt()
    assert ((var - expected.var).abs() <= errors * spread).all()


def brute_force(values, mean):
    """Sum over `itertools.product`, whose last place varies fastest as in `sign_patterns`."""
    total = torch.zeros((), dtype=mean.dtype)
    for value, pattern in zip(values, itertools.product((-1, 1), repeat=len(mean)), strict=True):
        total = total + value * math.prod(
            (1 + s * m) / 2 for s, m in zip(pattern, mean, strict=True)
        )
    return total


def test_linear_of_a_known_input_has_the_moments_of_drawn_weights():
    weights = WEIGHT + normal(DRAWS, *WEIGHT.shape, of="weights")
    assert_moments(weights @ MEAN, linear(MEAN, WEIGHT))


def test_linear_of_random_inputs_has_the_moments_of_drawn_weights_and_inputs():
    var = torch.tensor([0.5, 1.5, 0.0], dtype=torch.float64)
    weights = WEIGHT + normal(DRAWS, *WEIGHT.shape, of="weights")
    inputs = MEAN + var.sqrt() * normal(DRAWS, 3, of="inputs")
    assert_moments((weights @ inputs[..., None]).squeeze(-1), linear(Moments(MEAN, var), WEIGHT))


def test_linear_of_random_signs_has_the_moments_of_drawn_weights_and_signs():
    signs = sample_signs(MEAN.expand(DRAWS, -1), generator(0, "signs"))
    weights = WEIGHT + normal(DRAWS, *WEIGHT.shape, of="weights")
    expected = linear(Moments(MEAN, 1 - MEAN.square()), WEIGHT)
    assert_moments((weights @ signs[..., None]).squeeze(-1), expected)


def test_a_known_input_is_a_random_one_without_variance():
    x = normal(4, 3, of="x")
    known, random = linear(x, WEIGHT), linear(Moments(x, torch.zeros_like(x)), WEIGHT)
    torch.testing.assert_close(known.mean, random.mean)
    torch.testing.assert_close(known.var.expand_as(random.var), random.var)


def test_the_sign_of_a_gaussian_has_the_moments_of_its_distribution_function():
    mean = torch.linspace(-4, 4, 41, dtype=torch.float64)[:, None]
    var = torch.tensor([1e-3, 0.2, 1.0, 30.0], dtype=torch.float64)
    negative = Normal(mean, var.sqrt()).cdf(torch.zeros((), dtype=torch.float64))
    moments = sign(Moments(mean.expand(-1, 4), var.expand(41, -1)))
    torch.testing.assert_close(moments.mean, 1 - 2 * negative, atol=1e-14, rtol=0)
    torch.testing.assert_close(moments.var, 4 * negative * (1 - negative), atol=1e-14, rtol=0)


def test_without_variance_the_sign_is_known_and_its_gradient_is_zero():
    mean = torch.tensor([-2.0, -0.0, 0.0, 3.0, 0.5], requires_grad=True)
    var = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0], requires_grad=True)
    moments = sign(Moments(mean, var))
    assert moments.mean[:4].tolist() == [-1, 1, 1, 1]
    assert moments.var[:4].tolist() == [0, 0, 0, 0]
    for gradient in torch.autograd.grad(moments.mean.sum() + moments.var.sum(), (mean, var)):
        assert gradient[:4].tolist() == [0, 0, 0, 0]
        assert gradient[4] != 0


def test_the_gradients_of_linear_and_sign_are_those_of_finite_differences():
    x, var = normal(2, 3, of="x"), normal(2, 3, of="var").square() + 0.1
    inputs = [tensor.requires_grad_() for tensor in (x, var, WEIGHT.clone())]

    def moments(x, var, weight):
        return sign(linear(Moments(x, var), weight)).mean

    assert torch.autograd.gradcheck(moments, inputs)
    assert torch.autograd.gradcheck(lambda x, weight: sign(linear(x, weight)).mean, inputs[::2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_both_zeros_are_positive(dtype):
    signs = hard_sign(torch.tensor([-0.0, 0.0, -1e-7, 1e-7], dtype=dtype))
    assert signs.tolist() == [1, 1, -1, 1]
    assert signs.dtype == dtype


def test_the_steepest_slope_of_the_sign_is_the_lipschitz_constant():
    mean = torch.linspace(-3, 3, 601, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(sign(Moments(mean, torch.ones_like(mean))).mean.sum(), mean)[0]
    assert slope.max().item() == pytest.approx(SQRT_TWO_OVER_PI, rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sampled_signs_have_their_means(dtype):
    mean = torch.tensor([-0.999, -0.5, 0.0, 0.1, 0.97], dtype=dtype)
    signs = sample_signs(mean.expand(DRAWS, -1), generator(1, "signs"))
    assert set(signs.unique().tolist()) == {-1, 1}
    assert signs.dtype == dtype
    error = ((1 - mean.square()) / DRAWS).sqrt()
    assert ((signs.mean(0) - mean).abs() <= 5 * error).all()
    products = signs.T @ signs / DRAWS - mean[:, None] * mean
    assert (products.fill_diagonal_(0).abs() <= 5 / math.sqrt(DRAWS)).all()


def test_means_of_one_are_kept_in_every_draw():
    mean = torch.tensor([1.0, -1.0]).expand(DRAWS, -1)
    assert torch.equal(sample_signs(mean, generator(2, "signs")), mean)


def test_the_sign_patterns_are_those_of_itertools_in_order():
    for width in range(6):
        patterns = sign_patterns(width, dtype=torch.float64, device="cpu")
        assert [tuple(row) for row in patterns.tolist()] == list(
            itertools.product((-1, 1), repeat=width)
        )
        assert patterns.shape == (2**width, width)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_the_expectation_over_signs_is_the_sum_over_all_patterns(width):
    # Values without symmetry: another order of the units gives another sum.
    values = normal(2**width, of="values")
    means = torch.tanh(normal(3, width, of="means"))
    means[0, 0] = 1
    means[1, -1] = -1
    expected = torch.stack([brute_force(values, mean) for mean in means])
    torch.testing.assert_close(expect_over_signs(values, means), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("functions", [1, 2, 5])
def test_several_functions_have_their_expectations_side_by_side(functions):
    values = normal(functions, 2**4, of="values")
    means = torch.tanh(normal(3, 4, of="means"))
    means[0, 0] = 1
    means[1, -1] = -1
    expected = torch.stack([torch.stack([brute_force(v, m) for v in values]) for m in means])
    found = expect_over_signs(values, means)
    assert found.shape == (3, functions)
    torch.testing.assert_close(found, expected, atol=1e-14, rtol=0)


def test_the_expectation_of_one_sign_is_its_mean():
    patterns = sign_patterns(4, dtype=torch.float64, device="cpu")
    means = torch.tanh(normal(5, 4, of="means"))
    for unit in range(4):
        torch.testing.assert_close(expect_over_signs(patterns[:, unit], means), means[:, unit])


@pytest.mark.parametrize("shape", [(8,), (1, 8), (3, 8)])
def test_the_gradients_of_the_expectation_are_those_of_finite_differences(shape):
    values = normal(*shape, of="values").requires_grad_()
    means = torch.tanh(normal(2, 3, of="means")).requires_grad_()
    assert torch.autograd.gradcheck(expect_over_signs, (values, means))


def test_a_constant_one_is_appended():
    x = normal(2, 3, of="x")
    assert torch.equal(append_one(x), torch.nn.functional.pad(x, (0, 1), value=1.0))
    assert append_one(x).dtype == torch.float64
