"""Networks of signs as bits: packed, run, written to files, certified as they are deployed.

Running and loading need NumPy alone, and are fast with numba (`pip install 'pbnn[fast]'`); packing
a network of torch needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pbnn.packed.backends import BACKENDS, available
from pbnn.packed.certify import Check, certify, error_on_test, verify
from pbnn.packed.file import load, save
from pbnn.packed.network import PackedNetwork

if TYPE_CHECKING:
    from pbnn.packed.reading import pack

__all__ = [
    "BACKENDS",
    "Check",
    "PackedNetwork",
    "available",
    "certify",
    "error_on_test",
    "load",
    "pack",
    "save",
    "verify",
]


def __getattr__(name: str) -> Any:
    # It reads networks of torch, which costs seconds to import.
    if name == "pack":
        from pbnn.packed.reading import pack

        return pack
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
