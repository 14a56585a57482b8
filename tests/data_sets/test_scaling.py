"""Standardising: by the given rows alone, and never by zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from pbnn.data import standardise


def inputs(dtype=np.float64, shape=(40, 3)):
    return (5 + 3 * np.random.default_rng(1).normal(size=shape)).astype(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
def test_it_agrees_with_scikit_learn_fitted_on_the_feature_rows(dtype, tolerance):
    x, rows = inputs(dtype), [3, 17, 4, 22, 9]
    result = standardise(x, rows)
    expected = StandardScaler().fit(x[rows].astype(np.float64)).transform(x.astype(np.float64))
    assert result.dtype == dtype
    assert np.allclose(result, expected, rtol=tolerance, atol=tolerance)


def test_feature_rows_come_out_with_mean_zero_and_deviation_one():
    rows = np.arange(10, 30)
    result = standardise(inputs(shape=(40, 2, 3)), rows)
    assert np.allclose(result[rows].mean(axis=0), 0)
    assert np.allclose(result[rows].std(axis=0), 1)


@given(row=st.integers(5, 39), value=st.floats(-1e6, 1e6))
def test_no_row_depends_on_another_that_is_no_feature_row(row, value):
    x = inputs()
    before = standardise(x, range(5))
    x[row] = value
    after = standardise(x, range(5))
    assert np.array_equal(np.delete(before, row, axis=0), np.delete(after, row, axis=0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_column_constant_on_the_feature_rows_is_shifted_and_not_scaled(dtype):
    x = inputs(dtype)
    x[:7, 1] = 0.1  # whose mean over seven rows rounds to another number
    result = standardise(x, range(7))
    assert (result[:7, 1] == 0).all()
    assert np.array_equal(result[7:, 1], (x[7:, 1].astype(float) - x[0, 1]).astype(dtype))


def test_one_feature_row_shifts_only():
    x = inputs()
    assert np.array_equal(standardise(x, [2]), x - x[2])


def test_large_float32_values_keep_a_float64_mean():
    x = np.float32([[16_777_216 + 2 * i] for i in range(1000)])
    exact = np.arange(1000) - 499.5
    assert standardise(x, range(1000))[:, 0] == pytest.approx(exact / exact.std(), abs=1e-6)


def test_the_input_stays_as_it_is():
    x = inputs()
    standardise(x, [0, 1])
    assert np.array_equal(x, inputs())


@pytest.mark.parametrize(
    ("x", "rows", "error", "message"),
    [
        (inputs(), [], ValueError, "`feature_rows` must hold at least one row"),
        (inputs(), [40], ValueError, r"`feature_rows` must lie in \[0, 40\), got 40"),
        (inputs(), [-1], ValueError, "`feature_rows`.* >= 0, got -1"),
        (inputs(), [0.5], TypeError, "`feature_rows` must hold integers"),
        (inputs(), np.ones(40, dtype=bool), TypeError, "`feature_rows` must hold integers"),
        (inputs()[:, 0], [1], ValueError, r"`x` must have shape \(N, ...\), got \(40,\)"),
        (np.ones((2, 2), dtype=int), [0], TypeError, "`x` must be a float32 or float64.*int64"),
        ([[1.0]], [0], TypeError, "`x` must be a float32 or float64 array, got list"),
        (np.array([[np.nan], [1]]), [1], ValueError, "`x` must be finite"),
        (np.float32([[0], [1e-9], [3e38]]), [0, 1], ValueError, "beyond float32 once.* in row 2"),
        (np.array([[1e308], [-1e308]]), [0, 1], ValueError, "beyond float64"),
        (np.array([[0.0], [1e-200]]), [0, 1], ValueError, "beyond float64"),
    ],
)
def test_bad_input_is_refused(x, rows, error, message):
    with pytest.raises(error, match=message):
        standardise(x, rows)
