"""The scikit-learn classifiers: its conventions, what their certificates stand on, what is seen."""

from __future__ import annotations

import math
import pickle
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    Normalizer,
    OneHotEncoder,
    StandardScaler,
    scale,
)
from sklearn.utils.estimator_checks import parametrize_with_checks

from pbnn import BLRNetClassifier, PBGNetClassifier
from pbnn.bounds import clopper_pearson
from pbnn.certificates import (
    Budget,
    Certificate,
    Provenance,
    certify_gibbs,
    certify_known,
    certify_vote,
    log_ratio_upper,
    verify,
)
from pbnn.data import Task, split
from pbnn.estimators import told
from pbnn.evaluation import risks
from pbnn.layers import statistics_splits
from pbnn.networks import PBGNet
from pbnn.objectives import BoundObjective
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit

Points = tuple[NDArray[Any], NDArray[Any]]

PBG = PBGNetClassifier((3,), prior_epochs=5, epochs=2, batch_size=16, random_state=0)
BLR = BLRNetClassifier(
    "16FC",
    prior_epochs=10,
    members=3,
    draws=1,
    batch_size=16,
    learning_rate=0.05,
    random_state=0,
)
BOTH = pytest.mark.parametrize("model", [PBG, BLR], ids=["pbgnet", "blrnet"])


def _with(model: Any, **parameters: Any) -> Any:
    """A new one: `set_params` would count as a search."""
    return type(model)(**model.get_params(deep=False) | parameters)


@pytest.fixture(scope="module")
def points() -> Points:
    """Two classes of four columns, of very different sizes, the first of which decides."""
    draws = np.random.RandomState(0)
    x = draws.randn(120, 4)
    return x * [1, 10, 100, 1] + [0, 5, 0, 1], np.where(x[:, 0] > 0, "yes", "no")


@parametrize_with_checks(
    [
        PBGNetClassifier((3,), prior_epochs=8, epochs=1, batch_size=32),
        BLRNetClassifier(
            "16FC",
            prior_epochs=8,
            members=2,
            draws=1,
            group=50,
            batch_size=32,
            learning_rate=0.05,
        ),
    ],
)
def test_scikit_learn_s_own_checks(estimator: Any, check: Any) -> None:
    # Some of the checks draw from the global generator themselves.
    state = np.random.get_state()  # noqa: NPY002
    check(estimator)
    np.random.set_state(state)  # noqa: NPY002


def test_a_certificate_without_a_prior_split_is_that_of_the_functions(points: Points) -> None:
    x, y = points
    model = _with(PBG, prior_share=0, preprocessing=None, choices=5, random_state=7).fit(x, y)
    signs = np.where(y == "yes", 1, -1).astype(np.float32)
    task = Task.of("the same", x.astype(np.float32), signs, "by hand")
    parts = split(task, seed=7, test=0)
    budget = Budget(0.05, choices=5)
    provenance = Provenance("Xavier-normal draw; inputs: as given", 7, parts.hashes(task))
    network = PBGNet(4, (3,), bias=True, generator=generator(7, "prior"))
    own, label = (torch.from_numpy(each[parts.certification]) for each in (task.x, task.y))
    objective = BoundObjective(network, 120, budget.events(exact=True)["gibbs"])
    fit(objective, own, label, FitConfig(2, 16, 0.1), generator=generator(7, "batches"))
    found = risks(network, own, label)
    assert model.certificates_ == {
        "vote": certify_vote(network, found, budget, provenance),
        "randomised network": certify_gibbs(network, found, budget, provenance),
    }
    assert model.certificate_ is model.certificates_["vote"]
    assert model.certificate_.n == 120


@BOTH
@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize("epochs", [0, 2])
def test_certificates_verify_and_count_the_certification_split(
    model: Any, share: float, epochs: int, points: Points
) -> None:
    x, y = points
    model = _with(model, prior_share=share, epochs=epochs).fit(x, y)
    for certificate in model.certificates_.values():
        verify(certificate)
        assert certificate.n == len(model.splits_.certification) == 120 - math.floor(share * 120)
        assert certificate.budget.delta == 0.05
    assert model.bound_ == model.certificate_.bound
    rows = model.splits_.certification
    if model.certificate_.theorem in ("clopper_pearson", "rivasplata"):
        assert model.certificate_.risk == np.mean(model.predict(x[rows]) != y[rows])


