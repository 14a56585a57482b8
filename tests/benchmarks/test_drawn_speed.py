"""Risks of drawn networks: signs that change against whole networks drawn anew.

``pytest -s tests/benchmarks/test_drawn_speed.py`` prints processor seconds for 300 points, both
ways in turns in one run, as groups shrink and as the posterior widens: what is drawn is then most
of the cost, or there is more of it. Nothing is asserted about time.
"""

from __future__ import annotations

import copy
import statistics
import time

import pytest
import torch

from pbnn.class_risks import drawn_risks
from pbnn.networks import BLRNet, binarise
from pbnn.seeding import generator

POINTS, TURNS = 300, 5


def dense(network: BLRNet, x, y, group: int, source) -> float:
    """Every weight of every network drawn in float64."""
    precise, wrong = copy.deepcopy(network).double(), 0
    for part, label in zip(x.split(group), y.split(group), strict=True):
        drawn = binarise(precise, "sample", source).to(x.dtype)
        wrong += int((drawn(part).argmax(1) != label).sum())
    return wrong / len(y)


@pytest.mark.parametrize("committed", [0.999, 0.95, 0.5])
@pytest.mark.parametrize("group", [100, 10, 3])
def test_drawn_networks(group, committed):
    network = BLRNet((1, 28, 28), generator=generator(0, "start")).eval()
    x = torch.rand(POINTS, 1, 28, 28, generator=generator(0, "x"))
    y = torch.zeros(POINTS, dtype=torch.int64)
    network.re_estimate(x)
    for block in network.layers():
        block.layer.weight.commit(committed)
    source = generator(0, "draws")
    ways = {
        "dense": lambda: dense(network, x, y, group, source),
        "flips": lambda: drawn_risks(network, x, y, group=group, passes=1, generator=source),
    }
    seconds = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name, way in ways.items():
            before = time.process_time()
            way()
            if turn:
                seconds[name].append(time.process_time() - before)
    each = {name: statistics.median(values) for name, values in seconds.items()}
    text = ", ".join(f"{name} {value:.3f} s" for name, value in each.items())
    print(
        f"\ngroups of {group}, sign kept with probability {(1 + committed) / 2}: {text}, "
        f"ratio {each['dense'] / each['flips']:.1f}"
    )
