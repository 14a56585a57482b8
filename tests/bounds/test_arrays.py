"""What every bound leans on: arguments checked and moved to their domain, results rounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pbnn.bounds._arrays import ROUNDING, SLACK, _as_tensor, outward, prepare


def test_what_rounding_may_miss_is_moved_to_the_end():
    for near, end in ((-ROUNDING, 0.0), (1 + ROUNDING, 1.0)):
        _, (value,), _ = prepare(risk=near)
        assert value == end
        with pytest.raises(ValueError, match=r"`risk` must lie in \[0, 1\]"):
            prepare(risk=near + (near - end))
    _, (value,), _ = prepare(kl=1 + ROUNDING)
    assert value == 1 + ROUNDING


def test_numbers_go_along_to_any_device():
    there = torch.device("meta")
    for value in (torch.tensor(1.0), 1.0, 1):
        moved = _as_tensor("kl", value, there)
        assert (moved.device.type, moved.dtype, moved.shape) == ("meta", torch.float64, ())
    assert _as_tensor("kl", torch.ones(1), there).device.type == "cpu"


def test_outward_moves_every_number_and_zero_too():
    x = np.array([-0.7, -5e-324, 0.0, 5e-324, 1e-310, 0.25, 3.0])
    for up, sign in ((True, 1), (False, -1)):
        moved = outward(x, np, up)
        assert (sign * moved > sign * x).all()
        assert (abs(moved - x) >= SLACK * abs(x)).all()
        assert (abs(moved - x) <= 1.1 * SLACK * abs(x) + 5e-324).all()
        assert outward(torch.tensor(x, requires_grad=True), torch, up).tolist() == moved.tolist()
