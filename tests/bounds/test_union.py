"""Sharing a probability of failure."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from pbnn.bounds import (
    Choice,
    best_of,
    catoni,
    chernoff,
    delta_each,
    maurer,
    maurer_pontil,
    share_delta,
    union_price,
)


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


def test_the_best_of_several_pays_for_all():
    candidates = {
        "chernoff": partial(chernoff, 100, 1000),
        "variance": partial(maurer_pontil, 0.1, 1000, variance=0.001),
        "maurer": partial(maurer, 0.1, 0.0, 1000),
    }
    choice = best_of(candidates, delta=0.06)
    share = delta_each(0.06, 3)
    assert isinstance(choice, Choice)
    assert choice.bounds == {name: bound(delta=share) for name, bound in candidates.items()}
    assert (choice.name, choice.delta) == ("variance", share)
    assert choice.bound == min(choice.bounds.values()) == choice.bounds["variance"]
    assert choice.price == pytest.approx(union_price(3), rel=1e-12)
    assert choice.bound > candidates["variance"](delta=0.06)
    assert best_of({"maurer": candidates["maurer"]}).bound == maurer(0.1, 0.0, 1000)


def test_the_shares_of_the_best_may_be_weighted():
    seen = {}

    def bound(name, value, *, delta):
        seen[name] = delta
        return value

    candidates = {name: partial(bound, name, 0.5) for name in "abc"}
    choice = best_of(candidates, delta=0.1, weights={"c": 0.5, "b": 0.25, "a": 0.125})
    assert seen == choice_shares(0.1)
    assert choice.name == "a"  # the first of equals
    assert choice.delta == 0.0125
    assert choice.price == pytest.approx(math.log(8))
    best_of(candidates, delta=0.1)
    assert sum(map(Fraction, seen.values())) <= Fraction(0.1)
    assert best_of(candidates | {"d": partial(bound, "d", 1)}).name == "a"
    assert best_of(candidates | {"d": partial(bound, "d", 0)}).name == "d"


def choice_shares(delta):
    return {"a": delta / 8, "b": delta / 4, "c": delta / 2}


def test_a_choice_is_frozen():
    choice = best_of({"a": lambda delta: delta})
    assert choice == Choice("a", 0.05, 0.05, 0.0, {"a": 0.05})
    with pytest.raises(AttributeError):
        choice.bound = 0.0


@pytest.mark.parametrize(
    ("candidates", "options", "error", "message"),
    [
        ({}, {}, ValueError, "`candidates` must hold at least one bound, got none"),
        ({"a": lambda delta: math.nan}, {}, ValueError, "must return a number, got nan from 'a'"),
        ({"a": lambda delta: "x"}, {}, TypeError, "must return a float, got str from 'a'"),
        ({"a": lambda delta: True}, {}, TypeError, "must return a float, got bool from 'a'"),
        ({"a": lambda delta: np.ones(2)}, {}, TypeError, "got ndarray from 'a'"),
        ({"a": lambda delta: 0.1}, {"delta": 1.0}, ValueError, "`delta` must lie in"),
        ({"a": lambda delta: 0.1}, {"weights": {"b": 1.0}}, ValueError, "difference in 'a'"),
        ({"a": lambda delta: 0.1}, {"weights": {"a": 1.5}}, ValueError, "sum to at most 1"),
        ({"a": lambda delta: 0.1}, {"weights": {}}, ValueError, "difference in 'a'"),
    ],
)
def test_candidates_outside_their_domain(candidates, options, error, message):
    with pytest.raises(error, match=message):
        best_of(candidates, **options)


def test_the_best_fails_no_more_often_than_promised():
    """Two bounds on the same sample, each of which is exact at its share."""
    trials, delta = 4_000, 0.2
    sample = np.random.default_rng(1).random((trials, 2))

    def exact(u, *, delta):  # fails, falling below 0, with probability delta
        return float(u - delta)

    failures = [
        best_of({"a": partial(exact, u), "b": partial(exact, v)}, delta=delta).bound < 0
        for u, v in sample
    ]
    expected = 1 - (1 - delta / 2) ** 2
    assert np.mean(failures) == pytest.approx(expected, abs=4 * math.sqrt(0.16 / trials))


def test_shares_of_what_is_no_number_are_refused_by_name():
    with pytest.raises(TypeError, match="`delta` must be a real number, got str"):
        share_delta("x", {"a": 1.0})
    with pytest.raises(TypeError, match="`weights` must be a mapping, got list"):
        share_delta(0.05, [0.5, 0.5])
    with pytest.raises(TypeError, match="`weights` must be real numbers, got str for 'a'"):
        share_delta(0.05, {"a": "1"})
    assert delta_each(0.05, np.int64(2)) == 0.025
