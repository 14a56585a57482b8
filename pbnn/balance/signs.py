"""Statistics of a layer's signs, batch by batch, in memory that does not grow with the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pbnn.balance.information import (
    entropy,
    histogram_entropy,
    mutual_information,
    shuffled_information,
)

DEAD = 0.01
"""A channel is dead or saturated where the share of +1 is below this or above 1 minus this."""
CODES = 4096
"""Samples whose codes are told apart: the first ones."""
EXACT = 2**24
"""Up to here float32 counts exactly."""


class SignStatistics:
    """What a layer's signs, or the means of random ones, are like.

    Sums over samples are kept in float64, where counts are exact: batches of any size give the same
    figures.

    Parameters
    ----------
    classes : int
        Of labels; 0 to keep no statistics that need labels.
    full : bool
        Whether to keep what costs more than a few passes over the signs: information, correlations,
        codes.
    """

    def __init__(self, classes: int = 0, *, full: bool = True) -> None:
        self.classes, self.full = classes, full
        self.samples = 0
        self._sums: dict[str, Tensor] = {}
        self._codes: list[Tensor] = []
        self._numbers = self._units = 0
        self._shape: torch.Size | None = None

    def update(
        self,
        signs: Tensor,
        labels: Tensor | None = None,
        margin: Tensor | None = None,
        slope: Any = None,
    ) -> None:
        """Count a batch.

        Parameters
        ----------
        signs : Tensor, shape (n, channels, ...)
            ±1, or means in [−1, 1] of random signs.
        labels : Tensor of int, shape (n,), optional
            Classes, for the information.
        margin : Tensor, optional
            What the signs were taken of: threshold subtracted, shift added.
        slope : callable, optional
            The gradient estimator, evaluated at `margin`.
        """
        units = signs.detach().flatten(2) if signs.ndim > 2 else signs.detach().unsqueeze(2)
        if units.dtype in (torch.float16, torch.bfloat16):
            units = units.float()
        n, _, positions = units.shape
        if n == 0:
            return
        if self.full and self._shape not in (None, signs.shape[1:]):
            raise ValueError(
                f"`signs` must have the same shape in all batches, got {tuple(signs.shape[1:])}."
            )
        self._shape = signs.shape[1:]
        by_sample = units.sum(2).double()  # of ±1 exact
        share = (1 + by_sample.mean(1) / positions) / 2
        self._add("signs", by_sample.sum(0))
        self._add("shares", torch.stack([share.sum(), share.square().sum()]))
        if margin is not None:
            margin = margin.detach()
            self._add("alive", (margin.abs() <= 1).sum().double())
            if slope is not None:
                self._add("slope", slope(margin).sum(dtype=torch.float64))
            self._numbers += margin.numel()
        self.samples += n
        self._units += n * positions
        if self.full:
            self._update_full(units, labels)

    def _update_full(self, units: Tensor, labels: Tensor | None) -> None:
        n, channels, positions = units.shape
        if n * positions > EXACT or not _are_signs(units):
            units = units.double()
        rows = units.transpose(0, 1).reshape(channels, -1)
        self._add("products", (rows @ rows.T).double())
        flat = units.reshape(n, -1)
        if labels is not None and self.classes:
            member = nn.functional.one_hot(labels.long(), self.classes).to(flat)
            self._add("by_class", (member.T @ flat).double())
            self._add("class_sizes", member.sum(0).double())
        if (room := CODES - (self.samples - n)) > 0:
            # A sum of 64 random bits for each +1, modulo 2⁶⁴: equal codes have equal sums.
            source = torch.Generator().manual_seed(flat.shape[1])
            keys = torch.randint(-(2**63), 2**63 - 1, (flat.shape[1],), generator=source)
            ones = flat[:room] >= 0
            self._codes.append(torch.where(ones, keys.to(flat.device), 0).sum(1))

    def count_outputs(self, outputs: Tensor, largest: int, weight: Tensor) -> None:
        """Count the integers that signs of weights make of the signs.

        Parameters
        ----------
        outputs : Tensor, shape (n, filters, ...)
            Number of equal signs minus that of different ones.
        largest : int
            Their largest magnitude, the size of a filter.
        weight : Tensor, shape (filters, channels)
            Sums of a filter's signs by input channel.
        """
        levels = outputs.flatten(2) if outputs.ndim > 2 else outputs.unsqueeze(2)
        self._add("levels", torch.bincount((levels + largest).long().flatten(),
                                           minlength=2 * largest + 1).double())  # fmt: skip
        exact = levels.double()
        self._add("output", exact.sum((0, 2)))
        self._add("output_squares", exact.square().sum((0, 2)))
        self._weight, self._outputs_each = weight, levels.shape[2]

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name].add_(value) if name in self._sums else value.clone()

    @property
    def share(self) -> Tensor:
        """Share of +1 by channel, over samples and positions."""
        if not self.samples:
            raise ValueError("There are no signs to speak of: `update` first.")
        return (1 + self._sums["signs"] / self._units) / 2

    def channels(self) -> dict[str, list[float]]:
        """Figures by channel: share of +1, entropy in bits, information about the class."""
        figures = {"share": self.share, "entropy": entropy(self.share)}
        if (tables := self._tables()) is not None:
            by_unit = mutual_information(tables)
            figures["information"] = by_unit.reshape(len(self.share), -1).mean(1)
        return {name: value.tolist() for name, value in figures.items()}

    def layer(self) -> dict[str, float]:
        """Figures of the whole layer; see `pbnn.balance`."""
        share = self.share
        mean_sign = 2 * share - 1
        first, second = (self._sums["shares"] / self.samples).tolist()
        row = {
            "channels": len(share),
            "samples": self.samples,
            "share": share.mean(),
            "mean_sign": mean_sign.abs().mean(),
            "mean_sign_var": mean_sign.var(correction=0),
            "entropy": entropy(share).mean(),
            "entropy_pooled": entropy(share.mean()),
            "instance_std": max(0.0, second - first * first) ** 0.5,
            "dead": ((share < DEAD) | (share > 1 - DEAD)).double().mean(),
        }
        for name in ("alive", "slope"):
            if name in self._sums:
                row[name] = self._sums[name] / self._numbers
        if self.full:
            row |= self._redundancy()
        if (tables := self._tables()) is not None:
            row["information"] = mutual_information(tables).mean()
            row["information_plugin"] = mutual_information(tables, corrected=False).mean()
            row["information_shuffled"] = shuffled_information(tables).mean()
        if "levels" in self._sums:
            row |= self._outputs(mean_sign)
        return {name: float(value) for name, value in row.items()}

    def _tables(self) -> Tensor | None:
        """Counts (units, classes, 2): how often each class met −1 and +1."""
        if "by_class" not in self._sums:
            return None
        sums, sizes = self._sums["by_class"], self._sums["class_sizes"][:, None]
        return torch.stack([(sizes - sums) / 2, (sizes + sums) / 2], -1).transpose(0, 1)

    def _redundancy(self) -> dict[str, Tensor | float]:
        """Correlation between channels, effective rank, share of codes that occur once or more."""
        count = self._units
        mean = self._sums["signs"] / count
        covariance = self._sums["products"] / count - torch.outer(mean, mean)
        spread = covariance.diagonal().clamp_min(0).sqrt()
        live = spread > 1e-9
        codes = torch.cat(self._codes) if self._codes else torch.zeros(0)
        figures: dict[str, Tensor | float] = {
            "unique_codes": len(codes.unique()) / max(1, len(codes))
        }
        size = int(live.sum())
        if size < 2:
            return figures | {"correlation": float("nan"), "effective_rank": float(size)}
        correlation = (covariance[live][:, live] / torch.outer(spread[live], spread[live])).clamp(
            -1, 1
        )
        off = correlation.abs().sum() - correlation.diagonal().abs().sum()
        eigenvalues = torch.linalg.eigvalsh(correlation).clamp_min(0)
        weights = eigenvalues / eigenvalues.sum()
        return figures | {
            "correlation": off / (size * (size - 1)),
            "effective_rank": torch.special.entr(weights).sum().exp(),
        }

    def _outputs(self, mean_sign: Tensor) -> dict[str, Tensor]:
        """Entropy of the integer outputs, and how far the inputs' imbalance shifts them."""
        count = self.samples * self._outputs_each
        mean = self._sums["output"] / count
        spread = (self._sums["output_squares"] / count - mean.square()).clamp_min(0).sqrt()
        shift = (self._weight.double() @ mean_sign).abs()
        return {
            "output_entropy": histogram_entropy(self._sums["levels"]),
            "output_shift": (shift / spread.clamp_min(1e-9)).median(),
        }


def _are_signs(units: Tensor) -> bool:
    """Whether counts of these are exact in their own type: those of ±1 are."""
    return bool((units.abs() == 1).all())
