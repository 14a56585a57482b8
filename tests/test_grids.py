"""The grid of a study: rows by any field, the least of each method, the picture of all."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
import pytest

from pbnn import reporting
from pbnn.reporting import drawing, grids

BY = ("dataset", "method", "hidden")


def record(dataset, method, hidden, seed, bound):
    config = {"dataset": dataset, "method": method, "seed": seed}
    if hidden is not None:
        config["hidden"] = hidden
    measures = {"bound_gibbs": bound, "gibbs_test": 0.01}
    return {"key": f"{len(config)}", "config": config, "measures": measures}


def study():
    """Two methods and three networks over two seeds, the constant, a method without a bound."""
    bounds = {
        ("a", "pbgnet"): {"unit": (0.30, 0.20), "10": (0.10, 0.30), "10-10": (0.40, 0.42)},
        ("a", "elbo"): {"unit": (0.50, 0.50), "10": (0.35, 0.45)},
        ("b", "pbgnet"): {"unit": (0.12, 0.10), "10": (0.20, 0.20), "10-10": (0.11, 0.15)},
        ("a", "majority"): {None: (0.48, 0.48)},
        ("b", "majority"): {None: (0.25, 0.25)},
        ("b", "mlp_tanh"): {None: (None, None)},
    }
    return [
        record(*pair, hidden, seed, bound)
        for pair, networks in bounds.items()
        for hidden, seeds in networks.items()
        for seed, bound in enumerate(seeds)
    ]


@pytest.fixture
def grid():
    return reporting.table(study(), by=BY)


def test_rows_are_told_apart_by_the_fields_asked_for(grid):
    assert list(grid.columns[:4]) == [*BY, "seeds"]
    assert list(zip(*(grid[name] for name in BY), strict=True)) == [
        ("a", "pbgnet", "unit"), ("a", "pbgnet", "10"), ("a", "pbgnet", "10-10"),
        ("a", "elbo", "unit"), ("a", "elbo", "10"),
        ("b", "pbgnet", "unit"), ("b", "pbgnet", "10"), ("b", "pbgnet", "10-10"),
        ("a", "majority", ""), ("b", "majority", ""), ("b", "mlp_tanh", ""),
    ]  # fmt: skip
    assert set(grid["seeds"]) == {2}
    assert grid["bound_gibbs"][1] == pytest.approx(0.2)
    assert grid["bound_gibbs_max"][1] == 0.3
    alone = reporting.table([study()[0], study()[3]], by=("dataset",))
    assert list(alone.columns[:2]) == ["dataset", "seeds"]
    assert alone["bound_gibbs"][0] == pytest.approx(0.3)


def test_seeds_are_distinct_within_a_row_only():
    twice = [record("a", "pbgnet", hidden, 0, 0.1) for hidden in ("unit", "10", "unit")]
    assert len(reporting.table(twice[:2], by=BY)) == 2
    with pytest.raises(ValueError, match=r"distinct seeds .*'unit'.* with seed 0 twice"):
        reporting.table(twice, by=BY)
    with pytest.raises(ValueError, match=r"distinct seeds .*'pbgnet'.* with seed 0 twice"):
        reporting.table(twice[:2])


def test_the_least_mean_stands_for_its_method_in_the_order_of_the_grid(grid):
    rows = reporting.least(grid)
    assert list(zip(*(rows[name] for name in BY), strict=True)) == [
        ("a", "pbgnet", "10"),
        ("a", "elbo", "10"),
        ("b", "pbgnet", "unit"),
        ("a", "majority", ""),
        ("b", "majority", ""),
        ("b", "mlp_tanh", ""),
    ]
    assert list(rows.index) == [1, 4, 5, 8, 9, 10]
    pd.testing.assert_frame_equal(rows, grid.loc[rows.index])


def test_it_may_be_the_least_of_another_bound_and_what_has_none_comes_last():
    frame = pd.DataFrame(
        {
            "dataset": "a",
            "method": ["m", "m", "m", "n", "n", "o", "o"],
            "bound_gibbs": [0.3, 0.2, 0.2, None, None, None, 0.9],
            "bound_vote": [0.5, 0.7, 0.6, None, None, 0.1, None],
        }
    )
    assert list(reporting.least(frame).index) == [1, 3, 6], "the first of equals"
    assert list(reporting.least(frame, "bound_vote").index) == [0, 3, 5]


def drawn(monkeypatch, grid, **options):
    """The figure that would have been written."""
    kept = []

    def keep(make, path):
        with mpl.style.context(["default", drawing.STYLE]):
            kept.append(make())
        return []

    monkeypatch.setattr(grids, "save", keep)
    reporting.bound_by_network(grid, "unused", **options)
    return kept[0]


def test_every_configuration_with_a_bound_is_drawn_over_its_network(monkeypatch, grid):
    figure = drawn(monkeypatch, grid, title="Bounds", order=["majority", "elbo", "pbgnet"])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert figure.get_suptitle() == "Bounds"
    names = ["unit", "10", "10-10"]
    expected = {
        "a": {"pbgnet": [0.25, 0.2, 0.41], "elbo": [0.5, 0.4]},
        "b": {"pbgnet": [0.11, 0.2, 0.13]},
    }
    with mpl.style.context(["default", drawing.STYLE]):
        looks = {name: drawing.look_of(["majority", "elbo", "pbgnet"], name) for name in
                 ("pbgnet", "elbo")}  # fmt: skip
    for axes, level in zip(figure.axes, [0.48, 0.25], strict=True):
        assert [label.get_text() for label in axes.get_xticklabels()] == names
        points = [line for line in axes.lines if line.get_marker() in drawing.MARKERS]
        found = {}
        for line in points:
            (method,) = (name for name in looks if looks[name]["marker"] == line.get_marker())
            assert line.get_color() == looks[method]["color"]
            found[method] = list(line.get_ydata())
            # Beside the tick of its own network, whatever its neighbours have.
            assert [round(x) for x in line.get_xdata()] == list(range(len(found[method])))
            bars = line.axes.containers[len(found) - 1].lines[2][0].get_segments()
            spread = [segment[:, 1].max() - segment[:, 1].min() for segment in bars]
            rows = grid[(grid["dataset"] == axes.get_title()) & (grid["method"] == method)]
            assert spread == pytest.approx([2 * std for std in rows["bound_gibbs_std"]])
        assert found.keys() == expected[axes.get_title()].keys()
        for method, bounds in expected[axes.get_title()].items():
            assert found[method] == pytest.approx(bounds)
        dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert [line.get_ydata()[0] for line in dotted] == [level]
        low, high = axes.get_ylim()
        assert low < 0.11 < 0.5 < high, "one scale for all"
        assert axes.get_xlabel() == "hidden widths"
        left, right = axes.get_xlim()
        assert left <= -0.5
        assert right >= len(names) - 0.5
    points = [line for line in figure.axes[0].lines if line.get_marker() in drawing.MARKERS]
    (x, other) = (list(map(float, line.get_xdata())) for line in points)
    assert x[0] == -other[0] != 0, "side by side, around the tick"
    assert x[2] == 2, "alone, on the tick"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["pbgnet", "elbo", "bound of the constant"]


def test_a_network_that_only_one_data_set_has_keeps_its_place(monkeypatch):
    records = [record("a", "m", "unit", 0, 0.1), record("a", "m", "10", 0, 0.2)]
    records.append(record("b", "m", "10", 0, 0.3))
    figure = drawn(monkeypatch, reporting.table(records, by=BY))
    (line,) = (line for line in figure.axes[1].lines if line.get_marker() in drawing.MARKERS)
    assert [round(x) for x in line.get_xdata()] == [1], "one seed, and no constant, will do"


def test_many_methods_at_a_tick_stay_nearer_to_it_than_to_the_next(monkeypatch):
    records = [record("a", f"m{place}", hidden, 0, 0.1) for place in range(9) for hidden in "12"]
    figure = drawn(monkeypatch, reporting.table(records, by=BY))
    lines = [line for line in figure.axes[0].lines if line.get_marker() in drawing.MARKERS]
    places = [sorted(float(line.get_xdata()[tick]) for line in lines) for tick in (0, 1)]
    assert len(set(places[0])) == 9
    assert max(places[0]) < 0.4
    assert min(places[1]) > 0.6


def test_bars_are_in_sight(monkeypatch):
    records = [record("a", "m", "1", seed, bound) for seed, bound in enumerate((0.1, 0.5, 0.9))]
    figure = drawn(monkeypatch, reporting.table(records, by=BY))
    low, high = figure.axes[0].get_ylim()
    assert low < 0.1
    assert high > 0.9


def test_each_format_is_written(tmp_path, grid):
    paths = reporting.bound_by_network(grid, tmp_path / "grid")
    assert [path.name for path in paths] == ["grid.pdf", "grid.svg", "grid.png"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert b"10-10" in (tmp_path / "grid.svg").read_bytes()
    assert min(path.stat().st_size for path in paths) > 1000


def test_a_grid_without_a_bound_is_an_error(tmp_path, grid):
    for rows in (grid[grid["method"] == "majority"], grid[grid["method"] == "mlp_tanh"], grid[:0]):
        with pytest.raises(ValueError, match="`grid` must hold a bound, got none"):
            reporting.bound_by_network(rows, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_another_name_for_the_constant(monkeypatch, grid):
    renamed = grid.assign(method=grid["method"].replace("majority", "constant"))
    figure = drawn(monkeypatch, renamed, majority="constant")
    dotted = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert [line.get_ydata()[0] for line in dotted] == [0.48]


def test_the_methods_of_a_study_all_look_different():
    order = [f"method {place}" for place in range(10)]
    with mpl.style.context(["default", drawing.STYLE]):
        looks = {tuple(drawing.look_of(order, name).values()) for name in order}
    assert len(looks) == 10
