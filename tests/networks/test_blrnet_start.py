"""How a BLRNet starts, what its prior costs, and which arguments make none."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from pbnn.networks import BLRNet, binarise
from pbnn.objectives import BoundObjective
from pbnn.seeding import generator

IMAGE, ARCHITECTURE = (2, 9, 8), "4C3-MP2-5C1-6C3-AP2-7FC-SM3"
laws = pytest.mark.parametrize("law", ["bernoulli", "gaussian"])


def images():
    return torch.randn(6, *IMAGE, generator=generator(0, "images"), dtype=torch.float64)


def network_of(architecture=ARCHITECTURE, image=IMAGE, **options):
    made = generator(0, "net")
    return BLRNet(image, architecture, generator=made, dtype=torch.float64, **options)


def weights(network, how):
    return [how(block.layer.weight) for block in network.layers()]


def test_the_means_start_uniformly_and_the_prior_is_fair():
    for start in (1.0, 0.3):
        network = network_of("40C3-SM10", (3, 20, 20), start=start)
        mean = torch.cat([part.detach().flatten() for part in weights(network, lambda w: w.mean)])
        size = len(mean)
        assert mean.abs().max() <= start
        assert abs(mean.mean()) <= 5 * start / math.sqrt(3 * size)
        # The square of a uniform number has mean 1/3 and variance 4/45.
        assert abs(mean.square().mean() - start**2 / 3) <= 5 * start**2 * math.sqrt(4 / 45 / size)
        assert not any(prior.any() for prior in weights(network, lambda w: w.prior_mean))


def test_gaussian_means_start_with_the_deviation_that_is_told():
    for start in (1.0, 0.3):
        network = network_of("40C3-SM10", (3, 20, 20), law="gaussian", start=start)
        mean = torch.cat([part.detach().flatten() for part in weights(network, lambda w: w.mean)])
        assert abs(mean.mean()) <= 5 * start / math.sqrt(len(mean))
        assert abs(mean.square().mean() - start**2) <= 5 * start**2 * math.sqrt(2 / len(mean))
        assert not any(prior.any() for prior in weights(network, lambda w: w.prior_mean))


@laws
def test_kl_is_the_sum_over_all_weights_of_torch_and_an_adopted_prior_has_none(law):
    network = network_of(law=law)
    expected = 0.0
    for weight in weights(network, lambda weight: weight):
        if law == "gaussian":
            q, p = Normal(weight.mean, 1.0), Normal(weight.prior_mean, 1.0)
        else:
            q, p = (Bernoulli((1 + m) / 2) for m in (weight.mean, weight.prior_mean))
        expected = expected + kl_divergence(q, p).sum()
    torch.testing.assert_close(network.kl(), expected)
    network.adopt_as_prior()
    assert network.kl() == 0


def test_the_configuration_makes_the_same_network():
    network = network_of(padding_value=-1.0, pooling="sampled", source=generator(0, "s"))
    config = json.loads(json.dumps(network.config))
    again = BLRNet(**config, generator=generator(1, "net"), source=generator(0, "s")).double()
    again.load_state_dict(network.state_dict())
    source = {"source": generator(0, "s")}
    first, second = (BLRNet(**config, generator=generator(0, "net"), **source) for _ in range(2))
    for name, part in first.state_dict().items():
        assert torch.equal(part, second.state_dict()[name])
    assert again.config == network.config
    found, expected = (each.eval()(images()) for each in (again, network))
    assert torch.equal(found.mean, expected.mean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, None])
def test_parameters_and_scores_have_the_dtype_asked_for(dtype):
    network = BLRNet(IMAGE, ARCHITECTURE, generator=generator(0, "net"), dtype=dtype, device="cpu")
    assert {part.dtype for part in network.state_dict().values()} == {dtype or torch.float32}
    assert network(images().to(dtype or torch.float32)).var.dtype == (dtype or torch.float32)
    assert [len(block.layer.weight.mean) for block in network.layers()] == [4, 5, 6, 7, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"law": "poisson"}, r"`law` must be one of \('bernoulli', 'gaussian'\), got 'poisson'"),
        ({"activation": "relu"}, r"`activation` must be one of .*'concrete'.*, got 'relu'"),
        ({"pooling": "average"}, r"`pooling` must be one of .*'sampled'.*, got 'average'"),
        ({"activation": "concrete"}, r"`source` must be a generator .*, got None"),
        ({"pooling": "sampled"}, r"`source` must be a generator .*, got None"),
        ({"architecture": "4C4-SM3"}, r"`architecture` must .* with '4C4'"),
        ({"image": (9, 8)}, r"`image` must be \(channels, height, width\), got \(9, 8\)"),
        ({"image": (2, 1, 8)}, r"`image` must be large enough for every pooling, got"),
        ({"padding_value": 3.0}, r"`padding_value` must be −1, 0 or \+1, got 3"),
        ({"temperature": 0.0}, r"`temperature` must be positive, got 0"),
        ({"start": -1.0}, r"`start` must be at least 0, got -1"),
    ],
)
def test_what_makes_no_network_is_refused(options, message):
    options = {"image": IMAGE, "architecture": ARCHITECTURE} | options
    with pytest.raises(ValueError, match=message):
        BLRNet(**options, generator=generator(0, "net"))


@pytest.mark.parametrize("made", [lambda net: net, binarise], ids=["random", "binary"])
def test_images_of_another_shape_or_type_are_refused(made):
    network = made(network_of())
    for method in (network, network.re_estimate):
        for bad in (images()[:, :, :8], images()[0], images().flatten(1), images()[:, :1]):
            with pytest.raises(ValueError, match=r"`x` must have shape \(n, 2, 9, 8\), got"):
                method(bad)
        with pytest.raises(TypeError, match=r"`x` must be torch\.float64 like the network"):
            method(images().float())
        with pytest.raises(TypeError, match="`x` must be a torch tensor of images, got list"):
            method(images().tolist())


def test_a_bound_of_a_network_whose_normalisation_may_learn_is_announced_as_none():
    network = network_of()
    bound = BoundObjective(network, 6, 0.05, loss="gibbs")
    labels = torch.zeros(6, dtype=torch.int64)
    with pytest.warns(UserWarning, match="not frozen"):
        bound.check(images(), labels)
    for block in network.layers():
        block.tail.norm.freeze()
    bound.check(images(), labels)
