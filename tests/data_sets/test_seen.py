"""What a prior has seen does not certify it: told by content, whatever the task or the split."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from pbnn.data import Task, check_unseen, example_hashes, split


def images(n, seed=0):
    return np.random.default_rng(seed).random((n, 1, 3, 3)).astype(np.float32)


def test_a_hash_is_of_the_content_alone():
    x = images(3)
    expected = hashlib.sha256(b"<f4(1, 3, 3)" + x[1].tobytes()).hexdigest()
    assert expected in example_hashes(x)
    assert example_hashes(x[::-1]) == example_hashes(x)
    assert example_hashes(x.astype(">f4")) == example_hashes(x)
    # The same bytes in another shape are another example.
    assert not example_hashes(x.reshape(3, 9)) & example_hashes(x)


def test_the_parts_of_a_split_do_not_overlap_and_any_other_choice_is_refused():
    x = images(40)
    task = Task.of("some", x, np.arange(40) % 2, "by hand")
    parts = split(task, prior=0.5)
    seen = example_hashes(x[parts.prior])
    check_unseen(seen, x[parts.certification])
    other = split(task, prior=0.5, seed=1)
    with pytest.raises(ValueError, match=r"`x` must hold no example that the prior has seen, got"):
        check_unseen(seen, x[other.certification])


@pytest.mark.parametrize("seen", ["a" * 64, [b"a" * 64], ["A" * 64], [images(1)]])
def test_what_is_no_hash_is_refused(seen):
    with pytest.raises(ValueError, match="`seen` must hold hashes of `example_hashes`"):
        check_unseen(seen, images(2))


@pytest.mark.parametrize("x", [None, np.array(["a"]), np.float32(3)])
def test_what_is_no_array_of_numbers_is_refused(x):
    with pytest.raises(ValueError, match="`x` must be an array of numbers, one row an example"):
        example_hashes(x)


def test_one_image_seen_with_another_label_or_in_another_task_is_refused():
    x = images(10)
    with pytest.raises(ValueError, match="got 1 of 5, the first in row 3"):
        check_unseen(example_hashes(np.concatenate([images(4, 1), x[8:9]])), x[5:])
