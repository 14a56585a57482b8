"""What training minimises: losses of an aggregate or of scores, and a PAC-Bayes bound of one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pbnn.bounds import catoni
from pbnn.layers import StochasticBatchNorm
from pbnn.networks import check_points
from pbnn.networks.checks import is_real, is_whole
from pbnn.scores import (
    binary_cross_entropy,
    bounded_cross_entropy,
    cross_entropy,
    error_of_means,
    gibbs_loss,
)


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


def check_classes(x: Tensor, y: Tensor) -> None:
    """Refuse points without finite inputs and a class 0, 1, … each, as int64."""
    if not isinstance(y, Tensor) or y.dtype != torch.int64:
        got = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"`y` must be an int64 tensor of classes, got {got}.")
    check_points(x, torch.ones_like(y))  # all but the values of the labels
    if bool((y < 0).any()):
        raise ValueError(f"`y` must hold classes of at least 0, got {int(y.min())}.")


@dataclass(frozen=True)
class Loss:
    """A loss of each point, from what the network gives and the label, and what belongs to it.

    Parameters
    ----------
    function : callable
        Of the aggregate F in [−1, 1] and labels ±1, both of shape (n,), or of `Moments` of scores,
        of shape (n, K), and classes of shape (n,).
    risk : callable
        The same for the figure that `RiskObjective` shows and selects epochs on.
    check : callable
        Refuses points that the function is not made for.
    bounded : bool
        Whether the values lie in [0, 1], as a bound needs them.
    """

    function: Callable[[Any, Tensor], Tensor]
    risk: Callable[[Any, Tensor], Tensor]
    check: Callable[[Tensor, Tensor], None]
    bounded: bool


LOSSES = {
    "linear": Loss(linear_loss, linear_loss, check_points, bounded=True),
    "log": Loss(log_loss, linear_loss, check_points, bounded=False),
    "gibbs": Loss(gibbs_loss, error_of_means, check_classes, bounded=True),
    "bounded_cross_entropy": Loss(
        bounded_cross_entropy, error_of_means, check_classes, bounded=True
    ),
    "cross_entropy": Loss(cross_entropy, error_of_means, check_classes, bounded=False),
    "bce": Loss(binary_cross_entropy, error_of_means, check_classes, bounded=False),
}
"""By name: two of the aggregate of two classes, four of the scores of several (`pbnn.scores`)."""


class Objective(nn.Module):
    """A loss for batches and, for an epoch's mean risk, the figures of the learning curve."""

    network: nn.Module

    def check(self, x: Tensor, y: Tensor) -> None:
        """Refuse points that the loss is not made for; called once, before training."""
        if len(x) == 0 or len(x) != len(y):
            got = f"{len(x)} and {len(y)}"
            raise ValueError(f"`x` and `y` must have the same positive length, got {got}.")

    def meet(self, index: Tensor) -> None:
        """Told before each batch which points of the data set it is of; forgotten here."""

    def value(self, risk: float) -> dict[str, float]:
        """The curve's figures; `objective` is what the best epoch is selected on."""
        return {"objective": risk, "risk": risk}


class LossObjective(Objective):
    """An objective made of one of `LOSSES`."""

    network: Any  # a module, whose kl() is called where there is a bound
    loss: Loss

    def check(self, x: Tensor, y: Tensor) -> None:
        """Refuse points without finite inputs and a label each that the loss is made for."""
        self.loss.check(x, y)
        classes = getattr(self.network, "classes", math.inf)
        if bool((y >= classes).any()):
            raise ValueError(f"`y` must hold classes below {classes}, got {int(y.max())}.")


