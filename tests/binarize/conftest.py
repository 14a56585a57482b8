"""What several files of these tests need."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def layers_of_torch_draw_nothing_that_lasts():
    """For tests with layers of torch's own, which draw from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
