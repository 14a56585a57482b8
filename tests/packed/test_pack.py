"""Networks of torch and what is packed of them: the same signs, scores and labels."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from pbnn.backbones import conv_chain, lenet, mlp, resnet20, vgg_small
from pbnn.baselines import Classifier, RealNet
from pbnn.binarize import RECIPES, Recipe, binary_layers, convert
from pbnn.functional import hard_sign
from pbnn.networks import ABNet, BLRNet, PBGNet, binarise
from pbnn.packed import PackedNetwork, pack
from pbnn.packed.geometry import Geometry
from pbnn.packed.layers import BitLayer, Scores, fused
from pbnn.packed.switches import switches
from pbnn.seeding import generator

pytest.importorskip("numba")
BACKENDS = ("numba", "int8", "float32")
IMAGE = (1, 12, 12)
ARCHITECTURE = "6C3-MP2-33C5-MP2-40FC-SM7"
FULLY_BINARY = {name: dataclasses.replace(r, first=True, last=True) for name, r in RECIPES.items()}
CHAINS = {
    "mlp": lambda draw: mlp(IMAGE, (40, 50), generator=draw),
    "lenet": lambda draw: lenet(IMAGE, (8, 16), 32, kernel=3, generator=draw),
    "vgg_small": lambda draw: vgg_small(IMAGE, 8, generator=draw),
    "conv_chain": lambda draw: conv_chain(IMAGE, (8, 9, 10), stride=2, generator=draw),
}


def images(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *IMAGE)).astype(np.uint8)


def unsettled(network: nn.Module) -> nn.Module:
    """With statistics, γ and β at random, some γ negative: signs rise here and fall there."""
    draw = generator(0, "unsettled")
    for part in network.modules():
        if getattr(part, "running_mean", None) is not None:
            part.running_mean.normal_(0, 3, generator=draw)
            part.running_var.uniform_(0.5, 200, generator=draw)
            for name in ("gamma", "weight", "beta", "bias"):
                if (parameter := getattr(part, name, None)) is not None:
                    parameter.data.normal_(generator=draw)
    return network.eval()


@torch.no_grad()
def settled(network: nn.Module) -> nn.Module:
    """With the statistics of images, without which signs would hardly depend on any."""
    network = unsettled(network)
    for part in network.modules():
        if getattr(part, "running_mean", None) is not None:
            part.momentum = 1.0
    x = torch.from_numpy(images()).float() / 255
    network.train()(x)
    return network.eval()


@torch.no_grad()
def check(network, packed: PackedNetwork, x: np.ndarray, levels: int) -> None:
    """Scores bit for bit in float32, labels in float64, the same from every back end."""
    outs = [packed.scores(x, backend=backend) for backend in BACKENDS]
    assert all(np.array_equal(out, outs[0]) for out in outs)
    assert len(np.unique(outs[0].reshape(len(x), -1), axis=0)) > len(x) / 3  # no constant
    forward = network if isinstance(network, nn.Sequential) else getattr(network, "mode", network)
    true = forward(torch.from_numpy(x).float() / levels).numpy()
    true = true.transpose(0, 2, 3, 1) if true.ndim == 4 else true
    assert np.array_equal(outs[0], true)
    forward = network.double()
    forward = forward if isinstance(network, nn.Sequential) else getattr(forward, "mode", forward)
    precise = forward(torch.from_numpy(x).double() / levels).numpy()
    precise = precise.transpose(0, 2, 3, 1) if precise.ndim == 4 else precise
    assert np.array_equal(packed.predict(x), precise.argmax(-1))
    network.float()


@pytest.mark.parametrize("how", ["mode", "ternary", "sample", "folded"])
@pytest.mark.parametrize("padding_value", [-1, 0, 1])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_stochastic_networks_stay_what_they_are(how, padding_value, batch_norm):
    options = {"padding_value": padding_value, "batch_norm": batch_norm}
    network = BLRNet(IMAGE, ARCHITECTURE, generator=generator(0, "start"), **options)
    if batch_norm:
        network = settled(network)
    if how != "mode":
        kind = "mode" if how == "folded" else how
        network = binarise(network, kind, generator(0, "draw")).eval()
        network.re_estimate(torch.from_numpy(images()).float() / 255)
    if how == "folded":
        network = network.fold()
    # Without normalisation sums of pixels tie at 0, which multiples of 1/256 do exactly in torch.
    levels = 255 if batch_norm or padding_value == 1 else 256
    reads = "real" if padding_value < 0 else "uint8"
    if not batch_norm and padding_value == 1:
        pytest.skip("torch rounds sums of 255ths, so that signs of sums of 0 are chance")
    packed = pack(network, input=reads, scale=1 / levels)
    if reads == "uint8":
        check(network, packed, images(), levels)
    else:
        check_real(network, packed, levels)


@torch.no_grad()
def check_real(network, packed: PackedNetwork, levels: int) -> None:
    """Of inputs that are no bytes: the same numbers to both."""
    x = (images() / np.float32(levels)).astype(np.float32)
    outs = [packed.scores(x, backend=backend) for backend in BACKENDS]
    assert all(np.array_equal(out, outs[0]) for out in outs)
    forward = getattr(network, "mode", network)
    assert np.array_equal(outs[0], forward(torch.from_numpy(x)).numpy())


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize(
    "recipe", ["binary_net", "xnor_net", "bi_real_net", "ir_net", "unbalanced", "react_net"]
)
def test_converted_chains_stay_what_they_are(chain, recipe):
    model = CHAINS[chain](generator(0, chain))
    example = torch.rand(2, *IMAGE, generator=generator(0, "example"))
    network = convert(model, FULLY_BINARY[recipe], example=example).network
    draw = generator(0, "thresholds")
    for name, parameter in network.named_parameters():
        if "shift" in name or ".before" in name or ".after" in name:
            parameter.data.normal_(0, 0.5, generator=draw)
    network = settled(network)
    packed = pack(network, image=IMAGE)
    check(network, packed, images(), 255)
    assert {name: tuple(bits.shape[:2]) for name, bits in packed.export_bits().items()} == {
        name: packed_shape(layer, packed, name) for name, layer in binary_layers(network).items()
    }


def packed_shape(layer, packed: PackedNetwork, name: str) -> tuple[int, int]:
    found = next(each for each in packed.members[0] if each.name == name)
    return len(layer.weight), found.geometry.image[0]


def test_exported_bits_are_the_signs_of_the_weights():
    network = convert(CHAINS["lenet"](generator(0, "m")), FULLY_BINARY["xnor_net"]).network.eval()
    exported = pack(network, image=IMAGE).export_bits()
    for name, layer in binary_layers(network).items():
        assert np.array_equal(exported[name].reshape(layer.weight.shape), layer.signs().numpy())
        assert set(np.unique(exported[name])) == {-1, 1}


def test_learned_and_pruned_weights_are_packed_too():
    draw = generator(0, "m")
    model = CHAINS["lenet"](draw)
    network = settled(convert(model, FULLY_BINARY["noisy_supervision"]).network)
    check(network, pack(network, image=IMAGE), images(), 255)
    layers = binary_layers(convert(model, FULLY_BINARY["xnor_net"]).network)
    network = convert(model, FULLY_BINARY["xnor_net"]).network
    for layer in binary_layers(network).values():
        layer.mask = (torch.rand(layer.weight.shape, generator=draw) < 0.3).float()
    settled(network)
    packed = pack(network, image=IMAGE)
    check(network, packed, images(), 255)
    shares = [(bits == 0).mean() for bits in packed.export_bits().values()]
    assert len(layers) == len(shares)
    assert all(0.5 < share < 0.9 for share in shares)


def test_grouped_filters_are_packed_with_zeros():
    draw = generator(0, "m")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=True),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 12, 3, 2, padding=2, dilation=2, groups=4),
            nn.MaxPool2d(2, 1),
            nn.BatchNorm2d(12),
            nn.Flatten(),
            nn.Linear(300, 5),
        )
    network = settled(convert(model, FULLY_BINARY["xnor_net"], generator=draw).network)
    packed = pack(network, image=IMAGE)
    check(network, packed, images(), 255)
    assert (packed.export_bits()["2"] == 0).mean() == 0.75


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [PBGNet, ABNet])
def test_the_most_probable_networks_of_gaussian_weights_are_packed(kind, bias):
    network = kind(144, (5, 4), bias=bias, shift=0.3, generator=generator(0, "prior"))
    packed = pack(network)
    x = (images().reshape(-1, 144) / np.float32(255)).astype(np.float32)
    true = network.double().mode(torch.from_numpy(x).double()).numpy()
    assert packed.classes == 2
    assert 0.05 < (true > 0).mean() < 0.95
    for backend in BACKENDS:
        assert np.array_equal(packed.predict(x, backend=backend), true)


def test_an_ensemble_votes_by_its_mean_probability():
    network = settled(BLRNet(IMAGE, ARCHITECTURE, generator=generator(0, "start")))
    draws = generator(0, "members")
    members = [binarise(network, "sample", draws) for _ in range(5)]
    packed = pack(members)
    x = torch.from_numpy(images()).float() / 255
    mean = torch.stack([one(x).double().softmax(1) for one in members]).mean(0)
    found = packed.probabilities(images())
    assert np.abs(found - mean.numpy()).max() < 2**-31
    assert np.array_equal(packed.predict(images()), mean.argmax(1).numpy())
    single = [packed.scores(images(), member=k) for k in range(5)]
    assert all(np.array_equal(s, m(x).numpy()) for s, m in zip(single, members, strict=True))


def test_inputs_may_be_bytes_or_their_numbers_and_nothing_else():
    packed = pack(BLRNet(IMAGE, ARCHITECTURE, generator=generator(0, "start")))
    x = images()
    assert np.array_equal(packed.scores(x), packed.scores((x / 255).astype(np.float32)))
    for bad, told in (
        ((x / 300).astype(np.float32), "bytes"),
        (-(x / 255), "bytes"),
        (np.full(x.shape, np.nan), "finite"),
        (x[:, :, 1:], "shape"),
        (x.astype(str), "numbers"),
    ):
        with pytest.raises(ValueError, match=told):
            packed.scores(bad)
    with pytest.raises(ValueError, match="threads"):
        packed.scores(x, threads=0)


def test_signs_of_inputs_may_be_what_a_network_reads():
    from pbnn.binarize import BinaryLinear

    model = mlp(IMAGE, (20,), generator=generator(0, "m"))
    network = settled(convert(model, FULLY_BINARY["xnor_net"]).network)
    second = next(m for m in network if isinstance(m, BinaryLinear) and m.activation is not None)
    network[1].activation = second.activation
    packed = pack(network)
    x = np.random.default_rng(0).standard_normal((30, *IMAGE)).astype(np.float32)
    assert packed.preprocessing.input == "signs"
    assert np.array_equal(packed.scores(x), network(torch.from_numpy(x)).detach().numpy())


def falling_react() -> nn.Module:
    network = convert(CHAINS["mlp"](generator(0, "m")), FULLY_BINARY["react_net"]).network
    next(p for n, p in network.named_parameters() if n.endswith("slope")).data.fill_(-0.1)
    return network


class Own(nn.Module):
    def forward(self, x):
        return x.flatten(1)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: convert(CHAINS["mlp"](generator(0, "m")), "xnor_net").network, "signs before"),
        (
            lambda: convert(CHAINS["mlp"](generator(0, "m")), FULLY_BINARY["abc_net"]).network,
            "base",
        ),
        (
            lambda: convert(CHAINS["mlp"](generator(0, "m")), FULLY_BINARY["sd_bnn"]).network,
            "SelfDistribution",
        ),
        (falling_react, "negative slope"),
        (lambda: CHAINS["mlp"](generator(0, "m")), "binary layers"),
        (lambda: RealNet(IMAGE, "4C3-MP2-SM3", generator=generator(0, "m")), "binary layers"),
        (
            lambda: convert(resnet20((3, 8, 8), generator=generator(0, "m")), "ir_net").network,
            "Residual",
        ),
        (lambda: nn.Sequential(Own(), CHAINS["mlp"](generator(0, "m"))), "Own"),
        (
            lambda: BLRNet(IMAGE, "4C3-AP2-SM3", generator=generator(0, "m")),
            "averages",
        ),
        (list, "none"),
    ],
)
def test_what_is_no_chain_of_signs_is_refused_by_name(make, told):
    with pytest.raises(ValueError, match=told):
        pack(make(), image=IMAGE)


def test_the_border_of_bytes_must_be_one():
    network = BLRNet(IMAGE, ARCHITECTURE, padding_value=1, generator=generator(0, "start"))
    with pytest.raises(ValueError, match="surrounded"):
        pack(network, scale=1 / 256)
    network = BLRNet(IMAGE, ARCHITECTURE, padding_value=-1, generator=generator(0, "start"))
    with pytest.raises(ValueError, match="surrounded"):
        pack(network)


def test_places_of_a_channel_that_go_different_ways_are_refused():
    """One bit says which way a channel goes; here it is normalised place by place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.Flatten(), nn.BatchNorm1d(400), nn.Linear(400, 3)
        )
    network = settled(convert(model, FULLY_BINARY["xnor_net"]).network)
    with pytest.raises(ValueError, match="fall at others"):
        pack(network, image=IMAGE)
    network[2].weight.data.abs_()
    settled_again = network.eval()
    check(settled_again, pack(settled_again, image=IMAGE), images(), 255)


