"""Certificates: a bound together with everything needed to compute it again."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from importlib import metadata
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

import pbnn
from pbnn.bounds import (
    betting,
    clopper_pearson,
    delta_each,
    derandomised,
    exact,
    maurer,
    monte_carlo,
    occam,
    recursive,
    rivasplata,
    share_delta,
    tandem,
)
from pbnn.files import read_json, write_json

SCHEMA_VERSION = 1
MOST = 2**31
"""Examples, or draws, of a certificate that is checked: of very many more it takes for ever."""

SHARES: dict[str, dict[bool, dict[str, float]]] = {
    "signs": {
        True: {"gibbs": 0.95, "tandem": 0.05},
        False: {"gibbs": 0.85, "gibbs_draws": 0.1, "tandem": 0.025, "tandem_draws": 0.025},
    },
    "classes": {
        True: {"gibbs": 0.6, "single": 0.4},
        False: {"gibbs": 0.5, "gibbs_draws": 0.1, "single": 0.4},
    },
    "fixed": {
        True: {"gibbs": 0.5, "fixed": 0.25, "fixed_vote": 0.25},
        False: {"gibbs": 0.4, "gibbs_draws": 0.1, "fixed": 0.25, "fixed_vote": 0.25},
    },
    "recursive": {False: {"gibbs": 0.8, "gibbs_draws": 0.2}},
    "coded": {
        True: {"gibbs": 0.5, "single": 0.25, "coded": 0.25},
        False: {"gibbs": 0.4, "gibbs_draws": 0.1, "single": 0.25, "coded": 0.25},
    },
    "deployed": {True: {"deployed": 1.0}},
}
"""Share of δ of each event, by the family of predictors that are certified together and by whether
the risks are exact. Of two classes the second-order bound rarely wins, so it gets little."""

THEOREMS = {
    "maurer": "PAC-Bayes-kl (Maurer 2004; Langford and Seeger 2001)",
    "derandomised": "(Bnd − b)/(c − b) (Leblanc and Germain 2025) on the Gibbs bound",
    "tandem": "second-order bound (Masegosa et al. 2020)",
    "rivasplata": "disintegrated bound of one draw (Rivasplata et al. 2020)",
    "recursive": "Recursive PAC-Bayes (Wu et al. 2024)",
    "clopper_pearson": "binomial bound of a network fixed beforehand (Clopper and Pearson 1934)",
    "chernoff": "Chernoff bound of a randomised network fixed beforehand",
    "occam": "code-length bound (Blumer et al. 1987; Langford 2005)",
}


PREDICTORS = {
    "maurer": ("randomised network", "randomised tree"),
    "derandomised": ("vote", "vote of trees"),
    "tandem": ("vote", "vote of trees"),
    "recursive": ("randomised network",),
    "rivasplata": ("drawn network", "drawn vote"),
    "clopper_pearson": ("fixed network", "fixed vote"),
    "chernoff": ("fixed randomised network",),
    "occam": ("coded network", "coded vote"),
}
"""Whom a theorem speaks of: networks with one set of weights, or a `PBGNet` of several layers."""

EVENTS = {
    "drawn network": "single",
    "drawn vote": "single",
    "fixed network": "fixed",
    "fixed vote": "fixed_vote",
    "coded network": "coded",
    "coded vote": "coded",
}
"""On which share of δ the certificate of one known predictor stands, if there are several."""


KNOWN = ("rivasplata", "clopper_pearson", "occam")
"""Theorems on one predictor, whose errors are counted."""
FIXED = ("clopper_pearson", "chernoff")
"""Theorems on what no divergence or code pays for."""


def event_of(predictor: str, events: dict[str, float]) -> str:
    """The event that the certificate of one known predictor stands on."""
    return "deployed" if "deployed" in events else EVENTS[predictor]


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
    family : {"signs", "classes", "coded", "fixed", "recursive", "deployed"}
        Which predictors share δ, a key of `SHARES`. "signs": random network and vote of two
        classes. Of several classes, "classes": random network, its vote, and one drawn network;
        "coded": random network, one drawn, and the most probable one by the length of its code;
        "fixed": a random network, one network and one vote that were fixed beforehand; "recursive":
        a random network at the end of a chain of priors; "deployed": the one network or vote that
        is deployed, drawn, coded or fixed, and nothing beside it. Each event is for one
        certificate: two drawn networks need two budgets.

    Raises
    ------
    TypeError, ValueError
        If `delta` is no number in (0, 1), or `seeds` or `choices` no positive integer.
    """

    delta: float = 0.05
    seeds: int = 1
    choices: int = 1000
    family: Literal["signs", "classes", "coded", "fixed", "recursive", "deployed"] = "signs"

    def __post_init__(self) -> None:
        if not isinstance(self.delta, Real):
            raise TypeError(f"`delta` must be a number, got {self.delta!r}.")
        if not 0 < self.delta < 1:
            raise ValueError(f"`delta` must lie in (0, 1), got {self.delta!r}.")
        for name, count in (("seeds", self.seeds), ("choices", self.choices)):
            if not isinstance(count, Integral) or isinstance(count, bool):
                raise TypeError(f"`{name}` must be an integer, got {count!r}.")
            if count < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {count!r}.")

    def each(self) -> float:
        """Probability of failure left for one network: δ/(seeds · choices), rounded down."""
        return delta_each(self.delta, self.seeds * self.choices)

    def events(self, *, exact: bool) -> dict[str, float]:
        """δ of every event of one network; all of them hold at once with probability 1 − each()."""
        if self.family not in SHARES:
            raise ValueError(f"`family` must be one of {sorted(SHARES)}, got {self.family!r}.")
        return share_delta(self.each(), SHARES[self.family][exact])


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
        prediction), "vote" or "vote of trees" (the sign of the aggregate, or the most frequent
        class), "drawn network" and "drawn vote" (drawn once, after the posterior was fixed; of a
        vote all members), "coded network" and "coded vote" (any that have a code), "fixed network",
        "fixed vote" or "fixed randomised network" (known before the certification points were): see
        `PREDICTORS`.
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
        KL(Q‖P) in nats, rounded up; of a drawn network ln dQ/dP, of a coded one the length of its
        code, of a vote the sum over its members, of a fixed one 0; of "recursive" the sum over its
        steps.
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
    losses : list of [loss, count]
        The draws' losses, if groups of points share a network: errors over the group's size. The
        Monte-Carlo step is then `pbnn.bounds.betting`, else `pbnn.bounds.monte_carlo`.
    group : int
        The size of a group; the last of a pass over the points may have fewer.
    network : str
        Fingerprint of the network, or of the posterior of a random one.
    steps : list of dict
        Of "recursive", in order: ``frequency``, ``kl``, ``n`` and from the second on ``gamma``.
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
    losses: list[list[float]] = dataclasses.field(default_factory=list)
    group: int = 1
    network: str = ""
    steps: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        """The statement in one sentence, its bound rounded up and 1 − δ rounded down.

        Examples
        --------
        >>> given = {"risk": 0.02, "kl": 0.0, "n": 100, "events": {"deployed": 0.05}}
        >>> given |= {"budget": Budget(0.05, choices=1, family="deployed")}
        >>> print(stated("clopper_pearson", provenance=Provenance("by hand", 0, {}), **given))
        With probability at least 95% over the draw of 100 points, the fixed network errs on at most
        6.2% of new points.
        """
        return told([self])

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
            "losses": list,
            "group": int,
            "network": str,
            "steps": list,
        }
        names = {field.name for field in dataclasses.fields(cls)}
        if odd := sorted((set(record) ^ names) - {"losses", "group", "steps", "network"}):
            raise ValueError(f"{where}: missing or unknown fields {odd}.")
        for name, value in record.items():
            kind = types.get(name, float)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{where}: `{name}` must be a {kind.__name__}, got {value!r}.")
        try:
            budget = Budget(**record["budget"])
            provenance = Provenance(**record["provenance"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {str(error).rstrip('.')}.") from error
        _check_parts(record, budget, provenance, where)
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


def _check_parts(
    record: dict[str, Any], budget: Budget, provenance: Provenance, where: str
) -> None:
    """Refuse what is of another type inside of a field."""
    parts: list[tuple[str, object, type]] = [
        ("budget", budget.family, str),
        ("provenance", provenance.prior, str),
        ("provenance", provenance.seed, int),
        ("provenance", provenance.splits, dict),
    ]
    splits = provenance.splits if isinstance(provenance.splits, dict) else {}
    parts += [("provenance", split, str) for split in splits.values()]
    parts += [("events", delta, float) for delta in record["events"].values()]
    parts += [("versions", version, str) for version in record["versions"].values()]
    parts += [("losses", pair, list) for pair in record.get("losses", [])]
    parts += [("steps", step, dict) for step in record.get("steps", [])]
    for name, value, kind in parts:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{where}: `{name}` must hold a {kind.__name__}, got {value!r}.")


def draws_of(certificate: Certificate) -> list[str]:
    """Draws over which a certificate's probability is, beside those of its points, in words."""
    c, found = certificate, []
    if c.predictor.startswith("drawn"):
        found.append("the draw of the network" + "s" * (c.predictor == "drawn vote"))
    if c.draws:
        found.append(f"the {c.draws:,} draws that estimate the empirical risk")
    return found


def told(certificates: Iterable[Certificate]) -> str:
    """Certificates of one budget that hold at once, in one sentence, rounded to the safe side."""
    each = list(certificates)
    if len({(one.n, one.budget) for one in each}) != 1:
        raise ValueError("`certificates` must be one or more of one budget and n.")
    budget = each[0].budget
    *firsts, last = dict.fromkeys(
        [f"the draw of {each[0].n} points", *(draw for one in each for draw in draws_of(one))]
    )
    over = f"{', '.join(firsts)} and {last}" if firsts else last
    with localcontext() as context:
        context.rounding = ROUND_FLOOR  # 1 − δ of a tiny δ is less than 1
        sure = _rounded(100 * (1 - Decimal(str(float(budget.delta)))), "1e-6", ROUND_FLOOR)
    parts = [
        f"the {one.predictor} {'' if place else 'errs '}on at most "
        f"{_rounded(100 * Decimal(one.bound), '0.1', ROUND_CEILING)}%"
        for place, one in enumerate(each)
    ]
    paid = f"; the choice among {budget.choices} is paid for" if budget.choices > 1 else ""
    return f"With probability at least {sure}% over {over}, {', '.join(parts)} of new points{paid}."


def _rounded(percent: Decimal, unit: str, rounding: str) -> str:
    return f"{percent.quantize(Decimal(unit), rounding).normalize():f}"


def recertified(certificate: Certificate) -> Certificate:
    """The same statement with its bound computed again from its ingredients, rounded outward.

    Raises
    ------
    ValueError
        If the bound that stands there does not agree with its ingredients.
    """
    verify(certificate)
    return closed(certificate)


def verify(certificate: Certificate, where: str = "certificate") -> None:
    """Compute the bound again from its ingredients; a ValueError says what does not agree."""
    if not isinstance(certificate, Certificate):
        got = type(certificate).__name__
        hint = (
            ": `Certificate.load(path)` reads one"
            if isinstance(certificate, str | os.PathLike)
            else ""
        )
        raise TypeError(f"`certificate` must be a Certificate, got {got}{hint}.")
    c = certificate
    try:
        if c.theorem not in THEOREMS:
            raise ValueError(f"`theorem` must be one of {sorted(THEOREMS)}, got {c.theorem!r}")
        if c.predictor not in PREDICTORS[c.theorem]:
            raise ValueError(f"`predictor` {c.predictor!r} does not go with {c.theorem!r}")
        if c.events != c.budget.events(exact=c.draws == 0):
            raise ValueError(f"`events` {c.events} are not the shares of `budget` {c.budget}")
        if not (0 < c.n <= MOST and 0 <= c.draws <= MOST):
            raise ValueError(f"`n` {c.n} or `draws` {c.draws} is more than {MOST}, or none")
        if not (c.rounding >= 0 and 0 <= c.lower_right < 0.5):
            raise ValueError(f"`rounding` {c.rounding} or `lower_right` {c.lower_right} is no such")
        _check_ingredients(c)
        true = closed(c)
        # From the upper risk that stands there: it is checked by itself.
        bound = _bound(dataclasses.replace(true, risk_upper=c.risk_upper))
        for name, found, right in (
            ("risk_upper", c.risk_upper, true.risk_upper),
            ("bound", c.bound, bound),
        ):
            # Another library's logarithm may differ in the last places.
            if not abs(found - right) <= 1e-12 * right:
                raise ValueError(f"`{name}` is {found!r}, but its ingredients give {right!r}")
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{where} does not hold: {error}.") from error


def _check_ingredients(c: Certificate) -> None:
    """Refuse ingredients that contradict each other, of which the bound may see nothing."""
    if not 0 <= c.risk <= 1:
        raise ValueError(f"`risk` must lie in [0, 1], got {c.risk}")
    if c.theorem in FIXED and c.kl != 0:
        raise ValueError(f"`kl` of what was fixed beforehand must be 0, got {c.kl}")
    if c.theorem in KNOWN and (c.draws or round(c.risk * c.n) / c.n != c.risk):
        raise ValueError(f"`risk` must be of errors that were counted, got {c.risk} of {c.n}")
    if (c.theorem == "recursive") != bool(c.steps):
        raise ValueError(f"`steps` must be those of a recursion, got {len(c.steps)}")
    if c.steps:
        told = c.n, c.draws, c.kl
        right = c.steps[0]["n"], c.steps[-1]["n"], sum(step["kl"] for step in c.steps)
        if told != right:
            raise ValueError(
                f"`n`, `draws` and `kl` must be those of the steps, {right}, got {told}"
            )
    if c.lower_right > c.risk_upper:
        raise ValueError(
            f"`lower_right` must not exceed the risk, {c.risk_upper}, as each loss is at least "
            f"that; got {c.lower_right}"
        )
    if any(count < 1 or not float(count).is_integer() for _, count in c.losses):
        raise ValueError("`losses` must have whole positive counts, got others")
    if c.group < 1 or (c.losses and not c.draws):
        raise ValueError(f"`group` {c.group} or `losses` must be of draws, got {c.draws}")


def stated(theorem: str, kind: int = 0, **given: Any) -> Certificate:
    """A certificate from what it needs: the predictor of that kind, with nothing drawn or rounded
    unless that is given, and with its bound."""
    plain: dict[str, Any] = {"draws": 0, "rounding": 0.0, "lower_right": 0.0}
    plain |= {"predictor": PREDICTORS[theorem][kind], "theorem": theorem, "versions": versions()}
    return closed(Certificate(**(plain | {"risk_upper": 1.0, "bound": 1.0} | given)))


def closed(certificate: Certificate) -> Certificate:
    """With `risk_upper` and `bound` computed from all the other fields, rounded outward."""
    with_risk = dataclasses.replace(certificate, risk_upper=_risk_upper(certificate))
    return dataclasses.replace(with_risk, bound=_bound(with_risk))


def _risk_upper(c: Certificate) -> float:
    """Empirical risk after the Monte-Carlo step and the allowance for rounding."""
    risk = c.risk
    if c.draws and c.theorem != "recursive":
        delta = c.events["tandem_draws" if c.theorem == "tandem" else "gibbs_draws"]
        risk = (
            _betting(c, delta) if c.losses else exact.upper(monte_carlo, risk, c.draws, delta=delta)
        )
    return min(1.0, math.nextafter(risk + c.rounding, math.inf))


def _betting(c: Certificate, delta: float) -> float:
    """The Monte-Carlo step of draws that groups of points share, the last group filled up."""
    groups = math.ceil(c.n / c.group)
    values, counts = np.array(c.losses).T
    fill = groups * c.group / c.n
    if counts.sum() != c.draws or c.draws % groups:
        raise ValueError(f"`losses` must be of {c.draws} draws, a multiple of {groups}")
    if not math.isclose(fill * (values @ counts) / c.draws, c.risk):
        raise ValueError(f"`losses` must have the mean {c.risk}")
    upper = betting(np.repeat(values, counts.astype(int)), delta=delta).item()
    return math.nextafter(upper * fill * (1 + 2**-50), math.inf)


def _bound(c: Certificate) -> float:
    """The theorem's bound on the predictor's risk, rounded up."""
    risk, kl, n, events = c.risk_upper, c.kl, c.n, c.events
    if c.theorem == "tandem":
        return exact.upper(tandem, risk, kl, n, delta=events["tandem"])
    if c.theorem == "rivasplata":
        return exact.upper(rivasplata, risk, kl, n, delta=events[event_of(c.predictor, events)])
    if c.theorem == "occam":
        return exact.upper(occam, risk, kl, n, delta=events[event_of(c.predictor, events)])
    if c.theorem == "recursive":
        frequencies, kls, sizes = ([s[name] for s in c.steps] for name in ("frequency", "kl", "n"))
        gammas = [step["gamma"] for step in c.steps[1:]]
        shares = {"delta": events["gibbs"], "delta_mc": events["gibbs_draws"]}
        return exact.upper(recursive, frequencies, kls, sizes, gamma=gammas, **shares)
    if c.theorem == "clopper_pearson":
        delta = events[event_of(c.predictor, events)]
        return exact.upper(clopper_pearson, round(c.risk * n), n, delta=delta)
    if c.theorem == "chernoff":
        return exact.upper(monte_carlo, risk, n, delta=events["gibbs"])
    gibbs = exact.upper(maurer, risk, kl, n, delta=events["gibbs"])
    if c.theorem == "maurer":
        return gibbs
    # No vote is bounded by a Gibbs bound above ½; one below b can only come of the rare event.
    if not c.lower_right <= gibbs < 0.5:
        return 1.0
    return exact.upper(derandomised, gibbs, c.lower_right, 0.5)


def versions() -> dict[str, str]:
    """Versions of what computed a certificate."""
    return {
        "pbnn": pbnn.__version__,
        "python": platform.python_version(),
        "torch": _version("torch"),
    }


def _version(package: str) -> str:
    """Of a package that is not imported for it; "" where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
