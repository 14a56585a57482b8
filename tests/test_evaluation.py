"""Risks: exact sums against draws, brute force and 50 digits."""

from __future__ import annotations

import itertools
import math

import mpmath
import pytest
import torch

from pbnn.evaluation import (
    errors_of_one_draw_each,
    exact_risks,
    mode_error,
    risks,
    rounding_error,
    sampled_risks,
)
from pbnn.networks import PBGNet
from pbnn.seeding import generator


def make(width: int = 3, *, size: int = 5, bias: bool = False, spread: float = 2.0) -> PBGNet:
    network = PBGNet(size, (width,), bias=bias, shift=0.1, generator=generator(1, "prior"))
    for layer in network.layers():
        mean = layer.weight.mean.data
        mean.add_(spread * torch.randn(mean.shape, generator=generator(2, *mean.shape)))
    return network


def points(n: int = 40, size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, size, generator=generator(3, "x"))
    y = torch.where(torch.rand(n, generator=generator(3, "y")) < 0.5, 1.0, -1.0)
    return x, y


@pytest.mark.parametrize("bias", [False, True])
def test_exact_risks_are_those_of_brute_force(bias):
    network, (x, y) = make(bias=bias).double().requires_grad_(False), points()
    losses = []
    for row, label in zip(x.double() - network.shift, y.double(), strict=True):
        row = torch.cat([row, row.new_ones(1)]) if bias else row
        up = [
            0.5 * math.erfc(-float(w @ row / row.norm()) / math.sqrt(2))
            for w in network.hidden[0].weight.mean
        ]
        total = 0.0
        for pattern in itertools.product([-1.0, 1.0], repeat=3):
            chance = math.prod(p if s > 0 else 1 - p for p, s in zip(up, pattern, strict=True))
            s = torch.tensor([*pattern, 1.0] if bias else pattern, dtype=torch.float64)
            total += chance * math.erf(
                float(network.output.weight.mean[0] @ s) / math.sqrt(2 * len(s))
            )
        losses.append((1 - float(label) * total) / 2)
    found = risks(network, x, y)
    assert found.draws == 0
    assert found.gibbs == pytest.approx(sum(losses) / len(losses), abs=1e-12)
    assert found.tandem == pytest.approx(sum(v * v for v in losses) / len(losses), abs=1e-12)
    assert found.vote == sum(v > 0.5 for v in losses) / len(losses)


def test_sampled_risks_agree_with_the_exact_ones():
    network, (x, y) = make(4, spread=1.0), points(n=200)
    exact = risks(network, x, y)
    repeats = [
        sampled_risks(network.double(), x, y.double(), 20, generator(seed, "draws"))
        for seed in range(60)
    ]
    assert {r.draws for r in repeats} == {2 * 20 * 200}
    for name in ("gibbs", "tandem"):
        found = torch.tensor([getattr(r, name) for r in repeats], dtype=torch.float64)
        error = found.std() / math.sqrt(len(found))
        assert abs(found.mean() - getattr(exact, name)) < 5 * error
        assert error < 0.01


def test_a_wide_network_is_sampled_and_counts_whole_passes():
    network, (x, y) = make(20), points(n=30)
    found = risks(network, x, y, draws=100, generator=generator(0, "draws"))
    assert found.draws == 2 * 2 * 30
    again = risks(network, x, y, draws=100, generator=generator(0, "draws"))
    assert found == again
    with pytest.raises(ValueError, match="`generator` is needed"):
        risks(network, x, y)
    with pytest.raises(ValueError, match="`draws` must be a positive integer, got 0"):
        risks(network, x, y, draws=0, generator=generator(0, "draws"))


def test_chunks_do_not_change_the_result(monkeypatch):
    network, (x, y) = make(5), points()
    whole = risks(network, x, y)
    monkeypatch.setattr("pbnn.evaluation.CHUNK_NUMBERS", 70)
    assert risks(network, x, y) == whole


def test_one_draw_each_errs_with_the_gibbs_risk():
    network, (x, y) = make(4, spread=1.0), points(n=50)
    counts = torch.tensor(
        [errors_of_one_draw_each(network, x, y, generator(s, "draw")) for s in range(400)]
    ).double()
    exact = risks(network, x, y).gibbs
    assert abs(counts.mean() / 50 - exact) < 5 * counts.std() / 50 / math.sqrt(400)


def test_the_vote_counts_an_open_sign_as_an_error():
    network, (x, y) = make(2), points()
    network.output.weight.mean.data.zero_()
    found = risks(network, x, y)
    assert found.vote == found.undecided == 1.0
    assert found.gibbs == 0.5


def test_the_mode_is_the_deterministic_network():
    network, (x, y) = make(3), points()
    z = x - network.shift
    hidden = torch.where(z @ network.hidden[0].weight.mean.T >= 0, 1.0, -1.0)
    out = torch.where(hidden @ network.output.weight.mean[0] >= 0, 1.0, -1.0)
    assert mode_error(network, x, y) == pytest.approx(float((out != y).double().mean()))


def test_the_rounding_allowance_covers_the_error_against_fifty_digits():
    network, (x, y) = make(6, size=40, spread=3.0).double(), points(n=30, size=40)
    allowance = rounding_error(network, len(x))
    found = risks(network, x, y).gibbs
    with mpmath.workdps(50):
        exact = gibbs_in_fifty_digits(network, x.double(), y)
        assert abs(mpmath.mpf(found) - exact) <= allowance
    # A bound of use: nothing against any certificate.
    assert allowance < 1e-10


def gibbs_in_fifty_digits(network: PBGNet, x: torch.Tensor, y: torch.Tensor) -> mpmath.mpf:
    first = mpmath.matrix(network.hidden[0].weight.mean.tolist())
    second = [mpmath.mpf(w) for w in network.output.weight.mean[0].tolist()]
    # The shift is subtracted in float64 by definition of the predictor's input.
    rows = (x - network.shift).tolist()
    total, half = mpmath.mpf(0), mpmath.mpf(1) / 2
    for row, label in zip(rows, y.tolist(), strict=True):
        values = mpmath.matrix(row)
        norm = mpmath.sqrt(sum(v * v for v in values))
        scores = first * values / norm
        up = [half * mpmath.erfc(-z / mpmath.sqrt(2)) for z in scores]
        output = mpmath.mpf(0)
        for pattern in itertools.product([-1, 1], repeat=len(second)):
            chance = mpmath.mpf(1)
            for p, s in zip(up, pattern, strict=True):
                chance *= p if s > 0 else 1 - p
            argument = sum(w * s for w, s in zip(second, pattern, strict=True))
            output += chance * mpmath.erf(argument / mpmath.sqrt(2 * len(second)))
        total += (1 - label * output) / 2
    return total / len(rows)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(2, 5), torch.ones(3), "same positive length"),
        (torch.zeros(0, 5), torch.ones(0), "same positive length"),
        (torch.zeros(2, 5), torch.tensor([1.0, 0.0]), "labels −1 and"),
        (torch.full((2, 5), math.nan), torch.ones(2), "must be finite"),
    ],
)
def test_bad_points_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        risks(make(), x, y)


def test_exact_risks_leave_the_network_as_it_is():
    (x, y), network = points(), make()
    network.aggregate = "mean_field"
    assert exact_risks(network.double(), x, y.double()) == risks(network, x, y)
    assert network.aggregate == "mean_field"
