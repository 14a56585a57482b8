"""The study of activation balance on little work, and the claims it reads from its runs."""

from __future__ import annotations

import math

import activation_balance
import balance_bases
import balance_claims
import balance_runs
import claims
import numpy as np
import pandas as pd
import pytest
import recipes_studied
import torch
from common import Where
from measured import saved_bytes
from scipy import stats

from pbnn.binarize import binary_layers
from pbnn.data import load
from pbnn.reporting import records_from_csv
from pbnn.seeding import generator


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two data points of every arm at the first learning rate, on the bundled digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes_studied.SHARED, "batch", 64)
        for network, arms in recipes_studied.NETWORKS_OF.items():
            few = {arm: more for arm, more in arms.items() if not arm.endswith("_slow")}
            patch.setitem(recipes_studied.NETWORKS_OF, network, few)
        folder = tmp_path_factory.mktemp("study")
        config = activation_balance.Config(
            preset="quick", datasets=("digits",), thresholds=(0.4,), bases=(1, 2),
            out=folder, offline=True,
        )  # fmt: skip
        patch.setattr("measured.ROUNDS", 2)
        activation_balance.study(config)
        yield config, folder


def test_the_table_has_a_row_for_each_arm_and_the_columns_asked_for(finished):
    _, folder = finished
    table = pd.read_csv(folder / "table.csv")
    first = ["dataset", "network", "method", "threshold", "seeds", "accuracy", "accuracy_std"]
    first += ["entropy", "dead", "flip", "information"]
    assert list(table.columns[: len(first)]) == first
    arms = [(m, n) for n, others in recipes_studied.NETWORKS_OF.items() for m in others]
    arms += [(recipes_studied.bases(m, n), "small_lenet") for m in (1, 2) for n in (1, 2)]
    bases = [(base, n) for n, base in recipes_studied.BASES.items()]
    assert sorted(zip(table["method"], table["network"], strict=True)) == sorted(arms + 2 * bases)
    assert (table["seeds"] == 2).all()
    binary = table[table["method"] != "real"]
    assert binary["entropy"].between(0, 1).all()
    assert table[table["method"] == "real"]["entropy"].isna().all()
    # Thresholds do what they are for.
    swept = binary[binary["method"] == "bi_real_net"].set_index("threshold")
    assert swept["share"][0.4] < swept["share"][0.0]


def test_every_claim_has_an_interval_and_a_verdict(finished):
    _, folder = finished
    found = pd.read_csv(folder / "claims.csv")
    names = {"system", "claim", "effect", "low", "high", "seeds", "verdict"}
    assert names <= set(found.columns)
    systems = {"unbalanced", "IR-Net", "SD-BNN", "ABC-Net", "noisy supervision", "ReActNet"}
    assert set(found["system"]) == systems
    assert (found["low"] <= found["effect"]).all()
    assert (found["effect"] <= found["high"]).all()
    for row in found.to_dict("records"):
        if row["verdict"] == "inconclusive":
            (narrow,) = {n for unit, _, n in claims.UNITS.values() if unit == row["unit"]}
            assert row["high"] - row["low"] <= 2 * narrow or row["seeds"] >= 20


def test_it_goes_on_from_its_records_and_redraws_the_same(finished, monkeypatch):
    config, folder = finished
    files = ("table.csv", "claims.csv", "balance.md", "layers.svg", "preactivations.svg")
    before = {name: (folder / name).read_bytes() for name in files}
    monkeypatch.setattr(activation_balance, "run", lambda *a, **k: pytest.fail("it ran again"))
    activation_balance.study(config)
    activation_balance.study(activation_balance.Config(out=folder, redraw=True))
    assert {name: (folder / name).read_bytes() for name in files} == before


def test_images_to_train_on_to_choose_by_and_to_test_on_are_apart(monkeypatch, tmp_path):
    task, seen = load("digits"), []
    parts = balance_runs.splits_of(task)
    groups = [set(part.tolist()) for part in (parts.certification, parts.prior, parts.test)]
    assert not groups[0] & groups[1]
    assert not groups[2] & (groups[0] | groups[1])
    assert len(groups[1]) == (len(task.y) - len(groups[2])) // 6
    original = balance_runs.fit

    def watched(objective, x, y, *args, **options):
        seen.append((x, y))
        return original(objective, x, y, *args, **options)

    tested = []
    accuracy = balance_runs.accuracy
    monkeypatch.setattr(balance_runs, "fit", watched)
    monkeypatch.setattr(
        balance_runs, "accuracy", lambda net, x, y: tested.append(y) or accuracy(net, x, y)
    )
    config = activation_balance.Config(preset="quick", datasets=("digits",), seeds=1)
    cell = activation_balance.cells_of(config, {"digits": task})[0].config
    balance_runs.run(cell, Where(tmp_path, None, True, "cpu", False))
    ((x, y),) = seen
    assert np.array_equal(x.numpy(), task.x[parts.certification])
    assert np.array_equal(y.numpy(), task.y[parts.certification])
    valid, test = tested  # each once, the test images last
    assert np.array_equal(valid.numpy(), task.y[parts.prior])
    assert np.array_equal(test.numpy(), task.y[parts.test])