def test_sums_of_bytes_that_int32_does_not_hold_are_refused():
    inputs = 2**31 // 255 + 1
    weight = np.broadcast_to(np.int8(1), (1, inputs, 1, 1))
    with pytest.raises(ValueError, match="fewer bytes"):
        BitLayer.of(
            Geometry((inputs, 1, 1), 1), weight, Scores((), np.dtype("float32")), input="uint8"
        )


def test_members_must_read_the_same():
    first = BLRNet(IMAGE, ARCHITECTURE, generator=generator(0, "start"))
    other = BLRNet((1, 14, 14), ARCHITECTURE, generator=generator(0, "start"))
    with pytest.raises(ValueError, match="same inputs"):
        pack([first, other])


@torch.no_grad()
def test_a_sum_of_signs_times_scales_that_is_0_has_the_sign_of_0():
    """Scales come after the sum: before, in float32, a sum that should be 0 was not."""
    draw = generator(0, "scales")
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(6, 64, bias=False), nn.Linear(64, 1, bias=False))
    for layer in model:
        layer.weight.normal_(generator=draw)
    network = convert(model, FULLY_BINARY["xnor_net"]).network.eval()
    x = hard_sign(torch.randn(500, 6, generator=draw))
    a = network[0](x)
    whole = (x.double() @ network[0].signs().double().T) == 0
    assert bool(whole.any())
    assert bool((a[whole] == 0).all())


