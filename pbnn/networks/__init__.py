"""Networks: layers put together, with an analytic, a sampled and a deterministic pass."""

from pbnn.networks.architecture import COLOUR_IMAGES, SMALL_IMAGES
from pbnn.networks.binary import BinaryNetwork, binarise
from pbnn.networks.blrnet import BLRNet, unbalance
from pbnn.networks.checks import check_points, check_sizes, expand_shift
from pbnn.networks.pbgnet import ABNet, PBGNet
from pbnn.networks.randomised import RandomisedModule
from pbnn.networks.readout import GaussianReadout
from pbnn.networks.sign_network import AGGREGATES, EXACT_UP_TO, SignNetwork, fingerprint
from pbnn.networks.transfer import transfer

__all__ = [
    "AGGREGATES",
    "COLOUR_IMAGES",
    "EXACT_UP_TO",
    "SMALL_IMAGES",
    "ABNet",
    "BLRNet",
    "BinaryNetwork",
    "GaussianReadout",
    "PBGNet",
    "RandomisedModule",
    "SignNetwork",
    "binarise",
    "check_points",
    "check_sizes",
    "expand_shift",
    "fingerprint",
    "transfer",
    "unbalance",
]
