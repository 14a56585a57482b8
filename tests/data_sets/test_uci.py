"""Adult and Internet Advertisements: what the tables of UCI become, and what is refused."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pbnn.data import DataUnavailable, load, loading, published_split, split
from pbnn.data.download import Patience
from pbnn.data.files import obtain
from pbnn.data.registry import ADS, ADULT, Collection, TableFile
from pbnn.data.uci import ADULT_CONTINUOUS, encode_ads
from pbnn.files import sha256

NAMED = os.environ.get("PBNN_DATA", "")
FIRST = """\
39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, \
2174, 0, 40, United-States, <=50K
52, ?, 209642, HS-grad, 9, Married-civ-spouse, ?, Wife, White, Female, 0, 7, 45, ?, >50K

"""
SECOND = """\
|1x3 Cross validator
25, Private, 226802, 11th, 7, Never-married, Machine-op-inspct, Own-child, Black, Male, 0, 0, 40, \
Outlying-US(Guam-USVI-etc), >50K.
"""
IMAGES = "125,125, 1.0,1,0,1,1,ad.\n   ?,   ?,   ?,?,1,0,0,nonad.\n"


def needs(folder):
    there = NAMED and (Path(NAMED) / folder).is_dir()
    return pytest.mark.skipif(not there, reason=f"PBNN_DATA has no {folder}/")


@dataclass
class Tables:
    """Files of text under their names, and the collection they make."""

    contents: dict[str, bytes]
    skip: int = 0

    def collection(self, *mirrors):
        width = next(iter(self.contents.values())).splitlines()[0].count(b",") + 1
        files = {
            name: TableFile(len(content), width, sha256(content), self.skip * index)
            for index, (name, content) in enumerate(self.contents.items())
        }
        published = (2, 1) if self.skip else None
        return Collection("Small", "small", files, mirrors, gzipped=False, published=published)

    def write(self, folder, gzipped=True):
        (folder / "small").mkdir(exist_ok=True)
        for name, content in self.contents.items():
            stored = gzip.compress(content) if gzipped else content
            (folder / "small" / (f"{name}.gz" if gzipped else name)).write_bytes(stored)


@pytest.fixture
def adult():
    return Tables({"adult.data": FIRST.encode(), "adult.test": SECOND.encode()}, skip=1)


def load_small(tables, name, folder, monkeypatch, **options):
    monkeypatch.setitem(loading._COLLECTIONS, name, tables.collection())
    tables.write(folder, **options)
    return load(name, data_dir=folder)


@pytest.mark.parametrize("gzipped", [True, False])
def test_adult_is_raw_numbers_then_one_hot_levels(adult, tmp_path, monkeypatch, gzipped):
    task = load_small(adult, "adult", tmp_path, monkeypatch, gzipped=gzipped)
    assert task.x.shape == (3, 108)
    assert task.x[:, :6].tolist() == [
        [39, 77516, 13, 2174, 0, 40],
        [52, 209642, 9, 0, 7, 45],
        [25, 226802, 7, 0, 0, 40],
    ]
    # Blocks of 9, 16, 7, 15, 6, 5, 2, 42 levels after the 6 numbers; "?" is first of its block.
    assert np.flatnonzero(task.x[1, 6:]).tolist() == [0, 9 + 11, 25 + 2, 32, 52, 57, 58, 60]
    assert (task.x[:, 6:].sum(axis=1) == 8).all()
    assert task.y.tolist() == [-1, 1, 1]
    assert task.y.dtype == np.float32
    assert task.train == 2
    assert "age, fnlwgt, education-num, capital-gain, capital-loss, hours-per-week" in task.source


def test_an_unknown_level_of_adult_is_refused_with_line_and_column(adult, tmp_path, monkeypatch):
    adult.contents["adult.test"] = SECOND.replace("Black", "black").encode()
    with pytest.raises(ValueError, match=r"adult\.test\.gz, line 2, column 'race'.*got 'black'"):
        load_small(adult, "adult", tmp_path, monkeypatch)


def test_another_class_is_refused(adult, tmp_path, monkeypatch):
    adult.contents["adult.data"] = FIRST.replace("<=50K", "<50K").encode()
    with pytest.raises(ValueError, match=r"line 1, column 'class'.* got '<50K'"):
        load_small(adult, "adult", tmp_path, monkeypatch)


def test_ads_drops_four_columns_and_keeps_the_bits(tmp_path, monkeypatch):
    task = load_small(Tables({"ad.data": IMAGES.encode()}), "ads", tmp_path, monkeypatch)
    assert task.x.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert task.x.dtype == np.float32
    assert task.y.tolist() == [1, -1]
    assert task.train is None


@pytest.mark.parametrize("cell", ["2", "?", "", "01"])
def test_ads_refuses_what_is_no_bit(cell):
    content = IMAGES.replace("1,0,0,nonad", f"1,{cell},0,nonad").encode()
    file = TableFile(len(content), 8, sha256(content))
    with pytest.raises(ValueError, match=rf"ad.data, line 2, column '5': .* got '{cell and '.'}"):
        encode_ads({"ad.data": file.read(content, "ad.data")})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("White, ", "", 1), "line 1: must have 15 fields, got 14"),
        (lambda text: text[:-40], r"line 2: must have 15 fields, got \d+"),
        (lambda text: text[:-2], "is cut short: it must hold 218 bytes, got 216"),
        (lambda text: text + text, "goes on: it must hold 218 bytes"),
        (lambda text: text.replace("39", "40", 1), "must have the SHA-256"),
        (lambda text: "<html>\n", "line 1: must have 15 fields, got 1"),
    ],
)
def test_a_file_that_is_not_the_one_is_refused(adult, change, message):
    file = adult.collection().files["adult.data"]
    with pytest.raises(ValueError, match=f"^adult.data.*{message}"):
        file.read(change(FIRST).encode(), "adult.data")


def test_raw_files_of_a_mirror_are_cached_and_not_asked_for_again(
    adult, answer, cache, mirror, monkeypatch
):
    requests = []
    url = mirror(lambda h: answer(h, adult.contents[h.path[1:]]), requests)
    monkeypatch.setitem(loading._COLLECTIONS, "adult", adult.collection(url))
    first = load("adult", progress=False)
    assert requests == ["/adult.data", "/adult.test"]
    assert sorted(path.name for path in cache.iterdir()) == ["adult.data.gz", "adult.test.gz"]
    assert load("adult", offline=True).sha256 == first.sha256
    assert len(requests) == 2


def test_a_mirror_with_other_rows_is_passed_over(adult, answer, cache, mirror):
    bad = mirror(lambda h: answer(h, b"<html>moved</html>"))
    good = mirror(lambda h: answer(h, adult.contents[h.path[1:]]))
    (cache.parent / "small").mkdir(parents=True)
    (cache / "adult.test.gz").write_bytes(b"damaged")
    found = obtain(adult.collection(bad, good), progress=False, patience=Patience(1, 4))
    assert [len(table.rows) for table in found.values()] == [2, 1]
    (cache / "adult.data.gz").unlink()
    with pytest.raises(DataUnavailable, match=r"(?s)Small is not.*line 1: must have 15.*PBNN_DATA"):
        obtain(adult.collection(bad), progress=False, patience=Patience(1, 4))


def test_the_files_of_uci_are_raw_and_have_their_own_names():
    assert [f"{ADULT.mirrors[0]}{name}" for name in ADULT.files] == [
        "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/adult.data",
        "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/adult.test",
    ]
    assert ADS.mirrors[0] + next(iter(ADS.files)) == (
        "https://archive.ics.uci.edu/ml/machine-learning-databases/internet_ads/ad.data"
    )
    assert [file.skip for file in ADULT.files.values()] == [0, 1]
    assert not ADULT.gzipped
    assert not ADS.gzipped


@pytest.mark.parametrize(
    ("name", "shape", "positive", "sizes", "train"),
    [
        pytest.param("adult", (48842, 108), 11687, (36631, 12211), 32561, marks=needs("adult")),
        pytest.param("ads", (3279, 1554), 459, (2459, 820), None, marks=needs("ads")),
    ],
)
def test_the_tables_have_the_sizes_of_the_reference_experiments(
    name, shape, positive, sizes, train
):
    task = load(name)
    assert task.train == train
    parts = split(task)
    assert task.x.shape == shape
    assert np.count_nonzero(task.y > 0) == positive
    assert (parts.n, len(parts.test)) == sizes


@needs("adult")
def test_adult_equals_what_pandas_makes_of_both_files():
    def read(name, **options):
        path = next(p for p in (Path(NAMED) / "adult").glob(f"{name}*"))
        return pd.read_csv(path, header=None, skipinitialspace=True, **options)

    frame = pd.concat([read("adult.data"), read("adult.test", skiprows=1)], ignore_index=True)
    numeric = [0, 2, 4, 10, 11, 12]
    dummies = pd.get_dummies(frame.drop(columns=[*numeric, 14]).astype(str), dtype=np.float32)
    task = load("adult")
    assert np.array_equal(task.x[:, : len(ADULT_CONTINUOUS)], frame[numeric].to_numpy(np.float32))
    assert np.array_equal(task.x[:, len(ADULT_CONTINUOUS) :], dummies.to_numpy())
    assert np.array_equal(task.y > 0, frame[14].str.startswith(">"))
    # As published, classes of the test file end in a full stop.
    tested = np.flatnonzero(frame[14].str.endswith("."))
    assert published_split(task).test.tolist() == tested.tolist()


@needs("ads")
def test_ads_equals_what_numpy_reads():
    path = next((Path(NAMED) / "ads").glob("ad.data*"))
    task = load("ads")
    assert np.array_equal(
        task.x, np.loadtxt(path, delimiter=",", usecols=range(4, 1558), dtype=np.float32)
    )
    labels = np.loadtxt(path, delimiter=",", usecols=1558, dtype=str)
    assert np.array_equal(task.y > 0, labels == "ad.")
