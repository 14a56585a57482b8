"""Risks: exact sums against draws, brute force and 50 digits."""

from __future__ import annotations

import copy
import itertools
import math
from collections import defaultdict

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
from pbnn.networks import ABNet, PBGNet, SignNetwork, fingerprint
from pbnn.seeding import generator


def make(
    *hidden: int,
    kind: type[SignNetwork] = PBGNet,
    size: int = 5,
    bias: bool = False,
    spread: float = 2.0,
) -> SignNetwork:
    widths = hidden or (3,)
    network = kind(size, widths, bias=bias, shift=0.1, generator=generator(1, "prior"))
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


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
@pytest.mark.parametrize("hidden", [(4,), (3, 3), (2, 3, 3)])
def test_sampled_risks_agree_with_the_exact_ones(kind, hidden):
    network, (x, y) = make(*hidden, kind=kind, spread=1.0), points(n=200)
    exact = risks(network, x, y)
    repeats = [
        sampled_risks(network.double(), x, y.double(), 20, generator(seed, "draws"))
        for seed in range(40)
    ]
    assert {r.draws for r in repeats} == {2 * 20 * 200}
    for name in ("gibbs", "tandem"):
        found = torch.tensor([getattr(r, name) for r in repeats], dtype=torch.float64)
        error = found.std() / math.sqrt(len(found))
        assert abs(found.mean() - getattr(exact, name)) < 5 * error
        assert error < 0.01


def test_the_sampled_vote_and_its_open_signs_approach_the_exact_ones():
    network, (x, y) = make(3, 3, kind=ABNet), points(n=100)
    exact = risks(network, x, y)
    sampled = sampled_risks(network.double(), x, y.double(), 2_000, generator(0, "draws"))
    assert exact.undecided == 0
    assert abs(sampled.vote - exact.vote) <= sampled.undecided < 0.1
    rough = sampled_risks(network.double(), x, y.double(), 2, generator(0, "draws"))
    assert rough.undecided > sampled.undecided


def test_wide_shared_weights_are_sampled_in_whole_passes():
    network, (x, y) = make(14, 14, kind=ABNet), points(n=30)
    found = risks(network, x, y, draws=100, generator=generator(0, "draws"))
    assert found.draws == 2 * 2 * 30
    again = risks(network, x, y, draws=100, generator=generator(0, "draws"))
    assert found == again
    with pytest.raises(ValueError, match=r"`generator` is needed .* of \(14, 14\)"):
        risks(network, x, y)
    with pytest.raises(ValueError, match="`draws` must be a positive integer, got 0"):
        risks(network, x, y, draws=0, generator=generator(0, "draws"))


@pytest.mark.parametrize(
    ("kind", "hidden"), [(PBGNet, (100,)), (PBGNet, (14, 14)), (ABNet, (100,)), (ABNet, (4, 50))]
)
def test_whatever_can_be_summed_needs_no_draws(kind, hidden):
    network, (x, y) = make(*hidden, kind=kind), points()
    found = risks(network, x, y)
    assert found.draws == 0
    aggregate = network.double().exact_aggregate(x.double()).detach()
    assert found.gibbs == pytest.approx(float(((1 - y * aggregate) / 2).mean()), abs=1e-12)


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
@pytest.mark.parametrize("hidden", [(5,), (30,), (4, 20)])
def test_chunks_do_not_change_the_result(kind, hidden, monkeypatch):
    network, (x, y) = make(*hidden, kind=kind), points()
    whole = risks(network, x, y)
    monkeypatch.setattr("pbnn.evaluation.CHUNK_NUMBERS", 170)
    parts = risks(network, x, y)
    assert parts.gibbs == pytest.approx(whole.gibbs, abs=1e-14)
    assert parts.tandem == pytest.approx(whole.tandem, abs=1e-14)
    assert (parts.vote, parts.undecided) == (whole.vote, whole.undecided)


@pytest.mark.parametrize("hidden", [(), (3,), (3, 2)])
def test_the_risks_name_the_network_whose_they_are(hidden):
    network, (x, y) = PBGNet(5, hidden, generator=generator(1, "prior")), points()
    assert risks(network, x, y).network == fingerprint(network)
    network.restart(generator(0, "restart"))
    assert risks(network, x, y).network == fingerprint(network)
    if hidden:
        double = copy.deepcopy(network).double()
        sampled = sampled_risks(double, x, y.double(), 1, generator(0, "draws"))
        assert sampled.network == fingerprint(network)


