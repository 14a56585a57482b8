"""ReActNet: a shift for each channel before and after a PReLU.

Its RSign is a trained threshold for each channel with the slope of Bi-Real-Net; its loss, the
distance to a real-valued teacher, is in `pbnn.distillation`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RPReLU(nn.Module):
    r"""PReLU with trained shifts: :math:`\operatorname{PReLU}_{a_c}(x + \gamma_c) + \zeta_c`.

    Shifts start at 0, the slopes a at ¼. Of vectors and of images: a channel is the second axis,
    which of a sequence it need not be.

    Parameters
    ----------
    channels : int

    References
    ----------
    Liu, Shen, Savvides, Cheng (2020). ReActNet, section 4.2. https://arxiv.org/abs/2003.03488

    Examples
    --------
    >>> RPReLU(2)(torch.tensor([[-1.0, 2.0]]))
    tensor([[-0.2500,  2.0000]], grad_fn=...)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"`channels` must be a positive integer, got {channels}.")
        self.before, self.after = (nn.Parameter(torch.zeros(channels)) for _ in range(2))
        self.slope = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`.

        Raises
        ------
        ValueError
            If `x` has other channels, or is neither of vectors nor of images.
        """
        if x.ndim not in (2, 4) or x.shape[1] != len(self.slope):
            raise ValueError(
                f"`x` must be of shape (n, {len(self.slope)}) or (n, {len(self.slope)}, height, "
                f"width), got {tuple(x.shape)}: if `convert` made this module, give it an "
                "`example` to see how many channels there are."
            )
        shape = (-1, *(1,) * (x.ndim - 2))
        return F.prelu(x + self.before.view(shape), self.slope) + self.after.view(shape)
