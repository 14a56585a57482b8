"""Checks of what a network is made of and of the points it meets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor


def is_whole(value: object, least: int) -> bool:
    """Whether a value is an integer and no less than this; True and False are none.

    Examples
    --------
    >>> is_whole(3, 1), is_whole(3.0, 1), is_whole(True, 1)
    (True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_real(value: object, least: float, most: float = sys.float_info.max) -> bool:
    """Whether a value is a finite real number within these limits; True and False are none.

    Examples
    --------
    >>> is_real(0.5, 0, 1), is_real(float("nan"), 0), is_real(float("inf"), 0)
    (True, False, False)
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and bool(least <= value <= most)  # type: ignore[operator]


def check_sizes(in_features: int, hidden: Sequence[int]) -> None:
    """Refuse sizes that are no network."""
    if not is_whole(in_features, 1):
        raise ValueError(f"`in_features` must be a positive integer, got {in_features}.")
    if not isinstance(hidden, Sequence) or isinstance(hidden, str | bytes):
        raise TypeError(f"`hidden` must be a sequence of widths such as (10,), got {hidden!r}.")
    if not all(is_whole(width, 1) for width in hidden):
        raise ValueError(f"`hidden` must hold positive integer widths, got {tuple(hidden)}.")


def check_points(x: Tensor, y: Tensor) -> None:
    """Refuse points without finite inputs and a label ±1 each."""
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        got = f"{type(x).__name__} and {type(y).__name__}"
        raise TypeError(f"`x` and `y` must be torch tensors, got {got}.")
    if len(x) == 0 or y.shape != (len(x),):
        raise ValueError(
            f"`x` and `y` must have the same positive length, got {len(x)} points and labels of "
            f"shape {tuple(y.shape)}."
        )
    if not bool((y.abs() == 1).all()):
        raise ValueError("`y` must hold labels −1 and +1 only.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("`x` must be finite, got NaN or infinity.")


def check_images(x: Tensor, image: Sequence[int], dtype: torch.dtype) -> None:
    """Refuse what are no images of this shape and type; looks at no value."""
    if not isinstance(x, Tensor):
        raise TypeError(f"`x` must be a torch tensor of images, got {type(x).__name__}.")
    if x.ndim != 4 or tuple(x.shape[1:]) != tuple(image):
        wanted = ", ".join(map(str, image))
        raise ValueError(f"`x` must have shape (n, {wanted}), got {tuple(x.shape)}.")
    if x.dtype != dtype:
        raise TypeError(f"`x` must be {dtype} like the network, got {x.dtype}.")


def expand_shift(
    shift: Tensor | float,
    in_features: int,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Tensor:
    """One shift for each input, from a number or a tensor of their size."""
    flat = torch.as_tensor(shift, dtype=dtype, device=device).flatten()
    if len(flat) not in (1, in_features):
        raise ValueError(f"`shift` must have 1 or {in_features} elements, got {len(flat)}.")
    return flat.expand(in_features).clone()
