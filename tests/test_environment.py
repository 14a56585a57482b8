"""What a record says of where it was made."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pbnn
from pbnn import environment as module
from pbnn.environment import environment


def test_the_environment_holds_no_names_or_paths():
    found = environment()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["versions"]["pbnn"] == pbnn.__version__
    assert found["versions"]["numpy"].count(".") >= 2
    assert found["hardware"]["cores"] >= 1
    text = json.dumps(found)
    assert str(Path.home()) not in text
    assert os.uname().nodename not in text


def test_the_commit_is_that_of_our_own_checkout_only(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "pbnn").mkdir()
    (tmp_path / "pbnn" / "environment.py").write_text("")
    git("add", ".")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "pbnn" / "environment.py"))
    assert environment()["versions"]["commit"] is None
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert environment()["versions"]["commit"] == commit
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "table.csv").write_text("written by the study itself")
    git("add", ".")
    assert environment()["versions"]["commit"] == commit
    (tmp_path / "pbnn" / "environment.py").write_text("changed")
    assert environment()["versions"]["commit"] == f"{commit}-dirty"
    (tmp_path / "lib" / "pbnn").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "lib" / "pbnn" / "environment.py"))
    assert environment()["versions"]["commit"] is None
