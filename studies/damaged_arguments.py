"""Arguments out of their domains: bounds, classes and functions, command lines of studies."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import io
import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import tyro
from bound_examples import EXAMPLES, SERIES
from damage import ODD
from damaged_cases import HARMLESS, SILENT, Case, short

from pbnn.baselines import MLP, RealNet
from pbnn.bounds import CATALOGUE, exact
from pbnn.certificates import Budget, Provenance, certify_known, holdout_bound
from pbnn.data import load
from pbnn.networks import ABNet, BLRNet, PBGNet
from pbnn.objectives import BoundObjective, RiskObjective, SelectedByBound, VariationalObjective
from pbnn.seeding import generator
from pbnn.training import FitConfig

ERRORS = (ValueError, TypeError)
Domain = Callable[[Any], bool]

# Domains, written once more


def number(low: float, high: float, *, ends: bool = True, slack: float = 0.0) -> Domain:
    """Real numbers of an interval, with its ends or without."""

    def inside(x: Any) -> bool:
        real = isinstance(x, int | float | np.integer | np.floating)
        if not real or x != x:  # NaN
            return False
        return low - slack <= x <= high + slack if ends else low < x < high

    return inside


def whole(least: int, most: float = math.inf) -> Domain:
    """Whole numbers, also written as floats."""
    inside = number(least, most)
    return lambda x: inside(x) and abs(x) != math.inf and x == int(x)


INF = math.inf
LARGEST = sys.float_info.max
PROBABILITY = number(0, 1, slack=1e-12)
POSITIVE = number(0, INF, ends=False)
COST = number(0, INF)
SHARE = number(0, 1, ends=False)
FINITE = number(-LARGEST, LARGEST)
DOMAINS: dict[str, Domain] = {
    **dict.fromkeys(("risk", "tandem_loss", "disagreement_rate", "frequency"), PROBABILITY),
    **dict.fromkeys(("gibbs_bound", "lower_right", "lower_wrong", "losses"), PROBABILITY),
    **dict.fromkeys(("kl", "divergence", "nats", "c", "plus", "minus"), COST),
    **dict.fromkeys(("variance", "second_moment"), number(0, LARGEST)),
    **dict.fromkeys(("n", "n_pairs", "draws", "steps"), whole(1, 2.0**500)),
    **dict.fromkeys(("delta", "delta_mc"), SHARE),
    **dict.fromkeys(("C", "lam", "s2", "sizes"), POSITIVE),
    **dict.fromkeys(("alpha", "c1", "c2", "gamma"), number(1, INF, ends=False)),
    **dict.fromkeys(("loss", "a", "b", "mu", "values"), FINITE),
    "log_ratio": lambda x: number(-LARGEST, INF)(x),
    "errors": whole(0, 2.0**500),
    "types": whole(2, 2**16),
}
OF_ONE: dict[tuple[str, str], Domain] = {
    ("thiemann", "lam"): number(0, 2, ends=False),
    ("catoni_union", "lam"): number(1, INF, ends=False),
    ("recursive_excess", "gamma"): lambda x: POSITIVE(x) and x <= 1,
    ("recursive", "gamma"): lambda x: POSITIVE(x) and x <= 1,
    ("unexpected_bernstein", "b"): POSITIVE,
    ("empirical_bernstein", "n"): whole(2),
    ("maurer_pontil", "n"): whole(2),
    ("monte_carlo_batches", "errors"): COST,
}
"""Of arguments that mean something else in a bound."""
OPTIONAL = ("C", "n_pairs", "lam", "gamma", "steps", "alpha", "c1", "c2")
"""Arguments that may be None, where their default is."""
STRANGE = (
    *(10**400, 1j, Decimal("0.1"), "0.1", b"1", object(), print, {}, {0.5}),
    *(np.array([]), np.array([math.nan]), np.array(["a"]), np.array([True]), np.array([[0.5]])),
    *(np.float32(2.0), np.int64(-1), torch.tensor([math.nan]), torch.tensor(2.0)),
    *(torch.tensor([True]), torch.tensor([])),
)
"""What is no number, or not one."""


def odd_argument(rng: Random) -> Any:
    """What an argument may not be, or only by chance."""
    near = (rng.uniform(-2, 2), rng.randint(-5, 500), 10 ** rng.uniform(-300, 300), 1 + 1e-9)
    return rng.choice((*ODD, *STRANGE, *near))


def entries(value: Any) -> list[Any] | None:
    """The numbers of an argument, whatever holds them; None of what holds something else."""
    if isinstance(value, torch.Tensor | np.ndarray):
        flat = value.reshape(-1).tolist()
        return None if any(isinstance(x, bool | str) for x in flat) else flat
    if isinstance(value, list | tuple):
        inner = [entries(each) for each in value]
        return None if None in inner else [x for each in inner for x in each or ()]
    return None if isinstance(value, bool) else [value]


def in_domain(bound: str, name: str, value: Any) -> bool:
    """Whether a value may be an argument of a bound."""
    if value is None:
        parameter = inspect.signature(CATALOGUE[bound].function).parameters[name]
        return name in OPTIONAL and parameter.default is None
    numbers = entries(value)
    domain = OF_ONE.get((bound, name)) or DOMAINS[name]
    return numbers is not None and all(map(domain, numbers))


def bounds(rng: Random, folder: Path) -> Iterator[Case]:
    """Bounds of which one or two arguments are odd, in float64 and in interval arithmetic."""
    while True:
        bound = rng.choice(tuple(EXAMPLES))
        given = dict(EXAMPLES[bound])
        names = rng.sample(tuple(given), rng.choice((1, 1, 2)))
        for name in names:
            value = given[name]
            if isinstance(value, list | tuple) and (name in SERIES or rng.random() < 0.5):
                value = list(value)
                value[rng.randrange(len(value))] = odd_argument(rng)
                given[name] = rng.choice((value, tuple(value), value[:-1], value * 2))
            else:
                given[name] = odd_argument(rng)
        rounded = rng.random() < 0.2

        def call(
            bound: str = bound,
            given: Mapping[str, Any] = given,
            names: Sequence[str] = names,
            rounded: bool = rounded,
        ) -> str:
            function = CATALOGUE[bound].function
            value = exact.upper(function, **given) if rounded else function(**given)
            sound = all(in_domain(bound, name, given[name]) for name in names)
            numbers = entries(value)
            real = numbers is not None and not any(math.isnan(x) for x in numbers)
            return HARMLESS if sound and real else SILENT

        shown = short({"bound": bound, "exact": rounded} | {n: given[n] for n in names}, 300)
        yield Case("exact.upper" if rounded else "float64", call, ERRORS, shown=shown)


# Classes and functions


def flag(value: Any) -> bool:
    """True or False."""
    return isinstance(value, bool)


def one_of(*known: Any) -> Domain:
    """One of some texts or numbers."""
    return lambda x: isinstance(x, str | int | float | np.number) and x in known


def many(domain: Domain, least: int = 0) -> Domain:
    """A list of them."""
    return lambda xs: isinstance(xs, list | tuple) and len(xs) >= least and all(map(domain, xs))


def text(value: Any) -> bool:
    """Any text."""
    return isinstance(value, str)


def _network(kind: Any) -> Callable[..., Any]:
    return lambda **given: kind(**given, generator=generator(0, "net"))


def _objective(kind: Any) -> Callable[..., Any]:
    return lambda **given: kind(PBGNet(3, (2,), generator=generator(0, "net")), **given)


def _budget(**given: Any) -> Any:
    return Budget(**given).events(exact=True)


def _known(**given: Any) -> Any:
    families = Budget(family="coded"), Provenance("none", 0, {})
    return certify_known("1f", given.pop("errors"), given.pop("n"), *families, **given)


def _held_out(**given: Any) -> Any:
    return holdout_bound(budget=Budget(), **given)


IMAGE, CODE = (1, 4, 4), "2C3-MP2-SM3"
FEW = 4096
"""A network of no more units is made here, though it may be a large one that a user asks for."""
Objects = dict[str, tuple[Callable[..., Any], dict[str, tuple[Any, Domain]]]]
OBJECTS: Objects = {
    "FitConfig": (
        FitConfig,
        {
            "epochs": (40, whole(1)),
            "batch": (256, whole(1)),
            "learning_rate": (0.1, number(0, LARGEST * 1.0)),
            "kl_warmup": (0.0, number(0, 1)),
            "patience": (0, whole(0)),
            "compile": (False, flag),
            "optimiser": ("adam", one_of("adam", "sgd")),
            "weight_decay": (0.0, number(0, LARGEST)),
            "keep": ("best", one_of("best", "last")),
            "frozen_from": (1.0, number(0, 1)),
        },
    ),
    "Budget": (
        _budget,
        {
            "delta": (0.05, SHARE),
            "seeds": (3, whole(1)),
            "choices": (1000, whole(1)),
            "family": ("signs", one_of("signs", "classes", "coded", "fixed", "deployed")),
        },
    ),
    "certify_known": (
        _known,
        {"errors": (3, whole(0, 100)), "n": (100, whole(3)), "nats": (2.5, number(0, LARGEST))},
    ),
    "holdout_bound": (
        _held_out,
        {
            "errors": (3, whole(0, 100)),
            "n": (100, whole(3, 2**31)),
            "rounding": (0.0, number(0, LARGEST)),
        },
    ),
    **{
        kind.__name__: (
            _network(kind),
            {
                "in_features": (3, whole(1, FEW)),
                "hidden": ((2, 2), many(whole(1, FEW))),
                "bias": (False, flag),
                "aggregate": ("auto", one_of("auto", "exact", "mean_field")),
                "prior_scale": (1.0, FINITE),
            },
        )
        for kind in (PBGNet, ABNet)
    },
    "MLP": (
        _network(MLP),
        {"in_features": (3, whole(1, FEW)), "hidden": ((2,), many(whole(1, FEW), 1))},
    ),
    "BLRNet": (
        _network(BLRNet),
        {
            "image": (IMAGE, lambda x: many(whole(1, FEW), 3)(x) and len(x) == 3),
            "architecture": (CODE, text),
            "law": ("bernoulli", one_of("bernoulli", "gaussian")),
            "activation": ("analytic", one_of("analytic", "mode")),
            "pooling": ("analytic", one_of("analytic")),
            "batch_norm": (True, flag),
            "padding_value": (0.0, one_of(-1, 0, 1)),
            "temperature": (1.0, number(5e-324, LARGEST)),
            "start": (1.0, number(0, LARGEST)),
        },
    ),
    "RealNet": (
        _network(RealNet),
        {
            "image": (IMAGE, lambda x: many(whole(1, FEW), 3)(x) and len(x) == 3),
            "architecture": (CODE, text),
        },
    ),
    "BoundObjective": (
        _objective(BoundObjective),
        {"n": (100, whole(1)), "delta": (0.05, SHARE)},
    ),
    "SelectedByBound": (
        _objective(SelectedByBound),
        {"n": (100, whole(1)), "delta": (0.05, SHARE), "decay": (0.0, number(0, LARGEST))},
    ),
    "RiskObjective": (
        _objective(RiskObjective),
        {"loss": ("linear", text), "decay": (0.0, number(0, LARGEST))},
    ),
    "VariationalObjective": (
        _objective(VariationalObjective),
        {"n": (100, whole(1)), "C": (1.0, number(5e-324, LARGEST))},
    ),
}
"""What is made of which arguments, with a sound value and the domain of each."""


def large(value: Any) -> bool:
    """Whether a size would ask for a large network, as a user may."""
    numbers = entries(value) or ()
    real = [x for x in numbers if isinstance(x, int | float)]
    return any(FEW < x < math.inf for x in real) or len(numbers) > 3


def objects(rng: Random, folder: Path) -> Iterator[Case]:
    """Configurations, networks and objectives of which one argument is odd."""
    while True:
        kind = rng.choice(tuple(OBJECTS))
        make, arguments = OBJECTS[kind]
        name = rng.choice(tuple(arguments))
        value = odd_argument(rng)
        if isinstance(arguments[name][0], tuple) and rng.random() < 0.5:
            value = tuple(rng.choice((1, 2, value)) for _ in range(rng.randint(1, 3)))
        if name in ("in_features", "hidden", "image") and large(value):
            continue

        def call(
            make: Callable[..., Any] = make,
            given: Mapping[str, Any] = {n: v for n, (v, _) in arguments.items()} | {name: value},
            domain: Domain = arguments[name][1],
            value: Any = value,
        ) -> str:
            make(**given)
            return HARMLESS if domain(value) else SILENT

        yield Case(kind, call, ERRORS, shown=short({name: value}, 300))


# Command lines

STUDIES = (
    *("pac_bound_mnist", "certified_mnist", "blrnet_accuracy", "activation_balance"),
    *("binary_accuracy", "self_supervised_prior", "self_supervised_bnn", "pruning_transfer"),
    *("contrastive_binarization", "bound_tightness", "bound_coverage", "bound_rounding"),
    *("costs", "estimators", "packed_speed"),
)
WORDS = (
    *("", "nan", "inf", "-inf", "-1", "0", "1", "2", "1.5", "1e309", "1e-400", "x", "é", "None"),
    *("True", "[]", "()", "0x10", "1_0", " 3", "9" * 30, "-" + "9" * 30, "9" * 5000, "mnist"),
    *("mnist17", "minst17", "digits17", "digits", "quick", "full", "paper", "cpu", "cuda", "gpu"),
    *("unit", "10-10", "10-", "\u0661", "--", "-", "{}", "/", "\n", "\ud800"),
)
COUNTS = (
    "seeds",
    "threads",
    "workers",
    "trials",
    "inputs",
    "epochs",
    "repeats",
    "points",
    "members",
)
COUNTS += ("statistics_of", "mlp_epochs", "lenet_3x3_epochs", "blrnet_epochs")
FIELDS: dict[str, Domain] = {
    **dict.fromkeys(COUNTS, whole(1)),
    **dict.fromkeys(("deep_draws", "replications"), whole(2)),
    "seed": whole(0),
    "first": whole(0),
    "delta": SHARE,
    "seconds": number(5e-324, LARGEST),
    "thresholds": many(number(-3, 3)),
    **dict.fromkeys(("widths", "batches"), many(whole(1), 1)),
    "device": one_of("cpu"),
}
"""Domains of fields of studies, by their names; more of those are texts, paths or flags."""
TUPLES = ("datasets", "methods", "hidden", "priors", "networks")


def field_holds(name: str, value: Any) -> bool:
    """Whether the field of a study's configuration may have this value; None leaves it out."""
    if value is None:
        return True
    if isinstance(value, tuple) and name in (*TUPLES, "bases"):
        return len(value) > 0 and len(set(value)) == len(value)
    domain = FIELDS.get(name)
    if domain is None:
        return isinstance(value, str | Path | bool)
    return (
        many(domain, 1)(value) if isinstance(value, tuple) and name == "threads" else domain(value)
    )


