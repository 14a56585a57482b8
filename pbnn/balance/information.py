"""Entropy of signs and their information about classes, in bits, from counts."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def entropy(share: Tensor) -> Tensor:
    r"""Entropy of a sign in bits: :math:`-p \log_2 p - (1-p) \log_2 (1-p)`.

    Parameters
    ----------
    share : Tensor
        Probability p of +1, in [0, 1].

    Examples
    --------
    >>> entropy(torch.tensor([0.0, 0.5, 1.0]))
    tensor([0., 1., 0.])
    """
    nats = torch.special.entr(share) + torch.special.entr(1 - share)
    return nats / math.log(2)


def histogram_entropy(counts: Tensor) -> Tensor:
    r"""Plug-in entropy in bits of the last dimension's counts; 0 where there are none.

    Examples
    --------
    >>> histogram_entropy(torch.tensor([2.0, 1.0, 1.0]))
    tensor(1.5000)
    """
    total = counts.sum(-1, keepdim=True).clamp_min(1)
    return torch.special.entr(counts / total).sum(-1) / math.log(2)


def mutual_information(counts: Tensor, *, corrected: bool = True) -> Tensor:
    r"""Plug-in information between a sign and a class, in bits, from a table of counts.

    .. math:: \hat I = \hat H(b) + \hat H(Y) - \hat H(b, Y), \qquad
        \hat I - \frac{(|b| - 1)(|Y| - 1)}{2 N \ln 2}

    the second with the correction of Miller and Madow, where :math:`|\cdot|` counts the
    values that occur: of the pairs, :math:`|b||Y|`, as for independent ones. It may be below 0.

    Parameters
    ----------
    counts : Tensor, shape (..., classes, 2)
        How often each class met −1 and +1.
    corrected : bool
        Whether to subtract the bias.

    References
    ----------
    Miller (1955). Note on the bias of information estimates.

    Examples
    --------
    >>> mutual_information(torch.tensor([[50.0, 0.0], [0.0, 50.0]]), corrected=False)
    tensor(1.)
    """
    signs, classes = counts.sum(-2), counts.sum(-1)
    information = histogram_entropy(signs) + histogram_entropy(classes)
    information = information - histogram_entropy(counts.flatten(-2))
    if not corrected:
        return information
    freedom = ((signs > 0).sum(-1) - 1).clamp_min(0) * ((classes > 0).sum(-1) - 1).clamp_min(0)
    return information - freedom / (2 * math.log(2) * signs.sum(-1).clamp_min(1))


def shuffled_information(counts: Tensor, seed: int = 0) -> Tensor:
    """Information that is left in bits, corrected, when the classes are shuffled: the baseline.

    A shuffling keeps both margins of a table and makes it multivariate hypergeometric, so that its
    law is drawn from the margins alone, without a second look at the data. Counts of probabilities
    are rounded.

    Parameters
    ----------
    counts : Tensor, shape (..., classes, 2)
    seed : int
        Of the one shuffling that is drawn for each table.

    Examples
    --------
    >>> counts = torch.tensor([[500.0, 0.0], [0.0, 500.0]], dtype=torch.float64)
    >>> bool(shuffled_information(counts).abs() < 0.02)
    True
    """
    rng = np.random.default_rng(seed)
    tables = counts.detach().cpu().double().round().reshape(-1, *counts.shape[-2:]).numpy()
    classes = tables.sum(2).astype(np.int64)
    left, ones = classes.sum(1), tables[:, :, 1].sum(1).astype(np.int64)
    shuffled = np.empty(tables.shape)
    for place in range(tables.shape[1]):
        # Of the signs that are left, as many are drawn as the class has points.
        drawn = rng.hypergeometric(ones, left - ones, classes[:, place])
        shuffled[:, place, 1], shuffled[:, place, 0] = drawn, classes[:, place] - drawn
        left, ones = left - classes[:, place], ones - drawn
    table = torch.from_numpy(shuffled).reshape(counts.shape)
    return mutual_information(table).to(counts.device)
