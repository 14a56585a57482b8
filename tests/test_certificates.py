"""Certificates: the arithmetic by another path, the promise itself, files and tampering."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import rel_entr

from pbnn.certificates import (
    Budget,
    Certificate,
    Provenance,
    certify_gibbs,
    certify_known,
    certify_vote,
    holdout_bound,
    kl_upper,
    least_loss_of_right_vote,
    statement,
    verify,
)
from pbnn.evaluation import Risks, risks
from pbnn.networks import ABNet, PBGNet, SignNetwork, fingerprint
from pbnn.seeding import generator

DATA = Path(__file__).parent / "data"
PROVENANCE = Provenance("a draw", 0, {"certification": "ab"})


def make(kl: float = 8.0, *, hidden=(3,), kind: type[SignNetwork] = PBGNet) -> SignNetwork:
    """A network with this KL, all of it in one weight of the first layer."""
    network = kind(4, hidden, generator=generator(0, "prior"), dtype=torch.float64)
    network.output.weight.mean.data.fill_(3.0)
    network.output.weight.adopt_as_prior()
    first = network.layers()[0].weight.mean.data
    first[0, 0] += math.sqrt(2 * kl / network.copies()[0])
    return network


EXACT = Risks(2000, 0.05, 0.04, 0.02, 0.0, 0, 1e-12, fingerprint(make()))
SAMPLED = dataclasses.replace(EXACT, tandem=0.01, draws=40_000)


def kl_plus(q: float, c: float) -> float:
    """Independent of ours: scipy's relative entropy and root finder."""
    return brentq(lambda p: rel_entr(q, p) + rel_entr(1 - q, 1 - p) - c, q, 1 - 1e-15, xtol=1e-15)


def test_the_gibbs_certificate_is_the_formula():
    certificate = certify_gibbs(make(), EXACT, Budget(0.05, 3, 1000), PROVENANCE)
    delta = 0.95 * 0.05 / 3000
    expected = kl_plus(0.05, (8 + math.log(2 * math.sqrt(2000) / delta)) / 2000)
    assert certificate.bound == pytest.approx(expected, rel=1e-9)
    assert certificate.bound >= expected - 1e-14
    assert (certificate.n, certificate.draws) == (2000, 0)


def test_draws_are_paid_for_from_the_same_delta():
    certificate = certify_gibbs(make(), SAMPLED, Budget(0.05, 3, 1000), PROVENANCE)
    each = 0.05 / 3000
    risk = kl_plus(0.05, math.log(1 / (0.1 * each)) / 40_000)
    assert certificate.risk_upper == pytest.approx(risk, rel=1e-9)
    expected = kl_plus(risk, (8 + math.log(2 * math.sqrt(2000) / (0.85 * each))) / 2000)
    assert certificate.bound == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("evidence", [EXACT, SAMPLED])
def test_all_events_of_a_study_sum_to_delta(evidence):
    budget = Budget(0.05, 5, 1234)
    events = budget.events(exact=evidence.draws == 0)
    spent = 5 * 1234 * sum(Fraction(d) for d in events.values())
    assert spent <= Fraction(0.05)
    assert float(spent) == pytest.approx(0.05, rel=1e-9)


def test_the_vote_takes_the_better_way_and_is_never_above_the_factor_two():
    budget = Budget(0.05, 1, 1)
    gibbs = certify_gibbs(make(), EXACT, budget, PROVENANCE)
    vote = certify_vote(make(), EXACT, budget, PROVENANCE)
    assert vote.theorem == "derandomised"
    assert vote.bound <= 2 * gibbs.bound
    # Uncorrelated errors: the tandem risk is far below the Gibbs risk and the second order wins.
    uncorrelated = dataclasses.replace(EXACT, n=2_000_000, gibbs=0.3, tandem=0.0901)
    second = certify_vote(make(), uncorrelated, budget, PROVENANCE)
    assert second.theorem == "tandem"
    delta = 0.05 * 0.05
    expected = 4 * kl_plus(0.0901, (16 + math.log(2 * math.sqrt(2e6) / delta)) / 2e6)
    assert second.bound == pytest.approx(expected, rel=1e-6)


