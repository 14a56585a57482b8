"""Several hidden layers: trees and chains against sums over patterns and drawn networks."""

from __future__ import annotations

import itertools
import math
import operator

import pytest
import torch

from pbnn.networks import ABNet, PBGNet
from pbnn.seeding import generator

DRAWS = 100_000
DEEP = [(3,), (3, 2), (2, 3), (2, 3, 2), (2, 3, 3)]
FACTORS = {(): [1], (3,): [1, 1], (3, 2): [2, 1, 1], (2, 3): [3, 1, 1], (2, 3, 2): [6, 2, 1, 1]}
# Weights for which (2, 3, 3) units make a large difference between trees and shared weights.
APART = {"scale": 4.0, "seed": 2}
KINDS = [PBGNet, ABNet]


def normal(*shape, of, seed=0):
    return torch.randn(*shape, generator=generator(seed, of), dtype=torch.float64)


def moved(kind, hidden, *, bias=False, aggregate="auto", scale=1.0, seed=0):
    """A network of four inputs whose weights have means of about `scale`, far from the prior."""
    net = kind(
        4,
        hidden,
        bias=bias,
        aggregate=aggregate,
        generator=generator(seed, "prior"),
        dtype=torch.float64,
    ).requires_grad_(False)
    for place, layer in enumerate(net.layers()):
        mean = layer.weight.mean
        mean.copy_(scale * normal(*mean.shape, of=f"layer {place}", seed=seed))
    return net


def mean_sign(weight, inputs, bias):
    """E sgn of one Gaussian unit for known inputs, as lists of numbers."""
    inputs = [*inputs, 1.0] if bias else [*inputs]
    z = sum(map(operator.mul, weight, inputs)) / math.hypot(*inputs)
    return 1 - math.erfc(z / math.sqrt(2))


def chance(signs, means):
    return math.prod((1 + s * m) / 2 for s, m in zip(signs, means, strict=True))


def tree(net, row):
    """Every unit reads independent signs: a sum over patterns for each of them."""
    first, *rest = [layer.weight.mean.tolist() for layer in net.layers()]
    means = [mean_sign(w, row, net.bias) for w in first]
    for weights in rest:
        patterns = [*itertools.product((-1.0, 1.0), repeat=len(means))]
        means = [
            sum(chance(s, means) * mean_sign(w, s, net.bias) for s in patterns) for w in weights
        ]
    return means[0]


def chain(net, row):
    """P_k, the law of the representation after layer k, one table after the other."""
    law = {tuple(row): 1.0}
    for layer in net.layers():
        weights = layer.weight.mean.tolist()
        after = dict.fromkeys(itertools.product((-1.0, 1.0), repeat=len(weights)), 0.0)
        for signs, p in law.items():
            means = [mean_sign(w, signs, net.bias) for w in weights]
            for pattern in after:
                after[pattern] += p * chance(pattern, means)
        law = after
    return law[(1.0,)] - law[(-1.0,)]


def fresh_unit(net, row, level, unit, source, drawn):
    """Signs of one unit of DRAWS trees, with weights of its own in all that is below it."""
    layer = net.layers()[level]
    drawn[level] += 1
    weight = layer.weight.mean[unit]
    noise = torch.randn(DRAWS, len(weight), generator=source, dtype=torch.float64)
    inputs = row.expand(DRAWS, -1)
    if level:
        below = range(net.widths[level - 1])
        inputs = [fresh_unit(net, row, level - 1, i, source, drawn) for i in below]
        inputs = torch.stack(inputs, dim=1)
    if net.bias:
        inputs = torch.nn.functional.pad(inputs, (0, 1), value=1.0)
    return torch.where((inputs * (weight + noise)).sum(1) >= 0, 1.0, -1.0).double()


def drawn_trees(net, row, drawn):
    return fresh_unit(net, row, len(net.widths), 0, generator(0, "trees"), drawn)


def drawn_chains(net, row):
    """Outputs of DRAWS networks, each with one matrix a layer."""
    signs, source = row.expand(DRAWS, -1), generator(0, "chains")
    for layer in net.layers():
        if net.bias:
            signs = torch.nn.functional.pad(signs, (0, 1), value=1.0)
        mean = layer.weight.mean
        weights = mean + torch.randn(DRAWS, *mean.shape, generator=source, dtype=torch.float64)
        signs = torch.where((weights @ signs[..., None]).squeeze(-1) >= 0, 1.0, -1.0).double()
    return signs[:, 0]


