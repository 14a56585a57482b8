"""Networks of signs as bits: packed, run, written to files, certified as they are deployed.

Running and loading need NumPy alone, and are fast with numba (`pip install 'pbnn[fast]'`); packing
a network of torch needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pbnn.lazy import lazy
from pbnn.packed.backends import BACKENDS, available
from pbnn.packed.certify import Check, certify, error_on_test, verify
from pbnn.packed.file import load, save
from pbnn.packed.network import PackedNetwork

if TYPE_CHECKING:
    from pbnn.packed.deployment import deployed, price
    from pbnn.packed.reading import pack
    from pbnn.packed.sequential import anytime

# They read networks of torch, which costs seconds to import.
_LAZY = {
    "anytime": "pbnn.packed.sequential",
    "deployed": "pbnn.packed.deployment",
    "pack": "pbnn.packed.reading",
    "price": "pbnn.packed.deployment",
}

__all__ = [
    "BACKENDS",
    "Check",
    "PackedNetwork",
    "anytime",
    "available",
    "certify",
    "deployed",
    "error_on_test",
    "load",
    "pack",
    "price",
    "save",
    "verify",
]

__getattr__, __dir__ = lazy(globals(), _LAZY)
