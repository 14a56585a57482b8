"""Damaged JSON: certificates, records of runs, failures of runs."""

from __future__ import annotations

import copy
import functools
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from damage import bytes_damaged, canonical, odd_value, record_damaged, text_damaged
from damaged_cases import HARMLESS, SILENT, UNSEEN, Case, short
from scipy.optimize import brentq
from scipy.special import betaincinv, rel_entr

from pbnn.bounds import recursive
from pbnn.certificates import (
    PREDICTORS,
    SHARES,
    Budget,
    Certificate,
    Provenance,
    certify_known,
    verify,
)
from pbnn.certificates.statement import closed, stated
from pbnn.files import json_bytes
from pbnn.sweep import Cell, CellsFailed, cell_key, run_cells

PROVENANCE = Provenance("a draw", 0, {"prior": "ab", "certification": "cd"})
REWRITTEN = "sealed anew"
"""A field is another, and the risk and the bound that it gives stand beside it."""


@functools.cache
def sound_certificates() -> tuple[dict[str, Any], ...]:
    """One of every theorem, with and without draws, as plain JSON."""

    def of(theorem: str, family: Any, kind: int = 0, **given: Any) -> Certificate:
        budget = Budget(0.05, 3, 1000, family)
        events = budget.events(exact=not given.get("draws", 0))
        plain = {"risk": 0.05, "kl": 8.0, "n": 2000, "rounding": 1e-12, "network": "1f" * 16}
        plain |= {"budget": budget, "events": events, "provenance": PROVENANCE}
        return stated(theorem, kind, **(plain | given))

    steps = [
        {"frequency": 0.3, "kl": 5.0, "n": 1000},
        {"frequency": [0.9, 0.2, 0.05], "kl": 4.0, "n": 500, "gamma": 0.5},
    ]
    grouped = {"losses": [[0.0, 390.0], [0.1, 200.0], [0.3, 10.0]], "group": 10, "draws": 600}
    mean = (0.1 * 200 + 0.3 * 10) / 600
    made = [
        of("maurer", "signs"),
        of("maurer", "signs", 1, draws=40_000),
        of("maurer", "classes", n=2000, risk=mean, **grouped),
        of("derandomised", "signs", lower_right=0.01),
        of("derandomised", "classes", 1, draws=40_000),
        of("tandem", "signs", risk=0.02),
        of("tandem", "signs", risk=0.02, draws=20_000),
        of("chernoff", "fixed", kl=0.0),
        of("chernoff", "fixed", kl=0.0, draws=10_000),
        of(
            "recursive", "recursive", steps=steps, risk=0.2, kl=9.0, n=1000, draws=500, rounding=0.0
        ),
    ]
    for family in ("deployed", "coded", "fixed"):
        prices: dict[str, Any] = {"nats": 20.0} if family != "fixed" else {"fixed": True}
        for vote in (False, True):
            given = ("1f" * 16, 100, 2000, Budget(0.05, 3, 1000, family), PROVENANCE)
            made.append(certify_known(*given, vote=vote, **prices))
    given = ("1f" * 16, 100, 2000, Budget(0.05, 3, 1000, "classes"), PROVENANCE)
    made.append(certify_known(*given, log_ratio=3.0))
    return tuple(json.loads(json.dumps(one.to_dict())) for one in made)


def certificates(rng: Random, folder: Path) -> Iterator[Case]:
    """Certificates of all theorems, changed as bytes, as text, field by field, or written anew."""
    path = folder / "certificate.json"
    while True:
        record = rng.choice(sound_certificates())
        damage, changed = certificate_damaged(rng, record)

        def read(record: dict[str, Any] = record, changed: bytes = changed) -> str:
            path.write_bytes(changed)
            found = Certificate.load(path)
            verify(found)
            if canonical(found.to_dict()) == canonical(Certificate.from_dict(record).to_dict()):
                return twice_free(changed)
            return UNSEEN if holds(found) and twice_free(changed) == HARMLESS else SILENT

        yield Case(damage, read, named=str(path), shown=short(changed, 1500))


