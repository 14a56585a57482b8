"""Pruning by magnitude: masks of a whole network, rounds with a rewind, and their overlap."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Generator, Tensor, nn

from pbnn.binarize import binary_layers

Masks = dict[str, Tensor]
"""For each weight by name, which of its numbers are kept (bool)."""


def check_sparsity(sparsity: float) -> None:
    """Refuse a share of pruned weights outside [0, 1)."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"`sparsity` must lie in [0, 1), got {sparsity}.")


def prunable(network: nn.Module, *, last: bool = False) -> dict[str, nn.Parameter]:
    """Weights of dense layers and convolutions by name, the scores' (the last) left out."""
    weights = {
        name: parameter
        for name, parameter in network.named_parameters()
        if parameter.ndim > 1 and name.endswith("weight") and ".binariser." not in name
        and ".activation." not in name
    }  # fmt: skip
    names = list(weights) if last else list(weights)[:-1]
    return {name: weights[name] for name in names}


def kept_of(count: int, sparsity: float) -> int:
    """Weights kept of so many, when the nearest integer to the share is pruned.

    Examples
    --------
    >>> kept_of(10, 0.72)
    3
    """
    check_sparsity(sparsity)
    return count - int(count * sparsity + 0.5)


def magnitude_masks(
    weights: Mapping[str, Tensor], sparsity: float, within: Masks | None = None
) -> Masks:
    """Keep the largest magnitudes of all weights together, exactly 1 − `sparsity` of them.

    Of equal magnitudes the earlier ones are kept.

    Parameters
    ----------
    weights : dict of str to Tensor
    sparsity : float
        Share of all weights that are pruned, in [0, 1).
    within : dict, optional
        Masks of an earlier round: what they prune stays pruned.

    Examples
    --------
    >>> magnitude_masks({"a": torch.tensor([0.1, -3.0]), "b": torch.tensor([2.0, 0.0])}, 0.5)
    {'a': tensor([False,  True]), 'b': tensor([ True, False])}
    """
    if within is not None and sparsity < sparsity_of(within):
        got = f"{sparsity} within masks of {sparsity_of(within):.6g}"
        raise ValueError(f"`sparsity` must be at least that of `within`, got {got}.")
    sizes = {name: weight.abs().detach().clone() for name, weight in weights.items()}
    for name, size in sizes.items():
        if within is not None:
            size[~within[name]] = -1
    return _best(sizes, sparsity)


def random_masks(weights: Mapping[str, Tensor], sparsity: float, generator: Generator) -> Masks:
    """Keep weights at random, exactly 1 − `sparsity` of all.

    Parameters
    ----------
    generator : torch.Generator
        A CPU generator.
    """
    return _best(
        {
            name: torch.rand(weight.shape, generator=generator).to(weight.device)
            for name, weight in weights.items()
        },
        sparsity,
    )


def shuffled_masks(masks: Masks, generator: Generator) -> Masks:
    """As many weights of each layer, at random places within it.

    Parameters
    ----------
    masks : dict
    generator : torch.Generator
        A CPU generator.

    Examples
    --------
    >>> mask = torch.tensor([True, False, False, False])
    >>> int(shuffled_masks({"a": mask}, torch.Generator())["a"].sum())
    1
    """
    return {
        name: mask.flatten()[
            torch.randperm(mask.numel(), generator=generator).to(mask.device)
        ].view(mask.shape)
        for name, mask in masks.items()
    }


def _best(sizes: Mapping[str, Tensor], sparsity: float) -> Masks:
    flat = torch.cat([size.flatten() for size in sizes.values()])
    order = flat.argsort(descending=True, stable=True)[: kept_of(len(flat), sparsity)]
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[order] = True
    parts = kept.split([size.numel() for size in sizes.values()])
    return {
        name: part.view(size.shape) for (name, size), part in zip(sizes.items(), parts, strict=True)
    }


