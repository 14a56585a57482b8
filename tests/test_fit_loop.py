"""The fit loop on objectives whose values are told beforehand: order, schedule, choice of state."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pbnn.objectives import Objective
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit, keep_better, kl_weight


class Scripted(Objective):
    """Has the objective values it is told, a constant gradient, and records its training.

    Parameters
    ----------
    values : iterable
        The objective after each epoch; 0 after the last.
    whole : dict
        The objective on all points of an epoch's last state, where it is another.
    """

    def __init__(self, values=(), whole=()):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.values, self.whole, self.known = iter(values), dict(whole), {}
        self.batches, self.kl_weights, self.ends = [], [], []

    def forward(self, x, y, kl_weight=1.0):
        if torch.is_grad_enabled():
            self.batches.append((x, y))
            self.kl_weights.append(kl_weight)
        return self.weight + 0, x.double().mean()

    def value(self, risk):
        weight = self.weight.item()
        if weight in self.known:  # asked again, after training
            return {"objective": self.known[weight], "risk": risk}
        told = next(self.values, 0.0)
        self.known[weight] = self.whole.get(len(self.ends), told)
        self.ends.append(weight)
        return {"objective": told, "risk": risk}


def run(objective, n=6, **config):
    x = torch.arange(float(n))[:, None]
    return fit(objective, x, -x[:, 0], FitConfig(**config), generator=generator(0, "batches"))


def test_the_kept_state_is_that_at_the_end_of_the_best_epoch():
    objective = Scripted([5.0, 3.0, 4.0, 3.0, 6.0])
    curve = run(objective, epochs=5, batch=2)
    assert [row["objective"] for row in curve] == [5, 3, 4, 3, 6]
    assert len(set(objective.ends)) == 5
    assert objective.weight.item() == objective.ends[1]  # the first of equals


@pytest.mark.parametrize(
    ("whole", "kept"),
    [
        ({1: 4.5}, 4),  # the best epoch's mean flattered it, and the last state is better
        ({1: 3.9}, 1),  # flattered, and better all the same
        ({1: 4.5, 4: 4.6}, 1),
        ({4: 2.9}, 4),
        ({0: 0.0, 2: 0.0, 3: 0.0}, 1),  # states that are not looked at again
    ],
)
def test_of_the_best_epoch_and_the_last_the_better_on_all_points_is_kept(whole, kept):
    values = [5.0, 3.0, 4.0, 3.5, 4.0]
    objective = Scripted(values, whole)
    curve = run(objective, epochs=5, batch=2)
    assert [row["objective"] for row in curve] == values
    assert len(set(objective.ends)) == 5
    assert objective.weight.item() == objective.ends[kept]


def test_of_an_early_stop_the_best_epoch_and_the_last_are_compared():
    objective = Scripted([5.0, 3.0, 4.0, 4.0, 0.0], {1: 6.0})
    assert len(run(objective, epochs=5, batch=2, patience=2)) == 4
    assert objective.weight.item() == objective.ends[3]


class TwoStates(Objective):
    """Its risk is the mean of the inputs, or 0.4 once the weight is negative."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, y, kl_weight=1.0):
        mean = x.mean() if self.weight >= 0 else torch.tensor(0.4)
        return mean + 0 * self.weight, mean

    def value(self, risk):
        self.last_risk = risk
        return {"objective": risk, "risk": risk}


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 100])
@pytest.mark.parametrize(
    ("x", "kept"),
    [([0.0, 0.0, 0.0, 1.0], 1.0), ([1.0, 1.0, 0.0, 0.0], -1.0), ([0.5, 0.5, 0.5, 0.0], 1.0)],
)
@pytest.mark.parametrize("last", [1.0, -1.0])
def test_the_better_state_is_found_by_the_mean_over_points_whatever_the_batch(x, kept, batch, last):
    objective, x = TwoStates(), torch.tensor(x)[:, None]
    objective.weight.data.fill_(last)
    keep_better(objective, {"weight": torch.tensor(-last)}, x, x[:, 0], batch)
    assert objective.weight.item() == kept
    assert objective.weight.requires_grad
    # The best epoch's state is looked at after the last.
    assert objective.last_risk == pytest.approx(x.mean().item() if last < 0 else 0.4)


