"""Where data are looked for, and what a mirror may do without harm."""

from __future__ import annotations

import gzip
import importlib.util
import io
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from pbnn.data import DataUnavailable
from pbnn.data.download import Patience
from pbnn.data.files import cache_folder, obtain

QUICK = Patience(timeout=0.4, total=2.0)
LABELS = "train-labels-idx1-ubyte"


def fetch(small, *mirrors, patience=QUICK, **options):
    return obtain(small.collection(*mirrors), progress=False, patience=patience, **options)


def is_small(arrays, small):
    images = np.concatenate([arrays["train-images-idx3-ubyte"], arrays["t10k-images-idx3-ubyte"]])
    return np.array_equal(images, small.images)


def left_in(cache):
    return sorted(path.name for path in cache.rglob("*")) if cache.exists() else []


def test_a_named_folder_that_is_missing_is_an_error_and_no_download(small, tmp_path, cache, mirror):
    requests = []
    url = mirror(small.respond, requests)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fetch(small, url, data_dir=tmp_path / "nowhere")
    assert requests == []


def test_a_file_missing_in_a_named_folder_is_an_error_and_no_download(
    small, tmp_path, cache, mirror, monkeypatch
):
    requests = []
    url = mirror(small.respond, requests)
    (small.write(tmp_path) / f"{LABELS}.gz").unlink()
    monkeypatch.setenv("PBNN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"small has neither {LABELS}"):
        fetch(small, url)
    assert requests == []


def test_the_argument_outranks_the_environment_and_the_environment_the_cache(
    small, small_of, tmp_path, cache, monkeypatch
):
    other = small_of(np.full(40, 3, dtype=np.uint8))
    small.write(tmp_path / "argument")
    other.write(tmp_path / "environment")
    monkeypatch.setenv("PBNN_DATA", str(tmp_path / "environment"))
    assert is_small(fetch(small, data_dir=tmp_path / "argument"), small)
    with pytest.raises(ValueError, match="SHA-256"):
        fetch(small)
    monkeypatch.setenv("PBNN_DATA", "")
    small.write(cache.parent)
    assert is_small(fetch(small), small)


def test_a_download_is_cached_and_not_repeated(small, cache, mirror):
    requests = []
    url = mirror(small.respond, requests)
    assert is_small(fetch(small, url), small)
    assert left_in(cache) == sorted(f"{name}.gz" for name in small.files)
    assert requests == [f"/{name}.gz" for name in small.files]
    assert is_small(fetch(small, url, offline=True), small)
    assert len(requests) == 4


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_in_a_terminal_only(small, cache, mirror, monkeypatch, terminal):
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    arrays = obtain(small.collection(mirror(small.respond)), progress=True)
    assert is_small(arrays, small)
    assert (LABELS in stderr.getvalue()) == terminal


def test_only_the_damaged_file_of_the_cache_is_fetched_again(small, cache, mirror):
    requests = []
    url = mirror(small.respond, requests)
    home = small.write(cache.parent, gzipped=False)
    (home / LABELS).write_bytes(b"damaged")
    assert is_small(fetch(small, url), small)
    assert requests == [f"/{LABELS}.gz"]


def test_offline_asks_no_mirror_and_says_what_to_do(small, cache, mirror):
    requests = []
    url = mirror(small.respond, requests)
    with pytest.raises(DataUnavailable, match=r"(?s)Tried.*cache.*offline.*PBNN_DATA"):
        fetch(small, url, offline=True)
    assert requests == []
    assert left_in(cache) == []


def test_without_pooch_the_error_says_what_to_install(small, cache, mirror, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pooch" else found(name)
    )
    with pytest.raises(DataUnavailable, match="pip install pooch"):
        fetch(small, mirror(small.respond))


def test_the_cache_is_the_user_s_with_and_without_pooch(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with_pooch = cache_folder()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cache_folder() == tmp_path / "pbnn"
    if sys.platform == "linux":
        assert with_pooch == cache_folder()


def truncated(small, answer):
    def respond(handler):
        body = gzip.compress(small.contents[LABELS])
        answer(handler, body[: len(body) // 2], length=len(body))

    return respond


def shortened(small, answer):
    return lambda handler: answer(handler, gzip.compress(small.contents[LABELS])[:-3])


def wrong(small, answer):
    def respond(handler):
        content = bytearray(small.contents[handler.path[1:].removesuffix(".gz")])
        content[-1] ^= 1
        answer(handler, gzip.compress(content))

    return respond


def endless(small, answer):
    def respond(handler):
        answer(handler, b"\x1f\x8b", length=10**12)
        while True:
            handler.wfile.write(bytes(65_536))

    return respond


def missing(small, answer):
    return lambda handler: handler.send_error(404)


def silent(small, answer):
    return lambda handler: time.sleep(1.0)


def hanging_midway(small, answer):
    def respond(handler):
        answer(handler, b"\x1f\x8b", length=5000)
        time.sleep(1.0)

    return respond


def trickling(small, answer):
    def respond(handler):
        answer(handler, b"\x1f\x8b", length=5000)
        for _ in range(100):
            time.sleep(0.05)
            handler.wfile.write(b"\0")

    return respond


FAULTS = [truncated, shortened, wrong, endless, missing, silent, hanging_midway, trickling]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_mirror_is_passed_over(fault, small, answer, cache, mirror):
    requests = []
    bad = mirror(fault(small, answer), requests)
    assert is_small(fetch(small, bad, mirror(small.respond)), small)
    assert len(requests) == 1
    assert left_in(cache) == sorted(f"{name}.gz" for name in small.files)


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_mirrors_alone_leave_nothing_behind(fault, small, answer, cache, mirror):
    bad = [mirror(fault(small, answer)) for _ in range(3)]
    began = time.monotonic()
    with pytest.raises(DataUnavailable) as raised:
        fetch(small, *bad)
    assert time.monotonic() - began < QUICK.total + 1
    assert all(url in str(raised.value) for url in bad)
    assert left_in(cache) == []


def refused_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def test_a_dead_mirror_is_passed_over(small, cache, mirror):
    assert is_small(fetch(small, refused_address(), mirror(small.respond)), small)


def test_mirrors_that_are_all_dead_leave_nothing_behind(small, cache):
    with pytest.raises(DataUnavailable, match=r"(?i)refused"):
        fetch(small, refused_address(), refused_address())
    assert left_in(cache) == []


def test_the_second_mirror_supplies_what_the_first_lost_on_the_way(small, answer, cache, mirror):
    first, second = [], []

    def fails_at_the_third(handler):
        if len(first) == 3:
            handler.send_error(503)
        else:
            small.respond(handler)

    urls = mirror(fails_at_the_third, first), mirror(small.respond, second)
    assert is_small(fetch(small, *urls), small)
    names = [f"/{name}.gz" for name in small.files]
    assert (first, second) == (names[:3], names[2:])


def test_all_mirrors_together_get_no_more_than_the_total(small, cache, mirror):
    release = threading.Event()
    urls = [mirror(lambda handler: release.wait(5)) for _ in range(4)]
    began = time.monotonic()
    with pytest.raises(DataUnavailable, match=r"(?s)in time.*not asked"):
        fetch(small, *urls, patience=Patience(timeout=0.5, total=0.8))
    waited = time.monotonic() - began
    release.set()
    assert 0.7 < waited < 1.6


def test_a_slow_but_living_mirror_may_take_longer_than_the_total(small, cache, mirror):
    def slowly(handler):
        body = gzip.compress(small.contents[handler.path[1:].removesuffix(".gz")])
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(body), 100):
            piece = body[start : start + 100]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            time.sleep(0.05)
        handler.wfile.write(b"0\r\n\r\n")

    patience = Patience(timeout=0.4, total=0.4, rate=500)
    began = time.monotonic()
    assert is_small(fetch(small, mirror(slowly), patience=patience), small)
    assert time.monotonic() - began > patience.total


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "sklearn", "pandas", "matplotlib", "pooch", "requests", "tqdm", "scipy"}
    script = f"import sys, pbnn.data; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
