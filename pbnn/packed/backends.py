"""Three ways to run a layer that agree bit for bit: kernels of numba, int8 of torch, float32.

Each gives the integer pre-activations of a layer exactly; the kernels of numba compare them with
thresholds at once. What they keep of a layer is made when it is first run.
"""

from __future__ import annotations

import functools
import math
import sys
import weakref
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from pbnn.packed.bits import Array, pack_bits, signs_of, unpack_bits
from pbnn.packed.geometry import pooled, windows
from pbnn.packed.layers import PIXEL, BitLayer, Layer, RealLayer, Scores

BACKENDS = ("numba", "int8", "float32")
EXACT = 2**24
"""Up to which float32 counts."""
AT_ONCE = 2**25
"""Bytes of what the filters see that are held at once, about."""


def available() -> tuple[str, ...]:
    """The back ends that are there, the fastest first; looking for int8 imports torch."""
    return tuple(name for name in BACKENDS if _is_there(name))


def chosen(backend: str) -> str:
    """The back end by its name; "auto" is the fastest that is there without another import.

    Raises
    ------
    ValueError
        For an unknown name, or a back end that is not there.
    """
    if backend == "auto":
        if _is_there("numba"):
            return "numba"
        return "int8" if "torch" in sys.modules and _multiplies_int8() else "float32"
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {('auto', *BACKENDS)}, got {backend!r}.")
    if not _is_there(backend):
        hint = "pip install 'pbnn[fast]'" if backend == "numba" else "a torch that multiplies int8"
        raise ValueError(f"`backend` {backend!r} is not there: it needs {hint}.")
    return backend


def _is_there(backend: str) -> bool:
    if backend == "numba":
        return find_spec("numba") is not None
    return backend == "float32" or _multiplies_int8()


@functools.cache
def _multiplies_int8() -> bool:
    """Whether torch is there and multiplies matrices of int8, right."""
    if find_spec("torch") is None:
        return False
    import torch

    left = torch.arange(-64, 64, dtype=torch.int8).reshape(4, 32)
    try:
        found = torch._int_mm(left, left.T)
    except (AttributeError, RuntimeError):
        return False
    return bool(torch.equal(found.long(), left.long() @ left.long().T))


def run(layer: Layer, x: Array, backend: str, threads: int = 1) -> Array:
    """The output of a layer: words of signs (n, rows, columns, words), or scores (n, ..., width).

    Parameters
    ----------
    layer : BitLayer or RealLayer
    x : array (n, height, width, words of channels, or channels)
        Words of signs, bytes, or numbers.
    backend : str
        One of `BACKENDS`.
    threads : int
        For the kernels of numba; what multiplies matrices in the others has its own.
    """
    if backend == "numba" and isinstance(layer, BitLayer):
        from pbnn.packed.fast import run_by_kernels

        return run_by_kernels(layer, x, threads)
    parts = [_tail(layer, _PRODUCTS[backend](layer, part)) for part in _portions(layer, x)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _portions(layer: Layer, x: Array) -> Iterator[Array]:
    """Some images at a time."""
    shape = layer.geometry
    each = 8 * math.prod(shape.positions) * max(shape.fan_in, shape.width)
    size = max(1, AT_ONCE // each)
    for start in range(0, max(len(x), 1), size):
        yield x[start : start + size]


def _tail(layer: Layer, a: Array) -> Array:
    """What follows pre-activations (n, rows, columns, width)."""
    if isinstance(layer.tail, Scores):
        return layer.tail(a)
    bits = pooled(layer.geometry, layer.tail.activated(a, layer.geometry), layer.tail.every)
    return pack_bits(bits ^ layer.tail.flip)


def _inputs(layer: Layer, x: Array, dtype: Any) -> Array:
    """What each filter sees as numbers: (n, rows, columns, taps)."""
    shape = layer.geometry
    if layer.input == "signs":
        signs = signs_of(unpack_bits(x, shape.image[0]), dtype)
        return windows(shape, signs, shape.filling)
    return windows(shape, x.astype(dtype), PIXEL * max(shape.filling, 0))


def _flat(layer: Layer, dtype: Any) -> Array:
    """Weights (width, taps)."""
    return layer.weight(dtype).reshape(layer.geometry.width, -1)


class _Kept:
    """Something made of a layer, kept as long as the layer is there."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make
        self.made: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def __call__(self, layer: Layer) -> Any:
        if layer not in self.made:
            self.made[layer] = self.make(layer)
        return self.made[layer]


@_Kept
def _floats(layer: Layer) -> Array:
    return np.ascontiguousarray(_flat(layer, np.float32).T)


@_Kept
def _bytes(layer: Layer) -> Any:
    """Weights as a tensor (taps, width) of int8, with zeros up to sizes that are multiples of 8."""
    import torch

    flat = _flat(layer, np.int8)
    whole = np.zeros([-(-size // 8) * 8 for size in flat.shape], np.int8)
    whole[: len(flat), : flat.shape[1]] = flat
    return torch.from_numpy(whole).T


def _by_float32(layer: Layer, x: Array) -> Array:
    if isinstance(layer, RealLayer):
        return _ordered(layer, x)
    largest = layer.geometry.fan_in * (PIXEL if layer.input == "uint8" else 1)
    if largest >= EXACT:  # sums that float32 would round
        flat = _flat(layer, np.float64).T
        return (_inputs(layer, x, np.float64) @ flat).astype(np.int64)
    return (_inputs(layer, x, np.float32) @ _floats(layer)).astype(np.int32)


def _by_int8(layer: Layer, x: Array) -> Array:
    if isinstance(layer, RealLayer):
        return _ordered(layer, x)
    import torch

    weight, width = _bytes(layer), layer.geometry.width
    # Bytes about 0, with what was taken off put back below.
    seen = _inputs(layer, x, np.int8 if layer.input == "signs" else np.int16)
    middle = 0 if layer.input == "signs" else 128
    *shape, taps = seen.shape
    rows = np.zeros((math.prod(shape), len(weight)), np.int8)
    rows[:, :taps] = seen.reshape(len(rows), taps) - middle
    found = torch._int_mm(torch.from_numpy(rows), weight).numpy()[:, :width]
    if middle:
        found = found + middle * weight.numpy().sum(0, dtype=np.int32)[:width]
    return found.reshape(*shape, width)


def _ordered(layer: RealLayer, x: Array) -> Array:
    """Sums in the order of the inputs, rounded to the weights' dtype."""
    shape = layer.geometry
    if layer.input == "signs":
        x = signs_of(unpack_bits(x, shape.image[0]), np.float64)
    else:
        x = (x.astype(layer.values.dtype) - layer.shift).astype(np.float64)
    seen = windows(shape, x, float(shape.filling))
    *rows, taps = seen.shape
    seen = np.ascontiguousarray(seen.reshape(math.prod(rows), taps))
    weight = np.ascontiguousarray(_flat(layer, np.float64).T)
    out = np.zeros((len(seen), shape.width))
    if find_spec("numba") is not None:
        from pbnn.packed.kernels import ordered_products

        ordered_products(seen, weight, out, 0, len(seen))
    else:
        for k in range(taps):
            out += seen[:, k : k + 1] * weight[k]
    return out.astype(layer.values.dtype).reshape(*rows, shape.width)


_PRODUCTS: dict[str, Callable[[Any, Array], Array]] = {
    "numba": _ordered,
    "int8": _by_int8,
    "float32": _by_float32,
}
