"""ABC-Net: the error of M bases, least-squares scales, gradients by autograd."""

from __future__ import annotations

import pytest
import torch

from pbnn.binarize import identity
from pbnn.binarize.abc_net import (
    ABCActivation,
    ABCWeights,
    base_scales,
    base_shifts,
    weight_bases,
)
from pbnn.functional import hard_sign
from pbnn.seeding import generator


def normal(*shape, of="w"):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


@pytest.mark.parametrize(
    ("bases", "error", "condition"),
    [(1, 0.3634, 1), (2, 0.262, 2.2), (3, 0.1178, 4.1), (4, 0.0882, 6.7), (5, 0.0774, 12.8)],
)
def test_more_bases_leave_less_of_gaussian_weights(bases, error, condition):
    weight = normal(400, 2500)
    signs = weight_bases(weight, bases)
    rest = weight - torch.tensordot(base_scales(weight, signs), signs, dims=1)
    assert float(rest.square().sum() / weight.square().sum()) == pytest.approx(error, abs=1e-3)
    flat = signs.flatten(1)
    assert float(torch.linalg.cond(flat @ flat.T)) == pytest.approx(condition, rel=0.03)


@pytest.mark.parametrize("bases", [1, 2, 5])
def test_scales_are_those_of_least_squares(bases):
    weight = 0.3 + normal(6, 5, 3, 3)
    signs = weight_bases(weight, bases)
    design, target = signs.flatten(1).T, weight.flatten()[:, None]
    expected = torch.linalg.lstsq(design, target).solution[:, 0]
    torch.testing.assert_close(base_scales(weight, signs), expected, rtol=1e-4, atol=1e-6)


def test_many_bases_stay_finite():
    weight = normal(4, 8)  # fewer levels than bases
    binary = ABCWeights(weight.shape, identity, bases=40)(weight)
    assert torch.isfinite(binary).all()
    assert float((weight - binary).square().sum()) < 0.2 * float(weight.square().sum())
    constant = torch.full((2, 3), 0.5)
    assert torch.isfinite(ABCWeights(constant.shape, identity)(constant)).all()


def test_the_gradient_is_the_sum_of_the_scales():
    weight, outer = normal(4, 6).requires_grad_(), normal(4, 6, of="outer")
    binariser = ABCWeights(weight.shape, identity, bases=3)
    (binariser(weight) * outer).sum().backward()
    detached = weight.detach()
    scales = base_scales(detached, weight_bases(detached, 3))
    torch.testing.assert_close(weight.grad, scales.sum() * outer)


def test_one_activation_of_scale_1_is_a_sign():
    x = torch.cat([normal(50), torch.zeros(1).double()])[:, None]
    activation = ABCActivation(1).double()
    assert torch.equal(activation(x), hard_sign(x))


def test_activations_and_their_gradients_are_those_of_the_paper():
    x, outer = normal(30, 4, of="x").requires_grad_(), normal(30, 4, of="outer")
    activation = ABCActivation(3).double()
    with torch.no_grad():
        activation.scales.copy_(normal(3, of="beta"))
    (activation(x) * outer).sum().backward()
    v = [0.5 - float(base.shift.value.detach()) for base in activation.bases]
    given, beta = x.detach(), activation.scales.detach()
    signs = [2 * ((given + shift).clamp(0, 1) >= 0.5).double() - 1 for shift in v]
    expected = sum(b * s for b, s in zip(beta, signs, strict=True))
    torch.testing.assert_close(activation(x).detach(), expected)
    inside = [((given + shift >= 0) & (given + shift <= 1)).double() for shift in v]
    by_x = sum(b * outer * i for b, i in zip(beta, inside, strict=True))
    torch.testing.assert_close(x.grad, by_x)
    by_beta = torch.stack([(outer * s).sum() for s in signs])
    torch.testing.assert_close(activation.scales.grad, by_beta)
    for base, b, i in zip(activation.bases, beta, inside, strict=True):
        # A threshold is ½ − v.
        torch.testing.assert_close(base.shift.value.grad[0], -(b * outer * i).sum())


@pytest.mark.parametrize("bases", [0, -2])
def test_there_is_a_base(bases):
    for make in (base_shifts, ABCActivation, lambda m: ABCWeights((2, 3), identity, m)):
        with pytest.raises(ValueError, match=f"`bases` must be a positive integer, got {bases}"):
            make(bases)
