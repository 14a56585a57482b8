"""The study of activation balance on little work, and the claims it reads from its runs."""

from __future__ import annotations

import math

import activation_balance
import balance_bases
import balance_claims
import balance_runs
import numpy as np
import pandas as pd
import pytest
import recipes_studied
import torch
from scipy import stats

from pbnn.data import load
from pbnn.seeding import generator


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two data points of every arm on the bundled digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes_studied.SHARED, "batch", 64)
        folder = tmp_path_factory.mktemp("study")
        config = activation_balance.Config(
            preset="quick", datasets=("digits",), thresholds=(0.4,), bases=(1, 2),
            out=folder, offline=True,
        )  # fmt: skip
        patch.setattr(balance_bases, "ROUNDS", 2)
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
    claims = pd.read_csv(folder / "claims.csv")
    names = {"system", "claim", "effect", "low", "high", "seeds", "verdict"}
    assert names <= set(claims.columns)
    systems = {"unbalanced", "IR-Net", "SD-BNN", "ABC-Net", "noisy supervision", "ReActNet"}
    assert set(claims["system"]) == systems
    assert (claims["low"] <= claims["effect"]).all()
    assert (claims["effect"] <= claims["high"]).all()
    for row in claims.to_dict("records"):
        if row["verdict"] == "inconclusive":
            (narrow,) = (n for unit, _, n in balance_claims.UNITS.values() if unit == row["unit"])
            assert row["high"] - row["low"] <= 2 * narrow or row["seeds"] >= 20


def test_it_goes_on_from_its_records_and_redraws_the_same(finished, monkeypatch):
    config, folder = finished
    files = ("table.csv", "claims.csv", "balance.md", "layers.svg", "preactivations.svg")
    before = {name: (folder / name).read_bytes() for name in files}
    monkeypatch.setattr(activation_balance, "run", lambda *a: pytest.fail("it ran again"))
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
    balance_runs.run(cell, tmp_path, None, True, "cpu", False)
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
    lenets = [cell for cell in cells if cell["network"] == "small_lenet"]
    assert {cell["method"] for cell in lenets} >= {"real", "xnor_net", "ir_net", "sd_bnn"}
    first = {}
    for cell in lenets:
        network = balance_runs.network_of(cell, (1, 8, 8), 10)
        weights = torch.cat([p.flatten() for n, p in network.named_parameters()
                             if n.endswith("weight") and "shift" not in n])  # fmt: skip
        start = first.setdefault(cell["seed"], weights)
        assert torch.equal(weights, start), cell["method"]
    assert not torch.equal(first[0], first[1])


def test_the_biases_of_normalisations_before_signs_alone_are_moved():
    config = activation_balance.Config(preset="quick", datasets=("digits",), seeds=1)
    cells = [
        cell.config for cell in activation_balance.cells_of(config, {"digits": load("digits")})
    ]
    (cell,) = (cell for cell in cells if cell["method"] == "xnor_net_bias")
    network = balance_runs.network_of(cell, (1, 8, 8), 10)
    biases = [m.bias for m in network.modules() if hasattr(m, "running_mean")]
    assert [float(bias.mean().detach()) for bias in biases] == pytest.approx([-0.4, -0.4, 0.0, 0.0])


def frame_of(differences, measure="accuracy"):
    """Runs of two arms whose paired differences are these."""
    base = 0.5 + 0.2 * torch.rand(len(differences), generator=generator(0, "base")).numpy()
    seeds = range(len(differences))
    ours = pd.DataFrame({"seed": seeds, measure: base + np.asarray(differences)})
    theirs = pd.DataFrame({"seed": seeds, measure: base})
    return ours.sample(frac=1, random_state=0), theirs


def test_an_interval_is_that_of_students_test_of_the_pairs():
    differences = np.array([0.011, 0.004, 0.009, -0.002, 0.006])
    row = balance_claims.claim("unbalanced", "text", *frame_of(differences), "accuracy")
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
    row = balance_claims.claim("IR-Net", "text", *frame_of(differences), "accuracy", **options)
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
    assert "threshold +0.2" in row["claim"]
    assert row["effect"] == pytest.approx(10.0)


def test_a_difference_that_an_error_of_two_per_cent_would_notice_is_one():
    ours, theirs = frame_of([0.0035, 0.0036, 0.0034])
    theirs["accuracy"] = 0.98
    ours["accuracy"] = ours["seed"].map({0: 0.9835, 1: 0.9836, 2: 0.9834})
    row = balance_claims.claim("SD-BNN", "text", ours, theirs, "accuracy", same=True)
    assert row["verdict"] == "not reproduced"
    assert row["claim"] == "text, to 0.20"


def test_bits_have_a_margin_of_their_own():
    wide = frame_of([0.02, -0.03, 0.05], "weight_entropy")
    row = balance_claims.claim("IR-Net", "text", *wide, "weight_entropy")
    assert row["verdict"] == "needs more seeds"


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("datasets", ("svhn",), "`datasets` must be among"),
        ("networks", ("lenet5",), "`networks` must be among"),
        ("networks", (), "`networks` must be some"),
        ("thresholds", (math.nan,), r"`thresholds` must lie in \[−3, 3\], got nan"),
        ("seeds", 0, "`seeds` must be a positive integer"),
    ],
)
def test_bad_configurations_are_refused(field, value, text):
    with pytest.raises(ValueError, match=text):
        activation_balance.Config(**{field: value})
