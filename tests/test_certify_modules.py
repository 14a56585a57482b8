"""Certificates of any torch module: KL, draws, what is refused, and the promise itself."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

import pbnn
from pbnn.certificates import (
    Budget,
    Certificate,
    Provenance,
    certify,
    certify_gibbs,
    kl_upper,
    recertified,
    verify,
)
from pbnn.class_risks import readout_risks
from pbnn.data import example_hashes
from pbnn.evaluation import risks
from pbnn.module_risks import module_errors, module_risks, points_hash
from pbnn.networks import GaussianReadout, PBGNet, RandomisedModule, fingerprint
from pbnn.networks.randomised import random_names
from pbnn.seeding import generator

linear = functools.partial(torch.nn.utils.skip_init, nn.Linear)
"""Without weights, which would be drawn by the global generator."""
ORIGIN = Provenance("a draw", 0, {"prior": "ab"})


def small(seed: int, kind: type[nn.Module] = nn.Identity) -> nn.Sequential:
    """Four inputs, three classes; weights from the seed."""
    model = nn.Sequential(linear(4, 6), nn.Tanh(), kind(), linear(6, 3))
    source = generator(seed, "weights")
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=source) / 2)
    return model


def points(n: int, batch: int = 20) -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(n, 4, generator=generator(0, "x"))
    y = x[:, :3].argmax(1)
    return list(zip(x.split(batch), y.split(batch), strict=True))


def found(model: nn.Module, prior: Any, loader: Any, **options: Any) -> Any:
    given = {"prior_deviation": 0.1, "draws": 20, "generator": generator(0, "draws")}
    return certify(model, prior, loader, ORIGIN, progress=False, **{**given, **options})


@pytest.mark.parametrize("deviation", [0.1, 0.37])
@pytest.mark.parametrize("layers", ["all", "last", ["0.bias", "3"]])
def test_the_divergence_is_that_of_torch(deviation, layers):
    prior, model = small(0), small(1)
    names = random_names(model, layers)
    model.load_state_dict(
        prior.state_dict() | {k: v for k, v in model.state_dict().items() if k in names}
    )
    network = RandomisedModule(model, prior, deviation, 0.1, layers)
    right = 0.0
    for name in names:
        mean, other = model.state_dict()[name].double(), prior.state_dict()[name].double()
        right += float(kl_divergence(Normal(mean, deviation), Normal(other, 0.1)).sum())
    assert kl_upper(network) == pytest.approx(right, rel=1e-12)
    assert kl_upper(network) > right * (1 - 1e-15)


def test_every_weight_may_have_a_deviation_of_its_own():
    prior, model = small(0), small(1)
    source = generator(0, "deviations")
    mine, theirs = (
        {n: 0.1 + torch.rand(p.shape, generator=source) for n, p in model.named_parameters()}
        for _ in range(2)
    )
    network = RandomisedModule(model, prior, mine, theirs)
    right = 0.0
    for name, mean in model.state_dict().items():
        own = Normal(mean.double(), mine[name].double())
        other = Normal(prior.state_dict()[name].double(), theirs[name].double())
        right += float(kl_divergence(own, other).sum())
    assert kl_upper(network) == pytest.approx(right, rel=1e-12)
    drawn = torch.stack([network.draw(source)[0] for _ in range(4000)])
    spread = mine["0.weight"].double().reshape(-1, 1)
    assert ((drawn.std(0) / spread - 1).abs() < 5 / math.sqrt(2 * 4000)).all()
    error = (drawn.mean(0) - model[0].weight.detach().double().reshape(-1, 1)) / spread
    assert (error.abs() < 5 / math.sqrt(4000)).all()


def test_a_linear_module_has_the_certificate_of_the_read_out_that_it_is():
    """The package's own path has the risk exactly; here it is estimated, everything else is one."""
    loader = points(300, 10)
    x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
    readout = GaussianReadout(4, 3)
    readout.weight.mean.data.copy_(
        torch.randn(3, 4, generator=generator(0, "w")) + 2 * torch.eye(4)[:3]
    )
    readout.weight.log_deviation.data.fill_(math.log(0.4))
    model, prior = (linear(4, 3, bias=False) for _ in range(2))
    model.weight.data.copy_(readout.weight.mean)
    prior.weight.data.zero_()
    budget = Budget(choices=1, family="classes")
    own = certify_gibbs(readout, readout_risks(readout, x, y), budget, ORIGIN)
    options = {"deviation": 0.4, "prior_deviation": 1.0, "draws": 2000}
    certificate, _, network = found(model, prior, loader, **options)
    assert certificate.kl == pytest.approx(own.kl, rel=1e-6)  # log_deviation there is of float32
    assert (certificate.n, certificate.predictor) == (own.n, own.predictor)
    standard_error = math.sqrt(0.25 / 2000)  # at most: of a mean of losses in [0, 1]
    assert abs(certificate.risk - own.risk) < 5 * standard_error
    assert own.risk < certificate.risk_upper < own.risk + 0.03
    # The certificate is what the package makes of the same risks.
    again = module_risks(network, loader, draws=2000, generator=generator(0, "draws"))[0]
    assert certify_gibbs(network, again, budget, certificate.provenance) == certificate


