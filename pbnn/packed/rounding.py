"""Scores of a stage by steps that are rounded one by one, as torch rounds them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pbnn.layers import StochasticBatchNorm
from pbnn.packed.layers import Scores
from pbnn.packed.stages import CONSTANT, Stage


def scores_of(stage: Stage, scale: float, whole: tuple[int, int] | None) -> Scores:
    """What makes scores of products, by steps that are rounded as the network's."""
    dtype = stage.weight.dtype
    steps: list[tuple[str, Tensor]] = []
    if scale != 1:
        steps.append(("mul", torch.full((stage.width,), scale, dtype=dtype)))
    steps += [("mul", stage.factor)] if stage.factor is not None else []
    steps += [("add", stage.bias)] if stage.bias is not None else []
    for module in stage.before:
        if isinstance(module, StochasticBatchNorm):
            factor = module.gamma * (module.running_var + module.eps).rsqrt()
            steps += [("sub", module.running_mean), ("mul", factor), ("add", module.beta)]
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            steps.append(("fma", _folded(stage, module)))
        elif not isinstance(module, (*CONSTANT, nn.Flatten)):
            kind = type(module).__name__
            raise ValueError(f"`network` must have plain scores at the end, got a {kind}.")
    made = Scores(
        tuple((name, value.detach().cpu().numpy().copy()) for name, value in steps),
        np.dtype(str(dtype).removeprefix("torch.")),
    )
    if whole is not None:
        # Of at most a million integers, evenly spread.
        low, high = whole
        every = torch.arange(low, high + 1, max(1, (high - low) // 10**6))
        for values in every.split(2**14):
            column = values[:, None].expand(-1, stage.width)
            images = column.to(dtype)[:, :, None, None]
            true = stage.chain(stage.before, stage.value(images, scale)).flatten(1)
            if not np.array_equal(made(column.numpy()), true.cpu().numpy()):
                warnings.warn(
                    f"Scores of {stage.name!r} differ from torch's in the last bit.", stacklevel=4
                )
                break
    return made


def _folded(stage: Stage, norm: Any) -> Tensor:
    """A factor and a summand of each channel that torch's normalisation multiplies and adds."""
    values = torch.linspace(-1000, 1000, 401, dtype=stage.weight.dtype)
    column = values[:, None].expand(-1, stage.width).contiguous()
    images = column[:, :, None, None]
    found = stage.chain([norm], images).flatten(1).cpu().numpy()
    summand = stage.chain([norm], torch.zeros_like(images[:1])).flatten()
    gamma = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
    spread = norm.running_var + norm.eps
    best: Tensor | None = None
    fewest = np.full(stage.width, len(values) + 1)
    for factor in (gamma * (1 / spread.sqrt()), gamma / spread.sqrt(), gamma * spread.rsqrt()):
        both = torch.stack([factor, summand])
        made = Scores((("fma", both.cpu().numpy()),), found.dtype)(column.cpu().numpy())
        wrong = (made != found).sum(0)
        best = both if best is None else torch.where(torch.as_tensor(wrong < fewest), both, best)
        fewest = np.minimum(wrong, fewest)
    assert best is not None
    return best
