"""What a posterior costs, rounded up: divergences and log-ratios in nats, least losses of votes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbnn.networks import BinaryNetwork, BLRNet, SignNetwork
from pbnn.posteriors import BernoulliPosterior, DiagonalGaussianPosterior, GaussianPosterior
from pbnn.quadrature import UNIT_ROUNDOFF

Posterior = GaussianPosterior | DiagonalGaussianPosterior | BernoulliPosterior
Terms = list[Tensor]
"""Summands in float64, each right to a few units of its own size."""


@torch.no_grad()
def kl_upper(network: nn.Module) -> float:
    """KL(Q‖P) in nats of all weights, in float64, rounded up by the worst case of its summation."""
    if isinstance(network, SignNetwork):
        parts = zip(network.copies(), network.layers(), strict=True)
        weights: list[tuple[int, Posterior]] = [(n, layer.weight) for n, layer in parts]
    else:
        weights = [(1, part) for part in _posteriors(network)]
    if not weights:
        raise ValueError(f"`network` must have posteriors, got a {type(network).__name__}.")
    total = sum(copies * _rounded_up(_KL[type(weight)](weight)) for copies, weight in weights)
    return total * (1 + 2 * len(weights) * UNIT_ROUNDOFF)


@torch.no_grad()
def is_prior(network: nn.Module) -> bool:
    """Whether the posterior of all weights is the prior, number by number."""
    weights = _posteriors(network)
    pairs = [
        (getattr(part, name.removeprefix("prior_")), prior)
        for part in weights
        for name, prior in part.named_buffers()
    ]
    return bool(pairs) and all(torch.equal(own, prior) for own, prior in pairs)


@torch.no_grad()
def code_length(network: nn.Module, drawn: nn.Module | None = None) -> float:
    r"""Nats that describe a binary network, rounded up: by default the most probable one.

    .. math:: L = -\ln P(h) = \sum_i \ln \frac{2}{1 + h_i \theta^P_i}

    The prior on signs is a code that any network of the same shape has; see `pbnn.bounds.occam`.

    Parameters
    ----------
    network : module
        Whose prior is the code.
    drawn : BinaryNetwork, optional
        The network to describe, of the shape of `network`.

    Raises
    ------
    ValueError
        If weights are not signs: a density is no code.
    """
    weights = _posteriors(network)
    if not weights or not all(isinstance(part, BernoulliPosterior) for part in weights):
        raise ValueError("`network` must have binary weights, got others.")
    if isinstance(drawn, BinaryNetwork):
        signs = [block.weight for block in drawn.layers()]
    else:
        signs = [part.mode() for part in weights]
    if not all(bool((each.abs() == 1).all()) for each in signs):
        raise ValueError("`drawn` must have weights ±1, got others.")
    summands = []
    for part, each in zip(weights, signs, strict=True):
        (_, up), (_, down) = _log_probabilities(part)
        summands.append(-torch.where(each > 0, up, down))
    return _rounded_up(summands)


@torch.no_grad()
def log_ratio_upper(posterior: nn.Module, drawn: Tensor | nn.Module) -> float:
    """ln dQ/dP in nats of what was drawn, in float64, rounded up by the worst case likewise.

    Parameters
    ----------
    posterior : module
        Of one layer's weights, or a `BLRNet`. Draw in float64 (``network.double()``): the law of a
        draw is then the posterior up to 2⁻⁵³ a weight.
    drawn : Tensor or module
        The weights, or the `BinaryNetwork` that was drawn from it.
    """
    pairs: list[tuple[Posterior, Tensor]]
    if isinstance(posterior, BLRNet) and isinstance(drawn, BinaryNetwork):
        blocks = zip(posterior.layers(), drawn.layers(), strict=True)
        pairs = [(block.layer.weight, one.weight) for block, one in blocks]
    elif isinstance(posterior, Posterior) and isinstance(drawn, Tensor):
        pairs = [(posterior, drawn)]
    else:
        raise TypeError(
            "`posterior` and `drawn` must be a posterior and weights, or a BLRNet and a "
            f"BinaryNetwork, got {type(posterior).__name__} and {type(drawn).__name__}."
        )
    terms = [_LOG_RATIO[type(own)](own, weight.double()) for own, weight in pairs]
    return _rounded_up([summand for summands in terms for summand in summands])


def _posteriors(network: nn.Module) -> list[Posterior]:
    return [part for part in network.modules() if isinstance(part, Posterior)]


def _rounded_up(summands: Terms) -> float:
    """The sum, and the worst case of its error: 8 u of each summand and one u an addition."""
    terms = sum(each.numel() for each in summands)
    total = sum(float(each.sum()) for each in summands)
    size = sum(float(each.abs().sum()) for each in summands)
    return total + 2 * (terms + 8) * UNIT_ROUNDOFF * size


def _gaussian_kl(q: Posterior) -> Terms:
    return [(q.mean.double() - q.prior_mean.double()).square() / 2]


def _diagonal_kl(q: Posterior) -> Terms:
    assert isinstance(q, DiagonalGaussianPosterior)
    mine, theirs = q.log_deviation.double(), q.prior_log_deviation.double()
    moved = (q.mean.double() - q.prior_mean.double()) * torch.exp(-theirs)
    half = len(q.mean) // len(mine) / 2
    ratio = 2 * (mine - theirs)
    # Rounding moves a ratio by 4 u of its parts, and its exponential by as much of itself.
    slack = [part * half * ratio.abs().exp() for part in (mine, -mine, theirs, -theirs)]
    return [moved.square() / 2, half * torch.expm1(ratio), -half * ratio, *slack]


def _bernoulli_kl(q: Posterior) -> Terms:
    summands = []
    for own, theirs in _log_probabilities(q):
        share = own.exp()
        summands += [torch.where(share > 0, share * part, 0.0) for part in (own, -theirs)]
    return summands


def _log_probabilities(q: Posterior) -> list[tuple[Tensor, Tensor]]:
    """Logarithms of the probabilities of +1 under Q and P, and those of −1."""
    assert isinstance(q, BernoulliPosterior)
    mine, prior = 2 * q.half_logit.double(), 2 * q.prior_half_logit.double()
    return [(F.logsigmoid(s * mine), F.logsigmoid(s * prior)) for s in (1, -1)]


def _gaussian_log_ratio(q: Posterior, weight: Tensor) -> Terms:
    mean, prior = q.mean.double(), q.prior_mean.double()
    move = mean - prior
    return [move * weight, -move * (mean + prior) / 2]


def _diagonal_log_ratio(q: Posterior, weight: Tensor) -> Terms:
    assert isinstance(q, DiagonalGaussianPosterior)
    mine, theirs = q.log_deviation.double(), q.prior_log_deviation.double()
    own = (weight - q.mean.double()) * torch.exp(-mine)
    other = (weight - q.prior_mean.double()) * torch.exp(-theirs)
    copies = len(q.mean) // len(mine)
    return [other.square() / 2, -own.square() / 2, copies * theirs, -copies * mine]


def _bernoulli_log_ratio(q: Posterior, weight: Tensor) -> Terms:
    if not bool((weight.abs() == 1).all()):
        raise ValueError("`drawn` must have weights ±1, got others.")
    (up, theirs_up), (down, theirs_down) = _log_probabilities(q)
    own = torch.where(weight > 0, up, down)
    return [own, -torch.where(weight > 0, theirs_up, theirs_down)]


_KL: dict[type[Posterior], Callable[[Posterior], Terms]] = {
    GaussianPosterior: _gaussian_kl,
    DiagonalGaussianPosterior: _diagonal_kl,
    BernoulliPosterior: _bernoulli_kl,
}

_LOG_RATIO: dict[type[Posterior], Callable[[Posterior, Tensor], Terms]] = {
    GaussianPosterior: _gaussian_log_ratio,
    DiagonalGaussianPosterior: _diagonal_log_ratio,
    BernoulliPosterior: _bernoulli_log_ratio,
}


def least_loss_of_right_vote(network: SignNetwork) -> float:
    r"""Lower bound, for every input, on the Gibbs loss: b = ½ erfc(t/√2), rounded down.

    Wherever the vote is right the loss :math:`(1 - |F|)/2` is at least this, with t the largest
    argument of the output unit: ‖w‖₁/√d for d hidden signs (a bias joins the norm and the count),
    ‖w‖₂ for a single unit on real inputs. Without a bias that unit has no loss at all where its
    input is zero, since sgn 0 = +1 for every draw, so b = 0.
    """
    if not network.widths and not network.bias:
        return 0.0
    weight = network.output.weight.mean.detach().double()
    if network.widths:
        argument = float(weight.abs().sum()) / math.sqrt(2 * weight.shape[1])
    else:
        argument = float(weight.norm()) / math.sqrt(2)
    # erfc falls by at most a factor 1 + 2z² · (relative error) when its argument is rounded.
    slack = (weight.numel() + 8) * UNIT_ROUNDOFF * (1 + 2 * argument**2)
    return max(0.0, math.erfc(argument) / 2 * (1 - 4 * slack))
