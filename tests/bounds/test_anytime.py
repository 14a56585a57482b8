"""A certificate that may be looked at whenever one likes."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from pbnn.bounds import Anytime, chernoff, kl_inverse, log_kt, maurer


def test_it_is_the_bound_of_all_points_so_far():
    rng = np.random.default_rng(0)
    certificate, seen, least = Anytime(7.0, delta=0.1), [], 1.0
    for size in (1, 3, 50, 200):
        batch = rng.beta(0.2, 2.0, size)
        seen.extend(batch)
        bound = certificate.update(batch)
        risk, n = math.fsum(seen) / len(seen), len(seen)
        expected = kl_inverse(risk, (7.0 + log_kt(n) + math.log(10)) / n)
        assert bound == certificate.bound == pytest.approx(expected, rel=1e-12)
        assert bound >= expected
        least = min(least, bound)
        assert (certificate.n, certificate.best) == (n, least)
        assert certificate.risk == pytest.approx(risk, rel=1e-15)
    assert (certificate.kl, certificate.delta) == (7.0, 0.1)


def test_the_best_bound_is_kept():
    certificate = Anytime()
    low = certificate.update([0.0] * 300)
    high = certificate.update([1.0] * 300)
    assert low < high == certificate.bound
    assert certificate.best == low


def test_before_the_first_point_it_is_vacuous():
    certificate = Anytime(1.0)
    assert (certificate.n, certificate.bound, certificate.best) == (0, 1.0, 1.0)
    assert math.isnan(certificate.risk)
    assert certificate.update([]) == 1.0
    assert certificate.n == 0
    assert "after n = 0" in repr(certificate)


def test_the_risk_is_the_exact_mean_rounded_up():
    rng = np.random.default_rng(1)
    for _ in range(50):
        certificate, total, n = Anytime(), Fraction(0), 0
        for _ in range(rng.integers(1, 6)):
            batch = rng.random(rng.integers(1, 40)) ** rng.integers(1, 40)
            certificate.update(batch)
            total, n = total + sum(map(Fraction, batch.tolist())), n + len(batch)
        assert Fraction(certificate.risk) >= total / n
        assert Fraction(math.nextafter(certificate.risk, 0.0)) < total / n * (
            1 + Fraction(1, 2**80)
        )
    certificate = Anytime()
    certificate.update([0.25, 0.5])
    assert certificate.to_dict()["total"] == "3/4"
    # Neither order nor batches matter, and thirds are above thirds.
    certificate = Anytime()
    certificate.update([1.0, 0.0, 0.0])
    assert Fraction(certificate.risk) > Fraction(1, 3)
    certificate.update([2.0**-60] * 3)
    assert Fraction(certificate.risk) > Fraction(1, 6) + Fraction(1, 2**61)


def test_points_of_every_kind():
    bounds = [
        Anytime().update(points)
        for points in (
            [0, 1, 0.5],
            (0.0, 1.0, 0.5),
            np.array([[0.0], [1.0], [0.5]]),
            np.array([0.0, 1.0, 0.5], dtype=np.float32),
            torch.tensor([0.0, 1.0, 0.5], requires_grad=True),
        )
    ]
    assert set(bounds) == {maurer(0.5, 0.0, 3, constant="kt", certify=True)}
    assert type(bounds[-1]) is float


@pytest.mark.parametrize(
    ("losses", "error", "message"),
    [
        ([0.5, 1.5], ValueError, r"`losses` must lie in \[0, 1\], got 1.5"),
        ([0.5, math.nan], ValueError, r"`losses` must lie in \[0, 1\], got nan"),
        (torch.tensor([2.0], requires_grad=True), ValueError, r"`losses` .*, got 2.0"),
        (0.5, TypeError, "`losses` must be a sequence.*, got float"),
        (np.array([True]), TypeError, "`losses` must hold real numbers, got dtype bool"),
        (["0.5"], TypeError, "`losses` must hold real numbers"),
    ],
)
def test_what_is_refused_is_not_added(losses, error, message):
    certificate = Anytime()
    certificate.update([0.25])
    before = certificate.to_dict()
    with pytest.raises(error, match=message):
        certificate.update(losses)
    assert certificate.to_dict() == before


def test_it_resumes_from_json_without_loss():
    rng = np.random.default_rng(2)
    certificate = Anytime(3.5, delta=0.01)
    certificate.update([0.0] * 400)
    certificate.update(rng.random(100) ** 30)
    resumed = Anytime.from_dict(json.loads(json.dumps(certificate.to_dict())))
    assert resumed.to_dict() == certificate.to_dict()
    assert (resumed.bound, resumed.best) == (certificate.bound, certificate.best)
    assert resumed.best < resumed.bound
    batch = rng.random(70)
    assert resumed.update(batch) == certificate.update(batch)
    assert resumed.to_dict() == certificate.to_dict()
    assert Anytime.from_dict(Anytime().to_dict()).bound == 1.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": -1}, ValueError, "`n` must be non-negative, got -1"),
        ({"n": 2.0}, TypeError, "`n` must be an integer, got float"),
        ({"n": True}, TypeError, "`n` must be an integer, got bool"),
        ({"total": "3"}, ValueError, r"`total` must lie in \[0, n\], got '3' with n = 2"),
        ({"total": "-1/2"}, ValueError, r"`total` must lie in \[0, n\], got '-1/2'"),
        ({"total": "1/0"}, ValueError, "`total` must be a fraction, got '1/0'"),
        ({"total": "nan"}, ValueError, "`total` must be a fraction, got 'nan'"),
        ({"total": 1}, TypeError, "`total` must be a fraction as a string, got int"),
        ({"best": math.nan}, ValueError, r"`best` must lie in \[0, 1\], got nan"),
        ({"best": -0.1}, ValueError, r"`best` must lie in \[0, 1\], got -0.1"),
        ({"best": 1.0}, ValueError, "`best` must not exceed the bound"),
        ({"best": "1"}, TypeError, "`best` must be a number, got str"),
        ({"best": True}, TypeError, "`best` must be a number, got bool"),
        ({"kl": -1.0}, ValueError, "`kl` must be finite and non-negative, got -1.0"),
        ({"delta": 0.0}, ValueError, r"`delta` must lie in \(0, 1\), got 0.0"),
        ({"more": 1}, ValueError, "`state` must have the keys"),
    ],
)
def test_a_state_outside_its_domain(change, error, message):
    certificate = Anytime(delta=0.5)
    certificate.update([0.0, 0.25])
    with pytest.raises(error, match=message):
        Anytime.from_dict(certificate.to_dict() | change)


@pytest.mark.parametrize("kl", [-1.0, math.inf, math.nan])
def test_a_kl_outside_its_domain(kl):
    with pytest.raises(ValueError, match="`kl` must be finite and non-negative"):
        Anytime(kl)


def test_one_certificate_has_one_kl_and_one_delta():
    with pytest.raises(TypeError, match="`kl` must be one number, got ndarray"):
        Anytime(np.array([1.0, 2.0]))
    with pytest.raises(TypeError, match="`delta` must be one number, got ndarray"):
        Anytime(delta=np.array([0.1]))


def test_stopping_at_the_first_failure_breaks_fixed_n_bounds_but_not_this_one():
    trials, looks, p, delta = 1_500, 3_000, 0.3, 0.1
    rng = np.random.default_rng(3)
    n = np.arange(1.0, looks + 1)
    fixed = anytime = 0
    for _ in range(trials // 250):
        errors = np.cumsum(rng.random((250, looks)) < p, axis=1)
        fixed += np.sum((chernoff(errors, n, delta=delta) < p).any(axis=1))
        bound = maurer(errors / n, 0.0, n, delta=delta, constant="kt")
        anytime += np.sum((bound < p).any(axis=1))
    assert fixed / trials > 2 * delta
    assert 0 < anytime / trials <= delta + 4 * math.sqrt(delta * (1 - delta) / trials)
