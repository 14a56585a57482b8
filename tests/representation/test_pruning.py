"""Pruning: exact sparsity, what stays 0, rewinds, overlaps."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from pbnn.backbones import lenet
from pbnn.balance import measure
from pbnn.binarize import RECIPES, after_step, binary_layers, convert
from pbnn.representation import (
    Held,
    geometric_sparsities,
    jaccard,
    jaccard_by_chance,
    jaccard_by_groups,
    magnitude_masks,
    prunable,
    prune_in_rounds,
    random_masks,
    shuffled_masks,
    sparsity_of,
)
from pbnn.seeding import generator


def model():
    return lenet((1, 8, 8), (4, 8), 16, kernel=3, generator=generator(0, "model"))


def points():
    return torch.rand(40, 1, 8, 8, generator=generator(0, "x")), torch.arange(40) % 10


def some_steps(network, count=5):
    x, y = points()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(count):
        optimiser.zero_grad()
        F.cross_entropy(network.train()(x), y).backward()
        optimiser.step()
        after_step(network)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.875, 0.99])
def test_sparsity_is_exact_and_the_largest_are_kept(sparsity):
    weights = prunable(model())
    total = sum(w.numel() for w in weights.values())
    masks = magnitude_masks(weights, sparsity)
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == total - round(total * sparsity)
    assert sparsity_of(masks) == pytest.approx(sparsity, abs=1 / total)
    sizes = torch.cat([w.detach().abs().flatten() for w in weights.values()])
    flat = torch.cat([mask.flatten() for mask in masks.values()])
    if sparsity > 0:
        assert sizes[flat].min() >= sizes[~flat].max()
    drawn = random_masks(weights, sparsity, generator(0, "mask"))
    assert sum(int(mask.sum()) for mask in drawn.values()) == kept


def test_what_was_pruned_stays_pruned():
    weights = prunable(model())
    first = magnitude_masks(weights, 0.5)
    with torch.no_grad():
        for name, mask in first.items():
            weights[name][~mask] = 100.0
    second = magnitude_masks(weights, 0.7, first)
    assert all(not (second[name] & ~mask).any() for name, mask in first.items())
    assert sparsity_of(second) == pytest.approx(0.7, abs=1e-3)


def test_the_scores_are_not_pruned():
    assert list(prunable(model())) == ["0.weight", "4.weight", "9.weight"]
    assert list(prunable(model(), last=True))[-1] == "12.weight"
    learned = convert(model(), "noisy_supervision").network
    assert list(prunable(learned)) == ["0.weight", "4.weight", "9.weight"]


@pytest.mark.parametrize("recipe", [None, *RECIPES])
def test_pruned_weights_and_their_gradients_stay_0(recipe):
    network = model() if recipe is None else convert(model(), recipe).network
    weights = prunable(network)
    masks = random_masks(weights, 0.8, generator(0, "mask"))
    held = Held(network, masks)
    some_steps(network)
    for name, mask in masks.items():
        assert not weights[name][~mask].any()
        assert not weights[name].grad[~mask].any()
        assert weights[name].grad[mask].any()
    for name, layer in binary_layers(network).items():
        effective = layer.binary_weight()
        assert not effective[~masks[f"{name}.weight"]].any()
        assert (effective[masks[f"{name}.weight"]] != 0).all()
    held.remove()
    some_steps(network, 1)
    assert all(weights[name][~mask].any() for name, mask in masks.items())


def test_a_network_is_left_at_its_rewind_to_the_bit():
    network = model()
    some_steps(network, 2)
    rewind = {name: value.clone() for name, value in network.state_dict().items()}
    trained = []

    def train(network):
        trained.append(sum(int((w == 0).sum()) for w in prunable(network).values()))
        some_steps(network, 3)

    found = prune_in_rounds(network, train, rewind, sparsities=(0.5, 0.8, 0.9))
    assert all(torch.equal(value, rewind[name]) for name, value in network.state_dict().items())
    total = sum(mask.numel() for mask in found[0].values())
    assert trained == [0, round(total * 0.5), round(total * 0.8)]
    for masks, sparsity in zip(found, (0.5, 0.8, 0.9), strict=True):
        assert sparsity_of(masks) == pytest.approx(sparsity, abs=1 / total)
    for before, after in itertools.pairwise(found):
        assert all(not (after[name] & ~mask).any() for name, mask in before.items())


def test_geometric_rounds_prune_the_same_share_of_what_is_left():
    sparsities = (0.0, *geometric_sparsities(0.9, 4))
    shares = [(b - a) / (1 - a) for a, b in itertools.pairwise(sparsities)]
    assert shares == pytest.approx([1 - 0.1**0.25] * 4)
    assert sparsities[-1] == pytest.approx(0.9)


@pytest.mark.parametrize("recipe", [None, "xnor_net"])
def test_each_pass_is_of_pruned_weights_whatever_moved_them(recipe):
    """A state loaded later, or an optimiser with momentum from before; in a copy as well."""
    network = model() if recipe is None else convert(model(), recipe).network
    whole = {name: value.clone() for name, value in network.state_dict().items()}
    masks = magnitude_masks(prunable(network), 0.8)
    Held(network, masks)
    x = torch.rand(3, 1, 8, 8, generator=generator(0, "x"))
    expected = network.eval()(x)
    for other in (network, copy.deepcopy(network)):
        other.load_state_dict(whole)
        assert torch.equal(other(x), expected)
        assert all(not bool(prunable(other)[n][~mask].any()) for n, mask in masks.items())


@pytest.mark.parametrize("recipe", [None, "bi_real_net"])
def test_two_passes_may_come_before_the_gradient(recipe):
    """As of two views of an image."""
    network = model() if recipe is None else convert(model(), recipe).network
    masks = magnitude_masks(prunable(network), 0.8)
    Held(network, masks)
    first, second = torch.rand(2, 3, 1, 8, 8, generator=generator(0, "x"))
    (network(first).square().mean() + network(second).square().mean()).backward()
    weights = prunable(network)
    assert all(not bool(weights[name].grad[~mask].any()) for name, mask in masks.items())
    assert any(bool(weight.grad.any()) for weight in weights.values())


def test_masks_are_let_go_when_a_training_fails():
    network = convert(model(), "xnor_net").network

    def failing(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune_in_rounds(network, failing, network.state_dict(), sparsities=(0.5,))
    assert all(layer.mask is None for layer in binary_layers(network).values())


def test_the_balance_of_a_pruned_layer_is_that_of_what_is_kept():
    network = convert(model(), "bi_real_net").network
    masks = magnitude_masks(prunable(network), 0.7)
    Held(network, masks)
    x = torch.rand(4, 1, 8, 8, generator=generator(0, "x"))
    found = measure(network, [x]).weights["4"]
    layer, mask = network[4], masks["4.weight"]
    shares = [(w[m] >= 0).double().mean() for w, m in zip(layer.weight, mask, strict=True)]
    assert found["share"] == pytest.approx(float(sum(shares)) / len(shares))
    errors = [1 - float(w[m].abs().sum() ** 2 / (m.sum() * w[m].square().sum()))
              for w, m in zip(layer.weight.detach().double(), mask, strict=True)]  # fmt: skip
    assert found["quantisation_error"] == pytest.approx(sum(errors) / len(errors), rel=1e-6)


def test_shuffled_masks_keep_the_layers_and_lose_the_places():
    weights = {"a": torch.zeros(200, 500), "b": torch.zeros(300, 100)}
    draws = [{n: torch.rand(w.shape, generator=generator(s, n)) for n, w in weights.items()}
             for s in (0, 1)]  # fmt: skip
    first, second = ({"a": d["a"] < 0.1, "b": d["b"] < 0.8} for d in draws)
    moved = shuffled_masks(first, generator(0, "shuffle"))
    for name, mask in first.items():
        assert mask.shape == moved[name].shape
        assert mask.sum() == moved[name].sum()
        assert not torch.equal(mask, moved[name])
    expected = jaccard_by_groups(first, second)
    assert jaccard(first, moved) == pytest.approx(expected, abs=0.01)
    assert jaccard(first, second) == pytest.approx(expected, abs=0.01)
    # Groups that do not matter explain as much as layers do, and those that decide the masks all.
    places = {n: torch.arange(m.numel()).view(m.shape) % 7 for n, m in first.items()}
    assert jaccard_by_groups(first, second, places) == pytest.approx(expected, abs=0.01)
    assert jaccard_by_groups(first, first, {n: m.long() for n, m in first.items()}) == 1
    # Of all layers together chance would be much less.
    assert expected > jaccard_by_chance(sparsity_of(first)) + 0.2


def test_masks_overlap_by_chance_as_they_should():
    weights = {"a": torch.zeros(400, 500)}
    for sparsity in (0.5, 0.8, 0.9):
        first, second = (random_masks(weights, sparsity, generator(s, "mask")) for s in (0, 1))
        found, expected = jaccard(first, second), jaccard_by_chance(sparsity)
        # The overlap is hypergeometric.
        n, kept = 200_000, round(200_000 * (1 - sparsity))
        mean = kept * kept / n
        spread = math.sqrt(mean * (1 - kept / n) * (n - kept) / (n - 1))
        low, high = ((mean + side * 5 * spread) / (2 * kept - mean - side * 5 * spread)
                     for side in (-1, 1))  # fmt: skip
        assert low <= found <= high
        assert low <= expected <= high
    assert jaccard(first, first) == 1


def test_bad_masks_are_refused():
    for sparsity in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"`sparsity` must lie in \[0, 1\)"):
            magnitude_masks(prunable(model()), sparsity)
    half = magnitude_masks(prunable(model()), 0.5)
    with pytest.raises(ValueError, match=r"`sparsity` must be at least that of `within`, got 0\.2"):
        magnitude_masks(prunable(model()), 0.2, half)
    with pytest.raises(ValueError, match=r"`masks` must hold booleans, got torch\.float32"):
        Held(model(), {name: mask.float() for name, mask in half.items()})
    binary = convert(model(), "xnor_net").network
    Held(binary, half)
    with pytest.raises(ValueError, match="`network` must have no masks held yet"):
        Held(binary, half)
    with pytest.raises(ValueError, match="must have weights to prune besides the last, got none"):
        prune_in_rounds(model()[-2:], some_steps, {}, sparsities=(0.5,))
    with pytest.raises(ValueError, match="`masks` must fit weights of the network, got 'b'"):
        Held(model(), {"b": torch.ones(3, dtype=torch.bool)})
    for sparsities in ((), (0.5, 0.5), (0.8, 0.5)):
        with pytest.raises(ValueError, match="`sparsities` must be some that rise"):
            prune_in_rounds(model(), some_steps, model().state_dict(), sparsities=sparsities)
    with pytest.raises(ValueError, match=r"`sparsity` must lie in \[0, 1\), got 1.0"):
        prune_in_rounds(model(), some_steps, model().state_dict(), sparsities=(0.5, 1.0))
    with pytest.raises(ValueError, match="`rounds` must be a positive integer, got 0"):
        geometric_sparsities(0.5, 0)
    for overlap in (jaccard, jaccard_by_groups):
        with pytest.raises(ValueError, match="must have the same weights"):
            overlap({"a": torch.ones(1)}, {"b": torch.ones(1)})
