"""Entropy, variance, calibration, coverage and detection, against loops and other libraries."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score
from torch.distributions import Categorical

from pbnn.seeding import generator
from pbnn.uncertainty import (
    area_under_error_coverage,
    auroc,
    calibration_error,
    ensemble_variance,
    error_coverage,
    fitted_temperature,
    predictive_entropy,
    reliability,
)


def uniform(*shape, of, dtype=torch.float64):
    return torch.rand(*shape, generator=generator(0, of), dtype=dtype)


def simplex(*shape, of, dtype=torch.float64):
    weights = uniform(*shape, of=of, dtype=dtype).pow(3)
    return weights / weights.sum(-1, keepdim=True)


def values(count, of):
    """Uncertainties with many ties, an infinite one among them."""
    tied = (10 * uniform(count, of=of)).round() / 10
    tied[0] = math.inf
    return tied


def test_entropy_is_that_of_the_distribution():
    p = simplex(4, 5, 10, of="entropy")
    torch.testing.assert_close(predictive_entropy(p), Categorical(probs=p).entropy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_entropy_at_the_edges_is_exact_and_its_gradient_finite(dtype):
    p = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25] * 4], dtype=dtype, requires_grad=True)
    entropy = predictive_entropy(p)
    assert entropy[0] == 0
    assert entropy[1].item() == pytest.approx(math.log(4), rel=1e-2)
    entropy.sum().backward()
    assert p.grad.isfinite().all()


def test_entropy_of_a_rare_class_keeps_its_digits():
    found = predictive_entropy(torch.tensor([1.0, 1e-30])).item()
    assert found == pytest.approx(30e-30 * math.log(10), rel=1e-5)


def test_entropy_has_its_gradient():
    p = simplex(3, 4, of="gradient").requires_grad_()
    assert torch.autograd.gradcheck(predictive_entropy, p)


def test_variance_is_the_trace_of_the_covariance():
    members = simplex(7, 5, 4, of="variance")
    found = ensemble_variance(members)
    for example in range(5):
        trace = torch.cov(members[:, example].T).trace()
        assert found[example].item() == pytest.approx(trace.item())


def test_variance_is_half_the_mean_squared_distance_of_two_members():
    members = simplex(6, 5, 4, of="pairs")
    pairs = list(itertools.combinations(members, 2))
    distance = sum((a - b).square().sum(-1) for a, b in pairs) / len(pairs)
    torch.testing.assert_close(ensemble_variance(members), distance / 2)


def test_variance_of_votes_is_the_gini_impurity_of_their_shares():
    votes = torch.eye(3, dtype=torch.float64)[torch.tensor([[0, 0], [0, 1], [2, 2], [0, 1]])]
    share = votes.mean(0)
    torch.testing.assert_close(ensemble_variance(votes), 4 / 3 * (1 - share.square().sum(-1)))


def reliability_by_loop(probabilities, y, bins):
    """Rows (confidence, accuracy, count), from one bin after another."""
    rows = []
    for j in range(bins):
        inside = [
            (max(p), p.index(max(p)) == label)
            for p, label in zip(probabilities.tolist(), y.tolist(), strict=True)
            if j / bins < max(p) <= (j + 1) / bins
        ]
        if inside:
            confidence, right = zip(*inside, strict=True)
            rows.append((sum(confidence) / len(inside), sum(right) / len(inside), len(inside)))
    return rows


@pytest.mark.parametrize("bins", [1, 2, 7, 15, 100])
def test_reliability_and_its_error_are_those_of_a_loop(bins):
    p = simplex(300, 4, of="reliability")
    y = torch.randint(4, (300,), generator=generator(0, "labels"))
    table, rows = reliability(p, y, bins), reliability_by_loop(p, y, bins)
    for found, expected in zip(
        (table.confidence, table.accuracy, table.count), zip(*rows, strict=True), strict=True
    ):
        assert found.tolist() == pytest.approx(list(expected))
    error = sum(count * abs(accuracy - confidence) for confidence, accuracy, count in rows) / 300
    assert calibration_error(p, y, bins) == pytest.approx(error)
    assert error > 0.05


def test_reliability_is_the_calibration_curve_of_being_right():
    p = simplex(500, 3, of="curve", dtype=torch.float32)
    y = torch.randint(3, (500,), generator=generator(0, "curve labels"))
    confidence, prediction = p.max(1)
    accuracy, mean = calibration_curve((prediction == y).numpy(), confidence.numpy(), n_bins=15)
    table = reliability(p, y)
    assert table.accuracy.tolist() == pytest.approx(accuracy.tolist())
    assert table.confidence.tolist() == pytest.approx(mean.tolist(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_confidence_on_the_border_belongs_to_the_bin_below(dtype):
    p = torch.tensor([[0.6, 0.4], [0.8, 0.2], [1.0, 0.0], [0.61, 0.39]], dtype=dtype)
    assert reliability(p, torch.zeros(4, dtype=torch.int64), 5).count.tolist() == [1, 2, 1]


def test_labels_drawn_from_the_probabilities_are_calibrated():
    n = 100_000
    p = simplex(n, 3, of="calibrated")
    y = torch.multinomial(p, 1, generator=generator(0, "drawn"))[:, 0]
    table = reliability(p, y)
    errors = (table.confidence * (1 - table.confidence) / table.count).sqrt()
    # Within a bin confidences differ, which only makes accuracy less variable.
    assert ((table.accuracy - table.confidence).abs() <= 5 * errors).all()
    assert calibration_error(p, y) <= 5 * (table.count * errors).sum().item() / n


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    p = torch.eye(2)[[0, 1, 1]]
    assert calibration_error(p, torch.tensor([0, 1, 1])) == 0
    assert calibration_error(p, torch.tensor([1, 0, 0])) == 1


def test_error_coverage_counts_examples_up_to_every_threshold():
    uncertainty, wrong = values(200, "coverage"), uniform(200, of="wrong") < 0.3
    coverage, error = error_coverage(uncertainty, wrong)
    thresholds = sorted(set(uncertainty.tolist()))
    assert len(coverage) == len(error) == len(thresholds)
    for place, threshold in enumerate(thresholds):
        covered = [w for u, w in zip(uncertainty, wrong.tolist(), strict=True) if u <= threshold]
        assert coverage[place].item() == pytest.approx(len(covered) / 200)
        assert error[place].item() == pytest.approx(sum(covered) / len(covered))
    assert coverage[-1] == 1


def test_the_order_of_examples_is_of_no_account():
    uncertainty, wrong = values(100, "order"), uniform(100, of="order wrong") < 0.3
    shuffled = torch.randperm(100, generator=generator(0, "shuffle"))
    for one, other in zip(
        error_coverage(uncertainty, wrong),
        error_coverage(uncertainty[shuffled], wrong[shuffled]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_area_is_the_mean_error_of_the_examples_at_least_as_certain():
    uncertainty, wrong = values(60, "area"), uniform(60, of="area wrong") < 0.4
    errors = [wrong[uncertainty <= u].double().mean().item() for u in uncertainty]
    assert area_under_error_coverage(uncertainty, wrong) == pytest.approx(sum(errors) / 60)


def test_the_area_is_least_when_the_wrong_ones_are_the_most_uncertain():
    wrong = torch.tensor([True, False, False, True, False])
    areas = {
        order: area_under_error_coverage(torch.tensor(order, dtype=torch.float64), wrong)
        for order in itertools.permutations(range(5))
    }
    best = [order for order, area in areas.items() if area == min(areas.values())]
    assert all({order[0], order[3]} == {3, 4} for order in best)
    constant = area_under_error_coverage(torch.zeros(5), wrong)
    assert min(areas.values()) < constant == pytest.approx(0.4)


def test_auroc_counts_pairs():
    inside, outside = values(40, "inside"), values(30, "outside") + 0.1
    pairs = [(v > u) + (v == u) / 2 for u in inside.tolist() for v in outside.tolist()]
    assert auroc(inside, outside) == pytest.approx(sum(pairs) / 1200)
    assert auroc(inside, outside) + auroc(outside, inside) == pytest.approx(1)


def test_auroc_is_that_of_scikit_learn():
    inside, outside = uniform(400, of="in").round(decimals=2), uniform(300, of="out").sqrt()
    label = [0] * 400 + [1] * 300
    expected = roc_auc_score(label, torch.cat([inside, outside]).numpy())
    assert auroc(inside, outside) == pytest.approx(expected)


def test_auroc_at_its_ends_and_in_the_middle():
    low, high = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
    assert (auroc(low, high), auroc(high, low), auroc(low, low)) == (1.0, 0.0, 0.5)


P, Y = torch.full((3, 2), 0.5), torch.zeros(3, dtype=torch.int64)
CALLS = [
    (lambda: predictive_entropy(P - 1), r"`probabilities` must lie in \[0, 1\], got -0.5 to -0.5"),
    (lambda: predictive_entropy(P * math.nan), r"`probabilities` must lie in \[0, 1\], got nan"),
    (lambda: ensemble_variance(P[None]), r"`members` .* \(M, n, K\) with M ≥ 2, got \(1, 3, 2\)"),
    (lambda: ensemble_variance(P), r"`members` .* \(M, n, K\) with M ≥ 2, got \(3, 2\)"),
    (lambda: ensemble_variance(4 * P.expand(2, 3, 2)), r"`members` must lie in \[0, 1\], got 2"),
    (lambda: calibration_error(P[0], Y), r"`probabilities` must have shape \(n, K\) .* got \(2,\)"),
    (lambda: calibration_error(P[:0], Y[:0]), r"with n ≥ 1, got \(0, 2\)"),
    (lambda: calibration_error(4 * P, Y), r"`probabilities` must lie in \[0, 1\], got 2.0 to 2.0"),
    (lambda: calibration_error(P, Y[:2]), r"`y` must have shape \(3,\), got \(2,\)"),
    (lambda: calibration_error(P, Y + 2), "`y` must hold classes 0 to 1, got 2 to 2"),
    (lambda: calibration_error(P, Y - 1), "`y` must hold classes 0 to 1, got -1 to -1"),
    (lambda: calibration_error(P, Y, 0), "`bins` must be a positive integer, got 0"),
    (lambda: error_coverage(P, Y > 0), r"`uncertainty` must have shape \(n,\) .* got \(3, 2\)"),
    (lambda: error_coverage(P[:0, 0], Y[:0] > 0), "`uncertainty` must have shape .* with n ≥ 1"),
    (lambda: error_coverage(P[:, 0], Y[:2] > 0), r"`wrong` must have shape \(3,\), got \(2,\)"),
    (lambda: error_coverage(P[:, 0] * math.nan, Y > 0), "`uncertainty` must hold numbers, got NaN"),
    (lambda: auroc(P, P[0]), "`inside` must have shape"),
    (lambda: auroc(P[0], P[0, :0]), "`outside` must have shape"),
    (lambda: auroc(P[0], P[0] * math.nan), "`outside` must hold numbers, got NaN"),
]


@pytest.mark.parametrize(("call", "message"), CALLS)
def test_values_outside_their_domain_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match=r"`wrong` must be boolean, got torch\.int64"):
        error_coverage(P[:, 0], Y)
    with pytest.raises(
        TypeError, match=r"`probabilities` must be floating-point, got torch\.int64"
    ):
        predictive_entropy(Y)


def test_the_temperature_that_made_the_labels_is_found():
    scores = torch.randn(20_000, 5, generator=generator(0, "scores"), dtype=torch.float64)
    labels = torch.multinomial((scores / 0.4).softmax(1), 1, generator=generator(0, "y"))[:, 0]
    found = fitted_temperature(scores, labels)
    assert found == pytest.approx(0.4, rel=0.05)
    assert fitted_temperature(7 * scores + 3, labels) == pytest.approx(7 * found, rel=1e-4)

    def loss(temperature):
        return torch.nn.functional.cross_entropy(scores / temperature, labels)

    assert loss(found) < min(loss(found * 1.01), loss(found / 1.01))


def test_scores_that_are_always_right_are_as_good_as_votes():
    temperature = fitted_temperature(torch.eye(3), torch.arange(3))
    assert 1e-3 < temperature < 0.03  # a softmax of odds above e³³


@pytest.mark.parametrize("bad", [torch.zeros(0, 2), torch.zeros(2), torch.tensor([[math.nan, 0]])])
def test_a_temperature_needs_finite_scores(bad):
    with pytest.raises(ValueError, match="`scores` must be finite, of shape"):
        fitted_temperature(bad, torch.zeros(len(bad), dtype=torch.int64))
