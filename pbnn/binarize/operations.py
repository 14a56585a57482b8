"""What a network costs an input: operations on bits and on real numbers, and bits of parameters."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pbnn.binarize.layers import WEIGHTED, _BinaryLayer, binary_layers, evaluating


class Operations(NamedTuple):
    """Of one input.

    Attributes
    ----------
    binary : int
        Multiplications of a sign by a sign, each with its addition.
    real : int
        Multiplications of which a factor is real, each with its addition; those of weights only.
    parameter_bits : int
        1 for each binary weight and base, 32 for every other parameter. Parameters that only make
        signs of weights, such as those of a `WeightMapping`, are gone when the signs are made;
        scales that are computed from latent weights, one a filter or a base, are not counted.
    """

    binary: int
    real: int
    parameter_bits: int


@torch.no_grad()
def count_operations(network: nn.Module, image: tuple[int, ...]) -> Operations:
    """Count what the dense and convolutional layers of a network do for one input.

    As papers count them: neither normalisation nor scales, of which there is one a filter.

    Parameters
    ----------
    network : Module
        Binary, real-valued or mixed; left as it was.
    image : tuple of int
        Shape of an input, without the batch.

    Raises
    ------
    ValueError
        If the network has no such layers, as networks of random weights have none.

    Examples
    --------
    >>> count_operations(nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False)), (1, 2, 2))
    Operations(binary=0, real=12, parameter_bits=384)
    """
    counts = {"binary": 0, "real": 0}
    bits = {id(p): 32 * p.numel() for p in network.parameters()}

    def count(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        weight: Tensor = module.weight  # type: ignore[assignment]
        # Each number of the output is one filter's product; transposed, each of the input.
        transposed = getattr(module, "transposed", False)
        numbers = given[0][0].numel() if transposed else out[0].numel()
        products = numbers * math.prod(weight.shape[1:])
        binary = _binary_weights(module) and module.activation is not None
        if _binary_weights(module):
            # Each base of the weights meets each of the activations.
            products *= getattr(module.binariser, "bases", 1)
            products *= len(getattr(module.activation, "scales", [1]))
        counts["binary" if binary else "real"] += products

    signed = [layer for layer in binary_layers(network).values() if _binary_weights(layer)]
    # What makes the signs of weights does so once, and not for each input.
    makers = [layer.binariser for layer in binary_layers(network).values() if layer.binariser]
    making = {id(module) for maker in makers for module in maker.modules()}
    layers = [m for m in network.modules() if isinstance(m, WEIGHTED) and id(m) not in making]
    if not layers:
        raise ValueError(
            f"`network` must have dense or convolutional layers, got a {type(network).__name__}."
        )
    bits |= {id(parameter): 0 for maker in makers for parameter in maker.parameters()}
    for layer in signed:
        bits[id(layer.weight)] = getattr(layer.binariser, "bases", 1) * layer.weight.numel()
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with evaluating(network):
            network(next(network.parameters()).new_zeros(1, *image))
    finally:
        for hook in hooks:
            hook.remove()
    return Operations(**counts, parameter_bits=sum(bits.values()))


def _binary_weights(module: nn.Module) -> bool:
    return (
        isinstance(module, _BinaryLayer)
        and module.binariser is not None
        and not module.real_weights
    )
