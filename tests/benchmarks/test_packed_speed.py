"""Packed layers against torch's float32 in one run, as width and batch grow, and a call's cost.

``pytest -s tests/benchmarks/test_packed_speed.py`` prints milliseconds and ratios measured in turn,
binary operations a second, and the cost of a call. Nothing is asserted about time.
"""

from __future__ import annotations

import numpy as np
import packed_speed
import pytest

from pbnn.packed import available
from pbnn.packed.backends import run
from pbnn.packed.bits import pack_bits
from pbnn.packed.geometry import Geometry
from pbnn.packed.layers import BitLayer, Thresholds

CONFIG = packed_speed.Config(
    widths=(128, 512, 1024), batches=(1, 32, 1024), threads=(1,), seconds=0.2
)
pytestmark = pytest.mark.usefixtures("one_thread")


def test_layers():
    for row in packed_speed.layer_rows(CONFIG):
        if row["layer"].startswith("dense"):
            width = int(row["layer"].split()[1])
            rate = 2 * width**2 * row["batch"] / row["ms"] / 1e6
            print(f"  {row['ratio_float32']:.3g} times float32, {rate:.4g} GOPS")


def test_the_cost_of_a_call():
    geometry = Geometry((32, 1, 1), 16)
    nothing = np.zeros(16, bool)
    tail = Thresholds(np.zeros((1, 16), np.int32), nothing, nothing)
    layer = BitLayer.of(geometry, np.ones((16, 32, 1, 1), np.int8), tail)
    words = pack_bits(np.ones((1, 1, 1, 32), bool))
    for backend in available():
        seconds = packed_speed.seconds_of(lambda b=backend: run(layer, words, b), 1000)
        print(f"{backend}: {1e6 * seconds:.3g} µs")
