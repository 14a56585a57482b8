"""What the classifiers share: scikit-learn's conventions, splits, certificates and their words."""

from __future__ import annotations

import html
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import Tensor

from pbnn.certificates import Budget, Certificate, Provenance, statement
from pbnn.data import Task
from pbnn.estimators.sample import (
    Sample,
    alone,
    as_float32,
    content_of,
    lone_rows,
    preprocessor_of,
    rows_of,
    seed_of,
    split_of,
    table_of,
)
from pbnn.networks.checks import is_whole
from pbnn.training import FitConfig

FLOATS = (np.float64, np.float32)
CLOSE = 1e-3
ROUNDING = 1e-6
"""How far an input may differ from the same in other company by rounding: CLOSE of the largest of
its column, and ROUNDING of the largest of all."""


_UNTREATED = (
    "A step before this classifier, as an imputer or an encoder in a pipeline, would be fitted on "
    "the certification points, too, which voids the certificate. Given as `preprocessing`, it is "
    "fitted on the prior split alone: preprocessing=make_pipeline(SimpleImputer(), "
    "StandardScaler()), or a ColumnTransformer for columns of text."
)


class CertifiedClassifier(ClassifierMixin, BaseEstimator, ABC):
    """Base of the classifiers: a subclass says what it learns and how it predicts.

    Its parameters are those of the subclasses: `prior_share`, `preprocessing`, `delta`, `choices`,
    `prior_epochs`, `epochs`, `batch_size`, `learning_rate`, `random_state`, `verbose`.
    """

    prior_share: float
    preprocessing: Any
    delta: float
    choices: int
    prior_epochs: int
    epochs: int
    batch_size: int
    learning_rate: float
    random_state: Any
    verbose: int
    _changed: frozenset[str] = frozenset()
    _tables: bool = False  # whether a transformer was given, which sees the points as they are

    def set_params(self, **params: Any) -> Self:
        """Set parameters, as every search does: `fit` then warns where no choice is paid for.

        Not of `choices`, `verbose` and `random_state`, which scikit-learn's ensembles set, too.
        """
        before = self.get_params(deep=False)
        super().set_params(**params)
        changed = {name for name, value in params.items() if before.get(name) is not value}
        self._changed |= changed - {"choices", "random_state", "verbose"}
        return self

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Learn a network and its certificates.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Finite numbers; or, where `preprocessing` is a transformer, whatever that takes, as a
            data frame with text and missing values. Independent draws, as a certificate supposes.
        y : array-like, shape (n_samples,)
            Labels of any type, of at least two classes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For points, labels or parameters that are outside of their domain.
        """
        # Those of the network before must not outlive it, should this fit not come to its end.
        for name in ("certificates_", "certificate_", "bound_"):
            self.__dict__.pop(name, None)
        self._tables = not (self.preprocessing is None or isinstance(self.preprocessing, str))
        points, given = self._table(X, y)
        check_classification_targets(given)
        self.classes_, labels = np.unique(given, return_inverse=True)
        self._check_classes(given)
        self._check_counts()
        self._warn_of_a_search()
        seed = seed_of(self.random_state)
        name, encoded = type(self).__name__, self._encoded(labels)
        task = Task.of(name, content_of(points), encoded, "given to fit")
        self.splits_ = split_of(task, seed, self.prior_share)
        self.preprocessor_ = self._preprocessor(points, given)
        hashes = self.splits_.hashes(task)
        inputs = self._inputs(points)
        self._check_inputs(points, inputs)
        sample = Sample(inputs, torch.from_numpy(encoded), self.splits_, hashes, seed)
        self._learn(sample)
        self.certificates_ = self._certified(sample)
        self.certificate_ = next(iter(self.certificates_.values()))
        self.bound_ = self.certificate_.bound
        return self

    @abstractmethod
    def _learn(self, sample: Sample) -> None:
        """Train what predicts."""

    @abstractmethod
    def _certified(self, sample: Sample) -> dict[str, Certificate]:
        """Certificates by predictor, the first of what `predict` returns."""

    def _encoded(self, labels: NDArray[np.int64]) -> NDArray[Any]:
        """Labels of a task from numbers 0, 1, … of the classes."""
        return labels.astype(np.int64)

    def _check_classes(self, y: NDArray[Any]) -> None:
        """Refuse labels of a single class, and of several where only two are taken."""
        if len(self.classes_) < 2:
            raise ValueError("`y` must hold labels of at least two classes, got one class.")
        if len(self.classes_) > 2 and not self.__sklearn_tags__().classifier_tags.multi_class:
            some = ", ".join(repr(one) for one in self.classes_[:5].tolist())
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(y)}. `BLRNetClassifier` takes any number of classes; got "
                f"{len(self.classes_)}, of them {some}."
            )

    def _check_counts(self) -> None:
        for name, least in (("epochs", 0), ("choices", 1)):
            if not is_whole(value := getattr(self, name), least):
                raise ValueError(f"`{name}` must be an integer of at least {least}, got {value}.")
        if self.prior_share == 0 and self.epochs == 0:
            raise ValueError("`epochs` must be positive where `prior_share` is 0, got 0.")

    def _table(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]]:
        """Points and labels, checked: numbers, if no transformer says what they may be."""
        if isinstance(X, str | os.PathLike):
            read = "`pandas.read_csv` or `pbnn.data.from_csv` reads one"
            raise ValueError(f"`X` must be a table, got the path {os.fspath(X)!r}: {read}.")
        if not self._tables:
            try:
                checked: tuple[Any, NDArray[Any]] = validate_data(self, X, y, dtype=FLOATS)
            except ValueError as error:
                words = str(error).split("\n")[0].rstrip(".")
                if "X contains NaN" not in words and "could not convert string" not in words:
                    raise
                raise ValueError(f"{words}. {_UNTREATED}") from None
            return checked
        points = table_of(X)
        validate_data(self, points, skip_check_array=True)
        labels = column_or_1d(check_array(y, ensure_2d=False, dtype=None, input_name="y"))
        check_consistent_length(points, labels)
        return points, labels

    def _warn_of_a_search(self) -> None:
        """Of parameters that came by `set_params`: an estimator cannot see who chooses them."""
        if self._changed and self.choices == 1:
            names = ", ".join(f"`{name}`" for name in sorted(self._changed))
            warnings.warn(
                f"{names} came by `set_params`, as in a search. The certificate holds for one "
                "configuration that was fixed before its points were seen: if the best of several "
                "is kept, by whatever score, say by `choices` among how many.",
                stacklevel=3,
            )

    @property
    def _fixed(self) -> bool:
        """Whether the posterior is the prior, whatever the certification points are."""
        return self.epochs == 0

    def _preprocessor(self, X: Any, y: NDArray[Any]) -> Any:
        """What prepares the inputs, fitted on the prior split alone."""
        rows = self.splits_.prior
        learned = len(rows) > 0
        given = self.preprocessing
        if isinstance(given, str) and given == "auto":
            given = self._usual_preprocessing(learned)
        step = preprocessor_of(given, learned=learned)
        if step is not None and learned:
            points = rows_of(X, rows)
            step.fit(points.copy() if self._tables else points, y[rows])
        return step

    def _usual_preprocessing(self, learned: bool) -> str | None:
        return "standard" if learned else "norm"

    def _inputs(self, X: Any) -> Tensor:
        """Points as the network reads them: each depends on itself and the prior split alone."""
        if self._tables:
            X = X.copy()  # transformers may write into what they are given
        prepared = X if self.preprocessor_ is None else self.preprocessor_.transform(X)
        return torch.from_numpy(check_array(as_float32(prepared)))

    def _check_inputs(self, X: Any, inputs: Tensor) -> None:
        """Refuse preprocessing that drops points, or looks at those beside a point."""
        if self.preprocessor_ is None:
            return
        draws = np.random.RandomState(0)
        mixed = draws.permutation(len(X))
        halves = [(rows_of(X, rows), rows) for rows in np.array_split(mixed, 2)]
        ones = [(alone(X, row), [row]) for row in lone_rows(X, draws)]
        largest = inputs.abs().amax(0)
        slack = CLOSE * largest + ROUNDING * largest.max()
        if len(inputs) != len(X) or not all(
            self._prepared_so(points, inputs[rows], slack) for points, rows in halves + ones
        ):
            raise ValueError(
                "`preprocessing` must make of a point the same whatever points are beside it, got "
                f"{self.preprocessor_}, which does not."
            )

    def _prepared_so(self, points: Any, inputs: Tensor, slack: Tensor) -> bool:
        """Whether points become these inputs in other company, and at another time, too."""
        try:
            found = self._inputs(points)
        except ValueError:
            return False
        return found.shape == inputs.shape and bool(((found - inputs).abs() <= slack).all())

    def _points(self, X: ArrayLike) -> Tensor:
        """New points, checked against those of `fit`."""
        check_is_fitted(self)
        if not self._tables:
            return self._inputs(validate_data(self, X, reset=False, dtype=FLOATS))
        points = table_of(X)
        validate_data(self, points, reset=False, skip_check_array=True)
        return self._inputs(points)

    def _config(self, epochs: int) -> FitConfig:
        return FitConfig(epochs, self.batch_size, self.learning_rate)

    def _progress(self, part: str) -> str | None:
        return f"{type(self).__name__} {part}" if self.verbose else None

    def _budget(self, family: Any) -> Budget:
        return Budget(float(self.delta), 1, int(self.choices), family)

    def _provenance(self, sample: Sample, free: str) -> Provenance:
        """What shaped the prior; `free` says it of one that no data shaped."""
        learned = len(sample.splits.prior) > 0
        prior = "trained on the prior split" if learned else free
        inputs = "as given" if self.preprocessor_ is None else f"{self.preprocessor_!r}"
        fitted = " of the prior split" if self.preprocessor_ is not None and learned else ""
        return Provenance(f"{prior}; inputs: {inputs}{fitted}", sample.seed, sample.hashes)

    @property
    def _repr_html_(self) -> Callable[[], str]:
        shown = super()._repr_html_
        return lambda: self._with_certificate(shown())

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] = self._with_certificate(bundle["text/html"])
        return bundle

    def _with_certificate(self, page: str) -> str:
        """HTML with the certificate below it, once there is one."""
        if not hasattr(self, "certificates_"):
            return page
        return f"{page}<p>{html.escape(told(self.certificates_))}</p>"


def told(certificates: Mapping[str, Certificate]) -> str:
    """Certificates that hold at once in one sentence, their numbers rounded up, 1 − δ down.

    Parameters
    ----------
    certificates : mapping from str to Certificate
        Of one budget and n.

    Examples
    --------
    >>> from pbnn.certificates import certify_known
    >>> budget, made = Budget(0.05, choices=3, family="deployed"), Provenance("by hand", 0, {})
    >>> certificate = certify_known("", 2, 100, budget, made, fixed=True)
    >>> print(told({"fixed network": certificate}))
    With probability at least 95% over the draw of 100 points, the fixed network errs on at most
    7.6% of new points; the choice among 3 is paid for.
    """
    return statement.told(certificates.values())
