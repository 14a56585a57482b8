"""Short trainings of several kinds on the bundled digits, each with the certificate of its end."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pbnn.baselines import Classifier
from pbnn.binarize import RECIPES, Recipe, after_step, convert, set_progress, set_source
from pbnn.certificates import Budget, Provenance, certify_gibbs, certify_known, certify_vote
from pbnn.class_risks import drawn_risks
from pbnn.data import Splits, Task, cut, load_once
from pbnn.ensembles import anytime
from pbnn.evaluation import risks
from pbnn.layers import freeze_statistics
from pbnn.networks import ABNet, BLRNet, PBGNet, SignNetwork, fingerprint
from pbnn.objectives import BoundObjective, RiskObjective
from pbnn.packed import certify, deployed, pack, price
from pbnn.seeding import generator
from pbnn.training import FitConfig, fit, load_checkpoint, save_checkpoint

DELTA = 0.05
SCALE = 1 / 16
"""Of a pixel of the digits."""
CONFIGURATIONS = ("4C3-MP2-SM10", "4C3-MP2-8FC-SM10")
PACKABLE = ("binary_net", "xnor_net", "bi_real_net", "ir_net", "unbalanced")
Found = dict[str, Any]
"""A certificate as plain JSON values."""


def digits(name: str) -> tuple[Task, Splits]:
    """The bundled data, half of the training examples for the prior."""
    task = load_once(name, None, True)
    return task, cut(task, prior=0.5)


def points(task: Task, rows: object) -> tuple[Tensor, Tensor]:
    """Some examples as tensors."""
    return torch.from_numpy(task.x[rows]), torch.from_numpy(task.y[rows])


def budget(family: Any) -> Budget:
    """Of one network that nothing was chosen for."""
    return Budget(DELTA, choices=1, family=family)


def provenance(task: Task, splits: Splits, prior: str, seed: int) -> Provenance:
    """Of a network of this prior."""
    return Provenance(prior, seed, splits.hashes(task))


def signs(network: SignNetwork, seed: int) -> Found:
    """Two classes by their bound: the random network is certified, which is told, and its vote."""
    task, splits = digits("digits17")
    x, y = points(task, splits.certification)
    config = FitConfig(epochs=10, batch=32, learning_rate=0.1)
    objective = BoundObjective(network, splits.n, DELTA)
    fit(objective, x, y, config, generator=generator(seed, "batches"))
    found = risks(reloaded(network), x, y, draws=2000, generator=generator(seed, "draws"))
    told = budget("signs"), provenance(task, splits, "drawn before the data", seed)
    certify_vote(network, found, *told)
    return certify_gibbs(network, found, *told).to_dict()


def pbgnet(seed: int) -> Found:
    """One hidden layer of varied width: every risk is exact."""
    return signs(PBGNet(64, (6 + seed,), generator=generator(seed, "prior")), seed)


def abnet(seed: int) -> Found:
    """Two hidden layers of varied width: risks are those of draws."""
    return signs(ABNet(64, (13 + seed, 6), generator=generator(seed, "prior")), seed)


def trained(seed: int, **options: Any) -> tuple[BLRNet, Task, Splits]:
    """A BLRNet for ten classes by its bound, with statistics frozen on the prior split."""
    task, splits = digits("digits")
    draws = {"generator": generator(seed, "start"), "source": generator(seed, "source")}
    architecture = CONFIGURATIONS[seed % len(CONFIGURATIONS)]
    network = BLRNet(task.x.shape[1:], architecture, **draws, **options)
    few, _ = points(task, splits.prior[:200])
    network.re_estimate(few)
    freeze_statistics(network, splits.hashes(task)["prior"])
    x, y = points(task, splits.certification)
    config = FitConfig(epochs=2, batch=64, learning_rate=0.1, keep="last")
    objective = BoundObjective(network, splits.n, DELTA, loss="gibbs")
    fit(objective, x, y, config, generator=generator(seed, "batches"))
    return network, task, splits


def blrnet(seed: int) -> Found:
    """A random network of either law for ten classes, certified by draws."""
    network, task, splits = trained(seed, law=("bernoulli", "gaussian")[seed // 2 % 2])
    x, y = points(task, splits.certification)
    draw = generator(seed, "draws")
    found = drawn_risks(reloaded(network), x, y, group=64, passes=1, generator=draw)
    told = provenance(task, splits, "the uniform law of signs, or N(0, 1)", seed)
    return certify_gibbs(network, found, budget("classes"), told).to_dict()


def ensemble(seed: int) -> Found:
    """Four networks of a posterior that is trained by draws: their vote, early and packed."""
    network, task, splits = trained(seed, activation="sample")
    few, _ = points(task, splits.prior[:200])
    split, draw = splits.hashes(task)["prior"], generator(seed, "deployed")
    members = deployed(network, "vote", few, split, draw, members=4)
    images, _ = points(task, splits.test)
    anytime([lambda x, m=member: m(x).softmax(1) for member in members], images)
    packed = pack(members, scale=SCALE)
    paid = {"log_ratio": price(network, packed, "rivasplata")}
    made = certify(packed, task, splits, budget("deployed"), "uniform", seed, **paid)
    assert made.certificate is not None
    return made.certificate


def binary(recipe: str | Recipe, seed: int) -> tuple[nn.Module, Task, Splits]:
    """An ordinary convolutional network made binary, and trained on the prior split."""
    task, splits = digits("digits")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Hardtanh()),
            *(nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(8)),
            *(nn.Hardtanh(), nn.Flatten(), nn.Linear(128, 10)),
        )
    network = convert(model, recipe, generator=generator(seed, "recipe")).network
    set_source(network, generator(seed, "signs"))

    def stepped(share: float) -> None:
        set_progress(network, share)
        after_step(network)

    config = FitConfig(epochs=3, batch=64, learning_rate=0.02, frozen_from=0.8)
    objective = RiskObjective(Classifier(network), "cross_entropy")
    x, y = points(task, splits.prior)
    batches = generator(seed, "batches")
    fit(objective, x, y, config, generator=batches, after_step=stepped)
    return network, task, splits


@torch.no_grad()
def binarised(seed: int) -> Found:
    """A binary network of every recipe in turn, fixed by the prior split."""
    with torch.enable_grad():
        network, task, splits = binary(list(RECIPES)[seed % len(RECIPES)], seed)
    x, y = points(task, splits.certification)
    errors = int((network(x).argmax(1) != y).sum())
    told = budget("deployed"), provenance(task, splits, "trained on the prior split", seed)
    return certify_known(fingerprint(network), errors, splits.n, *told, fixed=True).to_dict()


def packed(seed: int) -> Found:
    """A binary network as bits, with its own certificate."""
    recipe = dataclasses.replace(RECIPES[PACKABLE[seed % len(PACKABLE)]], last=True)
    network, task, splits = binary(recipe, seed)
    split = splits.hashes(task)["prior"]
    bits = pack(network, image=task.x.shape[1:], scale=SCALE, statistics=split)
    prior = "trained on the prior split"
    made = certify(bits, task, splits, budget("deployed"), prior, seed, fixed=True)
    assert made.certificate is not None
    return made.certificate


def reloaded(network: Any) -> Any:
    """A network as its checkpoint gives it back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        save_checkpoint(path, network)
        again = load_checkpoint(path)
    if fingerprint(again) != fingerprint(network):
        raise ValueError("`network` must be read as it was written.")
    return again


KINDS: dict[str, Callable[[int], Found]] = {
    work.__name__: work for work in (pbgnet, abnet, blrnet, ensemble, binarised, packed)
}
"""From a seed to a certificate, with a training on the way, by name."""