def test_a_gibbs_bound_above_one_half_says_nothing_of_the_vote():
    hopeless = dataclasses.replace(EXACT, n=20, gibbs=0.45, tandem=0.3)
    assert certify_vote(make(), hopeless, Budget(0.05, 1, 1), PROVENANCE).bound == 1.0


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_the_least_loss_of_a_right_vote_is_below_every_pattern(bias, scale):
    network = PBGNet(4, (5,), bias=bias, generator=generator(3, "prior"), dtype=torch.float64)
    network.output.weight.mean.data.mul_(0).add_(
        scale * torch.randn(network.output.weight.mean.shape, generator=generator(4, "w")).double()
    )
    weight = network.output.weight.mean[0].tolist()
    signs = itertools.product([-1, 1], repeat=len(weight))
    arguments = [sum(w * s for w, s in zip(weight, row, strict=True)) for row in signs]
    least = min(math.erfc(abs(a) / math.sqrt(2 * len(weight))) / 2 for a in arguments)
    found = least_loss_of_right_vote(network)
    assert found <= least
    assert found == pytest.approx(least, rel=1e-12)


def test_the_least_loss_of_one_gaussian_unit_with_bias_is_that_of_the_input_along_its_weights():
    network = PBGNet(4, (), bias=True, generator=generator(3, "prior"), dtype=torch.float64)
    network.output.weight.mean.data.mul_(3)[:, -1] = 0.5
    along = network.output.weight.mean.data[:, :-1] / 0.5
    least = float(1 - network(along)[0].detach()) / 2
    assert least_loss_of_right_vote(network) == pytest.approx(least, rel=1e-9)
    x = torch.randn(1000, 4, generator=generator(0, "x"), dtype=torch.float64)
    loss = (1 - network(x).detach().abs()) / 2
    assert bool((loss >= least_loss_of_right_vote(network)).all())


def test_a_lone_unit_without_bias_has_no_loss_at_zero_and_its_vote_no_better_bound():
    """Half the points are zero, where every draw says +1; the vote errs on the other half."""
    network = PBGNet(2, (), generator=generator(0, "prior"), dtype=torch.float64)
    weight = torch.tensor([[1.5, 0.0]], dtype=torch.float64)
    for mean in (network.output.weight.mean.data, network.output.weight.prior_mean):
        mean.copy_(weight)
    x = torch.tensor([[0.0, 0.0], [-0.002, 1.0]], dtype=torch.float64).repeat(50_000, 1)
    y = torch.ones(len(x), dtype=torch.float64)
    found = risks(network, x, y)
    assert found.vote == 0.5
    assert least_loss_of_right_vote(network) == 0.0
    assert certify_vote(network, found, Budget(0.05, 5, 1000), PROVENANCE).bound > 0.5


@pytest.mark.parametrize(
    ("kind", "hidden", "copies"),
    [
        (PBGNet, (3,), [1, 1]),
        (PBGNet, (3, 2), [2, 1, 1]),
        (PBGNet, (2, 3, 2), [6, 2, 1, 1]),
        (ABNet, (2, 3, 2), [1, 1, 1, 1]),
    ],
)
def test_the_kl_is_rounded_up_and_summed_over_all_copies_of_all_layers(kind, hidden, copies):
    network = make(hidden=hidden, kind=kind)
    for layer in network.layers():
        layer.weight.mean.data.add_(
            torch.randn(layer.weight.mean.shape, generator=generator(5, "d")).double()
        )
    exact = Fraction(0)
    for count, layer in zip(copies, network.layers(), strict=True):
        for mean, prior in zip(
            layer.weight.mean.flatten().tolist(),
            layer.weight.prior_mean.flatten().tolist(),
            strict=True,
        ):
            exact += count * (Fraction(mean) - Fraction(prior)) ** 2 / 2
    assert exact <= Fraction(kl_upper(network)) <= exact * (1 + Fraction(1, 10**12))


