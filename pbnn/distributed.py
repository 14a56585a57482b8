"""One big model on several processes, started by torchrun: training, checkpoints, drawn risks."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from pbnn.class_risks import fresh_networks, risks_of_draws
from pbnn.evaluation import Risks
from pbnn.files import write_atomic
from pbnn.networks import BLRNet, fingerprint
from pbnn.objectives import Objective, check_classes
from pbnn.representation import CMIM
from pbnn.resuming import generators_of, restore_run, run_bytes, state_of
from pbnn.seeding import spawn_seed
from pbnn.shards import PointDraws, Shards, average_gradients, check_parts, place
from pbnn.training import Augmentation, FitConfig, Hooks, Run, fit


class Processes(NamedTuple):
    """Which process this is, of how many, and the device that it computes on."""

    rank: int
    count: int  # type: ignore[assignment]
    device: torch.device


@contextlib.contextmanager
def processes(timeout: float = 600.0, backend: str | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun has started; without torchrun, be the only one.

    torchrun ends all processes once one has failed. Without it, one that fails leaves and so closes
    its connections, and the others fail with the next thing that they share; where nothing closes,
    as when a process hangs or a host is gone, they do after `timeout`.

    Parameters
    ----------
    timeout : float
        Seconds that a process waits for another one.
    backend : str, optional
        Of `torch.distributed`: by default gloo, and nccl for tensors on a GPU if there is one.

    Examples
    --------
    >>> with processes() as here:
    ...     here.rank, here.count
    (0, 1)
    """
    if not timeout > 0:
        raise ValueError(f"`timeout` must be a positive number of seconds, got {timeout}.")
    device, kinds = torch.device("cpu"), "gloo"
    if torch.cuda.is_available():
        device, kinds = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))), NCCL
        torch.cuda.set_device(device)
    joins = "WORLD_SIZE" in os.environ and not (dist.is_available() and dist.is_initialized())
    if joins:
        dist.init_process_group(backend or kinds, timeout=timedelta(seconds=timeout))
    try:
        yield Processes(*place(), device)
    finally:
        if joins:
            dist.destroy_process_group()


NCCL = "cpu:gloo,cuda:nccl"


def fit_sharded(
    objective: Objective,
    x: Tensor,
    y: Tensor,
    config: FitConfig,
    *,
    generator: Generator,
    checkpoint: str | os.PathLike[str] | None = None,
    augment: Augmentation | None = None,
    after_step: Callable[[float], None] | None = None,
    after_epoch: Callable[[int], None] | None = None,
    progress: str | None = None,
) -> list[dict[str, float]]:
    """`pbnn.training.fit` by all processes together: the same up to rounding as by a single one.

    Each process calls it with the same arguments and computes its part of every batch
    (`pbnn.shards`). Parameters, buffers and states of generators are taken from process 0. Alone,
    it is `fit`, bit for bit.

    What is drawn once for a batch (the weights of `activation="sample"` and `StochasticWeights`,
    views and turns of images) is the same in all processes and as in one. What is drawn for each
    point in a pass ("concrete", sampled maxima, `SampledPBGNet`) comes from generators of each
    process and epoch: independent, of the same law as in one process, and the same again with as
    many processes.

    Parameters
    ----------
    objective, x, y, config, generator
        Those of `fit`: all points, not a part of them. The loss must look at points through calls
        of `objective.network` alone.
    checkpoint : path, optional
        A file that process 0 rewrites after each epoch, and from which a training goes on that was
        cut off: bit for bit, with as many processes. It holds parameters, buffers, the optimiser,
        the curve, and generators that are attributes of modules; no other state of an objective or
        of a callback.
    augment, after_step, after_epoch : callable, optional
        Those of `fit`, called in all processes; they compute as they would without processes.
    progress : str, optional
        Shown by process 0.

    Returns
    -------
    list of dict
        The same in all processes.

    Raises
    ------
    ValueError
        If the processes were given different arguments, the objective cannot be computed in parts
        (dropout, running statistics of instances, `CMIM`, an unknown generator, compilation), or
        the checkpoint is of another training.
    RuntimeError
        If states are not equal in all processes after an epoch: a module looks at its batch as a
        whole and is not known here, or their hardware rounds differently.

    Examples
    --------
    >>> from pbnn.networks import PBGNet
    >>> from pbnn.objectives import BoundObjective
    >>> make = torch.Generator().manual_seed(0)
    >>> x = torch.randn(40, 3, generator=make)
    >>> objective = BoundObjective(PBGNet(3, (2,), generator=make), n=40, delta=0.05)
    >>> y = torch.where(x[:, 0] > 0, 1.0, -1.0)
    >>> curve = fit_sharded(objective, x, y, FitConfig(epochs=2, batch=20), generator=make)
    >>> [row["epoch"] for row in curve]
    [0.0, 1.0]
    """
    rank, count = place()
    draws = PointDraws(objective.network)
    points = ""
    if count > 1 or checkpoint is not None:
        points = _digest([x, y])
    if count > 1:
        _check_shardable(objective, config)
        parts = [(name, *part.shape) for name, part in state_of(objective).items()]
        _agree(f"{points} {config}", "`x`, `y` and `config`")
        _agree(f"{parts} {checkpoint is None}", "the parts of `objective` and `checkpoint`")
        _follow_first(objective, generator)
        draws.draw_root()
    shards = Shards(objective.network, draws)
    hooks = _Sharing(objective, config, shards, checkpoint, points)

    def alone(call: Any) -> Any:
        return call and functools.partial(shards.without, call)

    with shards:
        curve = fit(
            objective,
            x,
            y,
            config,
            generator=generator,
            augment=alone(augment),
            after_step=alone(after_step),
            after_epoch=alone(after_epoch),
            progress=None if rank else progress,
            hooks=hooks,
        )
    hooks.compare("at the end")
    return curve


