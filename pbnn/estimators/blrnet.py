"""The classifier of any number of classes by networks that a `BLRNet` draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pbnn.certificates import Certificate, certify_gibbs, certify_one, log_ratio_upper
from pbnn.class_risks import drawn_risks
from pbnn.estimators.certified import CertifiedClassifier
from pbnn.estimators.sample import Sample
from pbnn.layers import freeze_statistics
from pbnn.networks import BinaryNetwork, BLRNet, binarise
from pbnn.networks.checks import is_whole
from pbnn.objectives import BoundObjective, RiskObjective
from pbnn.posteriors import BernoulliPosterior
from pbnn.seeding import generator
from pbnn.training import fit

AT_ONCE = 500
"""Points in a pass through a network."""
COMMITTED = 0.999
"""Mean of the prior's signs, around the most probable network that was trained."""
ESTIMATED_ON = 2000
"""Points of the prior split that statistics of batch normalisation are taken from."""


class BLRNetClassifier(CertifiedClassifier):
    r"""Classifier of binary networks drawn from a BLRNet, with a certificate of what it predicts.

    Weights are ±1 and activations signs. A prior is trained straight through on the prior split,
    a posterior around it on the certification points if `epochs` says so, and `members` networks
    drawn from it vote once and for all. With probability at least 1 − `delta` over the n
    certification points, and the draws, both certificates hold at once: that of the random network
    by drawing, as in `PBGNetClassifier`, and that of the networks that vote, with k errors,

    .. math::
        \Pr(\text{vote errs}) \le \mathrm{kl}^+\Bigl(\frac kn, \frac1n \max\bigl(0,
        \sum_i \ln\tfrac{dQ}{dP}(h_i) + \ln\tfrac{2\sqrt n}{\delta'}\bigr)\Bigr),

    or, without `epochs`, the binomial tail of k.

    Parameters
    ----------
    architecture : str
        Hidden layers as in papers, `pbnn.networks.architecture.parse` without the output: "64FC",
        "128FC-128FC" or, of images, "16C3-MP2-64FC".
    image_shape : (channels, height, width), optional
        Of the images that the rows of `X` are, after preprocessing.
    prior_share : float in [0, 1)
        Share of the points, drawn by the seed without a look at labels, that train the prior and
        give batch normalisation its statistics, which then are frozen. With 0 the prior is uniform
        on signs, there is no batch normalisation, and all points train the posterior and certify
        it; that needs many points.
    preprocessing : {"auto", "standard", "norm"}, transformer or None
        As of `PBGNetClassifier`; "auto" leaves images as they are.
    members : int
        Networks that vote, by their mean probabilities. Each pays its own log-ratio, which is
        nothing where `epochs` is 0 and small where the posterior stays close to the prior.
    delta : float in (0, 1)
        Probability that a certificate fails.
    choices : int
        Number of configurations among which this one is chosen with these points in sight; costs
        ln(choices) nats.
    prior_epochs, epochs : int
        Passes over the prior's points, and over those of certification; 0 `epochs` keep the prior.
    draws : int
        Networks that each certification point meets for the certificate of the random network.
    group : int
        Points that share such a network: fewer tell more, and cost more time.
    batch_size : int
    learning_rate : float
        Peak of a one-cycle schedule.
    random_state : int, RandomState or None
        Of split, networks and order; an int makes `fit` deterministic.
    verbose : int
        Whether bars show the progress.

    Attributes
    ----------
    certificate_ : Certificate
        Of the networks that vote, whose labels `predict` returns; ``n`` is the size of the
        certification split.
    bound_ : float
        Its number: a probability.
    certificates_ : dict
        By predictor: that one, and that of the randomised network, which draws anew for each
        prediction. They hold at once.
    network_ : BLRNet
        Posterior and prior, in float64.
    members_ : list of BinaryNetwork
    preprocessor_ : transformer or None
    splits_ : Splits
        Which rows of `X` served for what.
    classes_, n_features_in_, feature_names_in_
        As in scikit-learn; names only where `X` has them.

    Notes
    -----
    What `PBGNetClassifier` says of pipelines, searches and labels holds here, too.

    References
    ----------
    Peters and Welling (2018). Probabilistic Binary Neural Networks.
    https://arxiv.org/abs/1809.03368. Rivasplata, Kuzborskij, Szepesvári, Shawe-Taylor (2020).
    PAC-Bayes Analysis Beyond the Usual Bounds. https://arxiv.org/abs/2006.13057

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> x, y = load_digits(return_X_y=True)
    >>> model = BLRNetClassifier(prior_epochs=10, members=4, draws=1, random_state=0).fit(x, y)
    >>> model.certificate_.predictor, model.certificate_.n
    ('fixed vote', 899)
    >>> 1 - model.score(x, y) < model.bound_ < 0.2
    True
    """

    def __init__(
        self,
        architecture: str = "64FC",
        *,
        image_shape: Sequence[int] | None = None,
        prior_share: float = 0.5,
        preprocessing: Any = "auto",
        members: int = 16,
        delta: float = 0.05,
        choices: int = 1,
        prior_epochs: int = 40,
        epochs: int = 0,
        draws: int = 5,
        group: int = 10,
        batch_size: int = 64,
        learning_rate: float = 0.02,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.architecture = architecture
        self.image_shape = image_shape
        self.prior_share = prior_share
        self.preprocessing = preprocessing
        self.members = members
        self.delta = delta
        self.choices = choices
        self.prior_epochs = prior_epochs
        self.epochs = epochs
        self.draws = draws
        self.group = group
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Mean of the members' probabilities, of shape (n_samples, n_classes); not calibrated."""
        points = self._points(X).double()
        return np.asarray(vote(self.members_, points))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The labels that the members' vote gives, of shape (n_samples,)."""
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities.argmax(1)])

    def _usual_preprocessing(self, learned: bool) -> str | None:
        return None if self.image_shape is not None else super()._usual_preprocessing(learned)

    def _inputs(self, X: Any) -> Tensor:
        """Images, or vectors with a constant, by which a unit has a threshold."""
        x = super()._inputs(X)
        if self.image_shape is None:
            return F.pad(x, (0, 1), value=1.0)[:, None, None]
        if math.prod(self.image_shape) != x.shape[1]:
            raise ValueError(
                f"`image_shape` must be that of {x.shape[1]} features, got {self.image_shape}."
            )
        return x.reshape(len(x), *self.image_shape)

    def _learn(self, sample: Sample) -> None:
        if not is_whole(self.members, 1):
            raise ValueError(f"`members` must be a positive integer, got {self.members}.")
        seed, learned = sample.seed, len(sample.splits.prior) > 0
        self.network_ = network = BLRNet(
            tuple(sample.x.shape[1:]),
            f"{self.architecture}-SM{len(self.classes_)}",
            batch_norm=learned,
            generator=generator(seed, "prior"),
        )
        if learned:
            self._learn_prior(network, sample)
        x, y = sample.certification()
        if not self._fixed:
            delta = self._budget("classes").events(exact=False)["gibbs"]
            fit(
                BoundObjective(network, len(x), delta, loss="gibbs"),
                x,
                y,
                self._config(self.epochs),
                generator=generator(seed, "batches"),
                progress=self._progress("posterior"),
            )
        # In float64 the law of a draw is the posterior up to 2⁻⁵³ a weight.
        network.double().eval()
        source = generator(seed, "members")
        self.members_ = [binarise(network, "sample", source) for _ in range(self.members)]

    def _learn_prior(self, network: BLRNet, sample: Sample) -> None:
        """Train the most probable network straight through, and put a prior around it."""
        x, y = sample.prior()
        network.activation = "mode"
        fit(
            RiskObjective(network, "cross_entropy"),
            x,
            y,
            self._config(self.prior_epochs),
            generator=generator(sample.seed, "prior batches"),
            progress=self._progress("prior"),
        )
        network.activation = "analytic"
        for block in network.layers():
            weight = block.layer.weight
            assert isinstance(weight, BernoulliPosterior)
            weight.commit(COMMITTED)
        network.re_estimate(x[:ESTIMATED_ON]).adopt_as_prior()
        freeze_statistics(network, sample.hashes["prior"])

    def _certified(self, sample: Sample) -> dict[str, Certificate]:
        network, members, fixed = self.network_, self.members_, self._fixed
        x, y = sample.certification()
        x, seed = x.double(), sample.seed
        budget = self._budget("fixed" if fixed else "classes")
        provenance = self._provenance(sample, "uniform on signs")
        source = generator(seed, "certification draws")
        found = drawn_risks(network, x, y, group=self.group, passes=self.draws, generator=source)
        gibbs = certify_gibbs(network, found, budget, provenance, fixed=fixed)
        wrong = int((vote(members, x).argmax(1) != y).sum())
        several = members if len(members) > 1 else members[0]
        price: dict[str, Any] = {"fixed": True}
        if not fixed:
            total = math.fsum(log_ratio_upper(network, one) for one in members)
            price = {"log_ratio": math.nextafter(total, math.inf)}
        voted = certify_one(several, wrong, len(y), budget, provenance, **price)
        return {each.predictor: each for each in (voted, gibbs)}


@torch.no_grad()
def vote(members: Sequence[BinaryNetwork], x: Tensor) -> Tensor:
    """Mean probabilities of networks, shape (n, classes).

    Without batch normalisation, scores are divided by the root of the number of their summands.
    """
    last = members[0].layers()[-1]
    scale = 1.0 if last.tail.norm is not None else math.sqrt(last.weight.shape[1])
    parts = x.split(AT_ONCE)
    rows = [sum((one(part) / scale).softmax(1) for one in members) for part in parts]
    return torch.cat(rows) / len(members)
