"""Contrast: noise-contrastive estimation with a memory or within a batch, and heads to do it in."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.utils import skip_init

LEAST_TEMPERATURE = 0.015
"""Below it the exponential of 1/τ leaves float32."""
EPSILON = 1e-7
"""Keeps logarithms finite, as in the released code."""


class ProjectionHead(nn.Module):
    """A dense layer to an embedding of unit length.

    Parameters
    ----------
    features, dim : int
    generator : torch.Generator
        A CPU generator for the weights (uniform, as `torch.nn.Linear`).

    Examples
    --------
    >>> head = ProjectionHead(5, 3, generator=torch.Generator().manual_seed(0))
    >>> head(torch.ones(2, 5)).square().sum(1).round(decimals=4)
    tensor([1., 1.], grad_fn=...)
    """

    def __init__(self, features: int, dim: int = 128, *, generator: Generator) -> None:
        super().__init__()
        self.layer = skip_init(nn.Linear, features, dim)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                limit = features**-0.5
                parameter.uniform_(-limit, limit, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (n, dim) of features (n, ...)."""
        return F.normalize(self.layer(x.flatten(1)), dim=1)


def nce_loss(positive: Tensor, negative: Tensor, noise: Tensor | float) -> Tensor:
    r"""Noise-contrastive loss of pairs that belong together among those that do not.

    .. math:: -\log\frac{x^+}{x^+ + c + \varepsilon}
        - \sum_j \log\frac{c}{x^-_j + c + \varepsilon}, \qquad c = N/M

    Parameters
    ----------
    positive : Tensor, shape (B,)
        :math:`x^+ = e^{v \cdot f/\tau}/Z` of each pair.
    negative : Tensor, shape (B, N)
        Of N strangers; 0 where there is none.
    noise : float or Tensor of shape (B,)
        c: the number of strangers by the number of samples there are.

    Returns
    -------
    Tensor
        Mean over the batch.

    References
    ----------
    Tian, Krishnan, Isola (2020). Contrastive Representation Distillation.
    https://arxiv.org/abs/1910.10699
    Shang, Xu, Zong, Nie, Yan (2022). Network Binarization via Contrastive Learning.
    https://arxiv.org/abs/2207.02970

    Examples
    --------
    >>> nce_loss(torch.tensor([1.0]), torch.tensor([[1.0]]), 1.0)
    tensor(1.3863)
    """
    c = torch.as_tensor(noise, dtype=positive.dtype, device=positive.device).expand_as(positive)
    together = (positive / (positive + c + EPSILON)).log()
    # Where there is no stranger a quotient of 1, as 0 · ∞ in a gradient is no number.
    strange = negative > 0
    noise_there = torch.where(strange, c[:, None], 1.0)
    all_there = torch.where(strange, negative + c[:, None] + EPSILON, 1.0)
    return -(together + (noise_there / all_there).log().sum(1)).mean()


def info_nce(first: Tensor, second: Tensor, temperature: float = 0.2) -> Tensor:
    r"""Each embedding must find its twin among all others of two views (NT-Xent).

    Parameters
    ----------
    first, second : Tensor, shape (B, d)
        Of unit length, of two views of the same samples.
    temperature : float

    References
    ----------
    Chen, Kornblith, Norouzi, Hinton (2020). SimCLR, equation 1. https://arxiv.org/abs/2002.05709

    Examples
    --------
    >>> same = torch.eye(2)
    >>> info_nce(same, same, 1.0)
    tensor(0.5514)
    """
    if first.shape != second.shape or first.ndim != 2 or len(first) < 2:
        got = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"`first` and `second` must have one shape (B, d), B > 1, got {got}.")
    check_temperature(temperature)
    both = torch.cat([first, second])
    scores = both @ both.T / temperature
    scores = scores.masked_fill(
        torch.eye(len(both), dtype=torch.bool, device=both.device), -math.inf
    )
    half = len(first)
    twin = torch.arange(2 * half, device=both.device).roll(half)
    return F.cross_entropy(scores, twin)