@pytest.mark.parametrize("falls_before", [False, True])
@pytest.mark.parametrize("falls_after", [False, True])
def test_switches_are_those_of_every_integer(falls_before, falls_after):
    """Against brute force: h of every integer, and of the maximum of two of them."""
    draw = np.random.default_rng(5)
    slope = (-1.0 if falls_before else 1.0) * draw.random(6) + 0.01 * (1 - 2 * falls_before)
    offset = draw.normal(0, 4, 6)
    after = (-1.0 if falls_after else 1.0) * draw.random(6)
    level = draw.normal(0, 1, 6)
    after[5], level[5] = 0.0, -1.0  # never changes

    def f(values):
        return (
            values * torch.from_numpy(slope)[:, None, None]
            + torch.from_numpy(offset)[:, None, None]
        )

    def g(values):
        return (
            values * torch.from_numpy(after)[:, None, None] + torch.from_numpy(level)[:, None, None]
        )

    found = switches(f, g, (6, 1, 1), (-21, 21), "layer")
    every = torch.arange(-20, 21).double()
    pairs = torch.cartesian_prod(every, every)
    values = f(pairs.T.reshape(2, -1, 1, 1, 1).expand(2, -1, 6, 1, 1))
    true = (g(values.amax(0)) >= 0)[:, :, 0, 0].numpy()
    bits = pairs.numpy().astype(np.int64)[:, :, None] >= found.level[0]
    mine = np.where(found.every, bits.all(1), bits.any(1)) ^ found.flip
    assert np.array_equal(mine, true)
    ends = g(f(torch.tensor([-20.0, 20.0]).double()[:, None, None, None].expand(2, 6, 1, 1))) >= 0
    changes = (ends[0] != ends[1]).flatten().numpy()
    assert changes.sum() >= 3, changes
    assert (found.flip[changes] == (falls_before != falls_after)).all()
    assert (found.every == falls_before).all()


