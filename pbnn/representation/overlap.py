"""How much two masks of a network have in common, and how much of that is chance."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pbnn.representation.pruning import Masks, check_sparsity


def jaccard(first: Masks, second: Masks) -> float:
    r"""Overlap of kept weights, :math:`|A \cap B| / |A \cup B|`.

    Examples
    --------
    >>> first = {"a": torch.tensor([True, True, False])}
    >>> jaccard(first, {"a": torch.tensor([False, True, True])})
    0.3333333333333333
    """
    _check_same(first, second)
    both = sum(int((first[name] & second[name]).sum()) for name in first)
    either = sum(int((first[name] | second[name]).sum()) for name in first)
    return both / max(1, either)


def jaccard_by_chance(sparsity: float) -> float:
    r"""Overlap of two random masks of a density d = 1 − s, about :math:`d/(2 - d)`.

    Examples
    --------
    >>> round(jaccard_by_chance(0.8), 3)
    0.111
    """
    check_sparsity(sparsity)
    return (1 - sparsity) / (1 + sparsity)


def jaccard_by_groups(first: Masks, second: Masks, groups: Masks | None = None) -> float:
    r"""Overlap of two masks that keep as many in each group as these, at random places.

    With :math:`a_g, b_g` of :math:`n_g` weights kept, about :math:`\sum a_g b_g / n_g` over
    :math:`\sum a_g + b_g - a_g b_g / n_g`. Masks that agree on the groups alone overlap so much;
    `jaccard_by_chance` knows nothing of them.

    Parameters
    ----------
    first, second : dict
    groups : dict, optional
        The number of the group of each weight within its layer (`magnitude_groups`); without, a
        layer is a group.

    Examples
    --------
    >>> first = {"a": torch.tensor([True, True]), "b": torch.tensor([True, False])}
    >>> jaccard_by_groups(first, first)
    0.7142857142857143
    """
    _check_same(first, second)
    both = either = 0.0
    for name, mask in first.items():
        group = torch.zeros_like(mask, dtype=torch.int64) if groups is None else groups[name]
        ours, theirs, sizes = (
            torch.bincount(group.flatten(), weights=weight.flatten().double())
            for weight in (mask, second[name], torch.ones_like(mask))
        )
        expected = (ours * theirs / sizes.clamp_min(1)).sum().item()
        both, either = both + expected, either + (ours + theirs).sum().item() - expected
    return both / either if either else 0.0


def magnitude_groups(weights: Mapping[str, Tensor], count: int) -> Masks:
    """Groups of each layer's weights by magnitude, of nearly equal size, numbered upwards.

    Examples
    --------
    >>> magnitude_groups({"a": torch.tensor([0.1, -3.0, 2.0, 0.0])}, 2)
    {'a': tensor([0, 1, 1, 0])}
    """
    if count < 1:
        raise ValueError(f"`count` must be a positive integer, got {count}.")
    return {
        name: (weight.detach().abs().flatten().argsort(stable=True).argsort() * count
               // weight.numel()).view(weight.shape)
        for name, weight in weights.items()
    }  # fmt: skip


def _check_same(first: Masks, second: Masks) -> None:
    shapes = [
        {name: tuple(mask.shape) for name, mask in masks.items()} for masks in (first, second)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"`first` and `second` must have the same weights, got {shapes[0]} and {shapes[1]}."
        )
