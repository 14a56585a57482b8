"""How sure a classifier is, and how far to trust it: entropy, variance, calibration, coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def predictive_entropy(probabilities: Tensor) -> Tensor:
    r"""Entropy of class probabilities, in nats: 0 for a certain class, ln K for the uniform law.

    .. math:: H(p) = -\sum_k p_k \ln p_k, \qquad 0 \ln 0 = 0

    The gradient is finite even at probability 0.

    Parameters
    ----------
    probabilities : Tensor, shape (..., K)
        In [0, 1], summing to 1.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    ValueError
        If a probability is outside [0, 1].

    Examples
    --------
    >>> predictive_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    tensor([0.6931, 0.0000])
    """
    p = _probabilities("probabilities", probabilities)
    return (p * -p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum(-1)


def ensemble_variance(members: Tensor) -> Tensor:
    r"""Variance of the class probabilities over an ensemble's members, summed over the classes.

    .. math:: \frac{1}{M-1} \sum_{i=1}^M \sum_{k=1}^K (p_{i,k} - \bar p_k)^2

    It is the trace of the members' unbiased covariance matrix. For votes (one-hot rows) with shares
    :math:`f_k` it is :math:`\frac{M}{M-1} (1 - \sum_k f_k^2)`.

    Parameters
    ----------
    members : Tensor, shape (M, n, K)
        Probabilities in [0, 1] of M ≥ 2 members.

    Returns
    -------
    Tensor, shape (n,)

    Raises
    ------
    ValueError
        If there are fewer than two members, or a probability is outside [0, 1].

    References
    ----------
    Peters & Welling (2018). Probabilistic binary neural networks. https://arxiv.org/abs/1809.03368
    rank test images by the variance of an ensemble; the sum over classes is the choice made here.

    Examples
    --------
    >>> ensemble_variance(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    tensor([1.])
    """
    if members.ndim != 3 or len(members) < 2:
        raise ValueError(
            f"`members` must have shape (M, n, K) with M ≥ 2, got {tuple(members.shape)}."
        )
    return _probabilities("members", members).var(0).sum(-1)


@dataclass(frozen=True)
class Reliability:
    """What a reliability diagram shows, one entry a bin that holds examples, in float64.

    Attributes
    ----------
    confidence : Tensor, shape (b,)
        Mean of the largest probability, ascending.
    accuracy : Tensor, shape (b,)
        Share of right predictions.
    count : Tensor of int64, shape (b,)
        Number of examples.
    """

    confidence: Tensor
    accuracy: Tensor
    count: Tensor


def reliability(probabilities: Tensor, y: Tensor, bins: int = 15) -> Reliability:
    r"""Confidence and accuracy of the examples in equal-width bins of confidence.

    Bin j of B holds the examples with :math:`(j-1)/B < \max_k p_k \le j/B`; empty bins are left
    out.

    Parameters
    ----------
    probabilities : Tensor, shape (n, K)
        In [0, 1], n ≥ 1; the prediction is the class of the largest, the first of several.
    y : Tensor of integers, shape (n,)
        Classes, 0 to K − 1.
    bins : int
        B ≥ 1.

    Raises
    ------
    ValueError
        If one of them is outside its domain.

    Examples
    --------
    >>> p = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.1, 0.9]])
    >>> table = reliability(p, torch.tensor([0, 0, 1]))
    >>> table.accuracy, table.count
    (tensor([0., 1.], dtype=torch.float64), tensor([1, 2]))
    """
    if probabilities.ndim != 2 or not len(probabilities):
        raise ValueError(
            f"`probabilities` must have shape (n, K) with n ≥ 1, got {tuple(probabilities.shape)}."
        )
    if y.shape != probabilities.shape[:1]:
        raise ValueError(f"`y` must have shape ({len(probabilities)},), got {tuple(y.shape)}.")
    if ((y < 0) | (y >= probabilities.shape[1])).any():
        raise ValueError(
            f"`y` must hold classes 0 to {probabilities.shape[1] - 1}, "
            f"got {y.min().item()} to {y.max().item()}."
        )
    if bins < 1:
        raise ValueError(f"`bins` must be a positive integer, got {bins}.")
    _probabilities("probabilities", probabilities)
    every, confidence, right = bin_sums(probabilities, y, bins)
    held = every > 0
    count = every[held]
    return Reliability(confidence[held] / count, right[held] / count, count)


def bin_sums(probabilities: Tensor, y: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Count, sum of confidences and right predictions of every bin of `reliability`, (bins,) each.

    Those of parts of the examples add up to those of all; values are not looked at.

    Examples
    --------
    >>> bin_sums(torch.tensor([[0.9, 0.1], [0.3, 0.7]]), torch.tensor([0, 0]), 2)[0]
    tensor([0, 2])
    """
    confidence, prediction = probabilities.max(1)
    inner = torch.arange(1, bins, dtype=confidence.dtype, device=confidence.device) / bins
    place = torch.bucketize(confidence, inner)
    right = (prediction == y).double()
    count = torch.bincount(place, minlength=bins)
    return (
        count,
        torch.bincount(place, confidence.double(), bins),
        torch.bincount(place, right, bins),
    )


