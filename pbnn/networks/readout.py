"""Gaussian read-out of fixed features: the scores of several classes, exactly."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbnn.functional import Moments
from pbnn.posteriors import DiagonalGaussianPosterior


class GaussianReadout(nn.Module):
    r"""Random linear scores of features that were fixed before the data.

    .. math::
        s_k = w_k \cdot x, \quad w_k \sim \mathcal N(\theta_k, \operatorname{diag} \sigma^2),
        \qquad s_k \sim \mathcal N\Bigl(\theta_k \cdot x, \sum_i \sigma_i^2 x_i^2\Bigr)

    independently over classes, so that the risk of the randomised network is exact:
    `pbnn.scores.gibbs_loss`. The prior is :math:`\mathcal N(0, I)` until `adopt_as_prior`. Scores
    are compared with each other only, so the scale of a point's features has no effect.

    Parameters
    ----------
    in_features, classes : int
    dtype, device
        Of every parameter and buffer.

    Examples
    --------
    >>> readout = GaussianReadout(3, 2)
    >>> readout(torch.ones(1, 3)).var
    tensor([[3.]], grad_fn=<MmBackward0>)
    """

    def __init__(
        self,
        in_features: int,
        classes: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("classes", classes)):
            if value < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {value}.")
        self.config: dict[str, Any] = {"in_features": in_features, "classes": classes}
        prior = torch.zeros(classes, in_features, dtype=dtype, device=device)
        self.weight = DiagonalGaussianPosterior(prior)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.weight.mean)

    def forward(self, x: Tensor) -> Moments:
        """Moments of the scores: means (n, classes), variances (n, 1)."""
        return Moments(F.linear(x, self.weight.mean), F.linear(x.square(), self.weight.variance))

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Scores (n, classes) under one draw of the weights."""
        return F.linear(x, self.weight.sample(generator))

    def mode(self, x: Tensor) -> Tensor:
        """Scores (n, classes) of the mean weights, whose arg max is the vote of all networks."""
        return F.linear(x, self.weight.mode())

    def known(self, weight: Tensor) -> nn.Linear:
        """One deterministic read-out of these weights: the network that is deployed."""
        like: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        size = weight.shape[1], weight.shape[0]
        deployed = nn.utils.skip_init(nn.Linear, *size, bias=False, **like).requires_grad_(False)
        deployed.weight.copy_(weight)
        return deployed

    def kl(self) -> Tensor:
        """KL(Q‖P) of all weights in nats."""
        return self.weight.kl()

    def adopt_as_prior(self) -> None:
        """Make the current posterior the prior, as after training on the prior split."""
        self.weight.adopt_as_prior()
