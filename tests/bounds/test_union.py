"""Sharing a probability of failure."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from pbnn.bounds import catoni, delta_each, maurer, share_delta, union_price


def test_a_price_in_nats_is_a_share_of_delta():
    n, count, delta = 400, 37, 0.05
    paid = maurer(0.1, 4.0 + union_price(count), n, delta=delta)
    assert paid == pytest.approx(maurer(0.1, 4.0, n, delta=delta / count), rel=1e-14)
    paid = catoni(0.1, 4.0 + union_price(count), n, delta=delta, C=1.0, fixed=True)
    shared = catoni(0.1, 4.0, n, delta=delta_each(delta, count), C=1.0, fixed=True)
    assert paid == pytest.approx(shared, rel=1e-14)
    assert union_price(1) == 0


def test_shares_never_add_up_to_more_than_delta():
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        raw = rng.uniform(0.01, 1, rng.integers(1, 12))
        weights = {str(i): float(w) for i, w in enumerate(raw / raw.sum())}
        delta = float(10 ** rng.uniform(-12, -0.01))
        shares = share_delta(delta, weights)
        assert list(shares) == list(weights)
        assert sum(shares.values()) <= delta
        assert sum(map(Fraction, shares.values())) <= Fraction(delta)
        for name, share in shares.items():
            assert share == pytest.approx(delta * weights[name], rel=1e-14)


def test_thirds_are_allowed_and_leftovers_kept():
    third = 1 / 3
    assert share_delta(0.1, {"a": 0.1, "b": 0.2, "c": 0.7})["c"] == pytest.approx(0.07)
    assert sum(share_delta(0.1, {"a": third, "b": third, "c": third}).values()) <= 0.1
    assert share_delta(0.1, {"only": 0.25}) == {"only": 0.025}


def test_an_equal_share_is_rounded_down():
    for count in range(1, 500):
        share = delta_each(0.05, count)
        assert Fraction(share) * count <= Fraction(0.05)
        assert Fraction(math.nextafter(share, 1.0)) * count > Fraction(0.05)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 1.3, math.nan])
def test_delta_outside_its_domain(delta):
    with pytest.raises(ValueError, match=r"`delta` must lie in \(0, 1\), got"):
        share_delta(delta, {"a": 1.0})
    with pytest.raises(ValueError, match=r"`delta` must lie in \(0, 1\), got"):
        delta_each(delta, 2)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "at least one weight"),
        ({"a": 0.0}, "positive, got 0.0 for 'a'"),
        ({"a": -0.5, "b": 0.2}, "positive, got -0.5"),
        ({"a": math.nan}, "positive, got nan"),
        ({"a": math.inf}, "positive, got inf"),
        ({"a": 0.6, "b": 0.5}, "sum to at most 1, got 1.1"),
    ],
)
def test_weights_outside_their_domain(weights, message):
    with pytest.raises(ValueError, match=rf"`weights` must .*{message}"):
        share_delta(0.05, weights)


def test_a_count_is_a_positive_integer():
    with pytest.raises(ValueError, match="`count` must be at least 1, got 0"):
        union_price(0)
    for count in (2.0, True, "3"):
        with pytest.raises(TypeError, match="`count` must be an integer"):
            delta_each(0.05, count)
