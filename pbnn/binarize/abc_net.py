"""ABC-Net: real weights and activations as sums of several signs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pbnn.binarize.binary_net import SignWeights
from pbnn.binarize.layers import BinaryActivation
from pbnn.binarize.unbalanced import Threshold, Window
from pbnn.functional import hard_sign, straight_through

RIDGE = 1e-6
"""Relative to the number of weights, added to the diagonal of the normal equations: bases of many
levels are almost dependent."""


def check_bases(name: str, bases: int) -> None:
    """Refuse a number of bases that is no positive integer."""
    if isinstance(bases, bool) or not isinstance(bases, int) or bases < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {bases}.")


def base_shifts(bases: int) -> list[float]:
    r"""Where bases cut the weights, in standard deviations: :math:`u_m = -1 + 2\frac{m-1}{M-1}`.

    Examples
    --------
    >>> base_shifts(1), base_shifts(3)
    ([0.0], [-1.0, 0.0, 1.0])
    """
    check_bases("bases", bases)
    return [-1 + 2 * m / (bases - 1) for m in range(bases)] if bases > 1 else [0.0]


def weight_bases(weight: Tensor, bases: int) -> Tensor:
    r"""The signs :math:`B_m = \operatorname{sgn}(W - \bar W + u_m \operatorname{std} W)`.

    Parameters
    ----------
    weight : Tensor, shape (outputs, ...)
        Mean and (unbiased) standard deviation are those of the whole layer.
    bases : int
        M.

    Returns
    -------
    Tensor, shape (M, outputs, ...)

    Examples
    --------
    >>> weight_bases(torch.tensor([[-2.0, -0.1, 0.1, 2.0]]), 3)[:, 0]
    tensor([[-1., -1., -1.,  1.],
            [-1., -1.,  1.,  1.],
            [-1.,  1.,  1.,  1.]])
    """
    centred, spread = weight - weight.mean(), weight.std(correction=int(weight.numel() > 1))
    return torch.stack([hard_sign(centred + u * spread) for u in base_shifts(bases)])


def base_scales(weight: Tensor, signs: Tensor) -> Tensor:
    r"""Least-squares scales: :math:`\alpha = \arg\min \lVert W - \sum_m \alpha_m B_m \rVert^2`.

    By the normal equations with a ridge (`RIDGE`), in float64.

    Parameters
    ----------
    weight : Tensor
    signs : Tensor, shape (M, ...), each of the shape of `weight`

    Examples
    --------
    >>> weight = torch.tensor([[-3.0, -1.0, 1.0, 3.0]])
    >>> base_scales(weight, weight_bases(weight, 1))
    tensor([2.0000])
    """
    flat, target = signs.flatten(1).double(), weight.detach().flatten().double()
    gram = flat @ flat.T
    ridge = RIDGE * flat.shape[1] * torch.eye(len(flat), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, flat @ target).to(weight.dtype)


class ABCWeights(SignWeights):
    r"""Latent weights :math:`W \mapsto \sum_m \alpha_m B_m`, fitted anew at each forward pass.

    A convolution with the sum is the sum of M binary convolutions. The scales are held constant and
    :math:`\partial B_m/\partial W = 1`: the gradient is multiplied by :math:`\sum_m \alpha_m`.

    Parameters
    ----------
    shape, slope
        As for `SignWeights`; the slope is not used.
    bases : int
        M.

    References
    ----------
    Lin, Zhao, Pan (2017). Towards Accurate Binary Convolutional Neural Network, section 3.1.
    https://arxiv.org/abs/1711.11294
    """

    def __init__(
        self, shape: torch.Size | tuple[int, ...], slope: nn.Module, bases: int = 3
    ) -> None:
        super().__init__(shape, slope)
        self.bases = bases
        # Not needed, but of M numbers: a state of other bases does not fit.
        self.register_buffer("shifts", torch.tensor(base_shifts(bases)))

    def centred(self, weight: Tensor) -> Tensor:
        """What the middle one of the bases (of two, the lower) takes the signs of."""
        middle = base_shifts(self.bases)[(self.bases - 1) // 2]
        centred = weight - weight.mean()
        return centred + middle * weight.std() if middle else centred

    def parts(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """The sum of the bases, of the shape of `weight`, which has no scale."""
        with torch.no_grad():
            signs = weight_bases(weight, self.bases)
            scales = base_scales(weight, signs)
            total = torch.tensordot(scales, signs, dims=1)
        return straight_through(total, scales.sum() * weight), None


class ABCActivation(nn.Module):
    r"""Pre-activations :math:`x \mapsto \sum_n \beta_n H_{v_n}(x)` with trained shifts and scales.

    .. math:: H_v(x) = 2 \cdot 1[\operatorname{clip}(x + v, 0, 1) \ge \tfrac12] - 1
        = \operatorname{sgn}(x + v - \tfrac12)

    each with the gradient :math:`1[0 \le x + v \le 1]`. The shifts start evenly in [−½, ½] about
    ½ − v = 0, the scales at 1/N.

    Parameters
    ----------
    bases : int
        N.

    References
    ----------
    Lin, Zhao, Pan (2017), section 3.2. https://arxiv.org/abs/1711.11294

    Examples
    --------
    >>> ABCActivation(1)(torch.tensor([[-0.2, 0.0, 0.7]]))
    tensor([[-1.,  1.,  1.]], grad_fn=...)
    """

    def __init__(self, bases: int = 1) -> None:
        super().__init__()
        starts = [u / 2 for u in base_shifts(bases)]
        # x + v − ½ as a threshold ½ − v, whose window of half a unit either way is [0, 1] of x + v.
        self.bases = nn.ModuleList(
            BinaryActivation(Window(0.5), Threshold(start, trainable=True)) for start in starts
        )
        self.scales = nn.Parameter(torch.full((bases,), 1 / bases))

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        parts = [scale * base(x) for scale, base in zip(self.scales, self.bases, strict=True)]
        return torch.stack(parts).sum(0)
