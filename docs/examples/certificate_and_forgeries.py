"""
A certificate, and what a forger would change
=============================================

A certificate holds all that its bound was computed from. Reading it computes the bound again, in
interval arithmetic.
"""

# %%
# Forty errors on 4000 points by a predictor that was fixed beforehand: no KL, the binomial tail.

import dataclasses

import matplotlib.pyplot as plt

from pbnn.bounds import clopper_pearson
from pbnn.certificates import Budget, Provenance, certify_known, verify

plt.style.use("pbnn.pbnn")
origin = Provenance("none: fixed beforehand", seed=0, splits={"certification": "5f70bf18"})
budget = Budget(delta=0.05, choices=1, family="deployed")
certificate = certify_known("a fingerprint", 40, 4000, budget, origin, fixed=True)
print(f"{certificate.predictor}: at most {certificate.bound:.6f} by {certificate.theorem}")
verify(certificate)  # silence: it holds

# %%
# Whoever changes one number must change the others, too, and then the data disagree.

forgeries = {
    "a lower bound": {"bound": 0.012},
    "a lower risk": {"risk": 0.005},
    "more points": {"n": 40_000},
    "another predictor": {"predictor": "vote"},
    "a larger δ": {"budget": dataclasses.replace(budget, delta=0.5)},
    "unpaid choices": {"budget": dataclasses.replace(budget, choices=100)},
}
for name, change in forgeries.items():
    try:
        verify(dataclasses.replace(certificate, **change))
    except ValueError as error:
        print(f"{name}: {str(error).removeprefix('certificate: ')[:90]}")

# %%
# How much of the bound is uncertainty: the same error rate, more points.

sizes = [100 * 2**k for k in range(10)]
bounds = [clopper_pearson(n // 100, n) for n in sizes]
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(sizes, bounds, marker="o", label="bound")
axes.axhline(0.01, color="0.6", label="error rate")
axes.set(xscale="log", xlabel="n", ylim=(0, None))
axes.legend()
plt.show()
