"""scikit-learn classifiers that carry a certificate of what they predict."""

from __future__ import annotations

from pbnn.estimators.blrnet import BLRNetClassifier
from pbnn.estimators.certified import CertifiedClassifier, told
from pbnn.estimators.pbgnet import PBGNetClassifier

__all__ = ["BLRNetClassifier", "CertifiedClassifier", "PBGNetClassifier", "told"]
