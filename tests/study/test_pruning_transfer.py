"""The study of pruning on the bundled digits: masks, rewinds, what is held, claims by hand."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pandas as pd
import pruning_claims
import pruning_page
import pruning_runs
import pruning_transfer
import pytest
import torch
from claims import claims_of
from common import Where
from safetensors.torch import load_file

from pbnn.data import load
from pbnn.reporting import records_from_csv
from pbnn.representation import prunable, sparsity_of

SEEDS = 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    home = tmp_path_factory.mktemp("pruning")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PBNN_DATA", raising=False)
        patch.setattr("pbnn.data.files.cache_folder", lambda: home / "cache")
        for name, value in (("epochs", 1), ("images", 300)):
            patch.setitem(pruning_transfer.DIGITS, name, value)
        patch.setitem(pruning_transfer.PROBED, "images", 200)
        config = pruning_transfer.Config(seeds=SEEDS, out=home / "out", offline=True)
        folder = pruning_transfer.study(config)
        yield config, folder


@pytest.fixture(scope="module")
def frame(finished):
    return pruning_page.frame_of(records_from_csv(finished[1] / "records.csv"))


@pytest.fixture(scope="module")
def cells():
    config = pruning_transfer.Config(seeds=1)
    return [cell.config for cell in pruning_transfer.cells_of(config, {"digits": load("digits")})]


def cell_of(cells, **wanted):
    return next(c for c in cells if all(c[name] == value for name, value in wanted.items()))


def place(kept):
    return Where(kept, None, True, "cpu", False)


def points_of(cell):
    return pruning_runs.loaded(cell, pruning_runs.splits_of, place(None))


def test_without_other_data_it_takes_the_digits_and_writes_everything(finished, frame):
    _, folder = finished
    assert folder.name == "out_digits"
    page = (folder / "pruning.md").read_text(encoding="utf-8")
    assert "python studies/pruning_transfer.py --preset quick" in page
    assert "linear probe on digits" in page
    for name in ("table.csv", "claims.csv", "study.json", "accuracy_sparsity.svg"):
        assert (folder / name).exists()
    table = pd.read_csv(folder / "table.csv")
    assert (table["seeds"] == SEEDS).all()
    assert len(table) * SEEDS == len(frame)
    assert set(frame["source"]) == {"unpruned", *pruning_page.SOURCES}


def test_it_goes_on_with_more_seeds_and_repeats_nothing(finished, monkeypatch):
    config, folder = finished
    before = (folder / "pruning.md").read_bytes()
    monkeypatch.setattr(pruning_transfer, "run", lambda *a, **k: pytest.fail("it ran again"))
    pruning_transfer.study(config)
    pruning_transfer.study(pruning_transfer.Config(out=folder, redraw=True))
    # The folder that was asked for, where the digits had to do.
    pruning_transfer.study(pruning_transfer.Config(out=folder.with_name("out"), redraw=True))
    assert (folder / "pruning.md").read_bytes() == before
    tasks = {"digits": load("digits")}
    few, more = (
        {cell.key for cell in pruning_transfer.cells_of(pruning_transfer.Config(seeds=n), tasks)}
        for n in (SEEDS, SEEDS + 1)
    )
    assert few < more
    stored = {path.stem for path in (folder / "runs").glob("*.json")}
    assert stored == few


def test_weights_are_pruned_to_the_sparsity_and_stay_0(frame):
    for row in frame.to_dict("records"):
        # Of 16·9 + 32·16·9 + 128·128 weights.
        assert row["zeros"] == pytest.approx(row["sparsity"], abs=1 / 21136)


def test_accuracy_is_that_of_the_pruned_network(cells, monkeypatch, tmp_path):
    """Not of one whose pruned weights are signs of 0 again."""
    zeros = []

    def looking(network, x, y):
        shares = {n: w != 0 for n, w in pruning_runs.multiplied(network).items()}
        zeros.append(sparsity_of(shares))
        return 0.5

    def features(network, x, *_, **__):
        looking(network, x, None)
        return x.flatten(1)

    monkeypatch.setattr(pruning_runs, "accuracy", looking)
    monkeypatch.setattr(pruning_runs, "features", features)
    cell = cell_of(cells, role="probe", source="random", method="xnor_net", sparsity=0.9)
    pruning_runs.run(cell | {"epochs": 1}, Where(tmp_path, None, True, "cpu", False))
    blocks = len(pruning_runs.weighted(pruning_runs.start_of(cell, points_of(cell)[1], 4))) - 1
    count = 1 + 3 * blocks  # the turns, and three parts of the other data for each block
    assert zeros == pytest.approx([0.9] * count, abs=1e-4)
    monkeypatch.setattr(pruning_runs, "overlaps", lambda *_: {})
    cell = cell | {"role": "labels"}
    pruning_runs.run(cell | {"epochs": 1}, Where(tmp_path, None, True, "cpu", False))
    assert zeros[count:] == pytest.approx([0.9] * 2, abs=1e-4)


def test_masks_lie_within_those_of_the_round_before(finished):
    _, folder = finished
    paths = [*(folder / "runs").glob("*.safetensors")]
    assert len(paths) == 2 * 4 * SEEDS
    for path in paths:
        stored = load_file(path)
        layers = {name.partition("/")[2] for name in stored}
        rounds = [{n: stored[f"{s}/{n}"] for n in layers} for s in pruning_transfer.SPARSITIES]
        for masks, sparsity in zip(rounds, pruning_transfer.SPARSITIES, strict=True):
            assert sparsity_of(masks) == pytest.approx(sparsity, abs=1 / 21136)
        for wide, narrow in itertools.pairwise(rounds):
            assert all(not (narrow[n] & ~wide[n]).any() for n in layers)


def test_masks_that_are_not_held_are_noticed(cells, monkeypatch, tmp_path):
    class Careless(pruning_runs.Held):
        def __init__(self, network, masks):
            super().__init__(network, masks)
            self.remove()

    monkeypatch.setattr(pruning_runs, "Held", Careless)
    cell = cell_of(cells, role="probe", source="random", method="real", sparsity=0.9)
    with pytest.raises(RuntimeError, match="A pruned weight is not 0"):
        pruning_runs.run(cell | {"epochs": 1}, Where(tmp_path, None, True, "cpu", False))


@pytest.mark.parametrize("method", ["xnor_net", "real"])
@pytest.mark.parametrize("source", ["labels", "rotation", "clusters"])
def test_every_round_and_source_starts_at_the_same_state_to_the_bit(
    source, method, cells, monkeypatch, tmp_path
):
    cell = cell_of(cells, role="masks", source=source, method=method)
    task, points = points_of(cell)
    start = prunable(pruning_runs.start_of(cell, points, 10))
    seen = []

    def look(cell, network, what, x, y, progress):
        weights = prunable(network)
        for name, weight in weights.items():
            kept = weight != 0
            assert torch.equal(weight[kept], start[name][kept])
        seen.append(sparsity_of({name: weight != 0 for name, weight in weights.items()}))
        with torch.no_grad():  # what it would learn
            for name in weights:
                weights[name].mul_(
                    torch.linspace(1, 2, weights[name].numel()).view_as(weights[name])
                )
        return [{"epoch": 0.0, "risk": 0.5}]

    monkeypatch.setattr(pruning_runs, "learn", look)
    pruning_runs.find_masks(cell, task, points, place(tmp_path))
    assert seen == pytest.approx([0, 0.5, 0.8], abs=1e-4)


def test_only_the_labels_masks_look_at_labels(cells, tmp_path):
    """With other labels, masks of rotation and clusters are the same."""
    found = {}
    for source in ("labels", "rotation", "clusters"):
        cell = cell_of(cells, role="masks", source=source, method="xnor_net") | {"epochs": 1}
        task, points = points_of(cell)
        x, y = points.certification
        other = dataclasses.replace(points, certification=(x, y.roll(1)))
        for name, given in (("true", points), ("other", other)):
            record = pruning_runs.find_masks(cell, task, given, place(tmp_path))
            found[source, name] = record["files"]["safetensors"]
    assert found["rotation", "true"] == found["rotation", "other"]
    assert found["clusters", "true"] == found["clusters", "other"]
    assert found["labels", "true"] != found["labels", "other"]


def test_clusters_are_made_anew_of_what_was_learned(cells, monkeypatch, tmp_path):
    cell = cell_of(cells, role="masks", source="clusters", method="real") | {"epochs": 1}
    task, points = points_of(cell)
    shapes, clusters = [], pruning_runs.clusters

    def watched(features, count, seed):
        shapes.append(tuple(features.shape[1:]))
        assert count == cell["clusters"]
        return clusters(features, count, seed)

    monkeypatch.setattr(pruning_runs, "clusters", watched)
    pruning_runs.find_masks(cell, task, points, place(tmp_path))
    assert shapes == [(1, 8, 8), (128,), (128,)]


def test_a_mask_is_compared_with_the_labels_of_its_seed_and_kind(finished, frame):
    of = frame[frame["role"] == "labels"]
    own = of[of["source"] == "labels"]
    assert (own["jaccard"] == 1).all()
    runs = finished[1] / "runs"
    for row in of[of["source"] != "unpruned"].to_dict("records"):
        about = json.loads((runs / f"{row['after']['labels']}.json").read_text(encoding="utf-8"))
        config = about["config"]
        assert config["source"] == "labels"
        assert (config["seed"], config["method"]) == (row["seed"], row["method"])
    drawn = of[of["source"] == "random"]
    assert (drawn["jaccard"] - drawn["jaccard_chance"]).abs().max() < 0.03
    # From the same start, masks of one task overlap more than by chance within layers.
    assert (own["jaccard_again"] > own["jaccard_chance"]).all()
    assert (own["jaccard_again"] < 1).all()
    shuffled = of[of["source"] == "shuffled"]
    assert (shuffled["jaccard"] - shuffled["jaccard_layers"]).abs().max() < 0.03


def rows(role, source, sparsity, **measures):
    count = len(next(iter(measures.values())))
    return [
        {"dataset": "d", "network": "n", "method": "m", "role": role, "source": source}
        | {"sparsity": sparsity, "seed": seed}
        | {name: values[seed] for name, values in measures.items()}
        for seed in range(count)
    ]


def test_claims_are_paired_by_seed_and_decided_as_they_should():
    made = []
    for sparsity in (0.8, 0.9):
        made += rows("labels", "labels", sparsity, accuracy=[0.8, 0.7, 0.9], jaccard=[1] * 3)
        # Seeds differ by ten points, and labels from random by five.
        made += rows("labels", "random", sparsity, accuracy=[0.75, 0.651, 0.849],
                     jaccard=[0.05, 0.05, 0.05])  # fmt: skip
        made += rows("labels", "rotation", sparsity, accuracy=[0.801, 0.701, 0.901],
                     jaccard=[0.2, 0.301, 0.4], jaccard_layers=[0.4, 0.5, 0.602],
                     jaccard_groups=[0.1, 0.2, 0.3])  # fmt: skip
        made += rows("labels", "clusters", sparsity, accuracy=[0.7, 0.6, 0.801])
        made += rows("labels", "shuffled", sparsity, accuracy=[0.9, 0.5, 0.8])
        made += rows("labels", "shuffled_rotation", sparsity, accuracy=[0.79, 0.691, 0.891])
        made += rows("probe", "shuffled_rotation", sparsity, probe=[0.91, 0.81, 0.711])
        made += rows("probe", "rotation", sparsity, probe=[0.9, 0.8, 0.7])
        made += rows("probe", "random", sparsity, probe=[0.8, 0.7, 0.601])
    made += rows("labels", "unpruned", 0.0, accuracy=[1.0, 1.0, 1.0])
    made += rows("probe", "unpruned", 0.0, probe=[0.92, 0.82, 0.721])
    frame = pd.DataFrame(made).sample(frac=1, random_state=0)
    claims = claims_of(frame, *pruning_claims.CLAIMS)
    at = claims[claims["claim"].str.startswith("m, 80%")].set_index("claim")
    assert len(claims) == 2 * len(at)

    def found(words):
        (name,) = [name for name in at.index if words in name]
        return at.loc[name]

    row = found("masks of labels beat random")
    assert row["effect"] == pytest.approx(5.0, abs=0.01)
    assert (row["verdict"], row["seeds"]) == ("reproduced", 3)
    assert found("clusters beat random")["verdict"] == "not reproduced"
    row = found("rotation are the same as those of labels, to 0.50")
    assert row["effect"] == pytest.approx(0.1)
    assert row["verdict"] == "reproduced"
    assert found("labels beat the same shuffled")["verdict"] == "needs more seeds"
    row = found("rotation beat the same shuffled")
    assert row["effect"] == pytest.approx(1.03, abs=0.01)
    assert found("larger than those of random")["effect"] == pytest.approx(0.2503, abs=1e-4)
    row = found("as many weights in each layer, by chance")
    assert row["effect"] == pytest.approx(-0.2003, abs=1e-4)
    row = found("layers and the start's magnitudes explain")
    assert row["effect"] == pytest.approx(0.1003, abs=1e-4)
    row = found("as good as unpruned")
    assert row["effect"] == pytest.approx(-2.03, abs=0.01)
    assert row["verdict"] == "not reproduced"
    row = found("pruned by its masks, beat them shuffled")
    assert row["effect"] == pytest.approx(-1.03, abs=0.01)
    row = found("pruned by its masks, beat random masks")
    assert row["effect"] == pytest.approx(9.97, abs=0.01)
    assert row["verdict"] == "reproduced"


def test_presets_fill_their_own_folders():
    quick, full = (pruning_transfer.Config(preset=p) for p in ("quick", "full"))
    assert quick.folder.name == "pruning_transfer"
    assert full.folder.name == "pruning_transfer_full"
    assert pruning_transfer.Config(seeds=9).folder == quick.folder
    assert quick.datasets == ("fashion_mnist", "mnist")
    assert full.datasets[0] == "cifar10"