def assert_mean(draws, expected):
    """The sample mean over dimension 0 lies within 5 standard errors."""
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - expected).abs() <= 5 * error).all()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", DEEP)
@pytest.mark.parametrize(("kind", "oracle"), [(PBGNet, tree), (ABNet, chain)])
def test_the_aggregate_is_the_sum_over_all_patterns(kind, oracle, hidden, bias):
    net, x = moved(kind, hidden, bias=bias, **APART), normal(6, 4, of="x")
    expected = torch.tensor([oracle(net, row) for row in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(net(x), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [(3,), (3, 2), (2, 3, 3)])
def test_the_aggregate_of_shared_weights_is_the_mean_of_drawn_networks(hidden, bias):
    net, x = moved(ABNet, hidden, bias=bias, **APART), normal(3, 4, of="x")
    for row, expected in zip(x, net(x), strict=True):
        assert_mean(drawn_chains(net, row), expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [(3,), (3, 2), (2, 3, 3)])
def test_the_aggregate_of_a_tree_is_the_mean_of_drawn_trees(hidden, bias):
    net, x = moved(PBGNet, hidden, bias=bias, **APART), normal(3, 4, of="x")
    for row, expected in zip(x, net(x), strict=True):
        drawn = [0] * (len(hidden) + 1)
        assert_mean(drawn_trees(net, row, drawn), expected)
        # What a tree draws is what its KL counts.
        sizes = [layer.out_features for layer in net.layers()]
        assert [c * d for c, d in zip(net.copies(), sizes, strict=True)] == drawn


@pytest.mark.parametrize(("hidden", "same"), [((), True), ((3,), True), ((2, 3, 3), False)])
def test_trees_and_shared_weights_differ_from_two_hidden_layers_on(hidden, same):
    nets, x = [moved(kind, hidden, **APART) for kind in KINDS], normal(3, 4, of="x")
    gap = (nets[0](x) - nets[1](x)).abs().max()
    # Many times the five standard errors that drawn networks are given.
    assert gap < 1e-14 if same else gap > 10 * 5 / math.sqrt(DRAWS)
    assert (nets[0].kl() == nets[1].kl()).item() is same
    assert [net.posterior for net in nets] == ["network" if same else "tree", "network"]
    samples = [net.sample(x.repeat(20, 1), generator(0, "s")) for net in nets]
    assert torch.equal(*samples) is same


def test_trees_and_shared_weights_agree_where_two_units_come_last():
    # An odd function of two signs is linear, so that their dependence plays no role.
    nets, x = [moved(kind, (3, 2), **APART) for kind in KINDS], normal(20, 4, of="x")
    torch.testing.assert_close(nets[0](x), nets[1](x), atol=1e-14, rtol=0)
    biased = [moved(kind, (3, 2), bias=True, scale=2.0, seed=3) for kind in KINDS]
    assert (biased[0](x) - biased[1](x)).abs().max() > 0.01


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", list(FACTORS))
def test_the_kl_of_a_tree_counts_the_copies_of_each_layer(hidden, bias):
    net = moved(PBGNet, hidden, bias=bias)
    assert net.copies() == FACTORS[hidden]
    expected = 0.0
    widths = [*hidden, 1]
    for place, layer in enumerate(net.layers()):
        above = math.prod(widths[place + 1 :])  # d† of the layer after
        distance = layer.weight.mean - layer.weight.prior_mean
        expected += above * torch.linalg.matrix_norm(distance).square().item() / 2
    assert net.kl().item() == pytest.approx(expected, rel=1e-13)
    assert moved(ABNet, hidden).copies() == [1] * (len(hidden) + 1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [(3, 2), (2, 3, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_exact_aggregate_as_mean(kind, hidden, bias):
    net, x = moved(kind, hidden, bias=bias, **APART), normal(3, 4, of="x")
    repeated, source = x.repeat(DRAWS, 1), generator(0, "sample")
    outputs = net.sample(repeated, source).reshape(DRAWS, 3)
    assert set(outputs.unique().tolist()) == {-1, 1}
    assert_mean(outputs, net(x))
    means = net.sample_mean(net.hidden_moments(repeated).mean, source).reshape(DRAWS, 3)
    assert_mean(means, net(x))
    assert (means.var(0) < outputs.var(0)).all()  # averaging the last layer helps


@pytest.mark.parametrize(("kind", "hidden"), [(PBGNet, (40, 30)), (ABNet, (5, 40))])
def test_wide_samples_have_the_exact_aggregate_as_mean(kind, hidden):
    net, x = moved(kind, hidden, aggregate="exact"), normal(5, 4, of="x")
    means = net.hidden_moments(x.repeat(3_000, 1)).mean
    draws = net.sample_mean(means, generator(0, "wide")).reshape(-1, 5)
    assert_mean(draws, net(x))


@pytest.mark.parametrize(
    ("kind", "hidden"), [(PBGNet, (13, 2)), (PBGNet, (3, 14)), (ABNet, (4, 14)), (ABNet, (13,))]
)
@pytest.mark.parametrize("bias", [False, True])
def test_quadrature_and_enumeration_agree(kind, hidden, bias, monkeypatch):
    net, x = moved(kind, hidden, bias=bias, aggregate="exact"), normal(3, 4, of="x")
    by_quadrature = net(x)
    monkeypatch.setattr("pbnn.layers.sign_linear.ENUMERATED_UP_TO", 14)
    assert not torch.equal(net(x), by_quadrature)
    torch.testing.assert_close(net(x), by_quadrature, atol=1e-13, rtol=0)


def test_shared_weights_need_all_hidden_layers_but_the_last_narrow():
    for hidden, summable in (((12, 50), True), ((14, 14), False), ((13, 2), False), ((), True)):
        net = ABNet(4, hidden, generator=generator(0, "p"))
        assert net.summable is summable
        assert PBGNet(4, hidden, generator=generator(0, "p")).summable
        if not summable:
            with pytest.raises(ValueError, match=r"`hidden` \(1., .*\) is too wide to sum over"):
                net.exact_aggregate(torch.ones(1, 4))
            with pytest.raises(ValueError, match=r"`hidden` must have at most 12 .*ABNet, got"):
                ABNet(4, hidden, aggregate="exact", generator=generator(0, "p"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_the_mean_field_runs_through_all_layers_by_its_formula(kind, bias):
    net, x = moved(kind, (5, 4, 3), bias=bias, aggregate="mean_field"), normal(6, 4, of="x")
    first, *rest = [layer.weight.mean for layer in net.layers()]
    inputs = torch.nn.functional.pad(x, (0, int(bias)), value=1.0)
    m = torch.erf(inputs @ first.T / inputs.norm(dim=1, keepdim=True) / math.sqrt(2))
    for w in rest:
        m = torch.nn.functional.pad(m, (0, int(bias)), value=1.0)
        variance = m.shape[1] + (1 - m.square()) @ w.square().T
        m = torch.erf(m @ w.T / (2 * variance).sqrt())
    torch.testing.assert_close(net(x), m[:, 0])


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_mean_field_is_close_to_the_exact_tree_at_sixty_four_units(depth):
    x = normal(50, 4, of="x")
    nets = [moved(PBGNet, (64,) * depth, seed=seed) for seed in range(4)]
    assert not any(net.exact for net in nets)
    gaps = torch.stack([net(x) - net.exact_aggregate(x) for net in nets])
    assert 0 < gaps.square().mean().sqrt() < 2e-3
    # The aggregate itself is many times larger, if smaller with every layer.
    assert torch.stack([net(x) for net in nets]).std() > 0.04


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [(3, 2), (2, 3, 2), (2, 13)])
def test_the_gradients_of_all_layers_are_those_of_finite_differences(kind, hidden):
    net, x = moved(kind, hidden, bias=True, aggregate="exact"), normal(3, 4, of="x")
    names = [name for name, _ in net.named_parameters()]
    inputs = [net.get_parameter(name).clone().requires_grad_() for name in names]

    def forward(*weights):
        return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, inputs, fast_mode=False)
