"""What each bound promises in the worlds of `bound_worlds`, and mistakes that break a promise."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from bound_worlds import BEST_OF, DRAWS, GAMMAS, MEMBERS, ORDERS, Draws

from pbnn.bounds import CATALOGUE, catoni_optimal_c

Judge: TypeAlias = Callable[[Draws, float], Any]

ROUNDING = 1e-12


@dataclass(frozen=True)
class Claim:
    """That a bound fails in a world in no more than delta of all samples, or that it does."""

    bound: str
    """Its name in the catalogue."""
    world: str
    fails: Judge
    """Of draws and delta: where the truth is beyond the bound; the first axis is that of trials."""
    setting: str = ""
    """What was chosen besides, or what is wrong."""
    at_most: int | None = None
    """Trials, where a bound is slow."""


def bound_of(name: str) -> Callable[..., Any]:
    """The bound of this name in the catalogue."""
    return CATALOGUE[name].function


def below(value: Any, truth: Any) -> Any:
    """Where a bound is below the truth by more than rounding."""
    return value < truth - ROUNDING


def compare(name: str, *told: str, **settings: Any) -> Judge:
    """A bound that takes `told`, n and delta, against the truth.

    A setting that is a text names something told; any other is passed on as it is.
    """

    def fails(draws: Draws, delta: float) -> Any:
        more = {
            key: draws[value] if isinstance(value, str) else value
            for key, value in settings.items()
        }
        given = [draws[key] for key in told]
        return below(bound_of(name)(*given, draws["n"], delta=delta, **more), draws["truth"])

    return fails


def any_of(name: str, key: str, values: Iterable[Any] | Callable[[Draws], Iterable[Any]]) -> Judge:
    """A bound that holds for all `values` of a parameter at once, at the best of them."""

    def fails(draws: Draws, delta: float) -> Any:
        chosen = values(draws) if callable(values) else values
        judges = (compare(name, "risk", "kl", **{key: value}) for value in chosen)
        return functools.reduce(np.logical_or, (judge(draws, delta) for judge in judges))

    return fails


def at_any_c(draws: Draws, delta: float) -> Any:
    """`catoni` for every C: at a grid of them, and at the one that is best for the data."""
    best = catoni_optimal_c(draws["risk"], draws["kl"], draws["n"], delta=delta)
    told = draws | {"best": np.clip(best, 1e-6, 700.0)}
    at_best = compare("catoni", "risk", "kl", C="best")(told, delta)
    return at_best | any_of("catoni", "C", np.geomspace(0.05, 20, 12))(draws, delta)


def recursive_at_best(draws: Draws, delta: float) -> Any:
    """`recursive` with half of delta for the draws, at the best weights of earlier posteriors."""
    told = draws["frequency"], draws["kl"], draws["n"]
    bound, shares = bound_of("recursive"), {"delta": delta / 2, "delta_mc": delta / 2}
    values = [
        bound(*told, gamma=[first, second], **shares) for first in GAMMAS for second in GAMMAS
    ]
    return below(np.min(values, 0), draws["truth"])


def joint(draws: Draws, delta: float) -> Any:
    """`c_bound_joint`, once for each of the few pairs of frequencies."""
    tandem, where = np.unique(draws["tandem"], return_inverse=True)
    # In this world voters disagree twice as often as both err.
    values = bound_of("c_bound_joint")(tandem, 2 * tandem, draws["kl"], draws["n"], delta=delta)
    return below(values[where.reshape(draws["tandem"].shape)], draws["truth"])


def vector_fails(constant: str) -> Judge:
    """Whether the frequencies of three types are further from the truth than `vector_kl` says."""

    def fails(draws: Draws, delta: float) -> Any:
        bound = bound_of("vector_kl")(
            draws["kl"], draws["n"], types=3, delta=delta, constant=constant
        )
        return below(bound, draws["distance"])

    return fails


def one_drawn(name: str, member: int, **settings: Any) -> Judge:
    """A bound on one draw from the posterior that is `member` of those of a world."""

    def fails(draws: Draws, delta: float) -> Any:
        log_ratio = (
            draws["log_ratio"] if name == "rivasplata" else draws["renyi"][settings["alpha"]]
        )
        value = bound_of(name)(
            draws["risk"][:, member], log_ratio[:, member], draws["n"], delta=delta, **settings
        )
        return below(value, draws["truth"][:, member])

    return fails


def after_every_example(draws: Draws, delta: float) -> Any:
    """Whether the anytime bound fails at any look, with all of the posterior on any predictor."""
    n, truth = np.arange(1, draws["n"] + 1), draws["truth"]
    k = np.minimum(np.arange(draws["n"] + 1), n[:, None])
    table = bound_of("anytime")(k / n[:, None], math.log(len(truth)), n[:, None], delta=delta)
    # The bound grows with the errors, so it fails below a first count at which it holds. Counts
    # above n repeat the bound at n errors of n, which is 1 and holds.
    failing = below(table[:, :, None], truth).sum(1)
    return draws["errors"] < failing


def counted(name: str, side: str) -> Judge:
    """A bound on the risk by the number of errors; the lower one by that of successes."""

    def fails(draws: Draws, delta: float) -> Any:
        errors, n, truth = draws["errors"][delta], draws["n"], draws["truth"][delta]
        if side == "upper":
            return below(bound_of(name)(errors, n, delta=delta), truth)
        return below(1 - truth, bound_of(name)(n - errors, n, delta=delta, side="lower"))

    return fails


def estimated(draws: Draws, delta: float, side: str = "upper") -> Any:
    """`monte_carlo` with one draw for each example."""
    losses, truth = draws["losses"], draws["truth"]
    value = bound_of("monte_carlo")(losses.mean(1), losses.shape[1], delta=delta, side=side)
    return below(value, truth) if side == "upper" else below(truth, value)


def bet(draws: Draws, delta: float) -> Any:
    return below(bound_of("betting")(draws["losses"], delta=delta), draws["truth"])


def batched(draws: Draws, delta: float) -> Any:
    value = bound_of("monte_carlo_batches")(draws["errors"], draws["sizes"], delta=delta)
    return below(value, draws["truth"])


def both_steps(draws: Draws, delta: float) -> Any:
    """The kl bound of an estimated risk, each step at half of delta."""
    risk = bound_of("monte_carlo")(draws["risk"], DRAWS, delta=delta / 2)
    value = bound_of("maurer")(risk, draws["kl"], draws["n"], delta=delta / 2)
    return below(value, draws["truth"])


def of_layers(paid: Callable[..., float]) -> Judge:
    """The kl bound with what `paid` makes of the KL divergences of two layers."""

    def fails(draws: Draws, delta: float) -> Any:
        value = bound_of("maurer")(draws["risk"], paid(draws["kls"]), draws["n"], delta=delta)
        return below(value, draws["truth"])

    return fails


def best_held_out(count: int) -> Judge:
    """The hold-out bound of the best of many networks, with delta shared among `count`."""

    def fails(draws: Draws, delta: float) -> Any:
        value = bound_of("clopper_pearson")(draws["errors"], draws["n"], delta=delta / count)
        return below(value, draws["truth"])

    return fails


def whole_sample(draws: Draws, delta: float) -> Any:
    return compare("maurer", "risk", "kl")(draws | {"n": draws["n_whole"]}, delta)


def batches_as_examples(draws: Draws, delta: float) -> Any:
    errors, count = draws["errors"].sum(1), draws["sizes"].sum()
    return below(bound_of("monte_carlo")(errors / count, count, delta=delta), draws["truth"])


ONE = tuple(f"one predictor, n = {n}" for n in (5, 10, 50))
GIBBS_WORLDS = (*ONE, "64 coins", "256 coins", "Beta losses")


def gibbs_claims() -> Iterator[Claim]:
    """Bounds on the Gibbs risk in each world of coins, and with losses between 0 and 1."""
    judges: dict[str, dict[str, Judge]] = {
        name: {"": compare(name, "risk", "kl")}
        for name in ("maurer", "maurer_xi", "anytime", "seeger", "mcallester", "tolstikhin_seldin")
    }
    judges["quadratic"] = {
        setting: compare("quadratic", "risk", "kl", tight=tight)
        for setting, tight in (("", False), ("tight", True))
    }
    judges["thiemann"] = {
        "best λ": compare("thiemann", "risk", "kl"),
        "any λ": any_of("thiemann", "lam", np.linspace(0.05, 1.95, 12)),
    }
    judges["fast_rate"] = {
        "best γ": compare("fast_rate", "risk", "kl"),
        "any γ": any_of("fast_rate", "gamma", 1 + np.geomspace(0.02, 20, 12)),
    }
    judges["catoni"] = {"any C": at_any_c}
    judges["catoni_fixed"] = {
        f"C = {c:g}": compare("catoni_fixed", "risk", "kl", C=c) for c in (0.3, 1.0, 3.0)
    }
    judges["catoni_union"] = {
        "any λ": any_of("catoni_union", "lam", lambda w: w["n"] * np.geomspace(0.3, 8, 12))
    }
    judges["alquier"] = {f"λ = {scale:g}√n": fixed_temperature(scale) for scale in (1.0, 4.0, 12.0)}
    judges["chi_square"] = {"": compare("chi_square", "risk", "chi")}
    for world in GIBBS_WORLDS:
        for name, settings in judges.items():
            for setting, judge in settings.items():
                yield Claim(name, world, judge, setting)


def fixed_temperature(scale: float) -> Judge:
    """`alquier` at a multiple of the root of n."""

    def fails(draws: Draws, delta: float) -> Any:
        return compare("alquier", "risk", "kl", lam=scale * math.sqrt(draws["n"]))(draws, delta)

    return fails


def variance_claims() -> Iterator[Claim]:
    """Bounds that look at the variance or at the values of a loss, and the recursive one."""
    for world in (*ONE, "64 coins", "Beta losses", "small variance"):
        judge = compare("empirical_bernstein", "risk", "kl", variance="variance")
        yield Claim("empirical_bernstein", world, judge)
    # Losses of 0 or 1 are their own squares.
    seconds = dict.fromkeys(ONE, "risk") | {"Beta losses": "second", "small variance": "second"}
    for world, second in seconds.items():
        judge = compare("unexpected_bernstein", "risk", "kl", second_moment=second)
        yield Claim("unexpected_bernstein", world, judge)
    # Of losses of 0 or 1 the risk is the part above 0, and the frequency of 1.
    for world in (*ONE, "64 coins"):
        yield Claim("split_kl", world, split_coins)
        yield Claim("split_kl_discrete", world, discrete((0.0, 1.0)))
    for gamma, world in ((0.5, "excess losses"), (1.0, "excess losses, gamma 1")):
        split: dict[str, Any] = {"a": -gamma, "b": 1.0, "clip": False}
        judge = compare("unexpected_bernstein", "loss", "kl", second_moment="second", clip=False)
        yield Claim("unexpected_bernstein", world, judge)
        for mu in (0.0, 0.25):
            judge = compare("split_kl", f"plus{mu:g}", f"minus{mu:g}", "kl", mu=mu, **split)
            yield Claim("split_kl", world, judge, f"μ = {mu:g}")
        values = (-1.0, 0.0, 1.0) if gamma == 1 else (-gamma, 0.0, 1 - gamma, 1.0)
        yield Claim("split_kl_discrete", world, discrete(values))
    for world in ("three parts", "three parts, sharp"):
        yield Claim("recursive", world, recursive_at_best, "best γ")


def split_coins(draws: Draws, delta: float) -> Any:
    """`split_kl` for losses of 0 or 1."""
    split = {"a": 0.0, "b": 1.0, "mu": 0.0, "delta": delta}
    value = bound_of("split_kl")(draws["risk"], 0.0, draws["kl"], draws["n"], **split)
    return below(value, draws["truth"])


def discrete(values: tuple[float, ...]) -> Judge:
    """`split_kl_discrete` for a loss with these values."""

    def fails(draws: Draws, delta: float) -> Any:
        frequency = draws.get("frequency", draws["risk"][..., None])
        told = frequency, draws["kl"], draws["n"]
        bound = bound_of("split_kl_discrete")
        return below(bound(*told, values=values, delta=delta, clip=False), draws["truth"])

    return fails


VOTES = {
    "first_order": ("risk", "kl"),
    "tandem": ("tandem", "kl"),
    "disagreement": ("risk", "disagreement", "kl"),
    "c_tandem": ("risk", "tandem", "kl"),
    "c_bound": ("risk", "disagreement", "kl"),
}


def other_claims() -> Iterator[Claim]:
    """Votes, single predictors, several types of error, hold-out samples and draws."""
    for world in ("ties", "ties, one pair", "votes"):
        for name, told in VOTES.items():
            yield Claim(name, world, compare(name, *told))
    for world in ("ties", "ties, one pair"):
        yield Claim("c_bound_joint", world, joint)
    for setting, member in MEMBERS.items():
        yield Claim("rivasplata", "one draw", one_drawn("rivasplata", member), setting)
        for alpha in ORDERS:
            judge = one_drawn("viallard", member, alpha=alpha)
            yield Claim("viallard", "one draw", judge, f"{setting}, α = {alpha:g}")
    member = MEMBERS["on the least loss"]
    yield Claim("rivasplata", "one draw, one predictor", one_drawn("rivasplata", member))
    for alpha in ORDERS:
        judge = one_drawn("viallard", member, alpha=alpha)
        yield Claim("viallard", "one draw, one predictor", judge, f"α = {alpha:g}")
    for world in ("equal codes", "unequal codes"):
        for name in ("occam", "occam_hoeffding"):
            yield Claim(name, world, compare(name, "risk", "nats"))
    for constant in ("adams", "xi"):
        yield Claim("vector_kl", "three types", vector_fails(constant), constant)
    for world in ("looks", "looks, 8 predictors"):
        yield Claim("anytime", world, after_every_example, "after every example")
    for name in ("clopper_pearson", "chernoff"):
        for side in ("upper", "lower"):
            yield Claim(name, "hold-out", counted(name, side), side)
    judge = compare("maurer_pontil", "risk", variance="variance")
    yield Claim("maurer_pontil", "hold-out, rare errors", judge)
    for world in ("draws", "draws in order"):
        for side in ("upper", "lower"):
            yield Claim("monte_carlo", world, functools.partial(estimated, side=side), side)
        yield Claim("betting", world, bet, at_most=2000)
    for world in ("equal batches", "unequal batches"):
        yield Claim("monte_carlo_batches", world, batched)


def right_claims() -> Iterator[Claim]:
    """What the mistakes of `BROKEN` get wrong, done right in the same worlds."""
    yield Claim("maurer", "two layers", of_layers(sum), "KL summed over layers")
    yield Claim("monte_carlo", "20 networks", both_steps, "then `maurer`")
    yield Claim("clopper_pearson", "best of 1,000", best_held_out(BEST_OF), "δ shared")
    yield Claim("maurer", "learned prior", compare("maurer", "risk", "kl"), "n after the split")


CLAIMS = (*gibbs_claims(), *variance_claims(), *other_claims(), *right_claims())
BROKEN = (
    Claim("maurer", "two layers", of_layers(lambda kls: sum(kls) / len(kls)), "KL averaged"),
    Claim("maurer", "two layers", of_layers(lambda kls: kls[-1]), "KL of one layer"),
    Claim(
        "maurer",
        "20 networks",
        compare("maurer", "risk", "kl"),
        "Monte-Carlo step dropped, 20 draws",
    ),
    Claim("clopper_pearson", "best of 1,000", best_held_out(1), "hold-out reused, best of 1,000"),
    Claim(
        "maurer", "two layers", of_layers(lambda kls: 0.0), "prior fitted on certification points"
    ),
    Claim("maurer", "learned prior", whole_sample, "n counted before the prior split"),
    Claim("monte_carlo", "equal batches", batches_as_examples, "batches counted as examples"),
)
"""Bounds with a mistake in them, which must be seen to fail."""
