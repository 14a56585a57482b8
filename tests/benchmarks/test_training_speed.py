"""Time of one epoch: the mean-field step against the layerwise Monte Carlo of the paper.

``pytest -s tests/benchmarks/test_training_speed.py`` prints the ratio, measured in one run.
"""

from __future__ import annotations

import time

import torch

from pbnn.networks import PBGNet
from pbnn.objectives import BoundObjective
from pbnn.sampled import SampledPBGNet
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit

POINTS, FEATURES, WIDTH, DRAWS = 2_000, 784, 100, 100


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
