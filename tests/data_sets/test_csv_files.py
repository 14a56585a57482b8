"""Tasks from CSV: the order of columns and classes, and every fault at its place."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pbnn.data import from_csv, split

PEOPLE = """\
sex,age,town,kind
m,39,Ulm,yes
f,52.5,Bonn,no
f,-1e1,Ulm,no
"""


@pytest.fixture
def task(tmp_path):
    def make(text=PEOPLE, label="kind", **options):
        path = tmp_path / "people.csv"
        path.write_text(text, encoding="utf-8")
        return from_csv(path, label, **options)

    return make


def test_numbers_come_first_then_levels_in_the_order_of_their_characters(task):
    people = task()
    assert people.name == "people"
    assert people.x.tolist() == [[39, 0, 1, 0, 1], [52.5, 1, 0, 1, 0], [-10, 1, 0, 0, 1]]
    assert people.y.tolist() == [1, -1, -1]
    assert (people.x.dtype, people.y.dtype) == (np.float32, np.float32)
    assert people.source == ("people.csv: numeric age; one-hot sex, town; label kind (+1 is yes)")
    assert split(people, test=0.5).n == 1


def test_the_positive_value_and_the_name_can_be_chosen(task):
    people = task(positive="no", name="folk")
    assert people.y.tolist() == [-1, 1, 1]
    assert people.name == "folk"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    rows=st.lists(
        st.tuples(
            st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from("xyz")
        ),
        min_size=3,
    )
)
def test_it_agrees_with_the_dummies_of_pandas(task, rows):
    frame = pd.DataFrame(rows, columns=["size", "letter"])
    labels = [str(i % 3) for i in range(len(rows))]
    made = task(frame.assign(label=labels).to_csv(index=False), "label")
    expected = pd.get_dummies(frame, columns=["letter"], dtype=np.float32)
    assert np.array_equal(made.x, expected.to_numpy(np.float32))
    assert made.y.dtype == np.int64
    assert np.array_equal(made.y, np.arange(len(rows)) % 3)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "2"], [2, 1, 0]),
        (["b10", "b9", "a"], [1, 2, 0]),
        (["10", "9", "9"], [1, -1, -1]),
        (["-1", "1", "-1"], [-1, 1, -1]),
        (["0", "1", "0"], [-1, 1, -1]),
        (["B", "a", "B"], [-1, 1, -1]),
    ],
)
def test_classes_are_in_the_order_of_numbers_or_of_characters(task, labels, expected):
    rows = "\n".join(f"{i},{label}" for i, label in enumerate(labels))
    assert task(f"x,y\n{rows}\n", "y").y.tolist() == expected


def test_a_number_may_name_the_positive_class(task):
    assert task("x,y\n1,0\n2,1\n", "y", positive=0).y.tolist() == [1, -1]


def test_constant_columns_are_kept(task):
    made = task("a,b,y\n7,u,0\n7,u,1\n", "y")
    assert made.x.tolist() == [[7, 1], [7, 1]]


def test_given_categories_fix_the_columns_whatever_the_file_holds(task):
    levels = {"town": ["Ulm", "Jena", "Bonn"], "age": ["39", "52.5", "-1e1"]}
    made = task(categories=levels)
    sex, age = [[0, 1], [1, 0], [1, 0]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    town = [[1, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert np.array_equal(made.x, np.concatenate([sex, age, town], axis=1))


def test_dropped_columns_are_out(task):
    assert task(drop=["town", "age"]).x.tolist() == [[0, 1], [1, 0], [1, 0]]


def test_a_file_without_header_and_with_another_delimiter(task):
    made = task("1;a\n\n2;b\n", "y", header=["x", "y"], delimiter=";")
    assert made.x.tolist() == [[1], [2]]


@pytest.mark.parametrize("mark", ["", "?", "NA", "n/a", "NaN", "null"])
def test_a_missing_category_is_refused_or_a_level_of_its_own(task, mark):
    text = PEOPLE.replace("Bonn", mark)
    with pytest.raises(ValueError, match=r"people\.csv, line 3, column 'town'.*not be missing"):
        task(text)
    assert task(text, missing="category").x[:, 3:].tolist() == [[0, 1], [1, 0], [0, 1]]
    assert task(text, missing="category", categories={"town": ["Ulm", "?"]}).x[1, 4] == 1


def test_a_level_may_look_like_a_missing_value(task):
    made = task(
        PEOPLE.replace("Bonn", "NA"), categories={"town": ["Ulm", "NA"]}, missing="category"
    )
    assert made.x[:, 3:].tolist() == [[1, 0], [0, 1], [1, 0]]


def test_a_missing_number_is_filled_in_and_said_in_a_column_of_its_own(task):
    made = task(PEOPLE.replace("52.5", "?"), fill={"age": 30})
    assert made.x[:, :2].tolist() == [[39, 0], [30, 1], [-10, 0]]
    assert np.array_equal(made.x[:, 2:], task().x[:, 1:])
    assert "missing age is 30" in made.source
    # As many columns whatever is missing: of none the second is 0, of all the first is constant.
    assert task(fill={"age": 30}).x[:, 1].tolist() == [0, 0, 0]
    assert task("age,y\n,1\nNA,0\n", "y", fill={"age": 30}).x.tolist() == [[30, 1], [30, 1]]


@pytest.mark.parametrize(
    ("text", "options", "ways"),
    [
        (
            PEOPLE.replace("52.5", "").replace("-1e1", "NA"),
            {},
            [
                "line 3, column 'age': must not be missing, got '' (2 of 3 rows lack it): drop",
                "fixed beforehand, no mean of the whole table",
                "`fill={'age': ...}`, which adds a column of 0 and 1",
            ],
        ),
        (
            PEOPLE.replace("Bonn", ""),
            {},
            ["(1 of 3 rows lack it)", "or `missing='category'` makes"],
        ),
        (
            PEOPLE.replace("Bonn", ""),
            {"categories": {"town": ["Ulm"]}, "missing": "category"},
            ["must not be missing, got ''", "`missing='category'`, '?' being among its"],
        ),
        (PEOPLE.replace("yes", ""), {}, ["column 'kind': must not be missing", "drop those rows."]),
        ("a;y\n1;0\n", {"label": "y"}, ["got 'y'. Is `delimiter=';'` meant?"]),
        ("a\ty\n1\t0\n", {"label": "y"}, [r"Is `delimiter='\t'` meant?"]),
        (
            PEOPLE + "m,1,Ulm,maybe\n",
            {"positive": "yes"},
            ["`positive` must be one of two classes", "holds 3: maybe, no, yes, got 'yes'"],
        ),
    ],
)
def test_a_fault_says_the_way_out(task, text, options, ways):
    with pytest.raises(ValueError, match=re.escape(ways[0])) as told:
        task(text, **options)
    assert [way for way in ways if way not in str(told.value)] == []


@pytest.mark.parametrize("missing", ["refuse", "category"])
@pytest.mark.parametrize(("old", "column"), [("52.5", "age"), ("no\nf,-", "kind")])
def test_a_missing_number_or_label_is_always_refused(task, missing, old, column):
    text = PEOPLE.replace(old, old.replace("52.5", "?").replace("no", ""))
    with pytest.raises(ValueError, match=rf"line 3, column '{column}': must not be missing"):
        task(text, missing=missing)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (PEOPLE.replace("52.5", "old"), {}, r"line 3, column 'age': must be a number.*'old'"),
        (PEOPLE.replace("52.5", "1e50"), {}, r"line 3, column 'age': .*float32"),
        (PEOPLE.replace("Bonn,", ""), {}, "line 3: must have 4 fields, got 3"),
        (PEOPLE, {"categories": {"town": ["Ulm"]}}, "line 3, column 'town': .* got 'Bonn'"),
        (PEOPLE, {"categories": {"town": ["Ulm", "Ulm"]}}, "`categories` must hold distinct"),
        (PEOPLE, {"categories": {"town": []}}, "`categories` must hold distinct levels"),
        (PEOPLE, {"categories": {"city": ["Ulm"]}}, "`categories` .*sex, age.* got 'city'"),
        (PEOPLE, {"categories": {"kind": ["no", "yes"]}}, "must not hold the label"),
        (PEOPLE, {"drop": ["city"]}, "`drop` must be among the columns sex.* got 'city'"),
        (PEOPLE, {"drop": "town"}, "`drop` must be a list of column names, got the string 'town'"),
        (PEOPLE, {"categories": ["town"]}, "`categories` must map a column to its levels.*a list"),
        (PEOPLE, {"categories": {"town": "Ulm"}}, "list of its levels, got the string 'Ulm'"),
        (PEOPLE, {"fill": 3.0}, "`fill` must map a column to its number, got a float"),
        (PEOPLE, {"fill": {"age": float("nan")}}, "`fill` must hold numbers .* got nan for 'age'"),
        (PEOPLE, {"fill": {"age": 1e50}}, r"within the range of float32, got 1e\+50 for 'age'"),
        (PEOPLE, {"fill": {"city": 1}}, "`fill` must be among the columns sex.* got 'city'"),
        (PEOPLE, {"fill": {"kind": 1}}, "`fill` must not hold the label, got 'kind'"),
        (PEOPLE, {"fill": {"age": 1}, "drop": ["age"]}, "`fill` must be of columns .* got 'age'"),
        (PEOPLE, {"fill": {"town": 1}}, "column 'town': must be a number .*'Ulm'"),
        (PEOPLE, {"drop": ["kind"]}, "must not hold the label, got 'kind'"),
        (PEOPLE, {"drop": ["sex", "age", "town"]}, "must have a column besides 'kind'"),
        (PEOPLE, {"label": "class"}, "`label` must be among the columns .* got 'class'"),
        (PEOPLE, {"positive": "maybe"}, "`positive` .*no, yes, got 'maybe'"),
        (PEOPLE, {"label": "age", "positive": "39"}, "`positive` must be one of two classes"),
        (PEOPLE, {"missing": "drop"}, "`missing` must be 'refuse' or 'category', got 'drop'"),
        (PEOPLE, {"delimiter": ", "}, "`delimiter` must be one character"),
        (PEOPLE, {"delimiter": '"'}, "`delimiter` must be one character"),
        (PEOPLE, {"header": ["a", "b"]}, "`header` must name the 4 columns .*got 2"),
        (PEOPLE.replace("age", "sex"), {}, "distinct, non-empty names"),
        (PEOPLE.replace("age", ""), {}, "distinct, non-empty names"),
        (PEOPLE.replace("yes", "no"), {}, "column 'kind': must hold at least two .*only 'no'"),
        (
            "x,y\n3,1\n3,0\n3,1.0\n",
            {"label": "y"},
            "line 4, column 'y': must not be 1 written anew",
        ),
        ("x,y\n", {"label": "y"}, "has no rows below its header"),
        ("", {}, "is empty"),
    ],
)
def test_faults_are_named(task, text, options, message):
    with pytest.raises(ValueError, match=message):
        task(text, **options)


def test_a_key_is_not_spread_over_thousands_of_columns(task):
    rows = [f"row{i},{i % 2}\n" for i in range(1001)]
    with pytest.raises(ValueError, match=r"column 'key': 1001 levels are more than 1000.*`drop`"):
        task("key,y\n" + "".join(rows), "y")
    assert task("key,y\n" + "".join(rows[:1000]), "y").x.shape == (1000, 1000)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        from_csv(tmp_path / "none.csv", "y")


def test_a_quote_after_blanks_opens_a_field(tmp_path):
    path = tmp_path / "quoted.csv"
    path.write_text('colour, "kind"\n "light, red", "apple"\n blue,plum\n')
    task = from_csv(path, "kind")
    assert "one-hot colour" in task.source
    assert task.x.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert task.y.tolist() == [-1.0, 1.0]


def test_a_column_that_is_not_there_is_told_with_the_file(tmp_path):
    path = tmp_path / "fruit.csv"
    path.write_text("colour;kind\nred;apple\n")
    with pytest.raises(ValueError, match=r"among the columns colour;kind of .*fruit\.csv"):
        from_csv(path, "kind")
