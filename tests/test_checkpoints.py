"""Checkpoints: every bit comes back, older ones load, and what is none is refused."""

from __future__ import annotations

import itertools
import json
import math
import operator
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pbnn.baselines import MLP, RealNet
from pbnn.networks import ABNet, BLRNet, PBGNet, fingerprint
from pbnn.seeding import generator
from pbnn.training import (
    SCHEMA_VERSION,
    checkpoint_bytes,
    load_checkpoint,
    save_checkpoint,
    snapshot,
)

DATA = Path(__file__).parent / "data"


def same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


SHIFT = torch.linspace(-1, 1, 5)


@pytest.mark.parametrize(
    "net",
    [
        PBGNet(5, (3,), bias=True, shift=SHIFT, generator=generator(0, "net")),
        PBGNet(5, (3,), aggregate="mean_field", generator=generator(0, "net")),
        PBGNet(5, (3,), shift=0.1, generator=generator(0, "net"), dtype=torch.float64),
        PBGNet(5, (), bias=True, prior_bias=-3.0, generator=generator(0, "net")),
        PBGNet(5, (4, 3, 2), bias=True, shift=SHIFT, generator=generator(0, "net")),
        PBGNet(5, (14, 13), aggregate="exact", prior_scale=0.0, generator=generator(0, "net")),
        ABNet(5, (4, 3), bias=True, shift=SHIFT, prior_scale=0.5, generator=generator(0, "net")),
        ABNet(5, (4, 3, 2), generator=generator(0, "net"), dtype=torch.float64),
        MLP(5, (3,), shift=SHIFT, generator=generator(0, "net")),
    ],
    ids=["bias", "mean field", "float64", "unit", "tree", "wide", "chain", "chain of 4", "MLP"],
)
def test_a_checkpoint_brings_back_every_bit(net, tmp_path):
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters(), start=1):
            parameter.add_(number / 3)
    path = tmp_path / "new" / "net.safetensors"
    save_checkpoint(path, net)
    back = load_checkpoint(path)
    assert type(back) is type(net)
    assert not any(part.training for part in back.modules())
    assert back.config == net.config
    assert same_state(back, net)
    assert {v.dtype for v in back.state_dict().values()} == {net.shift.dtype}
    x = torch.randn(4, 5, generator=generator(0, "x"), dtype=net.shift.dtype)
    assert torch.equal(back(x), net(x))
    if not isinstance(net, MLP):
        assert fingerprint(back) == fingerprint(net)
        assert back.kl() == net.kl() > 0
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == checkpoint_bytes(net) == checkpoint_bytes(back)
    # Readable by those who may read any other file here, see pbnn.files.atomic.
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("options", [{}, {"law": "gaussian", "batch_norm": False}])
@pytest.mark.parametrize("activation", ["analytic", "concrete"])
def test_a_checkpoint_brings_back_a_network_of_images(options, activation, tmp_path):
    made = {"generator": generator(0, "net"), "dtype": torch.float64}
    net = BLRNet(
        IMAGE, CODE, activation=activation, source=generator(0, "source"), **options, **made
    )
    images = torch.randn(6, *IMAGE, generator=generator(0, "x"), dtype=torch.float64)
    net(images)  # moves the running statistics
    net.adopt_as_prior()
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters(), start=1):
            parameter.add_(number / 30)
    save_checkpoint(tmp_path / "net", net)
    back = load_checkpoint(tmp_path / "net")
    assert type(back) is BLRNet
    assert back.config == net.config
    assert same_state(back, net)
    assert back.kl() == net.kl() > 0
    for one, other in zip(back.eval()(images), net.eval()(images), strict=True):
        assert torch.equal(one, other)
    back.train()(images)


def test_a_checkpoint_brings_back_a_real_network(tmp_path):
    net = RealNet(IMAGE, CODE, generator=generator(0, "net"))
    images = torch.randn(6, *IMAGE, generator=generator(0, "x"))
    net(images)
    save_checkpoint(tmp_path / "net", net)
    back = load_checkpoint(tmp_path / "net")
    assert type(back) is RealNet
    assert torch.equal(back.eval()(images).mean, net.eval()(images).mean)


IMAGE, CODE = (2, 8, 8), "4C3-MP2-5FC-SM3"


def test_the_header_of_a_checkpoint_is_json(tmp_path):
    path = tmp_path / "net.safetensors"
    net = PBGNet(5, (3,), generator=generator(0, "net"))
    save_checkpoint(path, net)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["pbnn"])
    assert header == {"schema_version": SCHEMA_VERSION, "network": "PBGNet", "config": net.config}


