"""Networks written down as in papers: 32C3-MP2-64C3-MP2-512FC-SM10."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

SMALL_IMAGES = "32C3-MP2-64C3-MP2-512FC-SM10"
"""Peters and Welling's network for MNIST."""

COLOUR_IMAGES = "2x128C3-MP2-2x256C3-MP2-2x512C3-MP2-1024FC-SM10"
"""Peters and Welling's network for CIFAR-10."""

MOST = 1000
"""Layers that a part may repeat."""


@dataclass(frozen=True)
class Pool:
    """A pooling of windows of size × size, "max" or "average"."""

    kind: str
    size: int


@dataclass(frozen=True)
class Stage:
    """A layer of weights and what follows it: width, size of its filters (0 if dense), pooling."""

    width: int
    kernel: int = 0
    pool: Pool | None = None


_LAYER = re.compile(r"(?:(\d+)[x×])?(\d+)(?:C(\d+)|FC)")
_POOL = re.compile(r"([MA])P(\d+)")
_OUTPUT = re.compile(r"SM(\d+)")


def parse(architecture: str) -> tuple[Stage, ...]:
    """The stages of an architecture, the last of which gives the scores of the classes.

    ``32C3`` is a convolution of 32 filters 3x3 that keeps the size of the image (odd sizes only),
    ``2x`` before it repeats it, ``MP2`` and ``AP2`` are maximum and average of windows 2x2,
    ``512FC`` is a dense layer, ``SM10`` the scores of ten classes.

    Raises
    ------
    TypeError
        For what is no text.
    ValueError
        Naming the part that is none of these or in the wrong place.

    Examples
    --------
    >>> parse("8C3-MP2-SM10")
    (Stage(width=8, kernel=3, pool=Pool(kind='max', size=2)), Stage(width=10, kernel=0, pool=None))
    """
    if not isinstance(architecture, str):
        raise TypeError(f"`architecture` must be a text, got a {type(architecture).__name__}.")
    *parts, last = architecture.split("-")
    stages: list[Stage] = []
    for part in parts:
        if layer := _LAYER.fullmatch(part):
            times, width, kernel = (int(number or 0) for number in layer.groups())
            stage = Stage(width, kernel)
            _check(width > 0 and (times > 0 or layer[1] is None), architecture, part)
            _check(times <= MOST, architecture, part)
            _check(kernel % 2 == 1 or layer[3] is None, architecture, part)
            _check(not (kernel and stages and not stages[-1].kernel), architecture, part)
            stages += [stage] * max(times, 1)
        else:
            pool = _POOL.fullmatch(part)
            _check(bool(pool and stages and stages[-1].kernel), architecture, part)
            assert pool is not None
            _check(int(pool[2]) > 0 and stages[-1].pool is None, architecture, part)
            kind = {"M": "max", "A": "average"}[pool[1]]
            stages[-1] = replace(stages[-1], pool=Pool(kind, int(pool[2])))
    output = _OUTPUT.fullmatch(last)
    _check(output is not None and int(output[1]) > 1, architecture, last)
    assert output is not None
    return (*stages, Stage(int(output[1])))


def _check(right: bool, architecture: str, part: str) -> None:
    if not right:
        raise ValueError(
            "`architecture` must be convolutions such as 32C3, each followed by at most one "
            "pooling such as MP2 or AP2, then dense layers such as 512FC, then SM10 for ten "
            f"classes; got {architecture!r} with {part!r}."
        )
