"""The command `pbnn`, from a checkpoint to a file that holds, and what it says when it does not."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pbnn import cli
from pbnn.certificates import Certificate
from pbnn.certificates.statement import closed
from pbnn.data import cut, load
from pbnn.layers import freeze_statistics
from pbnn.networks import BLRNet, PBGNet
from pbnn.packed import available
from pbnn.packed import load as load_packed
from pbnn.packed import save as save_packed
from pbnn.packed.from_data import bytes_of
from pbnn.seeding import generator
from pbnn.training import save_checkpoint

pytest.importorskip("tyro")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose prior is of the prior split, or could be."""
    home = tmp_path_factory.mktemp("command")
    network = BLRNet((1, 8, 8), "8C3-MP2-SM10", start=0.9, generator=generator(0, "prior"))
    network.adopt_as_prior()
    for block in network.layers():
        block.layer.weight.half_logit.data.mul_(1.05)
    task = load("digits")
    freeze_statistics(network, cut(task, prior=0.5).hashes(task)["prior"])
    save_checkpoint(home / "model.safetensors", network)
    return home


def pbnn(monkeypatch, *words: object) -> int:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["pbnn", *map(str, words)])
    state = random.getstate()
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        random.setstate(state)  # tyro draws names
    return int(left.value.code or 0)


@pytest.fixture
def certified(folder, monkeypatch, capsys):
    """A file by predictor, made once."""

    def make(predictor: str, *more: str) -> Path:
        path = folder / f"{predictor}{''.join(more)}.pbnn"
        if not path.exists():
            words = ["certify", folder / "model.safetensors", "--data", "digits", "--out", path]
            words += ["--predictor", predictor, "--members", 3, *more]
            assert pbnn(monkeypatch, *words) == 0
            capsys.readouterr()
        return path

    return make


@pytest.mark.parametrize(
    ("predictor", "name", "theorem"),
    [
        ("draw", "drawn network", "rivasplata"),
        ("mode", "coded network", "occam"),
        ("vote", "drawn vote", "rivasplata"),
    ],
)
def test_a_file_holds_what_its_data_and_posterior_say(
    certified, folder, monkeypatch, capsys, predictor, name, theorem
):
    path = certified(predictor)
    packed = load_packed(path)
    certificate = Certificate.from_dict(packed.certificate)
    task = load("digits")
    splits = cut(task, prior=0.5)
    at = splits.certification
    assert (certificate.predictor, certificate.theorem) == (name, theorem)
    assert certificate.n == len(at)
    assert certificate.risk == float((packed.predict(task.x[at]) != task.y[at]).mean())
    assert certificate.kl > 0
    assert certificate.events == {"deployed": pytest.approx(0.05)}
    assert certificate.provenance.splits == splits.hashes(task)
    posterior = folder / "model.safetensors"
    assert pbnn(monkeypatch, "verify", path, "--data", "digits", "--posterior", posterior) == 0
    text = capsys.readouterr().out
    assert "FAILED" not in text
    assert all(
        f"ok     {what}" in text for what in ("arithmetic", "price", "split", "risk", "made again")
    )
    error = float((packed.predict(task.x[splits.test]) != task.y[splits.test]).mean())
    assert f"error on {len(splits.test)} test examples: {error:.4f}" in text


def test_what_was_not_looked_at_is_named(certified, monkeypatch, capsys):
    assert pbnn(monkeypatch, "verify", certified("draw")) == 0
    text = capsys.readouterr().out
    assert "not the data (--data), price and origin (--posterior)" in text
    assert "its prior was fixed before" in text


def test_a_fixed_network_pays_nothing(certified, folder, monkeypatch, capsys):
    path = certified("mode", "--fixed")
    certificate = load_packed(path).certificate
    assert (certificate["predictor"], certificate["kl"]) == ("fixed network", 0.0)
    # A packed file may be certified again, if it is said to be fixed.
    again = folder / "again.pbnn"
    words = ["certify", path, "--data", "digits", "--out", again]
    assert pbnn(monkeypatch, *words) == 2
    assert "--fixed" in capsys.readouterr().err
    assert pbnn(monkeypatch, *words, "--fixed") == 0
    assert load_packed(again).certificate["bound"] == certificate["bound"]
    # What is said of a checkpoint's normalisation is not passed over.
    assert pbnn(monkeypatch, *words, "--fixed", "--norms-of-prior") == 2
    assert "checkpoint for --norms-of-prior, got a packed file" in capsys.readouterr().err
    # Not with the examples that its prior was made of, nor if it has paid for a posterior.
    assert pbnn(monkeypatch, *words, "--fixed", "--prior-share", "0.1") == 2
    assert "same splits" in capsys.readouterr().err
    drawn = ["certify", certified("draw"), "--data", "digits", "--out", again, "--fixed"]
    assert pbnn(monkeypatch, *drawn) == 2
    assert "paid for a posterior" in capsys.readouterr().err


