"""S2-BNN: a binary network learns from a real-valued one, and neither from labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from pbnn.distillation import check_evaluating
from pbnn.objectives import Objective
from pbnn.representation.contrast import info_nce

Views = Callable[[Tensor, Generator], Tensor]
"""Makes other images of images, drawing from a CPU generator."""


def guided_loss(student: Tensor, teacher: Tensor, temperature: float = 0.2) -> Tensor:
    r"""Cross-entropy of soft-maxed embeddings, in nats, mean over samples.

    .. math:: -\sum_c p_{T,c} \ln p_c, \qquad p = \operatorname{softmax}(s/\tau)

    It is the teacher's entropy plus a divergence; at s = t the entropy alone, near ln d for
    embeddings of unit length: report the divergence (`guided_divergence`).

    Parameters
    ----------
    student, teacher : Tensor, shape (B, d)
        Embeddings of unit length of one view of the same samples.
    temperature : float
        τ.

    References
    ----------
    Shen, Liu, Qin, Huang, Cheng, Savvides (2021). S2-BNN, equation 4.
    https://arxiv.org/abs/2102.08946

    Examples
    --------
    >>> guided_loss(torch.zeros(1, 2), torch.ones(1, 2))
    tensor(0.6931)
    """
    theirs = (teacher / temperature).softmax(1)
    return -(theirs * (student / temperature).log_softmax(1)).sum(1).mean()


def guided_divergence(student: Tensor, teacher: Tensor, temperature: float = 0.2) -> Tensor:
    """`guided_loss` less the teacher's entropy: 0 where both agree, in nats."""
    return guided_loss(student, teacher, temperature) - guided_loss(teacher, teacher, temperature)


class ViewsObjective(Objective):
    """What learns from images and other views of them; labels are never looked at."""

    network: nn.Module

    def __init__(self, network: nn.Module, views: Views, temperature: float, generator: Generator):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"`temperature` must be positive, got {temperature}.")
        self.network, self.views = network, views
        self.temperature, self.generator = temperature, generator


class ContrastiveObjective(ViewsObjective):
    """Two views of each image find each other among those of a batch (`info_nce`).

    Parameters
    ----------
    network : Module
        Gives embeddings of unit length.
    views : callable
    temperature : float
    generator : torch.Generator
        A CPU generator for the views.
    """

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The loss, and the share of images whose twin is not the nearest of the batch."""
        first, second = (self.network(self.views(x, self.generator)) for _ in range(2))
        loss = info_nce(first, second, self.temperature)
        found = (first @ second.T).argmax(1)
        lost = (found != torch.arange(len(x), device=x.device)).to(x.dtype).mean()
        return loss, lost.detach()


class GuidedObjective(ViewsObjective):
    """`guided_loss` to a teacher on the same view, and the contrast of two views if asked for.

    Parameters
    ----------
    network : Module
        The binary student; gives embeddings of unit length.
    teacher : Module
        In evaluation mode; gives embeddings of the same size. It is no part of the objective.
    views : callable
    temperature : float
    contrast : float
        Weight of the contrastive loss beside the guidance: 0, or 1 for the variant with both.
    generator : torch.Generator
        A CPU generator for the views.

    Raises
    ------
    ValueError
        If the teacher is in training mode.
    """

    def __init__(
        self,
        network: nn.Module,
        teacher: nn.Module,
        views: Views,
        *,
        temperature: float = 0.2,
        contrast: float = 0.0,
        generator: Generator,
    ) -> None:
        super().__init__(network, views, temperature, generator)
        check_evaluating(teacher)
        # Within a tuple, as torch would make a part of ours of a module.
        self._teacher = (teacher,)
        self.contrast = contrast

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The loss, and the divergence from the teacher in nats."""
        view = self.views(x, self.generator)
        ours = self.network(view)
        with torch.no_grad():
            theirs = self._teacher[0](view)
        loss = guided_loss(ours, theirs, self.temperature)
        risk = guided_divergence(ours.detach(), theirs, self.temperature)
        if self.contrast:
            other = self.network(self.views(x, self.generator))
            loss = loss + self.contrast * info_nce(ours, other, self.temperature)
        return loss, risk
