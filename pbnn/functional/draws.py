"""What is drawn for each point of a batch, also where only some of its points are here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Generator, Tensor


class PartOfDraws(NamedTuple):
    """A generator that draws for a whole batch, of which some points in a row are here.

    Attributes
    ----------
    generator : torch.Generator
    start : int
        The first point that is here.
    points : int
        Of the whole batch.
    """

    generator: Generator
    start: int
    points: int


def draw_points(
    draw: Callable[..., Tensor],
    shape: Sequence[int],
    source: Generator | PartOfDraws,
    like: Tensor,
    axis: int = 0,
) -> Tensor:
    """Numbers for each point: those that it gets in the whole batch, wherever it is computed.

    For a part of a batch those of all points are drawn, so that the generator is left alike.

    Parameters
    ----------
    draw : callable
        `torch.rand` or `torch.randn`.
    shape : sequence of int
        Of what is drawn for the points that are here.
    source : torch.Generator or PartOfDraws
    like : Tensor
        Of the dtype and on the device of what is drawn.
    axis : int
        That of the points.

    Examples
    --------
    >>> import torch
    >>> like, source = torch.zeros(()), torch.Generator()
    >>> whole = draw_points(torch.rand, (4, 2), source.manual_seed(0), like)
    >>> part = PartOfDraws(source.manual_seed(0), start=1, points=4)
    >>> torch.equal(draw_points(torch.rand, (3, 2), part, like), whole[1:])
    True
    """
    make = {"dtype": like.dtype, "device": like.device}
    if isinstance(source, Generator):
        return draw(shape, generator=source, **make)
    here, whole = shape[axis], [*shape]
    whole[axis] = source.points
    # A copy, as what is kept of a view is the whole.
    return draw(whole, generator=source.generator, **make).narrow(axis, source.start, here).clone()
