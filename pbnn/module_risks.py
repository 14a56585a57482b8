"""Errors of torch modules on the points of a loader, and their risks with weights drawn anew."""

from __future__ import annotations

import functools
import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pbnn.data import check_unseen
from pbnn.data.seen import row_hashes
from pbnn.evaluation import Risks
from pbnn.functional import hard_sign
from pbnn.networks import RandomisedModule, fingerprint
from pbnn.networks.checks import is_whole
from pbnn.networks.randomised import still
from pbnn.quadrature import UNIT_ROUNDOFF

Loader = Iterable[Any]
"""Gives pairs (x, y) of tensors of one length, the same points each time it is gone through."""
Predict = Callable[[Tensor], Tensor]

CLOSE = 1e-2
"""How far scores of a point may differ from batch to batch by rounding, relative to the largest."""
_CHANGED = (
    "`loader` must give the same points in every pass, without augmentation and with nothing left "
    "out, got others than the {} of the first."
)


@dataclass(frozen=True)
class Pass:
    """What one pass over a loader found.

    Attributes
    ----------
    sizes, errors : tuple of int
        Of each batch.
    points : str
        SHA-256 of the points and their labels, in whatever order.
    repeated : int
        Points that came before in this pass, with the same label; of a first pass alone.
    """

    sizes: tuple[int, ...]
    errors: tuple[int, ...]
    points: str
    repeated: int = 0

    @property
    def n(self) -> int:
        """Number of points."""
        return sum(self.sizes)


def points_hash(loader: Loader) -> str:
    """SHA-256 of the points of a loader and their labels, in whatever order and batches.

    The hash of a split that `pbnn.certify` asks for, of the prior's for example.

    Examples
    --------
    >>> x, y = torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 0])
    >>> points_hash([(x, y)]) == points_hash([(x[2:], y[2:]), (x[:2], y[:2])])
    True
    """
    with _own_randomness():
        return _digest(sum(_numbers(*each)) for each in _batches(loader))


@torch.no_grad()
def module_errors(
    model: nn.Module, loader: Loader, *, seen: Collection[str] = (), progress: bool = False
) -> Pass:
    """Errors of one deterministic module on the points of a loader.

    Parameters
    ----------
    model : module
        In evaluation mode on a copy. Gives scores (n, K) of K classes, of which the largest counts,
        or (n,) or (n, 1) of two, of which the sign does, 0 for the second.
    loader : iterable of (x, y)
        With classes 0, …, K − 1, or 0 and 1, or −1 and +1.
    seen : collection of str
        `pbnn.data.example_hashes` of points that must not come.
    progress : bool
        Whether to show a bar on a terminal.

    Raises
    ------
    ValueError
        If scores are not finite, or those of a point depend on the batch or on chance; if labels
        are none, a point is in `seen`, or there is no point; if a second pass, in which the model
        is not asked, gives other points.

    Examples
    --------
    >>> loader = [(torch.tensor([[1.0], [-2.0]]), torch.tensor([1, 1]))]
    >>> module_errors(torch.nn.Identity(), loader).errors
    (1,)
    """
    template = still(model)
    device = _device(template)
    with _own_randomness(device), _bar(loader, 1, progress) as step:
        found = _gone_through(loader, template, template, device, frozenset(seen), step)
        _check_again(loader, found)
    _warn_of_repeats(found)
    return found


