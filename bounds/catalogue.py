"""Every bound with what it bounds, on which conditions, and who proved it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

SIMULATED = "simulated"

EVERY_POSTERIOR = (
    "losses in [0, 1]; n independent examples; the prior does not depend on them; "
    "holds for every posterior at once"
)
FIXED_PREDICTOR = "losses in [0, 1]; n independent examples; the predictor does not depend on them"


@dataclass(frozen=True)
class Bound:
    """An entry of `CATALOGUE`.

    Attributes
    ----------
    function : callable
        The bound, or the member of a family that bears this name.
    quantity : str
        What is bounded.
    conditions : str
        What must hold, and what must not depend on the data.
    source : str
        Author, year and theorem.
    coverage : str
        "simulated", if `studies/bound_coverage.py` draws samples and counts how often the bound
        fails; otherwise why it does not.
    """

    function: Callable[..., Any]
    quantity: str
    conditions: str
    source: str
    coverage: str = SIMULATED

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arguments, in their order."""
        names = inspect.signature(self.function).parameters
        return tuple(name for name in names if name not in ("clip", "certify"))


CATALOGUE: dict[str, Bound] = {}
"""Name → record of every bound of this package."""


def catalogued(
    quantity: str,
    conditions: str,
    source: str,
    *,
    coverage: str = SIMULATED,
    name: str | None = None,
) -> Callable[[F], F]:
    """Decorator that enters a function, unchanged, into `CATALOGUE` under its name or `name`."""

    def enter(function: F) -> F:
        CATALOGUE[name or function.__name__] = Bound(
            function, quantity, conditions, source, coverage
        )
        return function

    return enter
