"""Random changes of images, drawn from a generator: for more data, and for views to contrast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class AffineRange:
    """How far `random_affine` may go either way.

    Parameters
    ----------
    rotation : float
        Radians.
    scale : float
        Relative change of each axis.
    shear : float
        Horizontal shift per vertical step.
    shift : float
        Share of half the image, for each axis.
    """

    rotation: float = 0.2
    scale: float = 0.12
    shear: float = 0.15
    shift: float = 1 / 7


def random_affine(
    images: Tensor, generator: Generator, limits: AffineRange | None = None
) -> Tensor:
    r"""Rotate, scale, shear and shift each image at random, by bilinear interpolation.

    Pixels are looked up at :math:`A u + t`, with
    :math:`A = R(\alpha)\,\mathrm{diag}(s_x, s_y) + \text{shear}`; what lies outside is 0.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    generator : torch.Generator
        A CPU generator, so that every device sees the same changes.
    limits : AffineRange, optional

    Raises
    ------
    ValueError
        If `images` is not four-dimensional.

    Examples
    --------
    >>> still = AffineRange(rotation=0, scale=0, shear=0, shift=0)
    >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> torch.allclose(random_affine(image, torch.Generator(), still), image, atol=1e-5)
    True
    """
    _check_images(images)
    limits = limits or AffineRange()
    # Columns: rotation, both scales, shear, both shifts, each uniform in [−1, 1).
    uniform = 2 * torch.rand(len(images), 6, generator=generator, dtype=torch.float64) - 1
    draw = uniform.to(images)
    angle = limits.rotation * draw[:, 0]
    scale = 1 + limits.scale * draw[:, 1:3]
    shear = limits.shear * draw[:, 3]
    shift = limits.shift * draw[:, 4:6]
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([cos * scale[:, 0], shear - sin * scale[:, 1], shift[:, 0]], dim=1),
        torch.stack([sin * scale[:, 0], cos * scale[:, 1], shift[:, 1]], dim=1),
    ]
    grid = torch.nn.functional.affine_grid(
        torch.stack(rows, dim=1), list(images.shape), align_corners=False
    )
    return torch.nn.functional.grid_sample(images, grid, align_corners=False)


def random_crop(
    images: Tensor, generator: Generator, padding: int = 4, *, mirror: bool = True
) -> Tensor:
    """Move each image by whole pixels, and mirror it left to right or not, at random.

    As is usual for CIFAR-10: a crop of the image with a border of zeros.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    generator : torch.Generator
        A CPU generator, so that every device sees the same changes.
    padding : int
        The farthest move.
    mirror : bool

    Raises
    ------
    ValueError
        If `images` is not four-dimensional, or `padding` negative.

    Examples
    --------
    >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> same = random_crop(image, torch.Generator(), 0, mirror=False)
    >>> torch.equal(same, image)
    True
    """
    _check_images(images)
    if padding < 0:
        raise ValueError(f"`padding` must be at least 0, got {padding}.")
    n, _, height, width = images.shape
    moves = torch.randint(2 * padding + 1, (2, n), generator=generator)
    mirrored = torch.rand(n, generator=generator) < 0.5
    down, across = (move[:, None] + torch.arange(size) for move, size in
                    zip(moves, (height, width), strict=True))  # fmt: skip
    if mirror:
        across = torch.where(mirrored[:, None], across.flip(1), across)
    framed = torch.nn.functional.pad(images, (padding,) * 4)
    rows, columns = down.to(images.device)[:, :, None], across.to(images.device)[:, None, :]
    each = torch.arange(n, device=images.device)[:, None, None]
    return framed.permute(0, 2, 3, 1)[each, rows, columns].permute(0, 3, 1, 2)


def random_resized_crop(
    images: Tensor,
    generator: Generator,
    share: tuple[float, float] = (0.3, 1.0),
    ratio: float = 4 / 3,
    *,
    mirror: bool = True,
) -> Tensor:
    r"""Enlarge a part of each image to the whole, and mirror it left to right or not, at random.

    The part is :math:`\sqrt{sr}` of the width and :math:`\sqrt{s/r}` of the height, at most all of
    it, its share s of the area uniform and :math:`\ln r` uniform; its place is uniform, too.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    generator : torch.Generator
        A CPU generator, so that every device sees the same changes.
    share : (float, float)
        Least and largest share of the area, in (0, 1].
    ratio : float
        Farthest of width by height from that of the image, either way; at least 1.
    mirror : bool

    Raises
    ------
    ValueError
        If `images` is not four-dimensional, or `share` or `ratio` outside its domain.

    Examples
    --------
    >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> whole = random_resized_crop(image, torch.Generator(), (1, 1), 1, mirror=False)
    >>> torch.allclose(whole, image, atol=1e-5)
    True
    """
    _check_images(images)
    if not 0 < share[0] <= share[1] <= 1:
        raise ValueError(f"`share` must be two numbers 0 < a ≤ b ≤ 1, got {share}.")
    if not ratio >= 1:
        raise ValueError(f"`ratio` must be at least 1, got {ratio}.")
    # Columns: area, ratio, both places, mirror.
    draw = torch.rand(len(images), 5, generator=generator, dtype=torch.float64)
    area = share[0] + (share[1] - share[0]) * draw[:, :1]
    stretch = ratio ** (2 * draw[:, 1:2] - 1)
    sides = torch.cat([area * stretch, area / stretch], dim=1).sqrt().clamp_max_(1)
    places = (1 - sides) * (2 * draw[:, 2:4] - 1)
    if mirror:
        sides[:, 0] *= torch.where(draw[:, 4] < 0.5, -1.0, 1.0)
    rows = torch.cat([torch.diag_embed(sides), places[:, :, None]], dim=2).to(images)
    grid = torch.nn.functional.affine_grid(rows, list(images.shape), align_corners=False)
    # What a part is enlarged to ends between the middle and the border of a pixel.
    return torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def random_contrast(
    images: Tensor, generator: Generator, gain: float = 0.4, offset: float = 0.2
) -> Tensor:
    r"""Multiply each channel of each image by a random factor, and add a random constant.

    .. math:: x' = a x + b, \qquad a \in [1 - \text{gain}, 1 + \text{gain}),\;
        b \in [-\text{offset}, \text{offset})

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    generator : torch.Generator
        A CPU generator, so that every device sees the same changes.
    gain : float
        In [0, 1].
    offset : float
        At least 0, in units of the pixels.

    Raises
    ------
    ValueError
        If `images` is not four-dimensional, or `gain` or `offset` outside its domain.

    Examples
    --------
    >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> torch.equal(random_contrast(image, torch.Generator(), 0, 0), image)
    True
    """
    _check_images(images)
    if not 0 <= gain <= 1:
        raise ValueError(f"`gain` must lie in [0, 1], got {gain}.")
    if not offset >= 0:
        raise ValueError(f"`offset` must be at least 0, got {offset}.")
    uniform = torch.rand(2, *images.shape[:2], 1, 1, generator=generator, dtype=torch.float64)
    factor, constant = (2 * uniform - 1).to(images)
    return (1 + gain * factor) * images + offset * constant


def random_erase(images: Tensor, generator: Generator, side: float = 0.5) -> Tensor:
    """Set a rectangle of each image to the image's mean, channel by channel, at random.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
    generator : torch.Generator
        A CPU generator, so that every device sees the same changes.
    side : float
        Longest side of the rectangle, as a share of the image's, in [0, 1]; shorter ones are as
        likely.

    Raises
    ------
    ValueError
        If `images` is not four-dimensional, or `side` outside [0, 1].

    Examples
    --------
    >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> torch.equal(random_erase(image, torch.Generator(), 0), image)
    True
    """
    _check_images(images)
    if not 0 <= side <= 1:
        raise ValueError(f"`side` must lie in [0, 1], got {side}.")
    draw = torch.rand(2, 2, len(images), 1, generator=generator, dtype=torch.float64)
    inside = []
    for (length, place), size in zip(draw, images.shape[2:], strict=True):
        pixels = (side * size * length).round()
        first = (place * (size - pixels + 1)).floor()
        at = torch.arange(size)
        inside.append((at >= first) & (at < first + pixels))
    erased = (inside[0][:, :, None] & inside[1][:, None, :]).to(images.device)
    return torch.where(erased[:, None], images.mean((2, 3), keepdim=True), images)


def chained(
    *changes: Callable[[Tensor, Generator], Tensor],
) -> Callable[[Tensor, Generator], Tensor]:
    """Several changes of images as one, drawn one after the other from the same generator.

    Examples
    --------
    >>> views = chained(random_crop, random_erase)
    >>> views(torch.rand(2, 1, 8, 8), torch.Generator()).shape
    torch.Size([2, 1, 8, 8])
    """

    def change(images: Tensor, generator: Generator) -> Tensor:
        for each in changes:
            images = each(images, generator)
        return images

    return change


def _check_images(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(
            f"`images` must have shape (n, channels, height, width), got {tuple(images.shape)}."
        )
