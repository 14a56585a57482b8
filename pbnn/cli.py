"""The command `pbnn`: certify, verify, predict with, and time a packed network."""

from __future__ import annotations

import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pbnn.certificates import Budget, Certificate
from pbnn.data import DataUnavailable, Splits, Task
from pbnn.files import write_atomic
from pbnn.opening import Common, checkpoint_of, is_json, is_packed, shape_of, show, splits_of
from pbnn.packed import Check, PackedNetwork, available, certify, error_on_test, verify
from pbnn.packed import load as load_packed
from pbnn.packed import save as save_packed
from pbnn.packed.backends import chosen

if TYPE_CHECKING:
    from pbnn.networks import BLRNet


@dataclass(frozen=True, kw_only=True)
class CertifyCommand(Common):
    """Draw or take a network of a posterior, pack it, certify exactly its bits, write one file.

    The certificate bounds the risk of that file's own predictions: those of one network that is
    drawn (the disintegrated bound), of the most probable network (by the length of its code), or of
    a vote of networks that are drawn (their log-ratios add up). With --fixed nothing is paid: then
    the network must be made of the prior split alone, which is your word. What else is yours: the
    checkpoint's prior must not depend on the certification split. Batch normalisation, γ and β
    with it, has no price and must come from the prior split: `freeze_statistics` before
    `save_checkpoint` says so.
    """

    model: Path
    """A checkpoint of a BLRNet (`pbnn.training.save_checkpoint`), or a packed file with --fixed."""
    data: str = "mnist"
    """The name of a data set that `pbnn.data.load` knows; it has no tables of your own."""
    out: Path = Path("network.pbnn")
    """The file to write."""
    predictor: Literal["draw", "mode", "vote"] = "draw"
    """What of a posterior is deployed."""
    members: int = 16
    """Networks of a vote."""
    fixed: bool = False
    """The network, posterior and all, was made of the prior split alone."""
    norms_of_prior: bool = False
    """Vouch that batch normalisation saw the prior split alone, if the checkpoint does not."""
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
    """Seed of the splits."""
    seed: int = 0
    """Seed of the draws, to be fixed before anything is looked at."""
    statistics_of: int = 2000
    """Examples of the prior split, or else of the feature split, for batch normalisation."""

    def run(self) -> int:
        """Write the file; 0, or 1 if what was written does not hold."""
        if self.out.is_dir() or self.out.resolve() == self.model.resolve():
            raise ValueError(f"`out` must be a file of its own, got {self.out}.")
        budget = Budget(self.delta, self.seeds, self.choices, "deployed")
        made = {"prior": self.prior_share, "feature": self.feature_examples}
        data = {"task": self.data, **made, "seed": self.split_seed}
        # What is certified comes before the data, which may be a long download.
        made_before = is_packed(self.model)
        model = self.certified_before(data) if made_before else checkpoint_of(self.model)
        task = self.task(self.data)
        splits = splits_of(task, data)
        prices: dict[str, Any] = {"fixed": True}
        if isinstance(model, PackedNetwork):
            packed = model
        else:
            packed, prices = self.packed_of(model, task, splits)
            data |= {"predictor": self.predictor, "members": self.members}
            data |= {"statistics_of": self.statistics_of}
        packed = certify(packed, task, splits, budget, self.prior, self.seed, **prices, **self.how)
        packed = dataclasses.replace(packed, data=data)
        save_packed(self.out, packed)
        print(f"{self.out}: {self.out.stat().st_size} bytes, {shape_of(packed)}")
        checks = verify(load_packed(self.out), task, splits, **self.how)
        told = show(checks)
        error = error_on_test(packed, task, splits, **self.how)
        print(f"error on {len(splits.test)} test examples: {error:.4f}")
        return told

    def certified_before(self, data: dict[str, Any]) -> PackedNetwork:
        """A packed file that was fixed beforehand, also by its own account."""
        packed = load_packed(self.model)
        if not self.fixed:
            raise ValueError("`model` must be a checkpoint, or --fixed, got a packed file.")
        if self.norms_of_prior:
            raise ValueError(
                "`model` must be a checkpoint for --norms-of-prior, got a packed file, which says "
                "itself where its statistics come from."
            )
        theorem = (packed.certificate or {}).get("theorem", "clopper_pearson")
        if theorem != "clopper_pearson":
            raise ValueError(
                f"`model` must be fixed beforehand, and {self.model} paid for a posterior "
                f"({theorem}): certify its checkpoint."
            )
        if odd := [name for name in data if (packed.data or data).get(name) != data[name]]:
            known = {name: (packed.data or {}).get(name) for name in odd}
            raise ValueError(f"`model` must be made with the same splits, got {known} there.")
        return packed

    def packed_of(
        self, network: BLRNet, task: Task, splits: Splits
    ) -> tuple[PackedNetwork, dict[str, Any]]:
        """The packed network of a posterior, and what is paid for it."""
        from pbnn.packed import price
        from pbnn.packed.from_data import made_of, trust_origin

        if self.norms_of_prior:
            trust_origin(network, task, splits)
        how = (self.predictor, self.members, self.statistics_of, self.seed)
        packed = made_of(network, task, splits, *how)
        if self.fixed:
            return packed, {"fixed": True}
        if self.predictor == "mode":
            return packed, {"nats": price(network, packed, "occam")}
        return packed, {"log_ratio": price(network, packed, "rivasplata")}


