"""Sweeps lose nothing when killed, run nothing twice, and charge every choice once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pbnn
from pbnn import sweep
from pbnn.files import write_json
from pbnn.sweep import Cell, cell_key, run_cells

STUDY = """
import sys, time
from pathlib import Path
from pbnn.sweep import Cell, cell_key, run_cells

folder, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def run(config):
    with log.open("a") as stream:
        stream.write(f"{config['seed']}\\n")
    time.sleep(pause)
    return {"measures": {"n": config["seed"]}, "ballast": "x" * 500_000}

configs = [{"dataset": "d", "method": "m", "seed": seed} for seed in range(8)]
run_cells([(cell_key(c, {}), c) for c in configs], run, folder, progress=False)
"""


def cells(count=3):
    configs = [{"dataset": "d", "method": "m", "seed": seed} for seed in range(count)]
    return [Cell(cell_key(config, {}), config) for config in configs]


def measure(config):
    return {"measures": {"n": config["seed"]}}


def refuse(config):
    raise AssertionError(f"{config} was run again")


def test_a_killed_study_resumes_without_loss(tmp_path):
    folder, log = tmp_path / "runs", tmp_path / "log"
    environment = os.environ | {"PYTHONPATH": str(Path(pbnn.__file__).parents[1])}
    command = [sys.executable, "-c", STUDY, str(folder), str(log)]
    study = subprocess.Popen([*command, "0.15"], env=environment)
    deadline = time.monotonic() + 30
    while len(list(folder.glob("[0-9a-f]*.json"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    study.send_signal(signal.SIGKILL)
    assert study.wait() == -signal.SIGKILL

    finished = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9a-f]*.json")}
    seeds = {json.loads(path.read_text())["measures"]["n"] for path in finished}
    assert 3 <= len(seeds) < 8
    before = len(log.read_text().split())
    subprocess.run([*command, "0"], env=environment, check=True)

    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    again = {int(seed) for seed in log.read_text().split()[before:]}
    assert again == set(range(8)) - seeds
    records = run_cells(cells(8), refuse, folder, progress=False)
    assert [record["measures"]["n"] for record in records] == list(range(8))


KILLED_WHILE_WRITING = """
import os, signal
written = []

def fsync(handle):
    written.append(handle)
    if len(written) == 4:
        os.kill(os.getpid(), signal.SIGKILL)

