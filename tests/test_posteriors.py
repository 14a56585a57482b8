"""The Gaussian posterior: KL, draws, and what becomes of the prior."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pbnn.posteriors import GaussianPosterior
from pbnn.seeding import generator


def moved_posterior(dtype=torch.float64):
    prior = torch.randn(3, 4, generator=generator(0, "prior"), dtype=dtype)
    posterior = GaussianPosterior(prior)
    with torch.no_grad():
        posterior.mean.add_(torch.randn(3, 4, generator=generator(0, "move"), dtype=dtype))
    return posterior, prior


def test_kl_is_the_sum_over_weights_of_torch():
    posterior, prior = moved_posterior()
    expected = kl_divergence(Normal(posterior.mean, 1.0), Normal(prior, 1.0)).sum()
    torch.testing.assert_close(posterior.kl(), expected)


def test_the_gradient_of_kl_is_the_distance_from_the_prior():
    posterior, prior = moved_posterior()
    posterior.kl().backward()
    torch.testing.assert_close(posterior.mean.grad, posterior.mean.detach() - prior)


def test_draws_have_mean_and_unit_variance_and_are_independent():
    posterior, _ = moved_posterior()
    draw, source = 100_000, generator(0, "draws")
    sample = posterior.sample(source, draw).detach().flatten(1)
    centred = sample - posterior.mean.detach().flatten()
    assert (centred.mean(0).abs() <= 5 / draw**0.5).all()
    covariance = centred.T @ centred / draw
    # The square of a normal has variance 2, the product of two independent ones variance 1.
    spread = (1 + torch.eye(12, dtype=torch.float64)).sqrt() / draw**0.5
    assert ((covariance - torch.eye(12)).abs() <= 5 * spread).all()


def test_a_draw_depends_on_the_generator_alone():
    posterior, _ = moved_posterior()
    first = posterior.sample(generator(0, "draw"))
    assert torch.equal(first, posterior.sample(generator(0, "draw")))
    assert not torch.equal(first, posterior.sample(generator(1, "draw")))


def test_the_mode_is_the_mean():
    posterior, _ = moved_posterior()
    assert torch.equal(posterior.mode(), posterior.mean)


def test_an_adopted_prior_has_no_kl_and_stays_behind():
    posterior, prior = moved_posterior()
    assert posterior.kl() > 0
    posterior.adopt_as_prior()
    assert posterior.kl() == 0
    assert not torch.equal(posterior.prior_mean, prior)
    with torch.no_grad():
        posterior.mean.add_(1)
    assert posterior.kl().item() == pytest.approx(12 / 2)


def test_the_given_prior_is_copied():
    prior = torch.zeros(1, 2)
    posterior = GaussianPosterior(prior)
    prior.fill_(7)
    assert torch.equal(posterior.prior_mean, torch.zeros(1, 2))
    assert torch.equal(posterior.mean, torch.zeros(1, 2))


def test_only_the_mean_is_trained_and_both_are_stored():
    posterior, _ = moved_posterior()
    assert [name for name, _ in posterior.named_parameters()] == ["mean"]
    assert set(posterior.state_dict()) == {"mean", "prior_mean"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_of_the_prior_is_kept(dtype):
    posterior, _ = moved_posterior(dtype)
    sample = posterior.sample(generator(0, "draw"))
    assert {t.dtype for t in (posterior.mean, posterior.prior_mean, sample)} == {dtype}
