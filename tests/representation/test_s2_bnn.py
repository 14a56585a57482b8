"""Guided distillation: the loss, its gradient, who is taught and who is not."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pbnn.augmentation import random_crop
from pbnn.backbones import lenet
from pbnn.binarize import convert
from pbnn.data import load
from pbnn.representation import (
    ContrastiveObjective,
    GuidedObjective,
    ProjectionHead,
    features,
    guided_divergence,
    guided_loss,
    info_nce,
    knn_probe,
    linear_probe,
)
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit


def unit(of, n=5, d=8):
    x = torch.randn(n, d, generator=generator(0, of), dtype=torch.float64)
    return F.normalize(x, dim=1)


def test_at_the_teacher_the_loss_is_its_entropy():
    teacher = unit("t")
    p = (teacher / 0.2).softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(guided_loss(teacher, teacher), entropy)
    assert float(guided_divergence(teacher, teacher)) == 0
    assert float(guided_divergence(unit("s"), teacher)) > 0


def test_the_entropy_of_128_numbers_is_nearly_that_of_a_flat_law():
    teacher = unit("t", 2000, 128)
    entropy = float(guided_loss(teacher, teacher))
    assert entropy == pytest.approx(4.755, abs=2e-3)  # of ln 128 = 4.852


def test_the_gradient_is_the_difference_of_the_laws():
    student, teacher = unit("s").requires_grad_(), unit("t").requires_grad_()
    guided_loss(student, teacher.detach(), 0.3).backward()
    p, q = ((e.detach() / 0.3).softmax(1) for e in (student, teacher))
    torch.testing.assert_close(student.grad, (p - q) / (0.3 * 5))


def embedder(of="model", recipe=None):
    net = lenet((1, 8, 8), (4, 8), 16, kernel=3, generator=generator(0, of))[:-2]
    net = nn.Sequential(*net, ProjectionHead(16, 12, generator=generator(0, of)))
    return net if recipe is None else convert(net, recipe).network


def images(n=80):
    return torch.rand(n, 1, 8, 8, generator=generator(0, "x")), torch.zeros(n, dtype=torch.int64)


def shifted(x, source):
    return random_crop(x, source, 1)


@pytest.mark.parametrize("contrast", [0.0, 1.0])
def test_a_binary_student_comes_nearer_and_its_teacher_stays(contrast):
    teacher, student = embedder("teacher").eval(), embedder("student", "bi_real_net")
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    x, y = images()
    objective = GuidedObjective(
        student, teacher, shifted, contrast=contrast, generator=generator(0, "views")
    )
    with torch.no_grad():
        start = guided_divergence(student.eval()(x), teacher(x))
    curve = fit(objective, x, y, FitConfig(15, 20, 0.01, keep="last"), generator=generator(0, "o"))
    with torch.no_grad():
        assert guided_divergence(student(x), teacher(x)) < start / 1.5
    assert curve[-1]["risk"] < curve[0]["risk"]
    assert not teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert {id(p) for p in objective.parameters()} == {id(p) for p in student.parameters()}


@pytest.mark.parametrize("contrast", [0.0, 0.5])
def test_student_and_teacher_see_the_same_view_and_the_contrast_is_of_two(contrast):
    teacher, student = embedder("teacher").eval(), embedder("student", "bi_real_net").eval()
    x, y = images(20)
    source = generator(0, "views")
    objective = GuidedObjective(student, teacher, shifted, contrast=contrast, generator=source)
    with torch.no_grad():
        loss, risk = objective(x, y)
        student, teacher = (lambda view, net=net: net(view).detach() for net in (student, teacher))
    again = generator(0, "views")
    first, second = (shifted(x, again) for _ in range(2))
    expected = guided_loss(student(first), teacher(first), 0.2)
    expected = expected + contrast * info_nce(student(first), student(second), 0.2)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(risk, guided_divergence(student(first), teacher(first), 0.2))
    # Another view, another loss: the test would notice.
    assert abs(float(guided_loss(student(first), teacher(second), 0.2) - expected)) > 1e-5


def test_views_of_an_image_learn_to_find_each_other():
    network, (_, y) = embedder(), images()
    x = torch.tensor(load("digits").x[:80])
    objective = ContrastiveObjective(network, shifted, 0.2, generator(0, "views"))
    curve = fit(objective, x, y, FitConfig(60, 40, 0.02, keep="last"), generator=generator(0, "o"))
    assert curve[-1]["risk"] < 0.75 * curve[0]["risk"]


def test_bad_teachers_and_temperatures_are_refused():
    with pytest.raises(ValueError, match="`teacher` must be in evaluation mode"):
        GuidedObjective(embedder(), embedder(), shifted, generator=generator(0, "v"))
    with pytest.raises(
        ValueError, match=r"`temperature` must be finite and at least 0\.015, got 0"
    ):
        ContrastiveObjective(embedder(), shifted, 0, generator(0, "v"))
    net = embedder()
    with pytest.raises(ValueError, match="`teacher` must not share parameters"):
        GuidedObjective(net, net.eval(), shifted, generator=generator(0, "v"))
    with pytest.raises(ValueError, match="`contrast` must be a number of at least 0, got -1"):
        GuidedObjective(
            embedder(), embedder().eval(), shifted, contrast=-1, generator=generator(0, "v")
        )
    x, y = images(4)
    for bare, text in ((embedder()[:-1], "embeddings of unit length"), (nn.Identity(), "(n, d)")):
        with pytest.raises(ValueError, match=re.escape(text)):
            ContrastiveObjective(bare, shifted, 0.2, generator(0, "v")).check(x, y)
    with pytest.raises(ValueError, match="`x` must be finite"):
        ContrastiveObjective(net, shifted, 0.2, generator(0, "v")).check(x * torch.nan, y)
    with pytest.raises(ValueError, match=r"`student` and `teacher` must have one shape \(B, d\)"):
        guided_loss(torch.ones(2, 3), torch.ones(1, 3))


def test_features_are_what_enters_the_last_layer():
    network, (x, _) = embedder().train(), images()
    found = features(network, x, batch=30)
    expected = network[:-1].eval()(x).detach()
    torch.testing.assert_close(found, expected)


def test_probes_read_what_is_there():
    y = torch.arange(300) % 3
    noise = torch.randn(300, 5, generator=generator(0, "noise"))
    x = noise + 4 * F.one_hot(y, 5)
    train, test = (x[:200], y[:200]), (x[200:], y[200:])
    blank = (noise[:200], y[:200]), (noise[200:], y[200:])
    for probe in (linear_probe, knn_probe):
        assert probe(train, test) > 0.9
        assert probe(*blank) < 0.55
