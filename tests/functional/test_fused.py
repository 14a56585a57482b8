"""Normalised signs in one pass: the same as the functions one after the other, and their slopes."""

from __future__ import annotations

import pytest
import torch

from pbnn.functional import (
    Moments,
    Statistics,
    batch_norm,
    batch_statistics,
    fused,
    max_pool,
    normalised_sign,
    sign,
)
from pbnn.layers import StochasticBatchNorm
from pbnn.seeding import generator

# Units, their variances (of one example for all, or of one channel for all), and windows.
CASES = [
    ((6, 3), (6, 3), 1),
    ((6, 3), (1, 3), 1),
    ((6, 3), (6, 1), 1),
    ((6, 3), (1, 1), 1),
    ((5, 3, 4, 6), (5, 3, 4, 6), 1),
    ((5, 3, 4, 6), (5, 3, 4, 6), 2),
    ((5, 3, 7, 8), (1, 3, 7, 8), 3),
    ((5, 3, 5, 4), (5, 1, 5, 4), 2),
    ((5, 3, 5, 4), (1, 1, 5, 4), 2),
]
GAMMA = torch.tensor([1.3, -0.7, 0.2], dtype=torch.float64)
BETA = torch.tensor([0.4, 0.1, -0.5], dtype=torch.float64)
EPS = 1e-3


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def leaves(shape, shared):
    parts = (normal(*shape, of="mean") + 3, normal(*shared, of="var").square() + 0.05, GAMMA, BETA)
    return [part.clone().requires_grad_() for part in parts]


def stepwise(x, gamma, beta, eps, statistics=None, window=1):
    used = batch_statistics(x) if statistics is None else statistics
    signs = sign(batch_norm(x, used, gamma, beta, eps))
    return (signs if window == 1 else max_pool(signs, window)), used


def given_statistics():
    return Statistics(3 + 0.1 * GAMMA, 0.5 + BETA.square())


