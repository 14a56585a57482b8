"""Binarisers of networks whose weights are known: one file a paper, freely combined by a recipe."""

from pbnn.binarize.abc_net import ABCActivation, ABCWeights, base_scales, weight_bases
from pbnn.binarize.bi_real_net import BiRealWeights, approx_sign
from pbnn.binarize.binary_net import (
    ClippedWeights,
    SignWeights,
    StochasticWeights,
    clipped,
    identity,
    stochastic_sign,
)
from pbnn.binarize.convert import Converted, convert
from pbnn.binarize.ir_net import EDE, LibraWeights, ede, power_of_two, standardised
from pbnn.binarize.layers import BinaryActivation, BinaryConv2d, BinaryLinear, binary_layers
from pbnn.binarize.noisy_supervision import (
    LearnedWeights,
    WeightMapping,
    corrected_loss,
    settle,
    supervision,
)
from pbnn.binarize.operations import Operations, count_operations
from pbnn.binarize.react_net import RPReLU
from pbnn.binarize.recipes import ESTIMATORS, RECIPES, SHIFTS, WEIGHTS, Recipe, recipe_named
from pbnn.binarize.sd_bnn import SelfDistribution, WSDWeights
from pbnn.binarize.training import (
    after_step,
    check_latents,
    set_progress,
    set_source,
    set_stage,
)
from pbnn.binarize.unbalanced import Hardtanh, Threshold, Window, hardtanh, share_of_ones
from pbnn.binarize.xnor_net import XNORWeights, mean_magnitude

__all__ = [
    "EDE",
    "ESTIMATORS",
    "RECIPES",
    "SHIFTS",
    "WEIGHTS",
    "ABCActivation",
    "ABCWeights",
    "BiRealWeights",
    "BinaryActivation",
    "BinaryConv2d",
    "BinaryLinear",
    "ClippedWeights",
    "Converted",
    "Hardtanh",
    "LearnedWeights",
    "LibraWeights",
    "Operations",
    "RPReLU",
    "Recipe",
    "SelfDistribution",
    "SignWeights",
    "StochasticWeights",
    "Threshold",
    "WSDWeights",
    "WeightMapping",
    "Window",
    "XNORWeights",
    "after_step",
    "approx_sign",
    "base_scales",
    "binary_layers",
    "check_latents",
    "clipped",
    "convert",
    "corrected_loss",
    "count_operations",
    "ede",
    "hardtanh",
    "identity",
    "mean_magnitude",
    "power_of_two",
    "recipe_named",
    "set_progress",
    "set_source",
    "set_stage",
    "settle",
    "share_of_ones",
    "standardised",
    "stochastic_sign",
    "supervision",
    "weight_bases",
]
