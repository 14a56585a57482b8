"""Bounds on the mean of a loss of few values, by bounding each of its levels with the kl inverse.

The conditions are those of `pbnn.bounds.gibbs`: independent examples, and a prior that does not
depend on them. A loss may be negative here where its bounds on a single example are given, as are
the excess losses of one predictor over another. `kl`, `n`, `delta` and `constant` are those of
`maurer`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pbnn.bounds._arrays import (
    COST,
    FINITE,
    PROBABILITY,
    Real,
    at_most,
    compare,
    prepare,
)
from pbnn.bounds.catalogue import EVERY_POSTERIOR, catalogued
from pbnn.bounds.constants import log_constant
from pbnn.bounds.gibbs import MEAN
from pbnn.bounds.kl import inverse


@catalogued(
    MEAN,
    EVERY_POSTERIOR.replace("losses in [0, 1]", "losses in [a, b]; mu fixed beforehand"),
    "Wu and Seldin 2022, PAC-Bayes-split-kl inequality",
)
def split_kl(
    plus: Real,
    minus: Real,
    kl: Real,
    n: Real,
    *,
    a: Real,
    b: Real,
    mu: Real,
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
) -> Real:
    r"""The split-kl bound on the mean of a loss in [a, b], best where it is mostly near `mu`.

    .. math:: \mu + (b - \mu)\,\mathrm{kl}^{+}\!\left(\frac{\hat F^{+}}{b - \mu}, c\right)
              - (\mu - a)\,\mathrm{kl}^{-}\!\left(\frac{\hat F^{-}}{\mu - a}, c\right),
              \qquad c = \frac{\mathrm{KL} + \ln\frac{4 \sqrt n}{\delta}}{n}.

    The part of the loss above `mu` and that below have a kl bound each, which hold together by a
    union bound, at delta/2 each. A part of zero width is left out, but paid for. `a`, `b` and `mu`
    must not depend on the examples. A Monte-Carlo estimate needs an upper bound of `plus` and a
    *lower* one of `minus`.

    Parameters
    ----------
    plus, minus : float, array or tensor
        Posterior mean of the empirical means of max(0, f - mu), in [0, b - mu], and of
        max(0, mu - f), in [0, mu - a].
    kl, n, delta : float, array or tensor
        As for `maurer`.
    a, b, mu : float, array or tensor
        Least and largest value of the loss, and where it is split, a <= mu <= b.
    constant : {"maurer", "xi", "kt", "seeger", "union"}
        As for `maurer`.
    clip : bool
        Whether to clip to [0, b]. The mean may be negative; then take ``clip=False``.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape, at most `b`.

    Raises
    ------
    ValueError
        If an argument is outside its domain or shapes do not broadcast.

    References
    ----------
    Y.-S. Wu, Y. Seldin (2022), "Split-kl and PAC-Bayes-split-kl inequalities for ternary random
    variables", NeurIPS 35, https://arxiv.org/abs/2206.00706.

    Examples
    --------
    >>> round(split_kl(0.03, 0.01, 50.0, 10_000, a=-1.0, b=1.0, mu=0.0), 6)
    0.049656
    """
    domains = {**dict.fromkeys(["a", "b", "mu"], FINITE), "plus": COST, "minus": COST}
    xp, (plus, minus, kl, n, a, b, mu, delta), finish = prepare(
        domains, plus=plus, minus=minus, kl=kl, n=n, a=a, b=b, mu=mu, delta=delta
    )
    compare(xp, "mu", mu, operator.ge, a, "must be at least `a`")
    compare(xp, "mu", mu, operator.le, b, "must be at most `b`")
    compare(xp, "plus", plus, at_most, b - mu, "must be at most `b - mu`")
    compare(xp, "minus", minus, at_most, mu - a, "must be at most `mu - a`")
    budget = (kl + log_constant(xp, n, delta / 2, constant)) / n
    above = _part(xp, plus, b - mu, budget, "upper")
    below = _part(xp, minus, mu - a, budget, "lower")
    value = mu + above - below
    return finish(xp.clip(value, 0.0, None) if clip else value)


@catalogued(
    MEAN,
    EVERY_POSTERIOR.replace("losses in [0, 1]", "losses with the given values"),
    "Wu et al. 2024, PAC-Bayes-split-kl inequality for discrete variables",
)
def split_kl_discrete(
    frequency: Real,
    kl: Real,
    n: Real,
    *,
    values: Sequence[float],
    delta: Real = 0.05,
    constant: str = "maurer",
    clip: bool = True,
) -> Real:
    r"""The split-kl bound on the mean of a loss with few values.

    .. math:: b_0 + \sum_{j=1}^{J} (b_j - b_{j-1})\,\mathrm{kl}^{+}\!\left(\hat F_j,
              \frac{\mathrm{KL} + \ln\frac{2 J \sqrt n}{\delta}}{n}\right), \qquad
              \hat F_j = \frac1n \sum_{i=1}^n \Pr_{h \sim Q}\left[f(h, z_i) \ge b_j\right].

    The J events :math:`f \ge b_j` have a kl bound each, which hold together by a union bound, at
    delta/J each. `values` must not depend on the examples. It is increasing in every frequency, so
    Monte-Carlo estimates are to be replaced by upper bounds, each with its share of delta.

    Parameters
    ----------
    frequency : sequence of float, array or tensor
        :math:`\hat F_1 \ge \dots \ge \hat F_J`, in [0, 1]: a sequence, or the last axis of one
        array or tensor, whose other axes broadcast.
    kl, n, delta : float, array or tensor
        As for `maurer`.
    values : sequence of float
        The values :math:`b_0 < \dots < b_J` of the loss.
    constant : {"maurer", "xi", "kt", "seeger", "union"}
        As for `maurer`.
    clip : bool
        Whether to clip to [0, b_J]. The mean may be negative; then take ``clip=False``.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape, at most :math:`b_J`.

    Raises
    ------
    TypeError
        If `frequency` or `values` is one number.
    ValueError
        If an argument is outside its domain, `values` do not increase, frequencies do, there is
        not one frequency less than values, or shapes do not broadcast.

    References
    ----------
    Y.-S. Wu, Y. Zhang, B.-E. Cherief-Abdellatif, Y. Seldin (2024), "Recursive PAC-Bayes: a
    frequentist approach to sequential prior updates with no information loss", NeurIPS 37,
    https://arxiv.org/abs/2405.14681.

    Examples
    --------
    >>> round(split_kl_discrete([0.3, 0.1], 50.0, 10_000, values=(0.0, 0.5, 1.0)), 6)
    0.243452
    """
    levels, steps = entries_of("frequency", frequency), entries_of("values", values)
    if not levels or len(steps) != len(levels) + 1:
        raise ValueError(
            f"`values` must be one more than the levels of `frequency`, at least two, "
            f"got {len(steps)} and {len(levels)}."
        )
    domains = dict.fromkeys(levels, PROBABILITY) | dict.fromkeys(steps, FINITE)
    xp, given, finish = prepare(domains, **levels, **steps, kl=kl, n=n, delta=delta)
    *given, kl, n, delta = given
    seen, bounds = given[: len(levels)], given[len(levels) :]
    for j, (low, high) in enumerate(pairwise(bounds), 1):
        compare(xp, f"values[{j}]", high, operator.gt, low, "must exceed the value before")
    check_falling(xp, "frequency", seen)
    budget = (kl + log_constant(xp, n, delta / len(seen), constant)) / n
    rises = (high - low for low, high in pairwise(bounds))
    value = sum((w * inverse(xp, f, budget) for f, w in zip(seen, rises, strict=True)), bounds[0])
    return finish(xp.clip(value, 0.0, None) if clip else value)


def _part(xp: Any, part: Any, width: Any, budget: Any, side: str) -> Any:
    """The kl bound of a mean in [0, width], which is 0 for a width of 0."""
    share = xp.where(width > 0, part / xp.where(width > 0, width, 1.0), 0.5)
    value = width * inverse(xp, xp.clip(share, 0.0, 1.0), budget, side=side)
    return xp.where(width > 0, value, 0.0)


def entries_of(name: str, given: Real) -> dict[str, Real]:
    """The members of a sequence, or those along the last axis, each under a name of its own."""
    if not isinstance(given, (tuple, list)):
        if not getattr(given, "shape", ()):
            raise TypeError(
                f"`{name}` must be a sequence or have a last axis, got {type(given).__name__}."
            )
        given = [given[..., j] for j in range(given.shape[-1])]
    return {f"{name}[{j}]": entry for j, entry in enumerate(given)}


def check_falling(xp: Any, name: str, seen: Sequence[Any]) -> None:
    for j, (high, low) in enumerate(pairwise(seen), 1):
        compare(xp, f"{name}[{j}]", low, at_most, high, "must not exceed the frequency before")
