"""Bounds on several types of error at once."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from pbnn.bounds import binary_kl, kl_inverse, log_xi, vector_kl, vector_kl_worst
from pbnn.bounds.exact import namespace, upper


def compositions(n, types):
    for bars in itertools.combinations(range(n + types - 1), types - 1):
        ends = (-1, *bars, n + types - 1)
        yield [b - a - 1 for a, b in itertools.pairwise(ends)]


def multinomial_sum(n, types):
    total = Fraction(0)
    for k in compositions(n, types):
        ways = math.factorial(n) // math.prod(map(math.factorial, k))
        total += ways * Fraction(math.prod(i**i for i in k), n**n)
    return float(total)


def mean_of_exponential(n, types, constant):
    """What the logarithm of `vector_kl` says it is."""
    return 0.5 * math.exp(n * vector_kl(0.0, n, types=types, delta=0.5, constant=constant))


SMALL = [(n, types) for types in (2, 3, 4, 5) for n in (1, 2, 3, 5, 8)]


@pytest.mark.parametrize(("n", "types"), SMALL)
def test_the_constant_by_enumeration(n, types):
    exact = multinomial_sum(n, types)
    assert mean_of_exponential(n, types, "xi") == pytest.approx(exact, rel=1e-12)
    assert exact < mean_of_exponential(n, types, "adams") < 1.6 * types * exact


@pytest.mark.parametrize(("n", "types"), [(1, 4), (2, 5), (1, 6), (2, 6)])
def test_the_form_with_pi_is_no_bound(n, types):
    def stirling(step):
        terms = [math.comb(types, z) * step**z / math.gamma((types - z) / 2) for z in range(types)]
        front = math.sqrt(math.pi) * math.exp(1 / (12 * n)) * (n / 2) ** ((types - 1) / 2)
        return front * sum(terms)

    exact = multinomial_sum(n, types)
    assert stirling(1 / math.sqrt(math.pi * n)) < exact
    assert stirling(math.sqrt(2 / n)) == pytest.approx(
        mean_of_exponential(n, types, "adams"), rel=1e-12
    )


def test_the_exact_constant_is_below_that_of_stirling():
    n = np.array([1.0, 7.0, 12.0, 100.0, 6e4, 1e12])
    for types in (2, 3, 7, 11, 100, 400):
        exact = vector_kl(0.0, n, types=types, constant="xi")
        assert np.all(exact < vector_kl(0.0, n, types=types))
        assert np.all(exact > 0)
    # Far more examples than types: the two meet.
    first, second = (vector_kl(0.0, 10**12, types=7, constant=c) for c in ("xi", "adams"))
    assert first == pytest.approx(second, rel=1e-5)


def test_two_types_are_the_binary_bound():
    for n in (1, 10, 1000):
        expected = (3 + log_xi(n) + math.log(20)) / n
        assert vector_kl(3.0, n, types=2, constant="xi") == pytest.approx(expected, rel=1e-14)


def test_three_types_have_n_more():
    expected = (3 + math.log(math.exp(log_xi(50)) + 50) + math.log(10)) / 50
    got = vector_kl(3.0, 50, types=3, delta=0.1, constant="xi")
    assert got == pytest.approx(expected, rel=1e-14)


def test_the_promise_by_enumeration():
    """Three types, one fixed predictor: the divergence exceeds the budget seldom."""
    p, n, delta = np.array([0.2, 0.3, 0.5]), 9, 0.3
    for constant in ("xi", "adams"):
        budget = vector_kl(0.0, n, types=3, delta=delta, constant=constant)
        failed = mean = 0.0
        for k in map(np.array, compositions(n, 3)):
            ways = math.factorial(n) // math.prod(math.factorial(i) for i in k)
            q = k / n
            kl = sum(a * math.log(a / b) for a, b in zip(q, p, strict=True) if a)
            chance = ways * float(np.prod(p**k))
            failed += chance * (kl > budget)
            mean += chance * math.exp(n * kl)
        assert failed <= delta
        assert mean <= delta * math.exp(n * budget) * (1 + 1e-12)


def test_vector_kl_in_every_kind():
    kl, n = np.array([[1.0], [2.0]]), np.array([10, 20, 30])
    got = vector_kl(kl, n, types=4)
    assert got.shape == (2, 3)
    assert got[1, 2] == pytest.approx(vector_kl(2.0, 30, types=4), rel=1e-15)
    np.testing.assert_allclose(vector_kl(torch.tensor(kl), torch.tensor(n), types=4), got)
    assert vector_kl(math.inf, 10, types=4) == math.inf
    assert vector_kl(1.0, 10, types=4) == vector_kl(1.0, 10, types=4, delta=0.05, constant="adams")
    for constant in ("adams", "xi"):
        near = vector_kl(10.0, 50, types=9, constant=constant)
        assert upper(vector_kl, 10.0, 50, types=9, constant=constant) == pytest.approx(near, 1e-14)
        given = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (5.0, 50, 0.1)]

        def function(kl, n, delta, constant=constant):
            return vector_kl(kl, n, types=6, delta=delta, constant=constant)

        assert torch.autograd.gradcheck(function, given, eps=1e-5)


@pytest.mark.parametrize("types", [2.0, True, "3", None])
def test_types_that_are_no_integer(types):
    with pytest.raises(TypeError, match="`types` must be an integer, got "):
        vector_kl(1.0, 10, types=types)


def test_other_refusals():
    with pytest.raises(ValueError, match="`types` must be at least 2, got 1"):
        vector_kl(1.0, 10, types=1)
    with pytest.raises(ValueError, match=r"`constant` must be one of \['adams', 'xi'\], got 'pi'"):
        vector_kl(1.0, 10, types=3, constant="pi")
    half = np.array([0.5, 0.5])
    with pytest.raises(ValueError, match=r"`frequency` must sum to 1 over the types, got 0\.9"):
        vector_kl_worst(np.array([0.5, 0.4]), 0.1, half)
    with pytest.raises(ValueError, match="`weights` must be finite, got inf"):
        vector_kl_worst(half, 0.1, np.array([1.0, math.inf]))
    with pytest.raises(ValueError, match=r"`budget` must be non-negative, got -0\.1"):
        vector_kl_worst(half, -0.1, half)
    with pytest.raises(ValueError, match="`weights` must have an axis of types"):
        vector_kl_worst(half, 0.1, 1.0)
    with pytest.raises(ValueError, match="`frequency` must have an axis of types"):
        vector_kl_worst(1.0, 0.1, half)
    with pytest.raises(TypeError, match="`vector_kl_worst` has no interval form"):
        vector_kl_worst(namespace().lift(1.0), 0.1, 1.0)


def test_two_types_of_cost_are_the_kl_inverse():
    q, c = np.meshgrid([0.0, 1e-6, 0.1, 0.5, 0.999, 1.0], [1e-9, 1e-3, 0.1, 2.0, 50.0])
    frequency = np.stack([q, 1 - q], -1)
    got = vector_kl_worst(frequency, c, np.array([1.0, 0.0]))
    expected = kl_inverse(q, c)
    # 1 - q is rounded, which is as much as the smallest budget moves the inverse near 1.
    assert np.all(got >= expected * (1 - 1e-15))
    np.testing.assert_allclose(got, expected, rtol=2e-12)
    lower = -vector_kl_worst(frequency, c, np.array([-1.0, 0.0]))
    np.testing.assert_allclose(lower, kl_inverse(q, c, "lower"), rtol=1e-9, atol=1e-13)


def test_the_worst_mean_is_reached_and_not_exceeded():
    """Three costs: along the first frequency, the second is a kl inverse of what is left."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        q, w = rng.dirichlet([1, 1, 1]), rng.normal(size=3)
        c = 10.0 ** rng.uniform(-4, 0.5)
        first = np.linspace(kl_inverse(q[0], c, "lower"), kl_inverse(q[0], c), 20_001)
        left = np.maximum(0, c - binary_kl(q[0], first)) / (1 - q[0])
        side = "upper" if w[1] > w[2] else "lower"
        second = (1 - first) * kl_inverse(np.full(20_001, q[1] / (1 - q[0])), left, side)
        best = np.max(w[0] * first + w[1] * second + w[2] * (1 - first - second))
        got = float(vector_kl_worst(q, c, w))
        assert best - 1e-15 <= got <= best + 1e-6
        # Costs are on an arbitrary scale.
        moved = float(vector_kl_worst(q, c, 1e3 * w + 7))
        assert moved == pytest.approx(1e3 * got + 7, rel=1e-9)