@pytest.mark.parametrize(("kind", "hidden"), [(PBGNet, (4,)), (PBGNet, (3, 3)), (ABNet, (3, 3))])
def test_one_draw_each_errs_with_the_gibbs_risk(kind, hidden):
    network, (x, y) = make(*hidden, kind=kind, spread=1.0), points(n=50)
    counts = torch.tensor(
        [errors_of_one_draw_each(network, x, y, generator(s, "draw")) for s in range(300)]
    ).double()
    exact = risks(network, x, y).gibbs
    assert abs(counts.mean() / 50 - exact) < 5 * counts.std() / 50 / math.sqrt(300)


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


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [(6,), (3, 2), (2, 3, 3), (20,), (4, 20)])
def test_the_rounding_allowance_covers_the_error_against_fifty_digits(hidden, bias):
    network = make(*hidden, size=40, bias=bias, spread=3.0).double().requires_grad_(False)
    # Few values, so that a wide layer's sums have few: multiples of a quarter.
    network.output.weight.mean.mul_(4).round_().div_(4)
    x, y = points(n=6, size=40)
    allowance, found = rounding_error(network, len(x)), risks(network, x, y)
    assert found.rounding == allowance
    with mpmath.workdps(50):
        exact = gibbs_in_fifty_digits(network, x, y)
        assert abs(mpmath.mpf(found.gibbs) - exact) <= allowance
    # A bound of use: nothing against any certificate.
    assert allowance < 1e-9


@pytest.mark.parametrize(("kind", "hidden"), [(PBGNet, (20,)), (PBGNet, (14, 3)), (ABNet, (3, 20))])
def test_the_rounding_allowance_covers_a_quadrature_that_stops_early(kind, hidden, monkeypatch):
    network, (x, y) = make(*hidden, kind=kind, spread=4.0), points()
    exact = risks(network, x, y)
    monkeypatch.setattr("pbnn.quadrature.MARGIN", 2.0)
    rough = risks(network, x, y)
    assert 1e-6 < abs(rough.gibbs - exact.gibbs) <= rough.rounding


def test_the_rounding_allowance_counts_every_copy_every_sum_and_every_point():
    shared, tree = (rounding_error(make(6, 5, kind=kind), 100) for kind in (ABNet, PBGNet))
    assert 2 * shared < tree < 5 * shared
    # 2^12 patterns, and no more than a few nodes beyond.
    narrow, wide = (rounding_error(make(width), 100) for width in (12, 13))
    assert narrow > 2 * 2**12 * 2.0**-53 > wide
    one, many = (rounding_error(make(3), n) for n in (1, 10**6))
    assert many - one > 0.9 * 10**6 * 2.0**-53


def gibbs_in_fifty_digits(network: SignNetwork, x: torch.Tensor, y: torch.Tensor) -> mpmath.mpf:
    """The risk of a tree, each unit averaged over the law of its weighted sum of signs."""
    # The shift is subtracted in float64 by definition of the predictor's input.
    rows = (x - network.shift).tolist()
    total, constant = mpmath.mpf(0), [1] if network.bias else []
    for row, label in zip(rows, y.tolist(), strict=True):
        first, *rest = [layer.weight.mean.tolist() for layer in network.layers()]
        row = [*row, *constant]
        norm = mpmath.sqrt(mpmath.fsum(mpmath.mpf(v) ** 2 for v in row))
        means = [mpmath.erf(mpmath.fdot(w, row) / norm / mpmath.sqrt(2)) for w in first]
        for weights in rest:
            means = [expected_sign([*means, *constant], w) for w in weights]
        total += (1 - label * means[0]) / 2
    return total / len(rows)


def expected_sign(means: list[mpmath.mpf], weight: list[float]) -> mpmath.mpf:
    law = {mpmath.mpf(0): mpmath.mpf(1)}
    for m, w in zip(means, weight, strict=True):
        spread: defaultdict[mpmath.mpf, mpmath.mpf] = defaultdict(mpmath.mpf)
        for partial, chance in law.items():
            spread[partial + w] += chance * (1 + m) / 2
            spread[partial - w] += chance * (1 - m) / 2
        law = spread
    scale = mpmath.sqrt(2 * len(weight))
    return mpmath.fsum(chance * mpmath.erf(z / scale) for z, chance in law.items())


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
