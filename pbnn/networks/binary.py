"""Deterministic networks of sign activations, made of a posterior: the network that is deployed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Generator, Tensor, nn

from pbnn.functional import hard_sign
from pbnn.layers import Convolution, Dense, StochasticBatchNorm, ThresholdSign
from pbnn.networks.blocks import Block, Tail
from pbnn.networks.blrnet import BLRNet, channels_last
from pbnn.networks.checks import check_images
from pbnn.posteriors import BernoulliPosterior


class BinaryBlock(nn.Module):
    """Known weights and what follows them."""

    weight: Tensor

    def __init__(self, weight: Tensor, product: Dense | Convolution, tail: Tail) -> None:
        super().__init__()
        self.product, self.tail = product, tail
        self.register_buffer("weight", weight)

    def rounded(self) -> Tensor:
        """The weights, for `pbnn.balance`."""
        return self.weight

    def signs(self) -> Tensor:
        """Their signs."""
        return hard_sign(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Signs, or scores, of known inputs."""
        return self.tail.known(self.product(x, self.weight))


class BinaryNetwork(nn.Module):
    """Network of known weights and sign activations, with scores for each class.

    Made by `binarise`. Its batch normalisation has the running statistics of the network it comes
    from, until `re_estimate` finds its own.
    """

    def __init__(self, blocks: Sequence[BinaryBlock], image: Sequence[int]) -> None:
        super().__init__()
        self.image = tuple(image)
        self.blocks = nn.ModuleList(blocks)
        self.requires_grad_(False).eval()

    def layers(self) -> list[BinaryBlock]:
        """The blocks, from the input to the scores."""
        return list(self.blocks)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Scores, shape (n, classes)."""
        x = self._images(x)
        for block in self.layers():
            x = block(x)
        return x

    def _images(self, x: Tensor) -> Tensor:
        """The images as convolutions like them, if they are such as the network was made for."""
        check_images(x, self.image, self.layers()[0].weight.dtype)
        return channels_last(x)

    @torch.no_grad()
    def re_estimate(self, x: Tensor) -> Self:
        """Take the statistics of every batch normalisation from these inputs, layer by layer.

        Some twenty training batches are enough. For a certificate they must be inputs that the
        prior may depend on. All activations of a layer are held at once: n x channels x height x
        width numbers of the largest.
        """
        x = self._images(x)
        for block in self.layers():
            a = block.product(x, block.weight)
            if isinstance(block.tail.norm, StochasticBatchNorm):
                block.tail.norm.re_estimate(a)
            x = block.tail.known(a)
        return self

    def fold(self) -> BinaryNetwork:
        """The same network, bit for bit, with thresholds for batch normalisation and sign.

        That holds for pre-activations that are finite, which those of finite inputs are. The scores
        keep their normalisation.

        Raises
        ------
        ValueError
            If an average is taken between normalisation and sign, which no threshold can replace.
        """
        folded = copy.deepcopy(self)
        for block in folded.layers():
            tail = block.tail
            if tail.last or not isinstance(tail.norm, StochasticBatchNorm):
                continue
            if tail.pool is not None and tail.pool.kind == "average":
                raise ValueError("`fold` needs maximum pooling, got a network that averages.")
            tail.norm = ThresholdSign(tail.norm)
        return folded


Conversion = Literal["mode", "ternary", "sample"]


@torch.no_grad()
def binarise(
    network: BLRNet, how: Conversion = "mode", generator: Generator | None = None
) -> BinaryNetwork:
    """One deterministic network of a posterior.

    Parameters
    ----------
    network : BLRNet
    how : {"mode", "ternary", "sample"}
        Each weight its most probable value; that, or 0 if its probability is below ¾; or a draw.
    generator : torch.Generator, optional
        For "sample", on the device of the network.

    References
    ----------
    Peters and Welling (2018), Sections 3.5 and 4. https://arxiv.org/abs/1809.03368

    Examples
    --------
    >>> network = BLRNet((1, 8, 8), "4C3-MP2-SM10", generator=torch.Generator().manual_seed(0))
    >>> images = torch.rand(16, 1, 8, 8)
    >>> binarise(network).re_estimate(images).fold()(images).shape
    torch.Size([16, 10])
    """
    if how not in ("mode", "ternary", "sample"):
        raise ValueError(f"`how` must be 'mode', 'ternary' or 'sample', got {how!r}.")
    if how == "sample" and generator is None:
        raise ValueError("`generator` must be given to draw a network, got None.")

    def known(block: Block) -> BinaryBlock:
        posterior = block.layer.weight
        if how == "ternary":
            if not isinstance(posterior, BernoulliPosterior):
                raise ValueError("`how` must be 'mode' or 'sample' for Gaussian weights.")
            weight = posterior.ternary()
        elif generator is not None and how == "sample":
            weight = posterior.sample(generator)
        else:
            weight = posterior.mode().clone()
        return BinaryBlock(weight, block.layer.product, copy.deepcopy(block.tail))

    return BinaryNetwork([known(block) for block in network.layers()], network.config["image"])
