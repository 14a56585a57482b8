"""Simulated coverage on few samples: no bound fails more often than delta, every mistake does."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import bound_adversary
import bound_claims
import bound_coverage
import bound_worlds
import numpy as np
import pandas as pd
import pytest
from bound_claims import BROKEN, CLAIMS
from bound_worlds import DELTAS, WORLDS

from pbnn.bounds import CATALOGUE, binary_kl, kl_inverse, maurer

TRIALS = 500


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def beyond(row):
    """Standard errors by which a rate exceeds delta."""
    delta = row["delta"]
    return (row["rate"] - delta) / math.sqrt(delta * (1 - delta) / row["trials"])


def test_every_bound_that_says_so_is_simulated_and_no_other():
    simulated = {name for name, bound in CATALOGUE.items() if bound.coverage == "simulated"}
    assert {claim.bound for claim in CLAIMS} == simulated
    assert {claim.bound for claim in BROKEN} <= simulated


def test_claims_are_told_apart_and_every_world_is_used():
    names = [(claim.bound, claim.world, claim.setting) for claim in CLAIMS]
    assert len(set(names)) == len(names)
    assert {claim.world for claim in (*CLAIMS, *BROKEN)} == set(WORLDS)


def test_no_bound_fails_more_often_than_delta():
    rows = bound_coverage.simulate(CLAIMS, TRIALS, seed=0)
    assert len(rows) == len(CLAIMS) * len(DELTAS)
    assert [row for row in rows if beyond(row) > 4] == []
    assert {row["trials"] for row in rows} == {TRIALS}


@pytest.mark.parametrize("claim", BROKEN, ids=lambda claim: claim.setting)
def test_every_mistake_is_caught(claim):
    row, *_ = bound_coverage.simulate([claim], TRIALS, seed=0)
    assert row["delta"] == min(DELTAS)
    assert beyond(row) > 4
    assert row["low"] > row["delta"]


@pytest.mark.parametrize("name", sorted({claim.bound for claim in CLAIMS}))
def test_a_bound_that_says_nothing_fails_at_once(name, monkeypatch):
    """Every judge compares the bound of this name with the truth."""
    bound = CATALOGUE[name]

    def nothing(*args, **kwargs):
        value = np.asarray(bound.function(*args, **kwargs))
        return np.full_like(value, 1.0 if kwargs.get("side") == "lower" else -1.0)

    monkeypatch.setitem(CATALOGUE, name, dataclasses.replace(bound, function=nothing))
    # Such a value is no risk that a second bound would take.
    claims = [c for c in CLAIMS if c.bound == name and c.setting != "then `maurer`"]
    rows = bound_coverage.simulate(claims, 5, seed=0)
    assert len(rows) == len(claims) * len(DELTAS) > 0
    assert {row["failures"] for row in rows} == {5}


def test_a_larger_delta_fails_at_least_as_often_in_the_same_draws():
    """That delta reaches the bound: hold-out worlds, whose risks depend on delta, apart."""
    claims = [claim for claim in CLAIMS if claim.world != "hold-out"]
    rows = pd.DataFrame(bound_coverage.simulate(claims, 100, seed=1))
    for _, group in rows.groupby(["bound", "world", "setting"]):
        assert group.sort_values("delta")["failures"].is_monotonic_increasing


def test_posteriors_are_distributions_with_their_divergence(rng):
    truth = np.linspace(0.1, 0.6, 8)
    seen = rng.binomial(10, truth, (6, 8)) / 10
    prior = rng.dirichlet(np.ones(8), 6)
    for given in (None, prior):
        weights, kl = bound_worlds.posteriors(seen, truth, 10, given)
        p = np.full((6, 1, 8), 1 / 8) if given is None else prior[:, None]
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum(-1), 1)
        parts = np.where(weights > 0, weights * np.log(np.maximum(weights, 1e-300) / p), 0)
        np.testing.assert_allclose(kl, parts.sum(-1), atol=1e-12)
    assert (weights[:, -3].argmax(1) == seen.argmin(1)).all()


def test_the_posterior_of_the_adversary_is_the_worst_that_there_is(rng):
    """exp(n kl) times the prior makes the mean of n kl less KL largest, by Donsker and Varadhan."""
    truth, n = np.full(5, 0.4), 12
    seen = rng.binomial(n, truth, (50, 5)) / n
    weights, kl = bound_worlds.posteriors(seen, truth, n)
    doubt = bound_worlds.excess(seen, truth, n)
    reached = bound_worlds.under(weights, doubt) - kl
    supremum = np.log(np.exp(doubt).mean(-1))
    place = bound_worlds.MEMBERS["tilted by the excess"]
    np.testing.assert_allclose(reached[:, place], supremum, atol=1e-12)
    assert (reached <= supremum[:, None] + 1e-12).all()


@pytest.mark.parametrize(
    "world",
    ["64 coins", "Beta losses", "small variance", "excess losses", "excess losses, gamma 1"],
)
def test_the_truth_is_the_mean_of_what_is_seen(world, monkeypatch, rng):
    """With posteriors that do not look at the sample, what is seen averages to the truth."""

    def blind(seen, truth, n, prior=None):
        weights = np.zeros((len(seen), 2, seen.shape[1]))
        weights[:, 0], weights[:, 1, 0] = 1 / seen.shape[1], 1
        return weights, np.zeros((len(seen), 2))

    monkeypatch.setattr(bound_worlds, "posteriors", blind)
    draws = WORLDS[world](rng, 2000)
    seen = draws.get("loss", draws["risk"])
    error = seen.std(0) / math.sqrt(len(seen))
    assert (abs(seen - draws["truth"]).mean(0) > 0).all()
    assert (abs((seen - draws["truth"]).mean(0)) < 5 * error).all()
    if "plus0.25" in draws:
        np.testing.assert_allclose(0.25 + draws["plus0.25"] - draws["minus0.25"], seen, atol=1e-12)
        values = (-1, 0, 1) if "gamma 1" in world else (-0.5, 0, 0.5, 1)
        levels = draws["frequency"] @ np.diff(values)
        np.testing.assert_allclose(values[0] + levels, seen, atol=1e-12)


def test_in_the_world_of_ties_every_bound_on_votes_is_an_equality(rng):
    draws = WORLDS["ties"](rng, 20_000)
    # As told of a sample, and so of the truth.
    rate, tandem, apart = (draws[name] for name in ("risk", "tandem", "disagreement"))
    np.testing.assert_allclose(2 * rate, 4 * tandem)
    np.testing.assert_allclose(2 * rate, 4 * rate - 2 * apart)
    np.testing.assert_allclose(2 * rate, 1 - (1 - 2 * rate) ** 2 / (1 - 2 * apart))
    np.testing.assert_allclose(rate, tandem + apart / 2)
    # The divergence: half on one that has half of the prior, half on one of 64.
    assert draws["kl"] == pytest.approx(0.5 * math.log(0.5 / 0.5) + 0.5 * math.log(64))


def test_votes_are_counted_as_they_fall(rng):
    draws = WORLDS["votes"](rng, 40)
    np.testing.assert_allclose(draws["risk"], draws["tandem"] + draws["disagreement"] / 2)
    errors, share = bound_worlds.kinds(8, 16, 0.25, 0.65), np.arange(1, 9) / 36
    # The last posteriors are on one predictor, whose vote is itself.
    own = share @ errors
    assert {round(x, 12) for x in draws["truth"][:, -3:].ravel()} <= {round(x, 12) for x in own}


def test_the_vote_errs_where_half_of_the_posterior_does(monkeypatch, rng):
    uniform = np.full((3, 1, 16), 1 / 16), np.zeros((3, 1))
    monkeypatch.setattr(bound_worlds, "posteriors", lambda seen, truth, n: uniform)
    errors, share = bound_worlds.kinds(8, 16, 0.25, 0.65), np.arange(1, 9) / 36
    voted = errors.sum(1) >= 8
    assert 0 < voted.sum() < 8
    np.testing.assert_allclose(WORLDS["votes"](rng, 3)["truth"], share @ voted)


def test_the_excess_counts_only_what_flatters():
    seen, truth = np.array([0.0, 0.2, 0.5]), np.array([0.3, 0.2, 0.3])
    expected = [7 * binary_kl(0.0, 0.3), 0.0, 0.0]
    np.testing.assert_allclose(bound_worlds.excess(seen, truth, 7), expected)


def test_a_draw_has_the_distribution_that_it_is_drawn_from(rng):
    weights = np.array([[0.2, 0.0, 0.5, 0.3]] * 2)
    chosen = bound_worlds.pick(rng, weights, 20_000)
    shares = (chosen[..., None] == np.arange(4)).mean(1)
    assert (abs(shares - weights) < 5 * np.sqrt(weights * (1 - weights) / 20_000) + 1e-12).all()


def test_one_draw_is_told_with_its_log_ratio_and_divergences(rng):
    draws = WORLDS["one draw"](rng, 3000)
    # The mean of P/Q under Q is the prior of where Q is not zero; of exp(log-ratio) it is D_2.
    ratio = draws["log_ratio"][:, 4]
    second = np.exp(draws["renyi"][2.0][:, 4])
    error = np.std(np.exp(ratio) - second) / math.sqrt(3000)
    assert abs(np.mean(np.exp(ratio) - second)) < 5 * error
    assert abs(np.mean(np.exp(-ratio)) - 1) < 5 * np.std(np.exp(-ratio)) / math.sqrt(3000)
    assert (draws["renyi"][1.5] <= draws["renyi"][2.0] + 1e-9).all()
    place = bound_worlds.MEMBERS["on the least loss"]
    np.testing.assert_allclose(draws["log_ratio"][:, place], math.log(64))


def test_the_least_of_many_counts_is_drawn_as_by_counting(rng):
    few = bound_worlds.layers(rng, 20_000, n=8, bits=(2, 3))
    least = rng.binomial(8, 0.5, (20_000, 32)).min(1)
    for k in range(4):
        seen, counted = (few["risk"] * 8 <= k).mean(), (least <= k).mean()
        assert abs(seen - counted) < 5 * math.sqrt(2 * 0.25 / 20_000)
    assert sum(few["kls"]) == pytest.approx(math.log(32))


def test_recursive_parts_are_what_the_theorem_asks_for(rng):
    draws = bound_worlds.parts(1.0)(rng, 300)
    assert draws["n"] == [75, 50, 25]
    assert all((np.diff(levels, axis=-1) <= 0).all() for levels in draws["frequency"][1:])
    # Two independent draws from the prior: events of independent coins, unless they are the same.
    draws = bound_worlds.parts(0.0)(rng, 2000)
    r = np.linspace(0.1, 0.5, 16)
    worse = np.where(np.eye(16), 0, np.outer(r, 1 - r)).mean()
    np.testing.assert_allclose(draws["truth"], r.mean())
    assert [float(abs(kl).max()) for kl in draws["kl"]] == pytest.approx([0.0] * 3, abs=1e-12)
    first, *later = (levels.mean(0) for levels in draws["frequency"])
    tolerance = 5 * math.sqrt(0.25 / (2000 * 25))
    assert abs(first - r.mean()) < tolerance
    for levels in later:
        assert (abs(levels - [1 - worse, r.mean(), worse]) < tolerance).all()


def test_looking_after_every_example_is_looking_after_every_example(rng):
    world = bound_worlds.looks([0.3, 0.5], 12)
    draws = world(rng, 40)
    failed = bound_claims.after_every_example(draws, 0.5)
    for trial, look, h in itertools.product(range(40), range(12), range(2)):
        n, k = look + 1, int(draws["errors"][trial, look, h])
        bound = maurer(k / n, math.log(2), n, delta=0.5, constant="kt")
        assert failed[trial, look, h] == (bound < (0.3, 0.5)[h])
    assert failed.any()


def test_kl_inverse_of_rounded_frequencies_is_no_failure():
    assert not bound_claims.below(0.3 - 1e-15, 0.3)
    assert bound_claims.below(0.3 - 1e-9, 0.3)


def test_the_two_sided_event_breaks_its_promise():
    assert bound_adversary.two_sided_at(5, 0.549, 0.05) == pytest.approx(0.0685, abs=5e-5)
    for n, p, delta in itertools.product((3, 4, 5, 11), (0.2, 0.549), (0.05, 0.2, 0.5)):
        counts = [k for k in range(n + 1) if binary_kl(k / n, p) > -math.log(delta) / n]
        by_hand = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts)
        found = bound_adversary.two_sided_at(n, p, delta)
        assert found == pytest.approx(by_hand, rel=1e-12)
        assert bound_adversary.two_sided(delta, n)["probability"] >= found - 1e-12
    worst = bound_adversary.two_sided(0.05, 8)
    assert worst["n"] == 5
    assert 0.0685 < worst["probability"] < 0.069


@pytest.mark.parametrize("delta", DELTAS)
def test_for_one_predictor_the_missing_root_and_the_unpriced_c_are_chernoff(delta):
    def missing(risk, n):
        return kl_inverse(risk, -np.log(delta) / n)

    for n in (1, 7, 30):
        risk = np.arange(n + 1) / n
        unpriced = bound_adversary.unpriced_c(risk, n, delta)
        np.testing.assert_allclose(unpriced, missing(risk, n), rtol=1e-9)
    worst = bound_adversary.one_predictor(missing, 10)
    assert worst["probability"] == pytest.approx(delta)
    assert worst["probability"] <= delta


@pytest.mark.parametrize("sides", ["one", "two"])
def test_the_search_over_two_predictors_is_that_by_hand(monkeypatch, sides):
    """With posteriors on one predictor only, delta is halved between the two."""
    monkeypatch.setattr(bound_adversary, "MIXTURES", 2)
    monkeypatch.setattr(bound_adversary, "PAIRS", 3)
    delta, worst = 0.3, 0.0

    def fails(k, n, p):
        outside = n * binary_kl(k / n, p) > math.log(2 / delta)
        return outside and (k / n < p or sides == "two")

    levels = itertools.combinations_with_replacement((1 / 6, 1 / 2, 5 / 6), 2)
    for n, risks in itertools.product((1, 2, 3, 4), list(levels)):
        holds = 1.0
        for p in risks:
            counts = [k for k in range(n + 1) if not fails(k, n, p)]
            holds *= sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts)
        worst = max(worst, 1 - holds)
    found = bound_adversary.two_predictors(delta, 4, sides)
    assert found["probability"] == pytest.approx(worst, rel=1e-12)
    monkeypatch.setattr(bound_adversary, "MIXTURES", 11)
    assert bound_adversary.two_predictors(delta, 4, sides)["probability"] >= worst


@pytest.fixture
def small(monkeypatch, tmp_path):
    claims = [claim for claim in CLAIMS if claim.world == "hold-out"]
    monkeypatch.setattr(bound_coverage, "CLAIMS", claims)
    monkeypatch.setattr(bound_coverage, "BROKEN", BROKEN[:2])
    monkeypatch.setattr(bound_coverage, "ADVERSARY_N", 4)
    monkeypatch.setattr(bound_coverage, "ADVERSARY_FEW", 2)
    monkeypatch.setattr(bound_adversary, "PAIRS", 4)
    return bound_coverage.Config(trials=200, seed=3, out=tmp_path / "out")


def test_the_study_writes_what_it_can_draw_again(small, monkeypatch):
    folder = bound_coverage.study(small)
    page = (folder / "coverage.md").read_text(encoding="utf-8")
    rows = pd.read_csv(folder / "coverage.csv", keep_default_na=False)
    assert len(rows) == 4 * len(DELTAS)
    assert (rows["failures"] == (rows["rate"] * rows["trials"]).round()).all()
    assert ((rows["low"] <= rows["rate"]) & (rows["rate"] < rows["limit"])).all()
    assert "0 exceed δ" in page
    assert "Of 2 mistakes built into bounds 2 are caught" in page
    assert len(pd.read_csv(folder / "adversary.csv")) == 6 * len(DELTAS) + 1
    about = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert about["command"] == "python studies/bound_coverage.py --trials 200 --seed 3"
    for name in ("coverage.md", "coverage.svg"):
        (folder / name).unlink()
    monkeypatch.setattr(bound_coverage, "run", lambda cell: 1 / 0)
    bound_coverage.study(bound_coverage.Config(out=folder, redraw=True))
    assert (folder / "coverage.md").read_text(encoding="utf-8") == page
    assert (folder / "coverage.svg").exists()


def test_the_same_seed_counts_the_same_and_another_does_not():
    claims = [claim for claim in CLAIMS if claim.world == "hold-out"]
    once, again, other = (bound_coverage.simulate(claims, 700, seed) for seed in (5, 5, 6))
    assert once == again
    assert once != other


def test_the_row_shown_is_the_largest_share_of_delta_in_the_order_of_the_bounds():
    rows = [("b", 0.05, 0.0), ("a", 0.05, 0.01), ("b", 0.5, 0.0), ("a", 0.5, 0.02), ("a", 0.2, 0.0)]
    frame = pd.DataFrame(rows, columns=["bound", "delta", "rate"])
    shown = bound_coverage.worst(frame, "bound")
    assert shown[["bound", "delta", "rate"]].to_numpy().tolist() == [
        ["b", 0.5, 0],
        ["a", 0.05, 0.01],
    ]


def test_a_broken_promise_is_named():
    row = {"bound": "maurer", "delta": 0.05, "low": 0.0499}
    frame = pd.DataFrame([row, row | {"low": 0.0501}])
    assert bound_coverage.broken_promises(frame).index.tolist() == [1]


@pytest.mark.parametrize(("field", "value"), [("trials", 0), ("seed", -1)])
def test_a_senseless_configuration_is_refused(field, value):
    with pytest.raises(ValueError, match=f"`{field}` must be at least"):
        bound_coverage.Config(**{field: value})
