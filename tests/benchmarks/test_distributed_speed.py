"""Time of one step of a small BLRNet by one, two and four processes on this machine.

``pytest -s tests/benchmarks/test_distributed_speed.py`` prints it. More processes than cores take
no less time, and each has one thread: what is compared is a step with its sums and a step without.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time

import torch
from spawned import together

from pbnn.distributed import fit_sharded, processes
from pbnn.layers import freeze_statistics
from pbnn.networks import BLRNet
from pbnn.objectives import BoundObjective
from pbnn.seeding import generator
from pbnn.training import FitConfig

IMAGE, ARCHITECTURE = (1, 28, 28), "32C3-MP2-64C3-MP2-128FC-SM10"
POINTS, BATCH = 1536, 256


def seconds_a_step(frozen):
    """The median over the steps of two epochs."""
    network = BLRNet(IMAGE, ARCHITECTURE, generator=generator(0, "net"))
    x = torch.randn(POINTS, *IMAGE, generator=generator(0, "x"))
    y = torch.randint(10, (POINTS,), generator=generator(0, "y"))
    if frozen:
        network.re_estimate(x[:BATCH])
        freeze_statistics(network, "split")
    objective = BoundObjective(network, POINTS, 0.05, loss="gibbs")
    ends = []
    fit_sharded(
        objective,
        x,
        y,
        FitConfig(epochs=2, batch=BATCH, learning_rate=0.01, keep="last"),
        generator=generator(0, "batches"),
        after_step=lambda share: ends.append(time.perf_counter()),
    )
    steps = [after - before for before, after in itertools.pairwise(ends)]
    return statistics.median(steps)


def work():
    torch.set_num_threads(1)
    with processes(timeout=120) as here:
        times = [seconds_a_step(frozen) for frozen in (False, True)]
    if here.rank == 0:
        print(*times)


def measured(count):
    told = together([sys.executable, "-W", "ignore", __file__], count, timeout=300)
    return [float(value) for value in told[0].split()]


def test_time_of_a_step():
    print(f"\nBLRNet {ARCHITECTURE}, batch {BATCH}, {os.cpu_count()} cores, one thread each")
    for count in (1, 2, 4):
        moving, frozen = measured(count)
        print(
            f"{count} processes: {1e3 * moving:.0f} ms a step, "
            f"{1e3 * frozen:.0f} ms with frozen batch normalisation"
        )


if __name__ == "__main__":
    work()
