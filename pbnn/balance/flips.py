"""How many signs change from one look to the next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pbnn.balance.watching import evaluating, intercepted
from pbnn.balance.weights import has_signs


class Flips:
    """Share of weights, and of activations on a fixed probe batch, whose sign has changed.

    Look after each step or after each epoch: the ratio is that since the last look. It keeps one
    bit's truth value for each weight and for each activation of the probe.

    Parameters
    ----------
    model : Module
    probe : Tensor, optional
        Inputs, always the same; without, weights alone are looked at.

    Examples
    --------
    >>> from pbnn.backbones import mlp
    >>> from pbnn.binarize import convert
    >>> make = torch.Generator().manual_seed(0)
    >>> network = convert(mlp((1, 4, 4), (8, 8), generator=make), "binary_net").network
    >>> flips = Flips(network)
    >>> with torch.no_grad():
    ...     network[4].weight[0] *= -1
    >>> flips.look()
    {'weights': {'4': 0.125}, 'activations': {}}
    """

    def __init__(self, model: nn.Module, probe: Tensor | None = None) -> None:
        self.model, self.probe = model, probe
        self._seen = self._now()

    def look(self) -> dict[str, dict[str, float]]:
        """Ratios by layer since the last look, of ``weights`` and ``activations``."""
        now = self._now()
        ratios = {
            kind: {
                n: float((bits != self._seen[kind][n]).double().mean()) for n, bits in of.items()
            }
            for kind, of in now.items()
        }
        self._seen = now
        return ratios

    @torch.no_grad()
    def _now(self) -> dict[str, dict[str, Tensor]]:
        named = self.model.named_modules()
        weights = {name: module.signs() > 0 for name, module in named if has_signs(module)}
        activations: dict[str, Tensor] = {}

        def keep(name: str, _: nn.Module, __: Any, result: Any) -> None:
            activations[name] = (result if isinstance(result, Tensor) else result.mean) >= 0

        if self.probe is not None:
            with evaluating(self.model), intercepted(self.model, keep):
                self.model(self.probe)
        return {"weights": weights, "activations": activations}
