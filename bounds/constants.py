r"""What the kl bounds pay besides the KL divergence: upper bounds on the mean of exp(n kl).

.. math:: \mathbb{E}\, e^{n\,\mathrm{kl}(\hat r \| r)} \le \xi(n) \le \mathrm{KT}(n)
          \le 2\sqrt n \le n + 1

for the mean :math:`\hat r` of `n` independent losses in [0, 1] with mean :math:`r`. Each bound of
the kl family takes one of them by its name in `CONSTANTS`, without looking at the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pbnn.bounds._arrays import Real, prepare, quiet

_FEW = 32  # below, sums are taken term by term, above by their expansion in 1/n
# Ramanujan's theta(n) = 1/3 + 4/(135 n) - ..., a ratio of Gammas, and Stirling's series of ln n!.
_THETA = (
    *(1 / 3, 4 / 135, -8 / 2835, -16 / 8505, 8992 / 12629925, 334144 / 492567075),
    *(-698752 / 1477701225, -23349012224 / 39565450299375),
)
_EULER = (1 / 64, -5 / 2048, 61 / 49152, -1385 / 1048576, 50521 / 20971520)
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


def log_xi(n: Real) -> Real:
    r"""The exact constant of the kl bound, as a logarithm.

    .. math:: \ln\xi(n), \qquad
              \xi(n) = \sum_{k=0}^n \binom nk \Bigl(\frac kn\Bigr)^k \Bigl(1-\frac kn\Bigr)^{n-k}
              = \sum_{k=0}^n \frac{n!}{(n-k)!\,n^k}
              = \sqrt{\tfrac{\pi n}{2}} + \tfrac23 + O(n^{-1/2})

    The mean of :math:`e^{n\,\mathrm{kl}}` is at most this for every loss in [0, 1], and equal to it
    for losses of 0 or 1 with a mean inside (0, 1). It lies .47 nats below
    :math:`\ln 2\sqrt n` at n = 60,000.

    Parameters
    ----------
    n : int, array or tensor
        Number of examples, at least 1.

    Returns
    -------
    float, array or tensor
        In nats.

    Raises
    ------
    ValueError
        If `n` is no whole number from 1 on.

    References
    ----------
    A. Maurer (2004), "A note on the PAC Bayesian theorem", Theorem 1,
    https://arxiv.org/abs/cs/0411099. P. Germain, A. Lacasse, F. Laviolette, M. Marchand (2009),
    "PAC-Bayesian learning of linear classifiers", ICML, Corollary 2.1.

    Examples
    --------
    >>> round(log_xi(2), 6)  # 1 + 1 + 1/2
    0.916291
    """
    xp, (n,), finish = prepare(n=n)
    return finish(_log_xi(xp, n))


def log_kt(n: Real) -> Real:
    r"""The constant of Krichevsky and Trofimov, valid for all n at once, as a logarithm.

    .. math:: \ln\frac{\sqrt\pi\;\Gamma(n+1)}{\Gamma(n+\frac12)}

    It is the regret of the Beta(1/2, 1/2) mixture. That mixture over the likelihood is a
    martingale, so by Ville's inequality the kl bound with this constant may be looked at after
    every example. Arguments and errors as for `log_xi`.

    References
    ----------
    R. Krichevsky, V. Trofimov (1981), "The performance of universal encoding", IEEE Trans. Inf.
    Theory 27. B. Chugg, H. Wang, A. Ramdas (2023), "A unified recipe for deriving (time-uniform)
    PAC-Bayes bounds", https://arxiv.org/abs/2302.03421.

    Examples
    --------
    >>> round(log_kt(1), 6)  # 2
    0.693147
    """
    xp, (n,), finish = prepare(n=n)
    return finish(_log_kt(xp, n))


def log_constant(xp: Any, n: Any, delta: Any, constant: str = "maurer") -> Any:
    """The confidence term ln(constant(n) / delta), as a sum of non-negative terms."""
    if constant not in CONSTANTS:
        raise ValueError(f"`constant` must be one of {sorted(CONSTANTS)}, got {constant!r}.")
    return CONSTANTS[constant](xp, n) - xp.log(delta)


def _log_two_root_n(xp: Any, n: Any) -> Any:
    return xp.log(4 * n) / 2


@quiet
def _log_xi(xp: Any, n: Any) -> Any:
    if hasattr(xp, "log_xi"):
        return xp.log_xi(n)
    few = xp.clip(n, None, _FEW)
    term = total = xp.zeros_like(n) + 1.0
    for k in range(_FEW):
        term = term * xp.clip(1 - k / few, 0.0, None)
        total = total + term
    theta, correction = 0.0 * n, 0.0 * n
    for coefficient in reversed(_THETA):
        theta = theta / n + coefficient
    for coefficient in reversed(_STIRLING):
        correction = correction / (n * n) + coefficient
    many = xp.sqrt(xp.pi / 2 * n) * xp.exp(correction / n) + 1 - theta
    return xp.log(xp.where(n <= _FEW, total, many))


def _log_kt(xp: Any, n: Any) -> Any:
    if hasattr(xp, "log_kt"):
        return xp.log_kt(n)
    # G(n) = Gamma(n + 1) / Gamma(n + 1/2) = G(n + 16) (n + 1/2)/(n + 1) (n + 3/2)/(n + 2) ..., and
    # with x = n + 16 + 1/4 the logarithm of G(n + 16) is ln(x)/2 + 1/64x^2 - ... (Euler numbers).
    shrink, x = 1.0 + 0.0 * n, n + 16.25
    for k in range(16):
        shrink = shrink * ((n + k + 0.5) / (n + k + 1))
    y = 1 / (x * x)
    series = 0.0 * y
    for coefficient in reversed(_EULER):
        series = (series + coefficient) * y
    return xp.log(xp.pi * x) / 2 + xp.log(shrink) + series


CONSTANTS: dict[str, Callable[[Any, Any], Any]] = {
    "maurer": _log_two_root_n,
    "xi": _log_xi,
    "kt": _log_kt,
    "seeger": lambda xp, n: xp.log1p(n),
    "union": lambda xp, n: _log_two_root_n(xp, n) + xp.log(xp.pi**2 / 6 * n * n),
}
"""2√n; ξ(n); Krichevsky and Trofimov's, for all n at once; n + 1 (Seeger 2002); and Maurer's with a
union bound over n, ln(2√n · π²n²/6), which Krichevsky and Trofimov's makes obsolete."""
