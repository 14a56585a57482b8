"""Where signs change: thresholds that stand for all that lies between products and signs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pbnn.functional import order_of, ordered
from pbnn.packed.layers import Thresholds

Chain = Callable[[Tensor], Tensor]


def switches(
    before: Chain,
    after: Chain,
    shape: tuple[int, int, int],
    values: tuple[int, int] | torch.dtype,
    name: str,
) -> Thresholds:
    r"""Thresholds for :math:`\operatorname{sgn}(g(\max f(a)))`, f and g being monotone.

    With h = g ∘ f the sign changes at most once as a rises, so it is found by bisection, with f and
    g themselves: no formula for the threshold, rounded, would agree with them everywhere. Where f
    falls the maximum is f of the least of a window, so that bits are 1 if all are; where h falls
    bits change places.

    Parameters
    ----------
    before, after : callable
        f and g, of values (1, *shape), channel by channel and place by place.
    shape : (width, rows, columns)
        Of the output, or one place for all.
    values : (low, high), or dtype
        Integers that a cannot reach on either side, or floats of this dtype, up to 2⁶⁰ in size.
    name : str
        Of the layer, for errors.

    Raises
    ------
    ValueError
        If a channel is not a number, or its places go different ways.
    """
    if isinstance(values, torch.dtype):
        greatest = 2.0**60  # beyond it nothing changes, and nothing overflows up to it
        ends = order_of(torch.tensor([-greatest, greatest], dtype=values)).tolist()
        always, never, kind = -np.inf, np.inf, str(values).removeprefix("torch.")

        def value(place: Tensor) -> Tensor:
            return ordered(place.to(torch.int32 if values.itemsize == 4 else torch.int64), values)

    else:
        ends = list(values)
        always, never, kind = np.iinfo(np.int32).min, np.iinfo(np.int32).max, "int32"

        def value(place: Tensor) -> Tensor:
            return place

    def up(place: Tensor) -> Tensor:
        signs = after(before(value(place)))
        if bool(signs.isnan().any()):
            raise ValueError(f"`network` must have finite parameters after {name!r}, got others.")
        return signs.reshape(place.shape) >= 0

    low, high = (torch.full((1, *shape), end, dtype=torch.int64) for end in ends)
    first, last = up(low), up(high)
    falling = (before(value(high)) < before(value(low))).reshape(shape[0], -1).any(1)
    # From `low`, which has the first sign, to `high`: where does the last one begin?
    while bool((high - low > 1).any()):
        middle = low + (high - low) // 2
        of_last = up(middle) == last
        low, high = torch.where(of_last, low, middle), torch.where(of_last, middle, high)
    changes = (first != last).reshape(shape[0], -1)
    falls = (first & ~last).reshape(shape[0], -1).any(1)
    rises = (last & ~first).reshape(shape[0], -1).any(1)
    if bool((falls & rises).any()):
        raise ValueError(
            "`network` must not rise at some places of a channel and fall at others after "
            f"{name!r}."
        )
    flip = falls
    constant = torch.where(last.reshape(shape[0], -1) ^ flip[:, None], always, never)
    level = np.where(changes.numpy(), value(high).reshape(shape[0], -1).numpy(), constant.numpy())
    ordered_by_place = np.ascontiguousarray(level.T.astype(kind))
    return Thresholds(ordered_by_place, flip.numpy(), falling.numpy())
