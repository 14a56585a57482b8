"""Exact searches for the largest probability that a bound fails: sums over counts, no sampling.

What `bound_coverage` cannot see by simulation: a bound that pays ln(1/δ) where its proof asks for
ln(2√n/δ), or whose C was chosen after the data at the price of a fixed one, may still fail less
often than δ. For the general kl bound this is an open problem; here is how near it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from scipy.special import xlogy
from scipy.stats import binom

from pbnn.bounds import binary_kl, catoni, kl_inverse, maurer

Row: TypeAlias = dict[str, Any]
Bound: TypeAlias = Callable[[Any, int], Any]

BEYOND = 1e-12
GRID = 2_000
"""Risks of the two-sided search, besides the ends of the intervals."""
PAIRS = 40
"""Risks of either predictor in the search over two of them."""
MIXTURES = 101
"""Posteriors on two predictors."""
KNOWN = (5, 0.549, 0.05)
"""Examples, risk and delta of a known failure of the kl event on both sides."""


def unpriced_c(risk: Any, n: int, delta: float) -> Any:
    """The bound with C fixed beforehand, at the C that is best for the data: no bound."""
    level = kl_inverse(risk, -np.log(delta) / n)
    inside = (risk > 0) & (risk < 1)
    r, p = np.where(inside, risk, 0.25), np.where(inside, level, 0.5)
    best = np.where(risk == 0, 700.0, np.log(p / r) + np.log((1 - r) / (1 - p)))
    return np.where(risk == 1, 1.0, catoni(risk, 0.0, n, delta=delta, C=best, fixed=True))


def one_predictor(bound: Bound, largest: int) -> Row:
    """Largest failure probability for one predictor with errors, over n and every risk.

    The bound grows with the number k of errors and so fails for all counts up to one; for this
    one, the risk just above the bound is the worst. So the maximum over risks is over k.
    """
    best: Row = {"n": 0, "p": 0.0, "probability": 0.0}
    for n in range(1, largest + 1):
        k = np.arange(n)
        p = bound(k / n, n) + BEYOND
        chance = np.where(p < 1, binom.cdf(k, n, np.minimum(p, 1.0)), 0.0)
        if chance.max() > best["probability"]:
            at = int(chance.argmax())
            best = {"n": n, "p": float(p[at]), "probability": float(chance[at])}
    return best


def two_sided(delta: float, largest: int) -> Row:
    """Largest probability of kl(k/n, p) > ln(1/delta)/n, over n and p."""
    best: Row = {"n": 0, "p": 0.0, "probability": 0.0}
    for n in range(1, largest + 1):
        k = np.arange(n + 1)
        budget = -np.log(delta) / n
        ends = np.concatenate([kl_inverse(k / n, budget, side) for side in ("upper", "lower")])
        p = np.concatenate([ends - BEYOND, ends + BEYOND, np.linspace(0, 1, GRID + 1)])
        p = p[(p > 0) & (p < 1)]
        outside = binary_kl(k / n, p[:, None]) > budget
        chance = (outside * binom.pmf(k, n, p[:, None])).sum(-1)
        if chance.max() > best["probability"]:
            at = int(chance.argmax())
            best = {"n": n, "p": float(p[at]), "probability": float(chance[at])}
    return best


def two_sided_at(n: int, p: float, delta: float) -> float:
    """Probability of kl(k/n, p) > ln(1/delta)/n."""
    k = np.arange(n + 1)
    outside = binary_kl(k / n, p) > -np.log(delta) / n
    return float((outside * binom.pmf(k, n, p)).sum())


def two_predictors(delta: float, largest: int, sides: str) -> Row:
    """Largest probability that some posterior on two independent predictors breaks the event.

    The event is n kl(risk, true risk) > KL + ln(1/delta), for true risks above the others only
    (`sides` "one") or for all ("two"), with a uniform prior. All counts are enumerated.
    """
    q = np.linspace(0, 1, MIXTURES)
    kl = xlogy(q, 2 * q) + xlogy(1 - q, 2 * (1 - q))
    levels = (np.arange(PAIRS) + 0.5) / PAIRS
    first, second = (x.ravel() for x in np.meshgrid(levels, levels))
    first, second = first[first <= second], second[first <= second]
    truth = q * first[:, None] + (1 - q) * second[:, None]
    best: Row = {"n": 0, "p": "", "probability": 0.0}
    for n in range(1, largest + 1):
        k = np.arange(n + 1)
        of_first, of_second = (np.array(binom.pmf(k, n, p[:, None])) for p in (first, second))
        total = np.zeros(len(first))
        for i in range(n + 1):
            for j in range(n + 1):
                seen = np.minimum((q * i + (1 - q) * j) / n, 1.0)
                beyond = n * binary_kl(seen, truth) > kl - np.log(delta) + BEYOND
                if sides == "one":
                    beyond &= seen < truth
                total += beyond.any(-1) * of_first[:, i] * of_second[:, j]
        if total.max() > best["probability"]:
            at = int(total.argmax())
            p = f"{first[at]:g} and {second[at]:g}"
            best = {"n": n, "p": p, "probability": float(total[at])}
    return best


def searches(delta: float, largest: int, few: int) -> Iterator[Row]:
    """Each search at `delta`, over n up to `largest`, or up to `few` for two predictors."""

    def missing(risk: Any, n: int) -> Any:
        return kl_inverse(risk, -np.log(delta) / n)

    def paid(risk: Any, n: int) -> Any:
        return maurer(risk, 0.0, n, delta=delta, constant="xi")

    found = {
        "one predictor, kl bound with the exact constant": one_predictor(paid, largest),
        "one predictor, ln(1/δ) for ln(2√n/δ)": one_predictor(missing, largest),
        "one predictor, unpriced C": one_predictor(lambda r, n: unpriced_c(r, n, delta), largest),
        "one predictor, ln(1/δ), kl event on both sides": two_sided(delta, largest),
        "two predictors, ln(1/δ)": two_predictors(delta, few, "one"),
        "two predictors, ln(1/δ), kl event on both sides": two_predictors(delta, few, "two"),
    }
    for name, best in found.items():
        up_to = few if name.startswith("two") else largest
        yield {"search": name, "delta": delta, "n_up_to": up_to} | best
    n, p, at = KNOWN
    if delta == at:
        name = "one predictor, ln(1/δ), kl event on both sides, there alone"
        known = {"n_up_to": n, "n": n, "p": p, "probability": two_sided_at(n, p, delta)}
        yield {"search": name, "delta": delta} | known
