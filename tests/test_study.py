"""The study from its command line: resumed, killed, redrawn, without data, without extras."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy.stats import beta

from pbnn.certificates import Certificate, verify
from pbnn.data import load, split
from pbnn.evaluation import risks
from pbnn.ledger import record_tried
from pbnn.training import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "studies" / "pac_bound_mnist.py"
METHODS = ["majority", "mlp_tanh", "pbgnet", "pbgnet_pre"]
FORMATS = ("pdf", "svg", "png")
FIGURES = [f"{name}.{kind}" for name in ("bound_vs_error", "learning_curves") for kind in FORMATS]
DRAWN = ["table.csv", "table.md", "table.tex", *FIGURES]
SMALL = ["--datasets", "digits17", "--seeds", "2", "--offline", "--threads", "1"]

# The study itself, only smaller, and away from the user's cache and the committed reports.
DRIVER = """
import sys
from pathlib import Path

home, missing = Path(sys.argv.pop(1)), sys.argv.pop(1)
sys.modules |= dict.fromkeys(missing.split(","), None) if missing else {}
sys.path.insert(0, sys.argv.pop(1))
import pac_bound_mnist as study
import pbnn.data.files

pbnn.data.files.cache_folder = lambda: home / "cache"
study.REPORTS = home / "reports"
study.DRAWS, study.TEST_DRAWS, study.PRE_HIDDEN = 20_000, 2_000, 100
CALL
"""


def environment():
    one = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    kept = {name: value for name, value in os.environ.items() if name != "PBNN_DATA"}
    return kept | one | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "PYTHONUTF8": "1"}


def command(home, *flags, missing="", call="study.main()"):
    driver = DRIVER.replace("CALL", call)
    return [sys.executable, "-c", driver, str(home), missing, str(SCRIPT.parent), *flags]


def run(words, cwd, *, fails=False):
    done = subprocess.run(
        words, cwd=cwd, env=environment(), capture_output=True, text=True, encoding="utf-8"
    )
    assert bool(done.returncode) == fails, done.stderr
    return done.stdout + done.stderr


def stamps(folder):
    """When each record was written, by name."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "runs").glob("[0-9a-f]*.json")}


def drawn(folder):
    return {name: (folder / name).read_bytes() for name in DRAWN}


def refuse(constant):
    raise AssertionError(f"{constant} in a record")