def test_a_single_unit_has_the_certificate_of_the_linear_pbgnet():
    x = torch.randn(300, 4, generator=generator(0, "x"), dtype=torch.float64)
    y = torch.where(x[:, 0] > 0, 1.0, -1.0)
    pbgnet = PBGNet(4, (), generator=generator(0, "prior"), dtype=torch.float64)
    start = pbgnet.output.weight.mean.detach().clone()
    pbgnet.output.weight.mean.data.copy_(torch.tensor([[4.0, 0.5, 0.0, 0.0]]))
    model, prior = (linear(4, 1, bias=False, dtype=torch.float64) for _ in range(2))
    model.weight.data.copy_(pbgnet.output.weight.mean)
    prior.weight.data.copy_(start)
    budget = Budget(choices=1, family="classes")
    own = certify_gibbs(pbgnet, risks(pbgnet, x, y), budget, ORIGIN)
    loader = list(zip(x.split(5), y.split(5), strict=True))
    certificate = found(model, prior, loader, prior_deviation=1.0, draws=2000).certificate
    assert certificate.kl == pytest.approx(own.kl, rel=1e-12)
    assert abs(certificate.risk - own.risk) < 5 * math.sqrt(0.25 / 2000)


def test_the_certificate_is_one_of_the_package(tmp_path):
    loader, test = points(90), points(40)
    for made in (
        found(small(0), small(0).state_dict(), loader, test=test, layers="last"),
        found(small(0), small(1), loader, test=test, predictor="drawn network"),
        certify(small(0), None, loader, ORIGIN, predictor="fixed network", test=test),
    ):
        verify(made.certificate)
        made.certificate.save(tmp_path / "certificate.json")
        assert Certificate.load(tmp_path / "certificate.json") == made.certificate
        assert recertified(made.certificate) == made.certificate
        assert made.certificate.n == 90
        assert made.certificate.provenance.splits["certification"] == points_hash(loader)
        assert 0 <= made.test_error <= 1
    assert math.isnan(found(small(0), small(0), loader).test_error)


def test_certify_is_a_lazy_name_of_the_package():
    assert pbnn.certify is certify


def test_the_drawn_network_pays_its_log_ratio_and_errs_as_often_as_it_says():
    loader, test, model, prior = points(90), points(40), small(0), small(1)
    made = found(model, prior, loader, predictor="drawn network", deviation=0.3, test=test)
    right = 0.0
    own, other = model.state_dict(), prior.state_dict()
    exact = RandomisedModule(model, prior, 0.3, 0.1).draw(generator(0, "draws"))
    for (name, rounded), weight in zip(made.predictor.named_parameters(), exact, strict=True):
        weight = weight.view(rounded.shape)
        assert torch.equal(weight.float(), rounded)
        laws = Normal(own[name].double(), 0.3), Normal(other[name].double(), 0.1)
        right += float((laws[0].log_prob(weight) - laws[1].log_prob(weight)).sum())
    assert made.certificate.kl == pytest.approx(right, rel=1e-12)
    wrong = sum(int((made.predictor(x).argmax(1) != y).sum()) for x, y in loader)
    assert made.certificate.risk == wrong / 90
    assert (
        made.test_error == sum(int((made.predictor(x).argmax(1) != y).sum()) for x, y in test) / 40
    )


