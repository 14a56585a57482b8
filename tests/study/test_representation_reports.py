"""The committed reports on learned representations: they follow from their records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import contrastive_binarization
import pandas as pd
import pruning_transfer
import pytest
import self_supervised_bnn
import self_supervised_prior

from pbnn.certificates import Certificate, verify
from pbnn.reporting import records_from_csv

REPORTS = Path(__file__).resolve().parents[2] / "reports"
STUDIES = {
    contrastive_binarization: "contrast.md",
    self_supervised_bnn: "self_supervised.md",
    pruning_transfer: "pruning.md",
    self_supervised_prior: "priors.md",
}


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.NAME)
def test_a_report_follows_from_its_records(study, tmp_path):
    committed = REPORTS / study.NAME
    folder = shutil.copytree(committed, tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    names = ("table.csv", "claims.csv", STUDIES[study])
    for name in names:
        (folder / name).unlink()
    study.draw(folder)
    for name in names:
        assert (folder / name).read_bytes() == (committed / name).read_bytes(), name


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.NAME)
def test_claims_have_three_seeds_or_more_and_a_verdict(study):
    claims = pd.read_csv(REPORTS / study.NAME / "claims.csv")
    verdicts = {"reproduced", "not reproduced", "inconclusive", "needs more seeds"}
    assert set(claims["verdict"]) <= verdicts
    assert (claims["seeds"] >= 3).all()
    assert (claims["low"] <= claims["high"]).all()


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.NAME)
def test_the_report_is_of_fashion_mnist_and_of_the_cells_of_the_code(study):
    """Every run of the command is there, with what the code would train today."""
    folder = REPORTS / study.NAME
    about = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert about["sources"]["fashion_mnist"].startswith("Fashion-MNIST")
    records = records_from_csv(folder / "records.csv")
    assert {record["config"]["dataset"] for record in records} == {"fashion_mnist"}
    seeds = len({record["config"]["seed"] for record in records})
    assert seeds >= 3


def test_contrasts_are_those_of_the_code():
    records = records_from_csv(REPORTS / "contrastive_binarization" / "records.csv")
    panels = contrastive_binarization.NETWORKS_OF["quick"]
    found = {(r["config"]["network"], r["config"]["method"]): r["config"] for r in records}
    for network, (how, recipes) in panels.items():
        samples = how.get("images", 6000)
        for arm in contrastive_binarization.arms_of(recipes, samples):
            stored = found[network, arm["method"]]
            for name in ("contrast", "recipe"):
                assert stored[name] == json.loads(json.dumps(arm[name])), arm["method"]
            assert stored["epochs"] == how["epochs"]


def test_every_certificate_of_a_prior_holds_and_is_above_its_test_error():
    folder = REPORTS / "self_supervised_prior"
    stored = json.loads((folder / "certificates.json").read_text(encoding="utf-8"))
    records = {r["key"]: r for r in records_from_csv(folder / "records.csv")}
    keys = [key for key in stored if key != "schema_version"]
    assert len(keys) == 8 * 3
    for key in keys:
        measures = records[key]["measures"]
        for predictor, written in stored[key].items():
            certificate = Certificate.from_dict(written)
            verify(certificate)
            assert certificate.n == 30_000
            assert certificate.bound == measures[f"{predictor}_certificate"]
            assert certificate.bound > measures[f"{predictor}_error_test"]
            config = records[key]["config"]
            assert config["after"] in config["prior_text"]
            assert records[config["after"]]["config"]["method"] == config["method"]
