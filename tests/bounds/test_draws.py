"""The Monte-Carlo step: what counts as a draw, and what the promise is."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch

from pbnn.bounds import (
    betting,
    kl_inverse,
    maurer,
    maurer_pontil,
    monte_carlo,
    monte_carlo_batches,
)

mpmath.mp.dps = 50


def allowed(delta, trials):
    return delta + 4 * math.sqrt(delta * (1 - delta) / trials)


def test_the_monte_carlo_step_is_one_sided():
    expected = kl_inverse(0.1, math.log(1 / 0.02) / 500)
    assert monte_carlo(0.1, 500, delta=0.02) == pytest.approx(expected, rel=1e-15)
    assert monte_carlo(0.1, 500, delta=0.02) < maurer(0.1, 0.0, 500, delta=0.02)


def test_the_lower_side_mirrors_the_upper():
    lower = monte_carlo(0.1, 500, delta=0.02, side="lower")
    assert lower == pytest.approx(1 - monte_carlo(0.9, 500, delta=0.02), rel=1e-13)
    assert monte_carlo(0.1, 500, side="lower", certify=True) < monte_carlo(0.1, 500, side="lower")
    with pytest.raises(ValueError, match=r"`side` must be .*, got 'both'"):
        monte_carlo(0.1, 500, side="both")


def test_a_shared_network_counts_once_a_batch():
    """Batches of 100 that share a network: counting data as draws breaks the promise."""
    trials, delta = 4_000, 0.05
    rng = np.random.default_rng(2)
    batches, size = 30, 100
    risk_of_network = rng.choice([0.05, 0.45], size=(trials, batches))
    errors = rng.binomial(size, risk_of_network)
    risk = errors.mean(axis=1) / size
    assert np.mean(monte_carlo(risk, batches, delta=delta) < 0.25) <= allowed(delta, trials)
    assert np.mean(monte_carlo(risk, batches * size, delta=delta) < 0.25) > allowed(delta, trials)


def test_equal_batches_are_as_many_draws():
    errors = [3, 5.5, 2, 1]
    expected = monte_carlo(11.5 / 400, 4, delta=0.1)
    assert monte_carlo_batches(errors, [100] * 4, delta=0.1) == pytest.approx(expected, rel=1e-14)
    # Scaling losses and weights together changes nothing.
    halved = monte_carlo_batches([k / 2 for k in errors], [50] * 4, delta=0.1)
    assert halved == pytest.approx(expected, rel=1e-14)


def test_unequal_batches_by_hand():
    # Z = (1, 1/2, 0)/1 with sizes 2, 1, 1: (3 * 2 / 4) kl+(3/6, ln(1/delta)/3).
    value = monte_carlo_batches([2, 1, 0], [2, 1, 1], delta=0.9, clip=False)
    assert value == pytest.approx(1.5 * kl_inverse(0.5, math.log(1 / 0.9) / 3), rel=1e-14)
    assert monte_carlo_batches([2, 1, 1], [2, 1, 1]) == 1
    assert monte_carlo_batches([2, 1, 1], [2, 1, 1], clip=False) > 1


def test_batches_fail_no_more_often_than_promised():
    trials, delta = 4_000, 0.2
    rng = np.random.default_rng(3)
    sizes = np.array([100] * 12 + [90] * 5 + [80] * 3)
    networks = rng.choice([0.0, 1.0], size=(trials, len(sizes)))
    bound = monte_carlo_batches(networks * sizes, sizes, delta=delta)
    assert bound.shape == (trials,)
    assert 0 < np.mean(bound < 0.5) <= allowed(delta, trials)


def test_certified_batches_are_rounded_up():
    rng = np.random.default_rng(4)
    for _ in range(200):
        sizes = rng.uniform(0.1, 9, rng.integers(1, 40))
        errors = sizes * rng.uniform(0, 1, len(sizes)) ** 3
        value = monte_carlo_batches(errors, sizes, delta=0.3, clip=False, certify=True)
        count, largest = len(sizes), mpmath.mpf(float(sizes.max()))
        whole = mpmath.fsum(map(float, sizes))
        q = mpmath.fsum(map(float, errors)) / (count * largest)
        p = mpmath.mpf(value) * whole / (count * largest)
        kl = q * mpmath.log(q / p) + (1 - q) * mpmath.log((1 - q) / (1 - p)) if p < 1 else 1e9
        assert kl >= -mpmath.log(mpmath.mpf(0.3)) / count
        assert value <= monte_carlo_batches(errors, sizes, delta=0.3, clip=False) * (1 + 1e-12)


def test_certified_batches_allow_for_the_rounding_of_long_sums():
    count = 10_000
    errors, sizes = np.full(count, 3.0), np.full(count, 10.0)
    plain, certified = (monte_carlo_batches(errors, sizes, certify=c) for c in (False, True))
    # Of two sums, each wrong by a unit of 2^-53 for each of its terms; both ways.
    assert 1.2 * count * 2.0**-52 < certified / plain - 1 < 3 * count * 2.0**-52


def test_batches_of_every_kind():
    errors, sizes = [3.0, 5.0, 2.0], [100.0, 50.0, 20.0]
    value = monte_carlo_batches(errors, sizes)
    assert type(value) is float
    array = monte_carlo_batches(np.array([errors, errors]), np.array(sizes))
    np.testing.assert_allclose(array, [value, value], rtol=1e-15)
    leaf = torch.tensor(errors, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor(sizes, dtype=torch.float64)
    assert monte_carlo_batches(leaf, weights).item() == pytest.approx(value, rel=1e-15)
    assert torch.autograd.gradcheck(lambda k: monte_carlo_batches(k, weights), (leaf,))
    certified = monte_carlo_batches(leaf.float(), weights, certify=True)
    assert certified.dtype == torch.float64
    assert not certified.requires_grad


@pytest.mark.parametrize(
    ("errors", "sizes", "message"),
    [
        ([3.0, 6.0], [5, 5], "`errors` must not exceed `sizes`, got 6.0"),
        ([-1.0, 2.0], [5, 5], "`errors` must be non-negative, got -1.0"),
        ([math.nan, 2.0], [5, 5], "`errors` must be non-negative, got nan"),
        ([0.0, 2.0], [0, 5], r"`sizes` must lie in \(0, inf\), got 0.0"),
        ([], [], "`sizes` must hold at least one batch, got none"),
        ([0.0, 1.0, 2.0], [2, 2], "Shapes must broadcast"),
    ],
)
def test_batches_outside_their_domain(errors, sizes, message):
    with pytest.raises(ValueError, match=message):
        monte_carlo_batches(errors, sizes)


def capital(losses, delta, mean):
    """What `betting` has after its bets against `mean`, with 50 digits, one loss after another."""
    n, mean = len(losses), mpmath.mpf(mean)
    c = mpmath.log(mpmath.mpf(3) / (2 * mpmath.mpf(delta))) / n
    scales = [1]
    while scales[-1] * mpmath.sqrt(2 * c) < 1:
        scales.append(2 * scales[-1])
    rest = len(scales) - 1
    total = mpmath.mpf(0)
    for scale in scales:
        stake = min(1 - mpmath.mpf(2) ** -10, scale * mpmath.sqrt(2 * c * (1 - mean) / mean))
        share = mpmath.mpf(2) / 3 if scale == 1 else mpmath.mpf(1) / (3 * rest)
        share = share if rest else mpmath.mpf(1)
        total += share * mpmath.fprod(1 + stake * (mean - x) / (1 - mean) for x in losses)
    return total


def test_betting_is_where_the_capital_reaches_its_goal():
    rng = np.random.default_rng(5)
    for n, a, b, delta in [
        (1, 1, 1, 0.3),
        (7, 1, 3, 0.05),
        (60, 30, 60, 1e-6),
        (90, 0.01, 0.1, 0.2),
    ]:
        losses = rng.beta(a, b, n).tolist()
        bound = betting(losses, delta=delta)
        if bound < 1:
            assert capital(losses, delta, bound) >= 1 / mpmath.mpf(delta)
        assert capital(losses, delta, bound * (1 - 1e-8)) < 1 / mpmath.mpf(delta)


def test_betting_leaves_room_for_the_rounding_of_many_factors():
    times = {0.0: 70_000, 0.5: 20_000, 1.0: 10_000}
    n, delta = sum(times.values()), mpmath.mpf(0.05)
    bound = betting(np.repeat(list(times), list(times.values())))
    c = mpmath.log(3 / (2 * delta)) / n
    scales = [2**i for i in range(math.ceil(-mpmath.log(2 * c, 2) / 2) + 1)]
    total = mpmath.mpf(0)
    for scale in scales:
        stake = min(1 - mpmath.mpf(2) ** -10, scale * mpmath.sqrt(2 * c * (1 - bound) / bound))
        share = mpmath.mpf(2) / 3 if scale == 1 else 1 / mpmath.mpf(3 * len(scales) - 3)
        gains = (mpmath.mpf(1 + stake * (bound - x) / (1 - bound)) ** k for x, k in times.items())
        total += share * mpmath.fprod(gains)
    # Each logarithm of a factor may be wrong by 2^-40.
    assert 0 <= mpmath.log(total * delta) - n * mpmath.mpf(2) ** -40 < 1e-6


def test_refused_means_stay_refused():
    losses = [1.0, *np.random.default_rng(6).beta(0.3, 2, 40)]
    capitals = [capital(losses, 0.05, mean / 100) for mean in range(1, 100)]
    assert all(a <= b for a, b in itertools.pairwise(capitals))


@pytest.mark.parametrize("delta", [0.05, 0.5])
@pytest.mark.parametrize("means", [[0.0, 0.1, 0.7, 0.3, 0.9], [0.4] * 5])
def test_the_expected_capital_is_at_most_one(means, delta):
    """By enumeration of losses of 0 or 1; exactly one if they have the same mean."""
    means = list(map(mpmath.mpf, means))
    average, expected = mpmath.fsum(means) / len(means), mpmath.mpf(0)
    for k in range(2 ** len(means)):
        losses = [k >> i & 1 for i in range(len(means))]
        chance = math.prod(p if x else 1 - p for p, x in zip(means, losses, strict=True))
        expected += chance * capital(losses, delta, average)
    if len(set(means)) == 1:
        assert abs(expected - 1) < 1e-40
    else:
        assert 0 < expected < 1


def test_betting_when_each_bound_wins():
    rng = np.random.default_rng(7)
    # Losses of 0 or 1: near Chernoff, far from the empirical Bernstein bound.
    losses = np.zeros(30_000)
    losses[:300] = 1.0
    chernoff, bets = monte_carlo(0.01, 30_000), betting(losses)
    bernstein = maurer_pontil(0.01, 30_000, variance=losses.var(ddof=1))
    assert 0.93 < (chernoff - 0.01) / (bets - 0.01) < 1
    assert bets < 0.9 * (bernstein - 0.01) + 0.01
    # Losses of low variance: Chernoff is left behind.
    losses = rng.beta(30, 270, 3_000)
    mean, variance = losses.mean(), losses.var(ddof=1)
    assert betting(losses) - mean < (monte_carlo(mean, 3_000) - mean) / 8
    assert betting(losses) - mean < (maurer_pontil(mean, 3_000, variance=variance) - mean) / 2
    # Constant losses: the distance falls like 1/n, not like its root.
    gaps = [betting(np.full(n, 0.25)) - 0.25 for n in (1_000, 16_000)]
    assert gaps[0] / gaps[1] > 13
    assert gaps[1] < (monte_carlo(0.25, 16_000) - 0.25) / 20
    # No loss at all: within a thousandth of Chernoff.
    assert betting(np.zeros(500)) == pytest.approx(monte_carlo(0.0, 500), rel=2e-3)


def test_betting_fails_no_more_often_than_promised_in_any_order():
    trials, delta, n = 1_500, 0.2, 60
    rng = np.random.default_rng(8)
    means = np.linspace(0.0, 0.4, n)
    for losses in (
        rng.random((trials, n)) < means,  # a fixed order of examples
        rng.random((trials, n)) < 0.2,
        rng.beta(0.2, 0.8, (trials, n)),
    ):
        failures = np.mean(betting(losses.astype(float), delta=delta) < 0.2)
        assert 0 < failures <= allowed(delta, trials)


def test_with_data_in_a_fixed_order_the_best_bound_so_far_fails_always():
    """Why the number of losses is fixed: the easy examples came first."""
    rng = np.random.default_rng(9)
    for _ in range(20):
        losses = (rng.random(400) < np.repeat([0.0, 0.9], 200)).astype(float)
        assert min(betting(losses[:n]) for n in range(100, 401, 100)) < 0.45
        assert betting(losses) > 0.45


def test_betting_on_every_kind():
    losses = [0.25, 0.5, 0.125, 0.0, 1.0, 0.25] * 8
    value = betting(losses, delta=0.1)
    assert type(value) is float
    assert betting(tuple(reversed(losses)), delta=0.1) == value
    array = betting(np.array([[losses, losses]]), delta=0.1)
    assert array.shape == (1, 2)
    assert (array == value).all()
    leaf = torch.tensor(losses, requires_grad=True)
    tensor = betting(leaf, delta=torch.tensor(0.1, dtype=torch.float64))
    assert tensor.dtype == torch.float64
    assert tensor.item() == value
    assert not tensor.requires_grad
    assert betting([1, 1, 1]) == 1
    assert betting([0, 1, 1]) < 1
    assert betting(np.zeros((0, 3))).shape == (0,)


@pytest.mark.parametrize(
    ("losses", "error", "message"),
    [
        ([0.2, 1.3], ValueError, r"`losses` must lie in \[0, 1\], got 1.3"),
        ([0.2, math.nan], ValueError, r"`losses` must lie in \[0, 1\], got nan"),
        (torch.tensor([-0.5], requires_grad=True), ValueError, r"`losses` .*, got -0.5"),
        ([], ValueError, "`losses` must hold at least one loss, got none"),
        (np.zeros((2, 0)), ValueError, "`losses` must hold at least one loss, got none"),
        (0.3, TypeError, "`losses` must be a sequence.*, got float"),
        (np.array(0.3), TypeError, "`losses` must be a sequence.*, got ndarray"),
        (["a"], TypeError, "`losses` must hold real numbers"),
        ([True], TypeError, "`losses` must hold real numbers"),
    ],
)
def test_losses_outside_their_domain(losses, error, message):
    with pytest.raises(error, match=message):
        betting(losses)


def test_delta_is_one_number():
    with pytest.raises(ValueError, match=r"`delta` must lie in \(0, 1\), got 1.0"):
        betting([0.1], delta=1.0)
    with pytest.raises(TypeError, match="`delta` must be one number, got ndarray"):
        betting([0.1, 0.2], delta=np.array([0.1, 0.2]))
    with pytest.raises(TypeError, match="`delta` must be one number, got Tensor"):
        monte_carlo_batches([1, 1], [2, 2], delta=torch.tensor([0.1, 0.2]))


def test_intervals_are_refused():
    exact = pytest.importorskip("pbnn.bounds.exact")
    tenth = exact.namespace().lift(0.1)
    for arguments in ((tenth,), ([tenth, tenth],)):
        with pytest.raises(TypeError):
            betting(*arguments)
    with pytest.raises(TypeError, match="no interval form"):
        betting([0.1], delta=tenth)
    with pytest.raises(TypeError):
        monte_carlo_batches(tenth, [1])
