"""Deterministic binary networks: weights of a posterior, statistics of their own, thresholds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pbnn.functional import hard_sign
from pbnn.layers import StochasticBatchNorm, ThresholdSign
from pbnn.networks import BinaryNetwork, BLRNet, binarise
from pbnn.seeding import generator

IMAGE, ARCHITECTURE = (2, 8, 8), "6C3-MP2-5C3-MP2-7FC-7FC-SM3"
both = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
WAYS = ("mode", "ternary", "sample")


def normal(*shape, of, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(0, of), dtype=dtype)


def network_of(architecture=ARCHITECTURE, dtype=torch.float64, image=IMAGE, **options):
    network = BLRNet(image, architecture, generator=generator(0, "net"), dtype=dtype, **options)
    network(normal(16, *image, of="training", dtype=dtype))  # statistics that are none of ours
    return network.eval()


def norms(network):
    return [
        block.tail.norm
        for block in network.layers()
        if isinstance(block.tail.norm, StochasticBatchNorm)
    ]


def known_weights(network, how):
    """In the order of the layers, all from one stream of draws."""
    posteriors, source = [block.layer.weight for block in network.layers()], generator(0, "draw")
    if how == "sample":
        return [posterior.sample(source) for posterior in posteriors]
    mean = [posterior.mean.detach() for posterior in posteriors]
    signs = [torch.where(m >= 0, 1.0, -1.0).double() for m in mean]
    if how == "mode":
        return signs
    return [s * ((1 + m.abs()) / 2 >= 0.75) for s, m in zip(signs, mean, strict=True)]


def images_of_integers(n, dtype, image=IMAGE):
    """Integer pixels, so that the first layer's pre-activations are integers as well."""
    return torch.randint(-3, 4, (n, *image), generator=generator(0, "pixels")).to(dtype)


# The weights


@pytest.mark.parametrize("how", WAYS)
def test_the_weights_are_the_likeliest_the_likely_or_drawn_ones(how):
    network = network_of()
    binary = binarise(network, how, generator(0, "draw"))
    assert isinstance(binary, BinaryNetwork)
    for block, expected in zip(binary.layers(), known_weights(network, how), strict=True):
        assert torch.equal(block.weight, expected)
        assert block.weight.unique().tolist() == ([-1, 0, 1] if how == "ternary" else [-1, 1])
    names = {name for name, _ in binary.named_buffers()}
    assert {f"blocks.{i}.weight" for i in range(5)} <= names
    assert not any("weight" in name for name, _ in binary.named_parameters())


def test_the_mode_is_the_mode_of_the_network_and_a_draw_its_draw():
    network, x = network_of(), normal(9, *IMAGE, of="x")
    for found in (binarise(network), binarise(network, "mode")):
        torch.testing.assert_close(found(x), network.mode(x))
    drawn = binarise(network, "sample", generator(0, "draw"))
    torch.testing.assert_close(drawn(x), network.sample(x, generator(0, "draw")))
    other = binarise(network, "sample", generator(1, "draw"))
    assert not torch.equal(drawn.layers()[0].weight, other.layers()[0].weight)


def test_gaussian_weights_have_a_mode_and_draws():
    network, x = network_of(law="gaussian"), normal(9, *IMAGE, of="x")
    found = binarise(network)
    torch.testing.assert_close(found(x), network.mode(x))
    for block, layer in zip(found.layers(), network.layers(), strict=True):
        assert torch.equal(block.weight, layer.layer.weight.mean)
        assert block.weight.data_ptr() != layer.layer.weight.mean.data_ptr()
        assert not block.weight.requires_grad
    drawn = binarise(network, "sample", generator(0, "draw"))
    torch.testing.assert_close(drawn(x), network.sample(x, generator(0, "draw")))
    with pytest.raises(ValueError, match="`how` must be 'mode' or 'sample' for Gaussian weights"):
        binarise(network, "ternary")


def test_what_is_no_conversion_is_refused():
    network = network_of()
    with pytest.raises(ValueError, match="`how` must be 'mode', 'ternary' or 'sample', got 'map'"):
        binarise(network, "map")
    with pytest.raises(ValueError, match="`generator` must be given to draw a network, got None"):
        binarise(network, "sample")


def test_the_posterior_is_left_as_it_was():
    network = network_of().train()
    before = {name: part.clone() for name, part in network.state_dict().items()}
    binary = binarise(network)
    assert network.training
    assert not binary.training
    assert not any(module.training for module in binary.modules())
    with torch.no_grad():
        binary.re_estimate(normal(8, *IMAGE, of="x"))
        for part in (*binary.parameters(), *binary.buffers()):
            part.fill_(7)
    assert all(torch.equal(before[name], part) for name, part in network.state_dict().items())


def test_in_training_the_statistics_are_those_of_the_batch():
    binary, x = binarise(network_of()), normal(16, *IMAGE, of="x")
    evaluated = binary(x)
    trained = binary.train()(x)
    assert not torch.allclose(trained, evaluated)
    found = binary.eval()(x)
    assert not torch.allclose(found, evaluated)  # the running ones have moved
    other = torch.cat([x[:1], 3 * x[1:] + 1])
    torch.testing.assert_close(binary(other)[0], found[0])


# Statistics of its own


