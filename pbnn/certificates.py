"""Certificates: a bound together with everything needed to compute it again."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
from dataclasses import dataclass
from typing import Any

import torch

import pbnn
from pbnn.bounds import (
    clopper_pearson,
    delta_each,
    derandomised,
    exact,
    maurer,
    monte_carlo,
    share_delta,
    tandem,
)
from pbnn.evaluation import Risks
from pbnn.files import read_json, write_json
from pbnn.networks import SignNetwork, fingerprint
from pbnn.quadrature import UNIT_ROUNDOFF

SCHEMA_VERSION = 1

SHARES = {
    True: {"gibbs": 0.95, "tandem": 0.05},
    False: {"gibbs": 0.85, "gibbs_draws": 0.1, "tandem": 0.025, "tandem_draws": 0.025},
}
"""Share of δ of each event, by whether the risks are exact; the same for every certificate. The
second-order bound rarely wins, so it gets little."""

THEOREMS = {
    "maurer": "PAC-Bayes-kl (Maurer 2004; Langford and Seeger 2001)",
    "derandomised": "(Bnd − b)/(c − b) (Leblanc and Germain 2025) on the Gibbs bound",
    "tandem": "second-order bound (Masegosa et al. 2020)",
}


PREDICTORS = {
    "maurer": ("randomised network", "randomised tree"),
    "derandomised": ("vote", "vote of trees"),
    "tandem": ("vote", "vote of trees"),
}
"""Whom a theorem speaks of: networks with one set of weights, or a `PBGNet` of several layers."""


@dataclass(frozen=True)
class Budget:
    """How the probability of failure δ is spent in a study.

    Attributes
    ----------
    delta : float
        Probability that any certificate of the row fails, over data and draws.
    seeds : int
        Number of runs that are averaged: each gets δ/seeds, so that their mean is itself a bound.
    choices : int
        Length of the list of priors the reported one was chosen from, with these data in sight;
        divides δ once more, that is, costs ln(choices) nats. The list must be fixed beforehand:
        nothing pays for a prior that was made from the certificates of others.
    """

    delta: float = 0.05
    seeds: int = 1
    choices: int = 1000

    def each(self) -> float:
        """Probability of failure left for one network: δ/(seeds · choices), rounded down."""
        return delta_each(self.delta, self.seeds * self.choices)

    def events(self, *, exact: bool) -> dict[str, float]:
        """δ of every event of one network; all of them hold at once with probability 1 − each()."""
        return share_delta(self.each(), SHARES[exact])


@dataclass(frozen=True)
class Provenance:
    """Where the network and the points come from.

    Attributes
    ----------
    prior : str
        What the prior is and on which data it was chosen.
    seed : int
        Seed of prior, training and draws.
    splits : dict
        Hash of each split; `certification` is the one the bound was computed on.
    """

    prior: str
    seed: int
    splits: dict[str, str]


@dataclass(frozen=True)
class Certificate:
    """An upper bound on the risk of a named predictor, and all that went into it.

    Attributes
    ----------
    predictor : str
        "randomised network" or "randomised tree" (a fresh one of the posterior for every
        prediction), "vote" or "vote of trees" (the sign of the aggregate): see `PREDICTORS`.
    bound : float
        The predictor's risk is at most this, with probability at least 1 − δ/(seeds · choices)
        for this network alone, and 1 − δ for all that `budget` counts.
    theorem : str
        Key of `THEOREMS`.
    risk : float
        Empirical figure that entered: the Gibbs risk, or the tandem risk for "tandem".
    risk_upper : float
        The same after rounding and, with draws, the Monte-Carlo step.
    draws : int
        Independent draws behind `risk`; 0 if exact.
    rounding : float
        Allowance for floating-point error, included in `risk_upper`.
    kl : float
        KL(Q‖P) in nats, rounded up.
    n : int
        Size of the certification split.
    lower_right : float
        Least Gibbs loss where the vote is right (b of "derandomised"), else 0.
    budget : Budget
    events : dict
        δ of each event: bound and Monte-Carlo step.
    provenance : Provenance
    versions : dict
    schema_version : int
    """

    predictor: str
    bound: float
    theorem: str
    risk: float
    risk_upper: float
    draws: int
    rounding: float
    kl: float
    n: int
    lower_right: float
    budget: Budget
    events: dict[str, float]
    provenance: Provenance
    versions: dict[str, str]
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any], where: str = "certificate") -> Certificate:
        """Rebuild a certificate, refusing missing, unknown or ill-typed fields."""
        types = {
            "predictor": str,
            "theorem": str,
            "draws": int,
            "n": int,
            "budget": dict,
            "events": dict,
            "provenance": dict,
            "versions": dict,
            "schema_version": int,
        }
        names = {field.name for field in dataclasses.fields(cls)}
        if set(record) != names:
            odd = sorted(set(record) ^ names)
            raise ValueError(f"{where}: missing or unknown fields {odd}.")
        for name, value in record.items():
            kind = types.get(name, float)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{where}: `{name}` must be a {kind.__name__}, got {value!r}.")
        try:
            budget = Budget(**record["budget"])
            provenance = Provenance(**record["provenance"])
        except TypeError as error:
            raise ValueError(f"{where}: {error}.") from error
        return cls(**{**record, "budget": budget, "provenance": provenance})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Certificate:
        """Read and check the arithmetic; damaged, newer or untrue files are a ValueError."""
        certificate = cls.from_dict(read_json(path, "certificate", SCHEMA_VERSION), str(path))
        verify(certificate, str(path))
        return certificate


def certify_gibbs(
    network: SignNetwork, risks: Risks, budget: Budget, provenance: Provenance
) -> Certificate:
    r"""Certificate of the randomised network: its Gibbs risk, the mean of (1 − yF)/2.

    .. math:: \mathrm{kl}^+\bigl(r^+, (\mathrm{KL} + \ln(2\sqrt n/\delta_1))/n\bigr), \qquad
              r^+ = \mathrm{kl}^+(\hat r, \ln(1/\delta_2)/m) + \text{rounding}

    Parameters
    ----------
    network : SignNetwork
        Its prior must not depend on the points behind `risks`.
    risks : Risks
        Of `pbnn.evaluation.risks` on the certification split.
    budget : Budget
    provenance : Provenance
    """
    events = budget.events(exact=risks.draws == 0)
    return _close("maurer", network, risks, budget, events, provenance)


def certify_vote(
    network: SignNetwork, risks: Risks, budget: Budget, provenance: Provenance
) -> Certificate:
    """Certificate of the vote sgn F: the better of two legitimate ways.

    The first follows from the event of `certify_gibbs` and is never above twice its bound. The
    tandem bound is another event with its own share of δ, so taking the minimum is paid for.
    """
    events = budget.events(exact=risks.draws == 0)
    candidates = [
        _close(theorem, network, risks, budget, events, provenance)
        for theorem in ("derandomised", "tandem")
    ]
    return min(candidates, key=lambda certificate: certificate.bound)


def holdout_bound(errors: int, n: int, budget: Budget, rounding: float) -> float:
    """Binomial upper bound for a predictor fixed without these n points (Clopper and Pearson).

    `errors` counts one fresh network for every point (`errors_of_one_draw_each`), so it is exactly
    binomial with the Gibbs risk, up to the rounding of the probabilities.
    """
    upper = exact.upper(clopper_pearson, errors, n, delta=budget.each())
    return min(1.0, math.nextafter(upper + rounding, math.inf))


def recertified(certificate: Certificate) -> Certificate:
    """The same statement with its bound computed again from its ingredients, rounded outward.

    Raises
    ------
    ValueError
        If the bound that stands there does not agree with its ingredients.
    """
    c = certificate
    verify(c)
    upper = _risk_upper(c.theorem, c.risk, c.draws, c.rounding, c.events)
    bound = _bound(c.theorem, upper, c.kl, c.n, c.lower_right, c.events)
    return dataclasses.replace(c, risk_upper=upper, bound=bound)


def verify(certificate: Certificate, where: str = "certificate") -> None:
    """Compute the bound again from its ingredients; a ValueError says what does not agree."""
    c = certificate
    try:
        if c.theorem not in THEOREMS:
            raise ValueError(f"`theorem` must be one of {sorted(THEOREMS)}, got {c.theorem!r}")
        if c.predictor not in PREDICTORS[c.theorem]:
            raise ValueError(f"`predictor` {c.predictor!r} does not go with {c.theorem!r}")
        if c.events != c.budget.events(exact=c.draws == 0):
            raise ValueError(f"`events` {c.events} are not the shares of `budget` {c.budget}")
        if not (c.rounding >= 0 and 0 <= c.lower_right < 0.5):
            raise ValueError(f"`rounding` {c.rounding} or `lower_right` {c.lower_right} is no such")
        upper = _risk_upper(c.theorem, c.risk, c.draws, c.rounding, c.events)
        bound = _bound(c.theorem, c.risk_upper, c.kl, c.n, c.lower_right, c.events)
        for name, found, true in (("risk_upper", c.risk_upper, upper), ("bound", c.bound, bound)):
            # Another library's logarithm may differ in the last places.
            if not abs(found - true) <= 1e-12 * true:
                raise ValueError(f"`{name}` is {found!r}, but its ingredients give {true!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{where} does not hold: {error}.") from error


def _close(
    theorem: str,
    network: SignNetwork,
    risks: Risks,
    budget: Budget,
    events: dict[str, float],
    provenance: Provenance,
) -> Certificate:
    if risks.network != fingerprint(network):
        raise ValueError("`risks` must be those of `network`, got the risks of another one.")
    tree = int(network.posterior == "tree")
    second_order = theorem == "tandem"
    risk = risks.tandem if second_order else risks.gibbs
    draws = risks.draws // 2 if second_order else risks.draws
    # A pair of networks gathers the rounding of both.
    rounding = 2 * risks.rounding if second_order else risks.rounding
    kl, lower_right = kl_upper(network), least_loss_of_right_vote(network)
    risk_upper = _risk_upper(theorem, risk, draws, rounding, events)
    return Certificate(
        predictor=PREDICTORS[theorem][tree],
        bound=_bound(theorem, risk_upper, kl, risks.n, lower_right, events),
        theorem=theorem,
        risk=risk,
        risk_upper=risk_upper,
        draws=draws,
        rounding=rounding,
        kl=kl,
        n=risks.n,
        lower_right=lower_right,
        budget=budget,
        events=events,
        provenance=provenance,
        versions=versions(),
    )


def _risk_upper(
    theorem: str, risk: float, draws: int, rounding: float, events: dict[str, float]
) -> float:
    """Empirical risk after the Monte-Carlo step and the allowance for rounding."""
    if draws:
        event = events["tandem_draws" if theorem == "tandem" else "gibbs_draws"]
        risk = exact.upper(monte_carlo, risk, draws, delta=event)
    return min(1.0, math.nextafter(risk + rounding, math.inf))


def _bound(
    theorem: str, risk: float, kl: float, n: int, lower_right: float, events: dict[str, float]
) -> float:
    if theorem == "tandem":
        return exact.upper(tandem, risk, kl, n, delta=events["tandem"])
    gibbs = exact.upper(maurer, risk, kl, n, delta=events["gibbs"])
    if theorem == "maurer":
        return gibbs
    # No vote is bounded by a Gibbs bound above ½; one below b can only come of the rare event.
    if not lower_right <= gibbs < 0.5:
        return 1.0
    return exact.upper(derandomised, gibbs, lower_right, 0.5)


def kl_upper(network: SignNetwork) -> float:
    """KL(Q‖P) in nats computed in float64 and rounded up by the worst case of its summation."""
    total, terms = 0.0, 0
    for copies, layer in zip(network.copies(), network.layers(), strict=True):
        posterior = layer.weight
        difference = posterior.mean.detach().double() - posterior.prior_mean.double()
        total += copies * float(difference.square().sum()) / 2
        terms += difference.numel()
    return total * (1 + 2 * (terms + 8) * UNIT_ROUNDOFF)


def least_loss_of_right_vote(network: SignNetwork) -> float:
    r"""Lower bound, for every input, on the Gibbs loss: b = ½ erfc(t/√2), rounded down.

    Wherever the vote is right the loss (1 − |F|)/2 is at least this, with t the largest argument of
    the output unit: ‖w‖₁/√d for d hidden signs (a bias joins the norm and the count), ‖w‖₂ for a
    single unit on real inputs. Without a bias that unit has no loss at all where its input is zero,
    since sgn 0 = +1 for every draw, so b = 0.
    """
    if not network.widths and not network.bias:
        return 0.0
    weight = network.output.weight.mean.detach().double()
    if network.widths:
        argument = float(weight.abs().sum()) / math.sqrt(2 * weight.shape[1])
    else:
        argument = float(weight.norm()) / math.sqrt(2)
    # erfc falls by at most a factor 1 + 2z² · (relative error) when its argument is rounded.
    slack = (weight.numel() + 8) * UNIT_ROUNDOFF * (1 + 2 * argument**2)
    return max(0.0, math.erfc(argument) / 2 * (1 - 4 * slack))


def versions() -> dict[str, str]:
    """Versions of what computed a certificate."""
    return {
        "pbnn": pbnn.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
