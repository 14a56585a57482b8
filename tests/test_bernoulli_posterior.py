"""The Bernoulli posterior: KL, also at certainty, draws, mode, and what becomes of the prior."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence

from pbnn.posteriors import BernoulliPosterior
from pbnn.seeding import generator

ENDS = (-1.0, -0.5, 0.0, 0.25, 1.0)


def uniform(*shape, of, dtype=torch.float64):
    return 2 * torch.rand(*shape, generator=generator(0, of), dtype=dtype) - 1


def moved_posterior(dtype=torch.float64):
    return BernoulliPosterior(
        uniform(3, 4, of="prior", dtype=dtype), uniform(3, 4, of="mean", dtype=dtype)
    )


def torchs(mean):
    return Bernoulli(probs=(1 + mean) / 2)


def test_kl_and_its_gradient_are_those_of_torch():
    q = moved_posterior()
    expected = kl_divergence(torchs(q.mean), torchs(q.prior_mean)).sum()
    torch.testing.assert_close(q.kl(), expected)
    found, other = (torch.autograd.grad(kl, q.half_logit)[0] for kl in (q.kl(), expected))
    torch.testing.assert_close(found, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("prior", "mean"), list(itertools.product(ENDS, repeat=2)))
def test_kl_at_certainty_is_that_of_torch_and_never_nan(prior, mean, dtype):
    q = BernoulliPosterior(*torch.tensor([[prior], [mean]], dtype=dtype))
    terms = [
        chance * math.log(chance / other) if other else math.inf
        for chance, other in (((1 + mean) / 2, (1 + prior) / 2), ((1 - mean) / 2, (1 - prior) / 2))
        if chance
    ]
    kl = q.kl()
    assert kl.item() == pytest.approx(sum(terms), rel=1e-6, abs=1e-7)
    expected = kl_divergence(torchs(q.mean.double()), torchs(q.prior_mean.double())).sum()
    if not expected.isnan():
        torch.testing.assert_close(kl.double(), expected, rtol=1e-6, atol=1e-7)
    kl.backward()
    assert q.half_logit.grad.isfinite().all()


@pytest.mark.parametrize("rho", [9.5, 40.0, -300.0, math.inf, -math.inf])
def test_kl_near_certainty_has_no_overflow(rho):
    q = BernoulliPosterior(torch.zeros(1))
    q.half_logit.data.fill_(rho)
    assert q.kl().item() == pytest.approx(math.log(2), rel=1e-5)
    q.adopt_as_prior()  # the mean is ±1 in float32, the probabilities are not 0
    assert q.kl() == 0
    q.half_logit.data.zero_()
    assert q.kl().item() == pytest.approx(abs(rho) - math.log(2), rel=1e-4)
    q.half_logit.data.fill_(-rho)
    assert q.kl().item() == pytest.approx(2 * abs(rho), rel=1e-4)
    q.kl().backward()
    assert q.half_logit.grad.isfinite().all()


def test_an_adopted_prior_has_no_kl_and_stays_behind():
    q = moved_posterior()
    assert q.kl() > 0
    q.adopt_as_prior()
    assert q.kl() == 0
    torch.testing.assert_close(q.prior_mean, q.mean)
    with torch.no_grad():
        q.half_logit.add_(1)
    assert q.kl() > 1
    torch.testing.assert_close(q.mean, torch.tanh(torch.atanh(q.prior_mean) + 1))


def test_draws_have_the_means_and_are_independent():
    q, count, source = moved_posterior(), 100_000, generator(0, "draws")
    with torch.no_grad():
        mean = q.mean.flatten()
        draws = q.sample(source, count).flatten(1)
    assert draws.unique().tolist() == [-1, 1]
    var = 1 - mean.square()
    assert ((draws.mean(0) - mean).abs() <= 5 * (var / count).sqrt()).all()
    covariance = (draws - mean).T @ (draws - mean) / count
    spread = (var[:, None] * var / count).sqrt()
    assert ((covariance - torch.diag(var)).fill_diagonal_(0).abs() <= 5 * spread).all()


def test_a_draw_depends_on_the_generator_alone_and_certain_signs_are_kept():
    q = moved_posterior()
    assert torch.equal(q.sample(generator(0, "a")), q.sample(generator(0, "a")))
    assert not torch.equal(q.sample(generator(0, "a")), q.sample(generator(0, "b")))
    known = torch.tensor([1.0, -1.0]).repeat(2000)
    assert torch.equal(BernoulliPosterior(known).sample(generator(0, "a")), known)


def test_the_mode_is_the_likelier_sign_and_the_ternary_weight_the_likely_one():
    mean = torch.tensor([-1.0, -0.5, -0.4999, -1e-6, 0.0, 1e-6, 0.4999, 0.5, 1.0]).double()
    q = BernoulliPosterior(torch.zeros_like(mean), mean)
    # In floats tanh(artanh ½) may fall short of ½.
    q.half_logit.data[[1, 7]] = torch.tensor([-0.55, 0.55]).double()
    assert q.mode().tolist() == [-1, -1, -1, -1, 1, 1, 1, 1, 1]
    assert q.ternary().tolist() == [-1, -1, 0, 0, 0, 0, 0, 1, 1]
    chance = (1 + q.mean.abs()) / 2
    assert torch.equal(q.ternary() != 0, chance >= 0.75)
    assert q.mode().dtype == q.ternary().dtype == mean.dtype


def test_the_mode_maximises_the_probability_over_all_patterns():
    mean = uniform(5, of="mean")
    q = BernoulliPosterior(torch.zeros_like(mean), mean)
    patterns = [torch.tensor(p).double() for p in itertools.product((-1.0, 1.0), repeat=5)]
    best = max(patterns, key=lambda signs: ((1 + signs * mean) / 2).prod().item())
    assert torch.equal(q.mode(), best)


def test_the_posterior_starts_at_the_prior_or_where_it_is_told():
    prior = torch.tensor([0.2, -1.0, 1.0], dtype=torch.float64)
    q = BernoulliPosterior(prior)
    torch.testing.assert_close(q.mean.detach(), prior)
    torch.testing.assert_close(q.prior_mean, prior)
    assert q.kl() == 0
    other = BernoulliPosterior(prior, -prior)
    torch.testing.assert_close(other.mean.detach(), -prior)
    torch.testing.assert_close(other.prior_mean, prior)
    prior.fill_(0.7)  # the given tensors are copied
    assert q.prior_mean[0].item() == pytest.approx(0.2)
    assert q.law == "bernoulli"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_the_logarithm_of_the_odds_is_trained_and_both_are_stored(dtype):
    q = moved_posterior(dtype)
    assert [name for name, _ in q.named_parameters()] == ["half_logit"]
    assert set(q.state_dict()) == {"half_logit", "prior_half_logit"}
    parts = (q.mean, q.prior_mean, q.sample(generator(0, "a")), q.mode(), q.kl())
    assert {part.dtype for part in parts} == {dtype}


@pytest.mark.parametrize("bad", [1.001, -1.5, math.nan, math.inf])
def test_means_outside_are_refused(bad):
    fine, wrong = torch.zeros(2), torch.tensor([0.0, bad])
    with pytest.raises(ValueError, match=r"`prior_mean` must lie in \[-1, 1\], got"):
        BernoulliPosterior(wrong, fine)
    with pytest.raises(ValueError, match=r"`mean` must lie in \[-1, 1\], got"):
        BernoulliPosterior(fine, wrong)


@pytest.mark.parametrize("of", ["half_logit", "prior_half_logit"])
def test_a_broken_posterior_or_prior_is_not_free(of):
    q = moved_posterior()
    getattr(q, of).data[1, 2] = math.nan
    assert q.kl().isnan()


def test_many_weights_that_have_hardly_moved_cost_what_they_should():
    """In float32 their terms cancel to less than nothing."""
    mean = uniform(200_000, of="prior", dtype=torch.float32)
    q = BernoulliPosterior(mean)
    with torch.no_grad():
        q.half_logit += 1e-6
    moved = (q.half_logit - q.prior_half_logit).double()
    expected = ((1 - mean.double().square()) * moved.square() / 2).sum()  # Fisher's information
    assert q.kl().item() == pytest.approx(expected.item(), rel=0.05)


def test_the_mode_has_the_gradient_of_the_means():
    q, weight = moved_posterior(), uniform(3, 4, of="weight")
    found, expected = (
        torch.autograd.grad((signs * weight).sum(), q.half_logit)[0] for signs in (q.mode(), q.mean)
    )
    assert torch.equal(found, expected)


def test_a_posterior_that_commits_keeps_its_mode_and_nothing_else():
    q = BernoulliPosterior(torch.zeros(4), torch.tensor([-1.0, -0.1, 0.0, 0.99]))
    mode = q.mode()
    q.commit(0.9)
    torch.testing.assert_close(q.mean.detach(), 0.9 * torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    assert torch.equal(q.mode(), mode)
    for bad in (0.0, 1.0, -0.5, math.nan):
        with pytest.raises(ValueError, match=rf"`size` must lie in \(0, 1\), got {bad}"):
            q.commit(bad)


def test_what_is_less_than_rounding_costs_nothing_rather_than_less():
    for move in torch.logspace(-12, -9, 10).tolist():
        q = BernoulliPosterior(uniform(1000, of=f"prior {move}"))
        with torch.no_grad():
            q.half_logit += move
        assert q.kl() >= 0
