"""What holds of every bound over the whole range of its arguments."""

from __future__ import annotations

import inspect
import math
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import pbnn.bounds as pb
from pbnn.bounds import exact

# The same examples every time, and no clock.
often = settings(derandomize=True, deadline=None, database=None, max_examples=80)
seldom = settings(often, max_examples=20)

LEAST, MOST = 1e-300, 1 - 2**-53


def magnitudes(low, high):
    """Numbers of every order of magnitude."""
    return st.floats(math.log(low), math.log(high)).map(lambda x: min(max(math.exp(x), low), high))


SHARES = magnitudes(LEAST, 0.5) | magnitudes(2**-53, 0.5).map(lambda x: 1 - x)
PROBABILITIES = st.just(0.0) | st.just(1.0) | SHARES
COSTS = st.just(0.0) | magnitudes(LEAST, 1e9) | magnitudes(1e-2, 1e4)
COUNTS = st.integers(1, 50) | magnitudes(1, 1e12).map(round)
DELTAS = magnitudes(LEAST, 0.5) | magnitudes(2**-53, 0.5).map(lambda x: 1 - x) | st.just(0.05)
ABOVE_ONE = magnitudes(1e-6, 1e6).map(lambda x: 1 + x)
POSITIVE = magnitudes(1e-6, 1e6)
VALUES = {
    **dict.fromkeys(("risk", "tandem_loss", "disagreement_rate", "gibbs_bound"), PROBABILITIES),
    **dict.fromkeys(("kl", "divergence", "nats"), COSTS),
    **dict.fromkeys(("n", "n_pairs", "draws"), COUNTS),
    **dict.fromkeys(("delta", "delta_mc"), DELTAS),
    **dict.fromkeys(("C", "s2"), POSITIVE),
    **dict.fromkeys(("alpha", "gamma", "c1", "c2"), ABOVE_ONE),
    **dict.fromkeys(("variance", "second_moment"), COSTS),
    "log_ratio": COSTS | COSTS.map(lambda x: -x),
    "c": st.floats(0, 1),
    "b": POSITIVE,
    "types": st.integers(2, 6),
    "steps": st.integers(1, 20),
}
GRID = st.floats(1e-3, 1 - 1e-3)  # of what is squeezed between bounds of its own
FALLING = {j: st.lists(PROBABILITIES, min_size=j, max_size=j) for j in (2, 3)}


def falling(levels):
    return tuple(sorted(levels, reverse=True))


# Arguments with a domain of their own, or that others limit.
OWN = {
    "thiemann": {"lam": st.floats(1e-6, 2 - 1e-6)},
    "catoni_union": {"lam": ABOVE_ONE, "alpha": st.floats(1.01, 10)},
    "alquier": {"lam": POSITIVE},
    "sub_gamma": {"lam": magnitudes(1e-3, 999), "n": magnitudes(1e3, 1e12).map(round)},
    "empirical_bernstein": {"n": COUNTS.map(lambda n: n + 1)},
    "maurer_pontil": {"n": COUNTS.map(lambda n: n + 1)},
    "unexpected_bernstein": {"loss": st.floats(-2, 1e-6)},
    "split_kl": {"a": st.floats(-2, -1), "b": st.floats(1, 2), "mu": st.floats(-0.5, 0.5)}
    | {"plus": st.floats(0, 0.5), "minus": st.floats(0, 0.5)},
    "split_kl_discrete": {"frequency": FALLING[2].map(falling), "values": st.just((-0.5, 0.2, 1))},
    "recursive_excess": {"frequency": FALLING[3].map(falling), "gamma": GRID},
    "recursive": {
        "frequency": st.tuples(PROBABILITIES, FALLING[3].map(falling)),
        "kl": st.tuples(COSTS, COSTS),
        "n": st.tuples(COUNTS, COUNTS),
        "gamma": st.tuples(GRID),
    },
    "c_bound": {"disagreement_rate": st.floats(0, 0.499)},
    "c_bound_joint": {"tandem_loss": st.floats(0, 0.5), "disagreement_rate": st.floats(0, 0.5)},
    "chernoff": {"errors": st.integers(0, 40), "n": COUNTS.map(lambda n: n + 41)},
    "clopper_pearson": {"errors": st.integers(0, 40), "n": COUNTS.map(lambda n: n + 41)}
    | {"delta": magnitudes(1e-80, 0.5) | magnitudes(2**-53, 0.5).map(lambda x: 1 - x)},
    # A Gibbs bound below the least loss is wrong, and the bound then 1.
    "derandomised": {"gibbs_bound": st.floats(0.2, 1), "lower_right": st.floats(0, 0.19)}
    | {"lower_wrong": st.floats(0.5, 1)},
    "monte_carlo_batches": {
        "errors": st.lists(st.floats(0, 10), min_size=3, max_size=3),
        "sizes": st.just([10.0, 25.0, 40.0]),
    },
    "betting": {"losses": st.lists(PROBABILITIES, min_size=1, max_size=1).map(lambda x: x * 20)},
}

