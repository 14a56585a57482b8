"""Statistics of signs: each by a direct computation, and the same for batches of any size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pbnn.backbones import lenet
from pbnn.balance import (
    Flips,
    SignStatistics,
    entropy,
    measure,
    mutual_information,
    quantisation_error,
    watch,
    weights_of,
)
from pbnn.binarize import BinaryActivation, Recipe, Threshold, binary_layers, clipped, convert, ede
from pbnn.functional import hard_sign
from pbnn.networks import ABNet, BLRNet, PBGNet, binarise
from pbnn.seeding import generator

CLASSES = 3


def signs_and_labels(n=40, shape=(5, 4, 4)):
    labels = torch.arange(n) % CLASSES
    noise = torch.randn(n, *shape, generator=generator(0, "noise"))
    tilt = torch.linspace(-1, 1, shape[0]).view(-1, *[1] * (len(shape) - 1))
    return hard_sign(noise + tilt * (labels.view(-1, *[1] * len(shape)) - 0.5)), labels


def network(recipe="xnor_net"):
    twin = lenet((1, 8, 8), (4, 6), 12, kernel=3, classes=CLASSES, generator=generator(0, "net"))
    return convert(twin, recipe).network


def images(n=40):
    return torch.rand(n, 1, 8, 8, generator=generator(0, "x")), torch.arange(n) % CLASSES


def test_every_figure_is_what_its_definition_says():
    signs, labels = signs_and_labels()
    kept = SignStatistics(CLASSES)
    kept.update(signs, labels)
    row, ones = kept.layer(), (signs > 0).double()
    share = ones.mean((0, 2, 3))
    mean_sign = 2 * share - 1
    assert row["share"] == pytest.approx(float(share.mean()))
    assert row["mean_sign"] == pytest.approx(float(mean_sign.abs().mean()))
    assert row["mean_sign_var"] == pytest.approx(float(mean_sign.var(correction=0)))
    assert row["entropy"] == pytest.approx(float(entropy(share).mean()))
    assert row["entropy_pooled"] == pytest.approx(float(entropy(share.mean())))
    assert row["instance_std"] == pytest.approx(float(ones.mean((1, 2, 3)).std(correction=0)))
    rows = signs.transpose(0, 1).reshape(5, -1).numpy()
    correlation = np.corrcoef(rows)
    off = np.abs(correlation)[~np.eye(5, dtype=bool)].mean()
    assert row["correlation"] == pytest.approx(off)
    weights = np.linalg.eigvalsh(correlation) / 5
    assert row["effective_rank"] == pytest.approx(math.exp(-(weights * np.log(weights)).sum()))
    by_class = [(signs > 0)[labels == k].double() for k in range(CLASSES)]
    counts = [torch.stack([(1 - x).sum(0), x.sum(0)], -1).flatten(0, -2) for x in by_class]
    tables = torch.stack(counts, dim=1)
    assert row["information"] == pytest.approx(float(mutual_information(tables).mean()))
    plain = mutual_information(tables, corrected=False).mean()
    assert row["information_plugin"] == pytest.approx(float(plain))
    assert abs(row["information_shuffled"]) < 0.1 * row["information"]
    channels = kept.channels()
    assert channels["share"] == pytest.approx(share.tolist())
    by_channel = mutual_information(tables).reshape(5, -1).mean(1)
    assert channels["information"] == pytest.approx(by_channel.tolist())


@pytest.mark.parametrize("size", [1, 7, 16, 40])
def test_batches_of_any_size_give_the_same_figures(size):
    signs, labels = signs_and_labels()
    margin = 1.5 * signs
    whole, parts = SignStatistics(CLASSES), SignStatistics(CLASSES)
    whole.update(signs, labels, margin, clipped)
    for s, y, m in zip(*(t.split(size) for t in (signs, labels, margin)), strict=True):
        parts.update(s, y, m, clipped)
    assert parts.channels() == whole.channels()  # to the last bit: counts are exact
    found, expected = parts.layer(), whole.layer()
    # Shares of a sample are no whole numbers.
    assert found.pop("instance_std") == pytest.approx(expected.pop("instance_std"), rel=1e-12)
    assert found == expected


def test_means_of_random_signs_are_counted_as_probabilities():
    mean = 2 * torch.rand(30, 4, generator=generator(0, "mean"), dtype=torch.float64) - 1
    kept = SignStatistics()
    for part in mean.split(7):
        kept.update(part)
    share = (1 + mean.mean(0)) / 2
    assert kept.channels()["share"] == pytest.approx(share.tolist())
    assert kept.layer()["entropy"] == pytest.approx(float(entropy(share).mean()))


def test_dead_channels_and_equal_codes_are_found():
    signs = hard_sign(torch.randn(400, 4, generator=generator(0, "s")))
    signs[:, 0], signs[:, 1] = 1.0, -1.0
    signs[0, 1] = 1.0  # a share of .0025
    kept = SignStatistics()
    kept.update(signs)
    row = kept.layer()
    assert row["dead"] == 0.5
    assert row["unique_codes"] == len(signs.unique(dim=0)) / 400
    # Two channels are left, and the one that is +1 once.
    assert 2.5 < row["effective_rank"] <= 3.0


def test_memory_does_not_grow_with_the_data():
    signs, labels = signs_and_labels(n=2500)
    kept = SignStatistics(CLASSES)

    def numbers():
        return sum(t.numel() for t in kept._sums.values()) + sum(len(c) for c in kept._codes)

    sizes = []
    for _ in range(4):
        kept.update(signs, labels)
        sizes.append(numbers())
    assert sizes[1] == sizes[2] == sizes[3]


def test_alive_units_are_within_1_of_their_threshold():
    x = 2 * torch.randn(50, 6, generator=generator(0, "x"))
    activation = BinaryActivation(lambda x: ede(x, 2.0), Threshold(0.7))
    with watch(activation, full=True) as watcher:
        activation(x)
    row = watcher.layers()["."]
    assert row["alive"] == pytest.approx(float(((x - 0.7).abs() <= 1).double().mean()))
    assert row["slope"] == pytest.approx(float(ede(x - 0.7, 2.0).mean()), rel=1e-5)


def test_outputs_are_the_integers_that_signs_make_of_signs():
    model, (x, y) = network(), images()
    seen = {}
    layer = model[4]
    layer.activation.register_forward_hook(lambda module, given, out: seen.update(signs=out))
    balance = measure(model, [(x, y)], classes=CLASSES)
    row = balance.activations["4.activation"]
    outputs = F.conv2d(seen["signs"], layer.signs(), padding=1)
    assert torch.equal(outputs, outputs.round())
    _, counts = outputs.unique(return_counts=True)
    expected = -(counts / counts.sum() * (counts / counts.sum()).log2()).sum()
    assert row["output_entropy"] == pytest.approx(float(expected), rel=1e-5)
    share = (seen["signs"] > 0).double().mean((0, 2, 3))
    shift = (layer.signs().double().sum((2, 3)) @ (2 * share - 1)).abs()
    spread = outputs.double().std((0, 2, 3), correction=0)
    assert row["output_shift"] == pytest.approx(float((shift / spread).median()), rel=1e-6)


def test_a_network_is_measured_and_left_as_it_was():
    model, (x, y) = network(), images()
    model.train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = measure(model, [(x, y)], classes=CLASSES)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=40)
    with torch.random.fork_rng(devices=[]):
        found = measure(model, loader, classes=CLASSES)
    assert found == expected
    assert [m.training for m in model][:3] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert list(expected.activations) == ["4.activation", "9.activation"]
    assert list(expected.weights) == ["4", "9"]


def test_watching_stops_when_the_block_fails():
    model = network()
    with pytest.raises(RuntimeError), watch(model):
        model(torch.zeros(2, 3))
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_every_tenth_call_is_counted():
    model, (x, _) = network(), images()
    with watch(model, every=10) as watcher:
        for _ in range(21):
            model(x)
    assert watcher.layers()["4.activation"]["samples"] == 3 * len(x)
    with (
        pytest.raises(ValueError, match="`every` must be a positive integer, got 0"),
        watch(model, every=0),
    ):
        pass


def test_what_cannot_be_measured_is_refused():
    model, (x, _) = network(), images()
    with pytest.raises(ValueError, match="`classes` must be 0 without labels"):
        measure(model, [x], classes=3)
    with pytest.raises(ValueError, match="`model` must have layers that make signs"):
        measure(torch.nn.Flatten(), [x])


# --- weights and flips


def test_weights_are_measured_on_their_signs():
    model = network("ir_net")
    for name, row in weights_of(model).items():
        layer = binary_layers(model)[name]
        share = (layer.signs() > 0).double().flatten(1).mean(1)
        assert row["entropy"] == pytest.approx(float(entropy(share).mean()))
        rounded = layer.rounded().detach().flatten(1).double()
        # The best scale by least squares, filter by filter.
        errors = []
        for latent in rounded:
            signs = hard_sign(latent)
            scale = torch.linalg.lstsq(signs[:, None], latent[:, None]).solution
            errors.append(float((latent - scale * signs).square().sum() / latent.square().sum()))
        assert row["quantisation_error"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_gaussian_weights_lose_1_minus_2_over_pi():
    weight = torch.randn(20, 5000, generator=generator(0, "w"))
    assert float(quantisation_error(weight).mean()) == pytest.approx(1 - 2 / math.pi, abs=2e-3)
    assert float(quantisation_error(torch.zeros(1, 4))) == 1.0


def test_flips_are_counted_since_the_last_look():
    model, (x, _) = network(), images()
    flips = Flips(model, x)
    assert flips.look() == {
        "weights": {"4": 0.0, "9": 0.0},
        "activations": {"4.activation": 0.0, "9.activation": 0.0},
    }
    with torch.no_grad():
        model[4].weight[:2] *= -1
        model[2].bias.add_(100.0)  # every input of the first binary layer becomes +1
    found = flips.look()
    assert found["weights"] == {"4": 2 / 6, "9": 0.0}
    assert found["activations"]["4.activation"] > 0.1
    assert flips.look()["weights"]["4"] == 0.0


# --- networks of random weights


def test_probabilities_of_a_stochastic_network_are_its_own():
    make = {"generator": generator(0, "blr")}
    model, (x, _) = BLRNet((1, 8, 8), "4C3-MP2-6FC-SM3", **make).eval(), images()
    seen = []
    tail = model.layers()[0].tail
    original = tail.analytic
    tail.analytic = lambda h, draw=None: seen.append(original(h, draw)) or seen[-1]
    expected_scores = model(x)
    del tail.analytic
    balance = measure(model, x.split(16))
    share = (1 + seen[0].mean.double().mean((0, 2, 3))) / 2
    found = balance.channels["blocks.0.tail"]["share"]
    assert found == pytest.approx(share.tolist(), rel=1e-6)
    assert list(balance.activations) == ["blocks.0.tail", "blocks.1.tail"]  # scores have no signs
    assert len(balance.weights) == 3
    assert torch.equal(model(x).mean, expected_scores.mean)


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
def test_the_layers_of_sign_networks_are_watched(kind):
    model = kind(64, (5, 4), generator=generator(0, "sign"))
    balance = measure(model, [images()[0]])
    first = model.hidden_moments(images()[0]).mean.double()
    name = "hidden.0"
    assert balance.channels[name]["share"] == pytest.approx(((1 + first.mean(0)) / 2).tolist())
    deployed = measure(model, [images()[0]], forward=model.mode)
    assert set(deployed.activations) == {"hidden.0", "hidden.1", "output"}


def test_the_deployed_network_is_watched():
    posterior = BLRNet((1, 8, 8), "4C3-MP2-6FC-SM3", generator=generator(0, "blr"))
    model = binarise(posterior)
    balance = measure(model, [images()[0]])
    assert list(balance.activations) == ["blocks.0.tail", "blocks.1.tail"]
    share = (model.layers()[0].weight > 0).double().flatten(1).mean(1)
    assert balance.weights["blocks.0"]["entropy"] == pytest.approx(float(entropy(share).mean()))


# --- what else may come


def test_watches_may_be_nested():
    model, (x, y) = network().eval(), images()
    expected = measure(model, [(x, y)], classes=CLASSES)
    with watch(model) as outer:
        model(x)
        assert measure(model, [(x, y)], classes=CLASSES) == expected
        Flips(model, x).look()
        model(x)
    # The outer one sees what the inner ones compute, too.
    assert outer.layers()["4.activation"]["samples"] == 5 * len(x)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_images_of_several_sizes_count_by_their_positions():
    kept = SignStatistics(full=False)
    kept.update(torch.ones(2, 3, 8, 8))
    kept.update(-torch.ones(2, 3, 4, 4))
    assert kept.layer()["share"] == pytest.approx(64 / 80)
    whole = SignStatistics()
    whole.update(torch.ones(2, 3, 8, 8))
    with pytest.raises(ValueError, match="`signs` must have the same shape in all batches"):
        whole.update(torch.ones(2, 3, 4, 4))


def test_an_empty_batch_changes_nothing_and_no_batch_is_refused():
    signs, labels = signs_and_labels()
    kept, expected = SignStatistics(CLASSES), SignStatistics(CLASSES)
    for each in (kept, expected):
        each.update(signs, labels)
    kept.update(signs[:0], labels[:0])
    assert kept.layer() == expected.layer()
    with pytest.raises(ValueError, match="There are no signs"):
        SignStatistics().layer()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_counted_exactly(dtype):
    signs, labels = signs_and_labels(n=300, shape=(3, 20, 20))
    found, expected = SignStatistics(CLASSES), SignStatistics(CLASSES)
    found.update(signs.to(dtype), labels)
    expected.update(signs, labels)
    assert found.layer() == expected.layer()


def test_a_loader_of_inputs_alone_will_do():
    model, (x, _) = network(), images()
    data = torch.utils.data.TensorDataset(x)
    with torch.random.fork_rng(devices=[]):
        found = measure(model, torch.utils.data.DataLoader(data, batch_size=40))
    assert found == measure(model, [x])


def test_real_weights_have_no_integers_to_make():
    model, (x, _) = network(Recipe(weights="real")), images()
    row = measure(model, [x]).activations["4.activation"]
    assert "output_entropy" not in row
    assert 0 < row["entropy"] < 1


def test_rows_of_a_sequence_are_rows_of_their_sample():
    with torch.random.fork_rng(devices=[]):
        model = torch.nn.Sequential(*(torch.nn.Linear(6, 6) for _ in range(3)))
    model = convert(model, "xnor_net").network
    x, y = torch.randn(30, 5, 6, generator=generator(0, "x")), torch.arange(30) % CLASSES
    row = measure(model, [(x, y)], classes=CLASSES).activations["1.activation"]
    assert (row["channels"], row["samples"]) == (6, 150)
    assert abs(row["information"]) < 0.1


class Odd(torch.nn.Module):
    sign_methods = ("forward",)

    def forward(self, x):
        return (x > 0).float()


def test_what_is_neither_1_nor_minus_1_is_no_sign():
    with pytest.raises(ValueError, match="Results of '0' must be ±1"):
        measure(torch.nn.Sequential(Odd()), [torch.randn(9, 2, generator=generator(0, "x"))])
    odd = Odd()
    odd.sign_methods = "forward"
    with pytest.raises(ValueError, match="`sign_methods` of '' must be a tuple"), watch(odd):
        pass


@pytest.mark.parametrize(
    "labels", [torch.tensor([-1, 1] * 20), torch.full((40,), 3), torch.eye(40, 3).long()]
)
def test_labels_are_classes(labels):
    with pytest.raises(ValueError, match="Labels must be one class of 0 to 2 a sample"):
        measure(network(), [(images()[0], labels)], classes=CLASSES)


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="`batches` must hold some, got none"):
        measure(network(), [])
