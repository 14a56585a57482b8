"""Thermometer columns and kernel features against NumPy, closed forms and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.kernel_approximation import Nystroem

from pbnn import features
from pbnn.features import kernel_features, thermometer
from pbnn.seeding import generator


def normal(*shape, of, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(0, of), dtype=dtype)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("levels", [1, 3, 8])
def test_the_thresholds_are_the_quantiles_of_the_sample(levels):
    x, sample = normal(60, 2, of="x"), normal(41, 2, of="sample")
    shares = np.arange(1, levels + 1) / (levels + 1)
    cuts = np.quantile(sample.numpy(), shares, axis=0)
    expected = [x[:, [j]].numpy() > cuts[:, j] for j in range(2)]
    found = thermometer(x, sample, levels)
    assert found.dtype == x.dtype
    assert np.array_equal(found.numpy(), np.hstack(expected))
    # Of the sample's own rows, so many lie above.
    assert thermometer(sample, sample, levels).mean(0).tolist() == pytest.approx(
        [*(1 - shares)] * 2, abs=1 / 41
    )


@pytest.mark.parametrize("known", [column(2, 7, 7, 2, 2), column(3, 3, 3)])
def test_columns_with_at_most_two_values_stay(known):
    x = column(2, 7, 5, -1)
    assert torch.equal(thermometer(x, known, levels=4), x)
    three = torch.cat([known, column(9, 11)])
    assert not torch.equal(thermometer(x, three, levels=1), x)


def test_a_column_that_is_mostly_least_is_cut_there_and_among_the_others():
    above = [2.0, 3.0, 4.0, 5.0]
    sample = column(*[1.0] * 5, *above)
    cuts = [1.0, *np.quantile(above, [1 / 3, 2 / 3])]
    x = column(0, 1, 1.01, 2.9, 3.1, 3.9, 4.1)
    assert thermometer(x, sample, 2).tolist() == [[v > cut for cut in cuts] for v in x[:, 0]]
    # Where just half is least, the plain quantiles are good enough: 1 + (2 - 1) / 2 is one.
    sample = column(*[1.0] * 4, *above)
    x = column(1, 1.4, 1.6, 5)
    assert thermometer(x, sample, 1).tolist() == [[0], [0], [1], [1]]


def test_equal_quantiles_give_one_column():
    sample = column(0, 1, 1, 1, 1, 1, 2)
    assert thermometer(column(0.5, 1, 1.5), sample, 3).tolist() == [[0], [0], [1]]


def test_columns_come_in_their_order_each_with_its_own_number():
    sample = torch.cat([normal(9, 1, of="one"), column(*[0, 1] * 4, 0), normal(9, 1, of="two")], 1)
    x = torch.cat([normal(5, 1, of="x"), column(1, 0, 1, 0, 1), normal(5, 1, of="y")], 1)
    parts = [thermometer(x[:, [j]], sample[:, [j]], 3) for j in range(3)]
    assert [part.shape[1] for part in parts] == [3, 1, 3]
    assert torch.equal(thermometer(x, sample, 3), torch.cat(parts, 1))


def test_a_row_is_mapped_by_the_sample_alone_whose_order_does_not_matter():
    x, sample = normal(20, 3, of="x"), normal(30, 3, of="sample")
    found = thermometer(x, sample, 4)
    alone = torch.cat([thermometer(row[None], sample, 4) for row in x])
    assert torch.equal(found, alone)
    assert torch.equal(thermometer(x, sample.flip(0), 4), found)
    assert torch.equal(thermometer(torch.cat([x, 1e6 * x]), sample, 4)[:20], found)
    assert thermometer(x[:0], sample, 4).shape == (0, 12)
    assert thermometer(x.float(), sample.float(), 4).dtype == torch.float32


@pytest.mark.parametrize("levels", [0, -2])
def test_fewer_than_one_level_is_refused(levels):
    with pytest.raises(ValueError, match=f"`levels` must be a positive integer, got {levels}"):
        thermometer(column(1), column(1), levels)


@pytest.mark.parametrize(
    ("x", "sample"), [((4, 2), (5, 3)), ((4, 2), (0, 2)), ((4, 2), (2,)), ((4,), (5, 2))]
)
def test_a_sample_of_other_columns_is_refused(x, sample):
    with pytest.raises(ValueError, match="`x` and `sample` must be") as caught:
        thermometer(torch.zeros(x), torch.zeros(sample), 3)
    assert f"{x}, {sample}" in str(caught.value)


def kernel(one, other, width, landmarks):
    """The Gaussian kernel pair by pair, in units of the landmarks' median squared distance."""
    rows = landmarks.tolist()
    apart = [math.dist(a, b) ** 2 for i, a in enumerate(rows) for b in rows[:i]]
    assert len(apart) % 2  # so that there is one median
    unit = float(np.median(apart))
    pairs = [[math.dist(a, b) ** 2 for b in other.tolist()] for a in one.tolist()]
    return torch.exp(-width * torch.tensor(pairs, dtype=torch.float64) / unit)


