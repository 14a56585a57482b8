"""
Bounds against KL
=================

What a nat costs, by the bound: at a risk of .05 on 10,000 examples, for losses of 0 or 1.
"""

# %%
# Bounds are functions of arrays, too. :func:`~pbnn.bounds.maurer` is the kl bound; the others are
# relaxations of it, and so lie above it everywhere. McAllester's is near it only where the bound
# says little.

import matplotlib.pyplot as plt
import numpy as np

from pbnn.bounds import maurer, mcallester, quadratic, union_price

plt.style.use("pbnn.pbnn")
n, risk = 10_000, 0.05
kl = np.geomspace(1, n, 200)

figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for bound in (maurer, quadratic, mcallester):
    axes.plot(kl / n, bound(risk, kl, n), label=bound.__name__)
axes.axhline(risk, color="0.6", linewidth=1)
axes.set(xscale="log", xlabel="KL / n", ylabel="bound", ylim=(0, 1))
axes.legend()
plt.show()

# %%
# The price of δ is small beside that: it enters by its logarithm, as does a choice among priors.

for delta, choices in ((0.05, 1), (0.001, 1), (0.05, 1000)):
    value = maurer(risk, 100.0 + union_price(choices), n, delta=delta)
    print(f"δ = {delta:5}, one of {choices:4} priors: {value:.4f}")
