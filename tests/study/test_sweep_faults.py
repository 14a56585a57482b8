"""The study that breaks a cluster: its plan, what it breaks, and what it calls the same."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time

import fault_hosts
import pandas as pd
import psutil
import pytest
import sweep_faults
from sweep_faults import CLIENT, FULL, HOST, LATE, READ_ONLY, WORKER, Config


def test_the_plan_holds_every_fault_that_was_asked_for_and_is_that_of_its_seed():
    faults = sweep_faults.plan(Config(), 200, disk=True)
    kinds = pd.Series([fault.kind for fault in faults]).value_counts().to_dict()
    assert kinds == {WORKER: 8, HOST: 6, CLIENT: 3, FULL: 2, READ_ONLY: 2, LATE: 1}
    afters = [fault.after for fault in faults]
    assert afters == sorted(afters)
    assert max(afters) < 180
    assert len(set(afters)) > 10
    assert faults == sweep_faults.plan(Config(), 200, disk=True)
    assert faults != sweep_faults.plan(Config(seed=1), 200, disk=True)
    without = sweep_faults.plan(Config(), 200, disk=False)
    assert {fault.kind for fault in without} == {WORKER, HOST, CLIENT, LATE}


@pytest.mark.parametrize("field", ["seeds", "workers_killed", "disks"])
def test_counts_are_natural_numbers(field):
    with pytest.raises(ValueError, match=f"`{field}`"):
        Config(**{field: -1})


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda folder: None, True),
        (lambda folder: (folder / "timings.csv").write_text("other"), True),
        (lambda folder: (folder / "index.html").write_text("seconds"), True),
        (lambda folder: (folder / "table.md").write_text("b"), False),
        (lambda folder: (folder / "table.md").unlink(), False),
        (lambda folder: (folder / "more.csv").write_text("a"), False),
    ],
)
def test_one_byte_or_one_file_more_or_less_is_not_the_same(tmp_path, change, same):
    for name in ("one", "other"):
        (tmp_path / name / "runs").mkdir(parents=True)
        for file in ("table.md", "records.csv", "timings.csv"):
            (tmp_path / name / file).write_text("a")
    change(tmp_path / "other")
    found = sweep_faults.compared(tmp_path / "one", tmp_path / "other")
    assert found["same"].all() == same
    assert "timings.csv" not in set(found["file"])


def test_what_belongs_to_no_finished_run_is_counted(tmp_path):
    runs, key = tmp_path / "runs", "0123456789abcdef"
    runs.mkdir()
    for name in (f"{key}.json", f"{key}.safetensors"):
        (runs / name).write_text("")
    assert sweep_faults.leftovers(tmp_path) == 0
    for name in (f".{key}.json", f"{key}.failed.json", "fedcba9876543210.npy"):
        (runs / name).write_text("")
    (tmp_path / ".table.0123.md").write_text("")
    assert sweep_faults.leftovers(tmp_path) == 4


def test_a_host_is_killed_with_all_of_its_processes(tmp_path):
    words = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    host = fault_hosts.Host([sys.executable, "-c", words], tmp_path / "log", {})
    host.start()
    below = []
    while not below:
        time.sleep(0.05)
        below = psutil.Process(host.process.pid).children(recursive=True)
    host.kill()
    assert not host.alive
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not [process for process in alive if process.status() != "zombie"]


def test_a_disk_is_full_and_read_only_for_a_while(tmp_path):
    if not fault_hosts.administrator():
        pytest.skip("needs the administrator of a Linux system")
    disk = fault_hosts.Disk(tmp_path / "disk")
    try:
        fault_hosts.system("mount", "-t", "tmpfs", "tmpfs", str(tmp_path))
    except subprocess.CalledProcessError:
        pytest.skip("mounts nothing here")
    fault_hosts.system("umount", str(tmp_path))
    with disk.mounted(True):
        for spoil, mend in (
            (disk.fill, disk.free),
            (lambda: disk.read_only(True), lambda: disk.read_only(False)),
        ):
            spoil()
            with pytest.raises(OSError, match=r"No space|Read-only"):
                (disk.folder / "a").write_bytes(bytes(5_000))
            mend()
            (disk.folder / "a").write_bytes(bytes(5_000))


@pytest.mark.slow
def test_a_small_sweep_survives_the_deaths_of_a_worker_and_of_its_client(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_faults, "administrator", lambda: False)
    monkeypatch.delenv("PBNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    none = dict.fromkeys(("workers_killed", "hosts_killed", "clients_killed", "disks"), 0)
    small = Config(
        datasets=("digits17",),
        methods=("pbgnet",),
        hidden=("unit",),
        preset="quick",
        seeds=6,
        out=tmp_path / "out",
        **none,
    )
    broken = dataclasses.replace(small, hosts_killed=1, clients_killed=1)
    sweep_faults.study(broken)
    tables = {p.stem: pd.read_csv(p) for p in (tmp_path / "out").glob("*.csv")}
    assert set(tables["faults"]["fault"]) == {LATE, HOST, CLIENT}
    assert tables["files"]["same"].all()
    assert set(tables["files"]["sweep"]) == {"2 workers", "disturbed"}
    assert len(tables["times"]) == tables["progress"]["finished"].max() == 6
    page = (tmp_path / "out" / "faults.md").read_text(encoding="utf-8")
    assert "| all               |       3 |" in page
