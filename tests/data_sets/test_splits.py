"""Splits: disjoint, covering, reproducible, blind to the labels, and hashed."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from pbnn.data import Splits, Task, published_split, split

PARTS = ("feature", "prior", "certification", "test")


def task_of(size, *, value=0.0, label=1.0, train=None):
    x = np.full((size, 1), value, dtype=np.float32)
    y = np.full(size, label, dtype=np.float32)
    return Task.of("task", x, y, "by hand", train=train)


def listed(splits):
    return {name: getattr(splits, name).tolist() for name in PARTS}


@given(
    size=st.integers(2, 300),
    seed=st.integers(0, 2**32 - 1),
    test=st.floats(0, 0.9),
    feature=st.integers(0, 50),
    prior=st.floats(0, 1, exclude_max=True),
)
def test_the_parts_are_disjoint_and_cover_the_task(size, seed, test, feature, prior):
    rest = size - math.ceil(test * size) - feature
    assume(rest >= 1)
    task = task_of(size)
    parts = split(task, seed=seed, test=test, feature=feature, prior=prior)
    indices = np.concatenate([getattr(parts, name) for name in PARTS])
    assert np.array_equal(np.sort(indices), np.arange(size))
    assert len(parts.feature) == feature
    assert len(parts.prior) == math.floor(prior * rest)
    assert len(parts.certification) == parts.n == rest - len(parts.prior)
    assert all(getattr(parts, name).dtype == np.int64 for name in PARTS)
    again = split(
        task_of(size, value=1, label=-1), seed=seed, test=test, feature=feature, prior=prior
    )
    assert listed(again) == listed(parts)


@given(size=st.integers(2, 500), seed=st.integers(0, 2**32 - 1), test=st.floats(0.01, 0.9))
def test_the_test_part_is_that_of_scikit_learn(size, seed, test):
    assume(math.ceil(test * size) < size)
    train, tested = train_test_split(np.arange(size), test_size=test, random_state=seed)
    parts = split(task_of(size), seed=seed, test=test)
    assert parts.test.tolist() == tested.tolist()
    assert parts.certification.tolist() == train.tolist()


def test_the_defaults_are_those_of_the_reference_experiments():
    train, tested = train_test_split(np.arange(1234), test_size=0.25, random_state=42)
    parts = split(task_of(1234), feature=100, prior=0.5)
    assert parts.test.tolist() == tested.tolist()
    assert parts.feature.tolist() == train[:100].tolist()
    middle = 100 + (len(train) - 100) // 2
    assert parts.prior.tolist() == train[100:middle].tolist()
    assert parts.certification.tolist() == train[middle:].tolist()


def test_another_seed_gives_another_split():
    assert listed(split(task_of(50), seed=1)) != listed(split(task_of(50), seed=2))


def test_a_hash_stands_for_the_content_and_the_indices():
    task, parts = task_of(3), Splits([], [2], [0], [1])
    for name, hashed in parts.hashes(task).items():
        indices = getattr(parts, name).astype("<i8").tobytes()
        assert hashed == hashlib.sha256(task.sha256.encode() + indices).hexdigest()


@given(
    order=st.permutations(range(6)),
    other=st.permutations(range(6)),
    value=st.sampled_from([0.0, 1.0]),
)
def test_a_hash_changes_exactly_with_the_content_or_the_indices(order, other, value):
    def make(order):
        return Splits(order[:1], order[1:3], order[3:5], order[5:])

    task, changed = task_of(6), task_of(6, value=value)
    one, two = make(order), make(other)
    before, after = one.hashes(task), two.hashes(changed)
    for name in PARTS:
        same = value == 0.0 and listed(one)[name] == listed(two)[name]
        assert (before[name] == after[name]) == same


def test_a_hash_refuses_an_index_beyond_the_task():
    with pytest.raises(ValueError, match="index 3 is beyond its 3 examples"):
        Splits([], [], [0], [3]).hashes(task_of(3))


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("second", range(4))
def test_an_index_may_occur_only_once(first, second):
    parts = [[0], [1], [2], [3]]
    parts[first] = [*parts[first], 7]
    parts[second] = [*parts[second], 7]
    with pytest.raises(ValueError, match="index 7 occurs twice"):
        Splits(*parts)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (([], [], [], [1]), ValueError, "`certification` must hold at least one"),
        (([], [], [-1], [1]), ValueError, "`certification` must hold indices >= 0, got -1"),
        (([0.0], [], [1], []), TypeError, "`feature` must hold integers"),
        (([], [True], [1], []), TypeError, "`prior` must hold integers"),
        (([], [], [[1, 2]], []), ValueError, "`certification` must be one-dimensional"),
    ],
)
def test_bad_parts_are_refused(parts, error, message):
    with pytest.raises(error, match=message):
        Splits(*parts)


def test_the_parts_do_not_follow_changes_of_the_arrays_given():
    indices = np.arange(3)
    parts = Splits([], [], indices, [])
    indices[0] = 2
    assert parts.certification.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"test": 1.0}, ValueError, r"`test` must lie in \[0, 1\), got 1.0"),
        ({"test": -0.1}, ValueError, "`test`"),
        ({"test": math.nan}, ValueError, "`test`"),
        ({"prior": 1.0}, ValueError, r"`prior` must lie in \[0, 1\)"),
        ({"feature": -1}, ValueError, "`feature` must be >= 0, got -1"),
        ({"feature": 0.5}, TypeError, "`feature` must be an integer"),
        ({"feature": 7}, ValueError, "`feature` must leave examples .* got 3 and 7 of 10"),
        ({"seed": -1}, ValueError, "`seed`"),
        ({"seed": 2**32}, ValueError, "`seed`"),
        ({"seed": 1.5}, TypeError, "`seed`"),
    ],
)
def test_bad_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        split(task_of(10), **options)


@given(
    train=st.integers(1, 200),
    tested=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
    feature=st.integers(0, 50),
    prior=st.floats(0, 1, exclude_max=True),
)
def test_the_published_test_set_stays_and_the_rest_is_split_as_ever(
    train, tested, seed, feature, prior
):
    assume(feature < train)
    cut = {"seed": seed, "feature": feature, "prior": prior}
    parts = published_split(task_of(train + tested, train=train), **cut)
    expected = listed(split(task_of(train), test=0.0, **cut))
    assert listed(parts) == expected | {"test": [*range(train, train + tested)]}


def test_published_split_has_the_defaults_of_split():
    assert listed(published_split(task_of(12, train=10))) == listed(
        split(task_of(10), test=0.0)
    ) | {"test": [10, 11]}


@pytest.mark.parametrize(
    ("train", "options", "error", "message"),
    [
        (None, {}, ValueError, "`task` must have a published test set, got 'task' without one"),
        (8, {"prior": 1.0}, ValueError, r"`prior` must lie in \[0, 1\), got 1.0"),
        (8, {"feature": 8}, ValueError, "`feature` must leave .* got 8 of 8 training examples"),
        (8, {"feature": -1}, ValueError, "`feature` must be >= 0, got -1"),
        (8, {"feature": 0.5}, TypeError, "`feature` must be an integer"),
        (8, {"seed": 2**32}, ValueError, "`seed`"),
    ],
)
def test_bad_arguments_of_the_published_split_are_refused(train, options, error, message):
    with pytest.raises(error, match=message):
        published_split(task_of(10, train=train), **options)