def test_choices_and_seeds_share_delta(certified, folder, monkeypatch):
    path = certified("draw", "--choices", "10")
    alone = load_packed(certified("draw")).certificate["bound"]
    assert load_packed(path).certificate["bound"] > alone


def test_a_forged_risk_is_found_with_the_data(certified, folder, monkeypatch, capsys):
    packed = load_packed(certified("draw"))
    honest = Certificate.from_dict(packed.certificate)
    fewer = round(honest.risk * honest.n) // 2
    better = closed(dataclasses.replace(honest, risk=fewer / honest.n))
    forged = folder / "forged.pbnn"
    save_packed(forged, packed.certified(better.to_dict()))
    assert pbnn(monkeypatch, "verify", forged) == 0
    assert pbnn(monkeypatch, "verify", forged, "--data", "digits") == 1
    assert "FAILED risk" in capsys.readouterr().out
    cheap = closed(dataclasses.replace(honest, kl=0.0))
    save_packed(forged, packed.certified(cheap.to_dict()))
    posterior = folder / "model.safetensors"
    assert pbnn(monkeypatch, "verify", forged, "--posterior", posterior) == 1
    assert "FAILED price" in capsys.readouterr().out


def test_normalisation_of_unknown_origin_is_refused(folder, monkeypatch, capsys):
    """γ and β have no price: one that learned them from the certification points fits labels."""
    network = BLRNet((1, 8, 8), "8C3-MP2-SM10", start=0.9, generator=generator(0, "prior"))
    path, out = folder / "unfrozen.safetensors", folder / "unfrozen.pbnn"
    save_checkpoint(path, network)
    words = ["certify", path, "--data", "digits", "--out", out]
    assert pbnn(monkeypatch, *words) == 2
    assert "not frozen" in capsys.readouterr().err
    assert pbnn(monkeypatch, *words, "--norms-of-prior") == 0
    freeze_statistics(network, "another split")
    save_checkpoint(path, network)
    assert pbnn(monkeypatch, *words, "--norms-of-prior") == 2
    assert "another split" in capsys.readouterr().err
    task = load("digits")
    freeze_statistics(network, cut(task, prior=0.5).hashes(task)["prior"])
    network.layers()[0].tail.norm.beta.data.add_(1.0)  # moved since
    save_checkpoint(path, network)
    assert pbnn(monkeypatch, *words, "--norms-of-prior") == 2
    assert "changed since" in capsys.readouterr().err


def test_moved_thresholds_are_found_by_making_it_again(certified, folder, monkeypatch, capsys):
    """Signs and price stay what they were; only the network is another one."""
    packed = load_packed(certified("draw"))
    first, *others = packed.members[0]
    tail = dataclasses.replace(first.tail, level=first.tail.level + 40)
    moved = dataclasses.replace(
        packed, members=((dataclasses.replace(first, tail=tail), *others),), certificate=None
    )
    task = load("digits")
    honest = Certificate.from_dict(packed.certificate)
    errors = moved.errors(*(v[cut(task, prior=0.5).certification] for v in (task.x, task.y)))
    better = closed(
        dataclasses.replace(honest, risk=errors / honest.n, network=moved.fingerprint())
    )
    forged = folder / "moved.pbnn"
    save_packed(forged, moved.certified(better.to_dict()))
    words = ["verify", forged, "--data", "digits"]
    assert pbnn(monkeypatch, *words) == 0
    capsys.readouterr()
    assert pbnn(monkeypatch, *words, "--posterior", folder / "model.safetensors") == 1
    text = capsys.readouterr().out
    assert "ok     price" in text
    assert "FAILED made again: the same signs, other thresholds" in text


