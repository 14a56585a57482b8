"""Certificates: what is promised of whom, on which evidence, and how to check it again."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pbnn.certificates.known import certify_known, check_splits
from pbnn.certificates.statement import (
    PREDICTORS,
    SCHEMA_VERSION,
    SHARES,
    THEOREMS,
    Budget,
    Certificate,
    Provenance,
    recertified,
    verify,
    versions,
)

if TYPE_CHECKING:
    from pbnn.certificates.complexity import (
        code_length,
        kl_upper,
        least_loss_of_right_vote,
        log_ratio_upper,
    )
    from pbnn.certificates.issue import (
        certify_gibbs,
        certify_one,
        certify_vote,
        check_statistics,
        holdout_bound,
    )
    from pbnn.certificates.recursion import Step, certify_recursive

# To check a statement takes no torch; to make one of a network does.
_LAZY = {
    "code_length": "complexity",
    "kl_upper": "complexity",
    "least_loss_of_right_vote": "complexity",
    "log_ratio_upper": "complexity",
    "certify_gibbs": "issue",
    "certify_one": "issue",
    "certify_vote": "issue",
    "check_statistics": "issue",
    "holdout_bound": "issue",
    "Step": "recursion",
    "certify_recursive": "recursion",
}

__all__ = [
    "PREDICTORS",
    "SCHEMA_VERSION",
    "SHARES",
    "THEOREMS",
    "Budget",
    "Certificate",
    "Provenance",
    "Step",
    "certify_gibbs",
    "certify_known",
    "certify_one",
    "certify_recursive",
    "certify_vote",
    "check_splits",
    "check_statistics",
    "code_length",
    "holdout_bound",
    "kl_upper",
    "least_loss_of_right_vote",
    "log_ratio_upper",
    "recertified",
    "verify",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
