"""
A network of bits
=================

A network whose weights and activations are signs, as words of 32 bits: the same answers, in a
thirtieth of the memory.
"""

# %%
# A small convolutional network, trained as it will be deployed.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from pbnn import BLRNet, binarise, fit
from pbnn.data import cut, load
from pbnn.objectives import RiskObjective
from pbnn.packed import load as load_packed
from pbnn.packed import pack, save
from pbnn.seeding import generator
from pbnn.training import FitConfig

torch.set_num_threads(1)
plt.style.use("pbnn.pbnn")
digits = load("digits")
parts = cut(digits, prior=0.5)
x, y = (torch.from_numpy(values[parts.prior]) for values in (digits.x, digits.y))
start = generator(0, "start")
network = BLRNet((1, 8, 8), "16C3-MP2-64FC-SM10", activation="mode", generator=start)
how = FitConfig(epochs=6, batch=32, learning_rate=0.02)
curve = fit(RiskObjective(network, "cross_entropy"), x, y, how, generator=generator(0, "order"))
binary = binarise(network).re_estimate(x)

# %%
# Packed, written to a file and read again. Pixels of these digits are 0 to 16, divided by 16.

packed = pack(binary, scale=1 / 16)
path = Path(tempfile.mkdtemp()) / "digits.pbnn"
save(path, packed)
again = load_packed(path)
unseen = digits.x[parts.certification]
same = (again.predict(unseen) == binary(torch.from_numpy(unseen)).argmax(1).numpy()).mean()
print(f"{path.stat().st_size} bytes; the same label for {same:.1%} of {len(unseen)} images")
error = (again.predict(unseen) != digits.y[parts.certification]).mean()
print(f"error on images it has not seen: {error:.3f}")

# %%
# The bits themselves: sixteen filters of 3×3 signs.

filters = again.export_bits()["blocks.0"]
figure, axes = plt.subplots(2, 8, figsize=(6, 1.7), layout="constrained")
for each, axis in zip(filters[:, 0], axes.flat, strict=True):
    axis.imshow(each, cmap="gray", vmin=-1, vmax=1)
    axis.set_axis_off()
plt.show()
