"""Arguments for every bound, for the tests that go through the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from bound_examples import EXAMPLES, ONE_NUMBER, SERIES

import pbnn.bounds as pb


@dataclass(frozen=True)
class Call:
    """A bound with its arguments, and the numbers among them by the names that errors use."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    one_number: tuple[str, ...]

    @property
    def numbers(self) -> dict[str, Any]:
        """Also those that are entries of a sequence; a series counts as one."""
        found: dict[str, Any] = {}
        for name, value in self.arguments.items():
            found.update(_numbers(name, value))
        return found

    def __call__(self, changes: Mapping[str, Any] | None = None, **options: Any) -> Any:
        given = {name: _changed(name, x, changes or {}) for name, x in self.arguments.items()}
        return self.function(**given, **options)

    def each(self, change: Callable[[Any], Any], **options: Any) -> Any:
        """The bound of arguments that are all changed, where they may be more than one number."""
        numbers = self.numbers.items()
        changes = {name: change(x) for name, x in numbers if name not in self.one_number}
        return self(changes, **options)


def _numbers(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, (tuple, list)) and name not in SERIES:
        entries = (_numbers(f"{name}[{j}]", x) for j, x in enumerate(value))
        return {label: x for entry in entries for label, x in entry.items()}
    return {name: value}


def _changed(name: str, value: Any, changes: Mapping[str, Any]) -> Any:
    if name in changes:
        return changes[name]
    if isinstance(value, (tuple, list)) and name not in SERIES:
        return tuple(_changed(f"{name}[{j}]", x, changes) for j, x in enumerate(value))
    return value


@pytest.fixture(scope="session")
def calls() -> dict[str, Call]:
    """Every bound of the catalogue, ready to be called."""
    return {
        name: Call(pb.CATALOGUE[name].function, arguments, ONE_NUMBER.get(name, ()))
        for name, arguments in EXAMPLES.items()
    }


@pytest.fixture
def call(calls: dict[str, Call], name: str) -> Call:
    """That of the bound whose name is a parameter of the test."""
    return calls[name]
