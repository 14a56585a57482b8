"""Networks that are trained to be packed, whether they stay the same, and their certificates."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from balance_runs import network_of, objective_of, training
from binary_accuracy import DENSE, DIGITS_TRAINING, FULLY_BINARY
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pbnn.certificates import Budget
from pbnn.data import Splits, Task
from pbnn.files import write_atomic
from pbnn.layers import freeze_statistics
from pbnn.networks import BLRNet
from pbnn.objectives import RiskObjective
from pbnn.packed import (
    BACKENDS,
    PackedNetwork,
    available,
    certify,
    deployed,
    error_on_test,
    pack,
    price,
)
from pbnn.packed.backends import run
from pbnn.packed.bits import unpack_bits
from pbnn.seeding import generator
from pbnn.sweep import cell_key
from pbnn.training import FitConfig, fit, load_checkpoint, save_checkpoint

Row = dict[str, Any]
CHAINS: dict[str, Row] = {"mlp": DENSE, "lenet_3x3": {"epochs": 16, "pretraining": 1}}
"""Chains of layers by the name of their backbone, with what their training has of its own."""
COMMITTED = 0.99
"""Means of the posterior around the binary network that was trained, in size."""
PREDICTORS = ("mode", "draw", "vote")
CHOICES = 1000
"""Charged for how these networks are trained (rates, epochs, batches, recipes), which was chosen in
earlier studies with images among those that certify here: bookkeeping, as in the other studies."""
AT_ONCE = 100
PRIOR = "trained on the prior split, half of the training images"


class Trained(NamedTuple):
    """Networks of torch, of several those that vote, and what is packed of them.

    `posterior` is where they come from, and `way` what their certificate is of.
    """

    networks: list[nn.Module]
    packed: PackedNetwork
    posterior: BLRNet | None = None


def trained(config: Any, task: Task, splits: Splits, kept: Path) -> dict[str, Trained]:
    """Every network by name, trained on the prior split, or found in the folder `kept`."""
    found = {}
    scale, split = 1 / config.levels, splits.hashes(task)["prior"]
    for name in CHAINS:
        network = chain(name, task, splits, getattr(config, f"{name}_epochs"), kept)
        packed = pack(network, image=task.x.shape[1:], scale=scale, statistics=split)
        found[name] = Trained([network], packed)
    model = posterior(config.architecture, task, splits, config.blrnet_epochs, kept)
    few, _ = points(task, splits.prior[: config.statistics_of])
    for predictor in PREDICTORS:
        draw = generator(0, "deployed")
        networks = deployed(model, predictor, few, split, draw, members=config.members)  # type: ignore[arg-type]
        found[f"blrnet {predictor}"] = Trained([*networks], pack(networks, scale=scale), model)
    return found


def chain(name: str, task: Task, splits: Splits, epochs: int, kept: Path) -> nn.Module:
    """A fully binary network of dense layers or convolutions."""
    cell = DIGITS_TRAINING | CHAINS[name] | {"network": name, "epochs": epochs, "seed": 0}
    cell |= {"threads": 1, "norm_bias": 0.0, "after": None, "method": name}
    cell["recipe"] = FULLY_BINARY.to_dict()
    path = kept / f"{cell_key(cell, splits.hashes(task))}.safetensors"
    image, classes = tuple(task.x.shape[1:]), int(task.y.max()) + 1
    if path.exists():
        network = network_of(cell, image, classes)
        network.load_state_dict(load_file(path))
        return network.eval()
    x, y = points(task, splits.prior)
    twin = network_of(cell | {"recipe": None}, image, classes)
    if cell["pretraining"]:
        how = cell | {"epochs": cell["pretraining"], "learning_rate": 0.003}
        training(how, objective_of(how, twin), x, y, True)
    network = network_of(cell, image, classes, twin.state_dict())
    training(cell, objective_of(cell, network), x, y, True)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    write_atomic(path, save(state))
    return network.eval()


def posterior(architecture: str, task: Task, splits: Splits, epochs: int, kept: Path) -> BLRNet:
    """A BLRNet trained straight through; its posterior, which is its prior, lies around that."""
    about = {"architecture": architecture, "epochs": epochs, "committed": COMMITTED}
    path = kept / f"{cell_key(about, splits.hashes(task))}.safetensors"
    if path.exists():
        return load_checkpoint(path)  # type: ignore[return-value]
    x, y = points(task, splits.prior)
    start = generator(0, "start")
    network = BLRNet(task.x.shape[1:], architecture, activation="mode", generator=start)
    config = FitConfig(epochs, 64, learning_rate=0.01)
    batches: Any = {"generator": generator(0, "batches"), "progress": architecture}
    fit(RiskObjective(network, "cross_entropy"), x, y, config, **batches)
    for block in network.layers():
        block.layer.weight.commit(COMMITTED)  # type: ignore[union-attr]
    network.adopt_as_prior()
    network.activation = network.config["activation"] = "analytic"
    freeze_statistics(network, splits.hashes(task)["prior"])
    save_checkpoint(path, network)
    return network


def points(task: Task, rows: Any) -> tuple[Tensor, Tensor]:
    """Some examples as tensors."""
    return torch.from_numpy(task.x[rows]), torch.from_numpy(task.y[rows])


def certificates(name: str, one: Trained, task: Task, splits: Splits) -> list[Row]:
    """Certificates of a predictor: as fixed by the prior split, and as drawn or coded."""
    ways: list[dict[str, Any]] = [{"fixed": True}]
    if one.posterior is not None:
        mode = name.endswith("mode")
        nats = price(one.posterior, one.packed, "occam" if mode else "rivasplata")
        ways.append({"nats" if mode else "log_ratio": nats})
    rows = []
    error = error_on_test(one.packed, task, splits)
    for paid in ways:
        budget = Budget(0.05, 1, CHOICES, "deployed")
        made = certify(one.packed, task, splits, budget, PRIOR, 0, **paid).certificate
        assert made is not None
        row = {each: made[each] for each in ("predictor", "theorem", "n", "kl", "risk", "bound")}
        rows.append({"network": name} | row | {"test_error": error})
    return rows


def compared(name: str, one: Trained, task: Task, rows: Any, levels: int) -> list[Row]:
    """How many first signs, scores and labels differ from torch's, for every back end.

    Torch has float32 inputs, as it is trained with, and once float64 ones of the numbers that bytes
    stand for; of a vote the latter are those of its first member.
    """
    x, truth = task.x[rows], task.y[rows]
    signs, scores, labels = of_torch(one.networks, torch.from_numpy(x))
    # Of a vote the first member, as float64 takes its time.
    precise = [copy.deepcopy(one.networks[0]).double()]
    exact = (torch.from_numpy(x).double() * levels).round() / levels
    true_signs, _, true_labels = of_torch(precise, exact)
    found: list[Row] = []
    outputs: list[Any] = []
    for backend in (each for each in BACKENDS if each in available()):
        layer = one.packed.members[0][0]
        words = run(layer, one.packed.preprocessing(x), backend)
        bits = unpack_bits(words, layer.geometry.out[0]).reshape(signs.shape)
        mine = one.packed.predict(x, backend=backend)
        own = one.packed.scores(x, backend=backend)
        outputs.append((words, mine, own))
        first = own.argmax(1)
        same = all(np.array_equal(a, b) for a, b in zip(outputs[0], outputs[-1], strict=True))
        row: Row = {"network": name, "backend": backend, "images": len(x), "first_signs": bits.size}
        row |= {
            "first_signs_off": int((bits != signs).sum()),
            "scores_off": int((own != scores).any(1).sum()),
            "labels_off": int((mine != labels).sum()),
            "first_signs_off_float64": int((bits != true_signs).sum()),
            "labels_off_float64": int((first != true_labels).sum()),
            "same_as_others": same,
            "accuracy": float((mine == truth).mean()),
        }
        found.append(row)
    return found


@torch.inference_mode()
def of_torch(networks: list[nn.Module], x: Tensor) -> tuple[Any, Any, Any]:
    """Signs behind the first layer and scores of the first network, labels of all."""
    signs, scores = [], []
    for part in x.split(AT_ONCE):
        with_signs, own = signs_and_scores(networks[0], part)
        signs.append(with_signs)
        scores.append([own, *(other(part) for other in networks[1:])])
    outs = [torch.cat(each) for each in zip(*scores, strict=True)]
    votes = (
        outs[0] if len(outs) == 1 else torch.stack([o.double().softmax(1) for o in outs]).mean(0)
    )
    return torch.cat(signs).numpy(), outs[0].numpy(), votes.argmax(1).numpy()


def signs_and_scores(network: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Signs behind the first layer, as bits with their channels last, and scores."""
    seen: list[Tensor] = []
    if hasattr(network, "layers"):
        first = network.layers()[0]
    else:  # what makes signs of the second layer's inputs
        first = next(m.activation for m in network.modules() if getattr(m, "activation", None))
    hook = first.register_forward_hook(lambda _, __, out: seen.append(out))
    try:
        scores = network(x)
    finally:
        hook.remove()
    out = seen[0]
    return (out.permute(0, 2, 3, 1) if out.ndim == 4 else out) > 0, scores
