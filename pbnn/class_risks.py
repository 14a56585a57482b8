"""Risks of randomised networks of several classes: exact for read-outs, else from draws."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from pbnn.evaluation import Risks
from pbnn.functional import Moments, sample_positions
from pbnn.networks import BinaryNetwork, BLRNet, GaussianReadout, binarise, fingerprint
from pbnn.objectives import check_classes
from pbnn.posteriors import BernoulliPosterior
from pbnn.quadrature import UNIT_ROUNDOFF
from pbnn.scores import certified_step, probability_correct, probability_correct_error
from pbnn.seeding import copied

AT_ONCE = 500
"""Points in an intermediate table of nodes and classes."""


@torch.no_grad()
def readout_risks(readout: GaussianReadout, x: Tensor, y: Tensor) -> Risks:
    """Exact risks of a random read-out and of its vote, which is that of the mean weights.

    The vote of all networks is the class of the largest mean, as all scores have one variance.

    Parameters
    ----------
    readout : GaussianReadout
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)
        Classes, int64.
    """
    check_classes(x, y)
    readout = copy.deepcopy(readout).double()
    parts = [_exact(readout, *part) for part in _parts(x, y)]
    loss, rounding, gap = (torch.cat(values) for values in zip(*parts, strict=True))
    n = len(y)
    undecided = gap.abs() <= _gap_error(_largest(readout.weight.mean), x)
    return Risks(
        n=n,
        gibbs=float(loss.mean()),
        tandem=float(loss.square().mean()),
        vote=float(((gap <= 0) | undecided).double().mean()),
        undecided=float(undecided.double().mean()),
        draws=0,
        rounding=float(rounding.mean()) * (1 + 2 * n * UNIT_ROUNDOFF) + 2 * n * UNIT_ROUNDOFF,
        network=fingerprint(readout),
    )


@torch.no_grad()
def readout_errors(
    readout: GaussianReadout,
    x: Tensor,
    y: Tensor,
    *,
    weight: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Which points one known read-out gets wrong, or a fresh one for every point, in float64.

    A point whose lead rounding leaves open counts as an error.

    Parameters
    ----------
    readout : GaussianReadout
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)
    weight : Tensor, shape (classes, d), optional
        Of the one read-out.
    generator : torch.Generator, optional
        For a fresh read-out each: scores are then drawn from their joint law at that point, and the
        number of errors is binomial with the Gibbs risk, if posterior and points are independent.

    Returns
    -------
    Tensor of bool, shape (n,)
    """
    if (weight is None) == (generator is None):
        raise ValueError("`weight` or `generator` must be given, and not both.")
    check_classes(x, y)
    readout = copy.deepcopy(readout).double()
    known = readout.weight.mean if weight is None else weight.double()
    wrong = []
    for part, label in _parts(x, y):
        part = part.double()
        scores = part @ known.T
        if generator is not None:
            noise = torch.randn(
                scores.shape, generator=generator, dtype=torch.float64, device=x.device
            )
            scores = scores + readout(part).var.sqrt() * noise
        wrong.append(_lead(scores, label) <= _gap_error(_largest(known), part))
    return torch.cat(wrong)


def _lead(scores: Tensor, y: Tensor) -> Tensor:
    """By how much the label's score exceeds the largest other."""
    label = y[:, None]
    return scores.gather(1, label)[:, 0] - scores.scatter(1, label, -torch.inf).amax(1)


@torch.no_grad()
def drawn_risks(
    network: BLRNet, x: Tensor, y: Tensor, *, group: int, passes: int, generator: torch.Generator
) -> Risks:
    """Risk of a random network, with one deployed network drawn for every group of points.

    What is drawn is what `binarise` deploys, with the running statistics of its batch
    normalisation: they, γ and β must not come from these points. Weights are drawn in float64, so
    that the law of a draw is the posterior up to 100 · 2⁻⁵³ a weight, which `rounding` counts.

    Parameters
    ----------
    network : BLRNet
    x : Tensor, shape (n, channels, height, width)
    y : Tensor, shape (n,)
        Classes, int64.
    group : int
        Points that share a network; the last group of a pass may have fewer. Draws cost time, and
        points of one group tell less than those of many.
    passes : int
        Networks every point meets; fixed before looking.
    generator : torch.Generator
        On the device of the points.
    """
    check_classes(x, y)
    n = len(y)
    for name, value in (("group", group), ("passes", passes)):
        if value < 1:
            raise ValueError(f"`{name}` must be a positive integer, got {value}.")
    group = min(group, n)
    drawn = fresh_networks(network, generator)
    wrong = torch.zeros(passes, n, dtype=torch.bool, device=x.device)
    for once in wrong:
        for part, label, found in zip(
            x.split(group), y.split(group), once.split(group), strict=True
        ):
            found.copy_(next(drawn)(part).argmax(1) != label)
    return risks_of_draws(network, wrong, group)


