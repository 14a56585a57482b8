"""Recursive PAC-Bayes: a prior learned on one part of the data after another, none of them wasted.

`kl`, `n`, `delta` and `constant` are those of `maurer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pbnn.bounds._arrays import COST, COUNT, DOMAINS, PROBABILITY, Domain, Real, close, prepare
from pbnn.bounds.catalogue import catalogued
from pbnn.bounds.constants import log_constant
from pbnn.bounds.gibbs import GIBBS
from pbnn.bounds.kl import inverse
from pbnn.bounds.splitting import check_falling, entries_of

_GAMMAS: dict[int, Domain] = {
    2: (lambda x: x == 1, "must be 1 with two levels"),
    3: (lambda x: (x > 0) & (x <= 1), "must lie in (0, 1]"),
}


_RECURSIVE = (
    "losses of 0 or 1; n independent examples that neither the prior nor earlier posteriors depend "
    "on; for them it holds for every posterior at once, but for the draws, one fresh predictor an "
    "example, only for posteriors that were fixed before drawing"
)


@catalogued(
    "risk of a posterior less gamma times that of its prior",
    _RECURSIVE,
    "Wu et al. 2024, recursive PAC-Bayes",
    coverage="a step of `recursive`, which is simulated",
)
def recursive_excess(
    frequency: Real,
    kl: Real,
    n: Real,
    *,
    gamma: Real,
    steps: Real,
    delta: Real = 0.05,
    delta_mc: Real = 0.01,
    constant: str = "maurer",
    clip: bool = True,
) -> Real:
    r"""One step of `recursive`: how much worse a posterior is than `gamma` times its prior.

    .. math:: \mathcal{E} = -\gamma + \sum_{j=1}^{J} w_j\,\mathrm{kl}^{+}\!\left(
              \mathrm{kl}^{+}\!\left(\tilde F_j, \frac{\ln\frac{J T}{\delta'}}{n}\right),
              \frac{\mathrm{KL} + \ln\frac{2 J T \sqrt n}{\delta}}{n}\right)

    bounds :math:`R(Q) - \gamma R(P)`. For each example draw its own :math:`h \sim Q` and
    :math:`h' \sim P`: the excess loss :math:`\ell(h) - \gamma\,\ell(h')` takes the values
    :math:`-\gamma, 0, 1 - \gamma, 1`, with :math:`J = 3` rises
    :math:`w = (\gamma, 1 - \gamma, \gamma)`, or for :math:`\gamma = 1` the values -1, 0, 1 with
    :math:`J = 2` rises of 1. As :math:`h'` was drawn along with its example, only one KL divergence
    is paid, that from `P` to `Q`.

    With :math:`J T` events for the examples at :math:`\delta/JT` each, and as many for the draws at
    :math:`\delta'/JT`, all `T` steps hold together with probability at least
    :math:`1 - \delta - \delta'`. None of the three events of a step,

    .. math:: \tilde F_1 = 1 - \overline{(1 - \ell(h))\,\ell(h')}, \qquad
              \tilde F_2 = \overline{\ell(h)}, \qquad
              \tilde F_3 = \overline{\ell(h)\,(1 - \ell(h'))},

    involves :math:`\gamma`: with three levels `gamma` may be chosen after the data, with two it is
    1. The number of steps and of levels must not depend on the examples.

    Parameters
    ----------
    frequency : sequence of float, array or tensor
        How often, among the `n` examples with their draws, the excess loss was at least 0,
        :math:`1 - \gamma` and 1 (three levels), or at least 0 and 1 (two levels, for a `gamma` of
        1). A sequence, or the last axis of one array or tensor.
    kl : float, array or tensor
        KL divergence of `Q` from `P` in nats, at least 0.
    n : int, array or tensor
        Number of examples, each with one draw of :math:`(h, h')`; `P` must not depend on them.
    gamma : float, array or tensor
        Weight of the prior, in (0, 1].
    steps : int, array or tensor
        Number `T` of steps of the recursion, its first included.
    delta, delta_mc : float, array or tensor
        Probabilities that any of the `T` steps may fail by the examples, and by the draws.
    constant : {"maurer", "xi", "kt", "seeger", "union"}
        As for `maurer`; the draws keep it to the `n` at hand.
    clip : bool
        Whether to clip to [0, 1]. A gain is negative; then take ``clip=False``.

    Returns
    -------
    float, array or tensor
        The bound, of the broadcast shape, at most 1.

    Raises
    ------
    TypeError
        If `frequency` is one number.
    ValueError
        If an argument is outside its domain, there are not two or three frequencies, they
        increase, or shapes do not broadcast.

    References
    ----------
    Y.-S. Wu, Y. Zhang, B.-E. Cherief-Abdellatif, Y. Seldin (2024), "Recursive PAC-Bayes: a
    frequentist approach to sequential prior updates with no information loss", NeurIPS 37,
    https://arxiv.org/abs/2405.14681.

    Examples
    --------
    >>> step = {"gamma": 0.5, "steps": 2, "clip": False}
    >>> round(recursive_excess([0.95, 0.06, 0.02], 50.0, 10_000, **step), 6)
    0.061346
    """
    levels = _excess_levels("frequency", frequency)
    domains = {
        **dict.fromkeys(levels, PROBABILITY),
        "gamma": _GAMMAS[len(levels)],
        "steps": COUNT,
        "delta_mc": DOMAINS["delta"],
    }
    xp, given, finish = prepare(
        domains, **levels, kl=kl, n=n, gamma=gamma, steps=steps, delta=delta, delta_mc=delta_mc
    )
    *seen, kl, n, gamma, steps, delta, delta_mc = given
    check_falling(xp, "frequency", seen)
    value = _step(xp, seen, gamma, kl, n, delta / steps, delta_mc / steps, constant)
    return close(value, xp, finish, clip=clip)


@catalogued(GIBBS, _RECURSIVE, "Wu et al. 2024, recursive PAC-Bayes")
def recursive(
    frequency: Sequence[Real],
    kl: Sequence[Real],
    n: Sequence[Real],
    *,
    gamma: Sequence[Real],
    delta: Real = 0.05,
    delta_mc: Real = 0.01,
    constant: str = "maurer",
    clip: bool = True,
) -> Real:
    r"""Recursive PAC-Bayes: priors learned one from another, with no example wasted.

    .. math:: B_1 = \mathrm{kl}^{+}\!\left(
              \mathrm{kl}^{+}\!\left(\tilde F, \frac{\ln\frac{T}{\delta'}}{n_1}\right),
              \frac{\mathrm{KL}_1 + \ln\frac{2 T \sqrt{n_1}}{\delta}}{n_1}\right), \qquad
              B_t = \mathcal{E}_t + \gamma_t B_{t-1}.

    The examples come in `T` parts. The posterior :math:`Q_t` may depend on the first `t` parts, and
    is the prior of the next; its step is evaluated on parts `t` to `T`, which :math:`Q_{t-1}` has
    not seen. As :math:`R(Q_t) = [R(Q_t) - \gamma_t R(Q_{t-1})] + \gamma_t R(Q_{t-1})`, the sum of
    the `recursive_excess` :math:`\mathcal{E}_t` and of the bound before bounds the risk of
    :math:`Q_t`. Each step has its share :math:`\delta/T` and :math:`\delta'/T`, which the first
    spends on one event and the others on two or three each, so all `T` hold together.

    Parameters
    ----------
    frequency : sequence
        One entry a step: first how often the draws of :math:`Q_1` erred, in [0, 1], then the two
        or three frequencies of `recursive_excess`.
    kl : sequence of float, array or tensor
        KL divergence of each posterior from the one before, in nats.
    n : sequence of int, array or tensor
        Number of examples, each with its own draw, that each step was evaluated on.
    gamma : sequence of float, array or tensor
        Weights of the second and later steps, in (0, 1]: one less than there are steps.
    delta, delta_mc : float, array or tensor
        Probabilities that any step may fail by the examples, and by the draws.
    constant : {"maurer", "xi", "kt", "seeger", "union"}
        As for `maurer`; the draws keep it to the `n` at hand.
    clip : bool
        Whether to clip every :math:`B_t` to [0, 1].

    Returns
    -------
    float, array or tensor
        The bound :math:`B_T` on the Gibbs risk of the last posterior.

    Raises
    ------
    TypeError
        If a sequence is one number.
    ValueError
        If an argument is outside its domain or sequences have the wrong length.

    References
    ----------
    Y.-S. Wu, Y. Zhang, B.-E. Cherief-Abdellatif, Y. Seldin (2024), "Recursive PAC-Bayes: a
    frequentist approach to sequential prior updates with no information loss", NeurIPS 37,
    https://arxiv.org/abs/2405.14681.

    Examples
    --------
    >>> levels = [0.1, (0.98, 0.06, 0.01)]
    >>> round(recursive(levels, [50.0, 20.0], [10_000, 5_000], gamma=[0.5]), 6)
    0.140266
    """
    entries = entries_of("frequency", frequency)
    kls, sizes, weights = entries_of("kl", kl), entries_of("n", n), entries_of("gamma", gamma)
    steps = len(entries)
    if not steps:
        raise ValueError("`frequency` must have an entry for each step, got none.")
    for name, given, count in (
        ("kl", kls, steps),
        ("n", sizes, steps),
        ("gamma", weights, steps - 1),
    ):
        if len(given) != count:
            told = f"{count} entries for {steps} steps"
            raise ValueError(f"`{name}` must have {told}, got {len(given)}.")
    (name, first), *later = entries.items()
    groups = [{name: first}, *(_excess_levels(name, given) for name, given in later)]
    frequencies = {name: given for levels in groups for name, given in levels.items()}
    domains = {
        **dict.fromkeys(frequencies, PROBABILITY),
        **dict.fromkeys(kls, COST),
        **dict.fromkeys(sizes, COUNT),
        **{name: _GAMMAS[len(levels)] for name, levels in zip(weights, groups[1:], strict=True)},
        "delta_mc": DOMAINS["delta"],
    }
    inputs = {**frequencies, **kls, **sizes, **weights, "delta": delta, "delta_mc": delta_mc}
    xp, values, finish = prepare(domains, **inputs)
    value = dict(zip(inputs, values, strict=True))
    bound = 0.0 * value["n[0]"]
    for t, levels in enumerate(groups):
        seen = [value[name] for name in levels]
        check_falling(xp, f"frequency[{t}]", seen)
        weight = value[f"gamma[{t - 1}]"] if t else 0.0 * value["n[0]"]
        share, share_mc = value["delta"] / steps, value["delta_mc"] / steps
        kl, n = value[f"kl[{t}]"], value[f"n[{t}]"]
        bound = _step(xp, seen, weight, kl, n, share, share_mc, constant) + weight * bound
        bound = xp.clip(bound, 0.0, 1.0) if clip else bound
    return finish(bound)


def _step(
    xp: Any, seen: Sequence[Any], gamma: Any, kl: Any, n: Any, delta: Any, mc: Any, constant: str
) -> Any:
    """Bound on the mean of l - gamma l', from how often it was at least each of its values."""
    events = len(seen)
    drawn = -xp.log(mc / events) / n
    budget = (kl + log_constant(xp, n, delta / events, constant)) / n
    # The first step has no prior to compare with: of three rises, one remains for gamma = 0.
    rises = {1: [1 - gamma], 2: [gamma] * 2, 3: [gamma, 1 - gamma, gamma]}[events]
    terms = (
        w * inverse(xp, inverse(xp, f, drawn), budget) for f, w in zip(seen, rises, strict=True)
    )
    return sum(terms, -gamma)


def _excess_levels(name: str, given: Real) -> dict[str, Real]:
    levels = entries_of(name, given)
    if len(levels) not in _GAMMAS:
        raise ValueError(f"`{name}` must have two or three levels, got {len(levels)}.")
    return levels
