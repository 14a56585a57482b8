"""Tasks without labels: turns of images, and clusters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pbnn.backbones import mlp
from pbnn.baselines import Classifier
from pbnn.objectives import RiskObjective
from pbnn.representation import RotationObjective, clusters, rotated
from pbnn.seeding import generator


def images(count=400):
    return torch.rand(count, 2, 5, 5, generator=generator(0, "images"))


def test_turning_back_by_its_class_gives_the_image():
    x = images()
    turned, turns = rotated(x, generator(0, "turns"))
    back = torch.stack([a.rot90(-int(t), (1, 2)) for a, t in zip(turned, turns, strict=True)])
    assert torch.equal(back, x)
    # By hand: a quarter to the left takes the upper right corner to the upper left one.
    first = int((turns == 1).nonzero()[0])
    assert torch.equal(turned[first, :, 0, 0], x[first, :, 0, -1])


def test_every_turn_is_as_likely_and_a_seed_repeats_them():
    turns = [rotated(images(), generator(seed, "turns"))[1] for seed in (0, 0, 1)]
    assert torch.equal(turns[0], turns[1])
    assert not torch.equal(turns[0], turns[2])
    many = torch.cat([rotated(images(), generator(s, "turns"))[1] for s in range(10)])
    error = (4000 * 0.25 * 0.75) ** 0.5
    assert (many.bincount(minlength=4) - 1000).abs().max() <= 5 * error


@pytest.mark.parametrize("shape", [(3, 5, 5), (3, 1, 5, 6)])
def test_what_cannot_be_turned_is_refused(shape):
    with pytest.raises(ValueError, match="`images` must have shape"):
        rotated(torch.zeros(shape), generator(0, "turns"))
    objective = RotationObjective(nn.Module(), generator(0, "turns"))
    with pytest.raises(ValueError, match="`images` must have shape"):
        objective.check(torch.zeros(shape), torch.zeros(3))


def test_the_loss_of_turns_is_that_of_a_classifier_of_turned_images():
    network = mlp((2, 5, 5), (8,), classes=4, generator=generator(0, "network"))
    plain = RiskObjective(Classifier(network), "cross_entropy")
    objective = RotationObjective(plain, generator(0, "turns"))
    x, labels = images(), torch.full((400,), 9)  # no class of four: never looked at
    objective.check(x, labels)
    draws = generator(0, "turns")
    found = []
    for _ in range(2):
        loss, risk = objective(x, labels)
        expected = plain(*rotated(x, draws))
        assert (loss, risk) == expected
        found.append(loss.item())
    assert found[0] != found[1]  # turned anew


def test_clusters_are_those_of_the_points_and_not_of_their_order():
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    which = torch.randint(3, (300,), generator=generator(0, "which"))
    x = centres[which] + torch.randn(300, 2, generator=generator(0, "noise"))
    found = clusters(x, 3, seed=0)
    assert found.dtype == torch.int64
    pairs = {*zip(found.tolist(), which.tolist(), strict=True)}
    assert len(pairs) == 3
    assert torch.equal(found, clusters(x.view(300, 2, 1), 3, seed=0))


@pytest.mark.parametrize("count", [0, 5])
def test_a_number_of_clusters_that_cannot_be_is_refused(count):
    with pytest.raises(ValueError, match=r"`count` must lie in \[1, 4\]"):
        clusters(torch.rand(4, 2, generator=generator(0, "x")), count, seed=0)
