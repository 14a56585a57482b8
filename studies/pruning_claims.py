"""The claims of the study of pruning: whose masks serve, what they share, what is transferred."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from claims import claim

SYSTEM = "pruning"
SPARSE = (0.8, 0.9)
"""Sparsities of the claims."""


def arms_of(group: pd.DataFrame, role: str) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
    """For each kind and sparsity of the claims, what is said of them and the runs by source."""
    group = group[group["role"] == role]
    for method, runs in group.groupby("method", sort=False):
        whole = runs[runs["source"] == "unpruned"]
        for sparsity in SPARSE:
            sparse = dict([*runs[runs["sparsity"] == sparsity].groupby("source", sort=False)])
            yield f"{method}, {100 * sparsity:.0f}%", {"unpruned": whole} | sparse


def accuracies(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Networks trained on labels, by where their masks are from."""
    for where, arms in arms_of(group, "labels"):
        for source in ("labels", "rotation", "clusters"):
            text = f"{where}: masks of {source} beat random masks"
            yield claim(SYSTEM, text, arms[source], arms["random"], "accuracy")
        text = f"{where}: masks of rotation are the same as those of labels"
        yield claim(SYSTEM, text, arms["rotation"], arms["labels"], "accuracy", same=True)
        for source, shuffled in (("labels", "shuffled"), ("rotation", "shuffled_rotation")):
            text = f"{where}: masks of {source} beat the same shuffled within layers"
            yield claim(SYSTEM, text, arms[source], arms[shuffled], "accuracy")


def overlaps(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Masks of rotation and of labels have more in common than chance, layers or start explain."""
    for where, arms in arms_of(group, "labels"):
        ours = arms["rotation"]
        others = {
            "those of random masks and labels": arms["random"],
            "of masks with as many weights in each layer, by chance": ours.assign(
                jaccard=ours["jaccard_layers"]
            ),
            "layers and the start's magnitudes explain": ours.assign(
                jaccard=ours["jaccard_groups"]
            ),
        }
        for name, theirs in others.items():
            text = f"{where}: overlap of masks of rotation and labels is larger than {name}"
            yield claim(SYSTEM, text, ours, theirs, "jaccard")


def transfers(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Features of networks trained by rotation with masks held, on other images."""
    for where, arms in arms_of(group, "probe"):
        text = f"{where}: features of rotation, pruned by its masks, are as good as unpruned"
        yield claim(SYSTEM, text, arms["rotation"], arms["unpruned"], "probe", same=True)
        for source, name in (("random", "random masks"), ("shuffled_rotation", "them shuffled")):
            text = f"{where}: features of rotation, pruned by its masks, beat {name}"
            yield claim(SYSTEM, text, arms["rotation"], arms[source], "probe")


CLAIMS = (accuracies, overlaps, transfers)
"""Of each data set and network."""
