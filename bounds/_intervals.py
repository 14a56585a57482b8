"""Interval arithmetic of any precision, as a namespace that the formulas of the bounds run through.

Numbers are enclosed by python-flint's balls, or by mpmath's intervals where flint is missing. Every
operation keeps the true result inside the enclosure. Where an enclosure leaves open which way a
comparison goes, `Undecided` is raised, and the caller tries again with more digits.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any


class Undecided(ArithmeticError):
    """The enclosures at hand leave open which way a comparison goes."""


class Interval:
    """A real number inside an enclosure `ball` of a back end, and between the ends of `known`."""

    __slots__ = ("ball", "known", "namespace")
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, ball: Any, namespace: Namespace, known: tuple[float, float] = (-math.inf, math.inf)
    ) -> None:
        self.ball, self.namespace, self.known = ball, namespace, known

    def lift(self, value: Any) -> Interval:
        """A number as an interval."""
        return self.namespace.lift(value)

    def __add__(self, other: Any) -> Interval:
        return Interval(self.ball + self.lift(other).ball, self.namespace)

    def __sub__(self, other: Any) -> Interval:
        return Interval(self.ball - self.lift(other).ball, self.namespace)

    def __mul__(self, other: Any) -> Interval:
        return Interval(self.ball * self.lift(other).ball, self.namespace)

    def __truediv__(self, other: Any) -> Interval:
        return Interval(self.ball / self.lift(other).ball, self.namespace)

    def __rsub__(self, other: Any) -> Interval:
        return self.lift(other) - self

    def __rtruediv__(self, other: Any) -> Interval:
        return self.lift(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Interval:
        return 0 - self

    def __pow__(self, power: int) -> Interval:
        return functools.reduce(Interval.__mul__, [self] * power)

    def __abs__(self) -> Interval:
        return self.namespace.maximum(self, -self)

    def ends(self) -> tuple[Fraction, Fraction]:
        """Both ends, exactly; Undecided for an enclosure that is not finite."""
        found = self.namespace.backend.ends(self.ball)
        if found is None:
            raise Undecided
        # A ball rounds its radius up: near 1 it reaches beyond, even for what was clipped.
        low, high = found
        low = low if low >= self.known[0] else Fraction(self.known[0])
        high = high if high <= self.known[1] else Fraction(self.known[1])
        return low, high

    def __lt__(self, other: Any) -> bool:
        if other is math.inf:  # infinite inputs never become intervals
            return True
        (low, high), (other_low, other_high) = self.ends(), self.lift(other).ends()
        if high < other_low:
            return True
        if low >= other_high:
            return False
        raise Undecided

    def __gt__(self, other: Any) -> bool:
        return self.lift(other) < self

    def __le__(self, other: Any) -> bool:
        return not self > other

    def __ge__(self, other: Any) -> bool:
        return not self < other

    def __eq__(self, other: object) -> bool:
        return other is not math.inf and self <= other and self >= other


class Namespace:
    """The operations that NumPy and torch spell alike, on intervals of a back end."""

    def __init__(self, backend: Flint | Mpmath) -> None:
        self.backend = backend

    def lift(self, value: Any) -> Interval:
        """A number or a 0-dimensional array as an interval that is a point."""
        if isinstance(value, Interval):
            return value
        if not isinstance(value, int | float | Fraction):
            value = value.item()
        return Interval(self.backend.number(value), self)

    @property
    def pi(self) -> Interval:
        return Interval(self.backend.pi(), self)

    def __getattr__(self, name: str) -> Callable[[Any], Interval]:
        if name not in ("exp", "expm1", "lgamma", "log", "log1p", "sqrt"):
            raise AttributeError(name)
        function = getattr(self.backend, name)
        return lambda x: Interval(function(self.lift(x).ball), self)

    def hull(self, x: Any, y: Any) -> Interval:
        """The least enclosure of both."""
        return Interval(self.backend.hull(self.lift(x).ball, self.lift(y).ball), self)

    def where(self, condition: bool, x: Any, y: Any) -> Interval:
        return self.lift(x if condition else y)

    def maximum(self, x: Any, y: Any) -> Interval:
        return self._chosen(lambda: self.lift(x) < y, y, x)

    def minimum(self, x: Any, y: Any) -> Interval:
        return self._chosen(lambda: self.lift(x) < y, x, y)

    def _chosen(self, first: Callable[[], bool], x: Any, y: Any) -> Interval:
        try:
            return self.lift(x if first() else y)
        except Undecided:
            return self.hull(x, y)

    def clip(self, x: Any, low: Any, high: Any) -> Interval:
        low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
        x = x if low == -math.inf else self.maximum(x, low)
        x = x if high == math.inf else self.minimum(x, high)
        return Interval(self.lift(x).ball, self, (low, high))

    def ceil(self, x: Any) -> Interval:
        low, high = map(math.ceil, self.lift(x).ends())
        return self.hull(low, high)

    def zeros_like(self, x: Any) -> Interval:
        return self.lift(0)


_TINY = Fraction(1, 2**1100)


def _dyadic(mantissa: Any, exponent: Any) -> Fraction | None:
    """The number mantissa 2^exponent, or None for one that would not fit into memory.

    What is positive and that small is below every float64, and `_TINY` says enough.
    """
    exponent = int(exponent)
    return Fraction(int(mantissa)) * Fraction(2) ** exponent if abs(exponent) < 2**16 else None


class Flint:
    """Balls of python-flint."""

    def __init__(self) -> None:
        import flint

        self._flint = flint
        for name in ("exp", "expm1", "lgamma", "log", "log1p", "sqrt"):
            setattr(self, name, getattr(flint.arb, name))

    @contextlib.contextmanager
    def precision(self, bits: int) -> Iterator[None]:
        before, self._flint.ctx.prec = self._flint.ctx.prec, bits
        try:
            yield
        finally:
            self._flint.ctx.prec = before

    def bits(self) -> int:
        return int(self._flint.ctx.prec)

    def number(self, value: float | Fraction) -> Any:
        if isinstance(value, Fraction):
            return self._flint.arb(self._flint.fmpq(value.numerator, value.denominator))
        return self._flint.arb(value)

    def pi(self) -> Any:
        return self._flint.arb.pi()

    def hull(self, x: Any, y: Any) -> Any:
        return x.union(y)

    def ends(self, x: Any) -> tuple[Fraction, Fraction] | None:
        if not x.is_finite():
            return None
        middle, radius = _dyadic(*x.mid().man_exp()), _dyadic(*x.rad().man_exp())
        if middle is None or radius is None:
            return (Fraction(0), _TINY) if 0 < x < self.number(_TINY) else None
        return middle - radius, middle + radius


class Mpmath:
    """Intervals of mpmath."""

    def __init__(self) -> None:
        from mpmath import iv

        self._iv = iv
        self._anything = iv.mpf(["-inf", "inf"])

    @contextlib.contextmanager
    def precision(self, bits: int) -> Iterator[None]:
        before, self._iv.prec = self._iv.prec, bits
        try:
            yield
        finally:
            self._iv.prec = before

    def bits(self) -> int:
        return int(self._iv.prec)

    def number(self, value: float | Fraction) -> Any:
        if isinstance(value, Fraction):
            return self._iv.mpf(value.numerator) / self._iv.mpf(value.denominator)
        return self._iv.mpf(value)

    def pi(self) -> Any:
        return +self._iv.pi

    def hull(self, x: Any, y: Any) -> Any:
        return self._iv.mpf([min(x.a, y.a), max(x.b, y.b)])

    def ends(self, x: Any) -> tuple[Fraction, Fraction] | None:
        finite = not any(end[1] == 0 and end[2] for end in x._mpi_)  # infinities have no mantissa
        ends = [_dyadic(-end[1] if end[0] else end[1], end[2]) for end in x._mpi_]
        if not finite or None in ends:
            return (Fraction(0), _TINY) if finite and 0 < x < self.number(_TINY) else None
        return ends[0], ends[1]  # type: ignore[return-value]

    def exp(self, x: Any) -> Any:
        return self._iv.exp(x)

    def expm1(self, x: Any) -> Any:
        return self._iv.exp(x) - 1

    def log(self, x: Any) -> Any:
        return self._defined(self._iv.log, x)

    def log1p(self, x: Any) -> Any:
        return self.log(1 + x)

    def lgamma(self, x: Any) -> Any:
        return self._defined(self._stirling, x)

    def _stirling(self, x: Any) -> Any:
        """Stirling's series, whose error is below its last term: iv.loggamma may miss the value."""
        from mpmath import bernfrac

        # Factors up to where terms of the series fall below a unit of the last place.
        shift = 1
        while x.a < self.bits() // 4 + 8:
            shift, x = shift * x, x + 1
        total = (x - 0.5) * self._iv.log(x) - x + self._iv.log(2 * self._iv.pi) / 2
        for k in range(1, self.bits() // 8 + 8):
            above, below = bernfrac(2 * k)
            term = self._iv.mpf(above) / below / (2 * k * (2 * k - 1)) / x ** (2 * k - 1)
            total += term
        return total + abs(term) * self._iv.mpf([-1, 1]) - self._iv.log(shift)

    def sqrt(self, x: Any) -> Any:
        return self._iv.sqrt(x) if x.a >= 0 else self._anything

    def _defined(self, function: Callable[[Any], Any], x: Any) -> Any:
        """Of a branch that is not taken, any value will do."""
        return function(x) if x.a > 0 else self._anything
