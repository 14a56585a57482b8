"""Learning from a real-valued teacher's probabilities."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbnn.functional import Moments
from pbnn.objectives import Objective, check_classes
from pbnn.scores import error_of_means


def distributional_loss(scores: Tensor, teacher: Tensor) -> Tensor:
    r"""Divergence of a network's probabilities from a teacher's, in nats, mean over samples.

    .. math:: \mathrm{KL}(p_T \,\|\, p) = \sum_c p_{T,c} \ln\frac{p_{T,c}}{p_c},
        \qquad p = \operatorname{softmax}(scores)

    Parameters
    ----------
    scores, teacher : Tensor, shape (n, K)
        Of the network and of its teacher.

    References
    ----------
    Liu, Shen, Savvides, Cheng (2020). ReActNet, equation 11. https://arxiv.org/abs/2003.03488

    Examples
    --------
    >>> distributional_loss(torch.zeros(1, 2), torch.tensor([[0.0, 200.0]]))
    tensor(0.6931)
    """
    if scores.shape != teacher.shape or scores.ndim != 2:
        got = f"{tuple(scores.shape)} and {tuple(teacher.shape)}"
        raise ValueError(f"`scores` and `teacher` must have one shape (n, classes), got {got}.")
    ours, theirs = scores.log_softmax(1), teacher.log_softmax(1)
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def check_teacher(teacher: Callable[[Tensor], Tensor], network: nn.Module) -> None:
    """Refuse a teacher that cannot be called, moves while it teaches, or learns itself.

    Raises
    ------
    ValueError
        If the teacher is not callable, or a module in training mode, or shares parameters with
        the network.
    """
    if not callable(teacher):
        raise ValueError(f"`teacher` must be callable, got a {type(teacher).__name__}.")
    check_evaluating(teacher)
    own = {*map(id, teacher.parameters())} if isinstance(teacher, nn.Module) else set()
    if own & {*map(id, network.parameters())}:
        raise ValueError("`teacher` must not share parameters with the network it teaches.")


def check_evaluating(teacher: Callable[[Tensor], Tensor]) -> None:
    """Refuse a teacher in training mode, whose statistics would move."""
    if isinstance(teacher, nn.Module) and any(module.training for module in teacher.modules()):
        raise ValueError("`teacher` must be in evaluation mode: call `teacher.eval()`.")


class DistributionalObjective(Objective):
    """`distributional_loss` to a teacher instead of the labels, for `pbnn.training.fit`.

    Labels serve for the curve's `risk` alone: the error of the class with the largest mean score.

    Parameters
    ----------
    network : Module
        Gives `Moments` of scores, as a `pbnn.baselines.Classifier`.
    teacher : callable
        Gives scores of the same inputs, plain or as `Moments`; a module must be in evaluation mode.
        It is no part of the objective, which neither trains nor saves it.

    Raises
    ------
    ValueError
        If the teacher is a module in training mode, or shares parameters with the network.
    """

    def __init__(self, network: nn.Module, teacher: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        check_teacher(teacher, network)
        self.network = network
        # Within a tuple, as torch would make a part of ours of a module.
        self._teacher = (teacher,)

    def check(self, x: Tensor, y: Tensor) -> None:
        """Refuse points without finite inputs and a class each."""
        super().check(x, y)
        check_classes(x, y)

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The divergence to minimise, and the mean error of the batch."""
        (teacher,) = self._teacher
        check_evaluating(teacher)
        output = self.network(x)
        if not isinstance(output, Moments):
            got = type(output).__name__
            raise ValueError(f"`network` must give Moments, as a `Classifier` does, got a {got}.")
        with torch.no_grad():
            scores = teacher(x)
        scores = scores.mean if isinstance(scores, Moments) else scores
        return distributional_loss(output.mean, scores), error_of_means(output, y).mean().detach()