@torch.no_grad()
def module_risks(
    network: RandomisedModule,
    loader: Loader,
    *,
    draws: int = 1000,
    generator: torch.Generator,
    seen: Collection[str] = (),
    progress: bool = False,
) -> tuple[Risks, str]:
    """Risk of a randomised module, with a network drawn for every batch of points.

    .. math:: \\hat r = \\frac1{Tn} \\sum_{t=1}^T \\sum_b \\sum_{i \\in b}
              \\mathbf 1[h_{t,b}(x_i) \\ne y_i], \\qquad h_{t,b} \\sim Q

    m is the number of networks. Small batches cost as many passes of points through a network for
    many more draws.

    Parameters
    ----------
    network : RandomisedModule
    loader : iterable of (x, y)
        As for `module_errors`, in batches of one size, of which the last may have fewer. The order
        may change from pass to pass; the points may not, so there must be no augmentation.
    draws : int
        Least number of networks, rounded up to whole passes. Fix it before looking.
    generator : torch.Generator
        For the weights, on the device of `network`; not the global one.
    seen, progress
        As for `module_errors`.

    Returns
    -------
    Risks
        `vote` and `tandem` are NaN: points are met in any order, so they are not known.
    str
        `points_hash` of the points.

    Raises
    ------
    ValueError
        As for `module_errors`; if the sizes of batches change from pass to pass.
    """
    if not is_whole(draws, 1):
        raise ValueError(f"`draws` must be a positive integer, got {draws}.")
    device = network.device
    if generator.device.type != device.type:
        raise ValueError(
            f"`generator` must be on the device of the module, {device}, got {generator.device}."
        )
    if any(generator is each for each in (torch.default_generator, *torch.cuda.default_generators)):
        raise ValueError(
            "`generator` must be one of its own, got the global one, which is put back after each "
            "look at the points: what is drawn next would be the same networks again."
        )
    fresh = functools.partial(network.sample, generator=generator)
    known = frozenset(seen)
    count = _batch_count(loader)
    expected = math.ceil(draws / count) if count else None
    with _own_randomness(device), _bar(loader, expected, progress) as step:
        passes = [_gone_through(loader, fresh, network.mode, device, known, step)]
        first = passes[0]
        _check_sizes(first.sizes)
        for _ in range(1, math.ceil(draws / len(first.sizes))):
            again = _gone_through(loader, fresh, None, device, frozenset(), step)
            if (again.sizes, again.points) != (first.sizes, first.points):
                raise ValueError(_CHANGED.format(first.n))
            passes.append(again)
        if len(passes) == 1:
            _check_again(loader, first)
    _warn_of_repeats(first)
    return _risks(network, passes), first.points


def _risks(network: RandomisedModule, passes: list[Pass]) -> Risks:
    first, group = passes[0], max(passes[0].sizes)
    counts = Counter(k for each in passes for k in each.errors)
    weights = sum(posterior.mean.numel() for posterior in network.posteriors())
    errors = sum(k * count for k, count in counts.items())
    return Risks(
        n=first.n,
        gibbs=errors / (first.n * len(passes)),
        tandem=math.nan,
        vote=math.nan,
        undecided=math.nan,
        draws=counts.total(),
        rounding=100 * weights * UNIT_ROUNDOFF,
        network=fingerprint(network),
        losses=tuple((k / group, count) for k, count in sorted(counts.items())),
        group=group,
    )


