"""Lists of priors, written down so that a certificate can pay for the choice among them."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

Lists = dict[str, tuple[Any, ...]]
"""Values by field, or tuples of values by several fields, apart by blanks: all combinations."""


def check_listed(cell: dict[str, Any], lists: Collection[Lists], free: Collection[str]) -> None:
    """Refuse to certify a prior that the price does not cover.

    It must be on one of the lists, with no field that is neither on it nor free, and `choices` must
    count all members of all lists.
    """
    faults = [fault(cell, listed, free) for listed in lists]
    if faults and all(faults):
        raise ValueError(faults[0])
    if members(lists) > cell["choices"]:
        raise ValueError(f"`choices` must cover the lists of priors, got {cell['choices']}.")


def members(lists: Collection[Lists]) -> int:
    """How many priors the lists hold together."""
    return sum(math.prod(map(len, listed.values())) for listed in lists)


def fault(cell: dict[str, Any], listed: Lists, free: Collection[str]) -> str:
    """Why a cell's prior is not on a list; empty if it is."""
    for fields, values in listed.items():
        names = fields.split()
        got = tuple(cell.get(name) for name in names) if len(names) > 1 else cell.get(fields)
        if got not in values:
            return f"`{fields}` must be one of the listed {values}, got {got!r}."
    unlisted = set(cell) - set(free) - {name for fields in listed for name in fields.split()}
    if unlisted:
        return f"`cell` must hold listed and free fields only, got {sorted(unlisted)}."
    return ""
