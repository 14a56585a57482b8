"""Tables of text: every row whole, every number a number, every fault at its line."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbnn.data.tables import Column, is_number, numbers, one_hot, parse_table

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff")).map(str.strip)


def column(*cells):
    return Column("table.csv", "age", [2 * row + 2 for row in range(len(cells))], cells)


@given(st.integers(2, 4).flatmap(lambda width: st.lists(st.tuples(*[TEXT] * width), min_size=1)))
def test_rows_written_by_a_csv_writer_come_back(rows):
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(rows)
    table = parse_table(stream.getvalue().encode(), "table.csv")
    assert [tuple(row) for row in table.rows] == rows


def test_a_byte_order_mark_is_no_text():
    assert parse_table(b"\xef\xbb\xbfa,b\n", "t").rows == [["a", "b"]]


def test_spaces_blank_lines_and_skipped_lines_do_not_count():
    table = parse_table(b"a note, with, commas\r\n a ,b\r\n\r\nc, d \r\n", "t", skip=1)
    assert table.rows == [["a", "b"], ["c", "d"]]
    assert table.lines == [2, 4]


def test_a_row_is_at_the_line_on_which_it_begins():
    assert parse_table(b'a,"1\n2"\nb,3\n', "t").lines == [1, 3]


@pytest.mark.parametrize(
    ("content", "width", "message"),
    [
        (b"a,b\nc,d\n\ne\n", None, r"^t\.csv, line 4: must have 2 fields, got 1\.$"),
        (b"a,b\nc,d,e\n", None, r"^t\.csv, line 2: must have 2 fields, got 3\.$"),
        (b"a,b\nc,d\n", 3, r"^t\.csv, line 1: must have 3 fields, got 2\.$"),
        (b'a,b\nc,"d\n', None, r"^t\.csv, line 2: unexpected end of data\.$"),
        (b'a,b\nc,"d"e\n', None, r"^t\.csv, line 2: .*expected after"),
        (b"a,b\n\xff,d\n", None, r"^t\.csv is not UTF-8"),
    ],
)
def test_a_faulty_table_is_refused_with_its_line(content, width, message):
    with pytest.raises(ValueError, match=message):
        parse_table(content, "t.csv", width=width)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_float32_printed_in_full_comes_back_exactly(value):
    assert numbers(column(repr(value))) == np.float32(value)


@given(st.text())
def test_a_number_is_one_for_python_too(text):
    if is_number(text):
        assert np.isfinite(float(text)) or "e" in text.lower()


@pytest.mark.parametrize(
    "cell", ["", "nan", "inf", "-Infinity", "1_0", "0x1", "1,5", "٣", "1e", "."]
)
def test_what_is_no_decimal_number_is_refused(cell):
    with pytest.raises(ValueError, match=r"table\.csv, line 4, column 'age': must be a number"):
        numbers(column("1", cell))


@pytest.mark.parametrize("cell", ["3.5e38", "-1e39", "1e999"])
def test_what_float32_cannot_hold_is_refused(cell):
    with pytest.raises(ValueError, match=r"line 6, column 'age'.*float32, got"):
        numbers(column("1", "2", cell))


@given(st.lists(st.sampled_from("abc"), min_size=1))
def test_one_hot_rows_name_their_level(cells):
    x = one_hot(column(*cells), "cab")
    assert x.dtype == np.float32
    assert (x.sum(axis=1) == 1).all()
    assert ["cab"[i] for i in x.argmax(axis=1)] == cells


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match=r"line 4, column 'age': must be one of a, b, got 'c'"):
        one_hot(column("a", "c"), ["a", "b"])
