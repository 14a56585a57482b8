"""From a posterior, a data set and its splits to a packed network, and the same once more."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pbnn.data import Splits, Task
from pbnn.layers import freeze_statistics, statistics_splits
from pbnn.networks import BLRNet
from pbnn.packed.certify import Check
from pbnn.packed.deployment import deployed
from pbnn.packed.network import PackedNetwork
from pbnn.packed.reading import pack
from pbnn.seeding import generator


def origin_of(task: Task, splits: Splits) -> tuple[str, NDArray[np.int64]]:
    """Hash and rows of the split that statistics come from: the prior's, or else the feature's."""
    part = "prior" if len(splits.prior) else "feature"
    return splits.hashes(task)[part], getattr(splits, part)


def trust_origin(network: BLRNet, task: Task, splits: Splits) -> None:
    """Batch normalisation that was never frozen becomes that of the split of `origin_of`.

    The caller's word: nothing shows where it was trained. What was frozen stays as it is.
    """
    if statistics_splits(network) == {None}:
        freeze_statistics(network, origin_of(task, splits)[0])


def made_of(
    network: BLRNet,
    task: Task,
    splits: Splits,
    predictor: Any,
    members: int,
    statistics_of: int,
    seed: int,
) -> PackedNetwork:
    """What is deployed of a posterior, packed."""
    split, rows = origin_of(task, splits)
    few = rows[:statistics_of]
    if network.config["batch_norm"] and len(few) < 2:
        raise ValueError(
            "`prior_share` or `feature_examples` must leave examples for the statistics of "
            f"batch normalisation, got {len(few)}."
        )
    x, draws = torch.from_numpy(task.x[few]), generator(seed, "deployed")
    made = deployed(network, predictor, x, split, draws, members=members)
    return pack(made, **bytes_of(task.x))


def made_again(packed: PackedNetwork, network: BLRNet, task: Task, splits: Splits) -> Check:
    """Whether the checkpoint, the splits and the seed give this very network.

    A checkpoint that is not frozen is taken at its maker's word, as when it was certified: that
    can show these bits to be its own, and promises nothing of where its normalisation comes from.
    """
    made = packed.data or {}
    seed = (packed.certificate or {}).get("provenance", {}).get("seed", 0)
    trust_origin(network, task, splits)
    try:
        how = (made["predictor"], made["members"], made["statistics_of"], seed)
        again = made_of(network, task, splits, *how)
    except (KeyError, TypeError, ValueError) as error:
        return Check("made again", False, f"the file does not say how: {error}")
    same = again.fingerprint() == packed.fingerprint()
    if same:
        return Check("made again", True, f"drawn and packed again, bit for bit (seed {seed})")
    signs = [network.export_bits() for network in (packed, again)]
    equal = signs[0].keys() == signs[1].keys() and all(
        np.array_equal(bits, signs[1][name]) for name, bits in signs[0].items()
    )
    told = "the same signs, other thresholds or scores" if equal else "other signs"
    return Check("made again", False, told)


def bytes_of(x: Any) -> dict[str, Any]:
    """How `pack` reads inputs: as bytes times 1/255 or 1/16, or as numbers where they are none."""
    for levels in (255, 16):
        if np.array_equal(x, (np.rint(x * levels) / levels).astype(x.dtype)) and x.min() >= 0:
            return {"input": "uint8", "scale": 1 / levels}
    return {"input": "real"}
