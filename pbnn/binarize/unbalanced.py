"""Unbalanced activations: signs about a threshold other than 0, and hardtanh's relatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def share_of_ones(threshold: float) -> float:
    r"""Probability that N(0, 1) reaches a threshold: :math:`\Phi(-th)`.

    Examples
    --------
    >>> [round(share_of_ones(th), 3) for th in (0.1, 0.3, 0.5, 1.0)]
    [0.46, 0.382, 0.309, 0.159]
    """
    return math.erfc(threshold / math.sqrt(2)) / 2


def hardtanh(x: Tensor, across: float = 0.0, up: float = 0.0, width: float = 1.0) -> Tensor:
    r"""Hardtanh shifted and widened: :math:`\operatorname{clip}(x - across, -w, w) + up`.

    Real-valued activations to compare with signs: a shift in y, or one in x before a batch
    normalisation's bias can undo it, unbalances them.

    Raises
    ------
    ValueError
        If `width` is not positive.

    References
    ----------
    Kim, Park, Lee, Kim (2021). Improving Accuracy of Binary Neural Networks using Unbalanced
    Activation Distribution. https://arxiv.org/abs/2012.00938

    Examples
    --------
    >>> hardtanh(torch.tensor([-3.0, 0.5, 3.0]), across=0.5, up=1.0, width=2.0)
    tensor([-1.,  1.,  3.])
    """
    if not width > 0:
        raise ValueError(f"`width` must be positive, got {width}.")
    return (x - across).clamp(-width, width) + up


class Hardtanh(nn.Module):
    """`hardtanh` as a module."""

    def __init__(self, across: float = 0.0, up: float = 0.0, width: float = 1.0) -> None:
        super().__init__()
        hardtanh(torch.zeros(()), across, up, width)
        self.across, self.up, self.width = across, up, width

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return hardtanh(x, self.across, self.up, self.width)


class Window(nn.Module):
    r"""The slope :math:`1[|x| \le w]` of a widened hardtanh.

    Examples
    --------
    >>> Window(2.0)(torch.tensor([-1.5, 3.0]))
    tensor([1., 0.])
    """

    def __init__(self, width: float = 2.0) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"`width` must be positive, got {width}.")
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """The slope at each point."""
        return (x.abs() <= self.width).to(x.dtype)


class Threshold(nn.Module):
    r"""Minus a threshold, to be added before a sign: :math:`\operatorname{sgn}(x - th)`.

    Behind a batch normalisation with bias β, threshold th does what bias β − th does without one,
    in value and in gradient: fixed, it is a matter of where the training starts.

    Parameters
    ----------
    start : float or Tensor of shape (channels,)
    trainable : bool
    channels : int, optional
        One threshold a channel instead of one for all.

    References
    ----------
    Kim, Park, Lee, Kim (2021). https://arxiv.org/abs/2012.00938

    Examples
    --------
    >>> Threshold(0.3)(torch.zeros(1, 2))
    tensor([-0.3000])
    """

    value: Tensor

    def __init__(
        self,
        start: float | Tensor = 0.0,
        *,
        trainable: bool = False,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        value = torch.as_tensor(start, dtype=torch.get_default_dtype()).detach().clone()
        value = value.reshape(-1)
        if len(value) not in (1, channels or len(value)):
            raise ValueError(f"`start` must have 1 or {channels} elements, got {len(value)}.")
        value = value.expand(channels or len(value)).clone()
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"`start` must be finite, got {start}.")
        if trainable:
            self.value = nn.Parameter(value)
        else:
            self.register_buffer("value", value)

    def forward(self, x: Tensor) -> Tensor:
        """Minus the thresholds, in a shape that fits `x`, (n, channels, ...)."""
        return -self.value.reshape(-1, *(1,) * (x.ndim - 2))