def twice_free(content: bytes) -> str:
    """Whether no object of a JSON text has a key twice: another reader may take the first one."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise KeyError(pairs[0][0])
        return dict(pairs)

    try:
        json.loads(content, object_pairs_hook=once)
    except KeyError:
        return SILENT
    return HARMLESS


def certificate_damaged(rng: Random, record: dict[str, Any]) -> tuple[str, bytes]:
    """What was done, and the content of the file."""
    way = rng.random()
    if way < 0.15:
        return bytes_damaged(rng, json_bytes(record))
    if way < 0.35:
        damage, text = text_damaged(rng, record)
        return damage, text.encode()
    if way < 0.65:
        damage, changed = record_damaged(rng, record)
        return damage, json.dumps(changed).encode()
    # A forger knows the formulas: after some changes all that follows from them is made anew.
    changed = copy.deepcopy(record)
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(("risk", "kl", "n", "draws", "rounding", "lower_right", "theorem"))
        if rng.random() < 0.2:
            name = rng.choice(("delta", "seeds", "choices", "family"))
        holder = changed["budget"] if name in changed["budget"] else changed
        holder[name] = rng.choice(
            (odd_value(rng, holder[name]), rng.uniform(0, 1), rng.randint(0, 9))
        )
        if name == "theorem":
            holder[name] = rng.choice(tuple(PREDICTORS))
            changed["predictor"] = rng.choice(PREDICTORS[holder[name]])
    try:
        budget = Budget(**changed["budget"])
        changed["events"] = budget.events(exact=changed["draws"] == 0)
        forged = {**changed, "budget": budget, "provenance": PROVENANCE}
        changed = closed(Certificate(**forged)).to_dict()
    except Exception:  # what has no bound is handed in as it is
        return f"not {REWRITTEN}", json.dumps(changed).encode()
    return REWRITTEN, json.dumps(changed).encode()


def holds(c: Certificate) -> bool:
    """Whether a certificate is one, and its bound no lower than by other formulas."""
    try:
        return well_formed(c) and c.bound >= min(1.0, least_bound(c)) * (1 - 1e-7)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return False


def well_formed(c: Certificate) -> bool:
    """Whether every field is of its kind and in its domain, and fits the others."""
    whole = (c.n, c.draws, c.group, c.budget.seeds, c.budget.choices, c.provenance.seed)
    shares = SHARES[c.budget.family][c.draws == 0]
    tables = (c.provenance.splits, c.versions)
    texts = [c.provenance.prior, c.network, *(t for table in tables for t in table.values())]
    recursion = c.theorem == "recursive"
    counted = c.theorem in ("clopper_pearson", "rivasplata", "occam")
    return all(
        (
            all(type(each) is int for each in whole),
            min(c.n, c.group, c.budget.seeds, c.budget.choices) >= 1 and c.draws >= 0,
            type(c.budget.delta) is float and 0 < c.budget.delta < 1,
            all(type(each) is str for each in texts),
            all(math.isfinite(each) for each in (c.risk, c.rounding, c.lower_right)),
            0 <= c.risk <= c.risk_upper <= 1 and c.bound >= 0,
            c.kl >= 0 or c.theorem == "rivasplata",
            0 <= c.lower_right < 0.5 and c.rounding >= 0,
            set(c.events) == set(shares),
            all(math.isclose(c.events[name], paid(c, name), rel_tol=1e-9) for name in shares),
            bool(c.steps) == recursion and (not c.losses or c.draws > 0),
            c.theorem not in ("clopper_pearson", "chernoff") or c.kl == 0,
            not counted or (c.draws == 0 and round(c.risk * c.n) / c.n == c.risk),
            not recursion or c.n == c.steps[0]["n"],
            not recursion or math.isclose(c.kl, sum(step["kl"] for step in c.steps)),
        )
    )


def paid(c: Certificate, event: str) -> float:
    """δ of an event, from the budget."""
    share = SHARES[c.budget.family][c.draws == 0][event]
    return c.budget.delta / (c.budget.seeds * c.budget.choices) * share


def kl_plus(q: float, c: float) -> float:
    """The largest p with kl(q‖p) at most c, by another root finder."""
    if q >= 1:
        return 1.0

    def beyond(p: float) -> float:
        return float(rel_entr(q, p) + rel_entr(1 - q, 1 - p) - c)

    top = 1 - 1e-15
    return 1.0 if beyond(top) <= 0 else float(brentq(beyond, q, top, xtol=1e-15))


def least_bound(c: Certificate) -> float:
    """The bound that a certificate's statement gives, in float64 and by formulas of its own."""
    risk, n, b = c.risk + c.rounding, c.n, c.lower_right
    deltas = {name: paid(c, name) for name in c.events}
    if c.draws and c.theorem != "recursive" and not c.losses:
        delta = deltas["tandem_draws" if c.theorem == "tandem" else "gibbs_draws"]
        risk = kl_plus(c.risk, math.log(1 / delta) / c.draws) + c.rounding
    risk = min(1.0, risk)
    if risk > c.risk_upper * (1 + 1e-7) + 1e-15:
        raise ValueError("`risk_upper` is below what the risk gives")
    gaussian = {name: math.log(2 * math.sqrt(n) / delta) for name, delta in deltas.items()}
    one = next((name for name in ("deployed", "single", "coded", "fixed") if name in deltas), "")
    last = {"fixed vote": "fixed_vote", "coded vote": "coded", "coded network": "coded"}
    one = one if one == "deployed" else last.get(c.predictor, one)
    if c.theorem == "recursive":
        steps = c.steps
        gammas = [step["gamma"] for step in steps[1:]]
        parts = [[step[name] for step in steps] for name in ("frequency", "kl", "n")]
        share = {"delta": deltas["gibbs"], "delta_mc": deltas["gibbs_draws"]}
        return float(recursive(*parts, gamma=gammas, **share))
    if c.theorem in ("maurer", "derandomised"):
        gibbs = kl_plus(risk, (c.kl + gaussian["gibbs"]) / n)
        if c.theorem == "maurer":
            return gibbs
        return (gibbs - b) / (0.5 - b) if b <= gibbs < 0.5 else 1.0
    formulas: dict[str, Callable[[], float]] = {
        "tandem": lambda: 4 * kl_plus(risk, (2 * c.kl + gaussian["tandem"]) / n),
        "chernoff": lambda: kl_plus(risk, math.log(1 / deltas["gibbs"]) / n),
        "rivasplata": lambda: kl_plus(risk, max(0.0, c.kl + gaussian[one]) / n),
        "occam": lambda: kl_plus(risk, (c.kl + math.log(1 / deltas[one])) / n),
        "clopper_pearson": lambda: _binomial(round(c.risk * n), n, deltas[one]),
    }
    return formulas[c.theorem]()