def calibration_error(probabilities: Tensor, y: Tensor, bins: int = 15) -> float:
    r"""Expected calibration error: mean distance of confidence from accuracy, in probability.

    .. math:: \sum_{j=1}^B \frac{n_j}{n} \lvert \mathrm{accuracy}_j - \mathrm{confidence}_j \rvert

    over the bins of `reliability`, whose parameters and errors it shares.

    References
    ----------
    Guo, Pleiss, Sun & Weinberger (2017). On calibration of modern neural networks. ICML, Eq. 3.
    https://arxiv.org/abs/1706.04599

    Examples
    --------
    >>> round(calibration_error(torch.tensor([[0.75, 0.25]] * 4), torch.tensor([0, 0, 0, 0])), 6)
    0.25
    """
    table = reliability(probabilities, y, bins)
    distance = (table.accuracy - table.confidence).abs()
    return float((table.count * distance).sum() / table.count.sum())


def fitted_temperature(scores: Tensor, y: Tensor) -> float:
    r"""The T for which softmax(scores / T) is likeliest on these examples, in [10⁻³, 10³].

    .. math:: \arg\min_T -\frac1n \sum_i \ln \operatorname{softmax}(s_i / T)_{y_i}

    The mean is convex in 1/T. Scores of a network trained by another loss have no probabilities of
    their own; on examples the network was trained on, T is smaller than it should be.

    Parameters
    ----------
    scores : Tensor, shape (n, K)
        Finite.
    y : Tensor of int64, shape (n,)
        Classes; not those the calibration is measured on.

    Raises
    ------
    ValueError
        If there are no examples, or scores that are not finite.

    References
    ----------
    Guo, Pleiss, Sun & Weinberger (2017). On calibration of modern neural networks. ICML,
    Section 4.2. https://arxiv.org/abs/1706.04599

    Examples
    --------
    >>> scores = torch.tensor([[2 * math.log(3), 0.0]] * 4)  # odds of 9, right 3 times to 1
    >>> round(fitted_temperature(scores, torch.tensor([0, 0, 0, 1])), 4)
    2.0
    """
    from scipy.optimize import minimize_scalar

    if scores.ndim != 2 or not len(scores) or not bool(scores.isfinite().all()):
        raise ValueError(
            f"`scores` must be finite, of shape (n, K) with n ≥ 1, got {tuple(scores.shape)}."
        )
    centred = (scores - scores.gather(1, y[:, None])).double()

    def loss(logarithm: float) -> float:
        return float((centred * math.exp(-logarithm)).logsumexp(1).mean())

    limit = math.log(1e3)
    return math.exp(minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x)


