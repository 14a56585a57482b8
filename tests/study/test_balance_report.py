"""The committed reports on binary networks: they follow from their records, and keep promises."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import activation_balance
import balance_claims
import balance_page
import claims
import pandas as pd
import pytest
import recipes_studied

from pbnn.reporting import records_from_csv

REPORTS = Path(__file__).resolve().parents[2] / "reports"
BALANCE = REPORTS / "activation_balance"
ACCURACY = REPORTS / "binary_accuracy"


@pytest.fixture(scope="module")
def frame():
    return balance_page.frame_of(records_from_csv(BALANCE / "records.csv"))


def test_it_is_the_default_study():
    about = json.loads((BALANCE / "study.json").read_text(encoding="utf-8"))
    assert about["command"] == "python studies/activation_balance.py --preset full"


def test_every_arm_ran_with_every_seed_at_every_threshold(frame):
    config = activation_balance.Config()
    for dataset in config.datasets:
        for network, others in recipes_studied.NETWORKS_OF.items():
            of = frame[(frame["dataset"] == dataset) & (frame["network"] == network)]
            base = recipes_studied.BASES[network]
            swept = of[of["method"] == base]
            assert sorted(swept["threshold"].unique()) == list(config.swept)
            assert len(config.swept) == 7
            for _, runs in swept.groupby("threshold"):
                assert sorted(runs["seed"]) == [0, 1, 2, 3, 4]
            axes = itertools.product(config.bases, repeat=2)
            several = [recipes_studied.bases(m, n) for m, n in axes]
            assert len(several) == 9
            for method in (*others, *(several if network in recipes_studied.AXES else ())):
                assert sorted(of["seed"][of["method"] == method]) == [0, 1, 2, 3, 4]


def test_the_recipes_are_those_of_the_code(frame):
    import dataclasses

    for row in frame.to_dict("records"):
        recipe = recipes_studied.recipe_of(recipes_studied.METHODS[row["method"]], 0.0)
        if recipe is None:
            continue
        recipe = dataclasses.replace(recipe, threshold=row["threshold"])
        stored = {k: tuple(v) if isinstance(v, list) else v for k, v in row["recipe"].items()}
        assert stored == recipe.to_dict()


def test_tables_and_claims_follow_from_the_records(frame):
    for name, expected in (
        ("table", balance_page.table_of(frame)),
        ("claims", claims.claims_of(frame, *balance_claims.CLAIMS)),
    ):
        text = expected.to_csv(index=False, lineterminator="\n", float_format="%.6g")
        assert (BALANCE / f"{name}.csv").read_text(encoding="utf-8") == text


def test_runs_come_after_those_of_their_seed(frame):
    arms = frame.set_index("key")
    after = frame[frame["after"].notna()]
    assert len(after) == 2 * 5 * (9 + 1 + 2 * (1 + 1 + 4))
    for row in after.to_dict("records"):
        before = arms.loc[row["after"]]
        assert before["method"] == ("bi_real_net" if row["role"] == "start"
                                    and row["network"] == "small_resnet" else "real")  # fmt: skip
        assert all(before[name] == row[name] for name in ("seed", "dataset", "network"))
        assert before["threshold"] == 0 or before["method"] == "real"


def test_every_verdict_may_be_given():
    claims = pd.read_csv(BALANCE / "claims.csv")
    assert set(claims["verdict"]) <= {"reproduced", "not reproduced", "inconclusive"}
    assert (claims["seeds"] >= 5).all()
    points = claims[claims["unit"] == "points of accuracy"]
    undecided = points[points["verdict"] == "inconclusive"]
    assert ((undecided["high"] - undecided["low"] <= 1) | (undecided["seeds"] >= 20)).all()


def test_the_budget_is_within_a_point_of_the_full_one(frame):
    for (dataset, network), of in frame.groupby(["dataset", "network"]):
        base = recipes_studied.BASES[network]
        long = of[of["method"] == f"{base}_long"].set_index("seed")["accuracy"]
        short = of[(of["method"] == base) & (of["threshold"] == 0)].set_index("seed")["accuracy"]
        gap = (long - short).dropna()
        assert len(gap)
        assert gap.mean() <= 0.01, (dataset, network)


def test_a_fully_binary_mlp_has_98_5_per_cent():
    table = pd.read_csv(ACCURACY / "table.csv").set_index(["dataset", "network", "method"])
    row = table.loc["mnist", "mlp", "fully_binary"]
    assert row["accuracy"] >= 0.985
    assert row["seeds"] >= 3
    # 784 pixels, three hidden layers of 1024, ten classes: pixels are real, all else signs.
    assert (row["real"], row["binary"]) == (784 * 1024, 2 * 1024**2 + 10 * 1024)


def test_a_fully_binary_lenet_has_99_per_cent():
    table = pd.read_csv(ACCURACY / "table.csv").set_index(["dataset", "network", "method"])
    row = table.loc["mnist", "lenet_3x3", "fully_binary"]
    assert row["accuracy"] >= 0.99
    assert row["seeds"] >= 3
    records = records_from_csv(ACCURACY / "records.csv")
    mine = [r for r in records if r["config"]["network"] == "lenet_3x3"]
    found = [r["measures"]["accuracy"] for r in mine]
    assert row["accuracy"] == pytest.approx(sum(found) / len(found), rel=1e-5)
    for record in mine:
        assert record["config"]["recipe"]["first"]
        assert record["config"]["recipe"]["last"]
        assert record["measures"]["binary_layers"] == 4
