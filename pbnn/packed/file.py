"""Files of packed networks: safetensors with a header that says everything, sealed by a hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pbnn.files import add_array, check_schema_version, little_endian, write_atomic
from pbnn.packed.bits import Array, signs_of
from pbnn.packed.geometry import Geometry
from pbnn.packed.layers import STEPS, BitLayer, Layer, RealLayer, Scores, Thresholds
from pbnn.packed.network import INPUTS, PackedNetwork, Preprocessing, arrays, by_layers, described

SCHEMA_VERSION = 1
KIND = "packed network"
LONGEST = 2**22
"""Bytes of a header; a longer one is taken for damage."""
HEADER = {"schema_version", "kind", "preprocessing", "members", "statistics"}
HEADER |= {"certificate", "data", "seal"}
LAYER = {"name", "kind", "input", "geometry", "masked", "dtype"}


def save(path: str | os.PathLike[str], network: PackedNetwork) -> None:
    """Write a packed network, atomically; what its certificate says goes with it."""
    write_atomic(path, content_of(network))


def content_of(network: PackedNetwork) -> bytes:
    """The content of a file."""
    from safetensors.numpy import save as to_bytes

    tensors = {}
    for place, layer in by_layers(network):
        for name, array in arrays(layer).items():
            tensors[f"{place}.{name}"] = little_endian(array)
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "preprocessing": dataclasses.asdict(network.preprocessing),
        "members": [[described(layer) for layer in layers] for layers in network.members],
        "statistics": list(network.statistics),
        "certificate": network.certificate,
        "data": network.data,
    }
    # As JSON gives them back: what is sealed is what will be read.
    header = json.loads(json.dumps(header, allow_nan=False))
    header["seal"] = seal_of(header, tensors)
    written = _text(header)
    if len(written) > LONGEST:
        raise ValueError(f"`network` must have a header of at most {LONGEST} bytes, got more.")
    content: bytes = to_bytes(tensors, metadata={"pbnn": written})
    return content


def _text(header: dict[str, Any]) -> str:
    """The one text that a header has."""
    return json.dumps(header, sort_keys=True, allow_nan=False)


def seal_of(header: dict[str, Any], tensors: dict[str, Array]) -> str:
    """SHA-256 of a file's header, without its seal, and tensors: of what was damaged on its way."""
    rest = {name: value for name, value in header.items() if name != "seal"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name, array in sorted(tensors.items()):
        add_array(digest, array, name)
    return digest.hexdigest()


def load(path: str | os.PathLike[str]) -> PackedNetwork:
    """Read a packed network and check every field and size of it; nothing is unpickled.

    Whether its certificate holds is another question: `pbnn.packed.verify`.

    Raises
    ------
    ValueError
        Naming the file, if it is damaged, not ours, newer than this code, or not consistent.
    FileNotFoundError
        If there is none.
    """
    written, header, tensors = _read(path)
    where = str(path)
    check_schema_version(header.get("schema_version"), where, KIND, SCHEMA_VERSION)
    if "network" in header and "kind" not in header:
        raise ValueError(f"{where} is a checkpoint, not a {KIND}: `pbnn certify` makes one of it.")
    try:
        _same_keys("header", header, HEADER)
        _require(header["kind"] == KIND, "kind", header["kind"])
        if written != _text(header):  # which the seal, of what is read, would not notice
            raise ValueError("its header is not written as `save` writes it")
        if header["seal"] != seal_of(header, tensors):
            raise ValueError("it is damaged: its seal does not fit its content")
        certificate, statistics = header["certificate"], header["statistics"]
        _require(certificate is None or isinstance(certificate, dict), "certificate", certificate)
        sound = isinstance(statistics, list) and all(isinstance(one, str) for one in statistics)
        _require(sound, "statistics", statistics)
        preprocessing = _preprocessing(header["preprocessing"])
        members = header["members"]
        _require(isinstance(members, list) and len(members) > 0, "members", members)
        layers = []
        for place, member in enumerate(members):
            _require(isinstance(member, list) and len(member) > 0, "members", member)
            layers.append(
                tuple(_layer(each, f"{place}.{at}.", tensors) for at, each in enumerate(member))
            )
        if tensors:
            raise ValueError(f"unknown tensors {sorted(tensors)[:3]}")
        return PackedNetwork(
            preprocessing, tuple(layers), tuple(statistics), certificate, header["data"]
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{where} is not a sound {KIND}: {str(error).rstrip('.')}.") from error


def _read(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any], dict[str, Array]]:
    """The header's text, header and tensors, copied out of the file."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file.")
    damage: tuple[type[Exception], ...] = (ValueError, TypeError, OSError)
    damage += (RecursionError, AttributeError)  # the last of numbers that NumPy has not
    try:
        with safe_open(path, framework="numpy") as stored:
            written = (stored.metadata() or {})["pbnn"]
            if len(written) > LONGEST:
                raise ValueError(f"a header of {len(written)} bytes")
            header = json.loads(written)
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"{path} is not a readable {KIND}: either `pbnn certify` or `pbnn.packed.save` did not "
            "write it, or it is damaged."
        ) from error
    except damage as error:
        raise ValueError(f"{path} is not a readable {KIND}: {error}.") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not a {KIND}: its header is no object.")
    return written, header, tensors


def _require(sound: bool, name: str, got: Any) -> None:
    if not sound:
        text = repr(got)
        raise ValueError(f"`{name}` must be as `pack` writes it, got {text[:80]}")


def _same_keys(name: str, record: Any, known: set[str]) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"`{name}` must be an object, got {str(record)[:80]}")
    if odd := sorted(set(record) ^ known):
        raise ValueError(f"`{name}` has missing or unknown fields {odd[:5]}")


def _preprocessing(record: Any) -> Preprocessing:
    _same_keys("preprocessing", record, {"image", "input", "scale"})
    image, scale = record["image"], record["scale"]
    _require(isinstance(image, list) and len(image) == 3, "image", image)
    _require(all(type(size) is int and size > 0 for size in image), "image", image)
    _require(record["input"] in INPUTS, "input", record["input"])
    _require(type(scale) is float and 0 < scale < float("inf"), "scale", scale)
    return Preprocessing((image[0], image[1], image[2]), record["input"], scale)


def _layer(record: Any, prefix: str, tensors: dict[str, Array]) -> Layer:
    """A layer of its record, and its tensors taken out of those of the file."""
    _require(isinstance(record, dict), "members", record)
    kind = record.get("kind")
    _require(kind in ("bits", "real"), "kind", kind)
    known = LAYER | ({"weights"} if kind == "real" else set())
    _same_keys("members", record, known | {"steps" if "steps" in record else "places"})
    _require(isinstance(record["name"], str), "name", record["name"])
    _require(record["input"] in ("signs", "uint8", "real"), "input", record["input"])
    _require((record["input"] == "uint8") <= (kind == "bits"), "input", record["input"])
    _require((record["input"] == "real") <= (kind == "real"), "input", record["input"])
    _require(type(record["masked"]) is bool, "masked", record["masked"])
    _require(kind == "bits" or not record["masked"], "masked", record["masked"])
    geometry = _geometry(record["geometry"])
    # What is no byte surrounds none.
    below = geometry.filling < 0 and any(geometry.border)
    _require(not (below and record["input"] == "uint8"), "filling", geometry.filling)

    def take(name: str, dtype: str, *shape: int) -> Array:
        full = prefix + name
        if full not in tensors:
            raise ValueError(f"tensor {full!r} is missing")
        array = tensors.pop(full)
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise ValueError(
                f"tensor {full!r} must be {dtype} of shape {shape}, got {array.dtype} of "
                f"{array.shape}"
            )
        return array.astype(dtype, copy=False)

    tail = (
        _scores(record, geometry, take)
        if "steps" in record
        else _thresholds(record, geometry, take)
    )
    if kind == "real":
        _require(record["weights"] in ("float32", "float64"), "weights", record["weights"])
        _require(record["dtype"] == record["weights"], "dtype", record["dtype"])
        channels, height, width = geometry.image
        values = take("weight", record["weights"], geometry.width, *geometry.kernel, channels)
        shift = take("shift", record["weights"], height, width, channels)
        if not (np.isfinite(values).all() and np.isfinite(shift).all()):
            raise ValueError(f"tensors of {prefix!r} must be finite")
        return RealLayer(geometry, record["input"], values, shift, tail, record["name"])
    positive = _weights("bits", geometry, take)
    weight = signs_of(positive)
    if record["masked"]:
        mask = _weights("mask", geometry, take)
        if (positive & ~mask).any() or mask.all():
            raise ValueError(f"tensors of {prefix!r} must have bits where their mask has")
        weight *= mask
    return BitLayer.of(geometry, weight, tail, input=record["input"], name=record["name"])


def _geometry(record: Any) -> Geometry:
    names = {each.name for each in dataclasses.fields(Geometry)}
    _same_keys("geometry", record, names)
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in record.items()
    }
    return Geometry(**values)


def _octets(bits: Array, count: int, name: str) -> Array:
    """Bits of octets along the last axis; those beyond the last must be 0."""
    every = np.unpackbits(bits, axis=-1, bitorder="little").astype(bool)
    if every[..., count:].any():
        raise ValueError(f"tensor {name!r} must be 0 beyond its last bit")
    return every[..., :count]


def _weights(name: str, geometry: Geometry, take: Callable[..., Array]) -> Array:
    """Bits (width, channels, height, width)."""
    octets = take(name, "uint8", geometry.width, -(-geometry.fan_in // 8))
    bits = _octets(octets, geometry.fan_in, name)
    shape = (geometry.width, *geometry.kernel, geometry.image[0])
    return bits.reshape(shape).transpose(0, 3, 1, 2)


def _thresholds(
    record: dict[str, Any], geometry: Geometry, take: Callable[..., Array]
) -> Thresholds:
    dtype = record["dtype"]
    _require(type(record["places"]) is bool, "places", record["places"])
    allowed = ("int32",) if record["kind"] == "bits" else ("float32", "float64")
    _require(dtype in allowed, "dtype", dtype)
    _, rows, columns = geometry.out
    windows = geometry.apart and rows * columns > 1
    _require(not record["places"] or windows, "places", record["places"])
    places = rows * columns if record["places"] else 1
    level = take("level", dtype, places, geometry.width)
    if level.dtype.kind == "f" and np.isnan(level).any():
        raise ValueError("thresholds must be numbers")
    flip, every = (
        _octets(take(name, "uint8", -(-geometry.width // 8)), geometry.width, name)
        for name in ("flip", "every")
    )
    return Thresholds(level, flip, every)


def _scores(record: dict[str, Any], geometry: Geometry, take: Callable[..., Array]) -> Scores:
    dtype, steps = record["dtype"], record["steps"]
    _require(dtype in ("float32", "float64"), "dtype", dtype)
    sound = isinstance(steps, list) and len(steps) <= 16 and all(s in STEPS for s in steps)
    _require(sound, "steps", steps)
    _require(not geometry.pools, "geometry", record["geometry"])
    made = []
    for place, name in enumerate(steps):
        shape = (2, geometry.width) if name == "fma" else (geometry.width,)
        value = take(f"step{place}", dtype, *shape)
        if not np.isfinite(value).all():
            raise ValueError("steps of scores must be finite")
        made.append((name, value))
    return Scores(tuple(made), np.dtype(dtype))