@pytest.fixture(scope="module")
def patients() -> tuple[pd.DataFrame, NDArray[Any]]:
    """Text, missing numbers, and labels that follow from both."""
    draws = np.random.RandomState(0)
    table = pd.DataFrame({"age": draws.randn(200), "smokes": draws.choice(["never", "often"], 200)})
    labels = np.where(table["age"] + (table["smokes"] == "often") > 0.5, "ill", "healthy")
    return table.mask(draws.rand(200, 2) < [0.1, 0.0]), labels


TABLES = ColumnTransformer(
    [
        ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
        ("text", OneHotEncoder(handle_unknown="ignore"), ["smokes"]),
    ]
)


@BOTH
def test_a_transformer_takes_text_and_missing_values_by_the_prior_split_alone(
    model: Any, patients: tuple[pd.DataFrame, NDArray[Any]]
) -> None:
    table, labels = patients
    fitted = _with(model, preprocessing=TABLES, prior_epochs=30).fit(table, labels)
    imputer = fitted.preprocessor_.named_transformers_["numbers"][0]
    rows = fitted.splits_.prior
    assert imputer.statistics_[0] == pytest.approx(table["age"].iloc[rows].mean())
    assert list(fitted.feature_names_in_) == ["age", "smokes"]
    assert set(fitted.predict(table.iloc[:50])) == {"ill", "healthy"}
    with pytest.raises(ValueError, match="same order"):
        fitted.predict(table[["smokes", "age"]])
    # Points of the certification split shape nothing, and hashes are those of the content.
    other = table.copy()
    other.iloc[fitted.splits_.certification[0]] = [99.0, "often"]
    again = clone(fitted).fit(other, labels)
    assert again.preprocessor_.named_transformers_["numbers"][0].statistics_ == imputer.statistics_
    same = clone(fitted).fit(table.copy(), labels)
    hashes = [one.certificate_.provenance.splits for one in (fitted, same, again)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("columns", [["age"], ["smokes"]])
def test_tables_without_a_transformer_are_refused_with_the_way_that_keeps_a_certificate(
    columns: list[str], patients: tuple[pd.DataFrame, NDArray[Any]]
) -> None:
    table, labels = patients
    with pytest.raises(ValueError, match=r"voids the certificate\. Given as `preprocessing`"):
        clone(PBG).fit(table[columns], labels)


LDA = LinearDiscriminantAnalysis().fit(np.eye(4), [0, 1, 0, 1])


class Kept(FunctionTransformer):
    """Is its own clone, with whatever it knows."""

    def __sklearn_clone__(self) -> Any:
        return self


@pytest.mark.parametrize(
    "step",
    [
        Kept(),
        FrozenEstimator(LDA),
        make_pipeline(FrozenEstimator(LDA), StandardScaler()),
        FunctionTransformer(LDA.transform),
        FunctionTransformer(partial(LDA.transform)),
        SelectFromModel(LDA, prefit=True),
    ],
)
def test_what_was_fitted_before_is_refused(step: Any, points: Points) -> None:
    with pytest.raises(ValueError, match="fitted here, on the prior split alone, and never before"):
        _with(PBG, preprocessing=step).fit(*points)


def _by_group(table: pd.DataFrame) -> pd.DataFrame:
    means = table.groupby("smokes")[["age"]].transform("mean")
    return table[["age"]].fillna(means).fillna(0.0)


def _in_place(table: pd.DataFrame) -> pd.DataFrame:
    table["age"] = table["age"].fillna(table["age"].mean())
    return table[["age"]]


def _beside_a_large_column(table: pd.DataFrame) -> pd.DataFrame:
    ages = table[["age"]].fillna(0.0)
    return (ages - ages.mean()).assign(year=6000.0)


def _codes(table: pd.DataFrame) -> pd.DataFrame:
    return table[["age"]].fillna(0.0).assign(code=table["kind"].cat.codes)


def _chance(table: pd.DataFrame) -> pd.DataFrame:
    return table[["age"]].fillna(0.0) + np.random.default_rng().normal(size=(len(table), 1))


@pytest.mark.parametrize(
    "prepare", [_by_group, _in_place, _beside_a_large_column, _codes, _chance, pd.get_dummies]
)
def test_no_point_is_prepared_by_its_company(
    prepare: Any, patients: tuple[pd.DataFrame, NDArray[Any]]
) -> None:
    table = patients[0].assign(kind=patients[0]["smokes"].astype("category"))
    table.loc[0, "age"] = 1.0  # the first row has no gap
    given = table.copy()
    step = make_pipeline(FunctionTransformer(prepare), SimpleImputer())
    with pytest.raises(ValueError, match="whatever points are beside it"):
        _with(PBG, preprocessing=step).fit(table, patients[1])
    pd.testing.assert_frame_equal(table, given)


def test_a_path_is_no_table() -> None:
    with pytest.raises(ValueError, match=r"`X` must be a table, got the path 'patients\.csv'"):
        clone(PBG).fit("patients.csv", ["ill", "healthy"])


def test_several_classes_are_led_to_the_other_classifier(points: Points) -> None:
    with pytest.raises(ValueError, match=r"`BLRNetClassifier` takes any number.* 'c', 'd', 'e'"):
        clone(PBG).fit(points[0], np.array(list("cde") * 40))


@pytest.mark.parametrize(
    ("labels", "told"), [([None] * 200, "y"), (["ill"] * 199, "inconsistent numbers of samples")]
)
def test_labels_are_checked_where_a_transformer_treats_the_points(
    labels: list[Any], told: str, patients: tuple[pd.DataFrame, NDArray[Any]]
) -> None:
    with pytest.raises(ValueError, match=told):
        _with(PBG, preprocessing=TABLES).fit(patients[0], np.array(labels, dtype=object))


@BOTH
def test_points_of_certification_shape_nothing_that_is_fixed(model: Any, points: Points) -> None:
    x, y = points
    model = _with(model, epochs=0, preprocessing="standard")
    fitted = clone(model).fit(x, y)
    other_x, other_y = x.copy(), y.copy()
    rows = fitted.splits_.certification
    other_x[rows] = 3 * x[rows][::-1] + 7
    other_y[rows] = np.where(y[rows] == "yes", "no", "yes")
    other = clone(model).fit(other_x, other_y)
    assert np.array_equal(fitted.predict_proba(x), other.predict_proba(x))
    assert fitted.bound_ < 0.5 < other.bound_


@BOTH
def test_without_a_prior_split_no_point_shapes_the_prior(model: Any, points: Points) -> None:
    x, y = points
    model = _with(model, prior_share=0, epochs=1)
    first, second = clone(model).fit(x, y), clone(model).fit(x[::-1] * 2, y)
    priors = [dict(each.network_.named_buffers()) for each in (first, second)]
    assert priors[0].keys() == priors[1].keys()
    for name, value in priors[0].items():
        assert torch.equal(value, priors[1][name])
    assert statistics_splits(first.network_) == set()


@BOTH
def test_the_split_sees_no_label(model: Any, points: Points) -> None:
    x, y = points
    splits = [clone(model).fit(x, labels).splits_ for labels in (y, np.sort(y))]
    assert np.array_equal(splits[0].prior, splits[1].prior)


@pytest.mark.parametrize(
    "model",
    [
        _with(PBG, epochs=2),
        _with(PBG, epochs=0),
        _with(PBG, prior_share=0, epochs=2),
        _with(BLR, epochs=0),
        _with(BLR, epochs=2, members=1),
    ],
    ids=["vote", "fixed", "no prior split", "fixed networks", "drawn network"],
)
def test_labels_by_a_coin_are_certified_below_a_half_no_more_often_than_promised(
    model: Any,
) -> None:
    trials, delta = 15, 0.2
    model = _with(model, delta=delta, batch_size=30, prior_epochs=20)
    draws = np.random.RandomState(1)
    failures = 0
    for trial in range(trials):
        x, y = draws.randn(60, 20), draws.randint(2, size=60)  # whoever predicts errs on half
        fitted = clone(model).set_params(random_state=trial).fit(x, y)
        failures += any(each.bound < 0.5 for each in fitted.certificates_.values())
    assert failures / trials <= delta + 3 * math.sqrt(delta * (1 - delta) / trials)


def test_choices_are_paid_for(points: Points) -> None:
    model = _with(PBG, epochs=0, choices=40).fit(*points)
    certificate = model.certificate_
    wrong = round(certificate.risk * certificate.n)
    expected = clopper_pearson(wrong, certificate.n, delta=0.05 / 40 / 4)
    assert model.bound_ == pytest.approx(expected, rel=1e-9)
    assert "choice among 40" in told(model.certificates_)


@BOTH
def test_predictions_do_not_depend_on_order_or_company(model: Any, points: Points) -> None:
    x, y = points
    fitted = clone(model).fit(x, y)
    order = np.random.RandomState(0).permutation(len(x))
    assert np.array_equal(fitted.predict(x[order]), fitted.predict(x)[order])
    alone = np.concatenate([fitted.predict(one[None]) for one in x[:10]])
    assert np.array_equal(alone, fitted.predict(x[:10]))


@BOTH
@pytest.mark.parametrize("labels", [("a", "b"), (3, 8), (False, True)], ids=str)
def test_labels_of_any_type(model: Any, labels: tuple[Any, Any], points: Points) -> None:
    x, y = points
    given = np.array(labels)[(y == "yes").astype(int)]
    fitted = clone(model).fit(x, given)
    assert fitted.classes_.tolist() == list(labels)
    assert fitted.predict(x).dtype == given.dtype
    assert fitted.score(x, given) > 0.8
    assert np.array_equal(
        fitted.predict(x) == labels[1], clone(model).fit(x, y).predict(x) == "yes"
    )


@BOTH
def test_probabilities_add_up_and_agree_with_labels(model: Any, points: Points) -> None:
    x, y = points
    fitted = clone(model).fit(x, y)
    probabilities = fitted.predict_proba(x)
    assert np.allclose(probabilities.sum(1), 1)
    assert np.array_equal(fitted.classes_[probabilities.argmax(1)], fitted.predict(x))


def test_the_probability_is_the_share_of_networks_and_its_mean_the_gibbs_risk(
    points: Points,
) -> None:
    x, y = points
    fitted = clone(PBG).fit(x, y)
    rows = fitted.splits_.certification
    wrong = np.take_along_axis(
        fitted.predict_proba(x[rows]), (y[rows] == "no").astype(int)[:, None], 1
    )
    assert fitted.certificates_["randomised network"].risk == pytest.approx(wrong.mean())
    assert np.array_equal(fitted.decision_function(x) >= 0, fitted.predict(x) == "yes")


@BOTH
def test_columns_of_a_frame_keep_their_names(model: Any, points: Points) -> None:
    x, y = points
    frame = pd.DataFrame(x, columns=list("abcd"))
    fitted = clone(model).fit(frame, pd.Series(y))
    assert fitted.feature_names_in_.tolist() == list("abcd")
    assert fitted.n_features_in_ == 4
    assert np.array_equal(fitted.predict(frame), clone(model).fit(x, y).predict(x))
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[["b", "a", "c", "d"]])