def risks_of_draws(network: BLRNet, wrong: Tensor, group: int) -> Risks:
    """`Risks` of a random network from which points drawn networks get wrong.

    Parameters
    ----------
    network : BLRNet
        What was drawn from.
    wrong : Tensor of bool, shape (passes, n)
        With a network of its own for each group of points in each pass.
    group : int
        Points of a group; the last of a pass may have fewer.
    """
    parts = [each.sum(1) for each in wrong.split(group, dim=1)]
    errors = torch.cat(parts)
    counts = torch.bincount(errors, minlength=group + 1).tolist()
    share = wrong.double().mean(0)
    weights = sum(block.layer.weight.mean.numel() for block in network.layers())
    return Risks(
        n=wrong.shape[1],
        gibbs=float(share.mean()),
        tandem=float("nan"),
        vote=float((share >= 0.5).double().mean()),
        undecided=float("nan"),
        draws=len(errors),
        rounding=100 * weights * UNIT_ROUNDOFF,
        network=fingerprint(network),
        losses=tuple((k / group, count) for k, count in enumerate(counts) if count),
        group=group,
    )


@torch.no_grad()
def fresh_networks(network: BLRNet, generator: torch.Generator) -> Iterator[BinaryNetwork]:
    """Deployed networks drawn one after another from the posterior, without end.

    Of binary weights it is one network whose weights change: the signs that differ from the most
    probable ones are drawn by `sample_positions`, and put back before the next.
    """
    network = copied(network).eval()
    posteriors = [block.layer.weight for block in network.layers()]
    if not all(isinstance(posterior, BernoulliPosterior) for posterior in posteriors):
        dtype, precise = posteriors[0].mean.dtype, network.double()
        while True:
            yield binarise(precise, "sample", generator).to(dtype)
    drawn = binarise(network)
    chances = [p.chance_of_other() for p in posteriors if isinstance(p, BernoulliPosterior)]
    largest = [float(chance.max()) for chance in chances]
    flat = [block.weight.contiguous().view(-1) for block in drawn.layers()]
    for block, weight in zip(drawn.layers(), flat, strict=True):
        block.weight = weight.view(block.weight.shape)
    while True:
        pairs = zip(chances, largest, strict=True)
        others = [sample_positions(chance, generator, most) for chance, most in pairs]
        _flip(flat, others)
        yield drawn
        _flip(flat, others)


def _flip(weights: list[Tensor], positions: list[Tensor]) -> None:
    for weight, at in zip(weights, positions, strict=True):
        weight[at] = -weight[at]


def _parts(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True)


def _exact(readout: GaussianReadout, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each point: probability of an error, bound on its numerical error, lead of the label."""
    x = x.double()
    mean, var = readout(x)
    # One class against another is all that counts: in units of the deviation they share.
    deviation = var.sqrt()
    scores = Moments(mean / deviation, torch.ones_like(var))
    step = certified_step(scores, y)
    loss = 1 - probability_correct(scores, y, step)
    numerical = probability_correct_error(scores, y, step)
    return loss, numerical + _score_error(readout, x, deviation[:, 0]), _lead(mean, y)


def _gap_error(largest: Tensor, x: Tensor) -> Tensor:
    """Bound on the rounding of a difference of two scores of weights up to this norm.

    A dot product of d terms in float64 is off by at most d u Σ|wᵢxᵢ| ≤ d u ‖w‖‖x‖.
    """
    terms = x.shape[1] + 4
    return 2 * terms * UNIT_ROUNDOFF * largest * x.double().norm(dim=1) * (1 + 1e-6)


def _score_error(readout: GaussianReadout, x: Tensor, deviation: Tensor) -> Tensor:
    r"""Bound on what rounded scores change in the probability of an error, of each point.

    The arguments of Φ are leads over deviations. A lead is off as in `_gap_error`, by e; a
    deviation by a factor 1 ± (d/2 + 6) u, which moves Φ(a) by at most max|a φ(a)| < ¼ times as
    much. So each of the K − 1 factors is off by at most 0.4 e/σ + (d/2 + 6) u / 4; twice that is
    taken.
    """
    terms = x.shape[1] + 12
    lead = _gap_error(_largest(readout.weight.mean), x) / deviation
    return 2 * (readout.classes - 1) * (0.4 * lead + terms * UNIT_ROUNDOFF / 8)


def _largest(weight: Tensor) -> Tensor:
    """The largest norm of a class's weights."""
    return weight.norm(dim=1).max()
