"""A study resumed, killed, redrawn, without its data, without extras, on several processes."""

from __future__ import annotations

import dataclasses
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

from pbnn.ledger import record_tried
from pbnn.sweep import CellsFailed

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("pdf", "svg", "png")
STEMS = ("bound_vs_error", "bound_by_network", "learning_curves")
FIGURES = [f"{stem}.{kind}" for stem in STEMS for kind in FORMATS]
DRAWN = ["table.csv", "table.md", "table.tex", "grid.csv", *FIGURES]
MEASURED = [*DRAWN, "records.csv", "curves.csv", "certificates.json", "study.json", "tried.csv"]
CELLS = 24

# The study itself in a process of its own, away from the user's cache and the committed reports.
DRIVER = """
import sys
from pathlib import Path

home = Path(sys.argv.pop(1))
sys.path.insert(0, sys.argv.pop(1))
import pac_bound_mnist as study
import pbnn.data.files

pbnn.data.files.cache_folder = lambda: home / "cache"
study.REPORTS = home / "reports"
study.run_study(study.study, study.Config, study.__doc__)
"""


def stamps(folder):
    """When each record was written, by name."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "runs").glob("[0-9a-f]*.json")}


def contents(folder, names):
    return {name: (folder / name).read_bytes() for name in names}


def broken(cell, **options):
    raise AssertionError(f"{cell} runs again")


def test_the_same_command_trains_nothing_and_draws_the_same_bytes(
    study, small, finished, copy, monkeypatch, capsys
):
    before = stamps(copy)
    monkeypatch.setattr(study, "run", broken)
    assert study.study(dataclasses.replace(small, out=copy)) == copy
    assert len(before) == CELLS
    assert stamps(copy) == before
    assert contents(copy, MEASURED) == contents(finished, MEASURED)
    assert str(copy / "table.md") in capsys.readouterr().out


def test_another_network_runs_alone_and_leaves_the_others(study, small, copy, monkeypatch):
    ran = []
    fewer = dataclasses.replace(small, methods=("pbgnet", "abnet"), hidden=("unit", "3"), out=copy)
    whole = study.run

    def counted(cell, **options):
        ran.append((cell["method"], cell["hidden"], cell["seed"]))
        return whole(cell, **options)

    monkeypatch.setattr(study, "run", counted)
    monkeypatch.setattr(study, "draw", lambda folder: None)
    before = stamps(copy)
    study.study(fewer)
    assert ran == [("pbgnet", [3], 0), ("pbgnet", [3], 1)]
    assert before.items() <= stamps(copy).items()


def test_redrawing_needs_only_the_csv_files(study, finished, copy):
    for name in DRAWN:
        (copy / name).unlink()
    shutil.rmtree(copy / "runs")
    (copy / "certificates.json").unlink()
    study.study(study.Config(redraw=True, out=copy))
    assert contents(copy, DRAWN) == contents(finished, DRAWN)
    assert not (copy / "runs").exists()


def test_a_redraw_certifies_again_to_the_same_bytes(study, finished, copy):
    study.study(study.Config(redraw=True, out=copy))
    assert contents(copy, MEASURED) == contents(finished, MEASURED)


def test_a_redraw_mends_a_bound_that_was_rounded_otherwise(study, finished, copy):
    """As of a certificate from before: above by some units of the last place, and quoted so."""
    path = copy / "certificates.json"
    kept = json.loads(path.read_text())
    keys = (key for key in kept if key != "schema_version")
    key = next(key for key in keys if kept[key]["gibbs"]["bound"] < 0.9)
    exact = kept[key]["gibbs"]["bound"]
    kept[key]["gibbs"]["bound"] = exact * (1 + 1e-14)
    path.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=f"{key} does not quote its certificate"):
        study.study(study.Config(redraw=True, out=copy))
    records = copy / "records.csv"
    rows = records.read_text().splitlines(keepends=True)
    old, new = repr(exact), repr(exact * (1 + 1e-14))
    rows = [row.replace(old, new) if row.startswith(key) else row for row in rows]
    records.write_text("".join(rows))
    study.study(study.Config(redraw=True, out=copy))
    assert contents(copy, MEASURED) == contents(finished, MEASURED)


def test_a_redraw_refuses_a_bound_that_its_ingredients_do_not_give(study, copy):
    path = copy / "certificates.json"
    kept = json.loads(path.read_text())
    key = next(key for key in kept if key != "schema_version")
    risk = kept[key]["gibbs"]["risk"]
    kept[key]["gibbs"]["risk"] = risk / 2
    path.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=r"`risk_upper` is .*, but its ingredients give"):
        study.study(study.Config(redraw=True, out=copy))


def test_a_kill_loses_no_finished_run_and_changes_no_result(study, small, finished, tmp_path):
    out = tmp_path / "out"
    words = [str(tmp_path), str(ROOT / "studies"), "--datasets", *small.datasets, "--hidden"]
    words += [*small.hidden, "--methods", *small.methods, "--seeds", "2", "--offline"]
    words += ["--out", str(out)]
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words],
        cwd=tmp_path,
        env=os.environ | one | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not stamps(out):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    survivors = stamps(out)
    assert 1 <= len(survivors) < CELLS
    for name in survivors:
        assert json.loads((out / "runs" / name).read_text())["key"] == name.removesuffix(".json")
    assert not (out / "table.csv").exists()

    study.study(dataclasses.replace(small, out=out))
    assert survivors.items() <= stamps(out).items()
    assert len(stamps(out)) == CELLS
    assert contents(out, MEASURED) == contents(finished, MEASURED)


def test_workers_measure_and_draw_the_same_bytes(study, small, finished, tmp_path):
    out = tmp_path / "out"
    study.study(dataclasses.replace(small, workers=2, out=out))
    assert contents(out, MEASURED) == contents(finished, MEASURED)
    for path in (finished / "runs").glob("*.safetensors"):
        assert (out / "runs" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_result_that_is_no_number_is_a_failure_and_no_table(study, monkeypatch, tmp_path, number):
    monkeypatch.setattr(study, "run", lambda cell, **options: {"measures": {"bound_gibbs": number}})
    config = study.Config(
        datasets=("digits17",), methods=("majority",), out=tmp_path / "out", offline=True
    )
    with pytest.raises(CellsFailed, match="JSON"):
        study.study(config)
    kept = [path.name for path in (tmp_path / "out" / "runs").glob("*")]
    assert len(kept) == 3
    assert all(name.endswith(".failed.json") for name in kept)
    assert not (tmp_path / "out" / "table.csv").exists()


@pytest.mark.parametrize(
    ("dataset", "count", "charged"),
    [("digits17", 1500, 1501), ("digits17", 998, 1000), ("digits49", 9000, 1000)],
)
def test_a_ledger_past_the_floor_charges_this_study_too_and_stays_put(
    study, tmp_path, monkeypatch, dataset, count, charged
):
    out = tmp_path / "out"
    out.mkdir()
    # The committed ledger counts as well, and a row in both counts once.
    row = {"dataset": dataset, "configuration": "before", "count": count}
    record_tried(out / "tried.csv", [row])
    committed = study.REPORTS / study.NAME
    committed.mkdir(parents=True)
    record_tried(committed / "tried.csv", [row])
    seen = []

    def none_run(cells, run, folder, **options):
        seen.append([cell.config["choices"] for cell in cells])
        raise InterruptedError

    monkeypatch.setattr(study, "run_cells", none_run)
    config = study.Config(
        datasets=("digits17",), methods=("pbgnet",), hidden=("unit",), offline=True, out=out
    )
    for _ in range(2):
        with pytest.raises(InterruptedError):
            study.study(config)
    assert seen == [[charged] * 3] * 2


def test_the_committed_ledger_charges_a_study_in_another_folder(study, tmp_path):
    committed = study.REPORTS / study.NAME
    committed.mkdir(parents=True)
    record_tried(
        committed / "tried.csv", [{"dataset": "digits17", "configuration": "a", "count": 2000}]
    )
    config = study.Config(
        datasets=("digits17",), methods=("pbgnet",), hidden=("unit",), seeds=1, offline=True,
        out=tmp_path / "out",
    )  # fmt: skip
    study.study(config)
    (path,) = (tmp_path / "out" / "runs").glob("*.json")
    record = json.loads(path.read_text())
    assert record["config"]["choices"] == 2001
    assert record["certificates"]["gibbs"]["budget"]["choices"] == 2001


def test_without_mnist_and_adult_bundled_data_stand_in_and_say_so(study, tmp_path, capsys):
    config = study.Config(
        datasets=("mnist17", "adult", "ads"),
        methods=("majority", "pbgnet", "pbgnet_rf"),
        hidden=("unit",),
        seeds=1,
        offline=True,
    )
    folder = study.study(config)
    assert folder == tmp_path / "reports" / "pac_bound_mnist_quick_digits"
    assert "NOT MNIST" in capsys.readouterr().out
    # Redrawn without being told the folder, too.
    (folder / "table_digits.md").unlink()
    assert study.study(study.Config(redraw=True)) == folder
    names = {path.name for path in folder.iterdir()}
    endings = {"table": ("md", "tex"), **dict.fromkeys(STEMS, FORMATS)}
    for stem, kinds in endings.items():
        assert {f"{stem}_digits.{kind}" for kind in kinds} <= names
        assert not {f"{stem}.{kind}" for kind in kinds} & names
    assert not [name for name in names if "mnist" in name]
    table = pd.read_csv(folder / "table.csv")
    assert list(zip(table["dataset"], table["method"], strict=True)) == [
        *(("digits17", name) for name in ("majority", "pbgnet", "pbgnet_mode", "pbgnet_rf")),
        *(("breast_cancer", name) for name in ("majority", "pbgnet", "pbgnet_mode")),
    ]
    for path in folder.rglob("*"):
        if path.suffix in {".md", ".tex", ".svg", ".csv", ".json"}:
            content = path.read_text(encoding="utf-8")
            assert "MNIST" not in content.replace("not MNIST", ""), path
            if path.suffix in {".md", ".tex", ".svg"}:
                assert "not MNIST" in content, path
                assert "mnist17" not in content, path


def test_the_constant_alone_has_a_table_and_no_figure_and_needs_no_extras(
    study, monkeypatch, tmp_path
):
    for name in ("tyro", "dask", "distributed", "pooch"):
        monkeypatch.setitem(sys.modules, name, None)
    alone = study.Config(
        datasets=("digits17",), methods=("majority",), seeds=1, offline=True, out=tmp_path / "out"
    )
    folder = study.study(alone)
    assert list(pd.read_csv(folder / "table.csv")["method"]) == ["majority"]
    assert not list(folder.glob("*.png"))
    study.study(dataclasses.replace(alone, methods=("majority", "pbgnet"), hidden=("unit",)))
    table = pd.read_csv(folder / "table.csv")
    assert list(table["method"]) == ["majority", "pbgnet", "pbgnet_mode"]
    assert (folder / "bound_vs_error.png").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": ("13",)}, "`hidden` must be one of the listed"),
        ({"threads": 2, "methods": ("pbgnet_pre",)}, "`threads compile device` must be one of"),
        ({"methods": ("abnet",), "hidden": ("unit",)}, "must leave something to run"),
    ],
)
def test_a_refused_study_leaves_no_trace_in_the_ledger(study, tmp_path, wrong, message):
    options = {"datasets": ("digits17",), "methods": ("pbgnet",), "seeds": 1, "offline": True}
    config = study.Config(**(options | wrong), out=tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        study.study(config)
    assert not (tmp_path / "out").exists()
