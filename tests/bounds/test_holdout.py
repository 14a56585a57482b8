"""Clopper-Pearson against its definition, and the Monte-Carlo step against its promise."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from pbnn.bounds import clopper_pearson, kl_inverse, maurer, monte_carlo

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
        upper = clopper_pearson(k, n, delta=delta, outward=True)
        lower = clopper_pearson(k, n, delta=delta, side="lower", outward=True)
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


def test_the_monte_carlo_step_is_one_sided():
    expected = kl_inverse(0.1, math.log(1 / 0.02) / 500)
    assert monte_carlo(0.1, 500, delta=0.02) == pytest.approx(expected, rel=1e-15)
    assert monte_carlo(0.1, 500, delta=0.02) < maurer(0.1, 0.0, 500, delta=0.02)


@pytest.mark.parametrize("p", [0.03, 0.37])
def test_clopper_pearson_fails_no_more_often_than_promised(p):
    trials, delta = 20_000, 0.05
    k = np.random.default_rng(1).binomial(80, p, trials)
    allowed = delta + 4 * math.sqrt(delta * (1 - delta) / trials)
    assert np.mean(clopper_pearson(k, 80, delta=delta) < p) <= allowed
    assert np.mean(clopper_pearson(k, 80, delta=delta, side="lower") > p) <= allowed


def test_a_shared_network_counts_once_a_batch():
    """Batches of 100 that share a network: counting data as draws breaks the promise."""
    trials, delta = 4_000, 0.05
    rng = np.random.default_rng(2)
    batches, size = 30, 100
    risk_of_network = rng.choice([0.05, 0.45], size=(trials, batches))
    errors = rng.binomial(size, risk_of_network)
    risk = errors.mean(axis=1) / size
    allowed = delta + 4 * math.sqrt(delta * (1 - delta) / trials)
    assert np.mean(monte_carlo(risk, batches, delta=delta) < 0.25) <= allowed
    assert np.mean(monte_carlo(risk, batches * size, delta=delta) < 0.25) > allowed
