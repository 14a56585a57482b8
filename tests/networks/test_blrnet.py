"""BLRNet and PBNet-S: their passes against the layers one by one, gradients, edges."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pbnn.functional import (
    Signs,
    average_pool,
    batch_norm,
    batch_statistics,
    conv2d,
    hard_concrete,
    linear,
    max_pool,
    max_pool_sampled,
    sign,
)
from pbnn.networks import BLRNet
from pbnn.networks.architecture import Pool
from pbnn.seeding import generator

IMAGE, ARCHITECTURE = (2, 9, 8), "4C3-MP2-5C1-6C3-AP2-7FC-SM3"
laws = pytest.mark.parametrize("law", ["bernoulli", "gaussian"])


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def images(n=6, image=IMAGE):
    return normal(n, *image, of="images")


def network_of(architecture=ARCHITECTURE, image=IMAGE, seed=0, **options):
    network = BLRNet(
        image, architecture, generator=generator(seed, "net"), dtype=torch.float64, **options
    )
    with torch.no_grad():
        for place, block in enumerate(network.layers()):
            if block.tail.norm is not None:
                for name, part in block.tail.norm.named_parameters():
                    part.add_(0.5 * normal(*part.shape, of=f"{name} {place}"))
                block.tail.norm.running_mean.add_(normal(len(part), of=f"mean {place}"))
                block.tail.norm.running_var.add_(normal(len(part), of=f"var {place}").square())
    return network


def weights(network, how):
    return [how(block.layer.weight) for block in network.layers()]


def one_by_one(network, x, law, value=0.0, source=None, concrete=None):
    """The analytic pass from pure functions: normalise, pool, sign."""
    units, *blocks = x, *network.layers()
    for block in blocks:
        mean, norm, pool = block.layer.weight.mean, block.tail.norm, block.tail.pool
        if mean.ndim == 4:
            h = conv2d(units, mean, law, padding=mean.shape[-1] // 2, padding_value=value)
        else:
            h = linear(units._replace(mean=units.mean.flatten(1)), mean, law)
        if norm is not None:
            used = batch_statistics(h) if network.training and not norm.frozen else norm.statistics
            h = batch_norm(h, used, norm.gamma, norm.beta, norm.eps)
        if block is blocks[-1]:
            break
        if pool == Pool("max", 2):
            units = sign(max_pool_sampled(h, 2, source)) if source else max_pool(sign(h), 2)
        else:
            units = sign(average_pool(h, 2) if pool else h)
        if concrete is not None:
            units = Signs(hard_concrete(units.mean, concrete), known=True)
    return h


def assert_same(found, expected):
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.var, expected.var.expand_as(expected.mean))


# The passes


@laws
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_the_analytic_pass_is_that_of_its_layers(law, normalised, training, value):
    network = network_of(law=law, batch_norm=normalised, padding_value=value).train(training)
    expected = one_by_one(network, images(), law, value)
    found = network(images())
    assert_same(found, expected)
    assert found.mean.shape == found.var.shape == (6, 3)
    assert (found.var >= 0).all()


def test_frozen_statistics_serve_in_training_too():
    network, x = network_of(), images()
    expected = network.eval()(x)
    for block in network.layers():
        block.tail.norm.freeze()
    assert_same(network.train()(x), expected)


def test_in_training_the_running_statistics_move_and_otherwise_they_stay():
    network = network_of()
    before = {name: part.clone() for name, part in network.state_dict().items()}
    network.eval()(images())
    assert all(torch.equal(before[name], part) for name, part in network.state_dict().items())
    network.train()(images())
    moved = [n for n, part in network.state_dict().items() if not torch.equal(before[n], part)]
    assert moved == [name for name in before if "running" in name]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("architecture", [ARCHITECTURE, "4C3-MP2-SM3"])
def test_re_estimated_statistics_are_those_of_a_training_pass(architecture, training):
    network, same = network_of(architecture), network_of(architecture)
    network.train(training).re_estimate(images())
    for block in same.layers():
        block.tail.norm.momentum = 1.0
    same.train()(images())
    for name, part in same.state_dict().items():
        assert torch.allclose(network.state_dict()[name], part, rtol=1e-12, atol=1e-14), name


@pytest.mark.parametrize("architecture", [ARCHITECTURE, "4C3-MP2-SM3"])
def test_only_in_training_does_a_point_depend_on_the_others(architecture):
    network, x = network_of(architecture), images()
    other = torch.cat([x[:1], 3 * x[1:] + 1])
    for training in (True, False):
        first, second = (network.train(training)(points).mean[0] for points in (x, other))
        assert torch.allclose(first, second, rtol=1e-9, atol=0) is (not training)
    alone = network(x[:1])
    torch.testing.assert_close(alone.mean, network(x).mean[:1])


def by_hand(network, x, drawn):
    """Known weights: convolution, normalisation, pooling, sign, by torch."""
    poolings = (F.max_pool2d, None, F.avg_pool2d, None, None)
    for pooling, block, weight in zip(poolings, network.layers(), drawn, strict=True):
        if weight.ndim == 4:
            x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        else:
            x = x.flatten(1) @ weight.T
        n = block.tail.norm
        x = F.batch_norm(x, n.running_mean, n.running_var, n.gamma, n.beta, eps=n.eps)
        if pooling:
            x = pooling(x, 2)
        x = x if block is network.layers()[-1] else torch.where(x >= 0, 1.0, -1.0).double()
    return x


@laws
def test_mode_and_draw_are_the_networks_of_those_weights(law):
    network, x = network_of(law=law).eval(), images()
    expected = by_hand(network, x, weights(network, lambda weight: weight.mode()))
    torch.testing.assert_close(network.mode(x), expected)
    source = generator(0, "draw")
    drawn = weights(network, lambda weight: weight.sample(source))
    expected = by_hand(network, x, drawn)
    for options in ((), ("batch",)):
        torch.testing.assert_close(network.sample(x, generator(0, "draw"), *options), expected)
    assert not torch.allclose(network.sample(x, generator(1, "draw")), expected)


def test_each_datum_has_a_network_of_its_own_if_so_drawn():
    network = network_of().eval()
    x = images(1).expand(40, -1, -1, -1)
    shared, each = (network.sample(x, generator(0, "d"), fresh) for fresh in ("batch", "datum"))
    torch.testing.assert_close(shared, shared[:1].expand_as(shared))
    assert each.shape == (40, 3)
    assert len(each.round(decimals=6).unique(dim=0)) > 20
    with pytest.raises(ValueError, match=r"`fresh` must be 'batch' or 'datum', got 'row'"):
        network.sample(x, generator(0, "d"), "row")


def test_images_may_lie_in_memory_in_either_way():
    network, x = network_of().eval(), images()
    assert_same(network(x.contiguous(memory_format=torch.channels_last)), network(x))
    grey = network_of("4C3-MP2-SM3", (1, 8, 8)).eval()
    x = images(5, (1, 8, 8))
    assert_same(grey(x), one_by_one(grey, x, "bernoulli"))
    assert_same(grey(x.expand(-1, 1, -1, -1)[::2]), one_by_one(grey, x[::2], "bernoulli"))


# PBNet-S


def test_drawn_signs_have_the_moments_of_propagated_ones():
    """One hidden layer: E[mean] is the mean, E[var] + Var[mean] the variance. No CLT in between."""
    options = {"image": (1, 2, 2), "batch_norm": False}
    propagated = network_of("6FC-SM3", **options)
    drawn = network_of("6FC-SM3", activation="concrete", source=generator(0, "s"), **options)
    x = images(1, (1, 2, 2))
    expected = propagated(x)
    with torch.no_grad():
        found = drawn.train()(x.expand(100_000, -1, -1, -1))
    error = (found.mean.var(0) / 100_000).sqrt()
    assert (found.mean.std(0) > 0.1).all()
    assert ((found.mean.mean(0) - expected.mean[0]).abs() <= 5 * error).all()
    squares = found.var + (found.mean - expected.mean).square()
    error = (squares.var(0) / 100_000).sqrt()
    assert ((squares.mean(0) - expected.var[0]).abs() <= 5 * error).all()
    assert_same(drawn.eval()(x), expected)


@laws
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_the_drawn_pass_is_that_of_its_layers_and_carries_gradients(law, temperature):
    network = network_of(
        law=law, activation="concrete", source=generator(0, "s"), temperature=temperature
    ).train()
    found, source = network(images()), generator(0, "s")
    assert_same(found, one_by_one(network, images(), law, concrete=source))
    found.mean.square().sum().backward()
    for block in network.layers():
        for parameter in block.parameters():
            assert parameter.grad.isfinite().all()
            assert parameter.grad.any()


def test_the_temperature_acts_on_gradients_alone():
    grads = []
    for temperature in (1.0, 0.4):
        network = network_of(
            activation="concrete", source=generator(0, "s"), temperature=temperature
        )
        found = network(images())
        found.mean.square().sum().backward()
        grads.append((found.mean.detach(), network.layers()[0].layer.weight.half_logit.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert not torch.allclose(grads[0][1], grads[1][1])


@pytest.mark.parametrize("training", [True, False])
def test_sampled_pooling_draws_the_largest_of_each_window(training):
    network = network_of(pooling="sampled", source=generator(0, "s")).train(training)
    found = network(images())
    assert_same(found, one_by_one(network, images(), "bernoulli", source=generator(0, "s")))
    assert not torch.allclose(network(images()).mean, found.mean)  # drawn anew


# Gradients and edges


@laws
def test_gradients_are_those_of_finite_differences(law):
    network = network_of("2C3-MP2-3FC-SM2", (1, 4, 4), law=law)
    leaves = dict(network.named_parameters())
    x = images(3, (1, 4, 4)).requires_grad_()

    def scores(x, *values):
        given = dict(zip(leaves, values, strict=True))
        return torch.func.functional_call(network, given, (x,))

    assert torch.autograd.gradcheck(scores, (x, *leaves.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("activation", ["analytic", "concrete"])
@pytest.mark.parametrize("half_logit", [math.inf, -math.inf, 50.0, 0.0])
def test_nothing_is_nan_where_weights_are_certain_or_images_constant(
    dtype, normalised, activation, half_logit
):
    network = network_of(batch_norm=normalised, activation=activation, source=generator(0, "s"))
    network.to(dtype)
    with torch.no_grad():
        for block in network.layers():
            block.layer.weight.half_logit.fill_(half_logit)
            block.layer.weight.half_logit[::2] *= -1
    for x in (images(), torch.zeros(4, *IMAGE), torch.ones(4, *IMAGE)):
        for training in (True, False):
            found = network.train(training)(x.to(dtype))
            network.zero_grad()
            loss = F.cross_entropy(found.mean, torch.zeros(len(x), dtype=torch.long))
            (loss + found.var.sum() + network.kl()).backward()
            assert loss.isfinite()
            assert (found.var >= 0).all()
            assert all(part.grad.isfinite().all() for part in network.parameters())


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("batch_norm", (0, 1, None, "x")),
        ("padding_value", (True, 0.5, "0", math.nan)),
        ("temperature", (0, -1.0, math.inf, math.nan, True, "1", 10**400)),
        ("start", (-1.0, math.inf, math.nan, True, "1", 10**400)),
        ("image", (3, (1, 8), (1, 8, 8.0), (1, 8, True), "188", (0, 8, 8))),
    ],
)
def test_a_network_of_no_numbers_is_refused(field, values):
    for value in values:
        given = {"image": (1, 8, 8), "architecture": "2C3-MP2-SM3"} | {field: value}
        with pytest.raises(ValueError, match=f"`{field}` must be"):
            BLRNet(**given, generator=generator(0, "net"))
