"""Memory is predicted before a training starts, and what cannot fit says what would."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.nn.utils import skip_init

from pbnn import memory
from pbnn.backbones import lenet
from pbnn.baselines import Classifier
from pbnn.binarize import Recipe, convert, set_source
from pbnn.chunks import Chunks
from pbnn.layers import freeze_statistics
from pbnn.memory import Memory, kept_bytes, predict
from pbnn.networks import BLRNet, PBGNet
from pbnn.objectives import BoundObjective, RiskObjective, VariationalObjective
from pbnn.representation import ContrastiveObjective
from pbnn.representation.pretext import RotationObjective
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
        kept = kept_bytes(copy.deepcopy(objective), x[:batch].clone(), y[:batch].clone())
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
    told = r"`batch`.*lower it to 20 or fewer.*the statistics of its batch normalisation frozen"
    with pytest.raises(ValueError, match=told):
        fit(objective, x, y, config, generator=generator(0, "order"))
    fit(objective, x, y, FitConfig(1, 20), generator=generator(0, "order"))
    monkeypatch.setattr(memory, "available", lambda device="cpu": found.parameters // 2)
    with pytest.raises(ValueError, match="network alone is too large"):
        fit(objective, x, y, FitConfig(1, 20), generator=generator(0, "order"))


def test_where_there_is_room_nothing_is_run(monkeypatch):
    monkeypatch.setattr(memory, "predict", None)
    objective, (x, y) = blrnet(), points()
    assert memory.fitting(objective, x, y, 64).size is None


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


def frozen(activation="analytic", pooling="analytic", loss="gibbs", **more):
    """A bound of a network whose statistics are frozen."""
    make = {"source": generator(0, "source"), "generator": generator(0, "start")}
    options = {"activation": activation, "pooling": pooling, "dtype": torch.float64}
    network = BLRNet(IMAGE, "4C3-MP2-8FC-SM10", **options, **make, **more)
    freeze_statistics(network, "of others")
    return BoundObjective(network, 64, 0.05, loss=loss)


def two_classes(width=(5, 4)):
    network = PBGNet(144, width, generator=generator(0, "prior"), dtype=torch.float64)
    return BoundObjective(network, 64, 0.05)


def of_draws():
    draw = generator(0, "source")
    network = SampledPBGNet(144, (7,), generator=draw, draws=11, source=draw, dtype=torch.float64)
    return BoundObjective(network, 64, 0.05)


def dense(*widths):
    """Layers of a start that is the same each time."""
    parts = [torch.nn.Flatten()]
    for inputs, outputs in itertools.pairwise(widths):
        parts += [skip_init(torch.nn.Linear, inputs, outputs, dtype=torch.float64)]
        parts += [torch.nn.Hardtanh()]
        for parameter in parts[-2].parameters():
            torch.nn.init.normal_(parameter, 0.0, 0.3, generator=generator(inputs, "m"))
    return torch.nn.Sequential(*parts[:-1])


def of_drawn_signs():
    network = convert(dense(144, 6, 6, 10), Recipe(weights="stochastic"), layers=("3",)).network
    set_source(network, generator(0, "signs"))
    turning = RiskObjective(Classifier(network), "cross_entropy", decay=1e-3)
    return RotationObjective(turning, generator(0, "turns"))


class Unit(torch.nn.Sequential):
    """Rows of unit length."""

    def forward(self, x):
        return torch.nn.functional.normalize(super().forward(x), dim=1)


def noisy(x, source):
    return x + torch.rand(x.shape, generator=source, dtype=x.dtype)


def of_views():
    return ContrastiveObjective(Unit(*dense(144, 6, 3)), noisy, 0.5, generator(0, "views"))


def variational():
    objective = frozen()
    return VariationalObjective(objective.network, 64, loss="cross_entropy")


CHUNKED = {
    "two classes": two_classes,
    "frozen": frozen,
    "scaled cross-entropy": lambda: frozen(loss="bounded_cross_entropy"),
    "gaussian weights": lambda: frozen(law="gaussian"),
    "weights drawn for a batch": lambda: frozen("sample"),
    "signs drawn for each point": lambda: frozen("concrete"),
    "maxima drawn for each point": lambda: frozen(pooling="sampled"),
    "T draws": of_draws,
    "signs of weights drawn for a batch": of_drawn_signs,
    "views": of_views,
    "variational": variational,
}


def step(objective, x, y, size):
    """Loss, risk and gradients of one step on a copy, and where that leaves its generators."""
    objective = copy.deepcopy(objective).train()
    objective.meet(torch.arange(len(x)))
    with Chunks(objective.network, size):
        loss, risk = objective(x, y, 0.7)
    loss.backward()
    found = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    source = getattr(objective.network, "source", None)
    return found | {
        "loss": loss.detach(),
        "risk": risk,
    }, None if source is None else source.get_state()


def points_for(objective, n):
    x, y = points(n)
    if isinstance(objective.network, PBGNet):
        return x.double().flatten(1), 2.0 * (y % 2) - 1
    return x.double(), y


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("name", CHUNKED)
def test_loss_gradients_and_draws_of_chunks_are_those_of_the_whole_batch(name, size):
    objective = CHUNKED[name]()
    x, y = points_for(objective, 11)
    (whole, left), (parts, left_by_parts) = (step(objective, x, y, s) for s in (None, size))
    assert whole.keys() == parts.keys()
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-3
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-12, atol=1e-12)
    assert left is None or torch.equal(left, left_by_parts)


def room_for(objective, x, y, chunk, batch, **more):
    return predict(objective, x, y, chunked=True, **more).of(batch, chunk)


@contextlib.contextmanager
def little_room(monkeypatch, room):
    with monkeypatch.context() as patch:
        patch.setattr(memory, "available", lambda device="cpu": room)
        patch.setattr(memory, "PER_INPUT", 10**6)
        yield


@pytest.mark.parametrize(
    "make", [lambda: two_classes((60,)), frozen, lambda: frozen("sample"), of_draws]
)
def test_a_training_in_chunks_ends_where_the_whole_one_does(make, monkeypatch):
    ends = []
    for chunk in (None, 9):
        objective = make()
        x, y = points_for(objective, 40)
        train = {"config": FitConfig(2, 40, 0.01), "generator": generator(0, "order")}
        if chunk is None:
            curve = fit(objective, x, y, **train)
        else:
            room = room_for(objective, x, y, chunk, 40)
            with (
                little_room(monkeypatch, room),
                pytest.warns(UserWarning, match="in chunks of 9 examples: .* GB would be needed"),
            ):
                curve = fit(objective, x, y, **train)
        ends.append((curve, objective.state_dict()))
    (one, state), (other, others) = ends
    assert other == [pytest.approx(row, rel=1e-9) for row in one]
    for name, value in state.items():
        torch.testing.assert_close(others[name], value, rtol=1e-8, atol=1e-10)


def test_where_there_is_room_for_the_batch_there_are_no_chunks(monkeypatch):
    objective = frozen()
    x, y = points_for(objective, 40)
    with little_room(monkeypatch, predict(objective, x, y).of(40)), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert memory.fitting(objective, x, y, 40).size is None


def test_where_no_chunk_fits_the_error_says_so(monkeypatch):
    objective = frozen()
    x, y = points_for(objective, 40)
    room = room_for(objective, x, y, 0, 40)
    told = r"`batch`.*lower it to \d+ or fewer.*no chunk of it fits either"
    with little_room(monkeypatch, room), pytest.raises(ValueError, match=told):
        memory.fitting(objective, x, y, 40)
    told = r"`batch`.*\(it was not to be computed in chunks\)"
    room = room_for(objective, x, y, 10, 40)
    with little_room(monkeypatch, room), pytest.raises(ValueError, match=told):
        fit(objective, x, y, FitConfig(1, 40, compile=True), generator=generator(0, "order"))


def test_statistics_of_torch_that_are_kept_from_the_first_step_leave_room_for_chunks(monkeypatch):
    x, y = points()
    objective = binary_net()
    whole, parts = (binary_net() for _ in range(2))
    room = room_for(objective, x, y, 7, 64, frozen=True)
    with little_room(monkeypatch, room), pytest.raises(ValueError, match="frozen_from=0"):
        fit(objective, x, y, FitConfig(1, 64), generator=generator(0, "order"))
    config = FitConfig(1, 64, 0.01, frozen_from=0.0)
    fit(whole, x, y, config, generator=generator(0, "order"))
    with little_room(monkeypatch, room), pytest.warns(UserWarning, match="in chunks of 7"):
        fit(parts, x, y, config, generator=generator(0, "order"))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


class Counting(torch.nn.Linear):
    """Counts its calls."""

    def __init__(self):
        super().__init__(4, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x).squeeze(-1)


class Own(torch.nn.Linear):
    """Has a generator of its own."""

    source = None

    def __init__(self):
        super().__init__(4, 1)
        self.noise = torch.Generator()


def hooked():
    network = torch.nn.Sequential(torch.nn.Linear(4, 1))
    network[0].register_forward_hook(lambda *_: None)
    return network


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (torch.nn.BatchNorm1d(4), "statistics of its batch normalisation frozen"),
        (torch.nn.BatchNorm1d(4, track_running_stats=False).eval(), "1 with those of the batch"),
        (Counting(), "leave its buffers alone"),
        (Own(), "known generators"),
        (torch.nn.Dropout(0.5), "generators that are passed in"),
        (hooked(), "no hooks"),
        (torch.nn.Flatten(0), "a row for each point"),
    ],
)
def test_what_is_not_the_same_in_chunks_is_refused(network, told):
    with Chunks(network, 2), pytest.raises(ValueError, match=told):
        network(torch.ones(5, 4))
    assert "forward" not in vars(network)


def test_chunks_foretell_what_they_save():
    found = Memory(parameters=100, fixed=50, example=400, whole=40)
    assert found.of(10) == found.of(10, 10) == found.of(10, 12) == 150 + 10 * 600
    assert found.of(10, 1) == 150 + 600 + 9 * 60
    assert found.chunk_within(found.of(10, 3), 10) == 3
    assert found.chunk_within(found.of(10, 3) - 1, 10) == 2
    assert found.chunk_within(found.of(10, 0), 10) == 0
    assert found.chunk_within(10**9, 10) == 10
    assert Memory(100, 50, 400).chunk_within(found.of(10) - 1, 10) == 0


CHUNKED_PEAK = (
    PEAK.split("objective(x[:4]")[0]
    + """
import warnings
from pbnn import memory
from pbnn.layers import freeze_statistics
from pbnn.training import FitConfig, fit
freeze_statistics(network, "of others")
draw = generator(0, "order")
config = FitConfig(1, batch)
fit(objective, x[:64], y[:64], FitConfig(1, 64), generator=draw)
found = predict(objective, x, y, chunked=True)
room = found.of(batch, batch // 10)
memory.available = lambda device="cpu": room
memory.PER_INPUT = 10**6
before = peak()
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    fit(objective, x, y, config, generator=draw)
assert f"chunks of {batch // 10} examples" in str(told[0].message), told
print(peak() - before, room, found.of(batch))
"""
)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="read from /proc")
def test_the_peak_of_a_training_in_chunks_is_below_the_limit():
    """Of what is in use: what glibc keeps for later comes on top, unless it is told not to."""
    done = subprocess.run(
        [sys.executable, "-c", CHUNKED_PEAK, "2000"],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=True,
    )
    peak, room, whole = map(int, done.stdout.split())
    assert peak < room < whole / 4
