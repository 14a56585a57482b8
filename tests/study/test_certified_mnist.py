"""The study of ten-class certificates on the bundled digits: what it writes, and that it holds."""

from __future__ import annotations

import json

import certified_mnist
import certified_runs
import pandas as pd
import pytest

from pbnn.certificates import Certificate, verify
from pbnn.data import load


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of every prior."""
    with pytest.MonkeyPatch.context() as patch:
        for prior in certified_mnist.PRIORS.values():
            if prior["feature_points"]:
                patch.setitem(prior, "feature_points", 100)
        patch.setitem(certified_mnist.FEATURES, "pool", 2)
        for name in ("data_free", "small_split", "recursive"):
            patch.setitem(certified_mnist.PRIORS[name], "pool", 2)
        patch.setitem(
            certified_mnist.PRESETS["quick"]["learned_50"], "architecture", "4C3-MP2-16FC-SM10"
        )
        folder = tmp_path_factory.mktemp("certified")
        config = certified_mnist.Config(datasets=("digits",), out=folder, offline=True)
        certified_mnist.study(config)
        yield config, folder


def test_every_predictor_of_every_prior_has_a_row(finished):
    table = pd.read_csv(finished[1] / "table.csv").set_index(["prior", "predictor"])
    three = [
        (prior, p) for prior in ("data_free", "small_split") for p in ("gibbs", "vote", "single")
    ]
    expected = [*three, ("recursive", "gibbs")]
    expected += [("learned_50", p) for p in ("gibbs", "vote", "single")]
    assert sorted(table.index) == sorted(expected)
    # 1797 digits, of which a quarter are test points and 100 shape the inputs.
    assert table["n"]["data_free", "gibbs"] == 1797 - 450 - 100
    assert ((table["certificate"] > table["risk_train"]) & (table["certificate"] <= 1)).all()
    without = {prior for prior, _ in table.index[table["bound_holdout"].isna()]}
    assert without == {"data_free", "recursive"}


def test_every_figure_is_that_of_a_sound_certificate(finished):
    stored = json.loads((finished[1] / "certificates.json").read_text(encoding="utf-8"))
    assert stored.pop("schema_version") == 1
    table = pd.read_csv(finished[1] / "table.csv")
    bounds = []
    for each in stored.values():
        for record in each.values():
            certificate = Certificate.from_dict(record)
            verify(certificate)
            assert certificate.budget.choices == 1000
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
            if record["theorem"] in ("maurer", "recursive"):
                spent += [v for name, v in record["events"].items() if name.startswith("gibbs")]
            else:
                event = "fixed_vote" if record["predictor"] == "fixed vote" else "single"
                spent.append(record["events"][event])
        budget = Certificate.from_dict(record).budget
        assert sum(spent) <= budget.each() * (1 + 1e-12)
        counts.add(len(spent))
    assert max(counts) == 4


def test_points_of_the_certification_split_shape_neither_inputs_nor_prior():
    task = load("digits")
    for cell in certified_mnist.PRIORS.values():
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
    monkeypatch.setattr(certified_mnist, "run", lambda *a: pytest.fail("it ran again"))
    certified_mnist.study(config)
    certified_mnist.study(certified_mnist.Config(out=folder, redraw=True))
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("bad", [{"priors": ("none",)}, {"seeds": 0}, {"delta": 1.0}])
def test_what_it_does_not_know_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        certified_mnist.Config(**bad)