class _Sharing(Hooks):
    """What `fit` does besides: it averages gradients, compares states, keeps a file."""

    def __init__(
        self,
        objective: Objective,
        config: FitConfig,
        shards: Shards,
        checkpoint: str | os.PathLike[str] | None,
        points: str,
    ) -> None:
        self.objective, self.config, self.shards, self.points = objective, config, shards, points
        self.path = None if checkpoint is None else Path(checkpoint)

    def start(self, run: Run) -> None:
        """Go on from the file, if process 0 finds one."""
        if self.path is not None and (content := _content_of_first(self.path)):
            where = str(self.path)
            more = restore_run(
                content, where, self.objective, run, self.config, self.points, names=["root"]
            )
            self.shards.draws.root = more["root"]
        self.shards.draws.start(len(run.curve))

    def differentiated(self) -> None:
        """Average the gradients."""
        if self.shards.count > 1:
            average_gradients(self.objective)

    def epoch(self, run: Run) -> None:
        """Compare the states and write the file."""
        self.compare(f"after epoch {len(run.curve)}")
        if self.path is not None and self.shards.rank == 0:
            more = {"root": self.shards.draws.root}
            content = run_bytes(self.objective, run, self.config, self.points, more)
            write_atomic(self.path, content)
        self.shards.draws.start(len(run.curve))

    def compare(self, when: str) -> None:
        """Refuse states that have gone different ways."""
        if self.shards.count > 1:
            mine = _digest(state_of(self.objective).values())
            if others := _others(mine):
                raise RuntimeError(
                    f"States must be equal in all processes {when}, got others in {others} than in "
                    "process 0: a module may look at its batch as a whole, or hardware differ."
                )


def _check_shardable(objective: Objective, config: FitConfig) -> None:
    """Refuse what would not be the same in parts."""
    if config.compile:
        raise ValueError("`compile` must be False with several processes, got True.")
    if any(isinstance(part, CMIM) for part in objective.modules()):
        raise ValueError("`objective` must not look into the network with several processes: CMIM.")
    check_parts(objective.network)


def _follow_first(objective: Objective, generator: Generator) -> None:
    """Give all processes the parameters, buffers and states of generators of process 0."""
    for value in state_of(objective).values():
        first = value.contiguous()
        dist.broadcast(first, 0)
        value.copy_(first)
    for source in [generator, *generators_of(objective).values()]:
        source.set_state(_of_first(source.get_state()))


