"""Risks of the randomised network and of the vote, exact or from draws, in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pbnn.baselines import MLP
from pbnn.functional import SQRT_TWO_OVER_PI, hard_sign
from pbnn.layers import ENUMERATED_UP_TO, SignLinear
from pbnn.networks import EXACT_UP_TO, SignNetwork, check_points, fingerprint
from pbnn.quadrature import UNIT_ROUNDOFF, expected_sign_error, node_count
from pbnn.seeding import copied

CHUNK_NUMBERS = 250_000
"""Numbers in an intermediate table: 2 MB of float64, so that passes over it stay in the cache."""


@dataclass(frozen=True)
class Risks:
    """What a posterior does on a set of points.

    Attributes
    ----------
    n : int
        Number of points.
    gibbs : float
        Risk of a random network: the mean of (1 − yF)/2, exact or averaged over draws.
    tandem : float
        Probability that two independent random networks both err.
    vote : float
        Error of the aggregate's sign, a point whose sign rounding leaves open counting as an error;
        with draws, error of the sign of their average.
    undecided : float
        Share of points whose sign rounding or, with draws, four standard errors leave open.
    draws : int
        Independent draws behind `gibbs`; 0 if it is exact. The tandem risk has half as many.
    rounding : float
        Bound on the floating-point error of an exact `gibbs`, or of the probability with which a
        drawn network errs.
    network : str
        `pbnn.networks.fingerprint` of the network.
    losses : tuple of (loss, count)
        Of the draws, where points share a network in groups: errors over the size of a group.
    group : int
        That size; the last group of a pass over the points may have fewer.
    """

    n: int
    gibbs: float
    tandem: float
    vote: float
    undecided: float
    draws: int
    rounding: float
    network: str
    losses: tuple[tuple[float, int], ...] = ()
    group: int = 1


@torch.no_grad()
def risks(
    network: SignNetwork,
    x: Tensor,
    y: Tensor,
    *,
    draws: int = 1_000_000,
    generator: torch.Generator | None = None,
) -> Risks:
    """Risks of the randomised network and of its vote on points (x, y).

    Everything is summed exactly where that is possible: always for `PBGNet`, and for an `ABNet`
    whose hidden layers but the last have up to 12 units. Others are sampled: fresh hidden layers
    for every datum, twice a pass (the tandem risk needs two independent networks), the last layer
    averaged analytically.

    Parameters
    ----------
    network : SignNetwork
    x : Tensor, shape (n, ...)
    y : Tensor of ±1, shape (n,)
    draws : int
        Least number of draws where sampling is needed; rounded up to whole passes over the points.
        Fix it before looking.
    generator : torch.Generator, optional
        For the draws; required where sampling is needed, on the device of the points.
    """
    check_points(x, y)
    network = copied(network).double()
    y = y.double()
    if network.summable:
        return exact_risks(network, x, y)
    if generator is None:
        raise ValueError(f"`generator` is needed to sample hidden layers of {network.widths}.")
    if draws < 1:
        raise ValueError(f"`draws` must be a positive integer, got {draws}.")
    return sampled_risks(network, x, y, math.ceil(draws / (2 * len(x))), generator)


@torch.no_grad()
def exact_risks(network: SignNetwork, x: Tensor, y: Tensor) -> Risks:
    """Risks of a float64 network by its exact aggregate."""
    parts = chunks(len(x), max(network.in_features, *map(numbers_a_point, network.layers())))
    output = network.exact_map()
    means = (network.hidden_moments(x[part].double()).mean for part in parts)
    aggregate = torch.cat([output(each) for each in means])
    loss = (1 - y * aggregate) / 2
    rounding = rounding_error(network, len(x))
    open_sign = aggregate.abs() <= 2 * rounding
    return Risks(
        n=len(x),
        gibbs=mean(loss),
        tandem=mean(loss.square()),
        vote=mean(((y * aggregate < 0) | open_sign).double()),
        undecided=mean(open_sign.double()),
        draws=0,
        rounding=rounding,
        network=fingerprint(network),
    )


@torch.no_grad()
def sampled_risks(
    network: SignNetwork, x: Tensor, y: Tensor, passes: int, generator: torch.Generator
) -> Risks:
    """Risks of a float64 network from pairs of independent networks, `passes` pairs a datum."""
    gibbs, tandem, wrong, unclear = [], [], [], []
    for part in chunks(len(x), max(network.in_features, network.widest)):
        means, label = network.hidden_moments(x[part].double()).mean, y[part]
        total, squares, both = (torch.zeros_like(label) for _ in range(3))
        for _ in range(passes):
            first = network.sample_mean(means, generator)
            second = network.sample_mean(means, generator)
            total += first + second
            squares += first.square() + second.square()
            both += (1 - label * first) * (1 - label * second) / 4
        count = 2 * passes
        vote = total / count
        variance = (squares / count - vote.square()).clamp_min(0) / max(count - 1, 1)
        unclear.append(vote.abs() <= 4 * variance.sqrt())
        wrong.append(hard_sign(vote) != label)
        gibbs.append((1 - label * vote) / 2)
        tandem.append(both / passes)
    return Risks(
        n=len(x),
        gibbs=mean(torch.cat(gibbs)),
        tandem=mean(torch.cat(tandem)),
        vote=mean(torch.cat(wrong).double()),
        undecided=mean(torch.cat(unclear).double()),
        draws=2 * passes * len(x),
        rounding=rounding_error(network, len(x)),
        network=fingerprint(network),
    )


@torch.no_grad()
def errors_of_one_draw_each(
    network: SignNetwork, x: Tensor, y: Tensor, generator: torch.Generator
) -> int:
    """Errors when every point meets its own fresh network of the posterior.

    For a posterior fixed without these points the count is exactly binomial with the Gibbs risk.
    """
    check_points(x, y)
    network = copied(network).double()
    wrong = torch.zeros((), dtype=torch.int64, device=x.device)
    signs = max((c * w for c, w in zip(network.copies(), network.widths, strict=False)), default=1)
    for part in chunks(len(x), max(network.in_features, signs)):
        wrong += (network.sample(x[part].double(), generator) != y[part]).sum()
    return int(wrong)


@torch.no_grad()
def mode_error(network: SignNetwork | MLP, x: Tensor, y: Tensor) -> float:
    """Error of the deterministic sign network at the posterior mean."""
    check_points(x, y)
    return mean((network.mode(x) != y).double())


def rounding_error(network: SignNetwork, n: int) -> float:
    r"""Bound on the error of a float64 Gibbs risk, from the sizes and norms of the network.

    A unit's argument :math:`z = w \cdot x / \lVert x \rVert` of d terms is off by at most
    :math:`(2d + 8) u \lVert w \rVert` (u = 2⁻⁵³; dot product, norm, root and quotient), its mean
    erf(z/√2) by √(2/π) times that plus 4u; a sum over the 2^d patterns of its inputs adds 2^d u,
    and a quadrature the error that it states. The aggregate is multilinear in the means of the
    units with partial derivatives at most 1, so the errors of all units add up, once for each of
    their copies; a sampled network differs from an exact draw with at most the same probability.
    The mean over n points adds nu. Twice the sum is taken.
    """
    total = 0.0
    for place, (layer, copies) in enumerate(zip(network.layers(), network.copies(), strict=True)):
        weight = layer.weight.mean.detach().double()
        norm = float(weight.norm(dim=1).sum())
        per_unit = SQRT_TWO_OVER_PI * (2 * weight.shape[1] + 8) * UNIT_ROUNDOFF
        error = per_unit * norm + 8 * UNIT_ROUNDOFF * len(weight)
        if place:
            error += len(weight) * _error_of_sum(layer)
        total += copies * error
    return 2 * (total + n * UNIT_ROUNDOFF)


def _error_of_sum(layer: SignLinear) -> float:
    """Error of one unit's mean by the sum over its random input signs."""
    width = layer.in_features
    # A chain enumerates the patterns of inner layers that a unit's mean would not be summed over.
    enumerated = 2**width * UNIT_ROUNDOFF if width <= EXACT_UP_TO else 0.0
    if width <= ENUMERATED_UP_TO:
        return enumerated
    # The constant that carries a bias is one more input of the unit.
    return enumerated + expected_sign_error(layer.weight.mean.detach())


def numbers_a_point(layer: SignLinear) -> int:
    """Numbers in the largest table that a layer's exact sum makes of one point."""
    if layer.in_features > ENUMERATED_UP_TO:
        return layer.out_features * node_count(layer.weight.mean)
    return 2**layer.in_features


def chunks(n: int, numbers_a_point: int) -> Iterator[slice]:
    """Slices of 0…n that hold at most `CHUNK_NUMBERS` numbers each."""
    size = max(1, CHUNK_NUMBERS // numbers_a_point)
    return (slice(start, start + size) for start in range(0, n, size))


def mean(values: Tensor) -> float:
    """Mean of float64 values as a Python float."""
    return float(values.mean())
