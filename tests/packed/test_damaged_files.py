"""Files of packed networks: all comes back, and nothing of what is damaged, forged or foreign."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import json
import math
import os
import pickle
import random
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as tensors_of
from safetensors.numpy import save as to_bytes

from pbnn.backbones import lenet, mlp
from pbnn.binarize import Recipe, convert
from pbnn.certificates import Budget, Provenance, certify_known
from pbnn.networks import BLRNet, PBGNet, binarise
from pbnn.packed import PackedNetwork, load, pack, save, verify
from pbnn.packed.file import HEADER, LONGEST, SCHEMA_VERSION, by_layers, content_of, seal_of
from pbnn.packed.geometry import LARGEST
from pbnn.seeding import generator
from pbnn.training import save_checkpoint

IMAGE = (1, 8, 8)
WHOLE = Recipe(weights="bi_real", first=True, last=True)
DATA = {"task": "digits", "prior": 0.5, "feature": 0, "seed": 42, "whole": True}


@torch.no_grad()
def blrnet(how="mode", seed=0):
    network = BLRNet(IMAGE, "4C3-MP2-5FC-SM3", generator=generator(seed, "net"))
    network = binarise(network, how, generator(seed, "draw"))
    return network.re_estimate(torch.rand(60, *IMAGE, generator=generator(0, "x")))


@torch.no_grad()
def converted(model):
    network = convert(model, WHOLE).network
    for module in network.modules():
        if hasattr(module, "running_mean"):
            module.momentum = 1.0
    network.train()(torch.rand(60, *IMAGE, generator=generator(0, "x")))
    return pack(network.eval(), image=IMAGE, statistics="of prior")


def unit(seed=0):
    return PBGNet(5, (4, 3), bias=True, shift=0.3, generator=generator(seed, "net"))


MAKE = {
    "mode": lambda: pack(blrnet(), scale=1 / 16, statistics="of prior"),
    "draws": lambda: pack([blrnet("sample", seed) for seed in range(3)], statistics="of prior"),
    "ternary": lambda: pack(blrnet("ternary"), statistics="of prior"),
    "mlp": lambda: converted(mlp(IMAGE, (9, 7), generator=generator(0, "net"))),
    "lenet": lambda: converted(lenet(IMAGE, (2, 3), 5, kernel=3, generator=generator(0, "net"))),
    "real": lambda: pack(unit()),
    "real vote": lambda: pack([unit(seed) for seed in range(2)]),
}


@pytest.fixture(scope="module")
def networks():
    """All kinds, each with a certificate that could be its own, and with its data."""
    made = {}
    splits = {name: f"of {name}" for name in ("feature", "prior", "certification", "test")}
    for name, make in MAKE.items():
        found = make()
        more = {"nats": 2.5, "vote": len(found.members) > 1}
        given = (Budget(family="deployed"), Provenance("none", 0, splits))
        told = certify_known(found.fingerprint(), 3, 1000, *given, **more).to_dict()
        made[name] = dataclasses.replace(found, certificate=told, data=DATA)
    return made


@pytest.fixture
def opened(tmp_path):
    """What is read of a content, or None if it is refused by a ValueError that names the file."""

    def read(content):
        path = tmp_path / "network.pbnn"
        path.write_bytes(content)
        try:
            return load(path)
        except ValueError as error:
            told = str(error)
        assert str(path) in told
        return None

    return read


def accepted(opened, contents):
    """The labels of those that are not refused."""
    return [label for label, content in contents if opened(content) is not None]


def parts_of(content):
    size = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["pbnn"])
    return header, tensors_of(content)


def joined(header, tensors, sealed=True):
    """A file of a header and tensors, with its seal made anew, or left."""
    if sealed:
        header = header | {"seal": seal_of(header, tensors)}
    return to_bytes(tensors, metadata={"pbnn": json.dumps(header, sort_keys=True)})


def framed(outer, payload=b""):
    """A file of safetensors by hand."""
    outer = outer if isinstance(outer, bytes) else json.dumps(outer).encode()
    return struct.pack("<Q", len(outer)) + outer + payload


# What comes back


def inputs_of(network):
    draw = np.random.default_rng(0)
    image = network.preprocessing.image
    if network.preprocessing.input == "uint8":
        return draw.integers(0, 256, (20, *image), dtype=np.uint8)
    return draw.normal(size=(20, *image)).astype(np.float32)


@pytest.mark.parametrize("name", MAKE)
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
    assert back.data == network.data == DATA
    assert {name: type(v) for name, v in back.data.items()} == {n: type(v) for n, v in DATA.items()}
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
    plain = PackedNetwork(n.preprocessing, n.members, data=DATA)
    assert plain.fingerprint() == PackedNetwork(n.preprocessing, n.members).fingerprint()
    assert plain.certified({}).data == DATA


# Damage


@pytest.mark.parametrize("name", ["mode", "real"])
def test_no_part_of_a_file_is_a_file(networks, opened, name):
    content = content_of(networks[name])
    assert opened(content) is not None
    cut = [(length, content[:length]) for length in range(len(content))]
    size = int.from_bytes(content[:8], "little")
    assert {0, 7, 8, 8 + size, len(content) - 1} <= {length for length, _ in cut}
    longer = [(f"+{len(more)}", content + more) for more in (b"\0", b" " * 8, content)]
    assert accepted(opened, cut + longer) == []


@pytest.mark.parametrize("name", ["mode", "ternary", "real"])
def test_no_bit_can_be_turned(networks, opened, name):
    content = content_of(networks[name])
    draw = random.Random(name)

    def turned(at):
        changed = bytearray(content)
        changed[at] ^= 1 << draw.randrange(8)
        return bytes(changed)

    # Length, header and payload: each byte at some bit.
    assert accepted(opened, ((at, turned(at)) for at in range(len(content)))) == []


def test_another_text_of_the_same_header_is_refused(networks, opened):
    content = content_of(networks["mode"])
    header, tensors = parts_of(content)
    written = json.dumps(header, sort_keys=True)
    assert opened(to_bytes(tensors, metadata={"pbnn": written})) is not None
    risk = repr(header["certificate"]["risk_upper"])
    others = [written + " ", written.replace(", ", ","), json.dumps(header, indent=1)]
    others += [json.dumps(dict(reversed(header.items()))), '{"kind": 1, ' + written[1:]]
    for old, new in (
        *(("5e-05", "5E-05"), ("5e-05", "0.00005"), ("0.5", "0.50"), (risk, risk + "1")),
        *(
            ("digits", "d\\u0069gits"),
            ("digits", "di\\/gits".replace("/", "u0067")),
        ),
        ("true", "true "),
    ):
        assert old in written
        others.append(written.replace(old, new))
    same = [each for each in others if json.loads(each) == header]
    assert len(same) > 7
    assert accepted(opened, ((o, to_bytes(tensors, metadata={"pbnn": o})) for o in others)) == []


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_piece_can_be_overwritten(networks, tmp_path_factory, data):
    content = content_of(networks["draws"])
    at = data.draw(st.integers(0, len(content) - 1))
    piece = data.draw(st.binary(min_size=1, max_size=16))
    where = data.draw(st.sampled_from(["over", "in", "out"]))
    end = at + (len(piece) if where == "over" else 0)
    rest = content[end:] if where != "out" else content[at + len(piece) :]
    changed = content[:at] + (piece if where != "out" else b"") + rest
    path = tmp_path_factory.mktemp("damaged") / "network.pbnn"
    path.write_bytes(changed)
    if changed == content:
        assert load(path).fingerprint() == networks["draws"].fingerprint()
        return
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load(path)


# Fields of the header


def odd_ones(value, listed):
    """What a field, or one of a list, may be changed into: other types first."""
    if listed:
        yield from (None, [value])
        if isinstance(value, int):
            yield from (0, value - 1, value + 1, -value, float(value), LARGEST + 1, 2**63)
        else:
            yield from ("", *KNOWN)
        return
    yield from (None, True, 1, 0.5, "x", [], {}, [value], {"x": value}, math.nan)
    if type(value) is bool:
        yield not value
    elif isinstance(value, int):
        yield from (0, value - 1, value + 1, 2 * value + 1, -value, float(value))
        yield from (LARGEST, LARGEST + 1, 2**31, 2**63, 10**400)
    elif isinstance(value, float):
        yield from (0.0, -value, value / 2, 5e-324, 1e308, math.inf, int(value))
    elif isinstance(value, str):
        yield from ("", value + "x", value.upper(), *KNOWN)
    elif isinstance(value, list):
        yield from (value[::-1], value[1:], [*value, 0], [0] * len(value), value * 9)
        yield from ([2] * len(value), [3] * len(value))


KNOWN = ("bits", "real", "signs", "uint8", "float32", "float64", "int32", "add", "mul", "fma")


def places_in(record, path=()):
    """The paths of all fields of a record, those of lists by number."""
    items = record.items() if isinstance(record, dict) else enumerate(record)
    for name, value in items:
        yield (*path, name)
        if isinstance(value, dict | list):
            yield from places_in(value, (*path, name))


def at(record, path):
    for name in path:
        record = record[name]
    return record


def changes_of(header, leave=()):
    """Every field changed, left out, and joined by another one; some are left."""
    for path in places_in(header):
        if (path[0] == "members" and path[1:2] > (0,)) or set(leave) & set(path[:-1]):
            continue
        for value in odd_ones(at(header, path), isinstance(path[-1], int)):
            changed = copy.deepcopy(header)
            at(changed, path[:-1])[path[-1]] = value
            yield path, changed
        changed = copy.deepcopy(header)
        del at(changed, path[:-1])[path[-1]]
        yield path, changed
        if isinstance(value := at(header, path), dict | list):
            changed = copy.deepcopy(header)
            if isinstance(value, dict):
                at(changed, path)["odd"] = 1
            else:
                at(changed, path).append(copy.deepcopy(value[0]) if value else 1)
            yield path, changed
    yield (), header | {"odd": 1}


def field_of(path):
    """A path with layers and numbers left out."""
    named = [str(name) for name in path if not isinstance(name, int)]
    return ".".join(named[1:] if named[:1] == ["members"] and len(named) > 1 else named)


UNBOUND = {"certificate", "data", "statistics"}
"""Fields that a fingerprint does not know: statements about a network, not the network."""
LEGAL = {
    "mode": {f"geometry.{name}" for name in ("border", "dilation", "filling", "pool")},
    "real": {"preprocessing.input"},
}
LEGAL["mode"] |= {"geometry.pool_stride", "geometry.stride"}
"""Fields of which another value makes another sound network, beside those of every one."""


@pytest.mark.parametrize("name", ["mode", "draws", "ternary", "lenet", "real"])
def test_no_field_can_be_changed(networks, opened, name):
    network = networks[name]
    header, tensors = parts_of(content_of(network))
    assert set(header) == HEADER
    assert joined(header, tensors) == joined(header, tensors, sealed=False)
    was, before = json.dumps(header), network.fingerprint()
    legal, draw = {}, random.Random(name)
    leave = ("certificate",) if name == "mode" else ("certificate", "data", "geometry")
    for path, changed in changes_of(header, leave):
        if json.dumps(changed) == was:
            continue
        if draw.random() < 0.2:
            assert opened(joined(changed, tensors, sealed=False)) is None, path
        if path == ("seal",) or (found := opened(joined(changed, tensors))) is None:
            continue
        # What is read is what is there, and nothing beside it.
        again, _ = parts_of(content_of(found))
        assert {**again, "seal": ""} == {**changed, "seal": ""}
        field = field_of(path)
        if field.split(".")[0] in UNBOUND:
            assert found.fingerprint() == before
        else:
            assert found.fingerprint() != before == found.certificate["network"], path
            legal[field] = found
    assert set(legal) == {"name", "steps", "preprocessing.scale"} | LEGAL.get(name, set())
    for found in legal.values():
        checks = {check.what: check.holds for check in verify(found)}
        assert [what for what, holds in checks.items() if not holds] == ["network"]


def test_what_no_network_can_be_is_refused(networks, opened):
    def forged(name, place, change):
        header, tensors = parts_of(content_of(networks[name]))
        change(header["members"][0][place], tensors)
        return opened(joined(header, tensors))

    # Bytes have no −1 around them.
    assert forged("lenet", 0, lambda layer, _: layer["geometry"].update(filling=1)) is not None
    assert forged("lenet", 0, lambda layer, _: layer["geometry"].update(filling=-1)) is None
    assert forged("lenet", 1, lambda layer, _: layer["geometry"].update(filling=-1)) is not None

    # Thresholds of places belong to windows that do not overlap, and one is for all places.
    def with_places(layer, tensors, pool=2):
        layer["places"] = True
        layer["geometry"]["pool"] = [pool, pool]
        tensors["0.0.level"] = np.repeat(tensors["0.0.level"], 16 if pool == 2 else 9, axis=0)

    assert forged("mode", 0, with_places) is not None
    assert forged("mode", 0, lambda *given: with_places(*given, pool=3)) is None
    alone = networks["mlp"].members[0][0]
    assert alone.geometry.out[1:] == (1, 1)
    assert forged("mlp", 0, lambda layer, _: layer.update(places=True)) is None
    # What is beyond the last bit, weights that are pruned, and numbers that are none.
    for name, tensor, value in (
        ("mode", "0.0.flip", 255),
        ("mode", "0.0.bits", 255),
        ("ternary", "0.1.mask", 0),
        ("mode", "0.2.step0", np.nan),
        ("real", "0.0.weight", np.inf),
        ("real", "0.0.shift", np.nan),
        ("real", "0.0.level", np.nan),
    ):

        def fill(_, tensors, tensor=tensor, value=value):
            tensors[tensor] = np.full_like(tensors[tensor], value)

        assert forged(name, 0, fill) is None, tensor


# Sizes


FEW = 50 * 10**6
"""Bytes that no forged file may cost."""
HUGE = 2**40


def layer_changed(header, **geometry):
    changed = copy.deepcopy(header)
    changed["members"][0][0]["geometry"] |= geometry
    if "image" in geometry:
        changed["preprocessing"]["image"] = geometry["image"]
    return changed


def forged_sizes(content):
    """Labels and contents of small files that speak of large things."""
    header, tensors = parts_of(content)
    for geometry in (
        {"image": [1, HUGE, HUGE]},
        {"image": [HUGE, 1, 1], "kernel": [1, 1], "border": [0] * 4},
        {"image": [1, 4096, 4096]},
        {"image": [1, 4096, 4097], "border": [0] * 4},
        {"width": HUGE},
        {"width": LARGEST, "image": [1, 1, 1], "kernel": [1, 1], "border": [0] * 4},
        {"kernel": [HUGE, HUGE], "border": [HUGE - 1] * 4},
        {"border": [2**62] * 4},
        *({name: [HUGE, HUGE]} for name in ("stride", "dilation", "pool", "pool_stride")),
        *({name: [10**400, 1]} for name in ("stride", "dilation", "pool", "pool_stride")),
    ):
        yield geometry, joined(layer_changed(header, **geometry), tensors)
    for shape in ((0, HUGE), (HUGE, 0), (0, 2**62)):
        yield shape, joined(header, tensors | {"0.0.bits": np.zeros(shape, np.uint8)})
    many = {f"0.0.odd{number}": np.zeros(0, np.uint8) for number in range(3000)}
    yield "tensors", joined(header, tensors | many)
    yield "members", joined(header | {"members": header["members"] * 1000}, tensors)
    yield "layers", joined(header | {"members": [header["members"][0] * 1000]}, tensors)
    yield "no layers", joined(header | {"members": [[]] * 5000}, tensors)
    steps = copy.deepcopy(header)
    steps["members"][0][-1]["steps"] *= 5000
    yield "steps", joined(steps, tensors)
    for length in (len(content), 10**8, 2**31, 2**32, 2**62, 2**63, 2**64 - 1):
        yield length, struct.pack("<Q", length) + content[8:]
    size = int.from_bytes(content[:8], "little")
    outer, payload = json.loads(content[8 : 8 + size]), content[8 + size :]
    for change in (
        *({"shape": shape} for shape in ([HUGE], [2**62, 4], [2**32, 2**32], [-1], [], [[]])),
        *({"shape": [0, 2**62]}, {"shape": [1] * 10**5}, {"dtype": "F64"}, {"dtype": "x"}),
        *({"data_offsets": offsets} for offsets in ([0, HUGE], [HUGE, 2 * HUGE], [-8, 0], [8, 0])),
    ):
        yield change, framed(outer | {"0.0.bits": outer["0.0.bits"] | change}, payload)
    yield "longest", framed({"__metadata__": {"pbnn": "[" + " " * LONGEST + "]"}})
    for depth in (100, 900, 10**5):
        for deep in ("[" * depth + "]" * depth, '{"members":' * depth + "0" + "}" * depth):
            yield depth, framed({"__metadata__": {"pbnn": deep}})
            yield depth, framed({"__metadata__": {"pbnn": f'{{"schema_version": {deep}}}'}})
            yield depth, framed(b'{"__metadata__": ' + deep.encode() + b"}")


def test_forged_sizes_cost_little(networks, opened):
    forged = list(forged_sizes(content_of(networks["mode"])))
    assert max(len(content) for _, content in forged) < FEW / 2
    tracemalloc.start()
    try:
        for label, content in forged:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            assert opened(content) is None, label
            assert tracemalloc.get_traced_memory()[1] - before < FEW, label
    finally:
        tracemalloc.stop()


def test_a_deep_certificate_does_not_hold(networks, opened):
    header, tensors = parts_of(content_of(networks["mode"]))
    told = 0
    for depth in range(50, 1000, 10):
        with contextlib.suppress(RecursionError):
            deep = json.loads("[" * depth + "]" * depth)
            certificate = header["certificate"] | {"predictor": deep}
            if found := opened(joined(header | {"certificate": certificate}, tensors)):
                told += 1
                assert [check.holds for check in verify(found)] == [False]
    assert told


# What is none of ours


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def strangers(folder):
    """Labels and contents of files that are something else."""
    yield from enumerate((b"", b"text\n", b"{}", b"\x7fELF" + bytes(100), bytes(8), bytes(1000)))
    header, tensors = parts_of(content_of(MAKE["mode"]()))
    yield "header", json.dumps(header).encode()
    yield "pickle", pickle.dumps(Hostile(folder))
    for kind in (torch.save, lambda odd, to: np.save(to, np.array([odd]), allow_pickle=True)):
        stream = io.BytesIO()
        kind(Hostile(folder), stream)
        yield kind, stream.getvalue()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("network", content_of(MAKE["mode"]()))
    yield "zip", stream.getvalue()
    yield "behind a pickle", pickle.dumps(Hostile(folder)) + content_of(MAKE["mode"]())
    yield "no metadata", to_bytes(tensors)
    yield "other metadata", to_bytes(tensors, metadata={"format": "pt"})
    for written in ("", "null", "1", "[]", "{}", "{", '"text"', "NaN", "\ud800", "é"):
        yield written, framed({"__metadata__": {"pbnn": written}})
    for dtype, size in (("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1), ("C64", 8)):
        tensor = {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}
        outer = {"__metadata__": {"pbnn": json.dumps(header)}, "0.0.bits": tensor}
        yield dtype, framed(outer, bytes(size))


def test_strangers_are_refused_and_never_run(opened, tmp_path):
    folder = tmp_path / "made"
    assert accepted(opened, strangers(folder)) == []
    assert not folder.exists()
    pickle.loads(pickle.dumps(Hostile(folder)))
    assert folder.is_dir()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_is_no_packed_network(dtype, tmp_path):
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, PBGNet(5, (3,), generator=generator(0, "net")).to(dtype))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load(path)


def test_a_folder_or_nothing_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "nothing" / "there"):
        with pytest.raises(FileNotFoundError, match=path.name):
            load(path)


@pytest.mark.parametrize("more", [{}, {"of the future": 1}])
def test_a_newer_file_is_told_apart(networks, more, tmp_path):
    header, tensors = parts_of(content_of(networks["mode"]))
    path = tmp_path / "network.pbnn"
    for sealed in (True, False):
        later = header | {"schema_version": SCHEMA_VERSION + 1} | more
        path.write_bytes(joined(later, tensors, sealed))
        with pytest.raises(ValueError, match="a newer pbnn wrote it") as told:
            load(path)
        assert str(path) in str(told.value)
