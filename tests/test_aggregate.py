"""The aggregate of one hidden layer: enumeration, characteristic functions and drawn networks.

``pytest -s tests/test_aggregate.py -k width`` prints the measured error of the mean-field step.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from pbnn.layers import ENUMERATED_UP_TO
from pbnn.networks import PBGNet
from pbnn.seeding import generator

DRAWS = 100_000


def normal(*shape, of, seed=0):
    return torch.randn(*shape, generator=generator(seed, of), dtype=torch.float64)


def moved(in_features, width, *, bias=False, aggregate="auto", shift=0.0, seed=0):
    """A network whose weights have means of about one, far from the prior."""
    net = PBGNet(
        in_features,
        (width,),
        bias=bias,
        aggregate=aggregate,
        shift=shift,
        generator=generator(seed, "prior"),
        dtype=torch.float64,
    )
    with torch.no_grad():
        for layer, name in ((net.hidden[0], "hidden.0"), (net.output, "output")):
            layer.weight.mean.copy_(normal(*layer.weight.mean.shape, of=name, seed=seed))
    return net


def with_one(x, bias):
    return torch.nn.functional.pad(x, (0, 1), value=1.0) if bias else x


def enumerated(net, x):
    """Sum over all patterns of the hidden layer, with probabilities of the normal law."""
    bias = net.bias
    x = with_one(x, bias)
    w1, w2 = net.hidden[0].weight.mean.detach(), net.output.weight.mean.detach()[0]
    up = Normal(0.0, 1.0).cdf(x @ w1.T / x.norm(dim=1, keepdim=True))
    total = torch.zeros(len(x), dtype=torch.float64)
    for pattern in itertools.product((-1.0, 1.0), repeat=net.widths[0]):
        s = torch.tensor(pattern, dtype=torch.float64)
        probability = torch.where(s > 0, up, 1 - up).prod(dim=1)
        last = with_one(s, bias)
        right = Normal(0.0, 1.0).cdf(w2 @ last / last.norm())
        total += probability * (2 * right - 1)
    return total


def inverted(net, x):
    r"""The aggregate by inverting a characteristic function, exact at any width (no bias).

    Given the hidden signs the output is the sign of w·s + √d ξ with ξ standard normal, and
    E sgn(X) = (2/π) ∫₀^∞ Im φ(t)/t dt with φ(t) = exp(−d t²/2) Π (cos w_i t + i m_i sin w_i t).
    """
    m = net.hidden_moments(x).mean.detach()
    w = net.output.weight.mean.detach()[0]
    step = 9 / math.sqrt(net.widths[0]) / 400
    t = (torch.arange(400, dtype=torch.float64) + 0.5) * step
    phase = w * t[:, None]
    factors = torch.complex(torch.cos(phase).expand(len(x), -1, -1), m[:, None] * torch.sin(phase))
    damping = torch.exp(-net.widths[0] * t.square() / 2)
    return 2 / math.pi * step * (factors.prod(-1).imag * damping / t).sum(-1)


def drawn_outputs(net, x, draws, seed=0):
    """Outputs of networks whose weights are drawn, one network for each row; x is one point."""
    w1 = net.hidden[0].weight.mean.detach() + normal(
        draws, *net.hidden[0].weight.mean.shape, of="draw hidden", seed=seed
    )
    w2 = net.output.weight.mean.detach()[0] + normal(
        draws, net.output.weight.mean.shape[1], of="draw output", seed=seed
    )
    hidden = torch.where(w1 @ with_one(x, net.bias) >= 0, 1.0, -1.0).double()
    return torch.where((with_one(hidden, net.bias) * w2).sum(1) >= 0, 1.0, -1.0).double()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("width", [1, 2, 3, 6])
def test_the_exact_aggregate_is_the_sum_over_all_patterns(width, bias):
    net, x = moved(4, width, bias=bias), normal(7, 4, of="x")
    torch.testing.assert_close(net(x).detach(), enumerated(net, x), atol=1e-13, rtol=0)


@pytest.mark.parametrize("width", [1, 4, ENUMERATED_UP_TO, ENUMERATED_UP_TO + 1, 100])
def test_the_exact_aggregate_is_the_inverse_of_its_characteristic_function(width):
    net, x = moved(4, width, aggregate="exact"), normal(7, 4, of="x")
    torch.testing.assert_close(net(x).detach(), inverted(net, x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
def test_the_exact_aggregate_is_the_mean_of_drawn_networks(bias):
    net = moved(5, 4, bias=bias)
    for point in range(3):
        x = normal(1, 5, of="x", seed=point)
        expected = net(x).item()
        outputs = drawn_outputs(net, x[0], DRAWS, seed=point)
        error = math.sqrt((1 - expected**2) / DRAWS)
        assert outputs.mean().item() == pytest.approx(expected, abs=5 * error)


@pytest.mark.parametrize("bias", [False, True])
def test_samples_have_the_exact_aggregate_as_mean(bias):
    net = moved(5, 4, bias=bias)
    x = normal(3, 5, of="x")
    repeated, source = x.repeat(DRAWS, 1), generator(0, "sample")
    expected = net(x).detach()
    outputs = net.sample(repeated, source)
    assert set(outputs.unique().tolist()) == {-1, 1}
    error = ((1 - expected.square()) / DRAWS).sqrt()
    assert ((outputs.reshape(DRAWS, 3).mean(0) - expected).abs() <= 5 * error).all()
    means = net.sample_mean(net.hidden_moments(repeated).mean, source).detach().reshape(DRAWS, 3)
    assert ((means.mean(0) - expected).abs() <= 5 * means.std(0) / math.sqrt(DRAWS)).all()
    assert (means.var(0) < 1 - expected.square()).all()  # averaging the last layer helps


def test_a_wide_sampled_network_has_the_exact_aggregate_as_mean():
    net, x = moved(5, 64, aggregate="exact"), normal(20, 5, of="x")
    means = net.hidden_moments(x).mean.detach()
    source = generator(0, "wide")
    total = torch.stack([net.sample_mean(means, source).detach() for _ in range(4_000)])
    error = total.std(0) / math.sqrt(len(total))
    assert ((total.mean(0) - net(x).detach()).abs() <= 5 * error).all()


def test_the_mean_field_error_shrinks_with_the_width():
    widths, x = (1, 2, 4, 8, 12, 32, 128), normal(100, 5, of="x")
    errors = []
    for width in widths:
        networks = max(8, 256 // width)  # narrow ones differ more from each other
        nets = [moved(5, width, aggregate="mean_field", seed=seed) for seed in range(networks)]
        gaps = torch.stack([(net(x) - inverted(net, x)).detach() for net in nets])
        errors.append(gaps.square().mean().sqrt().item())
    print("\nhidden units   root mean squared error of the mean-field aggregate")
    for width, error in zip(widths, errors, strict=True):
        print(f"{width:12d}   {error:.5f}")
    assert all(wide < narrow for narrow, wide in itertools.pairwise(errors))
    # The central limit theorem's error for symmetric noise falls like 1/width.
    assert errors[-1] * widths[-1] < 2 * errors[2] * widths[2]


def test_mean_field_is_the_formula_of_the_central_limit_theorem():
    net, x = moved(5, 20), normal(6, 5, of="x")
    m = torch.erf(x @ net.hidden[0].weight.mean.T / (math.sqrt(2) * x.norm(dim=1, keepdim=True)))
    w = net.output.weight.mean[0]
    expected = torch.erf(m @ w / (2 * (20 + (1 - m.square()) @ w.square())).sqrt())
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("aggregate", "width"), [("exact", 4), ("exact", 13), ("mean_field", 4)])
def test_the_gradients_of_both_layers_are_those_of_finite_differences(aggregate, width, bias):
    net = moved(3, width, aggregate=aggregate, bias=bias)
    x = normal(3, 3, of="x")
    names = ("hidden.0.weight.mean", "output.weight.mean")
    inputs = [net.get_parameter(name).detach().requires_grad_() for name in names]

    def forward(*weights):
        return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, inputs)


@pytest.mark.parametrize("aggregate", ["exact", "mean_field"])
def test_a_row_of_zeros_is_defined(aggregate):
    net = moved(3, 4, aggregate=aggregate)
    x = torch.zeros(1, 3, dtype=torch.float64)
    w = net.output.weight.mean
    # sgn(0) = +1 for every hidden unit, whatever the weights.
    expected = math.erf(w.sum().item() / math.sqrt(2 * 4))
    output = net(x)
    assert output.item() == pytest.approx(expected)
    output.sum().backward()
    assert net.hidden[0].weight.mean.grad.tolist() == torch.zeros(4, 3).tolist()
    assert net.output.weight.mean.grad.isfinite().all()
    assert net.sample(x, generator(0, "s")).item() in (-1, 1)


@pytest.mark.parametrize("aggregate", ["exact", "mean_field"])
def test_the_scale_of_the_input_does_not_matter_without_bias_and_shift(aggregate):
    net, x = moved(3, 4, aggregate=aggregate), normal(5, 3, of="x")
    torch.testing.assert_close(net(1e-3 * x), net(x))
    torch.testing.assert_close(net(1e4 * x), net(x))
    biased = moved(3, 4, aggregate=aggregate, bias=True)
    assert not torch.allclose(biased(2 * x), biased(x))


def test_the_shift_is_subtracted_from_every_input():
    shift = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    shifted, plain, x = moved(3, 4, shift=shift), moved(3, 4), normal(5, 3, of="x")
    assert torch.equal(shifted(x), plain(x - shift))
    assert torch.equal(moved(3, 4, shift=0.5)(x), plain(x - 0.5))
    assert torch.equal(shifted.mode(x), plain.mode(x - shift))
    assert torch.equal(
        shifted.sample(x, generator(0, "s")), plain.sample(x - shift, generator(0, "s"))
    )


def test_images_are_flattened():
    net, x = moved(6, 3), normal(5, 1, 2, 3, of="x")
    assert torch.equal(net(x), net(x.reshape(5, 6)))


def test_auto_is_exact_up_to_twelve_units():
    x = normal(3, 4, of="x")
    assert [moved(4, width).exact for width in (11, 12, 13)] == [True, True, False]
    assert torch.equal(moved(4, 12)(x), moved(4, 12, aggregate="exact")(x))
    assert torch.equal(moved(4, 13)(x), moved(4, 13, aggregate="mean_field")(x))
    assert not torch.allclose(moved(4, 12)(x), moved(4, 12, aggregate="mean_field")(x))
    exact = moved(4, 13, aggregate="exact")
    assert torch.equal(exact(x), moved(4, 13).exact_aggregate(x))
    assert not torch.allclose(exact(x), moved(4, 13)(x))


def test_without_a_hidden_layer_it_is_one_gaussian_unit():
    net = PBGNet(3, (), shift=0.5, generator=generator(0, "p"), dtype=torch.float64)
    x = normal(7, 3, of="x")
    w, z = net.output.weight.mean.detach()[0], x - 0.5
    torch.testing.assert_close(net(x), torch.erf(z @ w / z.norm(dim=1) / math.sqrt(2)))
    drawn = w + normal(DRAWS, 3, of="w")
    signs = torch.where(drawn @ z.T >= 0, 1.0, -1.0).double()
    error = signs.std(0) / math.sqrt(DRAWS)
    assert ((signs.mean(0) - net(x)).abs() < 5 * error).all()
    assert torch.equal(net.mode(x), torch.where(z @ w >= 0, 1.0, -1.0).double())
    outputs = net.sample(x.repeat_interleave(DRAWS, 0), generator(0, "s")).reshape(7, DRAWS)
    assert ((outputs.mean(1) - net(x)).abs() < 5 * error).all()
