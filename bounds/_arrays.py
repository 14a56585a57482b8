"""One function for floats, NumPy arrays and torch tensors: validation, conversion, rounding.

Every public function calls `prepare` once. It checks the arguments, turns them into float64
arrays of one library, and returns that library's namespace (`numpy` or `torch`) with the arrays
and a `finish` that gives the result back in the kind that came in. The functions in between use
only operations that both namespaces spell alike. So do the intervals of `pbnn.bounds.exact`, the
third namespace: they run through the same formulas, which are written once.

Values are checked, except those of torch tensors that require gradients: these are inside a
training loop, where looking at a value would make the device wait.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
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


# A mean that was summed in float64 may miss [0, 1] by this much; it is then moved back to the end.
ROUNDING = 1e-12


def _probability(x: Any) -> Any:
    return (x >= -ROUNDING) & (x <= 1 + ROUNDING)


def _count(x: Any) -> Any:
    # Beyond, its square is no float, and a bound might be no number.
    return (x >= 1) & (x < 2.0**500) & (x % 1 == 0)


Domain: TypeAlias = tuple[Predicate, str]
PROBABILITY: Domain = (_probability, "must lie in [0, 1]")
COUNT: Domain = (_count, "must be a whole number, at least 1")
COST: Domain = (lambda x: x >= 0, "must be non-negative")
FINITE_COST: Domain = (lambda x: (x >= 0) & (x < math.inf), "must lie in [0, inf)")
POSITIVE: Domain = (lambda x: (x > 0) & (x < math.inf), "must lie in (0, inf)")
ABOVE_ONE: Domain = (lambda x: (x > 1) & (x < math.inf), "must lie in (1, inf)")
FINITE: Domain = (lambda x: abs(x) < math.inf, "must be finite")

DOMAINS: dict[str, Domain] = {
    **dict.fromkeys(["q", "p", "risk", "tandem_loss", "disagreement_rate"], PROBABILITY),
    **dict.fromkeys(["gibbs_bound", "lower_right", "lower_wrong", "frequency"], PROBABILITY),
    **dict.fromkeys(["c", "kl", "divergence"], COST),
    **dict.fromkeys(["variance", "second_moment"], FINITE_COST),
    **dict.fromkeys(["n", "n_pairs", "draws"], COUNT),
    "errors": (lambda x: (x == 0) | _count(x), "must be a whole number, at least 0"),
    "delta": (lambda x: (x > 0) & (x < 1), "must lie in (0, 1)"),
}
"""What the arguments that many bounds share must be; those of one bound it gives to `prepare`."""


def prepare(
    domains: Mapping[str, Domain] | None = None, /, **inputs: Real
) -> tuple[Any, list[Any], Finish]:
    """The namespace, the checked float64 arguments, and the way back to the caller's kind.

    `domains` are those of arguments that `DOMAINS` does not have, or has otherwise.

    Raises
    ------
    TypeError
        If an argument is no real number, array or tensor, or arrays meet tensors.
    ValueError
        If a value is outside its domain, or shapes do not broadcast.
    """
    kinds = {name: _kind(name, value) for name, value in inputs.items()}
    domains = {name: (domains or {}).get(name) or DOMAINS[name] for name in inputs}
    if "interval" in kinds.values():
        first = next(inputs[name] for name, kind in kinds.items() if kind == "interval")
        values = _within(first.namespace, domains, list(map(first.lift, inputs.values())))
        return first.namespace, values, lambda x, wide=False: x
    tensors = [inputs[name] for name, kind in kinds.items() if kind == "tensor"]
    arrays = [name for name, kind in kinds.items() if kind == "array"]
    _check_shapes(inputs)
    if not tensors:
        values = [_as_array(name, value) for name, value in inputs.items()]
        for (name, domain), value in zip(domains.items(), values, strict=True):
            check(name, value, *domain)
        values = _within(np, domains, values)
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
            check(name, _as_array(name, value), *domains[name])
        elif not value.requires_grad:
            check(name, value, *domains[name])
    values = [_as_tensor(name, value, device) for name, value in inputs.items()]
    values = _within(torch, domains, values)
    # A certified result must stay float64: float32 could round it back in.
    return torch, values, lambda result, wide=False: result if wide else result.to(dtype)


def _within(xp: Any, domains: Mapping[str, Domain], values: list[Any]) -> list[Any]:
    """Probabilities that miss [0, 1] by rounding, moved to its end."""
    pairs = zip(domains.values(), values, strict=True)
    return [xp.clip(x, 0.0, 1.0) if domain is PROBABILITY else x for domain, x in pairs]


def _check_shapes(inputs: Mapping[str, Any]) -> None:
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in inputs.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        told = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items() if shape)
        raise ValueError(f"Shapes must broadcast, got {told}.") from None


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


def at_most(x: Any, limit: Any) -> Any:
    """Whether `x` exceeds its limit by no more than rounding."""
    return x <= limit + ROUNDING * abs(limit)


def compare(
    xp: Any, name: str, value: Any, holds: Callable[[Any, Any], Any], other: Any, domain: str
) -> None:
    """Check one argument by another, unless this is inside a training loop or among intervals."""
    training = getattr(value, "requires_grad", False) or getattr(other, "requires_grad", False)
    if not training and not hasattr(xp, "kl_inverse"):
        check(name, value + 0 * other, lambda x: holds(x, other), domain)


def detached(x: Any) -> Any:
    """Without gradient, if there could be one."""
    return x.detach() if hasattr(x, "detach") else x


def outward(value: Any, xp: Any, up: bool = True) -> Any:
    """A float64 `value` moved by `SLACK` and one unit in the last place, without gradient."""
    value = detached(value)
    value = value + (SLACK if up else -SLACK) * abs(value)
    return xp.nextafter(value, xp.zeros_like(value) + (math.inf if up else -math.inf))


def directed(exact: Fraction, up: bool) -> float:
    """The float64 nearest to `exact` that is not below it, or not above."""
    nearest = exact.numerator / exact.denominator
    if (Fraction(nearest) < exact) if up else (Fraction(nearest) > exact):
        return math.nextafter(nearest, math.inf if up else -math.inf)
    return nearest


def close(value: Any, xp: Any, finish: Finish, *, clip: bool, round_up: bool = False) -> Any:
    """The last steps of a bound: round it up, clip it to [0, 1], return the caller's kind."""
    if round_up and not hasattr(xp, "kl_inverse"):
        value = outward(value, xp)
    if clip:
        value = xp.clip(value, 0.0, 1.0)
    return finish(value, wide=round_up)


def _kind(name: str, value: object) -> str:
    if getattr(value, "namespace", None) is not None:
        return "interval"
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
