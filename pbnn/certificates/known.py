"""The certificate of one predictor that is known bit by bit, from its errors and what it costs."""

from __future__ import annotations

import sys
from collections.abc import Set
from numbers import Integral, Real

from pbnn.certificates.statement import (
    PREDICTORS,
    SHARES,
    Budget,
    Certificate,
    Provenance,
    event_of,
    stated,
)

LEAST = -30.0
"""Nats below which ln dQ/dP of a draw of Q, or of several, falls with probability e⁻³⁰ at most."""


def certify_known(
    identity: str,
    errors: int,
    n: int,
    budget: Budget,
    provenance: Provenance,
    *,
    vote: bool = False,
    log_ratio: float | None = None,
    nats: float | None = None,
    fixed: bool = False,
) -> Certificate:
    """`certify_one` of a predictor by its fingerprint; what its statistics come from is checked
    by `check_splits`.

    Parameters
    ----------
    identity : str
        Fingerprint.
    errors, n, budget, provenance, log_ratio, nats, fixed
        As for `certify_one`.
    vote : bool
        Whether it is a vote of several.
    """
    if not (isinstance(errors, Integral) and isinstance(n, Integral)):
        raise TypeError(f"`errors` and `n` must be integers, got {errors!r} of {n!r}.")
    for price in (log_ratio, nats):
        if price is not None and not isinstance(price, Real):
            raise TypeError(f"`log_ratio` and `nats` must be numbers, got {price!r}.")
        if price is not None and not abs(price) <= sys.float_info.max:
            raise ValueError(f"`log_ratio` and `nats` must be finite, got {price}.")
    if log_ratio is not None and not log_ratio >= LEAST:
        raise ValueError(
            f"`log_ratio` must be at least {LEAST}, below which no draw of its own posterior "
            f"comes, got {log_ratio}."
        )
    if not 0 <= errors <= n or n < 1:
        raise ValueError(f"`errors` must lie in 0, …, n, got {errors} of {n}.")
    priced = {"rivasplata": log_ratio, "occam": nats}
    given = {theorem: float(price) for theorem, price in priced.items() if price is not None}
    if len(given) + fixed != 1:
        raise ValueError(
            "`log_ratio`, `nats` or `fixed` must be given, one of them, got "
            f"{log_ratio}, {nats} and {fixed}."
        )
    theorem, kl = given.popitem() if given else ("clopper_pearson", 0.0)
    events = budget.events(exact=True)
    event = event_of(PREDICTORS[theorem][vote], events)
    if event not in events:
        pays = [family for family, shares in SHARES.items() if event in shares.get(True, {})]
        raise ValueError(f"`budget` must be of a family of {pays}, got {budget.family!r}.")
    return stated(
        theorem,
        int(vote),
        network=identity,
        risk=errors / n,
        kl=kl,
        n=n,
        budget=budget,
        events=events,
        provenance=provenance,
    )


def check_splits(splits: Set[str | None], provenance: Provenance) -> None:
    """Refuse statistics of batch normalisation that come from elsewhere than prior or features.

    Parameters
    ----------
    splits : set of str or None
        Hashes as `pbnn.layers.statistics_splits` gives them.
    """
    allowed = {provenance.splits.get(name) for name in ("prior", "feature")} - {None}
    if odd := splits - allowed:
        of_what = {split: name for name, split in provenance.splits.items()}
        told = sorted("not frozen" if s is None else of_what.get(s, "unknown") for s in odd)
        raise ValueError(
            "`network` must have batch normalisation frozen on the prior's or the feature split, "
            f"got {', '.join(told)}. Say where it comes from by `freeze_statistics`, or "
            "`pack(…, statistics=…)` for batch normalisation of torch."
        )
