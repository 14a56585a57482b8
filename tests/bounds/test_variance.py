"""Bounds by variance or by few values: 50 digits, special cases of others, and their promise."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import gammaln
from scipy.stats import binom

from pbnn.bounds import (
    empirical_bernstein,
    exact,
    kl_inverse,
    log_xi,
    maurer,
    monte_carlo,
    recursive,
    recursive_excess,
    split_kl,
    split_kl_discrete,
    unexpected_bernstein,
)

mpmath.mp.dps = 50
mpf = mpmath.mpf

SPLIT = {"a": -1.0, "b": 1.0, "mu": 0.0}
STEP = {"gamma": 0.5, "steps": 4, "delta": 0.04, "delta_mc": 0.02}
LEVELS = (0.95, 0.06, 0.02)


def random_cases(seed, size=200):
    rng = np.random.default_rng(seed)
    n = np.floor(10 ** rng.uniform(0.31, 8, size))
    delta = np.where(rng.uniform(size=size) < 0.5, rng.uniform(0.01, 0.99, size), 1e-9)
    kl = n * 10 ** rng.uniform(-6, 0, size)
    return zip(rng.uniform(0, 1, size), kl, n, delta, rng.uniform(0, 0.3, size) ** 3, strict=True)


# Empirical Bernstein


def bernstein_with_digits(risk, kl, n, delta, variance, c1, c2):
    risk, kl, n, delta, v, c1, c2 = map(mpf, map(float, (risk, kl, n, delta, variance, c1, c2)))
    price, spare = mpmath.log(2 / delta), mpmath.e - 2
    nu1 = mpmath.ceil(mpmath.log(mpmath.sqrt(spare * n / (4 * price))) / mpmath.log(c1)) + 1
    root = mpmath.sqrt((n - 1) / price + 1) / 2 + mpf("0.5")
    nu2 = mpmath.ceil(mpmath.log(root) / mpmath.log(c2))
    k1 = kl + mpmath.log(2 * max(nu1, 1) / delta)
    k2 = kl + mpmath.log(2 * max(nu2, 1) / delta)
    v = v + (1 + c2) * mpmath.sqrt(v * k2 / (2 * (n - 1))) + 2 * c2 * k2 / (n - 1)
    v = min(v, mpf("0.25"))
    if mpmath.sqrt(k1 / (spare * v)) <= mpmath.sqrt(n):
        return risk + (1 + c1) * mpmath.sqrt(spare * v * k1 / n), nu1
    return risk + 2 * k1 / n, nu1


@pytest.mark.parametrize(("c1", "c2"), [(1.15, 1.15), (1.02, 3.0), (2.0, 1.0003)])
def test_empirical_bernstein_with_50_digits(c1, c2):
    for risk, kl, n, delta, variance in random_cases(0):
        expected, _ = bernstein_with_digits(risk, kl, n, delta, variance, c1, c2)
        settings = {"variance": variance, "delta": delta, "c1": c1, "c2": c2, "clip": False}
        assert empirical_bernstein(risk, kl, n, **settings) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(("n", "delta"), [(2, 0.05), (3, 1e-6), (10, 1e-9), (20, 0.01)])
def test_the_grid_of_empirical_bernstein_has_a_point_at_small_n(n, delta):
    expected, nu1 = bernstein_with_digits(0.1, 1e-3, n, delta, 0.01, 1.15, 1.15)
    assert nu1 < 1
    got = empirical_bernstein(0.1, 1e-3, n, variance=0.01, delta=delta, clip=False)
    assert got == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(("n", "delta"), [(2, 0.05), (10, 1e-9), (40, 0.1), (5_000, 0.05)])
@pytest.mark.parametrize("variance", [0.0, 0.01, 0.25])
def test_empirical_bernstein_is_above_the_best_of_its_grid(n, delta, variance):
    """Bernstein's inequality at each of the temperatures that were paid for."""
    c, spare, price = 1.15, math.e - 2, math.log(2 / delta)
    least = math.sqrt(4 * price / (spare * n))
    points = max(1, math.ceil(math.log(1 / least) / math.log(c)) + 1)
    grid = [min(1.0, least * c**i) for i in range(points)]
    for kl in (0.0, 1.0, n / 10, n):
        k1 = kl + math.log(2 * points / delta)
        # The true variance may be anything up to its bound, here up to the given one.
        for true in (0.0, variance / 2, variance):
            best = min(k1 / (n * x) + x * spare * true for x in grid)
            assert best <= empirical_bernstein(0, kl, n, variance=variance, delta=delta, clip=False)


def test_empirical_bernstein_at_most_a_quarter():
    cap = empirical_bernstein(0.1, 3.0, 10_000, variance=0.25)
    assert empirical_bernstein(0.1, 3.0, 10_000, variance=0.4) == cap
    assert (
        empirical_bernstein(0.1, 3.0, 10_000, variance=0.24) == cap
    )  # it is above after its own doubt
    assert empirical_bernstein(0.1, 3.0, 10_000, variance=0.2) < cap


def test_empirical_bernstein_without_variance_falls_as_one_over_n():
    few, many = (empirical_bernstein(0.0, 5.0, n, variance=0.0) for n in (10**4, 10**6))
    assert 80 < few / many < 101
    assert many < maurer(0.01, 5.0, 10**6) - 0.01  # where maurer pays a root


