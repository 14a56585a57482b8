"""Memory is predicted before a training starts, and what cannot fit says what would."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pbnn import memory
from pbnn.backbones import lenet
from pbnn.baselines import Classifier
from pbnn.binarize import convert
from pbnn.memory import kept_bytes, predict
from pbnn.networks import BLRNet, PBGNet
from pbnn.objectives import BoundObjective, RiskObjective
from pbnn.sampled import SampledPBGNet
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit

IMAGE = (1, 12, 12)


def points(n=64, classes=10):
    x = torch.rand(n, *IMAGE, generator=generator(0, "x"))
    return x, torch.randint(classes, (n,), generator=generator(0, "y"))


def blrnet(activation="analytic"):
    draw = generator(0, "source")
    options = {"activation": activation, "source": draw, "generator": generator(0, "start")}
    return RiskObjective(BLRNet(IMAGE, "8C3-MP2-32FC-SM10", **options), "cross_entropy")


def binary_net():
    model = lenet(IMAGE, (8, 16), 32, kernel=3, generator=generator(0, "m"))
    return RiskObjective(Classifier(convert(model, "xnor_net").network), "cross_entropy")


@pytest.mark.parametrize("make", [blrnet, lambda: blrnet("concrete"), binary_net])
def test_what_two_and_four_examples_keep_foretells_a_batch(make):
    objective, (x, y) = make(), points()
    found = predict(objective, x, y)
    for batch in (16, 64):
        kept = kept_bytes(copy.deepcopy(objective), x[:batch], y[:batch])
        assert found.fixed + batch * found.example == pytest.approx(kept, rel=0.02)


@pytest.mark.parametrize("draws", [10, 100])
def test_draws_of_a_step_are_counted(draws):
    source = generator(0, "source")
    network = SampledPBGNet(144, (20,), generator=source, draws=draws, source=source)
    x, y = points(classes=2)
    found = predict(BoundObjective(network, 64, 0.05), x.flatten(1), 2.0 * y - 1)
    assert found.example >= draws * 20 * 4


def test_nothing_is_changed_by_looking():
    objective, (x, y) = blrnet("sample"), points()
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    source = objective.network.source.get_state()
    predict(objective, x, y)
    assert torch.equal(objective.network.source.get_state(), source)
    after = objective.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in state.items())


def test_a_batch_that_cannot_fit_names_one_that_does(monkeypatch):
    objective, (x, y) = blrnet(), points()
    found = predict(objective, x, y)
    room = found.of(20)
    monkeypatch.setattr(memory, "available", lambda device="cpu": room)
    monkeypatch.setattr(memory, "PER_INPUT", 10**6)
    config = FitConfig(1, 64)
    with pytest.raises(ValueError, match=r"`batch`.*lower it to 20 or fewer"):
        fit(objective, x, y, config, generator=generator(0, "order"))
    fit(objective, x, y, FitConfig(1, 20), generator=generator(0, "order"))
    monkeypatch.setattr(memory, "available", lambda device="cpu": found.parameters // 2)
    with pytest.raises(ValueError, match="network alone is too large"):
        fit(objective, x, y, FitConfig(1, 20), generator=generator(0, "order"))


def test_where_there_is_room_nothing_is_run(monkeypatch):
    monkeypatch.setattr(memory, "predict", None)
    objective, (x, y) = blrnet(), points()
    memory.check_fits(objective, x, y, 64)


def test_a_few_points_cannot_foretell():
    x, y = points(3)
    with pytest.raises(ValueError, match="four points"):
        predict(blrnet(), x, y)


PEAK = """
import sys, torch
from pbnn.memory import predict
from pbnn.networks import BLRNet
from pbnn.objectives import RiskObjective
from pbnn.seeding import generator
torch.set_num_threads(1)
def peak():  # of this program, whoever started it
    with open("/proc/self/status") as status:
        return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
batch = int(sys.argv[1])
network = BLRNet((1, 28, 28), "16C3-MP2-32C3-MP2-64FC-SM10", generator=generator(0, "start"))
objective = RiskObjective(network, "cross_entropy")
x = torch.rand(batch, 1, 28, 28, generator=generator(0, "x"))
y = torch.zeros(batch, dtype=torch.int64)
objective(x[:4], y[:4], 1.0)[0].backward()
foretold = predict(objective, x, y).of(batch)
before = peak()
objective.train()
objective(x, y, 1.0)[0].backward()
print(peak() - before, foretold)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="read from /proc")
def test_the_peak_of_a_process_is_about_what_is_foretold():
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "2000"], capture_output=True, text=True, check=True
    )
    peak, foretold = map(int, done.stdout.split())
    assert 0.6 < foretold / peak < 1.7


def test_what_is_free_is_seen():
    free = memory.available()
    assert 10**7 < free < 10**14


def test_a_network_of_two_classes_is_foretold_too():
    network = PBGNet(144, (10,), generator=generator(0, "prior"))
    x, y = points(classes=2)
    found = predict(BoundObjective(network, 64, 0.05), x.flatten(1), 2.0 * y - 1)
    assert found.parameters >= 5 * 4 * sum(p.numel() for p in network.parameters())
