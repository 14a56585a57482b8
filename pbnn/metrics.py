"""Bounds and calibration to log while a network trains, as metrics of torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pbnn.bounds import delta_each, maurer
from pbnn.module_risks import wrong_points
from pbnn.networks.checks import is_real, is_whole
from pbnn.uncertainty import bin_sums, reliability

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        "`pbnn.metrics` needs the package torchmetrics: pip install 'pbnn[metrics]'"
    ) from error


class GibbsBound(Metric):
    r"""A PAC-Bayes bound on the risk of a randomised network, from the batches of an epoch.

    .. math:: \mathrm{kl}^+\Bigl(\hat r, \frac{\mathrm{KL} + \ln(2\sqrt n/\delta)}{n}\Bigr),
              \qquad \hat r = \frac{\text{errors}}{\text{count}}

    or another bound of that form. **It is no certificate**: with drawn networks it has no
    Monte-Carlo step, it is not rounded outward, and an epoch that was chosen because its value is
    low is chosen by those draws, too. `choices` pays for looking at so many epochs, networks or
    priors; the prior must not depend on the points all the same. `pbnn.certify` makes the
    certificate of what was chosen, by draws of its own.

    Parameters
    ----------
    kl : float or callable
        KL(Q‖P) in nats, or what gives it when the bound is computed, such as a network's method. A
        copy of the metric asks the same callable.
    delta : float
        Probability that the bound may fail, in (0, 1).
    choices : int
        Values that one is chosen among; each has its share of δ.
    n : int, optional
        Distinct points of an epoch. By default those that were counted; give it where a sampler
        repeats points to fill up batches or processes.
    bound : callable
        Of `pbnn.bounds`: a function of risk, KL and n, and of the keyword `delta`.
    **options
        Those of `torchmetrics.Metric`.

    Raises
    ------
    ValueError
        If an argument is outside its domain.

    Examples
    --------
    >>> metric = GibbsBound(kl=10.0, choices=20)
    >>> for scores in torch.tensor([[[2.0, 0.0]] * 50, [[0.0, 1.0]] * 50]):
    ...     metric.update(scores, torch.zeros(50, dtype=torch.long))
    >>> round(metric.compute().item(), 4), metric.count.item()
    (0.7811, 100)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    losses: Tensor
    count: Tensor

    def __init__(
        self,
        kl: float | Callable[[], Tensor | float],
        *,
        delta: float = 0.05,
        choices: int = 1,
        n: int | None = None,
        bound: Callable[..., Any] = maurer,
        **options: Any,
    ) -> None:
        # The divergence changes while nothing is added to the states.
        super().__init__(**{"compute_with_cache": False, **options})
        if not callable(kl) and not is_real(kl, 0):
            raise ValueError(f"`kl` must be at least 0, or a function, got {kl}.")
        if n is not None and not is_whole(n, 1):
            raise ValueError(f"`n` must be a positive integer, got {n}.")
        self.kl, self.n, self.bound = _Shared(kl), n, bound
        self.delta = delta_each(delta, choices)
        self.add_state("losses", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor | None = None) -> None:
        """Add a batch: scores and labels, as `pbnn.module_risks.wrong_points`, or losses alone.

        Parameters
        ----------
        preds : Tensor
            Scores of the points under networks that were drawn, or without `target` losses in
            [0, 1], shape (n,), as exact Gibbs losses.
        target : Tensor, shape (n,), optional
        """
        losses = preds if target is None else wrong_points(preds, target)
        if losses.ndim != 1 or not bool(((losses >= 0) & (losses <= 1)).all()):
            raise ValueError(
                "`preds` must be losses in [0, 1], one a point, if there is no `target`, got "
                f"others of shape {tuple(losses.shape)}."
            )
        self.losses += losses.double().sum()
        self.count += len(losses)

    def compute(self) -> Tensor:
        """The bound, in float64; NaN before any point was counted."""
        count = int(self.count)
        if not count:
            return torch.full_like(self.losses, math.nan)
        n = count if self.n is None else min(self.n, count)
        value = self.bound(float(self.losses) / count, self.kl.now(), n, delta=self.delta)
        return torch.full_like(self.losses, float(value))


class CalibrationError(Metric):
    r"""Expected calibration error from batches: `pbnn.uncertainty.calibration_error` of them all.

    .. math:: \sum_{j=1}^B \frac{n_j}{n} \lvert \mathrm{accuracy}_j - \mathrm{confidence}_j \rvert

    Its states are sums of each bin, whatever the number of points.

    Parameters
    ----------
    bins : int
        B ≥ 1, of equal width.
    **options
        Those of `torchmetrics.Metric`.

    References
    ----------
    Guo, Pleiss, Sun & Weinberger (2017). On calibration of modern neural networks. ICML, Eq. 3.
    https://arxiv.org/abs/1706.04599

    Examples
    --------
    >>> metric = CalibrationError()
    >>> metric.update(torch.tensor([[0.75, 0.25]] * 4), torch.tensor([0, 0, 0, 0]))
    >>> round(metric.compute().item(), 6)
    0.25
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    counts: Tensor
    confidences: Tensor
    right: Tensor

    def __init__(self, bins: int = 15, **options: Any) -> None:
        super().__init__(**options)
        if not is_whole(bins, 1):
            raise ValueError(f"`bins` must be a positive integer, got {bins}.")
        self.bins = bins
        self.add_state("counts", torch.zeros(bins, dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("confidences", "right"):
            self.add_state(name, torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: probabilities (n, K) and classes (n,), as for `reliability`."""
        reliability(preds, target, self.bins)  # refuses what are none
        counts, confidences, right = bin_sums(preds, target, self.bins)
        self.counts += counts
        self.confidences += confidences
        self.right += right

    def compute(self) -> Tensor:
        """The error, in float64; NaN before any point was counted."""
        return (self.right - self.confidences).abs().sum() / self.counts.sum()


class _Shared:
    """A number, or what gives one, that copies of a metric have in common."""

    def __init__(self, kl: float | Callable[[], Tensor | float]) -> None:
        self.kl = kl

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self

    def now(self) -> float:
        value = self.kl() if callable(self.kl) else self.kl
        return value.item() if isinstance(value, Tensor) else float(value)
