"""Dense and convolutional layers of random weights: mode, draws and moments against torch's own."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from pbnn.functional import Moments, Signs, hard_sign
from pbnn.layers import Convolution, Dense, StochasticLayer
from pbnn.posteriors import BernoulliPosterior, GaussianPosterior
from pbnn.seeding import generator

POSTERIORS = {"bernoulli": BernoulliPosterior, "gaussian": GaussianPosterior}
GEOMETRIES = [(1, 0, 0, 1), (2, 0, 0, 1), (1, 1, 0, 2), (2, 1, 1, 1), (3, 2, -1, 2)]
law_of_weights = pytest.mark.parametrize("law", POSTERIORS)
DRAWS = 100_000


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def layer_of(law, product, *shape):
    means = 2 * torch.rand(2, *shape, generator=generator(0, "means"), dtype=torch.float64) - 1
    return StochasticLayer(POSTERIORS[law](*means), product)


def torchs(x, weight, stride, padding, value, groups):
    padded = F.pad(x, (padding,) * 4, value=float(value))
    return F.conv2d(padded, weight, stride=stride, groups=groups)


@law_of_weights
@pytest.mark.parametrize(("stride", "padding", "value", "groups"), GEOMETRIES)
def test_a_convolution_of_mode_or_draw_is_that_of_torch(law, stride, padding, value, groups):
    product = Convolution(stride, padding, value, groups)
    layer, x = layer_of(law, product, 4, 4 // groups, 3, 3), normal(5, 4, 7, 6, of="x")
    options = (stride, padding, value, groups)
    mode = layer.weight.mode()
    torch.testing.assert_close(layer.mode(x), torchs(x, mode, *options))
    weight = layer.weight.sample(generator(0, "draw"))
    expected = torchs(x, weight, *options)
    torch.testing.assert_close(layer.sample(x, generator(0, "draw")), expected)
    torch.testing.assert_close(layer.sample(x, generator(0, "draw"), "batch"), expected)
    if value == 0:
        by_torch = F.conv2d(x, mode, stride=stride, padding=padding, groups=groups)
        torch.testing.assert_close(layer.mode(x), by_torch)
    assert layer.analytic(x).mean.shape == expected.shape
    assert layer.sample(x, generator(0, "draw"), "datum").shape == expected.shape


@law_of_weights
def test_a_dense_layer_reads_images_as_rows(law):
    layer, x = layer_of(law, Dense(), 3, 8), normal(5, 2, 2, 2, of="x")
    weight = layer.weight.sample(generator(0, "draw"))
    torch.testing.assert_close(layer.mode(x), x.flatten(1) @ layer.weight.mode().T)
    torch.testing.assert_close(layer.sample(x, generator(0, "draw")), x.flatten(1) @ weight.T)
    assert layer.sample(x, generator(0, "draw"), "datum").shape == (5, 3)
    mean, signs, var = torch.tanh(x), hard_sign(x), normal(5, 2, 2, 2, of="var").square()
    shared = var[:, :1]
    for images, rows in (
        (x, x.flatten(1)),
        (Signs(mean), Signs(mean.flatten(1))),
        (Signs(signs, True), Signs(signs.flatten(1), True)),
        (Moments(x, var), Moments(x.flatten(1), var.flatten(1))),
        (Moments(x, shared), Moments(x.flatten(1), shared.expand(-1, 2, -1, -1).flatten(1))),
    ):
        torch.testing.assert_close(layer.analytic(images), layer.analytic(rows))


@pytest.mark.parametrize(
    ("product", "shape"),
    [(Dense(), (2, 9)), (Convolution(), (2, 1, 3, 3)), (Convolution(2, 1, -1, 2), (2, 1, 2, 2))],
)
def test_a_draw_for_the_batch_is_shared_and_one_for_each_datum_is_not(product, shape):
    groups = getattr(product, "groups", 1)
    layer = StochasticLayer(BernoulliPosterior(torch.zeros(shape).double()), product)
    # Powers of two: sums are exact in any order.
    x = (2.0 ** torch.arange(9 * groups)).double().view(1, groups, 3, 3).expand(20, -1, -1, -1)
    shared = layer.sample(x, generator(0, "draw"))
    assert torch.equal(shared, shared[:1].expand_as(shared))
    each = layer.sample(x, generator(0, "draw"), "datum").flatten(1)
    assert len(each.unique(dim=0)) > 10
    again = layer.sample(x, generator(0, "draw"), "datum").flatten(1)
    assert torch.equal(each, again)
    assert not torch.equal(each, layer.sample(x, generator(1, "draw"), "datum").flatten(1))


@pytest.mark.parametrize(("product", "shape"), [(Dense(), (2, 4)), (Convolution(), (2, 1, 2, 2))])
def test_the_weights_of_a_datum_are_drawn_from_the_posterior(product, shape):
    """An image of powers of two: the pre-activation tells all signs of the weights."""
    layer = layer_of("bernoulli", product, *shape)
    powers = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    x = powers.view(1, 1, 2, 2).expand(20_000, -1, -1, -1)
    found = layer.sample(x, generator(0, "draw"), "datum").detach().view(20_000, 2)
    for unit, mean in enumerate(layer.weight.mean.detach().view(2, 4)):
        for pattern in itertools.product((-1.0, 1.0), repeat=4):
            signs = torch.tensor(pattern, dtype=torch.float64)
            p = ((1 + signs * mean) / 2).prod().item()
            frequency = (found[:, unit] == signs @ powers).double().mean().item()
            assert abs(frequency - p) <= 5 * math.sqrt(p * (1 - p) / len(found))
    # Units are independent, and so are data.
    pairs = [
        (found[:, 0], found[:, 1]),
        (found[:-1, 0], found[1:, 0]),
        (found[:-1, 1], found[1:, 0]),
    ]
    for pair in pairs:
        assert torch.corrcoef(torch.stack(pair))[0, 1].abs() <= 5 / math.sqrt(len(found))


@law_of_weights
def test_a_datum_meets_its_own_weights_only(law):
    """Different inputs: each row is what its weights make of it, as in a batch of one."""
    layer = layer_of(law, Convolution(2, 1, -1, 2), 4, 1, 3, 3)
    x, draws = normal(6, 2, 5, 5, of="x"), layer.weight.sample(generator(0, "draw"), 6)
    expected = torch.cat([layer.product(x[i : i + 1], draws[i]) for i in range(6)])
    found = layer.sample(x, generator(0, "draw"), "datum")
    torch.testing.assert_close(found, expected)


@law_of_weights
def test_analytic_moments_are_those_of_draws_for_each_datum(law, assert_moments):
    layer = layer_of(law, Convolution(2, 1, -1, 2), 4, 1, 2, 2)
    x = normal(1, 2, 3, 3, of="x")
    draws = torch.no_grad()(layer.sample)(x.expand(DRAWS, -1, -1, -1), generator(0, "d"), "datum")
    expected = layer.analytic(x)
    full = Moments(expected.mean[0].detach(), expected.var.expand_as(expected.mean)[0].detach())
    assert_moments(draws, full)


@law_of_weights
def test_kl_is_that_of_the_weights_and_both_are_parameters(law):
    layer = layer_of(law, Dense(), 3, 8)
    assert layer.kl() == layer.weight.kl() > 0
    (name,) = (name for name, _ in layer.named_parameters())
    assert name == {"bernoulli": "weight.half_logit", "gaussian": "weight.mean"}[law]


def test_gradients_of_the_analytic_pass_reach_the_weights_and_the_inputs():
    layer = layer_of("bernoulli", Convolution(padding=1), 2, 1, 3, 3)
    x = normal(2, 1, 3, 3, of="x").requires_grad_()

    def moments(rho, x):
        return torch.func.functional_call(Analytic(layer), {"layer.weight.half_logit": rho}, (x,))

    assert torch.autograd.gradcheck(moments, (layer.weight.half_logit, x))


class Analytic(torch.nn.Module):
    """The analytic pass as the forward pass."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer.analytic(x)


def test_a_way_to_draw_that_is_none_is_refused():
    layer = layer_of("bernoulli", Dense(), 3, 8)
    with pytest.raises(ValueError, match=r"`fresh` must be 'batch' or 'datum', got 'row'"):
        layer.sample(torch.zeros(2, 8).double(), generator(0, "draw"), "row")
