"""Damaged inputs: a few of every kind, and a harness that sees what is planted."""

from __future__ import annotations

import itertools
import json
import time
from random import Random

import damage
import damaged_inputs
import numpy as np
import pandas as pd
import pytest
from damaged_cases import CRASH, HARMLESS, OUTCOMES, REFUSED, SILENT, UNSEEN, Case, outcome

from pbnn.certificates import Certificate

KINDS = damaged_inputs.KINDS
FEW = 120


@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_input_crashes_or_passes_for_another(kind):
    rows, faults = damaged_inputs.attack({kind: KINDS[kind]}, FEW, seed=1)
    assert faults == []
    assert sum(row["inputs"] for row in rows) == FEW
    for row in rows:
        assert row["inputs"] == sum(row[name] for name in OUTCOMES)
    counts = {name: sum(row[name] for row in rows) for name in OUTCOMES}
    assert counts[REFUSED] > 0.3 * FEW
    assert counts[HARMLESS] + counts[UNSEEN] > 0


def test_what_a_hash_or_a_seal_covers_is_never_another_input():
    rows, _ = damaged_inputs.attack({"known": KINDS["files with a known hash"]}, 300, seed=2)
    assert not any(row[UNSEEN] for row in rows)
    rows, _ = damaged_inputs.attack({"packed": KINDS["packed files"]}, 300, seed=2)
    assert not any(row[UNSEEN] for row in rows if not row["damage"].startswith("sealed anew"))


def test_the_seed_decides_the_damage(tmp_path):
    names = ("CSV files", "records of runs", "checkpoints", "packed files", "files to resume from")
    shown = []
    for seed in (3, 3, 4):
        cases = [itertools.islice(KINDS[n](Random(seed), tmp_path), 60) for n in names]
        shown.append([(case.damage, case.shown) for each in cases for case in each])
    assert shown[0] == shown[1] != shown[2]


# What is planted


def refuse(error, *, context=None):
    def attempt():
        raise error from context

    return attempt


class Odd(Exception):
    """No documented error."""


@pytest.mark.parametrize(
    ("case", "found"),
    [
        (Case("", refuse(ValueError("a.json is damaged")), named="a.json"), REFUSED),
        (Case("", refuse(ValueError("it is damaged")), named="a.json"), CRASH),
        (Case("", refuse(ValueError(" "))), CRASH),
        (Case("", refuse(ValueError())), CRASH),
        (Case("", refuse(KeyError("x"))), CRASH),
        (Case("", refuse(KeyError("x")), (KeyError,)), REFUSED),
        (Case("", refuse(RecursionError("deep"))), CRASH),
        (Case("", refuse(MemoryError("much"))), CRASH),
        (Case("", refuse(Odd("x"))), CRASH),
        (Case("", refuse(SystemExit("x"))), CRASH),
        (Case("", refuse(SystemExit("x")), (SystemExit,)), REFUSED),
        (Case("", refuse(ValueError("x"), context=MemoryError("much"))), CRASH),
        (Case("", refuse(ValueError("x"), context=RuntimeError("can't allocate memory"))), CRASH),
        (Case("", lambda: HARMLESS), HARMLESS),
        (Case("", lambda: UNSEEN), UNSEEN),
        (Case("", lambda: SILENT), SILENT),
    ],
)
def test_what_comes_of_a_case_is_told_apart(case, found):
    assert outcome(case)[0] == found


def test_what_takes_too_long_is_a_crash():
    def wait():
        try:
            time.sleep(60)
        except Exception:
            return HARMLESS

    begun = time.monotonic()
    found, told = outcome(Case("", wait), seconds=0.05)
    assert found == CRASH
    assert "more than 0.05 seconds" in told
    assert time.monotonic() - begun < 5


def test_what_takes_much_memory_is_a_crash_also_if_it_is_refused():
    def ask(size):
        try:
            np.ones(size, np.uint8)
        except MemoryError as error:
            raise ValueError("too large") from error
        return HARMLESS

    assert outcome(Case("", lambda: ask(10**6)), memory=10**8)[0] == HARMLESS
    assert outcome(Case("", lambda: ask(10**9)), memory=10**8)[0] == CRASH