@pytest.mark.parametrize(
    ("kind", "hidden", "tree"),
    [
        (PBGNet, (), False),
        (PBGNet, (3,), False),
        (PBGNet, (3, 2), True),
        (PBGNet, (2, 3, 2), True),
        (ABNet, (3,), False),
        (ABNet, (3, 2), False),
    ],
)
def test_a_certificate_says_whether_it_is_about_trees(kind, hidden, tree):
    network, budget = make(hidden=hidden, kind=kind), Budget(0.05, 1, 1)
    gibbs, vote = ("randomised tree", "vote of trees") if tree else ("randomised network", "vote")
    mine = dataclasses.replace(EXACT, network=fingerprint(network))
    assert certify_gibbs(network, mine, budget, PROVENANCE).predictor == gibbs
    for tandem, theorem in ((0.04, "derandomised"), (0.0026, "tandem")):
        risk = dataclasses.replace(mine, n=2_000_000, tandem=tandem)
        certificate = certify_vote(network, risk, budget, PROVENANCE)
        assert (certificate.predictor, certificate.theorem) == (vote, theorem)
        verify(certificate)


def test_the_certificate_of_a_tree_is_the_formula_with_all_copies_counted():
    network, n = make(0.0, hidden=(3, 2)), 2000
    network.layers()[0].weight.mean.data[0, 0] += 4.0
    network.layers()[1].weight.mean.data[0, 0] += 2.0
    mine = dataclasses.replace(EXACT, network=fingerprint(network))
    bound = certify_gibbs(network, mine, Budget(0.05, 1, 1), PROVENANCE).bound
    kl = 2 * 4.0**2 / 2 + 2.0**2 / 2
    expected = kl_plus(0.05, (kl + math.log(2 * math.sqrt(n) / (0.95 * 0.05))) / n)
    assert bound == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("certify", [certify_gibbs, certify_vote])
def test_risks_of_another_network_are_refused(certify):
    x = torch.randn(20, 4, generator=generator(0, "x"), dtype=torch.float64)
    y = torch.ones(20)
    tree, shared = (make(hidden=(3, 2), kind=kind) for kind in (PBGNet, ABNet))
    shared.load_state_dict(tree.state_dict())
    evidence = risks(tree, x, y)
    certify(tree, evidence, Budget(), PROVENANCE)
    with pytest.raises(ValueError, match="`risks` must be those of `network`"):
        certify(shared, evidence, Budget(), PROVENANCE)
    # A smaller KL alone is no other risk, and would be a better certificate.
    tree.adopt_as_prior()
    with pytest.raises(ValueError, match="`risks` must be those of `network`"):
        certify(tree, evidence, Budget(), PROVENANCE)


def test_risks_are_those_of_a_network_in_either_precision():
    network = PBGNet(4, (3, 2), generator=generator(0, "prior"))
    x = torch.randn(20, 4, generator=generator(0, "x"))
    evidence = risks(network, x, torch.ones(20))
    single = certify_gibbs(network, evidence, Budget(), PROVENANCE)
    assert certify_gibbs(network.double(), evidence, Budget(), PROVENANCE) == single


def test_the_holdout_bound_is_the_binomial_tail():
    from scipy.stats import binom

    budget = Budget(0.05, 1, 1)
    upper = holdout_bound(7, 500, budget, 0.0)
    assert binom.cdf(7, 500, upper) == pytest.approx(0.05, rel=1e-6)
    assert holdout_bound(7, 500, Budget(0.05, 3, 1000), 0.0) > upper


