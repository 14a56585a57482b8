"""Tasks: which images they keep, what they call them, and the hash of what they hold."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits

from pbnn.data import (
    TASKS,
    DataUnavailable,
    Task,
    embedded_twin,
    load,
    loading,
    published_split,
    split,
)

NAMED = os.environ.get("PBNN_DATA", "")
needs_mnist = pytest.mark.skipif(
    not (NAMED and (Path(NAMED) / "mnist").is_dir()), reason="PBNN_DATA has no mnist/"
)
POSITIVE = {
    "17": {7},
    "49": {9},
    "56": {6},
    "LH": {5, 6, 7, 8, 9},
    "EO": {1, 3, 5, 7, 9},
}
NEGATIVE = {"17": {1}, "49": {4}, "56": {5}, "LH": {0, 1, 2, 3, 4}, "EO": {0, 2, 4, 6, 8}}


@pytest.fixture
def small_mnist(small, tmp_path, monkeypatch):
    small.write(tmp_path)
    monkeypatch.setitem(loading._COLLECTIONS, "mnist", small.collection())
    monkeypatch.setenv("PBNN_DATA", str(tmp_path))
    return small


def rows_of(classes, variant):
    return [i for i, c in enumerate(classes) if c in POSITIVE[variant] | NEGATIVE[variant]]


@pytest.mark.parametrize("variant", POSITIVE)
def test_a_binary_task_keeps_its_digits_in_order_training_first(small_mnist, variant):
    task = load(f"mnist{variant}")
    rows = rows_of(small_mnist.classes, variant)
    assert task.x.dtype == task.y.dtype == np.float32
    assert task.x.shape == (len(rows), 1, 4, 5)
    assert np.array_equal(np.rint(task.x[:, 0] * 255), small_mnist.images[rows])
    assert task.x.max() <= 1
    expected = [1 if small_mnist.classes[row] in POSITIVE[variant] else -1 for row in rows]
    assert task.y.tolist() == expected
    assert task.train == sum(row < 30 for row in rows)


def test_ten_classes_keep_every_image(small_mnist):
    task = load("mnist")
    assert task.y.dtype == np.int64
    assert np.array_equal(task.y, small_mnist.classes)
    assert task.source == "Small"
    assert task.train == 30


def test_a_blank_image_is_kept(small_mnist):
    assert not load("mnist").x[2].any()


@pytest.mark.parametrize("name", ["mnist", "mnist17"])
def test_a_class_beyond_nine_is_refused_with_its_row(name, small_of, tmp_path, monkeypatch):
    classes = np.arange(40, dtype=np.uint8) % 10
    classes[33] = 10
    small = small_of(classes)
    small.write(tmp_path)
    monkeypatch.setitem(loading._COLLECTIONS, "mnist", small.collection())
    with pytest.raises(ValueError, match=r"0 to 9, got 10 in row 33"):
        load(name, data_dir=tmp_path)


@pytest.mark.parametrize("variant", ["", *POSITIVE])
def test_the_embedded_digits_are_scikit_learn_s(variant):
    bunch = load_digits()
    task = load(f"digits{variant}", data_dir="no folder is needed")
    rows = rows_of(bunch.target, variant) if variant else range(1797)
    assert np.array_equal(task.x[:, 0] * 16, bunch.images[rows])
    assert task.x.max() == 1
    if variant:
        assert all(
            (y > 0) == (bunch.target[i] in POSITIVE[variant])
            for i, y in zip(rows, task.y, strict=True)
        )
    else:
        assert np.array_equal(task.y, bunch.target)
    assert "not MNIST" in task.source


def test_breast_cancer_is_raw():
    task, bunch = load("breast_cancer"), load_breast_cancer()
    assert np.array_equal(task.x, bunch.data.astype(np.float32))
    assert bunch.target_names[1] == "benign"
    assert np.array_equal(task.y > 0, bunch.target == 1)
    assert set(task.y) == {-1.0, 1.0}


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"`name`.*'mnist71'.*did you mean .*mnist17"):
        load("mnist71")
    with pytest.raises(ValueError, match="one of mnist, mnist17"):
        embedded_twin("zzz")


def test_every_task_has_an_embedded_twin_of_the_same_variant():
    in_files = [name for name in TASKS if name.startswith(("mnist", "fashion", "cifar"))]
    assert {name: embedded_twin(name) for name in in_files} == {
        "mnist": "digits",
        "fashion_mnist": "digits",
        "cifar10": "digits",
        "cifar100": "digits",
        **{f"mnist{variant}": f"digits{variant}" for variant in POSITIVE},
    }
    assert [embedded_twin(name) for name in ("adult", "ads")] == ["breast_cancer"] * 2
    embedded = [name for name in TASKS if name not in (*in_files, "adult", "ads")]
    assert [embedded_twin(name) for name in embedded] == embedded
    assert all(load(embedded_twin(name)).name in TASKS for name in TASKS)


def test_load_without_file_or_network_raises_the_error_studies_catch(cache, small, monkeypatch):
    monkeypatch.setitem(loading._COLLECTIONS, "mnist", small.collection())
    with pytest.raises(DataUnavailable, match="Small is not available"):
        load("mnist17", offline=True)


def tiny(**changes):
    parts = {"x": np.float32([[0, 1], [2, 3], [4, 5]]), "y": np.float32([-1, 1, 1])} | changes
    return Task.of("tiny", parts["x"], parts["y"], "by hand")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.float32([[0, 1], [2, np.nan], [4, 5]])}, "`x` must be finite, but row 1"),
        ({"x": np.float32([[0, 1], [2, 3], [np.inf, 5]])}, "`x` must be finite, but row 2"),
        ({"y": np.float32([-1, 0, 1])}, r"-1 or \+1, got 0.0 in row 1"),
        ({"y": np.float32([-1, 1, np.nan])}, r"-1 or \+1, got nan in row 2"),
        ({"y": np.array([0, 3, -1], dtype=np.int64)}, ">= 0, got -1 in row 2"),
        ({"y": np.float32([-1, 1])}, "shapes"),
        ({"x": np.zeros((0, 2), np.float32), "y": np.zeros(0, np.float32)}, "N >= 1"),
    ],
)
def test_a_task_refuses_bad_values(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


@pytest.mark.parametrize(
    "changes", [{"x": np.zeros((3, 2))}, {"y": np.array([0, 1, 2], np.int32)}, {"y": [-1, 1, 1]}]
)
def test_a_task_refuses_other_types(changes):
    with pytest.raises(TypeError):
        tiny(**changes)


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (0, ValueError, r"`train` must lie in \[1, 3\), got 0"),
        (3, ValueError, r"`train` must lie in \[1, 3\), got 3"),
        (True, TypeError, "`train` must be an integer or None, got True"),
        (1.0, TypeError, "`train` must be an integer or None, got 1.0"),
    ],
)
def test_a_task_refuses_a_training_set_that_is_all_or_nothing(train, error, message):
    task = tiny()
    with pytest.raises(error, match=message):
        Task.of("tiny", task.x, task.y, "by hand", train=train)


def test_the_published_split_is_no_part_of_the_content():
    task = tiny()
    assert task.train is None
    assert Task.of("tiny", task.x, task.y, "by hand", train=2).sha256 == task.sha256


def test_a_task_is_frozen():
    with pytest.raises(FrozenInstanceError):
        tiny().name = "other"


@given(row=st.integers(0, 2), column=st.integers(0, 1), bit=st.integers(0, 22))
def test_the_hash_changes_with_any_bit_of_the_inputs(row, column, bit):
    x = np.float32([[0, 1], [2, 3], [4, 5]])
    x.view(np.uint32)[row, column] ^= np.uint32(1 << bit)
    assert tiny(x=x).sha256 != tiny().sha256


def test_the_hash_depends_on_labels_types_and_shapes_but_not_on_memory_layout():
    task = tiny()
    assert tiny(y=np.float32([1, 1, 1])).sha256 != task.sha256
    assert tiny(x=task.x[:, :, None]).sha256 != task.sha256
    assert tiny(x=np.asfortranarray(task.x)).sha256 == task.sha256
    assert Task.of("renamed", task.x, task.y, "elsewhere").sha256 == task.sha256


@needs_mnist
@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("mnist17", 11377, 3793),
        ("mnist49", 10336, 3446),
        ("mnist56", 9891, 3298),
        ("mnistLH", 52500, 17500),
        ("mnistEO", 52500, 17500),
    ],
)
def test_mnist_has_the_sizes_of_the_reference_experiments(name, train, test):
    parts = split(load(name))
    assert (parts.n, len(parts.test)) == (train, test)


@needs_mnist
def test_the_published_test_set_of_mnist_is_its_own_file():
    task = load("mnist49")
    parts = published_split(task, feature=500, prior=0.5)
    # The published numbers of fours and nines: 5842 and 5949 to train, 982 and 1009 to test.
    assert (task.train, len(parts.test)) == (11791, 1991)
    assert np.bincount(task.y[parts.test] > 0).tolist() == [982, 1009]
    assert (len(parts.feature), len(parts.prior), parts.n) == (500, 5645, 5646)


@needs_mnist
def test_mnist_has_its_published_mean_and_class_counts():
    task = load("mnist")
    assert task.x[:60_000].mean(dtype=np.float64) * 255 == pytest.approx(33.318421, abs=1e-5)
    counts = [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
    assert np.bincount(task.y).tolist() == counts
