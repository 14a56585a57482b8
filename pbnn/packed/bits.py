"""Signs as bits: +1 is 1, −1 is 0, 32 of them a word, the first in its lowest bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Words = NDArray[np.uint32]

WORD = 32
"""Bits of a word: as many as the lanes that kernels count in."""


def words_of(bits: int) -> int:
    """How many words hold so many bits."""
    return -(-bits // WORD)


def pack_bits(positive: NDArray[np.bool_]) -> Words:
    """Bits of the last axis as words, those beyond it 0.

    Examples
    --------
    >>> pack_bits(np.array([[True, False, True]]))
    array([[5]], dtype=uint32)
    """
    *rows, bits = positive.shape
    packed = np.packbits(positive, axis=-1, bitorder="little")
    whole = np.zeros((*rows, 4 * words_of(bits)), np.uint8)
    whole[..., : packed.shape[-1]] = packed
    return whole.view("<u4").astype(np.uint32, copy=False)


def unpack_bits(words: Words, bits: int) -> NDArray[np.bool_]:
    """The first bits of the words of the last axis.

    Examples
    --------
    >>> unpack_bits(np.array([[5]], dtype=np.uint32), 3)
    array([[ True, False,  True]])
    """
    octets = np.ascontiguousarray(words, dtype="<u4").view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=bits, bitorder="little").astype(bool)


def signs_of(positive: NDArray[np.bool_], dtype: Any = np.int8) -> Array:
    """−1 and +1 for bits.

    Examples
    --------
    >>> signs_of(np.array([True, False]))
    array([ 1, -1], dtype=int8)
    """
    return np.where(positive, np.ones((), dtype), -np.ones((), dtype))