def test_empirical_bernstein_needs_two_examples():
    with pytest.raises(ValueError, match="`n` must be a whole number, at least 2, got 1"):
        empirical_bernstein(0.1, 1.0, 1, variance=0.1)
    with pytest.raises(ValueError, match=r"`n` must be a whole number, at least 2, got 2\.5"):
        empirical_bernstein(0.1, 1.0, 2.5, variance=0.1)


# Unexpected Bernstein


def unexpected_with_digits(loss, kl, n, delta, second, b):
    loss, kl, n, delta, second, b = map(mpf, map(float, (loss, kl, n, delta, second, b)))
    k = mpmath.ceil(mpmath.log(mpmath.sqrt(n / mpmath.log(1 / delta)) / 2, 2))
    k = max(int(k), 1)
    values = []
    for i in range(1, k + 1):
        g = 1 / (mpf(2) ** i * b)
        slope = (-g * b - mpmath.log(1 - g * b)) / (g * b**2)
        values.append(loss + slope * second + (kl + mpmath.log(k / delta)) / (g * n))
    return min(values)


@pytest.mark.parametrize("b", [1.0, 0.3, 7.0])
def test_unexpected_bernstein_with_50_digits(b):
    for risk, kl, n, delta, second in random_cases(1):
        loss, second = b * (risk - 0.3), b * b * second
        expected = unexpected_with_digits(loss, kl, n, delta, second, b)
        got = unexpected_bernstein(loss, kl, n, second_moment=second, b=b, delta=delta, clip=False)
        assert got == pytest.approx(expected, rel=1e-12, abs=1e-14 * b)


@pytest.mark.parametrize("delta", [0.9, 0.05, 1e-9])
def test_the_price_of_the_grid_of_unexpected_bernstein(delta):
    """Without second moment the first point is best, and the bound tells the size of the grid."""
    n = np.floor(10 ** np.linspace(0, 12, 97))
    value = unexpected_bernstein(0.0, 0.0, n, second_moment=0.0, delta=delta, clip=False)
    size = np.exp(value * n / 2) * delta
    expected = np.maximum(1, np.ceil(np.log2(0.5 * np.sqrt(n / math.log(1 / delta)))))
    np.testing.assert_allclose(size, expected, rtol=1e-9)
    value = unexpected_bernstein(0.0, 0.0, 1e25, second_moment=0.0, delta=delta, clip=False)
    assert math.exp(value * 1e25 / 2) * delta == pytest.approx(32)


def test_all_points_of_the_grid_of_unexpected_bernstein_are_tried():
    n, delta = 10**9, 0.05
    size = math.ceil(math.log2(0.5 * math.sqrt(n / math.log(1 / delta))))
    for i in range(1, size + 1):
        # The second moment at which gamma = 2^-i is about best.
        second = 4.0**i * math.log(size / delta) * 2 / n
        value = unexpected_bernstein(0.0, 0.0, n, second_moment=second, delta=delta, clip=False)
        expected = unexpected_with_digits(0.0, 0.0, n, delta, second, 1.0)
        assert value == pytest.approx(expected, rel=1e-12)
    # Beyond, the last point serves.
    steep = [
        unexpected_bernstein(0.0, 0.0, n, second_moment=v, delta=delta, clip=False)
        for v in (1e3, 2e3)
    ]
    u = 2.0**-size
    assert (steep[1] - steep[0]) / 1e3 == pytest.approx(-1 - math.log1p(-u) / u, rel=1e-9)


@pytest.mark.parametrize("i", [1, 2, 3, 6])
@pytest.mark.parametrize("b", [1.0, 0.4, 3.0])
def test_the_inequality_behind_unexpected_bernstein(i, b):
    """E exp(gamma (E X - X - slope X^2)) <= 1 for X of two values up to b, which meets it in b."""
    u = 2.0**-i
    gamma, slope = u / b, (-u - math.log1p(-u)) / (u * b)
    for low, chance in itertools.product((-5 * b, -b, 0.0, 0.9 * b), (0.01, 0.3, 0.9)):
        mean = chance * b + (1 - chance) * low
        terms = [(chance, b), (1 - chance, low)]
        moment = sum(p * math.exp(gamma * (mean - x - slope * x * x)) for p, x in terms)
        assert moment <= 1 + 1e-14
        # At x = b the inequality exp(...) <= 1 - gamma x is an equality.
        assert math.exp(-gamma * b - gamma * slope * b * b) == pytest.approx(1 - gamma * b)
    # One point less or more is what the bound adds to the loss.
    n = 10**30
    one, two = (
        unexpected_bernstein(0.0, 0.0, n, second_moment=v, b=b, clip=False) for v in (0.0, 1e9)
    )
    assert two - one == pytest.approx(1e9 / b * (-1 - math.log1p(-(2.0**-32)) * 2.0**32), rel=1e-5)


def test_unexpected_bernstein_scales_with_its_loss():
    one = unexpected_bernstein(-0.01, 5.0, 800, second_moment=0.02, clip=False)
    ten = unexpected_bernstein(-0.1, 5.0, 800, second_moment=2.0, b=10.0, clip=False)
    assert ten == pytest.approx(10 * one, rel=1e-13)