def test_floats_switch_at_the_first_float_of_the_other_sign():
    def f(values):
        return values * 3 - 1

    found = switches(f, lambda values: values, (1, 1, 1), torch.float32, "layer")
    level = found.level[0, 0]
    below = np.nextafter(level, np.float32(-1))
    assert f(torch.tensor(level)) >= 0 > f(torch.tensor(below))


def test_a_channel_that_is_no_number_is_refused():
    network = CHAINS["mlp"](generator(0, "m"))
    network[2].running_var[3] = torch.nan
    converted = convert(network, FULLY_BINARY["xnor_net"]).network
    with pytest.raises(ValueError, match="finite"):
        pack(converted, image=IMAGE)


def test_a_wrapped_chain_is_the_chain():
    network = convert(CHAINS["mlp"](generator(0, "m")), FULLY_BINARY["xnor_net"]).network
    mine = pack(Classifier(network), image=IMAGE).fingerprint()
    assert mine == pack(network, image=IMAGE).fingerprint()


def test_the_network_is_left_as_it_was():
    network = convert(CHAINS["lenet"](generator(0, "m")), FULLY_BINARY["xnor_net"]).network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pack(network, image=IMAGE)
    assert all(part.training for part in network.modules())
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_weights_are_thirty_times_smaller():
    network = convert(
        mlp((1, 28, 28), (256, 256), generator=generator(0, "m")), Recipe(first=True, last=True)
    ).network
    packed = pack(network)
    real = sum(4 * layer.weight.numel() for layer in binary_layers(network).values())
    assert real / packed.sizes()["weights"] >= 30
    assert all(isinstance(layer, BitLayer) for layer in packed.members[0])


def test_a_product_and_a_sum_are_rounded_once():
    """Against rational numbers: where two roundings differ from one, at the edges and beyond."""
    draw = np.random.default_rng(0)
    x = draw.integers(-(2**20), 2**20, 3000).astype(np.float32)
    factor = draw.standard_normal(3000).astype(np.float32)
    near = -x * factor * np.float32(1 + 2**-20)  # what almost cancels
    summand = np.where(draw.random(3000) < 0.5, near, draw.standard_normal(3000)).astype(np.float32)
    found = fused(x, np.stack([factor, summand]))
    for a, b, c, got in zip(x, factor, summand, found, strict=True):
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
        others = np.nextafter(got, np.float32(-np.inf)), np.nextafter(got, np.float32(np.inf))
        distance = abs(Fraction(float(got)) - exact)
        assert all(distance <= abs(Fraction(float(other)) - exact) for other in others)
    twice = x * factor + summand
    assert (twice != found).any()
    assert fused(np.float32([np.inf, -np.inf]), np.float32([[1, 1], [0, 0]])).tolist() == [
        np.inf,
        -np.inf,
    ]
