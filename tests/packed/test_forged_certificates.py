"""The certificate in a file: what of it the seal protects, what arithmetic, and what the data."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pbnn.certificates import SCHEMA_VERSION, Budget, Certificate
from pbnn.certificates.statement import closed, stated
from pbnn.data import load as load_data
from pbnn.data import split
from pbnn.layers import freeze_statistics
from pbnn.networks import BLRNet, binarise
from pbnn.packed import certify, pack, verify
from pbnn.packed.file import content_of
from pbnn.seeding import generator

NATS = 3.5
PRICES = {"fixed": {"fixed": True}, "drawn": {"log_ratio": NATS}, "coded": {"nats": NATS}}


@pytest.fixture(scope="module")
def task():
    return load_data("digits")


@pytest.fixture(scope="module")
def splits(task):
    return split(task, prior=0.5)


@pytest.fixture(scope="module")
def certified(task, splits):
    """One network of digits with a certificate of each kind."""
    network = BLRNet((1, 8, 8), "4C3-MP2-SM10", generator=generator(0, "net"))
    network = binarise(network).re_estimate(torch.from_numpy(task.x[splits.prior]))
    freeze_statistics(network, splits.hashes(task)["prior"])
    packed = pack(network, scale=1 / 16)
    given = (task, splits, Budget(family="deployed", choices=1), "the start", 0)
    return {
        name: certify(packed, *given, backend="float32", **price) for name, price in PRICES.items()
    }


@pytest.fixture
def failing(task, splits):
    """What does not hold: by itself, or with the data."""

    def names(network, data=False, **options):
        given = (task, splits) if data else ()
        checks = verify(network, *given, backend="float32", **options)
        return [check.what for check in checks if not check.holds]

    return names


def places_in(record, path=()):
    for name, value in record.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from places_in(value, (*path, name))


def at(record, path):
    for name in path:
        record = record[name]
    return record


def odd_ones(value):
    """What a field may be changed into."""
    yield from (None, True, [], {}, "x", 10**400, [[0.25, 1.0]], {"x": "y"})
    if isinstance(value, int):
        yield from (value + 1, value - 1, 2 * value, -value, 2**53, 2**70, float(value))
    elif isinstance(value, float):
        yield from (value + 1e-9, value - 1e-9, 0.9 * value, 1.1 * value, int(value))
        yield -value if value else -1.0  # −0 is 0
        yield from (0.0, 1.0, 1e-320, 1e308, math.nan, math.inf, -math.inf)
    elif isinstance(value, str):
        yield from ("", value + "x", value[::-1], 0, 0.5)
        yield from ("deployed", "coded", "occam", "rivasplata", "maurer")
        yield from ("fixed network", "drawn network", "coded network", "drawn vote")
    elif isinstance(value, dict):
        yield from (value | {"x": "y"}, value | {"x": 1}, list(value))


def tampered(certificate):
    """Every field changed, and left out."""
    was = json.dumps(certificate)
    for path in places_in(certificate):
        for value in odd_ones(at(certificate, path)):
            changed = copy.deepcopy(certificate)
            at(changed, path[:-1])[path[-1]] = value
            if json.dumps(changed) != was:
                yield ".".join(path), changed
        changed = copy.deepcopy(certificate)
        del at(changed, path[:-1])[path[-1]]
        yield ".".join(path) + " left out", changed
    yield "another", certificate | {"x": 1}


SEALED = {
    *("provenance.prior", "provenance.seed"),
    *("versions", "versions.pbnn", "versions.python", "versions.torch"),
    *(f"versions.{package} left out" for package in ("pbnn", "python", "torch")),
}
"""Mere statements, which the seal protects alone."""
DEFAULTS = {f"{name} left out" for name in ("losses", "group", "steps")}
DEFAULTS |= {"budget.delta left out", "budget.seeds left out"}
"""What means the same where it is left out."""
BY_DATA = {f"provenance.splits.{name}" for name in ("certification", "test", "feature")}
BY_DATA |= {f"{name} left out" for name in BY_DATA} | {"provenance.splits"}
"""What is seen with the data alone."""


@pytest.mark.parametrize("name", ["fixed", "drawn"])
def test_no_field_can_be_changed(certified, failing, parts_of, joined, opened, name):
    network = certified[name]
    assert failing(network) == failing(network, data=True) == []
    header, tensors = parts_of(content_of(network))
    by_seal, by_data = set(), set()
    for place, changed in tampered(network.certificate):
        forged = header | {"certificate": changed}
        assert opened(joined(forged, tensors, sealed=False)) is None, place
        found = opened(joined(forged, tensors))
        if found is None:  # only what JSON has no number for
            assert {"NaN", "Infinity", "-Infinity"} & {repr_of(changed, place)}
            found = network.certified(changed)
        if failing(found):
            continue
        if "left out" not in place:
            own, new = (at(one, place.split(".")) for one in (network.certificate, changed))
            assert kinds_of(new) <= kinds_of(own), place
        (by_data if failing(found, data=True) else by_seal).add(place)
    assert by_seal == SEALED | DEFAULTS
    assert by_data == BY_DATA


def kinds_of(value):
    return {type(each) for each in (value.values() if isinstance(value, dict) else [value])}


def repr_of(certificate, place):
    return json.dumps(at(certificate, place.split(".")))


def restated(packed, **fields):
    """The same network with another statement whose bound is right."""
    c = Certificate.from_dict(packed.certificate)
    return packed.certified(closed(dataclasses.replace(c, **fields)).to_dict())


def test_a_consistent_forgery_fails_with_the_data(certified, failing):
    for name, network in certified.items():
        c = Certificate.from_dict(network.certificate)
        assert failing(restated(network)) == failing(restated(network), data=True) == []
        errors = round(c.risk * c.n)
        better = restated(network, risk=(errors - 1) / c.n)
        assert better.certificate["bound"] < c.bound
        assert failing(better) == []
        assert failing(better, data=True) == ["risk"]
        # As many errors of more examples, and the same share of more of them.
        larger = restated(network, risk=errors / (2 * c.n), n=2 * c.n)
        assert failing(larger) == []
        assert failing(larger, data=True) == ["n", "risk"]
        assert failing(restated(network, n=2 * c.n), data=True) == ["n"]
        assert failing(restated(network, network="0" * 64)) == ["network"]
        told = c.provenance.splits
        for split_name, odd in (("certification", "prior"), ("certification", "test")):
            swapped = told | {split_name: told[odd], odd: told[split_name]}
            provenance = dataclasses.replace(c.provenance, splits=swapped)
            assert "split" in failing(restated(network, provenance=provenance), data=True)
        if name == "fixed":
            assert failing(restated(network, kl=-1.0)) == ["certificate"]
            continue
        # No data tell what it cost, but posterior and prior do.
        cheaper = restated(network, kl=NATS - 1)
        assert cheaper.certificate["bound"] < c.bound
        assert failing(cheaper) == failing(cheaper, data=True) == []
        assert failing(cheaper, price=NATS) == ["price"]
        assert failing(network, price=NATS) == []


def test_another_network_or_none_does_not_hold(certified, failing, opened, parts_of, joined):
    network = certified["drawn"]
    header, tensors = parts_of(content_of(network))
    odd = tensors["0.1.bits"].copy()
    odd[0, 0] ^= 1
    assert failing(opened(joined(header, tensors | {"0.1.bits": odd}))) == ["network"]
    header["members"] *= 2
    twice = tensors | {f"1{name[1:]}": value for name, value in tensors.items()}
    assert failing(opened(joined(header, twice))) == ["predictor", "network"]
    assert failing(network.certified(None)) == failing(network.certified({})) == ["certificate"]


def test_statistics_must_be_of_the_prior(certified, failing):
    network = certified["fixed"]
    hashes = network.certificate["provenance"]["splits"]
    for statistics in (("",), (hashes["certification"],), (hashes["prior"], hashes["test"])):
        odd = dataclasses.replace(network, statistics=statistics)
        assert failing(odd) == ["batch normalisation"]
    # A statement, too: that there are none.
    for statistics in ((), (hashes["feature"],)):
        odd = dataclasses.replace(network, statistics=statistics)
        assert failing(odd) == []
        # But no statistics come from no examples.
        assert failing(odd, data=True) == (["statistics"] if statistics else [])


def test_a_certificate_of_others_does_not_hold(certified, failing):
    network = certified["drawn"]
    c = Certificate.from_dict(network.certificate)
    same = {"n": c.n, "network": c.network, "provenance": c.provenance}
    budget = Budget(family="classes", choices=1)
    of_exact = {"budget": budget, "events": budget.events(exact=True)}
    for theorem in ("maurer", "chernoff"):
        odd = stated(theorem, risk=0.1, kl=0.0, **of_exact, **same)
        assert failing(network.certified(odd.to_dict())) == ["certificate"]
    # Nor is anything computed of it, here of draws that fill the memory.
    draws = math.ceil(c.n / 8) * 2**40
    shared = {"draws": draws, "losses": [[0.0, draws]], "group": 8, "risk": 0.0, "risk_upper": 0.5}
    of_draws = {"budget": budget, "events": budget.events(exact=False)}
    for predictor in ("randomised network", "drawn network"):
        odd = dataclasses.replace(c, predictor=predictor, theorem="maurer", **shared, **of_draws)
        assert failing(network.certified(odd.to_dict())) == ["certificate"]


def test_a_newer_certificate_is_told_apart(certified):
    network = certified["fixed"]
    newer = network.certificate | {"schema_version": SCHEMA_VERSION + 1}
    (check,) = verify(network.certified(newer))
    assert not check.holds
    assert "a newer pbnn wrote it" in check.told


def test_task_and_splits_come_together(certified, task, splits):
    for given_alone in ({"task": task}, {"splits": splits}):
        with pytest.raises(ValueError, match="`task` and `splits` must be given together"):
            verify(certified["fixed"], **given_alone)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data(), value=JSON)
def test_nothing_makes_it_fail_otherwise(certified, data, value):
    network = certified[data.draw(st.sampled_from(sorted(certified)))]
    path = data.draw(st.sampled_from(list(places_in(network.certificate))))
    changed = copy.deepcopy(network.certificate)
    at(changed, path[:-1])[path[-1]] = value
    holds = all(check.holds for check in verify(network.certified(changed)))
    place = ".".join(path)
    assert not holds or place in SEALED | BY_DATA or at(network.certificate, path) == value
