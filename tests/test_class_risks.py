"""Risks of random networks of several classes from draws, and the certificates made of them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from fractions import Fraction

import pytest
import torch

from pbnn.bounds import betting, clopper_pearson, maurer, monte_carlo, occam, recursive, rivasplata
from pbnn.certificates import (
    Budget,
    Certificate,
    Provenance,
    Step,
    certify_gibbs,
    certify_one,
    certify_recursive,
    certify_vote,
    code_length,
    kl_upper,
    log_ratio_upper,
    verify,
)
from pbnn.class_risks import drawn_risks, fresh_networks, readout_errors, readout_risks
from pbnn.layers import freeze_statistics
from pbnn.networks import BinaryNetwork, BLRNet, GaussianReadout, binarise
from pbnn.posteriors import BernoulliPosterior
from pbnn.seeding import generator

BUDGET = Budget(0.05, 3, 20, "classes")
FIXED = Budget(0.05, 3, 20, "fixed")
SPLITS = {"prior": "ff", "certification": "ab"}
PROVENANCE = Provenance("fixed", 0, SPLITS)


def network(law="bernoulli"):
    made = BLRNet((1, 6, 6), "3C3-MP2-SM3", law=law, generator=generator(0, "network"))
    x = torch.rand(24, 1, 6, 6, generator=generator(0, "images"))
    # Statistics of other images than those that are certified.
    made.re_estimate(torch.rand(24, 1, 6, 6, generator=generator(1, "images"))).eval()
    freeze_statistics(made, SPLITS["prior"])
    return made, x, torch.arange(24) % 3


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


@pytest.mark.parametrize("law", ["bernoulli", "gaussian"])
def test_every_group_has_a_network_of_its_own(monkeypatch, law):
    made, x, y = network(law)
    seen, forward = [], BinaryNetwork.forward

    def seeing(self, points):
        seen.append(tuple(torch.cat([b.weight.flatten() for b in self.layers()]).tolist()))
        return forward(self, points)

    monkeypatch.setattr(BinaryNetwork, "forward", seeing)
    drawn_risks(made, x, y, group=8, passes=2, generator=generator(0, "draws"))
    assert len(seen) == len({*seen}) == 6


def test_fresh_networks_have_the_law_of_the_posterior():
    made, _, _ = network()
    made.layers()[0].layer.weight.half_logit.data[0, 0, 0] = torch.tensor([-2.0, 0.0, 9.0])
    mean = [block.layer.weight.mean.double() for block in made.layers()]
    total = [torch.zeros_like(each) for each in mean]
    draws, fresh = 4000, fresh_networks(made, generator(0, "draws"))
    pairs = torch.zeros(mean[1].numel(), mean[1].numel(), dtype=torch.float64)
    for _ in range(draws):
        weights = [block.weight.double() for block in next(fresh).layers()]
        for each, weight in zip(total, weights, strict=True):
            each += weight
        pairs += torch.outer(weights[1].flatten(), weights[1].flatten())
    for each, expected in zip(total, mean, strict=True):
        error = ((1 - expected.square()) / draws).sqrt()
        assert ((each / draws - expected).abs() <= 5 * error + 1e-6).all()
    # Weights are independent: so are their products on average.
    off = pairs / draws - torch.outer(mean[1].flatten(), mean[1].flatten())
    assert off.fill_diagonal_(0).abs().max() <= 5.5 / draws**0.5
    # The network itself has not changed.
    assert torch.equal(made.layers()[1].layer.weight.mean.double(), mean[1])


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
    expected = maurer(upper, kl_upper(made), 24, delta=0.5 * share)
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
    expected = maurer(found.gibbs, made.double().kl().item(), 400, delta=0.6 * share)
    assert gibbs.bound == pytest.approx(expected, rel=1e-9)
    assert (gibbs.predictor, vote.predictor) == ("randomised network", "vote")
    assert vote.bound == (pytest.approx(2 * expected, rel=1e-9) if expected < 0.5 else 1.0)
    for certificate in (gibbs, vote):
        verify(Certificate.from_dict(certificate.to_dict()))


def test_the_certificate_of_one_network_is_the_formula():
    made, x, _ = readout()
    weight = made.weight.sample(generator(0, "one"))
    one, ratio = made.known(weight), log_ratio_upper(made.weight, weight)
    assert torch.equal(one(x), x @ weight.T)
    share = 0.05 / (3 * 20)
    drawn = certify_one(one, 30, 400, BUDGET, PROVENANCE, log_ratio=ratio)
    expected = rivasplata(30 / 400, ratio, 400, delta=0.4 * share)
    assert drawn.bound == pytest.approx(expected, rel=1e-9)
    fixed = certify_one(one, 30, 400, FIXED, PROVENANCE, fixed=True)
    expected = clopper_pearson(30, 400, delta=0.25 * share)
    assert fixed.bound == pytest.approx(expected, rel=1e-9)
    assert (drawn.predictor, fixed.predictor) == ("drawn network", "fixed network")
    vote = certify_one([one, made], 30, 400, FIXED, PROVENANCE, fixed=True)
    assert (vote.predictor, vote.bound) == ("fixed vote", fixed.bound)
    # It says which network it is of.
    assert drawn.network == fixed.network == vote.network.split()[0] != vote.network.split()[1]
    for nothing in (one, [one]):
        with pytest.raises(ValueError, match="fixed"):
            certify_one(nothing, 30, 400, FIXED, PROVENANCE)
    # Several draws are one draw of several: their log-ratios add up.
    both = certify_one([one, made], 30, 400, BUDGET, PROVENANCE, log_ratio=2 * ratio)
    expected = rivasplata(30 / 400, 2 * ratio, 400, delta=0.4 * share)
    assert (both.predictor, both.bound) == ("drawn vote", pytest.approx(expected, rel=1e-9))
    verify(Certificate.from_dict(both.to_dict()))
    # Nothing but the one that is deployed: the whole δ is its own.
    alone = Budget(0.05, 3, 20, "deployed")
    prices = ({"log_ratio": ratio}, {"nats": 7.0}, {"fixed": True})
    for whom, priced in zip((one, [one, made], one), prices, strict=True):
        only = certify_one(whom, 30, 400, alone, PROVENANCE, **priced)
        assert only.events == {"deployed": pytest.approx(share, rel=1e-12)}
        verify(Certificate.from_dict(only.to_dict()))
    assert only.bound == pytest.approx(clopper_pearson(30, 400, delta=share), rel=1e-9)
    # A drawn and a fixed network are two events, so no budget is spent twice.
    for budget, more in ((BUDGET, {"fixed": True}), (FIXED, {"log_ratio": ratio})):
        with pytest.raises(ValueError, match="family"):
            certify_one(one, 30, 400, budget, PROVENANCE, **more)
    for certificate in (drawn, fixed, vote):
        verify(Certificate.from_dict(certificate.to_dict()))
    with pytest.raises(ValueError, match="errors"):
        certify_one(made, 401, 400, FIXED, PROVENANCE, fixed=True)


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
    budget, (last, _, _) = Budget(0.05, 3, 20, "recursive"), readout()
    found = certify_recursive(last, steps, budget, PROVENANCE)
    verify(Certificate.from_dict(found.to_dict()))
    frequencies, kls, sizes = ([s[f] for s in found.steps] for f in ("frequency", "kl", "n"))
    shares = budget.events(exact=False)
    shares = {"delta": shares["gibbs"], "delta_mc": shares["gibbs_draws"]}
    grid = [
        recursive(frequencies, kls, sizes, gamma=[a / 20, b / 20], **shares)
        for a in range(1, 21)
        for b in range(1, 21)
    ]
    assert found.bound == pytest.approx(min(grid), rel=1e-9)
    assert (found.n, found.kl) == (4000, 55.0)
    # How often the excess loss l − γ l' is at least 0, 1 − γ and 1, at γ = ½.
    for step, told in zip(steps[1:], found.steps[1:], strict=True):
        excess = step.wrong.double() - step.prior_wrong.double() / 2
        levels = [float((excess >= level).double().mean()) for level in (0.0, 0.5, 1.0)]
        assert told["frequency"] == pytest.approx(levels, abs=1e-12)
    later = [dict(found.steps[0]), dict(found.steps[1], kl=0.0), dict(found.steps[2])]
    with pytest.raises(ValueError, match="does not hold"):
        verify(dataclasses.replace(found, steps=later))
    with pytest.raises(ValueError, match="steps"):
        certify_recursive(last, steps[1:], budget, PROVENANCE)
    with pytest.raises(ValueError, match="fewer points"):
        certify_recursive(last, [steps[0], steps[2], steps[1]], budget, PROVENANCE)


def statistics_of(split, of_drawn=False):
    """A network whose batch normalisation is of this split, or is not frozen."""
    made, x, y = network()
    known = binarise(made, "sample", generator(0, "known")) if of_drawn else made
    if split != "ff":
        known.re_estimate(x)
    if split is None:
        for block in known.layers():
            if block.tail.norm is not None:
                block.tail.norm.split = None
    elif split:
        freeze_statistics(known, split)
    return known, x, y


@pytest.mark.parametrize(
    ("split", "told"), [("ab", "certification"), (None, "not frozen"), ("", "unknown")]
)
def test_a_certificate_refuses_statistics_fitted_on_certification_points(split, told):
    made, x, y = statistics_of(split)
    risks = drawn_risks(made, x, y, group=4, passes=2, generator=generator(0, "draws"))
    with pytest.raises(ValueError, match=told):
        certify_gibbs(made, risks, BUDGET, PROVENANCE)
    known, *_ = statistics_of(split, of_drawn=True)
    for one in (known, [known], known.fold(), [statistics_of("ff", of_drawn=True)[0], known]):
        with pytest.raises(ValueError, match=told):
            certify_one(one, 3, 24, FIXED, PROVENANCE, fixed=True)


def test_statistics_of_the_prior_split_are_accepted_in_any_precision_and_folded():
    known, *_ = statistics_of("ff", of_drawn=True)
    for one in (known, known.fold(), copy.deepcopy(known).double()):
        assert certify_one(one, 3, 24, FIXED, PROVENANCE, fixed=True).bound > 3 / 24


@pytest.mark.parametrize("name", ["running_mean", "running_var", "gamma", "beta"])
def test_what_is_changed_after_it_was_frozen_is_noticed(name):
    known, *_ = statistics_of("ff", of_drawn=True)
    norm = known.layers()[0].tail.norm
    state = norm.state_dict() | {name: getattr(norm, name).detach() + 0.5}
    norm.load_state_dict(state)
    for one in (known, known.fold()):
        with pytest.raises(ValueError, match="unknown"):
            certify_one(one, 3, 24, FIXED, PROVENANCE, fixed=True)


def test_batch_normalisation_of_torch_is_refused():
    foreign = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="not frozen"):
        certify_one(foreign, 3, 24, FIXED, PROVENANCE, fixed=True)


def test_the_most_probable_network_is_certified_by_the_length_of_its_code():
    posterior = BernoulliPosterior(torch.tensor([0.0, 0.5, -0.8]))
    with torch.no_grad():
        posterior.half_logit.copy_(torch.tensor([-1.0, 2.0, 3.0]))
    # Signs −, +, + have the prior probabilities 1/2, 3/4 and 1/10.
    nats = code_length(posterior)
    assert nats == pytest.approx(-math.log(0.5 * 0.75 * 0.1), abs=1e-6)
    budget = Budget(0.05, 3, 20, "coded")
    coded = certify_one(posterior, 30, 400, budget, PROVENANCE, nats=nats)
    share = 0.25 * 0.05 / (3 * 20)
    assert coded.bound == pytest.approx(occam(30 / 400, nats, 400, delta=share), rel=1e-9)
    assert coded.predictor == "coded network"
    verify(Certificate.from_dict(coded.to_dict()))
    with pytest.raises(ValueError, match="binary weights"):
        code_length(readout()[0])
    for bad, told in (({"log_ratio": 1.0}, "log_ratio"), ({"fixed": True}, "nats")):
        with pytest.raises(ValueError, match=told):
            certify_one(posterior, 30, 400, budget, PROVENANCE, nats=nats, **bad)
    several = certify_one([posterior, posterior], 30, 400, budget, PROVENANCE, nats=2 * nats)
    assert several.predictor == "coded vote"
    assert several.bound == pytest.approx(occam(30 / 400, 2 * nats, 400, delta=share), rel=1e-9)
    with pytest.raises(ValueError, match="family"):
        certify_one(posterior, 30, 400, BUDGET, PROVENANCE, nats=nats)


def test_codes_of_all_binary_networks_are_prefix_free():
    """Kraft: a code of every network of three weights, under a prior that is not uniform."""
    prior = torch.tensor([0.3, -0.9, 0.5])
    total = 0.0
    for signs in itertools.product((-1.0, 1.0), repeat=3):
        posterior = BernoulliPosterior(prior, 0.7 * torch.tensor(signs))
        total += math.exp(-code_length(posterior))
    assert total == pytest.approx(1.0, abs=1e-6)
    assert total <= 1.0


def test_a_random_network_that_is_its_prior_needs_no_price_for_a_posterior():
    made, x, y = network()
    risks = drawn_risks(made, x, y, group=4, passes=50, generator=generator(0, "draws"))
    with pytest.raises(ValueError, match="prior"):
        certify_gibbs(made, risks, BUDGET, PROVENANCE, fixed=True)
    made.adopt_as_prior()
    risks = drawn_risks(made, x, y, group=4, passes=50, generator=generator(0, "draws"))
    fixed = certify_gibbs(made, risks, FIXED, PROVENANCE, fixed=True)
    upper = monte_carlo(fixed.risk_upper, 24, delta=0.4 * 0.05 / (3 * 20))
    assert fixed.bound == pytest.approx(upper, rel=1e-9)
    assert (fixed.kl, fixed.predictor) == (0.0, "fixed randomised network")
    assert fixed.bound < certify_gibbs(made, risks, FIXED, PROVENANCE).bound
    verify(Certificate.from_dict(fixed.to_dict()))


def test_the_log_ratio_of_a_drawn_network_is_that_of_all_its_weights():
    made, _, _ = network()
    drawn = binarise(copy.deepcopy(made).double(), "sample", generator(0, "one"))
    pairs = zip(made.layers(), drawn.layers(), strict=True)
    parts = [log_ratio_upper(block.layer.weight, one.weight) for block, one in pairs]
    assert log_ratio_upper(made, drawn) == pytest.approx(sum(parts), rel=1e-9)
    with pytest.raises(TypeError, match="BLRNet and Tensor"):
        log_ratio_upper(made, drawn.layers()[0].weight)


def test_a_family_that_is_none_is_named():
    with pytest.raises(ValueError, match="family"):
        Budget(0.05, family="foo").events(exact=True)


@pytest.mark.parametrize("block", [0, 1])
def test_one_weight_that_has_moved_is_no_longer_the_prior(block):
    made, x, y = network()
    made.adopt_as_prior()
    with torch.no_grad():
        made.layers()[block].layer.weight.half_logit.view(-1)[0] += 1e-3
    risks = drawn_risks(made, x, y, group=4, passes=2, generator=generator(0, "draws"))
    with pytest.raises(ValueError, match="prior"):
        certify_gibbs(made, risks, FIXED, PROVENANCE, fixed=True)


def test_the_law_of_the_draws_is_charged_for():
    made, x, y = network()
    weights = sum(block.layer.weight.mean.numel() for block in made.layers())
    found = drawn_risks(made, x, y, group=4, passes=2, generator=generator(0, "draws"))
    assert found.rounding == pytest.approx(100 * weights * 2**-53)


def test_frequencies_of_a_recursive_certificate_are_rounded_up():
    budget, (last, _, _) = Budget(0.05, 3, 20, "recursive"), readout()
    for n in range(50, 60):
        wrong, later = torch.arange(n) < 7, torch.arange(n - 3) < 5
        steps = [Step(1.0, wrong), Step(1.0, later, torch.arange(n - 3) % 3 == 0)]
        first, second = certify_recursive(last, steps, budget, PROVENANCE).steps
        assert Fraction(first["frequency"]) >= Fraction(7, n)
        saved = int((~later & steps[1].prior_wrong).sum())
        lost = int((later & ~steps[1].prior_wrong).sum())
        counts = [n - 3 - saved, 5, lost]
        told = [Fraction(each) for each in second["frequency"]]
        assert all(t >= Fraction(k, n - 3) for t, k in zip(told, counts, strict=True))
