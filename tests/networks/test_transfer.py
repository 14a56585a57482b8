"""From a real-valued network to the start of a stochastic one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pbnn.networks import BLRNet, transfer
from pbnn.seeding import generator


def fill(module):
    """Weights of every size, without the global generator."""
    with torch.no_grad():
        for place, part in enumerate(module.parameters()):
            part.copy_(2 * torch.randn(part.shape, generator=generator(0, place)) + 0.3)
    return module.double()


def real_valued(norms=True):
    convolution, dense = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(16, 3)
    layers = [convolution, nn.MaxPool2d(2), nn.Tanh(), nn.Flatten(), dense]
    if norms:
        layers = [layers[0], nn.BatchNorm2d(4), *layers[1:], nn.BatchNorm1d(3)]
    return fill(nn.Sequential(*layers))


def network_of(**options):
    made = generator(0, "net")
    return BLRNet((1, 4, 4), "4C3-MP2-SM3", generator=made, dtype=torch.float64, **options)


@pytest.fixture(scope="module", params=[True, False])
def model(request):
    with torch.random.fork_rng(devices=[]):  # modules draw their start from the global generator
        return real_valued(request.param)


def parts(model, network):
    weighted = [m for m in model if isinstance(m, nn.Conv2d | nn.Linear)]
    norms = [m for m in model if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)] or [None] * 2
    return zip(network.layers(), weighted, norms, strict=True)


@pytest.mark.parametrize("limit", [0.9, 0.5])
def test_means_of_signs_are_clipped_weights_of_unit_deviation(model, limit):
    network = network_of()
    transfer(model, network, *(() if limit == 0.9 else (limit,)))
    for block, layer, norm in parts(model, network):
        weight = layer.weight.detach()
        deviation = (weight - weight.mean()).square().sum().div(weight.numel() - 1).sqrt()
        mean = block.layer.weight.mean.detach()
        torch.testing.assert_close(mean, (weight / deviation).clamp(-limit, limit))
        assert mean.abs().max().item() == pytest.approx(limit)
        assert not block.layer.weight.prior_mean.any()
        gamma, beta = (1.0, 0.0) if norm is None else (norm.weight, norm.bias)
        assert (block.tail.norm.gamma == gamma).all()
        assert (block.tail.norm.beta == beta).all()
    assert network.kl().isfinite()


def test_gaussian_means_are_not_clipped(model):
    network = network_of(law="gaussian", batch_norm=False)
    transfer(model, network)
    for block, layer, _ in parts(model, network):
        expected = layer.weight.detach() / layer.weight.std()
        torch.testing.assert_close(block.layer.weight.mean.detach(), expected)
        assert block.layer.weight.mean.abs().max() > 1


def test_other_layers_are_refused():
    with torch.random.fork_rng(devices=[]):
        other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 5))
    with pytest.raises(ValueError, match=r"`model` must have weights of .*16\)\], got .*5, 16\)\]"):
        transfer(other, network_of())


@pytest.mark.parametrize("limit", [0.0, 1.0, -0.5, math.nan])
def test_a_limit_that_is_none_is_refused(model, limit):
    with pytest.raises(ValueError, match=r"`limit` must lie in \(0, 1\), got"):
        transfer(model, network_of(), limit)
