"""Networks: layers put together, with an analytic, a sampled and a deterministic pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from pbnn.functional import (
    Moments,
    expect_over_signs,
    gaussian_output,
    hard_sign,
    sample_signs,
    sign_patterns,
)
from pbnn.layers import SignLinear, xavier_normal

EXACT_UP_TO = 12
"""Hidden units up to which the sum over all sign patterns is the default."""

EXACT_AT_MOST = 20
"""Hidden units up to which the exact sum is possible at all: a million patterns a point."""

AGGREGATES = ("auto", "exact", "mean_field")


class PBGNet(nn.Module):
    r"""Binary-activated network with Gaussian weights and its PAC-Bayes aggregate.

    One network of the posterior is :math:`\operatorname{sgn}(w_2 \cdot \operatorname{sgn}(W_1 x))`;
    the aggregate is its expectation,

    .. math::
        F(x) = \sum_{s} \operatorname{erf}\Bigl(\frac{w_2 \cdot s}{\sqrt{2 d}}\Bigr)
               \prod_i \tfrac12 \bigl(1 + s_i F_i(x)\bigr), \qquad
        F_i(x) = \operatorname{erf}\Bigl(\frac{w_{1i} \cdot x}{\sqrt 2 \lVert x \rVert}\Bigr),

    and (1 − yF)/2 is the exact risk of a random network of the posterior on a point.

    Parameters
    ----------
    in_features : int
        Size of one flattened input.
    hidden : sequence of int
        Width of the hidden layer; empty for a single Gaussian unit, sgn(w · x).
    bias : bool
        Append a constant 1 to the input of each layer.
    aggregate : {"auto", "exact", "mean_field"}
        How `forward` computes F: the exact sum over the 2^h sign patterns, or the mean-field step
        (central limit theorem), which is a training surrogate and never certified. "auto" is exact
        up to 12 units.
    shift : Tensor or float
        Subtracted from every input; kept as a buffer. A statistic used here must not come from
        certification or test points.
    generator : torch.Generator
        A CPU generator for the prior means.
    dtype, device
        Of every parameter and buffer.

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

    shift: Tensor

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (10,),
        *,
        bias: bool = False,
        aggregate: str = "auto",
        shift: Tensor | float = 0.0,
        generator: torch.Generator,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_features, hidden)
        if aggregate not in AGGREGATES:
            raise ValueError(f"`aggregate` must be one of {AGGREGATES}, got {aggregate!r}.")
        if aggregate == "exact" and max(hidden, default=0) > EXACT_AT_MOST:
            raise ValueError(
                f"`hidden` must be at most {EXACT_AT_MOST} for the exact aggregate, "
                f"got {max(hidden)}."
            )
        self.in_features, self.bias, self.aggregate = in_features, bias, aggregate
        self.widths = tuple(map(int, hidden))
        options: dict[str, Any] = {"bias": bias, "generator": generator, "dtype": dtype}
        sizes = [in_features, *self.widths, 1]
        layers = [SignLinear(a, b, device=device, **options) for a, b in pairwise(sizes)]
        self.hidden, self.output = nn.ModuleList(layers[:-1]), layers[-1]
        dtype = self.output.weight.mean.dtype
        self.register_buffer("shift", _expand_shift(shift, in_features, dtype, device))

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
    def exact(self) -> bool:
        """Whether `forward` is the exact aggregate rather than the mean-field surrogate."""
        limit = {"auto": EXACT_UP_TO, "exact": EXACT_AT_MOST, "mean_field": 0}[self.aggregate]
        return self.widest <= limit

    @property
    def widest(self) -> int:
        """Width of the widest hidden layer; 0 without one."""
        return max(self.widths, default=0)

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
        return self.output.analytic(self.hidden_moments(x)).mean.squeeze(-1)

    def exact_aggregate(self, x: Tensor) -> Tensor:
        """F(x) summed over all sign patterns, whatever `aggregate` says; shape (n,)."""
        if not self.widths:
            return self.output.activation(self.features(x)).mean.squeeze(-1)
        return expect_over_signs(self.pattern_outputs(), self.hidden_moments(x).mean)

    def pattern_outputs(self) -> Tensor:
        """Output averaged over the last layer's weights, for each of the 2^h sign patterns."""
        mean = self.output.weight.mean
        patterns = sign_patterns(self.widths[-1], dtype=mean.dtype, device=mean.device)
        return gaussian_output(self.output.inputs(patterns), mean)

    def hidden_moments(self, x: Tensor) -> Moments:
        """Exact moments of the hidden signs, each (n, h): all that sampling needs of the input."""
        return self.layers()[0].activation(self.features(x))

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Outputs ±1 of one fresh network for every datum, shape (n,)."""
        if not self.widths:
            return sample_signs(self(x), generator)
        return sample_signs(self.sample_mean(self.hidden_moments(x).mean, generator), generator)

    def sample_mean(self, hidden_means: Tensor, generator: torch.Generator) -> Tensor:
        """One fresh hidden layer for every datum, the last layer averaged analytically.

        Takes the means of `hidden_moments`, so that many draws pass over the input once.
        """
        signs = sample_signs(hidden_means, generator)
        return gaussian_output(self.output.inputs(signs), self.output.weight.mean)

    def mode(self, x: Tensor) -> Tensor:
        """Outputs ±1 of the sign network at the posterior mean, shape (n,)."""
        x = self.features(x)
        for layer in self.layers():
            x = layer.mode(x)
        return x.squeeze(-1)

    def kl(self) -> Tensor:
        r"""KL(Q‖P) = ½ Σ_k ‖W_k − U_k‖² in nats, over all layers."""
        return torch.stack([layer.kl() for layer in self.layers()]).sum()

    def adopt_as_prior(self) -> None:
        """Make the current posterior the prior, as after training on the prior split."""
        for layer in self.layers():
            layer.weight.adopt_as_prior()

    def restart(self, generator: torch.Generator) -> None:
        """Redraw the posterior's starting point; the prior stays, so no confidence is spent."""
        for layer in self.layers():
            layer.restart(generator)


