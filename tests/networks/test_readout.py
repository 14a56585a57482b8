"""The Gaussian read-out: its moments against draws, its exact risks against drawn networks."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from pbnn.class_risks import readout_risks
from pbnn.networks import GaussianReadout
from pbnn.seeding import generator


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def readout(features=6, classes=4):
    made = GaussianReadout(features, classes, dtype=torch.float64)
    with torch.no_grad():
        made.weight.mean.copy_(normal(classes, features, of="mean"))
        made.weight.log_deviation.copy_(normal(1, features, of="deviation") / 2)
    return made


def drawn(made, x, draws):
    """Scores of many drawn networks, shape (draws, n, classes)."""
    weights = made.weight.sample(generator(0, "draws"), draws).detach()
    return x @ weights.mT


def test_scores_have_the_moments_of_drawn_networks():
    made, x, draws = readout(), normal(5, 6, of="x"), 100_000
    scores, found = drawn(made, x, draws), made(x)
    var = found.var.expand(5, 4)
    assert ((scores.mean(0) - found.mean).abs() <= 5 * (var / draws).sqrt()).all()
    assert ((scores.var(0) - var).abs() <= 5 * var * (2 / draws) ** 0.5).all()


def test_a_draw_is_that_of_its_weights_and_the_mode_that_of_the_means():
    made, x = readout(), normal(5, 6, of="x")
    weight = made.weight.sample(generator(0, "one"))
    assert torch.equal(made.sample(x, generator(0, "one")), x @ weight.T)
    torch.testing.assert_close(made.mode(x), made(x).mean)


def test_risks_are_those_of_drawn_networks():
    made, x, draws = readout(), normal(7, 6, of="x"), 200_000
    y = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    found = readout_risks(made, x, y)
    wrong = (drawn(made, x, draws).argmax(2) != y).double()
    share = wrong.mean(0)
    # Points share their network: the deviation is that of a network's risk.
    error = 5 * float(wrong.mean(1).std()) / draws**0.5
    assert abs(found.gibbs - float(share.mean())) <= error
    pairs = (wrong[::2] * wrong[1::2]).mean(1)
    assert abs(found.tandem - float(pairs.mean())) <= 5 * float(pairs.std()) / (draws / 2) ** 0.5
    votes = torch.nn.functional.one_hot(drawn(made, x, draws).argmax(2), 4).sum(0)
    assert found.vote == float((votes.argmax(1) != y).double().mean())
    assert found.rounding < 1e-12
    assert found.draws == 0


def test_the_stated_rounding_covers_single_precision_features_and_permuted_sums():
    made, x = readout(500, 10), normal(40, 500, of="x").float()
    y = torch.arange(40) % 10
    order = torch.randperm(500, generator=generator(0, "order"))
    other = readout(500, 10)
    with torch.no_grad():
        other.weight.mean.copy_(made.weight.mean[:, order])
        other.weight.log_deviation.copy_(made.weight.log_deviation[:, order])
    one, same = readout_risks(made, x, y), readout_risks(other, x[:, order], y)
    assert abs(one.gibbs - same.gibbs) <= one.rounding + same.rounding


def test_the_stated_rounding_covers_scores_that_cancel():
    # Two large scores that differ by little: in float64 their lead is wrong in its leading digits.
    made, x = GaussianReadout(500, 2, dtype=torch.float64), normal(20, 500, of="x")
    with torch.no_grad():
        made.weight.mean.copy_(1e9 * normal(1, 500, of="mean").expand(2, 500))
        made.weight.mean[0].add_(normal(500, of="lead"))
    found = readout_risks(made, x, torch.zeros(20, dtype=torch.int64))
    exact = []
    for point in x.tolist():
        own, other = (
            sum(Fraction(w) * Fraction(v) for w, v in zip(weight, point, strict=True))
            for weight in made.weight.mean.tolist()
        )
        norm = math.sqrt(sum(v * v for v in point))
        exact.append(math.erfc(float(own - other) / norm / 2) / 2)
    off = abs(found.gibbs - sum(exact) / 20)
    assert 1e-9 < off <= found.rounding


def test_a_point_whose_lead_rounding_leaves_open_counts_as_an_error():
    made = GaussianReadout(2, 3, dtype=torch.float64)
    found = readout_risks(made, torch.ones(4, 2), torch.tensor([0, 1, 2, 0]))
    assert (found.vote, found.undecided) == (1.0, 1.0)
    assert found.gibbs == pytest.approx(2 / 3, abs=1e-12)
