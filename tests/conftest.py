"""What every test shares: few threads, and global random states that nobody touches."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# Read when the libraries are loaded, so before any test imports them; subprocesses inherit them.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, os.environ.get("OMP_NUM_THREADS", "2"))


def _global_random_states() -> dict[str, object]:
    """The states of those global generators whose library is loaded, as comparable values."""
    states: dict[str, object] = {"random": random.getstate()}
    if numpy := sys.modules.get("numpy"):
        kind, keys, *rest = numpy.random.get_state()
        states["numpy"] = (kind, keys.tobytes(), *rest)
    if torch := sys.modules.get("torch"):
        states["torch"] = torch.random.get_rng_state().numpy().tobytes()
    return states


@pytest.fixture(autouse=True)
def untouched_global_randomness() -> Iterator[None]:
    """Fail a test whose code draws from, or seeds, a global random generator.

    `torch.autograd.gradgradcheck` draws; call it inside ``torch.random.fork_rng(devices=[])``.
    """
    before = _global_random_states()
    yield
    after = _global_random_states()
    touched = [name for name, state in before.items() if after[name] != state]
    assert not touched, f"the global random state of {touched} was changed; pass a generator"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch: two on a busy machine would wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def assert_moments() -> Callable[[Any, Any], None]:
    """Mean and variance of draws (over dimension 0) lie within five standard errors."""

    def check(draws: Any, expected: Any, errors: float = 5) -> None:
        mean, var = draws.mean(0), draws.var(0)
        fourth = (draws - mean).pow(4).mean(0)
        spread = ((fourth - var.square()).clamp(min=0) / len(draws)).sqrt()
        error = (var / len(draws)).sqrt()
        # What is known is summed with rounding; the variance is taken about the mean of the draws.
        assert ((mean - expected.mean).abs() <= errors * error + 1e-11).all()
        assert ((var - expected.var).abs() <= errors * spread + (errors * error) ** 2 + 1e-11).all()

    return check