class MLP(nn.Module):
    """Real-valued baseline: tanh hidden layer, tanh output in [−1, 1], one hidden layer.

    Examples
    --------
    >>> MLP(4, hidden=(3,), generator=torch.Generator().manual_seed(0))(torch.ones(2, 4)).shape
    torch.Size([2])
    """

    shift: Tensor

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (100,),
        *,
        shift: Tensor | float = 0.0,
        generator: torch.Generator,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_features, hidden)
        if not hidden:
            raise ValueError("`hidden` must be the width of one hidden layer, got ().")
        self.in_features, self.width = in_features, int(hidden[0])
        make: dict[str, Any] = {"dtype": dtype, "device": device}
        self.hidden = nn.Parameter(xavier_normal(self.width, in_features, generator, **make))
        self.hidden_bias = nn.Parameter(torch.zeros(self.width, **make))
        self.output = nn.Parameter(xavier_normal(1, self.width, generator, **make))
        self.output_bias = nn.Parameter(torch.zeros(1, **make))
        self.register_buffer("shift", _expand_shift(shift, in_features, self.hidden.dtype, device))

    @property
    def config(self) -> dict[str, Any]:
        """What is needed to rebuild the network, as plain JSON values."""
        return {"in_features": self.in_features, "hidden": [self.width]}

    def forward(self, x: Tensor) -> Tensor:
        """Real output in [−1, 1], shape (n,)."""
        x = x.flatten(1) - self.shift
        hidden = torch.tanh(nn.functional.linear(x, self.hidden, self.hidden_bias))
        return torch.tanh(nn.functional.linear(hidden, self.output, self.output_bias)).squeeze(-1)

    def mode(self, x: Tensor) -> Tensor:
        """Predicted label ±1."""
        return hard_sign(self(x))


def check_sizes(in_features: int, hidden: Sequence[int]) -> None:
    """Refuse sizes that are no network."""
    if in_features < 1 or in_features != int(in_features):
        raise ValueError(f"`in_features` must be a positive integer, got {in_features}.")
    if not isinstance(hidden, Sequence):
        raise TypeError(f"`hidden` must be a sequence of widths such as (10,), got {hidden!r}.")
    if len(hidden) > 1 or any(width < 1 or width != int(width) for width in hidden):
        raise ValueError(
            f"`hidden` must be the width of at most one hidden layer, got {tuple(hidden)}."
        )


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


def _expand_shift(
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


NETWORKS: dict[str, type[PBGNet] | type[MLP]] = {"PBGNet": PBGNet, "MLP": MLP}
"""Network by the name a checkpoint gives."""