class RiskObjective(LossObjective):
    r"""Mean loss of a network plus :math:`\tfrac\rho2 \lVert \theta \rVert^2`: no prior, no bound.

    For baselines and for training a prior. The curve's `risk`, on which the best epoch is selected,
    is the Gibbs risk of an aggregate and, of scores, the error of the class with the largest mean.

    Parameters
    ----------
    network : module
        Gives the aggregate of two classes, or `Moments` of scores, as the loss needs it.
    loss : str
        A name of `LOSSES`.
    decay : float
        The factor ρ of the squared norm of all parameters.
    """

    def __init__(self, network: nn.Module, loss: str = "linear", decay: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.loss, self.decay = loss_named(loss), decay_checked(decay)

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The mean loss to minimise, and the mean figure that `Loss.risk` makes of the batch."""
        output = self.network(x)
        loss = self.loss.function(output, y).mean() + penalty(self.network, self.decay)
        return loss, self.loss.risk(output, y).mean().detach()


class WrappedObjective(Objective):
    """What adds to the loss of another objective, whose network, checks and curve are its own.

    Parameters
    ----------
    objective : Objective
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    @property
    def network(self) -> Any:  # type: ignore[override]
        """That of the objective."""
        return self.objective.network

    def check(self, x: Tensor, y: Tensor) -> None:
        """As the objective does."""
        self.objective.check(x, y)

    def meet(self, index: Tensor) -> None:
        """As the objective does."""
        self.objective.meet(index)

    def value(self, risk: float) -> dict[str, float]:
        """The objective's figures."""
        return self.objective.value(risk)


class PenalisedObjective(WrappedObjective):
    """Another objective plus a term of the network alone, such as a supervision of its weights.

    Parameters
    ----------
    objective : Objective
    term : callable
        Gives a scalar to be added, without arguments, at each step.
    """

    def __init__(self, objective: Objective, term: Callable[[], Tensor]) -> None:
        super().__init__(objective)
        self.term = term

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The objective's loss plus the term, and its risk."""
        loss, risk = self.objective(x, y, kl_weight)
        return loss + self.term(), risk


class BoundObjective(LossObjective):
    r"""Catoni's bound, uniform in its learned C, as a training loss.

    .. math::
        \frac{1 - \exp(-C\hat r - (w\,\mathrm{KL} + \ln\frac{2\sqrt n}{\delta})/n)}{1 - e^{-C}},
        \qquad C = e^t

    The weight w of the KL may be ramped up during training: that moves the posterior only and
    costs no confidence. The bound reported at the end of an epoch has w = 1 and the best C.

    It speaks of the mean of the loss it is made of. With "linear" or "gibbs", where these are
    exact, that is the risk of the random network; with a scaled cross-entropy it is no error rate.
    Parameters that have no part in `kl()` move for free: of a network with batch normalisation it
    is a surrogate unless every `StochasticBatchNorm` is frozen beforehand.

    Parameters
    ----------
    network : module
        With a method `kl()`; gives the aggregate of two classes, or `Moments` of scores.
    n : int
        Number of certification points.
    delta : float
        Confidence share the certificate will pay, so that training and certificate agree.
    C : float, optional
        Keep C at this value instead of learning it. The objective is then tempered variational
        Bayes: its gradient is that of :math:`C n \hat r + \mathrm{KL}` times a positive number,
        see `VariationalObjective`.
    loss : {"linear", "gibbs", "bounded_cross_entropy"}
        A name of `LOSSES` with values in [0, 1].

    References
    ----------
    Letarte et al. (2019), Theorem 3; Germain et al. (2009).
    """

    log_c: Tensor

    def __init__(
        self,
        network: nn.Module,
        n: int,
        delta: float,
        C: float | None = None,
        loss: str = "linear",
    ) -> None:
        super().__init__()
        if C is not None and not is_real(C, math.ulp(0.0)):
            raise ValueError(f"`C` must be positive and finite, got {C}.")
        if not is_whole(n, 1):
            raise ValueError(f"`n` must be a positive integer, got {n}.")
        if not is_real(delta, 0, 1) or delta in (0, 1):
            raise ValueError(f"`delta` must lie in (0, 1), got {delta}.")
        self.network, self.n, self.delta = network, n, delta
        self.loss = loss_named(loss, bounded=True)
        log_c = next(network.parameters()).new_full((), math.log(C or 1.0))
        if C is None:
            self.log_c = nn.Parameter(log_c)
        else:
            self.register_buffer("log_c", log_c)

    def check(self, x: Tensor, y: Tensor) -> None:
        """As before, with a warning where batch normalisation learns what no KL pays for."""
        super().check(x, y)
        norms = [part for part in self.network.modules() if isinstance(part, StochasticBatchNorm)]
        if not all(norm.frozen for norm in norms):
            told = "Batch normalisation is not frozen: what is trained is a surrogate, no bound."
            warnings.warn(told, stacklevel=3)
        if getattr(self.network, "activation", None) == "mode":
            told = (
                "The network hands on its mode: set `activation` to train a bound of its posterior."
            )
            warnings.warn(told, stacklevel=3)

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The bound of a batch, to minimise, and the mean loss that it bounds."""
        risk = self.loss.function(self.network(x), y).mean()
        kl = kl_weight * self.network.kl()
        bound = catoni(risk, kl, self.n, delta=self.delta, C=self.log_c.exp(), clip=False)
        return bound, risk.detach()

    @torch.no_grad()
    def value(self, risk: float) -> dict[str, float]:
        """The curve's figures after an epoch with this mean loss; the bound is what is selected on.

        With the mean-field aggregate the risk is a surrogate, and so is this bound.
        """
        kl = self.network.kl().item()
        bound = math.nan  # of a training that has diverged, for the fit loop to report
        if math.isfinite(risk + kl):
            bound = catoni(min(max(risk, 0.0), 1.0), kl, self.n, delta=self.delta)
        return {"objective": bound, "risk": risk, "kl": kl, "C": self.log_c.exp().item()}


class SelectedByBound(BoundObjective):
    r"""Risk with an L2 penalty as the loss, the bound as what the best epoch is selected on.

    PBGNet-l-bnd of Letarte et al. (2019): the posterior never sees its KL, and of the path it takes
    the point with the least bound is kept.
    """

    def __init__(self, network: nn.Module, n: int, delta: float, decay: float = 0.0) -> None:
        super().__init__(network, n, delta, C=1.0)
        self.decay = decay_checked(decay)

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The penalised Gibbs risk of a batch, to minimise, and the risk itself."""
        risk = self.loss.function(self.network(x), y).mean()
        return risk + penalty(self.network, self.decay), risk.detach()


class VariationalObjective(LossObjective):
    r"""Tempered variational Bayes, :math:`\hat\ell + \mathrm{KL}/(C n)`: no bound.

    With the linear loss it is, times C n and up to a constant, minus the evidence lower bound for
    the likelihood :math:`p(y \mid x, w) \propto e^{-C [f_w(x) \ne y]}`, and has the minima of
    Catoni's bound at the same fixed C; so it is for scores with the Gibbs loss. With the log loss
    −ln((1 + yF)/2) of the averaged prediction the logarithm stands outside the mean over networks,
    and it is no evidence lower bound.

    Parameters
    ----------
    network : module
        With a method `kl()`; gives the aggregate of two classes, or `Moments` of scores.
    n : int
        Number of points that the posterior is fitted to.
    C : float
        Inverse temperature.
    loss : str
        A name of `LOSSES`.

    References
    ----------
    Germain, Bach, Lacoste, Lacoste-Julien (2016). PAC-Bayesian theory meets Bayesian inference.
    https://arxiv.org/abs/1605.08636
    """

    def __init__(self, network: nn.Module, n: int, C: float = 1.0, loss: str = "linear") -> None:
        super().__init__()
        if not is_real(C, math.ulp(0.0)):
            raise ValueError(f"`C` must be positive and finite, got {C}.")
        if not is_whole(n, 1):
            raise ValueError(f"`n` must be a positive integer, got {n}.")
        self.network, self.n, self.C = network, n, C
        self.loss = loss_named(loss)

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The objective of a batch, to minimise, and its mean loss."""
        loss = self.loss.function(self.network(x), y).mean()
        return loss + kl_weight * self.network.kl() / (self.C * self.n), loss.detach()

    @torch.no_grad()
    def value(self, risk: float) -> dict[str, float]:
        """The curve's figures after an epoch with this mean loss."""
        kl = self.network.kl().item()
        return {"objective": risk + kl / (self.C * self.n), "risk": risk, "kl": kl}


def loss_named(name: str, *, bounded: bool = False) -> Loss:
    """A loss of `LOSSES`, or an error that lists them; those with values in [0, 1] if `bounded`."""
    names = sorted(key for key, loss in LOSSES.items() if loss.bounded or not bounded)
    if name not in names:
        raise ValueError(f"`loss` must be one of {names}, got {name!r}.")
    return LOSSES[name]


def decay_checked(decay: float) -> float:
    """A factor of the L2 penalty, refused unless it is one."""
    if not is_real(decay, 0):
        raise ValueError(f"`decay` must be a number of at least 0, got {decay}.")
    return decay


def penalty(network: nn.Module, decay: float) -> Tensor | float:
    """Half the squared norm of all parameters times `decay`."""
    if not decay:
        return 0.0
    return decay / 2 * torch.stack([p.square().sum() for p in network.parameters()]).sum()