def overfitted(n: int, trial: int) -> tuple[PBGNet, Risks]:
    """A posterior that has learned n coin flips by heart: its true risk is one half."""
    source = generator(trial, "sample")
    x = torch.randn(n, 50, generator=source, dtype=torch.float64)
    y = torch.where(torch.rand(n, generator=source) < 0.5, 1.0, -1.0).double()
    network = PBGNet(50, (1,), generator=generator(trial, "prior"), dtype=torch.float64)
    direction = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    network.hidden[0].weight.mean.data[0] = 40 * direction / direction.norm()
    network.output.weight.mean.data[0] = 4.0
    return network, risks(network, x, y)


def test_the_promise_holds_for_posteriors_that_overfit_and_sees_a_missing_kl():
    budget = Budget(0.05, 1, 1)
    trials = [overfitted(100, trial) for trial in range(60)]
    assert all(evidence.gibbs < 0.45 for _, evidence in trials)
    bounds = [certify_gibbs(network, e, budget, PROVENANCE).bound for network, e in trials]
    assert np.mean(np.array(bounds) < 0.5) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 60)
    # The same trials convict a certificate that counts the KL of the last layer only.
    for network, _ in trials:
        network.hidden[0].weight.adopt_as_prior()
    cheated = [(net, dataclasses.replace(e, network=fingerprint(net))) for net, e in trials]
    bounds = [certify_gibbs(network, e, budget, PROVENANCE).bound for network, e in cheated]
    assert np.mean(np.array(bounds) < 0.5) > 0.3


def test_a_certificate_survives_its_file(tmp_path):
    for certificate in (
        certify_gibbs(make(), SAMPLED, Budget(), PROVENANCE),
        certify_vote(make(), EXACT, Budget(), PROVENANCE),
    ):
        certificate.save(tmp_path / "c.json")
        assert Certificate.load(tmp_path / "c.json") == certificate


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bound", 0.01),
        ("risk", 0.001),
        ("risk_upper", 0.001),
        ("draws", 10**9),
        ("kl", 0.0),
        ("n", 10**6),
        ("rounding", -0.01),
        ("theorem", "catoni"),
        ("theorem", "derandomised"),
        ("predictor", "vote"),
        ("events", {"gibbs": 0.5, "tandem": 0.5}),
        ("budget", {"delta": 0.5, "seeds": 1, "choices": 1}),
        ("n", True),
        ("kl", "8"),
        ("bound", math.nan),
    ],
)
def test_a_tampered_certificate_is_refused(field, value, tmp_path):
    record = certify_gibbs(make(), SAMPLED, Budget(), PROVENANCE).to_dict() | {field: value}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"c\.json"):
        Certificate.load(path)


@pytest.mark.parametrize(
    ("hidden", "certify", "predictor"),
    [
        ((3,), certify_gibbs, "vote"),
        ((3,), certify_gibbs, "vote of trees"),
        ((3,), certify_vote, "randomised network"),
        ((3, 2), certify_gibbs, "vote of trees"),
        ((3, 2), certify_vote, "randomised tree"),
        ((3, 2), certify_vote, "tree"),
    ],
)
def test_a_certificate_of_another_predictor_is_refused(hidden, certify, predictor):
    network = make(hidden=hidden)
    mine = dataclasses.replace(EXACT, network=fingerprint(network))
    certificate = certify(network, mine, Budget(), PROVENANCE)
    verify(certificate)
    with pytest.raises(ValueError, match=f"`predictor` '{predictor}' does not go with"):
        verify(dataclasses.replace(certificate, predictor=predictor))


@pytest.mark.parametrize("change", [{"extra": 1}, {"n": None}])
def test_unknown_and_missing_fields_are_refused(change):
    record = certify_gibbs(make(), EXACT, Budget(), PROVENANCE).to_dict() | change
    record = {name: value for name, value in record.items() if value is not None}
    with pytest.raises(ValueError, match="missing or unknown fields"):
        Certificate.from_dict(record)


def test_the_fixture_of_version_1_still_holds():
    certificate = Certificate.load(DATA / "certificate_v1.json")
    assert certificate.schema_version == 1
    verify(certificate)


