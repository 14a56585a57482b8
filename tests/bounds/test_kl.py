"""The binary kl and its inverses against 50 digits, and against each other."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from pbnn.bounds import binary_kl, kl_inverse

mpmath.mp.dps = 50


def exact_kl(q, p):
    q, p = mpmath.mpf(q), mpmath.mpf(p)
    right = q * mpmath.log(q / p) if q else mpmath.mpf(0)
    return right + ((1 - q) * mpmath.log((1 - q) / (1 - p)) if q < 1 else 0)


def observed_means(rng, size, smallest=-300):
    spread = [
        10 ** rng.uniform(smallest, 0, size),
        10 ** rng.uniform(-14, 0, size),
        rng.uniform(0, 1, size),
        1 - 10 ** rng.uniform(-16, 0, size),
    ]
    mixed = np.choose(rng.integers(0, 4, size), spread)
    mixed[rng.uniform(size=size) < 0.02] = 0.0
    return mixed


def test_kl_is_accurate_where_p_is_close_to_q():
    rng = np.random.default_rng(0)
    q = observed_means(rng, 2_000, smallest=-12)
    p = q * (1 + rng.choice([-1, 1], q.size) * 10 ** rng.uniform(-8, 0, q.size))
    keep = (q > 0) & (q < 1) & (p < 1) & (p > 0)
    for qi, pi, got in zip(q[keep], p[keep], binary_kl(q[keep], p[keep]), strict=True):
        assert got == pytest.approx(float(exact_kl(qi, pi)), rel=2e-15, abs=0)


def test_kl_is_the_sum_of_relative_entropies():
    q, p = np.meshgrid(np.linspace(0, 1, 41), np.linspace(0, 1, 37))
    expected = rel_entr(q, p) + rel_entr(1 - q, 1 - p)
    np.testing.assert_allclose(binary_kl(q, p), expected, rtol=1e-12, atol=1e-15)


def test_kl_at_the_ends():
    q = [0.0, 0.0, 1.0, 1.0, 0.3, 0.3, 0.3]
    p = [0.0, 1.0, 1.0, 0.5, 0.0, 1.0, 0.3]
    expected = [0, math.inf, 0, math.log(2), math.inf, math.inf, 0]
    np.testing.assert_array_equal(binary_kl(np.array(q), np.array(p)), expected)


@pytest.mark.parametrize("side", ["upper", "lower"])
def test_an_inverse_has_the_kl_that_was_asked_for(side):
    rng = np.random.default_rng(1)
    q, c = observed_means(rng, 20_000), 10 ** rng.uniform(-6, 1, 20_000)
    p = kl_inverse(q, c, side)
    inside = (p > 1e-290) & (p < 1 - 1e-9) & (q < 1 - 1e-9)
    assert inside.mean() > 0.2
    np.testing.assert_allclose(binary_kl(q, p)[inside], c[inside], rtol=2e-6)
    assert np.all(p >= q if side == "upper" else p <= q)


def test_the_upper_inverse_is_accurate_to_a_few_units_in_the_last_place():
    rng = np.random.default_rng(2)
    q, c = observed_means(rng, 3_000), 10 ** rng.uniform(-12, 1.5, 3_000)
    p = kl_inverse(q, c)
    for qi, ci, pi in zip(q, c, p, strict=True):
        # One signed Newton step at 50 digits, in relative terms, is the error.
        if qi < pi < 1:
            slope = (mpmath.mpf(pi) - mpmath.mpf(qi)) / (mpmath.mpf(pi) * (1 - mpmath.mpf(pi)))
            assert abs((exact_kl(qi, pi) - mpmath.mpf(ci)) / slope / pi) < 2e-15


def test_the_lower_inverse_is_accurate_for_a_small_mean():
    q, c = 1e-12, 3e-13
    p = kl_inverse(q, c, "lower")
    slope = (mpmath.mpf(p) - mpmath.mpf(q)) / (mpmath.mpf(p) * (1 - mpmath.mpf(p)))
    assert abs((exact_kl(q, p) - mpmath.mpf(c)) / slope / p) < 1e-15


def test_the_lower_inverse_mirrors_the_upper_one():
    q = np.linspace(0, 1, 65)[:, None]
    c = np.array([0.0, 1e-6, 1e-3, 0.1, 2.0, math.inf])
    np.testing.assert_allclose(kl_inverse(q, c, "lower"), 1 - kl_inverse(1 - q, c), atol=4e-16)


def test_closed_forms_at_the_ends():
    c = np.array([0.0, 1e-9, 0.7, 30.0, math.inf])
    np.testing.assert_array_equal(kl_inverse(0.0, c), -np.expm1(-c))
    np.testing.assert_array_equal(kl_inverse(1.0, c, "lower"), np.exp(-c))
    np.testing.assert_array_equal(kl_inverse(1.0, c), 1)
    np.testing.assert_array_equal(kl_inverse(0.0, c, "lower"), 0)
    for side, vacuous in (("upper", 1), ("lower", 0)):
        assert kl_inverse(0.3, 0.0, side) == 0.3
        assert kl_inverse(0.3, math.inf, side) == vacuous
        assert kl_inverse(0.3, 1e300, side) == vacuous
        assert kl_inverse(0.3, 1e-300, side) == pytest.approx(0.3, rel=1e-15)


def test_the_inverse_grows_with_mean_and_budget():
    q, c = np.linspace(0.01, 0.9, 90)[:, None], np.geomspace(1e-6, 1, 80)
    p = kl_inverse(q, c)
    assert np.all(np.diff(p, axis=0) > 0)
    assert np.all(np.diff(p, axis=1) > 0)


@pytest.mark.parametrize("side", ["upper", "lower"])
def test_outward_rounding_never_fails_and_costs_next_to_nothing(side):
    rng = np.random.default_rng(3)
    q, c = observed_means(rng, 10_000), 10 ** rng.uniform(-12, math.log10(30), 10_000)
    p = kl_inverse(q, c, side, certify=True)
    end, sign = (1, 1) if side == "upper" else (0, -1)
    for qi, ci, pi in zip(q, c, p, strict=True):
        if pi == end or qi in (0, 1):
            continue
        assert exact_kl(qi, pi) >= ci
        margin = 4e-14 * (1 if side == "upper" else 1 + math.log(qi / pi))
        tighter = pi * (1 - sign * mpmath.mpf(margin))
        if sign * tighter > sign * qi:
            assert exact_kl(qi, tighter) < ci


def test_outward_rounding_is_needed():
    rng = np.random.default_rng(4)
    q, c = rng.uniform(0.01, 0.9, 500), 10 ** rng.uniform(-4, 0, 500)
    below = [exact_kl(a, b) < x for a, b, x in zip(q, kl_inverse(q, c), c, strict=True)]
    assert 0.1 < np.mean(below) < 0.9


def test_a_budget_far_above_a_tiny_mean():
    """Their product is below the least float64; the inverse once came out as q itself."""
    assert kl_inverse(1e-292, 1e-125, "lower", certify=True) == 0
    assert kl_inverse(1e-292, 1e-125, "lower") == 0
    assert kl_inverse(1e-200, 3e-200, "lower") == pytest.approx(1.86606e-202, rel=1e-5)


@pytest.mark.parametrize("certify", [False, True])
def test_the_lower_inverse_of_a_subnormal_mean(certify):
    for q, c in ((1e-310, 8.7e-244), (3e-309, 1e-30), (5e-324, 1e-320)):
        assert kl_inverse(q, c, "lower", certify=certify) == 0
        assert kl_inverse(q, 0.0, "lower", certify=certify) == q


def slopes(function, *arguments):
    """The value, and the derivative by each argument."""
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in arguments]
    value = function(*leaves)
    value.sum().backward()
    return value.tolist(), [leaf.grad.tolist() for leaf in leaves]


def test_the_slopes_of_kl_at_the_ends():
    p = [0.0, 1e-9, 0.25, 0.999]
    _, (_, by_p) = slopes(binary_kl, [0.0] * 4, p)
    assert by_p == pytest.approx([1 / (1 - x) for x in p], rel=1e-15)
    p = [1.0, 1e-9, 0.25, 0.999]
    _, (_, by_p) = slopes(binary_kl, [1.0] * 4, p)
    assert by_p == pytest.approx([-1 / x for x in p], rel=1e-15)
    _, (by_q, by_p) = slopes(binary_kl, [0.25, 1e-9], [0.25, 1e-9])
    assert (by_q, by_p) == ([0, 0], [0, 0])


def test_the_slopes_of_kl_between_small_neighbours():
    for q in (1e-12, 1e-30, 1e-290):
        for gap in (1e-9, 1e-3, 0.49, 0.9, 30.0):
            p = q * (1 + gap)
            _, ((by_q,), (by_p,)) = slopes(binary_kl, [q], [p])
            expected = float(mpmath.log(mpmath.mpf(q) / p) - p + q)
            assert by_q == pytest.approx(expected, rel=1e-11, abs=0)
            assert by_p == pytest.approx(float((p - mpmath.mpf(q)) / (p * (1 - p))), rel=1e-13)


def test_slopes_of_many_at_once():
    q, c = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64), torch.tensor(0.03).double()
    for function in (binary_kl, kl_inverse, lambda q, c: kl_inverse(q, c, "lower")):
        found = torch.vmap(torch.func.grad(function), in_dims=(0, None))(q, c)
        _, (expected, _) = slopes(function, q.tolist(), c.item())
        assert found.tolist() == expected
