"""What the number of a certificate means, in words made of the certificate's own fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any, NamedTuple

from pbnn.certificates import THEOREMS, Certificate
from pbnn.certificates.statement import FIXED, KNOWN, draws_of, event_of
from pbnn.files import read_json

SCHEMA_VERSION = 1
MOST_STATEMENTS = 300
"""Runs whose certificates are put in words."""
FIRST = ("dataset", "method", "architecture", "network", "hidden", "prior", "readout")
"""Fields of a configuration by which people know a run; the seed comes last."""
PLAIN = ("method", "architecture")
"""Those that stand without their names."""
WHOM = {
    "randomised network": "A network drawn afresh from the posterior for every example",
    "randomised tree": "A tree of sign units drawn afresh from the posterior for every example",
    "vote": "The vote of all networks of the posterior",
    "vote of trees": "The vote of all trees of the posterior",
    "drawn network": "The one network that was drawn once the posterior was fixed",
    "drawn vote": "The vote of the networks that were drawn once the posterior was fixed",
    "coded network": "The one network whose code is paid for",
    "coded vote": "The vote of the networks whose codes are paid for",
    "fixed network": "The one network, known before the certification examples were looked at,",
    "fixed vote": "The one vote, known before the certification examples were looked at,",
    "fixed randomised network": "A network drawn afresh for every example from a distribution that "
    "was known before the certification examples were looked at",
}
EVENTS = {
    "gibbs": "the bound of the randomised network",
    "gibbs_draws": "the draws that estimate its risk",
    "tandem": "the second-order bound of the vote",
    "tandem_draws": "the draws that estimate how often two networks err together",
    "single": "the bound of what was drawn once",
    "coded": "the bound of what has a code",
    "fixed": "the bound of the network known before",
    "fixed_vote": "the bound of the vote known before",
    "deployed": "the bound of what is deployed",
}
"""What may fail, by the names of a certificate's `events`."""
PRICES = {
    "rivasplata": "ln dQ/dP of what was drawn, {} nats",
    "occam": "the length of the code, {} nats",
    "recursive": "the KL divergences of all steps, {} nats together",
}


class Statement(NamedTuple):
    """The certificates of a run: its name with their bounds, and what each means."""

    key: str
    label: str
    statements: list[tuple[str, list[tuple[str, str]]]]


def up(value: float, digits: int = 4) -> str:
    """A number as text of so many significant digits, rounded up: a bound stays a bound."""
    return _text(value, digits, ROUND_CEILING)


def near(value: float, digits: int = 4) -> str:
    """A number as text of so many significant digits, rounded to the nearest."""
    return _text(value, digits, ROUND_HALF_EVEN)


def _text(value: float, digits: int, rounding: str) -> str:
    # Through the shortest decimal: .0389 must not become .0390.
    rounded = float(Context(digits, rounding).plus(Decimal(repr(float(value)))))
    return f"{rounded:.{digits}g}"


def meaning(certificate: Certificate) -> list[tuple[str, str]]:
    """What is promised, how surely and over which draws, what was paid, and on what evidence.

    Examples
    --------
    >>> from pbnn.certificates import Budget, Provenance
    >>> from pbnn.certificates.statement import stated
    >>> budget = Budget(0.05, seeds=2, choices=10)
    >>> given = {"risk": 0.1, "kl": 30.0, "n": 5000, "budget": budget}
    >>> given |= {"events": budget.events(exact=True), "provenance": Provenance("N(0, I)", 0, {})}
    >>> meaning(stated("maurer", **given))[0]
    ('Promise', 'A network drawn afresh from the posterior for every example errs with probability
    at most 0.1428 on new examples of the source that the certification examples are of.')
    """
    c = certificate
    whom, new = WHOM[c.predictor], "of the source that the certification examples are of"
    promise = f"{whom} errs with probability at most {up(c.bound)} on new examples {new}."
    if c.bound >= 1:
        promise = f"None: the bound is {up(c.bound)}, as for any predictor."
    return [
        ("Promise", promise),
        ("How surely", _surety(c)),
        ("What was charged", _budget(c)),
        ("Evidence", _evidence(c)),
        ("Origin", _origin(c)),
    ]


def events_of(certificate: Certificate) -> list[str]:
    """The events that the statement stands on, by their names in its `events`."""
    c = certificate
    if c.theorem in KNOWN:
        return [event_of(c.predictor, c.events)]
    event = "tandem" if c.theorem == "tandem" else "gibbs"
    return [event, f"{event}_draws"] if c.draws else [event]


def _surety(c: Certificate) -> str:
    """The probability of failure, and over which draws it is."""
    over = [f"the draw of the {c.n:,} certification examples", *draws_of(c)]
    delta = sum(c.events[event] for event in events_of(c))
    alone = delta < c.budget.delta
    told = f"{'Alone, this' if alone else 'This'} fails with probability at most {up(delta, 3)}, "
    told += f"over {' and '.join(over)}. Once they are drawn, the promise holds or it does not."
    if alone:
        told += (
            f" δ = {c.budget.delta:g} was divided among the predictors, seeds and choices that "
            "its budget counts: those hold at once with probability at least "
            f"1 − {c.budget.delta:g}; what has a budget of its own may fail beside them."
        )
    return told


