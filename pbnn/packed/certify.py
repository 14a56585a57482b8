"""The certificate of exactly the bits that are deployed, and whether it holds."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from pbnn.certificates import (
    SCHEMA_VERSION,
    Budget,
    Certificate,
    Provenance,
    certify_known,
    check_splits,
)
from pbnn.certificates import verify as verify_arithmetic
from pbnn.certificates.known import LEAST
from pbnn.certificates.statement import EVENTS, MOST
from pbnn.data import Splits, Task
from pbnn.files import check_schema_version
from pbnn.packed.network import PackedNetwork

CLOSE = 1e-9
"""How far two sums of the same logarithms may differ, relatively."""
LARGEST = 2**53
"""Up to which float64 counts."""


def certify(
    network: PackedNetwork,
    task: Task,
    splits: Splits,
    budget: Budget,
    prior: str,
    seed: int,
    *,
    log_ratio: float | None = None,
    nats: float | None = None,
    fixed: bool = False,
    backend: str = "auto",
    threads: int = 1,
) -> PackedNetwork:
    r"""A packed network with the certificate of its own predictions.

    Its errors on the certification split are counted by the packed network itself. One drawn
    network, or a vote of drawn ones, costs its log-ratio; one that has a code, its length; one that
    was fixed before the certification points, nothing (`pbnn.certificates.certify_one`).

    Parameters
    ----------
    network : PackedNetwork
        Its statistics must come from the prior's or the feature split.
    task : Task
    splits : Splits
        The bound is evaluated on its certification split; n is that split's size.
    budget : Budget
        Of the family "deployed", where there is no other certificate.
    prior : str
        What the prior is and on which data it was chosen.
    seed : int
        Of prior, training and draws.
    log_ratio, nats : float, optional
        In nats, of several members their sum, rounded up: `pbnn.certificates.log_ratio_upper` of
        what was drawn, or `code_length`.
    fixed : bool
        That the network was known before the certification points: the caller's word.
    backend, threads
        Of `PackedNetwork.scores`.

    Raises
    ------
    ValueError
        As `certify_one`, and for statistics of another split.

    References
    ----------
    Rivasplata, Kuzborskij, Szepesvári, Shawe-Taylor (2020). PAC-Bayes Analysis Beyond the Usual
    Bounds. https://arxiv.org/abs/2006.13057. Blumer, Ehrenfeucht, Haussler, Warmuth (1987).
    Clopper, Pearson (1934).
    """
    hashes = splits.hashes(task)
    provenance = Provenance(prior, seed, hashes)
    check_splits(set(network.statistics), with_examples(provenance, splits))
    at = splits.certification
    errors = network.errors(task.x[at], task.y[at], backend=backend, threads=threads)
    certificate = certify_known(
        network.fingerprint(),
        errors,
        len(at),
        budget,
        provenance,
        vote=len(network.members) > 1,
        log_ratio=log_ratio,
        nats=nats,
        fixed=fixed,
    )
    return network.certified(certificate.to_dict())


def with_examples(provenance: Provenance, splits: Splits) -> Provenance:
    """Without the hashes of splits that are empty, which nothing comes from."""
    kept = {name: h for name, h in provenance.splits.items() if len(getattr(splits, name, ()))}
    return dataclasses.replace(provenance, splits=kept)


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes
    ----------
    what : str
    holds : bool
    told : str
        What was found.
    """

    what: str
    holds: bool
    told: str


