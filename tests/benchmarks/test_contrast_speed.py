"""What learning by contrast or by a teacher costs a training step, against plain cross-entropy.

``pytest -s tests/benchmarks/test_contrast_speed.py`` prints the ratios.
"""

from __future__ import annotations

import time

import pytest
import torch

from pbnn.augmentation import chained, random_contrast, random_resized_crop
from pbnn.backbones import resnet
from pbnn.baselines import Classifier
from pbnn.binarize import convert
from pbnn.objectives import RiskObjective
from pbnn.representation import CMIM, ContrastiveObjective, GuidedObjective, ProjectionHead
from pbnn.seeding import generator

BATCH, ROUNDS, SAMPLES = 128, 15, 6000
VIEWS = chained(random_resized_crop, random_contrast)


def network(*, embedding=False, binary=True):
    made = resnet((1, 28, 28), (16, 32), 1, "each", stem_stride=2, averaged=False,
                  generator=generator(0, "start"))  # fmt: skip
    if embedding:
        made[-1] = ProjectionHead(made[-1].in_features, generator=generator(0, "head"))
    return convert(made, "bi_real_net").network if binary else made.eval()


def plain():
    return RiskObjective(Classifier(network()), "cross_entropy")


def contrasted(**more):
    x = torch.rand(2, 1, 28, 28, generator=generator(0, "x"))
    y = torch.randint(10, (SAMPLES,), generator=generator(0, "y"))
    return CMIM(plain(), x, y, generator=generator(0, "contrast"), **more)


def by_teacher(**more):
    pair = network(embedding=True), network(embedding=True, binary=False)
    return GuidedObjective(*pair, VIEWS, generator=generator(0, "views"), **more)


OBJECTIVES = {
    "CMIM, own pair": lambda: contrasted(count=None),
    "CMIM, teacher": lambda: contrasted(
        count=None, pair="teacher", teacher=network(binary=False), train_heads=False
    ),
    "CMIM, memory of 6000, N = 4096": lambda: contrasted(count=4096),
    "distillation, with views": by_teacher,
    "distillation and contrast": lambda: by_teacher(contrast=1.0),
    "contrast of two views": lambda: ContrastiveObjective(
        network(embedding=True), VIEWS, 0.2, generator(0, "views")
    ),
}


def step_of(objective):
    x = torch.rand(BATCH, 1, 28, 28, generator=generator(0, "x"))
    y = torch.randint(10, (BATCH,), generator=generator(0, "y"))
    index = torch.arange(BATCH)
    objective.train()

    def step():
        objective.meet(index)
        objective(x, y)[0].backward()
        objective.zero_grad(set_to_none=True)

    return step


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_against_plain_cross_entropy(name, benchmark):
    ours, theirs = step_of(OBJECTIVES[name]()), step_of(plain())
    for run in (ours, theirs):
        run()
    times = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
    first, second = (min(column) for column in zip(*times, strict=True))
    print(f"\n{name}: {first / second:.2f} times plain cross-entropy")
    benchmark.pedantic(ours, rounds=3)
