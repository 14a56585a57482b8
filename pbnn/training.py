"""The fit loop: the whole data set on the device, seeds, progress, early stop, checkpoints."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pbnn.baselines import MLP, RealNet
from pbnn.chunks import Chunks
from pbnn.files import check_schema_version, strict_json, write_atomic
from pbnn.layers import StochasticBatchNorm, statistics_splits
from pbnn.memory import fitting
from pbnn.networks import ABNet, BLRNet, PBGNet, SignNetwork
from pbnn.networks.architecture import parse
from pbnn.networks.blrnet import weight_shapes
from pbnn.networks.checks import is_real, is_whole
from pbnn.objectives import Objective

SCHEMA_VERSION = 1
"""Of checkpoints."""

Network = SignNetwork | BLRNet | MLP | RealNet
NETWORKS: dict[str, Callable[..., Network]] = {
    network.__name__: network for network in (PBGNet, ABNet, BLRNet, MLP, RealNet)
}
"""Network by the name a checkpoint gives."""

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""Turns the images of an epoch into new ones, drawing from the generator."""


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
}
"""By name; the cycle of the learning rate moves a momentum against it."""


@dataclass(frozen=True)
class FitConfig:
    """How to train: on a one-cycle learning rate.

    Parameters
    ----------
    epochs, batch : int
    learning_rate : float
        Peak of the cycle, reached after a tenth of the steps.
    kl_warmup : float
        Share of the steps in which the weight of the KL rises from 0 to 1; moves the posterior
        only, so it costs no confidence.
    patience : int
        Epochs without a better training objective after which to stop; 0 never stops, which suits
        a cycle that improves most at its end. The objective is the only thing looked at, never a
        validation or test figure.
    compile : bool
        Compile the objective with `torch.compile`.
    optimiser : {"adam", "sgd"}
        Adam, or stochastic gradient descent with momentum.
    weight_decay : float
        The optimiser's.
    keep : {"best", "last"}
        The better of the best epoch and the last one, which takes two more passes over the points,
        or the last one as it is.
    frozen_from : float
        Share of the steps after which torch's batch normalisations keep their running statistics,
        so that a network ends its training as it will be used. Signs of sums of few signs need it:
        a mean that is a little off flips all units that sit on its level.
    """

    epochs: int = 40
    batch: int = 256
    learning_rate: float = 0.1
    kl_warmup: float = 0.0
    patience: int = 0
    compile: bool = False
    optimiser: str = "adam"
    weight_decay: float = 0.0
    keep: str = "best"
    frozen_from: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if not is_whole(getattr(self, name), 1):
                raise ValueError(f"`{name}` must be a positive integer, got {getattr(self, name)}.")
        if not is_real(self.learning_rate, math.ulp(0.0)):
            raise ValueError(f"`learning_rate` must be positive, got {self.learning_rate}.")
        for name in ("kl_warmup", "frozen_from"):
            if not is_real(getattr(self, name), 0, 1):
                raise ValueError(f"`{name}` must lie in [0, 1], got {getattr(self, name)}.")
        for name, sound in (
            ("patience", is_whole(self.patience, 0)),
            ("weight_decay", is_real(self.weight_decay, 0)),
        ):
            if not sound:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}.")
        if not isinstance(self.compile, bool):
            raise ValueError(f"`compile` must be True or False, got {self.compile!r}.")
        for name, known in (("optimiser", tuple(OPTIMISERS)), ("keep", ("best", "last"))):
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be one of {known}, got {getattr(self, name)!r}.")


@dataclass
class Run:
    """Where `fit` is between two epochs: what a later one depends on, besides the objective."""

    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    curve: list[dict[str, float]]
    best: float
    best_state: dict[str, Tensor]
    waited_from: int


class Hooks:
    """What else is done on the way of `fit`: nothing here (see `pbnn.distributed`)."""

    def start(self, run: Run) -> None:
        """Before the first epoch; `run` and the objective may be made those of another `fit`."""

    def differentiated(self) -> None:
        """After each backward pass, before the step."""

    def epoch(self, run: Run) -> None:
        """After each epoch."""