def test_unexpected_bernstein_is_clipped_to_what_the_loss_can_be():
    assert unexpected_bernstein(-0.5, 1.0, 10**6, second_moment=0.25) == 0
    assert unexpected_bernstein(-0.5, 1.0, 10**6, second_moment=0.25, clip=False) < 0
    assert unexpected_bernstein(0.5, 100.0, 100, second_moment=0.5) == 1
    # A loss of up to 3 may well have a mean above 1.
    assert unexpected_bernstein(1.5, 100.0, 10**5, second_moment=3.0, b=3.0) > 1.5
    assert unexpected_bernstein(1.5, 100.0, 10, second_moment=3.0, b=3.0) == 3


def test_a_loss_above_its_limit_is_refused():
    with pytest.raises(ValueError, match=r"`loss` must be at most `b`, got 1\.5"):
        unexpected_bernstein(1.5, 1.0, 10, second_moment=1.0)
    with pytest.raises(ValueError, match=r"`loss` must be at most `b`, got 0\.5"):
        unexpected_bernstein(0.5, 1.0, 10, second_moment=1.0, b=np.array([1.0, 0.4]))
    assert unexpected_bernstein(1.0, 1.0, 10, second_moment=1.0) == 1
    with pytest.raises(ValueError, match="`loss` must be finite"):
        unexpected_bernstein(-math.inf, 1.0, 10, second_moment=1.0)
    with pytest.raises(ValueError, match=r"`b` must lie in \(0, inf\)"):
        unexpected_bernstein(-1.0, 1.0, 10, second_moment=1.0, b=0.0)


# Split-kl


@pytest.mark.parametrize("risk", [0.0, 0.1, 0.7, 1.0])
def test_split_kl_of_a_loss_in_the_unit_interval_is_maurer_at_half_delta(risk):
    expected = maurer(risk, 5.0, 300, delta=0.01)
    got = split_kl(risk, 0.0, 5.0, 300, a=0.0, b=1.0, mu=0.0, delta=0.02)
    assert got == pytest.approx(expected, rel=1e-14)
    # The same loss, seen from its other end.
    got = split_kl(0.0, 1 - risk, 5.0, 300, a=0.0, b=1.0, mu=1.0, delta=0.02)
    assert got == pytest.approx(expected, rel=1e-13)


def test_split_kl_by_hand():
    c = (5 + math.log(4 * math.sqrt(300) / 0.02)) / 300
    expected = 0.25 + 0.75 * kl_inverse(0.1 / 0.75, c) - 1.25 * kl_inverse(0.3 / 1.25, c, "lower")
    got = split_kl(0.1, 0.3, 5.0, 300, a=-1.0, b=1.0, mu=0.25, delta=0.02, clip=False)
    assert got == pytest.approx(expected, rel=1e-13)


def test_split_kl_follows_shift_and_scale():
    base = split_kl(0.1, 0.3, 5.0, 300, a=-1.0, b=1.0, mu=0.25, clip=False)
    moved = split_kl(0.4, 1.2, 5.0, 300, a=-1.0, b=7.0, mu=4.0, clip=False)
    assert moved == pytest.approx(4 * base + 3, rel=1e-13)


def test_split_kl_of_three_values_is_the_discrete_one():
    plus, minus = 0.07, 0.2
    expected = split_kl(plus, minus, 5.0, 300, **SPLIT, clip=False)
    got = split_kl_discrete([1 - minus, plus], 5.0, 300, values=(-1.0, 0.0, 1.0), clip=False)
    assert got == pytest.approx(expected, rel=1e-12)


def test_split_kl_is_clipped_to_what_the_loss_can_be():
    assert split_kl(0.0, 0.5, 1.0, 10**5, **SPLIT) == 0
    assert -0.5 < split_kl(0.0, 0.5, 1.0, 10**5, **SPLIT, clip=False) < -0.4
    assert split_kl(2.5, 0.0, 1.0, 10**5, a=0.0, b=3.0, mu=0.0) > 2.5
    assert split_kl(0.5, 0.0, math.inf, 10, a=-1.0, b=3.0, mu=0.5) == 3


def test_split_kl_gains_where_the_loss_is_mostly_at_its_middle():
    excess = split_kl(0.01, 0.01, 20.0, 5_000, **SPLIT, clip=False)
    assert excess < 2 * maurer(0.5, 20.0, 5_000) - 1
    # Where the loss is almost binary, no second moment is as good.
    excess = split_kl(0.3, 0.01, 20.0, 5_000, **SPLIT)
    assert excess < unexpected_bernstein(0.29, 20.0, 5_000, second_moment=0.31)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mu": -1.5}, "`mu` must be at least `a`, got -1.5"),
        ({"mu": 1.5}, "`mu` must be at most `b`, got 1.5"),
        ({"plus": 1.1}, "`plus` must be at most `b - mu`, got 1.1"),
        ({"minus": 1.1}, "`minus` must be at most `mu - a`, got 1.1"),
        ({"plus": -0.1}, "`plus` must be non-negative, got -0.1"),
        ({"minus": -0.1}, "`minus` must be non-negative, got -0.1"),
        ({"a": -math.inf}, "`a` must be finite"),
        ({"minus": 0.1, "a": 0.0}, "`minus` must be at most `mu - a`, got 0.1"),
    ],
)
def test_split_kl_refuses(change, message):
    good = {"plus": 0.1, "minus": 0.0, "kl": 1.0, "n": 10, **SPLIT}
    split_kl(**good)
    with pytest.raises(ValueError, match=message):
        split_kl(**good | change)
    if "mu" not in change and "a" not in change:
        with pytest.raises(ValueError, match=message):
            split_kl(**good | {name: torch.tensor([0.0, x]) for name, x in change.items()})


