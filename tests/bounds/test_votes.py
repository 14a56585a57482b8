"""Bounds on a majority vote."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from pbnn.bounds import derandomised, first_order, kl_inverse, maurer, tandem


def test_first_order_is_twice_the_gibbs_bound():
    assert first_order(0.1, 5.0, 300, delta=0.02) == 2 * maurer(0.1, 5.0, 300, delta=0.02)
    assert first_order(0.4, 50.0, 300) == 1
    assert first_order(0.4, 50.0, 300, clip=False) > 1


def test_tandem_pays_the_divergence_twice_and_the_confidence_once():
    budget = (2 * 5 + math.log(2 * math.sqrt(300) / 0.02)) / 300
    expected = 4 * kl_inverse(0.01, budget)
    assert tandem(0.01, 5.0, 300, delta=0.02) == pytest.approx(expected, rel=1e-14)
    assert tandem(0.2, 5.0, 300) == 1


def test_the_factors_two_and_four_hold_for_every_vote_of_three():
    """By enumeration: the vote's risk against the Gibbs risk and the tandem loss."""
    weights = np.array([0.5, 0.3, 0.2])
    for errs in itertools.product([0, 1], repeat=3):
        gibbs = float(weights @ errs)
        vote = float(gibbs >= 0.5)
        assert vote <= 2 * gibbs
        assert vote <= 4 * gibbs**2


def test_derandomised_recovers_the_factor_two():
    bounds = np.linspace(0, 0.5, 11)
    np.testing.assert_allclose(derandomised(bounds), 2 * bounds, rtol=1e-15)
    assert derandomised(0.7) == 1
    assert derandomised(0.7, clip=False) == pytest.approx(1.4)


def test_derandomised_is_never_above_the_factor_two():
    """With c = 1 - b, the constants of a symmetric vote, or with c = 1/2."""
    gibbs = np.linspace(0.2, 0.5, 31)
    assert np.all(derandomised(gibbs, 0.2, 0.5) <= derandomised(gibbs))
    assert derandomised(0.3, 0.2, 0.5) == pytest.approx(1 / 3)


def test_derandomised_holds_by_enumeration():
    """A loss of at least b where the vote is right and c where it is wrong."""
    b, c = 0.1, 0.6
    for wrong in (0.0, 0.25, 1.0):
        gibbs = wrong * c + (1 - wrong) * b
        assert derandomised(gibbs, b, c) == pytest.approx(wrong, abs=1e-15)


def test_derandomised_below_its_least_loss_is_zero():
    assert derandomised(0.05, 0.1, 0.5) == 0


def test_votes_rounded_outward():
    rng = np.random.default_rng(0)
    for bound, b, c in rng.uniform(0, 1, (2_000, 3)):
        if b < c:
            got = derandomised(bound, b, c, clip=False, outward=True)
            assert Fraction(got) >= (Fraction(bound) - Fraction(b)) / (Fraction(c) - Fraction(b))
    # Doubling is exact in floating point, so the order cannot be lost.
    tight = maurer(0.1, 5.0, 300, outward=True)
    assert first_order(0.1, 5.0, 300, outward=True) >= 2 * tight
    assert tandem(0.01, 5.0, 300, outward=True) >= tandem(0.01, 5.0, 300)


@pytest.mark.parametrize(("b", "c"), [(0.5, 0.5), (0.6, 0.5), (np.array([0.1, 0.7]), 0.5)])
def test_constants_out_of_order_are_refused(b, c):
    with pytest.raises(ValueError, match=r"`lower_right` must be below `lower_wrong`, got 0\."):
        derandomised(0.3, b, c)
