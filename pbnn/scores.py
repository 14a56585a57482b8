"""Losses of networks that score K classes by independent Gaussians and predict the arg max."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pbnn.functional import Moments, choose_sign
from pbnn.quadrature import UNIT_ROUNDOFF

REACH = 9.0
"""Standard deviations on either side that the quadrature covers: 2Φ(−9) < 10⁻¹⁸."""

TRAINING_STEP = 0.5
"""37 nodes."""

SMALLEST_STEP = 1 / 256
"""4609 nodes."""

SATURATION = 40.0
"""Standard deviations that count as certainty: Φ(−40) is 0 in float64."""


def probability_correct(scores: Moments, y: Tensor, step: float = TRAINING_STEP) -> Tensor:
    r"""Probability that the label has the largest of independent Gaussian scores.

    .. math::
        p = P(s_y > s_j \text{ for all } j \ne y)
        = \mathbb E_z \prod_{j \ne y} \Phi\Bigl(\frac{\mu_y - \mu_j + \sigma_y z}{\sigma_j}\Bigr)
        \approx h \sum_{|k| \le m} \varphi(kh) \prod_{j \ne y}
        \Phi\Bigl(\frac{\mu_y - \mu_j + \sigma_y k h}{\sigma_j}\Bigr), \quad m = \lceil 9/h \rceil

    With z standard normal. A score without variance is a point, and of equal points the first
    class is predicted; a variance below the smallest normal number counts as none. In float64,
    with the step of `certified_step` or any other, `probability_correct_error` bounds the error.
    Time and memory are O(n K m): split the points where the step is small.

    Parameters
    ----------
    scores : Moments
        Means of shape (n, K) and variances of the same or a shape that broadcasts to it.
    y : Tensor, shape (n,)
        Labels in 0, …, K − 1, int64.
    step : float
        The distance h of the nodes, in (0, 1]. The default is for training: its error is below
        10⁻⁷ for ten classes of one variance and of the order of 10⁻² where the label's deviation
        is four times another's.

    Returns
    -------
    Tensor, shape (n,)

    Raises
    ------
    TypeError
        If `scores` is no `Moments` or the labels are not int64.
    ValueError
        If the shapes do not fit or the step is none.

    Examples
    --------
    >>> scores = Moments(torch.zeros(1, 4), torch.ones(1, 4))
    >>> probability_correct(scores, torch.tensor([2]))
    tensor([0.2500])
    """
    gap, own, spread, first = _rivals(scores, y)
    side = _side(step)
    nodes = step * torch.arange(-side, side + 1, dtype=gap.dtype, device=gap.device)
    weights = step / math.sqrt(2 * math.pi) * torch.exp(-nodes.square() / 2)
    lead, spread = gap[:, :, None] + own[:, :, None] * nodes, spread[:, :, None]
    # Certain cases get a constant before they are divided, so that no gradient meets 0/0 or inf.
    certain = lead.abs() >= SATURATION * spread
    ahead = (lead > 0) | ((lead == 0) & first[:, :, None])
    limit = SATURATION * choose_sign(ahead, lead)
    ratio = torch.where(certain, limit, lead / torch.where(certain, 1.0, spread))
    return torch.special.log_ndtr(ratio).sum(1).exp() @ weights


def probability_correct_error(scores: Moments, y: Tensor, step: float) -> Tensor:
    r"""Bound on the error of `probability_correct` in float64, for each point.

    .. math::
        \min\Bigl(\frac{1}{\sinh(2\pi^2/(h^2 B))}, \frac{h}{\sqrt{2\pi}}\Bigr)
        + 2\Phi(-9) + (10 K + 2m + 129) u,
        \qquad B = 1 + \sum_{j \ne y} \frac{\sigma_y^2}{\sigma_j^2}

    *Smooth.* Let :math:`f(z) = \varphi(z) g(z)` with :math:`g(z) = \prod_j \Phi(a_j + b_j z)` and
    :math:`b_j = \sigma_y/\sigma_j`. As :math:`|\varphi(x + ic)| = e^{c^2/2} \varphi(x)`,
    integration along a horizontal line gives :math:`|\Phi(x + ic)| \le e^{c^2/2} \Phi(x)`, so
    :math:`|f(x + ic)| \le e^{c^2 B/2} f(x)`. Moving the line of integration by c = τ/B, the
    Fourier transform obeys :math:`|\hat f(\tau)| \le p\, e^{-\tau^2/(2B)}`. By Poisson's formula
    the sum over all nodes misses p by at most :math:`2 \sum_{r \ge 1} |\hat f(2\pi r/h)|`, which is
    at most the first term, since r² ≥ 2r − 1 and p ≤ 1.

    *Steep.* The product g rises from 0 or more to at most 1, whatever the variances, a jump
    included: it is a mixture of a constant and of steps :math:`1[z \ge s]` or :math:`1[z > s]`. For
    each of them, φ having its only maximum on a node, the sum over all nodes misses the integral by
    at most :math:`h \varphi(0)`, the second term.

    *Nodes left out.* g ≤ 1 and φ falls beyond 9, so they weigh at most 2Φ(−9).

    *Rounding*, with u = 2⁻⁵³. Where :math:`|\mu_y - \mu_j| \le 18 \sigma_y` the argument computed
    is that of a node moved by less than 128 u, up to a relative error of 4 u; elsewhere its
    relative error is below 16 u. As g is monotone, moving the nodes of all factors so far moves p
    by at most 128 u φ(0), and B stays. A relative error of 16 u changes a factor by at most 4 u,
    as :math:`|x| \varphi(x) < \tfrac14`. Let `log_ndtr` be right to :math:`8 u \max(|v|,
    \tfrac12)`, v its value: with the sum of K of them that adds (5 K + 4) u. The exponential and
    the weights add less than 16 u each, the last sum (2m + 2) u.

    Parameters
    ----------
    scores : Moments
        Those of `probability_correct`, in float64.
    y : Tensor, shape (n,)
    step : float
        That of `probability_correct`.

    Returns
    -------
    Tensor, shape (n,)
        At most 1.

    Raises
    ------
    TypeError, ValueError
        As for `probability_correct`; a TypeError too for scores that are not float64, a ValueError
        for means that are not finite, variances that are not or are negative.

    References
    ----------
    Trefethen, Weideman (2014). The exponentially convergent trapezoidal rule. SIAM Review 56,
    Theorem 5.1, for the strip of analyticity; the bound on the product is ours.

    Examples
    --------
    >>> scores = Moments(torch.zeros(1, 10).double(), torch.ones(1, 10).double())
    >>> bool(probability_correct_error(scores, torch.tensor([3]), 1 / 4) < 1e-13)
    True
    """
    check_scores(scores, y)
    if {part.dtype for part in scores} != {torch.float64}:
        got = " and ".join(str(part.dtype) for part in scores)
        raise TypeError(f"`scores` must be float64 for a stated error, got {got}.")
    if not all(bool(part.isfinite().all()) for part in scores) or bool((scores.var < 0).any()):
        raise ValueError(
            "`scores` must have finite means and finite variances of at least 0, got "
            f"{int((~scores.mean.isfinite()).sum())} means that are not finite and "
            f"{int((~(scores.var >= 0) | scores.var.isinf()).sum())} such variances."
        )
    nodes, classes = 2 * _side(step) + 1, scores.mean.shape[1]
    smooth = 1 / torch.sinh(2 * math.pi**2 / (step**2 * _roughness(scores, y)))
    quadrature = smooth.clamp_max(step / math.sqrt(2 * math.pi))
    cut = math.erfc(REACH / math.sqrt(2))
    rounding = (10 * classes + nodes + 128) * UNIT_ROUNDOFF
    # The factor is for the rounding of this formula.
    return (1.01 * (quadrature + cut + rounding)).clamp_max(1.0)


def certified_step(scores: Moments, y: Tensor) -> float:
    r"""The step with which the quadrature of these points is as good as float64.

    .. math:: h = \max\Bigl(\frac{\pi}{4 \sqrt{\max B}}, \tfrac{1}{256}\Bigr)

    With B as in `probability_correct_error`: there the exponent is then 32. Ten classes of one
    variance get 75 nodes. The floor holds for deviations of the label far larger than another
    class's, down to zero, whose points pay with an error of up to 0.0016.

    Examples
    --------
    >>> scores = Moments(torch.zeros(1, 16), torch.ones(1, 16))
    >>> round(certified_step(scores, torch.tensor([0])), 4)
    0.1963
    """
    roughness = float(_roughness(scores, y).max())
    return max(math.pi / (4 * math.sqrt(roughness)), SMALLEST_STEP)


def gibbs_loss(scores: Moments, y: Tensor) -> Tensor:
    r"""Probability of an error: one minus `probability_correct`, in [0, 1], shape (n,).

    Its mean over points is the risk of the randomised network if the scores of a point really are
    independent Gaussians, as for Gaussian weights that read known inputs. Behind layers whose
    moments are propagated by mean field it is a surrogate: something to train on, never to certify.
    The step is that for training; a certificate takes `probability_correct` with `certified_step`
    and adds `probability_correct_error`.

    Examples
    --------
    >>> gibbs_loss(Moments(torch.zeros(1, 4), torch.ones(1, 4)), torch.tensor([2]))
    tensor([0.7500])
    """
    return 1 - probability_correct(scores, y)


def error_of_means(scores: Moments, y: Tensor) -> Tensor:
    """Whether the class of the largest mean, the first if several, is wrong: 0 or 1, shape (n,).

    Examples
    --------
    >>> error_of_means(Moments(torch.eye(2), torch.ones(2, 2)), torch.tensor([0, 0]))
    tensor([0., 1.])
    """
    check_scores(scores, y)
    return (scores.mean.argmax(1) != y).to(scores.mean.dtype)


def cross_entropy(scores: Moments, y: Tensor) -> Tensor:
    """Cross-entropy of the softmax of the means, in nats, shape (n,); the variances do not count.

    References
    ----------
    Peters, Welling (2018). Probabilistic binary neural networks.
    https://arxiv.org/abs/1809.03368, the first of its losses.

    Examples
    --------
    >>> cross_entropy(Moments(torch.zeros(1, 2), torch.ones(1, 2)), torch.tensor([1]))
    tensor([0.6931])
    """
    check_scores(scores, y)
    return F.cross_entropy(scores.mean, y, reduction="none")


def bounded_cross_entropy(scores: Moments, y: Tensor, p_min: float = 1e-5) -> Tensor:
    r"""Cross-entropy of a softmax that is mixed with p_min, scaled to [0, 1].

    .. math::
        \frac{-\ln(p_{\min} + (1 - p_{\min})\, p_y)}{\ln(1/p_{\min})},
        \qquad p = \operatorname{softmax}(\mu)

    Pérez-Ortiz et al. clamp instead, :math:`\max(p_y, p_{\min})`. The mixture lies below theirs by
    at most :math:`\ln 2/\ln(1/p_{\min})`. Theirs has no gradient where :math:`p_y < p_{\min}`,
    which at the start of a training, with scores of tens, may be nearly everywhere; that of the
    mixture fades, as :math:`p_y / (p_y + p_{\min})`.

    Parameters
    ----------
    scores : Moments
        Means of shape (n, K); the variances do not count.
    y : Tensor, shape (n,)
    p_min : float
        In (0, 1), chosen without the certification points.

    References
    ----------
    Pérez-Ortiz, Rivasplata, Shawe-Taylor, Szepesvári (2021). Tighter risk certificates for neural
    networks. JMLR 22. https://arxiv.org/abs/2007.12911

    Examples
    --------
    >>> means = torch.tensor([[100.0, 0.0], [-100.0, 0.0]])
    >>> loss = bounded_cross_entropy(Moments(means, torch.ones(2, 2)), torch.tensor([0, 0]))
    >>> [round(value, 4) for value in loss.tolist()]
    [0.0, 1.0]
    """
    if not 0 < p_min < 1:
        raise ValueError(f"`p_min` must lie in (0, 1), got {p_min}.")
    log_p = math.log1p(-p_min) - cross_entropy(scores, y)
    floor = torch.full_like(log_p, math.log(p_min))
    return torch.logaddexp(log_p, floor) / math.log(p_min)


def binary_cross_entropy(scores: Moments, y: Tensor) -> Tensor:
    r"""Cross-entropy of K binary outputs, summed over the classes, in nats, shape (n,).

    .. math:: -\sum_k \ln \Phi(t_k \mu_k / \sigma_k)

    With t = +1 for the label and −1 elsewhere: output k is the sign of score k. A variance below
    the machine epsilon, the least that a random binary weight can have in its number type, counts
    as epsilon, and from 40 deviations on the wrong side the loss goes on linearly: it stays finite,
    and so does its gradient, which always points away from the error.

    References
    ----------
    Peters, Welling (2018). Probabilistic binary neural networks.
    https://arxiv.org/abs/1809.03368, the second of its losses.

    Examples
    --------
    >>> binary_cross_entropy(Moments(torch.zeros(1, 2), torch.ones(1, 2)), torch.tensor([1]))
    tensor([1.3863])
    """
    check_scores(scores, y)
    mean, var = scores
    classes = torch.arange(mean.shape[1], device=mean.device)
    target = choose_sign(classes == y[:, None], mean)
    spread = var.clamp_min(torch.finfo(var.dtype).eps).sqrt()
    right = target * mean / spread
    inside = right.clamp_min(-SATURATION)
    return -(torch.special.log_ndtr(inside) + SATURATION * (right - inside)).sum(1)


def check_scores(scores: Moments, y: Tensor) -> None:
    """Refuse what are no scores of n points with a label each; looks at no value."""
    if not isinstance(scores, Moments):
        raise TypeError(f"`scores` must be Moments, got {type(scores).__name__}.")
    if y.dtype != torch.int64:
        raise TypeError(f"`y` must be int64, got {y.dtype}.")
    mean, var = (tuple(part.shape) for part in scores)
    pairs = zip(reversed(mean), reversed(var), strict=False)
    if len(mean) != 2 or len(var) > 2 or any(v not in (1, m) for m, v in pairs):
        raise ValueError(
            f"`scores` must have a mean of shape (n, K) and a variance that broadcasts to it, got "
            f"{mean} and {var}."
        )
    if y.shape != mean[:1]:
        raise ValueError(f"`y` must have shape ({mean[0]},), got {tuple(y.shape)}.")


def _rivals(scores: Moments, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The label against each other class: by how much its mean leads, of shape (n, K − 1), its
    deviation (n, 1), those of the others, and whether it is predicted where scores are equal."""
    check_scores(scores, y)
    label = y[:, None]
    other = torch.arange(scores.mean.shape[1] - 1, device=y.device)
    other = other + (other >= label)
    deviation = _deviation(scores.var).expand_as(scores.mean)
    gap = scores.mean.gather(1, label) - scores.mean.gather(1, other)
    return gap, deviation.gather(1, label), deviation.gather(1, other), label < other


def _deviation(var: Tensor) -> Tensor:
    """Root of the variance, 0 with gradient 0 where that is no normal number."""
    positive = var >= torch.finfo(var.dtype).tiny
    return torch.where(positive, torch.where(positive, var, 1.0).sqrt(), 0.0)


@torch.no_grad()
def _roughness(scores: Moments, y: Tensor) -> Tensor:
    """B of `probability_correct_error`, shape (n,); infinite where the integrand jumps."""
    _, own, spread, _ = _rivals(scores, y)
    ratio = torch.where(own > 0, own / spread, 0.0)
    return 1 + ratio.square().sum(1)


def _side(step: float) -> int:
    """Nodes on either side of the middle one."""
    if not 0 < step <= 1:
        raise ValueError(f"`step` must lie in (0, 1], got {step}.")
    return math.ceil(REACH / step)
