"""Methods on a tiny task: what trains them, what their priors may look at, what they certify."""

from __future__ import annotations

import json
import math

import pytest
import torch
from scipy.stats import beta

from pbnn import methods, training
from pbnn.baselines import MLP
from pbnn.bounds import maurer
from pbnn.certificates import Budget, Certificate, verify
from pbnn.data import Task, load_once
from pbnn.evaluation import mode_error, risks
from pbnn.inputs import INPUTS, Points
from pbnn.methods import METHODS, OBJECTIVES, hidden_name, name, run, sign_network, splits_of
from pbnn.networks import ABNet, PBGNet
from pbnn.seeding import generator
from pbnn.training import checkpoint_bytes, load_checkpoint

SIZES = {"feature": 12, "prior": 0, "certification": 40, "test": 30}
SPLITS = dict.fromkeys(SIZES, "0" * 64)


def part(size, purpose, shape):
    """Points whose first pixel says their label, most of the time."""
    source = generator(5, purpose)
    x = torch.rand((size, *shape), generator=source)
    lean = x.flatten(1)[:, 0] + 0.2 * torch.randn(size, generator=source)
    return x, torch.where(lean >= 0.5, 1.0, -1.0)


def points_of(shape=(6,), **sizes):
    return Points(*(part(size, key, shape) for key, size in (SIZES | sizes).items()))


def cell(**changes):
    return {
        "dataset": "made up", "method": "pbgnet", "seed": 3, "threads": 1, "seeds": 2,
        "delta": 0.05, "choices": 10, "compile": False, "splits": SPLITS, "network": "tree",
        "hidden": [2], "bias": False, "prior_scale": 1.0, "prior_bias": 0.0, "inputs": "plain",
        "centring": "image", "objective": "bound", "C": 1.0, "decay": 1e-3, "epochs": 4,
        "batch": 16, "learning_rate": 0.1, "restarts": 1, "draws": [1000, 10],
    } | changes  # fmt: skip


PRE = {
    "prior_share": 0.5, "prior_loss": "linear", "prior_decay": 0.0, "prior_augmented": False,
    "prior_epochs": 3, "prior_batch": 16, "prior_rate": 0.1,
}  # fmt: skip
CONVOLVED = {
    "inputs": "convolved", "canonical": "none", "filters": 8, "filter_size": 3, "pool": 3,
    "power": 0.5, "kernel": 1.0, "emphasis": 0.1, "hidden": [], "prior_scale": 0.0,
}  # fmt: skip
KINDS = {
    "bound": {},
    "fixed_c": {"objective": "fixed_c"},
    "elbo": {"objective": "elbo"},
    "risk": {"objective": "risk"},
    "selected_by_bound": {"objective": "selected_by_bound"},
    "unit": {"hidden": [], "prior_scale": 0.0},
    "deep": {"hidden": [2, 2]},
    "chain": {"hidden": [2, 2], "network": "chain"},
    "trained prior": PRE,
    "convolved": CONVOLVED,
}