def test_the_checkpoint_of_version_1_loads():
    net = load_checkpoint(DATA / "checkpoint_v1.safetensors")
    assert isinstance(net, PBGNet)
    assert net.config == {"in_features": 3, "hidden": [2], "bias": True, "aggregate": "exact"}
    eighths = torch.arange(-4.0, 4.0).reshape(2, 4) / 8
    assert torch.equal(net.hidden[0].weight.mean, eighths)
    assert torch.equal(net.hidden[0].weight.prior_mean, torch.full((2, 4), 0.25))
    assert torch.equal(net.output.weight.mean, torch.tensor([[1.0, -0.5, 0.25]]))
    assert torch.equal(net.output.weight.prior_mean, torch.zeros(1, 3))
    assert net.shift.tolist() == [0, 0.5, 1]
    kl = (eighths - 0.25).square().sum() / 2 + (1 + 0.25 + 0.0625) / 2
    assert net.kl().item() == pytest.approx(kl.item())
    # Sums of float32 numbers up to 1, in an order that processors choose.
    true = [aggregate(net, point) for point in X.tolist()]
    assert net(X).tolist() == pytest.approx(true, rel=1e-6, abs=1e-6)


X = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.5, 1.0], [-3.0, 1.0, 2.0]])


def aggregate(net, point):
    """The aggregate of a network with one hidden layer and a bias, by enumeration."""

    def mean_sign(weight, inputs):
        inner = sum(map(operator.mul, weight, inputs))
        return math.erf(inner / math.hypot(*inputs) / math.sqrt(2))

    inputs = [a - b for a, b in zip(point, net.shift.tolist(), strict=True)] + [1.0]
    means = [mean_sign(weight, inputs) for weight in net.hidden[0].weight.mean.tolist()]
    (output,) = net.output.weight.mean.tolist()
    total = 0.0
    for signs in itertools.product([1.0, -1.0], repeat=len(means)):
        chance = math.prod((1 + s * m) / 2 for s, m in zip(signs, means, strict=True))
        total += chance * mean_sign(output, [*signs, 1.0])
    return total


@pytest.mark.parametrize("kind", [PBGNet, ABNet])
def test_a_header_without_what_has_a_default_loads(tmp_path, kind):
    path = tmp_path / "net.safetensors"
    config = {"in_features": 3, "hidden": [2]}
    stored(path, config=config, network=kind.__name__)
    net = load_checkpoint(path)
    assert type(net) is kind
    assert net.config == config | {"bias": False, "aggregate": "auto"}
    assert same_state(net, PBGNet(3, (2,), generator=generator(0, "net")))


def test_a_checkpoint_of_a_later_version_is_refused():
    path = DATA / "checkpoint_v999.safetensors"
    with pytest.raises(ValueError, match=r"checkpoint_v999.*schema_version 999.* up to 1"):
        load_checkpoint(path)


def stored(path, state=None, **changes):
    """A checkpoint with another header, or without a part of it where a change is None."""
    net = PBGNet(3, (2,), generator=generator(0, "net"))
    header = {"schema_version": 1, "network": "PBGNet", "config": net.config} | changes
    header = {name: value for name, value in header.items() if value is not None}
    save_file(snapshot(net) if state is None else state, path, {"pbnn": json.dumps(header)})


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": None},
        {"schema_version": 0},
        {"schema_version": "1"},
        {"network": None},
        {"network": "SignNetwork"},
        {"network": ["PBGNet"]},
        {"network": "MLP"},
        {"config": None},
        {"config": []},
        {"config": {"in_features": 3}},
        {"config": {"in_features": 3, "hidden": [4]}},
        {"config": {"in_features": 4, "hidden": [2]}},
        {"config": {"in_features": 3, "hidden": [2, 2]}},
        {"config": {"in_features": 3, "hidden": []}},
        {"config": {"in_features": 0, "hidden": [2]}},
        {"config": {"in_features": 3, "hidden": [2], "bias": True}},
        {"config": {"in_features": 3, "hidden": [2], "depth": 3}},
        {"config": {"in_features": "3", "hidden": [2]}},
    ],
    ids=json.dumps,
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, changes):
    path = tmp_path / "net.safetensors"
    stored(path)
    load_checkpoint(path)
    stored(path, **changes)
    with pytest.raises(ValueError, match=r"net\.safetensors"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"shift": torch.zeros(3)},
        {"shift": torch.zeros(3), "hidden.0.weight.mean": torch.zeros(2, 4)},
        {**PBGNet(3, (2,), generator=generator(0, "net")).state_dict(), "more": torch.zeros(1)},
        {**PBGNet(3, (2,), generator=generator(0, "net")).state_dict(), "shift": torch.zeros(4)},
    ],
    ids=["none", "some", "missing", "more", "shape"],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, state):
    path = tmp_path / "net.safetensors"
    stored(path, state)
    with pytest.raises(ValueError, match=r"net\.safetensors: the tensors do not fit"):
        load_checkpoint(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"pbnn": "{"}, {"pbnn": "[]"}])