@pytest.mark.parametrize(
    ("values", "patience", "epochs"),
    [
        ([5, 4, 3, 4, 4, 4, 4, 4], 2, 5),
        ([5, 4, 3, 3, 3, 3, 3, 3], 1, 4),
        ([5, 6, 4, 6, 6, 3, 6, 6], 3, 8),
        ([5, 6, 4, 6, 6, 6, 6, 6], 3, 6),
        ([5, 6, 6, 6, 6, 6, 6, 6], 0, 8),
    ],
)
def test_patience_counts_epochs_without_a_better_objective(values, patience, epochs):
    curve = run(Scripted(map(float, values)), epochs=8, batch=6, patience=patience)
    assert len(curve) == epochs


def test_patience_does_not_count_while_the_weight_of_the_kl_rises():
    rising = [float(value) for value in range(20)]
    assert len(run(Scripted(rising), epochs=20, batch=6, patience=2)) == 3
    # The weight is below 1 through epoch 8 (after 9/20 of the training) and 1 from epoch 9 on.
    late = run(Scripted(rising), epochs=20, batch=6, patience=2, kl_warmup=0.5)
    assert [row["epoch"] for row in late] == list(range(11))


def test_the_weight_of_the_kl_rises_in_every_step():
    objective = Scripted()
    run(objective, epochs=4, batch=2, kl_warmup=0.5, patience=0)
    assert objective.kl_weights == pytest.approx([min(1, k / 6) for k in range(1, 13)])
    constant = Scripted()
    run(constant, epochs=4, batch=2, patience=0)
    assert constant.kl_weights == [1.0] * 12


def test_the_weight_of_the_kl_is_a_ramp():
    assert [kl_weight(share, 0.4) for share in (0, 0.1, 0.2, 0.4, 1)] == [0, 0.25, 0.5, 1, 1]
    assert kl_weight(0.001, 0) == 1


@pytest.mark.parametrize(
    ("n", "batch", "sizes"),
    [(8, 3, [3, 3, 2]), (7, 3, [3, 4]), (3, 1, [1, 1, 1]), (4, 2, [2, 2]), (1, 2, [1])],
)
def test_a_point_left_over_joins_the_last_batch(n, batch, sizes):
    """Alone it would have no variance for a batch normalisation."""
    objective = Scripted()
    run(objective, n=n, epochs=2, batch=batch)
    assert [len(x) for x, _ in objective.batches] == sizes * 2


def test_every_epoch_visits_every_point_once_in_a_new_order():
    objective = Scripted()
    curve = run(objective, n=7, epochs=3, batch=3, patience=0)
    orders = []
    for start in (0, 2, 4):
        epoch = objective.batches[start : start + 2]
        orders.append([value for x, _ in epoch for value in x[:, 0].tolist()])
        assert all(torch.equal(y, -x[:, 0]) for x, y in epoch)
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    # The risk of an epoch is the mean over points, also when the last batch is smaller.
    assert [row["risk"] for row in curve] == pytest.approx([3.0] * 3)


def test_the_learning_rate_peaks_after_a_tenth_of_the_steps():
    rates = []
    handle = register_optimizer_step_pre_hook(
        lambda optimiser, *_: rates.append(optimiser.param_groups[0]["lr"])
    )
    try:
        run(Scripted(), epochs=100, batch=6, learning_rate=0.1, patience=0)
    finally:
        handle.remove()
    assert len(rates) == 100
    assert rates[9] == max(rates) == pytest.approx(0.1)
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[0] < 0.01
    assert rates[-1] < 1e-4


