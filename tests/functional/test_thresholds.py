"""Batch normalisation and sign folded into thresholds: the same signs, to the last bit."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pbnn.functional import hard_sign, threshold
from pbnn.layers import StochasticBatchNorm, ThresholdSign
from pbnn.seeding import generator

often = settings(derandomize=True, deadline=None, database=None, max_examples=300)
DTYPES = st.sampled_from([torch.float32, torch.float64])
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def norm_of(mean, var, gamma, beta, dtype, eps=0.0):
    parts = [torch.as_tensor(part, dtype=dtype).view(-1) for part in (mean, var, gamma, beta)]
    norm = StochasticBatchNorm(max(map(len, parts)), eps=eps, dtype=dtype)
    with torch.no_grad():
        for place, part in zip((*norm.statistics, norm.gamma, norm.beta), parts, strict=True):
            place.copy_(part)
    return norm.eval()


def level_of(norm):
    return threshold(norm.statistics, norm.gamma.detach(), norm.beta.detach(), norm.eps)


def neighbours(a, steps):
    """Floats and those next to them, in one column."""
    found, up, down = [a], a, a
    for _ in range(steps):
        up, down = (
            up.nextafter(torch.full_like(a, torch.inf)),
            down.nextafter(-up.abs() * torch.inf),
        )
        found += [up, down]
    return torch.cat([part.view(-1) for part in found])


def assert_same_signs(norm, a):
    """Of a column of units that all channels share."""
    units = a[:, None].expand(-1, len(norm.gamma))
    folded, unfolded = ThresholdSign(norm)(units), hard_sign(norm(units))
    assert torch.equal(folded, unfolded)
    assert folded.dtype == a.dtype


SMALL = st.integers(-20, 20)
ANY = st.floats(-1e4, 1e4) | SMALL.map(float)


@often
@given(
    ANY,
    st.floats(1e-6, 1e6) | st.sampled_from([0.0, 1.0, 4.0]),
    st.floats(-4, 4) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30]),
    ANY,
    st.sampled_from([1e-5, 1e-3]),
    DTYPES,
)
def test_the_signs_are_those_of_the_normalised_units(mean, var, gamma, beta, eps, dtype):
    norm = norm_of(mean, var, gamma, beta, dtype, eps)
    found = level_of(norm)
    most = torch.finfo(dtype).max
    a = torch.tensor([*range(-40, 41), mean, most / 4, -most / 4], dtype=dtype)
    # Where the sign changes in floats, and what the formula gives, which is off by some of them.
    near = [found.level] * bool(found.level.isfinite())
    if gamma:
        formula = torch.tensor([mean - beta * math.sqrt(var + eps) / gamma], dtype=dtype)
        near += [formula] * bool(formula.isfinite() and formula.abs() < most / 4)
    assert_same_signs(norm, torch.cat([a, *(neighbours(part, 3) for part in near)]))
    assert found.direction.item() == (-1 if norm.gamma < 0 else 1)


@often
@given(SMALL, st.integers(0, 5), st.sampled_from([-2, -1, -0.5, 0.5, 1, 2]), SMALL, DTYPES)
def test_integers_on_the_threshold_are_ties_and_count_as_plus_one(mean, root, gamma, beta, dtype):
    """m − β √v / γ is an integer here, and of integers no step of it rounds."""
    norm = norm_of(mean, 4.0**root, gamma, beta * gamma, dtype)
    tie = mean - beta * 2**root
    found = level_of(norm)
    # Floats next to the tie are rounded to it, as are the smallest there are to 0.
    room = 4 * torch.finfo(dtype).eps * (abs(mean) + abs(tie)) + torch.finfo(dtype).tiny
    assert abs(found.level.item() - tie) <= room
    assert found.direction.item() == math.copysign(1, gamma)
    a = torch.arange(-3, 4, dtype=dtype) + tie
    assert_same_signs(norm, a)
    expected = [1.0 if step * gamma >= 0 else -1.0 for step in range(-3, 4)]
    assert ThresholdSign(norm)(a[:, None])[:, 0].tolist() == expected


@BOTH
@pytest.mark.parametrize("beta", [-1.5, -0.0, 0.0, 1e-40, 2.0])
def test_without_slope_the_sign_is_that_of_the_shift(beta, dtype):
    for gamma in (0.0, -0.0):
        norm = norm_of(3.0, 2.0, gamma, beta, dtype, 1e-5)
        stored = norm.beta.item()
        found = level_of(norm)
        assert found.level.item() == (-math.inf if stored >= 0 else math.inf)
        assert found.direction == 1
        a = torch.tensor([-1e30, -5.0, 0.0, 3.0, 1e30], dtype=dtype)
        assert ThresholdSign(norm)(a[:, None]).unique().tolist() == [1 if stored >= 0 else -1]
        assert_same_signs(norm, a)


@BOTH
def test_a_shift_too_large_for_any_float_leaves_one_sign(dtype):
    huge = torch.finfo(dtype).max / 2
    for gamma, beta, sign in ((1, 1, 1), (1, -1, -1), (-1, 1, 1), (-1, -1, -1)):
        norm = norm_of(0.0, 1.0, gamma * 1e-3, beta * huge, dtype)
        found = level_of(norm)
        assert found.level.item() == -sign * gamma * math.inf
        a = torch.tensor([-huge, -1.0, 0.0, 1.0, huge], dtype=dtype)
        assert ThresholdSign(norm)(a[:, None]).unique().tolist() == [sign]
        assert_same_signs(norm, a)


@BOTH
def test_the_level_is_the_very_float_where_the_sign_changes(dtype):
    """The float itself gives +1, its neighbour on the other side −1."""
    draw = generator(0, "norms")
    mean, log_var, gamma, beta = 3 * torch.randn(4, 500, generator=draw, dtype=torch.float64)
    norm = norm_of(mean, log_var.exp(), gamma, beta, dtype, 1e-5)
    found = level_of(norm)
    beyond = found.level.nextafter(-found.direction * torch.inf)
    at, past = (norm(a[None])[0].detach() for a in (found.level, beyond))
    assert (at >= 0).all()
    assert (past < 0).all()
    formula = mean - beta * (log_var.exp() + 1e-5).sqrt() / gamma
    scale = mean.abs() + (beta * (log_var.exp() + 1e-5).sqrt() / gamma).abs()
    error = (found.level.double() - formula).abs() / scale
    assert (error <= 8 * torch.finfo(dtype).eps).all()
    # Rounded, the formula is another float for many: it would not do.
    assert (found.level != formula.to(dtype)).double().mean() > 0.1


@BOTH
def test_images_have_a_threshold_a_channel(dtype):
    norm = norm_of([1.0, -2.0, 0.5], [1.0, 4.0, 2.0], [1.0, -0.5, 0.0], [0.3, 1.0, -1.0], dtype)
    folded = ThresholdSign(norm)
    shape = (4, 3, 5, 2)
    a = torch.randint(-6, 7, shape, generator=generator(0, "a")).to(dtype)
    found = folded(a)
    assert torch.equal(found, hard_sign(norm(a)))
    assert found.unique().tolist() == [-1, 1]
    rows = a.permute(0, 2, 3, 1).reshape(-1, 3)
    assert torch.equal(folded(rows), found.permute(0, 2, 3, 1).reshape(-1, 3))
    assert set(folded.state_dict()) == {"level", "direction"}
    assert not any(parameter.requires_grad for parameter in folded.parameters())