def test_the_callers_module_and_the_global_randomness_are_left_alone():
    """A shuffled loader takes a seed of the global generator, dropout would draw from it."""
    model, prior = small(0, nn.Dropout), small(1, nn.Dropout)
    model.train()
    model[0].weight.grad = torch.ones(6, 4)
    before, other = copy.deepcopy(model.state_dict()), copy.deepcopy(prior.state_dict())
    x, y = (torch.cat(parts) for parts in zip(*points(60), strict=True))
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, batch_size=20, shuffle=True)
    state = torch.random.get_rng_state()
    found(model, prior, loader, test=loader)
    assert torch.equal(torch.random.get_rng_state(), state)
    for module, kept in ((model, before), (prior, other)):
        assert all(torch.equal(v, kept[k]) for k, v in module.state_dict().items())
    assert model.training
    assert model[2].training
    assert bool((model[0].weight.grad == 1).all())
    assert model[0].weight.requires_grad


def test_draws_are_fresh_counted_and_those_of_the_generator():
    loader = points(90)  # five batches, the last of half the size
    made = found(small(0), small(0), loader, draws=12)
    assert (made.certificate.draws, made.certificate.group) == (15, 20)
    assert sum(count for _, count in made.certificate.losses) == 15
    again, other = (
        found(small(0), small(0), loader, draws=12, generator=generator(seed, "draws"))
        for seed in (0, 1)
    )
    assert again.certificate == made.certificate
    assert other.certificate.losses != made.certificate.losses


def test_the_risk_is_that_of_the_networks_drawn_by_hand():
    loader = points(90)
    model, prior = small(0), small(1)
    network = RandomisedModule(model, prior, 0.5, 0.1)
    estimate, _ = module_risks(network, loader, draws=10, generator=generator(3, "draws"))
    source, wrong = generator(3, "draws"), 0
    for _ in range(2):
        for x, y in loader:
            drawn = network.known(network.draw(source))
            wrong += int((drawn(x).argmax(1) != y).sum())
    assert estimate.gibbs == wrong / 180
    assert estimate.network == fingerprint(network)


def test_only_the_last_layer_is_random():
    prior = small(0)
    model = copy.deepcopy(prior)
    model[3].weight.data.add_(0.1)
    network = RandomisedModule(model, prior, 0.2, 0.1, "last")
    assert network.names == ("3.weight", "3.bias")
    drawn = network.known(network.draw(generator(0, "draw")))
    assert torch.equal(drawn[0].weight, model[0].weight)
    assert not torch.equal(drawn[3].weight, model[3].weight)
    x = points(5)[0][0]
    assert torch.allclose(network.mode(x), model(x))
    model[0].bias.data[0] += 1e-6
    with pytest.raises(ValueError, match=r"not random, got others in '0.bias'"):
        RandomisedModule(model, prior, 0.2, 0.1, "last")


def test_tied_weights_are_one_parameter():
    def tied(seed: int) -> nn.Sequential:
        model = nn.Sequential(linear(4, 4, bias=False), nn.Tanh(), linear(4, 4, bias=False))
        model[0].weight.data.copy_(torch.randn(4, 4, generator=generator(seed, "w")))
        model[2].weight = model[0].weight
        return model

    network = RandomisedModule(tied(0), tied(1), 0.5, 0.5)
    assert network.names == ("0.weight",)
    weights = network.draw(generator(0, "draw"))
    x = points(5)[0][0]
    weight = weights[0].view(4, 4).float()
    right = nn.functional.linear(torch.tanh(nn.functional.linear(x, weight)), weight)
    assert torch.allclose(network.scores(x, weights), right)
    assert torch.allclose(network.known(weights)(x), right)