def test_runs_of_a_seed_start_alike():
    """Whatever the recipe, the same weights: what is compared differs in its recipe alone."""
    config = activation_balance.Config(preset="quick", datasets=("digits",), seeds=2)
    cells = [
        cell.config for cell in activation_balance.cells_of(config, {"digits": load("digits")})
    ]
    assert {cell["method"] for cell in cells} >= {"real", "ir_net", "react_net", "noisy_0.1"}
    first = {}
    for cell in cells:
        network = balance_runs.network_of(cell, (1, 8, 8), 10)
        weights = torch.cat([p.flatten() for n, p in network.named_parameters()
                             if n.endswith("weight") and "shift" not in n
                             and "binariser" not in n])  # fmt: skip
        start = first.setdefault((cell["network"], cell["seed"]), weights)
        assert torch.equal(weights, start), cell["method"]
    assert len(first) == 4
    assert not torch.equal(first["small_lenet", 0], first["small_lenet", 1])


def test_the_biases_of_normalisations_before_signs_alone_are_moved():
    config = activation_balance.Config(preset="quick", datasets=("digits",), seeds=1)
    cells = [
        cell.config for cell in activation_balance.cells_of(config, {"digits": load("digits")})
    ]
    (cell,) = (cell for cell in cells if cell["method"] == "xnor_net_bias")
    network = balance_runs.network_of(cell, (1, 8, 8), 10)
    biases = [m.bias for m in network.modules() if hasattr(m, "running_mean")]
    assert [float(bias.mean().detach()) for bias in biases] == pytest.approx([-0.4, -0.4, 0.0, 0.0])


def cells_by_arm(finished):
    config, _ = finished
    cells = activation_balance.cells_of(config, {"digits": load("digits")})
    return {(c.config["network"], c.config["method"], c.config["threshold"], c.config["seed"]): c
            for c in cells}  # fmt: skip


@pytest.mark.parametrize(
    ("network", "method", "before"),
    [("small_resnet", "noisy_0.1", "bi_real_net"), ("small_resnet", "noisy_off", "bi_real_net"),
     ("small_resnet", "bi_real_net_tuned", "bi_real_net"), ("small_lenet", "abc_net_2x1", "real")],
)  # fmt: skip
def test_what_comes_after_a_run_starts_at_its_network(finished, network, method, before):
    from safetensors.torch import load_file

    cells = cells_by_arm(finished)
    for seed in (0, 1):
        (cell,) = (cells[k].config for k in cells if k[:2] == (network, method) and k[3] == seed)
        threshold = None if before == "real" else 0.0
        assert cell["after"] == cells[network, before, threshold, seed].key
        state = load_file(finished[1] / "runs" / f"{cell['after']}.safetensors")
        start = balance_runs.network_of(cell, (1, 8, 8), 10, state)
        for name, layer in binary_layers(start).items():
            assert torch.equal(layer.weight, state[f"{name}.weight"])
            if before != "real":
                assert torch.equal(layer.signs(), torch.where(layer.weight >= 0, 1.0, -1.0))


def test_a_teacher_is_the_trained_real_network_and_nothing_starts_there(finished, monkeypatch):
    seen = {}

    def watched(cell, objective, x, y, progress, looks):
        (teacher,) = objective._teacher
        seen.update(network=objective.network.net, teacher=teacher)
        raise RuntimeError("seen")

    monkeypatch.setattr(balance_runs, "training", watched)
    cells, folder = cells_by_arm(finished), finished[1]
    cell = cells["small_resnet", "react_net", 0.0, 1].config
    with pytest.raises(RuntimeError, match="seen"):
        balance_runs.run(cell, Where(folder / "runs", None, True, "cpu", False))
    task = load("digits")
    parts = balance_runs.splits_of(task)
    test = torch.tensor(task.x[parts.test]), torch.tensor(task.y[parts.test])
    key = cells["small_resnet", "real", None, 1].key
    records = {r["key"]: r for r in records_from_csv(folder / "records.csv")}
    measured = balance_runs.accuracy(seen["teacher"], *test)
    assert measured == pytest.approx(records[key]["measures"]["accuracy"])
    fresh = balance_runs.network_of(cell, (1, 8, 8), 10)
    assert torch.equal(seen["network"][0][0].weight, fresh[0][0].weight)


