"""Certificates of any torch module: with random weights, drawn once, or fixed beforehand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pbnn.bounds import maurer
from pbnn.certificates.complexity import kl_upper, log_ratio_upper
from pbnn.certificates.issue import certify_gibbs
from pbnn.certificates.known import certify_known, check_splits
from pbnn.certificates.statement import (
    SHARES,
    Budget,
    Certificate,
    Provenance,
    event_of,
)
from pbnn.module_risks import Loader, module_errors, module_risks
from pbnn.networks import RandomisedModule
from pbnn.networks.randomised import Deviation, module_fingerprint, origins, still

Predictor = Literal["randomised network", "drawn network", "fixed network"]


class Certified(NamedTuple):
    """A certificate, and the predictor that it is of.

    Attributes
    ----------
    certificate : Certificate
    test_error : float
        Error of the same predictor on the points of `test`; NaN without them. Of a randomised
        network an estimate from a fresh network for every batch.
    predictor : RandomisedModule or module
        What is certified: draw from the first, use the second as it is, a copy in evaluation mode.
    """

    certificate: Certificate
    test_error: float
    predictor: nn.Module


def certify(
    model: nn.Module,
    prior: nn.Module | Mapping[str, Tensor] | None,
    loader: Loader,
    provenance: Provenance,
    *,
    predictor: Predictor = "randomised network",
    deviation: Deviation | Sequence[float] | None = None,
    prior_deviation: Deviation | Sequence[float] | None = None,
    layers: str | Sequence[str] = "all",
    frozen_on: str | None = None,
    draws: int = 1000,
    generator: torch.Generator | None = None,
    budget: Budget | None = None,
    seen: Collection[str] = (),
    test: Loader | None = None,
    progress: bool = True,
) -> Certified:
    r"""Certify any torch module by points that its prior has not seen.

    .. math::
        \mathrm{kl}^+\bigl(r^+, (\mathrm{KL} + \ln(2\sqrt n/\delta_1))/n\bigr), \qquad
        \mathrm{KL} = \frac12 \sum_i \Bigl(\frac{(w_i - w_{0,i})^2}{\sigma_{0,i}^2}
        + \frac{\sigma_i^2}{\sigma_{0,i}^2} - 1 - \ln \frac{\sigma_i^2}{\sigma_{0,i}^2}\Bigr)

    bounds the error of the **randomised network**, fresh weights
    :math:`\mathcal N(w, \operatorname{diag} \sigma^2)` for each prediction, from m drawn networks
    (`pbnn.module_risks.module_risks`, whose step to :math:`r^+` has its own share of δ). A **drawn
    network** is one of them, drawn once: :math:`\ln \frac{dQ}{dP}` takes the place of KL
    (Rivasplata). A **fixed network** is `model` itself, which these points have not shaped: the
    binomial tail of its errors.

    Not from the points of `loader` may come: `prior`, :math:`\sigma_0`, the architecture,
    `layers`, `draws`, running statistics, and what of `model` is not random. From them may come:
    the random weights of `model`, and :math:`\sigma`. A prior that was chosen among c with them in
    sight is paid for by ``Budget(choices=c)``. Code sees what differs from the prior, a point that
    was seen, points that change from pass to pass, and, with a warning, that come twice in one; it
    cannot see when a prior was made, numbers that are neither parameters nor buffers, augmentation
    that is the same in each pass, nor whether points are independent.

    Parameters
    ----------
    model : module
        Left as it is, in whatever mode. Its answers are as for `pbnn.module_risks.module_errors`.
    prior : module, mapping of str to Tensor, or None
        :math:`w_0`: a module like `model`, or its `state_dict`, copied before `model` was trained.
        None for a fixed network.
    loader : iterable of (x, y)
        Batches of the n certification points and nothing else, without augmentation: a `DataLoader`
        or a list. Each point once in a pass, in any order; n is counted. A network is drawn for
        each batch.
    provenance : Provenance
        What the prior is and comes from, with the hashes of its splits (`points_hash`). That of the
        certification points is added where there is none.
    predictor : {"randomised network", "drawn network", "fixed network"}
        Which one is certified.
    deviation : float, Tensor, mapping of str to either, or sequence of float, optional
        :math:`\sigma`, for all random parameters or by name. Of a sequence the one of the least
        bound is taken, as a pass of its own shows whose draws are not used again. By default
        :math:`\sigma_0`.
    prior_deviation : float, Tensor, mapping of str to either, or sequence of float
        :math:`\sigma_0`, fixed beforehand. Of a sequence the one of the least KL is taken, and
        `choices` of the budget is multiplied by its length: a union bound.
    layers, frozen_on
        As for `pbnn.networks.RandomisedModule`.
    draws : int
        Least number of networks m, rounded up to whole passes.
    generator : torch.Generator
        For the weights, on the device of `model`, and not the global one; not needed for a fixed
        network. Never draw again because a certificate is bad.
    budget : Budget, optional
        By default δ = .05 and no choices: of the family "classes", whose rest is for one drawn
        network, or "deployed" for a drawn or a fixed one.
    seen : collection of str
        `pbnn.data.example_hashes` of the points behind the prior; one among `loader` is refused.
    test : iterable of (x, y), optional
        Points that nothing was chosen by.
    progress : bool
        Whether to show a bar on a terminal.

    Returns
    -------
    Certified

    Raises
    ------
    ValueError
        If an argument is outside its domain; as `RandomisedModule`, `module_risks` and
        `module_errors`; if running statistics are not of the prior's or the feature split; if that
        split is `loader`.

    References
    ----------
    A. Maurer (2004), "A note on the PAC Bayesian theorem", https://arxiv.org/abs/cs/0411099.
    G. Dziugaite, D. Roy (2017), "Computing nonvacuous generalization bounds for deep (stochastic)
    neural networks", https://arxiv.org/abs/1703.11008. M. Pérez-Ortiz, O. Rivasplata,
    J. Shawe-Taylor, C. Szepesvári (2021), "Tighter risk certificates for neural networks",
    https://arxiv.org/abs/2007.12911. O. Rivasplata et al. (2020), https://arxiv.org/abs/2006.13057.

    Examples
    --------
    >>> from pbnn.seeding import generator
    >>> x = torch.randn(500, 2, generator=generator(0, "points"))
    >>> y = (x[:, 0] > 0).long()
    >>> prior, model = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> _ = prior.load_state_dict({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)})
    >>> weight = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
    >>> _ = model.load_state_dict({"weight": weight, "bias": torch.zeros(2)})
    >>> loader = list(zip(x.split(5), y.split(5)))
    >>> origin = Provenance("zero", seed=0, splits={})
    >>> how = {"deviation": 0.2, "prior_deviation": (0.5, 1.0, 2.0)}
    >>> draws = generator(0, "weights")
    >>> found = certify(model, prior, loader, origin, **how, generator=draws)
    >>> found.certificate.predictor, found.certificate.n, found.certificate.budget.choices
    ('randomised network', 500, 3)
    >>> found.certificate.bound < 0.15
    True
    """
    given = {"prior": prior, "prior_deviation": prior_deviation, "generator": generator}
    _check_given(predictor, given, deviation)
    grid = _candidates(prior_deviation)
    budget = budget or Budget(choices=1, family=DEFAULTS[predictor])
    budget = dataclasses.replace(budget, choices=budget.choices * len(grid))
    _check_family(budget, predictor)
    check_splits(origins(model, frozen_on), provenance)
    look: dict[str, Any] = {"seen": seen, "progress": progress}
    if predictor == "fixed network":
        return _of_one(still(model), loader, test, budget, provenance, look, fixed=True)
    assert prior is not None
    assert generator is not None
    around: dict[str, Any] = {"layers": layers, "frozen_on": frozen_on}
    networks = [_nearest(model, prior, own, grid, around) for own in _candidates(deviation)]
    network = networks[0]
    if len(networks) > 1:
        network = min(networks, key=lambda one: _tried(one, loader, generator, budget, look))
    if predictor == "drawn network":
        drawn, price = _drawn(network, generator)
        return _of_one(drawn, loader, test, budget, provenance, look, log_ratio=price)
    risks, points = module_risks(network, loader, draws=draws, generator=generator, **look)
    certificate = certify_gibbs(network, risks, budget, _with_points(provenance, points))
    error = math.nan
    if test is not None:
        error = module_risks(network, test, draws=1, generator=generator)[0].gibbs
    return Certified(certificate, error, network)


DEFAULTS: dict[str, Literal["classes", "deployed"]] = {
    "randomised network": "classes",
    "drawn network": "deployed",
    "fixed network": "deployed",
}
"""Family of the budget of each predictor, where none is given."""


def _check_given(predictor: str, given: Mapping[str, Any], deviation: Any) -> None:
    """Refuse a predictor of no such name, and what it has no use for or lacks."""
    if predictor not in DEFAULTS:
        raise ValueError(f"`predictor` must be one of {sorted(DEFAULTS)}, got {predictor!r}.")
    if predictor == "fixed network":
        every = {**given, "deviation": deviation}
        if odd := [name for name, value in every.items() if value is not None]:
            raise ValueError(f"`{odd[0]}` must be None for a fixed network, got one.")
    elif odd := [name for name, value in given.items() if value is None]:
        raise ValueError(f"`{odd[0]}` must be given for a {predictor}, got None.")


def _check_family(budget: Budget, predictor: str) -> None:
    """Refuse a budget without a share for this predictor before the work begins."""
    exact = predictor != "randomised network"
    offers = {family: shares[exact] for family, shares in SHARES.items() if exact in shares}
    pays = [
        family
        for family, events in offers.items()
        if (event_of(predictor, events) if exact else "gibbs_draws") in events
    ]
    if budget.family not in pays:
        raise ValueError(f"`budget` must be of a family of {pays}, got {budget.family!r}.")
    budget.each()


def _nearest(
    model: nn.Module,
    prior: nn.Module | Mapping[str, Tensor],
    deviation: Any,
    grid: Sequence[Any],
    around: Mapping[str, Any],
) -> RandomisedModule:
    """The posterior beside the prior of the grid to which its divergence is least."""
    made = (
        RandomisedModule(model, prior, theirs if deviation is None else deviation, theirs, **around)
        for theirs in grid
    )
    return min(made, key=kl_upper)


def _drawn(network: RandomisedModule, generator: torch.Generator) -> tuple[nn.Module, float]:
    """One network, and ln dQ/dP of it in nats, rounded up."""
    weights = network.draw(generator)
    pairs = zip(network.posteriors(), weights, strict=True)
    price = math.fsum(log_ratio_upper(posterior, weight) for posterior, weight in pairs)
    return network.known(weights), math.nextafter(price, math.inf)


def _of_one(
    network: nn.Module,
    loader: Loader,
    test: Loader | None,
    budget: Budget,
    provenance: Provenance,
    look: Mapping[str, Any],
    **price: Any,
) -> Certified:
    """The certificate of one deterministic network."""
    found = module_errors(network, loader, **look)
    certificate = certify_known(
        module_fingerprint(network),
        sum(found.errors),
        found.n,
        budget,
        _with_points(provenance, found.points),
        **price,
    )
    error = math.nan
    if test is not None:
        tested = module_errors(network, test)
        error = sum(tested.errors) / tested.n
    return Certified(certificate, error, network)


def _tried(
    network: RandomisedModule,
    loader: Loader,
    generator: torch.Generator,
    budget: Budget,
    look: Mapping[str, Any],
) -> float:
    """A bound to choose by, from one pass whose draws are not used again."""
    risks, _ = module_risks(network, loader, draws=1, generator=generator, **look)
    return float(maurer(risks.gibbs, kl_upper(network), risks.n, delta=budget.each()))


def _candidates(given: Any) -> list[Any]:
    if isinstance(given, Sequence) and not len(given):
        raise ValueError("`deviation` and `prior_deviation` must have a candidate, got none.")
    return list(given) if isinstance(given, Sequence) else [given]


def _with_points(provenance: Provenance, points: str) -> Provenance:
    if odd := [name for name in ("prior", "feature") if provenance.splits.get(name) == points]:
        raise ValueError(f"`loader` must hold other points than the {odd[0]} split, got the same.")
    splits = {"certification": points} | provenance.splits
    return dataclasses.replace(provenance, splits=splits)
