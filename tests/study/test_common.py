"""What the studies of images share: data that are missing, and folders that are not finished."""

from __future__ import annotations

import blrnet_accuracy
import certified_mnist
import common
import pytest
import torch

from pbnn.data import DataUnavailable, load


def only(*names):
    """A loader that knows these data sets alone."""

    def known(name, data_dir=None, *, offline=False):
        if name not in names:
            raise DataUnavailable(f"no {name} here")
        return load("digits")

    return known


def test_it_goes_on_without_a_data_set_that_cannot_be_had(monkeypatch, capsys):
    monkeypatch.setattr(common, "load", only("mnist"))
    tasks, ending = common.tasks_of(("mnist", "cifar10"), None, True)
    assert ([*tasks], ending) == (["mnist"], "")
    assert "Going on without cifar10" in capsys.readouterr().out


def test_where_none_can_be_had_it_takes_the_digits_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(common, "load", only("digits"))
    tasks, ending = common.tasks_of(("mnist", "cifar10"), None, True)
    assert ([*tasks], ending) == (["digits"], "_digits")
    assert "NOT MNIST" in capsys.readouterr().out


@pytest.mark.parametrize("module", [blrnet_accuracy, certified_mnist])
def test_an_unfinished_study_cannot_be_redrawn(module, tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished study"):
        module.study(module.Config(out=tmp_path, redraw=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
@pytest.mark.parametrize("module", [blrnet_accuracy, certified_mnist])
def test_a_device_that_is_not_there_is_refused(module):
    with pytest.raises(ValueError, match="device"):
        module.Config(device="cuda")
