"""Features fixed before the data: canonical images and random binary convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class RandomConvolution:
    """Which random binary convolution: part of a prior, drawn before any data are seen.

    Parameters
    ----------
    filters : int
    size : int
        Height and width of a filter; odd.
    pool : int
        Side of the squares over which the binary maps are averaged.
    """

    filters: int = 100
    size: int = 5
    pool: int = 4

    def __post_init__(self) -> None:
        for name in ("filters", "size", "pool"):
            if getattr(self, name) < 1:
                got = getattr(self, name)
                raise ValueError(f"`{name}` must be a positive integer, got {got}.")
        if self.size % 2 == 0:
            raise ValueError(f"`size` must be odd, got {self.size}.")


def deskew(images: Tensor) -> Tensor:
    r"""Centre and shear each image by its own moments, so that slant and position are gone.

    With intensities as masses, the image is moved to its centroid and sheared by
    :math:`\operatorname{Cov}(x, y)/\operatorname{Var}(y)`. Each image is looked at alone: the map
    is fixed before the data and costs a certificate nothing.

    Parameters
    ----------
    images : Tensor, shape (n, 1, height, width)
        Intensities, at least 0; an image without any stays as it is.

    Raises
    ------
    ValueError
        If `images` has another shape.

    Examples
    --------
    >>> image = torch.zeros(1, 1, 5, 5)
    >>> image[0, 0, 1:4, 0] = 1  # a bar at the left edge
    >>> deskew(image)[0, 0, 1:4, 2].round()
    tensor([1., 1., 1.])
    """
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"`images` must have shape (n, 1, h, w), got {tuple(images.shape)}.")
    if len(images) == 0:
        return images
    height, width = images.shape[2:]
    rows = torch.arange(height, dtype=images.dtype, device=images.device)[:, None]
    columns = torch.arange(width, dtype=images.dtype, device=images.device)
    mass = images.sum((1, 2, 3))
    share = images[:, 0] / mass.clamp_min(1e-6)[:, None, None]
    row, column = (share * rows).sum((1, 2)), (share * columns).sum((1, 2))
    down = rows - row[:, None, None]
    spread = (share * down.square()).sum((1, 2))
    shear = (share * down * (columns - column[:, None, None])).sum((1, 2))
    shear = shear / spread.clamp_min(1e-6)
    blank = mass <= 0
    # affine_grid measures from the centre, in units of half the image.
    right = torch.where(blank, 0.0, (2 * column - (width - 1)) / width)
    below = torch.where(blank, 0.0, (2 * row - (height - 1)) / height)
    one, zero = torch.ones_like(shear), torch.zeros_like(shear)
    first = torch.stack([one, torch.where(blank, 0.0, shear) * height / width, right], dim=1)
    second = torch.stack([zero, one, below], dim=1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def random_convolution(
    images: Tensor,
    generator: torch.Generator,
    shape: RandomConvolution | None = None,
    *,
    batch: int = 1000,
) -> Tensor:
    r"""Averages of random binary maps, :math:`1[w_k * x > t_k]` pooled over squares.

    Filters are Gaussian, of zero mean and unit norm; thresholds are uniform on [0.1, 0.9]. Both
    come from the generator alone: they are a draw of the prior that the posterior keeps, so they
    add no KL.

    Parameters
    ----------
    images : Tensor, shape (n, 1, height, width)
        Intensities in [0, 1].
    generator : torch.Generator
        A CPU generator.
    shape : RandomConvolution, optional
    batch : int
        Images at a time; a bound on memory, without effect on the result.

    Returns
    -------
    Tensor, shape (n, filters · (height // pool) · (width // pool))
        Shares in [0, 1].

    Examples
    --------
    >>> random_convolution(torch.rand(2, 1, 8, 8), torch.Generator()).shape
    torch.Size([2, 400])
    """
    shape = shape or RandomConvolution()
    weight, threshold = draw_filters(shape, generator)
    weight, threshold = weight.to(images), threshold.to(images)[:, None, None]

    def pooled(part: Tensor) -> Tensor:
        on = F.conv2d(part, weight, padding=shape.size // 2) > threshold
        return F.avg_pool2d(on.to(images.dtype), shape.pool).flatten(1)

    return torch.cat([pooled(part) for part in images.split(batch)])


def draw_filters(shape: RandomConvolution, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Filters (k, 1, size, size) of zero mean and unit norm, and thresholds (k,)."""
    size = (shape.filters, 1, shape.size, shape.size)
    weight = torch.randn(size, generator=generator, dtype=torch.float64)
    weight = weight - weight.mean((1, 2, 3), keepdim=True)
    weight = weight / weight.flatten(1).norm(dim=1)[:, None, None, None]
    threshold = 0.1 + 0.8 * torch.rand(shape.filters, generator=generator, dtype=torch.float64)
    return weight, threshold
