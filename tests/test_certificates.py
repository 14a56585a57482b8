"""Certificates: the arithmetic by another path, the promise itself, files and tampering."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
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
    certify_vote,
    holdout_bound,
    kl_upper,
    least_loss_of_right_vote,
    verify,
)
from pbnn.evaluation import Risks, risks
from pbnn.networks import PBGNet
from pbnn.seeding import generator

DATA = Path(__file__).parent / "data"
PROVENANCE = Provenance("a draw", 0, {"certification": "ab"})
EXACT = Risks(2000, 0.05, 0.04, 0.02, 0.0, 0, 1e-12)
SAMPLED = Risks(2000, 0.05, 0.01, 0.02, 0.0, 40_000, 1e-12)


def make(kl: float = 8.0, width: int = 3) -> PBGNet:
    network = PBGNet(4, (width,), generator=generator(0, "prior"), dtype=torch.float64)
    network.output.weight.mean.data.fill_(3.0)
    network.output.weight.adopt_as_prior()
    network.hidden[0].weight.mean.data[0, 0] += math.sqrt(2 * kl)
    return network


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
    uncorrelated = Risks(2_000_000, 0.3, 0.0901, 0.1, 0.0, 0, 1e-12)
    second = certify_vote(make(), uncorrelated, budget, PROVENANCE)
    assert second.theorem == "tandem"
    delta = 0.05 * 0.05
    expected = 4 * kl_plus(0.0901, (16 + math.log(2 * math.sqrt(2e6) / delta)) / 2e6)
    assert second.bound == pytest.approx(expected, rel=1e-6)


def test_a_gibbs_bound_above_one_half_says_nothing_of_the_vote():
    hopeless = Risks(20, 0.45, 0.3, 0.4, 0.0, 0, 1e-12)
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


def test_the_least_loss_of_one_gaussian_unit_is_that_of_the_input_along_its_weights():
    network = PBGNet(4, (), generator=generator(3, "prior"), dtype=torch.float64)
    network.output.weight.mean.data.mul_(3)
    along = network.output.weight.mean.data
    least = float(1 - network(along)[0].detach()) / 2
    assert least_loss_of_right_vote(network) == pytest.approx(least, rel=1e-9)
    x = torch.randn(1000, 4, generator=generator(0, "x"), dtype=torch.float64)
    loss = (1 - network(x).detach().abs()) / 2
    assert bool((loss >= least_loss_of_right_vote(network)).all())


def test_the_kl_is_rounded_up_and_summed_over_all_layers():
    network = make()
    for layer in network.layers():
        layer.weight.mean.data.add_(
            torch.randn(layer.weight.mean.shape, generator=generator(5, "d")).double()
        )
    exact = Fraction(0)
    for layer in network.layers():
        for mean, prior in zip(
            layer.weight.mean.flatten().tolist(),
            layer.weight.prior_mean.flatten().tolist(),
            strict=True,
        ):
            exact += (Fraction(mean) - Fraction(prior)) ** 2 / 2
    assert exact <= Fraction(kl_upper(network)) <= exact * (1 + Fraction(1, 10**12))


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
    bounds = [certify_gibbs(network, e, budget, PROVENANCE).bound for network, e in trials]
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


@pytest.mark.parametrize("budget", [{"seeds": 0}, {"choices": 0}, {"delta": 1.5}])
def test_a_budget_that_is_none_is_refused(budget):
    with pytest.raises(ValueError, match="must"):
        certify_gibbs(make(), EXACT, dataclasses.replace(Budget(), **budget), PROVENANCE)
