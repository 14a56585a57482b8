"""The command `pbnn`: certify, verify, predict with, and time a packed network."""

from __future__ import annotations

import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pbnn.certificates import Budget
from pbnn.data import Splits, Task, cut, load
from pbnn.files import write_atomic
from pbnn.packed import (
    BACKENDS,
    PackedNetwork,
    available,
    certify,
    error_on_test,
    verify,
)
from pbnn.packed import load as load_packed
from pbnn.packed import save as save_packed

if TYPE_CHECKING:
    from pbnn.networks import BLRNet

Backend = Literal["auto", "numba", "int8", "float32"]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    data_dir: Path | None = None
    """Folder with mnist/…; by default $PBNN_DATA, then the cache, then a download."""
    offline: bool = False
    """Do not try to download."""
    backend: Backend = "auto"
    """All have the same results; auto is the fastest that is there."""
    threads: int = 1
    """Of the back end numba."""

    def task(self, name: str) -> Task:
        """The data set by its name."""
        return load(name, self.data_dir, offline=self.offline)

    @property
    def how(self) -> dict[str, Any]:
        """How a packed network runs."""
        return {"backend": self.backend, "threads": self.threads}


@dataclass(frozen=True, kw_only=True)
class CertifyCommand(Common):
    """Draw or take a network of a posterior, pack it, certify exactly its bits, write one file.

    The certificate bounds the risk of that file's own predictions: those of one network that is
    drawn (the disintegrated bound), of the most probable network (by the length of its code), or of
    a vote of networks that are drawn (their log-ratios add up). With --fixed nothing is paid: then
    the network must be made of the prior split alone, which is your word. What else is yours: the
    checkpoint's prior must not depend on the certification split.
    """

    model: Path
    """A checkpoint of a BLRNet (`pbnn.training.save_checkpoint`), or a packed file with --fixed."""
    data: str = "mnist"
    """A data set by its name; also those that `pbnn.data.load` makes of files it knows."""
    out: Path = Path("network.pbnn")
    """The file to write."""
    predictor: Literal["draw", "mode", "vote"] = "draw"
    """What of a posterior is deployed."""
    members: int = 16
    """Networks of a vote."""
    fixed: bool = False
    """The network, posterior and all, was made of the prior split alone."""
    prior: str = "as in the checkpoint"
    """What the prior is and on which data it was chosen: it stands in the certificate."""
    delta: float = 0.05
    """Probability that the certificate fails."""
    seeds: int = 1
    """Certificates that are averaged: δ is shared among them."""
    choices: int = 1
    """Priors or networks that this one was chosen among with the data in sight: δ is shared."""
    prior_share: float = 0.5
    """Share of the training examples in the prior split."""
    feature_examples: int = 0
    """Examples in the feature split."""
    split_seed: int = 42
    """Fixes the splits."""
    seed: int = 0
    """Of the draws; fixed before anything is looked at."""
    statistics_of: int = 2000
    """Examples of the prior split, or else of the feature split, for batch normalisation."""

    def run(self) -> int:
        """Write the file; 0, or 1 if what was written does not hold."""
        task = self.task(self.data)
        made = {"prior": self.prior_share, "feature": self.feature_examples}
        data = {"task": self.data, **made, "seed": self.split_seed}
        splits = splits_of(task, data)
        prices: dict[str, Any] = {"fixed": True}
        if is_packed(self.model):
            if not self.fixed:
                raise ValueError("`model` must be a checkpoint, or --fixed, got a packed file.")
            packed = load_packed(self.model)
        else:
            packed, prices = self.packed_of(task, splits)
        budget = Budget(self.delta, self.seeds, self.choices, "deployed")
        packed = certify(packed, task, splits, budget, self.prior, self.seed, **prices, **self.how)
        packed = dataclasses.replace(packed, data=data)
        save_packed(self.out, packed)
        print(f"{self.out}: {self.out.stat().st_size} bytes, {shape_of(packed)}")
        checks = verify(load_packed(self.out), task, splits, **self.how)
        told = show(checks)
        print(f"error on {len(splits.test)} test examples: {self.tested(packed, task, splits):.4f}")
        return told

    def tested(self, packed: PackedNetwork, task: Task, splits: Splits) -> float:
        """Error of the same predictor on the test split."""
        return error_on_test(packed, task, splits, **self.how)

    def packed_of(self, task: Task, splits: Splits) -> tuple[PackedNetwork, dict[str, Any]]:
        """The packed network of a checkpoint, and what is paid for it."""
        import torch

        from pbnn.packed import deployed, pack, price
        from pbnn.seeding import generator

        network = checkpoint_of(self.model)
        hashes = splits.hashes(task)
        part = "prior" if len(splits.prior) else "feature"
        few = getattr(splits, part)[: self.statistics_of]
        if network.config["batch_norm"] and len(few) < 2:
            raise ValueError(
                "`prior_share` or `feature_examples` must leave examples for the statistics of "
                f"batch normalisation, got {len(few)}."
            )
        networks = deployed(
            network,
            self.predictor,
            torch.from_numpy(task.x[few]),
            hashes[part],
            generator(self.seed, "deployed"),
            members=self.members,
        )
        packed = pack(networks, **bytes_of(task.x))
        if self.fixed:
            return packed, {"fixed": True}
        if self.predictor == "mode":
            return packed, {"nats": price(network, packed, "occam")}
        return packed, {"log_ratio": price(network, packed, "rivasplata")}