def test_damage_and_wrong_files_are_told_without_a_traceback(
    certified, folder, monkeypatch, capsys
):
    content = bytearray(certified("draw").read_bytes())
    content[-1] ^= 1
    (folder / "damaged.pbnn").write_bytes(content)
    assert pbnn(monkeypatch, "verify", folder / "damaged.pbnn") == 2
    assert "damaged.pbnn" in capsys.readouterr().err
    assert pbnn(monkeypatch, "verify", folder / "nothing.pbnn") == 2
    assert pbnn(monkeypatch, "verify", certified("draw"), "--data", "digits17") == 2
    network = PBGNet(3, generator=generator(0, "prior"))
    save_checkpoint(folder / "pbgnet.safetensors", network)
    words = ["certify", folder / "pbgnet.safetensors", "--data", "digits"]
    assert pbnn(monkeypatch, *words, "--out", folder / "no.pbnn") == 2
    assert "BLRNet" in capsys.readouterr().err
    assert not (folder / "no.pbnn").exists()
    words = ["certify", folder / "model.safetensors", "--data", "digits", "--prior-share", "0"]
    assert pbnn(monkeypatch, *words, "--out", folder / "no.pbnn") == 2
    assert "batch normalisation" in capsys.readouterr().err


def test_labels_are_written_and_printed(certified, folder, monkeypatch, capsys):
    path, out = certified("vote"), folder / "labels.csv"
    assert pbnn(monkeypatch, "predict", path, "--data", "digits", "--out", out) == 0
    task = load("digits")
    splits = cut(task, prior=0.5)
    table = np.loadtxt(out, delimiter=",", skiprows=1, dtype=int)
    packed = load_packed(path)
    assert out.read_text().splitlines()[0] == "row,label,truth"
    assert np.array_equal(table[:, 1], packed.predict(task.x[splits.test]))
    assert np.array_equal(table[:, 2], task.y[splits.test])
    np.save(folder / "x.npy", task.x[:3])
    capsys.readouterr()
    assert pbnn(monkeypatch, "predict", path, "--input", folder / "x.npy", "--anytime", 0) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "row,label,members"
    labels = [int(line.split(",")[1]) for line in lines[1:]]
    assert labels == packed.predict(task.x[:3]).tolist()
    assert pbnn(monkeypatch, "predict", path) == 2
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert pbnn(monkeypatch, "predict", path, "--input", folder / "objects.npy") == 2
    assert "objects.npy" in capsys.readouterr().err


def test_bench_times_each_back_end(certified, monkeypatch, capsys):
    words = ["bench", certified("draw"), "--batches", 1, 8, "--seconds", 0.001]
    assert pbnn(monkeypatch, *words) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[1] for line in lines] == [*available()] * 2
    assert all(float(line.split()[2]) > 0 for line in lines)


def test_every_command_explains_itself(monkeypatch, capsys):
    for words in (["--help"], *([name, "--help"] for name in cli.COMMANDS)):
        assert pbnn(monkeypatch, *words) == 0
        assert "options" in capsys.readouterr().out


def test_every_option_is_explained_by_itself():
    """Each is a sentence on one line: tyro keeps the indentation of a second line."""
    source = Path(cli.__file__).read_text(encoding="utf-8")
    told = re.findall(r'^    \w+: .*\n    """((?:.|\n)*?)"""$', source, re.MULTILINE)
    assert len(told) > 20
    for text in told:
        assert re.fullmatch(r"[A-Z].*\.", text), text
        assert not text.startswith("Of the")


COMMANDS = [("certify", "--data", "mnist"), ("verify", "--data", "mnist"), ("bench",)]
COMMANDS += [("predict", "--data", "mnist"), ("predict", "--input", "x.npy")]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_missing_file_is_told_before_any_data_are_looked_for(
    tmp_path, monkeypatch, capsys, words
):
    def load(*_: object, **__: object) -> None:
        raise AssertionError("data are loaded")

    monkeypatch.setattr("pbnn.opening.load", load)
    name, *more = words
    assert pbnn(monkeypatch, name, tmp_path / "nofile.pt", *more) == 2
    assert "nofile.pt is no file." in capsys.readouterr().err
    (tmp_path / "text.pt").write_text("no network")
    assert pbnn(monkeypatch, name, tmp_path / "text.pt", *more) == 2
    assert "text.pt is not a readable" in capsys.readouterr().err


