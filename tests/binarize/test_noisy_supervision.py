"""Learned binarisation of weights: its start, its supervision by noisy signs, its limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pbnn.backbones import lenet, resnet
from pbnn.binarize import (
    RECIPES,
    BiRealWeights,
    LearnedWeights,
    Recipe,
    WeightMapping,
    binary_layers,
    clipped,
    convert,
    corrected_loss,
    count_operations,
    set_stage,
    settle,
    supervision,
)
from pbnn.functional import hard_sign
from pbnn.seeding import generator

RATES = [(0.0, 0.0), (0.1, 0.1), (0.05, 0.3), (0.6, 0.2)]


pytestmark = pytest.mark.usefixtures("layers_of_torch_draw_nothing_that_lasts")


def normal(*shape, of="w"):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


@pytest.mark.parametrize(("plus", "minus"), RATES)
@pytest.mark.parametrize("true", [-1.0, 1.0])
def test_the_expectation_over_flips_is_the_clean_loss(plus, minus, true):
    mapped, signs = 2 * normal(50), torch.full((50,), true, dtype=torch.float64)
    flipped = plus if true > 0 else minus
    seen, other = (corrected_loss(mapped, s, plus, minus) for s in (signs, -signs))
    expected = (mapped - true).square()
    torch.testing.assert_close((1 - flipped) * seen + flipped * other, expected)


@pytest.mark.parametrize(("plus", "minus"), RATES)
def test_its_gradient_is_that_of_the_paper(plus, minus):
    mapped, signs = (2 * normal(50)).requires_grad_(), hard_sign(normal(50, of="signs"))
    (found,) = torch.autograd.grad(corrected_loss(mapped, signs, plus, minus).sum(), mapped)
    rate = torch.tensor([plus if sign > 0 else minus for sign in signs], dtype=torch.float64)
    expected = 2 * (mapped - signs) - 4 * rate * signs / (1 - plus - minus)
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2, 0.45])
def test_symmetric_noise_is_a_longer_target(rate):
    mapped, signs = 2 * normal(50), hard_sign(normal(50, of="signs"))
    distance = (mapped - signs / (1 - 2 * rate)).square()
    constant = corrected_loss(mapped, signs, rate, rate) - distance
    torch.testing.assert_close(constant, constant[0].expand(50), atol=1e-12, rtol=0)
    if not rate:
        assert torch.equal(corrected_loss(mapped, signs, 0, 0), (mapped - signs).square())


@pytest.mark.parametrize(
    ("plus", "minus"), [(0.5, 0.5), (1.0, 0.0), (-0.1, 0.2), (0.2, -0.1), (math.nan, 0.0)]
)
def test_rates_that_leave_nothing_to_learn_are_refused(plus, minus):
    text = "`plus` and `minus` must be at least 0 and sum to less than 1, got"
    with pytest.raises(ValueError, match=text):
        corrected_loss(torch.zeros(1), torch.ones(1), plus, minus)
    network = convert(model(), "noisy_supervision").network
    with pytest.raises(ValueError, match=text):
        supervision(network, plus, minus)


def model():
    """A residual network whose normalisations are not at their start."""
    net = resnet((1, 8, 8), (4, 8), 1, "each", generator=generator(0, "model"))
    net.train()(torch.rand(32, 1, 8, 8, generator=generator(0, "x")))
    return net.eval()


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 4, 1, 1), (6, 4), (5, 1, 3, 3)])
def test_the_mapping_starts_as_the_identity(shape):
    weight = 0.3 + 0.1 * normal(*shape)
    binariser = LearnedWeights(shape, clipped).double()
    assert not torch.allclose(binariser.centred(weight), weight)  # before
    binariser.start(weight)
    for mode in (True, False):
        torch.testing.assert_close(binariser.train(mode).centred(weight), weight)


def test_a_trained_binary_network_starts_as_it_is():
    twin, x = model(), torch.rand(6, 1, 8, 8, generator=generator(0, "more"))
    plain, learned = (convert(twin, name).network for name in ("bi_real_net", "noisy_supervision"))
    assert binary_layers(learned).keys() == binary_layers(plain).keys()
    torch.testing.assert_close(learned(x), plain(x), rtol=1e-4, atol=1e-4)


def trained():
    network = convert(model(), "bi_real_net").network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * normal(*parameter.shape).float())
    return network


def test_a_state_that_is_loaded_later_starts_as_it_is_too():
    before, late = trained(), convert(model(), "noisy_supervision").network
    late.load_state_dict(before.state_dict(), strict=False)
    for (_, ours), (_, theirs) in zip(
        binary_layers(late).items(), binary_layers(before).items(), strict=True
    ):
        assert torch.equal(ours.signs(), theirs.signs())
        torch.testing.assert_close(ours.rounded(), theirs.weight)


def test_its_own_state_is_loaded_as_it_was():
    network, again = (convert(model(), "noisy_supervision").network for _ in range(2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * normal(*parameter.shape).float())
    again.load_state_dict(network.state_dict())
    x = torch.rand(6, 1, 8, 8, generator=generator(0, "more"))
    assert torch.equal(again.eval()(x), network.eval()(x))


def test_a_settled_network_computes_what_it_did_without_a_mapping():
    network = convert(model(), "noisy_supervision").network.double().eval()
    with torch.no_grad():
        for layer in binary_layers(network).values():
            for parameter in layer.binariser.parameters():
                parameter.add_(0.1 * normal(*parameter.shape))
    x = torch.rand(6, 1, 8, 8, generator=generator(0, "more")).double()
    before = network(x)
    settle(network)
    torch.testing.assert_close(network(x), before)
    plain = convert(model(), "bi_real_net").network.double().eval()
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(plain(x), before)


@pytest.mark.parametrize(("kernel", "numbers"), [(3, 72), (1, 8)])
def test_the_mapping_has_the_sizes_of_the_paper(kernel, numbers):
    mapping = WeightMapping(16, kernel)
    shapes = [tuple(layer.weight.shape[:2]) for layer in mapping.convolutions]
    assert shapes == [(32, 16), (32, 32), (16, 32)]
    norms = 2 * 2 * 32
    assert sum(p.numel() for p in mapping.parameters()) == numbers * 16**2 + norms


def test_weights_are_mapped_as_a_whole():
    """Neighbours, channels and, through the normalisation, filters have their say."""
    weight, mapping = normal(3, 2, 3, 3), WeightMapping(2).double()
    mapping.start(weight)
    with torch.no_grad():
        for layer in mapping.convolutions:
            layer.weight.add_(0.1 * normal(*layer.weight.shape, of="theta"))
    weight.requires_grad_()
    (gradient,) = torch.autograd.grad(mapping(weight)[0, 0, 0, 0], weight)
    assert (gradient[0] != 0).sum() > 9
    assert (gradient[1:] != 0).any()
    assert torch.autograd.gradcheck(mapping, (weight,))


class Shrinking(nn.Module):
    def forward(self, weight):
        return weight[:, :, 1:]


@pytest.mark.parametrize(
    ("shape", "mapping"),
    [
        ((4, 3, 3, 3), WeightMapping(2)),
        ((4, 3, 3, 3), Shrinking()),
        ((4, 3, 3, 3), nn.Conv2d(2, 3, 3, padding=1)),
        ((4, 3), nn.Conv2d(3, 3, 1)),
        ((4, 3, 3), None),
        ((1, 3), None),
    ],
)
def test_a_mapping_must_fit_its_layer(shape, mapping):
    import re

    text = re.escape(f"`mapping` must fit weights of shape {shape}: ")
    with pytest.raises(ValueError, match=text):
        LearnedWeights(shape, clipped, mapping)


def test_sizes_of_a_mapping_are_checked():
    for sizes in ((0, 3), (4, 2)):
        with pytest.raises(ValueError, match="`channels` must be positive and `kernel` 1 or 3"):
            WeightMapping(*sizes)


def test_a_mapping_of_ones_own_serves():
    binariser = LearnedWeights((4, 3), clipped, nn.Linear(3, 3, bias=False)).double()
    weight = normal(4, 3)
    binariser.start(weight)  # nothing to start
    mapped = weight @ binariser.mapping.weight.detach().T
    expected = mapped.abs().mean(1, keepdim=True) * hard_sign(mapped)
    torch.testing.assert_close(binariser(weight).detach(), expected)


def test_a_filter_of_a_single_number_an_input_keeps_plain_signs():
    assert type(Recipe(weights="learned").binariser(torch.ones(1, 3, 1, 1))) is BiRealWeights


def test_an_empty_mapping_is_the_identity():
    weight = normal(4, 3)
    assert torch.equal(LearnedWeights((4, 3), clipped, nn.Sequential()).centred(weight), weight)


def test_supervision_is_the_mean_of_each_learned_layer():
    network = convert(model(), "noisy_supervision").network
    expected = 0.0
    for layer in binary_layers(network).values():
        mapped = layer.binariser.mapping(layer.weight)
        signs = hard_sign(layer.weight.detach())
        expected += corrected_loss(mapped, signs, 0.1, 0.2).mean()
    found = supervision(network, 0.1, 0.2)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="`network` must have convolutions of learned weights"):
        supervision(convert(model(), "bi_real_net").network)


def test_supervision_alone_drives_every_weight_to_its_target():
    network = convert(model(), Recipe(weights="learned", keep=())).network
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        supervision(network, 0.1, 0.1).backward()
        optimiser.step()
    for layer in binary_layers(network).values():
        reached = layer.rounded() * hard_sign(layer.weight)
        assert float(reached.mean().detach()) == pytest.approx(1 / 0.8, rel=0.02)


def test_the_data_train_the_mapping_and_the_weights():
    network = convert(model(), "noisy_supervision").network
    network(torch.rand(6, 1, 8, 8, generator=generator(0, "x"))).square().sum().backward()
    for layer in binary_layers(network).values():
        for parameter in (layer.weight, *layer.binariser.parameters()):
            assert bool((parameter.grad != 0).any())


def test_weights_that_reached_their_targets_go_on_learning():
    """With noise the targets lie beyond ±1, where a clipped slope would be 0."""
    weight = (1.6 * hard_sign(normal(6, 4, 3, 3))).requires_grad_()
    binariser = Recipe(weights="learned").binariser(weight).double()
    binariser.start(weight)
    (stuck,) = torch.autograd.grad(binariser(weight).sum(), weight)
    assert not stuck.any()
    binariser = RECIPES["noisy_supervision"].binariser(weight).double()
    binariser.start(weight)
    (free,) = torch.autograd.grad(binariser(weight).sum(), weight)
    assert (free != 0).double().mean() > 0.9


def test_the_mapping_is_not_deployed():
    plain, learned = (
        count_operations(convert(model(), name).network, (1, 8, 8))
        for name in ("bi_real_net", "noisy_supervision")
    )
    assert learned == plain
    stages = [convert(model(), name).network for name in ("bi_real_net", "noisy_supervision")]
    for network in stages:
        set_stage(network, "activations")
    first, second = (count_operations(network, (1, 8, 8)) for network in stages)
    assert first == second


def test_dense_layers_of_a_recipe_keep_plain_signs():
    twin = lenet((1, 8, 8), (4, 8), 16, kernel=3, generator=generator(0, "model"))
    network, binary, _, _ = convert(twin, "noisy_supervision")
    convolution, dense = (network.get_submodule(name).binariser for name in binary)
    assert isinstance(convolution, LearnedWeights)
    assert type(dense) is BiRealWeights
    assert network(torch.rand(4, 1, 8, 8, generator=generator(0, "x"))).shape == (4, 10)