def test_the_grid_of_a_prior_is_paid_for_and_the_nearest_prior_taken():
    loader, model, prior = points(90), small(0), small(1)
    grid = [0.1, 0.5, 2.0]
    made = found(model, prior, loader, deviation=0.3, prior_deviation=grid)
    kls = [kl_upper(RandomisedModule(model, prior, 0.3, theirs)) for theirs in grid]
    assert made.certificate.kl == min(kls)
    assert made.certificate.budget.choices == 3
    alone = found(model, prior, loader, deviation=0.3, prior_deviation=grid[kls.index(min(kls))])
    assert made.certificate.events["gibbs"] == pytest.approx(alone.certificate.events["gibbs"] / 3)
    assert made.certificate.bound > alone.certificate.bound


def test_a_deviation_is_chosen_by_draws_that_are_not_used_again():
    loader, model, prior = points(400, 10), small(0), small(0)
    tried = [1e-3, 0.1, 5.0]
    source = generator(0, "draws")
    made = found(model, prior, loader, deviation=tried, prior_deviation=0.1, generator=source)
    posterior = next(made.predictor.posteriors())
    assert posterior.log_deviation.item() == pytest.approx(math.log(0.1))
    by_hand = generator(0, "draws")
    for deviation in tried:
        network = RandomisedModule(model, prior, deviation, 0.1)
        module_risks(network, loader, draws=1, generator=by_hand)
    network = RandomisedModule(model, prior, 0.1, 0.1)
    fresh = module_risks(network, loader, draws=20, generator=by_hand)[0]
    assert made.certificate.losses == [list(pair) for pair in fresh.losses]


@pytest.mark.parametrize("predictor", ["randomised network", "drawn network"])
def test_the_global_generator_is_refused_which_would_draw_the_same_networks_again(predictor):
    options = {"deviation": [0.1, 0.2], "generator": torch.default_generator}
    with pytest.raises(ValueError, match="one of its own, got the global one"):
        found(small(0), small(1), points(90), predictor=predictor, **options)


def test_a_prior_that_was_trained_along_is_refused():
    model = small(0)
    prior, kept = model.state_dict(), copy.deepcopy(model.state_dict())
    model[0].weight.data.add_(1.0)
    with pytest.raises(ValueError, match=r"must be a copy.* got the very memory of '0.weight'"):
        found(model, prior, points(90))
    with pytest.raises(ValueError, match="must be a copy"):
        found(model, copy.copy(model), points(90))
    assert found(model, kept, points(90)).certificate.kl > 1000
    assert found(model, model, points(90)).certificate.kl < 1e-9  # which says so itself
    # Memory of what is not random may be shared.
    assert found(model, {**prior, "3.bias": kept["3.bias"]}, points(90), layers=["3.bias"])


def test_buffers_that_no_state_has_must_be_the_prior_s():
    model, prior = small(0, Shifted), small(1, Shifted)
    found(model, prior, points(90))
    model[2].shift.fill_(0.5)
    with pytest.raises(ValueError, match=r"not random, got others in '2.shift'"):
        found(model, prior, points(90))


def test_the_fixed_network_that_comes_back_is_the_one_that_was_certified():
    model, loader = small(0, nn.Dropout).train(), points(90)
    made = certify(model, None, loader, ORIGIN, predictor="fixed network")
    assert not any(part.training for part in made.predictor.modules())
    wrong = sum(int((made.predictor(x).argmax(1) != y).sum()) for x, y in loader)
    assert made.certificate.risk == wrong / 90
    assert model.training


