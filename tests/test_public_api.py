"""The public names and signatures, against the list in tests/data/public_api.txt.

After a deliberate change, `make api` rewrites the list; its diff shows what users will notice.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pbnn

PINNED = Path(__file__).parent / "data" / "public_api.txt"


class _Plain(str):
    """An annotation shown without quotes, as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _signature(function: object) -> str:
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"

    def plain(annotation: object) -> object:
        text = getattr(annotation, "__forward_arg__", annotation)  # how a NamedTuple keeps it
        return _Plain(text) if isinstance(text, str) else annotation

    parameters = [p.replace(annotation=plain(p.annotation)) for p in signature.parameters.values()]
    shown = signature.replace(
        parameters=parameters, return_annotation=plain(signature.return_annotation)
    )
    return re.sub(r" at 0x[0-9a-f]+", "", str(shown))


def _class(name: str, cls: type) -> Iterator[str]:
    # The constructors of enumerations and exceptions are Python's, and change with its version.
    inherited = issubclass(cls, enum.Enum | BaseException)
    yield f"class {name}{'' if inherited else _signature(cls)}"
    fields = [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    for key, value in sorted(vars(cls).items()):
        if key.startswith("_") or key in fields:
            continue
        if isinstance(value, property):
            yield f"  {name}.{key}: property"
        elif isinstance(value, staticmethod | classmethod):
            yield f"  {name}.{key}{_signature(value.__func__)}: {type(value).__name__}"
        elif inspect.isfunction(value):
            yield f"  {name}.{key}{_signature(value)}"


def _entry(name: str, value: object) -> list[str]:
    if inspect.isclass(value):
        return list(_class(name, value))
    if callable(value):
        return [f"{name}{_signature(value)}"]
    return [f"{name}: {type(value).__name__}"]


def _public_names(module: ModuleType) -> list[str]:
    """`__all__`, or else the functions and classes that the module itself defines."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )


def _described() -> str:
    rooms = sorted(room.name for room in pkgutil.iter_modules(pbnn.__path__))
    names = [f"pbnn.{room}" for room in rooms if not room.startswith("_")]
    lines = [f"pbnn.{name} = {module}.{name}" for name, module in sorted(pbnn._LAZY.items())]
    for module in map(importlib.import_module, names):
        for name in _public_names(module):
            lines += _entry(f"{module.__name__}.{name}", getattr(module, name))
    return "\n".join(lines) + "\n"


def test_the_public_api_is_the_pinned_one() -> None:
    pytest.importorskip("torchmetrics")  # one of the modules needs an extra
    described = _described()
    if os.environ.get("PBNN_UPDATE_API") == "1":
        PINNED.write_text(described, encoding="utf-8")
    assert described.splitlines() == PINNED.read_text(encoding="utf-8").splitlines(), (
        "the public API changed; if on purpose, run `make api` and review the diff"
    )


def test_every_lazy_name_is_public_listed_and_what_its_module_holds() -> None:
    assert sorted(pbnn.__all__) == sorted({*pbnn._LAZY, "__version__"})
    assert set(pbnn.__all__) <= set(dir(pbnn))
    for name, module in pbnn._LAZY.items():
        assert getattr(pbnn, name) is getattr(importlib.import_module(module), name)


def test_names_are_listed_before_they_are_loaded() -> None:
    code = "import pbnn; print(*dir(pbnn)); print(*vars(pbnn))"
    root = Path(__file__).parents[1]
    output = subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True)
    listed, loaded = (set(line.split()) for line in output.splitlines())
    assert set(pbnn._LAZY) <= listed
    assert not set(pbnn._LAZY) & loaded


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pbnn' has no attribute 'PGBNet'"):
        _ = pbnn.PGBNet
    with pytest.raises(ImportError):
        exec("from pbnn import PGBNet", {})
