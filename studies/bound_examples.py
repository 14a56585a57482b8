"""Arguments for every bound of the catalogue, for what goes through all of them."""

from __future__ import annotations

from typing import Any

GIBBS = {"risk": 0.1, "kl": 3.0, "n": 400, "delta": 0.05}
PAIR = {"disagreement_rate": 0.12, "kl": 3.0, "n": 4000, "delta": 0.05}
DRAWN = {"risk": 0.1, "n": 400, "delta": 0.05}
LEVELS = (0.95, 0.12, 0.04)

# Every argument that a number may stand for is given, and no value is clipped.
EXAMPLES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("maurer", "maurer_xi", "anytime", "seeger", "mcallester"), GIBBS),
    **dict.fromkeys(("quadratic", "tolstikhin_seldin", "first_order"), GIBBS),
    "catoni": GIBBS | {"C": 0.7},
    "catoni_fixed": GIBBS | {"C": 0.7},
    "catoni_union": GIBBS | {"lam": 300.0, "alpha": 1.2},
    "thiemann": GIBBS | {"lam": 0.6},
    "fast_rate": GIBBS | {"gamma": 1.5},
    "alquier": GIBBS | {"lam": 90.0},
    "sub_gamma": GIBBS | {"lam": 90.0, "s2": 0.2, "c": 0.3},
    "renyi": DRAWN | {"divergence": 3.0},
    "chi_square": DRAWN | {"divergence": 3.0},
    "empirical_bernstein": GIBBS | {"variance": 0.02, "c1": 1.2, "c2": 1.3},
    "unexpected_bernstein": {"loss": -0.01, "kl": 3.0, "n": 400, "delta": 0.05}
    | {"second_moment": 0.04, "b": 1.5},
    "split_kl": {"plus": 0.1, "minus": 0.03, "kl": 3.0, "n": 400, "delta": 0.05}
    | {"a": -1.0, "b": 1.5, "mu": 0.1},
    "split_kl_discrete": {"frequency": (0.5, 0.1), "kl": 3.0, "n": 400, "delta": 0.05}
    | {"values": (-0.2, 0.3, 1.0)},
    "recursive_excess": {"frequency": LEVELS, "kl": 3.0, "n": 400, "delta": 0.05}
    | {"gamma": 0.5, "steps": 2, "delta_mc": 0.01},
    "recursive": {"frequency": (0.1, LEVELS), "kl": (3.0, 2.0), "n": (400, 300), "delta": 0.05}
    | {"gamma": (0.5,), "delta_mc": 0.01},
    "tandem": {"tandem_loss": 0.02, "kl": 3.0, "n": 400, "delta": 0.05},
    "disagreement": PAIR | {"risk": 0.1, "n_pairs": 5000},
    "c_tandem": {"risk": 0.1, "tandem_loss": 0.04, "kl": 3.0, "n": 4000, "delta": 0.05}
    | {"n_pairs": 5000},
    "c_bound": PAIR | {"risk": 0.1, "n_pairs": 5000},
    "c_bound_joint": PAIR | {"tandem_loss": 0.04},
    "derandomised": {"gibbs_bound": 0.2, "lower_right": 0.05, "lower_wrong": 0.4},
    "rivasplata": DRAWN | {"log_ratio": 3.0},
    "viallard": DRAWN | {"divergence": 3.0, "alpha": 2.5},
    "occam": DRAWN | {"nats": 3.0},
    "occam_hoeffding": DRAWN | {"nats": 3.0},
    "vector_kl": {"kl": 3.0, "n": 400, "types": 3, "delta": 0.05},
    "clopper_pearson": {"errors": 40, "n": 400, "delta": 0.05},
    "chernoff": {"errors": 40, "n": 400, "delta": 0.05},
    "maurer_pontil": DRAWN | {"variance": 0.02},
    "monte_carlo": {"risk": 0.1, "draws": 400, "delta": 0.05},
    "monte_carlo_batches": {"errors": [3.0, 8.0, 5.0], "sizes": [80.0, 100.0, 90.0], "delta": 0.05},
    "betting": {"losses": [0.1, 0.2, 0.0, 0.6] * 5, "delta": 0.05},
}
SERIES = ("errors", "sizes", "losses")  # of which the last axis is summed over
ONE_NUMBER = {"vector_kl": ("types",), "monte_carlo_batches": ("delta",), "betting": ("delta",)}
