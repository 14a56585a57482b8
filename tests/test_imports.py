"""Who imports whom, read from the sources, and what an import loads, seen in a fresh process."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A room imports only from earlier lines, or from its own folder.
RANKS = [
    {"bounds", "files", "lazy"},
    {"cluster", "seeding", "stores"},
    {
        "augmentation",
        "backbones",
        "balance",
        "data",
        "features",
        "functional",
        "quadrature",
        "ensembles",
        "uncertainty",
    },
    {"binarize", "inputs", "posteriors", "scores"},
    {"layers"},
    {"networks"},
    {"baselines"},
    {"evaluation", "objectives", "sampled"},
    {"class_risks", "distillation", "module_risks", "shards"},
    {"chunks"},
    {"memory"},
    {"certificates", "gradients", "representation", "training"},
    {"environment", "ledger", "packed", "resuming", "sweep"},
    {"distributed", "methods", "opening", "reporting"},
    {"study"},
    {"cli", "estimators", "export", "metrics"},
]
# Rooms that keep to less than their line allows.
ONLY = {
    "data": {"files", "seeding"},
    "functional": set(),
    "backbones": set(),
    "balance": set(),
    "binarize": {"functional"},
    "augmentation": set(),
    "features": set(),
    "quadrature": set(),
    "ensembles": set(),
    "uncertainty": set(),
    "scores": {"functional", "quadrature"},
    "inputs": {"data", "features", "seeding"},
    "sampled": {"functional", "networks"},
    "distillation": {"functional", "objectives", "scores"},
    "representation": {"binarize", "distillation", "objectives"},
    "gradients": {"functional", "networks", "objectives"},
    "cluster": set(),
    "packed": {
        *("baselines", "binarize", "certificates", "data", "ensembles", "files", "functional"),
        *("layers", "lazy", "networks", "seeding"),
    },
    "export": {"files", "packed"},
    "metrics": {"bounds", "module_risks", "networks", "uncertainty"},
    "stores": {"files"},
    "sweep": {"cluster", "files", "stores"},
    "ledger": {"files"},
    "environment": set(),
    "study": {"environment", "reporting", "sweep"},
    "reporting": {"certificates", "files"},
}
LATE = {"PIL", "dask", "distributed", "fsspec", "pooch", "safetensors", "tqdm", "tyro"}
HEAVY = {
    *("dask", "distributed", "matplotlib", "pandas", "pooch", "scipy.stats", "sklearn"),
    "torchmetrics",
}


def _rank(room: str) -> int:
    return next(rank for rank, rooms in enumerate(RANKS) if room in rooms)


def _sources() -> dict[str, Path]:
    """Dotted name -> file, of every module; packages end in `.__init__`."""
    # bounds/ is read at its own place: its link in pbnn/ may be missing from a checkout.
    inside = [path for path in (ROOT / "pbnn").rglob("*.py") if "bounds" not in path.parts[:-1]]
    found = {path.relative_to(ROOT): path for path in inside}
    found |= {Path("pbnn") / p.relative_to(ROOT): p for p in (ROOT / "bounds").rglob("*.py")}
    return {".".join(name.with_suffix("").parts): path for name, path in sorted(found.items())}


def _imported(module: str, node: ast.AST) -> Iterator[str]:
    """Absolute dotted names an import statement refers to, `from a import b` giving a.b."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        start = module.split(".")[: -node.level] if node.level else []
        base = ".".join([*start, *([node.module] if node.module else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _rooms_imported(module: str, tree: ast.Module) -> set[str]:
    names = (name for node in ast.walk(tree) for name in _imported(module, node))
    parts = (name.split(".") for name in names if name.startswith("pbnn."))
    return {part[1] for part in parts} - {"__version__", module.split(".")[1]}


def _statements_run_on_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node outside functions and outside `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from _statements_run_on_import(node)


SOURCES = _sources()
ROOMS = [name for name in SOURCES if name != "pbnn.__init__"]


@pytest.fixture(params=ROOMS)
def module(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def test_arrows_go_one_way(module: str) -> None:
    room = module.split(".")[1]
    assert any(room in rooms for rooms in RANKS), f"give pbnn.{room} its place in RANKS"
    allowed = ONLY.get(room, set().union(*RANKS[: _rank(room)]))
    assert _rooms_imported(module, _tree(module)) <= allowed


def test_every_ranked_room_exists() -> None:
    assert set().union(*RANKS) == {name.split(".")[1] for name in ROOMS}


def test_slow_or_optional_libraries_are_imported_when_used(module: str) -> None:
    nodes = _statements_run_on_import(_tree(module))
    names = {name.split(".")[0] for node in nodes for name in _imported(module, node)}
    assert not names & LATE


@pytest.mark.parametrize(
    "path",
    [*SOURCES.values(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "studies").rglob("*.py")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_bounds_are_imported_as_pbnn_bounds(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {name.split(".")[0] for node in ast.walk(tree) for name in _imported("pbnn.x.y", node)}
    assert "bounds" not in names


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import pbnn; dir(pbnn)", HEAVY | {"torch", "numpy", "scipy"}),
        ("from pbnn.bounds import catoni", HEAVY | {"torch"}),
        ("from pbnn.bounds import catoni; catoni(0.1, 10.0, 1000)", HEAVY | {"torch"}),
        ("import pbnn.files, pbnn.seeding", HEAVY | {"torch", "numpy"}),
        ("import pbnn.data", HEAVY | {"torch"}),
        ("import pbnn.sweep", HEAVY | {"torch"}),
        ("import pbnn.study, pbnn.ledger", HEAVY | {"torch", "numpy"}),
        ("import pbnn.functional", HEAVY),
        ("from pbnn import PBGNet", HEAVY),
        ("import pbnn.certificates, pbnn.training", HEAVY),
        ("import pbnn.methods", HEAVY),
    ],
)
def test_an_import_loads_no_more_than_it_needs(code: str, absent: set[str]) -> None:
    report = f"import sys; {code}; print(*sys.modules)"
    command = [sys.executable, "-c", report]
    loaded = set(subprocess.check_output(command, cwd=ROOT, text=True).split())
    assert "pbnn" in loaded
    assert not loaded & absent
