"""Files that are none of ours or speak of large things: refused soon, at no cost, never run."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import pickle
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save as to_bytes

from pbnn.networks import PBGNet
from pbnn.packed import load, verify
from pbnn.packed.file import LONGEST, SCHEMA_VERSION, content_of
from pbnn.packed.geometry import LARGEST
from pbnn.seeding import generator
from pbnn.training import save_checkpoint

FEW = 50 * 10**6
"""Bytes that no forged file may cost."""
HUGE = 2**40


def framed(outer, payload=b""):
    """A file of safetensors by hand."""
    outer = outer if isinstance(outer, bytes) else json.dumps(outer).encode()
    return struct.pack("<Q", len(outer)) + outer + payload


def layer_changed(header, **geometry):
    changed = copy.deepcopy(header)
    changed["members"][0][0]["geometry"] |= geometry
    if "image" in geometry:
        changed["preprocessing"]["image"] = geometry["image"]
    return changed


def forged_sizes(content, parts_of, joined):
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


def test_forged_sizes_cost_little(networks, opened, parts_of, joined):
    forged = list(forged_sizes(content_of(networks["mode"]), parts_of, joined))
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


def test_a_deep_certificate_does_not_hold(networks, opened, parts_of, joined):
    header, tensors = parts_of(content_of(networks["mode"]))
    read = []
    for depth in range(50, 1000, 10):
        with contextlib.suppress(RecursionError):
            deep = json.loads("[" * depth + "]" * depth)
            certificate = header["certificate"] | {"predictor": deep}
            read.append(opened(joined(header | {"certificate": certificate}, tensors)))

    def verified(network, frames):
        return verified(network, frames - 1) if frames else verify(network)

    found = [network for network in read if network is not None]
    assert found
    for network in found:
        # Where less of the stack is left than where it was read.
        assert [check.holds for check in verified(network, 100)] == [False]


# What is none of ours


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def strangers(folder, ours, parts_of):
    """Labels and contents of files that are something else."""
    yield from enumerate((b"", b"text\n", b"{}", b"\x7fELF" + bytes(100), bytes(8), bytes(1000)))
    header, tensors = parts_of(ours)
    yield "header", json.dumps(header).encode()
    yield "pickle", pickle.dumps(Hostile(folder))
    for kind in (torch.save, lambda odd, to: np.save(to, np.array([odd]), allow_pickle=True)):
        stream = io.BytesIO()
        kind(Hostile(folder), stream)
        yield kind, stream.getvalue()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("network", ours)
    yield "zip", stream.getvalue()
    yield "behind a pickle", pickle.dumps(Hostile(folder)) + ours
    yield "no metadata", to_bytes(tensors)
    yield "other metadata", to_bytes(tensors, metadata={"format": "pt"})
    for written in ("", "null", "1", "[]", "{}", "{", '"text"', "NaN", "\ud800", "é"):
        yield written, framed({"__metadata__": {"pbnn": written}})
    for dtype, size in (("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1), ("C64", 8)):
        tensor = {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}
        outer = {"__metadata__": {"pbnn": json.dumps(header)}, "0.0.bits": tensor}
        yield dtype, framed(outer, bytes(size))


def test_strangers_are_refused_and_never_run(networks, accepted, parts_of, tmp_path):
    folder = tmp_path / "made"
    assert accepted(strangers(folder, content_of(networks["mode"]), parts_of)) == []
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
def test_a_newer_file_is_told_apart(networks, parts_of, joined, more, tmp_path):
    header, tensors = parts_of(content_of(networks["mode"]))
    path = tmp_path / "network.pbnn"
    for sealed in (True, False):
        later = header | {"schema_version": SCHEMA_VERSION + 1} | more
        path.write_bytes(joined(later, tensors, sealed))
        with pytest.raises(ValueError, match="a newer pbnn wrote it") as told:
            load(path)
        assert str(path) in str(told.value)
