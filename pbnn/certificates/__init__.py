"""Certificates: what is promised of whom, on which evidence, and how to check it again."""

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
    "certify_one",
    "certify_recursive",
    "certify_vote",
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
