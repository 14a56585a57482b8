r"""Estimators of the gradient of the Gibbs risk of a network with one hidden layer of signs.

With Gaussian weights :math:`W_1 \sim \mathcal N(w_1, I)`, :math:`w \sim \mathcal N(w_2, I)` and
h hidden units, the mean linear loss of points (x, y) is

.. math::
    L = \frac1n \sum_{(x, y)} \tfrac12 (1 - y F(x)), \qquad
    F(x) = \sum_{s \in \{\pm1\}^h} \Pr(s \mid x)\, g(s), \qquad
    g(s) = \operatorname{erf}\Bigl(\frac{w_2 \cdot s}{\sqrt{2h}}\Bigr),

.. math::
    \Pr(s \mid x) = \prod_k \Pr(s_k \mid x), \qquad \Pr(s_k \mid x) = \tfrac12 (1 + s_k m_k(x)),
    \qquad m_k(x) = \operatorname{erf}\Bigl(\frac{w_1^k \cdot x}{\sqrt2 \lVert x \rVert}\Bigr).

Every estimator is a function of the same arguments:

hidden : Tensor, shape (h, d)
    The means :math:`w_1`.
output : Tensor, shape (1, h)
    The means :math:`w_2`.
x, y : Tensor, shapes (n, d) and (n,)
    Points with labels ±1. A point x = 0 has constant signs and gives no gradient in `hidden`.
draws : int
    T, the independent draws of the signs for every point; unused by what does not sample.
generator : torch.Generator
    For the draws. Two estimators given the same state draw the same signs.

It returns a `Gradient` and leaves no graph behind; the arguments stay as they are. Points are
taken a few at a time, so memory grows with T h and not with n. A ValueError, or a TypeError for a
wrong kind, names the argument that is no such thing.

In `output` every estimator that samples is the plain average of the derivative of g, which is
unbiased; they differ in `hidden`. There, with :math:`e_k(x) = \partial m_k / \partial w_1^k =
\sqrt{2/\pi}\, e^{-(w_1^k \cdot x)^2 / 2 \lVert x \rVert^2}\, x / \lVert x \rVert`, what is to be
estimated is :math:`\partial F / \partial w_1^k = e_k \, \partial F / \partial m_k`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pbnn.functional import expect_over_signs, linear, sample_signs, sign, sign_patterns
from pbnn.functional import straight_through as passed_through
from pbnn.networks import check_points
from pbnn.objectives import linear_loss

ENUMERABLE_UNITS = 20
"""Hidden units up to which the exact sum is possible: a million patterns a point."""

NUMBERS_AT_ONCE = 250_000
"""Numbers in an intermediate table: 2 MB of float64, so that passes over it stay in the cache."""


class Gradient(NamedTuple):
    """Gradient of the mean linear loss in the means of both layers."""

    hidden: Tensor
    output: Tensor


Estimator = Callable[[Tensor, Tensor, Tensor, Tensor, int, torch.Generator], Gradient]
Aggregate = Callable[[Tensor, Tensor, Tensor], Tensor]


def exact(
    hidden: Tensor, output: Tensor, x: Tensor, y: Tensor, draws: int, generator: torch.Generator
) -> Gradient:
    r"""The gradient itself: F summed over all 2^h patterns, then differentiated.

    .. math::
        \frac{\partial F}{\partial m_k} = \tfrac12 \, \mathbb E_{s \setminus s_k}
        \bigl[g(s_k = 1) - g(s_k = -1)\bigr]

    Up to 20 hidden units; nothing is drawn.

    Examples
    --------
    One unit has :math:`F = m \operatorname{erf}(w_2 / \sqrt 2)`, here with m = 0.

    >>> hidden, output = torch.zeros(1, 2), torch.ones(1, 1)
    >>> x, y = torch.tensor([[3.0, 4.0]]), torch.ones(1)
    >>> exact(hidden, output, x, y, 1, torch.Generator()).hidden
    tensor([[-0.1634, -0.2179]])
    """
    _check(hidden, output, x, y, draws, generator)
    units = len(hidden)
    if units > ENUMERABLE_UNITS:
        raise ValueError(
            f"`hidden` must have at most {ENUMERABLE_UNITS} units for the exact sum, got {units}."
        )
    patterns = sign_patterns(units, dtype=output.dtype, device=output.device)

    def aggregate(w1: Tensor, w2: Tensor, points: Tensor) -> Tensor:
        return expect_over_signs(_given_signs(patterns, w2), _means(w1, points))

    return _differentiated(aggregate, 2**units, hidden, output, x, y)


def mean_field(
    hidden: Tensor, output: Tensor, x: Tensor, y: Tensor, draws: int, generator: torch.Generator
) -> Gradient:
    r"""Derivative of the mean-field aggregate: deterministic, and biased.

    .. math::
        \tilde F = \operatorname{erf}\Bigl(
        \frac{w_2 \cdot m}{\sqrt{2 (h + \sum_k w_{2k}^2 (1 - m_k^2))}}\Bigr)

    The central limit theorem makes :math:`w \cdot s` Gaussian. Nothing is drawn, and the bias does
    not fall with T.

    Examples
    --------
    >>> hidden, output = torch.zeros(1, 2), torch.ones(1, 1)
    >>> x, y = torch.tensor([[3.0, 4.0]]), torch.ones(1)
    >>> mean_field(hidden, output, x, y, 1, torch.Generator()).hidden
    tensor([[-0.1350, -0.1801]])
    """
    _check(hidden, output, x, y, draws, generator)

    def aggregate(w1: Tensor, w2: Tensor, points: Tensor) -> Tensor:
        return sign(linear(sign(linear(points, w1)), w2)).mean.squeeze(-1)

    return _differentiated(aggregate, len(hidden), hidden, output, x, y)


def reinforce(
    hidden: Tensor, output: Tensor, x: Tensor, y: Tensor, draws: int, generator: torch.Generator
) -> Gradient:
    r"""Score function of the drawn signs, without a baseline: unbiased.

    .. math::
        \frac{\partial F}{\partial w_1^k} \approx \frac1T \sum_t g(s^t)
        \frac{\partial}{\partial w_1^k} \ln \Pr(s^t \mid x), \qquad s^t \sim \Pr(\cdot \mid x)

    The reward is g, the drawn network averaged over its output weights, and the signs stand for
    the hidden weights, which are not drawn.

    References
    ----------
    Williams (1992). Simple statistical gradient-following algorithms for connectionist
    reinforcement learning. Machine Learning 8. https://doi.org/10.1007/BF00992696

    Examples
    --------
    >>> hidden, output = torch.zeros(3, 2), torch.ones(1, 3)
    >>> x, y = torch.tensor([[3.0, 4.0]]), torch.ones(1)
    >>> reinforce(hidden, output, x, y, 10, torch.Generator()).hidden.shape
    torch.Size([3, 2])
    """
    _check(hidden, output, x, y, draws, generator)

    def surrogate(w1: Tensor, w2: Tensor, points: Tensor) -> Tensor:
        means = _means(w1, points)
        signs = _drawn(means, draws, generator)
        reward = _given_signs(signs, w2)
        return (reward + reward.detach() * _log_probability(signs, means)).mean(0)

    return _differentiated(surrogate, draws * len(hidden), hidden, output, x, y)


def reinforce_baseline(
    hidden: Tensor, output: Tensor, x: Tensor, y: Tensor, draws: int, generator: torch.Generator
) -> Gradient:
    r"""Score function with the mean of the other draws as the baseline: unbiased, for T ≥ 2.

    .. math::
        \frac{\partial F}{\partial w_1^k} \approx \frac1T \sum_t
        \Bigl(g(s^t) - \frac{1}{T - 1} \sum_{u \ne t} g(s^u)\Bigr)
        \frac{\partial}{\partial w_1^k} \ln \Pr(s^t \mid x)

    This is the sample covariance, with T − 1, of reward and score. A draw's baseline does not
    depend on it, and a score has mean zero, so the baseline leaves the mean as it is. It lowers the
    variance of points whose F is far from 0 and, with a share of about 1/(T − 1), raises that of
    points where F is near 0, as at a random initialisation: there it is noise around no baseline.

    References
    ----------
    Williams (1992), as `reinforce`. Mnih, Rezende (2016). Variational inference for Monte Carlo
    objectives. ICML. https://arxiv.org/abs/1602.06725, for this baseline.

    Examples
    --------
    >>> hidden, output = torch.zeros(3, 2), torch.ones(1, 3)
    >>> x, y = torch.tensor([[3.0, 4.0]]), torch.ones(1)
    >>> reinforce_baseline(hidden, output, x, y, 1, torch.Generator())
    Traceback (most recent call last):
    ValueError: `draws` must be at least 2 for a leave-one-out baseline, got 1.
    """
    _check(hidden, output, x, y, draws, generator)
    if draws < 2:
        raise ValueError(f"`draws` must be at least 2 for a leave-one-out baseline, got {draws}.")

    def surrogate(w1: Tensor, w2: Tensor, points: Tensor) -> Tensor:
        means = _means(w1, points)
        signs = _drawn(means, draws, generator)
        reward = _given_signs(signs, w2)
        # Reward minus the mean of the others is T/(T − 1) times reward minus the mean of all.
        advantage = (reward - reward.mean(0)).detach() * (draws / (draws - 1))
        return (reward + advantage * _log_probability(signs, means)).mean(0)

    return _differentiated(surrogate, draws * len(hidden), hidden, output, x, y)


def straight_through(
    hidden: Tensor, output: Tensor, x: Tensor, y: Tensor, draws: int, generator: torch.Generator
) -> Gradient:
    r"""Derivative of g passed through the drawn signs to their means: biased, of low variance.

    The forward pass sees :math:`s^t`, the backward pass :math:`\partial s^t_k / \partial m_k = 1`,
    by `pbnn.functional.straight_through`:

    .. math::
        \frac{\partial F}{\partial w_1^k} \approx e_k \frac1T \sum_t
        \frac{\partial g}{\partial s_k}(s^t) = e_k \sqrt{\frac{2}{\pi h}}\, w_{2k}
        \frac1T \sum_t e^{-(w_2 \cdot s^t)^2 / 2h}

    Exact only where g is linear in each sign. The gradient does reach :math:`w_1` through the
    derivative of the means, not through a clipped identity in place of the sign.

    References
    ----------
    Bengio, Léonard, Courville (2013). Estimating or propagating gradients through stochastic
    neurons for conditional computation. https://arxiv.org/abs/1308.3432

    Examples
    --------
    For one unit the signs do not matter; compare `exact`.

    >>> hidden, output = torch.zeros(1, 2), torch.ones(1, 1)
    >>> x, y = torch.tensor([[3.0, 4.0]]), torch.ones(1)
    >>> straight_through(hidden, output, x, y, 1, torch.Generator()).hidden
    tensor([[-0.1158, -0.1545]])
    """
    _check(hidden, output, x, y, draws, generator)

    def surrogate(w1: Tensor, w2: Tensor, points: Tensor) -> Tensor:
        means = _means(w1, points)
        signs = _drawn(means, draws, generator)
        return _given_signs(passed_through(signs, means.expand_as(signs)), w2).mean(0)

    return _differentiated(surrogate, draws * len(hidden), hidden, output, x, y)


@torch.no_grad()
def conditional(
    hidden: Tensor, output: Tensor, x: Tensor, y: Tensor, draws: int, generator: torch.Generator
) -> Gradient:
    r"""The estimator of Letarte et al. (2019), in closed form: `reinforce`, draw by draw.

    .. math::
        \frac{\partial F}{\partial w_1^k} \approx \frac{x}{2^{3/2} \lVert x \rVert}
        \operatorname{erf}'\Bigl(\frac{w_1^k \cdot x}{\sqrt 2 \lVert x \rVert}\Bigr)
        \frac1T \sum_t \frac{s^t_k}{\Pr(s^t_k \mid x)}\, g(s^t)

    A sign with mean m has the score :math:`\partial \ln \Pr(s) / \partial m = s / (1 + s m) =
    s / (2 \Pr(s))`, and :math:`\partial m_k / \partial w_1^k = \operatorname{erf}'(\cdot)\, x /
    (\sqrt2 \lVert x \rVert)`: their product is the factor above, so the two estimators are one,
    and agree up to rounding when they draw the same signs. Only the way of computing differs:
    here no graph is built.

    References
    ----------
    Letarte, Germain, Guedj, Laviolette (2019). Dichotomize and Generalize: PAC-Bayesian Binary
    Activated Deep Neural Networks. NeurIPS, Section 4. https://arxiv.org/abs/1905.10259

    Examples
    --------
    >>> hidden, output = torch.zeros(3, 2), torch.ones(1, 3)
    >>> x, y = torch.tensor([[3.0, 4.0]]), torch.ones(1)
    >>> paper, score = (
    ...     estimate(hidden, output, x, y, 10, torch.Generator().manual_seed(0)).hidden
    ...     for estimate in (conditional, reinforce)
    ... )
    >>> torch.allclose(paper, score)
    True
    """
    _check(hidden, output, x, y, draws, generator)
    into_hidden, into_output = torch.zeros_like(hidden), torch.zeros_like(output)
    scale = math.sqrt(2 * len(hidden))
    for points, labels in _portions(x, y, draws * len(hidden)):
        means = _means(hidden, points)
        signs = _drawn(means, draws, generator)
        argument = (signs @ output.T) / scale
        weighted = signs / ((1 + signs * means) / 2) * torch.erf(argument)
        norm = points.norm(dim=1, keepdim=True)
        unit = points / torch.where(norm > 0, norm, 1.0)
        slope = _erf_slope(unit @ hidden.T / math.sqrt(2)) / 2**1.5
        into_hidden += (labels[:, None] * slope * weighted.mean(0)).T @ unit
        into_output += labels[None] @ (signs * _erf_slope(argument) / scale).mean(0)
    return Gradient(-into_hidden / (2 * len(x)), -into_output / (2 * len(x)))


ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        "exact": exact,
        "mean_field": mean_field,
        "reinforce": reinforce,
        "reinforce_baseline": reinforce_baseline,
        "straight_through": straight_through,
        "conditional": conditional,
    }
)
"""Estimator by name; `reinforce` and `conditional` are one estimator computed in two ways."""


def _means(hidden: Tensor, x: Tensor) -> Tensor:
    """Means of the hidden signs, (n, h)."""
    return sign(linear(x, hidden)).mean


def _drawn(means: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Independent draws of the signs of every point, (T, n, h)."""
    return sample_signs(means.detach().expand(draws, *means.shape), generator)


