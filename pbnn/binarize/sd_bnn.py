"""SD-BNN: activations and weights that shift themselves before their signs are taken."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import skip_init

from pbnn.binarize.binary_net import SignWeights


class SelfDistribution(nn.Module):
    r"""ASD: a shift of each channel of each sample, made from the sample's channel means.

    .. math:: \beta(a) = \sigma(W_2 \operatorname{relu}(W_1 \operatorname{mean}(a)))

    and the signs are :math:`\operatorname{sgn}(a + \beta)`. As β lies about ½ at the start, it
    *unbalances*: of N(0, 1), 69% become +1. The centred variant, :math:`2\sigma - 1`, does not.

    Parameters
    ----------
    channels : int
    reduction : int
        r of W1 (channels/r × channels): 16 on CIFAR, 8 on ImageNet.
    centred : bool
        Whether β is 2σ − 1.
    generator : torch.Generator
        A CPU generator for W1 and W2 (uniform, as `torch.nn.Linear`).

    References
    ----------
    Xue, Lu, Chang, Wei, Wei (2021). Self-Distribution Binary Neural Networks.
    https://arxiv.org/abs/2103.02394

    Examples
    --------
    >>> shift = SelfDistribution(4, generator=torch.Generator().manual_seed(0))
    >>> shift(torch.zeros(2, 4, 5, 5))[0, :, 0, 0]
    tensor([0.5000, 0.5000, 0.5000, 0.5000], grad_fn=...)
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        centred: bool = False,
        generator: Generator,
    ) -> None:
        super().__init__()
        if reduction < 1:
            raise ValueError(f"`reduction` must be a positive integer, got {reduction}.")
        inner = max(1, channels // reduction)
        self.centred = centred
        self.squeeze = skip_init(nn.Linear, channels, inner, bias=False)
        self.excite = skip_init(nn.Linear, inner, channels, bias=False)
        with torch.no_grad():
            for layer in (self.squeeze, self.excite):
                limit = layer.in_features**-0.5
                layer.weight.uniform_(-limit, limit, generator=generator)

    def forward(self, a: Tensor) -> Tensor:
        """β of shape (n, channels, 1, ...), to be added to `a` of shape (n, channels, ...)."""
        means = a.flatten(2).mean(2) if a.ndim > 2 else a
        beta = self.excite(self.squeeze(means).relu()).sigmoid()
        beta = 2 * beta - 1 if self.centred else beta
        return beta.reshape(*beta.shape, *(1,) * (a.ndim - 2))


class WSDWeights(SignWeights):
    r"""WSD: :math:`\operatorname{sgn}(W_o + \sigma(\alpha_o)\, m_o)`, no scale.

    :math:`m_o = 0.01 \operatorname{mean} W_o` without a gradient, :math:`\alpha_o` trained from 0.
    As released it moves the weights by 0.5% of their mean and flips hardly a sign.

    References
    ----------
    Xue, Lu, Chang, Wei, Wei (2021), section 3.3 and the released code.
    https://arxiv.org/abs/2103.02394
    """

    def __init__(self, shape: torch.Size | tuple[int, ...], slope: nn.Module) -> None:
        super().__init__(shape, slope)
        self.alpha = nn.Parameter(torch.zeros(shape[0], *(1,) * (len(shape) - 1)))

    def centred(self, weight: Tensor) -> Tensor:
        """Weights with their shift."""
        mean = weight.detach().mean(tuple(range(1, weight.ndim)), keepdim=True)
        return weight + self.alpha.sigmoid() * (0.01 * mean)
