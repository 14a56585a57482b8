"""Files of records: their layout, what is refused, and what a task of them says of itself."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pbnn.data import DataUnavailable, load, loading, published_split
from pbnn.data.records import parse
from pbnn.data.registry import CIFAR10, CIFAR100, Collection, RecordFile
from pbnn.files import sha256

SHAPE = (3, 2, 4)
TRAINING = [f"batch_{i}.bin" for i in (1, 2, 3)]
OPTIONAL = TRAINING[-1]
NAMED = os.environ.get("PBNN_DATA", "")
needs_cifar10 = pytest.mark.skipif(
    not (NAMED and (Path(NAMED) / "cifar10").is_dir()), reason="PBNN_DATA has no cifar10/"
)


@dataclass
class Batches:
    """Three training batches of 5 images and 4 test images, one record written after another."""

    classes: tuple[int, ...] = (10,)
    known: bool = True

    def __post_init__(self):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (19, *SHAPE), dtype=np.uint8)
        self.labels = [[int(rng.integers(n)) for n in self.classes] for _ in self.images]
        records = [
            bytes([*labels, *(int(image[c, h, w]) for c, h, w in np.ndindex(*SHAPE))])
            for labels, image in zip(self.labels, self.images, strict=True)
        ]
        names = [*TRAINING, "test.bin"]
        self.contents = {name: b"".join(records[5 * i : 5 * i + 5]) for i, name in enumerate(names)}
        # The i-th file has i images with the pixels of a JPEG copy.
        self.hashes = {name: {sha256(c): i} for i, (name, c) in enumerate(self.contents.items())}

    def collection(self):
        files = {
            name: RecordFile(
                4 if name == "test.bin" else 5,
                self.classes,
                self.hashes[name] if self.known else {},
                SHAPE,
            )
            for name in self.contents
        }
        return Collection(
            "Small",
            "small",
            files,
            published=(15, 4),
            optional=(OPTIONAL,),
            archive="small.tar at http://far",
        )

    def write(self, folder, *, gzipped=False):
        (folder / "small").mkdir(parents=True, exist_ok=True)
        for name, content in self.contents.items():
            stored = gzip.compress(content) if gzipped else content
            (folder / "small" / (f"{name}.gz" if gzipped else name)).write_bytes(stored)
        return folder / "small"


@pytest.fixture
def batches(monkeypatch):
    def make(**options):
        made = Batches(**options)
        monkeypatch.setitem(loading._COLLECTIONS, "cifar10", made.collection())
        return made

    return make


@pytest.mark.parametrize("gzipped", [True, False])
def test_a_task_has_the_images_written_training_first(batches, tmp_path, gzipped):
    small = batches()
    small.write(tmp_path, gzipped=gzipped)
    task = load("cifar10", data_dir=tmp_path)
    assert task.x.shape == (19, *SHAPE)
    assert (task.x.dtype, task.y.dtype) == (np.float32, np.int64)
    assert np.array_equal(task.x, small.images.astype(np.float32) / np.float32(255))
    assert task.y.tolist() == [label for (label,) in small.labels]
    assert task.train == 15
    assert published_split(task).test.tolist() == [15, 16, 17, 18]


def test_of_two_labels_the_fine_one_counts(batches, tmp_path):
    small = batches(classes=(3, 50))
    small.write(tmp_path)
    assert load("cifar10", data_dir=tmp_path).y.tolist() == [fine for _, fine in small.labels]


def test_the_optional_batch_may_be_missing_and_the_task_says_so(batches, tmp_path):
    small = batches()
    (small.write(tmp_path) / OPTIONAL).unlink()
    task = load("cifar10", data_dir=tmp_path)
    rows = [*range(10), *range(15, 19)]
    assert np.array_equal(np.rint(task.x * 255), small.images[rows])
    assert task.y.tolist() == [small.labels[row][0] for row in rows]
    assert task.train == 10
    assert task.source == (
        "Small (10 of the 15 training images; rebuilt, not the official files: 4 of the images "
        "carry the pixels of a JPEG copy)"
    )


def test_the_source_tells_a_known_content_from_another(batches, tmp_path):
    small = batches()
    home = small.write(tmp_path)
    source = "Small (rebuilt, not the official files: 6 of the images carry the pixels"
    assert load("cifar10", data_dir=tmp_path).source.startswith(source)
    for name in TRAINING[1:]:
        (home / name).write_bytes(small.contents["batch_1.bin"])
    assert load("cifar10", data_dir=tmp_path).source == (
        "Small (rebuilt, not the official files: 3 of the images carry the pixels of a JPEG copy; "
        "unverified content: batch_2.bin, batch_3.bin)"
    )
    small.hashes = {name: dict.fromkeys(known, 0) for name, known in small.hashes.items()}
    loading._COLLECTIONS["cifar10"] = small.collection()
    small.write(tmp_path)
    assert load("cifar10", data_dir=tmp_path).source == "Small"
    batches(known=False)
    assert load("cifar10", data_dir=tmp_path).source == (
        "Small (unverified content: batch_1.bin, batch_2.bin, batch_3.bin, test.bin)"
    )


@pytest.mark.parametrize("name", [*TRAINING[:2], "test.bin"])
def test_another_missing_file_is_an_error_that_names_it(batches, tmp_path, name):
    (batches().write(tmp_path) / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"small has neither {name} nor {name}\.gz"):
        load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("name", [OPTIONAL, "test.bin"])
def test_a_damaged_file_is_refused_even_if_it_may_be_missing(batches, tmp_path, cache, name):
    small = batches()
    for folder in (tmp_path, cache.parent):
        (small.write(folder) / name).write_bytes(small.contents[name][:-1])
    message = rf"{name} is cut short: it must hold \d records of 25 bytes"
    with pytest.raises(ValueError, match=message):
        load("cifar10", data_dir=tmp_path)
    with pytest.raises(DataUnavailable, match=message):
        load("cifar10")


@pytest.mark.parametrize("offline", [True, False])
def test_nothing_is_downloaded_and_the_error_says_where_to_put_the_files(batches, cache, offline):
    small = batches()
    with pytest.raises(DataUnavailable) as caught:
        load("cifar10", offline=offline)
    for part in (
        "Small is not available",
        "the mirrors: there is none",
        "put batch_1.bin, batch_2.bin, batch_3.bin, test.bin (raw or as .gz) into <folder>/small",
        "They come in small.tar at http://far.",
    ):
        assert part in str(caught.value)
    (small.write(cache.parent) / OPTIONAL).unlink()
    assert load("cifar10", offline=offline).train == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "two is cut short: it must hold 2 records of 4 bytes"),
        (bytes(7), "two is cut short"),
        (bytes(9), "two goes on"),
        (bytes(12), "two goes on"),
        (bytes([2, 9, 0, 0, 3, 9, 0, 0]), "two, record 1: labels must lie below 3, 10, got 3, 9"),
        (bytes([2, 10, 0, 0, 3, 9, 0, 0]), "two, record 0: .* got 2, 10"),
    ],
)
def test_what_is_no_such_file_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        parse(content, "two", 2, (3, 10), (2, 1, 1))


def test_the_published_layouts():
    assert list(CIFAR10.files) == [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    assert {file.size for file in CIFAR10.files.values()} == {30_730_000}
    assert {name: file.size for name, file in CIFAR100.files.items()} == {
        "train.bin": 50_000 * 3074,
        "test.bin": 10_000 * 3074,
    }
    assert CIFAR10.optional == ("data_batch_5.bin",)
    for collection in (CIFAR10, CIFAR100):
        sizes = [file.count for file in collection.files.values()]
        assert collection.published == (sum(sizes[:-1]), sizes[-1]) == (50_000, 10_000)


def test_the_pixels_exist_but_once_as_floats(tmp_path, monkeypatch):
    content = bytes(2_000 * 3073)
    files = {f"{name}.bin": RecordFile(2_000, (10,)) for name in "abc"}
    collection = Collection("Small", "small", files, published=(4_000, 2_000))
    monkeypatch.setitem(loading._COLLECTIONS, "cifar10", collection)
    (tmp_path / "small").mkdir()
    for name in files:
        (tmp_path / "small" / name).write_bytes(content)
    tracemalloc.start()
    task = load("cifar10", data_dir=tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Beside the floats there are the bytes as read, and a truth value for each.
    assert peak < 1.6 * task.x.nbytes


@pytest.fixture(scope="module")
def cifar10():
    return load("cifar10")


@needs_cifar10
def test_cifar10_has_its_published_statistics(cifar10):
    assert cifar10.x.shape[1:] == (3, 32, 32)
    assert len(cifar10.y) - cifar10.train == 10_000
    assert np.bincount(cifar10.y[cifar10.train :]).tolist() == [1000] * 10
    first = [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981]
    assert np.bincount(cifar10.y[:10_000]).tolist() == first
    # Of all 50,000 images. A part drawn from them is off by five standard errors at most, an
    # image's mean having a deviation below 0.15.
    published = [0.4914, 0.4822, 0.4465]
    error = 1e-4 + 5 * 0.15 * np.sqrt(1 / cifar10.train - 1 / 50_000)
    means = cifar10.x[: cifar10.train].mean(axis=(0, 2, 3), dtype=np.float64)
    assert means == pytest.approx(published, abs=error)


@needs_cifar10
def test_the_rebuilt_cifar10_is_known_and_says_how_much_it_is(cifar10):
    listed = Path(NAMED) / "cifar10" / "jpeg_filled.csv"
    if not listed.exists() or cifar10.train != 40_000:
        pytest.skip("PBNN_DATA has another CIFAR-10")
    split, index, label = np.loadtxt(listed, delimiter=",", skiprows=1, dtype=str).T
    tested, index = split == "test", index.astype(int)
    here = tested | (index < 40_000)
    assert cifar10.source == (
        "CIFAR-10 (40,000 of the 50,000 training images; rebuilt, not the official files: "
        f"{here.sum()} of the images carry the pixels of a JPEG copy)"
    )
    rows = np.where(tested, 40_000 + index, index)[here]
    assert cifar10.y[rows].tolist() == label[here].astype(int).tolist()