def test_means_at_their_ends_are_not_refused_for_rounding():
    width = 0.3 - 0.1
    for part in (width * (1 + 2e-16), width * (1 + 9e-13)):
        assert split_kl(part, 0.0, 1.0, 10, a=0.1, b=0.3, mu=0.1) == pytest.approx(0.3, rel=1e-15)
    assert split_kl_discrete([0.3, 0.1 + 0.2], 1.0, 10, values=(0.0, 1.0, 2.0)) < 2


@pytest.mark.parametrize("bound", [split_kl, split_kl_discrete])
def test_the_constants_of_split_kl(bound):
    arguments = (0.1, 0.0) if bound is split_kl else ([1.0, 0.1],)
    settings = SPLIT if bound is split_kl else {"values": (-1.0, 0.0, 1.0)}
    c = (5 + log_xi(300) + math.log(2 / 0.02)) / 300
    expected = kl_inverse(0.1, c) - (0 if bound is split_kl else 1 - kl_inverse(1.0, c))
    got = bound(*arguments, 5.0, 300, **settings, delta=0.02, constant="xi")
    assert got == pytest.approx(expected, rel=1e-13)
    with pytest.raises(ValueError, match="`constant` must be one of"):
        bound(*arguments, 5.0, 300, **settings, constant="nought")


# Few values


def test_discrete_split_kl_of_two_values_is_maurer():
    expected = maurer(0.2, 5.0, 300, delta=0.02)
    got = split_kl_discrete([0.2], 5.0, 300, values=(0.0, 1.0), delta=0.02)
    assert got == pytest.approx(expected, rel=1e-14)
    got = split_kl_discrete([0.2], 5.0, 300, values=(-3.0, 2.0), delta=0.02, clip=False)
    assert got == pytest.approx(5 * expected - 3, rel=1e-13)


def test_discrete_split_kl_by_hand():
    c = (5 + math.log(2 * 3 * math.sqrt(300) / 0.02)) / 300
    expected = -0.5 + 0.5 * kl_inverse(0.9, c) + 0.75 * kl_inverse(0.4, c)
    expected += 0.25 * kl_inverse(0.1, c)
    values = (-0.5, 0.0, 0.75, 1.0)
    got = split_kl_discrete((0.9, 0.4, 0.1), 5.0, 300, values=values, delta=0.02)
    assert got == pytest.approx(expected, rel=1e-13)


def test_frequencies_come_as_a_sequence_or_along_the_last_axis():
    values = (0.0, 0.25, 1.0)
    rows = np.array([[0.5, 0.1], [0.9, 0.2], [0.3, 0.0]])
    expected = [split_kl_discrete(row.tolist(), 5.0, 300, values=values) for row in rows]
    assert all(type(value) is float for value in expected)
    np.testing.assert_allclose(split_kl_discrete(rows, 5.0, 300, values=values), expected)
    assert isinstance(split_kl_discrete(rows[0], 5.0, 300, values=values), np.float64)
    got = split_kl_discrete(rows[:, None], np.ones((3, 4)), 300, values=values)
    assert got.shape == (3, 4)
    got = split_kl_discrete([rows[:, 0], rows[:, 1]], 5.0, 300, values=values)
    np.testing.assert_allclose(got, expected)
    single = torch.tensor(rows, dtype=torch.float32)
    got = split_kl_discrete(single, 5.0, 300, values=values)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_allclose(recursive_excess(rows, 5.0, 300, gamma=1.0, steps=1).shape, (3,))


@pytest.mark.parametrize(
    ("frequency", "values", "message"),
    [
        ([0.5, 0.1], (0.0, 1.0), "`values` must be one more .*, got 2 and 2"),
        ([0.5], (0.0, 1.0, 2.0), "`values` must be one more .*, got 3 and 1"),
        ([], (0.0,), "`values` must be one more .*, at least two, got 1 and 0"),
        ([0.5, 0.1], (0.0, 1.0, 1.0), r"`values\[2\]` must exceed the value before, got 1.0"),
        ([0.5, 0.1], (0.0, -1.0, 1.0), r"`values\[1\]` must exceed the value before, got -1.0"),
        ([0.5, 0.6], (0.0, 1.0, 2.0), r"`frequency\[1\]` must not exceed the .* before, got 0.6"),
        ([1.5, 0.6], (0.0, 1.0, 2.0), r"`frequency\[0\]` must lie in \[0, 1\], got 1.5"),
        ([0.5], (0.0, math.inf), r"`values\[1\]` must be finite"),
    ],
)
def test_discrete_split_kl_refuses(frequency, values, message):
    with pytest.raises(ValueError, match=message):
        split_kl_discrete(frequency, 1.0, 10, values=values)


def test_one_number_is_no_sequence():
    with pytest.raises(TypeError, match=r"`frequency` must be a sequence or .*, got float"):
        split_kl_discrete(0.5, 1.0, 10, values=(0.0, 1.0))
    with pytest.raises(TypeError, match="`values` must be a sequence"):
        split_kl_discrete([0.5], 1.0, 10, values=1.0)
    with pytest.raises(TypeError, match=r"`frequency` must be a sequence .*, got ndarray"):
        split_kl_discrete(np.array(0.5), 1.0, 10, values=(0.0, 1.0))