def test_a_newer_certificate_is_refused(tmp_path):
    record = json.loads((DATA / "certificate_v1.json").read_text()) | {"schema_version": 999}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="schema_version 999"):
        Certificate.load(path)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"seeds": 0}, "`seeds` must be a positive integer, got 0"),
        ({"choices": -1}, "`choices` must be a positive integer, got -1"),
        ({"choices": 1.0}, "`choices` must be an integer, got 1.0"),
        ({"seeds": True}, "`seeds` must be an integer, got True"),
        ({"delta": 95}, r"`delta` must lie in \(0, 1\), got 95"),
        ({"delta": 0.0}, r"`delta` must lie in \(0, 1\), got 0.0"),
        ({"delta": math.nan}, r"`delta` must lie in \(0, 1\), got nan"),
        ({"delta": "0.05"}, "`delta` must be a number, got '0.05'"),
    ],
)
def test_a_budget_that_is_none_is_refused(budget, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Budget(**budget)
    record = certify_gibbs(make(), EXACT, Budget(), PROVENANCE).to_dict()
    record["budget"] |= budget
    with pytest.raises(ValueError, match=f"^here: {message}.$"):
        Certificate.from_dict(record, "here")


def test_what_is_verified_is_a_certificate():
    with pytest.raises(
        TypeError, match=r"a Certificate, got str: `Certificate\.load\(path\)` reads"
    ):
        verify("clf.json")
    with pytest.raises(TypeError, match=r"`certificate` must be a Certificate, got dict\.$"):
        verify({})


@pytest.mark.parametrize(
    ("delta", "choices", "change", "sure", "most", "paid"),
    [
        (0.05, 1, {}, "95", None, ""),
        (1e-9, 1, {}, "99.999999", None, ""),
        (1e-40, 1, {}, "99.999999", None, ""),  # no probability of 1
        (0.05, 7, {"bound": 0.0701}, "95", "7.1", "; the choice among 7 is paid for"),
        (0.05, 1, {"bound": 0.07}, "95", "7.1", ""),  # the float64 lies above 0.07
        (0.05, 1, {"bound": 1.0}, "95", "100", ""),
    ],
)
def test_a_certificate_is_printed_as_a_sentence(delta, choices, change, sure, most, paid):
    made = certify_gibbs(make(), EXACT, Budget(delta, 1, choices), PROVENANCE)
    made = dataclasses.replace(made, **change)
    text = str(made)
    found = re.fullmatch(
        rf"With probability at least {sure}% over the draw of {made.n} points, the randomised "
        rf"network errs on at most (.+)% of new points{paid}\.",
        text,
    )
    assert found, text
    assert most in (None, found[1])
    assert 0 <= float(found[1]) - 100 * made.bound <= 0.1
    assert repr(made).startswith("Certificate(predictor=")


def test_the_sentence_names_all_draws_that_its_probability_is_over():
    budget = Budget(0.05, choices=1, family="deployed")
    given = {"budget": budget, "events": budget.events(exact=True), "provenance": PROVENANCE}
    drawn = statement.stated("rivasplata", 1, risk=0.02, kl=3.0, n=1000, **given)
    assert "over the draw of 1000 points and the draw of the networks, the drawn vote" in str(drawn)
    budget = Budget(0.05, choices=1, family="classes")
    given |= {"budget": budget, "events": budget.events(exact=False), "draws": 5000}
    estimated = statement.stated("maurer", risk=0.02, kl=3.0, n=1000, **given)
    assert "and the 5,000 draws that estimate the empirical risk, the randomised" in str(estimated)
    with pytest.raises(ValueError, match="of one budget and n"):
        statement.told([drawn, estimated])
    with pytest.raises(ValueError, match="of one budget and n"):
        statement.told([])


def test_ingredients_that_cannot_be_are_refused():
    budget = Budget(0.05, choices=1, family="signs")
    given = {"budget": budget, "events": budget.events(exact=True), "provenance": PROVENANCE}
    given |= {"risk": 0.2, "kl": 3.0, "n": 1000}
    with pytest.raises(ValueError, match="`lower_right` must not exceed the risk"):
        verify(statement.stated("derandomised", lower_right=0.21, **given))
    budget = Budget(0.05, choices=1, family="classes")
    given |= {"budget": budget, "events": budget.events(exact=False), "draws": 10_000, "risk": 0.3}
    losses = [[0.0, 7000.0], *([[1.0, 0.75]] * 4000)]
    with pytest.raises(ValueError, match="whole positive counts"):
        verify(statement.stated("maurer", losses=losses, group=10, **given))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget", {"delta": 0.05, "family": ["signs"]}),
        ("provenance", {"prior": 1, "seed": 0, "splits": {}}),
        ("provenance", {"prior": "", "seed": "0", "splits": {}}),
        ("provenance", {"prior": "", "seed": 0, "splits": ["ab"]}),
        ("provenance", {"prior": "", "seed": 0, "splits": {"prior": None}}),
        ("events", {"gibbs": 1}),
        ("versions", {"pbnn": None}),
        ("losses", [0.5]),
        ("steps", [0.5]),
    ],
)
def test_a_field_that_holds_another_type_is_refused(field, value):
    record = certify_gibbs(make(), EXACT, Budget(), PROVENANCE).to_dict()
    Certificate.from_dict(record)
    with pytest.raises(ValueError, match=f"`{field}` must hold a "):
        Certificate.from_dict(record | {field: value})


