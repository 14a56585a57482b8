"""Certificates with self-supervised priors on the bundled digits: who saw what, and who pays."""

from __future__ import annotations

import json

import certified_records
import pandas as pd
import pytest
import self_supervised_prior as study
import torch
from common import Where
from safetensors.torch import load_file, save_file
from self_supervised_runs import VIEWS

from pbnn.data import load
from pbnn.methods import points_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(study.TRAINING, "epochs", 1)
        patch.setitem(study.READOUT, "epochs", 2)
        patch.setitem(study.READOUT, "trial_epochs", 1)
        folder = tmp_path_factory.mktemp("priors")
        config = study.Config(dataset="digits", seeds=2, out=folder, offline=True)
        study.study(config)
        yield config, folder


def cells(config, **wanted):
    found = study.cells_of(config, {"digits": load("digits")})
    return [c for c in found if all(c.config.get(n) == v for n, v in wanted.items())]


def test_every_row_is_certified_and_pays_for_seeds_rows_and_lists(finished):
    config, folder = finished
    table = pd.read_csv(folder / "table.csv")
    assert len(table) == len(study.EXTRACTORS) * len(study.READOUTS)
    for predictor in study.PREDICTORS:
        assert (table[f"{predictor}_certificate"] >= table[f"{predictor}_risk_train"]).all()
    stored = json.loads((folder / "certificates.json").read_text(encoding="utf-8"))
    n = study.halves(load("digits")).n
    for cell in cells(config, after=None):
        assert cell.key not in stored
    assert study.LISTS["views"] == len(VIEWS)
    assert study.CHOICES == 8 * 5 * 3 * 5 * 4 * 100
    for readout, times in (("data_free", len(study.READOUT["emphases"])), ("learned", 1)):
        for cell in cells(config, readout=readout):
            certificate = stored[cell.key]["gibbs"]
            assert certificate["n"] == n
            share = certified_records.budget_of(cell.config, choices=times).each()
            assert share == pytest.approx(0.05 / (2 * study.CHOICES * times))
            assert sum(certificate["events"].values()) <= share * (1 + 1e-12)


def test_an_extractor_says_what_it_saw_and_that_is_the_prior_split(finished):
    config, folder = finished
    task = load("digits")
    parts = study.halves(task)
    expected = study.example_hashes(task.x[parts.prior])
    for cell in cells(config, after=None):
        seen = load_file(folder / "runs" / f"{cell.key}.safetensors")["seen"]
        assert {bytes(row).hex() for row in seen.tolist()} == expected


def test_a_certificate_on_an_image_that_was_seen_is_refused(finished, tmp_path):
    config, folder = finished
    cell = cells(config, readout="data_free", method="contrast", seed=0)[0].config
    state = load_file(folder / "runs" / f"{cell['after']}.safetensors")
    task = load("digits")
    one = task.x[study.halves(task).certification[7:8]]
    (hash_,) = study.example_hashes(one)
    more = torch.tensor([list(bytes.fromhex(hash_))], dtype=torch.uint8)
    save_file(
        state | {"seen": torch.cat([state["seen"], more])},
        tmp_path / f"{cell['after']}.safetensors",
    )
    with pytest.raises(ValueError, match="must hold no example that the prior has seen, got 1 of"):
        study.run(cell, Where(tmp_path, None, True, "cpu", False))


def test_a_data_free_read_out_sees_no_label_of_the_prior_split(finished):
    config, folder = finished
    points = points_of(task := load("digits"), study.halves(task), "cpu")
    cell = cells(config, readout="data_free", method="contrast", seed=0)[0].config
    x, y = points.prior
    other = study.replace(points, prior=(x, (y + 1) % 10))
    found = [study.certified(cell, part, folder / "runs", False)["measures"]
             for part in (points, other)]  # fmt: skip
    assert found[0] == found[1]


def test_a_self_supervised_extractor_sees_no_label(finished):
    config, folder = finished
    points = points_of(task := load("digits"), study.halves(task), "cpu")
    cell = next(c for c in cells(config, after=None) if c.config["method"] == "contrast")
    x, y = points.prior
    blind = study.replace(points, prior=(x, torch.where(y == 9, y, (y + 1) % 9)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(study.TRAINING, "epochs", 1)
        again = study.extractor_trained(cell.config, blind, folder, False)
    stored = (folder / "runs" / f"{cell.key}.safetensors").read_bytes()
    assert again["files"]["safetensors"] == stored


def test_it_goes_on_from_its_records(finished, monkeypatch):
    config, folder = finished
    before = (folder / "priors.md").read_bytes()
    monkeypatch.setattr(study, "run", lambda *a, **k: pytest.fail("it ran again"))
    study.study(config)
    study.study(study.Config(out=folder, redraw=True))
    assert (folder / "priors.md").read_bytes() == before