KL_FAMILY = {"risk": 1, "kl": 1, "n": -1, "delta": -1}
BY_DIVERGENCE = {"risk": 1, "divergence": 1, "n": -1, "delta": -1}
BY_NATS = {"risk": 1, "nats": 1, "n": -1, "delta": -1}
BY_ERRORS = {"errors": 1, "n": -1, "delta": -1}
TWO_EVENTS = {"kl": 1, "n": -1, "n_pairs": -1, "delta": -1}
# +1 where the bound grows with the argument, -1 where it falls. Where several are left out, the
# theory says no such thing: grids have as many points as n and delta ask for, the forms of the
# empirical Bernstein bound do not meet, a log-ratio may be credit that is shared among the
# examples, and temperatures have a best value inside.
MONOTONE: dict[str, dict[str, int]] = {
    **dict.fromkeys(("maurer", "maurer_xi", "anytime", "seeger", "mcallester"), KL_FAMILY),
    **dict.fromkeys(("quadratic", "tolstikhin_seldin", "first_order"), KL_FAMILY),
    **dict.fromkeys(("catoni", "catoni_fixed", "thiemann", "fast_rate"), KL_FAMILY),
    **dict.fromkeys(("alquier", "catoni_union"), KL_FAMILY),
    "sub_gamma": KL_FAMILY | {"s2": 1, "c": 1},
    **dict.fromkeys(("renyi", "chi_square"), BY_DIVERGENCE),
    "viallard": BY_DIVERGENCE | {"alpha": -1},
    "rivasplata": {"risk": 1, "log_ratio": 1, "delta": -1},
    **dict.fromkeys(("occam", "occam_hoeffding"), BY_NATS),
    "tandem": {"tandem_loss": 1, "kl": 1, "n": -1, "delta": -1},
    "disagreement": TWO_EVENTS | {"risk": 1, "disagreement_rate": -1},
    "c_bound": TWO_EVENTS | {"risk": 1, "disagreement_rate": -1},
    "c_tandem": TWO_EVENTS,
    "c_bound_joint": {"kl": 1, "n": -1, "delta": -1},
    "derandomised": {"gibbs_bound": 1, "lower_right": -1, "lower_wrong": -1},
    "vector_kl": {"kl": 1, "n": -1, "types": 1, "delta": -1},
    "split_kl": {"plus": 1, "minus": -1, "kl": 1, "n": -1, "delta": -1},
    "split_kl_discrete": {"frequency": 1, "kl": 1, "n": -1, "delta": -1},
    "recursive_excess": {"frequency": 1, "kl": 1, "n": -1, "delta": -1, "delta_mc": -1}
    | {"steps": 1},
    "recursive": {"frequency": 1, "kl": 1, "n": -1, "delta": -1, "delta_mc": -1},
    "empirical_bernstein": {"risk": 1, "variance": 1},
    "unexpected_bernstein": {"loss": 1, "second_moment": 1, "kl": 1},
    "maurer_pontil": {"risk": 1, "variance": 1, "n": -1, "delta": -1},
    **dict.fromkeys(("clopper_pearson", "chernoff"), BY_ERRORS),
    "monte_carlo": {"risk": 1, "draws": -1, "delta": -1},
    "monte_carlo_batches": {"errors": 1, "delta": -1},
    "betting": {"losses": 1},
}
NAMES = sorted(MONOTONE)
# Theirs is the order of clipped values: they tell nothing, or nothing more, beyond 1.
CLIPPED = {"c_bound", "c_tandem", "catoni_union", "derandomised", "recursive", "thiemann"}

ROUNDING = 4 * 2.0**-52
# Sums whose terms cancel, inverses by search, and SciPy's.
ERRORS = {
    "betting": 2e-10,
    "c_bound_joint": 1e-9,
    "clopper_pearson": 1e-9,
    **dict.fromkeys(("c_tandem", "c_bound", "disagreement"), 1e-13),
    **dict.fromkeys(("split_kl", "split_kl_discrete"), 1e-14),
}


def arguments(name):
    """All of a bound's that numbers stand for."""
    own, options = OWN.get(name, {}), {"constant", "side", "tight", "fixed"}
    every = (a for a in pb.CATALOGUE[name].inputs if a not in options)
    return {a: own[a] if a in own else VALUES[a] for a in every}