def test_the_discrete_clip_keeps_means_above_one():
    assert split_kl_discrete([0.9], 1.0, 10**5, values=(0.0, 3.0)) > 2.7
    assert split_kl_discrete([0.0], 1.0, 10**5, values=(-1.0, 1.0)) == 0
    assert split_kl_discrete([0.5, 0.1], math.inf, 10, values=(-1.0, 0.0, 3.0)) == 3


# Recursion


def excess_by_hand(frequency, rises, kl, n, gamma, steps, delta, delta_mc):
    events = len(frequency) * steps
    drawn = [kl_inverse(f, math.log(events / delta_mc) / n) for f in frequency]
    c = (kl + math.log(2 * events * math.sqrt(n) / delta)) / n
    return -gamma + sum(w * kl_inverse(f, c) for f, w in zip(drawn, rises, strict=True))


def test_an_excess_by_hand():
    got = recursive_excess(LEVELS, 5.0, 300, **STEP, clip=False)
    assert got == pytest.approx(
        excess_by_hand(LEVELS, (0.5, 0.5, 0.5), 5.0, 300, **STEP), rel=1e-13
    )
    step = STEP | {"gamma": 0.3}
    got = recursive_excess(LEVELS, 5.0, 300, **step, clip=False)
    assert got == pytest.approx(
        excess_by_hand(LEVELS, (0.3, 0.7, 0.3), 5.0, 300, **step), rel=1e-13
    )
    step = STEP | {"gamma": 1.0}
    got = recursive_excess(LEVELS[::2], 5.0, 300, **step, clip=False)
    assert got == pytest.approx(excess_by_hand(LEVELS[::2], (1, 1), 5.0, 300, **step), rel=1e-13)


def test_an_excess_is_the_discrete_split_kl_after_a_monte_carlo_step():
    drawn = [monte_carlo(f, 300, delta=0.02 / (3 * 4)) for f in LEVELS]
    values = (-0.25, 0.0, 0.75, 1.0)
    expected = split_kl_discrete(drawn, 5.0, 300, values=values, delta=0.04 / 4, clip=False)
    got = recursive_excess(LEVELS, 5.0, 300, **STEP | {"gamma": 0.25}, clip=False)
    assert got == pytest.approx(expected, rel=1e-12)


def test_an_excess_is_linear_in_its_weight_for_one_set_of_events():
    """None of the events knows gamma, so it may be chosen after the data."""
    low, middle, high = (
        recursive_excess(LEVELS, 5.0, 300, **STEP | {"gamma": g}, clip=False)
        for g in (0.25, 0.5, 0.75)
    )
    assert middle == pytest.approx((low + high) / 2, rel=1e-13)


def test_the_values_of_an_excess_loss():
    """By enumeration of both losses: what each of the three frequencies counts."""
    gamma = 0.4
    for new, old in itertools.product([0, 1], repeat=2):
        excess = new - gamma * old
        levels = [excess >= 0, excess >= 1 - gamma, excess >= 1]
        assert levels == [not (old and not new), bool(new), bool(new and not old)]
        rises = [gamma, 1 - gamma, gamma]
        assert -gamma + sum(w for w, up in zip(rises, levels, strict=True) if up) == pytest.approx(
            excess
        )


@pytest.mark.parametrize("clip", [True, False])
def test_the_recursion_by_hand(clip):
    kl, n, gamma = (5.0, 3.0, 2.0), (900, 600, 300), (0.5, 1.0)
    frequency = (0.2, LEVELS, (0.99, 0.03))
    settings = {"delta": 0.04, "delta_mc": 0.02}
    first = maurer(monte_carlo(0.2, 900, delta=0.02 / 3), 5.0, 900, delta=0.04 / 3)
    second = recursive_excess(LEVELS, 3.0, 600, gamma=0.5, steps=3, **settings, clip=False)
    third = recursive_excess((0.99, 0.03), 2.0, 300, gamma=1.0, steps=3, **settings, clip=False)
    expected = third + 1.0 * (second + 0.5 * first)
    got = recursive(frequency, kl, n, gamma=gamma, **settings, clip=clip)
    assert got == pytest.approx(expected, rel=1e-13)
    assert 0 < got < 1


def test_every_step_of_the_recursion_is_clipped():
    settings = {"gamma": [1.0, 0.5], "delta": 0.05, "delta_mc": 0.01}
    frequency, kl, n = [0.9, (1.0, 0.9, 0.1), (0.9, 0.2, 0.0)], [50.0, 50.0, 1.0], [100, 100, 10**5]
    step = {"steps": 3, "delta": 0.05, "delta_mc": 0.01, "clip": False}
    last = recursive_excess(frequency[2], 1.0, 10**5, gamma=0.5, **step)
    assert recursive(frequency, kl, n, **settings) == pytest.approx(last + 0.5)
    assert recursive(frequency, kl, n, **settings, clip=False) > last + 0.5
    gain = [0.01, (0.1, 0.0, 0.0)], [1.0, 1.0], [10**5, 10**5]
    assert recursive_excess(gain[0][1], 1.0, 10**5, gamma=1.0, steps=2) == 0
    assert recursive(*gain, gamma=[1.0]) == 0
    assert recursive(*gain, gamma=[1.0], clip=False) < 0


def test_one_step_of_the_recursion_is_maurer():
    expected = maurer(monte_carlo(0.2, 900, delta=0.02), 5.0, 900, delta=0.04)
    got = recursive([0.2], [5.0], [900], gamma=(), delta=0.04, delta_mc=0.02)
    assert type(got) is float
    assert got == pytest.approx(expected, rel=1e-14)


