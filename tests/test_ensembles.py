"""Anytime ensembles: the promise over all orders, exact arithmetic, and what a stop saves."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch

from pbnn.ensembles import (
    FRACTIONS,
    AnytimePrediction,
    _add,
    _start,
    anytime,
    full_ensemble,
    stopping_times,
)
from pbnn.seeding import generator

ALPHAS = (0.05, 0.1, 0.25, 0.5, 0.9)


def table_members(table):
    """Members that look a row's number up in their part of a table (N, n, K)."""
    return [each.__getitem__ for each in table]


def full(table):
    return full_ensemble(table_members(table), torch.arange(table.shape[1])).argmax(1)


def votes(classes, K):
    """One-hot float64 votes of shape (N, n, K) from classes of shape (n, N)."""
    return torch.eye(K, dtype=torch.float64)[torch.as_tensor(classes).T]


def all_votes(N, K):
    """All K^N sequences of N votes, and the number of the population (multiset) of each."""
    sequences = torch.tensor(list(itertools.product(range(K), repeat=N)))
    counts = torch.nn.functional.one_hot(sequences, K).sum(1)
    return votes(sequences, K), counts.unique(dim=0, return_inverse=True)[1]


def all_orders(populations):
    """The N! orders of populations (P, N, K), as a table (N, P N!, K)."""
    orders = torch.tensor(list(itertools.permutations(range(populations.shape[1]))))
    return populations[:, orders].flatten(0, 1).transpose(0, 1)


def near_ties(count, N, K, of):
    """Populations of probabilities, coarse, extreme or smooth, whose best two sums nearly tie."""
    draw = generator(0, of)
    sharpness = torch.tensor([0.3, 1.0, 4.0]).repeat(count)[:count, None, None]
    logits = torch.randn(count, N, K, generator=draw, dtype=torch.float64) * sharpness
    bias = torch.zeros(count, 1, K, dtype=torch.float64)
    for _ in range(200):  # the classes' sums are drawn together
        sums = (logits + bias).softmax(-1).sum(1, keepdim=True)
        bias -= 0.5 * (sums / N * K).log()
    p = (logits + bias).softmax(-1)
    p[::4] = (4 * p[::4]).round() / 4
    return p


def rate(wrong, population):
    """Share of wrong rows in each population."""
    size = torch.bincount(population)
    return torch.bincount(population, wrong.double()) / size


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("N", "K"), [(12, 2), (9, 2), (8, 3), (6, 4)])
def test_votes_in_all_orders_are_stopped_wrongly_no_more_often_than_promised(N, K, alpha):
    table, population = all_votes(N, K)
    errors = rate(stopping_times(table, alpha=alpha).prediction != full(table), population)
    assert errors.max() <= alpha
    assert errors.max() > 0 or alpha < 0.5  # the promise is put to use


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("K", [2, 3])
def test_near_ties_in_all_orders_are_stopped_wrongly_no_more_often_than_promised(K, alpha):
    table = all_orders(near_ties(60, 6, K, f"orders {K}"))
    population = torch.arange(60).repeat_interleave(math.factorial(6))
    errors = rate(stopping_times(table, alpha=alpha).prediction != full(table), population)
    assert errors.max() <= alpha
    assert errors.max() > 0 or alpha < 0.3


def capital_against(table, b):
    """Mean capital of every row against its class b after each member: (N, n)."""
    audit, history = _start(table[0]), []
    for place, p in enumerate(table):
        audit = _add(audit, p, len(table) - place, 0.0)
        history.append(audit.capital.mean(1).gather(1, b[:, None]).squeeze(1))
    return torch.stack(history)


@pytest.mark.parametrize("K", [2, 3])
def test_capital_against_the_winner_does_not_grow_in_the_mean(K):
    table = (all_orders(near_ties(60, 6, K, f"capital {K}")) * 2**32).round() / 2**32
    capital = capital_against(table, full(table))
    assert capital.min() >= 0
    means = capital.unflatten(1, (60, -1)).mean(-1)
    assert means.max() <= 1 + 1e-12
    assert capital.max() > 2


def test_capital_against_a_tied_class_is_a_martingale():
    table = all_votes(10, 2)[0]
    tied = table.sum(0)[:, 0] == 5
    capital = capital_against(table[:, tied], torch.zeros(int(tied.sum()), dtype=torch.int64))
    torch.testing.assert_close(capital.mean(1), torch.ones(10, dtype=torch.float64))