def _binomial(errors: int, n: int, delta: float) -> float:
    return 1.0 if errors == n else float(betaincinv(errors + 1, n - errors, 1 - delta))


CONFIG = {"dataset": "digits17", "method": "pbgnet", "hidden": [10], "seed": 0, "delta": 0.05}
RESULT = {
    "measures": {"bound": 0.125, "kl": 3.5, "n": 100, "vacuous": False},
    "curve": [{"epoch": 0.0, "risk": 0.5}, {"epoch": 1.0, "risk": 0.25}],
    "note": "é",
}
CELL = Cell(cell_key(CONFIG, {}), CONFIG)


@functools.cache
def stored_as() -> dict[str, Any]:
    """The record of `CELL` as it is kept."""
    return {"schema_version": 1, "key": CELL.key, "config": CONFIG} | RESULT


def file_damaged(rng: Random, record: dict[str, Any]) -> tuple[str, bytes]:
    """What was done, and the content of a file of JSON."""
    way = rng.random()
    if way < 0.3:
        return bytes_damaged(rng, json_bytes(record))
    if way < 0.6:
        damage, text = text_damaged(rng, record)
        return damage, text.encode()
    damage, changed = record_damaged(rng, record)
    return damage, json.dumps(changed).encode()


class RunAgain(Exception):
    """A damaged record was run again, with a warning that names it."""


def run_records(rng: Random, folder: Path) -> Iterator[Case]:
    """Records that a study would resume from."""
    path = folder / f"{CELL.key}.json"
    while True:
        damage, changed = file_damaged(rng, stored_as())

        def read(changed: bytes = changed) -> str:
            path.write_bytes(changed)
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                runs: list[Any] = []
                (found,) = run_cells(
                    [CELL], lambda c: runs.append(c) or RESULT, folder, progress=False
                )
            if runs:
                if canonical(found) != canonical(stored_as()) or path.read_bytes() != json_bytes(
                    found
                ):
                    return SILENT
                raise RunAgain(*(str(each.message) for each in warned))
            if canonical(found) == canonical(stored_as()):
                return twice_free(changed)
            return UNSEEN if plain(changed, found, "measures") else SILENT

        yield Case(damage, read, (ValueError, RunAgain), str(path), short(changed, 300))


def plain(content: bytes, found: dict[str, Any], *free: str) -> bool:
    """Whether a record is plain JSON that says whose it is, and other in its results alone."""
    text = content.decode()
    if re.search(r"NaN|Infinity", text) or twice_free(content) == SILENT:
        return False
    mine = {name: found.get(name) for name in ("schema_version", "key", "config")}
    same = canonical(mine) == canonical({name: stored_as()[name] for name in mine})
    return same and finite(found)


def finite(value: Any) -> bool:
    """Whether all numbers of a record are."""
    if isinstance(value, dict | list):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or bool(np.isfinite(value))


def run_failures(rng: Random, folder: Path) -> Iterator[Case]:
    """What is kept of a cell that failed, of which a study says so, and does not run it again."""
    record = {"schema_version": 1, "key": CELL.key, "name": CELL.name, "config": CONFIG}
    record |= {"error": "ValueError: no", "traceback": "Traceback:\nValueError: no\n"}
    path, kept = folder / f"{CELL.key}.failed.json", folder / f"{CELL.key}.json"
    while True:
        damage, changed = file_damaged(rng, record)

        def read(changed: bytes = changed) -> str:
            path.write_bytes(changed)
            kept.unlink(missing_ok=True)
            try:
                with warnings.catch_warnings(record=True) as warned:
                    warnings.simplefilter("always")
                    (found,) = run_cells([CELL], lambda _: RESULT, folder, progress=False)
            except CellsFailed as failed:
                (told,) = failed.failures
                if canonical(told) == canonical(record):
                    return twice_free(changed)
                texts = all(isinstance(told[name], str) for name in ("name", "error", "traceback"))
                sound = told["key"] == CELL.key and texts and finite(told)
                whose = canonical(told.get("config")) == canonical(CONFIG)
                once = twice_free(changed) == HARMLESS
                return UNSEEN if sound and whose and once else SILENT
            if canonical(found) != canonical(stored_as()):
                return SILENT
            raise RunAgain(*(str(each.message) for each in warned))

        yield Case(damage, read, (ValueError, RunAgain), str(path), short(changed, 300))