def test_readers_that_look_less_closely_are_seen(monkeypatch):
    assert damaged_inputs.attack({"c": KINDS["certificates"]}, FEW, seed=1)[1] == []
    with monkeypatch.context() as patch:
        # A certificate that nobody verifies, and whose JSON is taken as it comes.
        def load(path):
            return Certificate.from_dict(json.loads(path.read_bytes()), str(path))

        patch.setattr("damaged_records.Certificate.load", load)
        patch.setattr("damaged_records.verify", lambda certificate: None)
        _, faults = damaged_inputs.attack({"c": KINDS["certificates"]}, FEW, seed=1)
        assert {fault["outcome"] for fault in faults} == {CRASH, SILENT}
    for kind, target, replacement, expected in (
        ("IDX files", "damaged_data.parse", lambda c, w, s: np.frombuffer(c, np.uint8), SILENT),
        ("records of runs", "pbnn.sweep.parse_json", lambda data, *_: json.loads(data), CRASH),
        ("packed files", "pbnn.packed.file.seal_of", lambda h, t: h.get("seal"), SILENT),
        ("records of runs", "pbnn.sweep._is_of", lambda record, cell: True, SILENT),
        ("arguments of bounds", "pbnn.bounds._arrays.check", lambda *given: None, SILENT),
        ("files with a known hash", "pbnn.data.registry._check_hash", lambda *given: None, SILENT),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, replacement)
            _, faults = damaged_inputs.attack({kind: KINDS[kind]}, 400, seed=1)
            assert expected in {fault["outcome"] for fault in faults}, kind


# Ways to damage


def test_a_record_is_damaged_in_every_field_and_stays_itself():
    record = {"a": 1, "b": {"c": [0.5, 0.25], "d": "x"}, "e": True}
    whole, rng = json.dumps(record), Random(0)
    made = [damage.record_damaged(rng, record) for _ in range(400)]
    assert json.dumps(record) == whole
    assert {how for how, _ in made} == {
        f"field {w}" for w in ("changed", "left out", "joined", "swapped")
    }
    changed = [each for how, each in made if how == "field changed"]
    for path in damage.places_in(record):
        rest = repr(damage.replaced(record, path, None))
        others = [each for each in changed if has(each, path)]
        assert any(
            repr(damage.replaced(each, path, None)) == rest
            and repr(damage.at(each, path)) != repr(damage.at(record, path))
            for each in others
        ), path


def has(record, path):
    try:
        damage.at(record, path)
    except (LookupError, TypeError):
        return False
    return True


def test_a_key_that_stands_twice_and_deep_text_are_what_they_say():
    rng, seen = Random(0), set()
    for _ in range(200):
        how, text = damage.text_damaged(rng, {"a": {"b": 1}, "c": [2]})
        seen.add(how)
        if how == "key twice":
            pairs = []
            json.loads(text, object_pairs_hook=pairs.append)
            assert any(len(dict(found)) < len(found) for found in pairs)
        elif how == "other text":
            assert json.loads(text) == {"a": {"b": 1}, "c": [2]}
    assert seen == {"key twice", "deep", "long number", "no number", "other text"}


def test_bytes_are_damaged_in_every_way():
    rng, content = Random(0), bytes(range(100))
    made = {}
    for _ in range(300):
        how, changed = damage.bytes_damaged(rng, content, 10)
        made.setdefault(how, []).append(changed)
    assert set(made) == set(damage.BYTES)
    for changed in made["bit turned"]:
        apart = [(a ^ b) for a, b in zip(changed, content, strict=True)]
        assert sum(each.bit_count() for each in apart) == 1
        assert not any(apart[10:])
    assert all(content.startswith(changed) and changed != content for changed in made["cut"])


# The study


def test_the_study_writes_a_table_a_page_and_what_it_was(tmp_path, monkeypatch, capsys):
    kinds = {"tables": KINDS["CSV files"], "failures": KINDS["failures of runs"]}
    monkeypatch.setattr(damaged_inputs, "KINDS", kinds)
    config = damaged_inputs.Config(inputs=30, seed=5, out=tmp_path / "out")
    folder = damaged_inputs.study(config)
    table = pd.read_csv(folder / "table.csv")
    assert table["inputs"].sum() == 60
    about = json.loads((folder / "study.json").read_text())
    assert about["command"] == "python studies/damaged_inputs.py --inputs 30 --seed 5"
    page = (folder / "damaged_inputs.md").read_text(encoding="utf-8")
    assert page.startswith("What became of 60 damaged or forged inputs: 0 crashes, 0 silent")
    monkeypatch.setattr(damaged_inputs, "attack", None)
    damaged_inputs.study(damaged_inputs.Config(redraw=True, out=folder))
    assert (folder / "damaged_inputs.md").read_text(encoding="utf-8") == page
    assert page in capsys.readouterr().out


def test_a_page_shows_faults():
    row = {"kind": "a", "damage": "b", "inputs": 2} | dict.fromkeys(OUTCOMES, 0)
    faults = pd.DataFrame([{"kind": "a", "damage": "b", "outcome": CRASH, "what": "KeyError: 1"}])
    page = damaged_inputs.page_of(pd.DataFrame([row | {CRASH: 1, REFUSED: 1}]), faults)
    assert "1 crashes" in page
    assert "KeyError: 1" in page


@pytest.mark.parametrize(("field", "value"), [("inputs", 0), ("seed", -1)])
def test_a_senseless_configuration_is_refused(field, value):
    with pytest.raises(ValueError, match=f"`{field}` must be at least"):
        damaged_inputs.Config(**{field: value})