def by_hand(x, weights, eps):
    """A binary network normalised, layer by layer, by torch and the batch itself."""
    statistics = []
    for place, weight in enumerate(weights):
        a = F.conv2d(x, weight, padding=1) if weight.ndim == 4 else x.flatten(1) @ weight.T
        axes = [0, 2, 3][: a.ndim - 1]
        statistics.append((a.mean(axes), a.var(axes)))
        M = a.numel() // a.shape[1]
        a = F.batch_norm(a, None, None, training=True, eps=eps * (M - 1) / M)
        a = a * ((M - 1) / M) ** 0.5
        if place == len(weights) - 1:
            return a, statistics
        x = F.max_pool2d(a, 2) if weight.ndim == 4 else a
        x = torch.where(x >= 0, 1.0, -1.0).double()
    return x, statistics


@pytest.mark.parametrize("how", WAYS)
def test_re_estimated_statistics_are_those_of_the_binary_network_itself(how):
    network, x = network_of(), normal(40, *IMAGE, of="x")
    binary = binarise(network, how, generator(0, "draw"))
    before = [norm.running_var.clone() for norm in norms(binary)]
    assert binary.re_estimate(x) is binary
    expected, statistics = by_hand(x, known_weights(network, how), norms(binary)[0].eps)
    for norm, (mean, var) in zip(norms(binary), statistics, strict=True):
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, var)
    torch.testing.assert_close(binary(x), expected)
    pairs = zip(before, norms(binary), strict=True)
    assert not any(torch.equal(old, norm.running_var) for old, norm in pairs)


def test_a_network_without_normalisation_has_nothing_to_estimate():
    network, x = network_of(batch_norm=False), normal(9, *IMAGE, of="x")
    binary = binarise(network)
    expected = network.mode(x)
    for found in (binary, binary.re_estimate(x), binary.fold()):
        torch.testing.assert_close(found(x), expected)
    assert norms(binary) == []


# Folding


def with_ties(binary, x):
    """γ of either sign and 0, β such that many thresholds are integers that units attain."""
    dtype = x.dtype
    for block in binary.layers():
        a = block.product(x, block.weight)
        norm = block.tail.norm
        with torch.no_grad():
            width = len(norm.gamma)
            middle = a.movedim(1, -1).reshape(-1, width).median(0).values.round()
            norm.running_mean.copy_(middle)
            norm.running_var.fill_(4.0)
            norm.eps = 0.0
            norm.gamma.copy_(torch.tensor([2.0, -1.0, 0.0, 0.5, -0.5, 1.0]).repeat(2)[:width])
            norm.beta.copy_(torch.tensor([1.0, 0.0, -1.0, 0.25, 0.5, -0.5]).repeat(2)[:width])
            if not block.tail.last:
                ties = norm(a) == 0
                slopes = (norm.gamma != 0).view(-1, *[1] * (a.ndim - 2))
                assert (ties & slopes).to(dtype).mean() > 0.01
        x = block.tail.known(a)
    return binary


@both
@pytest.mark.parametrize("how", WAYS)
def test_thresholds_on_integers_that_units_attain_give_the_same_bits(how, dtype):
    x = images_of_integers(200, dtype)
    binary = with_ties(binarise(network_of(dtype=dtype), how, generator(0, "draw")), x)
    folded = binary.fold()
    assert torch.equal(folded(x), binary(x))
    for block in folded.layers():
        assert isinstance(
            block.tail.norm, StochasticBatchNorm if block.tail.last else ThresholdSign
        )
    # Layer by layer too: the scores alone might agree by chance.
    units = x
    for one, other in zip(binary.layers(), folded.layers(), strict=True):
        expected = one(units)
        assert torch.equal(other(units), expected)
        units = expected


@both
@pytest.mark.parametrize("law", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("estimated", [True, False])
def test_real_images_and_fitted_statistics_give_the_same_bits(law, estimated, dtype):
    network = network_of(dtype=dtype, law=law)
    with torch.no_grad():
        for norm in norms(network):
            for part in norm.parameters():
                part.copy_(normal(len(part), of=f"{len(part)} {part[0].item()}", dtype=dtype))
    binary = binarise(network)
    if estimated:
        binary.re_estimate(normal(64, *IMAGE, of="estimate", dtype=dtype))
    x, folded = normal(500, *IMAGE, of="x", dtype=dtype), binary.fold()
    assert torch.equal(folded(x), binary(x))
    assert torch.equal(folded.layers()[0](x), binary.layers()[0](x))


def test_folding_leaves_the_network_as_it_was_and_again_changes_nothing():
    binary, x = binarise(network_of()), normal(9, *IMAGE, of="x")
    before = binary(x)
    folded = binary.fold()
    assert len(norms(binary)) == 5
    assert len(norms(folded)) == 1  # of the scores
    assert torch.equal(binary(x), before)
    assert torch.equal(folded.fold()(x), before)
    binary.re_estimate(normal(30, *IMAGE, of="other"))
    assert torch.equal(folded(x), before)


def test_an_average_before_the_sign_cannot_be_folded():
    binary, x = binarise(network_of("6C3-AP2-SM3")), normal(9, *IMAGE, of="x")
    with pytest.raises(ValueError, match="`fold` needs maximum pooling, got a network that aver"):
        binary.fold()
    first, last = binary.layers()
    pooled = F.avg_pool2d(first.tail.norm(first.product(x, first.weight)), 2)
    torch.testing.assert_close(first(x), hard_sign(pooled))
    assert binary(x).shape == (9, 3)
    assert last.tail.last
    # Without normalisation there is nothing to fold.
    plain = binarise(network_of("6C3-AP2-SM3", batch_norm=False))
    assert torch.equal(plain.fold()(x), plain(x))


def test_images_may_lie_in_memory_in_either_way():
    binary, x = binarise(network_of()), normal(9, *IMAGE, of="x")
    other = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(binary(x), binary(other))
    first, second = (binarise(network_of()).re_estimate(images) for images in (x, other))
    assert torch.equal(first(x), second(x))