def points_for(kind):
    shape = (1, 8, 8) if kind == "convolved" else (6,)
    return points_of(shape, prior=25, feature=0) if kind == "trained prior" else points_of(shape)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the runs set it; two on a busy machine would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def results(one_thread):
    return {kind: sign_network(cell(**KINDS[kind]), points_for(kind), None) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_hold_together_and_measures_are_those_of_the_network(results, kind):
    result, points = results[kind], points_for(kind)
    prepared, _ = INPUTS[cell(**KINDS[kind])["inputs"]](points, cell(**KINDS[kind]))
    measures, network = result["measures"], result["network"]
    assert type(network) is (ABNet if kind == "chain" else PBGNet)
    gibbs, vote = (Certificate.from_dict(result["certificates"][k]) for k in ("gibbs", "vote"))
    for certificate in (gibbs, vote):
        verify(certificate)
        assert certificate.n == measures["n"] == 40
        assert (certificate.budget.seeds, certificate.budget.choices) == (2, 10)
        assert certificate.provenance.splits == SPLITS
        assert certificate.provenance.seed == 3
    assert measures["bound_gibbs"] == gibbs.bound
    assert measures["bound_vote"] == vote.bound
    assert measures["kl"] == pytest.approx(network.kl().item(), abs=1e-3)
    with torch.no_grad():
        for key, (x, y) in (("train", prepared.certification), ("test", prepared.test)):
            F = network.exact_aggregate(x)
            assert measures[f"gibbs_{key}"] == pytest.approx(
                ((1 - y * F) / 2).mean().item(), abs=1e-5
            )
            wrong = torch.where(F >= 0, 1.0, -1.0) != y
            assert measures[f"error_{key}"] == pytest.approx(wrong.float().mean().item())
            assert measures[f"mode_{key}"] == mode_error(network, x, y)
    each = 0.05 / (2 * 10)
    assert gibbs.bound >= maurer(measures["gibbs_train"], measures["kl"], 40, delta=each) - 1e-6
    assert sum(gibbs.events.values()) <= each
    assert (measures["draws"], measures["draws_a_point"]) == (0, 0)


def test_every_objective_is_tried_here():
    assert {cell(**kind)["objective"] for kind in KINDS.values()} == set(OBJECTIVES)
    assert set(METHODS) - {"majority", "mlp_tanh"} == {
        name for name, method in METHODS.items() if method is sign_network
    }


def test_each_objective_records_what_it_minimises(results):
    delta = Budget(0.05, 2, 10).events(exact=True)["gibbs"]
    last = {kind: results[kind]["curve"][-1] for kind in OBJECTIVES}
    for kind in ("bound", "fixed_c", "selected_by_bound"):
        row = last[kind]
        # With the best C for what was reached, also where another one was trained by.
        best = maurer(row["risk"], row["kl"], 40, delta=delta)
        assert row["objective"] == pytest.approx(best, rel=1e-6)
        assert (row["C"] == 1.0) == (kind != "bound")
    elbo = last["elbo"]
    assert elbo["objective"] == pytest.approx(elbo["risk"] + elbo["kl"] / 40, rel=1e-5)
    assert last["risk"]["objective"] == pytest.approx(last["risk"]["risk"])
    states = {kind: checkpoint_bytes(results[kind]["network"]) for kind in OBJECTIVES}
    # So short a training ends where the bound is least.
    assert states.pop("selected_by_bound") in states.values()
    assert len(set(states.values())) == len(states)


def test_the_epoch_with_the_least_bound_is_kept_where_training_goes_on_past_it():
    long = {"epochs": 60, "learning_rate": 0.3}
    ends = {
        kind: sign_network(cell(objective=kind, **long), points_of(), None)["measures"]
        for kind in ("risk", "selected_by_bound")
    }
    assert ends["selected_by_bound"]["bound_gibbs"] < ends["risk"]["bound_gibbs"] - 0.05
    assert ends["selected_by_bound"]["gibbs_train"] > ends["risk"]["gibbs_train"]


def test_decay_and_c_reach_their_objectives(results):
    for kind, change in (("risk", {"decay": 0.3}), ("selected_by_bound", {"decay": 0.3}),
                         ("fixed_c", {"C": 9.0})):  # fmt: skip
        other = sign_network(cell(**KINDS[kind], **change), points_for(kind), None)["network"]
        assert checkpoint_bytes(other) != checkpoint_bytes(results[kind]["network"])


def prior(network):
    """Everything that must not depend on certification points."""
    return [network.shift, *(layer.weight.prior_mean for layer in network.layers())]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


FREE = {
    "objective": "fixed_c", "C": 2.0, "decay": 0.1, "epochs": 2, "batch": 7,
    "learning_rate": 0.03, "restarts": 2, "kl_warmup": 0.5, "draws": [5000, 30], "delta": 0.2,
    "seeds": 5, "choices": 99, "splits": SPLITS | {"test": "1" * 64},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["bound", "trained prior", "convolved"])
def test_what_is_free_leaves_the_prior_alone(results, kind):
    before = prior(results[kind]["network"])
    for field, value in FREE.items():
        after = sign_network(cell(**KINDS[kind], **{field: value}), points_for(kind), None)
        assert same(prior(after["network"]), before), field
    for field, value in (("seed", 4), ("hidden", [3]), ("centring", "pixel")):
        after = sign_network(cell(**KINDS[kind] | {field: value}), points_for(kind), None)
        other = prior(after["network"])
        assert len(other) != len(before) or any(
            a.shape != b.shape or not torch.equal(a, b) for a, b in zip(other, before, strict=True)
        ), field


@pytest.mark.parametrize("kind", ["bound", "trained prior", "convolved"])
def test_the_prior_looks_neither_at_certification_nor_at_test_points(results, kind):
    points = points_for(kind)
    config = cell(**KINDS[kind])
    before = results[kind]
    (x, y), (x_test, y_test) = points.certification, points.test
    moved = Points(points.feature, points.prior, (x.flip(0) ** 3, -y), (x_test, y_test))
    after = sign_network(config, moved, None)
    assert same(prior(after["network"]), prior(before["network"]))
    assert after["measures"]["gibbs_train"] != before["measures"]["gibbs_train"]
    # The posterior and its bounds do not look at the test points either.
    moved = Points(points.feature, points.prior, (x, y), (x_test / 2, -y_test))
    after = sign_network(config, moved, None)
    assert checkpoint_bytes(after["network"]) == checkpoint_bytes(before["network"])
    differ = {key for key, value in after["measures"].items() if value != before["measures"][key]}
    assert {"gibbs_test"} <= differ <= {"gibbs_test", "error_test", "mode_test", "undecided_test"}


def half(x):
    return torch.cat([x[: len(x) // 2], x[len(x) // 2 :] / 3])


@pytest.mark.parametrize(
    ("inputs", "shape", "more"),
    [
        ("plain", (6,), {"centring": "image"}),
        ("plain", (6,), {"centring": "pixel"}),
        ("halved", (1, 8, 8), {"centring": "image"}),
        ("standardised", (6,), {}),
        ("binned", (6,), {"levels": 4, "power": 0.5, "norm": 2.0}),
        ("convolved", (1, 8, 8), CONVOLVED | {"centring": "image"}),
    ],
)
def test_inputs_are_shaped_by_the_feature_split_alone(inputs, shape, more):
    points, config = points_of(shape), cell(**more | {"inputs": inputs})
    before, shift = INPUTS[inputs](points, config)
    (x, y), (x_test, y_test) = points.certification, points.test
    changed = Points(points.feature, points.prior, (half(x), y), (x_test + 1, y_test))
    after, shift_after = INPUTS[inputs](changed, config)
    torch.testing.assert_close(torch.as_tensor(shift_after), torch.as_tensor(shift), rtol=0, atol=0)
    for key, rows in (("feature", slice(None)), ("certification", slice(len(x) // 2))):
        one, other = (getattr(each, key)[0][rows] for each in (before, after))
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-6)
    assert not torch.equal(after.certification[0], before.certification[0])
    fresh = Points(part(12, "other", shape), *(points.prior, points.certification, points.test))
    moved, shift_moved = INPUTS[inputs](fresh, config)
    assert not torch.equal(torch.as_tensor(shift_moved), torch.as_tensor(shift)) or (
        moved.test[0].shape != before.test[0].shape
        or not torch.equal(moved.test[0], before.test[0])
    )


def test_the_hold_out_bound_is_binomial_on_the_points_the_prior_did_not_see(monkeypatch):
    seen = {}
    drawn = methods.errors_of_one_draw_each

    def spied(network, x, y, source):
        seen.update(errors=drawn(network, x, y, source), n=len(x), kl=network.kl().item())
        seen["gibbs"] = risks(network, x, y).gibbs
        return seen["errors"]

    monkeypatch.setattr(methods, "errors_of_one_draw_each", spied)
    points = points_for("trained prior")
    result = sign_network(cell(**PRE), points, None)
    assert seen["n"] == 40
    assert seen["kl"] == 0, "of the prior itself"
    spread = math.sqrt(seen["gibbs"] * (1 - seen["gibbs"]) / 40)
    assert abs(seen["errors"] / 40 - seen["gibbs"]) < 5 * spread
    upper = beta.ppf(1 - 0.05 / (2 * 10), seen["errors"] + 1, 40 - seen["errors"])
    bound = result["measures"]["bound_holdout"]
    assert upper <= bound < upper + 1e-3
    assert "bound_holdout" not in sign_network(cell(), points_of(), None)["measures"]


def test_a_trained_prior_has_learned_and_its_posterior_starts_there(results):
    points = points_for("trained prior")
    random = sign_network(cell(epochs=1, learning_rate=1e-9), points, None)
    trained = sign_network(
        cell(**PRE | {"prior_epochs": 40}, epochs=1, learning_rate=1e-9), points, None
    )
    assert trained["measures"]["kl"] < 1e-6
    assert trained["measures"]["gibbs_train"] < random["measures"]["gibbs_train"] - 0.05
    prior_said = trained["certificates"]["gibbs"]["provenance"]["prior"]
    assert prior_said == "trained on the prior split; inputs: plain"
    assert (
        "Xavier-normal draw times 1, output bias 0"
        in (random["certificates"]["gibbs"]["provenance"]["prior"])
    )


def test_random_maps_augment_the_prior_and_the_certificate_says_so(results):
    points = points_of((1, 8, 8), prior=25, feature=0)
    pair = [
        sign_network(cell(**PRE | {"prior_augmented": augmented}), points, None)
        for augmented in (False, True)
    ]
    assert not same(*(prior(result["network"]) for result in pair))
    said = [result["certificates"]["vote"]["provenance"]["prior"] for result in pair]
    assert ["random affine maps" in text for text in said] == [False, True]


@pytest.mark.parametrize("flip", [1, -1])
def test_the_majority_is_the_constant_that_errs_less_in_certification(flip):
    points = points_of()
    y, y_test = torch.ones(40), torch.ones(30)
    y[:13], y_test[:20] = -1, -1
    points = Points(
        points.feature, points.prior, (points.certification[0], flip * y),
        (points.test[0], flip * y_test),
    )  # fmt: skip
    measures = METHODS["majority"](cell(), points, None)["measures"]
    assert measures["n"] == 40
    assert measures["error_train"] == measures["gibbs_train"] == 13 / 40
    # The test split leans the other way, and has no say.
    assert measures["error_test"] == measures["gibbs_test"] == pytest.approx(20 / 30)
    upper = beta.ppf(1 - 0.05 / (2 * 2), 14, 27)
    assert measures["bound_gibbs"] == measures["bound_vote"] == pytest.approx(upper, rel=1e-9)
    assert measures["bound_gibbs"] >= upper


def test_the_baseline_trains_on_all_but_the_test_points():
    points = points_of(prior=9)
    config = cell(method="mlp_tanh", epochs=30)
    result = METHODS["mlp_tanh"](config, points, None)
    network = result["network"]
    assert isinstance(network, MLP)
    x = torch.cat([points.feature[0], points.prior[0], points.certification[0]])
    y = torch.cat([points.feature[1], points.prior[1], points.certification[1]])
    assert result["measures"] == {
        "error_train": mode_error(network, x, y),
        "error_test": mode_error(network, *points.test),
    }
    assert result["measures"]["error_train"] < 0.3
    torch.testing.assert_close(network.shift, points.feature[0].mean(0))
    moved = Points(points.feature, points.prior, points.certification, points.feature)
    assert checkpoint_bytes(METHODS["mlp_tanh"](config, moved, None)["network"]) == (
        checkpoint_bytes(network)
    )


def real(**changes):
    config = cell(dataset="digits17", feature_points=500, **changes)
    task = load_once("digits17", None, True)
    return config | {"splits": splits_of(task, config).hashes(task)}


def test_a_run_is_a_record_with_its_network(tmp_path):
    config = real(method="abnet", network="chain", hidden=[2, 2])
    torch.set_num_threads(2)
    result = run(config, offline=True, progress=False)
    assert torch.get_num_threads() == config["threads"]
    files = result.pop("files")
    assert list(files) == ["safetensors"]
    json.dumps(result, allow_nan=False)
    assert {"measures", "certificates", "curve", "seconds", "data", "versions"} <= set(result)
    assert set(result["seconds"]) == {"training", "certificate"}
    assert min(result["seconds"].values()) > 0
    assert result["data"]["splits"] == config["splits"]
    assert "bundled" in result["data"]["source"]
    (tmp_path / "network.safetensors").write_bytes(files["safetensors"])
    network = load_checkpoint(tmp_path / "network.safetensors")
    assert isinstance(network, ABNet)
    task = load_once("digits17", None, True)
    rows = splits_of(task, config).certification
    x, y = torch.from_numpy(task.x[rows]), torch.from_numpy(task.y[rows])
    assert len(x) == result["measures"]["n"]
    assert risks(network, x, y).gibbs == pytest.approx(result["certificates"]["gibbs"]["risk"])
    assert run(config, offline=True, progress=False)["files"] == files
    constant = run(config | {"method": "majority"}, offline=True, progress=False)
    assert "files" not in constant


def test_a_run_refuses_other_data_than_those_it_was_planned_for():
    for other in ({"feature_points": 3}, {"dataset": "digits49"}, {"splits": SPLITS}):
        with pytest.raises(ValueError, match="`splits` must be those of the data"):
            run(real() | other, offline=True, progress=False)


def test_a_bar_is_shown_only_when_asked_for(monkeypatch, capfd):
    labels = []

    class Bar(training.ProgressBar):
        def __init__(self, epochs, label):
            labels.append(label)
            super().__init__(epochs, label)

    monkeypatch.setattr(training, "ProgressBar", Bar)
    for progress in (False, True):
        for config in (real(**PRE), real(method="mlp_tanh", hidden=None)):
            run(config, offline=True, progress=progress)
    name = "digits17/pbgnet/2/3"
    assert labels == [None] * 3 + [f"{name} prior", name, "digits17/mlp_tanh/3"]
    assert capfd.readouterr() == ("", ""), "nobody looks at a log"


def test_small_data_sets_give_up_a_tenth_of_their_training_points():
    def sizes(size, **fields):
        task = Task.of("t", part(size, "t", (2,))[0].numpy(), part(size, "t", (2,))[1].numpy(), "")
        parts = splits_of(task, fields)
        return [len(getattr(parts, name)) for name in SIZES]

    assert sizes(400, feature_points=500) == [30, 0, 270, 100]
    assert sizes(8000, feature_points=500) == [500, 0, 5500, 2000]
    assert sizes(400) == [0, 0, 300, 100]
    assert sizes(400, prior_share=0.5) == [0, 150, 150, 100]


def test_a_cell_has_a_name():
    assert name(cell()) == "made up/pbgnet/2/3"
    assert name({"dataset": "d", "method": "majority", "seed": 0}) == "d/majority/0"
    assert [hidden_name(hidden) for hidden in (None, [], [10, 3])] == [None, "unit", "10-3"]