def test_a_search_in_a_pipeline_certifies_its_refitted_best(points: Points) -> None:
    x, y = points
    grid = {"pbgnetclassifier__hidden": [(2,), (4,)], "pbgnetclassifier__epochs": [0, 1]}
    count = len(ParameterGrid(grid))
    pipeline = make_pipeline(Normalizer(), _with(PBG, choices=count))
    search = GridSearchCV(pipeline, grid, cv=2).fit(x, y)
    best = search.best_estimator_[-1]
    assert best.certificate_.budget.choices == 4
    assert best.certificate_.n == 60
    assert search.predict(x).shape == (120,)
    with pytest.raises(AttributeError):
        _ = clone(best).certificate_


def test_a_search_that_is_not_paid_for_is_warned_of(points: Points) -> None:
    x, y = points
    fitted = GridSearchCV(_with(PBG, choices=2), {"hidden": [(2,), (3,)]}, cv=2).fit(x, y)
    assert fitted.best_estimator_.bound_ <= 1
    with pytest.warns(UserWarning, match="`hidden` came by `set_params`.*say by `choices`"):
        GridSearchCV(_with(PBG), {"hidden": [(2,), (3,)]}, cv=2).fit(x, y)
    once = clone(_with(PBG)).set_params(random_state=1, verbose=0, epochs=PBG.epochs)
    with pytest.raises(ValueError, match="foo"):
        once.set_params(foo=1)
    once.fit(x, y)  # no warning, as no search


