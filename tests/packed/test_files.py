"""Files of packed networks: all of a network comes back, and files are whole."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from pbnn.packed import PackedNetwork, load, save
from pbnn.packed.file import by_layers, content_of

KINDS = ("mode", "draws", "ternary", "mlp", "lenet", "real", "real vote")


def inputs_of(network):
    draw = np.random.default_rng(0)
    image = network.preprocessing.image
    if network.preprocessing.input == "uint8":
        return draw.integers(0, 256, (20, *image), dtype=np.uint8)
    return draw.normal(size=(20, *image)).astype(np.float32)


@pytest.mark.parametrize("name", KINDS)
def test_all_comes_back(networks, name, tmp_path):
    network = networks[name]
    path = tmp_path / "new" / "network.pbnn"
    save(path, network)
    back = load(path)
    assert back.fingerprint() == network.fingerprint()
    assert back.sizes() == network.sizes()
    assert vars(back.preprocessing) == vars(network.preprocessing)
    assert back.statistics == network.statistics
    assert back.certificate == network.certificate
    assert back.data == network.data
    assert [type(back.data[field]) for field in network.data] == [str, float, int, int, bool]
    x = inputs_of(network)
    for member in range(len(network.members)):
        scores = network.scores(x, backend="float32", member=member)
        assert np.array_equal(back.scores(x, backend="float32", member=member), scores)
    labels = network.predict(x, backend="float32")
    assert np.array_equal(back.predict(x, backend="float32"), labels)
    assert len(set(labels.tolist())) > 1
    ours, theirs = network.export_bits(), back.export_bits()
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[layer], theirs[layer]) for layer in ours)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == content_of(network) == content_of(back)


def test_bytes_do_not_depend_on_any_order(networks, monkeypatch):
    network = networks["draws"]
    content = content_of(network)
    assert content_of(network) == content
    backwards = {
        name: dict(reversed(getattr(network, name).items())) for name in ("certificate", "data")
    }
    assert content_of(dataclasses.replace(network, **backwards)) == content
    turned = [*by_layers(network)][::-1]
    monkeypatch.setattr("pbnn.packed.file.by_layers", lambda _: turned)
    assert content_of(network) == content


def test_a_failing_write_leaves_the_old_file(networks, tmp_path, monkeypatch):
    path = tmp_path / "network.pbnn"
    save(path, networks["mode"])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        save(path, networks["mode"].certified({"bound": math.nan}))
    write = Path.write_bytes

    def half(part, data):
        write(part, data[: len(data) // 2])
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="full"):
        save(path, networks["ternary"])
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_vote_on_one_score_has_its_labels(networks):
    vote = networks["real vote"]
    x = inputs_of(vote)
    votes = sum(
        np.where(vote.scores(x, backend="float32", member=member) >= 0, 1, -1)[:, 0]
        for member in range(2)
    )
    assert {-2, 0, 2} == set(votes.tolist())
    # sign(0) = +1
    assert vote.predict(x, backend="float32").tolist() == np.where(votes >= 0, 1, -1).tolist()


@pytest.mark.parametrize(
    "data",
    [
        [],
        "mnist",
        {1: "mnist"},
        {"prior": None},
        {"prior": math.nan},
        {"prior": math.inf},
        {"prior": np.float64(0.5)},
        {"seeds": [1]},
        {"of": {}},
    ],
)
def test_data_are_plain(networks, data):
    n = networks["mode"]
    with pytest.raises(ValueError, match="`data` must hold texts and finite numbers"):
        PackedNetwork(n.preprocessing, n.members, data=data)
    assert n.fingerprint() == PackedNetwork(n.preprocessing, n.members).fingerprint()
    assert n.certified({}).data == n.data
