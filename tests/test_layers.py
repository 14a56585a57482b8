"""The dense sign layer: its three passes against the formulas, draws, and explicit biases."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pbnn.functional import Moments, hard_sign
from pbnn.layers import SignLinear, xavier_normal
from pbnn.seeding import generator


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def moved_layer(in_features=4, out_features=3, *, bias=False):
    layer = SignLinear(
        in_features, out_features, bias=bias, generator=generator(0, "prior"), dtype=torch.float64
    )
    with torch.no_grad():
        layer.weight.mean.add_(normal(*layer.weight.mean.shape, of="move"))
    return layer


def with_one(x):
    return torch.nn.functional.pad(x, (0, 1), value=1.0)


def test_the_activation_is_the_formula_of_the_paper():
    layer, x = moved_layer(), normal(5, 4, of="x")
    w = layer.weight.mean
    for point in range(5):
        for unit in range(3):
            z = (w[unit] @ x[point]).item() / (math.sqrt(2) * x[point].norm().item())
            moments = layer.activation(x)
            assert moments.mean[point, unit].item() == pytest.approx(math.erf(z), abs=1e-14)
            assert moments.var[point, unit].item() == pytest.approx(1 - math.erf(z) ** 2)


@pytest.mark.parametrize("bias", [False, True])
def test_the_analytic_step_is_the_mean_field_formula(bias):
    layer = moved_layer(bias=bias)
    m = torch.tanh(normal(5, 4, of="m"))
    analytic = layer.analytic(Moments(m, 1 - m.square()))
    if bias:
        m = with_one(m)  # a known input: its 1 − m² is 0
    d = m.shape[1]
    w = layer.weight.mean[:, None, :]
    variance = (w.square() * (1 - m.square())).sum(-1)
    expected = torch.erf((w * m).sum(-1) / (2 * (d + variance)).sqrt()).T
    torch.testing.assert_close(analytic.mean, expected)
    torch.testing.assert_close(analytic.var, 1 - expected.square())


def test_a_bias_is_the_weight_of_an_appended_one():
    biased, plain = moved_layer(bias=True), moved_layer(5)
    plain.weight.load_state_dict(biased.weight.state_dict())
    x = normal(6, 4, of="x")
    assert torch.equal(biased.activation(x).mean, plain.activation(with_one(x)).mean)
    assert torch.equal(biased.mode(x), plain.mode(with_one(x)))
    assert torch.equal(
        biased.sample(x, generator(0, "s")), plain.sample(with_one(x), generator(0, "s"))
    )
    assert biased.kl() == plain.kl()


def test_a_bias_counts_in_numerator_normaliser_and_kl():
    layer = SignLinear(2, 1, bias=True, generator=generator(0, "prior"), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.prior_mean.zero_()
        layer.weight.mean.copy_(torch.tensor([[0.0, 0.0, 3.0]]))
    x = torch.tensor([[2.0, 2.0]], dtype=torch.float64)
    expected = math.erf(3 / math.sqrt(2 * (4 + 4 + 1)))
    assert layer.activation(x).mean.item() == pytest.approx(expected)
    assert layer.kl().item() == pytest.approx(9 / 2)


@pytest.mark.parametrize("bias", [False, True])
def test_kl_is_the_sum_over_weights_of_torch(bias):
    layer = moved_layer(bias=bias)
    q, p = Normal(layer.weight.mean, 1.0), Normal(layer.weight.prior_mean, 1.0)
    torch.testing.assert_close(layer.kl(), kl_divergence(q, p).sum())


@pytest.mark.parametrize("bias", [False, True])
def test_sampled_signs_are_those_of_drawn_weights(bias):
    layer, x, draws = moved_layer(bias=bias), normal(1, 4, of="x"), 200_000
    signs = layer.sample(x.expand(draws, -1), generator(0, "signs"))
    inputs = with_one(x) if bias else x
    noise = normal(draws, *layer.weight.mean.shape, of="weights")
    drawn = hard_sign((layer.weight.mean + noise) @ inputs[0])
    mean = layer.activation(x).mean[0]
    error = ((1 - mean.square()) / draws).sqrt()
    assert ((drawn.mean(0) - mean).abs() <= 5 * error).all()
    assert ((signs.mean(0) - mean).abs() <= 5 * error).all()
    # Different units are independent, in either way of drawing.
    for sample in (drawn, signs):
        products = (sample.T @ sample / draws - mean[:, None] * mean).fill_diagonal_(0)
        assert (products.abs() <= 5 / math.sqrt(draws)).all()


def test_the_mode_is_the_sign_of_the_mean_weights():
    layer = moved_layer()
    x = torch.cat([normal(5, 4, of="x"), torch.zeros(1, 4, dtype=torch.float64)])
    expected = torch.where(x @ layer.weight.mean.T >= 0, 1.0, -1.0)
    assert torch.equal(layer.mode(x), expected.double())
    assert torch.equal(layer.mode(x)[-1], torch.ones(3, dtype=torch.float64))


def test_the_prior_is_xavier_normal_with_zero_bias():
    scale = math.sqrt(2 / (300 + 500))
    draw = xavier_normal(300, 500, generator(0, "prior"), dtype=torch.float64)
    assert draw.shape == (300, 500)
    assert abs(draw.mean().item()) <= 5 * scale / math.sqrt(draw.numel())
    error = 5 * scale**2 * math.sqrt(2 / draw.numel())
    assert draw.square().mean().item() == pytest.approx(scale**2, abs=error)
    layer = SignLinear(3, 2, bias=True, generator=generator(0, "prior"))
    assert layer.weight.prior_mean[:, -1].tolist() == [0, 0]
    assert (layer.weight.prior_mean[:, :-1] != 0).all()
    assert layer.kl() == 0


def test_a_restart_moves_the_posterior_and_keeps_the_prior():
    layer = SignLinear(4, 3, bias=True, generator=generator(0, "prior"))
    prior = layer.weight.prior_mean.clone()
    parameter = layer.weight.mean
    with torch.no_grad():
        parameter.add_(1)  # as after a training
    layer.restart(generator(0, "restart"))
    assert layer.weight.mean is parameter
    assert torch.equal(layer.weight.prior_mean, prior)
    assert not torch.equal(layer.weight.mean, prior)
    assert layer.weight.mean[:, -1].tolist() == [0, 0, 0]
    other = SignLinear(4, 3, bias=True, generator=generator(0, "restart"))
    assert torch.equal(layer.weight.mean, other.weight.prior_mean)


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_a_scaled_prior_keeps_the_start_of_the_posterior(scale):
    plain = SignLinear(4, 3, bias=True, generator=generator(0, "prior"))
    scaled = SignLinear(4, 3, bias=True, scale=scale, generator=generator(0, "prior"))
    assert torch.equal(scaled.weight.mean, plain.weight.mean)
    assert torch.equal(scaled.weight.prior_mean, scale * plain.weight.prior_mean)
    distance = (1 - scale) ** 2 * plain.weight.prior_mean.square().sum() / 2
    assert scaled.kl().item() == pytest.approx(distance.item(), rel=1e-6)
    assert scaled.kl() > 0


@pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match=r"`scale` must be .*, got"):
        SignLinear(4, 3, scale=scale, generator=generator(0, "prior"))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("units", [1, 3])
def test_expected_signs_are_the_sum_over_all_patterns(bias, units):
    layer, means = moved_layer(5, units, bias=bias), torch.tanh(normal(6, 5, of="m"))
    expected = torch.zeros(6, units, dtype=torch.float64)
    for pattern in itertools.product((-1.0, 1.0), repeat=5):
        s = torch.tensor(pattern, dtype=torch.float64)
        last = with_one(s) if bias else s
        right = Normal(0.0, 1.0).cdf(layer.weight.mean.detach() @ last / last.norm())
        expected += ((1 + s * means) / 2).prod(1, keepdim=True) * (2 * right - 1)
    torch.testing.assert_close(layer.expected_signs(means).detach(), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("width", [11, 12, 13])
def test_enumeration_and_quadrature_agree_where_they_meet(width, bias, monkeypatch):
    layer, means = moved_layer(width, 2, bias=bias), torch.tanh(normal(6, width, of="m"))
    found = []
    for limit in (width, width - 1):
        monkeypatch.setattr("pbnn.layers.sign_linear.ENUMERATED_UP_TO", limit)
        found.append(layer.expected_signs(means).detach())
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, atol=1e-13, rtol=0)


def test_sums_are_enumerated_up_to_eight_signs(monkeypatch):
    monkeypatch.setattr("pbnn.layers.sign_linear.expected_sign", lambda mean, weight: "quadrature")
    for width, by_quadrature in ((7, False), (8, False), (9, True)):
        found = moved_layer(width, 1, bias=True).expected_signs(torch.zeros(1, width).double())
        assert (found == "quadrature") is by_quadrature


@pytest.mark.parametrize("bias", [False, True])
def test_signs_that_are_known_leave_the_mean_over_drawn_weights(bias):
    layer, draws = moved_layer(bias=bias), 200_000
    signs = hard_sign(normal(5, 4, of="signs"))
    expected = layer.given_signs(signs)
    torch.testing.assert_close(expected, layer.activation(signs).mean)
    inputs = with_one(signs) if bias else signs
    noise = normal(draws, *layer.weight.mean.shape, of="weights")
    drawn = hard_sign((layer.weight.mean + noise) @ inputs.T).mT
    error = ((1 - expected.square()) / draws).sqrt()
    assert ((drawn.mean(0) - expected).abs() <= 5 * error).all()


@pytest.mark.parametrize("bias", [False, True])
def test_units_with_signs_of_their_own_are_units_one_by_one(bias):
    layer = moved_layer(bias=bias)
    signs = hard_sign(normal(5, 2, 3, 4, of="signs"))
    found = layer.given_own_signs(signs)
    expected = [layer.given_signs(signs[:, :, unit])[:, :, unit] for unit in range(3)]
    assert found.shape == (5, 2, 3)
    torch.testing.assert_close(found, torch.stack(expected, dim=-1))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_and_buffers_have_the_dtype_and_device_asked_for(dtype, bias):
    options = {"bias": bias, "generator": generator(0, "prior"), "dtype": dtype}
    layer = SignLinear(3, 2, device="cpu", **options)
    assert {tensor.dtype for tensor in layer.state_dict().values()} == {dtype}
    meta = SignLinear(3, 2, device="meta", **options)
    assert {tensor.device.type for tensor in meta.state_dict().values()} == {"meta"}