def test_a_transformer_is_fitted_on_the_prior_split_alone(points: Points) -> None:
    x, y = points
    step = make_pipeline(StandardScaler(), PCA(2))
    model = _with(PBG, preprocessing=step, choices=2).set_params(preprocessing__pca__n_components=3)
    fitted = clone(model).fit(x, y)
    scaler = fitted.preprocessor_[0]
    assert np.allclose(scaler.mean_, x[fitted.splits_.prior].mean(0))
    assert fitted.network_.in_features == 3
    assert "PCA" in fitted.certificate_.provenance.prior


@pytest.mark.parametrize(
    ("parameters", "told_of"),
    [
        ({"prior_share": 0, "preprocessing": "standard", "epochs": 1}, "`preprocessing`"),
        ({"preprocessing": "minmax"}, "`preprocessing`"),
        ({"prior_share": 1.0}, "`prior`"),
        ({"prior_share": 0.01}, "`prior_share`"),
        ({"prior_share": 0, "epochs": 0}, "`epochs`"),
        ({"epochs": -1}, "`epochs`"),
        ({"delta": 1.5}, "`delta`"),
        ({"choices": 0}, "`choices`"),
    ],
    ids=str,
)
@BOTH
def test_parameters_outside_of_their_domain(
    model: Any, parameters: dict[str, Any], told_of: str, points: Points
) -> None:
    with pytest.raises(ValueError, match=told_of):
        _with(model, **parameters).fit(*points)


