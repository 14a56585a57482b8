"""Balance of binary weights: on the signs themselves, and what rounding to them loses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pbnn.balance.information import entropy
from pbnn.balance.signs import DEAD


def quantisation_error(rounded: Tensor) -> Tensor:
    r"""Relative error of each filter by its signs at their best scale.

    .. math:: \min_\alpha \frac{\lVert W - \alpha B \rVert^2}{\lVert W \rVert^2}
        = 1 - \frac{(\sum |W|)^2}{n \sum W^2}, \qquad B = \operatorname{sgn} W

    1 − 2/π = .363 for Gaussian weights. It falls as the mean of a filter moves away from 0: signs
    that are all alike are easy to scale.

    Parameters
    ----------
    rounded : Tensor, shape (filters, ...)
        What the signs are taken of.

    Examples
    --------
    >>> quantisation_error(torch.tensor([[1.0, -1.0], [1.0, 3.0]]))
    tensor([0.0000, 0.2000], dtype=torch.float64)
    """
    flat = rounded.detach().flatten(1).double()
    squares = flat.square().sum(1).clamp_min(torch.finfo(torch.float64).tiny)
    return 1 - flat.abs().sum(1).square() / (flat.shape[1] * squares)


def has_signs(module: nn.Module) -> bool:
    """Whether a module's weights are rounded to signs."""
    return hasattr(module, "rounded") and getattr(module, "binariser", module) is not None


@torch.no_grad()
def weight_balance(layer: nn.Module) -> dict[str, float]:
    """Figures of a binary layer's weights; see `pbnn.balance`.

    Parameters
    ----------
    layer : Module
        With ``signs()``, the signs of its weights, and ``rounded()``, what they are taken of.
    """
    return sign_figures(layer.signs(), layer.rounded())  # type: ignore[operator]


def sign_figures(signs: Tensor, rounded: Tensor) -> dict[str, float]:
    """The figures of signs of weights, or of the means of random ones."""
    share = (1 + signs.detach().flatten(1).double().mean(1)) / 2
    figures: dict[str, Any] = {
        "channels": len(share),
        "share": share.mean(),
        "mean_sign": (2 * share - 1).abs().mean(),
        "entropy": entropy(share).mean(),
        "entropy_pooled": entropy(share.mean()),
        "dead": ((share < DEAD) | (share > 1 - DEAD)).double().mean(),
        "quantisation_error": quantisation_error(rounded).mean(),
        "latent_mean": _mean_over_std(rounded),
    }
    return {name: float(value) for name, value in figures.items()}


def _mean_over_std(weight: Tensor) -> Tensor:
    """Mean over filters of |mean| / standard deviation."""
    flat = weight.detach().flatten(1).double()
    return (flat.mean(1).abs() / flat.std(1, correction=0).clamp_min(1e-12)).mean()
