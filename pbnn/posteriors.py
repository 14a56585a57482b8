"""Posterior and prior over a layer's weights: parameters, buffers, KL, draws and mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GaussianPosterior(nn.Module):
    r"""Posterior :math:`\mathcal N(\theta, I)` beside its prior :math:`\mathcal N(\mu, I)`.

    The sign of a linear unit does not change when its weights are scaled, so unit variance loses
    nothing and the norm of the mean takes the role of a precision.

    Parameters
    ----------
    prior_mean : Tensor
        The mean :math:`\mu`, kept as a buffer; the posterior starts there. It must not depend on
        the points a certificate is computed on.

    Examples
    --------
    >>> q = GaussianPosterior(torch.zeros(1, 2))
    >>> _ = q.mean.data.add_(torch.tensor([[3.0, 4.0]]))
    >>> q.kl().item()
    12.5
    """

    prior_mean: Tensor

    def __init__(self, prior_mean: Tensor) -> None:
        super().__init__()
        self.mean = nn.Parameter(prior_mean.detach().clone())
        self.register_buffer("prior_mean", prior_mean.detach().clone())

    def kl(self) -> Tensor:
        r"""KL(Q‖P) in nats, :math:`\tfrac12 \lVert \theta - \mu \rVert^2`, a scalar tensor."""
        return (self.mean - self.prior_mean).square().sum() / 2

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw of the weights, shaped like the mean."""
        like = self.mean
        return like + torch.randn(
            like.shape, generator=generator, dtype=like.dtype, device=like.device
        )

    def mode(self) -> Tensor:
        """The most probable weights: the mean."""
        return self.mean

    @torch.no_grad()
    def adopt_as_prior(self) -> None:
        """Make the current posterior the prior: KL becomes 0. Only before certification data."""
        self.prior_mean.copy_(self.mean)