def test_bases_are_costed(finished):
    table = pd.read_csv(finished[1] / "bases.csv").set_index(["M", "N"])
    assert sorted(table.index) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert table["binary"][2, 2] == 4 * table["binary"][1, 1]
    assert table["saved_megabytes"][1, 2] > table["saved_megabytes"][1, 1]
    assert table["gaussian_error"][1, 1] == pytest.approx(1 - 2 / math.pi, abs=2e-3)
    weights = 16 * 32 * 9 + 128 * 128
    assert table["parameter_bits"][2, 1] - table["parameter_bits"][1, 1] == weights
    assert (table["step_seconds"] > 0).all()
    assert (finished[1] / "bases.svg").exists()


def test_bytes_kept_for_a_gradient_are_those_of_its_inputs():
    net = torch.nn.utils.skip_init(torch.nn.Linear, 6, 3, bias=False)
    x, y = torch.rand(5, 6, generator=generator(0, "x")), torch.zeros(5, dtype=torch.int64)
    # The inputs, the labels, the logarithms of the probabilities, and the sum of weights.
    kept = saved_bytes(net, lambda: balance_bases.loss_of(net, x, y))
    assert kept == 4 * 5 * 6 + 8 * 5 + 4 * 5 * 3 + 4


def runs_of(method, accuracy, **more):
    return [{"method": method, "network": "small_lenet", "seed": seed, "threshold": 0.0,
             "accuracy": accuracy + 0.001 * seed} | more for seed in range(3)]  # fmt: skip


def test_bases_are_compared_along_each_axis():
    accuracies = {"1x1": 0.5, "3x1": 0.6, "1x3": 0.7, "3x3": 0.66}
    rows = [row for b, accuracy in accuracies.items() for row in runs_of(f"abc_net_{b}", accuracy)]
    found = {row["claim"]: row["effect"] for row in
             balance_claims.several_bases(pd.DataFrame(rows))}  # fmt: skip
    assert found == {
        "M = 3 beats M = 1, mean over N = 1, 3": pytest.approx(3),
        "N = 3 beats N = 1, mean over M = 1, 3": pytest.approx(13),
    }


def test_flips_and_accuracy_are_compared_at_each_learning_rate():
    rows = runs_of("xnor_net_tuned", 0.55, validation=0.5, flip=0.05)
    rows += runs_of("noisy_off", 0.5, validation=0.5, flip=0.06)
    for rate in recipes_studied.RATES:
        rows += runs_of(recipes_studied.noisy(rate), 0.6, validation=0.5, flip=0.01)
    found = {r["claim"]: r for r in balance_claims.supervised(pd.DataFrame(rows))}
    at = "learning rate 0.005, rate 0.2"
    flips = found[f"{at}: fewer signs of weights flip than in plain fine-tuning"]
    assert flips["effect"] == pytest.approx(-4)
    assert flips["unit"] == "per cent of the signs"
    assert found[f"{at} beats plain fine-tuning"]["effect"] == pytest.approx(5)
    text = "learning rate 0.005, rate 0 beats the mapping without supervision"
    assert found[text]["effect"] == pytest.approx(10)
    assert not any("0.001" in text for text in found)  # nobody ran it


def test_what_is_chosen_for_a_seed_knows_nothing_of_it():
    """Each arm is lucky with one seed, and has it in validation and test."""
    rows = []
    for arm in range(4):
        for seed in range(4):
            lucky = 0.1 * (arm == seed)
            rows.append({"arm": float(arm), "seed": seed, "validation": 0.8 + lucky + 0.001 * arm,
                         "accuracy": 0.8 + lucky})  # fmt: skip
    frame = pd.DataFrame(rows)
    arms = {float(arm): runs for arm, runs in frame.groupby("arm")}
    chosen, text = claims.chosen_apart(arms)
    assert sorted(chosen["seed"]) == [0, 1, 2, 3]
    assert (chosen["accuracy"] == 0.8).all()
    assert text == "2, 3"
    # Seed 0 alone decides nothing for itself, and all others do for it.
    frame.loc[frame["seed"] == 0, "validation"] = [0.0, 1.0, 0.0, 0.0]
    again, _ = claims.chosen_apart({float(arm): runs for arm, runs in frame.groupby("arm")})
    assert again[again["seed"] == 0]["arm"].tolist() == chosen[chosen["seed"] == 0]["arm"].tolist()


