"""The sampled aggregate of the paper: its mean and the mean of its gradient are exact."""

from __future__ import annotations

import math

import pytest
import torch

from pbnn.networks import PBGNet
from pbnn.sampled import SampledPBGNet
from pbnn.seeding import generator


@pytest.mark.parametrize("layer", ["hidden.0", "output"])
def test_the_sampled_network_estimates_the_exact_value_and_gradient(layer):
    options = {"hidden": (4,), "dtype": torch.float64}
    exact = PBGNet(3, generator=generator(0, "prior"), **options)
    with torch.no_grad():
        for part in exact.layers():
            part.weight.mean.mul_(2)
    x = torch.randn(1, 3, generator=generator(0, "x"), dtype=torch.float64)
    sampled = SampledPBGNet(
        3, generator=generator(0, "prior"), draws=1_000, source=generator(0, "draws"), **options
    )
    sampled.load_state_dict(exact.state_dict())
    name = f"{layer}.weight.mean"
    expected = torch.autograd.grad(exact(x).sum(), exact.get_parameter(name))[0]
    values, gradients = [], []
    for _ in range(200):
        value = sampled(x).sum()
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, sampled.get_parameter(name))[0])
    for estimates, target in ((values, exact(x).sum().detach()), (gradients, expected)):
        sample = torch.stack(estimates)
        error = sample.std(0) / math.sqrt(len(sample))
        assert ((sample.mean(0) - target).abs() <= 5 * error).all()


@pytest.mark.parametrize(
    ("options", "name"),
    [({"hidden": (2, 2)}, "hidden"), ({"bias": True}, "hidden"), ({"draws": 0}, "draws")],
)
def test_what_it_cannot_sample_is_refused(options, name):
    source = generator(0, "draws")
    usual = {"hidden": (2,), "draws": 1, "source": source, "generator": source}
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        SampledPBGNet(3, **(usual | options))
