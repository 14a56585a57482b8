"""The study as its user meets it: help, suggestions, errors without tracebacks, its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "studies" / "pac_bound_mnist.py"

# One interpreter for all, since it starts slowly; another one, since tyro draws from the global
# generator. Each case is the file run as a script, its words and what is not installed.
DRIVER = """
import contextlib
import io
import json
import runpy
import sys
import traceback
from pathlib import Path

import pbnn.data.files

script, home = sys.argv[1], Path(sys.argv[2])
# As Python does for a script.
sys.path.insert(0, str(Path(script).parent))
pbnn.data.files.cache_folder = lambda: home / "cache"
answers = {}
for name, (words, absent) in json.loads(sys.argv[3]).items():
    sys.argv = [script, *words]
    if absent:
        sys.modules[absent] = None
    text, code, before = io.StringIO(), 0, set(home.iterdir())
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            code = 1
            traceback.print_exc()
    if isinstance(code, str):
        text.write(code)
        code = 1
    answers[name] = [code, text.getvalue(), sorted(p.name for p in set(home.iterdir()) - before)]

import dataclasses
import shlex

del sys.modules["tyro"]
import tyro

import pac_bound_mnist as study
from pbnn.study import command_of

where = ("data_dir", "out", "redraw", "workers", "scheduler")
configs = [
    study.Config(),
    study.Config(preset="paper", seeds=7, delta=0.01, compile=True),
    study.Config(datasets=("digits17", "ads"), methods=("pbgnet", "abnet"), offline=True),
    study.Config(hidden=("unit", "10-10"), threads=2),
]
places = {"data_dir": Path("a b"), "out": Path("c"), "redraw": True, "scheduler": "tcp://x:1"}
for config in configs:
    for change in ({}, places, {"workers": 3}):
        moved = dataclasses.replace(config, **change)
        words = shlex.split(command_of(moved, "studies/pac_bound_mnist.py", where))
        assert words[:2] == ["python", "studies/pac_bound_mnist.py"]
        assert tyro.cli(study.Config, args=words[2:]) == config, words
print(json.dumps(answers))
"""

CASES = {
    "help": (["--help"], ""),
    "flag": (["--sedes", "3"], ""),
    "dataset": (["--datasets", "digits17", "minst17"], ""),
    "method": (["--methods", "pbgnett"], ""),
    "hidden": (["--hidden", "unit", "0-3"], ""),
    "seeds": (["--seeds", "0"], ""),
    "redraw": (["--redraw", "--out", "OUT"], ""),
    "folder": (["--datasets", "mnist17", "--data-dir", "OUT", "--out", "OUT"], ""),
    "unlisted": (["--datasets", "digits17", "--hidden", "13", "--out", "OUT"], ""),
    "tyro": (["--seeds", "1"], "tyro"),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Exit code, what was printed, and what was left in the folder, of every case."""
    home = tmp_path_factory.mktemp("home")
    out = str(home / "nowhere")
    cases = {
        name: ([out if word == "OUT" else word for word in words], absent)
        for name, (words, absent) in CASES.items()
    }
    # Should a case go on by mistake, it finds neither data nor a reason to download them.
    safe = {"PBNN_DATA": out, "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(SCRIPT), str(home), json.dumps(cases)],
        cwd=home,
        env=os.environ | safe | {"COLUMNS": "100", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_help_explains_every_flag(said, study):
    code, text, left = said["help"]
    assert (code, left) == (0, [])
    for field in study.dataclasses.fields(study.Config):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "Do not try to download." in text
    assert "studies/pac_bound_mnist.py --redraw" in text
    for name in ("mlp_tanh", "pbgnet_l_bnd", "abnet", "pbgnet_rf"):
        assert name in text


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("flag", ["--sedes", "--seeds"]),
        ("dataset", ["did you", "mnist17"]),
        ("method", ["pbgnett", "pbgnet_pre"]),
        ("hidden", ["`hidden` must hold `unit` or widths", "'0-3'"]),
        ("seeds", ["`seeds` must be a positive integer, got 0"]),
        ("redraw", ["study.json"]),
        ("folder", ["nowhere"]),
        ("unlisted", ["error: `hidden` must be one of the listed", "got [13]"]),
        ("tyro", ["pip install tyro"]),
    ],
)
def test_a_mistake_is_named_without_a_traceback(said, name, parts):
    code, text, left = said[name]
    assert code != 0
    assert "Traceback" not in text
    # Long messages are wrapped and framed.
    words = " ".join(text.replace("│", " ").split())
    for part in parts:
        assert part in words
    # By then the ledger has it: what was tried is entered before it is charged for.
    assert not left or name == "unlisted"
