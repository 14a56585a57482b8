"""The queueing simulation against what can be reckoned, and the parts of its study."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sweep_scaling
from sweep_scaling import Config, Costs, simulate

FREE = Costs(0.0, 0.0)


def test_without_costs_one_worker_takes_the_sum_of_its_times():
    times = np.array([1.0, 2.0, 4.0])
    took, total = simulate(times, 1, 50, FREE, seed=0)
    source = np.random.default_rng(sweep_scaling.spawn_seed(0, "scaling", 1))
    assert took == pytest.approx(source.choice(times, 50).sum())
    assert took == pytest.approx(total)


def test_equal_times_are_shared_out_evenly():
    assert simulate(np.array([2.0]), 8, 5, FREE, seed=0) == pytest.approx((10.0, 80.0))


@pytest.mark.parametrize("costs", [Costs(0.0, 0.1), Costs(0.1, 0.0)])
def test_past_saturation_the_slower_process_alone_decides(costs):
    took, _ = simulate(np.array([1.0]), 200, 20, costs, seed=0)
    assert took == pytest.approx(200 * 20 * 0.1, rel=0.02)


def test_one_worker_hides_what_the_study_does_meanwhile_but_not_the_scheduler():
    # The next run is with the scheduler already: only being told of an end delays it.
    took, _ = simulate(np.array([1.0]), 1, 30, Costs(0.01, 0.2), seed=0)
    assert took == pytest.approx(30 * 1.01 + 0.2, rel=0.01)


def test_more_workers_never_gain_less_and_never_more_than_there_are():
    times = np.array([0.5, 1.5])
    counts = (1, 4, 16)
    found = [simulate(times, n, 40, Costs(0.001, 0.01), seed=0) for n in counts]
    gains = [total / took for took, total in found]
    assert gains == sorted(gains)
    assert all(gain < n for gain, n in zip(gains, counts, strict=True))


def test_costs_are_those_of_runs_that_do_nothing_on_most_threads():
    found = pd.DataFrame(
        {
            "runs": ["nothing", "nothing", "sleep"],
            "threads": [1, 8, 64],
            "cells": [100, 100, 100],
            "seconds": [9.0, 2.0, 50.0],
            "scheduler": [1.0, 0.5, 9.0],
        }
    )
    assert sweep_scaling.costs_of(found) == (0.005, 0.02)


def test_bad_configurations_are_named():
    with pytest.raises(ValueError, match="`turns`"):
        Config(turns=0)
    with pytest.raises(ValueError, match="`threads`"):
        Config(threads=())


def test_times_come_from_a_report_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_scaling, "REPORTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="run its study first"):
        sweep_scaling.times_of("ads")


def test_page_and_figure_come_from_the_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_scaling, "times_of", lambda name: np.array([1.0, 2.0]))
    config = Config(simulated_turns=2, out=tmp_path)
    costs = Costs(0.001, 0.004)
    rows = pd.DataFrame(sweep_scaling.simulated(config, costs))
    assert len(rows) == 2 * len(sweep_scaling.STORES) * len(sweep_scaling.WORKERS)
    page = sweep_scaling.saturation_table(rows, costs._asdict())
    # 1.5 s a run at 104 ms each: fourteen workers keep the study busy.
    assert "| 14 |" in " ".join(page.split())
