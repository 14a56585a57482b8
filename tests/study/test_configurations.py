"""What the study would run: flags refused, networks of each method, every prior on its list."""

from __future__ import annotations

import math

import numpy as np
import pac_bound_priors as priors
import pytest

from pbnn.data import TASKS, Task, load

BASELINES = ["pbgnet_l", "pbgnet_l_bnd", "elbo", "fixed_c"]
PAPER = ["ads", "adult", "mnist17", "mnist49", "mnist56", "mnistLH"]
TABLES = {"ads", "adult", "breast_cancer"}
TEN_OR_MORE_CLASSES = {"mnist", "digits", "fashion_mnist", "cifar10", "cifar100"}
DATASETS = [name for name in TASKS if name not in TEN_OR_MORE_CLASSES]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seeds", 0),
        ("device", "nowhere"),
        ("threads", -1),
        ("workers", 0),
        ("delta", 0.0),
        ("delta", 1.0),
        ("delta", float("nan")),
        ("datasets", ()),
        ("datasets", ("mnist17", "mnist17")),
        ("datasets", ("mnist71",)),
        ("methods", ("pbgnet", "pbgnet")),
        ("hidden", ()),
        ("hidden", ("10", "10")),
        ("hidden", ("unit", "0-3")),
        ("hidden", ("10-",)),
        ("hidden", ("-1",)),
        ("hidden", ("",)),
        ("hidden", ("1.5",)),
        ("hidden", ("²",)),
    ],
)
def test_a_senseless_configuration_is_refused(study, field, value):
    name = "name" if value == ("mnist71",) else field
    with pytest.raises(ValueError, match=f"`{name}` must .*, got "):
        study.Config(**{field: value})


def test_zero_width_is_named_with_what_it_should_be(study):
    with pytest.raises(
        ValueError, match="`hidden` must hold `unit` or widths such as 10 or 10-10, got '0-3'"
    ):
        study.Config(hidden=("unit", "0-3"))


def test_workers_and_a_scheduler_exclude_each_other(study):
    with pytest.raises(ValueError, match="`workers` and `scheduler` exclude each other"):
        study.Config(workers=2, scheduler="tcp://here:8786")


def test_more_than_two_classes_are_refused(study, tmp_path):
    config = study.Config(datasets=("digits17", "digits"), offline=True, out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"`datasets` must name two-class tasks, got 'digits'"):
        study.study(config)
    assert not list(tmp_path.iterdir())


def test_what_is_left_out_follows_the_preset_and_what_is_given_stays(study):
    paper = study.Config(preset="paper").filled()
    assert (paper.seeds, len(paper.methods), len(paper.hidden)) == (5, 10, 7)
    quick = study.Config(methods=("elbo",), hidden=("3",), seeds=9).filled()
    assert (quick.seeds, quick.methods, quick.hidden) == (9, ("elbo",), ("3",))
    assert study.Config().filled().seeds == 3


def test_words_and_widths_are_each_others_inverse(study):
    for hidden in ([], [7], [10, 10], [100, 3, 1]):
        assert study.widths(study.hidden_name(hidden)) == hidden


def stand_in(name):
    """A task of the right name and shape: what runs is decided without looking at the data."""
    shape = (40, 12) if name in TABLES else (40, 1, 8, 8)
    return Task.of(name, np.zeros(shape, np.float32), np.float32([-1, 1] * 20), "made up")


def configurations(study, dataset, **given):
    config = study.Config(datasets=(dataset,), **given).filled()
    return study.configurations(config, {dataset: stand_in(dataset)})


@pytest.mark.parametrize("dataset", PAPER)
def test_the_paper_preset_runs_each_method_with_its_networks(study, dataset):
    found = {}
    for cell in configurations(study, dataset, preset="paper"):
        assert cell["seeds"] == 5
        found.setdefault(cell["method"], []).append(cell.get("hidden"))
    deep = [[10, 10], [100, 100]]
    expected = {"majority": [None], "mlp_tanh": [None]}
    expected |= {method: [[], [10]] for method in BASELINES}
    expected |= {"pbgnet": [[], [1], [10], [50], [100], *deep], "abnet": deep}
    if dataset not in TABLES:
        expected["pbgnet_rf"] = [[]]
    expected["pbgnet_pre"] = [[100] if dataset in TABLES else [500]]
    assert found == expected


def test_a_chain_needs_two_hidden_layers_and_convolutions_images(study):
    ask = {"methods": ("pbgnet", "abnet", "pbgnet_rf"), "hidden": ("unit", "2", "10-10")}
    found = {}
    for dataset in ("digits17", "breast_cancer"):
        config = study.Config(datasets=(dataset,), **ask).filled()
        for cell in study.configurations(config, {dataset: load(dataset)}):
            found.setdefault((dataset, cell["method"]), []).append(cell["hidden"])
            assert cell["network"] == ("chain" if cell["method"] == "abnet" else "tree")
    assert found == {
        ("digits17", "pbgnet"): [[], [2], [10, 10]],
        ("digits17", "abnet"): [[10, 10]],
        ("digits17", "pbgnet_rf"): [[]],
        ("breast_cancer", "pbgnet"): [[], [2], [10, 10]],
        ("breast_cancer", "abnet"): [[10, 10]],
    }


