"""Rare events at many places: their law against the probabilities, and their edges."""

from __future__ import annotations

import itertools

import pytest
import torch

from pbnn.functional import sample_positions
from pbnn.seeding import generator


def test_patterns_have_the_probabilities_of_independent_events():
    chance, draws = torch.tensor([[0.3, 0.02], [0.5, 0.1]]).double(), 40_000
    source, counts = generator(0, "patterns"), torch.zeros(16)
    for _ in range(draws):
        at = sample_positions(chance, source)
        counts[int((2**at).sum())] += 1
    for events in itertools.product((0, 1), repeat=4):
        share = torch.tensor(events).double()
        p = float((share * chance.flatten() + (1 - share) * (1 - chance.flatten())).prod())
        index = sum(event << place for place, event in enumerate(events))
        assert abs(counts[index] / draws - p) <= 5 * (p * (1 - p) / draws) ** 0.5


@pytest.mark.parametrize("p", [0.0005, 0.4])
def test_counts_at_many_places_are_binomial(p):
    places, draws, source = 20_000, 300, generator(0, "many")
    chance = torch.full((places,), p, dtype=torch.float64)
    found = [sample_positions(chance, source) for _ in range(draws)]
    counts = torch.tensor([float(len(each)) for each in found])
    variance = places * p * (1 - p)
    assert abs(counts.mean() - places * p) <= 5 * (variance / draws) ** 0.5
    assert abs(counts.var() / variance - 1) <= 5 * (2 / draws) ** 0.5
    for each in found:
        assert (each.diff() > 0).all()
        assert 0 <= each[0] <= each[-1] < places
    # No place is favoured: the mean place is the middle.
    middle = torch.cat(found).double().mean() / places
    assert abs(middle - 0.5) <= 5 * (1 / 12 / (draws * places * p)) ** 0.5


def test_impossible_and_certain_events():
    source = generator(0, "edges")
    assert sample_positions(torch.zeros(5).double(), source).tolist() == []
    assert sample_positions(torch.ones(5).double(), source).tolist() == [0, 1, 2, 3, 4]
    tiny = torch.full((7,), 1e-300).double()
    assert all(len(sample_positions(tiny, source)) == 0 for _ in range(100))


def test_a_first_batch_of_gaps_that_is_too_short_is_followed_by_another(monkeypatch):
    real, calls = torch.rand, []

    def rand(count, **more):
        calls.append(count)
        return real(count, **more) * (0.01 if len(calls) == 1 else 1.0)

    monkeypatch.setattr(torch, "rand", rand)
    chance = torch.full((10_000,), 0.1, dtype=torch.float64)
    found = sample_positions(chance, generator(0, "gaps"))
    assert len(calls) > 2
    assert found[-1] > 8000
    assert (found.diff() > 0).all()


def test_a_largest_probability_that_is_too_small_is_refused():
    chance = torch.full((1000,), 0.4, dtype=torch.float64)
    with pytest.raises(ValueError, match="largest"):
        sample_positions(chance, generator(0, "low"), 0.1)
