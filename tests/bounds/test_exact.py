"""Interval arithmetic: enclosures against 60 digits, with both back ends."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch

import pbnn.bounds as pb
from pbnn.bounds import exact
from pbnn.bounds._intervals import Flint, Mpmath, Undecided

mpmath.mp.dps = 60


@pytest.fixture(params=[Flint, Mpmath], ids=["flint", "mpmath"])
def backend(request, monkeypatch):
    if request.param is Flint:
        pytest.importorskip("flint", reason="the extra `exact` is not installed")
    space = exact.Exact(request.param())
    monkeypatch.setattr(exact, "namespace", lambda: space)
    return space


def real(value):
    """The exact value of a float as 60 digits."""
    return mpmath.mpf(value)


def xi(n):
    term = total = mpmath.mpf(1)
    for k in range(n):
        term *= mpmath.mpf(n - k) / n
        total += term
    return total


def as_fraction(value):
    return Fraction(*map(int, mpmath.libmp.to_rational(value._mpf_)))


CALLS = [
    (pb.mcallester, (0.1, 50.0, 10_000), lambda: _mcallester(0.1, 50.0, 10_000)),
    (pb.kl_inverse, (0.0, 0.7), lambda: -mpmath.expm1(-real(0.7))),
    (functools.partial(pb.kl_inverse, side="lower"), (1.0, 0.7), lambda: mpmath.exp(-real(0.7))),
    (pb.log_kt, (1,), lambda: mpmath.log(2)),
    (pb.log_xi, (2,), lambda: mpmath.log(mpmath.mpf(5) / 2)),
    (pb.binary_kl, (0.3, 0.4), lambda: _kl(0.3, 0.4)),
    (pb.clopper_pearson, (0, 5), lambda: 1 - real(0.05) ** (mpmath.mpf(1) / 5)),
]


def _kl(q, p):
    q, p = real(q), real(p)
    return q * mpmath.log(q / p) + (1 - q) * mpmath.log((1 - q) / (1 - p))


def _mcallester(risk, kl, n):
    constant = mpmath.log(2 * mpmath.sqrt(n) / real(0.05))
    return real(risk) + mpmath.sqrt((real(kl) + constant) / (2 * n))


@pytest.mark.parametrize(("bound", "arguments", "value"), CALLS)
def test_the_real_value_lies_between_neighbouring_floats(backend, bound, arguments, value):
    low, high = exact.lower(bound, *arguments), exact.upper(bound, *arguments)
    assert low < value() < high
    assert high == math.nextafter(low, math.inf)


def test_an_exact_value_is_returned_or_its_neighbour(backend):
    assert exact.upper(pb.kl_inverse, 0.25, 0.0) == 0.25
    assert exact.upper(pb.kl_inverse, 1.0, 3.0) == 1.0
    assert exact.upper(pb.maurer, 0.2, math.inf, 100) == 1.0
    assert 0.5 <= exact.upper(pb.clopper_pearson, 0, 1, delta=0.5) <= math.nextafter(0.5, 1)


@pytest.mark.parametrize("side", ["upper", "lower"])
def test_clopper_pearson_solves_its_equation(backend, side):
    cases = [(1, 2, 0.3), (3, 40, 1e-9), (39, 40, 0.4), (7, 9, 0.97), (104, 9_999, 0.05)]
    for k, n, delta in cases:
        low = exact.lower(pb.clopper_pearson, k, n, delta=delta, side=side)
        high = exact.upper(pb.clopper_pearson, k, n, delta=delta, side=side)
        assert high == math.nextafter(low, 1)
        for p, at_least in ((low, side == "upper"), (high, side == "lower")):
            upper_tail = mpmath.betainc(k, n - k + 1, 0, real(p), regularized=True)
            lower_tail = 1 - mpmath.betainc(k + 1, n - k, 0, real(p), regularized=True)
            tail = lower_tail if side == "upper" else upper_tail
            assert (tail >= real(delta)) == at_least


def test_clopper_pearson_where_delta_is_tiny(backend):
    """Near 1 the upper bound rounds to 1; its mirror image near 0 keeps all its digits."""
    for k, n, delta in [(1, 1000, 1e-14), (1, 3, 1e-179), (2, 1000, 1e-300), (3, 50, 1e-60)]:
        low, high = (
            f(pb.clopper_pearson, k, n, delta=delta, side="lower")
            for f in (exact.lower, exact.upper)
        )
        # A third of delta may be a float64 to within 1e-180, and then both neighbours are given.
        assert high <= math.nextafter(math.nextafter(low, 1), 1)
        with mpmath.workdps(700):
            terms = [mpmath.binomial(n, i) * real(low) ** i for i in range(k, k + 4) if i <= n]
            powers = [(1 - real(low)) ** (n - i) for i in range(k, k + 4) if i <= n]
            tail = sum(a * b for a, b in zip(terms, powers, strict=True))
            assert tail < real(delta) < tail * (1 + mpmath.mpf(10) ** -12)
        assert exact.upper(pb.clopper_pearson, n - k, n, delta=delta) <= 1


def test_means_that_miss_the_unit_interval_by_rounding(backend):
    for bound in (pb.maurer, pb.mcallester, pb.quadratic, pb.thiemann):
        below = exact.upper(bound, -9e-13, 0.0, 10**6, delta=0.9)
        assert below == exact.upper(bound, 0.0, 0.0, 10**6, delta=0.9)
        assert below <= bound(-9e-13, 0.0, 10**6, delta=0.9, certify=True)
    assert exact.upper(pb.maurer, 1 + 9e-13, 0.0, 100) == 1


@pytest.mark.parametrize("side", ["upper", "lower"])
def test_the_inverse_encloses_those_of_all_means_and_budgets(backend, side):
    means, budgets = (0.1, 0.2), (0.01, 0.02)
    values = [pb.kl_inverse(q, c, side) for q in means for c in budgets]
    with backend.backend.precision(80):
        ends = backend.kl_inverse(backend.hull(*means), backend.hull(*budgets), side).ends()
    assert list(map(float, ends)) == pytest.approx([min(values), max(values)], rel=1e-7)
    assert ends[0] <= min(values) * (1 + 1e-13)
    assert ends[1] >= max(values) * (1 - 1e-13)


def test_clopper_pearson_of_a_billion(backend):
    low, high = (f(pb.clopper_pearson, 10**6, 10**9) for f in (exact.lower, exact.upper))
    assert high == math.nextafter(low, 1)
    assert low <= pb.clopper_pearson(10**6, 10**9) * (1 + 1e-12)
    assert high >= pb.clopper_pearson(10**6, 10**9) * (1 - 1e-12)


def test_the_exact_constant_is_its_sum(backend):
    for n in (1, 2, 7, 40, 300):
        xi = sum(
            Fraction(math.comb(n, k)) * Fraction(k, n) ** k * Fraction(n - k, n) ** (n - k)
            for k in range(n + 1)
        )
        value = mpmath.log(mpmath.mpf(xi.numerator) / xi.denominator)
        assert exact.lower(pb.log_xi, n) <= value <= exact.upper(pb.log_xi, n)


def test_sums_that_are_cut_off_enclose_the_rest(backend):
    """With few bits the terms that are left out, and those rounded down, are what counts."""
    for bits in (8, 12, 20):
        for n in (1, 2, 3, 7, 20, 60, 200, 1_000, 5_000):
            with backend.backend.precision(bits):
                low, high = backend.log_xi(backend.lift(n)).ends()
            assert low <= as_fraction(mpmath.log(xi(n))) <= high
            assert high - low < Fraction(8 * n + 60, 2**bits)


@pytest.mark.parametrize("bits", [24, 40])
def test_a_binomial_tail_that_is_cut_off_encloses_the_rest(backend, bits):
    for n in (2, 9, 60, 300):
        for k in sorted({0, 1, n // 9, n // 3, n - 1, n}):
            for p in (Fraction(1, 64), Fraction(1, 4), Fraction(3, 8), Fraction(7, 8)):
                with backend.backend.precision(bits):
                    low, high = backend.binomial_tail(k, n, backend.lift(p)).ends()
                tail = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))
                assert low <= tail <= high


def test_the_series_of_the_exact_constant_encloses_it(backend):
    with backend.backend.precision(120):
        for n in (1, 2, 3, 7, 20, 60, 200):
            low, high = backend._log_xi_of_many(backend.lift(n)).ends()
            assert low <= as_fraction(mpmath.log(xi(n))) <= high
            assert high - low < Fraction(1, 300 * n**2)


def test_the_exact_constant_of_many_examples(backend, monkeypatch):
    ends = [f(pb.log_xi, 10**7) for f in (exact.lower, exact.upper)]
    monkeypatch.setattr(exact, "_MANY", 10)
    assert [f(pb.log_xi, 10**7) for f in (exact.lower, exact.upper)] == ends
    for n in (10**9, 10**15):
        low, high = (f(pb.log_xi, n) for f in (exact.lower, exact.upper))
        assert high == math.nextafter(low, math.inf)
        assert pb.log_xi(n) == pytest.approx(high, rel=1e-15)


def test_where_a_float_goes_wrong_the_interval_does_not(backend):
    """Budgets far below the float64 resolution of the risk, and risks near both ends."""
    for q, c in [(0.3, 1e-300), (1e-300, 1e-300), (1 - 2**-53, 1e-13), (0.5, 700.0), (5e-324, 0.1)]:
        for side in ("upper", "lower"):
            low = exact.lower(pb.kl_inverse, q, c, side)
            high = exact.upper(pb.kl_inverse, q, c, side)
            assert 0 <= low <= high <= 1
            assert math.nextafter(low, 1) >= high
            assert (high > q) if side == "upper" else (low < q)


def test_a_comparison_that_is_open_says_so(backend):
    with backend.backend.precision(64):
        third = backend.lift(1) / 3
        for compare in (lambda: third < third, lambda: third <= third, lambda: third == third):
            with pytest.raises(Undecided):
                compare()
        assert third < 0.34
        assert third >= 0.33
        assert backend.lift(0.5) == 0.5
        assert backend.lift(0.5) != 0.25
        assert backend.minimum(third, third).ends()[0] <= Fraction(1, 3)
        assert backend.maximum(third, 0.25).ends()[0] > 0.25
        assert backend.ceil(third).ends() == (1, 1)


def test_clipping_replaces_what_lies_beyond(backend):
    with backend.backend.precision(64):
        third = backend.lift(1) / 3
        assert backend.clip(third - 1, 0.0, 1.0).ends() == (0, 0)
        assert backend.clip(third + 1, 0.0, 1.0).ends() == (1, 1)
        assert backend.clip(third, 0.5, None).ends() == (Fraction(1, 2), Fraction(1, 2))
        assert backend.clip(third, None, 0.25).ends() == (Fraction(1, 4), Fraction(1, 4))
        assert backend.clip(0.25, 0.0, 1.0).ends() == (Fraction(1, 4), Fraction(1, 4))


def test_numbers_of_numpy_are_numbers(backend):
    value = exact.upper(pb.maurer, 0.125, 3.0, 400)
    assert exact.upper(pb.maurer, np.float32(0.125), np.float64(3), np.int64(400)) == value
    for number in (np.int64(3), np.float32(3), np.array(3.0), np.array(3)):
        assert backend.lift(number).ends() == (3, 3)


def test_operations_enclose_what_they_compute(backend):
    rng = np.random.default_rng(0)
    functions = {
        "exp": mpmath.exp,
        "expm1": mpmath.expm1,
        "log": mpmath.log,
        "log1p": mpmath.log1p,
        "sqrt": mpmath.sqrt,
        "lgamma": mpmath.loggamma,
    }
    with backend.backend.precision(80):
        for x, y in rng.uniform(0.01, 5, (50, 2)):
            a, b = backend.lift(x), backend.lift(y)
            pairs = [
                (a + b, real(x) + real(y)),
                (a - b, real(x) - real(y)),
                (a * b, real(x) * real(y)),
                (a / b, real(x) / real(y)),
                (2 - a, 2 - real(x)),
                (2 / a, 2 / real(x)),
                (a**3, real(x) ** 3),
                (abs(a - b), abs(real(x) - real(y))),
                (-a, -real(x)),
            ]
            pairs += [(getattr(backend, name)(a), f(real(x))) for name, f in functions.items()]
            for found, value in pairs:
                low, high = found.ends()
                assert low <= as_fraction(value) <= high
                assert high - low <= Fraction(1, 2**64)


def test_a_branch_that_is_not_taken_may_be_anything(backend):
    bad = backend.log(backend.lift(-1))
    assert backend.where(True, 0.5, bad).ends() == (Fraction(1, 2), Fraction(1, 2))
    with pytest.raises(Undecided):
        bad.ends()
    with pytest.raises(AttributeError, match="cosh"):
        backend.cosh(1)


def test_arrays_and_bad_input_are_refused(backend):
    with pytest.raises(TypeError, match=r"must be numbers, one of each at a time.*once for each"):
        exact.upper(pb.maurer, np.array([0.1]), 1.0, 10)
    with pytest.raises(TypeError, match="must be numbers"):
        exact.upper(pb.maurer, torch.tensor([0.1]), 1.0, 10)
    with pytest.raises(ValueError, match="`risk` must lie"):
        exact.upper(pb.maurer, 1.5, 1.0, 10)


def test_without_flint_mpmath_serves(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "flint", None)
    exact.namespace.cache_clear()
    try:
        assert isinstance(exact.namespace().backend, Mpmath)
    finally:
        exact.namespace.cache_clear()


def test_an_enclosure_with_one_end_out_of_reach_is_not_taken_for_a_tiny_number(backend):
    """Of mpmath's intervals either end may be too small for a fraction; the other still counts."""
    with backend.backend.precision(64):
        tiny = backend.exp(-(backend.lift(10**6)))
        assert tiny.ends() == (0, Fraction(1, 2**1100))
        wide = backend.hull(tiny, 0.5)
        try:
            low, high = wide.ends()
        except Undecided:
            return
        assert low <= 0 or low < Fraction(1, 2**1100)
        assert high >= 0.5
