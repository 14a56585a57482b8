"""What every run of the study of ten-class certificates hands back, and how its δ is divided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from pbnn.bounds import clopper_pearson, exact, maurer, monte_carlo
from pbnn.certificates import Budget, Certificate, Provenance
from pbnn.files import write_json

Cell = dict[str, Any]
Result = dict[str, Any]


def budget_of(cell: Cell, family: Any = "classes", choices: int = 1) -> Budget:
    """How this cell's δ is divided; `choices` more of them than the study's."""
    return Budget(cell["delta"], cell["seeds"], choices * cell["choices"], family)


def provenance_of(cell: Cell) -> Provenance:
    """Where this cell's prior and points come from."""
    return Provenance(cell["prior_text"], cell["seed"], cell["splits"])


def label_of(cell: Cell, progress: bool) -> str | None:
    """What the bar of its progress is called."""
    names = "dataset", "prior", "network", "seed"
    return " ".join(str(cell[name]) for name in names) if progress else None


def result_of(
    network: nn.Module,
    certificates: dict[str, Certificate],
    errors: dict[str, float],
    curve: list[dict[str, Any]],
    seconds: dict[str, float],
    own: dict[str, float] | None = None,
    **measures: Any,
) -> Result:
    """Certificates by predictor, with the test error of each, and what else was measured.

    The certificate of a vote may rest on another risk than its own, which `own` then gives.
    """
    for name, each in certificates.items():
        measures |= {
            f"{name}_certificate": each.bound,
            f"{name}_risk_train": (own or {}).get(name, each.risk),
            f"{name}_risk_upper": each.risk_upper,
            f"{name}_error_test": errors[name],
            f"{name}_kl": each.kl,
            f"{name}_draws": each.draws,
        }
    stored = {name: each.to_dict() for name, each in certificates.items()}
    if certificates:
        measures["n"] = next(iter(certificates.values())).n
    result = {"measures": measures, "certificates": stored, "curve": curve, "seconds": seconds}
    return result | {"network": network}


def cost_of_draws(certificate: Certificate, points: int) -> dict[str, float]:
    """What sampling took from the bound of a random network, and how often it was evaluated."""
    risk, n = certificate.risk + certificate.rounding, certificate.n
    delta = certificate.events["gibbs"]
    if certificate.theorem == "chernoff":
        without = exact.upper(monte_carlo, risk, n, delta=delta)
    else:
        without = exact.upper(maurer, risk, certificate.kl, n, delta=delta)
    return {"gibbs_bound_of_no_draws": without, "point_evaluations": points}


def write_certificates(records: list[dict[str, Any]], folder: Path) -> None:
    """Write certificates.json, by the keys of their runs."""
    certificates = {r["key"]: r["certificates"] for r in records if r.get("certificates")}
    write_json(folder / "certificates.json", {"schema_version": 1} | certificates)


def holdout(errors: int, n: int, budget: Budget) -> float:
    """What the prior alone is certified at, with the whole δ of the row."""
    return exact.upper(clopper_pearson, errors, n, delta=budget.each())
