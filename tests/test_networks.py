"""Networks as objects: sizes, seeds, state, configuration, KL, mode and fingerprint."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pbnn.baselines import MLP
from pbnn.networks import ABNet, PBGNet, fingerprint
from pbnn.seeding import generator


def normal(*shape, of, seed=0):
    return torch.randn(*shape, generator=generator(seed, of), dtype=torch.float64)


def moved(hidden=(3,), *, kind=PBGNet, bias=False, shift=0.0, seed=0):
    """A network of four inputs whose weights have means of about one, far from the prior."""
    net = kind(
        4,
        hidden,
        bias=bias,
        shift=shift,
        generator=generator(seed, "prior"),
        dtype=torch.float64,
    )
    with torch.no_grad():
        for place, layer in enumerate(net.layers()):
            mean = layer.weight.mean
            mean.copy_(normal(*mean.shape, of=f"layer {place}", seed=seed))
    return net


def test_the_mode_is_the_sign_network_of_the_means():
    net = PBGNet(2, (2,), bias=True, shift=torch.tensor([1.0, 0.0]), generator=generator(0, "p"))
    with torch.no_grad():
        net.hidden[0].weight.mean.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -2.0]]))
        net.output.weight.mean.copy_(torch.tensor([[1.0, 1.0, -1.0]]))
    # By hand: both hidden units must be on, x₁ ≥ 1 and x₂ ≥ 2, for the output to be +1.
    x = torch.tensor([[1.0, 2.0], [0.9, 2.0], [1.0, 1.9], [0.0, 0.0], [5.0, 5.0]])
    assert net.mode(x).tolist() == [1, -1, -1, -1, 1]


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
def test_the_mode_of_several_layers_is_the_sign_network_of_the_means(kind):
    net, x = moved((5, 3, 2), kind=kind, bias=True, shift=0.5), normal(50, 4, of="x")
    expected = x - 0.5
    for layer in net.layers():
        w = layer.weight.mean
        expected = torch.where(expected @ w[:, :-1].T + w[:, -1] >= 0, 1.0, -1.0).double()
    assert torch.equal(net.mode(x), expected[:, 0])
    assert net.mode(x).unique().tolist() == [-1, 1]


@pytest.mark.parametrize("network", [PBGNet, ABNet, MLP])
@pytest.mark.parametrize(
    ("in_features", "hidden", "name"),
    [
        (0, (3,), "in_features"),
        (-1, (3,), "in_features"),
        (2.5, (3,), "in_features"),
        (3, (0,), "hidden"),
        (3, (-2,), "hidden"),
        (3, (2.5,), "hidden"),
        (3, (4, 0), "hidden"),
        (3, (4, 4, 2.5), "hidden"),
    ],
)
def test_sizes_that_are_no_network_are_refused(network, in_features, hidden, name):
    with pytest.raises(ValueError, match=f"`{name}` must (be|hold) .*, got"):
        network(in_features, hidden, generator=generator(0, "prior"))


@pytest.mark.parametrize("network", [PBGNet, ABNet, MLP])
def test_a_shift_of_another_size_is_refused(network):
    with pytest.raises(ValueError, match="`shift` must have 1 or 3 elements, got 5"):
        network(3, (2,), shift=torch.zeros(5), generator=generator(0, "prior"))


def test_an_unknown_aggregate_is_refused():
    with pytest.raises(ValueError, match=r"`aggregate` must be one of .*, got 'tree'"):
        PBGNet(3, (2,), aggregate="tree", generator=generator(0, "prior"))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [(), (3,), (3, 2), (2, 3, 2)])
def test_the_kl_of_shared_weights_is_the_sum_over_all_layers_of_torch(hidden, bias):
    net = moved(hidden, kind=ABNet, bias=bias)
    expected = sum(
        kl_divergence(Normal(layer.weight.mean, 1.0), Normal(layer.weight.prior_mean, 1.0)).sum()
        for layer in net.layers()
    )
    assert expected > 0
    torch.testing.assert_close(net.kl(), expected)
    net.adopt_as_prior()
    assert net.kl() == 0


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
def test_a_restart_moves_all_layers_and_keeps_the_prior(kind):
    net = moved((3, 2), kind=kind)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.restart(generator(0, "restart"))
    changed = {
        name for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"hidden.0.weight.mean", "hidden.1.weight.mean", "output.weight.mean"}
    assert net.kl() > 0


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
@pytest.mark.parametrize("bias", [False, True])
def test_a_centred_prior_lets_the_posterior_start_apart(kind, bias):
    options = {"bias": bias, "dtype": torch.float64}
    plain = kind(4, (3, 2), generator=generator(0, "p"), **options)
    assert plain.kl() == 0
    net = kind(4, (3, 2), prior_scale=0.0, generator=generator(0, "p"), **options)
    distances = []
    for layer, other in zip(net.layers(), plain.layers(), strict=True):
        assert not layer.weight.prior_mean.any()
        assert torch.equal(layer.weight.mean, other.weight.mean)
        assert len({tuple(row) for row in layer.weight.mean.tolist()}) == layer.out_features
        distances.append(layer.weight.mean.square().sum().item() / 2)
    copies = [2, 1, 1] if kind is PBGNet else [1, 1, 1]
    expected = sum(c * d for c, d in zip(copies, distances, strict=True))
    assert net.kl().item() == pytest.approx(expected)
    net.restart(generator(1, "restart"))
    assert not any(layer.weight.prior_mean.any() for layer in net.layers())
    assert net.kl().item() != pytest.approx(expected)
    half = kind(4, (3, 2), prior_scale=0.5, generator=generator(0, "p"), **options)
    assert half.kl().item() == pytest.approx(expected / 4)


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
@pytest.mark.parametrize("hidden", [(), (3,), (3, 2)])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_the_bias_of_the_prior_is_that_of_the_output_in_prior_and_start(kind, hidden, scale):
    options = {"bias": True, "prior_scale": scale, "dtype": torch.float64}
    plain = kind(4, hidden, generator=generator(0, "p"), **options)
    net = kind(4, hidden, prior_bias=-3.0, generator=generator(0, "p"), **options)
    before, after = plain.state_dict(), net.state_dict()
    for name in ("output.weight.mean", "output.weight.prior_mean"):
        assert before[name][:, -1].tolist() == [0]
        # Not scaled as the other means are.
        assert after[name][:, -1].tolist() == [-3]
        after[name][:, -1] = 0
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert net.kl().item() == pytest.approx(plain.kl().item())
    assert net.config == plain.config


def test_a_restart_keeps_how_the_labels_lean():
    net = PBGNet(4, (), bias=True, prior_bias=-3.0, generator=generator(0, "p"))
    net.restart(generator(1, "start"))
    assert net.output.weight.mean[:, -1].tolist() == [-3]
    assert net.kl() > 0


def test_the_bias_of_the_prior_is_how_the_labels_lean():
    net = PBGNet(4, (), bias=True, prior_scale=0.0, prior_bias=-3.0, generator=generator(0, "p"))
    net.load_state_dict(net.state_dict() | {"output.weight.mean": net.output.weight.prior_mean})
    x = torch.zeros(1, 4)
    assert net(x).item() == pytest.approx(math.erf(-3 / math.sqrt(2)))
    assert net.mode(x).tolist() == [-1]
    assert net.kl() == 0


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
def test_the_bias_of_the_prior_is_refused_without_a_bias(kind):
    with pytest.raises(ValueError, match=r"`prior_bias` must be 0 without a bias, got -3\.0"):
        kind(4, (3,), prior_bias=-3.0, generator=torch.Generator())


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
def test_the_state_holds_posterior_prior_and_shift(kind):
    net = moved((3, 2), kind=kind, shift=0.5)
    state = net.state_dict()
    layers = ("hidden.0", "hidden.1", "output")
    names = {f"{layer}.weight.{part}" for layer in layers for part in ("mean", "prior_mean")}
    assert set(state) == names | {"shift"}
    twin, x = moved((3, 2), kind=kind, seed=1), normal(5, 4, of="x")
    twin.load_state_dict(state)
    assert torch.equal(twin(x), net(x))
    assert twin.kl() == net.kl()
    assert fingerprint(twin) == fingerprint(net)


@pytest.mark.parametrize("network", [PBGNet, ABNet, MLP])
def test_the_seed_alone_decides_the_network(network):
    first, again, other = (network(4, (3,), generator=generator(seed, "p")) for seed in (0, 0, 1))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert any(not torch.equal(v, other.state_dict()[k]) for k, v in first.state_dict().items())


@pytest.mark.parametrize(
    "net",
    [
        PBGNet(4, (3,), bias=True, aggregate="mean_field", generator=generator(0, "p")),
        PBGNet(4, (13, 2), generator=generator(0, "p")),
        ABNet(4, (3, 13), bias=True, aggregate="exact", generator=generator(0, "p")),
        MLP(4, (3,), generator=generator(0, "p")),
    ],
)
def test_the_configuration_rebuilds_the_network(net):
    config = json.loads(json.dumps(net.config))
    assert config == net.config
    twin = type(net)(**config, generator=generator(1, "p"))
    assert twin.config == net.config
    twin.load_state_dict(net.state_dict())
    x = torch.ones(2, 4)
    assert torch.equal(twin(x), net(x))


@pytest.mark.parametrize("network", [PBGNet, ABNet, MLP])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_has_the_dtype_and_device_asked_for(network, dtype):
    options = {"generator": generator(0, "p"), "dtype": dtype, "shift": 0.5}
    net = network(4, (3,), device="cpu", **options)
    assert {value.dtype for value in net.state_dict().values()} == {dtype}
    assert net(torch.ones(2, 4, dtype=dtype)).dtype == dtype
    meta = network(4, (3,), device="meta", **options)
    assert {value.device.type for value in meta.state_dict().values()} == {"meta"}


def test_the_baseline_is_the_tanh_network_of_torch():
    net = MLP(4, (3,), shift=0.25, generator=generator(0, "p"), dtype=torch.float64)
    with torch.no_grad():
        net.hidden_bias.copy_(normal(3, of="b"))
        net.output_bias.fill_(0.3)
    x = normal(6, 4, of="x")
    plain = torch.nn.Sequential(
        torch.nn.utils.skip_init(torch.nn.Linear, 4, 3, dtype=torch.float64),
        torch.nn.Tanh(),
        torch.nn.utils.skip_init(torch.nn.Linear, 3, 1, dtype=torch.float64),
        torch.nn.Tanh(),
    )
    plain.load_state_dict(
        {
            "0.weight": net.hidden,
            "0.bias": net.hidden_bias,
            "2.weight": net.output,
            "2.bias": net.output_bias,
        }
    )
    torch.testing.assert_close(net(x), plain(x - 0.25).squeeze(-1))
    assert torch.equal(net.mode(x), torch.where(net(x) >= 0, 1.0, -1.0).double())


@pytest.mark.parametrize("hidden", [(), (4, 4)])
def test_the_baseline_has_one_hidden_layer(hidden):
    with pytest.raises(ValueError, match=r"`hidden` must be the width of one .*, got \("):
        MLP(3, hidden, generator=torch.Generator())


@pytest.mark.parametrize("network", [PBGNet, ABNet, MLP])
def test_a_width_is_not_a_sequence_of_widths(network):
    with pytest.raises(TypeError, match="`hidden` must be a sequence"):
        network(3, 4, generator=torch.Generator())


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
def test_the_fingerprint_changes_with_every_number_of_the_network(kind):
    net = moved((3, 2), kind=kind, bias=True)
    seen = {fingerprint(net)}
    numbers = 0
    for name, value in net.state_dict().items():
        for place in range(value.numel()):
            other = copy.deepcopy(net)
            flat = other.state_dict()[name].flatten()
            flat[place] = torch.nextafter(flat[place], torch.tensor(torch.inf).double())
            other.state_dict()[name].copy_(flat.view_as(value))
            seen.add(fingerprint(other))
            numbers += 1
    assert numbers == 2 * (15 + 8 + 3) + 4
    assert len(seen) == 1 + numbers


def test_the_fingerprint_changes_with_kind_and_sizes():
    nets = [
        moved((2, 2)),
        moved((2, 2), kind=ABNet),
        moved((2, 2), bias=True),
        moved((2,)),
        moved((2,), kind=ABNet),
        moved(()),
    ]
    assert len({fingerprint(net) for net in nets}) == len(nets)


def test_the_fingerprint_does_not_change_with_precision_place_and_training_surrogate():
    net = PBGNet(4, (3, 2), shift=0.1, generator=generator(0, "p"))
    assert net.output.weight.mean.dtype == torch.float32
    before = fingerprint(net)
    assert fingerprint(copy.deepcopy(net).double()) == before
    assert fingerprint(net) == before
    net.aggregate = "mean_field"
    assert fingerprint(net) == before
    net.requires_grad_(False).eval()
    assert fingerprint(net) == before


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
def test_a_flag_or_a_scale_that_is_none_is_refused(kind):
    make = {"generator": generator(0, "net")}
    for bias in (0, 1, 2, None, "x"):
        with pytest.raises(ValueError, match="`bias` must be True or False"):
            kind(3, (2, 2), bias=bias, **make)
    for scale in (math.nan, math.inf, -1.0, "1", True):
        with pytest.raises(ValueError, match="`prior_scale` must be a number"):
            kind(3, (2, 2), prior_scale=scale, **make)
    for hidden in ((True, 2), (2.0, 2), (math.nan, 2), (math.inf, 2)):
        with pytest.raises(ValueError, match="`hidden` must hold"):
            kind(3, hidden, **make)
    with pytest.raises(TypeError, match="`hidden` must be a sequence"):
        kind(3, "22", **make)
