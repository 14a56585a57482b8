"""Bounds on one network: drawn from the posterior, or described by a code."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch

from pbnn.bounds import (
    binary_kl,
    kl_inverse,
    log_kt,
    log_xi,
    maurer,
    occam,
    occam_hoeffding,
    rivasplata,
    viallard,
)
from pbnn.bounds.exact import upper


def test_rivasplata_has_the_log_ratio_where_maurer_has_the_divergence():
    assert rivasplata(0.1, 5.0, 300, delta=0.02) == maurer(0.1, 5.0, 300, delta=0.02)
    for constant in ("xi", "seeger"):
        expected = maurer(0.1, 5.0, 300, constant=constant)
        assert rivasplata(0.1, 5.0, 300, constant=constant) == expected


def test_a_negative_log_ratio_is_credit_down_to_the_empirical_risk():
    price = math.log(2 * math.sqrt(300) / 0.05)
    expected = kl_inverse(0.1, (price - 2) / 300)
    assert rivasplata(0.1, -2.0, 300) == pytest.approx(expected, rel=1e-14)
    assert rivasplata(0.1, -price - 1e-9, 300) == 0.1
    assert rivasplata(0.1, -1e300, 300) == 0.1
    assert rivasplata(0.1, math.inf, 300) == 1
    for value in (-math.inf, math.nan):
        with pytest.raises(ValueError, match="`log_ratio` must be above -inf"):
            rivasplata(0.1, value, 300)


def test_rivasplata_by_enumeration():
    """Two networks, a prior on them, a posterior that prefers the better one: all samples."""
    risks, n, delta = np.array([0.5, 0.4]), 8, 0.2
    prior = np.array([0.5, 0.5])
    failed = 0.0
    for errors in itertools.product(range(n + 1), repeat=2):
        k = np.array(errors)
        chance = np.prod([math.comb(n, a) for a in k] * risks**k * (1 - risks) ** (n - k))
        posterior = prior * np.exp(-3.0 * k)
        posterior /= posterior.sum()
        bounds = rivasplata(k / n, np.log(posterior / prior), n, delta=delta)
        failed += chance * posterior[bounds < risks].sum()
    assert 0 < failed <= delta


def test_the_best_of_many_draws_costs_their_logarithm():
    """Fair coins for networks and posterior = prior: a draw fails only if it makes no error."""
    n, draws, delta = 10, 100, 0.05
    errors = np.arange(n + 1)
    fails = rivasplata(errors / n, 0.0, n, delta=delta) < 0.5
    assert fails.tolist() == [True] + [False] * n
    assert 1 - (1 - 2.0**-n) ** draws > delta
    assert rivasplata(0.0, 0.0, n, delta=delta / draws) > 0.5


def test_certified_rivasplata_when_the_price_is_cancelled():
    rng = np.random.default_rng(0)
    with mpmath.workdps(50):
        for risk, n in zip(rng.uniform(0, 0.5, 200), rng.integers(10, 10**6, 200), strict=True):
            price = math.log(2 * math.sqrt(n) / 0.05)
            ratio = -price * (1 - 10.0 ** rng.uniform(-15, -1))
            got = rivasplata(float(risk), float(ratio), int(n), certify=True)
            exact = mpmath.mpf(ratio) + mpmath.log(2 * mpmath.sqrt(int(n)) / mpmath.mpf(0.05))
            q, p = mpmath.mpf(float(risk)), mpmath.mpf(got)
            spent = q * mpmath.log(q / p) + (1 - q) * mpmath.log((1 - q) / (1 - p))
            assert got >= risk
            assert spent * int(n) >= max(exact, 0)
            assert got <= rivasplata(float(risk), float(ratio), int(n)) * (1 + 1e-5)


@pytest.mark.parametrize("alpha", [1.1, 2.0, 10.0])
def test_viallard_is_the_formula(alpha):
    budget = (7 + (2 * alpha - 1) / (alpha - 1) * math.log(2 / 0.02)) / 300
    expected = kl_inverse(0.1, budget + math.log(2 * math.sqrt(300)) / 300)
    got = viallard(0.1, 7.0, 300, alpha=alpha, delta=0.02)
    assert got == pytest.approx(expected, rel=1e-14)
    got = viallard(0.1, 7.0, 300, alpha=alpha, delta=0.02, constant="xi")
    assert got == pytest.approx(kl_inverse(0.1, budget + log_xi(300) / 300), rel=1e-14)


def test_viallard_of_gaussians_at_its_default_order():
    """D_2 is the squared distance over the variance, and the constants are those of a cube."""
    distance, variance, n, delta = 3.0, 0.25, 1000, 0.05
    grid = np.linspace(-60, 60, 400_001)
    logs = [-((grid - mean) ** 2) / (2 * variance) for mean in (distance, 0.0)]
    norm = math.sqrt(2 * math.pi * variance)
    step = grid[1] - grid[0]
    renyi = math.log(np.exp(2 * logs[0] - logs[1]).sum() * step / norm)
    assert renyi == pytest.approx(distance**2 / variance, rel=1e-6)
    budget = (renyi + math.log(16 * math.sqrt(n) / delta**3)) / n
    assert viallard(0.1, renyi, n, delta=delta) == pytest.approx(kl_inverse(0.1, budget), rel=1e-13)


@pytest.mark.parametrize("alpha", [1.0, 0.5, math.inf, math.nan])
def test_orders_outside_their_domain(alpha):
    with pytest.raises(ValueError, match=r"`alpha` must lie in \(1, inf\)"):
        viallard(0.1, 1.0, 10, alpha=alpha)


def test_occam_fails_seldom_by_enumeration():
    """Two networks of equal code length; their errors are independent."""
    risks, n, delta = np.array([0.3, 0.4]), 10, 0.2
    failed = 0.0
    for errors in itertools.product(range(n + 1), repeat=2):
        k = np.array(errors)
        chance = np.prod([math.comb(n, a) for a in k] * risks**k * (1 - risks) ** (n - k))
        failed += chance * np.any(occam(k / n, math.log(2), n, delta=delta) < risks)
    assert 0 < failed <= delta


def test_occam_without_errors_and_without_code():
    """At no error the budget is spent on ln(1 / (1 - p)); one network needs no code."""
    assert occam(0.0, 3.0, 50, delta=0.1) == pytest.approx(
        1 - math.exp(-(3 + math.log(10)) / 50), rel=1e-14
    )
    assert occam(0.2, 0.0, 50) == kl_inverse(0.2, -math.log(0.05) / 50)
    assert occam(0.2, math.inf, 50) == occam_hoeffding(0.2, math.inf, 50) == 1


def test_occam_of_hoeffding():
    expected = 0.2 + math.sqrt((3 + math.log(10)) / 100)
    assert occam_hoeffding(0.2, 3.0, 50, delta=0.1) == pytest.approx(expected, rel=1e-14)
    nats, risk = np.meshgrid(np.geomspace(0.01, 1e3, 20), np.linspace(0, 1, 21))
    assert np.all(occam(risk, nats, 100) <= occam_hoeffding(risk, nats, 100))
    assert occam_hoeffding(0.9, 30.0, 50) == 1 < occam_hoeffding(0.9, 30.0, 50, clip=False)


@pytest.mark.parametrize("bound", [occam, occam_hoeffding])
def test_negative_codes_are_refused(bound):
    with pytest.raises(ValueError, match=r"`nats` must be non-negative, got -1\.0"):
        bound(0.1, -1.0, 10)


@pytest.mark.parametrize("bound", [rivasplata, viallard, occam])
def test_rounded_up(bound):
    got, near = bound(0.1, 5.0, 300, certify=True), bound(0.1, 5.0, 300)
    assert near < got <= near * (1 + 1e-13)
    assert near * (1 - 1e-15) <= upper(bound, 0.1, 5.0, 300) <= got
    tensor = bound(torch.tensor([0.1], requires_grad=True), 5.0, 300, certify=True)
    assert tensor.dtype == torch.float64
    assert not tensor.requires_grad


@pytest.mark.parametrize("bound", [rivasplata, viallard, occam, occam_hoeffding])
def test_gradients(bound):
    values = [[0.2, 0.1], [4.0, 1.0], [500.0, 900.0], [0.05, 0.1]]
    if bound is viallard:
        values.append([2.0, 1.5])
    given = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]

    def function(risk, nats, n, delta, alpha=None):
        more = {} if alpha is None else {"alpha": alpha}
        return bound(risk, nats, n, delta=delta, **more)

    assert torch.autograd.gradcheck(function, given, eps=1e-7, atol=1e-5)
    if bound is rivasplata:
        ratio = torch.tensor([-1e3], dtype=torch.float64, requires_grad=True)
        rivasplata(0.1, ratio, 500).sum().backward()
        assert ratio.grad.item() == 0


@pytest.mark.parametrize("bound", [rivasplata, viallard, occam, occam_hoeffding])
def test_shapes(bound):
    risk, nats = np.array([[0.1], [0.2]]), np.array([1.0, 2.0, 3.0])
    got = bound(risk, nats, 100)
    assert got.shape == (2, 3)
    assert got[1, 2] == bound(0.2, 3.0, 100)


@pytest.mark.parametrize("bound", [rivasplata, viallard, occam, occam_hoeffding])
def test_defaults(bound):
    more = {} if bound is occam_hoeffding else {"certify": False}
    assert bound(0.1, 5.0, 300) == bound(0.1, 5.0, 300, delta=0.05, clip=True, **more)


def test_one_drawn_network_has_no_bound_for_all_n_at_once():
    """By enumeration of all 2^16 loss sequences: why "kt" promises one n here, and "union" all.

    All losses are fair coins; the posterior puts its mass where some prefix looks good, so the
    drawn network has seen which n will make its bound fail.
    """
    length, delta = 16, 0.05
    losses = (np.arange(2**length)[:, None] >> np.arange(length)) & 1
    n = np.arange(1, length + 1)
    risk = losses.cumsum(axis=1) / n
    gain = np.where(risk < 0.5, np.exp(n * binary_kl(risk, 0.5) - log_kt(n)), 0.0)
    tilt = delta * (1 - 1e-9) * gain.max(axis=1)
    rest = gain.max(axis=1) == 0
    tilt[rest] = (1 - tilt.mean()) / rest.mean()
    log_ratio = np.log(tilt)[:, None]

    def failures(constant):
        fails = rivasplata(risk, log_ratio, n, delta=delta, constant=constant) < 0.5
        return tilt @ fails.any(axis=1) / 2**length, (tilt @ fails / 2**length).max()

    at_any, at_one = failures("kt")
    assert at_any > 1.5 * delta
    assert at_one <= delta
    assert failures("union")[0] <= delta
