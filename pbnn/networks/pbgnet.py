"""Two-class networks with a PAC-Bayes aggregate: the tree PBGNet and the chain ABNet."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from pbnn.functional import expect_over_signs, sample_signs, sign_patterns
from pbnn.layers import SignLinear
from pbnn.networks.sign_network import EXACT_UP_TO, SignNetwork


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
