"""Gradients of the bounds, and their limits."""

from __future__ import annotations

import math

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
