"""ABC-Net: the error of M bases, least-squares scales, gradients by autograd."""

from __future__ import annotations

import pytest
import torch

from pbnn.backbones import lenet
from pbnn.balance import measure
from pbnn.binarize import (
    Recipe,
    binary_layers,
    convert,
    count_operations,
    identity,
    set_stage,
)
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


def test_a_recipe_has_its_bases():
    twin = lenet((1, 8, 8), (4, 8), 16, kernel=3, generator=generator(0, "model"))
    one = convert(twin, Recipe(weights="abc")).network
    network = convert(twin, Recipe(weights="abc", weight_bases=3, activation_bases=2)).network
    assert network[4].binariser.bases == 3
    assert len(network[4].activation.scales) == 2
    x = torch.rand(6, 1, 8, 8, generator=generator(0, "x"))
    # A convolution of sums is the sum of binary convolutions.
    seen = []
    network[4].register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    network(x)
    (given, out), layer = seen[0], network[4]
    signs = weight_bases(layer.weight, 3)
    scales = base_scales(layer.weight, signs)
    expected = sum(
        a * b * torch.nn.functional.conv2d(base(given), s, padding=1)
        for a, s in zip(scales, signs, strict=True)
        for b, base in zip(layer.activation.scales, layer.activation.bases, strict=True)
    )
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    single, several = (count_operations(each, (1, 8, 8)) for each in (one, network))
    assert several.binary == 6 * single.binary
    assert several.real == single.real
    more = 2 * sum(layer.weight.numel() for layer in binary_layers(one).values())
    assert several.parameter_bits == single.parameter_bits + more + 2 * 4 * 32
    set_stage(network, "activations")
    assert count_operations(network, (1, 8, 8)).real == several.real + single.binary


def test_bases_of_a_recipe_are_checked():
    for field in ("weight_bases", "activation_bases"):
        for value in (0, 2.5, "2", True):
            with pytest.raises(ValueError, match=f"`{field}` must be a positive integer, got"):
                Recipe(weights="abc", **{field: value})
    with pytest.raises(ValueError, match="`weight_bases` must be 1 for 'xnor' weights"):
        Recipe(weights="xnor", weight_bases=2)
    with pytest.raises(ValueError, match="`activation_bases` have thresholds of their own"):
        Recipe(activation_bases=2, threshold=0.3)


def test_the_signs_of_every_base_are_watched():
    twin = lenet((1, 8, 8), (4, 8), 16, kernel=3, generator=generator(0, "model"))
    network = convert(twin, "abc_net").network
    balance = measure(network, [torch.rand(6, 1, 8, 8, generator=generator(0, "x"))])
    shares = [balance.activations[f"4.activation.bases.{n}"]["share"] for n in range(3)]
    # Their thresholds rise.
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("bases", [1, 2, 3, 4])
def test_the_signs_of_a_layer_are_those_of_a_base_that_it_has(bases):
    weight = 0.2 + normal(5, 4)
    signs = hard_sign(ABCWeights(weight.shape, identity, bases).centred(weight))
    found = [torch.equal(signs, base) for base in weight_bases(weight, bases)]
    assert found.index(True) == (bases - 1) // 2


def test_a_state_of_other_bases_does_not_fit():
    twin = lenet((1, 8, 8), (4, 8), 16, kernel=3, generator=generator(0, "model"))
    one, three = (convert(twin, Recipe(weights="abc", weight_bases=m)).network for m in (1, 3))
    with pytest.raises(RuntimeError, match=r"size mismatch for 4.binariser.shifts"):
        three.load_state_dict(one.state_dict())
    assert not three.load_state_dict(twin.state_dict(), strict=False).unexpected_keys


def test_a_constant_base_beside_others_is_no_matter():
    twin = lenet((1, 8, 8), (4, 8), 16, kernel=3, generator=generator(0, "model"))
    x = torch.rand(6, 1, 8, 8, generator=generator(0, "x"))
    twin.eval()[2].bias.data.fill_(0.45)
    twin[2].weight.data.fill_(0.01)  # beyond the threshold −½ and 0, not beyond ½
    convert(twin, "abc_net", example=x)
    twin[2].bias.data.fill_(0.9)
    with pytest.warns(UserWarning, match=r"All signs that enter \['4'\] are \+1"):
        convert(twin, "abc_net", example=x)
    with pytest.raises(ValueError, match="`example` must hold some inputs"):
        convert(twin, "abc_net", example=x[:0])
