"""Sweeps lose nothing when killed, run nothing twice, and charge every choice once."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import pbnn
from pbnn import sweep
from pbnn.files import read_json, write_json
from pbnn.sweep import Cell, CellsFailed, cell_key, run_cells

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


def test_a_log_has_a_line_for_each_finished_run(tmp_path, capsys):
    run_cells(cells(1), measure, tmp_path)
    assert capsys.readouterr().err == "1/1 d/m/0\n"
    with pytest.raises(CellsFailed):
        run_cells(cells(3), refuse, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["2/3 d/m/1 failed", "3/3 d/m/2 failed"]
    run_cells(cells(1), refuse, tmp_path)
    assert capsys.readouterr().err == ""


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


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_keeps_what_is_finished(tmp_path, interruption):
    def run(config):
        if config["seed"] == 2:
            raise interruption
        return measure(config)

    with pytest.raises(interruption):
        run_cells(cells(4), run, tmp_path, progress=False)
    assert [cell.config["seed"] for cell in sweep.missing(cells(4), tmp_path)] == [2, 3]


def fails_at(seed):
    def run(config):
        if config["seed"] == seed:
            raise FloatingPointError("no number")
        return measure(config)

    return run


def test_a_cell_that_fails_is_recorded_and_stops_no_other(tmp_path):
    with pytest.raises(CellsFailed, match=r"d/m/1.*no number") as caught:
        run_cells(cells(4), fails_at(1), tmp_path, progress=False)
    assert "--retry-failed" in str(caught.value)
    (failure,) = caught.value.failures
    assert failure["error"] == "FloatingPointError: no number"
    assert 'raise FloatingPointError("no number")' in failure["traceback"]
    key = cells(4)[1].key
    assert read_json(tmp_path / f"{key}.failed.json", "failure", 1) == failure
    assert [cell.key for cell in sweep.missing(cells(4), tmp_path)] == [key]


def test_what_has_failed_is_tried_again_only_if_asked_for(tmp_path):
    with pytest.raises(CellsFailed):
        run_cells(cells(3), fails_at(1), tmp_path, progress=False)
    with pytest.raises(CellsFailed, match="no number"):
        run_cells(cells(3), refuse, tmp_path, progress=False)
    records = run_cells(cells(3), measure, tmp_path, progress=False, retry_failed=True)
    assert records == run_cells(cells(3), refuse, tmp_path, progress=False)
    assert not list(tmp_path.glob("*.failed.json"))


def test_a_result_that_cannot_be_stored_is_a_failure_of_its_cell(tmp_path):
    def run(config):
        return {"measures": {"n": float("nan") if config["seed"] == 0 else 1.0}}

    with pytest.raises(CellsFailed, match="d/m/0"):
        run_cells(cells(2), run, tmp_path, progress=False)
    assert len(sweep.missing(cells(2), tmp_path)) == 1


def test_a_full_disk_ends_the_study_and_blames_no_cell(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pbnn.stores.write_atomic", full)
    with pytest.raises(OSError, match="No space left") as caught:
        run_cells(cells(2), measure, tmp_path, progress=False)
    assert "d/m/0" in caught.value.__notes__[0]
    assert not list(tmp_path.glob("*.failed.json"))


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


def test_progress_names_the_running_cell_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run_cells(cells()[:1], measure, tmp_path, progress=False)
    run_cells(cells(), measure, tmp_path)
    shown = capsys.readouterr().err
    assert "d/m/2" in shown
    assert "1/3" in shown
    assert "3/3" in shown


def test_files_of_a_run_are_written_beside_its_record(tmp_path):
    files = {"safetensors": b"\x00weights", "txt": b""}
    (record,) = run_cells(
        cells(1), lambda c: measure(c) | {"files": files}, tmp_path, progress=False
    )
    assert set(record) == {"schema_version", "key", "config", "measures"}
    found = {path.suffix[1:]: path.read_bytes() for path in tmp_path.glob(f"{record['key']}.*")}
    assert {name: found[name] for name in files} == files
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"a": b"", "../b": b""}, ValueError),
        ({"a": b"", "": b""}, ValueError),
        ({"a": b"", "tar.gz": b""}, ValueError),
        ({"a": b"", "json": b""}, ValueError),
        ({"a": b"", "b\n": b""}, ValueError),
        ({"a": b"", "b": "text"}, TypeError),
    ],
)
def test_bad_files_are_refused_before_any_is_written(tmp_path, files, error):
    with pytest.raises(CellsFailed, match=f"{error.__name__}: `files`"):
        run_cells(cells(1), lambda c: {"files": files}, tmp_path, progress=False)
    assert [path.suffixes for path in tmp_path.iterdir()] == [[".failed", ".json"]]


def test_a_record_is_written_after_its_files(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("pbnn.stores.write_atomic", lambda path, data: written.append(path.suffix))
    sweep.store(cells(1)[0], {"measures": {"n": 1.0}, "files": {"bin": b"x"}}, tmp_path)
    assert written == [".bin", ".json"]


def test_files_of_a_record_that_is_none_are_not_written(tmp_path):
    result = {"measures": {"n": float("nan")}, "files": {"bin": b"x"}}
    with pytest.raises(CellsFailed, match="not JSON compliant"):
        run_cells(cells(1), lambda c: result, tmp_path, progress=False)
    assert [path.suffixes for path in tmp_path.iterdir()] == [[".failed", ".json"]]
    assert sweep.missing(cells(1), tmp_path) == cells(1)


def test_a_run_that_returns_no_mapping_is_refused(tmp_path):
    with pytest.raises(CellsFailed, match=r"`run` must return a mapping, got a list"):
        run_cells(cells(1), lambda c: [1], tmp_path, progress=False)


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


def draw(config):
    """A record that depends on a seeded generator only; its files say where it was made."""
    import torch

    generator = torch.Generator().manual_seed(config["seed"])
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    where = [os.getpid(), torch.get_num_threads(), *(os.environ[name] for name in variables)]
    numbers = torch.randn(20, generator=generator, dtype=torch.float64)
    return {
        "measures": {"mean": numbers.mean().item(), "last": numbers[-1].item()},
        "curve": numbers.tolist(),
        "files": {"txt": " ".join(map(str, where)).encode()},
    }


def here(function):
    """The function itself instead of its name, since workers cannot import a test."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        return cloudpickle.loads(cloudpickle.dumps(function))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def contents(folder, pattern="*.json"):
    return {path.name: path.read_bytes() for path in folder.glob(pattern)}


