"""Time of one epoch: the mean-field step against the layerwise Monte Carlo of the paper.

``pytest -s tests/benchmarks/test_training_speed.py`` prints the ratio, measured in one run.
"""

from __future__ import annotations

import math
import time

import pytest
import torch
import torch.nn.functional as F

from pbnn.networks import PBGNet
from pbnn.objectives import BoundObjective
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit

POINTS, FEATURES, WIDTH, DRAWS = 2_000, 784, 100, 100


class SampledPBGNet(PBGNet):
    r"""The aggregate and its gradient from T draws of the hidden signs, as in the paper.

    .. math::
        F \approx \frac1T \sum_t g(s^t), \qquad
        \frac{\partial F}{\partial F_k} \approx
        \frac1{2T} \sum_t \frac{s^t_k}{\Pr(s^t_k \mid x)} g(s^t), \qquad
        g(s) = \operatorname{erf}\Bigl(\frac{w_2 \cdot s}{\sqrt{2d}}\Bigr)

    Letarte et al. (2019), Section 3.2, https://arxiv.org/abs/1905.10259.
    """

    def __init__(self, *args, draws, source, **options):
        super().__init__(*args, **options)
        self.draws, self.source = draws, source

    def forward(self, x):
        w1, w2 = self.hidden[0].weight.mean, self.output.weight.mean
        mean = torch.erf(F.linear(x, w1) / (math.sqrt(2) * x.norm(dim=1, keepdim=True)))
        up = (1 + mean.detach()) / 2
        drawn = torch.rand(self.draws, *up.shape, generator=self.source, dtype=up.dtype) < up
        signs = 2 * drawn.to(up.dtype) - 1
        output = torch.erf(F.linear(signs, w2).squeeze(-1) / math.sqrt(2 * self.widths[0]))
        probability = torch.where(drawn, up, 1 - up)
        slope = (signs / probability * output.detach()[..., None]).mean(0) / 2
        # Of value zero: carries the estimated gradient with respect to the hidden means.
        through_hidden = (slope * (mean - mean.detach())).sum(-1)
        return output.mean(0) + through_hidden


def epoch(network):
    x = torch.rand(POINTS, FEATURES, generator=generator(0, "x"))
    y = torch.where(x[:, 0] > 0.5, 1.0, -1.0)
    objective = BoundObjective(network, POINTS, 0.05)
    config = FitConfig(epochs=1, batch=32)
    return lambda: fit(objective, x, y, config, generator=generator(0, "batches"))


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


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


def test_an_epoch_is_faster_by_the_mean_field_step_than_by_sampling(benchmark):
    analytic = epoch(PBGNet(FEATURES, (WIDTH,), generator=generator(0, "prior")))
    sampled = epoch(
        SampledPBGNet(
            FEATURES,
            (WIDTH,),
            generator=generator(0, "prior"),
            draws=DRAWS,
            source=generator(0, "draws"),
        )
    )
    benchmark.pedantic(analytic, rounds=5, warmup_rounds=1)
    # Timed alternately, so that both meet the same load.
    times = [(seconds(analytic), seconds(sampled)) for _ in range(2)]
    fast, slow = (min(column) for column in zip(*times, strict=True))
    benchmark.extra_info.update(sampled_seconds=slow, ratio=slow / fast)
    print(
        f"\none epoch, n = {POINTS}, d = {FEATURES}, width {WIDTH}, {torch.get_num_threads()} "
        f"thread(s): mean field {fast:.3f} s, {DRAWS} draws {slow:.3f} s, ratio {slow / fast:.1f}"
    )
    assert slow > fast
