"""Damaged networks: checkpoints, files to resume a training from, packed files."""

from __future__ import annotations

import copy
import functools
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from damage import bytes_damaged, canonical, record_damaged, text_damaged
from damaged_cases import HARMLESS, SILENT, UNSEEN, Case, short
from safetensors.numpy import load as tensors_of
from safetensors.numpy import save as to_bytes

from pbnn.baselines import MLP, RealNet
from pbnn.certificates import Budget, Provenance, certify_known
from pbnn.networks import ABNet, BLRNet, PBGNet, binarise
from pbnn.objectives import BoundObjective
from pbnn.packed import load, pack, verify
from pbnn.packed.file import content_of, seal_of
from pbnn.resuming import generators_of, restore_run, run_bytes, state_of
from pbnn.seeding import generator
from pbnn.training import FitConfig, Hooks, Run, checkpoint_bytes, fit, load_checkpoint

IMAGE, CODE = (1, 4, 4), "2C3-MP2-SM3"
TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "x", 0)
SIZES = (0, 1, 2, -1, 2**31, 2**40, 2**62, 2**63, 1.5, None, "1", True)


def parts_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Head and tensors of a file of safetensors."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(outer: dict[str, Any] | bytes, payload: bytes) -> bytes:
    """A file of safetensors by hand."""
    head = outer if isinstance(outer, bytes) else json.dumps(outer).encode()
    return struct.pack("<Q", len(head)) + head + payload


def head_damaged(rng: Random, content: bytes) -> tuple[str, bytes]:
    """What was done, and a file whose safetensors head speaks of other tensors."""
    outer, payload = parts_of(content)
    if rng.random() < 0.3:
        damage, changed = record_damaged(rng, outer)
        return f"head: {damage}", joined(changed, payload)
    name = rng.choice([name for name in outer if name != "__metadata__"])
    how = rng.choice(("type", "shape", "offsets", "left out", "twice", "swapped", "renamed"))
    tensor = outer[name]
    if how == "type":
        tensor["dtype"] = rng.choice(TYPES)
    elif how == "shape":
        shape = [rng.choice(SIZES) for _ in range(rng.randrange(4))]
        tensor["shape"] = rng.choice((shape, tensor["shape"][::-1], [1, *tensor["shape"]]))
    elif how == "offsets":
        place = rng.randrange(2)
        tensor["data_offsets"][place] = rng.choice((*SIZES, tensor["data_offsets"][0] + 4))
    elif how == "left out":
        del outer[name]
        payload = payload[: len(payload) - rng.randrange(2)]
    elif how == "twice":
        outer[f"{name}.more"] = copy.deepcopy(tensor)
    elif how == "swapped":
        other = rng.choice([one for one in outer if one != "__metadata__"])
        outer[name], outer[other] = outer[other], outer[name]
    else:
        outer[name + rng.choice((".", "x", "\0"))] = outer.pop(name)
    return f"head: {how}", joined(outer, payload)


def inner_damaged(rng: Random, content: bytes) -> tuple[str, bytes]:
    """What was done, and a file whose own header is another."""
    outer, payload = parts_of(content)
    record = json.loads(outer["__metadata__"]["pbnn"])
    if rng.random() < 0.3:
        damage, text = text_damaged(rng, record)
    else:
        damage, changed = record_damaged(rng, record)
        text = json.dumps(changed)
    return f"header: {damage}", joined(outer | {"__metadata__": {"pbnn": text}}, payload)