def _budget(c: Certificate) -> str:
    """How δ was divided."""
    paid = []
    if c.budget.seeds > 1:
        paid.append(f"{c.budget.seeds:,} seeds")
    if c.budget.choices > 1:
        paid.append(f"{c.budget.choices:,} priors that this one may have been chosen from")
    *firsts, last = (EVENTS.get(event, event) for event in c.events)
    shared = f"shared among {', '.join(firsts)} and {last}" if firsts else f"spent on {last}"
    if not paid:
        return f"δ = {c.budget.delta:g} was {shared}."
    return (
        f"δ = {c.budget.delta:g} was divided by {' and by '.join(paid)}, and what is left, "
        f"{up(c.budget.each(), 3)}, was {shared}: with probability at least 1 − {c.budget.delta:g} "
        "all statements that it was divided among hold at once."
    )


def _evidence(c: Certificate) -> str:
    """Theorem, empirical risk, and what the posterior cost."""
    risk = "tandem risk" if c.theorem == "tandem" else "Gibbs risk"
    risk = "error" if c.theorem in KNOWN else risk
    how = f"estimated by {c.draws:,} draws" if c.draws else "counted" * (c.theorem in KNOWN)
    theorem = THEOREMS[c.theorem][:1].upper() + THEOREMS[c.theorem][1:]
    text = f"{theorem}. Empirical {risk} {near(c.risk)}, {how or 'computed exactly'}"
    if c.risk_upper > c.risk and c.theorem not in KNOWN:
        text += f", and with {'draws and ' * bool(c.draws)}rounding allowed for {up(c.risk_upper)}"
    if c.theorem not in FIXED:
        price = PRICES.get(c.theorem, "KL divergence of the posterior from the prior {} nats")
        text += f"; {price.format(up(c.kl))}"
    if c.steps:
        text += f"; {len(c.steps)} steps, each the prior of the next"
    return f"{text}."


def _origin(c: Certificate) -> str:
    """Prior and seed, and what identifies network and examples."""
    hashes = {"network": c.network}
    hashes["certification split"] = c.provenance.splits.get("certification", "")
    told = [f"{name} {value[:16]}" for name, value in hashes.items() if value]
    return ", ".join([f"Prior: {c.provenance.prior}. Seed {c.provenance.seed}", *told]) + "."


def statements(
    folder: Path, records: Sequence[Mapping[str, Any]]
) -> tuple[list[tuple[str, list[Statement]]], str]:
    """Certificates in words by data set, and how many of them are left out."""
    path = folder / "certificates.json"
    if not path.exists():
        return [], ""
    found = read_json(path, "list of certificates", SCHEMA_VERSION)
    runs = {key: value for key, value in found.items() if isinstance(value, dict)}
    configs = {record["key"]: record["config"] for record in records}
    groups: dict[str, list[Statement]] = {}
    for key, run in list(runs.items())[:MOST_STATEMENTS]:
        config = configs.get(key, {})
        group = str(config.get("dataset", "Certificates"))
        groups.setdefault(group, []).append(_statement(key, run, config))
    note = ""
    if len(runs) > MOST_STATEMENTS:
        note = f"In words are the first {MOST_STATEMENTS} of {len(runs):,} runs."
    return list(groups.items()), note


def _statement(key: str, run: Mapping[str, Any], config: Mapping[str, Any]) -> Statement:
    told: list[tuple[str, list[tuple[str, str]]]] = []
    bounds = []
    for name, record in run.items():
        try:
            certificate = Certificate.from_dict(record, name)
            words = meaning(certificate)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            told.append((name, [("Unreadable", str(error))]))
            continue
        bounds.append(f"{certificate.predictor} {up(certificate.bound)}")
        title = f"{certificate.predictor.capitalize()}, at most {up(certificate.bound)}"
        told.append((title, words))
    # The data set is what its group is called.
    return Statement(key, f"{_who(config) or key}: {', '.join(bounds) or 'unreadable'}", told)


def _who(config: Mapping[str, Any]) -> str:
    """What tells a run from the others: each word once, after its field unless that is plain."""
    told: list[str] = []
    for name in (*FIRST[1:], "prior_share", "seed"):
        value = widths(config.get(name))
        if isinstance(value, str | int | float) and value != "" and value not in told:
            told.append(str(value) if name in PLAIN else f"{name.replace('_', ' ')} {value}")
    return ", ".join(told)


def widths(value: object) -> object:
    """A list of hidden widths as a word, anything else as it is.

    Examples
    --------
    >>> widths([10, 10]), widths([]), widths("tree")
    ('10-10', 'unit', 'tree')
    """
    if isinstance(value, list) and all(isinstance(width, int) for width in value):
        return "-".join(map(str, value)) or "unit"
    return value