@dataclass(frozen=True, kw_only=True)
class VerifyCommand(Common):
    """Say what a file claims, and whether it holds; exits with 1 if anything disagrees.

    Without data: the seal, the arithmetic of the bound in interval arithmetic, that it is of these
    very bits and of this kind of predictor. With --data the certification split and the errors on
    it are counted again; with --posterior the price is computed again; with both the network is
    drawn and packed again, which shows that its thresholds are those of the checkpoint, too.
    Of a certificate alone, as `Certificate.save` writes it, only its arithmetic is looked at.
    """

    file: Path
    """Written by `pbnn certify`, `pbnn.packed.save` or `Certificate.save`."""
    data: str | None = None
    """The data set it names, to look at it again."""
    posterior: Path | None = None
    """The checkpoint it was made of, to price it; with --data to draw and pack it again, too."""

    def run(self) -> int:
        """0 if all that was looked at holds."""
        if is_json(self.file):
            return self.of_certificate()
        packed = load_packed(self.file)
        print(f"{self.file}: {shape_of(packed)}, sealed")
        more: dict[str, Any] = {}
        network = None if self.posterior is None else checkpoint_of(self.posterior)
        if self.data is not None:
            made = packed.data or {}
            if not made:
                raise ValueError(
                    f"{self.file} does not say how its splits are made, as `pbnn certify` does: "
                    "check it in Python, `pbnn.packed.verify(packed, task, splits)`."
                )
            if made.get("task") != self.data:
                raise ValueError(f"`data` must be {made.get('task')!r}, got {self.data!r}.")
            task = self.task(self.data)
            more |= {"task": task, "splits": splits_of(task, made)}
        if network is not None:
            from pbnn.packed import price

            theorem = (packed.certificate or {}).get("theorem", "")
            if theorem in PRICED:
                more["price"] = price(network, packed, theorem)
        checks = verify(packed, **more, **self.how)
        if network is not None and "price" in more and self.data is not None:
            from pbnn.packed.from_data import made_again

            checks.append(made_again(packed, network, more["task"], more["splits"]))
        told = show(checks)
        if self.data is not None:
            error = error_on_test(packed, more["task"], more["splits"], **self.how)
            print(f"error on {len(more['splits'].test)} test examples: {error:.4f}")
        if not told:
            theorem = (packed.certificate or {}).get("theorem", "")
            left = [] if self.data else ["the data (--data)"]
            left += ["price and origin (--posterior)"] if not self.posterior else []
            print(f"holds{', as far as looked at: not ' + ', '.join(left) if left else ''}")
            word = (
                "that it was fixed" if theorem == "clopper_pearson" else "that its prior was fixed"
            )
            print(f"its maker's word: {word} before the certification examples were seen")
        return told

    def of_certificate(self) -> int:
        """0 if the arithmetic of a certificate that stands alone holds."""
        if self.data is not None or self.posterior is not None:
            raise ValueError(
                f"`data` and `posterior` are for a packed network, and {self.file} is none: of a "
                "certificate alone only the arithmetic can be looked at."
            )
        try:
            c = Certificate.load(self.file)
        except ValueError as error:
            return show([Check("certificate", False, str(error))])
        print(f"{self.file}: {c}")
        told = f"{c.predictor}, n {c.n}, δ {c.budget.delta:g}, bound {c.bound} ({c.theorem})"
        show([Check("arithmetic", True, told)])
        print("arithmetic holds; data, posterior and bits were not looked at")
        return 0


@dataclass(frozen=True, kw_only=True)
class PredictCommand(Common):
    """Predict with a packed file, into a CSV file of row, label and, where known, the true one."""

    file: Path
    """A packed network."""
    data: str | None = None
    """The name of a data set to predict; give this or --input."""
    part: Literal["test", "all"] = "test"
    """Of --data: its test examples (published ones, else a quarter), or all."""
    input: Path | None = None
    """A NumPy file (.npy) of inputs to predict; give this or --data."""
    out: Path | None = None
    """The CSV file; by default labels are printed."""
    anytime: float | None = None
    """Stop a vote early; with at most this probability its label is not that of all members."""

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

            if len(packed.members) == 1:
                raise ValueError("`anytime` is for a vote, and `file` is a single network.")
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
                raise ValueError(f"{self.input} is no NumPy file (.npy) of numbers.") from error
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
    """How many inputs at once, one line of the table for each."""
    seconds: float = 0.5
    """How long each is repeated, at least three times; the median counts."""

    def run(self) -> int:
        """Print a table."""
        if min(self.batches) < 1 or self.threads < 1:
            got = f"{self.batches} and {self.threads}"
            raise ValueError(f"`batches` and `threads` must be positive integers, got {got}.")
        packed = load_packed(self.file)
        sizes = packed.sizes()
        print(f"{self.file}: {shape_of(packed)}, weights of {sizes['weights']} bytes")
        print(f"{'batch':>7} {'backend':>8} {'ms':>10} {'inputs/s':>12}")
        draw = np.random.default_rng(0)
        for batch in self.batches:
            shape = (batch, *packed.preprocessing.image)
            x = draw.integers(0, 256, shape).astype(np.uint8)
            for backend in available() if self.backend == "auto" else (chosen(self.backend),):
                median = timed(packed, x, backend, self.threads, self.seconds)
                each = f"{1e3 * median:10.3f} {batch / median:12.0f}"
                print(f"{batch:7d} {backend:>8} {each}", flush=True)
        return 0


PRICED = ("rivasplata", "occam")
"""Theorems by which weights have a price."""

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
    except BrokenPipeError:  # whoever read the output has enough
        sys.stdout = None
        code = 0
    except (DataUnavailable, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        code = 130
    raise SystemExit(code)


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
