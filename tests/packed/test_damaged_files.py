"""Damaged files of packed networks: cut, turned, rewritten, and changed field by field."""

from __future__ import annotations

import copy
import json
import math
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as to_bytes

from pbnn.packed import load, verify
from pbnn.packed.file import HEADER, content_of
from pbnn.packed.geometry import LARGEST


@pytest.mark.parametrize("name", ["mode", "real"])
def test_no_part_of_a_file_is_a_file(networks, opened, accepted, name):
    content = content_of(networks[name])
    assert opened(content) is not None
    cut = [(length, content[:length]) for length in range(len(content))]
    size = int.from_bytes(content[:8], "little")
    assert {0, 7, 8, 8 + size, len(content) - 1} <= {length for length, _ in cut}
    longer = [(f"+{len(more)}", content + more) for more in (b"\0", b" " * 8, content)]
    assert accepted(cut + longer) == []


@pytest.mark.parametrize("name", ["mode", "ternary", "real"])
def test_no_bit_can_be_turned(networks, accepted, name):
    content = content_of(networks[name])
    draw = random.Random(name)

    def turned(at):
        changed = bytearray(content)
        changed[at] ^= 1 << draw.randrange(8)
        return bytes(changed)

    # Length, header and payload: each byte at some bit.
    assert accepted((at, turned(at)) for at in range(len(content))) == []


def test_another_text_of_the_same_header_is_refused(networks, opened, accepted, parts_of):
    content = content_of(networks["mode"])
    header, tensors = parts_of(content)
    written = json.dumps(header, sort_keys=True)
    assert opened(to_bytes(tensors, metadata={"pbnn": written})) is not None
    risk = repr(header["certificate"]["risk_upper"])
    others = [written + " ", written.replace(", ", ","), json.dumps(header, indent=1)]
    others += [json.dumps(dict(reversed(header.items()))), '{"kind": 1, ' + written[1:]]
    for old, new in (
        *(("5e-05", "5E-05"), ("5e-05", "0.00005"), ("0.5", "0.50"), (risk, risk + "1")),
        *(("digits", "d\\u0069gits"), ("true", "true ")),
    ):
        assert old in written
        others.append(written.replace(old, new))
    same = [each for each in others if json.loads(each) == header]
    assert len(same) >= 9
    assert accepted((o, to_bytes(tensors, metadata={"pbnn": o})) for o in others) == []


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_piece_can_be_overwritten(networks, tmp_path_factory, data):
    content = content_of(networks["draws"])
    at = data.draw(st.integers(0, len(content) - 1))
    piece = data.draw(st.binary(min_size=1, max_size=16))
    put, taken = data.draw(st.sampled_from([(piece, len(piece)), (piece, 0), (b"", len(piece))]))
    changed = content[:at] + put + content[at + taken :]
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
def test_no_field_can_be_changed(networks, opened, parts_of, joined, name):
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


def test_what_no_network_can_be_is_refused(networks, opened, parts_of, joined):
    def forged(name, place, change):
        header, tensors = parts_of(content_of(networks[name]))
        change(header["members"][0][place], tensors)
        return opened(joined(header, tensors))

    # Bytes have no −1 around them.
    assert forged("lenet", 0, lambda layer, _: layer["geometry"].update(filling=1)) is not None
    assert forged("lenet", 0, lambda layer, _: layer["geometry"].update(filling=-1)) is None
    assert forged("lenet", 1, lambda layer, _: layer["geometry"].update(filling=-1)) is not None

    # Thresholds of places belong to windows that do not overlap, and one is for all places.
    def with_places(layer, tensors, **pooling):
        layer["places"] = True
        layer["geometry"] |= pooling
        tensors["0.0.level"] = np.repeat(tensors["0.0.level"], 16, axis=0)

    assert forged("mode", 0, with_places) is not None
    overlapping = {"pool": [5, 5], "pool_stride": [1, 1]}
    assert forged("mode", 0, lambda layer, _: layer["geometry"].update(overlapping)) is not None
    assert forged("mode", 0, lambda *given: with_places(*given, **overlapping)) is None
    alone = networks["mlp"].members[0][0]
    assert alone.geometry.out[1:] == (1, 1)
    assert forged("mlp", 0, lambda layer, _: layer.update(places=True)) is None
    # A dense layer has one position, whatever its stride.
    for name in ("stride", "pool_stride"):
        for size in (LARGEST, LARGEST + 1, 2**70):
            odd = {name: [size, 1]}
            found = forged("mode", 1, lambda layer, _, odd=odd: layer["geometry"].update(odd))
            assert (found is not None) == (size == LARGEST)
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
