"""From ordinary models to binary ones: what is converted, what is left, what is refused."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pbnn.backbones import BACKBONES, lenet, mlp, resnet
from pbnn.binarize import (
    RECIPES,
    BinaryConv2d,
    BinaryLinear,
    Recipe,
    Threshold,
    after_step,
    binary_layers,
    check_latents,
    convert,
    count_operations,
    set_progress,
    set_source,
    set_stage,
)
from pbnn.functional import hard_sign
from pbnn.seeding import generator

pytestmark = pytest.mark.usefixtures("layers_of_torch_draw_nothing_that_lasts")


def model():
    return lenet((1, 8, 8), (4, 8), 16, kernel=3, generator=generator(0, "model"))


def images(n=6, of="x"):
    return torch.rand(n, 1, 8, 8, generator=generator(0, of))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("ends", [False, True])
def test_every_recipe_trains_every_layer_it_makes_binary(name, ends):
    recipe = dataclasses.replace(RECIPES[name], first=ends, last=ends)
    network, binary, left, _ = convert(model(), recipe)
    assert len(binary) + len(left) == 4
    assert len(left) == (0 if ends else 2)
    loss = F.cross_entropy(network(images()), torch.arange(6) % 10)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    after_step(network)
    for layer in binary_layers(network).values():
        assert len(layer.binary_weight().abs().unique()) <= len(layer.weight)
        assert (layer.activation is None) == (layer is network[0])


def test_signs_meet_signs_in_a_binary_layer():
    network = convert(model(), "bi_real_net").network
    layer = network[4]
    seen = []
    layer.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    network(images())
    (given, out), signs = seen[0], layer.signs()
    scale = layer.weight.abs().mean((1, 2, 3))
    expected = F.conv2d(hard_sign(given), signs, padding=1) * scale.view(-1, 1, 1)
    torch.testing.assert_close(out, expected)


def test_what_is_left_alone_is_told():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 3)
            self.up = nn.ConvTranspose2d(4, 4, 3)
            self.mirrored = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
            self.shortcut = nn.Conv2d(4, 4, 1)
            self.body = nn.Conv2d(4, 4, 3)
            self.act = nn.ReLU()
            self.scores = nn.Linear(4, 2)

    converted = convert(Odd(), "xnor_net")
    assert converted.binary == ("body",)
    assert converted.left == {
        "stem": "first layer",
        "up": "ConvTranspose2d is neither Linear nor Conv2d",
        "mirrored": "padding mode reflect",
        "shortcut": "kept by the recipe",
        "scores": "last layer",
    }
    assert converted.replaced == {"act": "ReLU by identity"}
    assert convert(Odd(), "xnor_net", layers=("stem", "shortcut")).binary == ("stem", "shortcut")


def test_the_model_is_left_as_it_was():
    twin = model()
    before = {name: value.clone() for name, value in twin.state_dict().items()}
    network = convert(twin, "xnor_net").network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in twin.state_dict().items())
    assert not binary_layers(twin)


def test_the_binary_network_loads_the_state_of_its_twin():
    twin, network = model(), convert(model(), "ir_net").network
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
    network.load_state_dict(twin.state_dict())
    assert torch.equal(network[4].weight, twin[4].weight)


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_padding_is_what_it_is_said_to_be(value):
    layer = nn.Conv2d(2, 3, 3, padding=(1, 2), stride=2, bias=False)
    x = hard_sign(torch.randn(2, 2, 5, 6, generator=generator(0, "x")))
    for binarised in (
        BinaryConv2d(layer, None, None, value),
        BinaryConv2d(layer, None, None, 0.0),
    ):
        around = F.pad(x, (2, 2, 1, 1), value=binarised.padding_value)
        expected = F.conv2d(around, layer.weight, stride=2)
        torch.testing.assert_close(binarised(x), expected)
    same = nn.Conv2d(2, 3, 5, padding="same", bias=False)
    torch.testing.assert_close(BinaryConv2d(same, None, None)(x), same(x))


def test_the_first_stage_keeps_the_weights_real():
    network = convert(model(), "bi_real_net").network
    set_stage(network, "activations")
    assert torch.equal(network[4].binary_weight(), network[4].weight)
    assert count_operations(network, (1, 8, 8)).binary == 0
    set_stage(network, "both")
    assert len(network[4].binary_weight()[0].unique()) == 2
    with pytest.raises(ValueError, match="`stage` must be 'activations' or 'both', got 'one'"):
        set_stage(network, "one")


def test_schedules_follow_the_training():
    network = convert(model(), "ir_net").network
    set_progress(network, 1.0)
    layer = network[4]
    assert float(layer.activation.slope.t) == pytest.approx(10)
    assert float(layer.binariser.slope.t) == pytest.approx(10)
    with pytest.raises(ValueError, match=r"`share` must lie in \[0, 1\], got 1.5"):
        set_progress(network, 1.5)


def test_a_recipe_draws_from_its_generator_alone():
    one, same, other = (
        convert(model(), "sd_bnn", generator=generator(seed, "asd")).network for seed in (0, 0, 1)
    )
    weights = [network[4].activation.shift.squeeze.weight for network in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# --- what is refused


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        ("xnornet", "`recipe` must be known, got 'xnornet': did you mean xnor_net"),
        ("nothing like it", "`recipe` must be known.*one of 'binary_net'"),
    ],
)
def test_an_unknown_recipe_is_refused(recipe, text):
    with pytest.raises(ValueError, match=text):
        convert(model(), recipe)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("weights", "libre", "did you mean libra?"),
        ("estimator", "clip", "did you mean clipped?"),
        ("weight_estimator", "approxsign", "did you mean approx_sign?"),
        ("shift", "asdd", "did you mean asd"),
        ("trainable", "channels", "did you mean channel?"),
        ("nonlinearity", "tanh", "did you mean hardtanh?"),
        ("padding_value", 2.0, "`padding_value` must be −1, 0 or .1, got 2.0"),
    ],
)
def test_an_unknown_part_of_a_recipe_is_refused(field, value, text):
    with pytest.raises(ValueError, match=text):
        Recipe(**{field: value})


def test_layers_that_cannot_be_binarised_are_refused():
    odd = nn.Sequential(nn.Linear(4, 4), nn.Bilinear(4, 4, 4))
    with pytest.raises(ValueError, match="got '1': Bilinear is neither Linear nor Conv2d"):
        convert(odd, "xnor_net", layers=("1",))
    with pytest.raises(ValueError, match="`layers` must name layers of the model, got 'none'"):
        convert(model(), "xnor_net", layers=("none",))
    with pytest.raises(ValueError, match="`model` must have a layer to make binary"):
        convert(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "xnor_net")
    with pytest.raises(ValueError, match="`model` must be an ordinary model"):
        convert(convert(model(), "xnor_net").network, "xnor_net")


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_latents_must_be_finite(value):
    twin = model()
    with torch.no_grad():
        twin[4].weight[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="`model` must have finite weights, got others in '4'"):
        convert(twin, "xnor_net")
    network = convert(model(), "xnor_net").network
    check_latents(network)
    with torch.no_grad():
        network[4].weight[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="latent weights of '4' must be finite"):
        check_latents(network)


# --- operations, counted by hand


def test_operations_of_a_small_network_are_those_counted_by_hand():
    twin = mlp((1, 4, 4), (8, 6), classes=3, generator=generator(0, "mlp"))
    norms = 2 * (8 + 6 + 3)
    real = count_operations(twin, (1, 4, 4))
    assert real == (0, 16 * 8 + 8 * 6 + 6 * 3, 32 * (16 * 8 + 8 * 6 + 6 * 3 + norms))
    binary = count_operations(convert(twin, "binary_net").network, (1, 4, 4))
    assert binary == (48, 128 + 18, 32 * (128 + 18 + norms) + 48)
    ends = Recipe(weights="clipped", first=True, last=True)
    everything = count_operations(convert(twin, ends).network, (1, 4, 4))
    # The first layer's inputs are real: its products are no operations on bits.
    assert everything == (48 + 18, 128, 128 + 48 + 18 + 32 * norms)


def test_operations_of_a_convolution_count_its_positions():
    twin = resnet((3, 9, 9), (4, 8), 1, "each", generator=generator(0, "resnet"))
    mode = twin.training
    network = convert(twin, "bi_real_net").network
    found = count_operations(network, (3, 9, 9))
    assert found.binary == 81 * 9 * (16 + 16) + 25 * 9 * (32 + 64)
    assert found.real == 81 * 9 * 12 + 25 * 32 + 8 * 10
    assert network.training == mode
    assert network(torch.rand(2, 3, 9, 9, generator=generator(0, "x"))).shape == (2, 10)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_draw_from_their_generator_alone(name):
    if name == "resnet18":
        pytest.skip("as resnet20, of the same function, and large")
    image = (3, 32, 32)
    one, same, other = (
        BACKBONES[name](image, generator=generator(seed, "net")) for seed in (0, 0, 1)
    )
    states = [torch.cat([p.flatten() for p in net.parameters()]) for net in (one, same, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    network = convert(one, "xnor_net").network
    x = torch.rand(2, *image, generator=generator(0, "x"))
    assert network(x).shape == (2, 10)


def test_resnet18_and_resnet20_have_their_published_sizes():
    with torch.device("meta"):
        sizes = {
            name: sum(
                p.numel()
                for p in BACKBONES[name](generator=generator(0, "net")).parameters()
                if p.ndim > 1
            )
            for name in ("resnet18", "resnet20")
        }
    # He et al.: 11.2 and .27 million.
    assert sizes["resnet18"] == pytest.approx(11.16e6, rel=0.01)
    assert sizes["resnet20"] == pytest.approx(0.27e6, rel=0.02)


def test_a_shortcut_goes_around_each_convolution_or_the_block():
    with pytest.raises(ValueError, match="`around` must be 'block' or 'each', got 'all'"):
        resnet((1, 8, 8), (4,), 1, "all", generator=generator(0, "net"))
    x = torch.rand(2, 4, 6, 6, generator=generator(0, "x"))
    block = resnet((1, 8, 8), (4,), 1, "each", generator=generator(0, "net"))[2]
    first = (block.first(x) + x).relu()
    torch.testing.assert_close(block(x), (block.second(first) + first).relu())
    block.around = "block"
    torch.testing.assert_close(block(x), (block.second(block.first(x).relu()) + x).relu())


def test_dense_layers_take_recipes_too():
    layer = BinaryLinear(nn.Linear(3, 2), None, None)
    x = torch.rand(4, 3, generator=generator(0, "x"))
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


# --- models of other people


def test_a_module_that_stands_in_several_places_is_converted_in_all():
    relu, inner = nn.ReLU(), nn.Linear(6, 6)
    chain = [nn.Linear(4, 6), relu, inner, relu, inner, relu, nn.Linear(6, 6), nn.Linear(6, 2)]
    network, binary, _, replaced = convert(nn.Sequential(*chain), "xnor_net")
    assert binary == ("2", "6")
    assert not any(isinstance(module, nn.ReLU) for module in network)
    assert network[2] is network[4]
    assert isinstance(network[4], BinaryLinear)
    assert replaced == {"1": "ReLU by identity"}


def test_activations_may_be_kept():
    chain = [nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)]
    network, _, _, replaced = convert(nn.Sequential(*chain), "xnor_net", replace=("1",))
    assert list(replaced) == ["1"]
    assert isinstance(network[3], nn.ReLU)


def test_the_first_layer_is_one_that_multiplies():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.place = nn.Parameter(torch.zeros(4, 4))
            self.norm = nn.LayerNorm((4, 4))
            self.stem, self.body, self.scores = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            return self.scores(self.body(self.stem(self.norm(x + self.place))))

    network, binary, left, _ = convert(Embedded(), "unbalanced")
    assert binary == ("body",)
    assert left["stem"] == "first layer"
    assert left["scores"] == "last layer"
    # Rows before the features are rows: thresholds are of features.
    x = torch.randn(3, 4, 4, generator=generator(0, "x"))
    assert network(x).shape == (3, 4, 4)
    one_by_one = torch.stack([network.body(row) for row in x.flatten(0, 1)[:, None]])
    torch.testing.assert_close(one_by_one.reshape(3, 4, 4), network.body(x))


def test_a_layer_alone_can_be_converted():
    recipe = Recipe(weights="bi_real", first=True, last=True)
    network = convert(nn.Linear(4, 2), recipe).network
    assert isinstance(network, BinaryLinear)
    assert len(network.binary_weight()[0].abs().unique()) == 1


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_is_that_of_torch(kernel, dilation):
    layer = nn.Conv2d(2, 3, kernel, padding="same", dilation=dilation)
    x = torch.rand(2, 2, 7, 6, generator=generator(0, "x"))
    torch.testing.assert_close(BinaryConv2d(layer, None, None)(x), layer(x))
    valid = nn.Conv2d(2, 4, kernel, padding="valid", groups=2)
    torch.testing.assert_close(BinaryConv2d(valid, None, None)(x), valid(x))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_stay_what_they_are(name, dtype):
    network = convert(model().to(dtype), RECIPES[name]).network
    out = network(images().to(dtype))
    assert out.dtype == dtype
    assert count_operations(network, (1, 8, 8)).binary > 0


def test_modes_of_modules_stay_what_they_were():
    twin = model().train()
    twin[2].eval()
    network = convert(twin, "sd_bnn").network
    assert [m.training for m in network] == [m.training for m in twin]
    assert network[4].activation.training


def test_asd_reduces_by_16_or_8():
    for name, inner in (("sd_bnn", 4), ("sd_bnn_imagenet", 8)):
        twin = mlp((1, 8, 8), (64, 64), generator=generator(0, "mlp"))
        network = convert(twin, name).network
        assert network[4].activation.shift.squeeze.out_features == inner


def test_drawn_weights_are_given_their_source():
    network = convert(model(), Recipe(weights="stochastic")).network
    set_source(network, generator(0, "draws"))
    first, second = network.train()(images()), network(images())
    assert not torch.equal(first, second)
    assert torch.equal(network.eval()(images()), network(images()))


def test_patterns_are_a_tuple_and_thresholds_fit_the_channels():
    with pytest.raises(ValueError, match="`keep` must be a tuple of patterns"):
        Recipe(keep="*shortcut*")
    with pytest.raises(ValueError, match="`start` must have 1 or 4 elements, got 3"):
        Threshold(torch.zeros(3), channels=4)


def test_a_filter_of_one_weight_has_a_gradient():
    network = convert(mlp((1, 1, 1), (1, 1), generator=generator(0, "mlp")), "ir_net").network
    network(torch.rand(4, 1, 1, 1, generator=generator(0, "x"))).sum().backward()
    assert torch.isfinite(network[4].weight.grad).all()


def test_a_relu_in_a_forward_is_noticed_on_an_example():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x):
            return self.d(self.c(self.b(self.a(x).relu())))

    x = torch.randn(20, 4, generator=generator(0, "x"))
    with pytest.warns(UserWarning, match=r"All signs that enter \['b'\] are \+1"):
        network = convert(Hidden(), "xnor_net", example=x).network
    assert network.training
    convert(model(), "xnor_net", example=images())  # without a warning


def test_names_are_checked():
    with pytest.raises(ValueError, match=r"`replace` must name activations .*, got 'relu1'"):
        convert(model(), "xnor_net", replace=("relu1",))
    for argument in ("layers", "replace"):
        with pytest.raises(ValueError, match=f"`{argument}` must be a tuple of names, got '4'"):
            convert(model(), "xnor_net", **{argument: "4"})


def test_operations_of_every_convolution_are_counted():
    one = nn.Conv1d(2, 3, 3, bias=False)
    assert count_operations(one, (2, 10)).real == 8 * 3 * 2 * 3
    up = nn.ConvTranspose2d(2, 3, 3, bias=False)
    assert count_operations(up, (2, 5, 5)).real == 25 * 2 * 3 * 9
    with pytest.raises(ValueError, match="`network` must have dense or convolutional layers"):
        count_operations(nn.BatchNorm2d(2), (2, 5, 5))


def test_a_layer_says_what_it_is():
    network = convert(model(), "xnor_net").network
    assert "(8, 4, 3, 3)" in repr(network[4])
    set_stage(network, "activations")
    assert "real weights" in repr(network[4])


def test_what_convert_gives_is_not_the_network_itself():
    converted = convert(model(), "xnor_net")
    for take in (after_step, check_latents, binary_layers, lambda c: convert(c, "xnor_net")):
        with pytest.raises(ValueError, match="got a Converted: use its `network`"):
            take(converted)


def test_names_as_papers_write_them_are_understood_as_a_hint():
    with pytest.raises(ValueError, match="did you mean xnor_net"):
        convert(model(), "XNOR-Net")
