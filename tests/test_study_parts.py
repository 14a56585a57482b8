"""What studies share: the recorded command gives the same configuration, errors read well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pbnn
from pbnn.files import read_json, write_json
from pbnn.study import SCHEMA_VERSION, command_of, describe, run_study

# In a file of its own, since tyro draws from the global generator.
STUDY = '''
from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Literal

from pbnn.study import command_of, parse, run_study
from pbnn.sweep import CellsFailed


@dataclasses.dataclass(frozen=True)
class Config:
    """What to run."""

    preset: Literal["quick", "paper"] = "quick"
    """How long."""
    datasets: tuple[str, ...] = ("mnist17", "mnistLH")
    hidden: tuple[int, ...] = (10, 10)
    seeds: int = 3
    """Runs of each method."""
    delta: float = 0.05
    restarts: int | None = None
    patience: int | None = 4
    augment: bool = True
    compile: bool = False
    title: str = "a"
    model_file: Path = Path("model.json")
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"`seeds` must be a positive integer, got {self.seeds}.")


CONFIGS = [
    Config(),
    Config(preset="paper", seeds=7, delta=1e-20, compile=True, hidden=(-1, 2)),
    Config(datasets=("digits17",), hidden=(100,), restarts=3, patience=None, augment=False),
    Config(hidden=(), title="two words, a 'quote' and $HOME", model_file=Path("a b/c.json")),
    Config(datasets=("a", "b c"), delta=float("inf"), title=""),
]


def study(config):
    match config.title:
        case "value": raise ValueError("`x` must be y, got z.")
        case "file": raise FileNotFoundError(2, "No such file", "data.csv")
        case "bug": raise KeyError("bug")
        case "interrupt": raise KeyboardInterrupt
        case "cell":
            failure = {"name": "d/m/0", "key": "0" * 16, "error": "ValueError: not finite"}
            raise CellsFailed([failure], "runs")
    return Path("reports", f"{config.preset}_{config.seeds}")


if __name__ == "__main__":
    if sys.argv[1:] == ["round trip"]:
        for config in CONFIGS:
            words = shlex.split(command_of(config, "studies/a.py", ["out"]))
            assert words[:2] == ["python", "studies/a.py"]
            sys.argv = words[1:]
            assert parse(Config, "A study.") == config, words
        print(len(CONFIGS))
    else:
        run_study(study, Config, "A study of nothing.")
'''


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study.py"
    path.write_text(STUDY, encoding="utf-8")
    return path


def run(script, *flags, fails=False, without=None):
    words = [sys.executable, str(script), *flags]
    if without:
        code = f"import sys, runpy; sys.modules[{without!r}] = None; sys.argv = sys.argv[1:]; "
        words[1:2] = ["-c", code + "runpy.run_path(sys.argv[0], run_name='__main__')", str(script)]
    environment = os.environ | {"PYTHONPATH": str(Path(pbnn.__file__).parents[1])}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert bool(done.returncode) == fails, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def config(script, monkeypatch):
    """The configuration of the study above, in this process."""
    module = type(sys)("study_under_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(STUDY, str(script), "exec"), vars(module))
    return module.Config


def test_the_recorded_command_gives_the_same_configuration(script):
    assert run(script, "round trip").strip() == "5"


def test_a_command_names_what_is_not_default_and_the_preset(config):
    assert command_of(config(), "studies/a.py") == "python studies/a.py --preset quick"
    made = config(preset="paper", datasets=("a", "b"), augment=False, model_file=Path("c"))
    assert command_of(made, "x.py") == (
        "python x.py --preset paper --datasets a b --no-augment --model-file c"
    )


def test_folders_are_left_out_of_a_command(config):
    elsewhere = config(out=Path("a/b"))
    assert command_of(elsewhere, "a.py", ["out"]) == command_of(config(), "a.py")
    assert command_of(elsewhere, "a.py").endswith("--out a/b")
    with pytest.raises(ValueError, match=r"`leave_out` must name fields .* got {'folder'}"):
        command_of(elsewhere, "a.py", ["folder"])


@pytest.mark.parametrize("value", [((1, 2), (3,)), (True,), {"a": 1}, [1]])
def test_what_no_command_can_say_is_refused(config, value):
    with pytest.raises(TypeError, match="`hidden` must be None, a number"):
        command_of(config(hidden=value), "a.py")


@pytest.mark.parametrize("value", ["-x", ("a", "--seeds")])
def test_a_text_that_would_be_read_as_a_flag_is_refused(config, value):
    with pytest.raises(ValueError, match="`title` must not look like a flag"):
        command_of(config(title=value), "a.py")


def test_flags_reach_the_study(script):
    text = run(script, "--preset", "paper", "--seeds", "5")
    assert text == f"Tables and figures are in {Path('reports', 'paper_5')}\n"
    assert run(script) == f"Tables and figures are in {Path('reports', 'quick_3')}\n"


def test_help_describes_the_study_and_its_flags(script):
    text = run(script, "--help")
    assert "A study of nothing." in text
    assert "Runs of each method." in text
    assert "--model-file" in text


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--title", "value"], "error: `x` must be y, got z.\n"),
        (["--title", "file"], "error: [Errno 2] No such file: 'data.csv'\n"),
        (["--title", "interrupt"], "\nInterrupted. Finished runs are kept"),
        (["--sedes", "5"], "--seeds"),
        (["--seeds", "0"], "`seeds` must be a positive integer, got 0."),
    ],
)
def test_what_a_user_can_mend_comes_without_a_traceback(script, flags, says):
    text = run(script, *flags, fails=True)
    assert says in text
    assert "Traceback" not in text


def test_a_bug_keeps_its_traceback(script):
    text = run(script, "--title", "bug", fails=True)
    assert "KeyError" in text
    assert "Traceback" in text


def test_runs_that_failed_are_named_with_where_their_tracebacks_are(script):
    text = run(script, "--title", "cell", fails=True)
    assert "error: 1 runs failed" in text
    assert "d/m/0 (0000000000000000): ValueError: not finite" in text
    assert "runs/*.failed.json" in text
    assert "Traceback (most recent" not in text


def test_without_tyro_a_study_runs_but_has_no_flags(script):
    assert "quick_3" in run(script, without="tyro")
    text = run(script, "--seeds", "5", fails=True, without="tyro")
    assert text == "Flags need the package tyro: pip install tyro\n"


def test_a_description_is_plain_json_of_a_known_version(config, tmp_path):
    about = describe(config(seeds=4, out=tmp_path), "a.py", ["out"], seeds=4, source="digits")
    write_json(tmp_path / "study.json", about)
    assert read_json(tmp_path / "study.json", "study description", SCHEMA_VERSION) == about
    assert about["command"] == "python a.py --preset quick --seeds 4"
    assert (about["seeds"], about["source"]) == (4, "digits")
    assert about["versions"]["pbnn"] == pbnn.__version__
    assert str(tmp_path) not in json.dumps(about)


def test_a_description_cannot_be_given_another_command(config):
    with pytest.raises(ValueError, match=r"`more` must leave \['command', 'versions'\]"):
        describe(config(), "a.py", command="rm", versions={})


def test_interrupting_is_no_error_of_the_caller(config, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["a.py"])
    monkeypatch.setitem(sys.modules, "tyro", None)

    def study(made):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="give the same command to go on"):
        run_study(study, config, None)
