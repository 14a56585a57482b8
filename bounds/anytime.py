"""A certificate that is kept while certification points arrive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from pbnn.bounds._arrays import PROBABILITY, Real, directed, prepare
from pbnn.bounds.draws import one_number, series
from pbnn.bounds.gibbs import maurer


class Anytime:
    r"""A running certificate that may be looked at, and stopped, after every batch.

    .. math:: \forall n:\quad R \le \mathrm{kl}^{+}\!\left(\hat R_n, \frac{\mathrm{KL}
              + \ln\frac{\mathrm{KT}(n)}{\delta}}{n}\right),
              \qquad \mathrm{KT}(n) = \frac{\sqrt\pi\,\Gamma(n+1)}{\Gamma(n+\frac12)}

    With probability at least 1 - delta all of these hold together, so any rule may decide when to
    stop, and the least bound so far, `best`, holds too. With :math:`\mathrm{KL} = 0` they bound the
    risk of one fixed predictor.

    Prior *and posterior* must be fixed before the points come. (The inequality holds for every
    posterior at once, but the losses summed here are those of one; for another, all points must be
    evaluated again.) The points are independent draws from one distribution, each given once; their
    losses are exact Gibbs losses, or those of one fresh network for each point.

    Parameters
    ----------
    kl : float
        KL divergence from prior to posterior in nats, finite.
    delta : float
        Probability that any of the bounds may fail, in (0, 1).

    Attributes
    ----------
    n : int
        Number of points so far.
    risk : float
        Their mean loss, rounded up; NaN before the first.
    bound : float
        The bound for all points so far, rounded up; 1 before the first.
    best : float
        The least bound so far.

    Raises
    ------
    ValueError
        If `kl` or `delta` is outside its domain.
    TypeError
        If `kl` or `delta` is not one number.

    References
    ----------
    R. Krichevsky, V. Trofimov (1981), "The performance of universal encoding", IEEE Trans. Inf.
    Theory 27. B. Chugg, H. Wang, A. Ramdas (2023), "A unified recipe for deriving (time-uniform)
    PAC-Bayes bounds", https://arxiv.org/abs/2302.03421.

    Examples
    --------
    >>> certificate = Anytime(5.0)
    >>> for batch in ([0.0, 0.5] * 200, [0.25] * 400):
    ...     print(round(certificate.update(batch), 6))
    0.362319
    0.329166
    >>> certificate.n, certificate.risk
    (800, 0.25)
    """

    def __init__(self, kl: float = 0.0, *, delta: float = 0.05) -> None:
        one_number("kl", kl)
        one_number("delta", delta)
        finite = (lambda x: (x >= 0) & (x < math.inf), "must be finite and non-negative")
        _, values, _ = prepare({"kl": finite}, kl=kl, delta=delta)
        self._kl, self._delta = map(float, values)
        self._n = 0
        self._total = Fraction(0)
        self._bound = self._best = 1.0

    @property
    def kl(self) -> float:
        return self._kl

    @property
    def delta(self) -> float:
        return self._delta

    @property
    def n(self) -> int:
        return self._n

    @property
    def risk(self) -> float:
        return directed(self._total / self._n, up=True) if self._n else math.nan

    @property
    def bound(self) -> float:
        return self._bound

    @property
    def best(self) -> float:
        return self._best

    def update(self, losses: Real) -> float:
        """Add the losses of new points, and return the bound for all points so far.

        Parameters
        ----------
        losses : sequence, array or tensor
            Losses in [0, 1], of any shape, none of them given before.

        Raises
        ------
        ValueError
            If a loss is outside [0, 1]; nothing is added then.
        TypeError
            If `losses` hold no real numbers, or intervals.
        """
        losses = series("losses", losses)
        losses = losses.detach().cpu() if hasattr(losses, "detach") else losses
        _, (values,), _ = prepare({"losses": PROBABILITY}, losses=losses)
        batch = np.asarray(values).ravel().tolist()
        self._total += _sum(batch)
        self._n += len(batch)
        self._look()
        return self._bound

    def to_dict(self) -> dict[str, Any]:
        """The state as plain JSON, from which `from_dict` resumes without loss."""
        return {
            "kl": self._kl,
            "delta": self._delta,
            "n": self._n,
            "total": str(self._total),
            "best": self._best,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Anytime:
        """The certificate that `to_dict` described.

        Raises
        ------
        ValueError
            If a key is missing or unknown, or a value is outside its domain.
        TypeError
            If a value is of another type.
        """
        keys = {"kl", "delta", "n", "total", "best"}
        if set(state) != keys:
            raise ValueError(f"`state` must have the keys {sorted(keys)}, got {sorted(state)}.")
        resumed = cls(state["kl"], delta=state["delta"])
        n, total, best = state["n"], state["total"], state["best"]
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"`n` must be an integer, got {type(n).__name__}.")
        if not isinstance(total, str):
            raise TypeError(f"`total` must be a fraction as a string, got {type(total).__name__}.")
        if isinstance(best, bool) or not isinstance(best, (int, float)):
            raise TypeError(f"`best` must be a number, got {type(best).__name__}.")
        if n < 0:
            raise ValueError(f"`n` must be non-negative, got {n}.")
        try:
            resumed._total = Fraction(total)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"`total` must be a fraction, got {total!r}.") from None
        if not 0 <= resumed._total <= n:
            raise ValueError(f"`total` must lie in [0, n], got {total!r} with n = {n}.")
        if not 0 <= best <= 1:
            raise ValueError(f"`best` must lie in [0, 1], got {best!r}.")
        resumed._n = n
        resumed._look()
        if resumed._best < best:
            raise ValueError(f"`best` must not exceed the bound, {resumed._best}, got {best!r}.")
        resumed._best = float(best)
        return resumed

    def __repr__(self) -> str:
        return f"Anytime(kl={self._kl}, delta={self._delta}): {self._best} after n = {self._n}"

    def _look(self) -> None:
        if self._n:
            self._bound = float(
                maurer(self.risk, self._kl, self._n, delta=self._delta, constant="kt", certify=True)
            )
            self._best = min(self._best, self._bound)


def _sum(values: list[float]) -> Fraction:
    """The exact sum, but for a rest that is rounded up at 2^-106 of it."""
    total = math.fsum(values)
    rest = math.fsum([*values, -total])
    return Fraction(total) + Fraction(math.nextafter(rest, math.inf) if rest else 0)
