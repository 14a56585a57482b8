"""The study as a module, away from the user's cache and the committed reports; one finished run."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "studies" / "pac_bound_mnist.py"


def sheltered(patch, study, home):
    """Read and write nothing outside `home`; put nothing in front of the data."""
    patch.delenv("PBNN_DATA", raising=False)
    patch.setattr("pbnn.data.files.cache_folder", lambda: home / "cache")
    patch.setattr(study, "REPORTS", home / "reports")


@pytest.fixture(scope="session")
def module():
    spec = importlib.util.spec_from_file_location("study_under_test", SCRIPT)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(autouse=True)
def one_thread_as_in_runs(one_thread):
    """As every run sets it, also in the records of a test that runs nothing."""


@pytest.fixture
def study(module, monkeypatch, tmp_path):
    """The study as a module of this process."""
    sheltered(monkeypatch, module, tmp_path)
    return module


@pytest.fixture(scope="session")
def small(module):
    """A configuration of all methods and three networks that runs in seconds."""
    return module.Config(
        datasets=("digits17",),
        methods=module.get_args(module.Method),
        hidden=("2", "unit", "10-10"),
        seeds=2,
        offline=True,
    )


@pytest.fixture(scope="session")
def finished(module, small, tmp_path_factory):
    """The output of one undisturbed run; tests that write take a `copy`."""
    home, threads = tmp_path_factory.mktemp("finished"), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        sheltered(patch, module, home)
        torch.set_num_threads(1)
        folder = module.study(module.dataclasses.replace(small, out=home / "out"))
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")
