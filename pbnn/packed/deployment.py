"""From a posterior to the bits that are deployed, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pbnn.certificates import code_length, log_ratio_upper
from pbnn.layers import freeze_statistics, statistics_splits
from pbnn.networks import BinaryNetwork, BLRNet, binarise
from pbnn.packed.layers import BitLayer
from pbnn.packed.network import PackedNetwork
from pbnn.seeding import copied

Predictor = Literal["draw", "mode", "vote"]


@torch.no_grad()
def deployed(
    network: BLRNet,
    predictor: Predictor,
    x: Tensor,
    split: str,
    generator: torch.Generator,
    *,
    members: int = 16,
) -> list[BinaryNetwork]:
    """What is deployed of a posterior: one drawn network, the most probable one, or some that vote.

    Batch normalisation of each has the statistics that these inputs have in it, frozen. Its γ and β
    are those of the network, for which no divergence pays: they must come from the same split.

    Parameters
    ----------
    network : BLRNet
        Its batch normalisation frozen on that split (`freeze_statistics`) and as it was then.
    predictor : {"draw", "mode", "vote"}
    x : Tensor, shape (n, channels, height, width)
        Inputs of the prior's or the feature split, some thousand; may be empty without batch
        normalisation.
    split : str
        Hash of their split.
    generator : torch.Generator
        Of draws, its seed fixed beforehand.
    members : int
        Of a vote.

    Raises
    ------
    ValueError
        For an unknown predictor, no member, or batch normalisation of unknown origin.

    Examples
    --------
    >>> network = BLRNet((1, 8, 8), "4C3-MP2-SM10", generator=torch.Generator().manual_seed(0))
    >>> images = torch.rand(20, 1, 8, 8)
    >>> freeze_statistics(network, "a hash")
    >>> vote = deployed(network, "vote", images, "a hash", torch.Generator(), members=3)
    >>> len(vote), vote[0](images).shape
    (3, torch.Size([20, 10]))
    """
    if predictor not in ("draw", "mode", "vote"):
        raise ValueError(f"`predictor` must be 'draw', 'mode' or 'vote', got {predictor!r}.")
    if members < 1:
        raise ValueError(f"`members` must be a positive integer, got {members}.")
    if odd := statistics_splits(network) - {split}:
        told = sorted("not frozen" if each is None else each or "changed since" for each in odd)
        raise ValueError(
            "`network` must have batch normalisation frozen on the split that its statistics come "
            f"from, as γ and β have no price, got {', '.join(told)}: `freeze_statistics` before "
            "`save_checkpoint` (or --norms-of-prior); another hash is of other data or splits."
        )
    if predictor == "mode":
        found = [binarise(network)]
    else:
        # Drawn in float64, so that the law of a draw is the posterior up to 2⁻⁵³ a weight.
        dtype, exact = network.layers()[0].layer.weight.mean.dtype, copied(network).double()
        count = members if predictor == "vote" else 1
        found = [binarise(exact, "sample", generator).to(dtype) for _ in range(count)]
    if network.config["batch_norm"]:
        for one in found:
            freeze_statistics(one.re_estimate(x), split)
    return found


@torch.no_grad()
def price(network: BLRNet, packed: PackedNetwork, theorem: str) -> float:
    """Nats of exactly these bits: their log-ratio, or the length of their code; of all members.

    Parameters
    ----------
    network : BLRNet
        Posterior and prior.
    packed : PackedNetwork
    theorem : {"rivasplata", "occam"}
        Whose price is asked for.

    Raises
    ------
    ValueError
        If the bits are not those of a network of this shape.
    """
    if theorem not in ("rivasplata", "occam"):
        raise ValueError(f"`theorem` must be 'rivasplata' or 'occam', got {theorem!r}.")
    each = [_price(network, layers, theorem) for layers in packed.members]
    total, size = math.fsum(each), math.fsum(map(abs, each))
    return each[0] if len(each) == 1 else math.nextafter(total + 2**-50 * size, math.inf)


def _price(network: BLRNet, layers: Sequence[object], theorem: str) -> float:
    shaped = binarise(network)
    blocks = shaped.layers()
    if len(layers) != len(blocks):
        got = f"{len(layers)} of {len(blocks)} layers"
        raise ValueError(f"`packed` must be of the network's shape, got {got}.")
    for block, layer in zip(blocks, layers, strict=True):
        if not isinstance(layer, BitLayer) or layer.mask is not None:
            raise ValueError("`packed` must have weights ±1, got real ones or zeros.")
        weight = torch.from_numpy(layer.weight().transpose(0, 3, 1, 2).copy())
        if weight.numel() != block.weight.numel() or len(weight) != len(block.weight):
            raise ValueError(f"`packed` must be of the network's shape, got {layer.name!r}.")
        block.weight = weight.reshape(block.weight.shape).to(block.weight)
    if theorem == "occam":
        return code_length(network, shaped)
    return log_ratio_upper(network, shaped)