def by_hand(rows, alpha):
    """Prediction and members for one example's rows of probabilities, in exact fractions.

    In the variables of the literature: X = (1 + D)/2 in [0, 1] has under the null a mean of at
    most μ = (N/2 − ΣX)/(members to come).
    """
    N, K = len(rows), len(rows[0])
    rows = [[Fraction(value) for value in row] for row in rows]
    sums, rejected = [Fraction(0)] * K, set()
    capital = {b: [Fraction(1)] * len(FRACTIONS) for b in range(K)}
    for used, row in enumerate(rows, 1):
        a = sums.index(max(sums))
        for b in range(K):
            seen = sum(((1 + r[a] - r[b]) / 2 for r in rows[: used - 1]), Fraction(0))
            mu = (Fraction(N, 2) - seen) / (N - used + 1)
            if sums[a] > sums[b] and mu > 0:
                ratio = (1 + row[a] - row[b]) / 2 / mu
                stakes = zip(capital[b], map(Fraction, FRACTIONS), strict=True)
                capital[b] = [money * (1 - c + c * ratio) for money, c in stakes]
        sums = [s + value for s, value in zip(sums, row, strict=True)]
        a = sums.index(max(sums))
        for b in range(K):
            best_for_b = sums[b] + N - used
            certain = best_for_b < sums[a] or (best_for_b == sums[a] and a < b)
            if certain or Fraction(alpha) * sum(capital[b]) >= len(FRACTIONS):
                rejected.add(b)
        if rejected | {a} == set(range(K)):
            return a, used
    raise AssertionError("the last member makes every other class impossible")


@pytest.mark.parametrize("alpha", [0.0, 0.07, 0.4])
@pytest.mark.parametrize(("N", "K"), [(2, 2), (7, 3), (16, 4)])
def test_it_is_the_test_of_the_docstring_in_exact_arithmetic(N, K, alpha):
    draw = generator(0, f"by hand {N}")
    table = torch.randn(N, 60, K, generator=draw, dtype=torch.float64)
    table += 3 * torch.rand(60, 1, generator=draw) * torch.eye(K)[0]
    table = (table.mul(2).softmax(-1) * 64).round() / 64
    table[:, ::3] = table[:, ::3].round()
    found = stopping_times(table, alpha=alpha)
    expected = [by_hand(rows.tolist(), alpha) for rows in table.transpose(0, 1)]
    assert list(zip(found.prediction.tolist(), found.members.tolist(), strict=True)) == expected


def test_near_ties_of_ten_classes_keep_the_promise():
    """Two classes come equally often, or with equal probabilities, the others less."""
    N, trials = 16, 10_000
    draw = generator(0, "simulation")
    weights = torch.tensor([4.0, 4.0] + [0.5] * 8)
    hard = torch.multinomial(weights, trials * N, replacement=True, generator=draw).view(trials, N)
    soft = torch.randn(N, trials, 10, generator=draw)
    soft[..., 3] += 1.0
    soft[..., 7] += 1.0
    for table in (votes(hard, 10), soft.softmax(-1)):
        for alpha in (0.05, 0.2):
            wrong = stopping_times(table, alpha=alpha).prediction != full(table)
            assert wrong.double().mean() <= alpha + 5 * math.sqrt(alpha / trials)


def test_without_a_level_only_certainty_stops():
    """At the first member after which no votes to come, all for one class, change the outcome."""
    table, _ = all_votes(7, 3)
    found = stopping_times(table, alpha=0)
    assert (found.prediction == full(table)).all()
    sums = table.cumsum(0)
    to_come = torch.arange(6, -1, -1)[:, None, None]
    outcomes = torch.stack([(sums + to_come * torch.eye(3)[b]).argmax(-1) for b in range(3)])
    settled = (outcomes == outcomes[0]).all(0)
    assert settled[-1].all()
    torch.testing.assert_close(found.members, settled.int().argmax(0) + 1)


def test_a_certain_stop_is_certain_for_probabilities():
    table = all_orders(near_ties(40, 6, 3, "certain"))
    assert (stopping_times(table, alpha=0).prediction == full(table)).all()


@pytest.mark.parametrize(
    ("N", "winner", "alpha", "used"),
    [
        (16, 7, 0.05, 5),
        (64, 7, 0.05, 6),
        (16, 7, 0.01, 7),
        (16, 0, 0.0, 8),
        (16, 7, 0.0, 9),
        (5, 0, 0.0, 3),
        (1, 1, 0.05, 1),
    ],
)
def test_members_that_unanimous_votes_need(N, winner, alpha, used):
    found = stopping_times(votes([[winner] * N], 10), alpha=alpha)
    assert found.members.tolist() == [used]
    assert found.prediction.tolist() == [winner]