def test_the_recursion_keeps_what_the_prior_knew():
    """A prior learned on half of the data, whose own bound is not thrown away."""
    frequency = [0.05, (0.999, 0.048, 0.002)]
    both = recursive(frequency, [300.0, 5.0], [20_000, 10_000], gamma=[0.9])
    alone = maurer(monte_carlo(0.048, 10_000, delta=0.01), 305.0, 10_000)
    assert both < alone


@pytest.mark.parametrize("constant", ["xi", "kt"])
def test_the_constants_of_the_recursion(constant):
    one, two = ([f, [5.0, 5.0], [300, 300]] for f in ([0.2, LEVELS], [0.2, LEVELS]))
    got = recursive(*one, gamma=[0.5], constant=constant)
    assert got < recursive(*two, gamma=[0.5])
    step = {"gamma": 0.5, "steps": 2, "constant": constant, "clip": False}
    first = maurer(monte_carlo(0.2, 300, delta=0.005), 5.0, 300, delta=0.025, constant=constant)
    assert got == pytest.approx(recursive_excess(LEVELS, 5.0, 300, **step) + 0.5 * first, rel=1e-13)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recursive_excess([0.5], 1.0, 10, gamma=0.5, steps=1), "two or three .*, got 1"),
        (
            lambda: recursive_excess([0.5] * 4, 1.0, 10, gamma=0.5, steps=1),
            "two or three .*, got 4",
        ),
        (
            lambda: recursive_excess([0.5] * 2, 1.0, 10, gamma=0.5, steps=1),
            "`gamma` must be 1 with",
        ),
        (lambda: recursive_excess(LEVELS, 1.0, 10, gamma=0.0, steps=1), r"in \(0, 1\], got 0.0"),
        (lambda: recursive_excess(LEVELS, 1.0, 10, gamma=1.1, steps=1), r"in \(0, 1\], got 1.1"),
        (lambda: recursive_excess(LEVELS, 1.0, 10, gamma=0.5, steps=0), "`steps` must be a whole"),
        (
            lambda: recursive_excess(LEVELS, 1.0, 10, gamma=0.5, steps=1, delta_mc=0.0),
            r"`delta_mc` must lie in \(0, 1\), got 0.0",
        ),
        (
            lambda: recursive_excess(LEVELS, 1.0, 10, gamma=0.5, steps=1, delta_mc=1.0),
            r"`delta_mc` must lie in \(0, 1\), got 1.0",
        ),
        (
            lambda: recursive_excess([0.1, 0.2, 0.1], 1.0, 10, gamma=0.5, steps=1),
            r"`frequency\[1\]` must not exceed",
        ),
        (
            lambda: recursive([0.1, LEVELS], [1.0], [10, 10], gamma=[0.5]),
            "`kl` must have 2 entries for 2 steps, got 1",
        ),
        (
            lambda: recursive([0.1, LEVELS], [1.0, 1.0], [10], gamma=[0.5]),
            "`n` must have 2 entries for 2 steps, got 1",
        ),
        (
            lambda: recursive([0.1, LEVELS], [1.0, 1.0], [10, 10], gamma=[0.5, 0.5]),
            "`gamma` must have 1 entries for 2 steps, got 2",
        ),
        (lambda: recursive([], [], [], gamma=[]), "`frequency` must have an entry for each step"),
        (
            lambda: recursive([0.1, (0.1, 0.2, 0.1)], [1.0, 1.0], [10, 10], gamma=[0.5]),
            r"`frequency\[1\]\[1\]` must not exceed",
        ),
        (
            lambda: recursive([0.1, LEVELS], [1.0, -1.0], [10, 10], gamma=[0.5]),
            r"`kl\[1\]` must be non-negative",
        ),
        (
            lambda: recursive([0.1, LEVELS], [1.0, 1.0], [10, 10.5], gamma=[0.5]),
            r"`n\[1\]` must be a whole number",
        ),
        (
            lambda: recursive([0.1, LEVELS], [1.0, 1.0], [10, 10], gamma=[1.5]),
            r"`gamma\[0\]` must lie in \(0, 1\]",
        ),
        (
            lambda: recursive([0.1, LEVELS[:2]], [1.0, 1.0], [10, 10], gamma=[0.5]),
            r"`gamma\[0\]` must be 1 with two levels",
        ),
        (
            lambda: recursive([1.1, LEVELS], [1.0, 1.0], [10, 10], gamma=[0.5]),
            r"`frequency\[0\]` must lie in \[0, 1\]",
        ),
        (
            lambda: recursive([0.1], [1.0], [10], gamma=[], delta_mc=1.0),
            r"`delta_mc` must lie in \(0, 1\)",
        ),
    ],
)
def test_refusals_of_the_recursion(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# All of them

# Each with the middle argument free: risk or mean, then the divergence.
BOUNDS = {
    "empirical": lambda r, k, **s: empirical_bernstein(r, k, 400, variance=r * (1 - r) / 4, **s),
    "unexpected": lambda r, k, **s: unexpected_bernstein(r, k, 400, second_moment=r / 3, **s),
    "split": lambda r, k, **s: split_kl(r, r / 3, k, 400, **SPLIT, **s),
    "discrete": lambda r, k, **s: split_kl_discrete([r, r / 2], k, 400, values=(-1, 0, 1), **s),
    "excess": lambda r, k, **s: recursive_excess([1 - r / 9, r, r / 2], k, 400, **STEP | s),
    "recursive": lambda r, k, **s: recursive(
        [r, [1 - r / 9, r, r / 2]], [k, k / 2], [400, 200], gamma=[0.5], **s
    ),
}


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_an_infinite_divergence_is_vacuous(bound):
    assert bound(0.2, math.inf) == 1
    assert bound(0.0, math.inf) == 1
    assert not math.isnan(bound(np.array([0.0, 0.2]), np.array([math.inf, 1.0]))[0])


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_bounds_grow_with_divergence_and_confidence(bound):
    kl = np.linspace(0, 40, 30)
    values = bound(0.1, kl, clip=False)
    assert np.all(np.diff(values) > 0)
    delta = 10.0 ** -np.arange(1, 9)
    assert np.all(np.diff(bound(0.1, 5.0, delta=delta, clip=False)) > 0)


def test_bounds_grow_with_what_was_seen():
    x = np.linspace(0, 0.2, 21)
    for values in (
        empirical_bernstein(x, 5.0, 400, variance=0.02, clip=False),
        empirical_bernstein(0.1, 5.0, 4_000, variance=x, clip=False),
        unexpected_bernstein(x, 5.0, 400, second_moment=0.2, clip=False),
        unexpected_bernstein(0.0, 5.0, 400, second_moment=x, clip=False),
        split_kl(x, 0.1, 5.0, 400, **SPLIT, clip=False),
        -split_kl(0.1, x, 5.0, 400, **SPLIT, clip=False),
        split_kl_discrete([0.5 + x, x], 5.0, 400, values=(-1, 0, 1), clip=False),
        recursive_excess([0.5 + x, 0.2 + x, x], 5.0, 400, **STEP, clip=False),
        recursive([x, LEVELS], [5.0, 5.0], [400, 400], gamma=[0.5], clip=False),
    ):
        assert values.shape == x.shape
        assert np.all(np.diff(values) > 0)


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_gradients(bound):
    def leaf(*values):
        return torch.tensor(values, dtype=torch.float64, requires_grad=True)

    r, k = leaf(0.03, 0.2, 0.31), leaf(0.5, 3.0, 20.0)
    assert torch.autograd.gradcheck(lambda *a: bound(*a, clip=False), (r, k))
    expected = bound(r.detach().numpy(), k.detach().numpy())
    np.testing.assert_allclose(bound(r, k).detach(), expected, rtol=1e-13)


def test_gradients_by_the_own_arguments():
    def leaf(value):
        return torch.tensor([value], dtype=torch.float64, requires_grad=True)

    def empirical(v, d, c1, c2):
        return empirical_bernstein(0.1, 5.0, 4_000, variance=v, delta=d, c1=c1, c2=c2, clip=False)

    assert torch.autograd.gradcheck(empirical, (leaf(0.02), leaf(0.03), leaf(1.2), leaf(1.1)))
    assert torch.autograd.gradcheck(
        lambda v, b: unexpected_bernstein(0.1, 5.0, 400, second_moment=v, b=b, clip=False),
        (leaf(0.1), leaf(1.2)),
    )
    assert torch.autograd.gradcheck(
        lambda p, m, a, b, mu: split_kl(p, m, 5.0, 400, a=a, b=b, mu=mu, clip=False),
        (leaf(0.1), leaf(0.2), leaf(-0.9), leaf(1.1), leaf(0.1)),
    )
    assert torch.autograd.gradcheck(
        lambda g: recursive_excess(LEVELS, 5.0, 400, **STEP | {"gamma": g}, clip=False), leaf(0.3)
    )


def slopes(function, *values):
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in values]
    return [x.item() for x in torch.autograd.grad(function(*leaves), leaves)]