def _content_of_first(path: Path) -> bytes:
    """Of a file, as process 0 reads it; empty if there is none."""
    rank, count = place()
    content = path.read_bytes() if rank == 0 and path.exists() else b""
    if count == 1:
        return content
    size = _of_first(torch.tensor([len(content)]))
    mine = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else None
    if mine is None:
        mine = torch.empty(int(size), dtype=torch.uint8)
    return bytes(_of_first(mine).numpy()) if len(mine) else b""


def _of_first(value: Tensor) -> Tensor:
    """A tensor on the CPU as process 0 has it; of one shape in all."""
    sent = value.to(_wire(), copy=True)
    dist.broadcast(sent, 0)
    return sent.cpu()


def _others(mine: str) -> list[int]:
    """The processes that have another hash than process 0."""
    sent = torch.frombuffer(bytearray.fromhex(mine), dtype=torch.uint8).to(_wire())
    found = [torch.empty_like(sent) for _ in range(place()[1])]
    dist.all_gather(found, sent)
    return [rank for rank, other in enumerate(found) if not torch.equal(other, found[0])]


def _agree(mine: str, what: str) -> None:
    """Refuse what is not the same in all processes, in all of them."""
    if others := _others(hashlib.sha256(mine.encode()).hexdigest()):
        raise ValueError(f"{what} must be those of process 0 in all, got others in {others}.")


def _wire() -> str:
    """Where small tensors are sent from."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def _digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of shapes, types and content."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


@torch.no_grad()
def sharded_drawn_risks(
    network: BLRNet, x: Tensor, y: Tensor, *, group: int, passes: int, seed: int
) -> Risks:
    """`pbnn.class_risks.drawn_risks` by all processes together: the same for any number of them.

    The network that a group of points meets in a pass is drawn by a generator of its own, whose
    seed is made of `seed`, the pass and the number of the group (`draw_seed`).

    Parameters
    ----------
    network, x, y, group, passes
        Those of `drawn_risks`: all points, the same in every process.
    seed : int
        Fixed before looking.

    Returns
    -------
    Risks
        Of all points, in every process.

    Raises
    ------
    ValueError
        If the processes were given different arguments.
    """
    check_classes(x, y)
    for name, value in (("group", group), ("passes", passes)):
        if value < 1:
            raise ValueError(f"`{name}` must be a positive integer, got {value}.")
    n, (rank, count) = len(y), place()
    group = min(group, n)
    groups = -(-n // group)
    if count > 1:
        given = f"{fingerprint(network)} {_digest([x, y])} {group} {passes} {seed}"
        _agree(given, "`network`, `x`, `y`, `group`, `passes` and `seed`")
    generator = Generator(x.device)
    drawn = fresh_networks(network, generator)
    wrong = torch.zeros(passes, n, dtype=torch.uint8, device=x.device)
    for number in range(rank, passes * groups, count):
        generator.manual_seed(draw_seed(seed, number))
        once, first = divmod(number, groups)
        part = slice(first * group, (first + 1) * group)
        wrong[once, part] = next(drawn)(x[part]).argmax(1) != y[part]
    if count > 1:
        dist.all_reduce(wrong)
    return risks_of_draws(network, wrong.bool(), group)


def draw_seed(seed: int, number: int) -> int:
    """The seed of one of 2³² draws; no two have the same.

    A hash of the number would not do: of a seed torch's generator on a CPU looks at 32 bits, and
    among a hundred thousand hashes two are likely to share them.

    Examples
    --------
    >>> len({draw_seed(0, number) for number in range(1000)})
    1000
    """
    if not 0 <= number < 2**32:
        raise ValueError(f"`number` must lie in [0, 2³²), got {number}.")
    start, factor = (spawn_seed(seed, "drawn networks", part) for part in ("start", "factor"))
    return (start + (2 * factor + 1) * number) % 2**32  # an odd factor leaves none out
