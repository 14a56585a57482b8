"""The files a data set is made of, what they must hold, and where they may be had."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbnn.data.idx import header_size, parse
from pbnn.files import sha256


class DataUnavailable(RuntimeError):
    """No folder, cache or mirror had the data; the message lists what was tried and what to do."""


@dataclass(frozen=True)
class IdxFile:
    """One IDX file: the shape it must have and the SHA-256 of its decompressed content."""

    shape: tuple[int, ...]
    sha256: str

    @property
    def size(self) -> int:
        """Bytes of the decompressed file."""
        return header_size(len(self.shape)) + math.prod(self.shape)

    def read(self, content: bytes, where: str) -> NDArray[np.uint8]:
        """The array in the decompressed bytes, after checking their format and their hash."""
        array = parse(content, where, self.shape)
        if (found := sha256(content)) != self.sha256:
            raise ValueError(f"{where} must have the SHA-256 {self.sha256}, got {found}.")
        return array


@dataclass(frozen=True)
class Collection:
    """A data set of IDX files: its title, its folder's name, and mirrors as URL prefixes."""

    title: str
    folder: str
    files: Mapping[str, IdxFile]
    mirrors: tuple[str, ...]


_LAYOUT: dict[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}


def _collection(
    title: str, folder: str, hashes: tuple[str, str, str, str], *mirrors: str
) -> Collection:
    """A collection with the names and the shapes of MNIST, in the order training, test."""
    files = {
        name: IdxFile(shape, content)
        for (name, shape), content in zip(_LAYOUT.items(), hashes, strict=True)
    }
    return Collection(title, folder, files, mirrors)


MNIST = _collection(
    "MNIST",
    "mnist",
    (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)

FASHION_MNIST = _collection(
    "Fashion-MNIST",
    "fashion-mnist",
    (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
