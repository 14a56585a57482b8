"""S2-BNN: a binary network learns from a real-valued one, and neither from labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from pbnn.binarize.layers import evaluating
from pbnn.distillation import check_evaluating, check_teacher
from pbnn.objectives import Objective
from pbnn.representation.contrast import check_temperature, info_nce

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
    if student.shape != teacher.shape or student.ndim != 2:
        got = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(f"`student` and `teacher` must have one shape (B, d), got {got}.")
    check_temperature(temperature)
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
        check_temperature(temperature)
        if not isinstance(generator, Generator):
            raise ValueError(f"`generator` must be a torch.Generator, got {generator!r}.")
        self.network, self.views = network, views
        self.temperature, self.generator = temperature, generator

    def check(self, x: Tensor, y: Tensor) -> None:
        """Refuse images that are not finite, and embeddings of them that are no unit vectors."""
        super().check(x, y)
        if not bool(torch.isfinite(x).all()):
            raise ValueError("`x` must be finite, got numbers that are not.")
        few = self.views(x[:2], Generator())
        with torch.no_grad(), evaluating(self.network):
            found = self.network(few)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(x[:2]):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"`network` must give an embedding (n, d) of each view, got {got}.")
        if bool(((found.norm(dim=1) - 1).abs() > 1e-3).any()):
            got = f"lengths {found.norm(dim=1).tolist()}"
            raise ValueError(f"`network` must give embeddings of unit length, got {got}.")


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
        If the teacher is in training mode or shares parameters with the network; from `fit`, for
        embeddings that are not of unit length.
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
        check_teacher(teacher, network)
        if not 0 <= contrast < math.inf:
            raise ValueError(f"`contrast` must be a number of at least 0, got {contrast}.")
        # Within a tuple, as torch would make a part of ours of a module.
        self._teacher = (teacher,)
        self.contrast = contrast

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The loss, and the divergence from the teacher in nats."""
        check_evaluating(self._teacher[0])
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
