"""
A network trained by its own bound
==================================

:class:`~pbnn.networks.PBGNet` has random weights and signs for activations. Its objective is a
PAC-Bayes bound, so that the learning curve is one of bounds, up to the averaging over the steps of
an epoch.
"""

# %%
# Two of the bundled digits, parted by a seed before anything is looked at.

import matplotlib.pyplot as plt
import torch

from pbnn import PBGNet, certify_gibbs, fit
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
print(f"{parts.n} images of the digits 4 and 9")

# %%
# The prior is a random draw, fixed by the seed. Training moves the posterior and the temperature.

network = PBGNet(64, hidden=(2,), bias=True, generator=generator(0, "prior"))
budget = Budget(delta=0.05, choices=1)
objective = BoundObjective(network, parts.n, budget.events(exact=network.exact)["gibbs"])
curve = fit(objective, x, y, FitConfig(epochs=60), generator=generator(0, "batches"))

figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 2.8), layout="constrained")
epochs = [row["epoch"] for row in curve]
left.plot(epochs, [row["objective"] for row in curve], label="bound")
left.plot(epochs, [row["risk"] for row in curve], label="Gibbs risk")
left.set(xlabel="epoch", ylim=(0, 1))
left.legend()
right.plot(epochs, [row["kl"] for row in curve], color="C2")
right.set(xlabel="epoch", ylabel="KL in nats")
plt.show()

# %%
# The certificate computes risk and KL of the final network anew, in float64, and rounds up.

origin = Provenance("a random draw", seed=0, splits=parts.hashes(task))
certificate = certify_gibbs(network, risks(network, x, y), budget, origin)
test = risks(network, *(torch.from_numpy(values[parts.test]) for values in (task.x, task.y)))
print(f"risk {certificate.risk:.4f}, KL {certificate.kl:.1f} nats: {certificate.bound:.4f}")
print(f"on {len(parts.test)} test images: {test.gibbs:.4f}")
