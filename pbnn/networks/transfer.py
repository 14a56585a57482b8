"""From a pretrained real-valued network to the start of a stochastic one."""

from __future__ import annotations

import torch
from torch import nn

from pbnn.layers import StochasticBatchNorm
from pbnn.networks.blrnet import BLRNet
from pbnn.posteriors import BernoulliPosterior

WEIGHTED = (nn.Conv2d, nn.Linear)
NORMALISED = (nn.BatchNorm1d, nn.BatchNorm2d)


@torch.no_grad()
def transfer(model: nn.Module, network: BLRNet, limit: float = 0.9) -> None:
    r"""Start the posterior at the weights of a real-valued network of the same shape.

    .. math:: \theta = \operatorname{clip}(w / \operatorname{std}(w), -\text{limit}, \text{limit})

    layer by layer; Gaussian means are not clipped. The γ and β of a batch normalisation are taken
    over. Weights near ±1 matter: signals die out in a deep network of fair coins.

    Parameters
    ----------
    model : module
        Its convolutions and dense layers, in order, must have the shapes of the network's; biases
        are left behind, which loses nothing before a batch normalisation.
    network : BLRNet
        Changed in place; its prior is not.
    limit : float in (0, 1)

    Raises
    ------
    ValueError
        If layers do not match.

    References
    ----------
    Peters and Welling (2018), Section 3.5. https://arxiv.org/abs/1809.03368

    Examples
    --------
    >>> from pbnn.networks import BLRNet
    >>> network = BLRNet((1, 2, 2), "3FC-SM2", generator=torch.Generator())
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    >>> transfer(model, network)
    >>> bool(network.layers()[0].layer.weight.mean.abs().max() <= 0.9001)
    True
    """
    if not 0 < limit < 1:
        raise ValueError(f"`limit` must lie in (0, 1), got {limit}.")
    weights = [m.weight for m in model.modules() if isinstance(m, WEIGHTED)]
    norms = [m for m in model.modules() if isinstance(m, NORMALISED)]
    blocks = network.layers()
    ours = [block.layer.weight.prior_mean.shape for block in blocks]
    if [weight.shape for weight in weights] != ours:
        theirs = [tuple(weight.shape) for weight in weights]
        raise ValueError(f"`model` must have weights of {[*map(tuple, ours)]}, got {theirs}.")
    for block, weight in zip(blocks, weights, strict=True):
        mean = (weight / weight.std()).to(block.layer.weight.prior_mean)
        posterior = block.layer.weight
        if isinstance(posterior, BernoulliPosterior):
            posterior.half_logit.copy_(torch.atanh(mean.clamp(-limit, limit)))
        else:
            posterior.mean.copy_(mean)
    mine = [b.tail.norm for b in blocks if isinstance(b.tail.norm, StochasticBatchNorm)]
    if norms and len(norms) == len(mine):
        for norm, other in zip(mine, norms, strict=True):
            norm.gamma.copy_(other.weight)
            norm.beta.copy_(other.bias)
