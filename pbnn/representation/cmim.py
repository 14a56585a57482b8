"""CMIM: a binary network's activations are to tell its samples apart as the real-valued ones do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from pbnn.binarize import binary_layers
from pbnn.binarize.layers import evaluating
from pbnn.distillation import check_evaluating, check_teacher
from pbnn.objectives import Objective, WrappedObjective
from pbnn.representation.contrast import (
    MemoryBank,
    ProjectionHead,
    Rule,
    Strangers,
    check_temperature,
    nce_loss,
)
from pbnn.representation.features import captured, last_weights

Pair = Literal["in_network", "teacher"]
STRENGTH = 3.2
"""Of the contrastive loss beside the other one, as released."""


class Contrast(nn.Module):
    r"""Contrastive loss of two embeddings of the same samples, in both directions.

    .. math:: x = e^{v \cdot f/\tau} / Z

    with Z the mean of the exponentials in the first batch times the number of samples.

    Parameters
    ----------
    features : (int, int)
        Numbers in a sample's first and second features.
    labels : Tensor, shape (n,)
        Classes of all samples to train on, for "other_class" strangers and for n.
    count : int, optional
        N strangers an anchor, drawn from a memory of all samples; without, the others of the batch.
    rule : {"other_class", "any"}
        Which samples are strangers.
    temperature : float
        τ.
    train_heads : bool
        Whether the heads are trained, or stay as they are drawn.
    dim : int
        Of the embeddings.
    generator : torch.Generator
        A CPU generator; draws heads and memory, and later strangers.

    Raises
    ------
    ValueError
        For a single class, or more strangers than there are samples to be strangers.
    """

    normaliser: Tensor

    def __init__(
        self,
        features: tuple[int, int],
        labels: Tensor,
        *,
        count: int | None = 4096,
        rule: Rule = "other_class",
        temperature: float = 0.1,
        train_heads: bool = True,
        dim: int = 128,
        generator: Generator,
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        # Also what refuses a single class.
        strangers = Strangers(labels, 1 if count is None else count, rule)
        self.strangers = None if count is None else strangers
        self.labels, self.rule = labels, rule
        self.temperature, self.generator = temperature, generator
        self.heads = nn.ModuleList(
            ProjectionHead(size, dim, generator=generator) for size in features
        ).requires_grad_(train_heads)
        self.memories = nn.ModuleList(
            MemoryBank(len(labels), dim, generator=generator) for _ in features if count
        )
        self.register_buffer("normaliser", torch.zeros(2))
        self.to(labels.device)

    def forward(self, first: Tensor, second: Tensor, index: Tensor) -> Tensor:
        """The loss of features (B, ...) of the samples with these indices, to be minimised."""
        ours, theirs = (head(part) for head, part in zip(self.heads, (first, second), strict=True))
        if self.strangers is None:
            return self._of_batch(ours, theirs, index)
        drawn = torch.cat([index[:, None], self.strangers.draw(index, self.generator)], 1)
        memories: Any = [*self.memories]
        loss = self._of_memory(0, memories[1].scores(ours, drawn))
        loss = loss + self._of_memory(1, memories[0].scores(theirs, drawn))
        for memory, rows in zip(memories, (ours, theirs), strict=True):
            memory.meet(index, rows.detach())
        return loss

    def _of_memory(self, direction: int, scores: Tensor) -> Tensor:
        """Twin first, then strangers."""
        x = (scores / self.temperature).exp()
        x = self._normalised(direction, x, torch.ones_like(x, dtype=torch.bool))
        return nce_loss(x[:, 0], x[:, 1:], (x.shape[1] - 1) / len(self.labels))

    def _of_batch(self, ours: Tensor, theirs: Tensor, index: Tensor) -> Tensor:
        scores = (ours @ theirs.T / self.temperature).exp()
        itself = torch.eye(len(index), dtype=torch.bool, device=scores.device)
        group = self.labels[index] if self.rule == "other_class" else index
        strange = group[:, None] != group
        loss = scores.new_zeros(())
        for direction, values in enumerate((scores, scores.T)):
            x = self._normalised(direction, values, strange | itself)
            noise = strange.sum(1) / len(self.labels)
            loss = loss + nce_loss(x.diagonal(), x * strange, noise)
        return loss

    def _normalised(self, direction: int, values: Tensor, counted: Tensor) -> Tensor:
        with torch.no_grad():  # without a look at whether it is known yet, which waits for a GPU
            mean = (values * counted).sum() / counted.sum() * len(self.labels)
            known = self.normaliser[direction]
            self.normaliser[direction] = torch.where(known > 0, known, mean)
        return values / self.normaliser[direction].clone()


class CMIM(WrappedObjective):
    r"""Another objective plus the contrast of a binary network's features and real-valued ones.

    .. math:: L = L_{objective} + \lambda L_{NCE}

    Of one layer's signs and their own pre-activations ("in_network", the paper's), or of the
    features before the last layer and a teacher's ("teacher", as released).

    Parameters
    ----------
    objective : Objective
        Its `network` is the binary one.
    x, y : Tensor
        All points to train on; one is looked at for the sizes of features.
    pair : {"in_network", "teacher"}
    teacher : Module, optional
        A real-valued network in evaluation mode, for "teacher".
    layer : str, optional
        By its name in the objective's network. Its inputs are the features: by default of the last
        layer with weights; of a pair in the network the signs that a binary layer makes of its
        inputs, and those, by default of the last one.
    strength : float
        λ.
    positions : int, optional
        Of dense tasks, with a class for each position of the features (n, channels, ...): so many
        positions of each image, drawn anew for each batch, are the samples, instead of images.
        In a batch the memory grows with the square of batch times positions.
    more
        Of `Contrast`: count, rule, temperature, train_heads, dim, generator.

    Raises
    ------
    ValueError
        For another pair or layer than there is, a teacher in training mode, labels that are not
        one for each sample, and what `Contrast` refuses. A `BLRNet` has no layers of this kind:
        the network is one of `pbnn.binarize.convert`.

    References
    ----------
    Shang, Xu, Zong, Nie, Yan (2022). Network Binarization via Contrastive Learning.
    https://arxiv.org/abs/2207.02970
    """

    def __init__(
        self,
        objective: Objective,
        x: Tensor,
        y: Tensor,
        *,
        pair: Pair = "in_network",
        teacher: nn.Module | None = None,
        layer: str | None = None,
        strength: float = STRENGTH,
        positions: int | None = None,
        **more: Any,
    ) -> None:
        super().__init__(objective)
        if pair not in ("in_network", "teacher"):
            raise ValueError(f"`pair` must be 'in_network' or 'teacher', got {pair!r}.")
        if (pair == "teacher") != (teacher is not None):
            raise ValueError(f"`teacher` must be given for the pair 'teacher' alone, got {pair!r}.")
        self.strength, self.pair, self.positions = strength, pair, positions
        if not 0 <= strength < math.inf:
            raise ValueError(f"`strength` must be a number of at least 0, got {strength}.")
        if teacher is not None:
            check_teacher(teacher, objective.network)
            # Within a tuple, as torch would make a part of ours of a module.
            self._teacher = (teacher, last_weights(teacher))
        self._index: Tensor | None = None
        self.layer = self._layer_of(objective.network, layer)
        with torch.no_grad(), evaluating(objective.network):
            parts = self._pair(x[:2], lambda: objective.network(x[:2]))
        self._check_labels(y, parts)
        if positions is not None and not 1 <= positions <= parts[0][0, 0].numel():
            sites = f"[1, {parts[0][0, 0].numel()}]"
            raise ValueError(f"`positions` must lie in {sites}, got {positions}.")
        first, second = (part[0].numel() if positions is None else part.shape[1] for part in parts)
        self.contrast = Contrast((first, second), y.flatten(), **more).to(parts[0].dtype)

    def check(self, x: Tensor, y: Tensor) -> None:
        """As the objective does, and that the points are those of the contrast."""
        super().check(x, y)
        if not torch.equal(y.flatten(), self.contrast.labels):
            got = f"{y.numel()} labels and {len(self.contrast.labels)} others"
            raise ValueError(f"`y` must be the points that the contrast was made for, got {got}.")

    def meet(self, index: Tensor) -> None:
        """Remember which points the next batch is of."""
        super().meet(index)
        self._index = index

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The loss to minimise and the objective's risk; in evaluation the objective alone."""
        if not self.training:
            found: tuple[Tensor, Tensor] = self.objective(x, y, kl_weight)
            return found
        if self._index is None or len(self._index) != len(x):
            raise ValueError("`meet` must tell the indices of the batch first, as `fit` does.")
        results = []
        first, second = self._pair(x, lambda: results.append(self.objective(x, y, kl_weight)))
        ((loss, risk),) = results
        samples = self._samples(first, second, self._index)
        return loss + self.strength * self.contrast(*samples), risk

    def _samples(
        self, first: Tensor, second: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the samples and their indices: images, or positions of them."""
        if self.positions is None:
            return first.flatten(1), second.flatten(1), index
        first, second = first.flatten(2), second.flatten(2)
        sites, shape = first.shape[2], (len(index), self.positions)
        at = torch.randint(sites, shape, generator=self.contrast.generator).to(index.device)
        parts = (
            part.gather(2, at[:, None].expand(-1, part.shape[1], -1)).transpose(1, 2).flatten(0, 1)
            for part in (first, second)
        )
        return *parts, (index[:, None] * sites + at).flatten()  # type: ignore[return-value]

    def _check_labels(self, y: Tensor, parts: tuple[Tensor, ...]) -> None:
        """Refuse labels that are not one for each sample."""
        for part in parts:
            if self.positions is not None and part.ndim < 3:
                raise ValueError(
                    f"`positions` must be left out for features {tuple(part.shape)} without any."
                )
            expected = part.shape[2:] if self.positions is not None else ()
            if y.shape[1:] != expected:
                got = f"{tuple(y.shape)} and features {tuple(part.shape)}"
                raise ValueError(
                    f"`y` must be a class for each image, or with `positions` for each of those, "
                    f"got {got}."
                )

    def _layer_of(self, network: nn.Module, wanted: str | None) -> str:
        """The layer asked for, or the last that makes signs, or the last with weights."""
        if self.pair == "in_network":
            names = [n for n, layer in binary_layers(network).items() if layer.activation]
            if not names:
                raise ValueError("`objective` must have a network with layers of binary inputs.")
            names = [f"{name}.activation" for name in names]
            if wanted is not None and f"{wanted}.activation" in names:
                return f"{wanted}.activation"
        elif wanted is None:
            return last_weights(network)
        else:
            names = [name for name, _ in network.named_modules() if name]
        if wanted is not None and wanted not in names:
            raise ValueError(f"`layer` must be one of {names}, got {wanted!r}.")
        return names[-1] if wanted is None else wanted

    def _pair(self, x: Tensor, compute: Callable[[], Any]) -> tuple[Tensor, Tensor]:
        """Features of a batch: of the binary network and real-valued ones, while it computes."""
        with captured(self.network, self.layer) as ours:
            compute()
        if self.pair == "in_network":
            return ours["output"], ours["input"]
        teacher, layer = self._teacher
        check_evaluating(teacher)
        with torch.no_grad(), captured(teacher, layer) as theirs:
            teacher(x)
        return ours["input"], theirs["input"]
