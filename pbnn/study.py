"""What every study shares: its command line, the command that repeats it, its description."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pbnn.environment import environment
from pbnn.sweep import CellsFailed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA_VERSION = 1

_Config = TypeVar("_Config", bound="DataclassInstance")


def run_study(
    study: Callable[[_Config], Path],
    config_class: type[_Config],
    description: str | None,
    captions: Mapping[str, str] | None = None,
) -> None:
    """Run a study from the command line, write the page of its folder, and say where all that is.

    Parameters
    ----------
    study : callable
        Takes the configuration, runs what is missing, and returns the folder it wrote.
    config_class : dataclass
        Its configuration: a default for every field, and a flag of the command line for each.
    description : str
        What ``--help`` says of the study, such as the docstring of its file.
    captions : mapping, optional
        What its figures show, by the names of their files without suffix.

    Raises
    ------
    SystemExit
        With a message instead of a traceback for what the user can mend: a file or a value
        (OSError, ValueError), runs that failed, whose tracebacks are kept in files of their own, or
        an interruption.

    Examples
    --------
    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     seeds: int = 3
    >>> usual, sys.argv = sys.argv, ["study.py"]
    >>> run_study(lambda config: Path("reports") / f"{config.seeds}_seeds", Config, "A study.")
    Tables and figures are in reports/3_seeds
    >>> sys.argv = usual
    """
    config = parse(config_class, description)
    try:
        folder = study(config)
        if folder.is_dir():
            from pbnn.reporting.page import write_page

            write_page(folder, description, captions)
    except (OSError, ValueError, CellsFailed) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        text = "\nInterrupted. Finished runs are kept: give the same command to go on."
        raise SystemExit(text) from None
    print(f"Tables and figures are in {folder}")


def parse(config_class: type[_Config], description: str | None) -> _Config:
    """The configuration from the command line; without tyro, the default one and no flags."""
    try:
        import tyro
    except ImportError:
        if len(sys.argv) > 1:
            raise SystemExit("Flags need the package tyro: pip install tyro") from None
        return config_class()
    return tyro.cli(config_class, description=description)


def command_of(config: DataclassInstance, script: str, leave_out: Collection[str] = ()) -> str:
    """The command that repeats a study: the flags that differ from their defaults.

    The `preset`, where there is one, is always named: it says which study it was.

    Parameters
    ----------
    config : dataclass
        The configuration. Its fields are None, booleans, numbers, texts, paths, or tuples of them.
    script : str
        The file of the study, as seen from the top of the repository.
    leave_out : collection of str
        Fields that change nothing in the result, or differ between machines: folders, processes.

    Raises
    ------
    TypeError
        For a field of another kind.
    ValueError
        If `leave_out` names something that is no field, or a text looks like a flag.

    Examples
    --------
    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     preset: str = "quick"
    ...     datasets: tuple[str, ...] = ("mnist17",)
    ...     delta: float = 0.05
    ...     out: Path | None = None
    >>> command_of(Config(delta=0.01, out=Path("here")), "studies/a.py", leave_out=["out"])
    'python studies/a.py --preset quick --delta 0.01'
    """
    fields = [field for field in dataclasses.fields(config) if field.init]
    if unknown := set(leave_out) - {field.name for field in fields}:
        raise ValueError(f"`leave_out` must name fields of the configuration, got {unknown}.")
    words = ["python", script]
    for field in fields:
        value = getattr(config, field.name)
        if field.name in leave_out or (field.name != "preset" and value == _default(field)):
            continue
        words += _flag(field.name, value)
    return shlex.join(words)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _flag(name: str, value: object) -> list[str]:
    """A field as words of the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    values = value if isinstance(value, tuple) else (value,)
    for each in values:
        if isinstance(each, bool) or not isinstance(each, str | int | float | Path | None):
            kinds = "None, a number, a text, a path, or a tuple of them"
            raise TypeError(f"`{name}` must be {kinds}, got {value!r}.")
        if not isinstance(each, int | float) and str(each).startswith("-"):
            raise ValueError(f"`{name}` must not look like a flag, got {each!r}.")
    return [f"--{flag}", *map(str, values)]


def describe(
    config: DataclassInstance, script: str, leave_out: Collection[str] = (), **more: Any
) -> dict[str, Any]:
    """What a reader must know of a finished study: its command, versions, hardware, and `more`.

    Parameters
    ----------
    config, script, leave_out
        As for `command_of`.
    **more
        Plain JSON to record besides, such as ``seeds=3``.

    Returns
    -------
    dict
        For `pbnn.files.write_json`: ``schema_version``, ``command``, `more`, ``versions`` and
        ``hardware``.

    Raises
    ------
    ValueError
        If `more` would replace one of the others.

    Examples
    --------
    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     seeds: int = 3
    >>> list(describe(Config(), "studies/a.py", source="digits"))
    ['schema_version', 'command', 'source', 'versions', 'hardware']
    """
    head = {"schema_version": SCHEMA_VERSION, "command": command_of(config, script, leave_out)}
    where = environment()
    if taken := {*head, *where} & set(more):
        raise ValueError(f"`more` must leave {sorted(taken)} as they are, got {more}.")
    return head | more | where
