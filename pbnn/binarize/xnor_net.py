"""XNOR-Net: signs times the mean magnitude of their filter."""

from __future__ import annotations

from torch import Tensor

from pbnn.binarize.binary_net import SignWeights
from pbnn.functional import hard_sign


def mean_magnitude(weight: Tensor) -> Tensor:
    r"""Mean magnitude of each filter, :math:`\alpha_o = \frac1n \sum_i |W_{oi}|`.

    The least-squares scale of the signs: :math:`\min_\alpha \lVert W_o - \alpha \operatorname{sgn}
    W_o \rVert^2`. Its gradient is :math:`\operatorname{sgn}(W_{oi})/n`, also at 0.

    Parameters
    ----------
    weight : Tensor, shape (outputs, ...)

    Returns
    -------
    Tensor, shape (outputs, 1, ...)

    Examples
    --------
    >>> import torch
    >>> mean_magnitude(torch.tensor([[1.0, -3.0], [0.5, 0.5]]))
    tensor([[2.0000],
            [0.5000]])
    """
    # Not |W|, whose gradient at 0 is that of torch.sign.
    return (weight * hard_sign(weight.detach())).mean(tuple(range(1, weight.ndim)), keepdim=True)


class XNORWeights(SignWeights):
    r"""Latent weights :math:`W \mapsto \alpha \operatorname{sgn} W`, with the gradient of both.

    .. math:: \frac{\partial L}{\partial W_i} = \frac1n \operatorname{sgn}(W_i)
        \sum_j g_j \operatorname{sgn}(W_j) + \alpha g_i 1[|W_i| \le 1]

    with the clipped slope. After each step the latents are centred over their input channels and
    clipped to [−1, 1].

    References
    ----------
    Rastegari, Ordonez, Redmon, Farhadi (2016). XNOR-Net, equation 6 and the released code.
    https://arxiv.org/abs/1603.05279
    """

    def scale(self, centred: Tensor) -> Tensor:
        """The mean magnitude of each filter, differentiable."""
        return mean_magnitude(centred)

    def after_step(self, weight: Tensor) -> None:
        """Centre over input channels, then clip."""
        if weight.shape[1] > 1:  # a single channel would be centred to nothing
            weight.sub_(weight.mean(1, keepdim=True))
        weight.clamp_(-1, 1)
