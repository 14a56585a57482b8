"""Layers: a posterior over weights together with the three ways of passing it."""

from pbnn.layers.normalisation import (
    StochasticBatchNorm,
    ThresholdSign,
    freeze_statistics,
    statistics_splits,
)
from pbnn.layers.sign_linear import ENUMERATED_UP_TO, SignLinear, xavier_normal
from pbnn.layers.weighted import Convolution, Dense, Posterior, StochasticLayer

__all__ = [
    "ENUMERATED_UP_TO",
    "Convolution",
    "Dense",
    "Posterior",
    "SignLinear",
    "StochasticBatchNorm",
    "StochasticLayer",
    "ThresholdSign",
    "freeze_statistics",
    "statistics_splits",
    "xavier_normal",
]