def error_coverage(uncertainty: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
    r"""Error among the most certain examples, against the share of examples they are.

    .. math:: \mathrm{coverage}(t) = \frac{\#\{u_i \le t\}}{n}, \qquad
        \mathrm{error}(t) = \frac{\#\{u_i \le t,\ i \text{ wrong}\}}{\#\{u_i \le t\}}

    for every value t of the uncertainty, so that equally certain examples enter together and their
    order is of no account. A useful uncertainty makes the curve rise; it ends at coverage 1 and the
    error of all.

    Parameters
    ----------
    uncertainty : Tensor, shape (n,)
        Any scale, n ≥ 1: only the order of its values counts.
    wrong : Tensor of bool, shape (n,)
        Which predictions are wrong.

    Returns
    -------
    coverage, error : Tensor of float64, shape (t,)
        One entry for each of the t different values of `uncertainty`, ascending.

    Raises
    ------
    ValueError
        If a shape does not fit, or an uncertainty is NaN.
    TypeError
        If `wrong` is not boolean.

    Examples
    --------
    >>> error_coverage(torch.tensor([0.1, 0.2, 0.2, 0.9]), torch.tensor([False, False, True, True]))
    (tensor([0.2500, 0.7500, 1.0000], dtype=torch.float64),
     tensor([0.0000, 0.3333, 0.5000], dtype=torch.float64))
    """
    _check_values("uncertainty", uncertainty)
    if wrong.dtype != torch.bool:
        raise TypeError(f"`wrong` must be boolean, got {wrong.dtype}.")
    if wrong.shape != uncertainty.shape:
        raise ValueError(
            f"`wrong` must have shape {tuple(uncertainty.shape)}, got {tuple(wrong.shape)}."
        )
    _, place, count = uncertainty.unique(return_inverse=True, return_counts=True)
    covered = count.cumsum(0).double()
    return covered / len(wrong), torch.bincount(place, wrong.double()).cumsum(0) / covered


def area_under_error_coverage(uncertainty: Tensor, wrong: Tensor) -> float:
    r"""Mean, over the examples, of the error among those at least as certain: smaller is better.

    .. math:: \mathrm{AURC} = \frac1n \sum_{i=1}^n \mathrm{error}(u_i)

    the area under the steps of `error_coverage`, whose parameters and errors it shares.

    References
    ----------
    Geifman, Uziel & El-Yaniv (2019). Bias-reduced uncertainty estimation for deep neural
    classifiers. ICLR.

    Examples
    --------
    >>> area_under_error_coverage(torch.tensor([0.1, 0.9]), torch.tensor([False, True]))
    0.25
    """
    coverage, error = error_coverage(uncertainty, wrong)
    return float((error * coverage.diff(prepend=coverage.new_zeros(1))).sum())


def auroc(inside: Tensor, outside: Tensor) -> float:
    r"""Probability that an example from outside the distribution is more uncertain than one inside.

    .. math:: \frac{1}{mn} \sum_{i=1}^m \sum_{j=1}^n
        \bigl( 1[v_j > u_i] + \tfrac12\, 1[v_j = u_i] \bigr)

    the area under the receiver operating characteristic of the uncertainty: 1 separates the two
    perfectly, ½ is chance. The cost is O((m + n) log m).

    Parameters
    ----------
    inside : Tensor, shape (m,)
        Uncertainties u of m ≥ 1 examples like those of training.
    outside : Tensor, shape (n,)
        Uncertainties v of n ≥ 1 other examples.

    Raises
    ------
    ValueError
        If a shape does not fit, or an uncertainty is NaN.

    References
    ----------
    Hanley & McNeil (1982). The meaning and use of the area under a receiver operating
    characteristic (ROC) curve. Radiology 143.

    Examples
    --------
    >>> auroc(torch.tensor([0.1, 0.2]), torch.tensor([0.2, 0.7]))
    0.875
    """
    _check_values("inside", inside)
    _check_values("outside", outside)
    low, values = inside.double().sort().values, outside.double()
    below, up_to = (torch.searchsorted(low, values, right=right) for right in (False, True))
    return float((below + up_to).double().mean() / (2 * len(low)))


def _probabilities(name: str, p: Tensor) -> Tensor:
    if not p.is_floating_point():
        raise TypeError(f"`{name}` must be floating-point, got {p.dtype}.")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"`{name}` must lie in [0, 1], got {p.min().item()} to {p.max().item()}.")
    return p


def _check_values(name: str, values: Tensor) -> None:
    if values.ndim != 1 or not len(values):
        raise ValueError(f"`{name}` must have shape (n,) with n ≥ 1, got {tuple(values.shape)}.")
    if values.isnan().any():
        raise ValueError(f"`{name}` must hold numbers, got NaN.")
