"""Tables against hand computation, CSV files that lose nothing, figures that stay the same."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pbnn
from pbnn import reporting
from pbnn.reporting import drawing, figures, tables

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
    | st.sampled_from(
        ["1", "1.0", "true", "null", "NaN", "", " 1", '"a"', "[1]", "a,b\r\n", "a\rb"]
    )
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2), max_leaves=3)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=4)
FIELDS = st.dictionaries(NAMES, VALUES, max_size=4)


def record(dataset="d", method="m", seed=0, **measures):
    return {
        "key": f"{dataset}-{method}-{seed}",
        "config": {
            "dataset": dataset,
            "method": method,
            "seed": seed,
            "hidden": "10",
            "warm": True,
        },
        "measures": measures,
    }


def study():
    """Two data sets, two methods with bounds and curves, a majority class without."""
    records = []
    for d, dataset in enumerate(["mnist17", "mnistLH"]):
        for m, method in enumerate(["pbgnet", "exact_8 50%"]):
            for seed in range(3):
                risk = 0.01 * (1 + 4 * d) * (1 + 0.1 * seed) / (1 + m)
                entry = record(
                    dataset, method, seed, n=11377, kl=90.0 + 7 * seed, gibbs_train=risk,
                    gibbs_test=1.1 * risk, error_train=0.5 * risk, error_test=0.6 * risk,
                    bound_gibbs=risk + 0.03, bound_vote=2 * risk + 0.06,
                )  # fmt: skip
                entry["curve"] = [
                    {"epoch": e, "objective": risk + 0.5**e, "risk": risk, "kl": 9.0 * e}
                    for e in range(6 - seed)
                ]
                entry["seconds"] = {"training": 1.5 + seed, "certificate": 0.25}
                entry["hardware"] = {"cpu": "some, cpu", "cores": 2}
                records.append(entry)
        records.append(record(dataset, "majority", 0, error_test=0.45, bound_gibbs=0.47))
    return records


def test_the_table_is_means_and_deviations_over_seeds():
    bounds, risks, kls = [0.125, 0.375, 0.25], [0.0625, 0.125, 0.03125], [10.0, 20.0, 60.0]
    records = [
        record(seed=seed, n=1000, kl=kl, bound_gibbs=bound, gibbs_test=risk)
        for seed, (kl, bound, risk) in enumerate(zip(kls, bounds, risks, strict=True))
    ]
    (row,) = reporting.table(records).to_dict("records")
    assert (row["dataset"], row["method"], row["seeds"], row["n"]) == ("d", "m", 3, 1000)
    gaps = [bound - risk for bound, risk in zip(bounds, risks, strict=True)]
    for name, values in {
        "kl": kls,
        "bound_gibbs": bounds,
        "gibbs_test": risks,
        "gap": gaps,
    }.items():
        assert row[name] == pytest.approx(statistics.mean(values), rel=1e-14)
        assert row[f"{name}_std"] == pytest.approx(statistics.stdev(values), rel=1e-14)
    assert row["bound_gibbs_max"] == 0.375
    assert math.isnan(row["bound_vote"])
    assert math.isnan(row["bound_vote_std"])


def test_rows_come_in_the_order_of_first_appearance():
    pairs = [("b", "z"), ("a", "z"), ("b", "y"), ("b", "z"), ("a", "y")]
    frame = reporting.table([record(*pair, seed) for seed, pair in enumerate(pairs)])
    found = list(zip(frame["dataset"], frame["method"], frame["seeds"], strict=True))
    assert found == [("b", "z", 2), ("a", "z", 1), ("b", "y", 1), ("a", "y", 1)]


def test_the_columns_are_those_promised():
    expected = (
        "dataset method seeds n kl kl_std gibbs_train gibbs_train_std gibbs_test gibbs_test_std "
        "error_train error_train_std error_test error_test_std bound_gibbs bound_gibbs_std "
        "bound_gibbs_max bound_vote bound_vote_std bound_holdout bound_holdout_std gap gap_std"
    )
    assert list(reporting.table([record()]).columns) == expected.split()
    assert list(reporting.table([]).columns) == expected.split()
    other = reporting.table([record(loss=2.0)], ["loss"], worst=["loss"], gap=None)
    assert list(other.columns) == ["dataset", "method", "seeds", "loss", "loss_std", "loss_max"]


def test_one_seed_has_no_deviation_and_a_missing_seed_no_mean():
    one = reporting.table([record(kl=3.0)]).loc[0]
    assert one["kl"] == 3.0
    assert math.isnan(one["kl_std"])
    partial = reporting.table([record(seed=0, bound_gibbs=0.1), record(seed=1, bound_gibbs=None)])
    assert partial[["bound_gibbs", "bound_gibbs_std", "bound_gibbs_max"]].isna().all(axis=None)


def test_seeds_are_distinct_and_names_given():
    with pytest.raises(ValueError, match="distinct seeds"):
        reporting.table([record(kl=1.0), record(kl=2.0)])
    with pytest.raises(ValueError, match="dataset and a method"):
        reporting.table([record(dataset="")])


def test_the_csv_table_is_exact(tmp_path):
    frame = reporting.table(study())
    path = reporting.write_table(frame, tmp_path, caption="c")[0]
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(frame.columns)
    for name in frame.columns[2:]:
        values = [float(row[name]) if row[name] else None for row in rows]
        assert values == [None if pd.isna(value) else float(value) for value in frame[name]]
    assert rows[0]["n"] == "11377"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("bound_gibbs", 0.03890000001, "0.0390"),
        ("bound_gibbs", 0.0389, "0.0389"),
        ("bound_gibbs", 0.1, "0.1000"),
        ("gibbs_test", 0.03890000001, "0.0389"),
        ("gibbs_test", 0.03896, "0.0390"),
        ("gibbs_test", 0.0, "0.0000"),
        ("gibbs_test", 2e-7, "0.0000"),
        ("bound_gibbs", 2e-7, "0.0001"),
        ("kl", 95.14, "95.1"),
        ("kl", 25163.4, "25163"),
        ("n", 11377, "11377"),
    ],
)
def test_bounds_are_printed_rounded_up_and_the_rest_to_the_nearest(tmp_path, name, value, text):
    _, path, _ = reporting.write_table(
        reporting.table([record(**{name: value})]), tmp_path, caption="c"
    )
    cells = [cell.strip() for cell in path.read_text().splitlines()[-1].split("|")]
    assert cells[4] == text


def test_markdown_and_latex_print_mean_and_deviation(tmp_path):
    frame = reporting.table(study())
    published = pd.DataFrame(
        {"dataset": ["mnist17"], "method": ["pbgnet"], "bound (Doe & Roe, 2019)": [0.0415]}
    )
    _, md, tex = reporting.write_table(
        frame, tmp_path, "t", caption="50% of_all", published=published
    )
    lines = md.read_text().splitlines()
    assert lines[0] == "50% of_all"
    assert "bound (Doe & Roe, 2019)" in lines[2]
    first = next(line for line in lines if "| pbgnet" in line)
    assert "0.0121 ± 0.0011" in first
    assert first.rstrip(" |").endswith("0.0415")
    assert "hold-out bound" not in lines[2]
    assert len({line.count("|") for line in lines[2:]}) == 1

    text = tex.read_text()
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{50\% of\_all}",
                 r"exact\_8 50\%", r"0.0121 $\pm$ 0.0011", r"(Doe \& Roe, 2019)"):  # fmt: skip
        assert part in text
    assert not re.search(r"(?<!\\)[%_#]", text)
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 1 + len(frame)
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1


def test_published_values_need_their_row(tmp_path):
    frame = reporting.table(study())
    for published in (
        pd.DataFrame({"method": ["pbgnet"], "x": [1]}),
        pd.DataFrame({"dataset": ["d", "d"], "method": ["m", "m"], "x": [1, 2]}),
    ):
        with pytest.raises(ValueError, match="`published`"):
            reporting.write_table(frame, tmp_path, caption="c", published=published)
    assert not list(tmp_path.iterdir())


def test_every_sign_special_to_latex_is_escaped():
    text = "\\ & % $ # _ { } ~ ^ ±".translate(tables.LATEX)
    assert text == (
        r"\textbackslash{} \& \% \$ \# \_ \{ \} \textasciitilde{} \textasciicircum{} $\pm$"
    )


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.tuples(FIELDS, FIELDS), max_size=3))
@example(parts=[({"a": "x\ry"}, {"b": "\r"})])
def test_records_survive_their_csv_with_types(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("csv") / "records.csv"
    records = [
        {"key": f"{index:016x}", "config": config, "measures": measures}
        for index, (config, measures) in enumerate(parts)
    ]
    for entry in records:
        entry["key"] = "k" + entry["key"]
    reporting.write_records_csv(records, path)
    back = reporting.records_from_csv(path)
    assert back == records
    assert repr([sorted(r["config"].items()) for r in back]) == repr(
        [sorted(r["config"].items()) for r in records]
    )


def test_keys_of_digits_survive_the_csv(tmp_path):
    records = [record(kl=1.0) | {"key": key} for key in ("0000000000000012", "1" * 16, "12e4" * 4)]
    reporting.write_records_csv(records, tmp_path / "r.csv")
    back = reporting.records_from_csv(tmp_path / "r.csv")
    assert [entry["key"] for entry in back] == [entry["key"] for entry in records]


def test_tables_and_figures_can_be_redrawn_from_csv(tmp_path):
    records = study()
    reporting.write_records_csv(records, tmp_path / "records.csv")
    reporting.write_curves_csv(records, tmp_path / "curves.csv")
    frame = reporting.table(reporting.records_from_csv(tmp_path / "records.csv"))
    pd.testing.assert_frame_equal(frame, reporting.table(records), check_exact=True)
    curves = reporting.curves_from_csv(tmp_path / "curves.csv")
    with_curve = [entry for entry in records if "curve" in entry]
    assert [entry["curve"] for entry in curves] == [entry["curve"] for entry in with_curve]
    assert [entry["config"]["seed"] for entry in curves] == [0, 1, 2] * 4
    straight = reporting.learning_curves(records, tmp_path / "a")
    redrawn = reporting.learning_curves(curves, tmp_path / "b")
    assert digests(straight) == digests(redrawn)


def test_timings_have_one_row_per_record(tmp_path):
    path = tmp_path / "timings.csv"
    reporting.write_timings_csv(study(), path)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(study())
    assert rows[1]["seconds.training"] == "2.5"
    assert rows[1]["hardware.cpu"] == "some, cpu"
    assert rows[-1]["seconds.training"] == ""


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "key,config.a\nk,1,2\n", "key,config.a\nk\n", "key,other\nk,1\n"]
)
def test_a_damaged_csv_is_refused_by_name(tmp_path, text):
    path = tmp_path / "records.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"records\.csv"):
        reporting.records_from_csv(path)


def digests(paths):
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]


REDRAW = """
import sys
import matplotlib
matplotlib.rcParams.update({"font.size": 20, "svg.hashsalt": "mine", "figure.facecolor": "red"})
from pbnn import reporting
records = reporting.records_from_csv(sys.argv[1] + "/records.csv")
reporting.bound_vs_error(reporting.table(records), sys.argv[1] + "/again/bounds")
reporting.learning_curves(
    reporting.curves_from_csv(sys.argv[1] + "/curves.csv"), sys.argv[1] + "/again/curves"
)
reporting.bound_by_network(
    reporting.table(records, by=("dataset", "method", "hidden")), sys.argv[1] + "/again/grid"
)
assert "matplotlib.pyplot" not in sys.modules
"""


def test_figures_are_the_same_bytes_in_another_process_with_other_settings(tmp_path):
    records = study()
    before = dict(mpl.rcParams)
    paths = reporting.bound_vs_error(reporting.table(records), tmp_path / "once" / "bounds")
    paths += reporting.learning_curves(records, tmp_path / "once" / "curves")
    grid = reporting.table(records, by=("dataset", "method", "hidden"))
    paths += reporting.bound_by_network(grid, tmp_path / "once" / "grid")
    assert dict(mpl.rcParams) == before
    assert [path.suffix for path in paths] == [".pdf", ".svg", ".png"] * 3
    reporting.write_records_csv(records, tmp_path / "records.csv")
    reporting.write_curves_csv(records, tmp_path / "curves.csv")
    environment = os.environ | {
        "PYTHONPATH": str(Path(pbnn.__file__).parents[1]), "PYTHONHASHSEED": "7"
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", REDRAW, str(tmp_path)], env=environment, check=True)
    assert digests(paths) == digests(tmp_path / "again" / path.name for path in paths)
    assert len(list((tmp_path / "once").iterdir())) == 9


def drawn(monkeypatch, draw, *arguments, **options):
    """The figure that would have been written."""
    kept = []

    def keep(make, path):
        with mpl.style.context(["default", drawing.STYLE]):
            kept.append(make())
        return []

    monkeypatch.setattr(figures, "save", keep)
    draw(*arguments, "unused", **options)
    return kept[0]


def test_a_bound_stands_against_the_error_of_its_own_predictor(monkeypatch):
    frame = reporting.table(study())
    frame.loc[frame["method"] == "majority", "bound_vote"] = 0.5
    figure = drawn(monkeypatch, reporting.bound_vs_error, frame, title="Bounds")
    assert [axes.get_title() for axes in figure.axes] == ["mnist17", "mnistLH"]
    assert figure.get_figwidth() == drawing.WIDE
    axes = figure.axes[0]
    markers = {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_markerfacecolor() == "white"
        for line in axes.lines
        if line.get_marker() in set("osD^vPX*")
    }
    rows = frame[(frame["dataset"] == "mnist17") & (frame["method"] != "majority")]
    expected = dict.fromkeys(zip(rows["gibbs_test"], rows["bound_gibbs"], strict=True), False)
    expected |= dict.fromkeys(zip(rows["error_test"], rows["bound_vote"], strict=True), True)
    assert markers == expected
    levels = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert [line.get_ydata()[0] for line in levels] == [0.47], "its bound, not its test error"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[-1] == "bound of the constant"
    diagonal = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert [list(line.get_xdata()) == list(line.get_ydata()) for line in diagonal] == [True]


def test_all_points_are_in_sight_even_at_zero_error(monkeypatch):
    records = [
        record("a", "m", 0, gibbs_test=0.0, bound_gibbs=0.04, error_test=0.0, bound_vote=0.08),
        record("b", "m", 0, gibbs_test=0.2, bound_gibbs=0.4, error_test=0.01, bound_vote=0.8),
    ]
    figure = drawn(monkeypatch, reporting.bound_vs_error, reporting.table(records))
    for axes, risks in zip(figure.axes, [(0.0,), (0.2, 0.01)], strict=True):
        low, high = axes.get_xlim()
        assert all(low < risk < high for risk in risks)
        low, high = axes.get_ylim()
        assert low < 0.04 < 0.8 < high


def test_bars_are_in_sight_and_end_at_zero(monkeypatch):
    for errors in ([0.09, 0.1, 0.11], [0.001, 0.05, 0.12], [0.01, 0.05, 0.09 + 4e-6]):
        records = [
            record("a", "m", seed, gibbs_test=error, bound_gibbs=0.1 + error)
            for seed, error in enumerate(errors)
        ]
        records.append(record("a", "other", gibbs_test=0.051, bound_gibbs=0.2))
        figure = drawn(monkeypatch, reporting.bound_vs_error, reporting.table(records))
        (axes,) = figure.axes
        mean, spread = statistics.mean(errors), statistics.stdev(errors)
        bar = axes.containers[0].lines[2][0].get_segments()[0][:, 0]
        assert list(bar) == pytest.approx([max(mean - spread, 0), mean + spread])
        low, high = axes.get_xlim()
        assert low < bar.min() < bar.max() < high


def test_a_line_of_few_epochs_ends_at_a_marker(monkeypatch):
    short, long = record("d", "short"), record("d", "long")
    for entry, epochs in ((short, 2), (long, 100)):
        entry["curve"] = [{"epoch": e, "objective": 0.5, "risk": 0.1} for e in range(epochs)]
    figure = drawn(monkeypatch, reporting.learning_curves, [short, long])
    ends = [line.get_markevery()[-1] for line in figure.axes[0].lines]
    assert ends == [1, 1, 99, 99]
    assert all(len(line.get_markevery()) < 9 for line in figure.axes[0].lines)


def test_curves_are_means_within_the_range_over_the_epochs_of_all_seeds(monkeypatch):
    figure = drawn(monkeypatch, reporting.learning_curves, study())
    top = figure.axes[0]
    bound, risk = top.lines[:2]
    assert (bound.get_linestyle(), risk.get_linestyle()) == ("-", "--")
    assert list(bound.get_xdata()) == [0, 1, 2, 3]
    risks = [0.01, 0.011, 0.012]
    expected = [statistics.mean(r + 0.5**e for r in risks) for e in range(4)]
    assert list(bound.get_ydata()) == pytest.approx(expected)
    shade = top.collections[1].get_paths()[0].vertices[:, 1]
    assert (shade.min(), shade.max()) == pytest.approx((0.01, 0.012))


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="`frame`"):
        reporting.bound_vs_error(reporting.table([record(kl=1.0)]), tmp_path / "x")
    with pytest.raises(ValueError, match="`records`"):
        reporting.learning_curves([record()], tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("low", "high"), [(0.004, 0.06), (1e-9, 1.0), (0.03, 0.5), (0.011, 0.6)])
def test_ticks_are_few_and_within(low, high):
    ticks = drawing._ticks(low, high)
    assert 2 <= len(ticks) <= 5
    assert low <= min(ticks) < max(ticks) <= high


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0.0, 0.001, 0.01], ["0", "0.001", "0.01"]),
        ([1e3, 1e4, 1e5, 1e6], ["$10^{3}$", "$10^{4}$", "$10^{5}$", "$10^{6}$"]),
        ([0.0, 5e-5, 2e-4], ["0", r"$5 \times 10^{-5}$", r"$2 \times 10^{-4}$"]),
    ],
)
def test_no_tick_is_labelled_in_the_notation_of_programs(ticks, labels):
    assert drawing._tick_labels(ticks) == labels


def test_long_lines_are_told_apart_by_markers_too():
    order = [str(place) for place in range(8)]
    looks = [drawing.line_of(order, method) for method in order]
    assert len({look["marker"] for look in looks}) == len(order)
    assert all(look["markevery"] is not None for look in looks)
    assert looks[0]["markevery"] != looks[1]["markevery"]


def test_labels_do_not_overlap_at_the_final_size(monkeypatch):
    records = [
        entry | {"config": entry["config"] | {"dataset": entry["config"]["dataset"] + suffix}}
        for suffix in ("", " deskewed")
        for entry in study()
    ]
    for draw, data in (
        (reporting.bound_vs_error, reporting.table(records)),
        (reporting.learning_curves, records),
    ):
        figure = drawn(monkeypatch, draw, data)
        with mpl.style.context(["default", drawing.STYLE]):
            figure.draw_without_rendering()
            boxes = [figure.legends[0].get_window_extent()]
            for axes in figure.axes:
                texts = [axes.title, axes.xaxis.label, axes.yaxis.label]
                for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
                    ticks = axis.get_major_ticks()
                    texts += [t.label1 for t in ticks if limits[0] <= t.get_loc() <= limits[1]]
                shown = [text for text in texts if text.get_visible() and text.get_text()]
                boxes += [text.get_window_extent() for text in shown]
        assert len(boxes) > 20
        for index, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[index + 1 :])
