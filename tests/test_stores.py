"""Records in a folder and in an object store: the same, whole, and resumed from."""

from __future__ import annotations

import uuid

import pytest

from pbnn.stores import LocalStore, RemoteStore, store_at
from pbnn.sweep import Cell, CellsFailed, cell_key, run_cells, store


@pytest.fixture(params=["folder", "memory", "file"])
def place(request, tmp_path):
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/runs"
    return tmp_path / "runs" if request.param == "folder" else f"file://{tmp_path}/runs"


def test_files_are_there_until_they_are_removed(place):
    store = store_at(place)
    with pytest.raises(FileNotFoundError):
        store.read("a.json")
    store.remove("a.json")
    for data in (b"first", b"second"):
        store.write("a.json", data)
        assert store.read("a.json") == data
    assert store.where("a.json").endswith("runs/a.json")
    store.remove("a.json")
    with pytest.raises(FileNotFoundError):
        store.read("a.json")


def cells():
    configs = [{"method": "m", "seed": seed} for seed in range(3)]
    return [Cell(cell_key(config, {}), config) for config in configs]


def test_a_study_goes_on_from_either(place):
    def run(config):
        if config["seed"] == 1:
            raise ZeroDivisionError("no number")
        return {"measures": {"n": config["seed"]}, "files": {"bin": b"x"}}

    with pytest.raises(CellsFailed, match="no number"):
        run_cells(cells(), run, place, progress=False)
    assert store_at(place).read(f"{cells()[0].key}.bin") == b"x"
    done = []

    def rest(config):
        done.append(config["seed"])
        return {"measures": {"n": config["seed"]}}

    records = run_cells(cells(), rest, place, progress=False, retry_failed=True)
    assert done == [1]
    assert [record["measures"]["n"] for record in records] == [0, 1, 2]


def test_addresses_are_told_from_paths(tmp_path):
    assert isinstance(store_at(tmp_path), LocalStore)
    assert isinstance(store_at(f"file://{tmp_path}"), LocalStore)
    assert isinstance(store_at("memory://x"), RemoteStore)
    with pytest.raises(ValueError, match="fsspec"):
        store_at("nothing-like-it://x")


def test_a_record_costs_an_object_store_two_requests(monkeypatch):
    place = f"memory://{uuid.uuid4().hex}/runs"
    asked = []
    system = store_at(place).system
    for name in ("pipe_file", "makedirs", "exists", "rm_file", "cat_file"):
        whole = getattr(system, name)
        monkeypatch.setattr(
            system,
            name,
            lambda *a, whole=whole, name=name, **k: (asked.append(name), whole(*a, **k)),
        )
    store(cells()[0], {"measures": {"n": 1}}, place)
    assert asked == ["pipe_file", "rm_file"]