def test_a_file_of_somebody_else_is_refused(tmp_path, metadata):
    path = tmp_path / "net.safetensors"
    save_file({"shift": torch.zeros(3)}, path, metadata)
    with pytest.raises(ValueError, match=r"net\.safetensors is not a .*checkpoint"):
        load_checkpoint(path)


def test_a_truncated_or_garbled_checkpoint_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    stored(path)
    data = path.read_bytes()
    for kept in (0, 7, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:kept])
        with pytest.raises(ValueError, match=r"net\.safetensors is not a readable"):
            load_checkpoint(path)
    for garbage in (b"garbage" * 50, b"\xff" * 400, data + b"more", b"\0" * 8 + data[8:]):
        path.write_bytes(garbage)
        with pytest.raises(ValueError, match=r"net\.safetensors is not a readable"):
            load_checkpoint(path)


class Mischief:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(thing)])
def test_nothing_is_unpickled(tmp_path, write):
    mischief = Mischief(tmp_path / "done")
    path = tmp_path / "net.safetensors"
    write(mischief if write is torch.save else pickle.dumps(mischief), path)
    with pytest.raises(ValueError, match=r"net\.safetensors is not a readable"):
        load_checkpoint(path)
    assert not mischief.path.exists()
    pickle.loads(pickle.dumps(mischief))
    assert mischief.path.exists()  # as it would have been


def written(path, header):
    save_file(snapshot(PBGNet(3, (2,), generator=generator(0, "net"))), path, {"pbnn": header})


@pytest.mark.parametrize("value", ["[" * 100_000, "1" * 5000, "NaN", '{"a": 1, "a": 2}'])
def test_a_header_that_is_no_plain_json_is_refused(value, tmp_path):
    path = tmp_path / "net.safetensors"
    written(path, f'{{"schema_version": 1, "network": "PBGNet", "config": {value}}}')
    with pytest.raises(ValueError, match=r"net\.safetensors is not a readable"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"in_features": 3, "hidden": [2], "bias": 0}},
        {"config": {"in_features": 2**31, "hidden": [2]}},
        {"config": {"in_features": 3, "hidden": [2**31, 2]}},
        {"network": "BLRNet", "config": {"image": [1, 4, 4], "architecture": "2147483648FC-SM3"}},
        {"network": "BLRNet", "config": {"image": [1, 4, 4], "architecture": "9999999x1FC-SM3"}},
    ],
)
def test_a_header_that_speaks_of_large_things_costs_nothing(changes, tmp_path):
    path = tmp_path / "net.safetensors"
    stored(path, **changes)
    with pytest.raises(ValueError, match=r"net\.safetensors: the tensors do not fit") as told:
        load_checkpoint(path)
    assert "allocate" not in str(told.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.double(),
        lambda value: value.int(),
        lambda value: value * math.nan,
        lambda value: value.half(),
    ],
)
def test_tensors_of_another_type_or_without_numbers_are_refused(change, tmp_path):
    path = tmp_path / "net.safetensors"
    state = snapshot(PBGNet(3, (2,), generator=generator(0, "net")))
    stored(path, state)
    load_checkpoint(path)
    for name in ("shift", "output.weight.mean"):
        stored(path, state | {name: change(state[name])})
        with pytest.raises(ValueError, match=r"net\.safetensors: the tensors do not fit"):
            load_checkpoint(path)


def test_one_number_in_a_list_is_no_number(tmp_path):
    path, net = tmp_path / "net.safetensors", RealNet(IMAGE, CODE, generator=generator(0, "net"))
    state = {name: value.contiguous() for name, value in snapshot(net).items()}
    (name, *_) = [name for name in state if name.endswith("num_batches_tracked")]
    header = {"network": "RealNet", "config": net.config}
    stored(path, state, **header)
    load_checkpoint(path)
    stored(path, state | {name: state[name][None]}, **header)
    with pytest.raises(ValueError, match=f"'{name}' must be"):
        load_checkpoint(path)