def tensors_damaged(rng: Random, content: bytes) -> tuple[str, bytes]:
    """What was done, and a file whose tensors are others, written as safetensors writes them."""
    outer, _ = parts_of(content)
    tensors = dict(tensors_of(content))
    name = rng.choice(sorted(tensors))
    value = np.array(tensors[name])
    how = rng.choice(("left out", "joined", "no number", "other number", "type", "shape"))
    if how == "left out":
        del tensors[name]
    elif how == "joined":
        tensors[rng.choice(("odd", f"{name}.odd"))] = value
    elif how in ("no number", "other number") and value.size:
        odd = (np.nan, np.inf, -np.inf) if how == "no number" else (0, -1, 1e30, 7)
        with np.errstate(all="ignore"):
            value.reshape(-1)[rng.randrange(value.size)] = np.array(rng.choice(odd)).astype(
                value.dtype
            )
        tensors[name] = value
    elif how == "type":
        with np.errstate(all="ignore"):
            tensors[name] = value.astype(rng.choice(("f8", "f4", "f2", "i8", "i4", "u1", "?")))
    elif value.ndim:
        shapes = (value[..., :0], value[None], value.reshape(-1), np.concatenate([value, value]))
        tensors[name] = rng.choice(shapes)
    else:
        tensors[name] = value[None]
    whole = {key: np.array(each, order="C") for key, each in tensors.items()}
    return f"tensor: {how}", to_bytes(whole, metadata=outer["__metadata__"])


def file_damaged(rng: Random, content: bytes) -> tuple[str, bytes]:
    """What was done, and the content of the file."""
    way = rng.random()
    if way < 0.25:
        head = 8 + int.from_bytes(content[:8], "little")
        return bytes_damaged(rng, content, rng.choice((None, 8, head)))
    ways = (head_damaged, inner_damaged, tensors_damaged)
    return rng.choices(ways, (2, 4, 2))[0](rng, content)


@functools.cache
def networks() -> tuple[bytes, ...]:
    """Checkpoints of every network, one with batch normalisation that is frozen."""
    make = {"generator": generator(0, "net")}
    images = torch.rand(8, *IMAGE, generator=generator(0, "x"))
    frozen = BLRNet(IMAGE, CODE, **make).re_estimate(images)
    for block in frozen.layers():
        if block.tail.norm is not None:
            block.tail.norm.freeze("ab")
    made = (
        PBGNet(3, (2,), bias=True, **make),
        ABNet(3, (2, 2), shift=0.5, **make),
        PBGNet(3, (), dtype=torch.float64, **make),
        BLRNet(IMAGE, CODE, activation="concrete", source=generator(0, "draw"), **make),
        frozen,
        BLRNet(IMAGE, CODE, law="gaussian", batch_norm=False, dtype=torch.float16, **make),
        MLP(3, (2,), **make),
        RealNet(IMAGE, CODE, **make),
    )
    return tuple(checkpoint_bytes(network) for network in made)


def checkpoints(rng: Random, folder: Path) -> Iterator[Case]:
    """Checkpoints whose bytes, head, header or tensors are others."""
    path = folder / "network.safetensors"
    while True:
        content = rng.choice(networks())
        damage, changed = file_damaged(rng, content)

        def read(content: bytes = content, changed: bytes = changed) -> str:
            path.write_bytes(changed)
            again = checkpoint_bytes(load_checkpoint(path))
            if again == content:
                return HARMLESS
            return UNSEEN if same_file(again, changed) and alike(again, content) else SILENT

        yield Case(damage, read, (ValueError, OSError), str(path), short(changed, 600))


def same_file(one: bytes, other: bytes) -> bool:
    """Whether two files have the same header, but for what has a default, and the same tensors."""
    heads, tensors = zip(parts_of(one), parts_of(other), strict=True)
    headers = [json.loads(head.pop("__metadata__")["pbnn"]) for head in heads]
    same = [
        {n: tensors[k][slice(*t["data_offsets"])] for n, t in h.items()}
        for k, h in enumerate(heads)
    ]
    types = [{n: (t["dtype"], t["shape"]) for n, t in h.items()} for h in heads]
    filled = headers[0] | headers[1] | {"config": headers[0]["config"] | headers[1]["config"]}
    return (
        same[0] == same[1] and types[0] == types[1] and canonical(headers[0]) == canonical(filled)
    )


