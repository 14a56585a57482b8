"""The study of CMIM on little work: its arms, its dense task, the claims it reads from its runs."""

from __future__ import annotations

import composed_images
import contrastive_binarization
import contrastive_page
import contrastive_runs
import pandas as pd
import pytest
import torch
from claims import claims_of
from torch import nn

from pbnn.balance import mutual_information
from pbnn.data import load
from pbnn.seeding import generator

LITTLE = {"images": 200, "epochs": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(contrastive_binarization.NETWORKS_OF, "quick", {
            "small_lenet": (LITTLE, {"xnor_net": contrastive_binarization.VARIANTS,
                                     "ir_net": contrastive_binarization.PAIRS}),
            "pixels": (contrastive_binarization.SCENES | {"scenes": (64, 20, 20), "epochs": 1},
                       {"xnor_net": contrastive_binarization.PIXELS}),
        })  # fmt: skip
        patch.setitem(contrastive_binarization.DATASETS, "quick", ("digits",))
        patch.setattr("measured.ROUNDS", 1)
        patch.setattr("contrastive_costs.SIZES", (5000, 6000))
        folder = tmp_path_factory.mktemp("contrast")
        config = contrastive_binarization.Config(seeds=2, variants=True, out=folder, offline=True)
        contrastive_binarization.study(config)
        yield config, folder


def test_every_arm_is_a_row_and_every_claim_has_a_verdict(finished):
    _, folder = finished
    table = pd.read_csv(folder / "table.csv").set_index(["network", "method"])
    arms = {"xnor_net", "xnor_net_own", "xnor_net_teacher", "real"}
    assert arms <= {*table.loc["pixels"].index}
    assert arms | {"xnor_net_memory", "xnor_net_any", "ir_net_own"} <= {
        *table.loc["small_lenet"].index
    }
    assert (table["seeds"] == 2).all()
    claims = pd.read_csv(folder / "claims.csv")
    assert claims["verdict"].notna().all()
    assert (claims["seeds"] == 2).all()
    # Of three binary nets in all, each pair: information, of the last layer, and accuracy.
    assert claims["claim"].str.contains("raises I").sum() == 2 * (3 * 2) + 2
    for name in ("gains.svg", "costs.svg", "contrast.md"):
        assert (folder / name).stat().st_size > 0


def test_a_memory_grows_with_the_samples_and_a_batch_does_not(finished):
    _, folder = finished
    held = pd.read_csv(folder / "costs.csv").set_index(["variant", "n"])["held_megabytes"]
    assert held["teacher, in a batch", 5000] == held["teacher, in a batch", 6000]
    more = held["teacher, memory, N = 512", 6000] - held["teacher, memory, N = 512", 5000]
    # Two rows of 128 numbers a sample, and where its class begins, how long it is, its order.
    assert more == pytest.approx(1000 * (2 * 128 * 4 + 3 * 8) / 1e6)


def test_it_goes_on_from_its_records(finished, monkeypatch):
    config, folder = finished
    before = (folder / "contrast.md").read_bytes()
    monkeypatch.setattr(
        contrastive_binarization, "run", lambda *a, **k: pytest.fail("it ran again")
    )
    monkeypatch.setattr(contrastive_binarization, "write_costs", lambda *a: None)
    contrastive_binarization.study(config)
    contrastive_binarization.study(contrastive_binarization.Config(out=folder, redraw=True))
    assert (folder / "contrast.md").read_bytes() == before


def test_arms_share_start_batches_and_teacher():
    config = contrastive_binarization.Config(seeds=1, offline=True)
    cells = [c for c in contrastive_binarization.cells_of(config, {"digits": load("digits")})
             if c.config["network"] == "small_lenet"]  # fmt: skip
    by_method = {cell.config["method"]: cell for cell in cells}
    plain, taught = by_method["xnor_net"].config, by_method["xnor_net_teacher"].config
    differ = {name for name in plain if plain[name] != taught[name]}
    assert differ == {"method", "contrast", "after"}
    assert taught["after"] == by_method["real"].key
    assert taught["seed"] >= 10  # those before served to choose


def test_a_contrast_of_no_weight_changes_nothing():
    x = torch.rand(60, 1, 8, 8, generator=generator(0, "x"))
    y = torch.arange(60) % 3
    cell = contrastive_binarization.SHARED | {"network": "small_lenet", "seed": 0, "epochs": 1,
                                              "recipe": {"weights": "xnor"}, "batch": 20,
                                              "contrast": None, "method": "m"}  # fmt: skip
    networks = []
    for contrast in (None, {"count": None, "strength": 0.0}):
        network = contrastive_runs.network_of(cell, (1, 8, 8), 3)
        objective = contrastive_runs.objective_of(cell, network)
        mine = cell | {"contrast": contrast}
        objective = contrastive_runs.contrasted(mine, objective, x, y, None)
        contrastive_runs.training(mine, objective, x, y)
        networks.append(network.state_dict())
    for name, value in networks[0].items():
        assert torch.equal(value, networks[1][name]), name


def test_masks_lie_where_items_are():
    items = torch.ones(5, 1, 8, 8)
    images, masks = composed_images.composed(items, 30, generator(0, "scenes"))
    again, _ = composed_images.composed(items, 30, generator(0, "scenes"))
    assert torch.equal(images, again)
    assert images.shape == (30, 1, 40, 40)
    assert images.min() >= 0
    assert images.max() <= 1
    # Two squares of 8 pixels, that may overlap: of every second pixel 16 or 32.
    assert masks.sum((1, 2)).min() >= 16
    assert masks.sum((1, 2)).max() == 32
    seen = images[:, 0, ::2, ::2]
    assert seen[masks == 1].mean() > 0.9
    assert seen[masks == 0].mean() < 0.7


def test_the_overlap_counts_the_foreground_alone():
    class Fixed(nn.Module):
        def forward(self, x):
            return torch.cat([torch.zeros_like(x), x], 1)

    x = torch.tensor([[[[1.0, 1.0], [-1.0, -1.0]]]])
    y = torch.tensor([[[1, 0], [1, 0]]])
    assert composed_images.intersection_over_union(Fixed(), x, y) == pytest.approx(1 / 3)


def test_the_information_of_pixels_is_that_of_their_own_sign():
    class Signs(nn.Module):
        sign_methods = ("forward",)

        def forward(self, x):
            return torch.where(x >= 0, 1.0, -1.0)

    x = torch.randn(150, 2, 6, 6, generator=generator(0, "x"))
    y = (x[:, 0] + torch.randn(150, 6, 6, generator=generator(0, "e")) > 0).long()
    (found,) = composed_images.pixel_information(nn.Sequential(Signs()), x, y).values()
    expected = 0.0
    for channel in range(2):
        table = torch.zeros(2, 2, dtype=torch.float64)
        for label in (0, 1):
            for sign in (0, 1):
                both = ((x[:, channel] >= 0).long() == sign) & (y == label)
                table[label, sign] = both.sum()
        expected += float(mutual_information(table)) / 2
    assert found == pytest.approx(expected, rel=1e-9)
    assert found > 0.02  # by the first channel alone


def test_claims_are_paired_differences_of_what_a_network_is_good_for():
    rows = [
        {"dataset": "d", "network": network, "method": method, "seed": seed, "good": good + seed,
         measure: good + seed, "information": good, "information_last": -good}
        for network, measure in (("small_lenet", "accuracy"), ("pixels", "iou"))
        for method, good in (("real", 9.0), ("xnor_net", 0.1), ("xnor_net_own", 0.2),
                             ("xnor_net_teacher", 0.05))
        for seed in range(3)
    ]  # fmt: skip
    found = claims_of(pd.DataFrame(rows), contrastive_page.each_recipe).set_index(
        ["network", "claim"]
    )
    for network in ("small_lenet", "pixels"):
        row = found.loc[network, "xnor_net: the pair in the network beats no contrast"]
        assert row["effect"] == pytest.approx(10.0)
        assert row["verdict"] == "reproduced"
        row = found.loc[network, "xnor_net: the pair with a teacher beats no contrast"]
        assert row["effect"] == pytest.approx(-5.0)
        assert row["verdict"] == "not reproduced"
        raises = "xnor_net: the pair in the network raises I(b; Y) of the last binary layer"
        assert found.loc[network, raises]["effect"] == pytest.approx(-0.1)
