"""Real-valued networks to compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from pbnn.functional import Moments, hard_sign
from pbnn.layers import xavier_normal
from pbnn.networks import SMALL_IMAGES, check_sizes, expand_shift
from pbnn.networks.architecture import parse
from pbnn.networks.blrnet import certain, channels_last, weight_shapes


class MLP(nn.Module):
    """Real-valued baseline: tanh hidden layer, tanh output in [−1, 1], one hidden layer.

    Examples
    --------
    >>> MLP(4, hidden=(3,), generator=torch.Generator().manual_seed(0))(torch.ones(2, 4)).shape
    torch.Size([2])
    """

    shift: Tensor

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (100,),
        *,
        shift: Tensor | float = 0.0,
        generator: torch.Generator,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_features, hidden)
        if len(hidden) != 1:
            raise ValueError(f"`hidden` must be the width of one hidden layer, got {hidden}.")
        self.in_features, self.width = in_features, int(hidden[0])
        make: dict[str, Any] = {"dtype": dtype, "device": device}
        self.hidden = nn.Parameter(xavier_normal(self.width, in_features, generator, **make))
        self.hidden_bias = nn.Parameter(torch.zeros(self.width, **make))
        self.output = nn.Parameter(xavier_normal(1, self.width, generator, **make))
        self.output_bias = nn.Parameter(torch.zeros(1, **make))
        self.register_buffer("shift", expand_shift(shift, in_features, self.hidden.dtype, device))

    @property
    def config(self) -> dict[str, Any]:
        """What is needed to rebuild the network, as plain JSON values."""
        return {"in_features": self.in_features, "hidden": [self.width]}

    def forward(self, x: Tensor) -> Tensor:
        """Real output in [−1, 1], shape (n,)."""
        x = x.flatten(1) - self.shift
        hidden = torch.tanh(nn.functional.linear(x, self.hidden, self.hidden_bias))
        return torch.tanh(nn.functional.linear(hidden, self.output, self.output_bias)).squeeze(-1)

    def mode(self, x: Tensor) -> Tensor:
        """Predicted label ±1."""
        return hard_sign(self(x))


class Classifier(nn.Module):
    """Any module that gives plain scores, for the losses of a `BLRNet`.

    Parameters
    ----------
    net : Module
        Gives the scores (n, classes) of images.

    Examples
    --------
    >>> Classifier(nn.Flatten())(torch.zeros(2, 1, 1, 3))
    Moments(mean=tensor([[0., 0., 0.],
            [0., 0., 0.]]), var=tensor([[0., 0., 0.],
            [0., 0., 0.]]))
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Moments:
        """Scores (n, classes) without variance."""
        return certain(self.net(channels_last(x)))


class RealNet(Classifier):
    """Real-valued twin of a `BLRNet`: the same layers, hardtanh for the signs.

    Its activations saturate where a binary network's are signs, so that its weights are a start for
    one (`pbnn.networks.transfer`).

    Parameters
    ----------
    image : (channels, height, width)
    architecture : str
        See `pbnn.networks.architecture.parse`.
    generator : torch.Generator
        A CPU generator; draws the weights (He normal).
    dtype, device
        Of every parameter and buffer.

    Examples
    --------
    >>> network = RealNet((1, 8, 8), "4C3-MP2-SM10", generator=torch.Generator().manual_seed(0))
    >>> network(torch.rand(5, 1, 8, 8)).mean.shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        image: Sequence[int],
        architecture: str = SMALL_IMAGES,
        *,
        generator: torch.Generator,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        make: dict[str, Any] = {"dtype": dtype, "device": device}
        stages = parse(architecture)
        shapes = weight_shapes(image, stages)
        config: dict[str, Any] = {"image": list(image), "architecture": architecture}
        modules: list[nn.Module] = []
        for stage, shape in zip(stages, shapes, strict=True):
            layer = self._layer(shape, make)
            draw = torch.randn(shape, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                layer.weight.copy_(draw * math.sqrt(2 / math.prod(shape[1:])))
            if not stage.kernel:
                modules.append(nn.Flatten())
            modules += [layer, NORMS[len(shape)](stage.width, **make)]
            if stage.pool:
                modules.append(POOLS[stage.pool.kind](stage.pool.size))
            if stage is not stages[-1]:
                modules.append(nn.Hardtanh())
        super().__init__(nn.Sequential(*modules))
        self.config = config
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @staticmethod
    def _layer(shape: tuple[int, ...], make: dict[str, Any]) -> nn.Conv2d | nn.Linear:
        # Without torch's own initialisation, which draws from the global generator.
        make = make | {"bias": False, "device": make["device"] or "cpu"}
        if len(shape) == 2:
            return skip_init(nn.Linear, shape[1], shape[0], **make)
        kernel = shape[2]
        return skip_init(nn.Conv2d, shape[1], shape[0], kernel, padding=kernel // 2, **make)


NORMS: dict[int, type[nn.Module]] = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}
POOLS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
