"""Which examples a part of a prior has been trained on, and that none of them certifies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def example_hashes(x: NDArray[Any]) -> frozenset[str]:
    """SHA-256 of each example's content: type, shape and little-endian bytes, labels left out.

    Parameters
    ----------
    x : (n, ...) array

    Examples
    --------
    >>> x = np.float32([[0, 1], [1, 1], [0, 1]])
    >>> len(example_hashes(x)), example_hashes(x[:1]) == example_hashes(x[2:])
    (2, True)
    """
    return frozenset(row_hashes(x))


def check_unseen(seen: Iterable[str], x: NDArray[Any]) -> None:
    """Refuse to certify on an example that a prior has seen, with a label or without.

    A prior must not depend on the examples behind its certificate. Examples are told by their
    content, whatever task or split they come by; one that was seen in another type, scale or a
    little changed is not found, and two of the same content by chance are.

    Parameters
    ----------
    seen : iterable of str
        `example_hashes` of all that the prior was trained on, or its features, or its statistics.
    x : (n, ...) array
        The certification examples, in the type and shape in which the others were hashed.

    Raises
    ------
    ValueError
        If an example was seen, or `seen` or `x` is something else.

    Examples
    --------
    >>> x = np.float32([[0, 1], [1, 1], [2, 1]])
    >>> check_unseen(example_hashes(x[:2]), x[2:])
    >>> check_unseen(example_hashes(x[:2]), x[1:])
    Traceback (most recent call last):
    ...
    ValueError: `x` must hold no example that the prior has seen, got 1 of 2, the first in row 0.
    """
    known = () if isinstance(seen, str) else [*seen]
    hashes = [isinstance(one, str) and re.fullmatch("[0-9a-f]{64}", one) for one in known]
    if isinstance(seen, str) or not all(hashes):
        raise ValueError("`seen` must hold hashes of `example_hashes`, got something else.")
    seen = frozenset(known)
    rows = [row for row, found in enumerate(row_hashes(x)) if found in seen]
    if rows:
        raise ValueError(
            f"`x` must hold no example that the prior has seen, got {len(rows)} of {len(x)}, the "
            f"first in row {rows[0]}."
        )


def row_hashes(x: NDArray[Any]) -> list[str]:
    """`example_hashes` in the order of the examples."""
    if not isinstance(x, np.ndarray) or x.ndim < 1 or x.dtype.kind not in "biuf":
        got = f"{x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ValueError(f"`x` must be an array of numbers, one row an example, got {got}.")
    x = np.ascontiguousarray(x, dtype=np.asarray(x).dtype.newbyteorder("<"))
    head = f"{x.dtype.str}{x.shape[1:]}".encode()
    return [hashlib.sha256(head + row.tobytes()).hexdigest() for row in x]