def fit(
    objective: Objective,
    x: Tensor,
    y: Tensor,
    config: FitConfig,
    *,
    generator: torch.Generator,
    augment: Augmentation | None = None,
    after_step: Callable[[float], None] | None = None,
    after_epoch: Callable[[int], None] | None = None,
    progress: str | None = None,
    hooks: Hooks | None = None,
) -> list[dict[str, float]]:
    """Train until the epochs are over or the objective has stopped falling; keep the best state.

    Selection looks at the training objective alone: for a bound, which holds for every posterior
    at once, keeping the best epoch is free. Set `torch.set_num_threads(1)` on a busy machine, where
    threads that wait for each other can be many times slower than one.

    Parameters
    ----------
    objective : module
        `BoundObjective` or `RiskObjective`; its parameters are changed in place.
    x, y : Tensor
        The points to train on, already on the device of the parameters.
    config : FitConfig
    generator : torch.Generator
        A CPU generator for the order of the points and the augmentation.
    augment : callable, optional
        Makes each epoch's images from `x`.
    after_step : callable, optional
        Called after each step with the share of the training that is done, as for the latent
        weights and the schedules of `pbnn.binarize`.
    after_epoch : callable, optional
        Called after each epoch with its number, from 1.
    progress : str, optional
        Label of a progress bar; none is shown without.
    hooks : Hooks, optional

    Returns
    -------
    list of dict
        One row an epoch: epoch, objective, risk, and for a bound kl and C.

    Raises
    ------
    ValueError
        Among others for a batch that does not fit into memory, with one that does.

    Warns
    -----
    UserWarning
        If a step fits in chunks of its batch only (`pbnn.memory.fitting`), which changes nothing in
        it but its rounding and its time.
    """
    objective.check(x, y)
    chunks = _chunks(objective, x, y, config)
    hooks = hooks or Hooks()
    sizes = batch_sizes(len(x), config.batch)
    steps = config.epochs * len(sizes)
    optimiser = OPTIMISERS[config.optimiser](
        objective.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    # A tenth of ten steps would put the peak on the first step, where OneCycleLR divides by zero.
    rise = 0.2 if steps == 10 else 0.1
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=steps, pct_start=rise
    )
    norms = [m for m in objective.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    batch_loss: Any = torch.compile(objective) if config.compile else objective

    def minimise(points: Tensor, epoch: int) -> float:
        """One pass over the points; returns its mean risk, the epoch's only synchronisation.

        A risk that is a number does not say that the loss was one: NaN then.
        """
        total = torch.zeros(2, dtype=torch.float64, device=x.device)
        order = torch.randperm(len(x), generator=generator).to(x.device).split(sizes)
        for step, index in enumerate(order, start=epoch * len(order) + 1):
            weight = kl_weight(step / steps, config.kl_warmup)
            if step > config.frozen_from * steps:
                for norm in norms:
                    norm.eval()
            objective.meet(index)
            with chunks:
                loss, risk = batch_loss(points[index], y[index], weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            hooks.differentiated()
            optimiser.step()
            schedule.step()
            if after_step is not None:
                after_step(step / steps)
            total += torch.stack([risk.double(), loss.detach().double()]) * len(index)
        mean_risk, mean_loss = (total / len(x)).tolist()
        return mean_risk if math.isfinite(mean_loss) else math.nan

    run = Run(optimiser, schedule, generator, [], math.inf, snapshot(objective), 0)
    hooks.start(run)
    objective.train()
    with ProgressBar(config.epochs, progress) as bar:
        for epoch in range(len(run.curve), config.epochs):
            if config.patience and epoch - 1 - run.waited_from >= config.patience:
                break
            risk = minimise(x if augment is None else augment(x, generator), epoch)
            row = {"epoch": float(epoch), **objective.value(risk)}
            check_finite(row, config)
            run.curve.append(row)
            bar.show(row)
            if after_epoch is not None:
                after_epoch(epoch + 1)
                objective.train()
            if row["objective"] < run.best:
                run.best, run.waited_from = row["objective"], epoch
                run.best_state = snapshot(objective) if config.keep == "best" else run.best_state
            # While the KL's weight still rises the bound may well rise too: do not count that.
            if kl_weight((epoch + 1) / config.epochs, config.kl_warmup) < 1:
                run.waited_from = epoch
            hooks.epoch(run)
    if config.keep == "best":
        with chunks:
            keep_better(objective, run.best_state, x, y, config.batch)
    objective.eval()
    return run.curve


def _chunks(objective: Objective, x: Tensor, y: Tensor, config: FitConfig) -> Chunks:
    """How to compute the steps so that they fit into memory."""
    return fitting(
        objective,
        x,
        y,
        config.batch,
        config.optimiser,
        frozen=config.frozen_from == 0,
        chunked=not config.compile,
    )


@torch.no_grad()
def keep_better(
    objective: Objective, best: dict[str, Tensor], x: Tensor, y: Tensor, batch: int
) -> None:
    """Of the current state and the best epoch's, keep the better one on all points.

    The mean risk of an epoch belongs to the states on its way and the KL to its end, so the epoch's
    objective flatters it while the KL falls and the risk rises.
    """
    last = snapshot(objective)
    at_the_end = objective_on(objective, x, y, batch)
    objective.load_state_dict(best)
    if at_the_end <= objective_on(objective, x, y, batch):
        objective.load_state_dict(last)


@torch.no_grad()
def objective_on(objective: Objective, x: Tensor, y: Tensor, batch: int) -> float:
    """The figure that epochs are selected on, of the current state on all points.

    In evaluation mode, in which the objective is left.
    """
    objective.eval()
    parts = zip(x.split(batch), y.split(batch), strict=True)
    risks = torch.stack([objective(a, b)[1].double() * len(a) for a, b in parts])
    return objective.value(risks.sum().item() / len(x))["objective"]


def fit_best_of(
    restarts: int,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    config: FitConfig,
    *,
    generator: torch.Generator,
    progress: str | None = None,
) -> list[dict[str, float]]:
    """Fit from several starting points of the posterior and keep the least training bound.

    The prior is one fixed draw and stays; only the posterior's start is redrawn, so the choice
    among restarts is a choice among posteriors and costs no confidence.
    """
    if restarts < 1:
        raise ValueError(f"`restarts` must be a positive integer, got {restarts}.")
    start = snapshot(objective)
    best_curve: list[dict[str, float]] = []
    best, best_state = math.inf, start
    for attempt in range(restarts):
        objective.load_state_dict(start)
        if attempt:
            cast(SignNetwork, objective.network).restart(generator)
        curve = fit(objective, x, y, config, generator=generator, progress=progress)
        with _chunks(objective, x, y, config):
            least = objective_on(objective, x, y, config.batch)
        if least < best:
            best, best_state, best_curve = least, snapshot(objective), curve
    objective.load_state_dict(best_state)
    return best_curve


def batch_sizes(n: int, batch: int) -> list[int]:
    """Points of each batch of an epoch; one left over joins the last batch.

    A batch of a single point has no variance to normalise by.

    Examples
    --------
    >>> batch_sizes(10, 4), batch_sizes(9, 4), batch_sizes(1, 4)
    ([4, 4, 2], [4, 5], [1])
    """
    sizes = [min(batch, n - start) for start in range(0, n, batch)]
    if len(sizes) > 1 and sizes[-1] == 1 < batch:
        sizes[-2:] = [sizes[-2] + 1]
    return sizes


def kl_weight(share: float, warmup: float) -> float:
    """Weight of the KL after a share of the training: a ramp from 0 to 1 over `warmup`.

    Examples
    --------
    >>> kl_weight(0.25, 0.5), kl_weight(0.75, 0.5), kl_weight(0.1, 0.0)
    (0.5, 1.0, 1.0)
    """
    return min(1.0, share / warmup) if warmup else 1.0


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the state that further training leaves alone."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def check_finite(row: dict[str, float], config: FitConfig) -> None:
    """Stop a training that has diverged, saying what to lower."""
    if not math.isfinite(row["objective"]):
        raise FloatingPointError(
            f"The training objective became {row['objective']} in epoch {row['epoch']:.0f}; "
            f"lower `learning_rate` ({config.learning_rate})."
        )


class ProgressBar:
    """A tqdm bar over epochs with bound, risk and KL; silent without a label."""

    def __init__(self, epochs: int, label: str | None) -> None:
        self.bar: Any = None
        if label is not None:
            from tqdm.auto import tqdm

            # disable=None: no bar where nobody sees it move, as in a log.
            self.bar = tqdm(total=epochs, desc=label, unit="epoch", leave=False, disable=None)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, row: dict[str, float]) -> None:
        """Advance by one epoch."""
        if self.bar is not None:
            figures = {"risk": row["risk"]}
            if "kl" in row:
                figures = {"bound": row["objective"], **figures, "kl": row["kl"]}
            self.bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()})
            self.bar.update()