@contextmanager
def _own_randomness(device: torch.device | None = None) -> Iterator[None]:
    """Leave the global generators as they were: a loader takes a seed from them at each pass."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def _gone_through(
    loader: Loader,
    predict: Predict,
    mode: Predict | None,
    device: torch.device,
    seen: frozenset[str],
    step: Callable[[], object],
) -> Pass:
    """One pass; on its first batch `mode`, if any, is asked to be a function of a point."""
    sizes: list[int] = []
    errors: list[int] = []
    distinct: set[int] = set()
    total = 0
    for x, y in _batches(loader):
        if seen and not seen.isdisjoint(row_hashes(_array(x))):
            check_unseen(seen, _array(x))
        numbers = list(_numbers(x, y))
        total += sum(numbers)
        if mode is not None:
            distinct.update(numbers)
        x, y = x.to(device), y.to(device)
        if mode is not None and not sizes:
            _check_function(mode, x)
        sizes.append(len(y))
        errors.append(int(wrong_points(predict(x), y).sum()))
        step()
    repeated = sum(sizes) - len(distinct) if mode is not None else 0
    return Pass(tuple(sizes), tuple(errors), _digest([total]), repeated)


def _warn_of_repeats(found: Pass) -> None:
    """Of a sampler with replacement, or one that fills up its last batch: n would be too large."""
    if found.repeated:
        warnings.warn(
            f"{found.repeated} of the {found.n} points of `loader` came before in the same pass, "
            "with the same label. If the data have such twins by chance, the certificate holds; if "
            "the loader draws with replacement, or fills up batches, its n is too large.",
            stacklevel=4,  # past `no_grad`
        )


def _batches(loader: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    empty = True
    for batch in loader:
        pair = isinstance(batch, list | tuple) and len(batch) == 2
        if not pair or not all(isinstance(part, Tensor) for part in batch):
            raise TypeError(f"`loader` must give pairs of tensors, got {type(batch).__name__}.")
        x, y = batch
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if not x.ndim or y.shape != x.shape[:1]:
            got = f"{tuple(x.shape)} and {tuple(y.shape)}"
            raise ValueError(f"`loader` must give a label for each point, got shapes {got}.")
        if len(y):
            empty = False
            yield x, y
    if empty:
        raise ValueError("`loader` must give points each time it is gone through, got none.")


def wrong_points(scores: Tensor, y: Tensor) -> Tensor:
    """Which points are wrong, by the largest score or by the sign of the only one.

    Parameters
    ----------
    scores : Tensor, shape (n, K), (n, 1) or (n,)
        Finite.
    y : Tensor, shape (n,)
        Classes 0, …, K − 1 as integers; 0 and 1 or −1 and +1 for one score a point.

    Returns
    -------
    Tensor of bool, shape (n,)

    Raises
    ------
    ValueError
        If they are something else.

    Examples
    --------
    >>> wrong_points(torch.tensor([0.5, -1.0]), torch.tensor([0, 0]))
    tensor([ True, False])
    """
    if not isinstance(scores, Tensor) or scores.ndim not in (1, 2) or len(scores) != len(y):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"`model` must give scores of shape (n, K), (n, 1) or (n,), got {got}.")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("`model` must give finite scores, got NaN or infinity.")
    if scores.ndim == 2 and scores.shape[1] > 1:
        classes = scores.shape[1]
        if y.is_floating_point() or bool(((y < 0) | (y >= classes)).any()):
            raise ValueError(f"`y` must hold classes 0 to {classes - 1} as integers, got others.")
        return scores.argmax(1) != y
    if not any(bool(((y == low) | (y == 1)).all()) for low in (-1, 0)):
        raise ValueError("`y` must hold 0 and 1, or −1 and +1, for one score a point, got others.")
    return (hard_sign(scores.view(-1)) > 0) != (y > 0)


def _check_function(predict: Predict, x: Tensor) -> None:
    """Refuse what draws while it predicts, remembers, or looks at the other points of a batch."""
    states = _global_states(x.device)
    once, again, alone = predict(x), predict(x), predict(x[:1])
    if not isinstance(once, Tensor):
        return  # what it is, is refused where errors are counted
    drew = any(
        not torch.equal(*pair) for pair in zip(states, _global_states(x.device), strict=True)
    )
    slack = CLOSE * float(once.abs().nan_to_num().max())
    for first, other in ((once, again), (once[:1], alone)):
        same = first.shape == other.shape
        drew |= not same or bool(((first - other).abs() > slack).any())
    if drew:
        raise ValueError(
            "`model` must give a point the same scores each time and in any batch, got others: "
            "dropout or a draw that `eval()` does not end, or statistics of the batch."
        )


def _global_states(device: torch.device) -> list[Tensor]:
    states = [torch.random.get_rng_state()]
    return states + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def _check_again(loader: Loader, found: Pass) -> None:
    """Refuse points that are others the next time, where a single pass has asked networks."""
    if _digest(sum(_numbers(*each)) for each in _batches(loader)) != found.points:
        raise ValueError(_CHANGED.format(found.n))


def _check_sizes(sizes: tuple[int, ...]) -> None:
    if any(size != sizes[0] for size in sizes[:-1]) or sizes[-1] > sizes[0]:
        raise ValueError(
            "`loader` must give batches of one size, the last of which may have fewer points, got "
            f"{sizes[0]} and {next(size for size in sizes if size != sizes[0])}."
        )


def _array(x: Tensor) -> Any:
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def _numbers(x: Tensor, y: Tensor) -> Iterator[int]:
    """A number of 256 bits for each point and its label; sums of them do not see the order."""
    for row, label in zip(row_hashes(_array(x)), y.tolist(), strict=True):
        yield int(hashlib.sha256(f"{row} {float(label)!r}".encode()).hexdigest(), 16)


def _digest(numbers: Iterable[int]) -> str:
    return hashlib.sha256(f"{sum(numbers) % 2**256:064x}".encode()).hexdigest()


def _device(model: nn.Module) -> torch.device:
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def _batch_count(loader: Loader) -> int | None:
    """Batches of a pass, where a loader says so; one of a stream has a length that fails."""
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:
        return None


@contextmanager
def _bar(loader: Loader, passes: int | None, shown: bool) -> Iterator[Callable[[], object]]:
    """What moves a bar on by one batch, on a terminal."""
    if not shown:
        yield lambda: None
        return
    from tqdm.auto import tqdm

    count = _batch_count(loader)
    total = passes * count if passes and count else None
    with tqdm(total=total, desc="certify", unit="batch", leave=False, disable=None) as bar:
        yield bar.update
