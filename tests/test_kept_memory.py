"""What is done again and again keeps no memory: that of C, which no resident size shows at once."""

from __future__ import annotations

import ctypes
import gc
import sys

import pytest
import torch
from torch import nn

from pbnn.class_risks import fresh_networks
from pbnn.evaluation import risks
from pbnn.layers import freeze_statistics
from pbnn.memory import predict
from pbnn.networks import BLRNet
from pbnn.objectives import RiskObjective
from pbnn.packed import deployed
from pbnn.sampled import SampledPBGNet
from pbnn.seeding import copied, generator
from pbnn.training import load_checkpoint, save_checkpoint

TIMES = 60


class MallInfo(ctypes.Structure):
    """What glibc says of its heap."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks",
                     "uordblks", "fordblks", "keepcost")
    ]  # fmt: skip


@pytest.fixture
def mallinfo():
    told = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if told is None:
        pytest.skip("no glibc of 2.33 or newer")
    told.restype = MallInfo
    return told


def kept(work, mallinfo):
    """Bytes of the heap, and blocks of Python's own memory, that a call keeps on average."""
    held = []
    for calls in (TIMES // 2, TIMES):  # the first ones may fill caches
        for _ in range(calls):
            work()
        gc.collect()
        held.append((mallinfo().uordblks, sys.getallocatedblocks()))
    return tuple((after - before) / TIMES for before, after in zip(*held, strict=True))


@pytest.fixture
def network():
    draws = {"generator": generator(0, "start"), "source": generator(0, "source")}
    return BLRNet((1, 8, 8), "4C3-MP2-SM10", activation="sample", **draws)


@pytest.fixture
def x():
    return torch.rand(8, 1, 8, 8, generator=generator(0, "x"))


def test_a_copy_draws_on_its_own_what_the_module_would():
    source = generator(0, "both")
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Identity())
    module[0].source = module[1].source = source
    torch.rand(3, generator=source)
    own = copied(module)
    assert own[0].source is own[1].source
    assert own[0].source is not source
    assert own[0].weight is not module[0].weight
    assert torch.equal(own[0].weight, module[0].weight)
    first = torch.rand(4, generator=own[0].source)
    assert torch.equal(first, torch.rand(4, generator=source))


def test_a_copy_keeps_no_generator(network, mallinfo):
    size, _ = kept(lambda: copied(network), mallinfo)
    assert size < 200, "of the 2600 bytes of a generator"


def test_a_drawn_network_keeps_no_generator(network, mallinfo):
    size, _ = kept(lambda: next(fresh_networks(network, generator(0, "draws"))), mallinfo)
    assert size < 200


def test_risks_of_a_network_that_draws_keep_no_generator(mallinfo):
    draws = {"generator": generator(0, "prior"), "source": generator(0, "draws"), "draws": 2}
    sampled = SampledPBGNet(3, (2,), **draws)
    points = torch.ones(4, 3), torch.ones(4)
    size, _ = kept(lambda: risks(sampled, *points), mallinfo)
    assert size < 200


def test_a_prediction_of_memory_keeps_no_generator(network, x, mallinfo):
    objective = RiskObjective(network, "cross_entropy")
    size, _ = kept(lambda: predict(objective, x, torch.zeros(8, dtype=torch.int64)), mallinfo)
    assert size < 200


def test_a_deployed_network_keeps_no_generator(network, x, mallinfo):
    freeze_statistics(network, "split")
    draw = generator(0, "deployed")
    size, _ = kept(lambda: deployed(network, "draw", x, "split", draw), mallinfo)
    assert size < 200


def test_a_checkpoint_that_is_read_keeps_nothing(network, tmp_path, mallinfo):
    path = tmp_path / "network.safetensors"
    save_checkpoint(path, network)
    size, blocks = kept(lambda: load_checkpoint(path), mallinfo)
    assert size < 200
    assert blocks < len(network.state_dict()), "of two for each tensor"
