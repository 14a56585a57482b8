"""What the kl bounds pay besides the divergence, against sums and Gammas with 50 digits."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from pbnn.bounds import CONSTANTS, log_kt, log_xi
from pbnn.bounds.constants import log_constant

mpmath.mp.dps = 50
# From 33 examples on, sums give way to series.
COUNTS = [*range(1, 41), 64, 100, 321, 2_000]


def xi(n):
    term = total = mpmath.mpf(1)
    for k in range(n):
        term *= mpmath.mpf(n - k) / n
        total += term
    return total


def kt(n):
    return mpmath.sqrt(mpmath.pi) * mpmath.gamma(n + 1) / mpmath.gamma(n + mpmath.mpf(1) / 2)


@pytest.mark.parametrize(("function", "value"), [(log_xi, xi), (log_kt, kt)])
def test_both_constants_to_a_few_units_in_the_last_place(function, value):
    got = function(np.array(COUNTS))
    for n, found in zip(COUNTS, got.tolist(), strict=True):
        assert abs(found / mpmath.log(value(n)) - 1) < 6e-16
        assert found == pytest.approx(function(n), rel=4e-16)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maurer", lambda n: 2 * mpmath.sqrt(n)),
        ("xi", xi),
        ("kt", kt),
        ("seeger", lambda n: mpmath.mpf(n + 1)),
        ("union", lambda n: 2 * mpmath.sqrt(n) * mpmath.pi**2 / 6 * n**2),
    ],
)
def test_the_confidence_term_by_name(name, value):
    for n, delta in ((1, 0.3), (40, 0.05), (1_000, 1e-9)):
        got = log_constant(np, np.float64(n), np.float64(delta), name)
        assert got == pytest.approx(float(mpmath.log(value(n) / mpmath.mpf(delta))), rel=4e-16)
    assert name in CONSTANTS


def test_there_is_a_constant_by_default():
    assert log_constant(np, 100.0, 0.05) == log_constant(np, 100.0, 0.05, "maurer")
