"""A training step of random binary convolutions against one of a real-valued network, and memory.

``pytest -s tests/benchmarks/test_convolution_speed.py`` prints processor seconds, ratios measured
in turns in one run, and the bytes kept for the gradient, as width and batch double. Nothing is
asserted about time.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch

from pbnn.baselines import RealNet
from pbnn.networks import BLRNet
from pbnn.objectives import RiskObjective
from pbnn.seeding import generator

IMAGE = (1, 28, 28)
SIZES = [(16, 128), (32, 32), (32, 64), (32, 128), (32, 256), (64, 128)]
TURNS = 7


def network(name: str, width: int) -> BLRNet | RealNet:
    source, shape = generator(0, "start"), f"{width}C3-MP2-{2 * width}C3-MP2-{16 * width}FC-SM10"
    if name == "real":
        return RealNet(IMAGE, shape, generator=source)
    activation = {"PBNet": "analytic", "PBNet-S": "concrete"}[name]
    return BLRNet(IMAGE, shape, activation=activation, generator=source, source=source)


def step_of(name: str, width: int, batch: int):
    """A function that takes one step and returns the bytes kept for its gradient."""
    objective = RiskObjective(network(name, width), "cross_entropy")
    optimiser = torch.optim.Adam(objective.parameters(), 1e-3)
    x = torch.rand(batch, *IMAGE, generator=generator(0, "x"))
    y = torch.randint(10, (batch,), generator=generator(0, "y"))

    def step(count: bool = False) -> int:
        kept: dict[int, int] = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        if count:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss, _ = objective(x, y)
        else:
            loss, _ = objective(x, y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return sum(kept.values())

    return step


def seconds(step) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


@pytest.mark.parametrize(("width", "batch"), SIZES)
def test_a_training_step(width: int, batch: int) -> None:
    torch.set_num_threads(1)
    steps = {name: step_of(name, width, batch) for name in ("real", "PBNet", "PBNet-S")}
    kept = {name: step(count=True) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TURNS):
        for name, step in steps.items():
            times[name].append(seconds(step))
    middle = {name: statistics.median(found) for name, found in times.items()}
    print(f"\nwidth {width}, batch {batch}:")
    for name in steps:
        print(
            f"  {name:8} {1e3 * middle[name]:7.1f} ms ({middle[name] / middle['real']:.2f}x)"
            f" {kept[name] / 2**20:7.1f} MB kept ({kept[name] / kept['real']:.2f}x)"
        )
    assert all(size > 0 for size in kept.values())