def test_records_are_the_same_however_many_processes_made_them(tmp_path, monkeypatch, capfd):
    from distributed import Client

    under_way, submit = [], Client.submit

    def counted(client, *args, **kwargs):
        under_way.append(len(under_way) + 1 - len(contents(tmp_path / "two")))
        return submit(client, *args, **kwargs)

    run_cells(cells(7), draw, tmp_path / "none", progress=False)
    monkeypatch.setattr(Client, "submit", counted)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    variables, path = dict(os.environ), list(sys.path)
    records = run_cells(cells(7), here(draw), tmp_path / "two", workers=2)
    assert (dict(os.environ), sys.path) == (variables, path)
    assert [record["config"]["seed"] for record in records] == list(range(7))
    assert contents(tmp_path / "two") == contents(tmp_path / "none")
    where = [path.read_text().split() for path in (tmp_path / "two").glob("*.txt")]
    assert len(where) == 7
    assert str(os.getpid()) not in {process for process, *_ in where}
    assert {tuple(threads) for _, *threads in where} == {("1",) * 4}
    assert len(under_way) == 7
    assert max(under_way) <= 4
    shown = capfd.readouterr().err
    assert "7/7" in shown
    assert "d/m/" in shown
    assert all("/7" in line for line in shown.replace("\r", "\n").splitlines() if line)


