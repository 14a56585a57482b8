"""Files to resume from: what is damaged or of another training is refused, before it is read in."""

from __future__ import annotations

import copy
import json
import math

import damaged_networks as damaged
import pytest
import torch
from safetensors.torch import load, save

from pbnn.resuming import restore_run


def changed(change):
    """The file of a training after two epochs, of which header and tensors are changed."""
    content = damaged.interrupted()
    outer, _ = damaged.parts_of(content)
    header, tensors = json.loads(outer["__metadata__"]["pbnn"]), load(content)
    change(header, tensors)
    return save(tensors, metadata={"pbnn": json.dumps(header)})


def test_a_training_goes_on_as_it_was():
    was, run = damaged.begun(2)
    now, other = damaged.begun(0)
    assert damaged.state_text(now, other, 3) != damaged.state_text(was, run, 3)
    given = (now, other, damaged.FIT, damaged.POINTS)
    assert restore_run(damaged.interrupted(), "the file", *given, ["root"]) == {"root": 3}
    assert damaged.state_text(now, other, 3) == damaged.state_text(was, run, 3)
    assert damaged.restored(changed(lambda header, tensors: None)) == damaged.undamaged()


HEADER = [
    *(("curve", value) for value in (None, [], [1.0], {}, "x")),
    *(("best", value) for value in (None, "0.5", math.nan, [0.5], 1, True)),
    *(("waited_from", value) for value in (None, -1, 2, 0.5, True)),
    *(("steps", value) for value in (None, 0, 5, 7, -6, 6.0, "6")),
    *(("more", value) for value in (None, {}, {"root": 0.5}, {"root": True}, [], {"other": 3})),
    *(("groups", value) for value in (None, [], ["x"], [{}], [{"lr": 0.1}])),
    *(("points", value) for value in (None, "of others")),
    ("tensors", []),
]


@pytest.mark.parametrize(("name", "value"), HEADER)
def test_a_header_of_no_training_is_refused(name, value):
    def change(header, _):
        header[name] = copy.deepcopy(value)

    with pytest.raises(ValueError, match="the file is no checkpoint of this training"):
        damaged.restored(changed(change))

    def leave_out(header, _):
        del header[name]

    with pytest.raises(ValueError, match="the file is no checkpoint of this training"):
        damaged.restored(changed(leave_out))


def test_figures_of_an_epoch_and_of_the_optimiser_are_as_they_were():
    def place(name, *path):
        def change(header, _):
            inner = header[path[0]][0]
            inner[path[1]] = name

        return change

    for change in (
        place("0.5", "curve", "risk"),
        place(3.0, "curve", "epoch"),
        place(0, "curve", "kl"),
        place(0.5, "curve", "odd"),
        place("0.1", "groups", "lr"),
        place([0.9], "groups", "betas"),
        place(0, "groups", "amsgrad"),
        place(1.0, "groups", "odd"),
    ):
        with pytest.raises(ValueError, match="the file is no checkpoint of this training"):
            damaged.restored(changed(change))


def test_tensors_of_another_kind_are_refused():
    names = sorted(load(damaged.interrupted()))
    moment = next(name for name in names if name.endswith("exp_avg"))
    step = moment.replace("exp_avg", "step")
    weight = next(name for name in names if name.startswith("objective/"))
    for name, change in (
        (moment, lambda value: value.double()),
        (moment, lambda value: value.flatten()[:1]),
        (moment, lambda value: value * math.nan),
        (step, lambda value: value + 1),
        (step, lambda value: value[None]),
        (weight, lambda value: value * math.nan),
        (weight, lambda value: value.double()),
    ):

        def put(_, tensors, name=name, change=change):
            tensors[name] = change(tensors[name])

        with pytest.raises(ValueError, match="the file is no checkpoint of this training"):
            damaged.restored(changed(put))

    def left_out(_, tensors):
        del tensors[moment]

    def joined(_, tensors):
        tensors["odd"] = torch.zeros(1)

    for change in (left_out, joined):
        with pytest.raises(ValueError, match="`tensors` must be those that the header names"):
            damaged.restored(changed(change))