@dataclass(frozen=True, kw_only=True)
class VerifyCommand(Common):
    """Say what a packed file claims, and whether it holds; exits with 1 if anything disagrees.

    Without data: the seal, the arithmetic of the bound in interval arithmetic, that it is of these
    very bits and of this kind of predictor. With --data the certification split and the errors on
    it are counted again; with --posterior the price is computed again.
    """

    file: Path
    """Written by `pbnn certify` or `pbnn.packed.save`."""
    data: str | None = None
    """The data set it names, to look at it again."""
    posterior: Path | None = None
    """The checkpoint it was made of, to compute its price again."""

    def run(self) -> int:
        """0 if all that was looked at holds."""
        packed = load_packed(self.file)
        print(f"{self.file}: {shape_of(packed)}, sealed")
        more: dict[str, Any] = {}
        if self.data is not None:
            task = self.task(self.data)
            made = packed.data or {}
            if made.get("task") != self.data:
                raise ValueError(f"`data` must be {made.get('task')!r}, got {self.data!r}.")
            more |= {"task": task, "splits": splits_of(task, made)}
        if self.posterior is not None:
            from pbnn.packed import price

            theorem = (packed.certificate or {}).get("theorem", "")
            more["price"] = price(checkpoint_of(self.posterior), packed, theorem)
        checks = verify(packed, **more, **self.how)
        told = show(checks)
        if self.data is not None:
            error = error_on_test(packed, more["task"], more["splits"], **self.how)
            print(f"error on {len(more['splits'].test)} test examples: {error:.4f}")
        if not told:
            left = [] if self.data else ["the data (--data)"]
            priced = (packed.certificate or {}).get("kl") and not self.posterior
            left += ["the price (--posterior)"] if priced else []
            print(f"holds{', as far as looked at: not ' + ', '.join(left) if left else ''}")
        return told