def test_every_bound_has_its_properties_told():
    assert set(MONOTONE) == set(pb.CATALOGUE)


def raw(name):
    clips = "clip" in inspect.signature(pb.CATALOGUE[name].function).parameters
    return {"clip": False} if clips and name not in CLIPPED else {}


def ordered(one, other):
    """Two values with the first nowhere above, entry by entry for a sequence."""
    if isinstance(one, (tuple, list)):
        pairs = [ordered(a, b) for a, b in zip(one, other, strict=True)]
        return tuple(type(one)(entries) for entries in zip(*pairs, strict=True))
    return min(one, other), max(one, other)


def beside(x):
    """The next number, where there is one that every domain has."""
    if isinstance(x, (tuple, list)):
        return type(x)(map(beside, x))
    if isinstance(x, int):
        return x + 1
    return math.nextafter(x, 1) if isinstance(x, float) and 0 < x < MOST else x


@pytest.mark.parametrize("name", NAMES)
def test_neighbours(name):
    bound, strategies = pb.CATALOGUE[name].function, arguments(name)

    @settings(seldom, max_examples=3 if name == "c_bound_joint" else 20)
    @given(st.fixed_dictionaries(strategies))
    def holds(here):
        for argument, sign in MONOTONE[name].items():
            x = here[argument]
            near = (x, beside(x))[::sign]
            least, most = (bound(**here | {argument: x}, **raw(name)) for x in near)
            error = ERRORS.get(name, ROUNDING)
            assert least <= most + error * max(abs(least), abs(most), name in ERRORS), argument

    holds()


@pytest.mark.parametrize("name", NAMES)
def test_monotone(name):
    bound, strategies = pb.CATALOGUE[name].function, arguments(name)
    strategy = st.fixed_dictionaries(strategies)

    @settings(seldom, max_examples=5 if name == "c_bound_joint" else 20)
    @given(strategy, strategy)
    def holds(here, there):
        for argument, sign in MONOTONE[name].items():
            low, high = ordered(here[argument], there[argument])
            far = (low, high)[::sign]
            least, most = (bound(**here | {argument: x}, **raw(name)) for x in far)
            error = ERRORS.get(name, ROUNDING)
            assert least <= most + error * max(abs(least), abs(most), name in ERRORS), argument

    holds()


def test_clopper_and_pearson_at_a_tiny_delta():
    """It is 1 - delta^(1/5), and the lower one is about (delta / 10)^(1/3)."""
    p = pb.clopper_pearson(0, 5, delta=1e-120)
    assert p == 1.0
    lower = pb.clopper_pearson(3, 5, delta=1e-120, side="lower")
    assert lower == pytest.approx((1e-120 / 10) ** (1 / 3), rel=1e-10)


def test_an_exact_clopper_and_pearson_next_to_one():
    """With one success it is (1 - delta)^(1/n)."""
    assert exact.upper(pb.clopper_pearson, 9, 10, delta=1e-20) == 1.0
    assert exact.lower(pb.clopper_pearson, 9, 10, delta=1e-20) == math.nextafter(1.0, 0.0)


CERTIFIED = [
    n for n in NAMES if "certify" in inspect.signature(pb.CATALOGUE[n].function).parameters
]


@pytest.mark.parametrize("name", CERTIFIED)
def test_a_certificate_is_not_inside_the_value(name):
    bound = pb.CATALOGUE[name].function
    sides = ("upper", "lower") if "side" in pb.CATALOGUE[name].inputs else (None,)

    @seldom
    @given(st.fixed_dictionaries(arguments(name)))
    def holds(here):
        for side in sides:
            options = {"side": side} if side else {}
            value, certified = (bound(**here, **options, certify=c) for c in (False, True))
            sign = -1 if side == "lower" else 1
            assert 0 <= certified <= 1
            assert sign * certified >= sign * value
            # A negative log-ratio may cancel the price.
            room = {"clopper_pearson": 2e-10, "rivasplata": 1e-10}.get(name, 1e-13)
            # Below a lower inverse the error is relative to ln(q / p).
            room *= 1 - math.log(value) if value and side == "lower" else 1
            assert abs(certified - value) <= room * value + 1e-300

    holds()


# Searches, which have no interval form.
ENCLOSED = sorted(set(NAMES) - {"betting", "c_bound_joint", "monte_carlo_batches"})
DIFFERENCES = {
    **dict.fromkeys(("disagreement", "split_kl", "split_kl_discrete"), 1e-13),
    **dict.fromkeys(("recursive", "recursive_excess", "unexpected_bernstein"), 1e-13),
}