@pytest.mark.parametrize("split", ["prior", "feature"])
def test_the_points_of_the_prior_certify_nothing(split):
    origin = Provenance("trained", 0, {split: points_hash(points(90, 30))})
    with pytest.raises(ValueError, match=f"other points than the {split} split"):
        certify(small(0), None, points(90), origin, predictor="fixed network")
    options = {"prior_deviation": 0.1, "draws": 5, "generator": generator(0, "draws")}
    with pytest.raises(ValueError, match=f"other points than the {split} split"):
        certify(small(0), small(1), points(90), origin, **options)


def normalised(seed: int) -> nn.Sequential:
    model = small(seed, lambda: nn.BatchNorm1d(6))
    model[2].running_mean.fill_(0.1)
    return model


def test_running_statistics_must_be_of_the_prior():
    loader, model = points(90), normalised(0)
    with pytest.raises(ValueError, match="`frozen_on` must be the hash"):
        found(model, normalised(1), loader)
    with pytest.raises(ValueError, match="frozen on the prior's or the feature split, got unknown"):
        found(model, normalised(1), loader, frozen_on="cd")
    made = found(model, normalised(1), loader, frozen_on="ab")
    with pytest.raises(ValueError, match="got unknown"):
        certify_gibbs(
            made.predictor,
            module_risks(made.predictor, loader, draws=1, generator=generator(0, "draws"))[0],
            made.certificate.budget,
            dataclasses.replace(ORIGIN, splits={"prior": "other"}),
        )
    model[2].running_mean[0] += 0.01
    with pytest.raises(ValueError, match=r"got others in '2.running_mean'"):
        found(model, normalised(1), loader, frozen_on="ab")
    with pytest.raises(ValueError, match="`frozen_on` must be the hash"):
        certify(model, None, loader, ORIGIN, predictor="fixed network")
    without = small(0, lambda: nn.BatchNorm1d(6, track_running_stats=False))
    with pytest.raises(ValueError, match="must have running statistics"):
        found(without, without, loader, frozen_on="ab")
    certificate = found(*(small(k, lambda: nn.LayerNorm(6)) for k in (0, 1)), loader).certificate
    assert certificate.kl > 0


class Noisy(nn.Module):
    """Draws in evaluation mode, too."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class Mixed(nn.Module):
    """Looks at the other points of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Counting(nn.Module):
    """Remembers."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x * self.seen


class Shifted(nn.Module):
    """Has a buffer that is not saved."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class Stubborn(nn.Module):
    """Never leaves training mode."""

    def train(self, mode: bool = True) -> Stubborn:
        return super().train(True)


@pytest.mark.parametrize("kind", [Noisy, Mixed, Counting])
def test_a_module_that_is_no_function_of_a_point_is_refused(kind):
    state = torch.random.get_rng_state()
    with pytest.raises(ValueError, match="the same scores each time and in any batch"):
        found(small(0, kind), small(1, kind), points(90))
    with pytest.raises(ValueError, match="the same scores each time and in any batch"):
        certify(small(0, kind), None, points(90), ORIGIN, predictor="fixed network")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_module_that_stays_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"must obey `eval\(\)`, got '2'"):
        found(small(0, Stubborn), small(1, Stubborn), points(90))


