"""Small IDX files in the layout of MNIST, and a server on this machine to fetch them from."""

from __future__ import annotations

import gzip
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pbnn.data.registry import Collection, IdxFile
from pbnn.files import sha256

Respond = Callable[[BaseHTTPRequestHandler], None]


class Small:
    """A collection of 30 + 10 images of 4x5 pixels, the third of them blank, and its files."""

    def __init__(self, classes: np.ndarray | None = None) -> None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (40, 4, 5), dtype=np.uint8)
        images[2] = 0
        if classes is None:
            classes = np.arange(40, dtype=np.uint8) % 10
        self.images, self.classes = images, classes
        arrays = {
            "train-images-idx3-ubyte": images[:30],
            "train-labels-idx1-ubyte": classes[:30],
            "t10k-images-idx3-ubyte": images[30:],
            "t10k-labels-idx1-ubyte": classes[30:],
        }
        self.contents = {name: encode(array) for name, array in arrays.items()}
        self.files = {
            name: IdxFile(arrays[name].shape, sha256(content))
            for name, content in self.contents.items()
        }

    def collection(self, *mirrors: str) -> Collection:
        return Collection("Small", "small", self.files, mirrors, published=(30, 10))

    def write(self, folder: Path, *, gzipped: bool = True) -> Path:
        """Put the files where `data_dir=folder` finds them; return their folder."""
        home = folder / "small"
        home.mkdir(parents=True, exist_ok=True)
        for name, content in self.contents.items():
            if gzipped:
                (home / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (home / name).write_bytes(content)
        return home

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        """The answer of an honest mirror."""
        send(handler, gzip.compress(self.contents[handler.path[1:].removesuffix(".gz")]))


def encode(array: np.ndarray) -> bytes:
    """The IDX bytes of an array of unsigned bytes, written independently of the package."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def send(handler: BaseHTTPRequestHandler, body: bytes, length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def serve(respond: Respond, requests: list[str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            respond(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up is part of these tests."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def small() -> Small:
    return Small()


@pytest.fixture
def small_of() -> type[Small]:
    return Small


@pytest.fixture
def answer() -> Callable[..., None]:
    return send


@pytest.fixture
def mirror() -> Iterator[Callable[..., str]]:
    """Start a mirror that responds in a given way; the requests it gets go into a list."""
    with ExitStack() as stack:
        yield lambda respond, requests=None: stack.enter_context(
            serve(respond, [] if requests is None else requests)
        )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the user, and no folder named by the environment."""
    monkeypatch.delenv("PBNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pbnn.data.files.cache_folder", lambda: tmp_path / "cache" / "pbnn")
    return tmp_path / "cache" / "pbnn" / "small"
