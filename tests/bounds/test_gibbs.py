"""Bounds on the Gibbs risk against one another, against 50 digits, and against their promise."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from pbnn.bounds import (
    catoni,
    catoni_optimal_c,
    kl_inverse,
    maurer,
    mcallester,
    monte_carlo,
    quadratic,
    thiemann,
)

mpmath.mp.dps = 50

CASES = [(0.0, 3.0, 50), (0.02, 190.3, 30_000), (0.1, 20.0, 500), (0.42, 843.0, 25_000)]


def log_constant(n, delta):
    return mpmath.log(2 * mpmath.sqrt(n) / mpmath.mpf(delta))


@pytest.mark.parametrize(("risk", "kl", "n"), CASES[1:])
def test_the_infimum_of_catoni_is_maurer(risk, kl, n):
    best = min(catoni(risk, kl, n, C=C) for C in np.geomspace(1e-3, 1e2, 5_001))
    assert best == pytest.approx(maurer(risk, kl, n), rel=1e-5)
    assert best >= maurer(risk, kl, n)


@pytest.mark.parametrize(("risk", "kl", "n"), CASES[1:])
def test_the_best_temperature_of_catoni(risk, kl, n):
    C = catoni_optimal_c(risk, kl, n)
    assert catoni(risk, kl, n, C=C) == pytest.approx(maurer(risk, kl, n), rel=1e-13)
    found = minimize_scalar(lambda x: catoni(risk, kl, n, C=x), bounds=(1e-3, 50), method="bounded")
    assert found.x == pytest.approx(C, rel=1e-3)


def test_the_best_temperature_is_infinite_at_the_ends():
    assert catoni_optimal_c(0.0, 3.0, 50) == math.inf
    assert catoni_optimal_c(1.0, 3.0, 50) == math.inf
    assert catoni_optimal_c(0.3, math.inf, 50) == math.inf


def test_catoni_without_a_temperature_is_maurer():
    assert catoni(0.1, 5.0, 300, delta=0.02) == maurer(0.1, 5.0, 300, delta=0.02)


@pytest.mark.parametrize("C", [1e-9, 1e-5, 0.3, 40.0])
def test_catoni_fixed_and_free_differ_by_their_price(C):
    n, delta = 700, 0.03
    price = math.log(2 * math.sqrt(n))
    free = catoni(0.1, 5.0, n, delta=delta, C=C, clip=False)
    fixed = catoni(0.1, 5.0 + price, n, delta=delta, C=C, fixed=True, clip=False)
    assert free == pytest.approx(fixed, rel=1e-14)


def test_catoni_with_a_small_temperature_is_linear():
    # (1 - exp(-C r - c)) / (1 - exp(-C)) with c = C x tends to r + x.
    C, n = 1e-9, 10**10
    kl = n * C * 0.2 - math.log(2)
    assert catoni(0.3, kl, n, delta=0.5, C=C, fixed=True) == pytest.approx(0.5, rel=1e-8)


@pytest.mark.parametrize(("risk", "kl", "n"), CASES)
def test_relaxations_are_ordered(risk, kl, n):
    tight = maurer(risk, kl, n)
    assert tight <= quadratic(risk, kl, n, clip=False)
    assert tight <= mcallester(risk, kl, n, clip=False)
    assert tight >= risk


@pytest.mark.parametrize(("risk", "kl", "n"), CASES)
def test_thiemann_at_its_best_is_the_quadratic_bound(risk, kl, n):
    best = thiemann(risk, kl, n, clip=False)
    assert best == pytest.approx(quadratic(risk, kl, n, clip=False), rel=1e-13)
    grid = thiemann(risk, kl, n, lam=np.linspace(1e-3, 1.999, 2_001), clip=False)
    assert best <= grid.min() * (1 + 1e-14)
    assert best == pytest.approx(grid.min(), rel=1e-4)


def test_maurer_is_the_inverse_of_its_budget():
    budget = (5 + math.log(2 * math.sqrt(300) / 0.02)) / 300
    assert maurer(0.1, 5.0, 300, delta=0.02) == pytest.approx(kl_inverse(0.1, budget), rel=1e-15)


def test_mcallester_and_quadratic_by_hand():
    c = (5 + math.log(2 * math.sqrt(300) / 0.02)) / 300
    expected = 0.1 + math.sqrt(c / 2)
    assert mcallester(0.1, 5.0, 300, delta=0.02) == pytest.approx(expected, rel=1e-14)
    expected = (math.sqrt(0.1 + c / 2) + math.sqrt(c / 2)) ** 2
    assert quadratic(0.1, 5.0, 300, delta=0.02) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("bound", [maurer, catoni, mcallester, quadratic, thiemann])
def test_an_infinite_divergence_is_vacuous_and_clipping_is_optional(bound):
    assert bound(0.2, math.inf, 100) == 1
    assert bound(0.2, 1e6, 100) == 1
    if bound in (mcallester, quadratic, thiemann):
        assert bound(0.2, 1e6, 100, clip=False) > 1


def test_a_vacuous_catoni_is_clipped():
    assert catoni(0.2, math.inf, 100, C=1.0) == 1
    assert catoni(0.2, 1e6, 100, C=1.0, clip=False) == pytest.approx(1 / -math.expm1(-1))


def random_cases(size=4_000):
    rng = np.random.default_rng(5)
    n = np.floor(10 ** rng.uniform(0, 9, size))
    risk = np.where(rng.uniform(size=size) < 0.5, rng.uniform(0, 1, size), 0.0)
    risk = np.where(risk == 0, 10 ** rng.uniform(-300, 0, size), risk)
    kl = n * 10 ** rng.uniform(-9, 1, size)
    return risk, kl, n, 10 ** rng.uniform(-12, -0.1, size)


def exact_kl(q, p):
    q, p = mpmath.mpf(q), mpmath.mpf(p)
    return q * mpmath.log(q / p) + (1 - q) * mpmath.log((1 - q) / (1 - p))


def test_maurer_and_monte_carlo_rounded_outward():
    risk, kl, n, delta = random_cases()
    bounds = maurer(risk, kl, n, delta=delta, certify=True)
    steps = monte_carlo(risk, n, delta=delta, certify=True)
    assert np.array_equal(bounds, catoni(risk, kl, n, delta=delta, certify=True))
    for r, k, m, d, bound, step in zip(risk, kl, n, delta, bounds, steps, strict=True):
        budget = (mpmath.mpf(k) + log_constant(m, d)) / m
        assert bound == 1 or exact_kl(r, bound) >= budget
        assert step == 1 or exact_kl(r, step) >= -mpmath.log(mpmath.mpf(d)) / m


def test_closed_forms_rounded_outward():
    for r, k, n, d in zip(*random_cases(1_000), strict=True):
        c, risk, lam, C = (mpmath.mpf(k) + log_constant(n, d)) / n, mpmath.mpf(r), 0.7, 0.4
        half = c / 2
        exact = {
            mcallester: risk + mpmath.sqrt(half),
            quadratic: (mpmath.sqrt(risk + half) + mpmath.sqrt(half)) ** 2,
        }
        for bound, value in exact.items():
            got = bound(r, k, n, delta=d, clip=False, certify=True)
            assert value <= got <= value * (1 + mpmath.mpf("1e-13"))
        assert thiemann(r, k, n, delta=d, clip=False, certify=True) >= exact[quadratic]
        width = 1 - mpmath.mpf(lam) / 2
        value = (risk + c / mpmath.mpf(lam)) / width
        assert thiemann(r, k, n, delta=d, lam=lam, clip=False, certify=True) >= value
        value = mpmath.expm1(-mpmath.mpf(C) * risk - c) / mpmath.expm1(-mpmath.mpf(C))
        assert catoni(r, k, n, delta=d, C=C, clip=False, certify=True) >= value


def test_maurer_fails_no_more_often_than_promised():
    """A posterior chosen to overfit: the coin of 64 with the fewest errors on ten examples."""
    trials, delta = 4_000, 0.3
    rng = np.random.default_rng(6)
    n, coins = 10, 64
    chance = np.full(coins, 0.5)
    errors = rng.binomial(n, chance, size=(trials, coins))
    best = errors.min(axis=1)
    bound = maurer(best / n, math.log(coins), n, delta=delta)
    naive = maurer(best / n, 0.0, n, delta=delta)
    allowed = delta + 4 * math.sqrt(delta * (1 - delta) / trials)
    assert np.mean(bound < 0.5) <= allowed
    # The test has teeth: without its divergence the same posterior breaks the promise.
    assert np.mean(naive < 0.5) > allowed