def save_checkpoint(path: str | os.PathLike[str], network: Network) -> None:
    """Write posterior, prior and statistics as safetensors, with the configuration.

    Batch normalisation that is frozen stays so, of the split that it was frozen with.
    """
    write_atomic(path, checkpoint_bytes(network))


def checkpoint_bytes(network: Network) -> bytes:
    """The content of a checkpoint file, for a process that does not write it itself."""
    from safetensors.torch import save

    header = {
        "schema_version": SCHEMA_VERSION,
        "network": type(network).__name__,
        "config": network.config,
    }
    if frozen := _frozen(network):
        header["statistics"] = frozen
    # Not by save_file, which leaves a file that nobody else may read.
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    content: bytes = save(state, metadata={"pbnn": json.dumps(header)})
    return content


def _weights(config: dict[str, Any]) -> int:
    """Weights of a network of this configuration, which may be too many to make it."""
    if "architecture" in config:
        stages = parse(config["architecture"])
        return sum(map(math.prod, weight_shapes(config["image"], stages)))
    sizes = [config["in_features"], *config.get("hidden", ()), 1]
    return sum(one * other for one, other in pairwise(sizes))


def _frozen(network: nn.Module) -> dict[str, str]:
    """The split of each frozen batch normalisation by name, "" if it was changed since."""
    norms = {
        name: part
        for name, part in network.named_modules()
        if isinstance(part, StochasticBatchNorm) and part.frozen
    }
    return {name: next(iter(statistics_splits(part))) or "" for name, part in norms.items()}


