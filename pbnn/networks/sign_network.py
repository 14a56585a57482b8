"""Networks: layers put together, with an analytic, a sampled and a deterministic pass."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from pbnn.functional import (
    Moments,
    expect_over_signs,
    sample_signs,
    sign_patterns,
)
from pbnn.layers import SignLinear

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
        options: dict[str, Any] = {"bias": bias, "scale": prior_scale, "generator": generator}
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

    def hidden_moments(self, x: Tensor) -> Moments:
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


class PBGNet(SignNetwork):
    r"""Binary-activated network with Gaussian weights and its PAC-Bayes aggregate, a tree.

    With one hidden layer a network of the posterior is
    :math:`\operatorname{sgn}(w_2 \cdot \operatorname{sgn}(W_1 x))` and the aggregate is its
    expectation. With more, every unit has a copy of its own of all that is below it, which makes
    the units of a layer independent and the aggregate a recursion:

    .. math::
        F_1^j(x) = \operatorname{erf}\Bigl(\frac{w_1^j \cdot x}{\sqrt 2 \lVert x \rVert}\Bigr),
        \qquad
        F_{k+1}^j(x) = \sum_{s} \operatorname{erf}\Bigl(\frac{w_{k+1}^j \cdot s}{\sqrt{2 d_k}}
        \Bigr) \prod_i \tfrac12 \bigl(1 + s_i F_k^i(x)\bigr),

    .. math::
        \mathrm{KL} = \tfrac12 \sum_k d^\dagger_{k+1} \lVert W_k - U_k \rVert_F^2, \qquad
        d^\dagger_k = \prod_{i \ge k} d_i.

    (1 − yF)/2 is the exact risk of a random tree of the posterior on a point. Parameters are those
    of `SignNetwork`.

    References
    ----------
    Letarte, Germain, Guedj, Laviolette (2019). Dichotomize and Generalize: PAC-Bayesian Binary
    Activated Deep Neural Networks. NeurIPS. https://arxiv.org/abs/1905.10259

    Examples
    --------
    >>> net = PBGNet(2, hidden=(3,), generator=torch.Generator().manual_seed(0))
    >>> net(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).shape
    torch.Size([2])
    >>> net.kl().item()
    0.0
    """

    @property
    def posterior(self) -> str:  # type: ignore[override]
        """What the posterior draws: an ordinary network with up to one hidden layer."""
        return "tree" if len(self.widths) > 1 else "network"

    @property
    def summable(self) -> bool:
        """Always: each unit by enumeration or, with many inputs, by quadrature."""
        return True

    def copies(self) -> list[int]:
        r"""The factors :math:`d^\dagger_{k+1}` of the KL."""
        above = [*self.widths[1:], 1, 1] if self.widths else [1]
        return [math.prod(above[layer:]) for layer in range(len(self.widths) + 1)]

    def exact_map(self) -> Callable[[Tensor], Tensor]:
        """F as a function of the first layer's means, layer by layer."""

        def aggregate(means: Tensor) -> Tensor:
            for layer in self.layers()[1:]:
                means = layer.expected_signs(means)
            return means.squeeze(-1)

        return aggregate

    def sample_mean(self, hidden_means: Tensor, generator: torch.Generator) -> Tensor:
        """One fresh tree for every datum, the last layer averaged analytically."""
        n, width = hidden_means.shape
        copies = self.copies()
        signs = sample_signs(hidden_means[:, None].expand(n, copies[0], width), generator)
        for layer, above in zip(self.layers()[1:-1], copies[1:], strict=False):
            # Unit j of each of the copies above reads the j-th group of signs, which is its own.
            signs = signs.reshape(n, above, layer.out_features, layer.in_features)
            signs = sample_signs(layer.given_own_signs(signs), generator)
        return self.output.given_signs(signs[:, 0]).squeeze(-1)