def command_lines(rng: Random, folder: Path) -> Iterator[Case]:
    """Flags of studies, read as `pbnn.study.run_study` reads them, and the runs they ask for."""
    while True:
        study = importlib.import_module(rng.choice(STUDIES))
        names = list(study.Config.__dataclass_fields__)
        words: list[str] = []
        for name in rng.sample(names, rng.choice((1, 1, 2))):
            flag_of = f"--{name.replace('_', '-')}"
            way = rng.random()
            if way < 0.05:
                flag_of = rng.choice((flag_of[:-1], "--" + flag_of, flag_of.upper()))
            words += [flag_of, *rng.choices(WORDS, k=0 if way > 0.95 else rng.choice((1, 1, 1, 2)))]

        def parse(study: Any = study, words: Sequence[str] = words) -> str:
            config = parsed(study, words)
            if config is None:
                return HARMLESS
            plan(study, config)
            values = {name: getattr(config, name) for name in study.Config.__dataclass_fields__}
            sound = all(field_holds(name, value) for name, value in values.items())
            return HARMLESS if sound else SILENT

        yield Case(study.__name__, parse, (SystemExit,), shown=short(words, 300))


def plan(study: Any, config: Any) -> None:
    """The cells that a study would run, of the bundled digits in the place of its data sets.

    Raises
    ------
    SystemExit
        Where `pbnn.study.run_study` would end with a message.
    """
    make = getattr(study, "cells_of", None)
    few = (getattr(config, "seeds", None) or 0) <= 10  # many may be meant
    if make is None or list(inspect.signature(make).parameters) != ["config", "tasks"] or not few:
        return
    tasks = {name: dataclasses.replace(digits(), name=name) for name in config.datasets}
    try:
        make(config, tasks)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


@functools.cache
def digits() -> Any:
    """The bundled digits."""
    return load("digits")


def parsed(study: Any, words: Sequence[str]) -> Any:
    """The configuration of a command line, or None where help was asked for.

    Raises
    ------
    SystemExit
        With the message, without a traceback.
    """
    said, state = io.StringIO(), random.getstate()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return tyro.cli(study.Config, args=list(words))
    except SystemExit as end:
        if not end.code:
            return None
        raise SystemExit(said.getvalue() or end.code) from None
    finally:
        random.setstate(state)  # from which tyro draws
