"""What users get: the wheel and the sdist, built, installed and imported from elsewhere."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LEFT_OUT = shutil.ignore_patterns(
    *("__pycache__", ".*", "build", "dist", "*.egg-info", "docs", "reports", "studies", "tests")
)
PIP = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check"]
OFFLINE = ["--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--quiet"]

# Run by an isolated interpreter in another folder: only the target and the installed libraries.
ASK = """
import json, sys
target = sys.argv[1]
sys.path.insert(0, target)
from importlib.metadata import distributions
import pbnn
from pbnn.bounds import catoni
print(json.dumps({
    "file": pbnn.__file__,
    "bounds": sys.modules["pbnn.bounds"].__file__,
    "version": pbnn.__version__,
    "metadata": [d.version for d in distributions(path=[target]) if d.name == "pbnn"],
    "value": float(catoni(0.1, 10.0, 1000)),
}))
"""


def _package_files(root: Path) -> set[str]:
    """What an installation should have below pbnn/: the files there, and bounds/ in its place."""
    inside = {path.relative_to(root) for path in (root / "pbnn").rglob("*.*")}
    linked = {path for path in inside if path.parts[:2] == ("pbnn", "bounds")}
    bounds = {"pbnn" / path.relative_to(root) for path in (root / "bounds").rglob("*.*")}
    return {path.as_posix() for path in (inside - linked) | bounds}


def _run(*command: str | Path, cwd: Path) -> str:
    # The environment's own settings for pip or Python must not decide the outcome.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    arguments = [str(argument) for argument in command]
    done = subprocess.run(arguments, cwd=cwd, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clean_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources elsewhere: a build in place leaves litter, and may use what another one left."""
    copy = tmp_path_factory.mktemp("source") / "with space"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=LEFT_OUT)
    return copy


def _build(source: Path, kind: str, out: Path) -> Path:
    if kind == "sdist":
        if not any(importlib.metadata.distributions(name="build")):
            pytest.skip("the extra `dev` is not installed")
        _run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "-o", out, source, cwd=out)
    else:
        _run(*PIP, "wheel", *OFFLINE, "--wheel-dir", out, source, cwd=out)
    (built,) = out.iterdir()
    return built


@pytest.mark.packaging
@pytest.mark.parametrize("kind", ["wheel", "sdist", "wheel of a checkout without links"])
def test_an_installed_package_is_whole(clean_copy: Path, tmp_path: Path, kind: str) -> None:
    source = clean_copy
    if kind == "wheel of a checkout without links":
        # What git leaves where the file system or core.symlinks forbids links.
        source = tmp_path / "source"
        shutil.copytree(clean_copy, source, symlinks=True, ignore=LEFT_OUT)
        (source / "pbnn" / "bounds").unlink()
        (source / "pbnn" / "bounds").write_text("../bounds")
    out, target, elsewhere = tmp_path / "out", tmp_path / "target", tmp_path / "elsewhere"
    for folder in (out, elsewhere):
        folder.mkdir()
    built = _build(source, kind, out)
    _run(*PIP, "install", *OFFLINE, "--target", target, built, cwd=elsewhere)

    installed = {p.relative_to(target).as_posix() for p in (target / "pbnn").rglob("*.*")}
    installed = {name for name in installed if "__pycache__" not in name}
    assert installed == _package_files(clean_copy)
    assert "pbnn/py.typed" in installed
    assert not (target / "bounds").exists()

    answer = json.loads(_run(sys.executable, "-I", "-c", ASK, target, cwd=elsewhere))
    assert Path(answer["file"]) == target / "pbnn" / "__init__.py"
    assert Path(answer["bounds"]) == target / "pbnn" / "bounds" / "__init__.py"
    assert answer["metadata"] == [answer["version"]]
    assert 0.1 < answer["value"] < 1


def test_every_package_is_listed() -> None:
    inside = {p.parent for p in (ROOT / "pbnn").rglob("__init__.py") if "bounds" not in p.parts}
    folders = {".".join(folder.relative_to(ROOT).parts) for folder in inside} | {"pbnn.bounds"}
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(folders)
    assert not [p for p in (ROOT / "bounds").rglob("*") if p.is_dir() and p.name != "__pycache__"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_the_link_to_bounds_is_relative() -> None:
    assert os.readlink(ROOT / "pbnn" / "bounds") == os.path.join("..", "bounds")


def test_requirements_are_ranges_and_the_constraints_pin_them() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions: dict[str, str] = {}
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert "+" not in specifier.version  # a local version would tie it to one index
        versions[canonicalize_name(pin.name)] = specifier.version

    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *extras["dev"], *extras["docs"]]:
        requirement = Requirement(line)
        assert all(s.operator not in ("==", "===") for s in requirement.specifier), line
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), line


def test_the_citation_has_the_version() -> None:
    from pbnn import __version__

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {__version__}" in citation