def alike(one: bytes, other: bytes) -> bool:
    """Whether two checkpoints are of such a network each: of the same kinds of values, no NaN."""
    (first, payload), (second, _) = parts_of(one), parts_of(other)
    mine, theirs = (json.loads(head["__metadata__"]["pbnn"]) for head in (first, second))
    if mine["network"] == theirs["network"]:
        kinds = [
            {name: kind_of(value) for name, value in header["config"].items()}
            for header in (mine, theirs)
        ]
        if any(kinds[0][name] != kind for name, kind in kinds[1].items()):
            return False
    return numbers_of(joined(first, payload))


def kind_of(value: Any) -> str:
    """The type of a value of JSON, with that of the entries of a list."""
    if isinstance(value, list):
        return f"list of {sorted({kind_of(each) for each in value} - {'number'})}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if number else type(value).__name__


def numbers_of(content: bytes) -> bool:
    """Whether no tensor of a file holds NaN; a log-odds ratio may be infinite."""
    return not any(np.isnan(value).any() for value in tensors_of(content).values())


# Files to resume from

FIT = FitConfig(epochs=4, batch=4)
POINTS = "of the points"


def objective_of() -> BoundObjective:
    """What is trained."""
    return BoundObjective(PBGNet(3, (2,), bias=True, generator=generator(0, "net")), 12, 0.05)


class _Stopped(Exception):
    """Where a training is, when it is enough."""

    def __init__(self, run: Run) -> None:
        self.run = run


class _Until(Hooks):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def start(self, run: Run) -> None:
        if not self.epochs:
            raise _Stopped(run)

    def epoch(self, run: Run) -> None:
        if len(run.curve) == self.epochs:
            raise _Stopped(run)


def begun(epochs: int) -> tuple[BoundObjective, Run]:
    """An objective and its training after so many epochs."""
    x = torch.randn(12, 3, generator=generator(0, "x"))
    y = torch.where(x[:, 0] > 0, 1.0, -1.0)
    objective = objective_of()
    try:
        fit(objective, x, y, FIT, generator=generator(0, "order"), hooks=_Until(epochs))
    except _Stopped as stopped:
        return objective, stopped.run
    raise AssertionError("a training has as many epochs as it is told")


@functools.cache
def interrupted() -> bytes:
    """The file of a training after two epochs."""
    objective, run = begun(2)
    return run_bytes(objective, run, FIT, POINTS, {"root": 3})


def state_text(objective: BoundObjective, run: Run, more: Any) -> str:
    """All that a training depends on, as text."""
    optimiser = run.optimiser.state_dict()
    state = {f"{k} {n}": v for k, s in optimiser["state"].items() for n, v in s.items()}
    state |= {f"objective {name}": value for name, value in state_of(objective).items()}
    state |= {f"best {name}": value for name, value in run.best_state.items()}
    sources = {"": run.generator, **generators_of(objective)}
    state |= {f"generator {name}": source.get_state() for name, source in sources.items()}
    # A number of steps is the same number in any type.
    values = {n: v.tolist() for n, v in state.items()}
    types = {n: str(v.dtype) for n, v in state.items() if not n.endswith(" step")}
    rest = (run.curve, run.best, run.waited_from, more, run.schedule.state_dict()["last_epoch"])
    return canonical((values, types, optimiser["param_groups"], rest))


def restored(content: bytes) -> str:
    """What a training is that goes on from a file."""
    objective, run = begun(0)
    given = (content, "the file", objective, run, FIT, POINTS, ["root"])
    return state_text(objective, run, restore_run(*given)["root"])


@functools.cache
def undamaged() -> str:
    """What it is from the sound file."""
    return restored(interrupted())


def resume_files(rng: Random, folder: Path) -> Iterator[Case]:
    """Files of a training between two epochs."""
    while True:
        damage, changed = file_damaged(rng, interrupted())

        def read(changed: bytes = changed) -> str:
            if restored(changed) == undamaged():
                return HARMLESS
            return UNSEEN if could_go_on(changed) else SILENT

        yield Case(damage, read, (ValueError,), "the file", short(changed, 600))


