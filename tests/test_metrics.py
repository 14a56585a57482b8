"""Metrics over batches are those of all points; they reset, sum, copy and pickle."""

from __future__ import annotations

import math
import pickle
from functools import partial

import pytest
import torch
from torch import Tensor

from pbnn.bounds import catoni, clopper_pearson, maurer
from pbnn.posteriors import GaussianPosterior
from pbnn.seeding import generator
from pbnn.uncertainty import calibration_error

MetricCollection = pytest.importorskip("torchmetrics").MetricCollection
from pbnn.metrics import CalibrationError, GibbsBound  # noqa: E402

Batch = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def scores() -> Batch:
    source = generator(0, "scores")
    values = torch.randn(103, 3, generator=source)
    return values, (values + torch.randn(103, 3, generator=source)).argmax(1)


def told(metric: GibbsBound, scores: Batch, size: int = 10) -> GibbsBound:
    for x, y in zip(*(part.split(size) for part in scores), strict=True):
        metric.update(x, y)
    return metric


@pytest.mark.parametrize("bound", [maurer, partial(catoni, C=2.0)])
def test_the_bound_of_batches_is_that_of_all_points(scores, bound):
    x, y = scores
    risk = float((x.argmax(1) != y).double().mean())
    metric = told(GibbsBound(7.5, delta=0.1, choices=4, bound=bound), scores)
    assert metric.compute().item() == pytest.approx(bound(risk, 7.5, 103, delta=0.025), rel=1e-12)
    assert metric.losses.dtype == torch.float64
    assert metric.count.dtype == torch.int64
    assert metric.count.item() == 103


def test_losses_of_a_risk_that_is_known_exactly():
    losses = torch.rand(50, generator=generator(0, "losses"), dtype=torch.float64)
    metric = GibbsBound(1.0)
    for part in losses.split(7):
        metric.update(part)
    assert metric.compute().item() == pytest.approx(maurer(float(losses.mean()), 1.0, 50))


def test_points_that_a_sampler_repeats_are_not_counted_twice(scores):
    repeated = tuple(torch.cat([part, part]) for part in scores)
    once = told(GibbsBound(7.5), scores).compute()
    assert told(GibbsBound(7.5, n=103), repeated).compute() == once
    assert told(GibbsBound(7.5), repeated).compute() < once
    # Of fewer points than an epoch has, only those are evidence.
    assert told(GibbsBound(7.5, n=1000), scores).compute() == once


def test_the_divergence_is_asked_for_at_each_compute_by_copies_too(scores):
    layer = GaussianPosterior(torch.zeros(1))
    layer.mean.data.fill_(3.0)
    metric = told(GibbsBound(layer.kl), scores)
    first = metric.compute()
    layer.mean.data.fill_(1.0)
    clone = metric.clone()
    assert metric.compute() < first
    assert clone.compute() == metric.compute()
    layer.mean.data.fill_(3.0)
    assert clone.compute() == first


def test_reset_forgets_and_nothing_counted_is_no_number(scores):
    for metric in (GibbsBound(7.5), CalibrationError()):
        batch = scores if isinstance(metric, GibbsBound) else (scores[0].softmax(1), scores[1])
        metric.update(*batch)
        first = metric.compute()
        metric.reset()
        with pytest.warns(UserWarning, match="before the ``update``"):
            assert math.isnan(metric.compute())
        metric.update(*batch)
        assert metric.compute() == first


def test_a_copy_is_of_its_own_and_pickles(scores):
    metric = told(GibbsBound(7.5, n=103, bound=maurer), scores)
    other = pickle.loads(pickle.dumps(metric))
    clone = metric.clone()
    for copy in (other, clone):
        assert copy.compute() == metric.compute()
        copy.update(*scores)
        assert copy.count.item() == 206
    assert metric.count.item() == 103
    metric.persistent(True)
    restored = GibbsBound(7.5)
    restored.persistent(True)
    restored.load_state_dict(metric.state_dict())
    assert restored.count.item() == 103


