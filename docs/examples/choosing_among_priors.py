"""
Choosing among priors, and its price
====================================

A bound holds for every posterior at once, but for one prior. Who takes the best of k priors pays
ln k nats.
"""

# %%
# A read-out of the digits 4 and 9 with a Gaussian prior. How far it starts from zero is a choice
# of the prior.

import matplotlib.pyplot as plt
import numpy as np
import torch

from pbnn import PBGNet, certify_gibbs, fit
from pbnn.bounds import union_price
from pbnn.certificates import Budget, Provenance
from pbnn.data import load, split
from pbnn.evaluation import risks
from pbnn.objectives import BoundObjective
from pbnn.seeding import generator
from pbnn.training import FitConfig

torch.set_num_threads(1)
plt.style.use("pbnn.pbnn")
task = load("digits49")
parts = split(task)
x, y = (torch.from_numpy(values[parts.certification]) for values in (task.x, task.y))


def trained(seed: int) -> PBGNet:
    """The posterior of the prior that this seed draws."""
    network = PBGNet(64, hidden=(1,), bias=True, generator=generator(seed, "prior"))
    objective = BoundObjective(network, parts.n, delta=0.05)
    fit(objective, x, y, FitConfig(epochs=20), generator=generator(seed, "batches"))
    return network


def certified(seed: int, choices: int) -> float:
    """Its certificate, if it is one of so many."""
    network, budget = networks[seed], Budget(delta=0.05, choices=choices)
    origin = Provenance(f"draw {seed}", seed=seed, splits=parts.hashes(task))
    return certify_gibbs(network, risks(network, x, y), budget, origin).bound


# %%
# Eight priors. Each figure is a certificate if its prior was named beforehand; the least of them
# is none.

networks = [trained(seed) for seed in range(8)]
alone = [certified(seed, choices=1) for seed in range(8)]
paid = [certified(seed, choices=8) for seed in range(8)]
print(f"least of eight, unpaid:    {min(alone):.4f}  (no certificate)")
print(f"least of eight, paid for:  {min(paid):.4f}  (ln 8 = {union_price(8):.2f} nats)")
print(f"the first, named before:   {alone[0]:.4f}")

# %%
# Looking is worth its price where priors differ by more than it: here the best of eight hardly
# beats the first.

figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(np.arange(1, 9), np.minimum.accumulate(alone), marker="o", label="best so far, unpaid")
axes.plot(np.arange(1, 9), [min(paid)] * 8, color="C1", label="best of eight, paid for")
axes.axhline(alone[0], color="0.6", linewidth=1, label="the first")
axes.set(xlabel="priors tried", ylabel="bound")
axes.legend()
plt.show()
