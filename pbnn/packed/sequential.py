"""Anytime ensembles of packed networks: members join until each example is decided."""

from __future__ import annotations

import dataclasses
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
        Of several members, drawn independently. A certificate is of the vote of all of them.
    x : array
        Inputs, as for `PackedNetwork.scores`.
    alpha : float in [0, 1)
    backend, threads
        As there.
    """
    x = np.asarray(x)

    signs = network.members[0][-1].geometry.width == 1

    def member(number: int) -> Any:
        def vote(rows: torch.Tensor) -> torch.Tensor:
            scores = network.scores(
                x[rows.numpy()], backend=backend, threads=threads, member=number
            )
            shares = probabilities(scores)
            # The first of a tie wins, which of labels is +1.
            return torch.from_numpy(shares[:, ::-1].copy() if signs else shares)

        return vote

    members = [member(number) for number in range(len(network.members))]
    answer = of_members(members, torch.arange(len(x)), alpha=alpha)
    if not signs:
        return answer
    labels, shares = 1 - 2 * answer.prediction, answer.probability.flip(1)
    return dataclasses.replace(answer, prediction=labels, probability=shares)
