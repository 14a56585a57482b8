"""The ledger: what counts as a choice, and files that are no ledger."""

from __future__ import annotations

import pytest

from pbnn import ledger
from pbnn.ledger import choices, record_tried
from pbnn.sweep import configuration_key


def row(dataset, configuration, **more):
    return {"dataset": dataset, "configuration": configuration, **more}


def test_a_configuration_is_charged_once_whatever_its_seeds(tmp_path):
    configs = [{"width": width, "seed": seed} for width in (8, 10) for seed in range(5)]
    path = tmp_path / "tried.csv"
    for _ in range(2):
        record_tried(path, [row("d", configuration_key(config)) for config in configs])
    assert ledger.read_tried(path) == {"d": 2}


def test_the_ledger_is_sorted_and_idempotent(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    rows = [row("b", "1", count=3, note="by hand, twice"), row("a", "2"), row("a", "1", count=40)]
    record_tried(one, rows)
    for entry in rows[::-1]:
        record_tried(two, [entry])
    assert one.read_bytes() == two.read_bytes()
    record_tried(one, [row("b", "1"), row("a", "1", count="2")])
    assert one.read_bytes() == two.read_bytes()
    assert one.read_text().splitlines()[-1] == 'b,1,3,"by hand, twice"'


def test_choices_count_distinct_configurations_over_ledgers(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    record_tried(
        one, [row("d", "x", count=900), row("d", "y", count=50), row("e", "x", count=5000)]
    )
    record_tried(two, [row("d", "x", count=800), row("d", "z", count=100)])
    assert choices([one], "d") == 1000
    assert choices([one, two], "d") == 1050
    assert choices([two, one], "d") == 1050
    assert choices([one, two], "d", floor=2000) == 2000
    assert choices([one, two], "unseen", floor=1) == 1


def test_a_missing_ledger_does_not_count_as_nothing_tried(tmp_path):
    with pytest.raises(FileNotFoundError):
        choices([tmp_path / "none.csv"], "d")


@pytest.mark.parametrize("count", [0, -1, "1.5", "", "many", None])
def test_a_count_is_a_positive_integer(tmp_path, count):
    path = tmp_path / "tried.csv"
    with pytest.raises(ValueError, match="`count`"):
        record_tried(path, [row("d", "x", count=count)])
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    ["", "dataset,count\nd,1\n", "dataset,configuration,count,note\n,x,1,\n",
     "dataset,configuration,count,note\nd,x\n"],
)  # fmt: skip
def test_a_damaged_ledger_is_refused(tmp_path, text):
    path = tmp_path / "tried.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"tried\.csv"):
        choices([path], "d")


def test_the_floor_is_a_positive_integer():
    with pytest.raises(ValueError, match="`floor`"):
        choices([], "d", floor=0)
