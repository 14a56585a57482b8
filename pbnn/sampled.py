"""PBGNet as its authors train it, from draws of the hidden signs: for comparison."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pbnn.functional import draw_points
from pbnn.networks import PBGNet


class SampledPBGNet(PBGNet):
    r"""One hidden layer, the aggregate and its gradient estimated from T draws of the signs.

    .. math::
        F \approx \frac1T \sum_t g(s^t), \qquad
        \frac{\partial F}{\partial F_k} \approx
        \frac1{2T} \sum_t \frac{s^t_k}{\Pr(s^t_k \mid x)} g(s^t), \qquad
        g(s) = \operatorname{erf}\Bigl(\frac{w_2 \cdot s}{\sqrt{2d}}\Bigr)

    Evaluated and certified like any `PBGNet`: only `forward` differs.

    Parameters
    ----------
    *args, **options
        Those of `PBGNet`, with one hidden layer and no bias.
    draws : int
        T.
    source : torch.Generator
        For the draws, on the device of the points.

    References
    ----------
    Letarte et al. (2019), Section 3.2. https://arxiv.org/abs/1905.10259

    Examples
    --------
    >>> source = torch.Generator().manual_seed(0)
    >>> network = SampledPBGNet(2, (3,), generator=source, draws=10, source=source)
    >>> network(torch.ones(4, 2)).shape
    torch.Size([4])
    """

    def __init__(self, *args: Any, draws: int, source: torch.Generator, **options: Any) -> None:
        super().__init__(*args, **options)
        if len(self.widths) != 1 or self.bias:
            raise ValueError(f"`hidden` must be one layer without bias, got {self.widths}.")
        if draws < 1:
            raise ValueError(f"`draws` must be a positive integer, got {draws}.")
        self.draws, self.source = draws, source

    def forward(self, x: Tensor) -> Tensor:
        """The estimate of F(x), shape (n,); its gradient is the conditional estimator."""
        mean = self.hidden_moments(x).mean
        up = (1 + mean.detach()) / 2
        drawn = draw_points(torch.rand, (self.draws, *up.shape), self.source, up, axis=1) < up
        signs = 2 * drawn.to(up.dtype) - 1
        weight = self.output.weight.mean
        output = torch.erf(F.linear(signs, weight).squeeze(-1) / math.sqrt(2 * self.widths[0]))
        probability = torch.where(drawn, up, 1 - up)
        slope = (signs / probability * output.detach()[..., None]).mean(0) / 2
        # Of value zero: carries the estimated gradient with respect to the hidden means.
        through_hidden = (slope * (mean - mean.detach())).sum(-1)
        return output.mean(0) + through_hidden
