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


def thirds(words: Words) -> Words:
    """Words whose every third one is the exclusive or of itself and the two before it.

    Kernels count the bits of three words with two counts then: of a sum and of a carry, and the sum
    is there already. Twice the same gives back the words; one or two left over stay.

    Examples
    --------
    >>> thirds(np.array([1, 2, 4, 8], dtype=np.uint32))
    array([1, 2, 7, 8], dtype=uint32)
    """
    end = words.shape[-1] // 3 * 3
    if not end:
        return words
    found = words.copy()
    found[..., 2:end:3] ^= words[..., 0:end:3] ^ words[..., 1:end:3]
    return found