def records(folder):
    paths = (folder / "runs").glob("[0-9a-f]*.json")
    return [json.loads(path.read_text(), parse_constant=refuse) for path in paths]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The output of one undisturbed run; tests that write take a `copy`."""
    home = tmp_path_factory.mktemp("study")
    run(command(home, *SMALL, "--methods", *METHODS, "--out", str(home / "out")), home)
    return home / "out"


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


@pytest.fixture(scope="module")
def study():
    """The study as a module of this process."""
    spec = importlib.util.spec_from_file_location("study_under_test", SCRIPT)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_help_explains_every_flag(study, tmp_path):
    text = run([sys.executable, str(SCRIPT), "--help"], tmp_path)
    for field in study.dataclasses.fields(study.Config):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "Do not try to download." in text
    assert "studies/pac_bound_mnist.py --redraw" in text


def test_a_misspelt_flag_gets_a_suggestion(tmp_path):
    text = run(command(tmp_path, "--sedes", "3"), tmp_path, fails=True)
    assert "--sedes" in text
    assert "--seeds" in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())


def test_a_misspelt_data_set_gets_a_suggestion_and_leaves_nothing(tmp_path):
    text = run(command(tmp_path, "--datasets", "digits17", "minst17"), tmp_path, fails=True)
    assert "did you" in text
    assert "mnist17" in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seeds", 0),
        ("restarts", 0),
        ("threads", -1),
        ("delta", 0.0),
        ("delta", 1.0),
        ("delta", float("nan")),
        ("datasets", ()),
        ("datasets", ("mnist17", "mnist17")),
        ("datasets", ("mnist71",)),
        ("methods", ("pbgnet", "pbgnet")),
    ],
)
def test_a_senseless_configuration_is_refused(study, field, value):
    with pytest.raises(ValueError, match=r"`(name|seeds|restarts|threads|delta|datasets|methods)`"):
        study.Config(**{field: value})


def test_more_than_two_classes_are_refused(study, tmp_path):
    config = study.Config(datasets=("digits17", "digits"), offline=True, out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"`datasets` must name two-class tasks, got 'digits'"):
        study.study(config)
    assert not list(tmp_path.iterdir())


def test_the_table_has_its_columns_and_rows(finished):
    table = pd.read_csv(finished / "table.csv")
    measures = ["kl", "gibbs_train", "gibbs_test", "error_train", "error_test"]
    measures += ["bound_gibbs", "bound_vote", "bound_holdout", "gap"]
    columns = ["dataset", "method", "seeds", "n", "bound_gibbs_max", *measures]
    assert set(table.columns) >= {*columns, *(f"{name}_std" for name in measures)}
    assert list(table["method"]) == METHODS
    assert list(table["dataset"]) == ["digits17"] * 4
    assert list(table["seeds"]) == [2] * 4
    parts = {"majority": {}, "pbgnet": {"feature": 27}, "pbgnet_pre": {"prior": 0.5}}
    for method, asked in parts.items():
        n = table.set_index("method")["n"][method]
        assert n == len(split(load("digits17"), **asked).certification)


def test_the_tables_bounds_follow_from_the_certificates(finished):
    table = pd.read_csv(finished / "table.csv").set_index("method")
    stored = json.loads((finished / "certificates.json").read_text())
    by_key = {record["key"]: record for record in records(finished)}
    keys = set(stored) - {"schema_version"}
    for method in ("pbgnet", "pbgnet_pre"):
        mine = [key for key in keys if by_key[key]["config"]["method"] == method]
        assert len(mine) == 2
        for kind in ("gibbs", "vote"):
            certificates = [Certificate.from_dict(stored[key][kind]) for key in mine]
            for key, certificate in zip(mine, certificates, strict=True):
                verify(certificate)
                assert certificate.budget.delta == 0.05
                assert certificate.budget.seeds == 2
                assert certificate.provenance.splits == by_key[key]["data"]["splits"]
                assert certificate.n == table["n"][method]
            bounds = [certificate.bound for certificate in certificates]
            assert table[f"bound_{kind}"][method] == pytest.approx(sum(bounds) / 2, rel=1e-12)
            if kind == "gibbs":
                assert table["bound_gibbs_max"][method] == max(bounds)
                kl = sum(certificate.kl for certificate in certificates) / 2
                assert table["kl"][method] == pytest.approx(kl, rel=1e-12)
    assert len(keys) == 4
    assert (table["bound_gibbs"] - table["gibbs_test"] - table["gap"]).abs().max() < 1e-12


def test_the_constant_pays_for_its_two_signs_and_the_seeds(finished):
    row = pd.read_csv(finished / "table.csv").set_index("method").loc["majority"]
    task = load("digits17")
    y = task.y[split(task).certification]
    errors = min((y < 0).sum(), (y > 0).sum())
    upper = beta.ppf(1 - 0.05 / 2 / 2, errors + 1, len(y) - errors)
    assert row["bound_gibbs"] == pytest.approx(upper, rel=1e-9)
    assert row["error_train"] == errors / len(y)


def test_the_bounds_hold_on_their_own_sample_and_only_where_they_exist(finished):
    table = pd.read_csv(finished / "table.csv").set_index("method")
    bounded = table.loc[["majority", "pbgnet", "pbgnet_pre"]]
    assert (bounded["bound_gibbs"] > bounded["gibbs_train"]).all()
    assert (bounded["bound_vote"] > bounded["error_train"]).all()
    assert (bounded["bound_vote"] <= 2 * bounded["bound_gibbs"] + 1e-12).all()
    assert list(table["bound_holdout"].dropna().index) == ["pbgnet_pre"]
    assert table.loc["mlp_tanh", ["bound_gibbs", "bound_vote", "n", "gibbs_test"]].isna().all()


def test_the_stored_networks_have_the_certified_risk(finished):
    task = load("digits17")
    for record in records(finished):
        if record["config"]["method"] == "pbgnet":
            network = load_checkpoint(finished / "runs" / f"{record['key']}.safetensors")
            points = split(task, feature=27).certification
            x, y = (torch.from_numpy(array[points]) for array in (task.x, task.y))
            assert risks(network, x, y).gibbs == pytest.approx(record["measures"]["gibbs_train"])


def test_all_files_are_there_and_say_what_was_done(finished):
    about = json.loads((finished / "study.json").read_text())
    assert about["seeds"] == 2
    assert "--datasets digits17 --seeds 2" in about["command"]
    for name in DRAWN:
        assert (finished / name).stat().st_size > 100
    for name in ("timings.csv", "records.csv"):
        with open(finished / name, newline="", encoding="utf-8") as stream:
            assert len(list(csv.DictReader(stream))) == 8
    tried = pd.read_csv(finished / "tried.csv")
    assert sorted(tried["note"]) == ["pbgnet, quick preset", "pbgnet_pre, quick preset"]
    page = (finished / "table.md").read_text(encoding="utf-8")
    assert "means over 2 seeds" in page
    assert "Letarte" not in page, "nobody published figures on these data"


def test_no_record_or_table_holds_a_number_that_is_none(finished):
    assert len(records(finished)) == 8
    json.loads((finished / "certificates.json").read_text(), parse_constant=refuse)
    for path in finished.glob("*.csv"):
        cells = path.read_text(encoding="utf-8").lower().replace("\n", ",").split(",")
        assert not {"nan", "inf", "-inf", "infinity"} & set(cells), path


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_result_that_is_no_number_stops_the_study(study, monkeypatch, tmp_path, number):
    broken = {"majority": lambda cell, points: {"measures": {"bound_gibbs": number}}}
    monkeypatch.setattr(study, "METHODS", broken)
    # The threads stay as they are in this process: only `run` sets them.
    threads = study.torch.get_num_threads()
    config = study.Config(
        datasets=("digits17",), methods=("majority",), threads=threads, out=tmp_path, offline=True
    )
    with pytest.raises(ValueError, match="JSON"):
        study.study(config)
    assert not list((tmp_path / "runs").glob("*"))
    assert not (tmp_path / "table.csv").exists()


def test_the_same_command_trains_nothing_and_draws_the_same_bytes(finished, copy, tmp_path):
    before = stamps(copy)
    text = run(command(tmp_path, *SMALL, "--methods", *METHODS, "--out", str(copy)), tmp_path)
    assert len(before) == 8
    assert stamps(copy) == before
    assert drawn(copy) == drawn(finished)
    assert (copy / "study.json").read_bytes() == (finished / "study.json").read_bytes()
    assert (finished / "table.md").read_text(encoding="utf-8") in text


def test_redrawing_needs_only_the_csv_files(finished, copy, tmp_path):
    for name in DRAWN:
        (copy / name).unlink()
    shutil.rmtree(copy / "runs")
    (copy / "certificates.json").unlink()
    run(command(tmp_path, "--redraw", "--out", str(copy)), tmp_path)
    assert drawn(copy) == drawn(finished)
    assert not (copy / "runs").exists()


def test_redrawing_nothing_says_what_is_missing(tmp_path):
    text = run(command(tmp_path, "--redraw", "--out", str(tmp_path / "none")), tmp_path, fails=True)
    assert "study.json" in text
    assert "Traceback" not in text


def test_the_bound_is_drawn_where_it_is_the_objective_of_training(study, copy):
    curves = pd.read_csv(copy / "curves.csv")
    assert set(curves["method"][curves["kl"].notna()]) == {"pbgnet", "pbgnet_pre"}
    before = (copy / "learning_curves.svg").read_bytes()
    study.draw(copy)
    assert (copy / "learning_curves.svg").read_bytes() == before
    # Were only the risk and the KL drawn, nothing would change.
    curves.loc[curves["method"] == "pbgnet", "objective"] *= 0.75
    curves.to_csv(copy / "curves.csv", index=False)
    study.draw(copy)
    assert (copy / "learning_curves.svg").read_bytes() != before


def test_without_mnist_digits_stand_in_and_say_so(tmp_path):
    flags = ["--datasets", "mnist17", "--seeds", "1", "--offline", "--methods"]
    folder = tmp_path / "reports" / "pac_bound_mnist_quick_digits"
    # Redrawn without being told the folder, too.
    page = f"Path({str(folder)!r}, 'table_digits.md')"
    call = f"study.main()\n{page}.unlink()\nstudy.study(study.Config(redraw=True))"
    text = run(command(tmp_path, *flags, "majority", "pbgnet", call=call), tmp_path)
    assert "NOT MNIST" in text
    names = {path.name for path in folder.iterdir()}
    endings = {"table": ("md", "tex"), "bound_vs_error": FORMATS, "learning_curves": FORMATS}
    for stem, kinds in endings.items():
        assert {f"{stem}_digits.{kind}" for kind in kinds} <= names
        assert not {f"{stem}.{kind}" for kind in kinds} & names
    assert not [name for name in names if "mnist" in name]
    assert set(pd.read_csv(folder / "table.csv")["dataset"]) == {"digits17"}
    for path in folder.rglob("*"):
        if path.suffix in {".md", ".tex", ".svg", ".csv", ".json"}:
            content = path.read_text(encoding="utf-8")
            assert "MNIST" not in content.replace("not MNIST", ""), path
            if path.suffix in {".md", ".tex", ".svg"}:
                assert "not MNIST" in content, path
                assert "mnist17" not in content, path


def test_a_folder_without_the_files_is_an_error_not_a_reason_for_digits(tmp_path):
    flags = ["--datasets", "mnist17", "--data-dir", str(tmp_path / "nowhere")]
    text = run(command(tmp_path, *flags), tmp_path, fails=True)
    assert "nowhere" in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())


def test_a_kill_loses_no_finished_run_and_changes_no_result(finished, tmp_path):
    out = tmp_path / "out"
    words = command(tmp_path, *SMALL, "--methods", *METHODS, "--out", str(out))
    log = subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while not stamps(out):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    survivors = stamps(out)
    assert 1 <= len(survivors) < 8
    assert len(records(out)) == len(survivors)
    assert not (out / "table.csv").exists()

    run(words, tmp_path)
    assert survivors.items() <= stamps(out).items()
    assert len(records(out)) == 8
    for name in DRAWN:
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name


def test_a_ledger_past_the_floor_charges_this_study_too_and_stays_put(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    ledger = {"dataset": "digits17", "configuration": "before", "count": 1500}
    record_tried(out / "tried.csv", [ledger, ledger | {"dataset": "digits49", "count": 9000}])
    # The second time nothing can be trained; what is drawn does not matter here.
    call = "study.draw = lambda folder: None\nstudy.main()\nstudy.METHODS.clear()\nstudy.main()"
    run(command(tmp_path, *SMALL, "--methods", "pbgnet", "--out", str(out), call=call), tmp_path)
    assert [record["config"]["choices"] for record in records(out)] == [1501, 1501]


def test_the_constant_alone_has_a_table_and_no_figure(tmp_path):
    out = tmp_path / "out"
    config = "study.Config(datasets=('digits17',), methods=('majority', 'pbgnet'), seeds=1,"
    config += f" threads=1, offline=True, out=Path({str(out)!r}))"
    alone = config.replace("('majority', 'pbgnet')", "('majority',)")
    missing = "tyro,dask,distributed,pooch"
    call = f"study.study({alone})\nassert not list(Path({str(out)!r}).glob('*.png'))"
    # Without the optional packages, and then with a network too: an interpreter starts slowly.
    run(command(tmp_path, missing=missing, call=f"{call}\nstudy.study({config})"), tmp_path)
    assert list(pd.read_csv(out / "table.csv")["method"]) == ["majority", "pbgnet"]
    assert (out / "bound_vs_error.png").exists()


def test_flags_without_tyro_say_what_to_install(tmp_path):
    text = run(command(tmp_path, "--seeds", "1", missing="tyro"), tmp_path, fails=True)
    assert "pip install tyro" in text
    assert "Traceback" not in text


def test_the_recorded_command_gives_the_same_configuration(tmp_path):
    # In another process, since tyro draws from the global generator.
    call = """
import tyro
for config in (
    study.Config(),
    study.Config(preset="paper", seeds=7, delta=0.01, compile=True),
    study.Config(datasets=("digits17", "digitsLH"), methods=("pbgnet",), offline=True),
):
    words = study.command_of(config).split()
    assert words[:2] == ["python", "studies/pac_bound_mnist.py"]
    assert tyro.cli(study.Config, args=words[2:]) == config
elsewhere = study.Config(out=Path("a/b"), data_dir=Path("c/d"))
assert study.command_of(elsewhere) == study.command_of(study.Config())
"""
    run(command(tmp_path, call=call), tmp_path)