@pytest.mark.parametrize("width", [0.5, 2.0])
def test_inner_products_of_landmarks_are_their_kernels(width):
    landmarks = normal(11, 3, of="landmarks")
    phi = kernel_features(landmarks, landmarks, width)
    expected = kernel(landmarks, landmarks, width, landmarks)
    torch.testing.assert_close(phi @ phi.T, expected, atol=1e-10, rtol=0)
    assert expected.min() < 0.2


def test_the_emphasis_scales_the_spectrum():
    landmarks = normal(11, 3, of="landmarks")
    k = kernel(landmarks, landmarks, 2.0, landmarks)
    # Directions of spread λ have λ^(1 + 2α) in the inner products, so powers of the kernel.
    for emphasis, power in ((0.5, 2), (1.0, 3)):
        phi = kernel_features(landmarks, landmarks, 2.0, emphasis)
        expected = torch.linalg.matrix_power(k, power)
        torch.testing.assert_close(phi @ phi.T, expected, atol=1e-10, rtol=1e-10)
    x = normal(5, 3, of="x")
    plain, emphasised = (kernel_features(x, landmarks, 2.0, a) for a in (0.0, 0.15))
    factors = torch.linalg.eigvalsh(k) ** 0.15
    torch.testing.assert_close(emphasised, plain * factors, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("width", [0.5, 3.0])
def test_the_features_are_those_of_scikit_learn_up_to_a_rotation(width):
    x, landmarks = normal(40, 3, of="x"), normal(15, 3, of="landmarks")
    unit = float(torch.pdist(landmarks).square().median())
    other = Nystroem(gamma=width / unit, n_components=15, random_state=0).fit(landmarks.numpy())
    expected = other.transform(x.numpy())
    found = kernel_features(x, landmarks, width).numpy()
    assert found.shape == (40, 15)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-8)
    assert not np.allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("apart", [0.0, 1e-5])
def test_landmarks_given_twice_add_a_direction_of_nothing(apart):
    some = normal(5, 2, of="landmarks")
    landmarks, x = torch.cat([some, some[:1] + apart]), normal(8, 2, of="x")
    phi, at = (kernel_features(part, landmarks, 1.0) for part in (x, landmarks))
    assert phi.isfinite().all()
    assert sorted(phi.abs().amax(0).gt(0).tolist()) == [False] + [True] * 5
    expected = kernel(landmarks, landmarks, 1.0, landmarks)
    torch.testing.assert_close(at @ at.T, expected, atol=1e-8, rtol=0)


def test_each_point_is_looked_at_alone_and_the_batch_only_bounds_memory(monkeypatch):
    x, landmarks = normal(7, 3, of="x"), normal(6, 3, of="landmarks")
    whole = kernel_features(x, landmarks, 1.0)
    alone = torch.cat([kernel_features(row[None], landmarks, 1.0) for row in x])
    torch.testing.assert_close(alone, whole, atol=1e-10, rtol=0)
    monkeypatch.setattr(features, "BATCH", 3)
    found = kernel_features(x, landmarks, 1.0)
    torch.testing.assert_close(found, whole, atol=1e-10, rtol=0)
    assert kernel_features(x[:0], landmarks, 1.0).shape == (0, 6)


def test_single_precision_comes_back_from_sums_in_double():
    x, landmarks = (normal(n, 3, of=n, dtype=torch.float32) for n in (9, 11))
    found = kernel_features(x, landmarks, 1.0)
    assert found.dtype == torch.float32
    exact = kernel_features(x.double(), landmarks.double(), 1.0)
    assert exact.dtype == torch.float64
    assert torch.equal(found, exact.float())


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan])
def test_a_width_that_is_not_positive_is_refused(width):
    points = normal(3, 2, of="x")
    with pytest.raises(ValueError, match=f"`width` must be positive, got {width}"):
        kernel_features(points, points, width)


@pytest.mark.parametrize(
    "landmarks",
    [torch.zeros(0, 2), torch.zeros(1, 2), torch.ones(5, 2), column(1, 1, 1, 1, 2).expand(5, 2)],
)
def test_landmarks_without_spread_are_refused(landmarks):
    with pytest.raises(ValueError, match="`landmarks` must hold two different rows or more"):
        kernel_features(torch.zeros(2, 2), landmarks, 1.0)
