"""Weight binarisers: values and gradients by the formulas of their papers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pbnn.balance import entropy, quantisation_error
from pbnn.binarize import (
    WEIGHTS,
    BinaryLinear,
    BiRealWeights,
    ClippedWeights,
    LibraWeights,
    SignWeights,
    WSDWeights,
    XNORWeights,
    clipped,
    identity,
    power_of_two,
    standardised,
    stochastic_sign,
)
from pbnn.binarize.binary_net import StochasticWeights
from pbnn.functional import hard_sign
from pbnn.seeding import generator


def normal(*shape, of="w"):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def gradient(binariser, weight, outer):
    latent = weight.clone().requires_grad_()
    (found,) = torch.autograd.grad((binariser(latent) * outer).sum(), latent)
    return found


@pytest.mark.parametrize("name", sorted(set(WEIGHTS) - {"abc"}))  # a sum of several
def test_every_binariser_gives_signs_times_one_scale_a_filter(name):
    weight = normal(5, 4, 3, 3)
    binariser = WEIGHTS[name](weight.shape, clipped).double().eval()
    binary, scale = binariser(weight), binariser.scale(binariser.centred(weight))
    signs = binary / (1 if scale is None else scale)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(signs, hard_sign(binariser.centred(weight)))


@pytest.mark.parametrize("name", ["sign", "clipped", "xnor", "bi_real", "stochastic"])
def test_a_latent_weight_of_0_is_plus_one(name):
    weight = torch.tensor([[0.0, -0.5, 0.5]])
    binary = WEIGHTS[name](weight.shape, clipped).eval()(weight)
    assert float(binary[0, 0]) == float(binary[0, 2]) > 0


def test_xnor_has_the_exact_gradient_of_scale_and_signs():
    weight, outer = 1.5 * normal(4, 3, 2), normal(4, 3, 2, of="outer")
    weight[0, 0, 0] = 0.0
    signs, n = hard_sign(weight), 6
    scale = weight.abs().mean((1, 2), keepdim=True)
    through_scale = signs * (outer * signs).sum((1, 2), keepdim=True) / n
    expected = through_scale + scale * outer * (weight.abs() <= 1)
    torch.testing.assert_close(
        gradient(XNORWeights(weight.shape, clipped), weight, outer), expected
    )


def test_bi_real_holds_its_scale_constant():
    weight, outer = 1.5 * normal(4, 3), normal(4, 3, of="outer")
    expected = weight.abs().mean(1, keepdim=True) * outer * (weight.abs() <= 1)
    found = gradient(BiRealWeights(weight.shape, clipped), weight, outer)
    torch.testing.assert_close(found, expected)


def test_latents_are_clipped_or_centred_after_a_step():
    weight = 2 * normal(4, 3, 5, 5)
    for make in (SignWeights, BiRealWeights, LibraWeights):
        after = weight.clone()
        make(weight.shape, clipped).after_step(after)
        assert torch.equal(after, weight)
    after = weight.clone()
    ClippedWeights(weight.shape, clipped).after_step(after)
    assert torch.equal(after, weight.clamp(-1, 1))
    after = weight.clone()
    XNORWeights(weight.shape, clipped).after_step(after)
    torch.testing.assert_close(after, (weight - weight.mean(1, keepdim=True)).clamp(-1, 1))
    single = 2 * normal(4, 1, 5, 5)
    after = single.clone()
    XNORWeights(single.shape, clipped).after_step(after)
    assert torch.equal(after, single.clamp(-1, 1))


def test_a_drawn_sign_has_the_mean_of_hardtanh_and_its_gradient():
    x = torch.linspace(-1.5, 1.5, 13, dtype=torch.float64).requires_grad_()
    source, draws = generator(0, "draws"), 20_000
    mean = sum(stochastic_sign(x.detach(), source) for _ in range(draws)) / draws
    expected = x.detach().clamp(-1, 1)
    error = ((1 - expected.square()) / draws).sqrt()
    assert ((mean - expected).abs() <= 5 * error).all()
    stochastic_sign(x, source).sum().backward()
    assert torch.equal(x.grad, (x.detach().abs() <= 1).double())


def test_drawn_weights_need_a_source_in_training_alone():
    binariser, weight = StochasticWeights((2, 3), clipped), normal(2, 3)
    with pytest.raises(ValueError, match="`source` must be a generator"):
        binariser(weight)
    assert torch.equal(binariser.eval()(weight), hard_sign(weight))
    binariser.train().source = generator(0, "draws")
    assert set(binariser(weight).unique().tolist()) <= {-1.0, 1.0}


# --- IR-Net


def test_libra_standardises_each_filter():
    weight = 0.3 + 0.02 * normal(6, 5, 3, 3)
    found = standardised(weight).flatten(1)
    torch.testing.assert_close(found.mean(1), torch.zeros(6).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.std(1), torch.ones(6).double())
    binariser = LibraWeights(weight.shape, identity)
    for factor in (1e-6, 0.5, 1e6):  # signs and scale do not change with the size of a filter
        torch.testing.assert_close(binariser(factor * weight), binariser(weight))


def test_libra_scales_by_powers_of_two():
    assert power_of_two(torch.tensor([0.8, 0.71, 0.70, 0.3])).tolist() == [1.0, 1.0, 0.5, 0.25]
    for draw in (normal(8, 500), 2 * torch.rand(8, 500, generator=generator(0, "u")) - 1):
        binariser = LibraWeights(draw.shape, identity)
        # E|z| is .798 for Gaussian and .866 for uniform weights.
        assert (binariser.scale(binariser.centred(draw)) == 1).all()
    spiked = torch.zeros(1, 400)
    spiked[0, :2] = torch.tensor([30.0, -30.0])
    binariser = LibraWeights(spiked.shape, identity)
    assert float(binariser.scale(binariser.centred(spiked))) < 0.5


def test_libra_lets_the_gradient_through_mean_and_deviation():
    weight, outer = normal(3, 7), normal(3, 7, of="outer")
    latent = weight.clone().requires_grad_()
    scale = 1.0  # of Gaussian weights
    (expected,) = torch.autograd.grad((scale * standardised(latent) * outer).sum(), latent)
    found = gradient(LibraWeights(weight.shape, identity), weight, outer)
    torch.testing.assert_close(found, expected)
    # Moving or stretching a whole filter changes nothing.
    torch.testing.assert_close(found.sum(1), torch.zeros(3).double(), atol=1e-10, rtol=0)


def test_a_constant_filter_stays_finite():
    weight = torch.full((1, 4), 0.3, requires_grad=True)
    LibraWeights(weight.shape, identity)(weight).sum().backward()
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize(("shift", "raw"), [(0, 0.999), (0.25, 0.971), (0.5, 0.890), (1, 0.627)])
def test_libra_restores_the_entropy_of_shifted_weights(shift, raw):
    weight = normal(64, 1152) + shift

    def mean_entropy(signs):
        return float(entropy((1 + signs.mean(1)) / 2).mean())

    assert mean_entropy(hard_sign(weight)) == pytest.approx(raw, abs=4e-3)
    assert mean_entropy(LibraWeights(weight.shape, identity)(weight)) == pytest.approx(
        0.9995, abs=1e-3
    )


def test_the_mean_does_not_balance_skewed_weights():
    weight = -torch.rand(16, 4000, generator=generator(0, "exp"), dtype=torch.float64).log()
    share = (1 + LibraWeights(weight.shape, identity)(weight).mean(1)) / 2
    assert float(share.mean()) == pytest.approx(math.exp(-1), abs=0.01)
    assert float(entropy(share).mean()) == pytest.approx(0.949, abs=0.005)


def test_centring_shifted_weights_raises_their_relative_error():
    """So that of "higher entropy" and "lower quantisation error" only one can come by centring."""
    weight = normal(64, 1152) + 1.0
    raw, centred = (float(quantisation_error(w).mean()) for w in (weight, standardised(weight)))
    assert centred == pytest.approx(1 - 2 / math.pi, abs=0.005)
    assert raw < centred


# --- SD-BNN


def test_wsd_is_trained_by_its_alpha_and_not_through_the_mean():
    weight, outer = 1 + normal(4, 3, 2), normal(4, 3, 2, of="outer")
    binariser = WSDWeights(weight.shape, identity).double()
    with torch.no_grad():
        binariser.alpha.copy_(normal(4, 1, 1, of="alpha"))
    latent = weight.clone().requires_grad_()
    loss = (binariser(latent) * outer).sum()
    by_weight, by_alpha = torch.autograd.grad(loss, [latent, binariser.alpha])
    torch.testing.assert_close(by_weight, outer)  # nothing through m_o
    sigma = binariser.alpha.detach().sigmoid()
    mean = 0.01 * weight.mean((1, 2), keepdim=True)
    expected = sigma * (1 - sigma) * mean * outer.sum((1, 2), keepdim=True)
    torch.testing.assert_close(by_alpha, expected)


def test_wsd_as_released_flips_hardly_a_sign():
    weight = normal(128, 1152)
    flipped = hard_sign(WSDWeights(weight.shape, identity).double().centred(weight)) != hard_sign(
        weight
    )
    assert 0 < float(flipped.double().mean()) <= 1.4e-4


@pytest.mark.parametrize("kind", [XNORWeights, BiRealWeights, LibraWeights])
def test_sums_of_scaled_signs_do_not_depend_on_their_order_while_training(kind):
    # Scaled first, each product is rounded, and sums that are equal part in the last bit: a
    # maximum, and a training in several processes, would then go by the order of sums.
    weight, x = normal(5, 301).float(), hard_sign(normal(40, 301, of="x").float())
    order = torch.randperm(301, generator=generator(0, "order"))
    latent = nn.utils.skip_init(nn.Linear, 301, 5, bias=False)
    latent.weight.data.copy_(weight)
    layer = BinaryLinear(latent, kind(weight.shape, clipped), None).train()
    made = layer(x)
    signs, scale = layer.parts()
    sums = x[:, order].double() @ signs[:, order].T.double()
    assert torch.equal(sums, sums.round())
    assert torch.equal(made, sums.float() * scale.reshape(1, -1))
    gradient, other = (
        torch.autograd.grad((output * normal(40, 5, of="outer").float()).sum(), latent.weight)[0]
        for output in (layer(x), layer.product(x))
    )
    torch.testing.assert_close(gradient, other)
