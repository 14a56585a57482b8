"""What networks of Gaussian weights and signs share: sizes, passes, KL."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from pbnn.functional import Signs, sample_signs
from pbnn.layers import SignLinear
from pbnn.networks.checks import check_sizes, expand_shift, is_real

EXACT_UP_TO = 12
"""Units of a layer up to which training by the exact aggregate is the default, and up to which the
patterns of an inner layer of a chain are enumerated."""

AGGREGATES = ("auto", "exact", "mean_field")


class SignNetwork(nn.Module, ABC):
    """What tree and chain share: layers of Gaussian weights followed by signs.

    Parameters
    ----------
    in_features : int
        Size of one flattened input.
    hidden : sequence of int
        Widths of the hidden layers; empty for a single Gaussian unit, sgn(w · x).
    bias : bool
        Append a constant 1 to the input of each layer.
    aggregate : {"auto", "exact", "mean_field"}
        How `forward` computes F: exactly, or by mean-field steps (central limit theorem, units of
        a layer taken as independent), which is a training surrogate and never certified. "auto"
        is exact up to 12 units a layer.
    shift : Tensor or float
        Subtracted from every input; kept as a buffer. A statistic used here must not come from
        certification or test points.
    prior_scale : float
        Factor of the Xavier-normal prior means; 0 for a prior that is centred.
    prior_bias : float
        Prior mean of the output's bias, which says how the labels lean before the data are seen.
    generator : torch.Generator
        A CPU generator for the prior means.
    dtype, device
        Of every parameter and buffer.
    """

    shift: Tensor
    posterior: str
    """What the posterior draws: "network", or "tree"."""

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (10,),
        *,
        bias: bool = False,
        aggregate: str = "auto",
        shift: Tensor | float = 0.0,
        prior_scale: float = 1.0,
        prior_bias: float = 0.0,
        generator: torch.Generator,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_features, hidden)
        if not isinstance(bias, bool):
            raise ValueError(f"`bias` must be True or False, got {bias!r}.")
        if not is_real(prior_scale, 0):
            raise ValueError(f"`prior_scale` must be a number of at least 0, got {prior_scale}.")
        if prior_bias and not bias:
            raise ValueError(f"`prior_bias` must be 0 without a bias, got {prior_bias}.")
        if aggregate not in AGGREGATES:
            raise ValueError(f"`aggregate` must be one of {AGGREGATES}, got {aggregate!r}.")
        self.in_features, self.bias, self.aggregate = in_features, bias, aggregate
        self.widths = tuple(map(int, hidden))
        if aggregate == "exact" and not self.summable:
            raise ValueError(
                f"`hidden` must have at most {EXACT_UP_TO} units in each layer but the last "
                f"for the exact aggregate of {type(self).__name__}, got {self.widths}."
            )
        options: dict[str, Any] = {
            "bias": bias,
            "scale": float(prior_scale),
            "generator": generator,
        }
        sizes = [in_features, *self.widths, 1]
        options |= {"dtype": dtype, "device": device}
        layers = [SignLinear(a, b, **options) for a, b in pairwise(sizes)]
        self.hidden, self.output = nn.ModuleList(layers[:-1]), layers[-1]
        self.prior_bias = float(prior_bias)
        self._lean(self.output.weight.mean.data)
        self._lean(self.output.weight.prior_mean)
        dtype = self.output.weight.mean.dtype
        self.register_buffer("shift", expand_shift(shift, in_features, dtype, device))

    @property
    def config(self) -> dict[str, Any]:
        """What is needed to rebuild the network, as plain JSON values."""
        return {
            "in_features": self.in_features,
            "hidden": list(self.widths),
            "bias": self.bias,
            "aggregate": self.aggregate,
        }

    @property
    def widest(self) -> int:
        """Width of the widest hidden layer; 0 without one."""
        return max(self.widths, default=0)

    @property
    def exact(self) -> bool:
        """Whether `forward` is the exact aggregate rather than the mean-field surrogate."""
        if self.aggregate == "auto":
            return self.widest <= EXACT_UP_TO
        return self.aggregate == "exact"

    @property
    @abstractmethod
    def summable(self) -> bool:
        """Whether `exact_aggregate` can be computed at all."""

    @abstractmethod
    def copies(self) -> list[int]:
        """How many independent copies of each layer one network of the posterior holds."""

    @abstractmethod
    def exact_map(self) -> Callable[[Tensor], Tensor]:
        """F, without sampling, as a function of the means that `hidden_moments` gives of points.

        What does not depend on the points is computed here, once.
        """

    @abstractmethod
    def sample_mean(self, hidden_means: Tensor, generator: torch.Generator) -> Tensor:
        """One fresh network for every datum, its last layer averaged analytically; shape (n,).

        Takes the means of `hidden_moments`, so that many draws pass over the input once.
        """

    def layers(self) -> list[SignLinear]:
        """All layers, from the input to the output."""
        return [*cast(Iterable[SignLinear], self.hidden), self.output]

    def features(self, x: Tensor) -> Tensor:
        """Inputs of shape (n, ...) flattened and shifted."""
        return x.flatten(1) - self.shift

    def forward(self, x: Tensor) -> Tensor:
        """The aggregate F(x) in [−1, 1], shape (n,): exact or mean-field, as `exact` says."""
        if self.exact:
            return self.exact_aggregate(x)
        moments = self.hidden_moments(x)
        for layer in self.layers()[1:]:
            moments = layer.analytic(moments)
        return moments.mean.squeeze(-1)

    def exact_aggregate(self, x: Tensor) -> Tensor:
        """F(x) without sampling, whatever `aggregate` says; shape (n,)."""
        return self.exact_map()(self.hidden_moments(x).mean)

    def hidden_moments(self, x: Tensor) -> Signs:
        """Exact moments of the first layer's signs: all that sampling needs of the input."""
        return self.layers()[0].activation(self.features(x))

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Outputs ±1 of one fresh network for every datum, shape (n,)."""
        means = self.hidden_moments(x).mean
        output = self.sample_mean(means, generator) if self.widths else means.squeeze(-1)
        return sample_signs(output, generator)

    def mode(self, x: Tensor) -> Tensor:
        """Outputs ±1 of the sign network at the posterior mean, shape (n,)."""
        x = self.features(x)
        for layer in self.layers():
            x = layer.mode(x)
        return x.squeeze(-1)

    def kl(self) -> Tensor:
        """KL(Q‖P) in nats, each layer's counted as often as the posterior holds a copy of it."""
        pairs = zip(self.copies(), self.layers(), strict=True)
        return torch.stack([copies * layer.kl() for copies, layer in pairs]).sum()

    def _lean(self, mean: Tensor) -> None:
        """Put the bias of the output at its prior mean."""
        if self.bias:
            mean[:, -1] = self.prior_bias

    def adopt_as_prior(self) -> None:
        """Make the current posterior the prior, as after training on the prior split."""
        for layer in self.layers():
            layer.weight.adopt_as_prior()

    def restart(self, generator: torch.Generator) -> None:
        """Redraw the posterior's starting point; the prior stays, so no confidence is spent."""
        for layer in self.layers():
            layer.restart(generator)
        self._lean(self.output.weight.mean.data)


def fingerprint(network: Any) -> str:
    """SHA-256 of what a module is: kind, `config` if any, parameters, buffers in float64."""
    digest = hashlib.sha256(type(network).__name__.encode())
    digest.update(
        json.dumps(getattr(network, "config", {}) | {"aggregate": ""}, sort_keys=True).encode()
    )
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()
