"""Bounds of a fixed predictor against their definitions and their promise."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from pbnn.bounds import chernoff, clopper_pearson, kl_inverse, maurer_pontil, monte_carlo

mpmath.mp.dps = 50


def binomial_cdf(k, n, p):
    """P(Bin(n, p) <= k) with 50 digits."""
    p = mpmath.mpf(p)
    term = mpmath.exp(n * mpmath.log1p(-p))
    total, odds = term, p / (1 - p)
    for i in range(k):
        term *= odds * (n - i) / (i + 1)
        total += term
    return total


def cases(count, digits=9):
    rng = np.random.default_rng(0)
    for _ in range(count):
        n = int(10 ** rng.uniform(0, digits))
        k = min(int(10 ** rng.uniform(-0.5, 2)), n)
        yield k, n, float(10 ** rng.uniform(-12, -0.1))


def test_outward_bounds_keep_the_tail():
    for k, n, delta in cases(1_500):
        upper = clopper_pearson(k, n, delta=delta, certify=True)
        lower = clopper_pearson(k, n, delta=delta, side="lower", certify=True)
        assert upper == 1 or binomial_cdf(k, n, upper) <= delta
        assert upper == 1 or k < n
        assert lower == 0 or 1 - binomial_cdf(k - 1, n, lower) <= delta
        assert lower == 0 or k > 0
        assert upper <= clopper_pearson(k, n, delta=delta) * (1 + 1.1e-10)


def test_bounds_solve_their_equation():
    for k, n, delta in cases(300, digits=6):
        if 0 < k < n:
            upper = clopper_pearson(k, n, delta=delta)
            lower = clopper_pearson(k, n, delta=delta, side="lower")
            assert float(binomial_cdf(k, n, upper)) == pytest.approx(delta, rel=1e-10)
            assert float(1 - binomial_cdf(k - 1, n, lower)) == pytest.approx(delta, rel=1e-10)


def test_newton_mends_the_inverse_beta_function():
    k, n, delta = 1, 827_081_321, 0.06088554099920619
    assert float(binomial_cdf(k, n, clopper_pearson(k, n, delta=delta)) / delta - 1) == (
        pytest.approx(0, abs=1e-10)
    )


def test_the_two_sides_mirror_each_other():
    k = np.arange(21)
    upper = clopper_pearson(k, 20, delta=0.1)
    lower = clopper_pearson(20 - k, 20, delta=0.1, side="lower")
    np.testing.assert_allclose(upper, 1 - lower, atol=1e-14)


def test_it_agrees_with_scipy_stats():
    interval = stats.binomtest(7, 60).proportion_ci(0.9, method="exact")
    assert clopper_pearson(7, 60, delta=0.05) == pytest.approx(interval.high, rel=1e-10)
    assert clopper_pearson(7, 60, delta=0.05, side="lower") == pytest.approx(interval.low)


def test_the_ends():
    assert clopper_pearson(5, 5) == 1
    assert clopper_pearson(0, 5, side="lower") == 0
    assert clopper_pearson(0, 5, delta=0.1) == pytest.approx(1 - 0.1**0.2, rel=1e-14)
    assert clopper_pearson(5, 5, delta=0.1, side="lower") == pytest.approx(0.1**0.2, rel=1e-14)
    assert clopper_pearson(0, 1, delta=1e-300) == 1


def test_it_is_tighter_than_chernoff():
    for k in (1, 3, 40):
        assert clopper_pearson(k, 100) < monte_carlo(k / 100, 100)


@pytest.mark.parametrize("p", [0.03, 0.37])
def test_clopper_pearson_fails_no_more_often_than_promised(p):
    trials, delta = 20_000, 0.05
    k = np.random.default_rng(1).binomial(80, p, trials)
    allowed = delta + 4 * math.sqrt(delta * (1 - delta) / trials)
    assert np.mean(clopper_pearson(k, 80, delta=delta) < p) <= allowed
    assert np.mean(clopper_pearson(k, 80, delta=delta, side="lower") > p) <= allowed


@pytest.mark.parametrize("side", ["upper", "lower"])
def test_chernoff_is_the_kl_inverse_of_the_error_rate(side):
    n = 40
    for k in (0, 1, 17, 39, 40):
        expected = kl_inverse(k / n, math.log(1 / 0.1) / n, side)
        assert chernoff(k, n, delta=0.1, side=side) == pytest.approx(expected, rel=1e-14)
        mirror = chernoff(n - k, n, delta=0.1, side="lower" if side == "upper" else "upper")
        assert chernoff(k, n, delta=0.1, side=side) == pytest.approx(1 - mirror, abs=1e-14)
        binomial = clopper_pearson(k, n, delta=0.1, side=side)
        inside = binomial <= chernoff(k, n, delta=0.1, side=side) + 1e-15
        assert inside if side == "upper" else binomial >= chernoff(k, n, delta=0.1, side=side)
    # For losses between 0 and 1 it is the Monte-Carlo step.
    assert chernoff(3, 7) == pytest.approx(monte_carlo(3 / 7, 7), rel=1e-14)


def test_certified_chernoff_is_outside_the_real_value():
    """With the error rate as the real quotient, not its nearest float64."""
    for k, n, delta in cases(400):
        q = mpmath.mpf(k) / n
        budget = -mpmath.log(mpmath.mpf(delta)) / n
        for side in ("upper", "lower"):
            p = mpmath.mpf(chernoff(k, n, delta=delta, side=side, certify=True))
            if 0 < p < 1:
                near = q * mpmath.log(q / p) if k else 0
                far = (1 - q) * mpmath.log((1 - q) / (1 - p)) if k < n else 0
                assert near + far >= budget
                assert float(p) == pytest.approx(chernoff(k, n, delta=delta, side=side), rel=1e-11)
                assert (p > q) == (side == "upper")
            else:
                assert (k == n or p == 1) if side == "upper" else k == 0
    certified = chernoff(torch.tensor([3.0], requires_grad=True), 10, certify=True)
    assert certified.dtype == torch.float64
    assert not certified.requires_grad


def test_the_rounded_error_rate_is_moved_outward(monkeypatch):
    """Where the quotient was rounded down, the inverse is still taken of no less."""
    seen = []

    def record(xp, q, c, side="upper", round_outward=False):
        seen.append(Fraction(float(q)))
        return q

    monkeypatch.setattr("pbnn.bounds.holdout.inverse", record)
    for k in range(50):
        chernoff(k, 49, certify=True)
        chernoff(k, 49, side="lower", certify=True)
        high, low = seen[-2:]
        assert low <= Fraction(k, 49) <= high
        assert low >= 0
        assert high <= 1


def test_chernoff_refuses_what_clopper_pearson_does():
    with pytest.raises(ValueError, match=r"`errors` must not exceed `n`, got 6.0"):
        chernoff(6, 5)
    with pytest.raises(ValueError, match=r"`errors` must be a whole number, at least 0, got 1.5"):
        chernoff(1.5, 5)
    with pytest.raises(ValueError, match=r"`side` must be .*, got 'both'"):
        chernoff(1, 5, side="both")


def test_maurer_and_pontil_by_hand():
    # ln(2/delta) = 1: sqrt(2 * 0.02 / 4) = 0.1 and 7/(3 * 3).
    delta = 2 / math.e
    value = maurer_pontil(0.25, 4, variance=0.02, delta=delta, clip=False)
    assert value == pytest.approx(0.25 + 0.1 + 7 / 9, rel=1e-14)
    assert maurer_pontil(0.25, 4, variance=0.02, delta=delta) == 1
    assert maurer_pontil(0.25, 2, variance=0.0, delta=delta, clip=False) == pytest.approx(31 / 12)
    with pytest.raises(ValueError, match=r"`n` must be a whole number, at least 2, got 1.0"):
        maurer_pontil(0.1, 1, variance=0.0)
    with pytest.raises(ValueError, match=r"`n` must be a whole number, at least 2, got 2.5"):
        maurer_pontil(0.1, 2.5, variance=0.0)
    with pytest.raises(ValueError, match=r"`variance` must lie in \[0, inf\), got -0.1"):
        maurer_pontil(0.1, 10, variance=-0.1)
    leaf = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (0.1, 0.02)]
    assert torch.autograd.gradcheck(lambda r, v: maurer_pontil(r, 100, variance=v), leaf)


def test_maurer_and_pontil_fails_no_more_often_than_promised():
    trials, delta, n = 20_000, 0.5, 40
    losses = np.random.default_rng(3).random((trials, n)) ** 2
    variance = losses.var(axis=1, ddof=1)
    bound = maurer_pontil(losses.mean(axis=1), n, variance=variance, delta=delta)
    assert np.mean(bound < 1 / 3) <= delta
    # Much less than Chernoff where losses hardly vary, more where they do.
    assert maurer_pontil(0.5, 900, variance=1e-4) < chernoff(450, 900)
    assert maurer_pontil(0.5, 900, variance=0.25) > chernoff(450, 900)


def test_a_delta_so_small_that_scipy_has_no_answer():
    for k, n, delta in ((2, 1000, 1e-300), (5, 1000, 1e-200), (2, 10**9, 1e-250), (2, 3, 1e-179)):
        low = clopper_pearson(k, n, delta=delta, side="lower")
        assert float(1 - binomial_cdf(k - 1, n, low)) == pytest.approx(0, abs=1e-40)
        first = mpmath.exp((mpmath.log(mpmath.mpf(delta)) - mpmath.log(mpmath.binomial(n, k))) / k)
        assert low == pytest.approx(float(first), rel=1e-9)
        assert 0 < clopper_pearson(k, n, delta=delta, side="lower", certify=True) < low
        assert clopper_pearson(n - k, n, delta=delta) == 1
