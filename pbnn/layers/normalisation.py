"""Stochastic batch normalisation with the statistics of a batch, of the past, or frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pbnn.functional import (
    Moments,
    Signs,
    Statistics,
    batch_norm,
    batch_statistics,
    choose_sign,
    normalised_sign,
    threshold,
)


class StochasticBatchNorm(nn.Module):
    """Batch normalisation of random or known units, channel by channel.

    In training mode a batch is normalised by its own statistics, which also move the running ones;
    in evaluation mode, or frozen, by the running ones. A certificate needs the latter, and γ and β,
    from data that are not certification points: with its batch's statistics a prediction would
    depend on other points, and γ and β are no part of a posterior, so no KL pays for them. For
    known and for random units it is the same `pbnn.functional.batch_norm`, so it has one pass, not
    three.

    Parameters
    ----------
    channels : int
    eps : float
        Added to the variances.
    momentum : float
        Weight of a new batch in the running statistics.

    Examples
    --------
    >>> norm = StochasticBatchNorm(1)
    >>> norm.re_estimate(torch.tensor([[1.0], [3.0]]))
    >>> norm.eval()(torch.tensor([[2.0]])).item()
    0.0
    """

    running_mean: Tensor
    running_var: Tensor
    estimate: Callable[[Moments | Tensor], Statistics] | None = None
    """Gives the statistics of a batch of which only a part is here (`pbnn.shards`)."""

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if channels < 1 or not eps >= 0 or not 0 < momentum <= 1:
            raise ValueError(
                "`channels` must be positive, `eps` at least 0 and `momentum` in (0, 1], got "
                f"{channels}, {eps} and {momentum}."
            )
        self.eps, self.momentum = eps, momentum
        self.split: str | None = None
        self.digest = b""
        one = torch.ones(channels, dtype=dtype, device=device)
        self.gamma, self.beta = nn.Parameter(one.clone()), nn.Parameter(torch.zeros_like(one))
        self.register_buffer("running_mean", torch.zeros_like(one))
        self.register_buffer("running_var", one)

    @property
    def frozen(self) -> bool:
        """Whether the running statistics, γ and β stay as they are."""
        return self.split is not None

    @property
    def statistics(self) -> Statistics:
        """The running statistics."""
        return Statistics(self.running_mean, self.running_var)

    def forward(self, x: Moments | Tensor) -> Moments | Tensor:
        """The normalised units."""
        statistics = self.statistics
        if self.training and not self.frozen:
            statistics = (self.estimate or batch_statistics)(x)
            self._move(statistics, self.momentum)
        return batch_norm(x, statistics, self.gamma, self.beta, self.eps)

    def signs(self, x: Moments, window: int = 1) -> Signs:
        """Signs of the normalised units, of the largest of each window: `normalised_sign`."""
        of_batch = self.training and not self.frozen
        if of_batch and self.estimate is not None:
            statistics = self.estimate(x)
            self._move(statistics, self.momentum)
            # Gradients flow through given statistics only where they are part of γ and β.
            scale = self.gamma * (statistics.var + self.eps).rsqrt()
            shift = self.beta - statistics.mean * scale
            standard = Statistics(torch.zeros_like(shift), torch.ones_like(scale))
            return normalised_sign(x, scale, shift, 0.0, standard, window)[0]
        given = None if of_batch else self.statistics
        signs, used = normalised_sign(x, self.gamma, self.beta, self.eps, given, window)
        if of_batch:
            self._move(used, self.momentum)
        return signs

    def re_estimate(self, x: Moments | Tensor) -> None:
        """Make the statistics of these units the running ones; frozen ones are of no known split
        from then on."""
        self._move(batch_statistics(x), 1.0)
        self.split = None if self.split is None else ""

    def freeze(self, split: str = "") -> None:
        """Keep the running statistics, γ and β from now on, in training too.

        Parameters
        ----------
        split : str
            Hash of the split that all of them come from (`Splits.hashes`): a certificate asks for
            it.
        """
        self.split, self.digest = split, _digest(self)
        self.gamma.requires_grad_(False)
        self.beta.requires_grad_(False)

    @torch.no_grad()
    def _move(self, new: Statistics, weight: float) -> None:
        for running, batch in zip(self.statistics, new, strict=True):
            running.lerp_(batch, weight)


class ThresholdSign(nn.Module):
    """Signs of known units by a threshold a channel: batch normalisation and sign in one.

    Parameters
    ----------
    norm : StochasticBatchNorm
        Its running statistics, γ and β are folded by `pbnn.functional.threshold`, so that the signs
        are those of the normalised units, bit for bit.

    Examples
    --------
    >>> norm = StochasticBatchNorm(1)
    >>> norm.re_estimate(torch.tensor([[1.0], [3.0]]))
    >>> ThresholdSign(norm)(torch.tensor([[1.0], [2.0]]))
    tensor([[-1.],
            [ 1.]])
    """

    level: Tensor
    direction: Tensor

    def __init__(self, norm: StochasticBatchNorm) -> None:
        super().__init__()
        gamma, beta = norm.gamma.detach(), norm.beta.detach()
        for name, value in threshold(norm.statistics, gamma, beta, norm.eps)._asdict().items():
            self.register_buffer(name, value)
        self.split, self.digest = _origin(norm), _digest(self)

    def forward(self, a: Tensor) -> Tensor:
        """+1 where direction · a ≥ direction · level, else −1."""
        shape = (-1, *[1] * (a.ndim - 2))
        direction = self.direction.view(shape)
        return choose_sign(direction * a >= direction * self.level.view(shape), a)


def freeze_statistics(network: nn.Module, split: str) -> None:
    """Freeze every batch normalisation of a network, all of them fitted on this split.

    Examples
    --------
    >>> norm = StochasticBatchNorm(1)
    >>> freeze_statistics(norm, "hash of the prior split")
    >>> statistics_splits(norm)
    {'hash of the prior split'}
    """
    for part in network.modules():
        if isinstance(part, StochasticBatchNorm):
            part.freeze(split)


def statistics_splits(network: nn.Module) -> set[str | None]:
    """Hashes of the splits its normalisations come from.

    None for one that is not frozen, or is none of these classes; "" for one that is not as it was
    when it was frozen.
    """
    parts = [part for part in network.modules() if hasattr(part, "running_mean")]
    parts += [part for part in network.modules() if isinstance(part, ThresholdSign)]
    return {_origin(part) for part in parts}


def _origin(part: nn.Module) -> str | None:
    if not isinstance(part, StochasticBatchNorm | ThresholdSign) or part.split is None:
        return None
    return part.split if part.digest == _digest(part) else ""


def _digest(part: nn.Module) -> bytes:
    """Of all numbers, in float64, so that a change of precision that loses nothing changes none."""
    numbers = sorted(part.state_dict().items())
    joined = b"".join(value.cpu().double().numpy().tobytes() for _, value in numbers)
    return hashlib.sha256(joined).digest()