def test_the_worst_mean_at_the_ends_of_the_budget():
    q, w = np.array([0.2, 0.0, 0.8]), np.array([1.0, 5.0, -1.0])
    assert vector_kl_worst(q, math.inf, w) == 5
    assert vector_kl_worst(q, 0.0, w) == pytest.approx(-0.6, abs=1e-12)
    assert vector_kl_worst(q, 0.0, w) >= -0.6
    assert vector_kl_worst(q, 0.3, np.full(3, 2.5)) == pytest.approx(2.5, rel=1e-13)
    # A type that was never seen takes all the budget.
    unseen = vector_kl_worst(np.array([0.0, 1.0]), 0.3, np.array([2.0, 0.0]))
    assert unseen == pytest.approx(2 * (1 - math.exp(-0.3)), rel=1e-12)
    assert unseen >= -2 * math.expm1(-0.3)


def test_the_worst_mean_of_tensors_and_stacks():
    q = np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
    w, c = np.array([3.0, 1.0, 0.0]), np.array([0.1, 0.2])
    got = vector_kl_worst(q, c, w)
    assert got.shape == (2,)
    assert got[1] == vector_kl_worst(q[1], 0.2, w)
    given = torch.tensor(q, requires_grad=True)
    tensor = vector_kl_worst(given, torch.tensor(c), torch.tensor(w))
    assert not tensor.requires_grad
    np.testing.assert_allclose(tensor.numpy(), got, rtol=1e-13)
    single = vector_kl_worst(torch.tensor(q, dtype=torch.float32), 0.1, torch.tensor(w))
    assert single.dtype == torch.float64