class Held:
    """Masks on a network: pruned weights are 0, and stay 0 while it trains, until `remove`.

    Gradients of pruned weights are 0 too. A binary layer with a mask multiplies by weights in
    {−1, 0, +1} times its scales: it is ternary, as long as the masks are held. Evaluate it so:
    after `remove` what was pruned of it would be sgn(0) = +1. Masks are no part of a state: keep
    them beside it, and hold them after a state is loaded. An optimiser from before may move pruned
    weights between two passes; each pass makes them 0 again.

    Parameters
    ----------
    network : Module
    masks : dict
        By names of weights, as `magnitude_masks` gives them.

    Raises
    ------
    ValueError
        For a mask that is not of booleans or fits no weight, or while a layer has another.
    """

    def __init__(self, network: nn.Module, masks: Masks) -> None:
        weights = dict(network.named_parameters())
        for name, mask in masks.items():
            if name not in weights or weights[name].shape != mask.shape:
                got = f"{name!r} of shape {tuple(mask.shape)}"
                raise ValueError(f"`masks` must fit weights of the network, got {got}.")
            if mask.dtype != torch.bool:
                raise ValueError(f"`masks` must hold booleans, got {mask.dtype} for {name!r}.")
        if any(layer.mask is not None for layer in binary_layers(network).values()):
            raise ValueError("`network` must have no masks held yet: `remove` those first.")
        self._hooks = []
        self._layers = []
        binary = binary_layers(network)
        for name, mask in masks.items():
            weight, owner = weights[name], name.rpartition(".")[0]
            mask = mask.to(weight.device)
            _prune(weight, mask)
            self._hooks.append(weight.register_hook(lambda grad, m=mask: grad * m))
            self._hooks.append(
                network.get_submodule(owner).register_forward_pre_hook(
                    lambda module, _, m=mask: _prune(module.weight, m)
                )
            )
            if (layer := binary.get(owner)) is not None:
                layer.mask = mask
                self._layers.append(layer)

    def remove(self) -> None:
        """Let the pruned weights go."""
        for hook in self._hooks:
            hook.remove()
        for layer in self._layers:
            layer.mask = None


def _prune(weight: Tensor, mask: Tensor) -> None:
    # Unseen by autograd: a second pass, which changes nothing, may come before the gradient.
    weight.data.mul_(mask)


def geometric_sparsities(sparsity: float, rounds: int) -> tuple[float, ...]:
    r"""Sparsities that prune the same share of what is left each round, :math:`1 - (1 - s)^{r/R}`.

    Parameters
    ----------
    sparsity : float
        After the last round, in [0, 1).
    rounds : int
        R.

    Examples
    --------
    >>> geometric_sparsities(0.75, 2)
    (0.5, 0.75)
    """
    check_sparsity(sparsity)
    if rounds < 1:
        raise ValueError(f"`rounds` must be a positive integer, got {rounds}.")
    return tuple(1 - (1 - sparsity) ** (done / rounds) for done in range(1, rounds + 1))


def prune_in_rounds(
    network: nn.Module,
    train: Callable[[nn.Module], object],
    rewind: Mapping[str, Tensor],
    *,
    sparsities: Sequence[float],
) -> list[Masks]:
    """Train, prune the smallest of what is left, rewind; once for each sparsity.

    Parameters
    ----------
    network : Module
        Left at the state `rewind`, whole: hold the masks to train it on (`Held`).
    train : callable
        Trains the network in place; what it learns decides the masks.
    rewind : dict
        A state of the network, from its start or early in its training.
    sparsities : sequence of float
        After each round, rising, in [0, 1); `geometric_sparsities` gives the usual ones.

    Returns
    -------
    list of dict
        The masks after each round, within those of the round before.

    Raises
    ------
    ValueError
        For sparsities that do not rise.

    References
    ----------
    Frankle, Dziugaite, Roy, Carbin (2020). Linear mode connectivity and the lottery ticket
    hypothesis. https://arxiv.org/abs/1912.05671
    Caron, Morcos, Bojanowski, Mairal, Joulin (2020). Pruning convolutional neural networks with
    self-supervision. https://arxiv.org/abs/2001.03554
    """
    sparsities = tuple(float(sparsity) for sparsity in sparsities)
    for sparsity in sparsities:
        check_sparsity(sparsity)
    if not sparsities or any(a >= b for a, b in itertools.pairwise(sparsities)):
        raise ValueError(f"`sparsities` must be some that rise, got {sparsities}.")
    rewind = copy.deepcopy(dict(rewind))
    masks: Masks = {
        name: torch.ones_like(weight, dtype=torch.bool)
        for name, weight in prunable(network).items()
    }
    if not masks:
        raise ValueError("`network` must have weights to prune besides the last, got none.")
    found = []
    for sparsity in sparsities:
        network.load_state_dict(rewind)
        held = Held(network, masks)
        try:
            train(network)
            masks = magnitude_masks(prunable(network), sparsity, masks)
        finally:
            held.remove()
        found.append(masks)
    network.load_state_dict(rewind)
    return found


def sparsity_of(masks: Masks) -> float:
    """Share of the weights that masks prune."""
    total = sum(mask.numel() for mask in masks.values())
    return 1 - float(sum(mask.sum() for mask in masks.values())) / total
