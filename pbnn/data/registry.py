"""The files a data set is made of, what they must hold, and where they may be had."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pbnn.data.idx import header_size, parse
from pbnn.data.tables import Table, parse_table
from pbnn.files import sha256

Content = TypeVar("Content")
Content_co = TypeVar("Content_co", covariant=True)


class DataUnavailable(RuntimeError):
    """No folder, cache or mirror had the data; the message lists what was tried and what to do."""


class DataFile(Protocol[Content_co]):
    """What must be known of a file to fetch and to check it."""

    @property
    def size(self) -> int:
        """Bytes of the decompressed file."""

    def read(self, content: bytes, where: str) -> Content_co:
        """What the decompressed bytes hold, after checking their format and their hash."""


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
        _check_hash(content, where, self.sha256)
        return array


@dataclass(frozen=True)
class TableFile:
    """One file of comma-separated text: bytes, fields in a row, SHA-256, lines before the first."""

    size: int
    width: int
    sha256: str
    skip: int = 0

    def read(self, content: bytes, where: str) -> Table:
        """The rows in the decompressed bytes, after checking their widths, number and hash."""
        if len(content) > self.size:
            raise ValueError(f"{where} goes on: it must hold {self.size} bytes.")
        table = parse_table(content, where, width=self.width, skip=self.skip)
        if len(content) < self.size:
            raise ValueError(
                f"{where} is cut short: it must hold {self.size} bytes, got {len(content)}."
            )
        _check_hash(content, where, self.sha256)
        return table


def _check_hash(content: bytes, where: str, expected: str) -> None:
    if (found := sha256(content)) != expected:
        raise ValueError(f"{where} must have the SHA-256 {expected}, got {found}.")


@dataclass(frozen=True)
class Collection(Generic[Content]):
    """A data set in files.

    Attributes
    ----------
    title : str
        Its name, for people.
    folder : str
        The folder of its files.
    files : mapping of str to DataFile
        The files by their names, in the order of their examples.
    mirrors : tuple of str
        URL prefixes.
    gzipped : bool
        Whether the mirrors hold ``<name>.gz`` rather than the file itself.
    """

    title: str
    folder: str
    files: Mapping[str, DataFile[Content]]
    mirrors: tuple[str, ...]
    gzipped: bool = True


_LAYOUT: dict[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}


def _collection(
    title: str, folder: str, hashes: tuple[str, str, str, str], *mirrors: str
) -> Collection[NDArray[np.uint8]]:
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

_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/"

ADULT = Collection(
    "UCI Adult",
    "adult",
    {
        "adult.data": TableFile(
            3_974_305, 15, "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"
        ),
        "adult.test": TableFile(
            2_003_153,
            15,
            "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
            skip=1,  # It begins with a note on cross-validation.
        ),
    },
    (f"{_UCI}adult/",),
    gzipped=False,
)

ADS = Collection(
    "UCI Internet Advertisements",
    "ads",
    {
        "ad.data": TableFile(
            10_275_015, 1559, "4841bab145e0b2df2bc17893ecd9d62f8fbeac2c389b41ca59d77da682c0c4eb"
        )
    },
    (f"{_UCI}internet_ads/",),
    gzipped=False,
)
