"""A dense layer of Gaussian weights and the sign that follows it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pbnn.functional import (
    Signs,
    append_one,
    expect_over_signs,
    hard_sign,
    linear,
    sample_signs,
    sign,
    sign_patterns,
)
from pbnn.posteriors import GaussianPosterior
from pbnn.quadrature import expected_sign

ENUMERATED_UP_TO = 8
"""Signs up to which a unit's mean is summed over their patterns; for more, quadrature is faster."""


def xavier_normal(
    out_features: int,
    in_features: int,
    generator: torch.Generator,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Xavier-normal means of shape (out, in), drawn on the CPU so that any device agrees.

    Variance 2/(in + out) (Glorot and Bengio 2010).
    """
    scale = math.sqrt(2 / (in_features + out_features))
    draw = torch.randn(out_features, in_features, generator=generator, dtype=torch.float64) * scale
    return draw.to(dtype=dtype or torch.get_default_dtype(), device=device)


class SignLinear(nn.Module):
    """A dense layer with Gaussian weights followed by the sign.

    A bias is the weight of an appended constant 1: it joins the numerator, the normaliser and the
    KL alike.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    scale : float
        Factor of the prior mean; the posterior starts at the unscaled draw.
    generator : torch.Generator
        A CPU generator; draws the prior mean (Xavier normal, bias 0).
    dtype, device
        Of every parameter and buffer.
    """

    sign_methods = ("activation", "analytic", "mode")
    """Methods whose results are signs, or means of random ones, for `pbnn.balance`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        scale: float = 1.0,
        generator: torch.Generator,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= scale < math.inf:
            raise ValueError(f"`scale` must be a number of at least 0, got {scale}.")
        self.bias = bias
        self.in_features = in_features
        self.out_features = out_features
        draw = self._draw(generator, dtype, device)
        self.weight = GaussianPosterior(scale * draw)
        # From a centred prior too, units must start apart to become different.
        self.weight.mean.data.copy_(draw)

    def _draw(
        self,
        generator: torch.Generator,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        mean = xavier_normal(
            self.out_features, self.in_features, generator, dtype=dtype, device=device
        )
        if not self.bias:
            return mean
        return torch.cat([mean, mean.new_zeros(self.out_features, 1)], dim=1)

    def inputs(self, x: Tensor) -> Tensor:
        """The input with the constant of the bias, if there is one."""
        return append_one(x) if self.bias else x

    def activation(self, x: Tensor) -> Signs:
        """Exact mean of each unit's sign for a known input."""
        return sign(linear(self.inputs(x), self.weight.mean))

    def analytic(self, x: Signs) -> Signs:
        """Mean-field mean of each unit's sign for random signs (central limit theorem)."""
        return sign(linear(Signs(self.inputs(x.mean)), self.weight.mean))

    def expected_signs(self, mean: Tensor) -> Tensor:
        """Exact mean of each unit's sign for independent random signs with these means.

        Enumerated up to 8 inputs, by quadrature beyond; (n, in) to (n, out).
        """
        if self.in_features > ENUMERATED_UP_TO:
            # The bias reads a sign that is +1 for sure.
            return expected_sign(self.inputs(mean), self.weight.mean)
        patterns = sign_patterns(self.in_features, dtype=mean.dtype, device=mean.device)
        return expect_over_signs(self.given_signs(patterns).T, mean)

    def given_signs(self, signs: Tensor) -> Tensor:
        """Exact mean of each unit's sign for known input signs, (*, in) to (*, out)."""
        inputs = self.inputs(signs)
        argument = nn.functional.linear(inputs, self.weight.mean)
        return torch.erf(argument / math.sqrt(2 * inputs.shape[-1]))

    def given_own_signs(self, signs: Tensor) -> Tensor:
        """The same where each unit reads signs of its own, (*, out, in) to (*, out)."""
        inputs = self.inputs(signs)
        argument = (inputs * self.weight.mean).sum(-1)
        return torch.erf(argument / math.sqrt(2 * inputs.shape[-1]))

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Signs of one fresh draw of the layer for every datum (row) of `x`.

        Given the input, the signs of different units are independent, so drawing them is the same
        as drawing the weights.
        """
        return sample_signs(self.activation(x).mean, generator)

    def mode(self, x: Tensor) -> Tensor:
        """Signs of the deterministic layer at the posterior mean."""
        return hard_sign(nn.functional.linear(self.inputs(x), self.weight.mode()))

    def kl(self) -> Tensor:
        """KL of the layer's weights in nats."""
        return self.weight.kl()

    @torch.no_grad()
    def restart(self, generator: torch.Generator) -> None:
        """Redraw the posterior's starting point; the prior stays."""
        mean = self.weight.mean
        mean.copy_(self._draw(generator, mean.dtype, mean.device))