def test_unanimous_votes_bet_as_drawing_from_an_urn_that_is_half_full():
    """All-in, the capital after k bets is the inverse chance of k draws without replacement."""
    N = 16
    capital = capital_against(votes([[1] * N], 2), torch.tensor([0]))
    for k in range(1, N // 2):
        # The first vote finds no leader to bet on: 15 are left, 8 of them wins for a tie of 8 : 8.
        hits = [math.comb(7, j) / math.comb(15, j) for j in range(k)]
        steps = [hits[j] / hits[j + 1] for j in range(k - 1)]
        expected = sum(math.prod(1 - c + c * step for step in steps) for c in FRACTIONS) / 3
        assert capital[k - 1].item() == pytest.approx(expected)


def test_a_larger_level_never_needs_more_members():
    draw = generator(0, "levels")
    table = torch.randn(16, 500, 5, generator=draw)
    table[..., 0] += 1.0
    used = torch.stack([stopping_times(table.softmax(-1), alpha=a).members for a in (0, *ALPHAS)])
    assert (used.diff(dim=0) <= 0).all()
    assert used[0].sum() > used[1].sum() > used[-1].sum()


def test_members_see_only_the_examples_still_running():
    draw = generator(0, "calls")
    table = torch.randn(12, 50, 4, generator=draw)
    table[..., 2] += 4 * torch.rand(50, generator=draw)
    table = table.softmax(-1)
    x, calls = torch.arange(50)[:, None].expand(-1, 3), []

    def member(part):
        def look_up(rows):
            assert rows.shape[1:] == (3,)
            calls.append(rows[:, 0])
            return part[rows[:, 0]]

        return look_up

    found = anytime([member(part) for part in table], x, alpha=0.2)
    seen = torch.stack([torch.bincount(call, minlength=50) for call in calls])
    torch.testing.assert_close(seen.sum(0), found.members)
    assert seen.max() == 1
    assert (seen.diff(dim=0) <= 0).all()
    assert 1 < found.members.double().mean() < 12
    for row, used in enumerate(found.members.tolist()):
        expected = table[:used, row].double().mean(0)
        torch.testing.assert_close(found.probability[row], expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.prediction, found.probability.argmax(1))
    again = stopping_times(table, alpha=0.2)
    for name in AnytimePrediction.__dataclass_fields__:
        torch.testing.assert_close(getattr(again, name), getattr(found, name), rtol=0, atol=0)


def test_no_member_is_called_after_the_last_example_has_stopped():
    def never(x):
        raise AssertionError("nothing is left to ask")

    sure = torch.eye(3)[[1, 1]]
    found = anytime([lambda x: sure[: len(x)]] * 5 + [never] * 11, torch.zeros(2, 1))
    assert found.members.tolist() == [5, 5]


def test_an_ensemble_of_all_members_is_their_mean():
    table = torch.rand(5, 8, 3, generator=generator(0, "mean"))
    found = full_ensemble(table_members(table), torch.arange(8))
    torch.testing.assert_close(found, table.double().mean(0), rtol=0, atol=1e-9)


def test_ties_are_ties_in_every_order():
    """0.1 + 0.2 + 0.3 depends on the order in floating point, which must not decide."""
    up = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    assert up.cumsum(0)[-1] != up.flip(0).cumsum(0)[-1]
    table = all_orders(torch.stack([up, up.flip(0)], 1)[None])
    assert (full(table) == 0).all()
    assert (stopping_times(table, alpha=0).prediction == 0).all()


def test_capital_beyond_the_floats_does_no_harm():
    table = votes([[1] * 1200 + [0] * 1300, [1] * 2500], 2)
    found = stopping_times(table, alpha=0)
    assert found.prediction.tolist() == [0, 1]
    assert found.members.tolist() == [2450, 1251]


def test_outputs_have_their_types_and_carry_no_gradient():
    table = torch.full((3, 2, 4), 0.25, requires_grad=True)
    found = stopping_times(table)
    assert (found.prediction.dtype, found.members.dtype) == (torch.int64, torch.int64)
    assert found.probability.dtype == torch.float64
    assert not found.probability.requires_grad
    assert found.probability.shape == (2, 4)


def test_no_example_is_no_error():
    found = stopping_times(torch.zeros(3, 0, 4))
    assert found.prediction.shape == found.members.shape == (0,)
    assert found.probability.shape == (0, 4)


@pytest.mark.parametrize("alpha", [-0.1, 1.0, math.nan])
def test_a_level_outside_its_domain_is_refused(alpha):
    with pytest.raises(ValueError, match=r"`alpha` must lie in \[0, 1\), got"):
        stopping_times(torch.full((3, 2, 4), 0.25), alpha=alpha)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "`members` must hold at least one member, got none"),
        ([torch.zeros(2)], r"`members\[0\]` must return shape \(2, K ≥ 2\), got \(2,\)"),
        ([torch.zeros(2, 1)], r"`members\[0\]` must return shape \(2, K ≥ 2\), got \(2, 1\)"),
        ([torch.zeros(3, 2)], r"`members\[0\]` must return shape \(2, K ≥ 2\), got \(3, 2\)"),
        (
            [torch.full((2, 3), 0.3), torch.full((2, 2), 0.5)],
            r"`members\[1\]` must return shape \(2, 3\), got \(2, 2\)",
        ),
        ([torch.tensor([[0.5, 1.5]] * 2)], r"`members\[0\]` .* in \[0, 1\], got 0.5 to 1.5"),
        ([torch.tensor([[0.5, -0.5]] * 2)], r"`members\[0\]` .* in \[0, 1\], got -0.5 to 0.5"),
        ([torch.tensor([[0.5, math.nan]] * 2)], r"`members\[0\]` .* in \[0, 1\], got nan"),
    ],
)
@pytest.mark.parametrize("run", [anytime, full_ensemble])
def test_members_that_return_no_probabilities_are_refused(run, members, message):
    with pytest.raises(ValueError, match=message):
        run([lambda x, p=p: p for p in members], torch.zeros(2, 5))


def test_a_table_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"`probabilities` must have shape \(N, n, K\), got"):
        stopping_times(torch.zeros(3, 2))
