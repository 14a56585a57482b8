"""Certificates of the predictors of a posterior, from their risks on the certification split."""

from __future__ import annotations

import math

from torch import nn

from pbnn.bounds import clopper_pearson, exact
from pbnn.certificates.complexity import kl_upper, least_loss_of_right_vote
from pbnn.certificates.statement import Budget, Certificate, Provenance, stated
from pbnn.evaluation import Risks
from pbnn.networks import SignNetwork, fingerprint


def certify_gibbs(
    network: nn.Module, risks: Risks, budget: Budget, provenance: Provenance
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
    """
    events = budget.events(exact=risks.draws == 0)
    return _close("maurer", network, risks, budget, events, provenance)


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
    upper = exact.upper(clopper_pearson, errors, n, delta=budget.each())
    return min(1.0, math.nextafter(upper + rounding, math.inf))


def certify_one(
    errors: int,
    n: int,
    log_ratio: float | None,
    budget: Budget,
    provenance: Provenance,
    *,
    vote: bool = False,
) -> Certificate:
    r"""Certificate of one network: drawn once from the posterior, or fixed beforehand.

    .. math:: \mathrm{kl}^+\Bigl(\frac kn, \frac1n \max\bigl(0, \ln\tfrac{dQ}{dP}(h)
              + \ln\tfrac{2\sqrt n}{\delta_3}\bigr)\Bigr)

    Parameters
    ----------
    errors, n : int
        Errors among the certification points, one whose class rounding leaves open among them.
    log_ratio : float or None
        `log_ratio_upper` of its weights: one draw, its seed fixed beforehand. None for a network
        that was known before these points; its bound is the binomial tail.
    budget : Budget
        Of the family "classes".
    provenance : Provenance
    vote : bool
        Whether it is the vote of several networks that were known before: an event of its own
        beside that of one network, with its own share of δ.
    """
    if not 0 <= errors <= n or n < 1:
        raise ValueError(f"`errors` must lie in 0, …, n, got {errors} of {n}.")
    if vote and log_ratio is not None:
        raise ValueError("`vote` must be of fixed networks, got the log-ratio of a drawn one.")
    theorem, kl = ("clopper_pearson", 0.0) if log_ratio is None else ("rivasplata", log_ratio)
    return stated(
        theorem,
        int(vote),
        risk=errors / n,
        kl=kl,
        n=n,
        budget=budget,
        events=budget.events(exact=True),
        provenance=provenance,
    )


def _close(
    theorem: str,
    network: nn.Module,
    risks: Risks,
    budget: Budget,
    events: dict[str, float],
    provenance: Provenance,
) -> Certificate:
    if risks.network != fingerprint(network):
        raise ValueError("`risks` must be those of `network`, got the risks of another one.")
    tree = int(getattr(network, "posterior", None) == "tree")
    second_order = theorem == "tandem"
    risk = risks.tandem if second_order else risks.gibbs
    draws = risks.draws // 2 if second_order else risks.draws
    # A pair of networks gathers the rounding of both.
    rounding = 2 * risks.rounding if second_order else risks.rounding
    lower_right = least_loss_of_right_vote(network) if isinstance(network, SignNetwork) else 0.0
    return stated(
        theorem,
        tree,
        risk=risk,
        draws=draws,
        rounding=rounding,
        kl=kl_upper(network),
        n=risks.n,
        lower_right=lower_right,
        budget=budget,
        events=events,
        provenance=provenance,
        losses=[list(pair) for pair in risks.losses],
        group=risks.group,
    )
