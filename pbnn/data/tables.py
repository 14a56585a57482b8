"""Tables of delimited text: rows read strictly, columns turned into numbers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Narrower than float(), which also takes "nan", "infinity" and "1_000".
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Column:
    """The text of one column, and where it stands, for error messages."""

    where: str
    name: str
    lines: Sequence[int]
    cells: Sequence[str]

    def fault(self, row: int, problem: str, advice: str = "") -> ValueError:
        """An error that names file, line, column and what stands there."""
        return ValueError(
            f"{self.where}, line {self.lines[row]}, column {self.name!r}: "
            f"{problem}, got {self.cells[row]!r}{advice}."
        )


@dataclass(frozen=True)
class Table:
    """Rows of equally many fields, and the line of the file on which each begins."""

    where: str
    lines: list[int]
    rows: list[list[str]]

    def column(self, index: int, name: str) -> Column:
        """One column under a name."""
        return Column(self.where, name, self.lines, [row[index] for row in self.rows])


def parse_table(
    content: bytes, where: str, *, delimiter: str = ",", width: int | None = None, skip: int = 0
) -> Table:
    """The rows of delimited text, without blank lines and the spaces around fields.

    Parameters
    ----------
    content : bytes
        The file, UTF-8 with or without a byte-order mark; fields may be quoted by ``"``.
    where : str
        Its name, for error messages.
    delimiter : str
        The character between fields.
    width : int, optional
        Fields in every row; by default as many as in the first.
    skip : int
        Lines to leave out at the beginning.

    Raises
    ------
    ValueError
        Naming the line, if a row has another number of fields or a quote is not closed; or if
        the content is not UTF-8.

    Examples
    --------
    >>> parse_table(b"a, 1\\n\\nb, 2\\n", "table.csv").rows
    [['a', '1'], ['b', '2']]
    """
    try:
        stream = io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text: {error}.") from error
    for _ in range(skip):
        stream.readline()
    # A quote after blanks opens a field, too: it would be read as a part of the text.
    blanks = delimiter != " "
    reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=blanks, strict=True)
    lines, rows = [], []
    begins = skip + 1
    try:
        for fields in reader:
            if fields:
                width = width or len(fields)
                if len(fields) != width:
                    raise ValueError(
                        f"{where}, line {begins}: must have {width} fields, got {len(fields)}."
                    )
                lines.append(begins)
                rows.append([field.strip() for field in fields])
            begins = skip + reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{where}, line {begins}: {error}.") from error
    return Table(where, lines, rows)


def is_number(text: str) -> bool:
    """Whether a text is a finite decimal number.

    Examples
    --------
    >>> [text for text in ("-1.5e3", ".5", "2.", "1_000", "nan", "0x1", "") if is_number(text)]
    ['-1.5e3', '.5', '2.']
    """
    return _NUMBER.fullmatch(text) is not None


def numbers(column: Column) -> NDArray[np.float32]:
    """The numbers in a column of text, as an array (N, 1).

    Raises
    ------
    ValueError
        Naming line and column of what is no decimal number, or beyond the range of float32.

    Examples
    --------
    >>> numbers(Column("table.csv", "age", [2, 3], ["39", "-0.5"]))
    array([[39. ],
           [-0.5]], dtype=float32)
    """
    for row, cell in enumerate(column.cells):
        if not is_number(cell):
            raise column.fault(row, "must be a number as in other rows")
    values = np.array([float(cell) for cell in column.cells])
    too_large = np.abs(values) > np.finfo(np.float32).max
    if too_large.any():
        raise column.fault(int(np.argmax(too_large)), "must be within the range of float32")
    return values.astype(np.float32)[:, None]


def one_hot(column: Column, levels: Sequence[str]) -> NDArray[np.float32]:
    """One column of 0 and 1 per level, in the order of the levels: an array (N, levels).

    Raises
    ------
    ValueError
        Naming line and column of what is none of the levels.

    Examples
    --------
    >>> one_hot(Column("table.csv", "sex", [2, 3], ["Male", "Female"]), ["Female", "Male"])
    array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    position = {level: index for index, level in enumerate(levels)}
    for row, cell in enumerate(column.cells):
        if cell not in position:
            raise column.fault(row, f"must be one of {', '.join(levels)}")
    x = np.zeros((len(column.cells), len(levels)), dtype=np.float32)
    x[np.arange(len(x)), [position[cell] for cell in column.cells]] = 1
    return x
