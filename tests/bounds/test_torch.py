"""Gradients of the bounds, and their limits."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch

import pbnn.bounds as pb


def leaf(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


RISK = (0.03, 0.2, 0.5, 0.81)
KL = (0.5, 3.0, 20.0, 8.0)


@pytest.mark.parametrize("side", ["upper", "lower"])
def test_kl_inverse_passes_gradcheck(side):
    def function(q, c):
        return pb.kl_inverse(q, c, side)

    q, c = leaf(0.1, 0.3, 0.5, 0.9), leaf(0.05, 0.01, 0.4, 0.02)
    assert torch.autograd.gradcheck(function, (q, c))
    # Given outputs, lest the check draws them from the global generator.
    weights = torch.ones_like(q, requires_grad=True)
    assert torch.autograd.gradgradcheck(function, (q, c), weights)


def test_binary_kl_passes_gradcheck():
    q, p = leaf(0.1, 0.3, 0.5, 0.9), leaf(0.2, 0.31, 0.4, 0.99)
    assert torch.autograd.gradcheck(pb.binary_kl, (q, p))


def test_broadcast_gradients_pass_gradcheck():
    q, c = leaf(0.1, 0.3), leaf(0.05, 0.01, 0.4).detach().reshape(3, 1).requires_grad_()
    assert torch.autograd.gradcheck(pb.kl_inverse, (q, c))


@pytest.mark.parametrize(
    "bound",
    [
        pb.maurer,
        pb.mcallester,
        pb.quadratic,
        pb.thiemann,
        pb.first_order,
        pb.tandem,
        lambda r, k, n, **a: pb.catoni(r, k, n, C=0.7, **a),
        lambda r, k, n, **a: pb.catoni(r, k, n, C=0.7, fixed=True, **a),
        lambda r, k, n, **a: pb.thiemann(r, k, n, lam=0.7, **a),
    ],
)
def test_bounds_pass_gradcheck(bound):
    def function(risk, kl):
        return bound(risk, kl, 150, clip=False)

    assert torch.autograd.gradcheck(function, (leaf(*RISK), leaf(*KL)))


def test_monte_carlo_and_derandomised_pass_gradcheck():
    assert torch.autograd.gradcheck(lambda r: pb.monte_carlo(r, 100), (leaf(*RISK),))
    arguments = leaf(0.3, 0.4), leaf(0.1, 0.05), leaf(0.5, 0.6)
    assert torch.autograd.gradcheck(lambda *a: pb.derandomised(*a, clip=False), arguments)


def test_the_gradient_of_catoni_by_its_temperature_vanishes_at_the_best():
    risk, kl, n = 0.1, 20.0, 500
    C = leaf(pb.catoni_optimal_c(risk, kl, n))
    assert torch.autograd.gradcheck(lambda x: pb.catoni(risk, kl, n, C=x), (C,))
    (slope,) = torch.autograd.grad(pb.catoni(risk, kl, n, C=C).sum(), C)
    assert abs(slope.item()) < 1e-14
    for factor, sign in ((0.5, -1), (2.0, 1)):
        D = (C.detach() * factor).requires_grad_()
        (slope,) = torch.autograd.grad(pb.catoni(risk, kl, n, C=D).sum(), D)
        assert math.copysign(1, slope.item()) == sign


def test_maurer_has_the_gradient_of_catoni_at_the_best_temperature():
    """Envelope theorem: two independent paths to one gradient."""
    risk, kl = leaf(*RISK), leaf(*KL)
    C = pb.catoni_optimal_c(risk, kl, 150)
    assert not C.requires_grad
    one = torch.autograd.grad(pb.maurer(risk, kl, 150).sum(), (risk, kl))
    two = torch.autograd.grad(pb.catoni(risk, kl, 150, C=C).sum(), (risk, kl))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=0)


def slopes(q, c, side="upper"):
    q, c = leaf(q), leaf(c)
    by_q, by_c = torch.autograd.grad(pb.kl_inverse(q, c, side).sum(), (q, c))
    return by_q.item(), by_c.item()


def test_gradients_at_the_ends():
    assert slopes(0.0, 0.7) == (math.inf, pytest.approx(math.exp(-0.7)))
    assert slopes(0.0, 0.0) == (1.0, 1.0)
    assert slopes(1.0, 0.7) == (0.0, 0.0)
    assert slopes(0.3, math.inf) == (0.0, 0.0)
    assert slopes(0.3, 0.0) == (1.0, math.inf)
    assert slopes(1.0, 0.7, "lower") == (math.inf, pytest.approx(-math.exp(-0.7)))
    assert slopes(0.0, 0.7, "lower") == (0.0, 0.0)
    assert slopes(0.3, 0.0, "lower") == (1.0, -math.inf)


def test_gradients_tend_to_their_limits():
    by_q, by_c = slopes(1e-12, 0.7)
    assert by_c == pytest.approx(math.exp(-0.7), rel=1e-9)
    assert 10 < by_q < 30
    by_q, by_c = slopes(0.3, 1e-10)
    assert by_q == pytest.approx(1, rel=1e-4)
    assert by_c == pytest.approx(math.sqrt(0.3 * 0.7 / 2e-10), rel=1e-4)
    # 1 - p is 1e-13: the logarithm of a ratio near zero must not be taken through log1p.
    by_q, _ = slopes(0.3, 20.5)
    p = pb.kl_inverse(0.3, 20.5)
    expected = (math.log(0.7 / (1 - p)) + math.log(p / 0.3)) * p * (1 - p) / (p - 0.3)
    assert by_q == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("c", [5.0, 12.0, 18.0, 20.0, 22.0, 60.0])
@pytest.mark.parametrize("q", [0.2, 0.3, 0.45])
def test_gradients_where_the_other_end_is_close(q, c):
    """The ratio of p to q, or of their complements, is far below the units of 1."""
    for side in ("upper", "lower"):
        p = pb.kl_inverse(q, c, side)
        if p < 1:
            log_odds = math.log(p / q) + math.log((1 - q) / (1 - p))
            by_c = p * (1 - p) / (p - q)
            expected = pytest.approx((log_odds * by_c, by_c), rel=1e-12, abs=0)
            assert slopes(q, c, side) == expected


def test_gradients_of_the_kl_at_the_ends():
    q, p = leaf(0.0, 1.0, 0.4), leaf(0.3, 0.3, 0.4)
    by_q, by_p = torch.autograd.grad(pb.binary_kl(q, p).sum(), (q, p))
    assert by_q.tolist() == [-math.inf, math.inf, 0.0]
    assert by_p.tolist() == pytest.approx([1 / 0.7, -1 / 0.3, 0.0])


def test_clipping_removes_the_gradient_and_clip_false_keeps_it():
    risk = leaf(0.9)
    assert torch.autograd.grad(pb.mcallester(risk, 50.0, 20).sum(), risk)[0].item() == 0
    kept = pb.mcallester(risk, 50.0, 20, clip=False).sum()
    assert torch.autograd.grad(kept, risk)[0].item() == 1


def test_single_precision_gradients_come_back_in_single_precision():
    risk = torch.tensor([0.1], requires_grad=True)
    pb.maurer(risk, 3.0, 100).sum().backward()
    assert risk.grad is not None
    assert risk.grad.dtype == torch.float32


def test_tensors_and_arrays_give_the_same_numbers():
    q = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    c = torch.logspace(-12, 2, 57, dtype=torch.float64)
    for side in ("upper", "lower"):
        expected = torch.from_numpy(pb.kl_inverse(q.numpy(), c.numpy(), side))
        torch.testing.assert_close(pb.kl_inverse(q, c, side), expected, rtol=1e-12, atol=1e-300)
    kl = torch.from_numpy(pb.binary_kl(q.numpy(), q.numpy().T))
    torch.testing.assert_close(pb.binary_kl(q, q.T), kl, rtol=1e-13, atol=0)


def test_the_solver_runs_without_looking_at_a_value():
    """On the meta device there are no values: any look, branch or copy to the host fails."""
    q = torch.empty(3, device="meta", dtype=torch.float32, requires_grad=True)
    bound = pb.maurer(q, torch.empty(3, device="meta", requires_grad=True), 100)
    assert bound.shape == (3,)
    assert bound.dtype == torch.float32
    assert bound.device.type == "meta"
    bound.sum().backward()


# Rounded up, or computed by SciPy: a search, not a formula.
NO_GRADIENT = {"betting", "c_bound_joint", "clopper_pearson"}
DIFFERENTIABLE = sorted(set(pb.CATALOGUE) - NO_GRADIENT)
CLIPPED = {
    name
    for name, bound in pb.CATALOGUE.items()
    if "clip" in inspect.signature(bound.function).parameters
}


def raw(name):
    return {"clip": False} if name in CLIPPED else {}


def leaves(call, dtype=torch.float64, **changes):
    """Every number as a tensor with a gradient of its own."""
    numbers = {a: x for a, x in call.numbers.items() if a not in call.one_number} | changes
    return {a: torch.tensor(x, dtype=dtype, requires_grad=True) for a, x in numbers.items()}


@pytest.mark.parametrize("name", sorted(NO_GRADIENT))
def test_a_bound_without_gradient_says_so(name, call):
    assert not call(leaves(call)).requires_grad


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_every_bound_passes_gradcheck_by_every_number(name, call):
    given = leaves(call)

    def value(*numbers):
        return call(dict(zip(given, numbers, strict=True)), **raw(name))

    assert torch.autograd.gradcheck(value, tuple(given.values()), eps=1e-5, atol=1e-8, rtol=1e-5)
    slopes = torch.autograd.grad(value(*given.values()), tuple(given.values()))
    assert all((slope != 0).all() for slope in slopes)


PROBABILITIES = ("risk", "tandem_loss", "disagreement_rate", "gibbs_bound", "lower_right")
NEAR = {
    **dict.fromkeys(PROBABILITIES, (1e-12, 1e-6, 1 - 1e-6)),
    "frequency": (1e-12, 1e-6, 1 - 1e-6),
    **dict.fromkeys(("kl", "divergence", "nats", "log_ratio"), (0.0, 1e-6, 300.0, 1e6)),
    **dict.fromkeys(("delta", "delta_mc"), (1e-100, 1e-12, 1 - 1e-9)),
    **dict.fromkeys(("n", "n_pairs", "draws"), (45.0, 1e9, 1e12)),
    **dict.fromkeys(("variance", "second_moment", "plus", "minus"), (1e-12, 1e-3)),
    **dict.fromkeys(("C", "lam", "gamma", "alpha"), (1.0 + 1e-3, 1.9)),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_near_the_edges_are_differences(name, call):
    """Steps are in proportion to the distance from the edge, so that they stay inside."""
    for argument, value in call.numbers.items():
        kind = argument.partition("[")[0]
        if argument in call.one_number or isinstance(value, list) or kind not in NEAR:
            continue
        for x in NEAR[kind] if (name, kind) != ("recursive", "gamma") else ():
            step = 1e-4 * ((min(x, 1 - x) if x < 1 else x - (kind in ("alpha", "gamma"))) or 1e-2)
            # What requires gradients is not checked, so a divergence of 0 has a left side too.
            here, *sides = (
                call({argument: leaf(at)}, **raw(name)).item() for at in (x, x + step, x - step)
            )
            point = leaf(x)
            (slope,) = torch.autograd.grad(call({argument: point}, **raw(name)).sum(), point)
            rounding = 4e-16 * (1 + abs(here)) / step
            difference = (sides[0] - sides[1]) / (2 * step)
            assert slope.item() == pytest.approx(difference, rel=1e-3, abs=rounding), (argument, x)


# Linear in the risk, or the square of a root that does not vanish with it.
SMOOTH_AT_ZERO = (
    *("mcallester", "quadratic", "chi_square", "alquier", "sub_gamma", "occam_hoeffding"),
    *("catoni", "catoni_fixed", "catoni_union", "thiemann", "fast_rate"),
    *("empirical_bernstein", "maurer_pontil"),
)


@pytest.mark.parametrize("name", SMOOTH_AT_ZERO)
def test_gradients_by_a_risk_of_zero(name, call):
    point = leaf(0.0)
    (slope,) = torch.autograd.grad(call({"risk": point}, **raw(name)).sum(), point)
    value, after, later = (call({"risk": x}, **raw(name)) for x in (0.0, 1e-7, 2e-7))
    assert slope.item() == pytest.approx((4 * after - 3 * value - later) / 2e-7, rel=1e-6)


@pytest.mark.parametrize("name", ["maurer", "renyi", "first_order", "occam", "monte_carlo"])
def test_gradients_by_the_rest_at_a_risk_of_zero(name, call):
    """There the bound is 1 - exp(-c), and only its derivative by the risk is infinite."""
    given = leaves(call, risk=0.0)
    slopes = dict(zip(given, torch.autograd.grad(call(given), tuple(given.values())), strict=True))
    assert slopes.pop("risk").item() == math.inf
    for argument, slope in slopes.items():
        x = given[argument].item()
        step = 1e-5 * x
        if argument in ("n", "draws"):
            continue
        ends = [call({"risk": 0.0, argument: x + s}) for s in (step, -step)]
        assert slope.item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_in_single_precision_are_those_of_double(name, call):
    edges = [{}]
    for argument in {"risk", "tandem_loss", "disagreement_rate"} & set(call.numbers):
        edges += [{argument: 1e-30}, {argument: 1e-12}, {argument: 1 - 2**-24}]
    edges += [{a: x} for a in {"kl", "divergence", "nats"} & set(call.numbers) for x in (0.0, 1e9)]
    edges += [{"variance": 0.0}] if name == "empirical_bernstein" else []
    for edge in edges:
        given = leaves(call, torch.float32, **edge)
        wide = {a: x.detach().double().requires_grad_() for a, x in given.items()}
        singles = torch.autograd.grad(call(given).sum(), tuple(given.values()))
        doubles = torch.autograd.grad(call(wide).sum(), tuple(wide.values()))
        for argument, single, double in zip(given, singles, doubles, strict=True):
            assert single.dtype == torch.float32
            assert torch.isfinite(single).all(), (edge, argument)
            assert single.tolist() == double.float().tolist()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_no_bound_looks_at_what_it_differentiates(name, call):
    """On the meta device there are no values."""

    def without_values(x):
        return torch.empty(2, *np.shape(x), device="meta", requires_grad=True)

    bound = call.each(without_values)
    assert bound.shape == (2,)
    assert bound.dtype == torch.float32
    bound.sum().backward()


def test_gradients_by_the_divergence_at_a_risk_of_zero(calls):
    for name in ("mcallester", "quadratic", "thiemann", "fast_rate", "catoni", "maurer", "tandem"):
        call, point = calls[name], leaf(3.0)
        risk = "tandem_loss" if name == "tandem" else "risk"
        (slope,) = torch.autograd.grad(call({risk: 0.0, "kl": point}).sum(), point)
        ends = [call({risk: 0.0, "kl": x}) for x in (3.0 + 1e-5, 3.0 - 1e-5)]
        assert slope.item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6), name


def test_the_slope_of_tolstikhin_and_seldin_at_a_risk_of_zero(calls):
    point = leaf(3.0)
    value = calls["tolstikhin_seldin"]({"risk": 0.0, "kl": point}).sum()
    (slope,) = torch.autograd.grad(value, point)
    assert slope.item() == pytest.approx(2 / 400)


@pytest.mark.parametrize(
    ("name", "argument"), [("c_tandem", "risk"), ("c_bound", "disagreement_rate")]
)
def test_where_nothing_is_told_the_slope_is_zero(name, argument, calls):
    point = leaf(1.0)
    (slope,) = torch.autograd.grad(calls[name]({argument: point}).sum(), point)
    assert slope.item() == 0


@pytest.mark.parametrize(
    "name",
    [
        *("maurer", "mcallester", "thiemann", "catoni", "fast_rate", "alquier", "first_order"),
        *("quadratic", "tolstikhin_seldin"),
    ],
)
def test_at_an_infinite_divergence_the_clipped_bound_is_flat(name, call):
    given = leaf(0.1), leaf(math.inf)
    slopes = torch.autograd.grad(call(dict(zip(("risk", "kl"), given, strict=True))).sum(), given)
    assert [slope.item() for slope in slopes] == [0, 0]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_what_is_no_number_stays_so(name, call):
    """Tensors in training are not checked: a run that diverged must not look vacuous."""
    for argument in {"risk", "kl", "tandem_loss", "divergence"} & set(call.numbers):
        assert torch.isnan(call({argument: leaf(math.nan)})).all(), argument
