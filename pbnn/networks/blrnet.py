"""BLRNet: probabilistic binary convolutional networks by the local reparameterisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Generator, Tensor, nn

from pbnn.binarize.recipes import ESTIMATORS, check_known
from pbnn.functional import Moments, Signs, Units, hard_concrete
from pbnn.layers import Convolution, Dense, Posterior, StochasticBatchNorm, StochasticLayer
from pbnn.networks.architecture import SMALL_IMAGES, Stage, parse
from pbnn.networks.blocks import Block, Tail
from pbnn.networks.checks import check_images, is_real, is_whole
from pbnn.posteriors import BernoulliPosterior, GaussianPosterior

POSTERIORS: dict[str, type[Posterior]] = {
    "bernoulli": BernoulliPosterior,
    "gaussian": GaussianPosterior,
}
"""Posterior of a layer's weights by its law."""

TINIEST = math.ulp(0.0)
ACTIVATIONS = ("analytic", "concrete", "sample", "mode")
POOLINGS = ("analytic", "sampled")


class BLRNet(nn.Module):
    r"""Network of random weights and sign activations whose scores are Gaussian by the CLT.

    Each layer multiplies by random weights, normalises by `StochasticBatchNorm`, pools, and takes
    signs; the last gives the scores of the classes. PBNet hands on the probabilities of the signs,
    layer by layer; PBNet-S draws the signs while it trains, so that the next layer's inputs are
    known and its variance costs nothing. Networks that are really deployed are trained straight
    through, at the cost of a real-valued one: one drawn for each batch, or the most probable, a
    start for the posterior (`BernoulliPosterior.commit`).

    Parameters
    ----------
    image : (channels, height, width)
        Shape of an input.
    architecture : str
        As in papers, see `pbnn.networks.architecture.parse`; convolutions keep the image's size.
    law : {"bernoulli", "gaussian"}
        Weights ±1 with free probabilities, or :math:`\mathcal N(\theta, 1)`.
    activation : {"analytic", "concrete", "sample", "mode"}
        PBNet; or in training mode PBNet-S, signs drawn by `pbnn.functional.hard_concrete`; or, in
        training mode, the scores of `sample`. In evaluation mode these three hand on probabilities.
        Or always the scores of `mode`.
    pooling : {"analytic", "sampled"}
        Maximum of independent signs, or moments of the unit that is the largest in a draw.
    batch_norm : bool
    padding_value : {0, −1, +1}
        What surrounds an image.
    temperature : float
        τ of the concrete distribution.
    estimator : str
        Of `pbnn.binarize.ESTIMATORS`: the gradient of signs that are known, as in `mode` and
        `sample`.
    start : float
        The posterior's means start uniformly in [−start, start] (signs) or with this standard
        deviation (Gaussian). The prior's means are 0.
    generator : torch.Generator
        A CPU generator for the start of the means.
    source : torch.Generator, optional
        For signs and maxima that are drawn in a pass, on the device of the points.
    dtype, device
        Of every parameter and buffer.

    References
    ----------
    Peters and Welling (2018). Probabilistic Binary Neural Networks.
    https://arxiv.org/abs/1809.03368

    Examples
    --------
    >>> make = torch.Generator().manual_seed(0)
    >>> network = BLRNet((1, 8, 8), "4C3-MP2-SM10", generator=make)
    >>> network(torch.rand(5, 1, 8, 8)).mean.shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        image: Sequence[int],
        architecture: str = SMALL_IMAGES,
        *,
        law: Literal["bernoulli", "gaussian"] = "bernoulli",
        activation: Literal["analytic", "concrete", "sample", "mode"] = "analytic",
        pooling: Literal["analytic", "sampled"] = "analytic",
        batch_norm: bool = True,
        padding_value: float = 0.0,
        temperature: float = 1.0,
        estimator: str = "gaussian",
        start: float = 1.0,
        generator: Generator,
        source: Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("law", law, tuple(POSTERIORS)),
            ("activation", activation, ACTIVATIONS),
            ("pooling", pooling, POOLINGS),
        ):
            if value not in known:
                raise ValueError(f"`{name}` must be one of {known}, got {value!r}.")
        padded = is_real(padding_value, -1)
        for name, sound, domain, got in (
            ("batch_norm", isinstance(batch_norm, bool), "True or False", batch_norm),
            ("padding_value", padded and padding_value in (-1, 0, 1), "−1, 0 or +1", padding_value),
            ("temperature", is_real(temperature, TINIEST), "positive", temperature),
            ("start", is_real(start, 0), "at least 0", start),
        ):
            if not sound:
                raise ValueError(f"`{name}` must be {domain}, got {got}.")
        if source is None and (activation in ("concrete", "sample") or pooling == "sampled"):
            raise ValueError("`source` must be a generator for what is drawn in a pass, got None.")
        stages = parse(architecture)
        shapes = weight_shapes(image, stages)
        self.config: dict[str, Any] = {
            "image": list(image),
            "architecture": architecture,
            "law": law,
            "activation": activation,
            "pooling": pooling,
            "batch_norm": batch_norm,
            "padding_value": padding_value,
            "temperature": temperature,
        }
        if estimator != "gaussian":  # as before, so that fingerprints stay what they were
            self.config["estimator"] = estimator
        self.activation, self.pooling = activation, pooling
        self.temperature, self.source = temperature, source
        check_known("estimator", estimator, ESTIMATORS)
        slope = ESTIMATORS[estimator]()
        make: dict[str, Any] = {"dtype": dtype, "device": device}
        blocks = []
        for stage, shape in zip(stages, shapes, strict=True):
            draw = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
            if law == "gaussian":
                draw = torch.randn(shape, generator=generator, dtype=torch.float64)
            mean = (float(start) * draw).to(dtype or torch.get_default_dtype()).to(device)
            posterior = POSTERIORS[law](torch.zeros_like(mean), mean)
            norm = StochasticBatchNorm(stage.width, **make) if batch_norm else None
            tail = Tail(norm, stage.pool, stage is stages[-1], slope=slope)
            blocks.append(Block(StochasticLayer(posterior, product_of(stage, padding_value)), tail))
        self.blocks = nn.ModuleList(blocks)
        # Convolutions are fastest with their channels side by side, and so are normalised signs.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.layers()[-1].layer.weight.prior_mean)

    def layers(self) -> list[Block]:
        """The blocks, from the input to the scores."""
        return list(self.blocks)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Moments:
        """Moments of the scores, each of shape (n, classes)."""
        x = self._images(x)
        if self.activation == "mode":
            return certain(self.mode(x))
        if self.training and self.activation == "sample":
            assert self.source is not None
            return certain(self.sample(x, self.source))
        units: Units = x
        draw_maximum = self.source if self.pooling == "sampled" else None
        for block in self.layers():
            units = block.analytic(units, draw_maximum)
            if self.training and self.activation == "concrete" and isinstance(units, Signs):
                assert self.source is not None
                drawn = hard_concrete(units.mean, self.source, self.temperature)
                units = Signs(drawn, known=True)
        assert isinstance(units, Moments)
        return Moments(units.mean, units.var.expand_as(units.mean))

    def _images(self, x: Tensor) -> Tensor:
        """The images as convolutions like them, if they are such as the network was made for."""
        check_images(x, self.config["image"], self.layers()[0].layer.weight.mean.dtype)
        return channels_last(x)

    def sample(
        self, x: Tensor, generator: Generator, fresh: Literal["batch", "datum"] = "batch"
    ) -> Tensor:
        """Scores (n, classes) under one draw of all weights for the batch, or one a datum.

        With straight-through gradients, as `mode`.
        """
        for block in self.layers():
            x = block.sample(x, generator, fresh)
        return x

    def mode(self, x: Tensor) -> Tensor:
        """Scores (n, classes) under the most probable weights, with straight-through gradients.

        Courbariaux, Hubara, Soudry, El-Yaniv, Bengio (2016). https://arxiv.org/abs/1602.02830
        """
        for block in self.layers():
            x = block.mode(x)
        return x

    @torch.no_grad()
    def re_estimate(self, x: Tensor) -> Self:
        """Take the statistics of every batch normalisation from these inputs, layer by layer.

        Of random units: after weights have changed outside of training. As
        `BinaryNetwork.re_estimate` for the rest.
        """
        units: Units = self._images(x)
        draw_maximum = self.source if self.pooling == "sampled" else None
        for block in self.layers():
            h = block.layer.analytic(units)
            if isinstance(block.tail.norm, StochasticBatchNorm):
                block.tail.norm.re_estimate(h)
            units = block.tail.analytic(h, draw_maximum)
        return self

    def kl(self) -> Tensor:
        """KL(Q‖P) of all weights in nats; γ, β and statistics are not part of Q."""
        return torch.stack([block.layer.kl() for block in self.layers()]).sum()

    def adopt_as_prior(self) -> None:
        """Make the current posterior the prior, as after training on the prior split."""
        for block in self.layers():
            block.layer.weight.adopt_as_prior()


@torch.no_grad()
def unbalance(network: BLRNet, threshold: float) -> None:
    r"""Move the thresholds of all signs: before a sign, batch normalisation's β becomes β − th.

    What `pbnn.binarize.Threshold` does for known units: of normalised pre-activations it turns a
    share :math:`\Phi(-th)` to +1. Call it before training; β goes on from there.

    Raises
    ------
    ValueError
        If `threshold` is not finite, or the network has no batch normalisation.

    References
    ----------
    Kim, Park, Lee, Kim (2021). https://arxiv.org/abs/2012.00938

    Examples
    --------
    >>> network = BLRNet((1, 8, 8), "4C3-MP2-SM10", generator=torch.Generator().manual_seed(0))
    >>> unbalance(network, 0.3)
    >>> network.layers()[0].tail.norm.beta
    Parameter containing:
    tensor([-0.3000, -0.3000, -0.3000, -0.3000], requires_grad=True)
    """
    norms = [block.tail.norm for block in network.layers() if not block.tail.last]
    if not math.isfinite(threshold):
        raise ValueError(f"`threshold` must be finite, got {threshold}.")
    if not all(isinstance(norm, StochasticBatchNorm) for norm in norms):
        raise ValueError("`network` must have batch normalisation, whose β is moved.")
    for norm in norms:
        norm.beta.sub_(threshold)  # type: ignore[union-attr, operator]


def certain(scores: Tensor) -> Moments:
    """Scores without variance."""
    return Moments(scores, torch.zeros_like(scores))


def channels_last(x: Tensor) -> Tensor:
    """Images with their channels side by side in memory, which is where convolutions are fast."""
    if x.ndim != 4:
        return x
    _, channels, height, width = x.shape
    # Of a single channel torch keeps the strides of the other format, and would go on in that.
    strides = (channels * height * width, 1, channels * width, channels)
    return x.contiguous(memory_format=torch.channels_last).as_strided(x.shape, strides)


def product_of(stage: Stage, padding_value: float = 0.0) -> Dense | Convolution:
    """How a stage multiplies; convolutions keep the size of the image."""
    if not stage.kernel:
        return Dense()
    return Convolution(padding=stage.kernel // 2, padding_value=padding_value)


def weight_shapes(image: Sequence[int], stages: Sequence[Stage]) -> list[tuple[int, ...]]:
    """Shape of the weights of each stage for images of this shape.

    Raises
    ------
    ValueError
        If `image` is no shape of images, or too small for a pooling.

    Examples
    --------
    >>> weight_shapes((1, 8, 8), parse("4C3-MP2-SM10"))
    [(4, 1, 3, 3), (10, 64)]
    """
    if not isinstance(image, Sequence) or not all(is_whole(size, 1) for size in image):
        raise ValueError(f"`image` must be (channels, height, width), got {image!r}.")
    if len(image) != 3:
        raise ValueError(f"`image` must be (channels, height, width), got {tuple(image)}.")
    channels, height, width = image
    shapes: list[tuple[int, ...]] = []
    flat = 0
    for stage in stages:
        if stage.kernel:
            shapes.append((stage.width, channels, stage.kernel, stage.kernel))
            channels = stage.width
            if stage.pool:
                height, width = height // stage.pool.size, width // stage.pool.size
        else:
            shapes.append((stage.width, flat or channels * height * width))
            flat = stage.width
    if not height or not width:
        raise ValueError(f"`image` must be large enough for every pooling, got {tuple(image)}.")
    return shapes
