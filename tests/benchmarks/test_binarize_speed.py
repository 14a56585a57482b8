"""What binary layers and balance hooks cost a training step on a LeNet, measured in one run.

``pytest -s tests/benchmarks/test_binarize_speed.py`` prints the ratios.
"""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F

from pbnn.backbones import lenet
from pbnn.balance import watch
from pbnn.binarize import RECIPES, after_step, convert
from pbnn.seeding import generator

BATCH, ROUNDS = 64, 15


def step_of(network):
    """One step of Adam on images of noise, with all that a binary network's training does."""
    x = torch.rand(BATCH, 1, 28, 28, generator=generator(0, "x"))
    y = torch.randint(10, (BATCH,), generator=generator(0, "y"))
    network = network.train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step():
        loss = F.cross_entropy(network(x), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        after_step(network)

    return step


def twin():
    return lenet((1, 28, 28), (32, 64), 512, generator=generator(0, "net"))


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(ours, theirs):
    """Least time of ours by least time of theirs, timed alternately, so that both meet one load."""
    for run in (ours, theirs):
        run()
    times = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
    first, second = (min(column) for column in zip(*times, strict=True))
    return first / second


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_binary_step_against_that_of_the_twin(recipe, benchmark):
    step = step_of(convert(twin(), recipe).network)
    benchmark.pedantic(step, rounds=3, warmup_rounds=1)
    found = ratio(step, step_of(twin()))
    benchmark.extra_info["ratio"] = found
    print(f"\n{recipe}: {found:.2f} times the step of the full-precision twin")


@pytest.mark.parametrize("every", [1, 10])
def test_hooks_cost_little_of_a_step(every, benchmark):
    network = convert(twin(), "ir_net").network
    step, plain = step_of(network), step_of(convert(twin(), "ir_net").network)

    def ten():
        for _ in range(10):
            step()

    def plain_ten():
        for _ in range(10):
            plain()

    with watch(network, every=every):
        benchmark.pedantic(step, rounds=3, warmup_rounds=1)
        found = ratio(ten, plain_ten) if every > 1 else ratio(step, plain)
    benchmark.extra_info["ratio"] = found
    print(f"\nwatching every {every}: {100 * (found - 1):.1f}% of a step")
    assert found < 1.5