def known(**prices):
    return certify_known("ab", 100, 2000, Budget(family="coded"), PROVENANCE, **prices)


@pytest.mark.parametrize("prices", [{"nats": 8.0}, {"log_ratio": 8.0}])
def test_what_was_counted_is_not_drawn_and_a_share_of_the_points(prices):
    certificate = known(**prices)
    verify(certificate)
    for change in ({"draws": 1000}, {"risk": 0.05012}):
        with pytest.raises(ValueError, match="does not hold"):
            verify(forged(certificate, **change))


def test_what_was_fixed_costs_nothing_and_no_step_stands_without_its_theorem():
    fixed = certify_known("ab", 100, 2000, Budget(family="fixed"), PROVENANCE, fixed=True)
    for certificate, change, told in (
        (fixed, {"kl": 1.0}, "`kl` of what was fixed"),
        (known(nats=8.0), {"steps": [{}]}, "`steps` must be"),
        (known(nats=8.0), {"group": 0}, "`group` 0"),
        (known(nats=8.0), {"losses": [[0.0, 1.0]]}, "`losses` must be of draws"),
    ):
        verify(certificate)
        with pytest.raises(ValueError, match=told):
            verify(forged(certificate, **change))


def forged(certificate, **changes):
    """With all that follows from the changes computed again."""
    changed = dataclasses.replace(certificate, **changes)
    events = changed.budget.events(exact=changed.draws == 0)
    return statement.closed(dataclasses.replace(changed, events=events))


@pytest.mark.parametrize(
    ("errors", "n", "prices", "error"),
    [
        (1.5, 100, {"nats": 1.0}, TypeError),
        (1, 100.0, {"nats": 1.0}, TypeError),
        (1, 100, {"nats": "1"}, TypeError),
        (1, 100, {"nats": math.inf}, ValueError),
        (1, 100, {"nats": 10**400}, ValueError),
    ],
)
def test_counts_and_prices_that_are_none_are_refused(errors, n, prices, error):
    with pytest.raises(error, match="must be"):
        certify_known("ab", errors, n, Budget(family="coded"), PROVENANCE, **prices)


def test_a_holdout_bound_of_too_many_or_no_points_is_refused():
    for errors, n, rounding in ((1, 10**400, 0.0), (0.5, 10, 0.0), (1, 10, math.nan)):
        with pytest.raises(ValueError, match="must be"):
            holdout_bound(errors, n, Budget(), rounding)