@pytest.mark.parametrize("name", ENCLOSED)
def test_the_value_lies_between_exact_ends(name):
    bound = pb.CATALOGUE[name].function
    strategies = arguments(name)
    if name == "maurer_xi":  # a sum over the examples
        strategies |= {"n": st.integers(1, 3000)}
    if name == "clopper_pearson":
        strategies |= {"n": st.integers(41, 10**9), "delta": magnitudes(1e-12, 0.5)}
    if name in ("c_bound", "c_tandem"):  # away from where their denominator vanishes
        strategies |= {"kl": st.floats(0, 10), "n": st.integers(1000, 10**6)}
        strategies |= {"n_pairs": st.integers(1000, 10**6), "delta": st.floats(1e-6, 0.5)}
        strategies |= {"risk": st.floats(0, 0.2), "disagreement_rate": st.floats(0, 0.3)}
        strategies = {a: strategies[a] for a in arguments(name)}

    @settings(often, max_examples=10)
    @given(st.fixed_dictionaries(strategies))
    def holds(here):
        value = bound(**here)
        low, high = exact.lower(bound, **here), exact.upper(bound, **here)
        # Each is next to the real value, which may be as good as a float64.
        assert low <= high <= math.nextafter(math.nextafter(low, math.inf), math.inf)
        error = (
            (1e-11 if name == "clopper_pearson" else 1e-13) * value
            + DIFFERENCES.get(name, 0)
            + 1e-300
        )
        assert low - error <= value <= high + error
        if name in CERTIFIED:
            assert high <= bound(**here, certify=True)

    holds()


WITH_DIVERGENCE = [n for n in NAMES if {"risk", "kl", "n"} <= set(pb.CATALOGUE[n].inputs)]


@pytest.mark.parametrize("name", WITH_DIVERGENCE)
def test_ends_of_divergence_and_count(name):
    bound = pb.CATALOGUE[name].function

    @seldom
    @given(st.fixed_dictionaries(arguments(name)))
    def holds(here):
        if name != "tolstikhin_seldin" or here["risk"]:  # see below
            assert bound(**here | {"kl": math.inf}) == 1
        for n in (10**9, 10**15):
            sizes = {"n": n} | ({"n_pairs": n} if "n_pairs" in here else {})
            assert 0 <= bound(**here | sizes) <= 1
        value = bound(**here | {"kl": 0.0})
        assert 0 <= value <= 1
        # A vote may err less often than the classifiers that it is made of.
        if name not in ("c_bound", "c_tandem", "disagreement"):
            assert value >= here["risk"] * (1 - ROUNDING)

    holds()


def test_tolstikhin_and_seldin_without_errors_at_an_infinite_divergence():
    assert pb.tolstikhin_seldin(0.0, math.inf, 100) == 1


@often
@given(PROBABILITIES, magnitudes(LEAST, 1e9) | COSTS)
def test_the_inverses_are_on_either_side_of_the_mean_at_their_budget(q, c):
    lower, upper = (pb.kl_inverse(q, c, side) for side in ("lower", "upper"))
    assert 0 <= lower <= q * (1 + ROUNDING)
    assert q * (1 - ROUNDING) <= upper <= 1
    for p in (lower, upper):
        # The budget of a rounded mean, whose slope in p is (p - q) / (p (1 - p)).
        if 1e-290 < p < 1 - 1e-6 and abs(p - q) > 1e-3 * p:
            slope = abs(p - q) / (1 - p)
            assert pb.binary_kl(q, p) == pytest.approx(c, rel=1e-13, abs=64 * 2.0**-53 * slope)


@often
@given(SHARES, SHARES)
def test_an_inverse_takes_back_the_divergence(q, p):
    assume(1e-290 < q < 1 - 1e-6 and 1e-290 < p < 1 - 1e-6)
    assume(abs(p - q) > 1e-3 * max(p, q))
    side = "upper" if p > q else "lower"
    # Relative to the budget, p moves by p (1 - p) kl / (p - q).
    c = pb.binary_kl(q, p)
    steep = c * (1 - p) / abs(p - q)
    got = pb.kl_inverse(q, c, side)
    assert got == pytest.approx(p, rel=2.0**-52 * (60 + 8 * steep))


@often
@given(st.integers(0, 2**20), magnitudes(1e-12, 30))
def test_the_inverses_are_mirror_images(k, c):
    """At shares of which the complement is a float64 too."""
    q = k / 2**20
    mirrored = 1 - pb.kl_inverse(1 - q, c, "upper")
    assert pb.kl_inverse(q, c, "lower") == pytest.approx(mirrored, rel=0, abs=1e-14)
    assert pb.binary_kl(q, 0.25) == pytest.approx(pb.binary_kl(1 - q, 0.75), rel=1e-14)


