"""The soak: a few trainings, leaks that are planted, and the committed report."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import threading
from pathlib import Path

import pandas as pd
import pytest
import soak
import torch

REPORT = Path(__file__).parents[2] / "reports" / "soak"
CONFIG = soak.Config(trainings=80, variants=5, every=10)
LONG = soak.Config(trainings=8000, variants=5, every=1000)
"""Long enough that pages which the process takes by itself are no growth of 2 MB in 1,000."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "soak"
    config = soak.Config(trainings=16, variants=1, every=2, out=folder)
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    assert soak.study(config) == folder
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    return folder


def test_kinds_come_in_turn_and_the_same_training_ends_in_the_same_certificate(finished):
    table = pd.read_csv(finished / "table.csv")
    kinds = list(soak.KINDS)
    assert list(table["kind"]) == [kinds[index % len(kinds)] for index in range(16)]
    assert list(table["training"]) == list(range(1, 17))
    certificates = table.groupby("kind")["certificate"].nunique()
    assert (certificates == 1).all()
    assert table["certificate"].nunique() == len(kinds)
    assert (table["rss_mb"] > 50).all()
    assert (table[["fds", "threads"]] > 0).all(axis=None)
    assert list(table["objects"].notna()) == [False, True] * 8


def test_seeds_make_different_trainings():
    ends = [[work(seed)["network"] for seed in (0, 1)] for work in soak.KINDS.values()]
    assert all(first != second for first, second in ends)


def test_page_and_figure_follow_from_the_csv_files(finished, monkeypatch):
    page = (finished / "soak.md").read_text(encoding="utf-8")
    assert "6 different trainings, each 2 to 3 times: 6 of them" in page
    for name in ("soak.md", "soak.svg"):
        (finished / name).unlink()
    monkeypatch.setattr(soak, "soaked", None)
    soak.study(soak.Config(out=finished, redraw=True))
    assert (finished / "soak.md").read_text(encoding="utf-8") == page
    assert (finished / "soak.svg").exists()


def memory(seed, leaving):
    kept = leaving.enter_context(mmap.mmap(-1, 20_000))
    kept.write(bytes(20_000))


def objects(seed, leaving):
    leaving.callback(list)


def descriptors(seed, leaving):
    leaving.callback(os.close, os.open(os.devnull, os.O_RDONLY))


def threads(seed, leaving):
    if seed == 0:  # of five
        ended = threading.Event()
        leaving.callback(ended.set)
        threading.Thread(target=ended.wait).start()


@pytest.fixture
def few_objects():
    """What is there is out of sight of the collector, which else takes half a second a count."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("few_objects")
@pytest.mark.parametrize(
    ("work", "grown"),
    [
        (memory, {"rss_mb", "objects"}),
        (objects, {"objects"}),
        (descriptors, {"fds", "objects"}),
        (threads, {"threads", "objects"}),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_a_leak_is_noticed(work, grown):
    with contextlib.ExitStack() as leaving:
        table = soak.soaked(CONFIG, {"work": lambda seed: work(seed, leaving)})
        found = soak.growth(table, CONFIG.every).set_index("quantity")["verdict"]
    assert set(found.index[found == "grows"]) - {"rss_mb"} == grown - {"rss_mb"}
    assert "rss_mb" not in grown or found["rss_mb"] == "grows"


@pytest.mark.usefixtures("few_objects")
def test_nothing_does_not_grow():
    table = soak.soaked(LONG, {"work": lambda seed: {"seed": seed}})
    assert set(soak.growth(table, LONG.every)["verdict"]) == {"steady"}


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(0.0, 2.0, "steady"), (0.0, 2.1, "undecided"), (2.1, 9.0, "grows"), (-9.0, -3.0, "steady")],
)
def test_the_verdict_is_that_of_the_interval(low, high, told):
    assert soak.verdict(low, high, 2.0) == told


def test_the_slope_is_of_the_second_half_in_thousands():
    table = pd.DataFrame({"training": range(1, 801), "objects": [7] * 800, "fds": 3, "threads": 1})
    table["rss_mb"] = [50.0 * (n <= 400) * n + 0.004 * n for n in table["training"]]
    grown = soak.growth(table, 50).set_index("quantity")
    for name in ("slope", "low", "high"):
        assert grown[name]["rss_mb"] == pytest.approx(4.0)
        assert (grown[name].drop("rss_mb") == 0).all()
    assert grown["first"]["rss_mb"] == pytest.approx(50.004)
    assert list(grown["verdict"]) == ["grows", "steady", "steady", "steady"]


@pytest.mark.parametrize(
    "given", [{"trainings": 0}, {"variants": 0}, {"every": 0}, {"trainings": 399}]
)
def test_a_senseless_configuration_is_refused(given):
    with pytest.raises(ValueError, match=f"`{next(iter(given))}` must be"):
        soak.Config(**given)


def test_who_interrupts_is_told_that_nothing_is_kept(monkeypatch, tmp_path):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(soak, "soaked", interrupted)
    with pytest.raises(SystemExit, match="start it anew"):
        soak.study(soak.Config(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_committed_soak_is_long_and_its_verdicts_are_those_of_its_table():
    table = pd.read_csv(REPORT / "table.csv")
    grown = pd.read_csv(REPORT / "growth.csv").set_index("quantity")
    assert len(table) >= 2000
    again = soak.growth(table, soak.Config().every).set_index("quantity")
    assert list(again["verdict"]) == list(grown["verdict"])
    assert set(grown["verdict"]) == {"steady"}
    assert (table.groupby(["kind", "seed"])["certificate"].nunique() == 1).all()