def test_each_baseline_has_its_objective(study):
    cells = configurations(
        study, "mnist17", methods=(*BASELINES, "pbgnet", "abnet"), preset="paper"
    )
    objectives = {cell["method"]: cell["objective"] for cell in cells}
    assert objectives == {
        "pbgnet_l": "risk",
        "pbgnet_l_bnd": "selected_by_bound",
        "elbo": "elbo",
        "fixed_c": "fixed_c",
        "pbgnet": "bound",
        "abnet": "bound",
    }
    fixed = {(cell["method"], cell["C"]) for cell in cells if "C" in cell}
    assert fixed == {("elbo", 1.0), ("fixed_c", 2.0)}


def charged(cell):
    return cell | {"choices": 1000, "splits": {}}


def length(lists):
    """How many priors are on them together."""
    return sum(math.prod(map(len, listed.values())) for listed in lists)


@pytest.mark.parametrize("preset", ["quick", "paper"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_prior_is_on_a_list_that_the_floor_pays_for(study, dataset, preset):
    everything = {
        "methods": study.get_args(study.Method),
        "hidden": study.PRESETS["paper"]["hidden"],
    }
    cells = configurations(study, dataset, preset=preset, **everything)
    assert len(cells) >= 20
    for cell in cells:
        study.check_listed(charged(cell))
        for value in (*cell, *cell.values()):
            assert isinstance(value, str | int | float | list), "not plain JSON"


def test_all_lists_of_a_method_are_no_longer_than_the_least_price(study):
    for dataset in DATASETS:
        methods = priors.LISTS.get(dataset, study.PRIORS)
        assert set(methods) == set(study.get_args(study.Method)) - {"majority", "mlp_tanh"}
        for lists in methods.values():
            assert 1 < length(lists) <= 1000
            for values in (values for listed in lists for values in listed.values()):
                assert len(set(map(str, values))) == len(values)


CERTIFIED = [*BASELINES, "pbgnet", "abnet", "pbgnet_rf", "pbgnet_pre"]


@pytest.mark.parametrize("dataset", ["mnist17", "mnistLH", "adult", "ads"])
@pytest.mark.parametrize("method", CERTIFIED)
def test_a_prior_that_is_not_listed_is_refused(study, dataset, method):
    cells = configurations(study, dataset, preset="paper", methods=(method,))
    for cell in (charged(cell) for cell in cells):
        for field, value in cell.items():
            if field in priors.FREE:
                continue
            other = [*value, 13] if isinstance(value, list) else f"{value}, changed"
            with pytest.raises(
                ValueError, match=rf"`[^`]*\b{field}\b.*` must be one of the listed"
            ):
                study.check_listed(cell | {field: other})
        with pytest.raises(ValueError, match=r"free fields only, got .*'prior_momentum'"):
            study.check_listed(cell | {"prior_momentum": 0.9})
        price = length(priors.LISTS.get(dataset, study.PRIORS)[method])
        study.check_listed(cell | {"choices": price})
        with pytest.raises(ValueError, match=f"`choices` must cover .* got {price - 1}"):
            study.check_listed(cell | {"choices": price - 1})


EARLIER = {
    "canonical": "none", "filters": 50, "filter_size": 3, "pool": 2, "hidden": [1],
    "centring": "pixel", "feature_points": 100, "power": 1.0, "kernel": 0.0, "emphasis": 0.0,
    "prior_scale": 1.0,
}  # fmt: skip


def test_a_prior_of_an_earlier_list_may_stand_but_none_between_two_lists(study):
    (cell,) = configurations(study, "mnist17", methods=("pbgnet_rf",))
    study.check_listed(charged(cell | EARLIER))
    for field in set(EARLIER) - {"power", "filter_size"}:  # which both lists have
        with pytest.raises(ValueError, match="must be one of the listed"):
            study.check_listed(charged(cell | {field: EARLIER[field]}))


@pytest.mark.parametrize("change", [{"threads": 2}, {"compile": True}, {"device": "cuda"}])
def test_only_a_trained_prior_depends_on_the_arithmetic_of_the_machine(study, change):
    for dataset in ("mnist17", "adult", "ads"):
        cells = configurations(study, dataset, preset="paper", methods=("pbgnet", "pbgnet_pre"))
        for cell in (charged(cell | change) for cell in cells):
            if cell["method"] == "pbgnet":
                study.check_listed(cell)
                continue
            with pytest.raises(ValueError, match="`threads compile device` must be one of"):
                study.check_listed(cell)


def test_a_width_off_the_list_stops_the_study_before_it_trains(study, tmp_path):
    config = study.Config(
        datasets=("digits17",),
        methods=("pbgnet",),
        hidden=("13",),
        offline=True,
        out=tmp_path / "o",
    )
    with pytest.raises(ValueError, match=r"`hidden` must be one of the listed .* got \[13\]"):
        study.study(config)
    assert not (tmp_path / "o" / "runs").exists()


def test_what_shapes_a_prior_is_not_free(study):
    # What is free is held to leaving priors alone in the tests of the methods.
    shaping = {"inputs", "centring", "bias", "feature_points", "levels", "power", "norm"}
    shaping |= {
        "canonical",
        "filters",
        "filter_size",
        "pool",
        "kernel",
        "emphasis",
        "network",
        "hidden",
    }
    shaping |= {"prior_scale", "prior_bias", "prior_share", "prior_loss", "prior_decay"}
    shaping |= {"prior_batch", "prior_rate", "prior_epochs", "prior_augmented"}
    assert not priors.FREE & shaping
    used = set()
    for dataset in PAPER:
        for cell in configurations(study, dataset, preset="paper"):
            used |= set(cell)
    assert used - priors.FREE == shaping
