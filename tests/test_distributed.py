"""Training and risks by several processes: what one process finds, whatever the shards."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from spawned import FOUND, in_turn, together
from torch import nn

from pbnn.baselines import Classifier
from pbnn.binarize import Recipe, after_step, convert, set_progress, set_source, supervision
from pbnn.class_risks import drawn_risks
from pbnn.distributed import draw_seed, fit_sharded, processes, sharded_drawn_risks
from pbnn.functional import Moments
from pbnn.layers import freeze_statistics
from pbnn.networks import BLRNet, PBGNet
from pbnn.networks.blrnet import unbalance
from pbnn.objectives import (
    BoundObjective,
    PenalisedObjective,
    RiskObjective,
    VariationalObjective,
)
from pbnn.representation import CMIM, ContrastiveObjective, RotationObjective
from pbnn.resuming import state_of
from pbnn.sampled import SampledPBGNet
from pbnn.seeding import generator
from pbnn.shards import PointDraws, _Deviations
from pbnn.training import FitConfig, fit

N, CLASSES, DELTA = 44, 3, 0.05
CONFIG = FitConfig(epochs=3, batch=14, learning_rate=0.05)  # 14, 14, 14 and 2: too few for three
SMALL = "3C3-MP2-4FC-SM3"


def images(dtype=torch.float64):
    x = torch.randn(N, 1, 6, 6, generator=generator(0, "x"), dtype=dtype)
    return x, torch.randint(CLASSES, (N,), generator=generator(0, "y"))


SEED = [0]
"""Of trainings; one that goes on has another, and all that matters from its file."""


def seeded(what):
    return generator(SEED[0], what)


def blrnet(dtype=torch.float64, **options):
    make, source = seeded("net"), seeded("source")
    return BLRNet((1, 6, 6), SMALL, generator=make, source=source, dtype=dtype, **options)


def bound(network, n=N):
    return BoundObjective(network, n, DELTA, loss="gibbs")


def model(*more, recipe="xnor_net", classes=CLASSES):
    """A converted network of real, binary and real layers.

    No sign sits on a level and no gradient is 0 up to rounding, of which Adam would make steps.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Hardtanh(), *more]
        parts += [nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=None)]
        parts += [nn.Hardtanh(), nn.Flatten(), nn.Linear(16, 5, bias=False)]
        parts += [nn.BatchNorm1d(5), nn.Linear(5, classes)]
        net = nn.Sequential(*parts).double()
        return Classifier(convert(net, recipe, layers=(str(3 + len(more)),)).network)


class Unit(nn.Module):
    """Embeddings of unit length."""

    def __init__(self):
        super().__init__()
        self.net = model()

    def forward(self, x):
        return nn.functional.normalize(self.net(x).mean, dim=1)


def noisy(x, source):
    return x + 0.1 * torch.randn(x.shape, generator=source, dtype=x.dtype)


class End(NamedTuple):
    """What a training ends with."""

    curve: list[dict[str, float]]
    losses: list[float]
    state: dict[str, torch.Tensor]


