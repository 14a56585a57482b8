"""Moments of dense and convolutional layers and of signs: draws, exact sums, edges, gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal

from pbnn.functional import (
    Moments,
    Signs,
    batch_norm,
    batch_statistics,
    conv2d,
    linear,
    max_pool,
    mean_of,
    sample_signs,
    sign,
)
from pbnn.seeding import generator

DRAWS = 100_000
LAWS = ("bernoulli", "gaussian")
KINDS = ("known", "known signs", "random signs", "moments")
# Stride, padding, what surrounds the image, groups: each value beside each other's.
GEOMETRIES = [(1, 0, 0, 1), (1, 1, 0, 2), (2, 1, 0, 1), (2, 1, -1, 2), (1, 1, 1, 1), (2, 0, 1, 2)]
often = settings(derandomize=True, deadline=None, database=None, max_examples=100)


def normal(*shape, of):
    return torch.randn(*shape, generator=generator(0, of), dtype=torch.float64)


def uniform(*shape, of):
    """Means of signs in (−1, 1)."""
    return 2 * torch.rand(*shape, generator=generator(0, of), dtype=torch.float64) - 1


def units(kind, *shape):
    if kind == "known":
        return normal(*shape, of="units")
    if kind == "known signs":
        return Signs(sample_signs(torch.zeros(shape).double(), generator(0, "units")), known=True)
    if kind == "random signs":
        return Signs(uniform(*shape, of="units"))
    return Moments(normal(*shape, of="units"), normal(*shape, of="spread").square())


def drawn(x, count=DRAWS):
    """Draws of the units, shape (count, *)."""
    mean = mean_of(x).expand(count, *mean_of(x).shape[1:])
    if isinstance(x, torch.Tensor):
        return mean
    if isinstance(x, Signs):
        return sample_signs(mean, generator(0, "inputs"))
    return mean + x.var.sqrt() * normal(*mean.shape, of="inputs")


def drawn_weights(law, mean, count=DRAWS):
    if law == "bernoulli":
        return sample_signs(mean.expand(count, *mean.shape), generator(0, "weights"))
    return mean + normal(count, *mean.shape, of="weights")


def by_hand(x, weight, stride, padding, value, groups):
    """Convolution of each image with filters of its own, one input of a patch after the other."""
    size, outputs, inputs, kernel, _ = weight.shape
    patches = F.unfold(F.pad(x, (padding,) * 4, value=value), kernel, stride=stride)
    patches = patches.view(size, groups, 1, inputs * kernel**2, -1)
    filters = weight.reshape(size, groups, outputs // groups, inputs * kernel**2, 1)
    out = sum(filters[..., i, :] * patches[..., i, :] for i in range(inputs * kernel**2))
    side = (x.shape[-1] + 2 * padding - kernel) // stride + 1
    return out.view(size, outputs, side, side)


def full(x):
    return Moments(x.mean, x.var.expand_as(x.mean))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_linear_has_the_moments_of_drawn_weights_and_units(law, kind, assert_moments):
    x, weight = units(kind, 1, 5), uniform(3, 5, of="mean")
    draws = (drawn_weights(law, weight) @ drawn(x)[..., None]).squeeze(-1)
    assert_moments(draws, Moments(*(part[0] for part in full(linear(x, weight, law)))))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("stride", "padding", "value", "groups"), GEOMETRIES)
def test_a_convolution_has_the_moments_of_drawn_filters_and_units(
    law, kind, stride, padding, value, groups, assert_moments
):
    x, weight = units(kind, 1, 2, 3, 3), uniform(2 * groups, 2 // groups, 2, 2, of="mean")
    options = {"stride": stride, "padding": padding, "padding_value": value, "groups": groups}
    expected = full(conv2d(x, weight, law, **options))
    draws = by_hand(drawn(x), drawn_weights(law, weight), stride, padding, value, groups)
    assert expected.mean.shape[1:] == draws.shape[1:]
    assert_moments(draws, Moments(*(part[0] for part in expected)))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_as_large_as_the_image_is_a_dense_unit(law, kind):
    x, weight = units(kind, 6, 2, 3, 3), uniform(4, 2, 3, 3, of="mean")
    flat = x.flatten(1) if isinstance(x, torch.Tensor) else None
    if isinstance(x, Signs):
        flat = x._replace(mean=x.mean.flatten(1))
    elif isinstance(x, Moments):
        flat = Moments(x.mean.flatten(1), x.var.flatten(1))
    expected = full(linear(flat, weight.flatten(1), law))
    found = full(conv2d(x, weight, law))
    torch.testing.assert_close(found, Moments(*(part[..., None, None] for part in expected)))


@pytest.mark.parametrize("law", LAWS)
def test_signs_are_units_of_second_moment_one(law):
    weight, flat = uniform(4, 2, 3, 3, of="mean"), uniform(4, 18, of="flat")
    options = {"stride": 2, "padding": 1}
    for mean in (uniform(5, 2, 4, 4, of="m"), units("known signs", 5, 2, 4, 4).mean):
        moments = Moments(mean, 1 - mean.square())
        ways = [Signs(mean), moments]
        ways += [mean, Signs(mean, known=True)] * bool((mean.abs() == 1).all())
        found = [full(conv2d(x, weight, law, **options)) for x in ways]
        rows = [Signs(mean.view(-1, 16)), Moments(mean.view(-1, 16), moments.var.view(-1, 16))]
        found_flat = [full(linear(x, flat[:, :16], law)) for x in rows]
        for one in found[1:]:
            torch.testing.assert_close(one, found[0])
        torch.testing.assert_close(*found_flat)


@pytest.mark.parametrize("law", LAWS)
def test_a_variance_that_is_shared_is_a_variance_of_each(law):
    """What a Gaussian layer hands on: one variance for all units of a point."""
    weight = uniform(3, 4, of="mean")
    for var in (torch.tensor([0.7]), torch.full((6, 1), 0.7), torch.tensor(0.7)):
        x = Moments(normal(6, 4, of="x"), var.double())
        torch.testing.assert_close(full(linear(x, weight, law)), full(linear(full(x), weight, law)))
    images = Moments(normal(6, 4, 3, 3, of="x"), normal(6, 1, 3, 3, of="v").square())
    filters = uniform(4, 2, 2, 2, of="filters")
    for value in (0, 1):
        options = {"padding": 1, "padding_value": value, "groups": 2}
        found, expected = (conv2d(x, filters, law, **options) for x in (images, full(images)))
        torch.testing.assert_close(full(found), full(expected))


def test_a_border_of_zeros_counts_for_nothing_and_one_of_signs_in_full():
    """Fair coins: the variance is the number of inputs that are signs."""
    image, weight = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    inside = 2.0 * torch.tensor([[4, 6, 4], [6, 9, 6], [4, 6, 4]])
    for x in (Signs(image), Signs(image + 1, known=True), image + 1):
        assert torch.equal(conv2d(x, weight, "bernoulli", padding=1).var[0, 0], inside)
        for value in (-1, 1):
            found = conv2d(x, weight, "bernoulli", padding=1, padding_value=value)
            assert found.var[0, 0].tolist() == [[18.0] * 3] * 3


@pytest.mark.parametrize("var", [1e-3, 0.2, 1.0, 30.0])
def test_the_sign_of_a_gaussian_layer_is_exact(var):
    """Of known inputs a Gaussian layer is Gaussian: the frequency of its signs, no CLT."""
    x, weight = math.sqrt(var) * normal(1, 6, of="x"), normal(8, 6, of="mean")
    h = linear(x, weight)
    normal_law = Normal(full(h).mean, full(h).var.sqrt())
    found = sign(h)
    torch.testing.assert_close(found.mean, 1 - 2 * normal_law.cdf(torch.zeros(()).double()))
    torch.testing.assert_close(found.var, 1 - found.mean.square())
    frequency = (drawn_weights("gaussian", weight) @ x[0] >= 0).double().mean(0)
    error = (found.var[0] / 4 / DRAWS).sqrt()
    assert ((frequency - (1 + found.mean[0]) / 2).abs() <= 5 * error).all()


def exact_mean_sign(mean):
    """E sgn Σ s_i of independent signs, by adding them one at a time to the law of the sum."""
    law = torch.ones(1, dtype=torch.float64)  # of (sum + number)/2
    for m in mean:
        law = F.pad(law * (1 - m) / 2, (0, 1)) + F.pad(law * (1 + m) / 2, (1, 0))
    total = 2 * torch.arange(len(law)) - len(mean)
    return (law * torch.where(total >= 0, 1.0, -1.0)).sum()


@pytest.mark.parametrize(("odd", "power", "limit"), [(True, 1.0, 0.25), (False, 0.5, 1.0)])
def test_the_central_limit_theorem_errs_less_the_more_inputs(odd, power, limit):
    """Largest |error| of a mean sign: ties of even numbers cost D^-1/2, the rest about D^-1."""
    errors = []
    for inputs in (9, 33, 129, 513) if odd else (8, 32, 128, 512):
        worst = 0.0
        for lean in torch.linspace(-3, 3, 13).tolist():
            mean = uniform(inputs, of=f"mean {inputs}") * 0.8 + lean / math.sqrt(inputs)
            mean = mean.clamp(-1, 1)
            found = sign(linear(torch.ones(1, inputs).double(), mean[None], "bernoulli")).mean
            worst = max(worst, abs(found.item() - exact_mean_sign(mean).item()))
        errors.append(worst)
        print(f"{inputs} inputs: {worst:.2e}, times D^{power}: {worst * inputs**power:.3f}")
        assert worst <= limit * inputs**-power
    assert errors == sorted(errors, reverse=True)


means = st.lists(
    st.sampled_from([-1.0, 0.0, 1.0, 1 - 2**-24, -1 + 2**-24]) | st.floats(-1, 1, width=32),
    min_size=6,
    max_size=6,
)


@often
@given(means, means, st.sampled_from(LAWS), st.sampled_from([torch.float32, torch.float64]))
def test_variances_are_never_negative(x, weight, law, dtype):
    mean = torch.tensor([x], dtype=dtype)
    filters = torch.tensor([weight], dtype=dtype)
    spread = mean.abs() * (mean.abs() < 1)
    for given_units in (mean, Signs(mean), Moments(mean, spread)):
        dense = linear(given_units, filters, law)
        assert (dense.var >= 0).all()
        assert (sign(dense).mean.abs() <= 1).all()
    for value in (0, -1, 1):
        image = Signs(mean.view(1, 6, 1, 1))
        options = {"padding": 1, "padding_value": value}
        assert (conv2d(image, filters.view(1, 6, 1, 1), law, **options).var >= 0).all()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_nan_where_everything_is_known(law, dtype):
    """Probabilities 0 and 1 all over, zero variance at the borders: values and gradients."""
    for mean in (torch.ones(2, 2, 4, 4), torch.zeros(2, 2, 4, 4), -torch.ones(2, 2, 4, 4)):
        for one in (1.0, -1.0):
            x = mean.to(dtype).requires_grad_()
            weight = torch.full((4, 2, 3, 3), one, dtype=dtype, requires_grad=True)
            zero = torch.zeros_like(x)
            for kind in (x, Signs(x), Moments(x, zero)):
                h = conv2d(kind, weight, law, padding=1)
                out = max_pool(sign(h), 2)
                flat = linear(Signs(out.mean.flatten(1)), weight.view(4, -1)[:, :16], law)
                total = sum(part.sum() for part in (*h, out.mean, out.var, *flat, sign(flat).mean))
                assert total.isfinite()
                for gradient in torch.autograd.grad(total, (x, weight)):
                    assert gradient.isfinite().all()


@pytest.mark.parametrize("law", LAWS)
def test_the_gradients_of_a_chain_are_those_of_finite_differences(law):
    """Convolution, batch normalisation, sign, maximum, dense layer."""

    def chain(x, filters, weight, gamma, beta):
        options = {"padding": 1, "padding_value": -1, "groups": 2}
        h = conv2d(Moments(x, x.square()), filters, law, **options)
        h = batch_norm(h, batch_statistics(h), gamma, beta, 1e-3)
        signs = max_pool(sign(h), 2)
        h = linear(Signs(signs.mean.flatten(1)), weight, law)
        return (*full(h), sign(h).mean)

    inputs = (
        normal(3, 2, 4, 4, of="x"),
        0.7 * uniform(4, 1, 3, 3, of="filters"),
        0.7 * uniform(2, 16, of="weight"),
        normal(4, of="gamma"),
        normal(4, of="beta"),
    )
    leaves = [leaf.requires_grad_() for leaf in inputs]
    assert torch.autograd.gradcheck(chain, leaves)


@pytest.mark.parametrize("kind", ["known signs", "random signs", "moments"])
def test_the_gradients_of_every_kind_of_units_are_those_of_finite_differences(kind):
    def moments(law, x, weight, var):
        given_units = {
            "known signs": Signs(x, known=True),
            "random signs": Signs(x),
            "moments": Moments(x, var),
        }[kind]
        return full(conv2d(given_units, weight, law, stride=2, padding=1))

    x, weight, var = (
        uniform(2, 2, 3, 3, of="x"),
        uniform(2, 2, 2, 2, of="w"),
        torch.ones(2, 2, 3, 3),
    )
    leaves = [leaf.double().requires_grad_() for leaf in (x, weight, var)]
    for law in LAWS:
        found = torch.autograd.gradcheck(lambda *leaf, law=law: moments(law, *leaf), leaves)
        assert found


def test_a_law_and_a_border_that_are_none_are_refused():
    x, weight = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"`law` must be one of .*'bernoulli'.*, got 'poisson'"):
        conv2d(x, weight, "poisson")
    with pytest.raises(ValueError, match=r"`law` must be .*, got 'poisson'"):
        linear(x[0, 0], weight[0, 0], "poisson")
    with pytest.raises(ValueError, match=r"`padding_value` must be 0, -1 or 1, got 0.5"):
        conv2d(x, weight, "bernoulli", padding=1, padding_value=0.5)