@pytest.mark.parametrize(("kl", "n"), [(5.0, 400), (300.0, 400), (5.0, 10**6)])
def test_no_gradient_is_lost_at_zero_variance(kl, n):
    by_kl, by_variance = slopes(
        lambda k, v: empirical_bernstein(0.1, k, n, variance=v, clip=False), kl, 0.0
    )
    assert 0 < by_kl < 3 / n * 1.2
    assert math.isfinite(by_variance)


def test_no_gradient_is_lost_at_zero_width():
    for mu, plus, minus in ((0.0, 0.2, 0.0), (1.0, 0.0, 0.2)):
        by_plus, by_minus, by_kl = slopes(
            lambda p, m, k, mu=mu: split_kl(p, m, k, 400, a=0.0, b=1.0, mu=mu, clip=False),
            plus,
            minus,
            5.0,
        )
        assert by_plus == (0 if mu else pytest.approx(by_plus))
        assert by_minus == (pytest.approx(by_minus) if mu else 0)
        assert by_kl > 0


def test_arguments_under_training_are_not_looked_at():
    p = torch.tensor([1.5], requires_grad=True)
    assert math.isfinite(split_kl(p, 0.1, 1.0, 10, **SPLIT).item())
    assert math.isfinite(split_kl(0.1, p * 0, 1.0, 10, a=p - 1.5, b=p - 2.5, mu=0.0).item())
    assert math.isfinite(unexpected_bernstein(p, 1.0, 10, second_moment=0.1).item())