def test_a_missing_posterior_is_told_before_any_data_are_looked_for(
    certified, folder, monkeypatch, capsys
):
    path = certified("draw")
    monkeypatch.setattr("pbnn.opening.load", None)
    words = ["verify", path, "--data", "digits", "--posterior", folder / "nothing.pt"]
    assert pbnn(monkeypatch, *words) == 2
    assert "nothing.pt" in capsys.readouterr().err
    # Nor is a data set loaded that is not the one that the file names.
    assert pbnn(monkeypatch, "verify", path, "--data", "mnist") == 2
    assert "`data` must be 'digits', got 'mnist'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["patients.csv", "mnits"])
def test_a_table_goes_another_way(folder, monkeypatch, capsys, name):
    assert pbnn(monkeypatch, "certify", folder / "model.safetensors", "--data", name) == 2
    text = capsys.readouterr().err
    assert f"got '{name}': " in text
    assert "`pbnn.data.from_csv` in Python (docs/tutorial.md)" in text


def test_a_certificate_alone_is_verified_as_far_as_it_goes(
    tmp_path, certified, monkeypatch, capsys
):
    record = load_packed(certified("draw")).certificate
    path = tmp_path / "cert.json"
    certificate = Certificate.from_dict(record)
    certificate.save(path)
    assert pbnn(monkeypatch, "verify", path) == 0
    text = capsys.readouterr().out
    assert str(certificate) in text
    assert f"ok     arithmetic: drawn network, n {certificate.n}, δ 0.05, bound" in text
    assert "arithmetic holds; data, posterior and bits were not looked at" in text
    assert pbnn(monkeypatch, "verify", path, "--data", "digits") == 2
    assert "for a packed network" in capsys.readouterr().err
    for changed, message in (
        (record | {"bound": record["bound"] / 2}, "does not hold: `bound` is"),
        ({"schema_version": 1}, "missing or unknown fields"),
        ({}, "`schema_version` must be"),
    ):
        path.write_text(json.dumps(changed))
        assert pbnn(monkeypatch, "verify", path) == 1
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("FAILED certificate: ")
        assert message in lines[0]


def test_a_packed_file_whose_length_begins_like_json_is_none(tmp_path):
    """The first byte of safetensors is of the header's length, which may be that of a brace."""
    path = tmp_path / "file"
    path.write_bytes((ord("{") + 256 * ord("}")).to_bytes(8, "little") + b"{}")
    assert not cli.is_json(path)
    path.write_bytes(b"{}")
    assert cli.is_json(path)


def test_what_is_no_packed_network_is_told_plainly(tmp_path, monkeypatch, capsys):
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK" + bytes(100))
    assert pbnn(monkeypatch, "verify", path) == 2
    text = capsys.readouterr().err
    assert "model.pt is not a readable packed network: either `pbnn certify`" in text
    assert "header" not in text


@pytest.mark.parametrize("alone", [False, True])
def test_a_file_is_verified_and_run_without_torch(certified, tmp_path, alone):
    """Where only NumPy is installed: torch is not imported."""
    code = """
import sys
class Without:
    def find_spec(self, name, *_):
        if name == "torch":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
sys.argv = ["pbnn", "verify", *sys.argv[1:]]
from pbnn import cli
cli.main()
"""
    words = [certified("vote"), "--data", "digits", "--backend", "float32"]
    if alone:
        words = [tmp_path / "certificate.json"]
        Certificate.from_dict(load_packed(certified("vote")).certificate).save(words[0])
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "holds" in done.stdout


def test_what_a_byte_stands_for_is_seen():
    pixels = np.arange(256, dtype=np.float32) / np.float32(255)
    assert bytes_of(pixels) == {"input": "uint8", "scale": 1 / 255}
    assert bytes_of(load("digits").x) == {"input": "uint8", "scale": 1 / 16}
    assert bytes_of(torch.randn(5, generator=generator(0, "x")).numpy()) == {"input": "real"}


def test_the_certificate_says_how_the_splits_are_made(certified):
    data = load_packed(certified("draw")).data
    assert json.dumps(data, sort_keys=True) == (
        '{"feature": 0, "members": 3, "predictor": "draw", "prior": 0.5, "seed": 42, '
        '"statistics_of": 2000, "task": "digits"}'
    )