def could_go_on(content: bytes) -> bool:
    """Whether a file says all that the sound one says, in values of the same kinds, no NaN."""
    mine, theirs = (parts_of(each)[0] for each in (content, interrupted()))
    headers = [json.loads(head.pop("__metadata__")["pbnn"]) for head in (mine, theirs)]
    types = [
        {n: (t["shape"], n.endswith("/step") or t["dtype"]) for n, t in head.items()}
        for head in (mine, theirs)
    ]
    if types[0] != types[1] or not numbers_of(content):
        return False
    steps = {n: v.item() for n, v in tensors_of(content).items() if n.endswith("/step")}
    fixed = ("schema_version", "config", "points", "steps")
    same = all(canonical(headers[0].get(n)) == canonical(headers[1][n]) for n in fixed)
    free = (*fixed, "more", "odd")  # one number, which is asked for, and what nobody asks for
    ours, sound = (shape_of({k: v for k, v in h.items() if k not in free}) for h in headers)
    waited = headers[0].get("waited_from")
    fits = isinstance(waited, int) and 0 <= waited < len(headers[1]["curve"])
    same = same and type(headers[0]["more"]["root"]) is int
    return same and ours == sound and fits and set(steps.values()) == {float(headers[1]["steps"])}


def shape_of(value: Any) -> Any:
    """The names and types of a record, without its values."""
    if isinstance(value, dict):
        return {name: shape_of(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape_of(each) for each in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return type(value).__name__


# Packed files


@functools.cache
def packed() -> tuple[bytes, ...]:
    """Packed networks of signs and of real weights, each with a certificate."""
    image = torch.rand(60, *IMAGE, generator=generator(0, "x"))
    net = binarise(BLRNet(IMAGE, CODE, generator=generator(0, "net")))
    made = [pack(net.re_estimate(image), statistics="of prior")]
    made.append(pack(PBGNet(5, (4, 3), bias=True, shift=0.3, generator=generator(0, "net"))))
    contents = []
    for network in made:
        given = (Budget(family="deployed"), Provenance("none", 0, {"prior": "of prior"}))
        c = certify_known(network.fingerprint(), 3, 100, *given, nats=2.5)
        contents.append(content_of(network.certified(c.to_dict())))
    return tuple(contents)


def packed_damaged(rng: Random, content: bytes) -> tuple[str, bytes, bool]:
    """What was done, the content of the file, and whether it was sealed anew."""
    if rng.random() < 0.6:
        return *file_damaged(rng, content), False
    outer, _ = parts_of(content)
    header, tensors = json.loads(outer["__metadata__"]["pbnn"]), dict(tensors_of(content))
    if rng.random() < 0.7:
        damage, header = record_damaged(rng, header)
    else:
        name = rng.choice(sorted(tensors))
        value, damage = np.array(tensors[name]), "tensor"
        value.reshape(-1)[rng.randrange(value.size)] += 1
        tensors[name] = value
    if isinstance(header.get("seal"), str):
        header["seal"] = seal_of(header, tensors)
    written = json.dumps(header, sort_keys=True)
    return f"sealed anew: {damage}", to_bytes(tensors, metadata={"pbnn": written}), True


def packed_files(rng: Random, folder: Path) -> Iterator[Case]:
    """Packed files, damaged, or forged and sealed anew."""
    path = folder / "network.pbnn"
    while True:
        content = rng.choice(packed())
        damage, changed, anew = packed_damaged(rng, content)

        def read(content: bytes = content, changed: bytes = changed, anew: bool = anew) -> str:
            path.write_bytes(changed)
            found = load(path)
            holds = all(check.holds for check in verify(found))
            if content_of(found) == content:
                return HARMLESS
            if not anew or content_of(found) != changed:
                return SILENT
            path.write_bytes(content)
            same = found.fingerprint() == load(path).fingerprint()
            # What a certificate says may be said otherwise; of another network it does not hold.
            return UNSEEN if same or not holds else SILENT

        yield Case(damage, read, (ValueError, OSError), str(path), short(changed, 600))
