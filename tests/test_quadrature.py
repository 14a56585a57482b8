"""The sum over sign patterns by quadrature: against enumeration, 50 digits, draws and its bound."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import mpmath
import pytest
import torch

from pbnn.quadrature import UNIT_ROUNDOFF, expected_sign, expected_sign_error, node_count
from pbnn.seeding import generator


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def enumerated(mean, weight):
    """The sum over all patterns, each probability a product over the units."""
    width = weight.shape[1]
    s = torch.tensor([*itertools.product((-1.0, 1.0), repeat=width)], dtype=torch.float64)
    outputs = torch.erf(s @ weight.T / math.sqrt(2 * width))
    return ((1 + s * mean[:, None]) / 2).prod(-1) @ outputs


def in_fifty_digits(mean, unit, steps):
    """E sgn for weights `unit` times the integers `steps`, by convolving the law of the sum."""
    law = {0: mpmath.mpf(1)}
    for m, step in zip(mean, steps, strict=True):
        spread = defaultdict(mpmath.mpf)
        for total, chance in law.items():
            spread[total + step] += chance * (1 + mpmath.mpf(m)) / 2
            spread[total - step] += chance * (1 - mpmath.mpf(m)) / 2
        law = spread
    scale = mpmath.mpf(unit) / mpmath.sqrt(2 * len(steps))
    return mpmath.fsum(chance * mpmath.erf(scale * total) for total, chance in law.items())


def assert_covered(mean, weight, exact, allowance):
    found = expected_sign(mean, weight).flatten().tolist()
    gaps = [abs(mpmath.mpf(value) - true) for value, true in zip(found, exact, strict=True)]
    assert max(gaps) <= allowance


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 12])
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_it_is_the_sum_over_all_patterns(width, scale):
    mean, weight = torch.tanh(normal(6, width, of="mean")), scale * normal(4, width, of="weight")
    mean[0], mean[1], mean[2, 0] = 1, -1, -1
    found = expected_sign(mean, weight)
    assert found.shape == (6, 4)
    torch.testing.assert_close(found, enumerated(mean, weight), atol=1e-13, rtol=0)


def test_it_is_the_sum_over_all_patterns_in_fifty_digits():
    mean, weight = torch.tanh(normal(1, 6, of="mean")), normal(1, 6, of="weight")
    with mpmath.workdps(50):
        exact = mpmath.mpf(0)
        for signs in itertools.product((-1, 1), repeat=6):
            pairs = zip(signs, mean[0].tolist(), strict=True)
            chance = mpmath.fprod((1 + s * mpmath.mpf(m)) / 2 for s, m in pairs)
            total = mpmath.fdot(signs, weight[0].tolist())
            exact += chance * mpmath.erf(total / mpmath.sqrt(12))
        assert_covered(mean, weight, [exact], 2e-15)


@pytest.mark.parametrize("weight", [0.0, 1e-3, 0.05, 0.22, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("mean", [1.0, -1.0, 0.3])
def test_one_sign_has_a_closed_form(weight, mean):
    # 2 Q(8.1) = 5.5e-16 is what one period leaves out; at 0.22 the last node weighs 1.4e-15.
    with mpmath.workdps(50):
        exact = mpmath.mpf(mean) * mpmath.erf(mpmath.mpf(weight) / mpmath.sqrt(2))
        mean, weight = (torch.tensor([[v]], dtype=torch.float64) for v in (mean, weight))
        assert_covered(mean, weight, [exact], 1.2e-15)


@pytest.mark.parametrize("width", [1, 13, 40])
@pytest.mark.parametrize("reach", [0.0, 0.22, 1.0, 3.0, 10.0, 30.0, 100.0])
def test_the_stated_error_covers_the_error_against_fifty_digits(width, reach):
    source = generator(0, "steps", width)
    steps = [int(k) for k in torch.randint(-4, 5, (width,), generator=source)]
    steps[0] = 4
    # A multiple of a power of two, so that the weights are exact in float64.
    unit = math.floor(2**20 * reach * math.sqrt(width) / sum(map(abs, steps))) / 2**20
    weight = unit * torch.tensor([steps], dtype=torch.float64)
    mean = torch.tanh(2 * normal(5, width, of="mean"))
    mean[0], mean[1], mean[2] = 1, -1, (-1.0) ** torch.arange(width)
    mean[3] = 0
    with mpmath.workdps(50):
        exact = [in_fifty_digits(row, unit, steps) for row in mean.tolist()]
        assert_covered(mean, weight, exact, expected_sign_error(weight))


@pytest.mark.parametrize(("width", "reach"), [(13, 0.0), (100, 10.0), (1000, 100.0)])
def test_the_stated_error_is_nothing_against_a_risk(width, reach):
    weight = torch.full((1, width), reach / math.sqrt(width), dtype=torch.float64)
    assert 8 * width * UNIT_ROUNDOFF < expected_sign_error(weight) < 1e-11


def test_the_stated_error_is_that_of_the_worst_unit():
    weight = normal(5, 20, of="weight") * torch.tensor([0.1, 1.0, 30.0, 0.0, 5.0])[:, None]
    assert expected_sign_error(weight) == expected_sign_error(weight[2:3])
    assert expected_sign_error(weight) > 2 * expected_sign_error(weight[:2])
    assert expected_sign_error(weight.float()) == pytest.approx(expected_sign_error(weight))


@pytest.mark.parametrize("reach", [0.0, 0.2, 0.22, 1.0, 5.0, 20.0, 100.0])
def test_the_stated_error_holds_the_period_and_the_nodes_left_out(reach):
    weight = torch.tensor([[reach]], dtype=torch.float64)
    count = node_count(weight)
    assert 1.3 * (8 + reach) <= count <= 1.35 * (8 + reach) + 1
    with mpmath.workdps(50):
        step = 2 * mpmath.pi / (mpmath.mpf(reach) + mpmath.mpf("8.1"))
        nodes = [(k + mpmath.mpf(1) / 2) * step for k in range(count + 50)]
        weights = [2 * step / mpmath.pi * mpmath.exp(-(t**2) / 2) / t for t in nodes]
        left_out = mpmath.fsum(weights[count:])
        period = 2 * mpmath.erfc(mpmath.mpf("8.1") / mpmath.sqrt(2))
        assert left_out < UNIT_ROUNDOFF / 2
        assert left_out + period < expected_sign_error(weight)
        assert period < 10 * UNIT_ROUNDOFF


@pytest.mark.parametrize("margin", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("reach", [0.1, 1.0, 4.0, 20.0])
def test_a_narrow_margin_is_owned_up_to(margin, reach, monkeypatch):
    # Rounding hides the two other parts of the stated error unless they are large.
    monkeypatch.setattr("pbnn.quadrature.MARGIN", margin)
    mean, weight = torch.ones(1, 1).double(), torch.tensor([[reach]], dtype=torch.float64)
    gap = abs(expected_sign(mean, weight).item() - math.erf(reach / math.sqrt(2)))
    assert gap <= expected_sign_error(weight) < 5 * math.erfc(margin / math.sqrt(2))
    assert expected_sign_error(weight) > 2 * math.erfc((margin + 0.1) / math.sqrt(2))


def test_it_is_the_mean_over_drawn_signs():
    width, draws = 40, 100_000
    mean, weight = torch.tanh(normal(3, width, of="mean")), 2 * normal(4, width, of="weight")
    uniform = torch.rand(draws, width, generator=generator(0, "signs"), dtype=torch.float64)
    found = expected_sign(mean, weight)
    for row, expected in zip(mean, found, strict=True):
        signs = torch.where(uniform < (1 + row) / 2, 1.0, -1.0).double()
        values = torch.erf(signs @ weight.T / math.sqrt(2 * width))
        error = values.std(0) / math.sqrt(draws)
        assert ((values.mean(0) - expected).abs() <= 5 * error).all()


def test_known_signs_give_the_error_function():
    weight = normal(4, 30, of="weight")
    signs = torch.where(normal(5, 30, of="signs") >= 0, 1.0, -1.0).double()
    exact = torch.erf(signs @ weight.T / math.sqrt(60))
    torch.testing.assert_close(expected_sign(signs, weight), exact, atol=5e-14, rtol=0)


def test_a_unit_does_not_depend_on_the_others():
    mean, weight = torch.tanh(normal(5, 20, of="mean")), normal(3, 20, of="weight")
    # The largest unit decides the grid of all.
    weight[2] *= 20
    alone = torch.cat([expected_sign(mean, row[None]) for row in weight], dim=1)
    torch.testing.assert_close(expected_sign(mean, weight), alone, atol=5e-14, rtol=0)


def test_the_gradients_are_those_of_finite_differences():
    mean = torch.tanh(normal(3, 5, of="mean")).requires_grad_()
    weight = normal(2, 5, of="weight").requires_grad_()
    assert torch.autograd.gradcheck(expected_sign, (mean, weight))


def test_the_gradients_are_those_of_the_enumeration():
    mean = torch.tanh(normal(3, 8, of="mean")).requires_grad_()
    weight = (2 * normal(2, 8, of="weight")).requires_grad_()
    found, exact = (
        torch.autograd.grad(f(mean, weight).square().sum(), (mean, weight))
        for f in (expected_sign, enumerated)
    )
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=0)


def test_single_precision_is_enough_for_training():
    mean, weight = torch.tanh(normal(5, 100, of="mean")), normal(4, 100, of="weight")
    found = expected_sign(mean.float(), weight.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected_sign(mean, weight), atol=5e-6, rtol=0)
