"""Inversions of the binary kl: ours against brentq in a loop and SciPy's vectorised root finder.

One core: set OMP_NUM_THREADS=1. Ratios are of medians within one run: a busy machine shifts both.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, elementwise
from scipy.special import rel_entr

from pbnn.bounds import exact, kl_inverse, maurer

N = 100_000


def cases(size: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    # Far enough from 1 for a root finder that works on p itself.
    return rng.uniform(0, 0.9, size), 10 ** rng.uniform(-4, 0, size)


def seconds(run: Callable[[], object], rounds: int = 7) -> float:
    """The median over rounds, after one that warms up."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def excess(p: Any, q: Any, c: Any) -> Any:
    return rel_entr(q, p) + rel_entr(1 - q, 1 - p) - c


def excess_of_floats(p: float, q: float, c: float) -> float:
    return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)) - c


def by_brentq(q: Any, c: Any) -> Any:
    pairs = zip(q.tolist(), c.tolist(), strict=True)
    return np.array([brentq(excess_of_floats, a, 1 - 1e-16, args=(a, b)) for a, b in pairs])


def by_scipy(q: Any, c: Any) -> Any:
    return elementwise.find_root(excess, (q, np.full_like(q, 1 - 1e-16)), args=(q, c)).x


def test_inversions_against_other_ways() -> None:
    q, c = cases(N)
    few = slice(0, N // 50)  # a loop grows with the number of calls, no more is needed
    ours = seconds(lambda: kl_inverse(q, c))
    certified = seconds(lambda: kl_inverse(q, c, certify=True))
    loop = 50 * seconds(lambda: by_brentq(q[few], c[few]), 3)
    scipy = seconds(lambda: by_scipy(q, c), 3)
    np.testing.assert_allclose(kl_inverse(q[few], c[few]), by_brentq(q[few], c[few]), rtol=1e-6)
    print(f"\n{N} upper inversions: {ours:.3f} s; certified {certified / ours:.2f} times that")
    print(
        f"brentq in a loop {loop / ours:.0f} times, elementwise.find_root {scipy / ours:.0f} times"
    )


def test_gradients_of_inversions() -> None:
    q, c = (torch.from_numpy(x).requires_grad_() for x in cases(N))
    forward = seconds(lambda: kl_inverse(q, c))
    both = seconds(lambda: torch.autograd.grad(kl_inverse(q, c).sum(), (q, c)))
    print(f"\n{N} inversions in torch: forward {forward:.3f} s, with backward {both:.3f} s")


@pytest.mark.parametrize("side", ["upper", "lower"])
def test_the_cost_grows_with_the_number_of_inversions(side: str) -> None:
    times = {
        n: seconds(lambda n=n: kl_inverse(*cases(n), side)) for n in (10**3, 10**4, 10**5, 10**6)
    }
    print(f"\n{side}: " + ", ".join(f"{n:.0e} in {t:.4f} s" for n, t in times.items()))


def test_one_bound_of_floats() -> None:
    """What a training step or a loop of a study pays for one bound."""
    one = seconds(lambda: [maurer(0.1, 50.0, 10_000) for _ in range(1000)]) / 1000
    sure = seconds(lambda: [exact.upper(maurer, 0.1, 50.0, 10_000) for _ in range(20)]) / 20
    print(f"\none bound {one * 1e6:.0f} us; in intervals {sure * 1e3:.2f} ms")


def test_import() -> None:
    def importing(module: str) -> float:
        command = [sys.executable, "-c", f"import {module}"]
        return seconds(lambda: subprocess.run(command, check=True), 9)

    python, numpy, ours = importing("sys"), importing("numpy"), importing("pbnn.bounds")
    print(f"\nimport numpy {numpy:.3f} s, pbnn.bounds {ours:.3f} s: {ours / numpy:.2f} times")
    ratio = (ours - python) / (numpy - python)
    print(f"without the interpreter's own {python:.3f} s: {ratio:.2f} times")
