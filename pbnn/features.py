"""Features fixed before the data: canonical images and random binary convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE_LIMIT = 2.5
"""Largest factor by which an image is stretched or squeezed."""

BATCH = 100
"""Points at a time: a bound on memory, and small enough for the cache."""


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


def deskew(images: Tensor, spread: tuple[float, float] | None = None) -> Tensor:
    r"""Centre and shear each image by its own moments, so that slant and position are gone.

    With intensities as masses, the image is moved to its centroid and sheared by
    :math:`\operatorname{Cov}(x, y)/\operatorname{Var}(y)`; on request its height and width are
    then scaled to standard deviations of the mass that are the same for all images. Each image is
    looked at alone: the map is fixed before the data and costs a certificate nothing.

    Parameters
    ----------
    images : Tensor, shape (n, 1, height, width)
        Intensities, at least 0; an image without any stays as it is.
    spread : (float, float), optional
        Standard deviations of rows and columns after scaling, as shares of the height and width;
        none is scaled by more than `SCALE_LIMIT`.

    Raises
    ------
    ValueError
        If `images` has another shape or a spread is not positive.

    Examples
    --------
    >>> image = torch.zeros(1, 1, 5, 5)
    >>> image[0, 0, 1:4, 0] = 1  # a bar at the left edge
    >>> deskew(image)[0, 0, 1:4, 2].round()
    tensor([1., 1., 1.])
    """
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"`images` must have shape (n, 1, h, w), got {tuple(images.shape)}.")
    if spread is not None and not min(spread) > 0:
        raise ValueError(f"`spread` must hold two positive shares, got {spread}.")
    if len(images) == 0:
        return images
    return torch.cat([_deskew(part, spread) for part in images.split(BATCH)])


def _deskew(images: Tensor, spread: tuple[float, float] | None) -> Tensor:
    height, width = images.shape[2:]
    rows = torch.arange(height, dtype=images.dtype, device=images.device)[:, None]
    columns = torch.arange(width, dtype=images.dtype, device=images.device)
    mass = images.sum((1, 2, 3))
    share = images[:, 0] / mass.clamp_min(1e-6)[:, None, None]
    row, column = (share * rows).sum((1, 2)), (share * columns).sum((1, 2))
    down, along = rows - row[:, None, None], columns - column[:, None, None]
    var_row = (share * down.square()).sum((1, 2))
    covariance = (share * down * along).sum((1, 2))
    shear = covariance / var_row.clamp_min(1e-6)
    tall, wide = torch.ones_like(row), torch.ones_like(row)
    if spread is not None:
        # What is left of the columns' variance once the shear is undone.
        var_column = (share * along.square()).sum((1, 2)) - shear * covariance
        tall = _scale(var_row, spread[0] * height)
        wide = _scale(var_column, spread[1] * width)
    blank = mass <= 0
    # affine_grid measures from the centre, in units of half the image.
    right = torch.where(blank, 0.0, (2 * column - (width - 1)) / width)
    below = torch.where(blank, 0.0, (2 * row - (height - 1)) / height)
    tall, wide = torch.where(blank, 1.0, tall), torch.where(blank, 1.0, wide)
    slant = torch.where(blank, 0.0, shear) * tall * height / width
    first = torch.stack([wide, slant, right], dim=1)
    second = torch.stack([torch.zeros_like(tall), tall, below], dim=1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _scale(variance: Tensor, wanted: float) -> Tensor:
    """Factor from a wanted standard deviation to that of each image."""
    return (variance.clamp_min(0).sqrt() / wanted).clamp(1 / SCALE_LIMIT, SCALE_LIMIT)


def random_convolution(
    images: Tensor,
    generator: torch.Generator,
    shape: RandomConvolution | None = None,
) -> Tensor:
    r"""Averages of random binary maps, :math:`1[w_k * x > t_k]` pooled over squares.

    Filters are Gaussian, of zero mean and unit norm; thresholds are uniform on [0.1, 0.9]. Both
    come from the generator alone: they are a draw of the prior that the posterior keeps, so they
    add no KL.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
        Intensities in [0, 1].
    generator : torch.Generator
        A CPU generator.
    shape : RandomConvolution, optional

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
    weight, threshold = draw_filters(shape, generator, images.shape[1])
    # With channels last, and comparing in place, it is eight times faster on a CPU.
    last = torch.channels_last
    weight = weight.to(images).to(memory_format=last)
    threshold = threshold.to(images)[:, None, None]

    def pooled(part: Tensor) -> Tensor:
        response = F.conv2d(part.to(memory_format=last), weight, padding=shape.size // 2)
        return F.avg_pool2d(response.gt_(threshold), shape.pool).flatten(1)

    # On a processor so few that the responses stay in its cache: three times faster than more.
    at_once = 16 if images.device.type == "cpu" else BATCH
    return torch.cat([pooled(part) for part in images.split(at_once)])


def thermometer(x: Tensor, sample: Tensor, levels: int) -> Tensor:
    r"""Columns of numbers as 0/1 columns :math:`1[x_j > q_{jk}]`, at quantiles of a sample.

    A column with at most two values in the sample stays as it is. The thresholds of any other are
    its quantiles at k/(levels + 1); where more than half of the sample has the least value of the
    column, they are that value and the quantiles of what lies above it.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    sample : Tensor, shape (m, d)
        Rows that serve for nothing else, such as the feature split: none may be a certification or
        test point.
    levels : int

    Returns
    -------
    Tensor, shape (n, number of columns)

    Examples
    --------
    >>> sample = torch.tensor([[0.0, 1.0], [1.0, 2.0], [0.0, 3.0], [1.0, 4.0]])
    >>> thermometer(sample, sample, levels=1)
    tensor([[0., 0.],
            [1., 0.],
            [0., 1.],
            [1., 1.]])
    """
    if levels < 1:
        raise ValueError(f"`levels` must be a positive integer, got {levels}.")
    if sample.ndim != 2 or len(sample) == 0 or x.shape[1:] != sample.shape[1:]:
        raise ValueError(
            f"`x` and `sample` must be (n, d) and (m, d), got {tuple(x.shape)}, "
            f"{tuple(sample.shape)}."
        )
    parts = []
    for column, known in zip(x.T, sample.T, strict=True):
        if len(known.unique()) <= 2:
            parts.append(column[:, None])
        else:
            parts.append((column[:, None] > _thresholds(known, levels)).to(x.dtype))
    return torch.cat(parts, dim=1)


def _thresholds(known: Tensor, levels: int) -> Tensor:
    least = known.min()
    above = known[known > least]
    if 2 * len(above) >= len(known):
        above = known
    share = torch.arange(1, levels + 1, dtype=known.dtype, device=known.device) / (levels + 1)
    cuts = torch.quantile(above, share)
    return (cuts if above is known else torch.cat([least[None], cuts])).unique()


def kernel_features(x: Tensor, landmarks: Tensor, width: float, emphasis: float = 0.0) -> Tensor:
    r"""Nyström features of the Gaussian kernel, with landmarks that serve for nothing else.

    .. math::
        \phi(x) = \Lambda^{\alpha - 1/2} U^\top k_L(x), \quad K_{LL} = U \Lambda U^\top, \quad
        k(x, l) = \exp\bigl(-\text{width} \cdot \lVert x - l \rVert^2 / m\bigr)

    with m the median squared distance between landmarks. With α = 0 inner products of landmarks'
    features are their kernels, and those of others nearly so; α > 0 emphasises the directions in
    which the landmarks spread most. A Gaussian unit on these features is
    a Gaussian process classifier of which only the mean is learned. The landmarks must come from
    the feature split: they shape the prior, and none may be a certification or test point.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    landmarks : Tensor, shape (l, d)
        At least two different rows.
    width : float
        Positive; large for a narrow kernel.
    emphasis : float
        The exponent α.

    Returns
    -------
    Tensor, shape (n, l)

    References
    ----------
    Williams, Seeger (2000). Using the Nyström method to speed up kernel machines. NeurIPS.

    Examples
    --------
    >>> points = torch.tensor([[0.0], [1.0], [3.0]])  # squared distances 1, 4, 9
    >>> phi = kernel_features(points, points, width=1.0)
    >>> torch.allclose(phi @ phi.T, torch.exp(-torch.cdist(points, points).square() / 4))
    True
    """
    if not width > 0:
        raise ValueError(f"`width` must be positive, got {width}.")
    base = landmarks.double()
    apart = torch.pdist(base).square().median() if len(base) > 1 else base.new_zeros(())
    if not apart > 0:
        raise ValueError("`landmarks` must hold two different rows or more, most of them distinct.")

    def kernel(part: Tensor) -> Tensor:
        return torch.exp(-width / apart * torch.cdist(part.double(), base).square())

    values, vectors = torch.linalg.eigh(kernel(base))
    # Directions without spread carry rounding alone.
    root = torch.where(values > 1e-7 * values[-1], values, torch.inf).rsqrt()
    whitening = vectors * root * values.clamp_min(0) ** emphasis
    return torch.cat([(kernel(part) @ whitening).to(x) for part in x.split(BATCH)])


class Axes(NamedTuple):
    """A centre (d,), orthonormal directions (count, d), and how far a sample spreads along each."""

    centre: Tensor
    directions: Tensor
    spread: Tensor


def principal_axes(sample: Tensor, count: int) -> Axes:
    """The mean of a sample, and the directions in which its unit-norm deviations spread most.

    The sample must come from the feature split: the axes shape the prior, and none of its points
    may be a certification or test point.

    Parameters
    ----------
    sample : Tensor, shape (m, d)
    count : int
        At most m − 1 and d directions.

    Examples
    --------
    >>> axes = principal_axes(torch.tensor([[0.0, 1.0], [4.0, 1.0]]), 1)
    >>> axes.centre, axes.directions.abs(), axes.spread
    (tensor([2., 1.]), tensor([[1., 0.]]), tensor([1.]))
    """
    if sample.ndim != 2 or not 1 <= count <= min(len(sample) - 1, sample.shape[1]):
        raise ValueError(
            f"`count` must lie in [1, min(m − 1, d)], got {count} for {tuple(sample.shape)}."
        )
    centre = sample.mean(0)
    deviations = _unit(sample - centre).double()
    _, size, directions = torch.linalg.svd(deviations, full_matrices=False)
    spread = size[:count] / len(sample) ** 0.5
    return Axes(centre, directions[:count].to(sample), spread.to(sample))


def along(x: Tensor, axes: Axes) -> Tensor:
    """Coordinates of centred inputs along the axes, scaled to unit norm.

    Returns
    -------
    Tensor, shape (n, count)

    Examples
    --------
    >>> axes = Axes(torch.zeros(3), torch.eye(3)[:2], torch.ones(2))
    >>> along(torch.tensor([[3.0, 4.0, 9.0]]), axes)
    tensor([[0.6000, 0.8000]])
    """
    return _unit((x - axes.centre) @ axes.directions.T)


def emphasised(coordinates: Tensor, axes: Axes, power: float) -> Tensor:
    """Coordinates times a power of the spread along their axes, scaled to unit norm again.

    To a linear score with an isotropic prior this is a prior whose deviations are as that power.

    Examples
    --------
    >>> axes = Axes(torch.zeros(2), torch.eye(2), torch.tensor([4.0, 1.0]))
    >>> emphasised(torch.tensor([[0.6, 1.6]]), axes, 0.5)
    tensor([[0.6000, 0.8000]])
    """
    return _unit(coordinates * axes.spread**power)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-6)


def draw_filters(
    shape: RandomConvolution, generator: torch.Generator, channels: int = 1
) -> tuple[Tensor, Tensor]:
    """Filters (k, channels, size, size) of zero mean and unit norm, and thresholds (k,)."""
    size = (shape.filters, channels, shape.size, shape.size)
    weight = torch.randn(size, generator=generator, dtype=torch.float64)
    weight = weight - weight.mean((1, 2, 3), keepdim=True)
    weight = weight / weight.flatten(1).norm(dim=1)[:, None, None, None]
    threshold = 0.1 + 0.8 * torch.rand(shape.filters, generator=generator, dtype=torch.float64)
    return weight, threshold