@pytest.mark.parametrize("epochs", range(1, 13))
def test_any_number_of_steps_will_do(epochs):
    assert len(run(Scripted(), epochs=epochs, batch=6, patience=0)) == epochs


def test_each_epoch_is_augmented_from_the_original_points():
    seen = []

    def augment(x, source):
        seen.append(x.clone())
        return x + 100 * torch.rand(1, generator=source)

    x = torch.arange(4.0)[:, None]
    objective = Scripted()
    source = generator(0, "batches")
    fit(objective, x, x[:, 0], FitConfig(epochs=3, batch=4), generator=source, augment=augment)
    assert all(torch.equal(before, x) for before in seen)
    assert len(seen) == 3
    offsets = [(given - y[:, None]).mean().item() for given, y in objective.batches]
    assert len(set(offsets)) == 3


def test_the_objective_is_compiled_on_request(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    objective = Scripted()
    run(objective, epochs=1, batch=6)
    assert compiled == []
    run(objective, epochs=1, batch=6, compile=True)
    assert compiled == [objective]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", -3),
        ("batch", 0),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("kl_warmup", -0.1),
        ("kl_warmup", 1.1),
        ("kl_warmup", math.nan),
        ("patience", -1),
        ("weight_decay", -0.1),
        ("frozen_from", 1.5),
        ("optimiser", "'adamw'"),
        ("keep", "'first'"),
    ],
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must .*, got {value}"):
        FitConfig(**{name: value.strip("'") if isinstance(value, str) else value})


def test_what_follows_a_step_and_an_epoch_is_told_where_the_training_is():
    shares, epochs, modes = [], [], []
    objective, x = Scripted(), torch.arange(6.0)[:, None]

    def after_epoch(epoch):
        epochs.append(epoch)
        modes.append(objective.training)
        objective.eval()

    fit(
        objective,
        x,
        x[:, 0],
        FitConfig(epochs=3, batch=3),
        generator=generator(0, "batches"),
        after_step=shares.append,
        after_epoch=after_epoch,
    )
    assert shares == pytest.approx([k / 6 for k in range(1, 7)])
    assert epochs == [1, 2, 3]
    assert modes == [True, True, True]  # whatever was looked at in between


def test_the_last_epoch_is_kept_without_another_look():
    objective = Scripted([3.0, 1.0, 2.0])
    run(objective, epochs=3, batch=6, keep="last")
    steps = objective.weight.item()
    again = Scripted([3.0, 1.0, 2.0])
    run(again, epochs=3, batch=6)
    assert steps != again.weight.item()
    assert not objective.training


def test_stochastic_gradient_descent_has_momentum_and_decay():
    seen = []
    handle = register_optimizer_step_pre_hook(lambda optimiser, *_: seen.append(optimiser))
    try:
        run(Scripted(), epochs=1, batch=6, optimiser="sgd", weight_decay=0.25)
    finally:
        handle.remove()
    assert isinstance(seen[0], torch.optim.SGD)
    assert seen[0].param_groups[0]["weight_decay"] == 0.25
    assert seen[0].param_groups[0]["momentum"] > 0


@pytest.mark.parametrize(("share", "moving"), [(1.0, 8), (0.5, 4), (0.0, 0)])
def test_batch_statistics_are_frozen_from_a_share_of_the_steps_on(share, moving):
    norm = torch.nn.BatchNorm1d(2)

    class Normalised(Scripted):
        def __init__(self):
            super().__init__()
            self.norm = norm

        def forward(self, x, y, kl_weight=1.0):
            norm(x.expand(-1, 2))
            return super().forward(x, y, kl_weight)

    x = torch.arange(8.0)[:, None]
    config = FitConfig(epochs=4, batch=4, frozen_from=share, keep="last")
    fit(Normalised(), x, x[:, 0], config, generator=generator(0, "batches"))
    assert int(norm.num_batches_tracked) == moving
