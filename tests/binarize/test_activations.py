"""Thresholds and shifts of activations: closed forms, and what they are the same as."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pbnn.balance import entropy
from pbnn.binarize import (
    BinaryActivation,
    Hardtanh,
    Recipe,
    SelfDistribution,
    Threshold,
    clipped,
    ede,
    hardtanh,
    share_of_ones,
)
from pbnn.functional import hard_sign
from pbnn.seeding import generator

STANDARD = torch.randn(10**6, 1, generator=generator(0, "x"), dtype=torch.float64)


@pytest.mark.parametrize(
    ("threshold", "share", "bits"),
    [(0.1, 0.460, 0.995), (0.3, 0.382, 0.960), (0.5, 0.309, 0.892), (1.0, 0.159, 0.631)],
)
def test_a_threshold_unbalances_gaussian_units_by_the_closed_form(threshold, share, bits):
    assert share_of_ones(threshold) == pytest.approx(share, abs=5e-4)
    above, below = (
        (BinaryActivation(clipped, Threshold(th).double())(STANDARD) > 0).double().mean()
        for th in (threshold, -threshold)
    )
    assert float(above) == pytest.approx(share_of_ones(threshold), abs=2e-3)
    assert float(above + below) == pytest.approx(1.0, abs=2e-3)  # the symmetric control
    assert float(entropy(above)) == pytest.approx(bits, abs=3e-3)


def test_at_its_threshold_a_unit_is_plus_one():
    activation = BinaryActivation(clipped, Threshold(0.25))
    assert activation(torch.tensor([[0.25, 0.2499]])).tolist() == [[1.0, -1.0]]


def test_the_slope_is_taken_at_the_threshold():
    x = torch.randn(50, 3, generator=generator(0, "s"), dtype=torch.float64).requires_grad_()
    activation = BinaryActivation(lambda x: ede(x, 3.0), Threshold(0.7).double())
    activation(x).sum().backward()
    torch.testing.assert_close(x.grad, ede(x.detach() - 0.7, 3.0))


def test_a_trained_threshold_gets_the_opposite_of_its_channels_gradients():
    x = torch.randn(20, 3, 4, generator=generator(0, "s"), dtype=torch.float64).requires_grad_()
    threshold = Threshold(0.3, trainable=True, channels=3).double()
    outer = torch.randn(20, 3, 4, generator=generator(0, "o"), dtype=torch.float64)
    (BinaryActivation(clipped, threshold)(x) * outer).sum().backward()
    torch.testing.assert_close(threshold.value.grad, -x.grad.sum((0, 2)))


def test_a_threshold_behind_batch_norm_is_a_bias_that_starts_elsewhere():
    """Twenty steps of SGD with momentum: the same outputs, step by step."""
    x = torch.randn(64, 6, generator=generator(0, "x"), dtype=torch.float64)
    y = torch.randn(64, 2, generator=generator(0, "y"), dtype=torch.float64)

    def trajectory(threshold, bias):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            norm = nn.BatchNorm1d(8)
            activation = BinaryActivation(clipped, Threshold(threshold))
            model = nn.Sequential(nn.Linear(6, 8), norm, activation, nn.Linear(8, 2)).double()
        nn.init.constant_(norm.bias, bias)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        outputs = []
        for _ in range(20):
            out = model(x)
            optimiser.zero_grad()
            (out - y).square().mean().backward()
            optimiser.step()
            outputs.append(out.detach())
        return torch.stack(outputs), norm.bias.detach()

    ours, bias = trajectory(0.4, 0.0)
    theirs, shifted = trajectory(0.0, -0.4)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    torch.testing.assert_close(bias - 0.4, shifted, atol=1e-9, rtol=0)
    other, _ = trajectory(0.0, 0.0)
    assert (ours - other).abs().max() > 0.1


def test_hardtanh_is_shifted_across_up_and_widened():
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    assert torch.equal(hardtanh(x), torch.nn.functional.hardtanh(x))
    torch.testing.assert_close(hardtanh(x, across=0.5), hardtanh(x - 0.5))
    torch.testing.assert_close(hardtanh(x, up=1.0), hardtanh(x) + 1)
    torch.testing.assert_close(hardtanh(x, width=2.0), 2 * hardtanh(x / 2))
    assert torch.equal(Hardtanh(0.5, 1.0, 2.0)(x), hardtanh(x, 0.5, 1.0, 2.0))
    with pytest.raises(ValueError, match="`width` must be positive, got -1"):
        Hardtanh(width=-1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_threshold_must_be_finite(value):
    for make in (Threshold, lambda value: Recipe(threshold=value)):
        with pytest.raises(ValueError, match="must be finite"):
            make(value)


# --- SD-BNN


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3, 3)])
def test_asd_without_weights_is_a_shift_of_a_half(shape):
    x = torch.randn(*shape, generator=generator(0, "asd"))
    shift = SelfDistribution(4, 2, generator=generator(0, "w"))
    for parameter in shift.parameters():
        nn.init.zeros_(parameter)
    constant = BinaryActivation(clipped, Threshold(-0.5))
    assert torch.equal(BinaryActivation(clipped, shift)(x), constant(x))
    shift.centred = True
    assert torch.equal(BinaryActivation(clipped, shift)(x), hard_sign(x))


def test_asd_is_the_formula_of_the_paper():
    x = torch.randn(5, 4, 3, 3, generator=generator(0, "asd"))
    shift = SelfDistribution(4, 2, generator=generator(0, "w"))
    inner, outer = shift.squeeze.weight, shift.excite.weight
    expected = [(outer @ (inner @ a.mean((1, 2))).relu()).sigmoid() for a in x]
    torch.testing.assert_close(shift(x)[:, :, 0, 0], torch.stack(expected))
    assert inner.shape == (2, 4)


def test_asd_unbalances_at_its_start():
    x = torch.randn(200, 64, 8, 8, generator=generator(0, "asd"))
    activation = BinaryActivation(clipped, SelfDistribution(64, generator=generator(0, "w")))
    share = (activation(x) > 0).float().mean()
    assert float(share) == pytest.approx(0.69, abs=0.01)
    assert float(entropy(share)) == pytest.approx(0.89, abs=0.01)


def test_asd_needs_a_sound_reduction():
    with pytest.raises(ValueError, match="`reduction` must be a positive integer, got 0"):
        SelfDistribution(4, 0, generator=generator(0, "w"))
