"""Mutation test of bounds/: change one thing, run the tests that concern it, see one fail.

python tests/mutants.py [--sample N] [--seed S] [--list] [FILE ...]

Without --sample every mutant is tried. The sample takes from each file in proportion to its
mutants. Each mutant is a forked child into which the changed module is imported instead of its
file; nothing is written into the repository. Prints what survives, then a count for each file.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 40  # for each of two rounds of tests; then a mutant counts as killed
SHARED = ["inputs", "torch", "properties", "rounding", "exact"]
CORE = ["_arrays", "_intervals", "constants", "exact", "kl"]  # what every other file uses
SLOW = ["coverage"]  # draws samples for minutes
FIRST = {
    "_arrays": ["inputs", "torch", "gibbs"],
    "_intervals": ["exact"],
    "catalogue": ["inputs"],
    "cbounds": ["votes"],
    "constants": ["gibbs", "kl", "exact"],
    "splitting": ["variance"],
    "temperature": ["gibbs"],
}
SWAPS: dict[type, list[type]] = {
    **{ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Eq: [ast.NotEq]},
    **{ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt], ast.NotEq: [ast.Eq]},
    **{ast.In: [ast.NotIn], ast.NotIn: [ast.In], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is]},
    **{ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult]},
    **{ast.FloorDiv: [ast.Mult], ast.Mod: [ast.Mult], ast.Pow: [ast.Mult]},
    **{ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd], ast.And: [ast.Or], ast.Or: [ast.And]},
}
NAMES = dict([
    *(("min", "max"), ("max", "min"), ("minimum", "maximum"), ("maximum", "minimum")),
    *(("log", "log1p"), ("log1p", "log"), ("exp", "expm1"), ("expm1", "exp")),
    *(("any", "all"), ("all", "any"), ("ceil", "floor")),
])  # fmt: skip
WORDS = {"upper": "lower", "lower": "upper", "maurer": "xi"}
NUMBERS = {0: 1, 1: 2, 2: 3, 0.5: 1.0}


class Mutant(NamedTuple):
    file: str
    line: int
    change: str
    source: str


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What to put in the place of an expression or statement."""
    changed: Any = copy.copy(node)
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in SWAPS.get(type(op), []):
                    changed.ops = [*ops[:i], other(), *ops[i + 1 :]]
                    yield copy.copy(changed)
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op):
            for other in SWAPS.get(type(op), []):
                changed.op = other()
                yield changed
            if isinstance(node, ast.AugAssign):
                yield ast.Pass()
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(NUMBERS.get(value, value + 1 if isinstance(value, int) else -value))
        case ast.Constant(value=str(value)) if value in WORDS:
            yield ast.Constant(WORDS[value])
        case ast.Name(id=name) if name in NAMES:
            yield ast.Name(NAMES[name], ast.Load())
        case ast.Attribute(attr=name) if name in NAMES:
            changed.attr = NAMES[name]
            yield changed
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Call(func=ast.Attribute(attr="where"), args=[test, one, other]):
            changed.args = [test, other, one]
            yield changed
        case ast.Expr() | ast.Raise():
            yield ast.Pass()
        case ast.If(orelse=[]):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            # Without any other assignment nothing would be left to run.
            if any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(value)):
                yield ast.Pass()


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int, ast.AST]]:
    """Parent, field, index and node of all that may change; texts, types and imports stay."""
    skipped = ("annotation", "returns", "decorator_list", "op", "ops", "ctx")
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Raise):
        return
    for field, value in ast.iter_fields(node):
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            told = ast.unparse(child) if isinstance(child, ast.If | ast.Assign) else ""
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if field in skipped or not isinstance(child, ast.AST) or docstring:
                continue
            if not told.startswith(("if TYPE_CHECKING", "__all__")):
                yield node, field, i, child
                yield from places(child)


def put(parent: ast.AST, field: str, i: int, node: ast.AST) -> None:
    if isinstance(value := getattr(parent, field), list):
        value[i] = node
    else:
        setattr(parent, field, node)


