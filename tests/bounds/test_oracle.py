"""Every bound against values computed with 50 digits."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import pbnn.bounds as pb
from pbnn.bounds import exact

COPY = Path(__file__).parents[1] / "data" / "bounds_oracle.json"
ORACLE = json.loads(Path(os.environ.get("PBNN_ORACLE", COPY)).read_text())

LN2 = math.log(2)
# Below the exact constant on small samples, hence no bound: see tests/bounds/test_multiclass.py.
LEFT_OUT = {"adams_rhs_pi"}


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
    "chernoff_kl_test": lambda k, n, delta: pb.chernoff(k, n, delta=delta),
    "maurer_pontil_eb": lambda var, **a: pb.maurer_pontil(**a, variance=var, clip=False),
    "first_order_mv": lambda gibbs, **a: pb.first_order(gibbs, **a, clip=False),
    "tandem_mv": lambda tandem, kl, n2, delta: pb.tandem(tandem, kl, n2, delta=delta, clip=False),
    "mc_kl_one": monte_carlo_then_maurer,
    # The two-sided step is the one-sided one at half its share of delta.
    "mc_kl_two": lambda delta_mc, **a: monte_carlo_then_maurer(delta_mc=delta_mc / 2, **a),
    "emp_bernstein_ts": lambda var, **a: pb.empirical_bernstein(**a, variance=var, clip=False),
    "unexpected_bernstein": lambda risk, **a: pb.unexpected_bernstein(risk, **a, clip=False),
    "split_kl": lambda f_plus, f_minus, **a: pb.split_kl(f_plus, f_minus, **a, clip=False),
    "split_kl_discrete": lambda F, **a: pb.split_kl_discrete(F, **a, clip=False),
    "rpb_excess": lambda F, T, **a: pb.recursive_excess(F, **a, steps=T, clip=False),
    "dis_mv": lambda gibbs, disagreement, kl, n, n2, delta: pb.disagreement(
        gibbs, disagreement, kl, n, n_pairs=n2, delta=delta, clip=False
    ),
    "c_tandem": lambda gibbs, tandem, kl, n, n2, delta: pb.c_tandem(
        gibbs, tandem, kl, n, n_pairs=n2, delta=delta, clip=False
    ),
    "c_bound_seeger": lambda gibbs, disagreement, **a: pb.c_bound(
        gibbs, disagreement, **a, clip=False
    ),
    "disintegrated_rivasplata": pb.rivasplata,
    "disintegrated_viallard": lambda d_alpha, **a: pb.viallard(divergence=d_alpha, **a),
    "occam_kl": lambda bits, **a: pb.occam(nats=bits * LN2, **a),
    "occam_hoeffding": lambda bits, **a: pb.occam_hoeffding(nats=bits * LN2, **a, clip=False),
    "adams_rhs": lambda M, **a: pb.vector_kl(types=M, **a),
    "log_xi": pb.log_xi,
    "log_kt": pb.log_kt,
    "kl_exact_xi": lambda **a: pb.maurer(**a, constant="xi", clip=False),
    "kt_kl": lambda **a: pb.maurer(**a, constant="kt", clip=False),
    "seeger_kl": lambda **a: pb.maurer(**a, constant="seeger", clip=False),
    "anytime_union": lambda **a: pb.maurer(**a, constant="union", clip=False),
    "quad_tight": lambda **a: pb.quadratic(**a, tight=True, clip=False),
    "rts": lambda **a: pb.tolstikhin_seldin(**a, clip=False),
    "fast_rate": lambda **a: pb.fast_rate(**a, clip=False),
    "catoni_1_2_6": lambda bits, **a: pb.catoni_union(kl=bits * LN2, **a, clip=False),
    "alquier_hoeffding": lambda **a: pb.alquier(**a, clip=False),
    "sub_gamma": lambda **a: pb.sub_gamma(**a, clip=False),
    "chi2": lambda chi2, **a: pb.chi_square(divergence=chi2, **a, clip=False),
}


def parse(value: Any) -> Any:
    if isinstance(value, list):
        return [parse(entry) for entry in value]
    return value if isinstance(value, int) else float(value)


def rows() -> list[Any]:
    covered = [row for row in ORACLE["rows"] if row["bound"] not in LEFT_OUT]
    return [pytest.param(row, id=f"{row['bound']}-{row['inputs']}") for row in covered]


def inputs(row: dict[str, Any]) -> dict[str, Any]:
    return {name: parse(value) for name, value in row["inputs"].items()}


def test_every_name_of_the_oracle_has_its_function():
    names = {row["bound"] for row in json.loads(COPY.read_text())["rows"]}
    assert names == set(FUNCTIONS) | LEFT_OUT
    assert len(names) == 46


@pytest.mark.parametrize("row", rows())
def test_value(row):
    got = FUNCTIONS[row["bound"]](**inputs(row))
    expected = float(row["value"])
    assert isinstance(got, float)
    if abs(expected) < 2.3e-308:
        assert abs(got) < 2.3e-308
    else:
        assert abs(got - expected) <= 1e-12 * abs(expected)


@pytest.mark.parametrize("row", rows())
def test_the_value_in_intervals(row):
    """The two float64 numbers around the value, but for codes, whose nats are rounded here."""
    bound, given = FUNCTIONS[row["bound"]], inputs(row)
    given = {name: tuple(x) if isinstance(x, list) else x for name, x in given.items()}
    near = float(row["value"])
    if near == 0:  # or far below the least float64
        assert exact.lower(bound, **given) == 0
        assert exact.upper(bound, **given) <= 5e-324
        return
    value = Fraction(row["value"])
    low, high = (Fraction(end(bound, **given)) for end in (exact.lower, exact.upper))
    # The oracle has 50 digits, and the nats of a code are rounded before they come here.
    room = abs(value) / (10**14 if "bits" in given else 10**48)
    assert low - room <= value <= high + room
    assert high - low <= 2 * Fraction(math.ulp(near))
