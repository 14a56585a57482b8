"""Names of a module that are fetched from others when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(
    namespace: dict[str, Any], homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a module, for names whose modules cost seconds to import.

    Parameters
    ----------
    namespace : dict
        `globals()` of the module; a name that has been used is kept there.
    homes : mapping from str to str
        From each name to the module it is in.

    Examples
    --------
    >>> namespace = {"__name__": "shapes"}
    >>> get, names = lazy(namespace, {"pi": "math"})
    >>> names(), get("pi"), namespace["pi"]
    (['__name__', 'pi'], 3.141592653589793, 3.141592653589793)
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")
        value = namespace[name] = getattr(import_module(homes[name]), name)
        return value

    def names() -> list[str]:
        return sorted({*namespace, *homes})

    return get, names