def _given_signs(signs: Tensor, output: Tensor) -> Tensor:
    """g(s), (*, h) to (*); the normaliser is a constant, also where signs carry a derivative."""
    return torch.erf(F.linear(signs, output).squeeze(-1) / math.sqrt(2 * signs.shape[-1]))


def _log_probability(signs: Tensor, means: Tensor) -> Tensor:
    """ln Pr(s | x), (T, n); finite, as a sign of probability zero is never drawn."""
    return ((1 + signs * means) / 2).log().sum(-1)


def _erf_slope(argument: Tensor) -> Tensor:
    """Derivative of erf."""
    return torch.exp(-argument.square()) * (2 / math.sqrt(math.pi))


def _portions(x: Tensor, y: Tensor, numbers_a_point: int) -> list[tuple[Tensor, Tensor]]:
    """The points in portions that need at most `NUMBERS_AT_ONCE` numbers each, or one by one."""
    size = max(1, NUMBERS_AT_ONCE // numbers_a_point)
    return list(zip(x.split(size), y.to(x.dtype).split(size), strict=True))


@torch.enable_grad()
def _differentiated(
    aggregate: Aggregate,
    numbers_a_point: int,
    hidden: Tensor,
    output: Tensor,
    x: Tensor,
    y: Tensor,
) -> Gradient:
    """Gradient of the mean linear loss of an aggregate, or of what has its derivative."""
    leaves = hidden.detach().requires_grad_(), output.detach().requires_grad_()
    total = [torch.zeros_like(leaf) for leaf in leaves]
    for points, labels in _portions(x, y, numbers_a_point):
        loss = linear_loss(aggregate(*leaves, points), labels).sum() / len(x)
        for into, part in zip(total, torch.autograd.grad(loss, leaves), strict=True):
            into += part
    return Gradient(*total)


def _check(
    hidden: Tensor, output: Tensor, x: Tensor, y: Tensor, draws: int, generator: torch.Generator
) -> None:
    """Refuse arguments that are no network with one hidden layer, no points or no draws."""
    check_points(x, y)
    for name, value in (("hidden", hidden), ("output", output)):
        if not isinstance(value, Tensor):
            raise TypeError(f"`{name}` must be a torch tensor, got {type(value).__name__}.")
        if value.dtype != x.dtype or not value.is_floating_point():
            raise TypeError(
                f"`{name}` and `x` must have one floating dtype, got {value.dtype} and {x.dtype}."
            )
    if hidden.ndim != 2 or len(hidden) < 1 or x.shape[1:] != hidden.shape[1:]:
        raise ValueError(
            "`hidden` must have shape (h, d) with h >= 1 for `x` of shape (n, d), "
            f"got {tuple(hidden.shape)} and {tuple(x.shape)}."
        )
    if output.shape != (1, len(hidden)):
        raise ValueError(f"`output` must have shape (1, {len(hidden)}), got {tuple(output.shape)}.")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"`generator` must be a torch.Generator, got {type(generator).__name__}.")
    if isinstance(draws, bool) or not isinstance(draws, int):
        raise TypeError(f"`draws` must be an integer, got {draws!r}.")
    if draws < 1:
        raise ValueError(f"`draws` must be a positive integer, got {draws}.")
