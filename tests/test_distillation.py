"""Learning from a teacher's probabilities."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, kl_divergence

from pbnn.backbones import mlp
from pbnn.baselines import Classifier
from pbnn.distillation import DistributionalObjective, distributional_loss
from pbnn.objectives import PenalisedObjective, RiskObjective
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit


def scores(of):
    return 3 * torch.randn(7, 4, generator=generator(0, of), dtype=torch.float64)


def network(of):
    return mlp((1, 4, 4), (8,), classes=3, generator=generator(0, of))


def points():
    x = torch.rand(60, 1, 4, 4, generator=generator(0, "x"))
    return x, torch.arange(60) % 3


def test_the_loss_is_the_divergence_of_the_teachers_law_from_ours():
    ours, theirs = scores("ours").requires_grad_(), scores("theirs")
    loss = distributional_loss(ours, theirs)
    expected = kl_divergence(Categorical(logits=theirs), Categorical(logits=ours)).mean()
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, ours)
    torch.testing.assert_close(gradient, (ours.softmax(1) - theirs.softmax(1)).detach() / 7)
    assert float(distributional_loss(theirs + 5, theirs)) == pytest.approx(0, abs=1e-12)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"one shape \(n, classes\), got \(7, 4\) and \(7,\)"):
        distributional_loss(scores("ours"), torch.zeros(7))


def test_a_student_learns_what_its_teacher_says_and_not_the_labels():
    teacher, student = network("teacher").eval(), network("student")
    x, y = points()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    objective = DistributionalObjective(Classifier(student), teacher)
    owned = {id(p) for p in objective.parameters()}
    assert owned == {id(p) for p in student.parameters()}
    with torch.no_grad():
        start = distributional_loss(student.eval()(x), teacher(x))
    fit(objective, x, y, FitConfig(40, 20, 0.02, keep="last"), generator=generator(0, "order"))
    with torch.no_grad():
        assert distributional_loss(student(x), teacher(x)) < start / 5
    assert not teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_a_teacher_in_training_mode_is_refused():
    teacher = network("teacher").eval()
    teacher[2].train()  # its batch normalisation alone
    with pytest.raises(ValueError, match="`teacher` must be in evaluation mode"):
        DistributionalObjective(Classifier(network("student")), teacher)


def test_a_teacher_that_goes_to_training_later_is_refused_too():
    teacher, (x, y) = network("teacher").eval(), points()
    objective = DistributionalObjective(Classifier(network("student")), teacher)
    objective(x, y)
    teacher.train()
    with pytest.raises(ValueError, match="`teacher` must be in evaluation mode"):
        objective(x, y)


def test_what_is_no_teacher_and_no_student_is_named():
    x, y = points()
    with pytest.raises(ValueError, match="`teacher` must be callable, got a NoneType"):
        DistributionalObjective(Classifier(network("student")), None)
    with pytest.raises(ValueError, match=r"`network` must give Moments, .* got a Tensor"):
        DistributionalObjective(network("student"), network("teacher").eval())(x, y)


def test_nobody_teaches_himself():
    student = network("student").eval()
    with pytest.raises(ValueError, match="`teacher` must not share parameters"):
        DistributionalObjective(Classifier(student), student)


def test_a_teacher_may_give_moments():
    teacher, student = network("teacher").eval(), Classifier(network("student").eval())
    x, y = points()
    plain, moments = (DistributionalObjective(student, t)(x, y)[0]
                      for t in (teacher, Classifier(teacher).eval()))  # fmt: skip
    assert torch.equal(plain, moments)


def test_points_must_have_classes():
    objective = DistributionalObjective(Classifier(network("student")), lambda x: x)
    x, y = points()
    with pytest.raises(TypeError, match="`y` must be an int64 tensor of classes"):
        objective.check(x, y.float())


def test_a_penalised_objective_adds_its_term_to_the_loss_alone():
    student = Classifier(network("student").eval())
    plain = RiskObjective(student, "cross_entropy")
    weight = nn.Parameter(torch.tensor(3.0))
    both = PenalisedObjective(plain, lambda: weight.square())
    x, y = points()
    (loss, risk), (more, same) = plain(x, y), both(x, y)
    torch.testing.assert_close(more, loss + 9)
    assert torch.equal(risk, same)
    assert both.network is student
    assert both.value(0.25) == plain.value(0.25)
    assert {id(p) for p in both.parameters()} == {id(p) for p in plain.parameters()}
    with pytest.raises(TypeError, match="`y` must be an int64 tensor"):
        both.check(x, y.float())
    more.backward()
    assert float(weight.grad) == 6
