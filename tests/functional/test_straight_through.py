"""Straight-through signs: the values are hard, the gradients those of something smooth."""

from __future__ import annotations

import torch

from pbnn.functional import Moments, hard_sign, sign, straight_through, straight_through_sign
from pbnn.networks import BLRNet, binarise
from pbnn.seeding import generator


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def test_a_sign_has_the_slope_of_the_mean_sign_of_a_unit_of_variance_1():
    x = torch.cat([normal(50, of="x"), torch.tensor([0.0, -0.0, 30.0, -1e-300]).double()])
    x.requires_grad_()
    assert torch.equal(straight_through_sign(x), hard_sign(x))
    weight = normal(54, of="weight")
    (found,) = torch.autograd.grad(straight_through_sign(x) @ weight, x)
    (expected,) = torch.autograd.grad(sign(Moments(x, torch.ones_like(x))).mean @ weight, x)
    torch.testing.assert_close(found, expected)


def test_a_value_passes_bit_for_bit_and_the_slope_goes_to_the_other():
    value, smooth = normal(9, of="value").requires_grad_(), normal(9, of="smooth").requires_grad_()
    out = straight_through(value, smooth.tanh())
    assert torch.equal(out, value)
    (out * torch.arange(9.0)).sum().backward()
    assert value.grad is None
    torch.testing.assert_close(smooth.grad, torch.arange(9.0) / smooth.detach().cosh().square())


def test_the_scores_are_those_of_the_most_probable_network():
    made, images = {"generator": generator(0, "net")}, normal(7, 1, 8, 8, of="images").float()
    network = BLRNet((1, 8, 8), "4C3-MP2-6FC-SM3", activation="mode", **made)
    scores = network(images)
    assert (scores.var == 0).all()
    # With the statistics of the same batch, unbiased as those of training.
    assert torch.equal(scores.mean, binarise(network).re_estimate(images)(images))
    scores.mean.square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad.abs().max() > 0
    with torch.no_grad():
        assert torch.equal(network.eval()(images).mean, binarise(network)(images))


def test_a_network_that_is_trained_straight_through_learns():
    x = torch.where(torch.rand(64, 1, 4, 4, generator=generator(0, "x")) < 0.5, -1.0, 1.0)
    y = (x[:, 0, 0, 0] > 0).long()
    network = BLRNet((1, 4, 4), "16FC-SM2", activation="mode", generator=generator(0, "net"))
    optimiser = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(network(x).mean, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = binarise(network).re_estimate(x)(x)
    assert (found.argmax(1) == y).float().mean() > 0.9
    assert not found.requires_grad


def test_drawn_networks_are_trained_on_their_draws():
    made, images = {"generator": generator(0, "net")}, normal(7, 1, 8, 8, of="images").float()
    options = {"activation": "sample", "source": generator(0, "draws")}
    network = BLRNet((1, 8, 8), "4C3-MP2-6FC-SM3", **options, **made)
    one, other = network(images), network(images)
    assert (one.var == 0).all()
    assert not torch.equal(one.mean, other.mean)
    drawn = binarise(network, "sample", generator(0, "draws")).re_estimate(images)
    assert torch.equal(one.mean, drawn(images))
    one.mean.square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad.abs().max() > 0
    assert (network.eval()(images).var > 0).all()
