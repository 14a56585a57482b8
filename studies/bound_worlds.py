"""Worlds whose risks are known, with posteriors that overfit: where `bound_coverage` tests bounds.

A world draws many samples at once and returns, for each, what a bound is told and the truth that it
should bound. Predictors are finitely many and the prior on them is uniform unless a world says
otherwise, so that no integral stands between a posterior and its true risk. Axes are T trials,
P posteriors, H predictors, A kinds of examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator
from scipy.special import xlogy
from scipy.stats import binom

from pbnn.bounds import binary_kl, clopper_pearson

Draws: TypeAlias = dict[str, Any]
World: TypeAlias = Callable[[Generator, int], Draws]

DELTAS = (0.05, 0.2, 0.5)
"""Large enough that failures are seen."""
HALF = 0.5
GAMMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Weights of the prior in `recursive`, of which the best may be taken after the data."""
DRAWS = 20
"""Networks behind a Monte-Carlo estimate."""
BEST_OF = 1000
"""Networks among which a hold-out sample chooses."""
ORDERS = (1.5, 2.0, 8.0)
"""Of Renyi divergences."""
MEMBERS = {"tilted by the losses": 1, "tilted by the excess": 11, "on the least loss": 12}
"""Places of some of the `posteriors`."""


def excess(seen: Any, truth: Any, n: Any) -> Any:
    """n kl(seen, truth) where the sample flatters a predictor, 0 elsewhere."""
    return n * np.where(seen < truth, binary_kl(np.minimum(seen, truth), truth), 0.0)


