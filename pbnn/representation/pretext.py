"""Tasks without labels: which way an image was turned, and which cluster it belongs to."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from pbnn.objectives import Objective, WrappedObjective


def rotated(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    r"""Turn each image by 0, 90, 180 or 270 degrees, to the left, each with probability 1/4.

    Parameters
    ----------
    images : Tensor, shape (n, channels, side, side)
    generator : torch.Generator
        A CPU generator, so that every device sees the same turns.

    Returns
    -------
    images : Tensor, shape (n, channels, side, side)
    turns : Tensor, shape (n,)
        Quarters of a turn, the classes 0 to 3 as int64.

    Raises
    ------
    ValueError
        If the images are not square, or `images` is not four-dimensional.

    References
    ----------
    Gidaris, Singh, Komodakis (2018). Unsupervised representation learning by predicting image
    rotations. https://arxiv.org/abs/1803.07728

    Examples
    --------
    >>> images, turns = rotated(torch.rand(5, 1, 8, 8), torch.Generator())
    >>> images.shape, turns.dtype, bool((turns < 4).all())
    (torch.Size([5, 1, 8, 8]), torch.int64, True)
    """
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(
            f"`images` must have shape (n, channels, side, side), got {tuple(images.shape)}."
        )
    turns = torch.randint(4, (len(images),), generator=generator).to(images.device)
    turned = torch.empty_like(images)
    for turn in range(4):
        these = turns == turn
        turned[these] = images[these].rot90(turn, (2, 3))
    return turned, turns


class RotationObjective(WrappedObjective):
    """Another objective whose classes are the turns of its images; its labels are not looked at.

    Each image is turned anew in each batch (`rotated`).

    Parameters
    ----------
    objective : Objective
        Of a network with four scores.
    generator : torch.Generator
        A CPU generator for the turns.

    Examples
    --------
    >>> from pbnn.baselines import Classifier
    >>> from pbnn.objectives import RiskObjective
    >>> network = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 4)))
    >>> turning = RotationObjective(RiskObjective(network, "cross_entropy"), torch.Generator())
    >>> loss, risk = turning(torch.rand(5, 1, 3, 3), torch.zeros(5))
    """

    def __init__(self, objective: Objective, generator: Generator) -> None:
        super().__init__(objective)
        self.generator = generator

    def check(self, x: Tensor, y: Tensor) -> None:
        """Refuse points that cannot be turned; any labels do."""
        Objective.check(self, x, y)
        rotated(x[:1], Generator())
        # Any classes that turns may be; of the images all.
        self.objective.check(x, torch.arange(len(x), device=x.device) % 4)

    def forward(self, x: Tensor, y: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """The objective's loss and risk of turned images."""
        loss, risk = self.objective(*rotated(x, self.generator), kl_weight)
        return loss, risk


def clusters(features: Tensor, count: int, seed: int) -> Tensor:
    """Classes made of features alone, by k-means.

    Parameters
    ----------
    features : Tensor, shape (n, ...)
        What is alike; all but the first dimension counts as one.
    count : int
        How many classes, from 1 to n.
    seed : int in [0, 2**32)
        Of the first centres.

    Returns
    -------
    Tensor, shape (n,)
        int64, from 0, on the device of the features.

    Raises
    ------
    ValueError
        If `count` is outside its range.

    References
    ----------
    Caron, Bojanowski, Joulin, Douze (2018). Deep clustering for unsupervised learning of visual
    features. https://arxiv.org/abs/1807.05520

    Examples
    --------
    >>> found = clusters(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), 2, seed=0)
    >>> bool(found[0] == found[1]), bool(found[1] == found[2])
    (True, False)
    """
    if not 1 <= count <= len(features):
        raise ValueError(f"`count` must lie in [1, {len(features)}], got {count}.")
    from sklearn.cluster import KMeans

    points = features.detach().flatten(1).cpu().numpy()
    found = KMeans(count, n_init=1, random_state=seed).fit_predict(points)
    return torch.as_tensor(found, dtype=torch.int64, device=features.device)
