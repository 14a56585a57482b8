"""Real-valued networks to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pbnn.functional import hard_sign
from pbnn.layers import xavier_normal
from pbnn.networks import check_sizes, expand_shift


class MLP(nn.Module):
    """Real-valued baseline: tanh hidden layer, tanh output in [−1, 1], one hidden layer.

    Examples
    --------
    >>> MLP(4, hidden=(3,), generator=torch.Generator().manual_seed(0))(torch.ones(2, 4)).shape
    torch.Size([2])
    """

    shift: Tensor

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (100,),
        *,
        shift: Tensor | float = 0.0,
        generator: torch.Generator,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_features, hidden)
        if len(hidden) != 1:
            raise ValueError(f"`hidden` must be the width of one hidden layer, got {hidden}.")
        self.in_features, self.width = in_features, int(hidden[0])
        make: dict[str, Any] = {"dtype": dtype, "device": device}
        self.hidden = nn.Parameter(xavier_normal(self.width, in_features, generator, **make))
        self.hidden_bias = nn.Parameter(torch.zeros(self.width, **make))
        self.output = nn.Parameter(xavier_normal(1, self.width, generator, **make))
        self.output_bias = nn.Parameter(torch.zeros(1, **make))
        self.register_buffer("shift", expand_shift(shift, in_features, self.hidden.dtype, device))

    @property
    def config(self) -> dict[str, Any]:
        """What is needed to rebuild the network, as plain JSON values."""
        return {"in_features": self.in_features, "hidden": [self.width]}

    def forward(self, x: Tensor) -> Tensor:
        """Real output in [−1, 1], shape (n,)."""
        x = x.flatten(1) - self.shift
        hidden = torch.tanh(nn.functional.linear(x, self.hidden, self.hidden_bias))
        return torch.tanh(nn.functional.linear(hidden, self.output, self.output_bias)).squeeze(-1)

    def mode(self, x: Tensor) -> Tensor:
        """Predicted label ±1."""
        return hard_sign(self(x))