@pytest.mark.parametrize(("shape", "shared", "window"), CASES)
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cached", [2**16, 1])
def test_values_and_slopes_are_those_of_the_functions_one_by_one(
    shape, shared, window, given, cached, monkeypatch
):
    monkeypatch.setattr(fused, "CACHED", cached)  # all examples at once, or each by itself
    mean, var, gamma, beta = parts = leaves(shape, shared)
    statistics = given_statistics() if given else None
    found, used = normalised_sign(Moments(mean, var), gamma, beta, EPS, statistics, window)
    expected, others = stepwise(Moments(mean, var), gamma, beta, EPS, statistics, window)
    torch.testing.assert_close(found.mean, expected.mean)
    assert not found.known
    torch.testing.assert_close(used, Statistics(*(part.detach() for part in others)))
    towards = normal(*expected.mean.shape, of="towards")
    for one, other in zip(
        torch.autograd.grad((found.mean * towards).sum(), parts),
        torch.autograd.grad((expected.mean * towards).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("shape", "shared", "window"), [CASES[0], CASES[3], CASES[6]])
def test_the_slopes_are_those_of_finite_differences(shape, shared, window):
    def signs(mean, var, gamma, beta):
        return normalised_sign(Moments(mean, var), gamma, beta, EPS, None, window)[0].mean

    small = [part.detach()[:3].clone().requires_grad_() for part in leaves(shape, shared)]
    assert torch.autograd.gradcheck(signs, small)


@pytest.mark.parametrize("shared", [(), (1,), (3,), (3, 1, 1)])
def test_a_variance_of_fewer_axes_is_one_of_each(shared):
    mean = normal(4, 3, 2, 2, of="mean") if len(shared) > 1 else normal(4, 3, of="mean")
    var = torch.rand(shared, generator=generator(0, "v")).double() + 0.1
    found, used = normalised_sign(Moments(mean, var), GAMMA, BETA, EPS)
    expected, others = stepwise(Moments(mean, var.expand_as(mean)), GAMMA, BETA, EPS)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(used, others)


@pytest.mark.parametrize("cached", [2**16, 1])
def test_statistics_far_from_zero_keep_their_digits(cached, monkeypatch):
    """In float32 a difference of sums of squares would lose them."""
    monkeypatch.setattr(fused, "CACHED", cached)
    mean = (1e4 + normal(500, 3, of="mean")).float()
    x = Moments(mean, torch.full_like(mean, 0.5))
    _, used = normalised_sign(x, GAMMA.float(), BETA.float(), EPS)
    exact = batch_statistics(Moments(mean.double(), x.var.double()))
    torch.testing.assert_close(used.var.double(), exact.var, rtol=1e-3, atol=0)
    torch.testing.assert_close(used.mean.double(), exact.mean, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("window", [1, 2])
def test_without_variance_the_sign_is_known_and_nothing_is_nan(dtype, window):
    mean = torch.tensor([-2.0, -1e-6, 0.0, 1e-6, 3.0, -1e6, 1e6, -5.0], dtype=dtype)
    mean = mean.view(2, 1, 2, 2).repeat(2, 3, 1, 1).requires_grad_()
    one = torch.ones(3, dtype=dtype)
    rows = torch.zeros_like(mean, requires_grad=True)
    for gamma in (1.0, -1.0, 0.0):
        for beta in (0.0, 0.5, -0.5):
            slopes = gamma * one, beta * one
            for part in slopes:
                part.requires_grad_()
            statistics = Statistics(0 * one, one)
            found, _ = normalised_sign(Moments(mean, rows), *slopes, 0.0, statistics, window)
            expected, _ = stepwise(Moments(mean, rows), *slopes, 0.0, statistics, window)
            assert torch.equal(found.mean, expected.mean)
            assert found.mean.abs().unique().tolist() == [1]
            for slope in torch.autograd.grad(found.mean.sum(), (mean, rows, *slopes)):
                assert (slope == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_channel_of_a_batch_has_finite_values_and_slopes(dtype):
    mean = torch.full((4, 3, 2, 2), 7.0, dtype=dtype, requires_grad=True)
    var = torch.zeros(4, 3, 2, 2, dtype=dtype, requires_grad=True)
    gamma, beta = (part.to(dtype).requires_grad_() for part in (GAMMA, BETA))
    found, used = normalised_sign(Moments(mean, var), gamma, beta, 1e-5, None, 2)
    assert (used.var == 0).all()
    assert found.mean[:, :, 0, 0].unique(dim=0).tolist() == [[1, 1, -1]]
    for slope in torch.autograd.grad(found.mean.sum(), (mean, var, gamma, beta)):
        assert slope.isfinite().all()


def test_certain_signs_of_a_window_leave_no_slope_to_the_others():
    """One unit is +1 for certain: whatever the others are, so is the largest."""
    mean = torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    mean[:, :, 0, 1] = 1e3
    mean.requires_grad_()
    one = torch.ones(1, dtype=torch.float64)
    statistics = Statistics(0 * one, one)
    found, _ = normalised_sign(
        Moments(mean, torch.ones(1, 1, 2, 2).double()), one, 0 * one, 0.0, statistics, 2
    )
    assert (found.mean == 1).all()
    (slope,) = torch.autograd.grad(found.mean.sum(), mean)
    assert (slope == 0).all()


def test_images_may_lie_in_memory_in_either_way():
    mean, var, gamma, beta = leaves((4, 3, 4, 4), (4, 3, 4, 4))
    expected, _ = normalised_sign(Moments(mean, var), gamma, beta, EPS, None, 2)
    last = [part.detach().contiguous(memory_format=torch.channels_last) for part in (mean, var)]
    found, _ = normalised_sign(Moments(*last), gamma, beta, EPS, None, 2)
    assert torch.equal(found.mean, expected.mean)
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in last)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 4)])
def test_the_signs_of_a_layer_are_those_of_its_normalised_units(shape):
    x = Moments(normal(*shape, of="mean") + 1, normal(*shape, of="var").square())
    found, other = (StochasticBatchNorm(3, momentum=0.3, dtype=torch.float64) for _ in range(2))
    for norm in (found, other):
        with torch.no_grad():
            norm.gamma.copy_(GAMMA)
            norm.beta.copy_(BETA)
    window = 2 if len(shape) == 4 else 1

    def assert_same(moved):
        before = [part.clone() for part in found.statistics]
        signs = sign(other(x))
        expected = max_pool(signs, 2) if window == 2 else signs
        torch.testing.assert_close(found.signs(x, window).mean, expected.mean)
        torch.testing.assert_close(found.statistics, other.statistics)
        assert (
            any(not torch.equal(*pair) for pair in zip(before, found.statistics, strict=True))
            is moved
        )

    assert_same(True)
    assert_same(True)
    for mode in (lambda norm: norm.eval(), lambda norm: norm.train().freeze()):
        for norm in (found, other):
            mode(norm)
        assert_same(False)


def test_one_unit_a_channel_has_no_statistics_but_may_be_given_some():
    x = Moments(torch.ones(1, 3).double(), torch.ones(1, 3).double())
    with pytest.raises(ValueError, match=r"`x` must hold at least two units a channel, got one"):
        normalised_sign(x, GAMMA, BETA, EPS)
    found, _ = normalised_sign(x, GAMMA, BETA, EPS, given_statistics())
    expected, _ = stepwise(x, GAMMA, BETA, EPS, given_statistics())
    torch.testing.assert_close(found.mean, expected.mean)
