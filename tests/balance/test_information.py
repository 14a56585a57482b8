"""Entropy and information against enumeration, scipy and what shuffling really does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pbnn.balance import entropy, histogram_entropy, mutual_information, shuffled_information


def counted(signs, labels, classes):
    table = torch.zeros(classes, 2, dtype=torch.float64)
    for sign, label in zip(signs, labels, strict=True):
        table[label, int(sign)] += 1
    return table


def test_entropies_are_those_of_scipy():
    shares = np.linspace(0, 1, 21)
    expected = [stats.entropy([p, 1 - p], base=2) for p in shares]
    np.testing.assert_allclose(entropy(torch.from_numpy(shares)), expected, atol=1e-12)
    counts = np.random.default_rng(0).integers(0, 9, (5, 7)).astype(float)
    expected = stats.entropy(counts, base=2, axis=1)
    np.testing.assert_allclose(histogram_entropy(torch.from_numpy(counts)), expected, atol=1e-12)
    assert float(histogram_entropy(torch.zeros(4))) == 0.0


def test_information_is_the_divergence_from_independence():
    table = torch.from_numpy(np.random.default_rng(1).integers(1, 50, (10, 2)).astype(float))
    joint = table / table.sum()
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    expected = (joint * (joint / apart).log2()).sum()
    found = mutual_information(table, corrected=False)
    torch.testing.assert_close(found, expected)
    bias = (2 - 1) * (10 - 1) / (2 * float(table.sum()) * math.log(2))
    torch.testing.assert_close(mutual_information(table), expected - bias)


def test_a_sign_that_never_changes_knows_nothing_and_is_not_corrected():
    table = torch.tensor([[0.0, 5.0], [0.0, 7.0]])
    assert float(mutual_information(table)) == 0.0


def test_the_correction_takes_away_the_bias_of_independent_signs():
    """Plug-in information of pure chance is positive; corrected, it is 0 within 5 errors."""
    rng = np.random.default_rng(2)
    raw, corrected = [], []
    for _ in range(400):
        table = counted(rng.random(300) < 0.3, rng.integers(0, 10, 300), 10)
        raw.append(float(mutual_information(table, corrected=False)))
        corrected.append(float(mutual_information(table)))
    error = np.std(corrected) / math.sqrt(len(corrected))
    assert abs(np.mean(corrected)) <= 5 * error
    assert np.mean(raw) > 20 * error


def test_shuffling_from_the_margins_has_the_law_of_shuffling_labels():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 120)
    signs = (labels == 1) | (rng.random(120) < 0.2)
    table = counted(signs, labels, 4)
    real = [
        float(mutual_information(counted(signs, rng.permutation(labels), 4))) for _ in range(500)
    ]
    ours = shuffled_information(table.expand(500, 4, 2), seed=4).numpy()
    assert stats.ks_2samp(real, ours).pvalue > 1e-3
    assert float(mutual_information(table)) > max(real)


def test_a_shuffling_keeps_both_margins(monkeypatch):
    table = torch.tensor([[3.0, 9.0], [0.0, 2.0], [7.0, 1.0]])
    seen = []
    original = mutual_information
    monkeypatch.setattr(
        "pbnn.balance.information.mutual_information", lambda t: seen.append(t) or original(t)
    )
    shuffled_information(table, seed=1)
    (shuffled,) = seen
    torch.testing.assert_close(shuffled.sum(0), table.sum(0).double())
    torch.testing.assert_close(shuffled.sum(1), table.sum(1).double())
    assert (shuffled >= 0).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_shuffling_is_repeated_by_its_seed(seed):
    table = torch.full((6, 4, 2), 50.0)
    first, second = (shuffled_information(table, seed) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, shuffled_information(table, seed + 1))