os.fsync = fsync
"""


def test_a_kill_while_a_record_is_written_leaves_no_half_of_it(tmp_path):
    folder, log = tmp_path / "runs", tmp_path / "log"
    environment = os.environ | {"PYTHONPATH": str(Path(pbnn.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED_WHILE_WRITING + STUDY, str(folder), str(log), "0"]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert len(list(folder.iterdir())) == 4
    assert [cell.config["seed"] for cell in sweep.missing(cells(8), folder)] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interruption_keeps_what_is_finished(tmp_path, interruption):
    def run(config):
        if config["seed"] == 2:
            raise interruption
        return measure(config)

    with pytest.raises(interruption):
        run_cells(cells(4), run, tmp_path, progress=False)
    assert [cell.config["seed"] for cell in sweep.missing(cells(4), tmp_path)] == [2, 3]


def test_an_error_names_its_cell(tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        run_cells(cells(1), lambda config: 1 / 0, tmp_path, progress=False)
    assert "d/m/0" in caught.value.__notes__[0]


def test_stored_and_fresh_records_are_equal_and_complete(tmp_path):
    fresh = run_cells(cells(), lambda c: measure(c) | {"pair": (1, 2)}, tmp_path, progress=False)
    assert fresh == run_cells(cells(), refuse, tmp_path, progress=False)
    assert [record["key"] for record in fresh] == [cell.key for cell in cells()]
    assert fresh[1]["config"] == cells()[1].config
    assert fresh[1]["schema_version"] == 1
    reversed_records = run_cells(cells()[::-1], refuse, tmp_path, progress=False)
    assert reversed_records == fresh[::-1]


def test_a_record_cannot_claim_to_be_another_cell(tmp_path):
    run_cells(
        cells(), lambda c: measure(c) | {"key": "other", "config": {}}, tmp_path, progress=False
    )
    assert not sweep.missing(cells(), tmp_path)


def test_a_run_cannot_change_the_configuration_that_is_recorded(tmp_path):
    def run(config):
        config["seed"] += 100
        return measure(config)

    (record,) = run_cells(cells(1), run, tmp_path, progress=False)
    assert record["config"]["seed"] == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "\xff\x00",
        lambda text: text.replace('"schema_version": 1', '"schema_version": null'),
        lambda text: text.replace('"seed": 1', '"seed": 7'),
        lambda text: text.replace('"key": "', '"key": "0'),
    ],
    ids=["half", "empty", "list", "binary", "version", "config", "key"],
)
def test_a_damaged_record_is_run_again_with_a_warning(tmp_path, damage):
    whole = run_cells(cells(), measure, tmp_path, progress=False)
    path = tmp_path / f"{cells()[1].key}.json"
    path.write_text(damage(path.read_text()), encoding="latin-1")
    ran = []

    def run(config):
        ran.append(config["seed"])
        return measure(config)

    with pytest.warns(UserWarning, match=path.name):
        assert run_cells(cells(), run, tmp_path, progress=False) == whole
    assert ran == [1]


def test_the_fixture_of_version_1_is_still_read(tmp_path):
    fixture = Path(__file__).parent / "data" / "record_v1.json"
    record = json.loads(fixture.read_text())
    (tmp_path / f"{record['key']}.json").write_bytes(fixture.read_bytes())
    assert sweep.stored(Cell(record["key"], record["config"]), tmp_path) == record


def test_a_record_of_a_newer_schema_is_an_error_and_stays(tmp_path):
    run_cells(cells(1), measure, tmp_path, progress=False)
    path = tmp_path / f"{cells()[0].key}.json"
    newer = json.loads(path.read_text()) | {"schema_version": 2}
    write_json(path, newer)
    with pytest.raises(ValueError, match="newer pbnn"):
        run_cells(cells(1), measure, tmp_path, progress=False)
    assert json.loads(path.read_text()) == newer


def test_progress_names_the_running_cell(tmp_path, capsys):
    run_cells(cells()[:1], measure, tmp_path, progress=False)
    run_cells(cells(), measure, tmp_path)
    shown = capsys.readouterr().err
    assert "d/m/2" in shown
    assert "1/3" in shown
    assert "3/3" in shown


@pytest.mark.parametrize("keys", [["0" * 15], ["../" + "0" * 13], ["A" * 16], ["0" * 16] * 2])
def test_bad_keys_are_refused(tmp_path, keys):
    with pytest.raises(ValueError, match="`cells`"):
        run_cells([(key, {}) for key in keys], measure, tmp_path, progress=False)


def test_collect_misses_nothing_silently(tmp_path):
    with pytest.raises(ValueError, match="d/m/0"):
        sweep.collect(cells(1), tmp_path)


def test_the_key_changes_with_all_that_determines_the_result(monkeypatch):
    config, data = {"a": 1, "b": [1, 2]}, {"sha256": "ab", "splits": {"test": "cd"}, "source": "x"}
    key = cell_key(config, data)
    assert len(key) == 16
    assert cell_key(dict(reversed(config.items())), data) == key
    assert cell_key(config, data | {"source": "y"}) == key
    others = [
        cell_key(config | {"a": 2}, data),
        cell_key(config | {"a": 1.0}, data),
        cell_key(config, data | {"sha256": "ac"}),
        cell_key(config, data | {"splits": {"test": "ce"}}),
    ]
    monkeypatch.setattr(pbnn, "__version__", "another")
    others.append(cell_key(config, data))
    assert len({key, *others}) == 6


def test_keys_are_made_of_finite_plain_json():
    with pytest.raises(ValueError, match="finite"):
        cell_key({"a": float("nan")}, {})
    with pytest.raises(TypeError, match="plain JSON"):
        cell_key({"a": {1}}, {})


def test_a_sweep_is_light_to_import():
    code = (
        "import sys, pbnn.sweep\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'sklearn', 'tqdm', 'dask', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(pbnn.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
