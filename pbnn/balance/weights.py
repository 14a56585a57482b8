"""Balance of binary weights: on the signs themselves, and what rounding to them loses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pbnn.balance.information import entropy
from pbnn.balance.signs import DEAD


def quantisation_error(rounded: Tensor, kept: Tensor | None = None) -> Tensor:
    r"""Relative error of each filter by its signs at their best scale.

    .. math:: \min_\alpha \frac{\lVert W - \alpha B \rVert^2}{\lVert W \rVert^2}
        = 1 - \frac{(\sum |W|)^2}{n \sum W^2}, \qquad B = \operatorname{sgn} W

    1 − 2/π = .363 for Gaussian weights. It falls as the mean of a filter moves away from 0: signs
    that are all alike are easy to scale.

    Parameters
    ----------
    rounded : Tensor, shape (filters, ...)
        What the signs are taken of.
    kept : Tensor, of the same shape, optional
        Which are not pruned; all without.

    Examples
    --------
    >>> quantisation_error(torch.tensor([[1.0, -1.0], [1.0, 3.0]]))
    tensor([0.0000, 0.2000], dtype=torch.float64)
    """
    flat = rounded.detach().flatten(1).double()
    count: Tensor | int = flat.shape[1]
    if kept is not None:
        flat, count = flat * kept.flatten(1), kept.flatten(1).sum(1)
    squares = flat.square().sum(1).clamp_min(torch.finfo(torch.float64).tiny)
    return 1 - flat.abs().sum(1).square() / (count * squares)


def has_signs(module: nn.Module) -> bool:
    """Whether a module's weights are rounded to signs."""
    return hasattr(module, "rounded") and getattr(module, "binariser", module) is not None


@torch.no_grad()
def weight_balance(layer: nn.Module) -> dict[str, float]:
    """Figures of a binary layer's weights; see `pbnn.balance`.

    Parameters
    ----------
    layer : Module
        With ``signs()``, the signs of its weights, 0 for those that are pruned, and ``rounded()``,
        what they are taken of.
    """
    signs: Tensor = layer.signs()  # type: ignore[operator]
    return sign_figures(signs, layer.rounded(), signs != 0)  # type: ignore[operator]


def sign_figures(signs: Tensor, rounded: Tensor, kept: Tensor | None = None) -> dict[str, float]:
    """The figures of signs of weights, or of the means of random ones; of pruned ones none."""
    if kept is None:
        kept = torch.ones_like(signs, dtype=torch.bool)
    some = kept.flatten(1).any(1)
    signs, rounded, kept = (
        part.detach().flatten(1).double()[some] for part in (signs, rounded, kept)
    )
    share = (1 + (signs * kept).sum(1) / kept.sum(1)) / 2
    figures: dict[str, Any] = {
        "channels": len(share),
        "share": share.mean(),
        "mean_sign": (2 * share - 1).abs().mean(),
        "entropy": entropy(share).mean(),
        "entropy_pooled": entropy(share.mean()),
        "dead": ((share < DEAD) | (share > 1 - DEAD)).double().mean(),
        "quantisation_error": quantisation_error(rounded, kept).mean(),
        "latent_mean": _mean_over_std(rounded, kept),
    }
    return {name: float(value) for name, value in figures.items()}


def _mean_over_std(flat: Tensor, kept: Tensor) -> Tensor:
    """Mean over filters of |mean| / standard deviation."""
    mean = (flat * kept).sum(1) / kept.sum(1)
    variance = ((flat - mean[:, None]).square() * kept).sum(1) / kept.sum(1)
    return (mean.abs() / variance.sqrt().clamp_min(1e-12)).mean()
