"""Certificates: what is promised of whom, on which evidence, and how to check it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from pbnn.lazy import lazy

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
    from pbnn.certificates.modules import Certified, certify
    from pbnn.certificates.recursion import Step, certify_recursive

# To check a statement takes no torch; to make one of a network does.
_LAZY = {
    "code_length": "pbnn.certificates.complexity",
    "kl_upper": "pbnn.certificates.complexity",
    "least_loss_of_right_vote": "pbnn.certificates.complexity",
    "log_ratio_upper": "pbnn.certificates.complexity",
    "certify_gibbs": "pbnn.certificates.issue",
    "certify_one": "pbnn.certificates.issue",
    "certify_vote": "pbnn.certificates.issue",
    "check_statistics": "pbnn.certificates.issue",
    "holdout_bound": "pbnn.certificates.issue",
    "Certified": "pbnn.certificates.modules",
    "certify": "pbnn.certificates.modules",
    "Step": "pbnn.certificates.recursion",
    "certify_recursive": "pbnn.certificates.recursion",
}

__all__ = [
    "PREDICTORS",
    "SCHEMA_VERSION",
    "SHARES",
    "THEOREMS",
    "Budget",
    "Certificate",
    "Certified",
    "Provenance",
    "Step",
    "certify",
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

__getattr__, __dir__ = lazy(globals(), _LAZY)
