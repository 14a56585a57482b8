"""Tasks from anybody's delimited text."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pbnn.data.tables import Column, Table, is_number, numbers, one_hot, parse_table
from pbnn.data.tasks import Task

_MISSING = frozenset({"", "?", "na", "n/a", "nan", "null"})
_UNKNOWN = "?"

# Beyond this a column is a key or free text: one-hot, it would fill the memory and say nothing.
_MOST_LEVELS = 1000
_SHOWN = 10


def from_csv(
    path: str | os.PathLike[str],
    label: str,
    name: str | None = None,
    positive: str | int | None = None,
    *,
    header: Sequence[str] | None = None,
    categories: Mapping[str, Sequence[str]] | None = None,
    drop: Collection[str] = (),
    missing: Literal["refuse", "category"] = "refuse",
    fill: Mapping[str, float] | None = None,
    delimiter: str = ",",
) -> Task:
    """A classification task from a delimited text file with a column of labels.

    Columns of numbers come first, raw, in the order of the file; then each categorical column,
    in the same order, as one column of 0 and 1 per level. A column is numeric if one of its
    values is a finite decimal number (then all must be) and it is not in `categories`. Constant
    columns stay, and a column of `fill` is two: the numbers, then 1 where one was missing and 0
    elsewhere. No statistic enters a value. But which columns are numeric, and the levels that
    `categories` does not list, are read off all rows, certification and test examples included.

    Parameters
    ----------
    path : path
        UTF-8 text; fields may be quoted by ``"``, spaces around them do not count.
    label : str
        The column of labels. Two classes become -1 and +1 (float32), more become 0, 1, ...
        (int64), in the order of numbers if all are numbers, else of characters.
    name : str, optional
        The task's name; by default the file's without its suffix.
    positive : str or int, optional
        The one of two classes that is +1; by default the last in the order above.
    header : sequence of str, optional
        Names of the columns, if the file's first line does not hold them.
    categories : mapping of str to sequence of str, optional
        Columns that are categorical, even if made of digits, with their levels in order. Levels
        found in the file are in the order of their characters.
    drop : collection of str
        Columns to leave out.
    missing : {"refuse", "category"}
        What to do with a missing value in a categorical column: an error, or the level ``?``. In
        a column of numbers it is an error, unless `fill` has the column. Missing are the empty
        field, ``?``, ``NA``, ``N/A``, ``NaN`` and ``null``, in any case, unless `categories` has
        them as a level.
    fill : mapping of str to float, optional
        Columns of numbers, each with the number that stands where one is missing. It must be fixed
        beforehand: with a mean of the whole table every point depends on the others.
    delimiter : str
        The character between fields.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        Naming file, line and column of a value that is missing, no number where others are, too
        large for float32, or no level; for a row of another length; for wrong column names; for
        a column with too many levels; for fewer than two classes.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "fruit.csv"
    >>> _ = file.write_text("colour,weight,kind\\nred,1.5,apple\\nblue,0.5,plum\\n")
    >>> task = from_csv(file, "kind")
    >>> task.x.tolist(), task.y.tolist()
    ([[1.5, 0.0, 1.0], [0.5, 1.0, 0.0]], [-1.0, 1.0])

    A weight that may be missing becomes two columns:

    >>> _ = file.write_text("weight,kind\\n1.5,apple\\n,plum\\n")
    >>> from_csv(file, "kind", fill={"weight": 1.0}).x.tolist()
    [[1.5, 0.0], [1.0, 1.0]]
    """
    if missing not in ("refuse", "category"):
        raise ValueError(f"`missing` must be 'refuse' or 'category', got {missing!r}.")
    path, categories, fill = Path(path), categories or {}, fill or {}
    _check_types(categories, drop, fill)
    columns = _read(path, header, delimiter)
    given = {"label": [label], "categories": categories, "drop": drop, "fill": fill}
    for argument, names in given.items():
        _check_names(argument, names, columns, path)
    labels = columns.pop(label)
    if label in drop or label in categories or label in fill:
        raise ValueError(f"`drop`, `categories` and `fill` must not hold the label, got {label!r}.")
    numeric: list[Column] = []
    categorical: list[Column] = []
    for column in (column for key, column in columns.items() if key not in drop):
        is_numeric = column.name in fill or any(map(is_number, column.cells))
        is_numeric = is_numeric and column.name not in categories
        (numeric if is_numeric else categorical).append(column)
    if not numeric + categorical:
        raise ValueError(f"{path} must have a column besides {label!r} and those dropped.")
    blocks = [_numbers(column, fill.get(column.name)) for column in numeric]
    blocks += [_one_hot(column, categories.get(column.name), missing) for column in categorical]
    y, classes = _labels(labels, positive)
    kinds = [_list("numeric", numeric), _list("one-hot", categorical), classes]
    kinds += [f"missing {name} is {value}" for name, value in fill.items()]
    source = f"{path.name}: {'; '.join(kinds)}"
    return Task.of(name or path.stem, np.concatenate(blocks, axis=1), y, source)


def _check_types(
    categories: Mapping[str, Sequence[str]], drop: Collection[str], fill: Mapping[str, float]
) -> None:
    if isinstance(drop, str):
        raise ValueError(f"`drop` must be a list of column names, got the string {drop!r}.")
    for argument, mapping, value in (
        ("categories", categories, "levels"),
        ("fill", fill, "number"),
    ):
        if not isinstance(mapping, Mapping):
            got = type(mapping).__name__
            raise ValueError(f"`{argument}` must map a column to its {value}, got a {got}.")
    for name, levels in categories.items():
        if isinstance(levels, str):
            raise ValueError(
                f"`categories` must map a column to a list of its levels, "
                f"got the string {levels!r} for {name!r}."
            )
    for name, number in fill.items():
        if not is_number(str(number)) or abs(float(number)) > float(np.finfo(np.float32).max):
            raise ValueError(
                "`fill` must hold numbers within the range of float32, "
                f"got {number!r} for {name!r}."
            )
    if both := [name for name in fill if name in categories or name in drop]:
        raise ValueError(f"`fill` must be of columns of numbers that stay, got {both[0]!r}.")


def _read(path: Path, header: Sequence[str] | None, delimiter: str) -> dict[str, Column]:
    """The columns by their names."""
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(f"`delimiter` must be one character, no quote or end, got {delimiter!r}.")
    table = parse_table(path.read_bytes(), str(path), delimiter=delimiter)
    if not table.rows:
        raise ValueError(f"{path} is empty.")
    names = table.rows[0] if header is None else list(header)
    if header is None:
        table = Table(table.where, table.lines[1:], table.rows[1:])
    if not table.rows:
        raise ValueError(f"{path} has no rows below its header.")
    if len(names) != len(table.rows[0]):
        raise ValueError(
            f"`header` must name the {len(table.rows[0])} columns of {path}, got {len(names)}."
        )
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"{path} must have columns of distinct, non-empty names, got {names}.")
    return {name: table.column(index, name) for index, name in enumerate(names)}


def _check_names(
    argument: str, names: Iterable[str], columns: Mapping[str, Column], path: Path
) -> None:
    if unknown := [name for name in names if name not in columns]:
        line = next(iter(columns))
        other = [mark for mark in ";\t|" if mark in line] if len(columns) == 1 else []
        hint = f" Is `delimiter={other[0]!r}` meant?" if other else ""
        raise ValueError(
            f"`{argument}` must be among the columns {', '.join(columns)} of {path}, "
            f"got {unknown[0]!r}.{hint}"
        )


def _is_missing(cell: str) -> bool:
    return cell.casefold() in _MISSING


def _numbers(column: Column, fill: float | None) -> NDArray[np.float32]:
    """Numbers (N, 1); with `fill`, in a second column, where it stands."""
    if fill is None:
        _refuse_missing(
            column,
            ": drop those rows, or give a number fixed beforehand, no mean of the whole table, by "
            f"`fill={{{column.name!r}: ...}}`, which adds a column of 0 and 1 that says so",
        )
        return numbers(column)
    lacking = [_is_missing(cell) for cell in column.cells]
    cells = [str(fill) if lacks else c for lacks, c in zip(lacking, column.cells, strict=True)]
    filled = numbers(replace(column, cells=cells))
    return np.concatenate([filled, np.array(lacking, np.float32)[:, None]], axis=1)


def _refuse_missing(column: Column, advice: str, known: Collection[str] = ()) -> None:
    rows = [at for at, cell in enumerate(column.cells) if _is_missing(cell) and cell not in known]
    if rows:
        lacking = f" ({len(rows)} of {len(column.cells)} rows lack it)"
        raise column.fault(rows[0], "must not be missing", lacking + advice)


def _one_hot(column: Column, levels: Sequence[str] | None, missing: str) -> NDArray[np.float32]:
    known = set(levels or ())
    if levels is not None and len(known) < max(len(levels), 1):
        raise ValueError(
            f"`categories` must hold distinct levels, at least one, "
            f"got {list(levels)} for {column.name!r}."
        )
    listed = levels is not None
    if missing == "category" and (not listed or _UNKNOWN in known):
        cells = [_UNKNOWN if _is_missing(c) and c not in known else c for c in column.cells]
        column = replace(column, cells=cells)
    else:
        among = f", {_UNKNOWN!r} being among its `categories`," if listed else ""
        advice = f": drop those rows, or `missing='category'`{among} makes a level of them"
        _refuse_missing(column, advice, known)
    if levels is None:
        levels = sorted(set(column.cells))
        if len(levels) > _MOST_LEVELS:
            raise ValueError(
                f"{column.where}, column {column.name!r}: {len(levels)} levels are more than "
                f"{_MOST_LEVELS}; leave it out by `drop`, or list them in `categories`."
            )
    return one_hot(column, levels)


def _labels(column: Column, positive: str | int | None) -> tuple[NDArray[Any], str]:
    """Labels as numbers, and for people what they stand for."""
    _refuse_missing(column, ": drop those rows")
    classes = sorted(set(column.cells))
    if all(map(is_number, classes)):
        classes.sort(key=float)
        for one, other in pairwise(classes):
            if float(one) == float(other):
                raise column.fault(column.cells.index(other), f"must not be {one} written anew")
    where = f"{column.where}, column {column.name!r}"
    if len(classes) < 2:
        raise ValueError(f"{where}: must hold at least two classes, got only {classes[0]!r}.")
    if positive is not None and (len(classes) > 2 or str(positive) not in classes):
        more = ", ..." if len(classes) > _SHOWN else ""
        raise ValueError(
            f"`positive` must be one of two classes, and {where}, holds {len(classes)}: "
            f"{', '.join(classes[:_SHOWN])}{more}, got {positive!r}."
        )
    position = {name: index for index, name in enumerate(classes)}
    y = np.array([position[cell] for cell in column.cells], dtype=np.int64)
    if len(classes) > 2:
        return y, f"label {column.name} (0 is {classes[0]}, in order to {classes[-1]})"
    plus = position[str(positive)] if positive is not None else 1
    signs = np.where(y == plus, 1, -1).astype(np.float32)
    return signs, f"label {column.name} (+1 is {classes[plus]})"


def _list(kind: str, columns: Sequence[Column]) -> str:
    return f"{kind} {', '.join(column.name for column in columns) or 'none'}"
