"""Learning representations of signs without labels or beyond them: CMIM, S2-BNN, pruning."""

from pbnn.representation.cmim import CMIM, Contrast
from pbnn.representation.contrast import (
    MemoryBank,
    ProjectionHead,
    Strangers,
    info_nce,
    nce_loss,
)
from pbnn.representation.features import (
    captured,
    features,
    knn_probe,
    last_weights,
    linear_probe,
)
from pbnn.representation.overlap import (
    jaccard,
    jaccard_by_chance,
    jaccard_by_groups,
    magnitude_groups,
)
from pbnn.representation.pretext import RotationObjective, clusters, rotated
from pbnn.representation.pruning import (
    Held,
    geometric_sparsities,
    magnitude_masks,
    prunable,
    prune_in_rounds,
    random_masks,
    shuffled_masks,
    sparsity_of,
)
from pbnn.representation.s2_bnn import (
    ContrastiveObjective,
    GuidedObjective,
    guided_divergence,
    guided_loss,
)

__all__ = [
    "CMIM",
    "Contrast",
    "ContrastiveObjective",
    "GuidedObjective",
    "Held",
    "MemoryBank",
    "ProjectionHead",
    "RotationObjective",
    "Strangers",
    "captured",
    "clusters",
    "features",
    "geometric_sparsities",
    "guided_divergence",
    "guided_loss",
    "info_nce",
    "jaccard",
    "jaccard_by_chance",
    "jaccard_by_groups",
    "knn_probe",
    "last_weights",
    "linear_probe",
    "magnitude_groups",
    "magnitude_masks",
    "nce_loss",
    "prunable",
    "prune_in_rounds",
    "random_masks",
    "rotated",
    "shuffled_masks",
    "sparsity_of",
]
