"""One function for floats, NumPy arrays and torch tensors: validation, conversion, rounding.

Every public function calls `prepare` once. It checks the arguments, turns them into float64
arrays of one library, and returns that library's namespace (`numpy` or `torch`) with the arrays
and a `finish` that gives the result back in the kind that came in. The functions in between use
only operations that both namespaces spell alike.

Values are checked, except those of torch tensors that require gradients: these are inside a
training loop, where looking at a value would make the device wait.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

# A float, a NumPy array or a torch tensor; a result is of the kind of the arguments, which no
# annotation short of three overloads for each function can say.
Real: TypeAlias = Any

# Relative slack of a result that is rounded outward: 128 units of 2^-53. No formula here gathers
# more than 60 from its own rounding (`kl.exponent` is the costliest).
SLACK = 2.0**-46

P = ParamSpec("P")
T = TypeVar("T")
Predicate: TypeAlias = Callable[[Any], Any]
Finish: TypeAlias = Callable[..., Any]


def _probability(x: Any) -> Any:
    return (x >= 0) & (x <= 1)


def _count(x: Any) -> Any:
    return (x >= 1) & (x < math.inf) & (x % 1 == 0)


_PROBABILITY = (_probability, "must lie in [0, 1]")
_COUNT = (_count, "must be a whole number, at least 1")
_COST = (lambda x: x >= 0, "must be non-negative")

DOMAINS: dict[str, tuple[Predicate, str]] = {
    "q": _PROBABILITY,
    "p": _PROBABILITY,
    "risk": _PROBABILITY,
    "tandem_loss": _PROBABILITY,
    "gibbs_bound": _PROBABILITY,
    "lower_right": _PROBABILITY,
    "lower_wrong": _PROBABILITY,
    "c": _COST,
    "kl": _COST,
    "n": _COUNT,
    "draws": _COUNT,
    "errors": (lambda x: _count(x + 1), "must be a whole number, at least 0"),
    "delta": (lambda x: (x > 0) & (x < 1), "must lie in (0, 1)"),
    "C": (lambda x: (x > 0) & (x < math.inf), "must lie in (0, inf)"),
    "lam": (lambda x: (x > 0) & (x < 2), "must lie in (0, 2)"),
}


def prepare(**inputs: Real) -> tuple[Any, list[Any], Finish]:
    """The namespace, the checked float64 arguments, and the way back to the caller's kind.

    Raises
    ------
    TypeError
        If an argument is no real number, array or tensor, or arrays meet tensors.
    ValueError
        If a value is outside the domain that `DOMAINS` gives its name.
    """
    kinds = {name: _kind(name, value) for name, value in inputs.items()}
    tensors = [inputs[name] for name, kind in kinds.items() if kind == "tensor"]
    arrays = [name for name, kind in kinds.items() if kind == "array"]
    if not tensors:
        values = [_as_array(name, value) for name, value in inputs.items()]
        for name, value in zip(inputs, values, strict=True):
            check(name, value, *DOMAINS[name])
        return np, values, _as_numpy if arrays or "scalar" in kinds.values() else _as_float
    if arrays:
        raise TypeError(f"`{arrays[0]}` is a NumPy array among torch tensors; convert it first.")
    import torch

    device = next((t.device for t in tensors if t.device.type != "cpu"), tensors[0].device)
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors))
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    for name, value in inputs.items():
        if kinds[name] != "tensor":
            # On the host: numbers are checked in training too, and no device has to wait.
            check(name, _as_array(name, value), *DOMAINS[name])
        elif not value.requires_grad:
            check(name, value, *DOMAINS[name])
    values = [_as_tensor(name, value, device) for name, value in inputs.items()]
    # An outward result must stay float64: float32 could round it back in.
    return torch, values, lambda result, wide=False: result if wide else result.to(dtype)


def quiet(function: Callable[P, T]) -> Callable[P, T]:
    """Let NumPy pass silently through the branches that a `where` throws away."""

    @functools.wraps(function)
    def silenced(*args: P.args, **kwargs: P.kwargs) -> T:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return silenced


@quiet
def check(name: str, value: Any, holds: Predicate, domain: str) -> None:
    """Raise a ValueError with the first entry of `value` for which `holds` is not true."""
    good = holds(value)
    if not bool(good.all()):
        raise ValueError(f"`{name}` {domain}, got {value[~good].reshape(-1)[0].item()!r}.")


def outward(value: Any, xp: Any, up: bool = True) -> Any:
    """A float64 `value` moved by `SLACK` and one unit in the last place, without gradient."""
    if xp is not np:
        value = value.detach()
    value = value + (SLACK if up else -SLACK) * abs(value)
    return xp.nextafter(value, xp.zeros_like(value) + (math.inf if up else -math.inf))


def close(value: Any, xp: Any, finish: Finish, *, clip: bool, round_up: bool) -> Any:
    """The last steps of a bound: round it up, clip it to [0, 1], return the caller's kind."""
    if round_up:
        value = outward(value, xp)
    if clip:
        value = xp.clip(value, 0.0, 1.0)
    return finish(value, wide=round_up)


def log_constant(xp: Any, n: Any, delta: Any) -> Any:
    """The confidence term ln(2 sqrt(n) / delta), as a sum of non-negative terms."""
    return math.log(2) + 0.5 * xp.log(n) - xp.log(delta)


def _kind(name: str, value: object) -> str:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.dtype.is_complex or value.dtype == torch.bool:
            raise TypeError(f"`{name}` must hold real numbers, got {value.dtype}.")
        return "tensor"
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in "iuf":
            raise TypeError(f"`{name}` must hold real numbers, got dtype {value.dtype}.")
        return "array" if isinstance(value, np.ndarray) else "scalar"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "number"
    raise TypeError(
        f"`{name}` must be a real number, a NumPy array or a torch tensor, "
        f"got {type(value).__name__}."
    )


def _as_array(name: str, value: Any) -> Any:
    try:
        return np.asarray(value, dtype=np.float64)
    except OverflowError as error:
        raise ValueError(f"`{name}` must be below 1.8e308, got {value}.") from error


def _as_tensor(name: str, value: Any, device: torch.device) -> torch.Tensor:
    import torch

    if isinstance(value, torch.Tensor):
        # Like torch itself, take a zero-dimensional CPU tensor along to any device.
        target = device if value.dim() == 0 else value.device
        return value.to(device=target, dtype=torch.float64)
    number = float(_as_array(name, value))
    return torch.full((), number, dtype=torch.float64, device=device)


def _as_numpy(value: Any, wide: bool = False) -> Any:
    return value[()] if isinstance(value, np.ndarray) else value


def _as_float(value: Any, wide: bool = False) -> float:
    return float(value)
