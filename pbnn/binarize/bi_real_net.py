"""Bi-Real-Net: a triangular slope, and weights that keep their filters' magnitude.

Its shortcut around every binary convolution belongs to the network: see `pbnn.backbones`.
"""

from __future__ import annotations

from torch import Tensor

from pbnn.binarize.binary_net import SignWeights
from pbnn.binarize.xnor_net import mean_magnitude


def approx_sign(x: Tensor) -> Tensor:
    r"""The slope of a piecewise quadratic sign: :math:`\max(0, 2 - 2|x|)`.

    References
    ----------
    Liu, Wu, Luo, Yang, Liu, Cheng (2018). Bi-Real Net, equation 9.
    https://arxiv.org/abs/1808.00278

    Examples
    --------
    >>> import torch
    >>> approx_sign(torch.tensor([-0.25, 0.0, 3.0]))
    tensor([1.5000, 2.0000, 0.0000])
    """
    return (2 - 2 * x.abs()).clamp_min_(0)


class BiRealWeights(SignWeights):
    r"""Latent weights :math:`W \mapsto \alpha \operatorname{sgn} W`, the scale held constant.

    :math:`\alpha` is the mean magnitude of a filter, and the gradient of the signs is multiplied by
    it: small filters take small steps.

    References
    ----------
    Liu, Wu, Luo, Yang, Liu, Cheng (2018). Bi-Real Net, section 3.3.
    https://arxiv.org/abs/1808.00278
    """

    def scale(self, centred: Tensor) -> Tensor:
        """The mean magnitude of each filter, without a gradient."""
        return mean_magnitude(centred.detach())
