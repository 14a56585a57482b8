"""Recipes: which weights, activations and gradient estimators go together, by paper or at will."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Generator, Size, Tensor, nn

from pbnn.binarize.abc_net import ABCActivation, ABCWeights, check_bases
from pbnn.binarize.bi_real_net import BiRealWeights, approx_sign
from pbnn.binarize.binary_net import (
    ClippedWeights,
    SignWeights,
    StochasticWeights,
    clipped,
    identity,
)
from pbnn.binarize.ir_net import EDE, LibraWeights
from pbnn.binarize.layers import BinaryActivation
from pbnn.binarize.noisy_supervision import learned_filters
from pbnn.binarize.react_net import RPReLU
from pbnn.binarize.sd_bnn import SelfDistribution, WSDWeights
from pbnn.binarize.unbalanced import Threshold, Window
from pbnn.binarize.xnor_net import XNORWeights
from pbnn.functional import gaussian_slope

Slope = Callable[[Tensor], Tensor]


def check_known(name: str, value: str, known: Iterable[str] | Mapping[str, Any]) -> None:
    """Refuse an unknown value, with those that resemble it."""
    names = list(known)
    if value not in names:
        written = str(value).lower().replace("-", "_")
        close = difflib.get_close_matches(written, names, n=3)
        listed = ", ".join(map(repr, names))
        hint = f"did you mean {' or '.join(close)}?" if close else f"one of {listed}."
        raise ValueError(f"`{name}` must be known, got {value!r}: {hint}")


ESTIMATORS: dict[str, Callable[[], Slope]] = {
    "identity": lambda: identity,
    "clipped": lambda: clipped,
    "window": Window,
    "approx_sign": lambda: approx_sign,
    "gaussian": lambda: gaussian_slope,
    "ede": EDE,
    "ede_slow": lambda: EDE(low=1e-3),
}
"""Gradient estimators by name; a call makes one, as some change over the training."""

WEIGHTS: dict[str, Callable[[Size, Any], SignWeights]] = {
    "sign": SignWeights,
    "clipped": ClippedWeights,
    "stochastic": StochasticWeights,
    "xnor": XNORWeights,
    "bi_real": BiRealWeights,
    "libra": LibraWeights,
    "wsd": WSDWeights,
    "abc": ABCWeights,
    "learned": learned_filters,
}
"""Weight binarisers by name."""

SHIFTS: dict[str, Callable[[int, Generator], nn.Module]] = {
    "asd": lambda channels, draw: SelfDistribution(channels, generator=draw),
    "asd_8": lambda channels, draw: SelfDistribution(channels, 8, generator=draw),
    "asd_centred": lambda channels, draw: SelfDistribution(channels, centred=True, generator=draw),
}
"""Shifts of activations that depend on them, by name."""


@dataclass(frozen=True)
class Recipe:
    """How a real-valued network becomes a binary one.

    Every field is free of the others, so that what a paper proposes can be tried apart.

    Parameters
    ----------
    weights : str
        One of `WEIGHTS`, or "real".
    weight_estimator, estimator : str
        Of `ESTIMATORS`, for the weights and for the activations.
    threshold : float
        Of all activations, before `shift`; with `trainable` where it starts.
    trainable : {"", "layer", "channel"}
        Whether a threshold is trained, and for whom.
    shift : str
        One of `SHIFTS`, or "".
    weight_bases : int
        M of "abc" weights, which have a gradient of their own; others have one.
    activation_bases : int, optional
        N of `ABCActivation`, with thresholds and a gradient of its own; one plain sign without.
    first, last : bool
        Whether the first layer's weights, and the last layer's weights and inputs, are binary too.
        The first layer's inputs are real.
    nonlinearity : {"identity", "hardtanh", "rprelu"}
        What takes the place of activations that are never negative, whose signs all are +1.
    padding_value : {0, −1, +1}
        Around images of signs.
    keep : tuple of str
        Patterns of `fnmatch` for names of layers that stay real.

    Raises
    ------
    ValueError
        For an unknown name, with those that resemble it.

    Examples
    --------
    >>> Recipe(weights="libra", estimator="ede", threshold=0.3).weights
    'libra'
    >>> Recipe(estimator="edee")
    Traceback (most recent call last):
    ValueError: `estimator` must be known, got 'edee': did you mean ede?
    """

    weights: str = "sign"
    weight_estimator: str = "clipped"
    estimator: str = "clipped"
    threshold: float = 0.0
    trainable: str = ""
    shift: str = ""
    weight_bases: int = 1
    activation_bases: int | None = None
    first: bool = False
    last: bool = False
    nonlinearity: str = "identity"
    padding_value: float = 0.0
    keep: tuple[str, ...] = ("*shortcut*",)

    def __post_init__(self) -> None:
        check_known("weights", self.weights, ("real", *WEIGHTS))
        check_known("weight_estimator", self.weight_estimator, ESTIMATORS)
        check_known("estimator", self.estimator, ESTIMATORS)
        check_known("shift", self.shift, ("", *SHIFTS))
        check_known("trainable", self.trainable, ("", "layer", "channel"))
        check_known("nonlinearity", self.nonlinearity, NONLINEARITIES)
        Threshold(self.threshold)
        check_bases("weight_bases", self.weight_bases)
        if self.weight_bases > 1 and self.weights != "abc":
            raise ValueError(f"`weight_bases` must be 1 for {self.weights!r} weights.")
        if self.activation_bases is not None:
            check_bases("activation_bases", self.activation_bases)
            if self.threshold or self.trainable or self.shift:
                raise ValueError("`activation_bases` have thresholds of their own, got others too.")
        if isinstance(self.keep, str):
            raise ValueError(f"`keep` must be a tuple of patterns, got {self.keep!r}.")
        if self.padding_value not in (-1, 0, 1):
            raise ValueError(f"`padding_value` must be −1, 0 or +1, got {self.padding_value}.")

    def binariser(self, weight: Tensor) -> SignWeights | None:
        """What makes signs of these weights."""
        if self.weights == "real":
            return None
        slope = ESTIMATORS[self.weight_estimator]()
        if self.weights == "abc":
            return ABCWeights(weight.shape, slope, self.weight_bases)  # type: ignore[arg-type]
        return WEIGHTS[self.weights](weight.shape, slope)

    def activation(self, channels: int, generator: Generator) -> BinaryActivation | ABCActivation:
        """What makes signs of so many channels."""
        if self.activation_bases is not None:
            return ABCActivation(self.activation_bases)
        shifts: list[nn.Module] = []
        if self.threshold or self.trainable:
            size = channels if self.trainable == "channel" else None
            trained = bool(self.trainable)
            shifts.append(Threshold(self.threshold, trainable=trained, channels=size))
        if self.shift:
            shifts.append(SHIFTS[self.shift](channels, generator))
        slope: Any = ESTIMATORS[self.estimator]()
        shift = Together(shifts) if len(shifts) > 1 else shifts[0] if shifts else None
        return BinaryActivation(slope, shift)

    def to_dict(self) -> dict[str, Any]:
        """The fields, for a key of a run; those of ABC-Net where they are used."""
        fields = dataclasses.asdict(self)
        usual = {"weight_bases": 1, "activation_bases": None}
        return {name: v for name, v in fields.items() if name not in usual or v != usual[name]}


class Together(nn.Module):
    """The sum of several shifts, each of the unshifted activations."""

    def __init__(self, shifts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.shifts = nn.ModuleList(shifts)

    def forward(self, x: Tensor) -> Tensor:
        """Of a shape that fits `x`."""
        total: Tensor = sum(shift(x) for shift in self.shifts)
        return total


NONLINEARITIES: dict[str, Callable[[int], nn.Module]] = {
    "identity": lambda channels: nn.Identity(),
    "hardtanh": lambda channels: nn.Hardtanh(),
    "rprelu": RPReLU,
}
"""What takes the place of activations that are never negative, by name; of so many channels."""

RECIPES: dict[str, Recipe] = {
    "binary_net": Recipe(weights="clipped"),
    "xnor_net": Recipe(weights="xnor"),
    "bi_real_net": Recipe(weights="bi_real", estimator="approx_sign"),
    "ir_net": Recipe(
        weights="libra", weight_estimator="ede", estimator="ede", nonlinearity="hardtanh"
    ),
    "sd_bnn": Recipe(
        weights="wsd",
        weight_estimator="ede",
        estimator="ede",
        shift="asd",
        nonlinearity="hardtanh",
    ),
    "sd_bnn_imagenet": Recipe(weights="wsd", estimator="approx_sign", shift="asd_8"),
    "unbalanced": Recipe(weights="xnor", threshold=0.3, trainable="channel"),
    "abc_net": Recipe(weights="abc", weight_bases=3, activation_bases=3),
    # Not clipped: its targets lie beyond ±1, and weights that reached them would learn no more.
    "noisy_supervision": Recipe(
        weights="learned", weight_estimator="identity", estimator="approx_sign"
    ),
    "react_net": Recipe(
        weights="bi_real", estimator="approx_sign", trainable="channel", nonlinearity="rprelu"
    ),
}
"""The systems by name: Hubara et al. (2016), Rastegari et al. (2016), Liu et al. (2018), Qin et al.
(2020), Xue et al. (2021) on CIFAR-10 and on ImageNet, Kim et al. (2021) on an XNOR-Net, Lin, Zhao,
Pan (2017), Han et al. (2020) on a Bi-Real-Net, Liu et al. (2020)."""


def recipe_named(recipe: str | Recipe) -> Recipe:
    """The recipe itself, or that of `RECIPES` with this name.

    Raises
    ------
    ValueError
        For an unknown name, with those that resemble it.
    """
    if isinstance(recipe, Recipe):
        return recipe
    check_known("recipe", recipe, RECIPES)
    return RECIPES[recipe]
