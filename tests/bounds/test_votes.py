"""Bounds on a majority vote."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from pbnn.bounds import (
    CATALOGUE,
    binary_kl,
    c_bound,
    c_bound_joint,
    c_tandem,
    derandomised,
    disagreement,
    first_order,
    kl_inverse,
    log_xi,
    maurer,
    tandem,
)
from pbnn.bounds.exact import upper

MANY = 10**15


def price(n, delta):
    return math.log(2 * math.sqrt(n) / delta)


def worlds(count):
    """Risks of a vote, of its Gibbs classifier and of its pairs, by enumeration."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        examples, voters = rng.integers(1, 5), rng.integers(2, 6)
        p, w = rng.dirichlet(np.ones(examples)), rng.dirichlet(np.ones(voters))
        errs = rng.integers(0, 2, (examples, voters)) * (rng.random((examples, 1)) < 0.7)
        share = errs @ w
        pairs = list(itertools.product(range(voters), repeat=2))
        both = sum(w[i] * w[j] * p @ (errs[:, i] * errs[:, j]) for i, j in pairs)
        differ = sum(w[i] * w[j] * p @ (errs[:, i] != errs[:, j]) for i, j in pairs)
        yield float(p @ (share >= 0.5)), float(p @ share), float(both), float(differ)


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


def test_nothing_follows_from_a_gibbs_bound_below_the_least_loss():
    assert derandomised(0.05, 0.1, 0.5) == 1
    assert derandomised(0.05, 0.1, 0.5, clip=False) == pytest.approx(-0.125)
    assert derandomised(0.1, 0.1, 0.5) == 0


def test_votes_rounded_outward():
    rng = np.random.default_rng(0)
    for bound, b, c in rng.uniform(0, 1, (2_000, 3)):
        if b < c:
            got = derandomised(bound, b, c, clip=False, certify=True)
            assert Fraction(got) >= (Fraction(bound) - Fraction(b)) / (Fraction(c) - Fraction(b))
    # Doubling is exact in floating point, so the order cannot be lost.
    tight = maurer(0.1, 5.0, 300, certify=True)
    assert first_order(0.1, 5.0, 300, certify=True) >= 2 * tight
    assert tandem(0.01, 5.0, 300, certify=True) >= tandem(0.01, 5.0, 300)


@pytest.mark.parametrize(("b", "c"), [(0.5, 0.5), (0.6, 0.5), (np.array([0.1, 0.7]), 0.5)])
def test_constants_out_of_order_are_refused(b, c):
    with pytest.raises(ValueError, match=r"`lower_right` must be below `lower_wrong`, got 0\."):
        derandomised(0.3, b, c)


@pytest.mark.parametrize("bound", [first_order, tandem])
@pytest.mark.parametrize("constant", ["xi", "kt", "seeger"])
def test_votes_take_the_other_constants(bound, constant):
    factor, kl = (2, 5.0) if bound is first_order else (4, 10.0)
    expected = factor * maurer(0.02, kl, 300, delta=0.02, constant=constant)
    assert bound(0.02, 5.0, 300, delta=0.02, constant=constant) == pytest.approx(expected)
    assert expected != factor * maurer(0.02, kl, 300, delta=0.02)


