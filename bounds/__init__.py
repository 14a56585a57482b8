"""PAC-Bayes and hold-out bounds as pure functions of floats, NumPy arrays or torch tensors.

A bound takes the risk, the KL divergence in nats and the number of examples in this order, then
by keyword the probability `delta` that it may fail. Arguments broadcast, the result is of the
kind that came in, and torch is never imported before a tensor arrives.
"""

from __future__ import annotations

from pbnn.bounds import exact
from pbnn.bounds.anytime import Anytime
from pbnn.bounds.catalogue import CATALOGUE
from pbnn.bounds.cbounds import c_bound, c_bound_joint
from pbnn.bounds.constants import CONSTANTS, log_kt, log_xi
from pbnn.bounds.draws import betting, monte_carlo, monte_carlo_batches
from pbnn.bounds.gibbs import (
    chi_square,
    maurer,
    mcallester,
    quadratic,
    renyi,
    tolstikhin_seldin,
)
from pbnn.bounds.holdout import chernoff, clopper_pearson, maurer_pontil
from pbnn.bounds.kl import binary_kl, kl_inverse
from pbnn.bounds.multiclass import vector_kl, vector_kl_worst
from pbnn.bounds.recursion import recursive, recursive_excess
from pbnn.bounds.single import occam, occam_hoeffding, rivasplata, viallard
from pbnn.bounds.splitting import split_kl, split_kl_discrete
from pbnn.bounds.temperature import (
    alquier,
    catoni,
    catoni_optimal_c,
    catoni_union,
    fast_rate,
    sub_gamma,
    thiemann,
)
from pbnn.bounds.union import Choice, best_of, delta_each, share_delta, union_price
from pbnn.bounds.variance import empirical_bernstein, unexpected_bernstein
from pbnn.bounds.votes import (
    c_tandem,
    derandomised,
    disagreement,
    first_order,
    tandem,
)

__all__ = [
    "CATALOGUE",
    "CONSTANTS",
    "Anytime",
    "Choice",
    "alquier",
    "best_of",
    "betting",
    "binary_kl",
    "c_bound",
    "c_bound_joint",
    "c_tandem",
    "catoni",
    "catoni_optimal_c",
    "catoni_union",
    "chernoff",
    "chi_square",
    "clopper_pearson",
    "delta_each",
    "derandomised",
    "disagreement",
    "empirical_bernstein",
    "exact",
    "fast_rate",
    "first_order",
    "kl_inverse",
    "log_kt",
    "log_xi",
    "maurer",
    "maurer_pontil",
    "mcallester",
    "monte_carlo",
    "monte_carlo_batches",
    "occam",
    "occam_hoeffding",
    "quadratic",
    "recursive",
    "recursive_excess",
    "renyi",
    "rivasplata",
    "share_delta",
    "split_kl",
    "split_kl_discrete",
    "sub_gamma",
    "tandem",
    "thiemann",
    "tolstikhin_seldin",
    "unexpected_bernstein",
    "union_price",
    "vector_kl",
    "vector_kl_worst",
    "viallard",
]
