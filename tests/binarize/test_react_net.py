"""ReActNet: its two activations, and how many channels they find."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pbnn.backbones import lenet, mlp, resnet
from pbnn.binarize import RPReLU, approx_sign, binary_layers, convert, count_operations
from pbnn.functional import hard_sign
from pbnn.seeding import generator

pytestmark = pytest.mark.usefixtures("layers_of_torch_draw_nothing_that_lasts")


def normal(*shape, of="w"):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def moved(module):
    """With parameters away from their start."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(normal(*parameter.shape, of=name))
    return module


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4, 2)])
def test_rprelu_is_the_formula(shape):
    layer, x = moved(RPReLU(3).double()), normal(*shape)
    sizes = (-1, *(1,) * (len(shape) - 2))
    before, slope, after = (
        p.detach().view(sizes) for p in (layer.before, layer.slope, layer.after)
    )
    inner = x + before
    expected = torch.where(inner >= 0, inner, slope * inner) + after
    torch.testing.assert_close(layer(x).detach(), expected)
    names = ("before", "slope", "after")
    assert torch.autograd.gradcheck(
        lambda x, *own: torch.func.functional_call(layer, dict(zip(names, own, strict=True)), x),
        (x.requires_grad_(), *(getattr(layer, name) for name in names)),
    )


def test_rprelu_starts_as_a_prelu():
    x = normal(4, 3, 2, 2)
    torch.testing.assert_close(RPReLU(3).double()(x), F.prelu(x, torch.tensor(0.25).double()))


def test_rsign_shifts_each_channel():
    network = convert(dense(), "react_net").network.double()
    activation = moved(network[4].activation)
    x, outer = normal(7, 6).requires_grad_(), normal(7, 6, of="outer")
    (activation(x) * outer).sum().backward()
    shifted = (x - activation.shift.value).detach()
    torch.testing.assert_close(activation(x).detach(), hard_sign(shifted))
    torch.testing.assert_close(x.grad, outer * approx_sign(shifted))
    assert activation.shift.value.shape == (6,)


def dense():
    return mlp((1, 4, 4), (6, 8), generator=generator(0, "model"))


@pytest.mark.parametrize("with_example", [False, True])
@pytest.mark.parametrize(
    ("make", "widths"),
    [
        (dense, [6, 8]),
        (lambda: lenet((1, 8, 8), (4, 6), 16, generator=generator(0, "m")), [4, 6, 16]),
        (
            lambda: resnet((1, 8, 8), (4, 6), 1, "each", generator=generator(0, "m")),
            [4, 4, 4, 6, 6],
        ),
    ],
)
def test_every_activation_finds_its_width(make, widths, with_example):
    twin = make()
    image = (1, 4, 4) if widths == [6, 8] else (1, 8, 8)
    x = torch.rand(5, *image, generator=generator(0, "x"))
    network = convert(twin, "react_net", example=x if with_example else None).network
    found = [len(m.slope) for m in network.modules() if isinstance(m, RPReLU)]
    assert found == widths
    assert network(x).shape == (5, 10)
    parameters = 32 * 3 * sum(widths)
    thresholds = 32 * sum(
        layer.activation.shift.value.numel() for layer in binary_layers(network).values()
    )
    plain = count_operations(convert(twin, "bi_real_net").network, image)
    bits = count_operations(network, image).parameter_bits
    assert bits == plain.parameter_bits + parameters + thresholds


class Misleading(nn.Module):
    """Registers its activation before the layer that it follows."""

    def __init__(self, again=False):
        super().__init__()
        self.stem, self.act = nn.Conv2d(1, 4, 3), nn.ReLU()
        self.body, self.scores = nn.Conv2d(4, 6, 3), nn.Linear(6, 2)
        self.again = again

    def forward(self, x):
        x = self.stem(x)
        x = self.body(self.act(x) if self.again else x)
        return self.scores(self.act(x).mean((2, 3)))


def test_an_example_tells_the_width_that_the_order_does_not():
    x = torch.rand(3, 1, 8, 8, generator=generator(0, "x"))
    with pytest.raises(ValueError, match=r"`x` must be of shape \(n, 4\) .* an `example`"):
        convert(Misleading(), "react_net").network(x)
    network = convert(Misleading(), "react_net", example=x).network
    assert len(network.act.slope) == 6
    assert network(x).shape == (3, 2)


def test_an_activation_of_two_widths_cannot_have_parameters():
    x = torch.rand(3, 1, 8, 8, generator=generator(0, "x"))
    with pytest.raises(ValueError, match=r"must have one width, got 'act' with \[4, 6\] channels"):
        convert(Misleading(again=True), "react_net", example=x)
    convert(Misleading(again=True), "bi_real_net", example=x)


def test_the_channels_of_a_sequence_are_not_guessed():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"`x` must be of shape \(n, 5\) .* got \(3, 5, 5\)"):
        convert(model, "react_net").network(torch.zeros(3, 5, 4))


def test_an_activation_without_channels_is_no_matter_but_of_parameters():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.open = nn.Parameter(torch.zeros(())), nn.Sigmoid()
            self.body = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))

        def forward(self, x):
            return self.body(x) * self.open(self.gate)

    x = torch.zeros(3, 4)
    assert convert(Gated(), "bi_real_net", example=x).network(x).shape == (3, 4)
    with pytest.raises(ValueError, match=r"must have one width, got 'open' with \[0\] channels"):
        convert(Gated(), "react_net", example=x)


def test_channels_are_a_positive_number():
    with pytest.raises(ValueError, match="`channels` must be a positive integer, got 0"):
        RPReLU(0)


def test_an_activation_before_any_layer_has_no_width_to_guess():
    model = nn.Module()
    model.act = nn.ReLU()
    model.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    with pytest.raises(ValueError, match=r"'act' with \[0\] channels: give an `example`"):
        convert(model, "react_net")