def other_shape() -> nn.Sequential:
    model = small(1)
    model[3] = linear(6, 4)
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": small(1, nn.ReLU)}, "architecture of `model`"),
        ({"prior": linear(4, 3).state_dict()}, "names of `model`"),
        ({"prior": other_shape().state_dict()}, "shapes of `model`"),
        ({"prior": None}, "`prior` must be given"),
        ({"prior_deviation": None}, "`prior_deviation` must be given"),
        ({"prior_deviation": []}, "must have a candidate"),
        (
            {"prior_deviation": 0.0, "deviation": 0.1},
            "`prior_deviation` must be positive and finite, got 0.0",
        ),
        ({"deviation": 0.0}, "`deviation` must be positive and finite, got 0.0"),
        ({"deviation": -1.0}, "`deviation` must be a positive number, got -1.0"),
        ({"deviation": math.nan}, "`deviation` must be a positive number, got nan"),
        ({"deviation": torch.ones(2)}, "`deviation` must have one number or the shape"),
        ({"deviation": {"0.weight": 0.1}}, "`deviation` must name all that is random"),
        ({"layers": ["5"]}, "`layers` must name parameters of `model`, got '5'"),
        ({"layers": []}, "at least one parameter"),
        ({"layers": "first"}, '"all", "last" or names'),
        ({"generator": None}, "`generator` must be given"),
        ({"draws": 0}, "`draws` must be a positive integer"),
        ({"predictor": "vote"}, "`predictor` must be one of"),
        ({"predictor": "fixed network"}, "must be None for a fixed network"),
        ({"budget": Budget(0.05, 1, 1, "deployed")}, "`budget` must be of a family of"),
        (
            {"budget": Budget(0.05, 1, 1, "signs"), "predictor": "drawn network"},
            "`budget` must be of a family of",
        ),
    ],
)
def test_what_makes_no_certificate_is_refused(change, message):
    options = {"prior": small(1)} | change
    with pytest.raises(ValueError, match=message):
        found(small(0), options.pop("prior"), points(90), **options)


def test_scores_and_labels_that_are_none_are_refused():
    model, loader = small(0), points(90)
    broken = copy.deepcopy(model)
    broken[0].weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"finite weights, got others in '0.weight'"):
        found(broken, model, loader)
    with pytest.raises(ValueError, match="finite scores, got NaN"):
        certify(broken, None, loader, ORIGIN, predictor="fixed network")
    nothing = [(x.clone().fill_(math.nan), y) for x, y in loader]
    with pytest.raises(ValueError, match="finite scores, got NaN"):
        found(model, model, nothing)
    with pytest.raises(ValueError, match="classes 0 to 2"):
        found(model, model, [(x, y + 1) for x, y in loader])
    x, y = torch.ones(3, 1), torch.arange(3)
    with pytest.raises(ValueError, match="`y` must hold 0 and 1, or"):
        module_errors(nn.Identity(), [(x, y)])
    with pytest.raises(ValueError, match=r"scores of shape .* got \(90, 4, 1\)"):
        module_errors(nn.Unflatten(1, (4, 1)), points(90, 90))
    with pytest.raises(TypeError, match="pairs of tensors, got Tensor"):
        found(model, model, [x for x, _ in loader])
    with pytest.raises(ValueError, match="a label for each point"):
        found(model, model, [(x, y[1:]) for x, y in loader])
    with pytest.raises(ValueError, match="must give points each time"):
        found(model, model, [])


def test_points_must_stay_the_same_in_every_pass():
    model, loader = small(0), points(90)
    source = generator(0, "noise")

    class Augmented:
        def __iter__(self) -> Any:
            for x, y in loader:
                yield x + torch.randn(x.shape, generator=source), y

    with pytest.raises(ValueError, match="the same points in every pass"):
        found(model, model, Augmented())
    with pytest.raises(ValueError, match="points each time it is gone through"):
        found(model, model, iter(loader))
    x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
    data = torch.utils.data.TensorDataset(x, y)
    dropped = torch.utils.data.DataLoader(data, 40, shuffle=True, drop_last=True)
    with torch.random.fork_rng(), pytest.raises(ValueError, match="the same points in every pass"):
        found(model, model, dropped)
    # Also where no network asks a point again.
    with torch.random.fork_rng():
        again = torch.utils.data.RandomSampler(data, replacement=True)
        drawn = torch.utils.data.DataLoader(data, 40, sampler=again)
        for changing in (drawn, Augmented()):
            with pytest.raises(ValueError, match="the same points in every pass"):
                certify(model, None, changing, ORIGIN, predictor="fixed network")
            with pytest.raises(ValueError, match="the same points in every pass"):
                found(model, model, changing, predictor="drawn network")
            with pytest.raises(ValueError, match="the same points in every pass"):
                found(model, model, changing, draws=1)
    uneven = [loader[-1], *loader[:-1]]
    with pytest.raises(ValueError, match="batches of one size"):
        found(model, model, uneven)


