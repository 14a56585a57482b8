"""The study of ten-class certificates on the bundled digits: what it writes, and that it holds."""

from __future__ import annotations

import json

import certified_mnist
import certified_page
import certified_priors
import certified_records
import certified_runs
import listed
import pandas as pd
import pytest

from pbnn.bounds import clopper_pearson
from pbnn.certificates import Budget, Certificate, verify
from pbnn.certificates.statement import EVENTS
from pbnn.data import load


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of every row."""
    folder = tmp_path_factory.mktemp("certified")
    config = certified_mnist.Config(datasets=("digits",), out=folder, offline=True)
    certified_mnist.study(config)
    return config, folder


def test_every_predictor_of_every_network_has_a_row(finished):
    table = pd.read_csv(finished[1] / "table.csv")
    found = table.groupby(["prior", "network"])["predictor"].apply(lambda names: [*names])
    three = ["gibbs", "vote", "single"]
    assert found.to_dict() == {
        ("data_free", "random_features"): three,
        ("data_free", "binary_readout"): ["gibbs", "single", "mode"],
        ("small_split", "random_features"): 2 * three,
        ("recursive", "recursive_features"): ["gibbs"],
        ("learned_50", "binary_cnn"): three,
        ("learned_50", "learned_features"): three,
    }
    # 1797 digits, of which a quarter are test points and 100 shape the inputs.
    table = table.set_index(["network", "predictor"])
    assert table["n"]["binary_readout", "gibbs"] == 1797 - 450 - 100
    assert ((table["certificate"] > table["risk_train"]) & (table["certificate"] <= 1)).all()
    free = table["prior"].isin(["data_free", "recursive"])
    assert (table["bound_holdout"].isna() == free).all()


def test_only_scales_of_the_prior_that_certification_points_choose_are_paid_for(finished):
    table = pd.read_csv(finished[1] / "table.csv")
    scales = 4 * ((table["network"] == "random_features") & (table["prior_share"] == 0))
    assert (table["choices"] == 1000 * scales.clip(lower=1)).all()
    assert scales.any()


def test_the_figure_of_a_vote_is_its_own(finished):
    table = pd.read_csv(finished[1] / "table.csv")
    free = table[(table["network"] == "random_features") & (table["prior"] == "data_free")]
    risks = free.set_index("predictor")["risk_train"]
    assert risks["vote"] < risks["gibbs"]


def test_the_page_says_what_sampling_took_and_whether_pac_bayes_helped(finished):
    page = (finished[1] / "certificates.md").read_text(encoding="utf-8")
    table = pd.read_csv(finished[1] / "table.csv")
    learned = table[table["bound_holdout"].notna()]
    below = int((learned["certificate"] < learned["bound_holdout"]).sum())
    assert page.count(" is below the hold-out bound") == below
    assert page.count(" is not below the hold-out bound") == len(learned) - below
    # One pass of the 674 points in groups of 10, where PBB has 150,000 passes.
    row = next(line for line in page.splitlines() if "binary_cnn" in line and "%" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:4] == ["68", "674"]
    assert cells[6] == "150000"
    for name in ("certificate_vs_error", "certificate_vs_prior_split", "learning_curves"):
        assert (finished[1] / f"{name}.svg").stat().st_size > 1000


def test_every_figure_is_that_of_a_sound_certificate(finished):
    stored = json.loads((finished[1] / "certificates.json").read_text(encoding="utf-8"))
    assert stored.pop("schema_version") == 1
    table = pd.read_csv(finished[1] / "table.csv")
    bounds = []
    for each in stored.values():
        for record in each.values():
            certificate = Certificate.from_dict(record)
            verify(certificate)
            bounds.append(certificate.bound)
    assert sorted(bounds) == pytest.approx(sorted(table["certificate"]))


def test_the_events_of_all_certificates_of_a_network_spend_no_more_than_its_delta(finished):
    stored = json.loads((finished[1] / "certificates.json").read_text(encoding="utf-8"))
    stored.pop("schema_version")
    counts = set()
    for each in stored.values():
        spent = []
        for record in each.values():
            # The vote of a posterior follows from the event of its Gibbs risk.
            if record["theorem"] == "derandomised":
                continue
            if record["theorem"] in ("maurer", "chernoff", "recursive"):
                spent += [v for name, v in record["events"].items() if name.startswith("gibbs")]
            else:
                spent.append(record["events"][EVENTS[record["predictor"]]])
        budget = Certificate.from_dict(record).budget
        assert sum(spent) <= budget.each() * (1 + 1e-12)
        counts.add(len(spent))
    assert max(counts) == 4


def test_points_of_the_certification_split_shape_neither_inputs_nor_prior():
    task = load("digits")
    tasks = {"digits": task}
    for _, cell in certified_mnist.cells_of(certified_mnist.Config(), tasks):
        parts = certified_runs.splits_of(task, cell)
        certified = {*parts.certification.tolist()}
        assert not certified & {
            *parts.feature.tolist(),
            *parts.prior.tolist(),
            *parts.test.tolist(),
        }


def test_it_goes_on_from_its_records_and_redraws_the_same(finished, monkeypatch):
    config, folder = finished
    before = {name: (folder / name).read_bytes() for name in ("table.csv", "certificates.md")}
    monkeypatch.setattr(certified_mnist, "run", lambda *a, **k: pytest.fail("it ran again"))
    certified_mnist.study(config)
    certified_mnist.study(certified_mnist.Config(out=folder, redraw=True))
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_every_prior_is_on_a_list_that_the_price_covers(preset):
    """Of each data set, by name: the digits take the place of its points."""
    digits = load("digits")
    tasks = dict.fromkeys(("mnist", "fashion_mnist", "cifar10"), digits)
    with pytest.MonkeyPatch.context() as patch:
        for row in (row for rows in certified_mnist.ROWS.values() for row in rows):
            patch.setitem(row, "feature_points", min(row["feature_points"], 100))
        cells = certified_mnist.cells_of(certified_mnist.Config(preset=preset), tasks)
    rows = {(c.config["prior"], c.config["network"]) for c in cells if "prior" in c.config}
    assert rows == set(certified_priors.LISTS)
    for lists, _ in certified_priors.LISTS.values():
        assert listed.members([lists]) <= certified_mnist.CHOICES


@pytest.mark.parametrize(
    ("row", "change", "told"),
    [
        (0, {"filters": 201}, "filters"),
        (0, {"emphases": [0.0, 1.0]}, "emphases"),
        (-3, {"emphases": [0.6]}, "emphases"),
        (0, {"another": 1}, "another"),
        (0, {"choices": 100}, "choices"),
        (-1, {"axes": 10}, "axes"),
        (-1, {"training": {"binary_rate": 0.5}}, "binary_rate"),
    ],
)
def test_a_prior_that_is_not_listed_is_not_certified(row, change, told):
    rows = [(prior, row) for prior, rows in certified_mnist.ROWS.items() for row in rows]
    prior, chosen = rows[row]
    epochs = certified_mnist.PRESETS["full"][chosen["network"]]
    cell = chosen | epochs | {"dataset": "mnist", "prior": prior, "canonical": "scaled"}
    cell |= {"choices": 1000}
    training = None
    if prior == "learned_50":
        training = certified_mnist.TRAINING | certified_mnist.FULL | {"canonical": "scaled"}
    certified_priors.check_listed(cell, training)
    if more := change.get("training"):
        training, change = training | more, {}
    with pytest.raises(ValueError, match=told):
        certified_priors.check_listed(cell | change, training)


def test_what_the_prior_alone_is_certified_at_pays_for_seeds_and_choices():
    found = certified_records.holdout(7, 500, Budget(0.05, 3, 1000, "classes"))
    assert found == pytest.approx(clopper_pearson(7, 500, delta=0.05 / 3000), rel=1e-9)


def test_a_printed_bound_is_rounded_up():
    assert certified_page.cell_text(0.07004, "certificate") == "0.0701"
    assert certified_page.cell_text(0.07004, "risk_train") == "0.0700"


def test_a_certificate_that_does_not_hold_is_not_drawn(finished, tmp_path):
    for path in finished[1].glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "certificates.json"
    text = path.read_text(encoding="utf-8")
    stored = json.loads(text)
    key = next(key for key in stored if key != "schema_version")
    stored[key]["gibbs"]["bound"] *= 0.9
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{key}, gibbs does not hold"):
        certified_mnist.study(certified_mnist.Config(out=tmp_path, redraw=True))


@pytest.mark.parametrize("change", [{"datasets": ("digits",)}, {"seeds": 1}, {"delta": 0.01}])
def test_only_the_whole_study_is_written_to_the_committed_report(change):
    whole = certified_mnist.Config(preset="full").folder
    assert whole.name == "certified_mnist"
    assert certified_mnist.Config(preset="full", **change).folder.name == "certified_mnist_part"


@pytest.mark.parametrize(
    "bad",
    [
        {"priors": ("none",)},
        {"priors": ()},
        {"datasets": ("mnist", "mnist")},
        {"seeds": 0},
        {"workers": 0},
        {"delta": 1.0},
    ],
)
def test_what_it_does_not_know_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        certified_mnist.Config(**bad)
