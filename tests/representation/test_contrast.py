"""Contrast of embeddings: losses by hand, memory, strangers, and where gradients go."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pbnn.backbones import conv_chain, lenet
from pbnn.baselines import Classifier
from pbnn.binarize import RECIPES, convert
from pbnn.objectives import Objective, RiskObjective
from pbnn.representation import (
    CMIM,
    Contrast,
    MemoryBank,
    ProjectionHead,
    Strangers,
    info_nce,
    nce_loss,
)
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit


def normal(*shape, of="x"):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def test_the_noise_contrastive_loss_is_the_one_by_hand():
    positive, negative, n = normal(3, of="p").exp(), normal(3, 4, of="n").exp(), 50
    c, eps = 4 / n, 1e-7
    expected = 0.0
    for b in range(3):
        plus = float(positive[b])
        expected -= math.log(plus / (plus + c + eps)) / 3
        for j in range(4):
            expected -= math.log(c / (float(negative[b, j]) + c + eps)) / 3
    assert float(nce_loss(positive, negative, c)) == pytest.approx(expected, rel=1e-12)
    # Of different numbers of strangers, absent ones count nothing.
    each = torch.full((3,), c, dtype=torch.float64)
    none = torch.cat([negative, torch.zeros(3, 5).double()], 1)
    assert float(nce_loss(positive, none, each)) == pytest.approx(expected, rel=1e-12)


def test_twins_are_looked_for_among_all_other_embeddings():
    first, second = (F.normalize(normal(4, 6, of=of), dim=1) for of in ("a", "b"))
    both, expected = torch.cat([first, second]), 0.0
    for i in range(8):
        twin = (i + 4) % 8
        scores = [math.exp(float(both[i] @ both[j]) / 0.3) for j in range(8) if j != i]
        expected -= math.log(math.exp(float(both[i] @ both[twin]) / 0.3) / sum(scores)) / 8
    assert float(info_nce(first, second, 0.3)) == pytest.approx(expected, rel=1e-12)


def test_rows_of_a_memory_are_of_unit_length_and_follow():
    bank = MemoryBank(6, 3, 0.25, generator=generator(0, "bank"))
    before = bank.rows.clone()
    new = F.normalize(torch.rand(2, 3, generator=generator(0, "new")), dim=1)
    bank.meet(torch.tensor([4, 1]), new)
    assert torch.equal(bank.rows, before)  # those that scores were made of stay for the gradient
    bank.update()
    torch.testing.assert_close(bank.rows.norm(dim=1), torch.ones(6))
    expected = F.normalize(0.25 * before[[4, 1]] + 0.75 * new, dim=1)
    torch.testing.assert_close(bank.rows[[4, 1]], expected)
    assert torch.equal(bank.rows[[0, 2, 3, 5]], before[[0, 2, 3, 5]])


@pytest.mark.parametrize("rows", [10, 40])  # few, or more than the numbers of those looked at
def test_scores_of_a_memory_are_inner_products_with_their_gradients(rows):
    bank = MemoryBank(rows, 4, generator=generator(0, "bank")).double()
    anchors = normal(3, 4, of="anchors").requires_grad_()
    index = torch.randint(rows, (3, 5), generator=generator(0, "index"))
    found = bank.scores(anchors, index)
    expected = (bank.rows[index] * anchors[:, None]).sum(2)
    torch.testing.assert_close(found, expected)
    weight = normal(3, 5, of="weight")
    (ours,), (theirs,) = (
        torch.autograd.grad((each * weight).sum(), anchors) for each in (found, expected)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rule", ["any", "other_class"])
def test_strangers_are_all_that_they_may_be_and_equally_often(rule):
    labels = torch.tensor([2, 0, 1, 0, 2, 2, 0, 1])
    strangers = Strangers(labels, 3, rule)
    draws = 4000
    for anchor in range(8):
        index = torch.full((draws,), anchor)
        drawn = strangers.draw(index, generator(anchor, "draw")).flatten()
        own = labels == labels[anchor] if rule == "other_class" else torch.arange(8) == anchor
        counts = torch.bincount(drawn, minlength=8)
        assert (counts[own] == 0).all()
        p = 1 / int((~own).sum())
        spread = math.sqrt(3 * draws * p * (1 - p))
        assert ((counts[~own] - 3 * draws * p).abs() < 5 * spread).all()


@pytest.mark.parametrize(
    ("labels", "count", "rule", "text"),
    [
        ([0, 0, 0], 1, "other_class", "`labels` must be of two classes or more"),
        ([0, 1, 1, 1], 2, "other_class", r"`count` must lie in \[1, 1\], .* got 2"),
        ([0, 1, 2], 3, "any", r"`count` must lie in \[1, 2\]"),
        ([0, 1, 2], 0, "any", r"`count` must lie in \[1, 2\]"),
        ([0, 1, 2], 1, "none", "`rule` must be 'any' or 'other_class', got 'none'"),
    ],
)
def test_there_must_be_strangers_enough(labels, count, rule, text):
    with pytest.raises(ValueError, match=text):
        Strangers(torch.tensor(labels), count, rule)


def contrast(count, rule="other_class", **more):
    labels = torch.arange(12) % 3
    made = Contrast(
        (5, 7), labels, count=count, rule=rule, dim=4, generator=generator(0, "c"), **more
    )
    return made.double(), labels


def test_the_contrast_with_a_memory_is_the_one_by_hand(monkeypatch):
    made, _ = contrast(3)
    first, second, index = normal(2, 5, of="f"), normal(2, 7, of="s"), torch.tensor([4, 9])
    rows = [memory.rows.clone() for memory in made.memories]
    drawn = torch.tensor([[0, 2, 5], [1, 2, 4]])
    monkeypatch.setattr(made.strangers, "draw", lambda index, source: drawn)
    found = float(made(first, second, index).detach())
    expected = 0.0
    for anchors, others in (
        (made.heads[0](first), rows[1]),
        (made.heads[1](second), rows[0]),
    ):
        scores = torch.stack([
            (others[[int(i), *d]] @ a / 0.1).exp()
            for i, d, a in zip(index, drawn.tolist(), anchors, strict=True)
        ]).detach()  # fmt: skip
        x = scores / (scores.mean() * 12)
        expected += float(nce_loss(x[:, 0], x[:, 1:], 3 / 12))
    assert found == pytest.approx(expected, rel=1e-9)
    # The normaliser is that of the first batch, and the memory has moved.
    kept = made.normaliser.clone()
    made(normal(2, 5, of="g"), second, index).backward()
    assert torch.equal(made.normaliser, kept)
    assert not torch.equal(made.memories[0].rows[4], rows[0][4])


@pytest.mark.parametrize("rule", ["any", "other_class"])
def test_the_contrast_within_a_batch_is_the_one_by_hand(rule):
    made, labels = contrast(None, rule)
    index = torch.tensor([0, 3, 1, 2])  # two of the same class
    first, second = normal(4, 5, of="f"), normal(4, 7, of="s")
    found = float(made(first, second, index).detach())
    ours, theirs = made.heads[0](first).detach(), made.heads[1](second).detach()
    expected = 0.0
    for a, b in ((ours, theirs), (theirs, ours)):
        kept = []
        for i in range(4):
            strange = [j for j in range(4) if j != i and
                       (rule == "any" or labels[index[i]] != labels[index[j]])]  # fmt: skip
            kept.append(((b[[i, *strange]] @ a[i]) / 0.1).exp())
        z = torch.cat(kept).mean() * 12
        for values in kept:
            x = (values / z)[None]
            expected += float(nce_loss(x[:, 0], x[:, 1:], (len(values) - 1) / 12)) / 4
    assert found == pytest.approx(expected, rel=1e-9)


def test_heads_are_trained_or_not():
    for trained in (True, False):
        made, _ = contrast(3, train_heads=trained)
        assert all(p.requires_grad == trained for p in made.parameters())
    head = ProjectionHead(6, 4, generator=generator(0, "h"))
    torch.testing.assert_close(head(normal(3, 2, 3).float()).norm(dim=1), torch.ones(3))


def model(of="model"):
    return lenet((1, 8, 8), (4, 8), 16, kernel=3, generator=generator(0, of))


def points(n=60):
    return torch.rand(n, 1, 8, 8, generator=generator(0, "x")), torch.arange(n) % 10


@pytest.mark.parametrize("pair", ["in_network", "teacher"])
@pytest.mark.parametrize("count", [None, 8])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_takes_it_by_one_line(recipe, pair, count):
    network, (x, y) = convert(model(), recipe).network, points()
    teacher = model("teacher").eval() if pair == "teacher" else None
    plain = RiskObjective(Classifier(network), "cross_entropy")
    before = [p.clone() for p in teacher.parameters()] if teacher else []
    objective = CMIM(plain, x, y, pair=pair, teacher=teacher, count=count,
                     dim=8, generator=generator(0, "cmim"))  # fmt: skip
    objective.train()
    objective.meet(torch.arange(20))
    loss, _ = objective(x[:20], y[:20])
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    curve = fit(objective, x, y, FitConfig(2, 20, 0.01, keep="last"), generator=generator(0, "o"))
    assert math.isfinite(curve[-1]["objective"])
    if teacher:
        assert not any(p.grad is not None for p in teacher.parameters())
        assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), before, strict=True))
    owned = {id(p) for p in objective.parameters()}
    heads = {id(p) for p in objective.contrast.parameters()}
    assert owned == heads | {id(p) for p in network.parameters()}


@pytest.mark.parametrize("pair", ["in_network", "teacher"])
def test_the_contrast_is_added_by_its_weight_of_the_features_it_says(pair):
    """Recorded from outside: ours with those of a trained teacher, or with their own signs."""
    network, (x, y) = convert(model(), "bi_real_net").network, points()
    teacher = model().eval()
    with torch.no_grad():
        teacher[0].weight.mul_(-1.5)
    plain = RiskObjective(Classifier(network), "cross_entropy")
    more = {"teacher": teacher} if pair == "teacher" else {}
    objective = CMIM(plain, x, y, pair=pair, strength=0.7, count=None, dim=8, **more,
                     generator=generator(0, "cmim")).train()  # fmt: skip
    seen = {}
    for name, layer in (("ours", network[12]), ("theirs", teacher[12])):
        layer.register_forward_hook(lambda _, given, out, name=name: seen.update({name: given[0]}))
    network[9].activation.register_forward_hook(
        lambda _, given, out: seen.update(before=given[0], signs=out)
    )
    index = torch.arange(20)
    objective.meet(index)
    loss, _ = objective(x[:20], y[:20])
    parts = (seen["ours"], seen["theirs"]) if pair == "teacher" else (seen["signs"], seen["before"])
    contrast = objective.contrast(*(part.flatten(1) for part in parts), index)
    bare, _ = plain(x[:20], y[:20])
    torch.testing.assert_close(loss - bare, 0.7 * contrast)
    assert float(contrast.detach()) > 0
    default = CMIM(plain, x, y, count=None, generator=generator(0, "c"))
    assert default.strength == 3.2


def test_an_anchor_without_strangers_has_a_gradient():
    made, _ = contrast(None)  # classes 0, 1, 2, 0, …: a batch of a single class
    index = torch.tensor([0, 3, 6])
    first = normal(3, 5, of="f").requires_grad_()
    made(first, normal(3, 7, of="s"), index).backward()
    assert torch.isfinite(first.grad).all()
    for head in made.heads:
        assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_the_contrast_alone_trains_what_makes_the_signs():
    network, (x, y) = convert(model(), "bi_real_net").network, points()
    plain = RiskObjective(Classifier(network), "cross_entropy")
    objective = CMIM(plain, x, y, count=8, dim=8, generator=generator(0, "cmim"))
    assert objective.layer == "net.9.activation"
    objective.train()
    objective.meet(torch.arange(20))
    (loss, risk), (bare, same) = objective(x[:20], y[:20]), plain(x[:20], y[:20])
    assert torch.equal(risk, same)
    (loss - bare).backward(retain_graph=True)
    assert float(network[0].weight.grad.abs().max()) > 0
    # What comes behind the contrast has nothing of it, but for rounding.
    assert float(network[12].weight.grad.abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pair": "both"}, "`pair` must be 'in_network' or 'teacher', got 'both'"),
        ({"pair": "teacher"}, "`teacher` must be given for the pair 'teacher' alone"),
        ({"teacher": model().eval()}, "`teacher` must be given for the pair 'teacher' alone"),
        ({"pair": "teacher", "teacher": model()}, "`teacher` must be in evaluation mode"),
        ({"count": 55}, r"`count` must lie in \[1, 54\]"),
        ({"temperature": 0.0}, "`temperature` must be finite and at least 0.015, got 0.0"),
        ({"temperature": math.nan}, "`temperature` must be finite and at least 0.015, got nan"),
        ({"strength": -1.0}, "`strength` must be a number of at least 0, got -1.0"),
        ({"strength": math.nan}, "`strength` must be a number of at least 0, got nan"),
        ({"layer": "net.1"}, r"`layer` must be one of \['net.4.activation', .* got 'net.1'"),
        ({"positions": 3}, r"`positions` must be left out for features \(2, 32\)"),
    ],
)
def test_bad_contrasts_are_refused(options, text):
    network, (x, y) = convert(model(), "bi_real_net").network, points()
    plain = RiskObjective(Classifier(network), "cross_entropy")
    with pytest.raises(ValueError, match=text):
        CMIM(plain, x, y, **({"count": 8, "generator": generator(0, "c")} | options))
    with pytest.raises(ValueError, match="must have a network with layers of binary inputs"):
        CMIM(RiskObjective(Classifier(model()), "cross_entropy"), x, y, generator=generator(0, "c"))
    shared = {"pair": "teacher", "teacher": network.eval()}
    with pytest.raises(ValueError, match="`teacher` must not share parameters"):
        CMIM(plain, x, y, generator=generator(0, "c"), **shared)
    made = CMIM(plain, x, y, count=8, layer="net.4", generator=generator(0, "c"))
    assert made.layer == "net.4.activation"  # what the layer makes signs by
    with pytest.raises(ValueError, match="`y` must be the points that the contrast was made for"):
        made.check(x, y.roll(1))


def test_a_contrast_that_is_no_number_ends_the_training(monkeypatch):
    """Its risk, an error rate, is always one."""
    network, (x, y) = convert(model(), "bi_real_net").network, points()
    plain = RiskObjective(Classifier(network), "cross_entropy")
    made = CMIM(plain, x, y, count=None, generator=generator(0, "c"))
    monkeypatch.setattr(made.contrast, "forward", lambda *_: x.new_tensor(math.nan))
    with pytest.raises(FloatingPointError, match="objective became nan"):
        fit(made, x, y, FitConfig(1, 20), generator=generator(0, "o"))


def test_positions_of_a_dense_task_are_its_samples(monkeypatch):
    twin = conv_chain((1, 6, 6), (3, 4), generator=generator(0, "n"))
    network = convert(twin, "xnor_net").network
    x = torch.rand(5, 1, 6, 6, generator=generator(0, "x"))
    y = torch.randint(2, (5, 6, 6), generator=generator(0, "y"))

    class Dense(Objective):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, y, kl_weight=1.0):
            loss = F.cross_entropy(self.network(x), y)
            return loss, loss.detach()

    made = CMIM(Dense(), x, y, count=None, positions=7, generator=generator(0, "c"))
    made.check(x, y)
    seen = {}
    layer = network.get_submodule(made.layer.removeprefix("network."))
    layer.register_forward_hook(lambda _, given, out: seen.update(given=given[0], out=out))
    monkeypatch.setattr(made.contrast, "forward", lambda *parts: seen.update(parts=parts) or 0.0)
    index = torch.tensor([3, 1])
    made.meet(index)
    made(x[index], y[index])
    ours, theirs, samples = seen["parts"]
    assert samples.shape == (14,)
    # A sample's number says which image and position it is, here of 36 each.
    assert [*(samples // 36)] == [3] * 7 + [1] * 7
    place = {3: 0, 1: 1}
    for row, sample in enumerate(samples.tolist()):
        image, at = place[sample // 36], sample % 36
        assert torch.equal(ours[row], seen["out"][image].flatten(1)[:, at])
        assert torch.equal(theirs[row], seen["given"][image].flatten(1)[:, at])
    assert torch.equal(made.contrast.labels, y.flatten())
    with pytest.raises(ValueError, match="`y` must be a class for each image, or with `positions`"):
        CMIM(Dense(), x, y, count=None, generator=generator(0, "c"))