@pytest.mark.parametrize("predictor", ["randomised network", "drawn network"])
def test_points_that_are_counted_twice_are_warned_of(predictor):
    loader = points(60)
    x, y = loader[0]
    found(small(0), small(1), loader, predictor=predictor)
    with pytest.warns(UserWarning, match="5 of the 65 points of `loader` came before"):
        found(small(0), small(1), [*loader, (x[:5], y[:5])], predictor=predictor)
    found(small(0), small(1), [*loader, (x[:5], (y[:5] + 1) % 3)], predictor=predictor)


def test_a_point_that_the_prior_has_seen_is_refused():
    loader = points(90)
    seen = example_hashes(torch.cat([loader[2][0][7:8], torch.ones(1, 4)]).numpy())
    for options in ({}, {"predictor": "drawn network"}):
        with pytest.raises(ValueError, match="has seen, got 1 of 20, the first in row 7"):
            found(small(0), small(1), loader, seen=seen, **options)
    found(small(0), small(1), loader[:2] + loader[3:], seen=seen)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("low", [0, -1])
def test_two_classes_by_the_sign_of_one_score(shape, low):
    x = torch.randn(50, 1, generator=generator(0, "x"))
    x[0] = 0  # sign(0) = +1
    y = torch.where(x[:, 0] > 0.3, 1, low)
    model = nn.Sequential(nn.Identity(), nn.Unflatten(1, (1, 1)), nn.Flatten(0))
    made = certify(
        model if shape == (-1,) else nn.Identity(),
        None,
        [(x, y.float().view(shape))],
        ORIGIN,
        predictor="fixed network",
    )
    assert made.certificate.risk == int(((x[:, 0] >= 0) != (y > 0)).sum()) / 50


@pytest.mark.filterwarnings("ignore:.*came before in the same pass")  # few distinct points
def test_the_promise_on_a_problem_of_known_truth():
    """One unit on four inputs of known law; labels are flipped with a known probability."""
    trials, n, delta = 120, 12, 0.4
    places = torch.tensor([[1.0, 0.2], [-0.5, 1.0], [0.7, -1.0], [-1.0, -0.3]])
    positive = torch.tensor([0.9, 0.4, 0.7, 0.2])
    prior = linear(2, 1, bias=False)
    prior.weight.data.zero_()
    source = generator(5, "promise")
    misses = {"randomised network": 0, "drawn network": 0, "fixed network": 0}
    teeth = 0
    for _ in range(trials):
        at = torch.randint(4, (n,), generator=source)
        y = (torch.rand(n, generator=source) < positive[at]).long()
        loader = list(zip(places[at].split(4), y.split(4), strict=True))
        model = linear(2, 1, bias=False)
        model.weight.data.copy_((places[at] * (2 * y - 1)[:, None]).mean(0)[None])
        for predictor in misses:
            plain = predictor == "fixed network"
            how = {"prior_deviation": None, "generator": None} if plain else {"deviation": 0.7}
            how |= {} if plain else {"prior_deviation": 0.7, "generator": source, "draws": 3}
            family = "classes" if predictor == "randomised network" else "deployed"
            budget = Budget(delta, 1, 1, family)
            whose = prior if plain else model
            made = found(
                whose, None if plain else prior, loader, budget=budget, predictor=predictor, **how
            )
            if predictor == "randomised network":
                margin = (places @ model.weight.detach()[0]) / (0.7 * places.norm(dim=1))
                up = torch.special.ndtr(margin)
                teeth += float((up * (1 - positive) + (1 - up) * positive).mean()) > (
                    made.certificate.risk
                )
            else:
                up = (made.predictor(places)[:, 0] >= 0).float()
            truth = float((up * (1 - positive) + (1 - up) * positive).mean())
            misses[predictor] += made.certificate.bound < truth
    for predictor, count in misses.items():
        promised = delta * trials + 4 * math.sqrt(delta * (1 - delta) * trials)
        assert count <= promised, predictor
    assert teeth > 0.4 * trials  # the empirical risk alone would be no bound
