r"""Certified values: a bound evaluated in interval arithmetic and rounded outward to float64.

`upper(bound, ...)` runs the very formula of the bound on enclosures of ever more digits, until the
least float64 that is not below the real value is known. `lower` is its mirror image. The arguments
are taken as the exact real numbers that their float64 values are; what rounding went into them
before is the caller's to allow for. python-flint (the extra ``exact``) makes this fast, mpmath does
the same, slower.

>>> from pbnn.bounds import maurer
>>> upper(maurer, 0.1, 50.0, 10_000) >= maurer(0.1, 50.0, 10_000)
True
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from pbnn.bounds._arrays import directed
from pbnn.bounds._intervals import Flint, Interval, Mpmath, Namespace, Undecided

_FIRST, _LAST = 128, 8192  # bits; the first suffices but for numbers far below 1
_STEPS = 64
_MANY = 10**8  # from here on the sum of log_xi is too long, and its expansion good enough
_COUNTED = ("types", "steps")  # over which a formula runs: no real numbers


def upper(bound: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    r"""The least float64 that is not below the real value of a bound at these float64 arguments.

    Parameters
    ----------
    bound : callable
        A bound of this package, such as the `function` of an entry of `CATALOGUE`.
    *args, **kwargs
        Its arguments: Python or NumPy numbers, not arrays. `certify` is not needed.

    Returns
    -------
    float
        Exceeds the real value by one unit in the last place at most.

    Raises
    ------
    ValueError, TypeError
        Those of the bound; a TypeError for arrays, tensors, and bounds without an interval form.

    Examples
    --------
    >>> from pbnn.bounds import kl_inverse
    >>> upper(kl_inverse, 0.0, 0.5) - kl_inverse(0.0, 0.5) in (0.0, math.ulp(0.25))
    True
    """
    return _rounded(bound, args, kwargs, up=True)


def lower(bound: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    r"""The largest float64 that is not above the real value of a bound: `upper`, mirrored.

    Examples
    --------
    >>> from pbnn.bounds import clopper_pearson
    >>> low, high = (end(clopper_pearson, 3, 100) for end in (lower, upper))
    >>> math.nextafter(low, 1.0) == high
    True
    """
    return _rounded(bound, args, kwargs, up=False)


def _enclosure(
    bound: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], bits: int
) -> tuple[Fraction, Fraction]:
    """Ends between which the real value lies, computed with this many bits."""
    space = namespace()

    def lifted(name: str, x: Any) -> Any:
        return space.lift(x) if _is_number(x) and name not in _COUNTED else x

    call = inspect.signature(bound).bind(*args, **kwargs)
    call.apply_defaults()  # delta too: of a bound of sequences it may be the only number there is
    with space.backend.precision(bits):
        given = [lifted("", x) for x in call.args]
        value: Interval = bound(
            *given, **{name: lifted(name, x) for name, x in call.kwargs.items()}
        )
        return value.ends()


@functools.cache
def namespace() -> Exact:
    """The namespace of the back end that is installed."""
    try:
        return Exact(Flint())
    except ImportError:
        return Exact(Mpmath())


def _rounded(
    bound: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], up: bool
) -> float:
    near = bound(*args, **kwargs)  # refuses bad input
    if not isinstance(near, int | float):
        raise TypeError(
            f"`args` must be numbers, one of each at a time, got what makes a "
            f"{type(near).__name__}: call it once for each element of an array."
        )
    given = [*args, *kwargs.values()]
    if any(_is_number(x) and abs(x) == math.inf for x in given):
        if near in (0, 1, math.inf):
            return float(near)
        raise ValueError(f"`args` must be finite where the bound is not clipped, got {given}.")
    bits, best = _FIRST, None
    while bits <= _LAST:
        try:
            low, high = _enclosure(bound, args, kwargs, bits)
        except Undecided:
            bits *= 2
            continue
        best = directed(high, True) if up else directed(low, False)
        if best == (directed(low, True) if up else directed(high, False)):
            return best
        if high - low <= abs(high) / 2**200 and bits > 512:
            return best  # the value is a float64, or as good as one
        bits *= 2
    if best is None:
        raise ArithmeticError(f"{bound} could not be enclosed with {_LAST} bits at {given}.")
    return best


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float | np.integer | np.floating) and not isinstance(x, bool)


def _shortened(x: Fraction, bits: int) -> Fraction:
    """Near `x`, with this many binary digits."""
    shift = bits - x.numerator.bit_length() + x.denominator.bit_length()
    return Fraction(round(x * Fraction(2) ** shift)) / Fraction(2) ** shift


def _whole(n: Interval) -> int:
    return int(n.ends()[0])


class Exact(Namespace):
    """Intervals with what the bounds need beyond arithmetic."""

    def binary_kl(self, q: Interval, p: Interval) -> Interval:
        terms = [q * self.log(q / p)] if q > 0 else []
        terms += [(1 - q) * self.log((1 - q) / (1 - p))] if q < 1 else []
        return sum(terms, self.lift(0))

    def kl_inverse(self, q: Interval, c: Interval, side: str) -> Interval:
        """Both inverses grow with q; the upper one grows with c, the lower one falls."""
        (q_low, q_high), (c_low, c_high) = q.ends(), c.ends()
        ends = (c_low, c_high) if side == "upper" else (c_high, c_low)
        low, _ = self._kl_inverse_at(max(q_low, Fraction(0)), ends[0], side).ends()
        _, high = self._kl_inverse_at(min(q_high, Fraction(1)), ends[1], side).ends()
        return Interval(self.hull(low, high).ball, self, (0, 1))

    def _kl_inverse_at(self, q: Fraction, c: Fraction, side: str) -> Interval:
        if c <= 0:
            return self.lift(q)
        if side == "upper":
            if q in (0, 1):
                return -self.expm1(-self.lift(c)) if q == 0 else self.lift(1)
            return q - (1 - self.lift(q)) * self.expm1(-self._exponent(1 - q, q, c))
        if q in (0, 1):
            return self.exp(-self.lift(c)) if q == 1 else self.lift(0)
        return q * self.exp(-self._exponent(q, 1 - q, c))

    def _exponent(self, a: Fraction, b: Fraction, c: Fraction) -> Interval:
        """`pbnn.bounds.kl.exponent`, enclosed: it is increasing, so a change of sign brackets."""
        a_, b_, c_ = map(self.lift, (a, b, c))

        def excess(u: Interval) -> Interval:
            return a_ * u - b_ * self.log1p(-a_ * self.expm1(-u) / b_) - c_

        scale = self.sqrt(a_ * c_ / 2)
        reach = 2 * scale * (scale + self.sqrt(b_ + scale * scale)) / a_
        u = -self.log1p(-reach) if reach < 0.5 else (c_ - b_ * self.log(b_)) / a_
        bits = self.backend.bits()
        for _ in range(_STEPS):
            d = -a_ * self.expm1(-u)
            step = excess(u) * ((b_ + d) / d)
            u = self.middle(u - step)
            if abs(step) < u / 2 ** (bits // 2):  # the digits double
                break
        return self._bracket(u, u, excess)

    def _bracket(
        self, x: Interval, scale: Interval, rising: Callable[[Interval], Interval]
    ) -> Interval:
        """The root of an increasing function near `x`, between points where its sign is sure."""
        bits = self.backend.bits()
        for digits in (bits - 16, bits - 32, bits * 3 // 4, bits // 2):
            low, high = (self.middle(x + sign * scale / 2**digits) for sign in (-1, 1))
            with contextlib.suppress(Undecided):
                if rising(low) < 0 and rising(high) > 0:
                    return self.hull(low, high)
        raise Undecided

    def middle(self, x: Interval) -> Interval:
        """A point inside an enclosure."""
        low, high = x.ends()
        return self.lift(_shortened((low + high) / 2, self.backend.bits()))

    def log_xi(self, n: Interval) -> Interval:
        """The sum of n! / ((n - k)! n^k) over k, in multiples of 2^-bits, rounded down and up."""
        count, unit = _whole(n), 2 ** self.backend.bits()
        if count > _MANY:
            return self._log_xi_of_many(n)
        low = term = unit
        spent = 0  # how many terms were rounded down
        for k in range(count):
            term = term * (count - k) // count
            spent += 1
            low += term
            if term < spent:
                # Each later ratio is below this one, so the rest is below a geometric series.
                rest = (term + spent) * count // (k + 1) + 1
                break
        else:
            rest = 0
        high = low + spent * (spent + 1) // 2 + rest
        return self.log(self.hull(Fraction(low, unit), Fraction(high, unit)))

    def _log_xi_of_many(self, n: Interval) -> Interval:
        """By Ramanujan's theta, which makes sum_{k<n} n^k/k! + theta n^n/n! one half of e^n.

        P. Flajolet, P. Grabner, P. Kirschenhofer, H. Prodinger (1995), "On Ramanujan's Q-function",
        J. Comput. Appl. Math. 58: theta = 1/3 + 4/(135 (n + k)) with k in [2/21, 8/45].
        """
        ends = (4 / (135 * (n + k)) for k in (Fraction(2, 21), Fraction(8, 45)))
        theta = Fraction(1, 3) + self.hull(*ends)
        return self.log(self.exp(n + self.lgamma(n + 1) - n * self.log(n)) / 2 + 1 - theta)

    def log_kt(self, n: Interval) -> Interval:
        return self.log(self.pi) / 2 + self.lgamma(n + 1) - self.lgamma(n + Fraction(1, 2))

    def binomial_inverse(self, k: Interval, n: Interval, delta: Interval, side: str) -> Interval:
        """Clopper and Pearson's bound: the p at which a tail of the binomial is delta."""
        errors, count = _whole(k), _whole(n)
        if side == "lower":  # of k errors in n it is one less the upper one of n - k
            return 1 - self.binomial_inverse(n - k, n, delta, "upper")
        if errors == count:
            return self.lift(1)
        if errors == 0:
            return -self.expm1(self.log(delta) / n)
        if errors == count - 1:
            return self.exp(self.log1p(-delta) / n)
        from pbnn.bounds.holdout import clopper_pearson

        level = directed(delta.ends()[1], True)
        # Whichever of p and 1 - p is small is searched for: the other has no digits to tell.
        small = 2 * errors < count
        near = clopper_pearson(errors, count, delta=level) if small else None
        near = near or clopper_pearson(count - errors, count, delta=level, side="lower")
        x = self.lift(max(near, 5e-324))

        def rising(x: Interval) -> Interval:
            if small:
                return delta - self.binomial_tail(errors, count, x)
            return self.binomial_tail(errors, count, 1 - x) - delta

        for _ in range(_STEPS):
            p = x if small else 1 - x
            slope = self.exp(self._log_mass(errors, count, p)) * (count - errors) / (1 - p)
            tail = self.binomial_tail(errors, count, p)
            # Newton's method on logarithms: the tail is about a power of a small x.
            ratio = self.log(tail / delta) * tail / (slope * x)
            x = self.middle(x * self.exp(ratio if small else -ratio))
            if abs(ratio) < Fraction(1, 2 ** (self.backend.bits() // 2)):
                break
        found = self._bracket(x, self.minimum(x, 1 - x), rising)
        return found if small else 1 - found

    def binomial_tail(self, k: int, n: int, p: Interval) -> Interval:
        """P(Bin(n, p) <= k), summed away from the mean."""
        if p * n < k:
            return 1 - self.binomial_tail(n - k - 1, n, 1 - p) if k < n else self.lift(1)
        low_odds, high_odds = ((1 - p) / p).ends()
        odds, unit = _shortened(high_odds, self.backend.bits()), 2 ** self.backend.bits()
        if low_odds <= 0:
            raise Undecided
        blur = (abs(odds - low_odds) + abs(odds - high_odds)) / low_odds
        total, term, spent, rest = unit, unit, 0, Fraction(0)
        for i in range(k, 0, -1):
            # One division loses less than a unit, and what was lost before does not grow.
            term = term * i * odds.numerator // ((n - i + 1) * odds.denominator)
            spent += 1
            total += term
            if term < spent:
                # Each later ratio is below this one, so the rest is below a geometric series.
                ratio = Fraction(i, n - i + 1) * odds * (1 + blur)
                rest = 2 * (term + spent) / (1 - ratio)
                break
        slack = Fraction(spent * (spent + 1), 2) + rest + 2 * spent * blur * (total + spent * spent)
        if 4 * spent * blur > 1:
            raise Undecided
        sums = self.hull((total - slack) / unit, (total + slack) / unit)
        return self.exp(self._log_mass(k, n, p)) * sums

    def _log_mass(self, k: int, n: int, p: Interval) -> Interval:
        choices = self.lgamma(n + 1) - self.lgamma(k + 1) - self.lgamma(n - k + 1)
        return choices + k * self.log(p) + (n - k) * self.log1p(-p)
