"""Probabilities that every machine computes alike, and anytime votes of packed members."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
import torch

from pbnn import ensembles
from pbnn.ensembles import full_ensemble
from pbnn.networks import BLRNet, PBGNet, binarise
from pbnn.packed import anytime, pack
from pbnn.packed.votes import GRID, exponential, probabilities
from pbnn.seeding import generator


def test_the_exponential_is_right_to_fourteen_digits():
    x = np.concatenate([-np.geomspace(1e-12, 63.9, 300), [0.0, -0.5, -np.log(2), -64.0]])
    with mpmath.workdps(40):
        true = np.array([float(mpmath.exp(mpmath.mpf(float(v)))) for v in x])
    assert np.abs(exponential(x) / true - 1).max() < 1e-14
    assert exponential(np.array([-64.1, -1e300, -np.inf])).tolist() == [0, 0, 0]


def test_it_is_made_of_sums_and_products_alone():
    """In Python's own numbers, one operation at a time, in the order that is promised."""
    import math

    for x in -np.geomspace(1e-6, 60, 50):
        twos = round(float(x) / math.log(2))
        rest = float(x) - twos * math.log(2)
        value = 1 / math.factorial(14)
        for k in range(13, -1, -1):
            value = value * rest + 1 / math.factorial(k)
        assert math.ldexp(value, twos) == float(exponential(np.array(x)))


def test_probabilities_are_those_of_softmax_on_a_grid():
    scores = np.random.default_rng(0).normal(0, 5, (200, 7)).astype(np.float32)
    found = probabilities(scores)
    true = torch.from_numpy(scores).double().softmax(1).numpy()
    assert np.abs(found - true).max() <= 0.5001 / GRID
    assert np.array_equal(found * GRID, np.rint(found * GRID))
    assert np.array_equal(probabilities(scores + 8), found) or (
        np.abs(probabilities(scores + 8) - found).max() < 1e-5  # float32 rounds the shift
    )


def test_sums_of_probabilities_do_not_depend_on_their_order():
    scores = np.random.default_rng(0).normal(0, 3, (5, 40, 4)).astype(np.float32)
    each = [probabilities(one) for one in scores]
    totals = [sum(order) for order in itertools.permutations(each)]
    assert all(np.array_equal(total, totals[0]) for total in totals)


def test_a_single_score_is_a_vote_for_its_sign():
    scores = np.float32([[-0.1], [0.0], [3.0]])
    assert probabilities(scores).tolist() == [[1, 0], [0, 1], [0, 1]]


def test_anytime_says_what_all_members_say_where_it_is_certain():
    network = BLRNet((1, 8, 8), "6C3-MP2-SM5", generator=generator(0, "start"))
    x = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8)).astype(np.uint8)
    images = torch.from_numpy(x).float() / 255
    draws = generator(0, "members")
    members = [binarise(network, "sample", draws).re_estimate(images) for _ in range(9)]
    packed = pack(members)
    certain = anytime(packed, x, alpha=0)
    assert np.array_equal(certain.prediction.numpy(), packed.predict(x))
    assert 1 < certain.members.float().mean() <= 9
    sooner = anytime(packed, x, alpha=0.2)
    assert bool((sooner.members <= certain.members).all())
    own = [lambda rows, one=one: one(images[rows]).softmax(1) for one in members]
    mean = full_ensemble(own, torch.arange(len(x)))
    assert np.array_equal(packed.predict(x), mean.argmax(1).numpy())


@pytest.mark.parametrize("backend", ["numba", "int8", "float32"])
def test_votes_do_not_depend_on_the_back_end(backend):
    if backend == "numba":
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
    network = BLRNet((1, 8, 8), "6C3-MP2-SM5", generator=generator(0, "start"))
    draws = generator(0, "members")
    packed = pack([binarise(network, "sample", draws) for _ in range(4)])
    x = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8)).astype(np.uint8)
    assert np.array_equal(packed.probabilities(x, backend=backend), packed.probabilities(x))


def test_votes_on_labels_are_those_of_all_members_too():
    """Of single scores a tie is +1, in a full vote and in one that stops."""
    networks = [PBGNet(64, (3,), generator=generator(seed, "prior")) for seed in range(4)]
    packed = pack(networks)
    x = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
    votes = sum(packed.scores(x, member=k)[:, 0] >= 0 for k in range(4))
    assert (votes == 2).any()
    assert np.array_equal(packed.predict(x), np.where(votes >= 2, 1, -1))
    certain = anytime(packed, x, alpha=0)
    assert np.array_equal(certain.prediction.numpy(), packed.predict(x))
    up = certain.probability.numpy()[:, 1]
    assert np.array_equal(certain.prediction.numpy(), np.where(up >= 0.5, 1, -1))


def test_the_grid_is_that_of_ensembles_of_torch():
    """Written twice, as one module does without torch."""
    assert GRID == ensembles.GRID