class ABNet(SignNetwork):
    r"""Binary-activated network with Gaussian weights, one set of them shared by all units.

    The aggregate runs over the representations of the last hidden layer,

    .. math::
        P_1(s) = \prod_i \tfrac12 \Bigl(1 + s_i \operatorname{erf}
        \frac{w_1^i \cdot x}{\sqrt2 \lVert x \rVert}\Bigr), \quad
        P_{k+1}(s') = \sum_s P_k(s) \prod_j \tfrac12 \Bigl(1 + s'_j \operatorname{erf}
        \frac{w_{k+1}^j \cdot s}{\sqrt{2 d_k}}\Bigr),

    .. math::
        F(x) = \sum_s P_{L-1}(s) \operatorname{erf} \frac{w_L \cdot s}{\sqrt{2 d_{L-1}}}, \qquad
        \mathrm{KL} = \tfrac12 \sum_k \lVert W_k - U_k \rVert_F^2,

    and is computed from the output backwards, so that only the first layer's patterns meet the
    points. With one hidden layer it is `PBGNet`. Parameters are those of `SignNetwork`.

    References
    ----------
    Fortier-Dubois, Germain, Letarte, Laviolette (2021). PAC-Bayesian Learning of Aggregated Binary
    Activated Neural Networks with Probabilities over Representations.
    https://arxiv.org/abs/2110.15137

    Examples
    --------
    >>> net = ABNet(2, hidden=(3, 2), generator=torch.Generator().manual_seed(0))
    >>> net(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).shape
    torch.Size([2])
    """

    posterior = "network"

    @property
    def summable(self) -> bool:
        """Whether every hidden layer but the last is narrow enough to enumerate."""
        return max(self.widths[:-1], default=0) <= EXACT_UP_TO

    def copies(self) -> list[int]:
        """One of each layer."""
        return [1] * (len(self.widths) + 1)

    def exact_map(self) -> Callable[[Tensor], Tensor]:
        """F as a function of the first layer's means, from the output backwards."""
        if not self.summable:
            raise ValueError(f"`hidden` {self.widths} is too wide to sum over; sample it.")
        return _output_of(self.layers()[1:])

    def sample_mean(self, hidden_means: Tensor, generator: torch.Generator) -> Tensor:
        """One fresh chain for every datum, the last layer averaged analytically."""
        signs = sample_signs(hidden_means, generator)
        for layer in self.layers()[1:-1]:
            signs = sample_signs(layer.given_signs(signs), generator)
        return self.output.given_signs(signs).squeeze(-1)


def _output_of(layers: list[SignLinear]) -> Callable[[Tensor], Tensor]:
    """Expected output of the layers of a chain as a function of the means of their input signs."""
    if len(layers) <= 1:
        return lambda means: (layers[0].expected_signs(means) if layers else means).squeeze(-1)
    like = layers[0].weight.mean
    patterns = sign_patterns(layers[0].in_features, dtype=like.dtype, device=like.device)
    values = _output_of(layers[1:])(layers[0].given_signs(patterns))
    return functools.partial(expect_over_signs, values)


def fingerprint(network: SignNetwork) -> str:
    """SHA-256 of what a network is: its kind, sizes, posterior, prior and shift in float64."""
    digest = hashlib.sha256(type(network).__name__.encode())
    digest.update(json.dumps(network.config | {"aggregate": ""}, sort_keys=True).encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()


def check_sizes(in_features: int, hidden: Sequence[int]) -> None:
    """Refuse sizes that are no network."""
    if in_features < 1 or in_features != int(in_features):
        raise ValueError(f"`in_features` must be a positive integer, got {in_features}.")
    if not isinstance(hidden, Sequence):
        raise TypeError(f"`hidden` must be a sequence of widths such as (10,), got {hidden!r}.")
    if any(width < 1 or width != int(width) for width in hidden):
        raise ValueError(f"`hidden` must hold positive integer widths, got {tuple(hidden)}.")


def check_points(x: Tensor, y: Tensor) -> None:
    """Refuse points without finite inputs and a label ±1 each."""
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        got = f"{type(x).__name__} and {type(y).__name__}"
        raise TypeError(f"`x` and `y` must be torch tensors, got {got}.")
    if len(x) == 0 or y.shape != (len(x),):
        raise ValueError(
            f"`x` and `y` must have the same positive length, got {len(x)} points and labels of "
            f"shape {tuple(y.shape)}."
        )
    if not bool((y.abs() == 1).all()):
        raise ValueError("`y` must hold labels −1 and +1 only.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("`x` must be finite, got NaN or infinity.")


def expand_shift(
    shift: Tensor | float,
    in_features: int,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Tensor:
    """One shift for each input, from a number or a tensor of their size."""
    flat = torch.as_tensor(shift, dtype=dtype, device=device).flatten()
    if len(flat) not in (1, in_features):
        raise ValueError(f"`shift` must have 1 or {in_features} elements, got {len(flat)}.")
    return flat.expand(in_features).clone()
