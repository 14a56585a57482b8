"""Dense and convolutional layers of random weights, before any normalisation or sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbnn.functional import Moments, Signs, Units, conv2d, linear
from pbnn.posteriors import BernoulliPosterior, GaussianPosterior

Posterior = BernoulliPosterior | GaussianPosterior


@dataclass(frozen=True)
class Dense:
    """Every unit reads every input, images as one long row."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """What known weights make of known inputs."""
        return F.linear(x.flatten(1), weight)

    def moments(self, x: Units, weight: Tensor, law: str) -> Moments:
        """Moments of the same for random weights of these means."""
        return linear(_flat(x), weight, law)


@dataclass(frozen=True)
class Convolution:
    """How filters move over an image; parameters of `pbnn.functional.conv2d`."""

    stride: int = 1
    padding: int = 0
    padding_value: float = 0.0
    groups: int = 1

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """What known weights make of known inputs."""
        if self.padding:
            x = F.pad(x, (self.padding,) * 4, value=self.padding_value)
        return F.conv2d(x, weight, stride=self.stride, groups=self.groups)

    def moments(self, x: Units, weight: Tensor, law: str) -> Moments:
        """Moments of the same for random weights of these means."""
        return conv2d(
            x,
            weight,
            law,
            stride=self.stride,
            padding=self.padding,
            padding_value=self.padding_value,
            groups=self.groups,
        )


def _flat(x: Units) -> Units:
    if isinstance(x, Tensor):
        return x.flatten(1)
    if isinstance(x, Signs):
        return x._replace(mean=x.mean.flatten(1))
    return Moments(x.mean.flatten(1), x.var.expand_as(x.mean).flatten(1))


class StochasticLayer(nn.Module):
    """Random weights multiplied with inputs, in three ways.

    Parameters
    ----------
    weight : BernoulliPosterior or GaussianPosterior
        Of shape (out, in) for `Dense`, (out, in / groups, kernel, kernel) for `Convolution`.
    product : Dense or Convolution

    Examples
    --------
    >>> fair = BernoulliPosterior(torch.zeros(2, 3))
    >>> StochasticLayer(fair, Dense()).analytic(torch.ones(1, 3))
    Moments(mean=tensor([[0., 0.]], grad_fn=...), var=tensor([[3., 3.]], grad_fn=...))
    """

    def __init__(self, weight: Posterior, product: Dense | Convolution) -> None:
        super().__init__()
        self.weight, self.product = weight, product

    def analytic(self, x: Units) -> Moments:
        """Moments of the pre-activations: exact for known inputs or independent units."""
        return self.product.moments(x, self.weight.mean, self.weight.law)

    def sample(
        self,
        x: Tensor,
        generator: torch.Generator,
        fresh: Literal["batch", "datum"] = "batch",
    ) -> Tensor:
        """Pre-activations of known inputs under one draw of the weights for all, or one each.

        With "datum" as many weights as points times weights are held at once.
        """
        if fresh == "batch":
            return self.product(x, self.weight.sample(generator))
        if fresh != "datum":
            raise ValueError(f"`fresh` must be 'batch' or 'datum', got {fresh!r}.")
        draws = self.weight.sample(generator, len(x))
        each: Tensor = torch.vmap(self.product)(x[:, None], draws)
        return each.squeeze(1)

    def mode(self, x: Tensor) -> Tensor:
        """Pre-activations of known inputs under the most probable weights."""
        return self.product(x, self.weight.mode())

    def kl(self) -> Tensor:
        """KL of the weights in nats."""
        return self.weight.kl()
