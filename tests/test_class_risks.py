"""Risks of random networks of several classes from draws, and the certificates made of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pbnn.bounds import betting, clopper_pearson, maurer, recursive, rivasplata
from pbnn.certificates import (
    Budget,
    Certificate,
    Provenance,
    Step,
    certify_gibbs,
    certify_one,
    certify_recursive,
    certify_vote,
    kl_upper,
    log_ratio_upper,
    verify,
)
from pbnn.class_risks import drawn_risks, readout_errors, readout_risks
from pbnn.networks import BLRNet, GaussianReadout
from pbnn.seeding import generator

BUDGET = Budget(0.05, 3, 20, "classes")
PROVENANCE = Provenance("fixed", 0, {"certification": "ab"})


def network():
    made = BLRNet((1, 6, 6), "3C3-MP2-SM3", generator=generator(0, "network"))
    x = torch.rand(24, 1, 6, 6, generator=generator(0, "images"))
    return made.re_estimate(x).eval(), x, torch.arange(24) % 3


def readout():
    made = GaussianReadout(5, 3)
    with torch.no_grad():
        made.weight.mean.copy_(torch.randn(3, 5, generator=generator(0, "mean")))
        made.weight.log_deviation.fill_(-0.5)
    x = torch.randn(400, 5, generator=generator(0, "x"))
    return made, x, made.mode(x).argmax(1)


def test_drawn_risks_are_those_of_independent_draws():
    made, x, y = network()
    found = drawn_risks(made, x, y, group=4, passes=500, generator=generator(0, "draws"))
    source, draws = generator(1, "draws"), 4000
    wrong = torch.stack([(made.sample(x, source).argmax(1) != y).double() for _ in range(draws)])
    variance = float(wrong.mean(1).var()) / draws + 0.25 / found.draws
    assert abs(found.gibbs - float(wrong.mean())) <= 5 * variance**0.5
    assert found.draws == 500 * 6 == sum(count for _, count in found.losses)
    assert found.gibbs == pytest.approx(sum(v * c for v, c in found.losses) / found.draws)
    # 5 groups a pass, the last of 4 points.
    uneven = drawn_risks(made, x, y, group=5, passes=300, generator=generator(0, "draws"))
    assert uneven.draws == 5 * 300
    filled = sum(v * c for v, c in uneven.losses) / uneven.draws * 25 / 24
    assert uneven.gibbs == pytest.approx(filled)
    assert abs(uneven.gibbs - float(wrong.mean())) <= 5 * (variance + 0.25 / 1500) ** 0.5


def test_every_group_has_a_network_of_its_own(monkeypatch):
    made, x, y = network()
    seen = []

    def binarise(given, how, source):
        from pbnn.networks import binarise

        assert (how, given.layers()[0].layer.weight.mean.dtype) == ("sample", torch.float64)
        seen.append(binarise(given, how, source))
        return seen[-1]

    monkeypatch.setattr("pbnn.class_risks.binarise", binarise)
    drawn_risks(made, x, y, group=8, passes=2, generator=generator(0, "draws"))
    weights = {tuple(one.layers()[1].weight.flatten().tolist()) for one in seen}
    assert len(seen) == len(weights) == 6


@pytest.mark.parametrize("bad", [{"group": 0}, {"passes": 0}])
def test_numbers_of_draws_that_are_none_are_refused(bad):
    made, x, y = network()
    with pytest.raises(ValueError, match=next(iter(bad))):
        drawn_risks(made, x, y, **{"group": 4, "passes": 1, "generator": generator(0)} | bad)


@pytest.mark.parametrize(("group", "fill"), [(4, 1.0), (5, 25 / 24)])
def test_the_gibbs_certificate_of_draws_is_betting_within_the_bound(group, fill):
    made, x, y = network()
    found = drawn_risks(made, x, y, group=group, passes=50, generator=generator(0, "draws"))
    certificate = certify_gibbs(made, found, BUDGET, PROVENANCE)
    share = 0.05 / (3 * 20)
    losses = [value for value, count in found.losses for _ in range(count)]
    upper = fill * betting(losses, delta=0.1 * share) + found.rounding
    assert certificate.risk_upper == pytest.approx(upper, rel=1e-9)
    expected = maurer(upper, kl_upper(made), 24, delta=0.4 * share)
    assert certificate.bound == pytest.approx(expected, rel=1e-9)
    verify(Certificate.from_dict(certificate.to_dict()))
    (value, count), *others = certificate.losses
    for losses in ([[value, count + 1], *others], [[value + 0.01, count], *others], []):
        with pytest.raises(ValueError, match="does not hold"):
            verify(dataclasses.replace(certificate, losses=losses))


def test_the_certificates_of_a_readout_are_the_formulas():
    made, x, y = readout()
    found = readout_risks(made, x, y)
    share = 0.05 / (3 * 20)
    gibbs = certify_gibbs(made, found, BUDGET, PROVENANCE)
    vote = certify_vote(made, found, BUDGET, PROVENANCE)
    expected = maurer(found.gibbs, made.double().kl().item(), 400, delta=0.5 * share)
    assert gibbs.bound == pytest.approx(expected, rel=1e-9)
    assert (gibbs.predictor, vote.predictor) == ("randomised network", "vote")
    assert vote.bound == (pytest.approx(2 * expected, rel=1e-9) if expected < 0.5 else 1.0)
    for certificate in (gibbs, vote):
        verify(Certificate.from_dict(certificate.to_dict()))


def test_the_certificate_of_one_network_is_the_formula():
    made, _, _ = readout()
    weight = made.weight.sample(generator(0, "one"))
    ratio = log_ratio_upper(made.weight, weight)
    share = 0.25 * 0.05 / (3 * 20)
    drawn = certify_one(30, 400, ratio, BUDGET, PROVENANCE)
    assert drawn.bound == pytest.approx(rivasplata(30 / 400, ratio, 400, delta=share), rel=1e-9)
    fixed = certify_one(30, 400, None, BUDGET, PROVENANCE)
    assert fixed.bound == pytest.approx(clopper_pearson(30, 400, delta=share), rel=1e-9)
    assert (drawn.predictor, fixed.predictor) == ("drawn network", "fixed network")
    vote = certify_one(30, 400, None, BUDGET, PROVENANCE, vote=True)
    assert (vote.predictor, vote.bound) == ("fixed vote", fixed.bound)
    with pytest.raises(ValueError, match="vote"):
        certify_one(30, 400, ratio, BUDGET, PROVENANCE, vote=True)
    for certificate in (drawn, fixed, vote):
        verify(Certificate.from_dict(certificate.to_dict()))
    with pytest.raises(ValueError, match="errors"):
        certify_one(401, 400, None, BUDGET, PROVENANCE)


def test_errors_of_fresh_read_outs_are_binomial_with_the_gibbs_risk():
    made, x, y = readout()
    source, passes = generator(0, "fresh"), 300
    share = torch.stack([readout_errors(made, x, y, generator=source) for _ in range(passes)])
    found = readout_risks(made, x, y).gibbs
    error = 5 * (found * (1 - found) / share.numel()) ** 0.5
    assert abs(float(share.double().mean()) - found) <= error
    known = readout_errors(made, x, y, weight=made.weight.mode())
    assert not known.any()
    for both in ({}, {"weight": made.weight.mode(), "generator": source}):
        with pytest.raises(ValueError, match="weight"):
            readout_errors(made, x, y, **both)


def test_the_recursive_certificate_is_the_best_of_its_weights():
    source = generator(0, "losses")
    chance = torch.rand(4000, generator=source)
    wrong = [chance < 0.2, chance[1000:] < 0.1, chance[2000:] < 0.08]
    before = [None, torch.rand(3000, generator=source) < 0.2, chance[2000:] < 0.1]
    steps = [Step(k, w, b) for k, w, b in zip([30.0, 20.0, 5.0], wrong, before, strict=True)]
    found = certify_recursive(steps, BUDGET, PROVENANCE)
    verify(Certificate.from_dict(found.to_dict()))
    frequencies, kls, sizes = ([s[f] for s in found.steps] for f in ("frequency", "kl", "n"))
    shares = BUDGET.events(exact=False)
    shares = {"delta": shares["gibbs"], "delta_mc": shares["gibbs_draws"]}
    grid = [
        recursive(frequencies, kls, sizes, gamma=[a / 20, b / 20], **shares)
        for a in range(1, 21)
        for b in range(1, 21)
    ]
    assert found.bound == pytest.approx(min(grid), rel=1e-9)
    assert found.n == 4000
    # How often the excess loss l − γ l' is at least 0, 1 − γ and 1, at γ = ½.
    for step, told in zip(steps[1:], found.steps[1:], strict=True):
        excess = step.wrong.double() - step.prior_wrong.double() / 2
        levels = [float((excess >= level).double().mean()) for level in (0.0, 0.5, 1.0)]
        assert told["frequency"] == pytest.approx(levels, abs=1e-12)
    later = [dict(found.steps[0]), dict(found.steps[1], kl=0.0), dict(found.steps[2])]
    with pytest.raises(ValueError, match="does not hold"):
        verify(dataclasses.replace(found, steps=later))
    with pytest.raises(ValueError, match="steps"):
        certify_recursive(steps[1:], BUDGET, PROVENANCE)