def verify(
    network: PackedNetwork,
    task: Task | None = None,
    splits: Splits | None = None,
    *,
    price: float | None = None,
    backend: str = "auto",
    threads: int = 1,
) -> list[Check]:
    """Look at all that a certificate claims and that can be looked at.

    Its arithmetic, in interval arithmetic; that it is of this very network, and of its kind of
    predictor; that statistics come from the prior's or the feature split. With the data, that the
    certification split is the one it names and that the network errs on it as often as it says.
    With a price, that its log-ratio or code length is that. What no file can show: that the prior
    was fixed before the data, and that a draw was one.

    Parameters
    ----------
    network : PackedNetwork
    task, splits : optional
        Given together.
    price : float, optional
        Nats, computed again from posterior and prior.

    Raises
    ------
    ValueError
        For a task without splits or the other way round, or of other inputs than the network's.
    """
    if (task is None) != (splits is None):
        raise ValueError("`task` and `splits` must be given together, got one of them.")
    try:
        certificate = Certificate.from_dict(network.certificate or {}, "certificate")
        _check_form(certificate)
        checks = [Check("certificate", True, _told(certificate))]
    except (ValueError, RecursionError) as error:
        return [
            Check(
                "certificate", False, str(error) if network.certificate else "the file carries none"
            )
        ]

    def look(what: str, holds: bool, told: str) -> None:
        checks.append(Check(what, bool(holds), told))

    try:
        verify_arithmetic(certificate)
        look("arithmetic", True, f"the bound is at most {certificate.bound:.6g}")
    except (ValueError, ArithmeticError) as error:
        look("arithmetic", False, str(error))
    kind = "vote" if len(network.members) > 1 else "network"
    look("predictor", certificate.predictor.endswith(kind), f"{certificate.predictor}, of a {kind}")
    look("network", certificate.network == network.fingerprint(), "its fingerprint")
    try:
        check_splits(set(network.statistics), certificate.provenance)
        told = "said to be of the prior's or the feature split" if network.statistics else "none"
        look("batch normalisation", True, told)
    except ValueError as error:
        look("batch normalisation", False, str(error))
    if certificate.theorem == "rivasplata":
        told = f"{certificate.kl:.6g} nats, of a draw at least {LEAST:.0f}"
        look("log-ratio", certificate.kl >= LEAST, told)
    if price is not None:
        told = f"{certificate.kl:.6g} nats, and {price:.6g} of these signs"
        look("price", abs(certificate.kl - price) <= CLOSE * max(1.0, abs(price)), told)
    if task is not None and splits is not None:
        own, at = certificate.provenance.splits, splits.certification
        hashes = splits.hashes(task)
        look("split", own == hashes, f"the {len(at)} certification examples of {task.name}")
        look("n", certificate.n == len(at), f"{certificate.n} examples, and {len(at)} are there")
        errors = network.errors(task.x[at], task.y[at], backend=backend, threads=threads)
        told = f"{certificate.risk:.6g}, and {errors} of {len(at)} errors"
        look("risk", certificate.risk == errors / len(at), told)
        origins = set(with_examples(certificate.provenance, splits).splits.values())
        told = "a split that has examples" if network.statistics else "there are none"
        look("statistics", set(network.statistics) <= origins, told)
    return checks


def error_on_test(network: PackedNetwork, task: Task, splits: Splits, **options: Any) -> float:
    """Error of the same predictor on the test split; NaN if that is empty."""
    at = splits.test
    errors = network.errors(task.x[at], task.y[at], **options) if len(at) else 0
    return errors / len(at) if len(at) else float(np.nan)


def _check_form(c: Certificate) -> None:
    """Refuse what `certify` never says, before anything is computed from it."""
    check_schema_version(c.schema_version, "certificate", "certificate", SCHEMA_VERSION)
    budget, made = c.budget, c.provenance
    counts = _is_count(budget.seeds) and _is_count(budget.choices)
    for name, sound in {
        "budget": isinstance(budget.delta, float) and counts and isinstance(budget.family, str),
        "provenance": type(made.seed) is int and _are_texts(made.splits, made.prior),
        "versions": _are_texts(c.versions),
        "predictor": c.predictor in EVENTS,
        "n": _is_count(c.n) and c.n <= MOST,
        "kl": math.isfinite(c.kl) and (c.theorem != "clopper_pearson" or c.kl == 0),
        # Nothing of a known predictor is drawn or rounded.
        "draws": c.draws == 0 and c.losses == [] and c.group == 1,
        "rounding": c.rounding == 0,
        "lower_right": c.lower_right == 0,
        "steps": c.steps == [],
    }.items():
        if not sound:
            got = f"{getattr(c, name)!r:.80}"
            raise ValueError(f"certificate: `{name}` must be as `certify` writes it, got {got}.")


def _are_texts(record: Any, *others: Any) -> bool:
    return isinstance(record, dict) and all(isinstance(v, str) for v in (*record.values(), *others))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST


def _told(c: Certificate) -> str:
    budget = c.budget
    counted = budget.seeds * budget.choices
    among = f", for all {counted} that it counts" if counted > 1 else ""
    return (
        f"{c.predictor}: risk at most {c.bound:.6g} with probability at least "
        f"1 − {budget.delta:.3g}{among}, over {c.n} examples ({c.theorem})"
    )
