"""Scores of whole networks against draws and enumeration: where exact, and how biased elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pbnn.functional import Moments, conv2d, max_pool, sign, sign_patterns
from pbnn.networks import BLRNet
from pbnn.seeding import generator

DRAWS = 100_000


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def network_of(image, architecture, seed=0, **options):
    """In evaluation mode, with normalisations that do something."""
    made = generator(seed, "network")
    network = BLRNet(image, architecture, generator=made, dtype=torch.float64, **options)
    for place, block in enumerate(network.layers()):
        if block.tail.norm is not None:
            with torch.no_grad():
                for part in block.tail.norm.parameters():
                    part.add_(0.3 * normal(*part.shape, of=f"norm {place} {part[0].item()}"))
            block.tail.norm.momentum = 1.0
    if options.get("batch_norm", True):
        network(normal(64, *image, of="images"))
    return network.eval()


@torch.no_grad()
def drawn_scores(network, x, parts=10):
    """Scores of one image under weights of their own for each of many draws."""
    source, size = generator(0, "draws"), DRAWS // parts
    many = x.expand(size, *x.shape[1:])
    return torch.cat([network.sample(many, source, "datum") for _ in range(parts)])


@torch.no_grad()
def scores(network, x):
    return Moments(*(part[0] for part in network(x)))


def exact_mean_sign(mean):
    """E sgn Σ s_i of independent signs (..., D), by adding them one at a time to the law."""
    law = torch.ones(*mean.shape[:-1], 1, dtype=torch.float64)  # of (sum + number)/2
    for m in mean.unbind(-1):
        m = m[..., None]
        law = F.pad(law * (1 - m) / 2, (0, 1)) + F.pad(law * (1 + m) / 2, (1, 0))
    total = 2 * torch.arange(law.shape[-1]) - mean.shape[-1]
    return (law * torch.where(total >= 0, 1.0, -1.0)).sum(-1)


# Exact


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_gaussian_network_of_one_dense_layer_has_the_moments_of_draws(batch_norm, assert_moments):
    """Known inputs: Gaussian units, independent signs, scores of known moments. No CLT."""
    network = network_of((1, 2, 3), "5FC-SM3", law="gaussian", batch_norm=batch_norm)
    x = normal(1, 1, 2, 3, of="x")
    assert_moments(drawn_scores(network, x), scores(network, x))


def test_a_network_without_hidden_signs_has_the_moments_of_draws(assert_moments):
    network, x = network_of((2, 2, 2), "SM3"), normal(1, 2, 2, 2, of="x")
    assert_moments(drawn_scores(network, x), scores(network, x))


def test_signs_that_share_filters_have_exact_means_where_each_counts_by_itself(assert_moments):
    """Gaussian filters: the mean score is exact, its variance leaves out that signs covary."""
    network, x = network_of((1, 3, 3), "3C3-SM3", law="gaussian"), normal(1, 1, 3, 3, of="x")
    draws, found = drawn_scores(network, x), scores(network, x)
    assert_moments(draws, Moments(found.mean, draws.var(0)))
    ratio = found.var / draws.var(0)
    print(f"\nvariance of scores, analytic over drawn, 3 filters: {ratio.tolist()}")
    assert ((ratio > 0.4) & (ratio < 2.5)).all()
    assert (ratio - 1).abs().max() > 0.02  # 5 standard errors of a variance: there is a bias


# Enumeration


def enumerated(network, x, pool):
    """Moments of the scores over all filters of one hidden convolution 3x3 of Bernoulli signs.

    Filters are independent, so each channel is summed over its own 2⁹ patterns; the signs of one
    channel share a filter, and their covariances are kept.
    """
    hidden, output = (block.layer.weight.mean.detach() for block in network.layers())
    patterns = sign_patterns(9, dtype=torch.float64, device="cpu")
    a = F.conv2d(x, patterns.view(-1, 1, 3, 3), padding=1)
    signs = (
        torch.where(F.max_pool2d(a, 2) >= 0 if pool else a >= 0, 1.0, -1.0)[0].flatten(1).double()
    )
    chance = ((1 + hidden.flatten(1)[:, None] * patterns) / 2).prod(-1)  # (channels, patterns)
    mean = chance @ signs
    joint = torch.einsum("cp,pi,pj->cij", chance, signs, signs)
    covariance = joint - mean[:, :, None] * mean[:, None]
    theta = output.view(len(output), *mean.shape)
    drawn = torch.einsum("kci,cij,kcj->k", theta, covariance, theta)
    return Moments((theta * mean).sum((1, 2)), drawn + (1 - theta.square()).sum((1, 2)))


@pytest.mark.parametrize("pool", [False, True])
def test_draws_have_the_moments_of_all_networks_together(pool, assert_moments):
    network = network_of((1, 4, 4), "2C3-MP2-SM2" if pool else "2C3-SM2", batch_norm=False)
    x = normal(1, 1, 4, 4, of="x")
    exact, found = enumerated(network, x, pool), scores(network, x)
    assert_moments(drawn_scores(network, x), exact)
    bias, ratio = (found.mean - exact.mean) / exact.var.sqrt(), found.var / exact.var
    print(f"\npool {pool}: bias of means {bias.tolist()} deviations, of variances {ratio.tolist()}")
    assert bias.abs().max() < 0.25
    assert ((ratio > 0.4) & (ratio < 2.5)).all()


@pytest.mark.parametrize("pool", [False, True])
def test_the_bias_of_shared_filters_by_width(pool):
    """That of the variance shrinks; that of the means stays, by the CLT of at most nine inputs."""
    for width, off in ((2, 0.15), (8, 0.08), (32, 0.05), (128, 0.04)):
        network = network_of((1, 4, 4), f"{width}C3{'-MP2' * pool}-SM4", batch_norm=False)
        biases, ratios = [], []
        for image in normal(20, 1, 1, 4, 4, of="images"):
            exact, found = enumerated(network, image, pool), scores(network, image)
            biases.append((found.mean - exact.mean) / exact.var.sqrt())
            ratios.append((found.var / exact.var).log())
        bias, ratio = (torch.stack(x).square().mean().sqrt().item() for x in (biases, ratios))
        print(f"\npool {pool}, {width} filters: bias {bias:.3f} deviations, variance {ratio:.3f}")
        assert bias < 0.12
        assert ratio < off


def test_the_largest_of_signs_that_share_a_filter_is_overstated():
    """Gaussian filters, so each sign is exact: only that the four of a window agree is left out."""
    for name, smooth, low, high in (("noise", 0.0, -0.1, 0.1), ("constant", 1.0, 0.3, 0.9)):
        images = smooth + (1 - smooth) * normal(5, 1, 8, 8, of="images")
        weight = 0.2 * normal(1, 9, of="weight")
        a = (weight + normal(DRAWS, 9, of="draws")) @ F.unfold(images, 3)  # 6 x 6 patches
        drawn = torch.where(F.max_pool2d(a.view(5, DRAWS, 6, 6), 2) >= 0, 1.0, -1.0).mean(1)
        found = max_pool(sign(conv2d(images, weight.view(1, 1, 3, 3))), 2).mean[:, 0]
        bias = (found - drawn).mean().item()
        print(f"\n{name}: mean of the largest sign {drawn.mean():.3f}, analytic off by {bias:.3f}")
        assert low < bias < high


# The central limit theorem


@torch.no_grad()
def bias_by_enumeration(width, images):
    """RMS error of mean scores, in deviations, of two hidden layers that read signs.

    The units of one layer are independent signs to each unit of the next, by itself: its mean is
    an exact sum, and so is that of the scores.
    """
    network = network_of((1, 5, 5), f"{width}FC-{width}FC-SM4", batch_norm=False)
    x = torch.where(normal(images, 25, of="x") >= 0, 1.0, -1.0).double()
    mean = x
    for block in network.layers()[:-1]:
        mean = exact_mean_sign(block.layer.weight.mean * mean[:, None])
    exact = mean @ network.layers()[-1].layer.weight.mean.T
    found = network(x.view(-1, 1, 5, 5))
    return ((found.mean - exact) / found.var.sqrt()).square().mean().sqrt().item()


@pytest.mark.parametrize(("odd", "power", "limit"), [(False, 0.5, 0.7), (True, 1.0, 0.6)])
def test_the_bias_of_the_central_limit_theorem_shrinks_with_width(odd, power, limit):
    errors = []
    for width in (9, 33, 129) if odd else (8, 32, 128):
        errors.append(bias_by_enumeration(width, 8))
        print(
            f"\nwidth {width}: {errors[-1]:.4f} deviations, x w^{power} {errors[-1] * width**power}"
        )
        assert errors[-1] < limit * width**-power
    assert errors == sorted(errors, reverse=True)


def test_a_deep_convolutional_network_is_close_to_its_draws():
    """All approximations at once, each measured above by itself, with batch normalisation."""
    network, x = network_of((1, 4, 4), "4C3-MP2-4C3-SM3"), normal(1, 1, 4, 4, of="x")
    draws, found = drawn_scores(network, x), scores(network, x)
    bias, ratio = (found.mean - draws.mean(0)) / draws.std(0), found.var / draws.var(0)
    print(f"\nbias {bias.tolist()} deviations (± {5 / math.sqrt(DRAWS):.3f}), {ratio.tolist()}")
    assert bias.abs().max() < 0.3
    assert ((ratio > 0.7) & (ratio < 1.4)).all()
