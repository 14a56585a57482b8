"""Certificates of the predictors of a posterior, from their risks on the certification split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from pbnn.bounds import clopper_pearson, exact
from pbnn.certificates.complexity import is_prior, kl_upper, least_loss_of_right_vote
from pbnn.certificates.known import certify_known, check_splits
from pbnn.certificates.statement import (
    MOST,
    Budget,
    Certificate,
    Provenance,
    stated,
)
from pbnn.evaluation import Risks
from pbnn.layers import statistics_splits
from pbnn.networks import SignNetwork, fingerprint
from pbnn.networks.checks import is_real, is_whole


def certify_gibbs(
    network: nn.Module,
    risks: Risks,
    budget: Budget,
    provenance: Provenance,
    *,
    fixed: bool = False,
) -> Certificate:
    r"""Certificate of the randomised network: its Gibbs risk.

    .. math:: \mathrm{kl}^+\bigl(r^+, (\mathrm{KL} + \ln(2\sqrt n/\delta_1))/n\bigr), \qquad
              r^+ = \mathrm{kl}^+(\hat r, \ln(1/\delta_2)/m) + \text{rounding}

    Parameters
    ----------
    network : module
        Its prior must not depend on the points behind `risks`.
    risks : Risks
        Of `pbnn.evaluation.risks`, or of `pbnn.class_risks`, on the certification split.
    budget : Budget
    provenance : Provenance
    fixed : bool
        That the posterior is the prior whatever the points are: then it is Chernoff's bound,
        without KL and without :math:`2\sqrt n`. Decide it beforehand.
    """
    if fixed and not is_prior(network):
        raise ValueError("`network` must have its prior as its posterior to be fixed.")
    events = budget.events(exact=risks.draws == 0)
    theorem = "chernoff" if fixed else "maurer"
    return _close(theorem, network, risks, budget, events, provenance)


def certify_vote(
    network: nn.Module, risks: Risks, budget: Budget, provenance: Provenance
) -> Certificate:
    """Certificate of the vote: the sign of the aggregate, or the most frequent class.

    It follows from the event of `certify_gibbs` and is never above twice its bound. Of two classes
    it is the better of that and of the tandem bound, another event with its own share of δ, so that
    the minimum is paid for.
    """
    events = budget.events(exact=risks.draws == 0)
    ways = ("derandomised", "tandem") if "tandem" in events else ("derandomised",)
    candidates = [_close(way, network, risks, budget, events, provenance) for way in ways]
    return min(candidates, key=lambda certificate: certificate.bound)


def holdout_bound(errors: int, n: int, budget: Budget, rounding: float) -> float:
    """Binomial upper bound for a predictor fixed without these n points (Clopper and Pearson).

    `errors` counts one fresh network for every point (`errors_of_one_draw_each`), so it is exactly
    binomial with the Gibbs risk, up to the rounding of the probabilities.
    """
    if not is_whole(errors, 0) or not is_whole(n, 1) or n > MOST:
        raise ValueError(f"`errors` and `n` must be integers up to {MOST}, got {errors} of {n}.")
    if not is_real(rounding, 0):
        raise ValueError(f"`rounding` must be a number of at least 0, got {rounding}.")
    upper = exact.upper(clopper_pearson, errors, n, delta=budget.each())
    return min(1.0, math.nextafter(upper + rounding, math.inf))


def certify_one(
    networks: nn.Module | Sequence[nn.Module],
    errors: int,
    n: int,
    budget: Budget,
    provenance: Provenance,
    *,
    log_ratio: float | None = None,
    nats: float | None = None,
    fixed: bool = False,
) -> Certificate:
    r"""Certificate of one predictor: a network that is drawn, has a code, or was fixed beforehand.

    .. math:: \mathrm{kl}^+\Bigl(\frac kn, \frac1n \max\bigl(0, \ln\tfrac{dQ}{dP}(h)
              + \ln\tfrac{2\sqrt n}{\delta_3}\bigr)\Bigr), \qquad
              \mathrm{kl}^+\Bigl(\frac kn, \frac{L(h) + \ln\frac1{\delta_3}}n\Bigr),

    or the binomial tail.

    Parameters
    ----------
    networks : module, or sequence of modules
        The very network whose errors are given, with the batch normalisation that it predicts with.
        Several are a vote, of which the log-ratios, or the lengths of codes, are summed up.
    errors, n : int
        Errors among the certification points, one whose class rounding leaves open among them.
    budget : Budget
        Of the family "classes" for a draw, "coded" for a code, "fixed", or "deployed" for any.
    provenance : Provenance
    log_ratio : float, optional
        `log_ratio_upper` of its weights: one draw, its seed fixed beforehand.
    nats : float, optional
        `code_length` of its weights, which may be any.
    fixed : bool
        That it was known before the points were, with nothing shaped by them: the binomial tail.
        This is the caller's word; no code can see it.

    Raises
    ------
    ValueError
        Among others if batch normalisation is not frozen, or its statistics are of another split
        than the prior's or the feature split: `check_statistics`.
    """
    vote = isinstance(networks, Sequence)
    several = list(networks) if isinstance(networks, Sequence) else [networks]
    for network in several:
        check_statistics(network, provenance)
    identity = " ".join(fingerprint(network) for network in several)
    prices: dict[str, Any] = {"log_ratio": log_ratio, "nats": nats, "fixed": fixed}
    return certify_known(identity, errors, n, budget, provenance, vote=vote, **prices)


def check_statistics(network: nn.Module, provenance: Provenance) -> None:
    """Refuse batch normalisation that certification points may have shaped.

    Statistics, γ and β have no posterior, so no KL pays for them: they must be frozen, and come
    from the prior's or the feature split, by the hash that `freeze_statistics` was given, or by the
    `statistics` that the network names.

    Raises
    ------
    ValueError
        If not.
    """
    told: frozenset[str] = getattr(network, "statistics", frozenset())
    check_splits(statistics_splits(network) | told, provenance)


def _close(
    theorem: str,
    network: nn.Module,
    risks: Risks,
    budget: Budget,
    events: dict[str, float],
    provenance: Provenance,
) -> Certificate:
    check_statistics(network, provenance)
    if risks.network != fingerprint(network):
        raise ValueError("`risks` must be those of `network`, got the risks of another one.")
    kind = int(theorem != "chernoff" and getattr(network, "posterior", None) == "tree")
    second_order = theorem == "tandem"
    risk = risks.tandem if second_order else risks.gibbs
    draws = risks.draws // 2 if second_order else risks.draws
    # A pair of networks gathers the rounding of both.
    rounding = 2 * risks.rounding if second_order else risks.rounding
    lower_right = least_loss_of_right_vote(network) if isinstance(network, SignNetwork) else 0.0
    return stated(
        theorem,
        kind,
        network=risks.network,
        risk=risk,
        draws=draws,
        rounding=rounding,
        kl=0.0 if theorem == "chernoff" else kl_upper(network),
        n=risks.n,
        lower_right=lower_right,
        budget=budget,
        events=events,
        provenance=provenance,
        losses=[list(pair) for pair in risks.losses],
        group=risks.group,
    )
