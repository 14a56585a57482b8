"""Recipes of deterministic networks on stochastic ones: the gradient estimator, the threshold."""

from __future__ import annotations

import math

import pytest
import torch

from pbnn.binarize import approx_sign, share_of_ones
from pbnn.functional import hard_sign, sign_with_slope
from pbnn.networks import BLRNet, fingerprint, unbalance
from pbnn.seeding import generator


def network(**options):
    return BLRNet((1, 8, 8), "16C3-MP2-8FC-SM3", generator=generator(0, "net"), **options)


def test_known_signs_get_the_gradient_of_the_estimator():
    tail = network(estimator="approx_sign").layers()[1].tail
    x = torch.randn(30, 8, generator=generator(0, "x")).requires_grad_()
    (found,) = torch.autograd.grad(tail.eval().known(x).sum(), x)
    normalised = tail.norm(x)
    (expected,) = torch.autograd.grad(sign_with_slope(normalised, approx_sign).sum(), x)
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="`estimator` must be known, got 'gausian': did you mean"):
        network(estimator="gausian")


def test_the_usual_estimator_changes_no_fingerprint():
    assert "estimator" not in network().config
    assert fingerprint(network()) == fingerprint(network(estimator="gaussian"))
    assert network(estimator="ede").config["estimator"] == "ede"


def test_an_unbalanced_network_has_the_share_of_ones_of_the_closed_form():
    threshold, x = 0.5, torch.randn(4000, 16, 1, 1, generator=generator(0, "x"))
    made = network()
    unbalance(made, threshold)
    norm = made.layers()[0].tail.norm
    share = (hard_sign(norm(x)) > 0).double().mean()
    error = math.sqrt(0.25 / x.numel())
    assert abs(float(share) - share_of_ones(threshold)) < 5 * error + 1e-3
    # The scores keep their bias.
    assert (made.layers()[-1].tail.norm.beta == 0).all()


def test_a_threshold_needs_normalisation_and_a_number():
    with pytest.raises(ValueError, match="`threshold` must be finite, got nan"):
        unbalance(network(), math.nan)
    with pytest.raises(ValueError, match="`network` must have batch normalisation"):
        unbalance(network(batch_norm=False), 0.3)
