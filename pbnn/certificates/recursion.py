"""The certificate of a posterior at the end of a chain of priors, each learned on more data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from pbnn.bounds import recursive, recursive_excess
from pbnn.certificates.issue import check_statistics
from pbnn.certificates.statement import Budget, Certificate, Provenance, stated
from pbnn.networks import fingerprint

GAMMAS = [k / 20 for k in range(1, 21)]
"""Weights of the posterior before, among which the least bound is taken: no event depends on it."""


@dataclass(frozen=True)
class Step:
    """A posterior on the points that the one before it, its prior, has not seen.

    Attributes
    ----------
    kl : float
        From the posterior before, `kl_upper`.
    wrong : Tensor of bool, shape (n,)
        Whether a network drawn for that point errs.
    prior_wrong : Tensor of bool, shape (n,), optional
        The same for the posterior before, drawn independently; none of the first.
    """

    kl: float
    wrong: Tensor
    prior_wrong: Tensor | None = None


def certify_recursive(
    network: nn.Module, steps: Sequence[Step], budget: Budget, provenance: Provenance
) -> Certificate:
    """Certificate of the last of several posteriors, the bound `pbnn.bounds.recursive`.

    Parameters
    ----------
    network : module
        With the last posterior, whose draws the last step has.
    steps : sequence of Step
        Their number, and which points each uses, must not depend on the points.
    budget : Budget
        Of the family "recursive".
    provenance : Provenance

    References
    ----------
    Wu, Zhang, Chérief-Abdellatif, Seldin (2024). Recursive PAC-Bayes. NeurIPS.
    https://arxiv.org/abs/2405.14681
    """
    check_statistics(network, provenance)
    if not steps or any((step.prior_wrong is None) != (k == 0) for k, step in enumerate(steps)):
        raise ValueError("`steps` must have draws of the posterior before, all but the first.")
    sizes = [len(step.wrong) for step in steps]
    if any(after >= before for before, after in pairwise(sizes)):
        raise ValueError(f"`steps` must leave fewer points each time, got {sizes}.")
    events = budget.events(exact=False)
    rows = [_told(step) for step in steps]
    shares: dict[str, Any] = {
        "delta": events["gibbs"] / len(rows),
        "delta_mc": events["gibbs_draws"] / len(rows),
    }
    first = rows[0]
    bound = recursive([first["frequency"]], [first["kl"]], [first["n"]], gamma=[], **shares)
    for row in rows[1:]:
        arguments = row["frequency"], row["kl"], row["n"]
        found = {
            gamma: recursive_excess(*arguments, gamma=gamma, steps=1, clip=False, **shares)
            + gamma * bound
            for gamma in GAMMAS
        }
        row["gamma"], bound = min(found.items(), key=lambda item: item[1])
    return stated(
        "recursive",
        network=fingerprint(network),
        risk=float(steps[-1].wrong.double().mean()),
        draws=len(steps[-1].wrong),
        kl=sum(row["kl"] for row in rows),
        n=first["n"],
        budget=budget,
        events=events,
        provenance=provenance,
        steps=rows,
    )


def _told(step: Step) -> dict[str, Any]:
    """What a certificate keeps of a step."""
    risk, frequency = float(step.wrong.double().mean()), None
    if step.prior_wrong is not None:
        saved = float((~step.wrong & step.prior_wrong).double().mean())
        lost = float((step.wrong & ~step.prior_wrong).double().mean())
        frequency = [_up(1 - saved), _up(risk), _up(lost)]
    return {"frequency": frequency or _up(risk), "kl": step.kl, "n": len(step.wrong)}


def _up(frequency: float) -> float:
    """A quotient that was rounded to the nearest number, rounded up."""
    return min(1.0, math.nextafter(frequency, math.inf)) if frequency else 0.0