def test_each_event_of_two_has_half_of_delta():
    gibbs, pair = (5 + price(300, 0.01)) / 300, (10 + price(700, 0.01)) / 700
    r, least = kl_inverse(0.2, gibbs), kl_inverse(0.2, gibbs, "lower")
    d = kl_inverse(0.3, pair, "lower")
    e, few = kl_inverse(0.05, pair), kl_inverse(0.05, pair, "lower")
    a = {"n_pairs": 700, "delta": 0.02, "clip": False}
    assert disagreement(0.2, 0.3, 5.0, 300, **a) == pytest.approx(4 * r - 2 * d, rel=1e-14)
    expected = 1 - (1 - 2 * r) ** 2 / (1 - 2 * d)
    assert c_bound(0.2, 0.3, 5.0, 300, **a) == pytest.approx(expected, rel=1e-13)
    gibbs, pair = (1 + price(3000, 0.01)) / 3000, (2 + price(7000, 0.01)) / 7000
    r, least = kl_inverse(0.2, gibbs), kl_inverse(0.2, gibbs, "lower")
    e, few = kl_inverse(0.05, pair), kl_inverse(0.05, pair, "lower")
    expected = (e - least**2) / (few - r + 0.25)
    got = c_tandem(0.2, 0.05, 1.0, 3000, **(a | {"n_pairs": 7000}))
    assert got == pytest.approx(expected, rel=1e-13)


def test_defaults():
    assert tandem(0.02, 5.0, 300) == 4 * maurer(0.02, 10.0, 300, delta=0.05, certify=False)
    for bound in (disagreement, c_tandem, c_bound):
        given = (0.2, 0.06, 1.0, 5000)
        assert bound(*given) == bound(*given, delta=0.05, constant="maurer", clip=True)
    assert c_bound_joint(0.02, 0.1, 1.0, 900) == c_bound_joint(0.02, 0.1, 1.0, 900, delta=0.05)
    assert c_bound_joint(0.02, 0.1, 1.0, 900) < c_bound_joint(0.02, 0.1, 1.0, 900, delta=0.01)


@pytest.mark.parametrize("bound", [disagreement, c_tandem, c_bound])
def test_bounds_of_two_events(bound):
    """The number of pairs is that of examples; the constant is passed on; nothing known is 1."""
    given = (0.2, 0.06, 1.0, 5000)
    assert bound(*given) == bound(*given, n_pairs=5000) < 1
    assert bound(*given, n_pairs=50_000) < bound(*given)
    assert bound(*given, constant="xi") < bound(*given)
    assert bound(*given, constant="seeger") > bound(*given)
    assert bound(0.2, 0.06, math.inf, 5000) == 1
    assert bound(0.49, 0.4, 1.0, 5000) == 1
    assert upper(bound, *given) == pytest.approx(bound(*given), rel=1e-13)
    assert upper(bound, 0.49, 0.45, 1.0, 5000) == 1


def test_second_order_bounds_hold_for_every_vote():
    """At n = 10^15 the bounds are their limits, which no vote exceeds."""
    useful, joint = 0, []
    for vote, r, e, d in worlds(300):
        assert e == pytest.approx(r - d / 2, abs=1e-15)
        limits = [4 * r - 2 * d, 4 * e]
        bounds = [disagreement(r, d, 0.0, MANY, clip=False), tandem(e, 0.0, MANY, clip=False)]
        if r < 0.4:
            limits += [1 - (1 - 2 * r) ** 2 / (1 - 2 * d)] * 2
            bounds += [c_bound(r, d, 0.0, MANY), c_tandem(r, e, 0.0, MANY)]
            useful += 0 < limits[-1] < 0.9
        else:
            bounds += [c_bound(r, d, 0.0, MANY), c_tandem(r, e, 0.0, MANY)]
            assert r < 0.5 or bounds[2:] == [1, 1]
        assert np.all(np.array(bounds) >= vote - 1e-12)
        np.testing.assert_allclose(bounds[: len(limits)], limits, atol=2e-4)
        assert np.all(np.array(bounds[: len(limits)]) >= np.array(limits) - 1e-12)
        joint.append((vote, e, d))
    assert useful > 50
    votes, e, d = np.array(joint).T
    for n in (30, 3000):
        assert np.all(c_bound_joint(np.minimum(e, 1 - d), d, 0.0, n) >= votes)


