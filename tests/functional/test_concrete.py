"""Signs drawn with the slope of a binary concrete variable."""

from __future__ import annotations

import math

import pytest
import torch

from pbnn.functional import hard_concrete
from pbnn.functional.signs import _HardConcrete
from pbnn.seeding import generator

TEMPERATURES = (0.3, 1.0, 2.5)


def uniforms(*shape, of):
    return torch.rand(*shape, generator=generator(0, of), dtype=torch.float64)


def relaxed(mean, uniform, temperature):
    """c of Maddison, Mnih and Teh, with the uniform number that makes its sign the draw."""
    p, u = (1 + mean) / 2, 1 - uniform
    return torch.tanh((torch.logit(p) + torch.logit(u)) / (2 * temperature))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_forward_these_are_signs_of_the_given_means(temperature):
    mean = torch.linspace(-1, 1, 9, dtype=torch.float64)
    draws = hard_concrete(mean.expand(100_000, -1), generator(0, "draws"), temperature)
    assert draws.unique().tolist() == [-1, 1]
    assert draws.dtype == mean.dtype
    error = ((1 - mean.square()) / len(draws)).sqrt()
    assert ((draws.mean(0) - mean).abs() <= 5 * error).all()  # without error at ±1
    # Draws are independent.
    covariance = draws[:, 1:-1].T.cov() - torch.diag(1 - mean[1:-1].square())
    assert (covariance.abs() <= 5 / math.sqrt(len(draws))).all()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_sign_and_the_slope_are_those_of_the_concrete_variable(temperature):
    mean = (2 * uniforms(2000, of="mean") - 1).requires_grad_()
    signs = hard_concrete(mean, generator(0, "draws"), temperature)
    uniform = uniforms(2000, of="draws")  # the very numbers that were drawn
    c = relaxed(mean, uniform, temperature)
    assert torch.equal(signs, torch.where(c >= 0, 1.0, -1.0).double())
    towards = torch.arange(2000).double() - 700
    (found,) = torch.autograd.grad((signs * towards).sum(), mean)
    (expected,) = torch.autograd.grad((c * towards).sum(), mean)
    torch.testing.assert_close(found, expected)


def test_colder_variables_are_closer_to_signs():
    """As τ falls c becomes the sign, and its mean that of the sign: the bias of the slope goes."""
    mean = torch.full((100_000,), 0.4, dtype=torch.float64, requires_grad=True)
    slopes = []
    for temperature in (2.0, 1.0, 0.5, 0.25):
        signs = hard_concrete(mean, generator(0, "draws"), temperature)
        (slope,) = torch.autograd.grad(signs.mean(), mean)
        slopes.append(slope.sum().item())
    errors = [abs(slope - 1) for slope in slopes]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 < errors[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_at_certainty_values_are_kept_and_slopes_finite(dtype, temperature):
    ends = torch.tensor([1.0, -1.0], dtype=dtype).repeat_interleave(4)
    # Draws lie in [0, 1): its first and last float, and what rounding may make of others.
    tiny = torch.finfo(dtype).eps / 2
    uniform = torch.tensor([0.0, tiny, 0.5, 1 - tiny] * 2, dtype=dtype)
    near = torch.tensor([0.999, -0.3, 0.7, -0.999] * 2, dtype=dtype)
    for means in (ends, near):
        mean = means.clone().requires_grad_()
        signs = _HardConcrete.apply(mean, uniform, temperature)
        if means is ends:
            assert torch.equal(signs, ends)
        (slope,) = torch.autograd.grad(signs.sum(), mean)
        assert slope.isfinite().all()
        assert (slope >= 0).all()


def test_the_draw_depends_on_the_generator_alone_and_carries_no_gradient_to_it():
    mean = torch.zeros(50, requires_grad=True)
    first = hard_concrete(mean, generator(0, "a"))
    assert torch.equal(first, hard_concrete(mean, generator(0, "a")))
    assert not torch.equal(first, hard_concrete(mean, generator(0, "b")))
    assert torch.equal(first, hard_concrete(mean, generator(0, "a"), 1.0))
    slopes = [
        torch.autograd.grad(hard_concrete(mean, generator(0, "a"), *tau).sum(), mean)[0]
        for tau in ((), (1.0,), (2.0,))
    ]
    assert torch.equal(slopes[0], slopes[1])  # τ = 1 unless told
    assert not torch.equal(slopes[0], slopes[2])


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match=r"`temperature` must be positive, got"):
        hard_concrete(torch.zeros(2), generator(0, "a"), temperature)
