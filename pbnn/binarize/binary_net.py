"""BinaryConnect and BinaryNet: signs of latent weights that are clipped after each step."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from pbnn.functional import hard_sign, sample_signs, sign_with_slope, straight_through


def identity(x: Tensor) -> Tensor:
    """The slope of the identity: 1 everywhere.

    References
    ----------
    Bengio, Léonard, Courville (2013). https://arxiv.org/abs/1308.3432

    Examples
    --------
    >>> identity(torch.tensor([-3.0, 0.5]))
    tensor([1., 1.])
    """
    return torch.ones_like(x)


def clipped(x: Tensor) -> Tensor:
    r"""The slope of hardtanh: :math:`1[|x| \le 1]`.

    References
    ----------
    Hubara, Courbariaux, Soudry, El-Yaniv, Bengio (2016). Binarized neural networks.
    https://arxiv.org/abs/1602.02830

    Examples
    --------
    >>> clipped(torch.tensor([-3.0, 0.5, 1.0]))
    tensor([0., 1., 1.])
    """
    return (x.abs() <= 1).to(x.dtype)


def stochastic_sign(x: Tensor, generator: Generator) -> Tensor:
    r"""A drawn sign, +1 with probability :math:`\operatorname{clip}((x + 1)/2, 0, 1)`.

    The gradient is that of its mean, hardtanh.

    References
    ----------
    Courbariaux, Bengio, David (2015). BinaryConnect, section 2.3.
    https://arxiv.org/abs/1511.00363

    Examples
    --------
    >>> stochastic_sign(torch.tensor([-1.5, 1.0]), torch.Generator())
    tensor([-1.,  1.])
    """
    mean = x.clamp(-1, 1)
    return straight_through(sample_signs(mean.detach(), generator), mean)


class SignWeights(nn.Module):
    r"""Latent weights :math:`W \mapsto \operatorname{sgn} W`; the mother of the other binarisers.

    Another one says what is rounded (`centred`), by which factor the signs are multiplied
    (`scale`), or what becomes of the latents after a step (`after_step`).

    Parameters
    ----------
    shape : sequence of int
        Of the weights, outputs first.
    slope : callable
        The gradient estimator.

    References
    ----------
    Courbariaux, Bengio, David (2015). BinaryConnect. https://arxiv.org/abs/1511.00363

    Examples
    --------
    >>> SignWeights((1, 3), clipped)(torch.tensor([[-0.3, 0.0, 2.0]]))
    tensor([[-1.,  1.,  1.]])
    """

    def __init__(self, shape: torch.Size | tuple[int, ...], slope: nn.Module) -> None:
        super().__init__()
        self.slope = slope

    def centred(self, weight: Tensor) -> Tensor:
        """What is rounded to signs."""
        return weight

    def scale(self, centred: Tensor) -> Tensor | None:
        """What the signs of each filter are multiplied by; None for 1."""
        return None

    def parts(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Signs of the shape of `weight`, and the scales (outputs, 1, ...); None for 1."""
        centred = self.centred(weight)
        return sign_with_slope(centred, self.slope), self.scale(centred)

    def forward(self, weight: Tensor) -> Tensor:
        """Signs times scales, of the shape of `weight`."""
        signs, scale = self.parts(weight)
        return signs if scale is None else scale * signs

    def start(self, weight: Tensor) -> None:
        """Nothing; called by `convert` with the weights that the training starts at."""

    def after_step(self, weight: Tensor) -> None:
        """Nothing."""


class ClippedWeights(SignWeights):
    r"""`SignWeights` whose latents are clipped to [−1, 1] after each step.

    A latent outside gets no gradient from the slope and would never come back.

    References
    ----------
    Courbariaux, Bengio, David (2015). BinaryConnect, section 2.4.
    https://arxiv.org/abs/1511.00363
    """

    def after_step(self, weight: Tensor) -> None:
        """Clip."""
        weight.clamp_(-1, 1)


class StochasticWeights(ClippedWeights):
    """Drawn signs while training, `hard_sign` in evaluation; latents clipped.

    Set `source` to a generator on the weights' device before training.
    """

    source: Generator | None = None

    def parts(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Signs of the shape of `weight`, without scales."""
        if not self.training:
            return hard_sign(weight), None
        if self.source is None:
            raise ValueError("`source` must be a generator for drawn weights: call `set_source`.")
        return stochastic_sign(weight, self.source), None