def posteriors(seen: Any, truth: Any, n: int, prior: Any = None) -> tuple[Any, Any]:
    """Posteriors (T, P, H) that overfit losses `seen` (T, H), and their KL divergences (T, P).

    Those of a learner, by the losses: tilted at four temperatures, and all on the least. Those of
    an adversary who knows the truth: tilted by the gap and by `excess`, and all on the largest. A
    posterior in proportion to exp(n kl) is the one that the proof of the kl bound fears most.
    """
    gap, doubt = truth - seen, excess(seen, truth, n)
    tilts = [-n * scale * seen for scale in (0.1, 0.5, 2, 10)]
    tilts += [math.sqrt(n) * scale * gap for scale in (0.5, 1, 2, 4, 8, 16)]
    tilts += [scale * doubt for scale in (0.5, 1)]
    logs = np.stack(tilts, 1)
    if prior is None:
        prior = np.full(seen.shape, 1 / seen.shape[1])
    weights = prior[:, None] * np.exp(logs - logs.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    chosen = np.stack([seen.argmin(1), gap.argmax(1), doubt.argmax(1)], 1)
    weights = np.concatenate([weights, np.eye(seen.shape[1])[chosen]], 1)
    return weights, divergence(weights, prior[:, None])


def divergence(q: Any, p: Any) -> Any:
    """KL divergence in nats along the last axis."""
    return np.maximum((xlogy(q, q) - xlogy(q, p)).sum(-1), 0.0)


def under(weights: Any, values: Any) -> Any:
    """Posterior means (T, P) of what each predictor has, (T, H) or (H,)."""
    return (weights @ np.broadcast_to(values, weights.shape[::2])[:, :, None])[..., 0]


def gibbs(seen: Any, truth: Any, n: int, **others: Any) -> Draws:
    """What bounds on the Gibbs risk are told, and the truth; `others` are averaged likewise."""
    weights, kl = posteriors(seen, truth, n)
    averages = {name: under(weights, values) for name, values in others.items()}
    chi = np.maximum(weights.shape[-1] * (weights**2).sum(-1) - 1, 0.0)
    told = {"n": n, "risk": under(weights, seen), "truth": under(weights, truth)}
    return told | {"kl": kl, "chi": chi} | averages


def coins(risks: Any, n: int) -> World:
    """Predictors that err independently of each other, where overfitting is at its worst."""
    risks = np.atleast_1d(np.asarray(risks, dtype=float))

    def draw(rng: Generator, trials: int) -> Draws:
        seen = rng.binomial(n, risks, (trials, len(risks))) / n
        return gibbs(seen, risks, n, variance=seen * (1 - seen) * n / (n - 1))

    return draw


def betas(rng: Generator, trials: int, n: int = 20, count: int = 32) -> Draws:
    """Independent losses between 0 and 1, most of them near one end."""
    a = np.linspace(0.1, 0.6, count)
    losses = rng.beta(a, 1 - a, (trials, n, count))
    moments = {"second": (losses**2).mean(1), "variance": losses.var(1, ddof=1)}
    return gibbs(losses.mean(1), a, n, **moments)


def quiet(rng: Generator, trials: int, n: int = 150, count: int = 32) -> Draws:
    """Losses of small variance, but for examples so rare that a sample may miss them."""
    rare = np.linspace(0.002, 0.02, count)
    small = rng.uniform(0.1, 0.12, (trials, n, count))
    losses = np.where(rng.random(small.shape) < rare, 1.0, small)
    moments = {"second": (losses**2).mean(1), "variance": losses.var(1, ddof=1)}
    return gibbs(losses.mean(1), 0.11 + 0.89 * rare, n, **moments)


def kinds(count: int, predictors: int, first: float, last: float) -> Any:
    """Errors (A, H) of predictors on kinds of examples, the same in every run."""
    rng = np.random.default_rng(0)
    return rng.random((count, predictors)) < np.linspace(first, last, predictors)


def excess_losses(gamma: float, n: int = 30) -> World:
    """Losses of predictors less `gamma` times that of another, on 64 kinds of examples."""
    errors = kinds(64, 65, 0.5, 0.1)
    losses = errors[:, :-1] - gamma * errors[:, -1:]
    levels = (0.0, 1.0) if gamma == 1 else (0.0, 1 - gamma, 1.0)
    parts = {"second": losses**2}
    for mu in (0.0, 0.25):
        parts[f"plus{mu:g}"] = np.maximum(losses - mu, 0)
        parts[f"minus{mu:g}"] = np.maximum(mu - losses, 0)
    parts |= {f"level{j}": losses > level - 1e-9 for j, level in enumerate(levels)}

    def draw(rng: Generator, trials: int) -> Draws:
        frequency = rng.multinomial(n, np.full(64, 1 / 64), trials) / n
        seen = {name: frequency @ part for name, part in parts.items()}
        # The posteriors are those of losses moved into [0, 1].
        low, width = -gamma, 1 + gamma
        told = gibbs((frequency @ losses - low) / width, (losses.mean(0) - low) / width, n, **seen)
        told["loss"], told["truth"] = (low + width * told[name] for name in ("risk", "truth"))
        told["frequency"] = np.stack([told[f"level{j}"] for j in range(len(levels))], -1)
        return told

    return draw


def votes(rng: Generator, trials: int, n: int = 50) -> Draws:
    """Votes of 16 predictors on 8 kinds of examples: their errors are correlated."""
    errors, share = kinds(8, 16, 0.25, 0.65), np.arange(1, 9) / 36
    frequency = rng.multinomial(n, share, trials) / n
    weights, kl = posteriors(frequency @ errors, share @ errors, n)
    erring = weights @ errors.T.astype(float)
    pair = 2 * erring * (1 - erring)

    def seen(values: Any) -> Any:
        return (values @ frequency[:, :, None])[..., 0]

    told = {"risk": seen(erring), "tandem": seen(erring**2), "disagreement": seen(pair)}
    return told | {"n": n, "kl": kl, "truth": (erring >= HALF - 1e-12) @ share}


def ties(risks: Any, n: int) -> World:
    """A vote of one that never errs and one of many that do: where it errs, half of it does.

    No vote is worse for its Gibbs risk, its tandem loss or its disagreement: each bound on votes is
    an equality for their true values. Half of the prior is on the predictor that never errs.
    """
    risks = np.asarray(risks)

    def draw(rng: Generator, trials: int) -> Draws:
        seen = rng.binomial(n, risks, (trials, len(risks))) / n
        gap, doubt = risks - seen, excess(seen, risks, n)
        chosen = np.stack([seen.argmin(1), gap.argmax(1), doubt.argmax(1)], 1)
        rate = np.take_along_axis(seen, chosen, 1)
        told = {"risk": rate / 2, "tandem": rate / 4, "disagreement": rate / 2}
        return told | {"n": n, "kl": math.log(len(risks)) / 2, "truth": risks[chosen]}

    return draw


def types(rng: Generator, trials: int, n: int = 30, count: int = 32) -> Draws:
    """Errors of three types, being right among them, of independent predictors."""
    wrong = np.linspace(0.05, 0.3, count)
    truth = np.stack([wrong, wrong[::-1], 1 - wrong - wrong[::-1]], -1)
    seen = rng.multinomial(n, truth, (trials, count)) / n
    doubt = n * divergence(seen, truth)
    logs = np.stack([scale * doubt for scale in (0.25, 0.5, 1)], 1)
    weights = np.exp(logs - logs.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    weights = np.concatenate([weights, np.eye(count)[doubt.argmax(1)][:, None]], 1)
    kl = divergence(weights, np.array(1 / count))
    return {"n": n, "kl": kl, "distance": divergence(weights @ seen, weights @ truth)}


def parts(sharpness: float, per_part: int = 25, count: int = 16, steps: int = 3) -> World:
    """Three posteriors, each tilted by what flatters it on one more part of the sample."""
    risks = np.linspace(0.1, 0.5, count)

    def draw(rng: Generator, trials: int) -> Draws:
        losses = rng.random((trials, steps * per_part, count)) < risks
        weights = [np.full((trials, count), 1 / count)]
        told: Draws = {"frequency": [], "kl": [], "n": []}
        for t in range(steps):
            new = losses[:, t * per_part : (t + 1) * per_part].mean(1)
            tilted = weights[-1] * np.exp(sharpness * math.sqrt(per_part) * (risks - new))
            weights.append(tilted / tilted.sum(-1, keepdims=True))
            rest = losses[:, t * per_part :]
            one = drawn_losses(rng, weights[-1], rest)
            if t == 0:
                told["frequency"].append(one.mean(1))
            else:
                other = drawn_losses(rng, weights[-2], rest)
                events = (one | ~other, one, one & ~other)
                told["frequency"].append(np.stack([event.mean(1) for event in events], -1))
            told["kl"].append(divergence(weights[-1], weights[-2]))
            told["n"].append(rest.shape[1])
        return told | {"truth": weights[-1] @ risks}

    return draw


def pick(rng: Generator, weights: Any, count: int) -> Any:
    """Predictors (T, count) drawn independently from posteriors (T, H)."""
    below = np.cumsum(weights, -1)[:, None, :] < rng.random((len(weights), count, 1))
    return np.minimum(below.sum(-1), weights.shape[-1] - 1)


def drawn_losses(rng: Generator, weights: Any, losses: Any) -> Any:
    """Losses (T, n), each of a fresh predictor."""
    chosen = pick(rng, weights, losses.shape[1])
    return np.take_along_axis(losses, chosen[..., None], -1)[..., 0]


def one_draw(risks: Any, n: int) -> World:
    """One predictor drawn from each posterior of `posteriors`."""
    risks = np.asarray(risks)
    count = len(risks)

    def draw(rng: Generator, trials: int) -> Draws:
        seen = rng.binomial(n, risks, (trials, count)) / n
        weights, _ = posteriors(seen, risks, n)
        chosen = np.stack([pick(rng, q, 1)[:, 0] for q in weights.swapaxes(0, 1)], 1)
        told = {"n": n, "risk": np.take_along_axis(seen, chosen, 1), "truth": risks[chosen]}
        log_ratio = np.log(count * np.take_along_axis(weights, chosen[..., None], -1)[..., 0])
        moments = {a: ((count * weights) ** a).mean(-1) for a in ORDERS}
        renyi = {a: np.maximum(np.log(mean) / (a - 1), 0) for a, mean in moments.items()}
        return told | {"log_ratio": log_ratio, "renyi": renyi}

    return draw


def codes(lengths: Any, n: int = 20) -> World:
    """All predictors at once, each with the length of its code in nats."""
    risks = np.linspace(0.1, 0.6, len(lengths))

    def draw(rng: Generator, trials: int) -> Draws:
        seen = rng.binomial(n, risks, (trials, len(risks))) / n
        return {"n": n, "risk": seen, "nats": lengths, "truth": risks}

    return draw


def looks(risks: Any, n: int) -> World:
    """Counts of errors (T, n, H) of each predictor after every example."""
    risks = np.asarray(risks)

    def draw(rng: Generator, trials: int) -> Draws:
        errors = rng.random((trials, n, len(risks)), dtype=np.float32) < risks
        return {"n": n, "errors": errors.cumsum(1, dtype=np.int32), "truth": risks}

    return draw


def held_out(n: int = 20, errors: int = 2) -> World:
    """A fixed predictor at the risk where the exact bound fails just as often as it may."""
    upper = {d: clopper_pearson(errors, n, delta=d) + 1e-9 for d in DELTAS}

    def draw(rng: Generator, trials: int) -> Draws:
        below = {d: rng.binomial(n, p, trials) for d, p in upper.items()}
        return {"n": n, "errors": below, "truth": upper}

    return draw


def fixed(rng: Generator, trials: int, n: int = 40) -> Draws:
    """Losses of one fixed predictor: mostly .1, rarely 1."""
    often, rare = 0.1, 0.095
    losses = np.where(rng.random((trials, n)) < rare, 1.0, often)
    told = {"risk": losses.mean(1), "variance": losses.var(1, ddof=1)}
    return told | {"n": n, "truth": often + rare * (1 - often)}


def visited(rng: Generator, trials: int, n: int = 50) -> Draws:
    """One draw for each example of a fixed sample whose easy ones come first."""
    means = np.linspace(0.0, 0.5, n) ** 2
    return {"losses": (rng.random((trials, n)) < means).astype(float), "truth": means.mean()}


def visited_same(rng: Generator, trials: int, n: int = 50) -> Draws:
    """One draw for each example, all with one mean."""
    return {"losses": (rng.random((trials, n)) < 0.06).astype(float), "truth": 0.06}


def batches(sizes: Any) -> World:
    """A network for each batch, which errs on all of it or on none."""
    sizes = np.asarray(sizes)

    def draw(rng: Generator, trials: int) -> Draws:
        return {
            "sizes": sizes,
            "errors": sizes * (rng.random((trials, len(sizes))) < 0.2),
            "truth": 0.2,
        }

    return draw


def sampled(rng: Generator, trials: int, n: int = 2000) -> Draws:
    """A Gibbs risk that 20 networks estimate: some are good and some are bad."""
    risks = np.array([0.02, 0.02, 0.02, 0.9])
    seen = rng.binomial(n, risks, (trials, len(risks))) / n
    chosen = pick(rng, np.full(seen.shape, 1 / len(risks)), DRAWS)
    estimate = np.take_along_axis(seen, chosen, 1).mean(1)
    return {"n": n, "kl": 0.0, "risk": estimate, "truth": risks.mean()}


def layers(rng: Generator, trials: int, n: int = 50, bits: tuple[int, int] = (20, 10)) -> Draws:
    """The best on a sample of all networks of two layers of binary weights, all with risk 1/2.

    The posterior is on it alone. Of 2^30 independent counts of errors only the least is drawn.
    """
    least = -np.expm1(np.log1p(-rng.random(trials)) / 2.0 ** sum(bits))
    told = {"risk": binom.ppf(least, n, HALF) / n, "truth": HALF}
    return told | {"n": n, "kls": tuple(count * math.log(2) for count in bits)}


def contest(rng: Generator, trials: int, n: int = 100) -> Draws:
    """The best of 1,000 networks on the hold-out sample."""
    errors = rng.binomial(n, 0.3, (trials, BEST_OF)).min(1)
    return {"n": n, "errors": errors, "truth": 0.3}


def learned_prior(rng: Generator, trials: int, n: int = 20, count: int = 64) -> Draws:
    """A prior learned on four fifths of a sample, and posteriors that overfit the last fifth."""
    risks, before = np.linspace(0.1, 0.6, count), 4 * n
    first, last = (rng.binomial(k, risks, (trials, count)) / k for k in (before, n))
    prior = np.exp(-math.sqrt(before) * first)
    prior /= prior.sum(-1, keepdims=True)
    weights, kl = posteriors(last, risks, n, prior)
    told = {"n": n, "n_whole": before + n, "kl": kl}
    return told | {"risk": under(weights, last), "truth": under(weights, risks)}


WORLDS: dict[str, World] = {
    "one predictor, n = 5": coins([0.56], 5),
    "one predictor, n = 10": coins([0.14], 10),
    "one predictor, n = 50": coins([0.135], 50),
    "64 coins": coins(np.linspace(0.1, 0.6, 64), 20),
    "256 coins": coins(np.linspace(0.02, 0.5, 256), 200),
    "Beta losses": betas,
    "small variance": quiet,
    "excess losses": excess_losses(0.5),
    "excess losses, gamma 1": excess_losses(1.0),
    "votes": votes,
    "ties": ties(np.linspace(0.1, 0.6, 64), 30),
    "ties, one pair": ties([0.46], 10),
    "three types": types,
    "three parts": parts(1.0),
    "three parts, sharp": parts(4.0),
    "one draw": one_draw(np.linspace(0.1, 0.6, 64), 20),
    "one draw, one predictor": one_draw([0.68], 5),
    "equal codes": codes(np.full(64, math.log(64))),
    "unequal codes": codes(np.minimum(np.arange(1, 65), 63) * math.log(2)),
    "looks": looks([0.3], 500),
    "looks, 8 predictors": looks(np.linspace(0.1, 0.5, 8), 200),
    "hold-out": held_out(),
    "hold-out, rare errors": fixed,
    "draws": visited_same,
    "draws in order": visited,
    "equal batches": batches([10] * 20),
    "unequal batches": batches(np.arange(1, 31)),
    "20 networks": sampled,
    "two layers": layers,
    "best of 1,000": contest,
    "learned prior": learned_prior,
}
"""Name → world. Each claim of `bound_coverage` names one."""
