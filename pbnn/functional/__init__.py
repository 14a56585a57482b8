"""Moments of binary-activated networks with random weights: pure functions on tensors."""

from pbnn.functional.draws import PartOfDraws, draw_points
from pbnn.functional.fused import normalised_sign
from pbnn.functional.moments import (
    LAWS,
    SQRT_TWO_OVER_PI,
    Moments,
    Signs,
    Units,
    conv2d,
    linear,
    mean_of,
    sign,
)
from pbnn.functional.normalisation import (
    Statistics,
    Threshold,
    batch_norm,
    batch_statistics,
    order_of,
    ordered,
    threshold,
)
from pbnn.functional.pooling import average_pool, max_pool, max_pool_sampled
from pbnn.functional.signs import (
    append_one,
    choose_sign,
    expect_over_signs,
    hard_concrete,
    hard_sign,
    sample_positions,
    sample_signs,
    sign_patterns,
)
from pbnn.functional.straight_through import (
    gaussian_slope,
    sign_with_slope,
    straight_through,
    straight_through_sign,
)

__all__ = [
    "LAWS",
    "SQRT_TWO_OVER_PI",
    "Moments",
    "PartOfDraws",
    "Signs",
    "Statistics",
    "Threshold",
    "Units",
    "append_one",
    "average_pool",
    "batch_norm",
    "batch_statistics",
    "choose_sign",
    "conv2d",
    "draw_points",
    "expect_over_signs",
    "gaussian_slope",
    "hard_concrete",
    "hard_sign",
    "linear",
    "max_pool",
    "max_pool_sampled",
    "mean_of",
    "normalised_sign",
    "order_of",
    "ordered",
    "sample_positions",
    "sample_signs",
    "sign",
    "sign_patterns",
    "sign_with_slope",
    "straight_through",
    "straight_through_sign",
    "threshold",
]