def load_checkpoint(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Network:
    """Rebuild a network from `save_checkpoint`, in evaluation mode; nothing is unpickled.

    A network that draws in a pass gets a `source` of seed 0: set it before training goes on.

    Raises
    ------
    ValueError
        Naming the file, if it is damaged, not ours, newer than this code, or does not fit the
        configuration it carries.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    try:
        with safe_open(path, framework="pt") as stored:
            header = strict_json((stored.metadata() or {})["pbnn"])
        # Not by `get_tensor`, which keeps some memory for every tensor for ever (safetensors 0.8).
        tensors = load(Path(path).read_bytes())
        state = {name: value.to(device) for name, value in tensors.items()}
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable pbnn checkpoint: {error}.") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not a pbnn checkpoint: its header is no object, got {header}.")
    check_schema_version(header.get("schema_version"), str(path), "checkpoint", SCHEMA_VERSION)
    if header.get("network") not in sorted(NETWORKS):
        raise ValueError(f"{path}: `network` must be one of {sorted(NETWORKS)}, got {header}.")
    try:
        make: dict[str, Any] = {"generator": torch.Generator(), "device": device}
        floats = (value.dtype for value in state.values() if value.is_floating_point())
        make["dtype"] = next(floats, None)
        if header["network"] == "BLRNet":
            make["source"] = torch.Generator(device).manual_seed(0)
        if _weights(header["config"]) > sum(value.numel() for value in state.values()):
            raise ValueError("`config` speaks of more weights than there are tensors for")
        network = NETWORKS[header["network"]](**header["config"], **make)
        network.load_state_dict(state)
        for name, own in network.state_dict().items():
            # torch converts types, and takes one number in a list for a number.
            if (own.dtype, own.shape) != (state[name].dtype, state[name].shape):
                raise ValueError(f"{name!r} must be {own.dtype}, got {state[name].dtype}")
            if own.isnan().any():
                raise ValueError(f"{name!r} must hold numbers, got NaN")
        for name, split in header.get("statistics", {}).items():
            norm = network.get_submodule(name)
            if not isinstance(norm, StochasticBatchNorm) or not isinstance(split, str):
                raise ValueError(f"`statistics` must be of batch normalisation, got {name!r}")
            norm.freeze(split)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: the tensors do not fit the configuration: {error}.") from error
    return network.eval()
