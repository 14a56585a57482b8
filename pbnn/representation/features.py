"""Features inside a network, and what a simple classifier makes of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbnn.binarize.layers import WEIGHTED, evaluating


def last_weights(network: nn.Module) -> str:
    """The name of the last dense layer or convolution that a network registers.

    Raises
    ------
    ValueError
        If there is none.
    """
    names = [name for name, module in network.named_modules() if isinstance(module, WEIGHTED)]
    if not names:
        raise ValueError("`network` must have dense layers or convolutions, got none.")
    return names[-1]


@contextlib.contextmanager
def captured(network: nn.Module, name: str) -> Iterator[dict[str, Tensor]]:
    """The last ``input`` and ``output`` of a module by its name, until the block ends."""
    try:
        layer = network.get_submodule(name)
    except AttributeError as error:
        names = [each for each, _ in network.named_modules() if each]
        raise ValueError(f"`name` must be one of {names}, got {name!r}.") from error
    seen: dict[str, Tensor] = {}

    def keep(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        seen.update(input=given[0], output=out)

    hook = layer.register_forward_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()


@torch.no_grad()
def features(
    network: nn.Module,
    x: Tensor,
    layer: str | None = None,
    *,
    batch: int = 500,
    side: int | None = None,
) -> Tensor:
    """What enters a layer, by default the last one with weights, in evaluation mode.

    Parameters
    ----------
    network : Module
    x : Tensor
    layer : str, optional
    batch : int
        Inputs at once. Sums of real numbers depend on it in their last bits.
    side : int, optional
        Average maps to so many positions either way.

    Returns
    -------
    Tensor, shape (n, numbers)
    """
    name = last_weights(network) if layer is None else layer
    parts = []
    with evaluating(network), captured(network, name) as seen:
        for part in x.split(batch):
            network(part)
            found = seen["input"]
            if side is not None and found.ndim == 4:
                found = F.adaptive_avg_pool2d(found, side)
            parts.append(found.flatten(1))
    return torch.cat(parts)


Pairs = tuple[Tensor, Tensor]
"""Features (n, numbers) and classes (n,)."""


def linear_probe(train: Pairs, test: Pairs, *, inverse_penalty: float = 1.0) -> float:
    """Accuracy of a logistic regression on standardised features.

    Parameters
    ----------
    train, test : (Tensor, Tensor)
    inverse_penalty : float
        scikit-learn's C.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=200, tol=1e-3)
    )
    return _accuracy(model, train, test)


def knn_probe(train: Pairs, test: Pairs, *, neighbours: int = 20) -> float:
    """Accuracy of the majority of the nearest neighbours by the angle between features."""
    from sklearn.neighbors import KNeighborsClassifier

    return _accuracy(KNeighborsClassifier(neighbours, metric="cosine"), train, test)


def _accuracy(model: object, train: Pairs, test: Pairs) -> float:
    (x, y), (points, labels) = ((a.cpu().numpy(), b.cpu().numpy()) for a, b in (train, test))
    return float(model.fit(x, y).score(points, labels))  # type: ignore[attr-defined]
