"""Random changes of images for training on a prior's own data, drawn from a generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
    images: Tensor, generator: torch.Generator, limits: AffineRange | None = None
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
    if images.ndim != 4:
        raise ValueError(
            f"`images` must have shape (n, channels, height, width), got {tuple(images.shape)}."
        )
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
    images: Tensor, generator: torch.Generator, padding: int = 4, *, mirror: bool = True
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
    if images.ndim != 4:
        raise ValueError(
            f"`images` must have shape (n, channels, height, width), got {tuple(images.shape)}."
        )
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