def mutants(path: Path) -> Iterator[Mutant]:
    tree = ast.parse(path.read_text())
    for parent, field, i, before in list(places(tree)):
        for after in replacements(before):
            told = [ast.unparse(x).partition("\n")[0] for x in (before, after)]
            put(parent, field, i, after)
            yield Mutant(path.name, before.lineno, " -> ".join(told), ast.unparse(tree))
            put(parent, field, i, before)


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a mutant in the place of its file."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        stem = mutant.file.removesuffix(".py")
        self.name = "pbnn.bounds" if stem == "__init__" else f"pbnn.bounds.{stem}"

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        place = str(ROOT / "pbnn" / "bounds" / self.mutant.file)
        package = [str(ROOT / "pbnn" / "bounds")] if fullname == "pbnn.bounds" else None
        return importlib.util.spec_from_file_location(
            fullname, place, loader=self, submodule_search_locations=package
        )

    def exec_module(self, module: Any) -> None:
        exec(compile(self.mutant.source, self.mutant.file, "exec"), module.__dict__)


def tests_of(file: str) -> list[list[str]]:
    """Test files in two rounds: those of this file and the oracle, then the others."""
    stem, folder = file.removesuffix(".py"), ROOT / "tests" / "bounds"
    found = [path.stem.removeprefix("test_") for path in sorted(folder.glob("test_*.py"))]
    own = [*FIRST.get(stem, [stem]), "oracle"]
    others = [*found, *SHARED] if stem in CORE else SHARED
    rest = [name for name in dict.fromkeys(others) if name not in (*own, *SLOW)]
    return [[str(folder / f"test_{n}.py") for n in x if n in found] for x in (own, rest)]


def in_child(mutant: Mutant, log: Path) -> int:
    import pytest

    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.meta_path.insert(0, Changed(mutant))
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "--assert=plain"]
    code = 0
    for files in tests_of(mutant.file):
        signal.alarm(SECONDS)
        code = code or int(pytest.main([*options, f"--rootdir={ROOT}", *files]))
    return code


def run(mutant: Mutant, log: Path) -> str:
    """`killed`, `survived` or `timeout`, as the tests in a child tell."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(in_child(mutant, log))
        except BaseException:
            traceback.print_exc()
            os._exit(100)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "timeout" if os.WTERMSIG(status) == signal.SIGALRM else "killed"
    return "killed" if os.WEXITSTATUS(status) else "survived"


def chosen(found: list[Mutant], sample: int, seed: int) -> list[Mutant]:
    """As many of each file as its part of them all, and at least one."""
    part, rng = min(1.0, sample / len(found)), random.Random(seed)
    files = {name: [m for m in found if m.file == name] for name in {m.file: 0 for m in found}}
    taken = (rng.sample(ms, max(1, round(part * len(ms)))) for ms in files.values())
    return sorted((m for ms in taken for m in ms), key=lambda m: (m.file, m.line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="in bounds/, such as kl.py; all if none is named")
    parser.add_argument("--sample", type=int, help="how many to try, of all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="print the mutants and try none")
    args = parser.parse_args()
    names = [Path(f).name for f in args.files] or sorted(p.name for p in ROOT.glob("bounds/*.py"))
    found = [mutant for name in names for mutant in mutants(ROOT / "bounds" / name)]
    found = chosen(found, args.sample or len(found), args.seed)
    if args.list:
        print(*(f"{m.file}:{m.line}: {m.change}" for m in found), sep="\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.pycache_prefix = os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        os.environ["OMP_NUM_THREADS"] = "1"
        for library in ("pytest", "hypothesis", "mpmath", "scipy.stats", "scipy.special", "torch"):
            importlib.import_module(library)
        sound = Mutant(names[0], 0, "", (ROOT / "bounds" / names[0]).read_text())
        if run(sound, Path(folder, "log")) != "survived":
            sys.exit("The tests fail without a mutant:\n" + Path(folder, "log").read_text())
        counts: Counter[tuple[str, str]] = Counter()
        for mutant in found:
            fate = run(mutant, Path(folder, "log"))
            counts[mutant.file, fate] += 1
            if fate != "killed":
                print(f"{fate}: {mutant.file}:{mutant.line}: {mutant.change}", flush=True)
    for name in [*names, ""]:
        killed, timeout, survived = (
            sum(n for (file, f), n in counts.items() if f == fate and name in (file, ""))
            for fate in ("killed", "timeout", "survived")
        )
        total = killed + timeout + survived
        print(f"{name or 'all':16} {total:5} mutants {killed + timeout:5} killed {survived:4} left")


if __name__ == "__main__":
    main()
