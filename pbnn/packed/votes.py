"""Probabilities of scores that are the same on every machine, so that votes are, too."""

from __future__ import annotations

import math

import numpy as np

from pbnn.packed.bits import Array

GRID = 2.0**32
"""Probabilities are multiples of 1/GRID, as in `pbnn.ensembles`: sums of them are exact."""
_TERMS = [1 / math.factorial(k) for k in range(14, -1, -1)]
_LN2 = math.log(2)
_LEAST = -64.0
"""Below it an exponential is no multiple of 1/GRID but 0."""


def exponential(x: Array) -> Array:
    """e^x of x ≤ 0 in float64, by sums and products alone, whose rounding is the same everywhere.

    Within 1e-14 of its value, relatively, from −64 on, and 0 below.

    Examples
    --------
    >>> float(exponential(np.array(0.0))), float(exponential(np.array(-1000.0)))
    (1.0, 0.0)
    """
    near = np.maximum(x, _LEAST)
    twos = np.rint(near / _LN2)
    rest = near - twos * _LN2
    value = np.full(x.shape, _TERMS[0])
    for term in _TERMS[1:]:
        value = value * rest + term
    return np.where(x < _LEAST, 0.0, np.ldexp(value, twos.astype(np.int64)))


def probabilities(scores: Array) -> Array:
    r"""Probabilities of scores in float64: :math:`p_k \propto e^{s_k}`, multiples of 2⁻³².

    Of a single score s the sign is the label, and they are (1, 0) or (0, 1).

    Examples
    --------
    >>> probabilities(np.float32([[0, 0]])), probabilities(np.float32([[-0.5]]))
    (array([[0.5, 0.5]]), array([[1., 0.]]))
    """
    if scores.shape[-1] == 1:
        up = scores >= 0
        return np.concatenate([~up, up], axis=-1).astype(np.float64)
    exact = scores.astype(np.float64)
    shares = exponential(exact - exact.max(-1, keepdims=True))
    total = np.zeros(shares.shape[:-1])
    for each in range(shares.shape[-1]):  # in this order
        total = total + shares[..., each]
    return np.rint(shares / total[..., None] * GRID) / GRID