def test_c_tandem_tells_nothing_without_a_positive_denominator():
    assert c_tandem(0.4, 0.0, 0.0, 10_000, clip=False) == 1
    assert c_tandem(0.3, 0.13, 0.0, 3000, clip=False) > 1
    assert c_tandem(0.3, 0.13, 0.0, 3000) == 1
    # A loss of pairs below the square of the risk cannot be; the bound is not negative.
    assert c_tandem(0.1, 0.0, 0.0, 10**9, clip=False) < 0 == c_tandem(0.1, 0.0, 0.0, 10**9)


def test_c_bound_of_a_disagreement_that_cannot_be():
    assert c_bound(0.2, 0.9, 0.0, 10_000, clip=False) == 1
    assert c_bound(0.2, 0.45, 0.0, 10_000, clip=False) < 0 == c_bound(0.2, 0.45, 0.0, 10_000)


@pytest.mark.parametrize("bound", [disagreement, c_tandem, c_bound])
def test_gradients(bound):
    values = [[0.2, 0.15], [0.06, 0.05], [1.0, 3.0], [5000.0, 9000.0], [0.05, 0.1]]
    given = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]

    def function(risk, other, kl, n, delta):
        return bound(risk, other, kl, n, delta=delta, clip=False)

    assert torch.autograd.gradcheck(function, given, eps=1e-7, atol=1e-5)
    flat = torch.tensor([0.6], dtype=torch.float64, requires_grad=True)
    bound(flat, 0.45, 1.0, 100, clip=False).sum().backward()
    assert flat.grad.isfinite().all()


def trinomial_kl(q, e, d):
    p = (e, d, 1 - e - d)
    return sum(a * np.log(a / b) for a, b in zip(q, p, strict=True) if a > 0)


def supremum(e, d, budget):
    """Over the disagreement on two grids; the largest loss is a kl inverse of what is left."""
    low, high = kl_inverse(d, budget, "lower"), min(kl_inverse(d, budget), 0.5 - 1e-12)
    for _ in range(2):
        rate = np.linspace(low, high, 2001)
        left = np.maximum(0, budget - binary_kl(d, rate)) / (1 - d)
        loss = (1 - rate) * kl_inverse(np.full(2001, e / (1 - d)), left)
        ratio = (1 - 2 * loss - rate) ** 2 / (1 - 2 * rate)
        value = np.where(2 * loss + rate < 1, 1 - ratio, 1)
        best = int(value.argmax())
        low, high = rate[max(best - 1, 0)], rate[min(best + 1, 2000)]
    return value.max()


def joint_budget(kl, n, delta=0.05):
    return (2 * kl + math.log((2 * math.sqrt(n) + n) / delta)) / n


@pytest.mark.parametrize("n", [60, 600, 60_000])
def test_the_joint_c_bound_is_the_supremum_and_never_below(n):
    rng = np.random.default_rng(n)
    r = rng.uniform(0.001, 0.45, 40) * rng.choice([0.1, 1.0], 40)
    e = rng.uniform(r * r, r)
    d, kl = 2 * (r - e), rng.choice([0.0, 1.0, 40.0], 40)
    got = c_bound_joint(e, d, kl, n)
    for i in range(40):
        expected = supremum(e[i], d[i], joint_budget(kl[i], n))
        assert expected <= got[i] <= expected + 1e-11
    assert np.mean(got < 1) > 0.3


def test_the_joint_c_bound_on_a_grid_of_both():
    e, d, n = 0.03, 0.1, 900
    budget = joint_budget(1.0, n)
    losses, rates = np.meshgrid(np.linspace(1e-4, 0.3, 1500), np.linspace(1e-4, 0.45, 1500))
    inside = trinomial_kl((e, d, 1 - e - d), losses, rates) <= budget
    inside &= rates <= 2 * np.sqrt(losses) - 2 * losses
    value = 1 - (1 - 2 * losses - rates) ** 2 / (1 - 2 * rates)
    best = value[inside].max()
    assert best <= c_bound_joint(e, d, 1.0, n) <= best + 2e-3


