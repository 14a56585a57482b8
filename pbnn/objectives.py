"""What training minimises: losses of an aggregate, and a PAC-Bayes bound as a loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pbnn.bounds import catoni
from pbnn.networks import PBGNet, check_points

Loss = Callable[[Tensor, Tensor], Tensor]
"""Loss of each point from output F in [−1, 1] and label ±1, both of shape (n,)."""


def linear_loss(output: Tensor, label: Tensor) -> Tensor:
    """(1 − yF)/2: for an aggregate F exactly the risk of a random network on the point.

    Examples
    --------
    >>> linear_loss(torch.tensor([1.0, 0.0]), torch.tensor([1.0, -1.0]))
    tensor([0.0000, 0.5000])
    """
    return (1 - label * output) / 2


def log_loss(output: Tensor, label: Tensor) -> Tensor:
    """−ln((1 + yF)/2) in nats: cross-entropy of the probability that a random network is right."""
    return -torch.log(((1 + label * output) / 2).clamp_min(1e-6))


LOSSES: dict[str, Loss] = {"linear": linear_loss, "log": log_loss}


class Objective(nn.Module):
    """A loss for batches and, for an epoch's mean risk, the figures of the learning curve."""

    network: nn.Module

    def check(self, x: Tensor, y: Tensor) -> None:
        """Refuse points that the loss is not made for; called once, before training."""
        if len(x) == 0 or len(x) != len(y):
            got = f"{len(x)} and {len(y)}"
            raise ValueError(f"`x` and `y` must have the same positive length, got {got}.")

    def value(self, risk: float) -> dict[str, float]:
        """The curve's figures; `objective` is what the best epoch is selected on."""
        return {"objective": risk, "risk": risk}


class TwoClassObjective(Objective):
    """An objective for labels −1 and +1."""

    def check(self, x: Tensor, y: Tensor) -> None:
        """Refuse points without finite inputs and a label ±1 each."""
        check_points(x, y)


class RiskObjective(TwoClassObjective):
    """Mean loss of a network: no prior, no bound. For baselines and for training a prior."""

    def __init__(self, network: nn.Module, loss: str = "linear") -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"`loss` must be one of {sorted(LOSSES)}, got {loss!r}.")
        self.network = network
        self.loss = LOSSES[loss]

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The mean loss to minimise, and the Gibbs risk (linear loss) of the batch."""
        output = self.network(x)
        return self.loss(output, y).mean(), linear_loss(output, y).mean().detach()


class BoundObjective(TwoClassObjective):
    r"""Catoni's bound, uniform in its learned C, as a training loss.

    .. math::
        \frac{1 - \exp(-C\hat r - (w\,\mathrm{KL} + \ln\frac{2\sqrt n}{\delta})/n)}{1 - e^{-C}},
        \qquad C = e^t

    The weight w of the KL may be ramped up during training: that moves the posterior only and
    costs no confidence. The bound reported at the end of an epoch has w = 1 and the best C.

    Parameters
    ----------
    network : PBGNet
    n : int
        Number of certification points.
    delta : float
        Confidence share the certificate will pay, so that training and certificate agree.

    References
    ----------
    Letarte et al. (2019), Theorem 3; Germain et al. (2009).
    """

    network: PBGNet

    def __init__(self, network: PBGNet, n: int, delta: float) -> None:
        super().__init__()
        self.network, self.n, self.delta = network, n, delta
        like = network.output.weight.mean
        self.log_c = nn.Parameter(torch.zeros((), dtype=like.dtype, device=like.device))

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The bound of a batch, to minimise, and its Gibbs risk."""
        risk = linear_loss(self.network(x), y).mean()
        kl = kl_weight * self.network.kl()
        bound = catoni(risk, kl, self.n, delta=self.delta, C=self.log_c.exp(), clip=False)
        return bound, risk.detach()

    @torch.no_grad()
    def value(self, risk: float) -> dict[str, float]:
        """The curve's figures after an epoch with this mean risk; the bound is what is selected on.

        With the mean-field aggregate the risk is a surrogate, and so is this bound.
        """
        kl = self.network.kl().item()
        bound = math.nan  # of a training that has diverged, for the fit loop to report
        if math.isfinite(risk + kl):
            bound = catoni(min(max(risk, 0.0), 1.0), kl, self.n, delta=self.delta)
        return {"objective": bound, "risk": risk, "kl": kl, "C": self.log_c.exp().item()}
