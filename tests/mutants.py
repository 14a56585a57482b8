"""Mutation test of bounds/: change one thing, run the tests that concern it, see one fail.

python tests/mutants.py [--sample N] [--seed S] [--quick] [--again LIST] [FILE ...]

A sample takes from each file its share. Each mutant is imported by a forked child in the place of
its file; nothing is written into the repository. What survives is printed, a LIST to try --again.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.machinery
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60  # for the tests of one file: an endless loop counts as noticed
SHARED = ["inputs", "arrays", "catalogue", "properties", "torch", "exact", "rounding"]
CORE = ["_arrays", "constants", "kl"]  # what every other file uses
FIRST = {
    **{"_arrays": ["arrays", "inputs", "torch", "gibbs"], "_intervals": ["exact"]},
    **{"cbounds": ["votes"], "kl": ["kl", "torch"], "splitting": ["variance"]},
    **{"recursion": ["variance"], "temperature": ["temperature", "gibbs"]},
}
SWAPS: dict[type, list[type]] = {
    **{ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Eq: [ast.NotEq]},
    **{ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt], ast.NotEq: [ast.Eq]},
    **{ast.In: [ast.NotIn], ast.NotIn: [ast.In], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is]},
    **{ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult]},
    **{ast.FloorDiv: [ast.Mult], ast.Mod: [ast.Mult], ast.Pow: [ast.Mult]},
    **{ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd], ast.And: [ast.Or], ast.Or: [ast.And]},
}
NAMES = {"min": "max", "minimum": "maximum", "log": "log1p", "exp": "expm1", "any": "all"}
NAMES |= {new: old for old, new in NAMES.items()} | {"ceil": "floor"}
WORDS = {"upper": "lower", "lower": "upper", "maurer": "xi"}
SKIPPED = ("annotation", "returns", "decorator_list", "op", "ops", "ctx")
NUMBERS = {0: 1, 1: 2, 2: 3, 0.5: 1.0}


class Mutant(NamedTuple):
    file: str
    told: str
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
        case ast.Constant(value=str(name)) | ast.Name(id=name) | ast.Attribute(attr=name):
            if name in (words := WORDS if isinstance(node, ast.Constant) else NAMES):
                setattr(changed, node._fields[-2], words[name])
                yield changed
        case ast.IfExp(test=test, body=one, orelse=other):
            yield ast.IfExp(test, other, one)
        case ast.Call(func=ast.Attribute(attr="where"), args=[test, one, other]):
            changed.args = [test, other, one]
            yield changed
        case ast.Expr() | ast.Raise() | ast.If(orelse=[]):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            # Without any other assignment nothing would be left to run.
            if name in {getattr(n, "id", None) for n in ast.walk(value)}:
                yield ast.Pass()


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int, ast.AST]]:
    """Parent, field, index and node of all that may change; texts, types and imports stay."""
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Raise):
        return
    for field, value in ast.iter_fields(node):
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            text = ast.unparse(child) if isinstance(child, ast.stmt) else ""
            if text.startswith(("if TYPE_CHECKING", "__all__", "'", '"')):
                continue
            if field not in SKIPPED and isinstance(child, ast.AST):
                yield node, field, i, child
                yield from places(child)


def mutants(path: Path) -> Iterator[Mutant]:
    tree = ast.parse(path.read_text())
    for parent, field, i, before in list(places(tree)):
        given = getattr(parent, field)
        for after in replacements(before):
            old, new = (ast.unparse(x).partition("\n")[0] for x in (before, after))
            several = isinstance(given, list)
            setattr(parent, field, [*given[:i], after, *given[i + 1 :]] if several else after)
            told = f": {path.name}:{before.lineno}: {old} -> {new}\n"
            yield Mutant(path.name, told, ast.unparse(tree))
            setattr(parent, field, given)


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a mutant in the place of its file."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant, self.name = mutant, f"pbnn.bounds.{mutant.file.removesuffix('.py')}"

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == self.name else None

    def exec_module(self, module: Any) -> None:
        exec(compile(self.mutant.source, self.mutant.file, "exec"), module.__dict__)


def tests_of(file: str, quick: bool) -> list[str]:
    """Those of this file, the oracle and, unless this is to be quick, all that may notice."""
    stem, folder = file.removesuffix(".py"), ROOT / "tests" / "bounds"
    found = {path.stem.removeprefix("test_"): 0 for path in sorted(folder.glob("test_*.py"))}
    found.pop("coverage", None)  # draws samples for minutes
    others = [] if quick else [*SHARED, *found] if stem in CORE else SHARED
    order = dict.fromkeys([*FIRST.get(stem, [stem]), "oracle", *others])
    return [str(folder / f"test_{name}.py") for name in order if name in found]


def run(mutant: Mutant, log: Path, quick: bool) -> str:
    """`killed`, `survived` or `timeout`, as the tests in a child tell."""
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", f"--rootdir={ROOT}"]
    if not (child := os.fork()):
        with contextlib.suppress(BaseException), log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.meta_path.insert(0, Changed(mutant))
            for tests in tests_of(mutant.file, quick):
                signal.alarm(SECONDS)
                if pytest.main([*options, tests]):
                    os._exit(1)
            os._exit(0)
        os._exit(2)
    status = os.waitpid(child, 0)[1]
    return "timeout" if status == signal.SIGALRM else "killed" if status else "survived"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="such as kl.py; all if none is named")
    parser.add_argument("--sample", type=int, help="how many mutants to try; all without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="only their own tests and the oracle")
    parser.add_argument("--again", type=Path, help="only the mutants that this file names")
    args = parser.parse_args()
    files = [ROOT / "bounds" / f for f in args.files] or sorted(ROOT.glob("bounds/*.py"))
    each = [list(mutants(file)) for file in files]
    part = min(1.0, args.sample / sum(map(len, each))) if args.sample else 1.0
    found: list[Mutant] = []
    for file, some in zip(files, each, strict=True):
        random.Random(f"{args.seed} {file.name}").shuffle(some)
        found += some[: max(1, round(part * len(some)))]
    found = [m for m in found if not args.again or m.told in args.again.read_text()]
    with tempfile.TemporaryDirectory() as folder:
        sys.pycache_prefix = os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        for library in ("pytest", "hypothesis", "mpmath", "scipy.stats", "scipy.special", "torch"):
            importlib.import_module(library)
        log, counts = Path(folder, "log"), Counter[tuple[str, str]]()
        sound = Mutant("kl.py", "", (ROOT / "bounds" / "kl.py").read_text())
        if run(sound, log, args.quick) != "survived":
            sys.exit("The tests fail without a mutant:\n" + log.read_text())
        for mutant in found:
            counts[mutant.file, fate := run(mutant, log, args.quick)] += 1
            if fate != "killed":
                print(fate + mutant.told, end="", flush=True)
    print(f"{'file':16} {'killed':>9} {'timeout':>9} {'survived':>9}")
    for told in [*dict.fromkeys(name for name, _ in counts), "all"]:
        fates = Counter(fate for name, fate in counts.elements() if told in (name, "all"))
        print(f"{told:16} {fates['killed']:9} {fates['timeout']:9} {fates['survived']:9}")


if __name__ == "__main__":
    main()
