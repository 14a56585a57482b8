"""
How balanced signs are, by their threshold
==========================================

A sign of a standard normal at threshold t is +1 with probability Φ(−t). In a network the units are
what batch normalisation and training make of them.
"""

# %%
# An ordinary network of torch is made binary at several thresholds, and trained for a moment.

import matplotlib.pyplot as plt
import numpy as np
import torch

from pbnn import fit
from pbnn.backbones import lenet
from pbnn.balance import measure
from pbnn.baselines import Classifier
from pbnn.binarize import Recipe, after_step, convert, share_of_ones
from pbnn.data import load
from pbnn.objectives import RiskObjective
from pbnn.seeding import generator
from pbnn.training import FitConfig

torch.set_num_threads(1)
plt.style.use("pbnn.pbnn")
digits = load("digits")
x, y = torch.from_numpy(digits.x[:640]), torch.from_numpy(digits.y[:640])
thresholds = [0.0, 0.3, 0.6, 1.0]
shares, entropies = [], []
for threshold in thresholds:
    model = lenet((1, 8, 8), (8, 16), 32, kernel=3, generator=generator(0, "model"))
    network = convert(model, Recipe(weights="xnor", threshold=threshold)).network
    objective = RiskObjective(Classifier(network), "cross_entropy")
    how = FitConfig(epochs=2, batch=64, learning_rate=0.01)
    order = generator(0, "order")
    fit(objective, x, y, how, generator=order, after_step=lambda share: after_step(network))  # noqa: B023
    figures = measure(network, zip(x.split(320), y.split(320), strict=True), classes=10).activations
    shares.append([layer["share"] for layer in figures.values()])
    entropies.append([layer["entropy"] for layer in figures.values()])

# %%
# Share and entropy fall with the threshold, here faster than those of a standard normal; the
# entropy, averaged over channels, lies below that of the mean share.

line = np.linspace(0, 1.1, 50)
normal = np.array([share_of_ones(float(t)) for t in line])
bits = -normal * np.log2(normal) - (1 - normal) * np.log2(1 - normal)
figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 2.8), layout="constrained")
for axes, measured, closed in ((left, shares, normal), (right, entropies, bits)):
    axes.plot(line, closed, color="0.6", label="standard normal")
    for layer, values in enumerate(np.array(measured).T):
        axes.plot(thresholds, values, marker="o", linestyle="", label=f"layer {layer + 1}")
    axes.set(xlabel="threshold", ylim=(0, 1.05))
left.set(ylabel="share of +1")
right.set(ylabel="entropy in bits")
left.legend()
plt.show()
