"""A learned binarisation mapping, to which the signs of the weights are noisy labels."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from pbnn.binarize.bi_real_net import BiRealWeights
from pbnn.binarize.binary_net import SignWeights
from pbnn.binarize.layers import binary_layers, evaluating
from pbnn.functional import hard_sign


def check_rates(plus: float, minus: float) -> None:
    """Refuse rates of flipped signs that leave nothing to learn.

    Raises
    ------
    ValueError
        Unless both are at least 0 and their sum is below 1.
    """
    if not (plus >= 0 and minus >= 0 and plus + minus < 1):
        raise ValueError(
            f"`plus` and `minus` must be at least 0 and sum to less than 1, got {plus} and {minus}."
        )


def corrected_loss(mapped: Tensor, signs: Tensor, plus: float, minus: float) -> Tensor:
    r"""The squared distance to a sign that is flipped now and then, without the flips' bias.

    .. math:: \tilde\ell(\hat q, \tilde q) = \frac{(1 - \rho_{-\tilde q})(\hat q - \tilde q)^2
        - \rho_{\tilde q} (\hat q + \tilde q)^2}{1 - \rho_+ - \rho_-}

    whose expectation over the flips is :math:`(\hat q - q)^2` of the true sign q. For
    :math:`\rho_+ = \rho_- = \rho` its gradient is that of the squared distance to
    :math:`\tilde q/(1 - 2\rho)`: the correction is then a longer target and nothing else.

    Parameters
    ----------
    mapped : Tensor
        q̂.
    signs : Tensor
        q̃ in {−1, +1}, of the same shape.
    plus, minus : float
        Probability that a true +1, or a true −1, is flipped.

    Returns
    -------
    Tensor
        Of the same shape; it may be negative.

    Raises
    ------
    ValueError
        Unless both rates are at least 0 and their sum is below 1.

    References
    ----------
    Han, Wang, Xu, Xu, Wu, Xu (2020). Training Binary Neural Networks through Learning with Noisy
    Supervision, section 3.2. https://arxiv.org/abs/2010.04871
    Natarajan, Dhillon, Ravikumar, Tewari (2013). Learning with Noisy Labels, lemma 1.

    Examples
    --------
    >>> corrected_loss(torch.tensor([0.5]), torch.tensor([1.0]), 0.0, 0.0)
    tensor([0.2500])
    """
    check_rates(plus, minus)
    of_sign = (plus + minus) / 2 + (plus - minus) / 2 * signs
    of_other = plus + minus - of_sign
    right, wrong = (mapped - signs).square(), (mapped + signs).square()
    return ((1 - of_other) * right - of_sign * wrong) / (1 - plus - minus)


class WeightMapping(nn.Module):
    r"""Three convolutions over the whole weights of a layer, a filter a picture: W ↦ q̂.

    Of c, 2c, 2c and c channels, c the inputs of a filter, with batch normalisation and ReLU
    between. Normalised is over the filters and positions of the weights themselves, in training
    and in evaluation, so that both know one mapping. Its parameters are some 72 c² (8 c² of a
    dense layer or a convolution 1x1, whose filters have no neighbours), none of them deployed.

    Parameters
    ----------
    channels : int
        c.
    kernel : {3, 1}

    Examples
    --------
    >>> weight = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    >>> mapping = WeightMapping(2)
    >>> mapping.start(weight)
    >>> torch.allclose(mapping(weight), weight, atol=1e-5)
    True
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        if channels < 1 or kernel not in (1, 3):
            got = f"{channels} and {kernel}"
            raise ValueError(f"`channels` must be positive and `kernel` 1 or 3, got {got}.")
        self.channels = channels
        widths = (channels, 2 * channels, 2 * channels, channels)
        self.convolutions = nn.ModuleList(
            skip_init(nn.Conv2d, a, b, kernel, padding=kernel // 2, bias=False)
            for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(2 * channels, track_running_stats=False) for _ in range(2)
        )
        # Positive and negative parts, kept, and subtracted: why there are twice as many channels.
        one = torch.eye(channels)
        parts = torch.cat([one, -one])
        layer: Any
        with torch.no_grad():
            for layer, centre in zip(
                self.convolutions, (parts, torch.eye(2 * channels), parts.T), strict=True
            ):
                layer.weight.zero_()
                layer.weight[:, :, kernel // 2, kernel // 2] = centre

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """Make the normalisations keep these weights as they are: the mapping is the identity."""
        x = self._pictures(weight)
        norm: Any
        for convolution, norm in zip(self.convolutions, self.norms, strict=False):
            x = convolution(x)
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.copy_(mean)
            x = x.relu()

    def forward(self, weight: Tensor) -> Tensor:
        """q̂ of the shape of `weight`.

        Raises
        ------
        ValueError
            If the filters have other channels.
        """
        x = self._pictures(weight)
        for convolution, norm in zip(self.convolutions, self.norms, strict=False):
            x = norm(convolution(x)).relu()
        out: Tensor = self.convolutions[-1](x)
        return out.view_as(weight)

    def _pictures(self, weight: Tensor) -> Tensor:
        if weight.ndim not in (2, 4) or weight.shape[1] != self.channels:
            raise ValueError(
                f"`weight` must have filters of {self.channels} channels, got shape "
                f"{tuple(weight.shape)}."
            )
        return weight if weight.ndim == 4 else weight[:, :, None, None]


class LearnedWeights(BiRealWeights):
    r"""Latent weights :math:`W \mapsto \alpha \operatorname{sgn} \hat q` of a learned mapping q̂.

    The mapping starts as the identity (`WeightMapping.start`), so that a pretrained binary network
    starts as it is, also one that is loaded later. `supervision` then pulls q̂ towards the signs of
    W, and the loss of the data flows through the sign (straight-through) into θ and W. α is the
    mean magnitude of q̂ in a filter, held constant.

    Parameters
    ----------
    shape, slope
        As for `SignWeights`.
    mapping : Module, optional
        Gives q̂ of the shape of the weights; by default a `WeightMapping`.

    Raises
    ------
    ValueError
        If the mapping does not fit the shape.

    References
    ----------
    Han et al. (2020), section 3.1. https://arxiv.org/abs/2010.04871
    """

    def __init__(
        self,
        shape: torch.Size | tuple[int, ...],
        slope: nn.Module,
        mapping: nn.Module | None = None,
    ) -> None:
        super().__init__(shape, slope)
        if mapping is None:
            neighbours = len(shape) == 4 and max(shape[2:]) > 1
            mapping = WeightMapping(shape[1], 3 if neighbours else 1)
        self.mapping = mapping
        parameter = next(self.mapping.parameters(), torch.zeros(()))
        try:
            with torch.no_grad(), evaluating(self.mapping):
                self.centred(parameter.new_zeros(shape))
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"`mapping` must fit weights of shape {tuple(shape)}: {error}"
            ) from error

    def start(self, weight: Tensor) -> None:
        """Let a `WeightMapping` start as the identity."""
        if isinstance(self.mapping, WeightMapping):
            self.mapping.start(weight)

    def centred(self, weight: Tensor) -> Tensor:
        """q̂."""
        mapped: Tensor = self.mapping(weight)
        if mapped.shape != weight.shape:
            got = f"{tuple(mapped.shape)} of {tuple(weight.shape)}"
            raise ValueError(f"`mapping` must keep the shape of the weights, got {got}.")
        return mapped


def learned_filters(shape: torch.Size | tuple[int, ...], slope: nn.Module) -> SignWeights:
    """`LearnedWeights` of convolutions, as in the paper, and plain `BiRealWeights` of dense layers.

    The filters of a dense layer are no pictures, and a mapping would be many times as large; a
    single number for each input cannot be normalised.
    """
    pictures = len(shape) > 2 and math.prod(shape) > shape[1]
    return LearnedWeights(shape, slope) if pictures else BiRealWeights(shape, slope)


def supervision(network: nn.Module, plus: float = 0.0, minus: float = 0.0) -> Tensor:
    r"""`corrected_loss` of each learned layer to the signs of its weights: its mean, summed up.

    To be added to a training loss, times a strength (`pbnn.objectives.PenalisedObjective`).

    Parameters
    ----------
    network : Module
        With layers of `LearnedWeights`.
    plus, minus : float
        ρ₊ and ρ₋ of `corrected_loss`.

    Raises
    ------
    ValueError
        If no layer is learned, or for rates that `corrected_loss` refuses.
    """
    losses = [
        corrected_loss(layer.rounded(), hard_sign(layer.weight.detach()), plus, minus).mean()
        for layer in binary_layers(network).values()
        if isinstance(layer.binariser, LearnedWeights)
    ]
    if not losses:
        raise ValueError("`network` must have convolutions of learned weights, got none.")
    return torch.stack(losses).sum()


@torch.no_grad()
def settle(network: nn.Module) -> None:
    """Make learned weights plain ones, W ← q̂ with `BiRealWeights`, and drop their mappings.

    The network computes what it did, and its state is one of a Bi-Real-Net.
    """
    for layer in binary_layers(network).values():
        if isinstance(layer.binariser, LearnedWeights):
            layer.weight.copy_(layer.rounded())
            layer.binariser = BiRealWeights(layer.weight.shape, layer.binariser.slope)
