"""Posterior and prior over a layer's weights: parameters, buffers, KL, draws and mode."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbnn.functional import hard_sign, sample_signs, straight_through


class GaussianPosterior(nn.Module):
    r"""Posterior :math:`\mathcal N(\theta, I)` beside its prior :math:`\mathcal N(\mu, I)`.

    The sign of a linear unit does not change when its weights are scaled, so unit variance loses
    nothing and the norm of the mean takes the role of a precision.

    Parameters
    ----------
    prior_mean : Tensor
        The mean :math:`\mu`, kept as a buffer. It must not depend on the points a certificate is
        computed on.
    mean : Tensor, optional
        Where the posterior starts; by default at the prior.

    Examples
    --------
    >>> q = GaussianPosterior(torch.zeros(1, 2))
    >>> _ = q.mean.data.add_(torch.tensor([[3.0, 4.0]]))
    >>> q.kl().item()
    12.5
    """

    law = "gaussian"
    prior_mean: Tensor

    def __init__(self, prior_mean: Tensor, mean: Tensor | None = None) -> None:
        super().__init__()
        start = prior_mean if mean is None else mean
        self.mean = nn.Parameter(start.detach().clone())
        self.register_buffer("prior_mean", prior_mean.detach().clone())

    def kl(self) -> Tensor:
        r"""KL(Q‖P) in nats, :math:`\tfrac12 \lVert \theta - \mu \rVert^2`, a scalar tensor."""
        return (self.mean - self.prior_mean).square().sum() / 2

    def sample(self, generator: torch.Generator, draws: int | None = None) -> Tensor:
        """One draw of the weights, shaped like the mean, or a stack of several."""
        like = _stacked(self.mean, draws)
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


class DiagonalGaussianPosterior(nn.Module):
    r"""Posterior :math:`\mathcal N(\theta, \operatorname{diag} \sigma^2)` beside its prior
    :math:`\mathcal N(\mu, \operatorname{diag} \tau^2)`.

    .. math::
        \mathrm{KL} = \tfrac12 \sum_i \Bigl(\frac{(\theta_i - \mu_i)^2}{\tau_i^2}
        + \frac{\sigma_i^2}{\tau_i^2} - 1 - \ln \frac{\sigma_i^2}{\tau_i^2}\Bigr)

    Where inputs spread, less noise is bought for a logarithm, and the mean may be as much smaller.
    Rows of weights may share their deviations.

    Parameters
    ----------
    prior_mean : Tensor
        The means :math:`\mu`, kept as a buffer like τ, which is 1 until `adopt_as_prior`. They must
        not depend on the points a certificate is computed on.
    shared : bool
        Whether all rows (the first axis) have the same deviations.

    Examples
    --------
    >>> q = DiagonalGaussianPosterior(torch.zeros(1, 2))
    >>> _ = q.log_deviation.data.fill_(-1.0)
    >>> round(q.kl().item(), 4)  # e^-2 - 1 + 2
    1.1353
    """

    law = "gaussian"
    prior_mean: Tensor
    prior_log_deviation: Tensor

    def __init__(self, prior_mean: Tensor, *, shared: bool = True) -> None:
        super().__init__()
        self.mean = nn.Parameter(prior_mean.detach().clone())
        unit = torch.zeros_like(prior_mean[:1] if shared else prior_mean)
        self.log_deviation = nn.Parameter(unit)
        self.register_buffer("prior_mean", prior_mean.detach().clone())
        self.register_buffer("prior_log_deviation", unit.clone())

    @property
    def variance(self) -> Tensor:
        """The variances σ², with one row if that is shared."""
        return torch.exp(2 * self.log_deviation)

    def kl(self) -> Tensor:
        """KL(Q‖P) in nats, a scalar tensor."""
        log_ratio = 2 * (self.log_deviation - self.prior_log_deviation)
        copies = len(self.mean) // len(log_ratio)
        spread = copies * (torch.expm1(log_ratio) - log_ratio).sum()
        moved = (self.mean - self.prior_mean) * torch.exp(-self.prior_log_deviation)
        return (moved.square().sum() + spread) / 2

    def sample(self, generator: torch.Generator, draws: int | None = None) -> Tensor:
        """One draw of the weights, shaped like the mean, or a stack of several."""
        like = _stacked(self.mean, draws)
        noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        return like + self.log_deviation.exp() * noise

    def mode(self) -> Tensor:
        """The most probable weights: the mean."""
        return self.mean

    @torch.no_grad()
    def adopt_as_prior(self) -> None:
        """Make the current posterior the prior: KL becomes 0. Only before certification data."""
        self.prior_mean.copy_(self.mean)
        self.prior_log_deviation.copy_(self.log_deviation)


class BernoulliPosterior(nn.Module):
    r"""Independent signs of mean θ beside a prior of mean θ₀.

    .. math::
        P(w = +1) = \tfrac12 (1 + \theta), \qquad \theta = \tanh \rho, \qquad
        \mathrm{KL} = \sum_i q_i \ln \frac{q_i}{p_i} + (1 - q_i) \ln \frac{1 - q_i}{1 - p_i}

    The parameter ρ is half the logarithm of the odds; every real number is allowed.

    Parameters
    ----------
    prior_mean : Tensor
        The means θ₀ in [−1, 1], kept as a buffer like ρ, which tells probabilities next to 0 and 1
        apart. They must not depend on the points a certificate is computed on.
    mean : Tensor, optional
        Where the posterior starts; by default at the prior.

    References
    ----------
    Peters and Welling (2018), Section 3.1. https://arxiv.org/abs/1809.03368

    Examples
    --------
    >>> q = BernoulliPosterior(torch.zeros(3), torch.tensor([1.0, -1.0, 0.0]))
    >>> round(q.kl().item(), 4)
    1.3863
    """

    law = "bernoulli"
    prior_half_logit: Tensor

    def __init__(self, prior_mean: Tensor, mean: Tensor | None = None) -> None:
        super().__init__()
        start = prior_mean if mean is None else mean
        for name, value in (("prior_mean", prior_mean), ("mean", start)):
            if not bool((value.abs() <= 1).all()):
                raise ValueError(f"`{name}` must lie in [-1, 1], got {value.abs().max()}.")
        self.half_logit = nn.Parameter(torch.atanh(start.detach()))
        self.register_buffer("prior_half_logit", torch.atanh(prior_mean.detach()))

    @property
    def mean(self) -> Tensor:
        """The means θ of the signs."""
        return torch.tanh(self.half_logit)

    @property
    def prior_mean(self) -> Tensor:
        """The means θ₀ of the prior's signs."""
        return torch.tanh(self.prior_half_logit)

    def kl(self) -> Tensor:
        """KL(Q‖P) in nats, a scalar tensor; infinite where the prior excludes a sign."""
        # In float64: terms of weights that have hardly moved cancel, and a sum of many adds up.
        mine, prior = 2 * self.half_logit.double(), 2 * self.prior_half_logit.double()
        up, down = F.logsigmoid(mine), F.logsigmoid(-mine)
        ratios = up - F.logsigmoid(prior), down - F.logsigmoid(-prior)
        terms = _share(up, ratios[0]) + _share(down, ratios[1])
        return terms.sum().clamp_min(0).to(self.half_logit)

    def sample(self, generator: torch.Generator, draws: int | None = None) -> Tensor:
        """One draw of the signs, shaped like the means, or a stack of several.

        With the gradient of the means, as `mode`.
        """
        mean = _stacked(self.mean, draws)
        return straight_through(sample_signs(mean.detach(), generator), mean)

    def mode(self) -> Tensor:
        """The most probable signs, +1 where both are so, with the gradient of the means."""
        return straight_through(hard_sign(self.half_logit), self.mean)

    @torch.no_grad()
    def chance_of_other(self) -> Tensor:
        """Probability that a draw differs from the mode, in float64, at most ½."""
        return torch.sigmoid(-2 * self.half_logit.double().abs())

    @torch.no_grad()
    def commit(self, size: float) -> None:
        """Make every mean plus or minus `size`, whatever it was, and keep its sign.

        Examples
        --------
        >>> q = BernoulliPosterior(torch.tensor([0.1, -0.7]))
        >>> q.commit(0.9)
        >>> q.mean
        tensor([ 0.9000, -0.9000], grad_fn=<TanhBackward0>)
        """
        if not 0 < size < 1:
            raise ValueError(f"`size` must lie in (0, 1), got {size}.")
        self.half_logit.copy_(math.atanh(size) * self.mode())

    def ternary(self) -> Tensor:
        """The signs of probability at least ¾, and 0 for the others."""
        return torch.where(self.mean.abs() >= 0.5, self.mode(), 0.0)

    @torch.no_grad()
    def adopt_as_prior(self) -> None:
        """Make the current posterior the prior: KL becomes 0. Only before certification data."""
        self.prior_half_logit.copy_(self.half_logit)


def _stacked(mean: Tensor, draws: int | None) -> Tensor:
    return mean if draws is None else mean.expand(draws, *mean.shape)


def _share(log_probability: Tensor, log_ratio: Tensor) -> Tensor:
    """Probability times logarithm, 0 where the probability is 0; no gradient there or where ∞."""
    finite = log_ratio.isfinite()
    product = torch.where(finite, log_probability, 0.0).exp() * torch.where(finite, log_ratio, 0.0)
    limit = torch.where(log_ratio.isnan(), torch.nan, torch.inf)
    limit = torch.where(log_probability == -torch.inf, 0.0, limit)
    return torch.where(finite, product, limit)
