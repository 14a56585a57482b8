"""The classifier of two classes by `PBGNet`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pbnn.certificates import Certificate, certify_gibbs, certify_one, certify_vote
from pbnn.estimators.certified import CertifiedClassifier
from pbnn.estimators.sample import Sample
from pbnn.evaluation import chunks, numbers_a_point, risks
from pbnn.networks import PBGNet, SignNetwork
from pbnn.objectives import BoundObjective, RiskObjective
from pbnn.seeding import generator
from pbnn.training import fit


class PBGNetClassifier(CertifiedClassifier):
    r"""Classifier of two classes by a PBGNet, with a certificate of what it predicts.

    It predicts by the vote of the networks of a posterior, the sign of their mean F. With `epochs`
    a PAC-Bayes bound trains that posterior on the n certification points, and with probability at
    least 1 − `delta` over them both certificates hold at once,

    .. math::
        \Pr(\text{random network errs}) \le
        \mathrm{kl}^+\Bigl(\hat r, \tfrac1n \bigl(\mathrm{KL} +
        \ln\tfrac{2\sqrt n}{\delta'}\bigr)\Bigr) = B,
        \qquad \Pr(\text{vote errs}) \le \tfrac{B - b}{1/2 - b},

    where :math:`\delta'` is what the number of choices and the shares of the events leave, and b
    the least loss where the vote is right. Without, the posterior is a prior that the other points
    have trained: Chernoff's bound takes the place of the first, the binomial tail of the second.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers.
    prior_share : float in [0, 1)
        Share of the points, drawn by the seed without a look at labels, that train the prior; the
        others train the posterior and certify it. With 0 the prior is a random draw, and all points
        do both, as the bound holds for all posteriors at once.
    preprocessing : {"auto", "standard", "norm"}, transformer or None
        What is done to the inputs. A transformer, or scikit-learn's `StandardScaler` ("standard"),
        is fitted on the prior split; "norm" divides each point by its norm, which needs no data.
        "auto" is "standard", or "norm" where `prior_share` is 0: then all that needs a fit is
        refused.
    delta : float in (0, 1)
        Probability that a certificate fails.
    choices : int
        Number of configurations among which this one is chosen with these points in sight; costs
        ln(choices) nats.
    prior_epochs, epochs : int
        Passes over the prior's points, and over those of certification. With 0 `epochs` the
        posterior is the prior, known before the certification points, whose vote has usually the
        least bound.
    batch_size : int
    learning_rate : float
        Peak of a one-cycle schedule.
    random_state : int, RandomState or None
        Of split, prior and order; an int makes `fit` deterministic.
    verbose : int
        Whether bars show the progress.

    Attributes
    ----------
    certificate_ : Certificate
        Of the vote, whose labels `predict` returns; ``n`` is the size of the certification split.
    bound_ : float
        Its number: a probability.
    certificates_ : dict
        By predictor: the vote's, and that of the randomised network, which draws anew for each
        prediction. They hold at once.
    network_ : PBGNet
        In float64.
    preprocessor_ : transformer or None
    splits_ : Splits
        Which rows of `X` served for what.
    classes_, n_features_in_, feature_names_in_
        As in scikit-learn; names only where `X` has them.

    Notes
    -----
    The inputs of a network must be fixed before the certification points are seen: any statistic
    of all points (a `StandardScaler` before this classifier in a pipeline, a selection of features)
    makes the certificate void. Hand such a step over as `preprocessing`, where it is fitted on the
    prior split. Only a step that treats each point by itself may stand before.

    A search over parameters chooses with the certification points in sight. Its refitted best is
    certified if `choices` says among how many configurations it was chosen, seeds among them:
    ``GridSearchCV(PBGNetClassifier(choices=len(ParameterGrid(grid))), grid)``. A model of an inner
    fold has a certificate of its own for the points of that fold, which is no statement about
    the refitted one, and a mean of them is none either. Nothing pays for a grid that was changed
    after a look at results, but to count all that was tried.

    The labels that may occur count as known beforehand. Sample weights are not offered: a
    certificate speaks of the points as they are drawn.

    References
    ----------
    Letarte, Germain, Guedj, Laviolette (2019). Dichotomize and Generalize.
    https://arxiv.org/abs/1905.10259

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> model = PBGNetClassifier(prior_epochs=10, random_state=0).fit(x, y)
    >>> model.certificate_.predictor, model.certificate_.n
    ('fixed vote', 285)
    >>> 1 - model.score(x, y) < model.bound_ < 0.15
    True
    """

    def __init__(
        self,
        hidden: Sequence[int] = (10,),
        *,
        prior_share: float = 0.5,
        preprocessing: Any = "auto",
        delta: float = 0.05,
        choices: int = 1,
        prior_epochs: int = 50,
        epochs: int = 0,
        batch_size: int = 64,
        learning_rate: float = 0.1,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.hidden = hidden
        self.prior_share = prior_share
        self.preprocessing = preprocessing
        self.delta = delta
        self.choices = choices
        self.prior_epochs = prior_epochs
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """The mean F of the networks' outputs ±1, of shape (n_samples,)."""
        points = self._points(X).double()
        return np.asarray(aggregate(self.network_, points))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The labels that the vote of all networks gives, of shape (n_samples,)."""
        means = self.decision_function(X)
        return np.asarray(self.classes_[(means >= 0).astype(np.intp)])

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities that a random network gives each label, of shape (n_samples, 2)."""
        means = self.decision_function(X)
        return np.stack([1 - means, 1 + means], axis=1) / 2

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _encoded(self, labels: NDArray[np.int64]) -> NDArray[Any]:
        return (2 * labels - 1).astype(np.float32)

    def _learn(self, sample: Sample) -> None:
        seed, features = sample.seed, sample.x.shape[1]
        draws = generator(seed, "prior")
        self.network_ = network = PBGNet(features, self.hidden, bias=True, generator=draws)
        x, y = sample.prior()
        if len(x):
            fit(
                RiskObjective(network, "log"),
                x,
                y,
                self._config(self.prior_epochs),
                generator=generator(seed, "prior batches"),
                progress=self._progress("prior"),
            )
            network.adopt_as_prior()
        x, y = sample.certification()
        if not self._fixed:
            delta = self._budget("signs").events(exact=True)["gibbs"]
            fit(
                BoundObjective(network, len(x), delta),
                x,
                y,
                self._config(self.epochs),
                generator=generator(seed, "batches"),
                progress=self._progress("posterior"),
            )
        network.double()

    def _certified(self, sample: Sample) -> dict[str, Certificate]:
        network, fixed = self.network_, self._fixed
        found = risks(network, *sample.certification())
        budget = self._budget("fixed" if fixed else "signs")
        provenance = self._provenance(sample, "Xavier-normal draw")
        gibbs = certify_gibbs(network, found, budget, provenance, fixed=fixed)
        if fixed:
            wrong = round(found.vote * found.n)
            vote = certify_one([network], wrong, found.n, budget, provenance, fixed=True)
        else:
            vote = certify_vote(network, found, budget, provenance)
        return {each.predictor: each for each in (vote, gibbs)}


@torch.no_grad()
def aggregate(network: SignNetwork, x: Tensor) -> Tensor:
    """F of many points, shape (n,), with as many at once as `pbnn.evaluation.risks` takes.

    Examples
    --------
    >>> network = PBGNet(2, (3,), generator=generator(0, "prior"))
    >>> aggregate(network, torch.ones(5, 2)).shape
    torch.Size([5])
    """
    most = max(network.in_features, *map(numbers_a_point, network.layers()))
    output = network.exact_map()
    parts = [output(network.hidden_moments(x[part]).mean) for part in chunks(len(x), most)]
    return torch.cat(parts)