def test_the_joint_c_bound_in_closed_form():
    """Nothing observed: the worst pair has no disagreement and all the budget in the loss."""
    for n in (100, 10_000):
        s = -math.expm1(-joint_budget(2.0, n))
        assert c_bound_joint(0.0, 0.0, 2.0, n) == pytest.approx(4 * s * (1 - s), rel=1e-9)
    assert c_bound_joint(0.0, 0.0, 2.0, 10) == 1
    assert c_bound_joint(0.0, 0.0, math.inf, 100) == 1
    assert c_bound_joint(0.3, 0.4, 0.0, 100) == 1
    assert c_bound_joint(0.04, 0.16, 0.0, MANY) == pytest.approx(1 - 0.76**2 / 0.68, abs=1e-5)


def test_the_joint_c_bound_in_the_case_of_more_disagreement_than_risk():
    e, r = 0.03, 0.14
    d = 2 * (r - e)
    expected = supremum(e, d, joint_budget(0.0, 10**6))
    assert expected <= c_bound_joint(e, d, 0.0, 10**6) <= expected + 1e-11


def test_the_constant_of_three_outcomes_by_enumeration():
    """The mean of exp(n kl) is xi(n) + n, below 2 sqrt(n) + n."""
    for n in range(1, 9):
        total = Fraction(0)
        for i, j in itertools.product(range(n + 1), repeat=2):
            if i + j <= n:
                k = n - i - j
                ways = math.factorial(n) // math.prod(map(math.factorial, (i, j, k)))
                total += ways * Fraction(i**i * j**j * k**k, n**n)
        exact = math.exp(log_xi(n)) + n
        assert float(total) == pytest.approx(exact, rel=1e-14)
        assert exact <= 2 * math.sqrt(n) + n
    n = 50
    s = -math.expm1(-(math.log((math.exp(log_xi(n)) + n) / 0.1)) / n)
    got = c_bound_joint(0.0, 0.0, 0.0, n, delta=0.1, constant="xi")
    assert got == pytest.approx(4 * s * (1 - s), rel=1e-9)


def test_the_joint_c_bound_is_below_that_of_two_events_where_the_sample_is_small():
    assert c_bound_joint(0.025, 0.15, 5.0, 2000) < c_bound(0.1, 0.15, 5.0, 2000) < 1


def test_the_joint_c_bound_of_arrays_and_tensors():
    e, kl = np.array([[0.02], [0.03]]), np.array([1.0, 2.0, 3.0])
    got = c_bound_joint(e, 0.1, kl, 1000)
    assert got.shape == (2, 3)
    assert got[1, 2] == c_bound_joint(0.03, 0.1, 3.0, 1000)
    given = [torch.tensor(v, requires_grad=True) for v in (e, kl)]
    tensor = c_bound_joint(given[0], 0.1, given[1], 1000)
    assert not tensor.requires_grad
    assert tensor.dtype == torch.float64
    np.testing.assert_allclose(tensor.numpy(), got, rtol=1e-12)
    assert c_bound_joint(torch.tensor([0.02]), 0.1, 1.0, 1000).dtype == torch.float64
    with pytest.raises(ValueError, match="`disagreement_rate` must be at most 1 - `tandem_loss`"):
        c_bound_joint(0.6, 0.5, 1.0, 100)
    with pytest.raises(TypeError, match="`c_bound_joint` has no interval form"):
        upper(c_bound_joint, 0.02, 0.1, 1.0, 100)


def test_all_of_them_bound_the_vote():
    of_votes = {name for name, x in CATALOGUE.items() if x.quantity == "risk of the vote"}
    two_events = ["disagreement", "c_tandem", "c_bound"]
    assert of_votes == {"first_order", "tandem", *two_events, "c_bound_joint", "derandomised"}
    assert upper(derandomised, 0.3, 0.1, 0.5) == pytest.approx(0.5)
