"""Ordinary real-valued networks of torch, to be made binary by `pbnn.binarize.convert`.

Each is the full-precision twin of the binary network made of it. Pooling comes before batch
normalisation, as the maximum of signs would be +1 almost everywhere.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Generator, Tensor, nn

Image = tuple[int, int, int]
"""Channels, height, width."""


def mlp(
    image: Sequence[int],
    hidden: Sequence[int] = (1024, 1024, 1024),
    *,
    classes: int = 10,
    generator: Generator,
) -> nn.Sequential:
    """Dense layers, each batch-normalised, with ReLU between them.

    Parameters
    ----------
    image : sequence of int
        Shape of an input.
    hidden : sequence of int
    classes : int
    generator : torch.Generator
        A CPU generator for torch's own initialisation.

    Examples
    --------
    >>> mlp((1, 8, 8), (16,), generator=torch.Generator())(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    with _drawing_from(generator):
        width = torch.Size(image).numel()
        modules: list[nn.Module] = [nn.Flatten()]
        for size in hidden:
            modules += _dense(width, size)
            width = size
        return nn.Sequential(*modules, *_scores(width, classes))


def lenet(
    image: Image,
    widths: Sequence[int] = (32, 64),
    dense: int = 512,
    *,
    kernel: int = 5,
    classes: int = 10,
    generator: Generator,
) -> nn.Sequential:
    """Convolutions that keep the size of the image, each pooled 2x2; a dense layer; scores.

    Examples
    --------
    >>> lenet((1, 8, 8), (4, 8), 16, generator=torch.Generator())(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    channels, height, across = image
    with _drawing_from(generator):
        modules: list[nn.Module] = []
        for width in widths:
            modules += _convolution(channels, width, kernel, pool=True)
            channels, height, across = width, height // 2, across // 2
        modules += [nn.Flatten(), *_dense(channels * height * across, dense)]
        return nn.Sequential(*modules, *_scores(dense, classes))


def vgg_small(
    image: Image = (3, 32, 32), width: int = 128, *, classes: int = 10, generator: Generator
) -> nn.Sequential:
    """Six convolutions 3x3 of 1, 1, 2, 2, 4, 4 times `width`, every second one pooled; scores.

    Examples
    --------
    >>> vgg_small(width=4, generator=torch.Generator())(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    channels, height, across = image
    with _drawing_from(generator):
        modules: list[nn.Module] = []
        for place, times in enumerate((1, 1, 2, 2, 4, 4)):
            modules += _convolution(channels, times * width, 3, pool=place % 2 == 1)
            channels = times * width
        size = channels * (height // 8) * (across // 8)
        return nn.Sequential(*modules, nn.Flatten(), *_scores(size, classes))


def conv_chain(
    image: Image,
    widths: Sequence[int] = (16, 32, 32, 32),
    *,
    stride: int = 1,
    classes: int = 2,
    generator: Generator,
) -> nn.Sequential:
    """Convolutions 3x3 with ReLU between them, the first with a stride; scores of every position.

    For dense tasks, such as telling the pixels of items from those of the background.

    Examples
    --------
    >>> network = conv_chain((1, 8, 8), (4, 4), stride=2, generator=torch.Generator())
    >>> network(torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 2, 4, 4])
    """
    with _drawing_from(generator):
        modules: list[nn.Module] = []
        channels = image[0]
        for place, width in enumerate(widths):
            modules += [_normalised(channels, width, 1 if place else stride), nn.ReLU()]
            channels = width
        return nn.Sequential(*modules, nn.Conv2d(channels, classes, 1))


class Residual(nn.Module):
    """Convolutions with a shortcut around them all, or around each one as in Bi-Real-Net.

    A shortcut that halves the image averages 2x2 and, where channels are added, multiplies by a
    real convolution 1x1 with batch normalisation.

    Parameters
    ----------
    channels, width : int
    stride : int
        Of the first convolution.
    around : {"block", "each"}
        What a shortcut goes around: two convolutions, or each.

    References
    ----------
    He, Zhang, Ren, Sun (2016). https://arxiv.org/abs/1512.03385
    Liu et al. (2018). Bi-Real Net. https://arxiv.org/abs/1808.00278
    """

    def __init__(self, channels: int, width: int, stride: int = 1, around: str = "block") -> None:
        super().__init__()
        if around not in ("block", "each"):
            raise ValueError(f"`around` must be 'block' or 'each', got {around!r}.")
        self.around = around
        self.first = _normalised(channels, width, stride)
        self.second = _normalised(width, width)
        self.relu, self.out = nn.ReLU(), nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
                nn.Conv2d(channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Images of `width` channels."""
        inner, skipped = self.first(x), self.shortcut(x)
        if self.around == "each":
            inner = self.relu(inner + skipped)
            out: Tensor = self.out(self.second(inner) + inner)
            return out
        return self.out(self.second(self.relu(inner)) + skipped)


def resnet(
    image: Image,
    widths: Sequence[int],
    blocks: int,
    around: str = "block",
    *,
    stem_stride: int = 1,
    averaged: bool = True,
    classes: int = 10,
    generator: Generator,
) -> nn.Sequential:
    """A convolution, `blocks` residual blocks of each width, the image halved between; scores.

    Parameters
    ----------
    image : (channels, height, width)
    widths : sequence of int
    blocks : int
        Of each width.
    around : {"block", "each"}
        What a shortcut goes around (`Residual`).
    stem_stride : int
        Of the first convolution.
    averaged : bool
        Whether the scores are made of each channel's average, or of all its positions.
    classes : int
    generator : torch.Generator
        A CPU generator for torch's own initialisation.

    Examples
    --------
    >>> network = resnet((1, 8, 8), (4, 8), 1, "each", generator=torch.Generator())
    >>> network(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    with _drawing_from(generator):
        channels = widths[0]
        modules: list[nn.Module] = [_normalised(image[0], channels, stem_stride), nn.ReLU()]
        for place, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if place and not block else 1
                modules.append(Residual(channels, width, stride, around))
                channels = width
        size = channels
        if averaged:
            modules.append(nn.AdaptiveAvgPool2d(1))
        else:
            halvings = [stem_stride, *[2] * (len(widths) - 1)]
            for side in image[1:]:
                size *= functools.reduce(lambda side, stride: -(-side // stride), halvings, side)
        return nn.Sequential(*modules, nn.Flatten(), nn.Linear(size, classes))


def resnet20(image: Image = (3, 32, 32), around: str = "block", **more: object) -> nn.Sequential:
    """`resnet` of widths 16, 32, 64 with three blocks each.

    References
    ----------
    He, Zhang, Ren, Sun (2016), section 4.2. https://arxiv.org/abs/1512.03385
    """
    return resnet(image, (16, 32, 64), 3, around, **more)  # type: ignore[arg-type]


def resnet18(image: Image = (3, 32, 32), around: str = "block", **more: object) -> nn.Sequential:
    """`resnet` of widths 64, 128, 256, 512 with two blocks each, its first convolution 3x3.

    References
    ----------
    He, Zhang, Ren, Sun (2016), table 1, as is usual for images 32x32.
    https://arxiv.org/abs/1512.03385
    """
    return resnet(image, (64, 128, 256, 512), 2, around, **more)  # type: ignore[arg-type]


BACKBONES: dict[str, Callable[..., nn.Sequential]] = {
    "mlp": mlp,
    "lenet": lenet,
    "vgg_small": vgg_small,
    "resnet20": resnet20,
    "resnet18": resnet18,
}
"""By name; each takes the image's shape and a generator."""


def _normalised(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width))


def _convolution(channels: int, width: int, kernel: int, *, pool: bool) -> list[nn.Module]:
    layer = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return [layer, *([nn.MaxPool2d(2)] if pool else []), nn.BatchNorm2d(width), nn.ReLU()]


def _dense(channels: int, width: int) -> list[nn.Module]:
    return [nn.Linear(channels, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]


def _scores(channels: int, classes: int) -> list[nn.Module]:
    # Normalised, so that binary weights, too, give scores of about unit size.
    return [nn.Linear(channels, classes, bias=False), nn.BatchNorm1d(classes)]


@contextlib.contextmanager
def _drawing_from(generator: Generator) -> Iterator[None]:
    """Let torch's own initialisation draw from a generator; the global one is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator, device="cpu")))
        yield