@BOTH
@pytest.mark.parametrize("share", [0, 0.5])
def test_preprocessing_by_statistics_of_the_batch_is_refused(
    model: Any, share: float, points: Points
) -> None:
    step = FunctionTransformer(scale)  # which says that it needs no fit
    with pytest.raises(ValueError, match="whatever points are beside it"):
        _with(model, prior_share=share, preprocessing=step, epochs=1).fit(*points)
    with pytest.raises(ValueError, match="whatever points are beside it"):
        _with(model, preprocessing=FunctionTransformer(lambda x: x[:-1])).fit(*points)


@BOTH
def test_a_fit_that_fails_leaves_no_certificate_of_another_network(
    model: Any, points: Points
) -> None:
    fitted = clone(model).fit(*points)
    with pytest.raises(ValueError, match="`delta`"):
        fitted.set_params(delta=2.0, choices=2).fit(*points)
    for name in ("certificates_", "certificate_", "bound_"):
        assert not hasattr(fitted, name)


def test_the_sentence_promises_no_more_than_one_minus_delta() -> None:
    for delta, said in (
        (0.05, "95%"),
        (0.07, "93%"),
        (0.05 / 3, "98.333333%"),
        (1e-9, "99.999999%"),
    ):
        made = certify_known(
            "", 2, 100, Budget(delta, 1, 1, "deployed"), Provenance("", 0, {}), fixed=True
        )
        assert told({"fixed network": made}).startswith(f"With probability at least {said} over")


def test_other_errors_of_a_blrnet(points: Points) -> None:
    with pytest.raises(ValueError, match="`members`"):
        _with(BLR, members=0).fit(*points)
    with pytest.raises(ValueError, match="`image_shape`"):
        _with(BLR, image_shape=(1, 2, 3)).fit(*points)


def test_a_drawn_vote_pays_the_log_ratio_of_each_member(points: Points) -> None:
    fitted = _with(BLR, epochs=5, learning_rate=0.1).fit(*points)
    ratios = [log_ratio_upper(fitted.network_, one) for one in fitted.members_]
    assert fitted.certificate_.predictor == "drawn vote"
    assert fitted.certificate_.kl == math.nextafter(math.fsum(ratios), math.inf) != 0
    prior = fitted.certificate_.provenance.splits["prior"]
    assert statistics_splits(fitted.members_[0]) == {prior}


def test_images_of_ten_classes() -> None:
    x, y = load_digits(return_X_y=True)
    model = _with(BLR, architecture="8C3-MP2-32FC", image_shape=(1, 8, 8), learning_rate=0.03)
    fitted = _with(model, group=50).fit(x, y)
    assert fitted.preprocessor_ is None
    assert fitted.predict_proba(x[:7]).shape == (7, 10)
    assert 1 - fitted.score(x, y) < fitted.bound_ < 0.4


@BOTH
def test_the_certificate_is_shown_once_there_is_one(model: Any, points: Points) -> None:
    model = clone(model)
    assert "With probability" not in model._repr_html_()
    sentence = told(model.fit(*points).certificates_)
    assert sentence.startswith("With probability at least 95% over the draw of 60 points")
    assert f"<p>{sentence}</p>" in model._repr_html_()
    assert f"<p>{sentence}</p>" in model._repr_mimebundle_()["text/html"]
    with sklearn.config_context(display="text"):
        assert not hasattr(model, "_repr_html_")
        assert list(model._repr_mimebundle_()) == ["text/plain"]


@BOTH
def test_a_fitted_classifier_survives_pickling(model: Any, points: Points) -> None:
    x, y = points
    fitted = clone(model).fit(x, y)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(x), fitted.predict_proba(x))
    assert isinstance(again.certificate_, Certificate)
    assert again.certificates_ == fitted.certificates_
