"""Layers of binary weights and inputs: a latent layer, and what makes signs of both."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pbnn.binarize.binary_net import SignWeights
from pbnn.functional import hard_sign, sign_with_slope


class BinaryActivation(nn.Module):
    r"""Signs of pre-activations: :math:`b = \operatorname{sgn}(x + s(x))`.

    Parameters
    ----------
    slope : callable
        The gradient estimator, taken at x + s(x).
    shift : module, optional
        s, such as `Threshold` (minus a threshold) or `SelfDistribution`.

    Examples
    --------
    >>> import torch
    >>> from pbnn.binarize import Threshold, clipped
    >>> BinaryActivation(clipped, Threshold(0.3))(torch.tensor([[0.2, 0.4]]))
    tensor([[-1.,  1.]])
    """

    sign_methods = ("forward",)
    """Methods whose results are signs, for `pbnn.balance`."""

    def __init__(self, slope: nn.Module, shift: nn.Module | None = None) -> None:
        super().__init__()
        self.slope, self.shift = slope, shift

    def margin(self, x: Tensor) -> Tensor:
        """What the sign is taken of: `x` with its shift."""
        return x if self.shift is None else x + self.shift(x)

    def forward(self, x: Tensor) -> Tensor:
        """Signs of the shape of `x`."""
        return sign_with_slope(self.margin(x), self.slope)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode until the block ends, then each module in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


class _BinaryLayer(nn.Module, ABC):
    """What dense and convolutional layers share; parameters keep the names of the real layer."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        layer: nn.Module,
        binariser: SignWeights | None,
        activation: nn.Module | None,
    ) -> None:
        super().__init__()
        self.weight = layer.weight  # type: ignore[assignment]
        self.register_parameter("bias", layer.bias)  # type: ignore[arg-type]
        self.binariser, self.activation = binariser, activation
        self.real_weights = False
        self.mask: Tensor | None = None

    def binary_weight(self) -> Tensor:
        """The weights that are multiplied: signs times scales; the latents in the first stage.

        With a mask (`pbnn.representation.Held`) those that it prunes are 0.
        """
        if self.binariser is None or self.real_weights:
            return self.weight
        weight: Tensor = self.binariser(self.weight)
        return weight if self.mask is None else weight * self.mask

    def rounded(self) -> Tensor:
        """What the signs of the weights are taken of."""
        return self.weight if self.binariser is None else self.binariser.centred(self.weight)

    def signs(self) -> Tensor:
        """The signs of the weights alone; 0 where a mask prunes them."""
        signs = hard_sign(self.rounded())
        return signs if self.mask is None else signs * self.mask

    def parts(self) -> tuple[Tensor, Tensor | None]:
        """The weights that are multiplied as signs, and the scale of each filter; None for 1.

        Where weights are not signs times scales (real ones, several bases) they are all of it.
        """
        if self.binariser is None or self.real_weights:
            return self.weight, None
        signs, scale = self.binariser.parts(self.weight)
        return (signs if self.mask is None else signs * self.mask), scale

    def forward(self, x: Tensor) -> Tensor:
        """Pre-activations.

        Signs are multiplied first, which is exact, then scaled: a sum that is 0 is 0 then, and its
        sign +1; sums that are equal stay so in whatever order they are added.
        """
        x = x if self.activation is None else self.activation(x)
        signs, scale = self.parts()
        made = self.product(x, signs)
        by_channel = (-1, *(1,) * (made.ndim - 2))
        if scale is not None:
            made = made * scale.reshape(by_channel)
        return made if self.bias is None else made + self.bias.view(by_channel)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *more: Any) -> None:
        """Weights that come without what makes their signs start as they would in `convert`."""
        super()._load_from_state_dict(state, prefix, *more)
        known = any(name.startswith(f"{prefix}binariser.") for name in state)
        if self.binariser is not None and f"{prefix}weight" in state and not known:
            self.binariser.start(self.weight)

    @abstractmethod
    def product(self, signs: Tensor, weight: Tensor | None = None) -> Tensor:
        """What the binary weights, or others, make of known inputs."""

    def extra_repr(self) -> str:
        """The shape of the weights, and whether they are real for now."""
        return f"{tuple(self.weight.shape)}" + (", real weights" if self.real_weights else "")


class BinaryLinear(_BinaryLayer):
    """A dense layer of binary weights, its inputs binarised first.

    Parameters
    ----------
    layer : nn.Linear
        Its parameters become the latent weights and the bias; they are shared, not copied.
    binariser : SignWeights, optional
        What makes signs of the weights; they stay real without.
    activation : BinaryActivation, optional
        What makes signs of the inputs; they stay real without.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pre-activations; what stands before the features counts as the batch."""
        return super().forward(x.flatten(0, -2)).unflatten(0, x.shape[:-1])

    def product(self, signs: Tensor, weight: Tensor | None = None) -> Tensor:
        """What the binary weights, or others (then without bias), make of known inputs."""
        if weight is not None:
            return F.linear(signs, weight)
        return F.linear(signs, self.binary_weight(), self.bias)


class BinaryConv2d(_BinaryLayer):
    """A convolution of binary weights, its inputs binarised first.

    Parameters
    ----------
    layer : nn.Conv2d
        As for `BinaryLinear`; its padding must be of zeros.
    binariser, activation
        As for `BinaryLinear`.
    padding_value : {0, −1, +1}
        What surrounds the signs of an image. With 0 the convolution is ternary at the border.
    """

    def __init__(
        self,
        layer: nn.Conv2d,
        binariser: SignWeights | None,
        activation: nn.Module | None,
        padding_value: float = 0.0,
    ) -> None:
        super().__init__(layer, binariser, activation)
        if padding_value not in (-1, 0, 1):
            raise ValueError(f"`padding_value` must be −1, 0 or +1, got {padding_value}.")
        sizes = zip(layer.kernel_size, layer.dilation, strict=True)
        around = [(0, 0), (0, 0)]
        if layer.padding == "same":
            around = [(d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) for k, d in sizes]
        elif not isinstance(layer.padding, str):
            around = [(size, size) for size in layer.padding]
        (top, bottom), (left, right) = around
        self.border = (left, right, top, bottom)
        self.padding_value = padding_value
        self.moves: dict[str, Any] = {
            "stride": layer.stride,
            "dilation": layer.dilation,
            "groups": layer.groups,
        }

    def product(self, signs: Tensor, weight: Tensor | None = None) -> Tensor:
        """What the binary weights, or others (then without bias), make of known inputs."""
        left, right, top, bottom = self.border
        padding = (top, left)
        if self.padding_value or padding != (bottom, right):
            signs, padding = F.pad(signs, self.border, value=self.padding_value), (0, 0)
        bias = self.bias if weight is None else None
        weight = self.binary_weight() if weight is None else weight
        return F.conv2d(signs, weight, bias, padding=padding, **self.moves)


LAYERS: dict[type[nn.Module], type[_BinaryLayer]] = {
    nn.Linear: BinaryLinear,
    nn.Conv2d: BinaryConv2d,
}
"""The binary layer that stands in for a real one."""


WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd, _BinaryLayer)
"""Dense layers and convolutions, real and binary."""


def binary_layers(model: nn.Module) -> dict[str, _BinaryLayer]:
    """The binary layers of a model by name, in its order.

    Raises
    ------
    ValueError
        If it is no module.
    """
    if not isinstance(model, nn.Module):
        hint = ": use its `network`" if hasattr(model, "network") else ""
        raise ValueError(f"`model` must be a module, got a {type(model).__name__}{hint}.")
    return {n: module for n, module in model.named_modules() if isinstance(module, _BinaryLayer)}