def trained(objective, points, config=CONFIG, fitting=fit_sharded, **more):
    """By all processes, or by `fit`."""
    if fitting is fit:
        more.pop("checkpoint", None)
    losses = []
    seen = objective.register_forward_hook(lambda *given: losses.append(given[2][0].item()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of bounds with statistics that move
        more = {"generator": seeded("batches")} | more
        curve = fitting(objective, *points, config, **more)
    seen.remove()
    state = {name: value.clone() for name, value in state_of(objective).items()}
    return End(curve, losses, state)


def with_batch_norm(**more):
    return trained(bound(blrnet()), images(), augment=noisy, **more)


def with_frozen_norm(**more):
    network = blrnet()
    network.re_estimate(images()[0])
    freeze_statistics(network, "split")
    config = dataclasses.replace(CONFIG, kl_warmup=0.5, keep="last")
    return trained(bound(network), images(), config, **more)


def in_float32(**more):
    config = dataclasses.replace(CONFIG, optimiser="sgd", learning_rate=0.02)
    return trained(bound(blrnet(torch.float32)), images(torch.float32), config, **more)


def with_drawn_weights(**more):
    network = blrnet(activation="sample")
    unbalance(network, 0.123)  # sums of signs sit on the mean of a batch now and then
    return trained(RiskObjective(network, "cross_entropy"), images(), **more)


def two_classes(width=4):
    x = images()[0].flatten(1)[:, :5]
    network = PBGNet(5, (width,), generator=seeded("prior"), dtype=torch.float64)
    y = torch.where(x[:, 0] - x[:, 1] > 0, 1.0, -1.0).double()
    return BoundObjective(network, N, DELTA), (x, y)


def of_two_classes(**more):
    return trained(*two_classes(), **more)


def with_other_starts(**more):
    """Each process comes with seeds of its own, and follows the first."""
    make, order = (generator(int(os.environ.get("RANK", 0)), what) for what in "pb")
    network = PBGNet(5, (4,), generator=make, dtype=torch.float64)
    points = two_classes()[1]
    return trained(BoundObjective(network, N, DELTA), points, generator=order, **more)


def of_binary_weights(**more):
    objective = RiskObjective(model(recipe="ir_net"), "cross_entropy", decay=1e-3)

    def stepped(share):
        set_progress(objective, share)
        after_step(objective.network)

    config = dataclasses.replace(CONFIG, frozen_from=0.7)
    return trained(objective, images(), config, after_step=stepped, **more)


def of_learned_weights(**more):
    network = model(recipe="noisy_supervision")
    term = functools.partial(supervision, network, 0.1, 0.1)
    objective = PenalisedObjective(RiskObjective(network, "cross_entropy"), term)
    return trained(objective, images(), **more)


def of_turns(**more):
    network = model(recipe=Recipe(weights="stochastic"), classes=4)
    set_source(network, seeded("signs"))
    objective = RotationObjective(RiskObjective(network, "cross_entropy"), seeded("turns"))
    return trained(objective, images(), **more)


def of_contrast(**more):
    objective = ContrastiveObjective(Unit(), noisy, 0.5, seeded("views"))
    return trained(objective, images(), **more)


EXACT = (
    with_batch_norm,
    with_frozen_norm,
    in_float32,
    with_drawn_weights,
    with_other_starts,
    of_two_classes,
    of_binary_weights,
    of_learned_weights,
    of_turns,
    of_contrast,
)
"""What does not depend on the number of processes."""


def with_drawn_units(**more):
    network = blrnet(activation="concrete", pooling="sampled")
    return trained(RiskObjective(network, "cross_entropy"), images(), **more)


def with_sampled_signs(**more):
    x = images()[0].flatten(1)[:, :5]
    make, source = seeded("prior"), seeded("source")
    network = SampledPBGNet(5, (4,), generator=make, source=source, draws=3, dtype=torch.float64)
    y = torch.where(x[:, 0] > 0, 1.0, -1.0).double()
    return trained(BoundObjective(network, N, DELTA), (x, y), **more)


DRAWN = (with_drawn_units, with_sampled_signs)
"""What the number of processes decides."""
INTERRUPTED = (with_batch_norm, of_binary_weights, of_turns, with_drawn_units)


def kl_alone(**more):
    """One step down a loss that is a KL and nothing else, up to a millionth."""
    network = PBGNet(5, (4,), generator=seeded("prior"), dtype=torch.float64)
    network.restart(generator(0, "start"))
    before = torch.cat([layer.weight.mean.detach().flatten() for layer in network.layers()])
    prior = torch.cat([layer.weight.prior_mean.flatten() for layer in network.layers()])
    points = torch.ones(N, 5).double(), torch.ones(N).double()
    config = FitConfig(epochs=1, batch=N, optimiser="sgd", learning_rate=1e-3, keep="last")
    trained(VariationalObjective(network, N, C=1e-6), points, config, **more)
    after = torch.cat([layer.weight.mean.detach().flatten() for layer in network.layers()])
    return ((after - before) / (before - prior)).tolist()


class Cut(Exception):
    """Power is lost."""


def cut_after(epoch):
    def cut(done):
        if done == epoch:
            raise Cut

    return cut


def resumed(function, path):
    """A training that is cut off in its third epoch, after two in its file, and goes on."""
    with pytest.raises(Cut):
        function(checkpoint=path, after_epoch=cut_after(3))
    assert path.exists() or int(os.environ.get("RANK", 0))
    SEED[0] = 1
    try:
        return function(checkpoint=path)
    finally:
        SEED[0] = 0


def risks_of(law, group):
    network = blrnet(torch.float32, law=law, start=0.5)
    points = images(torch.float32)
    found = sharded_drawn_risks(network, *points, group=group, passes=3, seed=5)
    return {k: v for k, v in dataclasses.asdict(found).items() if v == v}


RISKS = [("bernoulli", 5), ("gaussian", 44), ("gaussian", 100)]


def refusals(rank):
    """What is said of trainings that cannot be those of several processes."""
    x, y = images()
    plain = RiskObjective(model(), "cross_entropy")
    strange = model()
    strange.net.source = generator(0, "unknown")
    instance = nn.InstanceNorm2d(4, track_running_stats=True)
    network = blrnet(torch.float32)
    attempts = {
        "points": lambda: trained(plain, (x + rank, y)),
        "config": lambda: trained(plain, (x, y), FitConfig(epochs=1 + rank)),
        "parts": lambda: trained(RiskObjective(model(classes=3 + rank), "bce"), (x, y)),
        "compile": lambda: trained(plain, (x, y), FitConfig(compile=True)),
        "dropout": lambda: trained(RiskObjective(model(nn.Dropout(0.5)), "bce"), (x, y)),
        "instance": lambda: trained(RiskObjective(model(instance), "bce"), (x, y)),
        "generator": lambda: trained(RiskObjective(strange, "bce"), (x, y)),
        "cmim": lambda: trained(
            CMIM(plain, x, y, count=8, generator=generator(0, "heads")), (x, y)
        ),
        "batch": lambda: trained(RiskObjective(WholeBatch(), "bce"), (x, y)),
        "rows": lambda: trained(RiskObjective(OneRow(), "bce"), (x, y)),
        "seed": lambda: sharded_drawn_risks(network, x.float(), y, group=2, passes=1, seed=rank),
    }
    told = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            told[name] = "nothing"
        except (ValueError, RuntimeError) as error:
            told[name] = f"{type(error).__name__}: {error}"
    return told


class WholeBatch(nn.Module):
    """Remembers the mean of its batch, which nobody knows."""

    def __init__(self):
        super().__init__()
        self.net = model()
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        self.seen += x.detach().mean()
        return self.net(x)


class OneRow(nn.Module):
    """Gives one row for all points."""

    def __init__(self):
        super().__init__()
        self.net = model()

    def forward(self, x):
        mean, var = self.net(x)
        return Moments(mean.mean(0, keepdim=True), var.mean(0, keepdim=True))


def callbacks(rank):
    """A callback of process 0 alone may compute with the network."""
    x, y = images()
    objective, seen = RiskObjective(blrnet(), "cross_entropy"), []

    def look(epoch):
        if rank == 0:
            objective.eval()
            seen.append([len(objective.network(x).mean), len(copy.deepcopy(objective)(x, y))])

    trained(objective, (x, y), FitConfig(epochs=1, batch=N), after_epoch=look)
    return seen


def compared(folder, here):
    """All that is compared, each result in a file of its own."""

    def keep(name, found):
        save_file(found.state, folder / f"{name}-{here.rank}.safetensors")
        (folder / f"{name}-{here.rank}.json").write_text(json.dumps(found[:2]))

    for function in (*EXACT, *DRAWN):
        keep(function.__name__, function())
    for function in DRAWN:
        keep(f"again_{function.__name__}", function())
    for function in INTERRUPTED:
        name = function.__name__
        keep(f"resumed_{name}", resumed(function, folder / name / "run.safetensors"))
    more = {
        "kl": kl_alone(),
        "risks": [risks_of(*given) for given in RISKS],
        "refusals": refusals(here.rank),
        "callbacks": callbacks(here.rank),
    }
    (folder / f"more-{here.rank}.json").write_text(json.dumps(more))


def failing(how, rank):
    """What process 0 of two is told, and when, if the other raises or waits in a training."""

    def stepped(share):
        if rank == 1 and how == "waits":
            time.sleep(5)
        if rank == 1:
            raise Cut

    start = time.time()
    try:
        with processes(timeout=3):
            trained(RiskObjective(model(), "bce"), images(), after_step=stepped)
    except (RuntimeError, Cut) as error:
        return str(error), time.time() - start


def work(folder):
    """All that a process does: by three of them, by two, and by two of which one fails."""
    folder, rank = Path(folder), int(os.environ["RANK"])
    for _, here in in_turn((3, 2), timeout=60):
        compared(folder / str(here.count), here)
    os.environ["WORLD_SIZE"] = "2"
    for how, port in zip(("raises", "waits"), os.environ["PORTS"].split()[2:], strict=True):
        os.environ["MASTER_PORT"] = port
        if rank < 2:
            told = failing(how, rank)
            (folder / f"{how}-{rank}.json").write_text(json.dumps(told))


def killed(folder):
    """Process 1 kills itself in the third epoch, the first time."""
    path = Path(folder) / "run.safetensors"

    def die(epoch):
        if epoch == 3 and os.environ["RANK"] == "1" and not (Path(folder) / "died").exists():
            (Path(folder) / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    with processes(timeout=60) as here:
        end = of_two_classes(checkpoint=path, after_epoch=die)
        save_file(end.state, Path(folder) / f"end-{here.rank}.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where three processes of this file, as torchrun starts them, have left what they found."""
    folder = tmp_path_factory.mktemp("found")
    for count in (2, 3):
        (folder / str(count)).mkdir()
    together([sys.executable, __file__, "work", str(folder)], 3, turns=4, timeout=150)
    return folder


@pytest.fixture(scope="module")
def folders(folder):
    return {count: folder / str(count) for count in (2, 3)}


def read(folder, name, rank=0):
    told = json.loads((folder / f"{name}-{rank}.json").read_text())
    return End(*told, load_file(folder / f"{name}-{rank}.safetensors"))


def differences(one, other):
    """The largest of a figure or a batch's loss, and of a number of the states."""
    assert [row.keys() for row in one.curve] == [row.keys() for row in other.curve]
    assert one.state.keys() == other.state.keys()
    figures = [
        abs(row[key] - like[key])
        for row, like in zip(one.curve, other.curve, strict=True)
        for key in ("objective", "risk")
    ]
    # Who goes on has not seen all batches.
    losses = zip(reversed(one.losses), reversed(other.losses), strict=False)
    figures += [abs(loss - like) for loss, like in losses]
    return max(figures), max((one.state[k] - other.state[k]).abs().max().item() for k in one.state)


def identical(one, other):
    return differences(one, other) == (0.0, 0.0)


ALONE = functools.cache(lambda function: function(fitting=fit))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("function", EXACT, ids=lambda function: function.__name__)
def test_any_number_of_processes_trains_as_one_does(folders, function, count):
    found = read(folders[count], function.__name__)
    figures, values = differences(found, ALONE(function))
    print(f"{function.__name__} by {count}: {figures:.1e} {values:.1e}")
    exact = function is not in_float32
    assert figures < (1e-9 if exact else 1e-6)
    assert values < (1e-8 if exact else 1e-5)
    assert len(found.curve) == CONFIG.epochs
    assert len(found.losses) >= 4 * CONFIG.epochs


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("function", [*EXACT, *DRAWN], ids=lambda function: function.__name__)
def test_all_processes_end_with_the_same(folders, function, count):
    first, *others = (read(folders[count], function.__name__, rank) for rank in range(count))
    assert all(identical(first, other) for other in others)


@pytest.mark.parametrize("function", [*EXACT, *DRAWN], ids=lambda function: function.__name__)
def test_alone_it_is_the_plain_fit(function):
    assert identical(function(fitting=fit_sharded), ALONE(function))


@pytest.mark.parametrize("function", DRAWN, ids=lambda function: function.__name__)
def test_draws_of_units_are_repeated_and_are_those_of_this_number_of_processes(folders, function):
    name, found = function.__name__, ALONE(function)
    for folder in folders.values():
        mine = read(folder, name)
        assert identical(mine, read(folder, f"again_{name}"))
        assert not identical(mine, found)
        found = mine


def test_processes_draw_different_units(monkeypatch):
    network = blrnet(activation="concrete")
    own = []
    for rank in (0, 1, 0):
        monkeypatch.setattr("pbnn.shards.place", lambda rank=rank: (rank, 2))
        draws = PointDraws(network)
        draws.start(0)
        own.append(torch.rand(5, generator=draws.own[0]).tolist())
        draws.start(1)
        own.append(torch.rand(5, generator=draws.own[0]).tolist())
    assert own[:2] == own[4:]
    assert len({tuple(values) for values in own}) == 4


@pytest.mark.parametrize("shape", [(7, 3), (4, 3, 2, 5), (3, 2, 4)])
def test_statistics_by_a_few_rows_are_those_of_torch(shape, monkeypatch):
    monkeypatch.setattr("pbnn.shards.CACHED", 6)
    x = torch.randn(shape, generator=generator(0, "units"), dtype=torch.float64, requires_grad=True)
    var, mean = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
    found = _Deviations.apply(x)
    torch.testing.assert_close(found, (mean, var))
    slopes = torch.arange(1.0, shape[1] + 1).double(), torch.ones(shape[1]).double()
    (expected,) = torch.autograd.grad((mean, var), x, slopes)
    torch.testing.assert_close(*torch.autograd.grad(found, x, slopes), expected)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("function", INTERRUPTED, ids=lambda function: function.__name__)
def test_what_was_cut_off_goes_on_bit_for_bit(folders, function, count, tmp_path):
    if count == 1:
        assert identical(resumed(function, tmp_path / "run.safetensors"), ALONE(function))
        return
    name = function.__name__
    for rank in range(count):
        undisturbed = read(folders[count], name, rank)
        assert identical(read(folders[count], f"resumed_{name}", rank), undisturbed)


def test_what_was_done_is_not_done_again(tmp_path):
    path, epochs = tmp_path / "run.safetensors", []
    first = of_two_classes(checkpoint=path, after_epoch=epochs.append)
    again = of_two_classes(checkpoint=path, after_epoch=epochs.append)
    assert identical(first, again)
    assert epochs == [1, 2, 3]
    config = dataclasses.replace(CONFIG, epochs=30, patience=1, learning_rate=1.0)
    path.unlink()
    curve = trained(*two_classes(), config, checkpoint=path).curve
    assert len(curve) < 30
    assert trained(*two_classes(), config, checkpoint=path).curve == curve


def test_the_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    of_two_classes(checkpoint=path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"run.safetensors .*`points` must be"):
        of_contrast(checkpoint=path)
    with pytest.raises(ValueError, match="no checkpoint of this training: `config` must be"):
        trained(*two_classes(), dataclasses.replace(CONFIG, epochs=4), checkpoint=path)
    with pytest.raises(ValueError, match="`objective` must have the shapes"):
        trained(*two_classes(width=3), checkpoint=path)
    for damaged in (content[:-1], content[:100], b"{}", content[:9] + b"x" + content[10:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run.safetensors is no checkpoint"):
            of_two_classes(checkpoint=path)


def test_the_kl_counts_once(folders):
    # A step of SGD at momentum 0.9 from rest moves by the rate times the gradient.
    (alone,) = {round(value, 6) for value in kl_alone()}
    assert alone != 0
    for count, folder in folders.items():
        for rank in range(count):
            more = json.loads((folder / f"more-{rank}.json").read_text())
            assert {round(value, 6) for value in more["kl"]} == {alone}


def test_drawn_risks_are_the_same_for_any_number_of_processes(folders):
    alone = json.loads(json.dumps([risks_of(*given) for given in RISKS]))
    for count, folder in folders.items():
        for rank in range(count):
            more = json.loads((folder / f"more-{rank}.json").read_text())
            assert more["risks"] == alone


def test_drawn_risks_are_those_of_networks_of_the_posterior():
    network = blrnet(torch.float32, start=0.5)
    points = images(torch.float32)
    mine = sharded_drawn_risks(network, *points, group=11, passes=100, seed=0)
    other = drawn_risks(network, *points, group=11, passes=100, generator=generator(0, "draws"))
    assert mine.draws == other.draws == 400
    assert mine.network == other.network
    # Five standard errors of a difference of two means of so many groups.
    assert abs(mine.gibbs - other.gibbs) < 5 * (2 * 0.25 / 400) ** 0.5
    different = sharded_drawn_risks(network, *points, group=11, passes=100, seed=1)
    assert different.losses != mine.losses


def test_each_group_of_each_pass_meets_a_network_of_its_own(monkeypatch):
    seeds = []
    monkeypatch.setattr(
        "pbnn.distributed.draw_seed", lambda *given: seeds.append(draw_seed(*given)) or seeds[-1]
    )
    risks_of("bernoulli", 5)
    assert len(seeds) == len(set(seeds)) == 3 * 9
    for pair in ((0, 2**32), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="must"):
            draw_seed(*pair)


@pytest.mark.parametrize("count", [2, 3])
def test_what_cannot_be_done_in_parts_is_refused_by_all(folders, count):
    for rank in range(count):
        told = json.loads((folders[count] / f"more-{rank}.json").read_text())["refusals"]
        for name, start in {
            "points": "ValueError: `x`, `y` and `config` must be those of process 0 in all, got",
            "config": "ValueError: `x`, `y` and `config` must be those of process 0",
            "parts": "ValueError: the parts of `objective` and `checkpoint` must be",
            "compile": "ValueError: `compile` must be False",
            "dropout": "ValueError: `objective.network` must draw from generators that",
            "instance": "ValueError: `objective.network` must have no running statistics",
            "generator": "ValueError: `objective.network` must draw from known generators",
            "cmim": "ValueError: `objective` must not look into the network",
            "batch": "RuntimeError: States must be equal in all processes after epoch 1, got",
            "rows": "ValueError: `network` must give a row for each point, got",
            "seed": "ValueError: `network`, `x`, `y`, `group`, `passes` and `seed` must be",
        }.items():
            assert told[name].startswith(start), told[name]


def test_callbacks_compute_alone(folders):
    for count, folder in folders.items():
        seen = [json.loads((folder / f"more-{r}.json").read_text())["callbacks"] for r in (0, 1)]
        assert seen == [[[N, 2]], []], count


@pytest.mark.parametrize(
    ("how", "told"), [("raises", "closed by peer|reset by peer"), ("waits", "Timed out")]
)
def test_a_process_does_not_wait_for_ever_for_another(folder, how, told):
    error, seconds = json.loads((folder / f"{how}-0.json").read_text())
    assert re.search(told, error)  # a connection ends in one way or the other
    assert seconds < 10
    assert json.loads((folder / f"{how}-1.json").read_text())[0] == ""  # its own


def test_torchrun_starts_it_and_starts_it_again(folders, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node", "2", "--max-restarts", "1", __file__]
    # Or those that start again may read where the old ones were.
    settings = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} | FOUND
    options = {"env": os.environ | settings, "capture_output": True}
    done = subprocess.run([*command, "killed", str(tmp_path)], timeout=100, **options)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "died").exists()
    state = read(folders[2], "of_two_classes").state
    for rank in (0, 1):
        found = load_file(tmp_path / f"end-{rank}.safetensors")
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_a_time_that_is_none_is_refused():
    with pytest.raises(ValueError, match="`timeout` must be a positive number of seconds, got 0"):
        processes(0).__enter__()


if __name__ == "__main__":
    {"work": work, "killed": killed}[sys.argv[1]](sys.argv[2])
