"""Anytime ensembles of packed networks: members join until each example is decided."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pbnn.ensembles import AnytimePrediction
from pbnn.ensembles import anytime as of_members
from pbnn.packed.network import PackedNetwork
from pbnn.packed.votes import probabilities


def anytime(
    network: PackedNetwork, x: Any, *, alpha: float = 0.05, backend: str = "auto", threads: int = 1
) -> AnytimePrediction:
    """`pbnn.ensembles.anytime` of the members of a vote, whose order must be random.

    With probability 1 − alpha over their order the prediction is that of all of them.

    Parameters
    ----------
    network : PackedNetwork
        Of several members, drawn independently.
    x : array
        Inputs, as for `PackedNetwork.scores`.
    alpha : float in [0, 1)
    backend, threads
        As there.
    """
    x = np.asarray(x)

    def member(number: int) -> Any:
        def vote(rows: torch.Tensor) -> torch.Tensor:
            scores = network.scores(
                x[rows.numpy()], backend=backend, threads=threads, member=number
            )
            return torch.from_numpy(probabilities(scores))

        return vote

    members = [member(number) for number in range(len(network.members))]
    return of_members(members, torch.arange(len(x)), alpha=alpha)