POINTS = {"risk": PROBABILITIES, "kl": COSTS, "n": COUNTS, "delta": DELTAS}


@often
@given(st.fixed_dictionaries(POINTS))
def test_constants_are_ordered(point):
    kinds = [pb.maurer(**point, constant=c) for c in ("xi", "kt", "maurer", "seeger")]
    for tighter, looser in pairwise(kinds):
        assert tighter <= looser * (1 + ROUNDING)
    logarithms = pb.log_xi(point["n"]), pb.log_kt(point["n"]), math.log(4 * point["n"]) / 2
    for tighter, looser in pairwise(logarithms):
        assert tighter <= looser * (1 + ROUNDING)
    if point["n"] > 1:
        assert logarithms[0] < logarithms[1] < logarithms[2] < math.log1p(point["n"])


@often
@given(
    st.fixed_dictionaries(POINTS),
    magnitudes(1e-6, 1e6),
    ABOVE_ONE,
    st.floats(1e-6, 2 - 1e-6),
)
def test_relaxations_are_never_tighter(point, C, gamma, lam):
    best = pb.maurer(**point, clip=False)
    tight = pb.quadratic(**point, tight=True, clip=False)
    quadratic = pb.quadratic(**point, clip=False)
    thiemann = pb.thiemann(**point, clip=False)
    fast_rate = pb.fast_rate(**point, clip=False)
    error = 1 + 4 * ROUNDING
    for looser in (
        pb.catoni(**point, C=C, clip=False),
        pb.mcallester(**point, clip=False),
        tight,
        fast_rate,
    ):
        assert best <= looser * error
    assert tight <= quadratic * error
    assert quadratic == pytest.approx(thiemann, rel=1e-13)
    assert quadratic <= pb.tolstikhin_seldin(**point, clip=False) * error
    assert thiemann <= pb.thiemann(**point, lam=lam, clip=False) * error
    assert fast_rate <= pb.fast_rate(**point, gamma=gamma, clip=False) * error
    assert fast_rate <= quadratic * error
    # By n of Chernoff's, whose lam is that of the exponent: C = -ln(1 - 1 / gamma).
    linear = pb.fast_rate(**point, gamma=gamma, clip=False)
    assert pb.catoni(**point, C=-math.log1p(-1 / gamma), clip=False) <= linear * (1 + 1e-9)


@often
@given(st.fixed_dictionaries(POINTS | {"risk": SHARES}))
def test_the_best_temperature_of_catoni_gives_maurer(point):
    best, C = pb.maurer(**point), pb.catoni_optimal_c(**point)
    assert C > 0
    if C < 700 and best < 1:
        assert pb.catoni(**point, C=C) == pytest.approx(best, rel=1e-12)
        for factor in (0.9, 1.1):
            assert pb.catoni(**point, C=C * factor) >= best * (1 - 1e-13)


@often
@given(st.fixed_dictionaries(POINTS), magnitudes(1, 1e6))
def test_votes_are_bounded_by_multiples_of_the_gibbs_bound(point, divergence):
    gibbs = pb.maurer(**point)
    assert pb.first_order(**point, clip=False) == 2 * gibbs
    assert pb.derandomised(gibbs, clip=False) == 2 * gibbs
    doubled = point | {"kl": 2 * point["kl"]}
    pair = {"tandem_loss": point["risk"], "kl": point["kl"]}
    tandem = pb.tandem(**pair, n=point["n"], delta=point["delta"], clip=False)
    assert tandem == 4 * pb.maurer(**doubled)
    assert pb.renyi(point["risk"], divergence, point["n"], delta=point["delta"]) == pb.maurer(
        **point | {"kl": divergence}
    )


@often
@given(st.integers(0, 40), COUNTS, magnitudes(1e-80, 0.5))
def test_bounds_on_held_out_errors_are_ordered(errors, more, delta):
    n = 40 + more
    risk = errors / n
    exact_one = pb.clopper_pearson(errors, n, delta=delta)
    chernoff = pb.chernoff(errors, n, delta=delta)
    assert risk <= exact_one <= chernoff * (1 + 1e-9)
    assert chernoff <= pb.maurer(risk, 0.0, n, delta=delta) * (1 + ROUNDING)
    assert chernoff == pytest.approx(pb.occam(risk, 0.0, n, delta=delta), rel=1e-14)
    assert chernoff == pb.monte_carlo(risk, n, delta=delta)
    assert pb.clopper_pearson(errors, n, delta=delta, side="lower") <= risk
