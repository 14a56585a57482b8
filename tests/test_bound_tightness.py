"""The study of tightness: every bound with its arguments, on the whole grid, and its files."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import bound_tightness_page as page
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pbnn.bounds import (
    CATALOGUE,
    clopper_pearson,
    kl_inverse,
    maurer,
    split_kl,
    unexpected_bernstein,
)
from pbnn.bounds.catalogue import Bound

SCRIPT = Path(__file__).resolve().parents[1] / "studies" / "bound_tightness.py"
POINT = ["losses", "risk", "kl_per_n", "n", "delta"]
FIGURES = ("excess_by_risk", "excess_by_n", "monte_carlo")


@pytest.fixture(scope="module")
def tight():
    spec = importlib.util.spec_from_file_location("bound_tightness_under_test", SCRIPT)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def grid(tight):
    return tight.tightness(tight.Config())


@pytest.fixture(scope="module")
def wide(grid):
    return grid.pivot(index=POINT, columns="bound", values="value").reset_index()


def points(tight, losses="0/1", risk=0.1, kl=50.0, n=10_000, delta=0.05):
    return tight.Points(losses, np.array([risk]), np.array([kl]), np.array([n]), delta)


def test_every_bound_of_the_catalogue_is_compared_or_left_out_with_a_reason(tight):
    chosen, left_out = tight.compared()
    assert sorted([*chosen, *left_out]) == sorted(CATALOGUE)
    assert {"maurer_xi", "mcallester", "catoni_fixed", "alquier", "split_kl"} <= set(chosen)
    assert "empirical_bernstein" in chosen
    assert "unexpected_bernstein" in chosen
    assert left_out["renyi"] == left_out["chi_square"] == "another divergence than KL"
    assert left_out["tandem"] == "bounds on the risk of the vote"
    assert "posteriors" in left_out["recursive"]
    assert "`alquier`" in left_out["sub_gamma"]


@pytest.mark.parametrize("quantity", ["Gibbs risk", "mean loss under the posterior"])
def test_a_new_bound_is_compared_if_its_arguments_are_known(tight, monkeypatch, quantity):
    def simple(risk, kl, n, *, delta=0.05):
        return risk + kl / n + delta

    def odd(risk, kl, n, *, oddity, delta=0.05):
        return risk

    for function in (simple, odd):
        entry = Bound(function, quantity, "none", "nobody")
        monkeypatch.setitem(CATALOGUE, function.__name__, entry)
    chosen, left_out = tight.compared()
    assert "simple" in chosen
    assert left_out["odd"] == "no rule for `oddity`"
    assert dict(tight.values(points(tight)))["simple"] == pytest.approx(0.155)


def test_every_bound_has_one_row_for_each_point(tight, grid):
    count = len(tight.RISKS) * len(tight.KL_PER_N) * len(tight.SIZES)
    assert count == 405
    assert not grid.isna().any().any()
    assert set(grid["losses"]) == {"0/1", "soft"}
    for (_, _), rows in grid.groupby(["losses", "bound"]):
        assert len(rows) == len(rows[POINT].drop_duplicates()) == count
    hard, soft = (set(grid.loc[grid["losses"] == kind, "bound"]) for kind in ("0/1", "soft"))
    assert set(page.ORDER) <= hard
    assert hard - soft == {"split_kl_discrete", tight.TEST_SET, tight.TEST_HALF}
    assert soft <= hard
    assert grid["value"].between(0, 1).all()
    np.testing.assert_allclose(grid["excess"], grid["value"] - grid["risk"])


def test_the_kl_bound_with_the_exact_constant_is_never_above_its_family(tight, wide):
    for name in tight.DOMINATED:
        assert (wide["maurer_xi"] <= wide[name] + 1e-12).all(), name
    np.testing.assert_allclose(wide["catoni"], wide["maurer"])
    np.testing.assert_allclose(wide["thiemann"], wide["quadratic"])
    assert (wide["quadratic (tight)"] < wide["quadratic"]).any()
    assert (wide["quadratic (tight)"] <= wide["quadratic"] + 1e-12).all()


def test_a_right_guess_is_no_worse_than_another_and_equals_its_closed_form(wide):
    for name in ("catoni_fixed", "alquier"):
        right = wide[f"{name} (right guess)"]
        assert (right <= wide[name] + 1e-6).all()
        guessed = (wide["risk"] == 0.02) & (wide["kl_per_n"] == 0.01)
        np.testing.assert_allclose(right[guessed], wide.loc[guessed, name])
        assert (right < wide[name] - 1e-6).any()
    some = wide[wide["risk"] > 0]
    price = -np.log(some["delta"]) / some["n"]
    best = kl_inverse(some["risk"].to_numpy(), (some["kl_per_n"] + price).to_numpy())
    np.testing.assert_allclose(some["catoni_fixed (right guess)"], best, rtol=1e-12)
    hoeffding = some["risk"] + np.sqrt((some["kl_per_n"] + price) / 2)
    np.testing.assert_allclose(some["alquier (right guess)"], hoeffding.clip(upper=1), rtol=1e-12)


def test_losses_of_0_or_1_have_their_risk_as_second_moment_and_the_largest_variance(tight):
    found = dict(tight.values(points(tight)))
    expected = unexpected_bernstein(0.1, 50.0, 10_000, second_moment=0.1)
    assert found["unexpected_bernstein"] == pytest.approx(expected)
    sample = np.repeat([1.0, 0.0], [1_000, 9_000])
    assert tight.KNOWN["variance"](points(tight)) == pytest.approx(sample.var(ddof=1))
    both = maurer(0.1, 50.0, 10_000, delta=0.025)
    assert found["split_kl"] == pytest.approx(both, rel=1e-12)
    assert found["split_kl (right guess)"] == pytest.approx(both, rel=1e-12)
    assert found["split_kl_discrete"] == pytest.approx(found["maurer"], rel=1e-15)
    assert found[tight.TEST_SET] == clopper_pearson(1_000, 10_000)
    assert found[tight.TEST_HALF] == clopper_pearson(500, 5_000)


def test_the_number_of_errors_of_the_test_set_is_the_nearest(tight):
    found = dict(tight.values(points(tight, risk=0.005, n=100)))
    assert found[tight.TEST_SET] == clopper_pearson(1, 100)
    assert found[tight.TEST_HALF] == clopper_pearson(0, 50)


@pytest.mark.parametrize("risk", [0.001, 0.02, 0.4])
def test_soft_losses_are_beta_distributed(tight, risk):
    at = points(tight, "soft", risk=risk)
    law = stats.beta(49 * risk, 49 * (1 - risk))
    assert law.var() == pytest.approx(0.02 * risk * (1 - risk))
    assert tight.KNOWN["second_moment"](at) == pytest.approx(law.moment(2))
    for mu in (0.02, risk):
        above = law.expect(lambda x, mu=mu: max(0.0, x - mu), lb=mu, ub=1)
        arguments = tight.split(at, np.array([mu]))
        assert arguments["plus"] == pytest.approx(above, rel=1e-6)
        assert arguments["plus"] - arguments["minus"] == pytest.approx(risk - mu)
        assert arguments["minus"] >= 0


def test_soft_losses_are_split_at_the_guess_or_at_their_risk(tight):
    at = points(tight, "soft")
    found = dict(tight.values(at))
    for name, mu in (("split_kl", 0.02), ("split_kl (right guess)", 0.1)):
        above = float(at.above(np.array([mu])).item())
        parts = {"plus": above, "minus": above - 0.1 + mu, "a": 0.0, "b": 1.0, "mu": mu}
        assert found[name] == pytest.approx(split_kl(kl=50.0, n=10_000, **parts))


def test_soft_losses_of_no_risk_are_zero(tight):
    arguments = tight.split(points(tight, "soft", risk=0.0), np.array([0.02]))
    assert (arguments["plus"], arguments["minus"]) == (0.0, 0.02)


def test_the_union_over_temperatures_has_its_best_one(tight):
    function = CATALOGUE["catoni_union"].function
    best = min(function(0.1, 50.0, 10_000, lam=lam) for lam in np.geomspace(1.01, 1e6, 20_001))
    assert dict(tight.values(points(tight)))["catoni_union"] == pytest.approx(best, rel=1e-4)


def test_the_ratio_is_to_the_least_bound_that_anybody_has(tight, grid):
    usable = ~grid["bound"].str.contains("right guess|clopper", regex=True)
    least = grid[usable].groupby(POINT)["ratio"].min()
    np.testing.assert_allclose(least, 1.0)
    assert (grid.loc[~usable, "ratio"] < 1).any()


def test_winners_are_the_least_of_those_that_are_not_ruled_out(tight, grid, wide):
    won = tight.winners(grid)
    assert len(won) == len(wide)
    fair = ["maurer_xi", "alquier", "catoni_fixed", "catoni_union", "empirical_bernstein"]
    fair += ["unexpected_bernstein", "split_kl"]
    both = won.merge(wide, on=POINT, suffixes=("", "_of_grid"))
    np.testing.assert_array_equal(both["value"], both[fair].min(axis=1))
    np.testing.assert_allclose(both["gain"], 1 - both["value"] / both["maurer_xi"])
    assert ((won["least"] == "vacuous") == (won["value"] == 1)).all()
    assert set(won["least"]) <= {*fair, "vacuous"}
    closed = ["quadratic", "quadratic (tight)", "tolstikhin_seldin", "mcallester"]
    np.testing.assert_array_equal(both["closed_form_value"], both[closed].min(axis=1))
    assert set(won["closed_form"]) == {"quadratic (tight)", "mcallester"}
    np.testing.assert_allclose(
        both["closed_form_loss"], both["closed_form_value"] / both["value"] - 1
    )


@pytest.mark.parametrize("ratio", [1.0, 0.3, 0.001])
@pytest.mark.parametrize("mean", [0.001, 0.2])
def test_simulated_losses_have_their_mean_and_variance(tight, mean, ratio):
    m = 100_000
    losses = tight.simulated(mean, ratio, m, 0)
    spread = ratio * mean * (1 - mean)
    assert len(losses) == m
    assert 0 <= losses.min() <= losses.max() <= 1
    assert abs(losses.mean() - mean) < 5 * math.sqrt(spread / m)
    fourth = ((losses - mean) ** 4).mean()
    assert abs(((losses - mean) ** 2).mean() - spread) < 5 * math.sqrt(fourth / m)
    assert (losses * tight.LEVELS % 1 == 0).all()
    assert not np.array_equal(losses, tight.simulated(mean, ratio, m, 1))


def test_the_steps_are_the_bounds_of_the_package(tight):
    soft, hard = np.tile([0.2, 0.3], 500), np.tile([0.0, 1.0], 500)
    assert set(tight.steps(soft)) == {"monte_carlo", "maurer_pontil", "betting"}
    found = tight.steps(hard)
    assert found["clopper_pearson"] == clopper_pearson(500, 1_000, delta=0.01)
    assert found["clopper_pearson"] < min(found["monte_carlo"], found["betting"])
    assert tight.steps(soft)["betting"] < tight.steps(soft)["maurer_pontil"]
    assert tight.steps(soft)["maurer_pontil"] < tight.steps(soft)["monte_carlo"]
    price = math.log(200)
    bernstein = 0.25 + math.sqrt(2 * soft.var(ddof=1) * price / 1_000) + 7 * price / (3 * 999)
    assert tight.steps(soft)["maurer_pontil"] == pytest.approx(bernstein)


def test_of_several_samples_the_median_counts_and_failures_are_those_below_the_mean(
    tight, monkeypatch
):
    # Losses that hold zeros only allow Clopper and Pearson's bound, by chance.
    monkeypatch.setattr(tight, "simulated", lambda mean, ratio, m, seed: float(seed))
    told = {"monte_carlo": (0.1, 0.4, 0.5), "betting": (0.3, 0.3, 0.9), "maurer_pontil": (1, 1, 1)}
    told["clopper_pearson"] = (0.25, 0.25, 0.1)
    monkeypatch.setattr(
        tight, "steps", lambda seed: {name: three[int(seed)] for name, three in told.items()}
    )
    hard, soft = (list(tight.monte_carlo_rows(0.2, ratio, 1_000, 3)) for ratio in (1.0, 0.1))
    assert {row["bound"] for row in hard} - {row["bound"] for row in soft} == {"clopper_pearson"}
    excess = {row["bound"]: row["excess"] for row in hard}
    expected = {"monte_carlo": 0.2, "betting": 0.1, "maurer_pontil": 0.8, "clopper_pearson": 0.05}
    assert excess == pytest.approx(expected)
    failures = {row["bound"]: row["failures"] for row in hard}
    assert failures == {
        "monte_carlo": 1,
        "betting": 0,
        "maurer_pontil": 0,
        "clopper_pearson": 1,
    }
    assert [row["bound"] for row in hard if row["least"]] == ["clopper_pearson"]
    assert [row["bound"] for row in soft if row["least"]] == ["betting"]


@pytest.fixture
def small(tight, monkeypatch, tmp_path):
    monkeypatch.setattr(tight, "DRAWS", (50, 100, 200))
    return tight.Config(seeds=3, out=tmp_path / "out")


def test_the_study_writes_its_files_and_draws_them_again_from_the_csvs(tight, small, monkeypatch):
    folder = tight.study(small)
    drawn = pd.read_csv(folder / "monte_carlo.csv")
    settings = drawn.groupby(["mean", "variance_ratio", "m"])
    assert len(settings) == len(tight.MEANS) * len(tight.RATIOS) * 3
    assert (settings["least"].sum() == 1).all()
    for _, rows in settings:
        assert rows.loc[rows["least"], "excess"].item() == rows["excess"].min()
        with_errors = (rows["variance_ratio"] == 1).all()
        assert ("clopper_pearson" in set(rows["bound"])) == with_errors
    about = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert about["command"] == "python studies/bound_tightness.py --seeds 3"
    assert "renyi" in about["left_out"]
    again = {"which_bound.md"} | {f"{name}{end}" for name in FIGURES for end in (".pdf", ".svg")}
    again |= {f"{name}.png" for name in FIGURES}
    before = {name: (folder / name).read_bytes() for name in again}
    assert {path.name for path in folder.iterdir()} == again | {
        "runs",
        "study.json",
        *(f"{name}.csv" for name in tight.CSVS),
    }
    for name in again:
        (folder / name).unlink()
    for name in ("tightness", "by_n", "winners", "monte_carlo_rows"):
        monkeypatch.setattr(tight, name, lambda *_: 1 / 0)
    tight.study(tight.Config(out=folder, redraw=True))
    assert {name: (folder / name).read_bytes() for name in again} == before


def test_the_page_says_what_the_csv_files_do(tight, grid):
    table = page.regime_table(grid[grid["losses"] == "0/1"])
    line = next(line for line in table.splitlines() if "`mcallester`" in line)
    risk, kl_per_n, n = page.REGIMES["learned prior"]
    least = maurer(risk, kl_per_n * n, n, constant="xi")
    loss = (risk + math.sqrt((kl_per_n * n + math.log(2 * math.sqrt(n) / 0.05)) / (2 * n))) / least
    assert f"{loss - 1:+.0%}" in line.split("|")[2]
    assert f"{least:.4f}" in table
    assert "`maurer = catoni = split_kl_discrete`" in table
    assert "`quadratic = thiemann`" in table


def test_the_rules_count_points_with_ten_nats_or_more(tight, grid, wide):
    won = tight.winners(grid)
    drawn = pd.DataFrame({"variance_ratio": [0.1] * 2, "bound": ["betting", "monte_carlo"]})
    first, *rest = page.rules(grid, won, drawn.assign(least=[True, False]))
    hard = wide[(wide["losses"] == "0/1") & (wide["kl_per_n"] * wide["n"] >= 10)]
    fair = ["alquier", "catoni_fixed", "catoni_union", "empirical_bernstein"]
    least = hard[[*fair, "unexpected_bernstein", "split_kl", "maurer_xi"]].min(axis=1)
    hard, least = hard[least < 1], least[least < 1]
    beaten = 1 - (least / hard["maurer_xi"])[least < hard["maurer_xi"]]
    assert f"least at {len(hard) - len(beaten)} of {len(hard)} points" in first
    assert f"lower by {beaten.median():.1%} (median, at most {beaten.max():.0%})" in first
    small = hard[hard["risk"] <= 0.1]
    wins = (small["quadratic (tight)"] <= small["mcallester"]) & (small["quadratic (tight)"] < 1)
    told = next(rule for rule in rest if "closed form" in rule)
    assert f"is least at {wins.sum()} of {len(small)} points" in told
    assert "(least in 1 of 1 settings)" in "".join(rest)


def test_every_point_is_won_by_one_bound(tight, grid):
    won = tight.winners(grid)
    lines = [line.split("|")[1:-1] for line in page.winner_table(won).splitlines()[2:]]
    for kind in ("0/1", "soft"):
        mine = [line for line in lines if line[0].strip() == kind]
        assert sum(int(line[2]) + int(line[5]) for line in mine) == 405
        best = next(line for line in mine if "`maurer_xi`" in line[1])
        assert not "".join(best[3:5] + best[6:]).strip(), "nothing is gained on itself"
    few = won["kl_per_n"] * won["n"] < 10
    group = won[few & (won["losses"] == "soft") & (won["least"] == "empirical_bernstein")]
    line = next(line for line in lines if "soft" in line[0] and "empirical_b" in line[1])
    expected = [len(group), f"{group['gain'].median():.1%}", f"{group['gain'].max():.1%}"]
    assert [cell.strip() for cell in line[2:5]] == [str(cell) for cell in expected]


def test_the_monte_carlo_step_is_told_as_a_share_of_chernoffs_excess():
    excess = {"monte_carlo": 0.2, "betting": 0.1, "clopper_pearson": 0.05}
    frame = pd.DataFrame({"bound": list(excess), "excess": list(excess.values())})
    frame = frame.assign(mean=0.2, variance_ratio=1.0, m=1_000)
    line = page.monte_carlo_table(frame).splitlines()[-1].split("|")
    assert [cell.strip() for cell in line[1:-1]] == ["0.2", "1", "`betting` 50% (25%)"]


@pytest.mark.parametrize(
    ("share", "text"), [(0.1234, "+12%"), (-0.0123, "-1.2%"), (-1e-9, "+0.0%"), (math.nan, "")]
)
def test_losses_are_told_in_per_cent(share, text):
    assert page.percent(share) == text


@pytest.mark.parametrize(
    ("field", "value", "domain"), [("delta", 1.0, "in \\(0, 1\\)"), ("seeds", 0, "be positive")]
)
def test_a_senseless_configuration_is_refused(tight, field, value, domain):
    with pytest.raises(ValueError, match=f"`{field}` must.*{domain}, got {value}"):
        tight.Config(**{field: value})


def test_workers_write_the_bytes_of_one_process_and_what_is_kept_is_not_run_again(
    monkeypatch, tmp_path
):
    import bound_tightness as study  # by the name that workers import it by

    monkeypatch.setattr(study, "DRAWS", (50, 100))
    monkeypatch.setattr(study, "draw", lambda folder: None)
    names = [f"{name}.csv" for name in study.CSVS]

    def content(config):
        folder = study.study(config)
        return {name: (folder / name).read_bytes() for name in (*names, "study.json")}

    alone = content(study.Config(seeds=2, out=tmp_path / "alone"))
    assert content(study.Config(seeds=2, out=tmp_path / "workers", workers=2)) == alone
    records = sorted((tmp_path / "alone" / "runs").glob("*.json"))
    assert len(records) == len(study.MEANS) * len(study.RATIOS)
    records[0].unlink()
    ran = []
    whole = study.run
    monkeypatch.setattr(study, "run", lambda cell: ran.append(cell) or whole(cell))
    assert content(study.Config(seeds=2, out=tmp_path / "alone")) == alone
    assert len(ran) == 1
    # Another law of losses, or other code, is another cell.
    keys = {cell.key for cell in study.cells_of(study.Config(seeds=2))}
    assert not keys & {cell.key for cell in study.cells_of(study.Config(seeds=3))}
    monkeypatch.setattr(study, "code_of", lambda files: {"sha256": "other"})
    assert not keys & {cell.key for cell in study.cells_of(study.Config(seeds=2))}
