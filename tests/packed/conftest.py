"""What the tests of files share: networks of all kinds, and files taken apart and joined again."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.numpy import load as tensors_of
from safetensors.numpy import save as to_bytes

from pbnn.backbones import lenet, mlp
from pbnn.binarize import Recipe, convert
from pbnn.certificates import Budget, Provenance, certify_known
from pbnn.networks import BLRNet, PBGNet, binarise
from pbnn.packed import load, pack
from pbnn.packed.file import seal_of
from pbnn.seeding import generator

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


@pytest.fixture(scope="session")
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


@pytest.fixture
def accepted(opened):
    """The labels of those contents that are not refused."""

    def find(contents):
        return [label for label, content in contents if opened(content) is not None]

    return find


@pytest.fixture(scope="session")
def parts_of():
    """Header and tensors of a content."""

    def read(content):
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["pbnn"])
        return header, tensors_of(content)

    return read


@pytest.fixture(scope="session")
def joined():
    """A file of a header and tensors, with its seal made anew, or left."""

    def write(header, tensors, sealed=True):
        if sealed:
            header = header | {"seal": seal_of(header, tensors)}
        return to_bytes(tensors, metadata={"pbnn": json.dumps(header, sort_keys=True)})

    return write
