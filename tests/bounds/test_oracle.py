"""Every bound against values computed with 50 digits."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pbnn.bounds as pb

COPY = Path(__file__).parents[1] / "data" / "bounds_oracle.json"
ORACLE = json.loads(Path(os.environ.get("PBNN_ORACLE", COPY)).read_text())

LN2 = math.log(2)
LATER = {
    "adams_rhs",
    "adams_rhs_pi",
    "alquier_hoeffding",
    "anytime_union",
    "c_bound_seeger",
    "c_tandem",
    "catoni_1_2_6",
    "chi2",
    "dis_mv",
    "disintegrated_rivasplata",
    "disintegrated_viallard",
    "emp_bernstein_ts",
    "fast_rate",
    "kl_exact_xi",
    "kt_kl",
    "log_kt",
    "log_xi",
    "maurer_pontil_eb",
    "occam_hoeffding",
    "quad_tight",
    "rpb_excess",
    "rts",
    "seeger_kl",
    "split_kl",
    "split_kl_discrete",
    "sub_gamma",
    "unexpected_bernstein",
}


def monte_carlo_then_maurer(risk_mc, m, delta_mc, kl, n, delta):
    return pb.maurer(pb.monte_carlo(risk_mc, m, delta=delta_mc), kl, n, delta=delta, clip=False)


FUNCTIONS: dict[str, Callable[..., float]] = {
    "bernoulli_kl": pb.binary_kl,
    "kl_inv_upper": pb.kl_inverse,
    "kl_inv_lower": lambda q, c: pb.kl_inverse(q, c, "lower"),
    "maurer_kl": lambda **a: pb.maurer(**a, clip=False),
    "mcallester_maurer": lambda **a: pb.mcallester(**a, clip=False),
    "quad": lambda **a: pb.quadratic(**a, clip=False),
    "lambda_opt": lambda **a: pb.thiemann(**a, clip=False),
    "lambda_fixed": lambda **a: pb.thiemann(**a, clip=False),
    "catoni_fixed": lambda **a: pb.catoni(**a, fixed=True, clip=False),
    "catoni_uniform": lambda **a: pb.catoni(**a, clip=False),
    "catoni_c_star": pb.catoni_optimal_c,
    "binomial_upper": lambda k, n, delta: pb.clopper_pearson(k, n, delta=delta),
    "binomial_lower": lambda k, n, delta: pb.clopper_pearson(k, n, delta=delta, side="lower"),
    "chernoff_kl_test": lambda k, n, delta: pb.monte_carlo(k / n, n, delta=delta),
    "first_order_mv": lambda gibbs, **a: pb.first_order(gibbs, **a, clip=False),
    "tandem_mv": lambda tandem, kl, n2, delta: pb.tandem(tandem, kl, n2, delta=delta, clip=False),
    "mc_kl_one": monte_carlo_then_maurer,
    # The two-sided step is the one-sided one at half its share of delta.
    "mc_kl_two": lambda delta_mc, **a: monte_carlo_then_maurer(delta_mc=delta_mc / 2, **a),
    # A code is a prior on one classifier: no KL constant, but its length in nats.
    "occam_kl": lambda risk, bits, n, delta: pb.kl_inverse(
        risk, (bits * LN2 - math.log(delta)) / n
    ),
}


def parse(value: str | int) -> float | int:
    return value if isinstance(value, int) else float(value)


def rows() -> list[Any]:
    covered = [row for row in ORACLE["rows"] if row["bound"] in FUNCTIONS]
    return [pytest.param(row, id=f"{row['bound']}-{row['inputs']}") for row in covered]


def test_every_name_of_the_oracle_is_covered_or_listed_for_later():
    assert {row["bound"] for row in ORACLE["rows"]} == set(FUNCTIONS) | LATER
    assert not set(FUNCTIONS) & LATER


@pytest.mark.parametrize("row", rows())
def test_value(row):
    got = FUNCTIONS[row["bound"]](**{name: parse(value) for name, value in row["inputs"].items()})
    expected = float(row["value"])
    assert isinstance(got, float)
    if abs(expected) < 2.3e-308:
        assert abs(got) < 2.3e-308
    else:
        assert abs(got - expected) <= 1e-12 * abs(expected)
