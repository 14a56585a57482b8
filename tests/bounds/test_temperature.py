"""Bounds linear in the risk: their best temperatures, and what they are special cases of."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pbnn.bounds import alquier, catoni, catoni_union, fast_rate, maurer, sub_gamma

CASES = [(0.0, 3.0, 50), (1e-9, 5.0, 1000), (0.02, 190.3, 30_000), (0.42, 843.0, 25_000)]


@pytest.mark.parametrize(("risk", "kl", "n"), CASES)
def test_the_fast_rate_takes_the_best_gamma(risk, kl, n):
    best = fast_rate(risk, kl, n, clip=False)
    grid = fast_rate(risk, kl, n, gamma=1 + np.geomspace(1e-9, 1e6, 20_001), clip=False)
    assert best <= grid.min() * (1 + 1e-14)
    assert best == pytest.approx(grid.min(), rel=1e-5)
    assert best >= maurer(risk, kl, n)


def test_the_best_gamma_solves_its_equation_to_the_last_digits():
    """Near the least value the bound is flat, so the equation itself is asked."""
    risk, budget = 0.02, (190.3 + math.log(2 * math.sqrt(30_000) / 0.05)) / 30_000
    low, high = 0.0, 1e3
    for _ in range(200):
        x = (low + high) / 2
        low, high = (x, high) if risk * (x - math.log1p(x)) < budget else (low, x)
    exact = (1 + 1 / low) * (math.log1p(low) * risk + budget)
    assert fast_rate(risk, 190.3, 30_000) == pytest.approx(exact, rel=1e-15)


def test_the_fast_rate_is_catoni_linearised():
    # (1 - exp(-x)) <= x, at the same temperature: gamma = 1 / (1 - exp(-C)).
    for C in (0.1, 1.0, 4.0):
        gamma = 1 / -math.expm1(-C)
        args = (0.05, 40.0, 5000)
        assert fast_rate(*args, gamma=gamma) >= catoni(*args, C=C)
        linear = gamma * (C * 0.05 + (40 + math.log(2 * math.sqrt(5000) / 0.05)) / 5000)
        assert fast_rate(*args, gamma=gamma) == pytest.approx(linear, rel=1e-13)


def test_the_union_over_temperatures_costs_more_than_one_that_was_fixed():
    for lam in (100.0, 3000.0):
        fixed = catoni(0.1, 50.0, 10_000, C=lam / 10_000, fixed=True, clip=False)
        free = catoni_union(0.1, 50.0, 10_000, lam=lam, clip=False)
        assert free > fixed
        assert free == catoni_union(0.1, 50.0, 10_000, lam=lam, alpha=1.1, clip=False)


def test_sub_gamma_without_a_scale_is_hoeffding():
    for lam in (10.0, 2000.0):
        one = sub_gamma(0.1, 50.0, 10_000, lam=lam, s2=0.25, c=0.0, clip=False)
        assert one == pytest.approx(alquier(0.1, 50.0, 10_000, lam=lam, clip=False), rel=1e-14)
    with pytest.raises(ValueError, match=r"`c \* lam / n` must be below 1, got 1.0"):
        sub_gamma(0.1, 50.0, 100, lam=100.0, s2=0.25, c=1.0)


def test_an_unknown_constant_is_refused():
    with pytest.raises(ValueError, match=r"`constant` must be one of \['kt', .*, got 'pi'"):
        fast_rate(0.1, 1.0, 10, constant="pi")
