"""The files a data set is made of, what they must hold, and where they may be had."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pbnn.data.idx import header_size, parse
from pbnn.data.records import Records, record_size
from pbnn.data.records import parse as parse_records
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
class RecordFile:
    """One file of labelled images.

    Attributes
    ----------
    count : int
        The number of its records.
    classes : tuple of int
        For each label byte of a record the number of classes.
    known : mapping of str to int
        SHA-256 of a content that was checked -> how many of its images carry the pixels of a JPEG
        copy. Another content is read all the same, and said to be unverified.
    shape : tuple of int
        Channels, height and width of an image.
    """

    count: int
    classes: tuple[int, ...]
    known: Mapping[str, int] = field(default_factory=dict)
    shape: tuple[int, int, int] = (3, 32, 32)

    @property
    def size(self) -> int:
        """Bytes of the decompressed file."""
        return self.count * record_size(self.classes, self.shape)

    def read(self, content: bytes, where: str) -> Records:
        """The records in the decompressed bytes, after checking their number and their labels."""
        records = parse_records(content, where, self.count, self.classes, self.shape)
        return records._replace(jpeg=self.known.get(sha256(content)))


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
    published : pair of int, optional
        The numbers of training and of test examples, if a test set is published; it comes last.
    optional : tuple of str
        Names of files that may be missing.
    archive : str
        Where the files are found together, for people: an archive is not downloaded.
    """

    title: str
    folder: str
    files: Mapping[str, DataFile[Content]]
    mirrors: tuple[str, ...] = ()
    gzipped: bool = True
    published: tuple[int, int] | None = None
    optional: tuple[str, ...] = ()
    archive: str = ""

    def train(self, size: int) -> int | None:
        """How many of so many examples are published as training examples, if that is known."""
        return size - self.published[1] if self.published else None


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
    return Collection(title, folder, files, mirrors, published=(60_000, 10_000))


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

# Of the official files no hash was at hand; these were rebuilt from copies of their images.
_REBUILT: dict[str, dict[str, int]] = {
    "data_batch_1.bin": {"0def081c410489f98b3935c2d405fc7436d23377894a5d6a710ce1fad8082588": 10},
    "data_batch_2.bin": {"391e29575970440c9827ff440ffa1280ff77ca6eb244d5c1faba4cff7aa00dc5": 7},
    "data_batch_3.bin": {"121076ec0d3c7be3f1a6e3e94430ab5bb10bdb03bdf439c59ec721c0c800071e": 10},
    "data_batch_4.bin": {"ff251e0cad6f90227932ee79ff8eab028f9446e0bdebab02033743cff03b5147": 31},
    "data_batch_5.bin": {},
    "test_batch.bin": {"6139132fc8fd37a0db676f9389800cb7eab4aa1ca4f3cce9500ed5c7fdf0381e": 23},
}
_KRIZHEVSKY = "https://www.cs.toronto.edu/~kriz/"

CIFAR10 = Collection(
    "CIFAR-10",
    "cifar10",
    {name: RecordFile(10_000, (10,), known) for name, known in _REBUILT.items()},
    published=(50_000, 10_000),
    optional=("data_batch_5.bin",),
    archive=f"{_KRIZHEVSKY}cifar-10-binary.tar.gz (MD5 c32a1d4ab5d03f1284b67883e8d87530)",
)

CIFAR100 = Collection(
    "CIFAR-100",
    "cifar100",
    # Twenty coarse classes, then a hundred fine ones.
    {"train.bin": RecordFile(50_000, (20, 100)), "test.bin": RecordFile(10_000, (20, 100))},
    published=(50_000, 10_000),
    archive=f"{_KRIZHEVSKY}cifar-100-binary.tar.gz (MD5 03b5dce01913d631647c71ecec9e9cb8)",
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
    published=(32_561, 16_281),
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