@dataclass(frozen=True, kw_only=True)
class PredictCommand(Common):
    """Predict with a packed file, into a CSV file of row, label and, where known, the true one."""

    file: Path
    """A packed network."""
    data: str | None = None
    """A data set by its name,"""
    part: Literal["test", "all"] = "test"
    """its published test examples (or a quarter), or all of it;"""
    input: Path | None = None
    """or a NumPy file (.npy) of inputs."""
    out: Path | None = None
    """The CSV file; by default labels are printed."""
    anytime: float | None = None
    """Of a vote: stop each example once a decision of all members is foreseen, wrongly at most
    with this probability (`pbnn.packed.anytime`)."""

    def run(self) -> int:
        """Write or print the labels."""
        packed = load_packed(self.file)
        x, truth = self.inputs(packed)
        columns: dict[str, Any] = {"row": np.arange(len(x))}
        began = time.perf_counter()
        if self.anytime is None:
            columns["label"] = packed.predict(x, **self.how)
        else:
            from pbnn.packed import anytime

            answer = anytime(packed, x, alpha=self.anytime, **self.how)
            columns |= {"label": answer.prediction.numpy(), "members": answer.members.numpy()}
        seconds = time.perf_counter() - began
        if columns["label"].ndim != 1:
            raise ValueError("`file` must have one label an input, got a network of many places.")
        if truth is not None:
            columns["truth"] = truth.astype(np.int64)
        lines = [",".join(columns)]
        lines += [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        if self.out is None:
            print("\n".join(lines))
        else:
            write_atomic(self.out, "\n".join(lines) + "\n")
            print(f"{self.out}: {len(x)} labels in {seconds:.3g} s")
            if truth is not None:
                print(f"error: {np.mean(columns['label'] != columns['truth']):.4f}")
        return 0

    def inputs(self, packed: PackedNetwork) -> tuple[Any, Any]:
        """Inputs, and their labels where they are known."""
        if (self.data is None) == (self.input is None):
            raise ValueError("`data` or `input` must be given, and not both.")
        if self.input is not None:
            try:
                return np.load(self.input, allow_pickle=False), None
            except (ValueError, EOFError) as error:
                raise ValueError(f"{self.input} is no NumPy file of numbers: {error}") from error
        assert self.data is not None
        task = self.task(self.data)
        rows = np.arange(len(task.y))
        if self.part == "test":
            rows = splits_of(task, packed.data or {}).test
        return task.x[rows], task.y[rows]


@dataclass(frozen=True, kw_only=True)
class BenchCommand(Common):
    """Time a packed file on this machine, with each back end that is there."""

    file: Path
    """A packed network."""
    batches: tuple[int, ...] = (1, 32, 1000)
    """Inputs at once."""
    seconds: float = 0.5
    """To repeat each, at least three times; the median counts."""

    def run(self) -> int:
        """Print a table."""
        packed = load_packed(self.file)
        sizes = packed.sizes()
        print(f"{self.file}: {shape_of(packed)}, weights of {sizes['weights']} bytes")
        print(f"{'batch':>7} {'backend':>8} {'ms':>10} {'inputs/s':>12}")
        draw = np.random.default_rng(0)
        for batch in self.batches:
            shape = (batch, *packed.preprocessing.image)
            x = draw.integers(0, 256, shape).astype(np.uint8)
            for backend in BACKENDS:
                if backend in available():
                    median = timed(packed, x, backend, self.threads, self.seconds)
                    each = f"{1e3 * median:10.3f} {batch / median:12.0f}"
                    print(f"{batch:7d} {backend:>8} {each}", flush=True)
        return 0


COMMANDS: dict[str, Any] = {
    "certify": CertifyCommand,
    "verify": VerifyCommand,
    "predict": PredictCommand,
    "bench": BenchCommand,
}
"""What `pbnn` can be asked, by name."""


def main() -> None:
    """Run the command line; errors that the user can mend are told without a traceback."""
    import tyro

    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="pbnn", description=__doc__, config=(tyro.conf.PositionalRequiredArgs,)
    )
    try:
        code = command.run()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("\nInterrupted: nothing was written.", file=sys.stderr)
        code = 130
    raise SystemExit(code)


def splits_of(task: Task, made: dict[str, Any]) -> Splits:
    """The splits of a data set as a file says they are made."""
    known = {name: made[name] for name in ("prior", "feature", "seed") if name in made}
    return cut(task, **known)


def is_packed(path: Path) -> bool:
    """Whether a file calls itself a packed network."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file.")
    with path.open("rb") as stream:
        return b"packed network" in stream.read(2**20)


def checkpoint_of(path: Path) -> BLRNet:
    """The posterior in a checkpoint."""
    from pbnn.networks import BLRNet
    from pbnn.training import load_checkpoint

    network = load_checkpoint(path)
    if not isinstance(network, BLRNet):
        got = type(network).__name__
        raise ValueError(f"`model` must be the checkpoint of a BLRNet, got that of a {got}.")
    return network


def bytes_of(x: Any) -> dict[str, Any]:
    """How `pack` reads inputs: as bytes times 1/255 or 1/16, or as numbers where they are none."""
    for levels in (255, 16):
        if np.array_equal(x, (np.rint(x * levels) / levels).astype(x.dtype)) and x.min() >= 0:
            return {"input": "uint8", "scale": 1 / levels}
    return {"input": "real"}


def shape_of(packed: PackedNetwork) -> str:
    """What a file holds, in a few words."""
    widths = "-".join(str(layer.geometry.width) for layer in packed.members[0])
    image = "x".join(map(str, packed.preprocessing.image))
    several = (
        f"a vote of {len(packed.members)} networks" if len(packed.members) > 1 else "a network"
    )
    return f"{several} of {image} to {widths}"


def show(checks: list[Any]) -> int:
    """Print what was looked at; 1 if anything does not hold."""
    for check in checks:
        print(f"{'ok    ' if check.holds else 'FAILED'} {check.what}: {check.told}")
    return int(not all(check.holds for check in checks))


def timed(packed: PackedNetwork, x: Any, backend: str, threads: int, seconds: float) -> float:
    """Median time of the scores in seconds."""
    packed.scores(x, backend=backend, threads=threads)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        packed.scores(x, backend=backend, threads=threads)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


if __name__ == "__main__":
    main()