def test_a_killed_worker_costs_no_cell(tmp_path, capfd):
    def run(config):
        import os
        import signal

        if config["seed"] == 1:
            try:
                os.close(os.open(tmp_path / "killed", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return {"measures": {"n": config["seed"]}}

    records = run_cells(cells(4), run, tmp_path / "runs", workers=2, progress=False)
    assert [record["measures"]["n"] for record in records] == list(range(4))
    assert (tmp_path / "killed").exists()
    assert capfd.readouterr() == ("", "")


def test_a_cell_that_fails_elsewhere_is_recorded_and_stops_no_other(tmp_path):
    def run(config):
        if config["seed"] == 1:
            raise FloatingPointError("no number")
        return {"measures": {"n": config["seed"]}}

    with pytest.raises(CellsFailed, match=r"d/m/1.*no number") as caught:
        run_cells(cells(12), run, tmp_path, workers=2, progress=False)
    assert 'raise FloatingPointError("no number")' in caught.value.failures[0]["traceback"]
    assert [cell.config["seed"] for cell in sweep.missing(cells(12), tmp_path)] == [1]


def test_a_cell_whose_process_dies_each_time_is_recorded_too(tmp_path):
    def run(config):
        import os

        if config["seed"] == 0:
            os._exit(1)
        return {"measures": {"n": config["seed"]}}

    with pytest.raises(CellsFailed, match="KilledWorker"):
        run_cells(cells(4), run, tmp_path, workers=2, progress=False)
    assert [cell.config["seed"] for cell in sweep.missing(cells(4), tmp_path)] == [0]


INTERRUPTED = """
import signal, sys, time
from dataclasses import dataclass
from pathlib import Path
from pbnn.sweep import cell_key, run_cells

folder = Path(sys.argv[1])

@dataclass
class Result:
    n: int

def run(config):
    time.sleep(0.3)
    return {"measures": vars(Result(config["seed"]))}

if __name__ == "__main__":
    # What a shell runs in the background ignores Ctrl-C, and so does what that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    configs = [{"dataset": "d", "method": "m", "seed": seed} for seed in range(500)]
    try:
        run_cells([(cell_key(c, {}), c) for c in configs], run, folder, progress=False, workers=2)
    except KeyboardInterrupt:
        print("interrupted")
"""


def alive(group):
    """Whether any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_interrupted_script_keeps_what_is_finished_and_leaves_no_process(tmp_path):
    script, folder = tmp_path / "study.py", tmp_path / "runs"
    script.write_text(INTERRUPTED)
    study = subprocess.Popen(
        [sys.executable, script, folder],
        env=os.environ | {"PYTHONPATH": str(Path(pbnn.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # Generous: starting and stopping a cluster takes many times longer on a busy machine.
    deadline = time.monotonic() + 120
    try:
        while len(contents(folder)) < 3:
            assert time.monotonic() < deadline
            assert study.poll() is None
            time.sleep(0.01)
        os.killpg(study.pid, signal.SIGINT)  # As a terminal does.
        assert (study.communicate(timeout=100), study.returncode) == (("interrupted\n", ""), 0)
        while time.monotonic() < deadline and alive(study.pid):
            time.sleep(0.05)
        assert not alive(study.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(study.pid, signal.SIGKILL)
        study.communicate()
    # A part file may be left if the signal comes within its removal; it is no record.
    kept = contents(folder, "[!.]*.json")
    assert 3 <= len(kept) < 100
    assert len(sweep.missing(cells(500), folder)) == 500 - len(kept)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster that is there before the study and after it."""
    import dask
    from distributed import LocalCluster

    variables, state = dict(os.environ), random.getstate()
    folder = tmp_path_factory.mktemp("cluster")
    with (
        dask.config.set(temporary_directory=str(folder)),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
        ) as running,
    ):
        yield running
    os.environ.update(variables)
    random.setstate(state)


def test_a_study_runs_on_an_existing_cluster(tmp_path, cluster):
    def run(config):
        import random

        number = random.Random(config["seed"]).random()
        return {"measures": {"n": number}, "files": {"bin": str(number).encode()}}

    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": cluster.scheduler_address}))
    run_cells(cells(3), run, tmp_path / "none", progress=False)
    for number, scheduler in enumerate([cluster.scheduler_address, file]):
        folder = tmp_path / str(number)
        run_cells(cells(3), run, folder, scheduler=scheduler, progress=False)
        assert contents(folder, "*") == contents(tmp_path / "none", "*")
        assert len(contents(folder, "*.bin")) == 3
    assert not [name for name in cluster.scheduler.worker_plugins if name.startswith("pbnn")]
    assert not cluster.scheduler.tasks


def test_a_worker_with_another_version_is_refused(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(pbnn, "__version__", "0.0.0")
    with pytest.raises(RuntimeError, match=r"the study 0\.0\.0") as caught:
        run_cells(
            cells(1), lambda c: {}, tmp_path, scheduler=cluster.scheduler_address, progress=False
        )
    assert "d/m/0" in caught.value.__notes__[0]


def test_what_is_finished_when_storing_fails_is_kept(tmp_path, cluster, monkeypatch):
    store, stored = sweep.store, []

    def fail_once(cell, result, folder):
        stored.append(cell.key)
        if len(stored) == 1:
            deadline = time.monotonic() + 20
            while len(list(tmp_path.glob("end *"))) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.5)
            raise OSError("disk full")
        return store(cell, result, folder)

    def run(config):
        (tmp_path / f"end {config['seed']}").touch()
        return {"measures": {"n": config["seed"]}}

    monkeypatch.setattr(sweep, "store", fail_once)
    with pytest.raises(OSError, match="disk full") as caught:
        run_cells(cells(3), run, tmp_path, scheduler=cluster.scheduler_address, progress=False)
    assert "In cell d/m/" in caught.value.__notes__[0]
    assert len(contents(tmp_path)) == 3


def test_a_run_that_cannot_be_pickled_is_refused(tmp_path, cluster):
    lock = threading.Lock()
    with pytest.raises(TypeError, match="`run` must be picklable by cloudpickle"):
        run_cells(
            cells(1),
            lambda c: {"measures": {"n": lock}},
            tmp_path,
            scheduler=cluster.scheduler_address,
            progress=False,
        )


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"workers": 2, "scheduler": "tcp://127.0.0.1:1"}, "`workers` must be left out"),
        ({"workers": 0}, "`workers` must be a positive integer, got 0"),
        ({"workers": -1}, "`workers` must be a positive integer, got -1"),
        ({"scheduler": "no-such-file"}, r"`scheduler` must be an address .* got 'no-such-file'"),
    ],
)
def test_a_place_that_is_none_is_refused(tmp_path, place, says):
    with pytest.raises(ValueError, match=says):
        run_cells(cells(1), measure, tmp_path, progress=False, **place)