def frame_of(differences, measure="accuracy"):
    """Runs of two arms whose paired differences are these."""
    base = 0.5 + 0.2 * torch.rand(len(differences), generator=generator(0, "base")).numpy()
    seeds = range(len(differences))
    ours = pd.DataFrame({"seed": seeds, measure: base + np.asarray(differences)})
    theirs = pd.DataFrame({"seed": seeds, measure: base})
    return ours.sample(frac=1, random_state=0), theirs


def test_an_interval_is_that_of_students_test_of_the_pairs():
    differences = np.array([0.011, 0.004, 0.009, -0.002, 0.006])
    row = claims.claim("unbalanced", "text", *frame_of(differences), "accuracy")
    expected = stats.ttest_1samp(100 * differences, 0).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx(expected, abs=1e-6)
    assert row["effect"] == pytest.approx(100 * differences.mean(), abs=1e-6)
    assert row["seeds"] == 5


@pytest.mark.parametrize(
    ("differences", "options", "verdict"),
    [
        ([0.010, 0.011, 0.012], {}, "reproduced"),
        ([-0.010, -0.011, -0.012], {}, "not reproduced"),
        ([-0.010, -0.011, -0.012], {"lower": True}, "reproduced"),
        ([0.0010, -0.0010, 0.0], {}, "inconclusive"),
        ([0.010, -0.010, 0.0], {}, "needs more seeds"),
        ([0.01, -0.01] * 10, {}, "inconclusive"),  # twenty seeds, and as wide as they are
        ([0.0010, -0.0010, 0.0005], {"same": True}, "reproduced"),
        ([0.010, 0.011, 0.012], {"same": True}, "not reproduced"),
        ([0.0050, 0.0052, 0.0048], {"same": True}, "inconclusive"),
        ([0.010], {}, "needs more seeds"),
    ],
)
def test_verdicts(differences, options, verdict):
    row = claims.claim("IR-Net", "text", *frame_of(differences), "accuracy", **options)
    assert row["verdict"] == verdict
    assert math.isfinite(row["effect"])


def test_the_best_threshold_is_chosen_by_validation_and_compared_on_the_test():
    rows = []
    for threshold, validation, accuracy in ((0.0, 0.80, 0.5), (0.2, 0.90, 0.6), (0.4, 0.85, 0.9)):
        rows += [
            {"method": "xnor_net", "network": "small_lenet", "threshold": threshold, "seed": seed,
             "validation": validation, "accuracy": accuracy + 0.001 * seed, "share": 0.4}
            for seed in range(3)
        ]  # fmt: skip
    (row,) = balance_claims.unbalanced(pd.DataFrame(rows))
    assert "(0.2) beats 0" in row["claim"]
    assert row["effect"] == pytest.approx(10.0)


def test_a_difference_that_an_error_of_two_per_cent_would_notice_is_one():
    ours, theirs = frame_of([0.0035, 0.0036, 0.0034])
    theirs["accuracy"] = 0.98
    ours["accuracy"] = ours["seed"].map({0: 0.9835, 1: 0.9836, 2: 0.9834})
    row = claims.claim("SD-BNN", "text", ours, theirs, "accuracy", same=True)
    assert row["verdict"] == "not reproduced"
    assert row["claim"] == "text, to 0.20"


def test_bits_have_a_margin_of_their_own():
    wide = frame_of([0.02, -0.03, 0.05], "weight_entropy")
    row = claims.claim("IR-Net", "text", *wide, "weight_entropy")
    assert row["verdict"] == "needs more seeds"


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("datasets", ("svhn",), "`datasets` must be among"),
        ("networks", ("lenet5",), "`networks` must be among"),
        ("networks", (), "`networks` must be some"),
        ("bases", (0, 1), "`bases` must be among"),
        ("bases", (3, 3), "`bases` must be some, each once"),
        ("thresholds", (math.nan,), r"`thresholds` must lie in \[−3, 3\], got nan"),
        ("seeds", 0, "`seeds` must be a positive integer"),
    ],
)
def test_bad_configurations_are_refused(field, value, text):
    with pytest.raises(ValueError, match=text):
        activation_balance.Config(**{field: value})