@pytest.mark.parametrize("name", BOUNDS)
def test_intervals_run_through_the_same_formulas(name):
    """The two closest float64 numbers around the real value, from arithmetic of many digits."""
    settings = {"delta": 0.05, "clip": False}
    for r, k in ((0.1, 5.0), (0.3, 40.0)):
        value = BOUNDS[name](r, k, **settings)
        low = exact.lower(lambda *a, name=name, **s: BOUNDS[name](*a, **s), r, k, **settings)
        high = exact.upper(lambda *a, name=name, **s: BOUNDS[name](*a, **s), r, k, **settings)
        assert low < high <= math.nextafter(low, math.inf)
        assert value == pytest.approx(low, rel=1e-13)


# The promise


def missed(n, plus, minus, kl, delta):
    """Which outcomes of a loss in {-1, 0, 1} leave each bound on its mean below a given one."""
    mean, second = plus - minus, plus + minus
    settings = {"delta": delta, "clip": False}
    levels = np.stack([1 - minus, plus], axis=-1)
    # Halved and moved into [0, 1] the loss has a quarter of its variance.
    variance = np.maximum(second - mean**2, 0) * n / (n - 1) / 4
    half = empirical_bernstein((mean + 1) / 2, kl, n, variance=variance, **settings)
    return {
        "empirical": 2 * half - 1,
        "unexpected": unexpected_bernstein(mean, kl, n, second_moment=second, **settings),
        "split": split_kl(plus, minus, kl, n, **SPLIT, **settings),
        "discrete": split_kl_discrete(levels, kl, n, values=(-1, 0, 1), **settings),
    }


def outcomes(n, p, m):
    """Every outcome of `n` losses in {-1, 0, 1}, the least mean first, with its probability."""
    i, j = np.nonzero(np.add.outer(np.arange(n + 1), np.arange(n + 1)) <= n)
    order = np.lexsort((i, i - j))
    i, j = i[order], j[order]
    chance = gammaln(n + 1) - gammaln(i + 1) - gammaln(j + 1) - gammaln(n - i - j + 1)
    chance += i * np.log(p) + j * np.log(m) + (n - i - j) * np.log(1 - p - m)
    return i / n, j / n, np.exp(chance)


def test_the_promise_for_one_predictor_by_enumeration():
    n, delta, worst = 12, 0.4, 0.0
    for p, m in itertools.product((0.05, 0.3, 0.45), repeat=2):
        plus, minus, chance = outcomes(n, p, m)
        assert chance.sum() == pytest.approx(1)
        for bound in missed(n, plus, minus, 0.0, delta).values():
            failed = chance[bound < p - m].sum()
            assert failed <= delta
            worst = max(worst, failed)
    assert worst > 0.01  # it can fail


@pytest.mark.parametrize(("p", "m"), [(0.2, 0.2), (0.3, 0.05)])
def test_the_promise_under_a_posterior_chosen_to_overfit(p, m):
    """The best on the sample of a hundred million predictors that are all alike, by enumeration."""
    n, delta, predictors = 400, 0.5, 1e8
    plus, minus, chance = outcomes(n, p, m)
    no_better = np.exp(predictors * np.log1p(-np.minimum(np.cumsum(chance), 1 - 1e-16)))
    best = -np.diff(no_better, prepend=1.0)
    for name, bound in missed(n, plus, minus, math.log(predictors), delta).items():
        assert best[bound < p - m].sum() <= delta, name
    # The test has teeth: without its divergence the same posterior breaks the promise.
    for name, bound in missed(n, plus, minus, 0.0, delta).items():
        assert best[bound < p - m].sum() > delta, name


def fewest_errors(rng, n, coins, trials):
    """Errors in `n` throws of the best of so many fair coins, and when they came."""
    chance = -np.expm1(-coins * binom.cdf(np.arange(n), n, 0.5))
    fewest = np.searchsorted(chance, rng.uniform(size=trials))
    return rng.permuted(np.arange(n) < fewest[:, None], axis=1)


def test_the_promise_of_the_recursion():
    """Two steps over very many coins, whose posteriors lean to the one that erred least so far."""
    trials, coins, n, weight = 200, 1e60, 800, 0.95
    promised = {"delta": 0.3, "delta_mc": 0.2}
    rng = np.random.default_rng(3)
    one = np.hstack([fewest_errors(rng, n, coins, trials), rng.integers(0, 2, (trials, n)) > 0])
    two = fewest_errors(rng, 2 * n, coins, trials)

    def draw(errors, others):
        return np.where(rng.uniform(size=errors.shape) < weight, errors, others)

    # Each example has draws of its own; a coin from the prior is as good as a fresh one.
    fresh = rng.integers(0, 2, (3, trials, 2 * n)) > 0
    risk = draw(one, fresh[0]).mean(1)
    old = draw(one, fresh[1])[:, n:]
    new = draw(two, draw(one, fresh[2]))[:, n:]
    levels = [1 - (old & ~new).mean(1), new.mean(1), (new & ~old).mean(1)]
    first = weight * math.log(weight * coins) + (1 - weight) * math.log(1 - weight)
    second = first + weight * math.log(1 / (1 - weight))  # in the prior it has a share of 0.05

    def failures(kl, gamma):
        bound = recursive([risk, levels], kl, [2 * n, n], gamma=[gamma], **promised)
        return np.mean(bound < 0.5)

    allowed = 0.5 + 4 * math.sqrt(0.25 / trials)
    for gamma in (0.25, 0.5, 1.0):
        assert failures([first, second], gamma) <= allowed
    # The test has teeth: without the divergences the same posteriors break the promise.
    assert failures([0.0, 0.0], 0.5) > allowed
