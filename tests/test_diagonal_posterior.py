"""Gaussian posteriors with deviations of their own, and the log-ratios of all posteriors."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from pbnn.certificates import kl_upper, log_ratio_upper
from pbnn.posteriors import BernoulliPosterior, DiagonalGaussianPosterior, GaussianPosterior
from pbnn.seeding import generator


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def diagonal(*, shared):
    posterior = DiagonalGaussianPosterior(normal(3, 4, of="prior"), shared=shared)
    shape = posterior.log_deviation.shape
    posterior.log_deviation.data.copy_(normal(*shape, of="prior deviation"))
    posterior.adopt_as_prior()
    with torch.no_grad():
        posterior.mean.add_(normal(3, 4, of="move"))
        posterior.log_deviation.copy_(normal(*posterior.log_deviation.shape, of="deviation"))
    return posterior


def gaussian():
    return GaussianPosterior(normal(3, 4, of="prior"), normal(3, 4, of="mean"))


def bernoulli():
    prior, mean = (normal(3, 4, of=name).tanh() for name in ("prior", "mean"))
    return BernoulliPosterior(prior, mean)


def laws(posterior):
    """Q and P of torch, and what turns weights into their values."""
    if isinstance(posterior, BernoulliPosterior):
        q, p = (Bernoulli((1 + mean) / 2) for mean in (posterior.mean, posterior.prior_mean))
        return q, p, lambda w: (w + 1) / 2
    deviations = 1.0, 1.0
    if isinstance(posterior, DiagonalGaussianPosterior):
        deviations = posterior.variance.sqrt(), posterior.prior_log_deviation.exp()
    means = posterior.mean, posterior.prior_mean
    return *(Normal(*part) for part in zip(means, deviations, strict=True)), lambda w: w


@pytest.mark.parametrize("shared", [True, False])
def test_kl_is_the_sum_over_weights_of_torch(shared):
    posterior = diagonal(shared=shared)
    assert posterior.log_deviation.shape == ((1, 4) if shared else (3, 4))
    q, p, _ = laws(posterior)
    torch.testing.assert_close(posterior.kl(), kl_divergence(q, p).sum())


def test_it_starts_at_the_prior_without_kl_and_has_none_once_adopted():
    posterior = DiagonalGaussianPosterior(normal(3, 4, of="prior"))
    assert posterior.kl() == 0
    assert torch.equal(posterior.variance, torch.ones(1, 4).double())
    assert diagonal(shared=True).kl() > 0
    adopted = diagonal(shared=True)
    adopted.adopt_as_prior()
    assert adopted.kl() == 0


@pytest.mark.parametrize(
    "posterior",
    [gaussian(), bernoulli(), diagonal(shared=True), diagonal(shared=False)],
    ids=["gaussian", "bernoulli", "shared", "own"],
)
def test_costs_are_rounded_up_by_next_to_nothing(posterior):
    q, p, value = laws(posterior)
    kl = float(kl_divergence(q, p).sum().detach())
    assert kl - 1e-13 * kl < kl_upper(posterior) <= kl * (1 + 1e-11)
    weight = posterior.sample(generator(0, "one")).detach()
    ratio = float((q.log_prob(value(weight)) - p.log_prob(value(weight))).sum().detach())
    assert -1e-13 < log_ratio_upper(posterior, weight) - ratio <= 1e-11


@pytest.mark.parametrize("shared", [True, False])
def test_draws_have_the_mean_and_the_variances(shared):
    posterior, draws = diagonal(shared=shared), 100_000
    sample = posterior.sample(generator(0, "draws"), draws).detach()
    variance = posterior.variance.detach().expand(3, 4)
    assert ((sample.mean(0) - posterior.mean).abs() <= 5 * (variance / draws).sqrt()).all()
    # The square of a normal has variance 2.
    off = (sample.var(0) - variance).abs()
    assert (off <= 5 * variance * (2 / draws) ** 0.5).all()
    assert torch.equal(posterior.mode(), posterior.mean)


@pytest.mark.parametrize(
    "posterior",
    [gaussian(), bernoulli(), diagonal(shared=True), diagonal(shared=False)],
    ids=["gaussian", "bernoulli", "shared", "own"],
)
def test_the_log_ratio_is_that_of_torch_and_its_mean_the_kl(posterior):
    q, p, value = laws(posterior)
    draws = posterior.sample(generator(0, "draws"), 20_000).detach()
    expected = (q.log_prob(value(draws)) - p.log_prob(value(draws))).flatten(1).sum(1).detach()
    for k in (0, 1):
        found = torch.tensor(log_ratio_upper(posterior, draws[k]), dtype=torch.float64)
        torch.testing.assert_close(found, expected[k])
    error = 5 * float(expected.std()) / len(draws) ** 0.5
    assert abs(float(expected.mean()) - posterior.kl().item()) <= error
