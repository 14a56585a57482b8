"""PAC-Bayes and hold-out bounds as pure functions of floats, NumPy arrays or torch tensors.

A bound takes the risk, the KL divergence in nats and the number of examples in this order, then
by keyword the probability `delta` that it may fail. Arguments broadcast, the result is of the
kind that came in, and torch is never imported before a tensor arrives.
"""

from __future__ import annotations

from pbnn.bounds.gibbs import catoni, catoni_optimal_c, maurer, mcallester, quadratic, thiemann
from pbnn.bounds.holdout import clopper_pearson, monte_carlo
from pbnn.bounds.kl import binary_kl, kl_inverse
from pbnn.bounds.union import delta_each, share_delta, union_price
from pbnn.bounds.votes import derandomised, first_order, tandem

__all__ = [
    "binary_kl",
    "catoni",
    "catoni_optimal_c",
    "clopper_pearson",
    "delta_each",
    "derandomised",
    "first_order",
    "kl_inverse",
    "maurer",
    "mcallester",
    "monte_carlo",
    "quadratic",
    "share_delta",
    "tandem",
    "thiemann",
    "union_price",
]
