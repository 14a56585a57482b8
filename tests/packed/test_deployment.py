"""What is deployed of a posterior, what it costs, and the promise of a certificate of a vote."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from pbnn.bounds import rivasplata
from pbnn.certificates import (
    Budget,
    Provenance,
    certify_known,
    code_length,
    log_ratio_upper,
)
from pbnn.layers import freeze_statistics
from pbnn.networks import BLRNet, binarise
from pbnn.packed import deployed, pack, price
from pbnn.seeding import generator

IMAGE = (1, 6, 6)
ARCHITECTURE = "5C3-MP2-7FC-SM3"


def posterior() -> BLRNet:
    """With a prior that is not its posterior, neither of fair coins."""
    network = BLRNet(IMAGE, ARCHITECTURE, start=0.9, generator=generator(0, "prior"))
    network.adopt_as_prior()
    draw = generator(0, "posterior")
    for block in network.layers():
        block.layer.weight.half_logit.data.add_(
            torch.randn(block.layer.weight.half_logit.shape, generator=draw)
        )
    freeze_statistics(network, "split")
    return network


def images(count: int = 30) -> torch.Tensor:
    return torch.rand(count, *IMAGE, generator=generator(0, "images"))


def probability(network: BLRNet, one, which: str) -> float:
    """ln of the probability of a network's weights, weight by weight."""
    total = 0.0
    for block, other in zip(network.layers(), one.layers(), strict=True):
        mean = torch.tanh(getattr(block.layer.weight, which).detach().double())
        total += float(((1 + other.weight.double() * mean) / 2).log().sum())
    return total


def test_prices_are_those_of_the_very_bits():
    network = posterior()
    for predictor, count in (("draw", 1), ("vote", 4), ("mode", 1)):
        draw = generator(0, predictor)
        members = deployed(network, predictor, images(), "split", draw, members=4)
        packed = pack(members)
        assert len(packed.members) == len(members) == count
        ratio = sum(
            probability(network, one, "half_logit") - probability(network, one, "prior_half_logit")
            for one in members
        )
        length = -sum(probability(network, one, "prior_half_logit") for one in members)
        found = price(network, packed, "rivasplata"), price(network, packed, "occam")
        assert found == (pytest.approx(ratio, rel=1e-6), pytest.approx(length, rel=1e-6))
        assert found[0] >= ratio - 1e-9
        assert found[1] >= length - 1e-9
        assert packed.statistics == ("split",)
    assert found[1] == code_length(network)
    drawn = deployed(network, "draw", images(), "split", generator(0, "draw"))
    single = price(network, pack(drawn), "rivasplata")
    assert single == log_ratio_upper(network, drawn[0])


def test_draws_follow_the_posterior():
    network = posterior()
    draw = generator(0, "many")
    members = deployed(network, "vote", images(), "split", draw, members=400)
    for place, block in enumerate(network.layers()):
        mean = block.layer.weight.mean.detach()
        found = torch.stack([one.layers()[place].weight for one in members]).mean(0)
        error = ((1 - mean.square()) / 400).sqrt()
        assert float(((found - mean).abs() / error.clamp_min(1e-3)).max()) < 5


def test_bits_of_another_network_have_no_price():
    other = BLRNet(IMAGE, "5C3-MP2-8FC-SM3", generator=generator(0, "other"))
    packed = pack(binarise(other).re_estimate(images()))
    with pytest.raises(ValueError, match="shape"):
        price(posterior(), packed, "occam")
    longer = BLRNet(IMAGE, "5C3-MP2-7FC-7FC-SM3", generator=generator(0, "other"))
    with pytest.raises(ValueError, match="layers"):
        price(posterior(), pack(longer), "occam")
    with pytest.raises(ValueError, match="theorem"):
        price(posterior(), packed, "maurer")
    gaussian = BLRNet(IMAGE, ARCHITECTURE, law="gaussian", generator=generator(0, "other"))
    with pytest.raises(ValueError, match="real"):
        price(posterior(), pack(gaussian, input="real"), "occam")


def test_ternary_networks_are_no_draws():
    network = posterior()
    packed = pack(binarise(network, "ternary").re_estimate(images()))
    for theorem in ("rivasplata", "occam"):
        with pytest.raises(ValueError, match="zeros"):
            price(network, packed, theorem)
    with pytest.raises(ValueError, match="±1"):
        log_ratio_upper(network, binarise(network, "ternary"))


def test_a_log_ratio_that_no_draw_has_is_refused():
    budget, origin = Budget(0.05, 1, 1, "deployed"), Provenance("prior", 0, {})
    with pytest.raises(ValueError, match="log_ratio"):
        certify_known("bits", 3, 100, budget, origin, log_ratio=-40.0)
    assert certify_known("bits", 3, 100, budget, origin, log_ratio=0).kl == 0.0


@pytest.mark.parametrize(("predictor", "members"), [("both", 1), ("vote", 0)])
def test_unknown_predictors_and_empty_votes_are_refused(predictor, members):
    with pytest.raises(ValueError, match=r"predictor|members"):
        deployed(posterior(), predictor, images(), "split", generator(0, "d"), members=members)


def test_votes_of_draws_keep_the_promise_of_their_summed_log_ratios():
    """Three networks of three signs, drawn from a posterior that fits the sample, vote.

    The truth is known by enumeration; the certificate, by the sum of the log-ratios, fails no more
    often than δ.
    """
    trials, delta, n = 3000, 0.1, 60
    draw = np.random.default_rng(0)
    every = np.array(list(itertools.product((-1, 1), repeat=3)))
    label = every[:, 0]  # the truth, flipped with probability .3
    outputs = np.where(every @ every.T >= 0, 1, -1)  # of network i on point j
    sums = []
    failures = 0
    for _ in range(trials):
        points = draw.integers(0, 8, n)
        y = label[points] * np.where(draw.random(n) < 0.3, -1, 1)
        risks = (outputs[:, points] != y).mean(1)
        weights = np.exp(-40 * risks)
        q = weights / weights.sum()
        chosen = draw.choice(8, 3, p=q)
        nats = float(np.log(8 * q[chosen]).sum())
        vote = np.where(outputs[chosen].sum(0) >= 0, 1, -1)
        risk = float((vote[points] != y).mean())
        truth = float(np.where(vote == label, 0.3, 0.7).mean())
        failures += rivasplata(risk, nats, n, delta=delta) < truth
        sums.append(nats)
    assert failures / trials <= delta + 4 * math.sqrt(delta * (1 - delta) / trials)
    assert np.std(sums) > 0.5
