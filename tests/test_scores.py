"""The probability of the largest Gaussian score and the losses made of scores."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal

from pbnn.functional import Moments
from pbnn.quadrature import UNIT_ROUNDOFF
from pbnn.scores import (
    SMALLEST_STEP,
    TRAINING_STEP,
    binary_cross_entropy,
    bounded_cross_entropy,
    certified_step,
    cross_entropy,
    error_of_means,
    gibbs_loss,
    probability_correct,
    probability_correct_error,
)
from pbnn.seeding import generator

LOSSES = [gibbs_loss, cross_entropy, bounded_cross_entropy, binary_cross_entropy]


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def problem(n=6, classes=4):
    """Scores of variances from 1/4 to 4, and labels."""
    var = 4 ** (2 * torch.rand(n, classes, generator=generator(0, "var"), dtype=torch.float64) - 1)
    labels = torch.randint(classes, (n,), generator=generator(0, "labels"))
    return Moments(1.5 * normal(n, classes, of="mean"), var), labels


def one(means, variances, dtype=torch.float64):
    return Moments(torch.tensor([means], dtype=dtype), torch.tensor([variances], dtype=dtype))


def label(*classes):
    return torch.tensor(classes)


def two_classes(means, ratio):
    """Scores N(mean, ratio²) against N(0, 1), and the probability that the first is larger."""
    means = torch.as_tensor(means, dtype=torch.float64)
    var = torch.tensor([ratio**2, 1.0], dtype=torch.float64).expand(len(means), 2)
    exact = Normal(0.0, 1.0).cdf(means / math.hypot(ratio, 1))
    return (
        Moments(torch.stack([means, 0 * means], 1), var),
        means.new_zeros(len(means)).long(),
        exact,
    )


def enclosed(means, variances, y):
    """The probability in a ball of thirty digits; from where the label leads the sure scores."""
    flint = pytest.importorskip("flint", reason="the extra `exact` is not installed")
    arb, acb = flint.arb, flint.acb
    before, flint.ctx.prec = flint.ctx.prec, 180
    try:
        own, start, rivals = arb(variances[y]).sqrt(), arb(-14), []
        for j, (mean, var) in enumerate(zip(means, variances, strict=True)):
            gap = arb(means[y]) - arb(mean)
            if j != y and var:
                rivals.append((gap, (2 * arb(var)).sqrt()))
            elif j != y:
                start = start.max(-gap / own)

        def integrand(z, _):
            value = (-z * z / 2).exp() / (2 * acb.pi()).sqrt()
            for gap, scale in rivals:
                value *= (1 + ((gap + own * z) / scale).erf()) / 2
            return value

        tiny = arb(2) ** -110
        ball = acb.integral(integrand, acb(start), acb(14), rel_tol=tiny, abs_tol=tiny)
        return mpmath.mpf(ball.real.mid().str(40, radius=False))
    finally:
        flint.ctx.prec = before


def distance(scores, y, step):
    """Of the quadrature from the true value, for one point."""
    found = probability_correct(scores, y, step).item()
    with mpmath.workdps(40):
        return float(abs(found - enclosed(*(part[0].tolist() for part in scores), int(y))))


@pytest.mark.parametrize("y", [0, 1, 2])
@pytest.mark.parametrize(
    ("means", "variances"),
    [
        ([0.0] * 10, [1.0] * 10),
        ([2.0, -1.0, 0.5, 0.0, 1.0, 3.0, -4.0, 0.25, 0.125, 2.5], [1.0] * 10),
        ([0.3, -0.7, 1.1], [0.5, 2.0, 0.125]),
        ([4.0, 0.0, -2.0, 1.0], [9.0, 1.0, 1.0, 0.25]),
        ([-12.0, 3.0, 0.0], [16.0, 1.0, 4.0]),
        ([1.0, 0.0, 1.0625], [0.01, 4.0, 0.01]),
        ([1e6, 1e6 + 1, 1e6 - 1], [1.0, 2.0, 3.0]),
        ([0.1, 0.0, 0.2], [1e-12, 1.0, 1e-12]),
    ],
)
def test_the_stated_error_covers_the_error_against_thirty_digits(means, variances, y):
    scores, y = one(means, variances), label(y)
    step = certified_step(scores, y)
    stated = probability_correct_error(scores, y, step)
    assert distance(scores, y, step) <= stated
    for coarse in (1 / 4, 1 / 2, 1.0):
        assert distance(scores, y, coarse) <= probability_correct_error(scores, y, coarse)
    if step > SMALLEST_STEP:
        assert stated < 1.5e-13


def test_ten_classes_of_one_variance_need_seventy_five_nodes():
    scores, y = one([0.0] * 10, [3.0] * 10), label(4)
    assert math.ceil(9 / certified_step(scores, y)) == 37
    assert distance(scores, y, 1 / 4) <= probability_correct_error(scores, y, 1 / 4) < 1e-13
    assert probability_correct_error(scores, y, 1 / 4) > 100 * UNIT_ROUNDOFF


@pytest.mark.parametrize("step", [1.0, 0.8, 0.6, 0.5, 0.25])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 1e4])
def test_a_coarse_step_is_owned_up_to(step, ratio):
    scores, y, exact = two_classes(torch.linspace(-4, 4, 81) * max(ratio, 1), ratio)
    gap = (probability_correct(scores, y, step) - exact).abs()
    assert (gap <= probability_correct_error(scores, y, step)).all()


@pytest.mark.parametrize(("ratio", "c"), [(2, 1.5), (2, 2.0), (4, 1.2), (4, 1.5)])
def test_the_stated_error_of_a_smooth_integrand_is_not_far_above_the_worst(ratio, c):
    scores, y, exact = two_classes(torch.linspace(-4, 4, 401) * ratio, ratio)
    step = math.pi / (c * math.sqrt(1 + ratio**2))
    stated = probability_correct_error(scores, y, step)[0]
    assert stated == pytest.approx(1.01 / math.sinh(2 * c**2), rel=1e-9)
    assert stated / 40 < (probability_correct(scores, y, step) - exact).abs().max() < stated


@pytest.mark.parametrize("step", [0.5, 1 / 16])
@pytest.mark.parametrize("var", [0.0, 1e-30])
def test_the_stated_error_of_a_jump_is_not_far_above_the_worst(step, var):
    means = torch.linspace(-1, 1, 2_003, dtype=torch.float64)
    variances = torch.tensor([1.0, var], dtype=torch.float64).expand(2_003, 2)
    scores, y = Moments(torch.stack([means, 0 * means], 1), variances), torch.zeros(2_003).long()
    gap = (probability_correct(scores, y, step) - Normal(0.0, 1.0).cdf(means)).abs().max()
    stated = probability_correct_error(scores, y, step)[0]
    assert stated / 3 < gap < stated


@pytest.mark.parametrize("reach", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("step", [0.3, 0.8])
def test_a_short_reach_is_owned_up_to(reach, step, monkeypatch):
    monkeypatch.setattr("pbnn.scores.REACH", reach)
    # A label that is always right: what is missing is the weight of the nodes left out.
    scores, y = one([100.0, 0.0], [1e-4, 1.0]), label(0)
    gap = 1 - probability_correct(scores, y, step).item()
    assert gap < probability_correct_error(scores, y, step).item()
    assert probability_correct_error(scores, y, step) < 1.1 * math.erfc(reach / math.sqrt(2))


def test_the_stated_error_has_no_gradient():
    (mean, var), y = problem()
    scores = Moments(mean.requires_grad_(), var.requires_grad_())
    assert not probability_correct_error(scores, y, 0.25).requires_grad


def test_the_stated_error_is_that_of_each_point():
    scores, y = problem(40)
    step = certified_step(scores, y)
    stated = probability_correct_error(scores, y, step)
    alone = [
        probability_correct_error(Moments(scores.mean[[i]], scores.var[[i]]), y[[i]], step)
        for i in range(40)
    ]
    assert stated.tolist() == [value.item() for value in alone]
    assert (probability_correct_error(scores, y, 1.0) > stated).all()


def test_the_library_computes_the_logarithms_as_accurately_as_the_proof_assumes():
    x = torch.cat([torch.linspace(-40, -1, 400), torch.linspace(-1, 9, 600)]).double()
    with mpmath.workdps(40):
        for point, found in zip(x.tolist(), torch.special.log_ndtr(x).tolist(), strict=True):
            true = (
                mpmath.log1p(-mpmath.ncdf(-point)) if point > 0 else mpmath.log(mpmath.ncdf(point))
            )
            assert abs(found - true) <= 8 * UNIT_ROUNDOFF * max(abs(true), 0.5)


def test_the_step_is_that_of_the_roughest_point():
    means = torch.zeros(2, 3, dtype=torch.float64)
    scores = Moments(means, torch.tensor([[1.0, 1.0, 1.0], [1.0, 4.0, 0.25]]).double())
    assert certified_step(scores, label(0, 0)) == pytest.approx(math.pi / 4 / math.sqrt(5.25))
    assert certified_step(scores, label(0, 1)) == pytest.approx(math.pi / 4 / math.sqrt(21))
    assert certified_step(Moments(means[:, :1], scores.var[:, :1]), label(0, 0)) == math.pi / 4
    assert certified_step(one([0.0, 0.0], [1.0, 0.0]), label(0)) == SMALLEST_STEP
    assert certified_step(one([0.0, 0.0], [0.0, 0.0]), label(0)) == math.pi / 4


@pytest.mark.parametrize("step", [TRAINING_STEP, 1 / 16])
def test_the_probabilities_of_all_classes_sum_to_one(step):
    scores, _ = problem(50, 7)
    total = sum(probability_correct(scores, torch.full((50,), k), step) for k in range(7))
    tolerance = 1e-12 if step < TRAINING_STEP else 5e-3
    torch.testing.assert_close(total, torch.ones(50).double(), atol=tolerance, rtol=0)


def test_the_training_step_is_accurate_for_classes_of_one_variance():
    mean = 2 * normal(200, 10, of="mean")
    scores, y = Moments(mean, torch.full_like(mean, 2.5)), torch.arange(200) % 10
    fine = probability_correct(scores, y, 1 / 8)
    torch.testing.assert_close(probability_correct(scores, y), fine, atol=1e-7, rtol=0)
    single = probability_correct(Moments(mean.float(), scores.var.float()), y)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), fine, atol=2e-6, rtol=0)


def test_it_is_the_share_of_draws_with_the_largest_score():
    draws = 200_000
    scores, y = problem(6, 5)
    found = probability_correct(scores, y, 1 / 16)
    noise = normal(draws, 5, of="noise")
    for mean, var, k, p in zip(*scores, y, found, strict=True):
        share = ((mean + var.sqrt() * noise).argmax(1) == k).double().mean()
        assert abs(share - p) <= 5 * math.sqrt(p * (1 - p) / draws) + 1e-9


def test_scale_and_shift_of_all_scores_and_the_order_of_the_classes_do_not_count():
    scores, y = problem()
    found = probability_correct(scores, y)
    moved = Moments(3 * scores.mean + 7, 9 * scores.var)
    tiny = Moments(2**-70 * scores.mean, 2**-140 * scores.var)
    order = torch.tensor([2, 0, 3, 1])
    turned = Moments(scores.mean[:, order], scores.var[:, order])
    torch.testing.assert_close(probability_correct(moved, y), found, atol=1e-13, rtol=0)
    assert probability_correct(tiny, y).tolist() == found.tolist()
    torch.testing.assert_close(probability_correct(turned, order.argsort()[y]), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("var", [0.0, 1e-320, 1e-40])
def test_points_are_compared_by_value_and_then_by_index(dtype, var):
    if dtype == torch.float64 and var == 1e-40:
        return  # a normal number
    for means, winner in (([1, 2, 2], 1), ([3, 1, 3], 0), ([-1, -1, -1], 0), ([0, 1, 2], 2)):
        scores = one(means, [var] * 3, dtype)
        chances = [probability_correct(scores, label(k)).item() for k in range(3)]
        assert chances == pytest.approx([float(k == winner) for k in range(3)], abs=1e-6)
        assert error_of_means(scores, label(winner)) == 0


@pytest.mark.parametrize("own", [0.25, 1.0, 2.0])
def test_a_score_without_variance_is_a_point(own):
    standard = Normal(0.0, 1.0)
    # The label is a point: a product of probabilities, exact at any step.
    scores = one([0.5, 0.0, 1.0], [0.0, own, 2.25])
    exact = (
        standard.cdf(torch.tensor([0.5 / own**0.5, -0.5 / 1.5], dtype=torch.float64)).prod().item()
    )
    assert probability_correct(scores, label(0), 1.0).item() == pytest.approx(exact, abs=1e-8)
    assert probability_correct(scores, label(0)).item() == pytest.approx(exact, abs=1e-15)
    assert probability_correct_error(scores, label(0), 1 / 2) < 1e-13
    # A rival is: the label has to be above it.
    scores = one([0.5, 0.0, 1.0], [own, 0.0, 2.25])
    gap = distance(scores, label(0), SMALLEST_STEP)
    assert gap <= probability_correct_error(scores, label(0), SMALLEST_STEP) < 0.0016
    rivals = one([0.5, 0.0, 0.25], [own, 0.0, 0.0])
    exact = standard.cdf(torch.tensor(0.25 / own**0.5, dtype=torch.float64)).item()
    assert probability_correct(rivals, label(0), 1 / 256).item() == pytest.approx(exact, abs=8e-4)


@pytest.mark.parametrize("loss", [*LOSSES, error_of_means])
@pytest.mark.parametrize("shape", [(6, 1), (4,), (1,), ()])
def test_variances_are_broadcast(loss, shape):
    (mean, _), y = problem()
    var = 1 + torch.rand(shape, generator=generator(0, "shape"), dtype=torch.float64)
    full = Moments(mean, var.expand(6, 4))
    assert loss(Moments(mean, var), y).tolist() == loss(full, y).tolist()
    stated = [probability_correct_error(scores, y, 0.5) for scores in (Moments(mean, var), full)]
    assert stated[0].tolist() == stated[1].tolist()


def edge_cases(dtype):
    values = [0.0, 1e-30, 1.0, -3.0, 1e4]
    pairs = [(m, v) for m in values for v in (0.0, 1e-45, 1e-38, 1e-20, 1e-7, 1.0, 1e8)]
    rows = [[first, second, (0.0, 1.0)] for first in pairs for second in pairs]
    means, variances = torch.tensor(rows, dtype=torch.float64).to(dtype).unbind(-1)
    return means.requires_grad_(), variances.requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("k", [0, 1, 2])
def test_no_edge_gives_a_value_or_gradient_that_is_no_number(loss, dtype, k):
    means, variances = edge_cases(dtype)
    values = loss(Moments(means, variances), torch.full((len(means),), k))
    assert values.isfinite().all()
    assert (values >= -1e-6).all()
    if loss in (gibbs_loss, bounded_cross_entropy):
        assert (values <= 1 + 1e-6).all()
    for gradient in torch.autograd.grad(values.sum(), (means, variances), allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradients_are_those_of_finite_differences(loss):
    (mean, var), y = problem()
    mean, var = mean.requires_grad_(), var.requires_grad_()
    assert torch.autograd.gradcheck(lambda m, v: loss(Moments(m, v), y), (mean, var))


def test_the_gradient_is_that_of_the_closed_form():
    scores, y, _ = two_classes([-2.0, -0.5, 0.0, 1.5], 1.5)
    mean, var = (part.clone().requires_grad_() for part in scores)
    found = torch.autograd.grad(gibbs_loss(Moments(mean, var), y).sum(), (mean, var))
    exact = Normal(0.0, 1.0).cdf((mean[:, 1] - mean[:, 0]) / var.sum(1).sqrt())
    exact = torch.autograd.grad(exact.sum(), (mean, var))
    torch.testing.assert_close(found, exact, atol=1e-6, rtol=0)


def test_the_gibbs_loss_is_the_chance_of_an_error():
    scores, y = problem()
    torch.testing.assert_close(gibbs_loss(scores, y), 1 - probability_correct(scores, y))


def test_the_cross_entropy_is_that_of_the_softmax_of_the_means():
    scores, y = problem()
    chance = scores.mean.exp() / scores.mean.exp().sum(1, keepdim=True)
    expected = -chance.gather(1, y[:, None])[:, 0].log()
    torch.testing.assert_close(cross_entropy(scores, y), expected)


@pytest.mark.parametrize("p_min", [1e-5, 1e-2, 0.5])
def test_the_bounded_cross_entropy_is_that_of_a_mixture_below_the_clamped_one(p_min):
    mean = torch.linspace(-40, 40, 101, dtype=torch.float64)
    scores = Moments(torch.stack([mean, 0 * mean], 1), torch.ones(101, 2))
    y = torch.zeros(101, dtype=torch.int64)
    p = torch.sigmoid(mean)
    found, unit = bounded_cross_entropy(scores, y, p_min), math.log(1 / p_min)
    torch.testing.assert_close(found, -torch.log(p_min + (1 - p_min) * p) / unit)
    clamped = -torch.log(p.clamp_min(p_min)) / unit
    assert (found <= clamped + 1e-15).all()
    assert (found >= clamped - math.log(2) / unit).all()
    assert (found.diff()[10:90] < 0).all()
    assert found[0] == pytest.approx(1, abs=1e-10)
    assert found[-1] == pytest.approx(0, abs=1e-15)


def test_the_bounded_cross_entropy_has_a_gradient_where_the_clamped_one_has_none():
    mean = torch.tensor([[-14.0, 0.0]], requires_grad=True)
    loss = bounded_cross_entropy(Moments(mean, torch.ones(1, 2)), label(0))
    loss.sum().backward()
    p = math.exp(-14)
    assert p < 1e-5
    assert mean.grad[0, 0].item() == pytest.approx(-p / (p + 1e-5) / math.log(1e5), rel=1e-3)


def test_the_binary_cross_entropy_is_the_sum_over_the_classes():
    scores, y = problem(8, 5)
    scores = Moments(scores.mean / 2, scores.var)  # torch's own takes 1 − p
    chance = Normal(0.0, 1.0).cdf(scores.mean / scores.var.sqrt())
    target = F.one_hot(y, 5).double()
    expected = F.binary_cross_entropy(chance, target, reduction="none").sum(1)
    torch.testing.assert_close(binary_cross_entropy(scores, y), expected)


def test_the_binary_cross_entropy_is_stable_at_forty_deviations():
    # Mills: Φ(−40) = φ(40)/40 up to 1/1600.
    wrong = 800 + math.log(40 * math.sqrt(2 * math.pi))
    scores = one([-20.0, 20.0], [0.25, 0.25], torch.float32)
    mean = scores.mean.requires_grad_()
    loss = binary_cross_entropy(scores, label(0))
    assert loss.item() == pytest.approx(2 * wrong, rel=1e-6)
    loss.sum().backward()
    torch.testing.assert_close(mean.grad, torch.tensor([[-80.0, 80.0]]), rtol=1e-3, atol=0)
    assert binary_cross_entropy(scores, label(1)).item() == 0


def test_the_binary_cross_entropy_of_a_certain_error_points_away_from_it():
    scores = one([-2.0, -2.0], [0.0, 0.0], torch.float32)
    mean = scores.mean.requires_grad_()
    loss = binary_cross_entropy(scores, label(0))
    spread = math.sqrt(torch.finfo(torch.float32).eps)
    assert loss.item() == pytest.approx(40 * (2 / spread - 40) + 804.6084, rel=1e-5)
    loss.sum().backward()
    assert mean.grad[0].tolist() == pytest.approx([-40 / spread, 0], rel=1e-5)


def test_the_error_of_the_means_takes_the_first_of_equals():
    scores = Moments(torch.tensor([[1.0, 1.0], [0.0, 2.0]]), torch.ones(2, 2))
    assert error_of_means(scores, label(0, 0)).tolist() == [0, 1]
    assert error_of_means(scores, label(1, 1)).tolist() == [1, 0]


def stated_error(scores, y):
    return probability_correct_error(scores, y, 0.25)


@pytest.mark.parametrize("loss", [*LOSSES, error_of_means, certified_step, stated_error])
def test_what_are_no_scores_is_refused(loss):
    scores, y = problem()
    with pytest.raises(TypeError, match="`scores` must be Moments, got Tensor"):
        loss(scores.mean, y)
    with pytest.raises(TypeError, match=r"`y` must be int64, got torch\.float32"):
        loss(scores, y.float())
    with pytest.raises(ValueError, match=r"`scores` must .* got \(6, 4\) and \(6, 3\)"):
        loss(Moments(scores.mean, scores.var[:, :3]), y)
    with pytest.raises(ValueError, match=r"`scores` must .* got \(4,\) and \(4,\)"):
        loss(Moments(scores.mean[0], scores.var[0]), y)
    with pytest.raises(ValueError, match=r"`scores` must .* got \(6, 4\) and \(1, 6, 4\)"):
        loss(Moments(scores.mean, scores.var[None]), y)
    with pytest.raises(ValueError, match=r"`y` must have shape \(6,\), got \(5,\)"):
        loss(scores, y[:5])


@pytest.mark.parametrize("step", [0.0, -0.5, 1.1, math.nan])
@pytest.mark.parametrize("function", [probability_correct, probability_correct_error])
def test_a_step_that_is_none_is_refused(function, step):
    with pytest.raises(ValueError, match=rf"`step` must lie in \(0, 1\], got {step}"):
        function(*problem(), step)


def test_the_error_is_stated_for_double_precision_only():
    scores, y = problem()
    with pytest.raises(TypeError, match=r"`scores` must be float64 .* got torch\.float32"):
        probability_correct_error(Moments(scores.mean.float(), scores.var.float()), y, 0.25)


@pytest.mark.parametrize("p_min", [0.0, 1.0, -0.1, math.nan])
def test_a_p_min_that_is_no_probability_is_refused(p_min):
    with pytest.raises(ValueError, match=rf"`p_min` must lie in \(0, 1\), got {p_min}"):
        bounded_cross_entropy(*problem(), p_min)


@pytest.mark.parametrize("part", ["mean", "var"])
def test_an_error_is_stated_for_float64_means_and_variances_only(part):
    """A variance in float32 moved a probability by 7e-9 where 5e-14 was stated."""
    scores = Moments(torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[1.3, 0.7]]).double())
    scores = scores._replace(**{part: getattr(scores, part).float()})
    with pytest.raises(TypeError, match=r"`scores` must be float64 for a stated error"):
        probability_correct_error(scores, torch.tensor([0]), 0.25)


@pytest.mark.parametrize(
    ("part", "bad"), [("mean", math.nan), ("mean", math.inf), ("var", math.inf), ("var", -1.0)]
)
def test_no_error_is_stated_for_scores_that_are_no_gaussians(part, bad):
    scores = Moments(torch.zeros(2, 3).double(), torch.ones(2, 3).double())
    getattr(scores, part)[1, 2] = bad
    with pytest.raises(ValueError, match=r"finite means and finite variances .*, got .*1"):
        probability_correct_error(scores, torch.tensor([0, 1]), 0.25)