def test_states_of_two_processes_sum_up(scores):
    """What one process gathers is what both hold, state after state."""
    x, y = scores
    for make, values in ((lambda: GibbsBound(7.5), x), (CalibrationError, x.softmax(1))):
        whole, *parts = make(), make(), make()
        whole.update(values, y)
        for part, at in zip(parts, (slice(0, 40), slice(40, None)), strict=True):
            part.update(values[at], y[at])
        held = [{name: getattr(part, name).clone() for name in part._reductions} for part in parts]
        for part in parts:
            names = iter(part._reductions)

            def gather(value: Tensor, group: object = None, names=names, held=held) -> list[Tensor]:
                name = next(names)
                return [each[name] for each in held]

            part.distributed_available_fn = lambda: True
            part.dist_sync_fn = gather
            assert part.compute().item() == pytest.approx(whole.compute().item(), rel=1e-12)
            own = {name: getattr(part, name) for name in part._reductions}
            assert any(all(torch.equal(own[k], v) for k, v in each.items()) for each in held)


def test_calibration_of_batches_is_the_packages_own(scores):
    values, y = scores[0].softmax(1), scores[1]
    values[:2] = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.2, 0.6]])  # certainty, and an edge of bins
    for bins in (1, 5, 15):
        metric = CalibrationError(bins)
        for x, label in zip(values.split(10), y.split(10), strict=True):
            metric.update(x, label)
        right = calibration_error(values, y, bins)
        assert metric.compute().item() == pytest.approx(right, rel=1e-12)


def test_they_go_into_a_collection_and_forward_gives_that_of_the_batch(scores):
    values, y = scores[0].softmax(1), scores[1]
    both = MetricCollection({"bound": GibbsBound(7.5), "calibration": CalibrationError()})
    batch = both(values[:50], y[:50])
    wrong = float((values[:50].argmax(1) != y[:50]).double().mean())
    assert batch["bound"].item() == pytest.approx(maurer(wrong, 7.5, 50))
    both.update(values[50:], y[50:])
    found = both.compute()
    assert found["bound"] == told(GibbsBound(7.5), (values, y)).compute()
    assert found["calibration"].item() == pytest.approx(calibration_error(values, y))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl": -1.0}, "`kl` must be at least 0"),
        ({"kl": math.nan}, "`kl` must be at least 0"),
        ({"delta": 1.3}, r"`delta` must lie in \(0, 1\), got 1.3"),
        ({"delta": 0.0}, r"`delta` must lie in \(0, 1\)"),
        ({"choices": 0}, "`count` must be at least 1"),
        ({"n": 0}, "`n` must be a positive integer"),
    ],
)
def test_what_gives_no_bound_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GibbsBound(**({"kl": 1.0} | options))


def test_what_is_no_loss_or_probability_is_refused(scores):
    with pytest.raises(ValueError, match="losses in"):
        GibbsBound(1.0).update(torch.tensor([0.5, 1.5]))
    with pytest.raises(ValueError, match="losses in"):
        GibbsBound(1.0).update(torch.full((3,), math.nan))
    with pytest.raises(ValueError, match="finite scores"):
        GibbsBound(1.0).update(torch.full((3, 2), math.nan), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="`probabilities` must lie in"):
        CalibrationError().update(*scores)
    with pytest.raises(ValueError, match="`bins` must be a positive integer"):
        CalibrationError(0)
    metric = told(GibbsBound(lambda: math.nan), scores)
    with pytest.raises(ValueError, match="`kl`"):
        metric.compute()


def test_an_epoch_chosen_by_a_bound_fails_more_often_than_it_is_paid_for():
    """Fixed predictors of one risk, of which the least bound is taken: twenty choices cost."""
    n, epochs, trials, delta, risk = 60, 20, 400, 0.2, 0.3
    source = generator(0, "choice")
    losses = (torch.rand(trials, epochs, n, generator=source) < risk).double().sum(-1)

    def bound(risk: float, kl: float, n: int, delta: float) -> float:
        return float(clopper_pearson(round(risk * n), n, delta=delta))

    failed = {}
    for choices in (1, epochs):
        metric = GibbsBound(0.0, delta=delta, choices=choices, bound=bound)
        table = {}
        for k in losses.unique().tolist():
            metric.reset()
            metric.update((torch.arange(n) < k).double())
            table[k] = metric.compute().item()
        least = [min(table[k] for k in row) for row in losses.tolist()]
        failed[choices] = sum(value < risk for value in least)
    assert failed[epochs] <= delta * trials + 4 * math.sqrt(delta * (1 - delta) * trials)
    assert failed[1] > 0.9 * trials
