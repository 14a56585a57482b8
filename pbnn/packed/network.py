"""Packed networks: what is deployed, run on bits from the pixels to the scores."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbnn.files import add_array
from pbnn.packed.backends import chosen, run
from pbnn.packed.bits import Array, pack_bits
from pbnn.packed.geometry import Geometry
from pbnn.packed.layers import PIXEL, BitLayer, Layer, RealLayer, Scores, Thresholds, sizes
from pbnn.packed.votes import probabilities

INPUTS = ("uint8", "signs", "float32", "float64")
"""What a packed network reads: bytes of pixels, signs of numbers, or numbers."""


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """How inputs become what the first layer reads.

    Attributes
    ----------
    image : (channels, height, width)
        Of an input; of vectors of d features (d, 1, 1).
    input : {"uint8", "signs", "float32", "float64"}
    scale : float
        Of bytes: an input is a byte times this.
    """

    image: tuple[int, int, int]
    input: str
    scale: float = 1.0

    def __call__(self, x: Any) -> Array:
        """Inputs (n, ...) as arrays (n, height, width, channels) of what the first layer reads.

        Raises
        ------
        ValueError
            For another shape, or numbers that are not finite or no bytes times the scale.
        """
        x = np.asarray(x)
        size = int(np.prod(self.image))
        if x.ndim < 2 or int(np.prod(x.shape[1:])) != size or x.dtype.kind not in "uif":
            raise ValueError(
                f"`x` must be numbers of shape (n, {', '.join(map(str, self.image))}), got "
                f"{x.dtype} of shape {x.shape}."
            )
        x = x.reshape(len(x), *self.image)
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise ValueError("`x` must be finite, got NaN or infinity.")
        if self.input == "uint8":
            x = x if x.dtype == np.uint8 else self._bytes(x)
        elif self.input == "signs":
            x = x >= 0
        else:
            x = x.astype(self.input)
        last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        return pack_bits(last) if self.input == "signs" else last

    def _bytes(self, x: Array) -> NDArray[np.uint8]:
        near = np.rint(x / self.scale)
        sound = (near >= 0) & (near <= PIXEL) & (np.abs(near * self.scale - x) <= 1e-3 * self.scale)
        if not sound.all():
            got = x[~sound].reshape(-1)[0]
            raise ValueError(
                f"`x` must be bytes (of dtype uint8), or 0, …, {PIXEL} times {self.scale:.6g}, got "
                f"{got:.6g} of dtype {x.dtype}."
            )
        return near.astype(np.uint8)


@dataclass(frozen=True, eq=False)
class PackedNetwork:
    """One network of bits, or several that vote, with the certificate of what it predicts.

    Made by `pack` or `load`; run by NumPy, and numba where it is there.

    Attributes
    ----------
    preprocessing : Preprocessing
    members : tuple of tuples of layers
        One, or those that vote by their mean probability, in which a score's weight is its
        exponential, computed alike on every machine (`pbnn.packed.votes`).
    statistics : tuple of str
        Hashes of the splits that batch normalisation comes from, "" for an unknown one.
    certificate : dict, optional
        As `pbnn.certificates.Certificate.to_dict` gives it, of this predictor.
    data : dict, optional
        How the splits of the data are made, in plain texts and numbers:
        ``{"task": "mnist", "prior": 0.5, "feature": 0, "seed": 42}``. No part of `fingerprint`.
    """

    preprocessing: Preprocessing
    members: tuple[tuple[Layer, ...], ...]
    statistics: tuple[str, ...] = ()
    certificate: dict[str, Any] | None = field(default=None)
    data: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.members or not all(self.members):
            raise ValueError("`members` must hold networks of at least one layer, got none.")
        for layers in self.members:
            check_chain(self.preprocessing, layers)
        if len({layers[-1].geometry.out for layers in self.members}) > 1:
            raise ValueError("`members` must have scores of one shape, got others.")
        if self.data is not None and not _is_plain(self.data):
            raise ValueError(
                f"`data` must hold texts and finite numbers by name, got {str(self.data)[:80]}."
            )

    def __repr__(self) -> str:
        """In a line: what it reads, its widths, its certificate."""
        widths = "-".join(str(layer.geometry.width) for layer in self.members[0])
        image = "x".join(map(str, self.preprocessing.image))
        several = f"{len(self.members)} networks" if len(self.members) > 1 else "a network"
        bound = (self.certificate or {}).get("bound")
        told = f", certified at {bound:.4g}" if isinstance(bound, float) else ""
        return f"<PackedNetwork: {several} of {image} {self.preprocessing.input} to {widths}{told}>"

    @property
    def classes(self) -> int:
        """Number of classes: of a single score, whose sign is the label, two."""
        return max(2, self.members[0][-1].geometry.width)

    def scores(self, x: Any, *, backend: str = "auto", threads: int = 1, member: int = 0) -> Array:
        """Scores (n, classes) of one member; of a single score (n, 1), of many places (n, ...).

        Parameters
        ----------
        x : array (n, channels, height, width) or (n, features)
            Inputs as the network was trained on them, or bytes where it reads such.
        backend : {"auto", "numba", "int8", "float32"}
            All have the same results; "auto" is the fastest that is there.
        threads : int
            For "numba".
        member : int
            Which member of several.
        """
        how = _way(backend, threads)
        return _scores(self.members[member], self.preprocessing(x), how, threads)

    def probabilities(self, x: Any, *, backend: str = "auto", threads: int = 1) -> Array:
        """Mean probabilities (n, classes) of the members, in float64."""
        how = _way(backend, threads)
        given = self.preprocessing(x)
        votes = (probabilities(_scores(layers, given, how, threads)) for layers in self.members)
        return sum(votes, start=np.zeros(())) / len(self.members)

    def predict(self, x: Any, *, backend: str = "auto", threads: int = 1) -> NDArray[np.int64]:
        """Classes (n,), the first of several of the same score; labels −1 and +1 of a single score.

        Parameters are those of `scores`.
        """
        options: dict[str, Any] = {"backend": backend, "threads": threads}
        if len(self.members) > 1:
            found = self.probabilities(x, **options)
            if self.members[0][-1].geometry.width == 1:
                found = found[..., 1:] - found[..., :1]
        else:
            found = self.scores(x, **options)
        if found.shape[-1] == 1:
            return np.where(found[..., 0] >= 0, 1, -1)
        return found.argmax(-1)

    def errors(self, x: Any, y: Any, *, backend: str = "auto", threads: int = 1) -> int:
        """How many of the inputs are not given their label."""
        labels, truth = self.predict(x, backend=backend, threads=threads), np.asarray(y)
        if labels.shape != truth.shape:
            raise ValueError(f"`y` must have shape {labels.shape}, got {truth.shape}.")
        return int(np.count_nonzero(labels != truth))

    def export_bits(self) -> dict[str, NDArray[np.int8]]:
        """Weights by the names of their layers, −1, +1 and 0 where pruned, in torch's shape.

        Those of several members are numbered. Layers of real weights are not among them.
        """
        found = {}
        for number, layers in enumerate(self.members):
            for layer in layers:
                if isinstance(layer, BitLayer):
                    name = layer.name if len(self.members) == 1 else f"{number}.{layer.name}"
                    found[name] = layer.weight().transpose(0, 3, 1, 2)
        return found

    def sizes(self) -> dict[str, int]:
        """Bytes of weights, and of thresholds and scores, of all members."""
        each = [sizes(layer) for layers in self.members for layer in layers]
        return {name: sum(one[name] for one in each) for name in ("weights", "tail")}

    def fingerprint(self) -> str:
        """SHA-256 of all that a prediction depends on."""
        digest = hashlib.sha256()
        digest.update(json.dumps(dataclasses.asdict(self.preprocessing), sort_keys=True).encode())
        for layers in self.members:
            for layer in layers:
                digest.update(json.dumps(described(layer), sort_keys=True).encode())
                for name, array in sorted(arrays(layer).items()):
                    add_array(digest, array, name)
        return digest.hexdigest()

    def certified(self, certificate: dict[str, Any] | None) -> PackedNetwork:
        """The same with this certificate, or none."""
        return dataclasses.replace(self, certificate=certificate)


def _way(backend: str, threads: int) -> str:
    """The back end by its name, once the number of threads is one."""
    if type(threads) is not int or threads < 1:
        raise ValueError(f"`threads` must be a positive integer, got {threads!r}.")
    return chosen(backend)


def _scores(layers: tuple[Layer, ...], given: Array, how: str, threads: int) -> Array:
    """Of preprocessed inputs; without rows and columns where the scores have one place."""
    for layer in layers:
        given = run(layer, given, how, threads)
    return given[:, 0, 0] if given.shape[1:3] == (1, 1) else given


def _is_plain(record: Any) -> bool:
    """Whether JSON gives these values back as they are, each by its name."""
    return isinstance(record, dict) and all(
        type(name) is str
        and (type(value) in (str, int, bool) or (type(value) is float and math.isfinite(value)))
        for name, value in record.items()
    )


def check_chain(preprocessing: Preprocessing, layers: tuple[Layer, ...]) -> None:
    """Refuse layers that do not fit each other, or the inputs.

    Raises
    ------
    ValueError
        Naming the first that does not.
    """
    shape, kind = preprocessing.image, preprocessing.input
    expected = kind if kind in ("uint8", "signs") else "real"
    for place, layer in enumerate(layers):
        if layer.geometry.image != shape or layer.input != expected:
            raise ValueError(
                f"`layers` must fit: {layer.name!r} reads {layer.input} {layer.geometry.image}, "
                f"and gets {expected} {shape}."
            )
        if isinstance(layer.tail, Scores) != (place == len(layers) - 1):
            raise ValueError(f"`layers` must end in scores, and only there: {layer.name!r}.")
        if isinstance(layer.tail, Scores) and layer.geometry.pools:
            raise ValueError(f"`layers` must not pool scores, got {layer.name!r}.")
        shape, expected = layer.geometry.out, "signs"


def described(layer: Layer) -> dict[str, Any]:
    """All of a layer but its arrays, as plain JSON values."""
    tail = layer.tail
    record: dict[str, Any] = {
        "name": layer.name,
        "kind": "bits" if isinstance(layer, BitLayer) else "real",
        "input": layer.input,
        "geometry": {
            each.name: getattr(layer.geometry, each.name) for each in dataclasses.fields(Geometry)
        },
        "masked": isinstance(layer, BitLayer) and layer.mask is not None,
        "dtype": str(np.dtype(tail.dtype if isinstance(tail, Scores) else tail.level.dtype)),
    }
    if isinstance(layer, RealLayer):
        record["weights"] = str(layer.values.dtype)
    if isinstance(tail, Scores):
        record["steps"] = [name for name, _ in tail.steps]
    else:
        record["places"] = len(tail.level) > 1
    return json.loads(json.dumps(record))


def arrays(layer: Layer) -> dict[str, Array]:
    """The arrays of a layer as a file holds them: bits of weights filter by filter, as octets."""
    found: dict[str, Array] = {}
    if isinstance(layer, BitLayer):
        for name, panels in (("bits", layer.filters), ("mask", layer.mask)):
            if panels is not None:
                bits = layer.bits(panels) ^ (name == "bits" and layer.input == "uint8")
                if name == "bits" and layer.mask is not None:
                    bits = bits & layer.bits(layer.mask)
                found[name] = np.packbits(
                    bits.reshape(layer.geometry.width, -1), axis=1, bitorder="little"
                )
    else:
        found |= {"weight": layer.values, "shift": layer.shift}
    if isinstance(layer.tail, Thresholds):
        found["level"] = layer.tail.level
        found["flip"] = np.packbits(layer.tail.flip, bitorder="little")
        found["every"] = np.packbits(layer.tail.every, bitorder="little")
    else:
        found |= {f"step{place}": value for place, (_, value) in enumerate(layer.tail.steps)}
    return found


def by_layers(network: PackedNetwork) -> Iterator[tuple[str, Layer]]:
    """Layers with the place they have: member, then number."""
    for member, layers in enumerate(network.members):
        for place, layer in enumerate(layers):
            yield f"{member}.{place}", layer