def check_temperature(temperature: float) -> None:
    """Refuse what no similarity can be divided by."""
    if not LEAST_TEMPERATURE <= temperature < math.inf:
        raise ValueError(
            f"`temperature` must be finite and at least {LEAST_TEMPERATURE}, got {temperature}."
        )


def unit_rows(rows: int, dim: int, generator: Generator) -> Tensor:
    """Rows uniform on the unit sphere."""
    return F.normalize(torch.randn(rows, dim, generator=generator), dim=1)


class MemoryBank(nn.Module):
    """An embedding of unit length for each sample, that follows what is computed of it.

    Parameters
    ----------
    samples, dim : int
    momentum : float
        Of a row when its sample comes by: row ← normalised momentum · row + (1 − momentum) · new.
    generator : torch.Generator
        A CPU generator for the rows to start with.
    """

    rows: Tensor

    def __init__(
        self, samples: int, dim: int = 128, momentum: float = 0.5, *, generator: Generator
    ) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"`samples` must be a positive integer, got {samples}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must lie in [0, 1), got {momentum}.")
        self.momentum = momentum
        self.register_buffer("rows", unit_rows(samples, dim, generator))
        self._met: tuple[Tensor, Tensor] | None = None

    def meet(self, index: Tensor, rows: Tensor) -> None:
        """Keep what was computed of these samples, for `update` before the next scores.

        Not at once: the rows may be needed for the gradient of scores made of them.
        """
        self._met = index, rows

    @torch.no_grad()
    def update(self) -> None:
        """Move the rows of the samples that were met."""
        if self._met is not None:
            index, rows = self._met
            mixed = self.momentum * self.rows[index] + (1 - self.momentum) * rows
            self.rows[index] = F.normalize(mixed, dim=1)
            self._met = None

    def scores(self, anchors: Tensor, index: Tensor) -> Tensor:
        """Inner products (B, k) of anchors (B, dim) with the rows of samples (B, k)."""
        self.update()
        if 2 * len(self.rows) > index.shape[1] * anchors.shape[1]:
            return torch.einsum("bkd,bd->bk", self.rows[index], anchors)
        # With all rows of few: less memory than a copy of those, and on a processor less time.
        return (anchors @ self.rows.T).gather(1, index)


Rule = Literal["any", "other_class"]


class Strangers:
    """Draws samples that are not the anchor, or not of its class.

    Parameters
    ----------
    labels : Tensor, shape (n,)
        Classes of all samples.
    count : int
        N, drawn for each anchor, with replacement.
    rule : {"other_class", "any"}
        "any" is any sample but the anchor itself.

    Raises
    ------
    ValueError
        If there are fewer samples to draw from than `count`, or a single class to draw others of.
    """

    def __init__(self, labels: Tensor, count: int = 4096, rule: Rule = "other_class") -> None:
        if rule not in ("any", "other_class"):
            raise ValueError(f"`rule` must be 'any' or 'other_class', got {rule!r}.")
        n = len(labels)
        groups = labels if rule == "other_class" else torch.arange(n, device=labels.device)
        self.order = groups.argsort(stable=True)
        values, sizes = groups.unique(return_counts=True)
        if len(values) < 2:
            raise ValueError("`labels` must be of two classes or more to have others, got one.")
        fewest = n - int(sizes.max())
        if not 1 <= count <= fewest:
            raise ValueError(
                f"`count` must lie in [1, {fewest}], the samples that are no anchor's own, got "
                f"{count}."
            )
        self.count = count
        place = torch.searchsorted(values, groups)
        starts = sizes.cumsum(0) - sizes
        self.start, self.size = starts[place], sizes[place]

    def draw(self, index: Tensor, generator: Generator) -> Tensor:
        """Indices (B, N) for anchors with these indices; a CPU generator draws."""
        uniform = torch.rand(len(index), self.count, generator=generator, dtype=torch.float64)
        start, size = self.start[index][:, None], self.size[index][:, None]
        others = len(self.order) - size
        at = (uniform.to(index.device) * others).long().clamp_max_(others - 1)
        # Beyond the anchor's own group, which lies together in the order.
        return self.order[at + torch.where(at >= start, size, 0)]