def test_dask_is_needed_only_for_what_is_to_be_run_on_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    run_cells(cells(2), measure, tmp_path, progress=False)
    run_cells(cells(2), refuse, tmp_path, progress=False, workers=2)
    with pytest.raises(ImportError, match="need the package distributed: pip install"):
        run_cells(cells(3), measure, tmp_path, progress=False, workers=2)


def sweep_of_one(folder, change, name="{}.json"):
    """The number of runs with a stored file that was changed, and the record."""
    config = {"seed": 1, "rate": 0.5}
    cell = Cell(cell_key(config, {}), config)
    with contextlib.suppress(CellsFailed):
        run_cells([cell], lambda _: {"n": 3} if "failed" not in name else 1 / 0, folder)
    path = folder / name.format(cell.key)
    path.write_text(change(path.read_text()))
    runs = []
    (record,) = run_cells([cell], lambda c: runs.append(c) or {"n": 3}, folder, progress=False)
    return len(runs), record


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"n": 3', '"n": NaN'),
        ('"n": 3', '"n": 1e999'),
        ('"n": 3', '"n": 2, "n": 3'),
        ('"seed": 1', '"seed": true'),
        ('"seed": 1', '"seed": 1.0'),
        ('"n": 3', '"n": ' + "[" * 500 + "]" * 500),
    ],
)
def test_a_record_that_python_would_read_is_run_again_if_it_is_damaged(old, new, tmp_path):
    with pytest.warns(UserWarning, match="is run again"):
        runs, record = sweep_of_one(tmp_path, lambda text: text.replace(old, new))
    assert (runs, record["n"]) == (1, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-9],
        lambda text: text.replace('"error"', '"eror"'),
        lambda text: text.replace('"rate": 0.5', '"rate": 0.25'),
    ],
)
def test_a_damaged_failure_is_run_again_with_a_warning(change, tmp_path):
    with pytest.warns(UserWarning, match=r"failed\.json .* is run again"):
        runs, record = sweep_of_one(tmp_path, change, "{}.failed.json")
    assert (runs, record["n"]) == (1, 3)
