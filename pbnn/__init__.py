"""Probabilistic binary neural networks with PAC-Bayes certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pbnn.lazy import lazy

if TYPE_CHECKING:
    from pbnn.baselines import MLP
    from pbnn.certificates import Certificate, certify, certify_gibbs, certify_vote
    from pbnn.ensembles import anytime
    from pbnn.estimators import BLRNetClassifier, PBGNetClassifier
    from pbnn.networks import ABNet, BLRNet, PBGNet, binarise
    from pbnn.training import fit

__version__ = "0.1.0"

# Importing these modules costs seconds (torch); the names are fetched when first used.
_LAZY = {
    "ABNet": "pbnn.networks",
    "BLRNet": "pbnn.networks",
    "BLRNetClassifier": "pbnn.estimators",
    "Certificate": "pbnn.certificates",
    "MLP": "pbnn.baselines",
    "PBGNet": "pbnn.networks",
    "PBGNetClassifier": "pbnn.estimators",
    "anytime": "pbnn.ensembles",
    "binarise": "pbnn.networks",
    "certify": "pbnn.certificates",
    "certify_gibbs": "pbnn.certificates",
    "certify_vote": "pbnn.certificates",
    "fit": "pbnn.training",
}

__all__ = [
    "MLP",
    "ABNet",
    "BLRNet",
    "BLRNetClassifier",
    "Certificate",
    "PBGNet",
    "PBGNetClassifier",
    "__version__",
    "anytime",
    "binarise",
    "certify",
    "certify_gibbs",
    "certify_vote",
    "fit",
]

__getattr__, __dir__ = lazy(globals(), _LAZY)
