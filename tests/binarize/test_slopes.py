"""Gradient estimators: each slope is the derivative of something, and is what the sign gets."""

from __future__ import annotations

import math

import pytest
import torch

from pbnn.binarize import EDE, ESTIMATORS, Window, approx_sign, clipped, ede, identity
from pbnn.functional import gaussian_slope, hard_sign, sign_with_slope
from pbnn.seeding import generator

X = torch.cat(
    [
        3 * torch.randn(200, generator=generator(0, "x"), dtype=torch.float64),
        torch.tensor([0.0, -0.0, 1e-300]).double(),
    ]
)


def piecewise_quadratic(x):
    """Bi-Real-Net's smooth sign, as its paper writes it."""
    inside = torch.where(x < 0, 2 * x + x * x, 2 * x - x * x)
    return torch.where(x.abs() <= 1, inside, hard_sign(x))


@pytest.mark.parametrize(
    ("slope", "smooth"),
    [
        (identity, lambda x: x * 1),
        (clipped, lambda x: x.clamp(-1, 1)),
        (Window(2.5), lambda x: x.clamp(-2.5, 2.5)),
        (approx_sign, piecewise_quadratic),
        (gaussian_slope, lambda x: torch.erf(x / math.sqrt(2))),
        (lambda x: ede(x, 0.1), lambda x: 10 * torch.tanh(0.1 * x)),
        (lambda x: ede(x, 4.0), lambda x: torch.tanh(4 * x)),
    ],
)
def test_a_slope_is_the_derivative_of_its_smooth_sign(slope, smooth):
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(smooth(x).sum(), x)
    torch.testing.assert_close(slope(X), expected)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_sign_is_hard_and_gets_the_slope(name):
    slope, weight = ESTIMATORS[name](), torch.arange(float(len(X)), dtype=torch.float64)
    x = X.clone().requires_grad_()
    signs = sign_with_slope(x, slope)
    assert torch.equal(signs, hard_sign(X))
    (found,) = torch.autograd.grad(signs @ weight, x)
    torch.testing.assert_close(found, slope(X) * weight)


def test_ede_is_flat_and_wide_first_and_sharp_at_last():
    assert ede(torch.tensor([0.0, 1.0]), 1.0).tolist() == pytest.approx([1, 0.4199743], abs=1e-6)
    slope = EDE(1e-3, 10)
    for share, t in ((0.0, 1e-3), (0.5, 0.1), (1.0, 10.0)):
        slope.set_progress(share)
        assert float(slope.t) == pytest.approx(t, rel=1e-6)
        assert float(slope(torch.zeros(1))) == pytest.approx(max(1.0, t), rel=1e-6)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf)])
def test_a_schedule_must_rise(bounds):
    with pytest.raises(ValueError, match="`low` must lie in"):
        EDE(*bounds)


def test_a_window_must_be_open():
    with pytest.raises(ValueError, match="`width` must be positive, got 0"):
        Window(0)
