"""Weights as kernels read them: filters side by side, in chunks of 64, then 32 or 16.

Filters are rounded up to a multiple of 16, those beyond with bits 0. Of signs a chunk holds the
first word of each filter, then the second, and so on. Of bytes it holds the bits of four inputs of
16 filters in 8 bytes, filter by filter, and so on for the next 16, then for the next four inputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pbnn.packed.bits import Words, pack_bits

Panels = NDArray[np.uint8]

GROUP = 16
"""Filters that kernels never part."""
QUAD = 4
"""Bytes of a word."""


def rounded_up(width: int) -> int:
    """Filters of a panel.

    Examples
    --------
    >>> rounded_up(10), rounded_up(64)
    (16, 64)
    """
    return -(-width // GROUP) * GROUP


def chunks(width: int) -> Iterator[slice]:
    """The filters of each chunk."""
    start, end = 0, rounded_up(width)
    while start < end:
        size = next(size for size in (64, 32, 16) if size <= end - start)
        yield slice(start, start + size)
        start += size


def panels_of_words(words: Words) -> Panels:
    """Panels of filters (width, words).

    Examples
    --------
    >>> panels = panels_of_words(np.array([[1, 2]], dtype=np.uint32))
    >>> len(panels), words_of_panels(panels, 1)
    (128, array([[1, 2]], dtype=uint32))
    """
    width = len(words)
    whole = np.pad(words, ((0, rounded_up(width) - width), (0, 0)))
    return np.concatenate([whole[part].T.reshape(-1) for part in chunks(width)]).view(np.uint8)


def words_of_panels(panels: Panels, width: int) -> Words:
    """The filters (width, words) of panels."""
    each = panels.view(np.uint32).reshape(rounded_up(width), -1).shape[1]
    parts = []
    for part in chunks(width):
        size = part.stop - part.start
        chunk = panels.view(np.uint32)[part.start * each : part.stop * each]
        parts.append(chunk.reshape(each, size).T)
    return np.ascontiguousarray(np.concatenate(parts)[:width])


def panels_of_bits(bits: NDArray[np.bool_]) -> Panels:
    """Panels of filters (width, segments, inputs) that meet bytes; segments are whole quads.

    Examples
    --------
    >>> panels = panels_of_bits(np.array([[[True, False, True]]]))
    >>> len(panels), bits_of_panels(panels, 1, 1, 3)
    (8, array([[[ True, False,  True]]]))
    """
    width, _, inputs = bits.shape
    whole = np.pad(bits, ((0, rounded_up(width) - width), (0, 0), (0, -inputs % QUAD)))
    groups = whole.reshape(len(whole) // GROUP, GROUP, -1, QUAD).transpose(0, 2, 1, 3)
    octets = pack_bits(groups.reshape(*groups.shape[:2], -1)).view(np.uint8)  # group, quad, 8 bytes
    parts = []
    for part in chunks(width):
        own = octets[part.start // GROUP : part.stop // GROUP]
        parts.append(own.transpose(1, 0, 2).reshape(-1))
    return np.concatenate(parts)


def bits_of_panels(panels: Panels, width: int, segments: int, inputs: int) -> NDArray[np.bool_]:
    """The filters (width, segments, inputs) of panels that meet bytes."""
    quads = segments * -(-inputs // QUAD)
    parts = []
    for part in chunks(width):
        groups = (part.stop - part.start) // GROUP
        size = 8 * quads
        start = part.start // GROUP * size
        octets = panels[start : start + groups * size].reshape(quads, groups, 8)
        bits = np.unpackbits(octets, axis=-1, bitorder="little").astype(bool)
        each = bits.reshape(quads, groups, GROUP, QUAD).transpose(1, 2, 0, 3)
        parts.append(each.reshape(groups * GROUP, segments, -1))
    return np.concatenate(parts)[:width, :, :inputs]
