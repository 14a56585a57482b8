"""Downloading the files of a collection without trusting a mirror to answer, or to be right."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import io
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbnn.data.idx import gunzip
from pbnn.data.registry import Collection
from pbnn.files import write_atomic

# Deflate adds a few bytes in 65,536 to what it cannot compress; a longer body is not our file.
_OVERHEAD = 65_536


@dataclass(frozen=True)
class Patience:
    """How long mirrors may take, together, before the caller goes on without them.

    Attributes
    ----------
    timeout : float
        Seconds to connect, and seconds to wait for more bytes.
    total : float
        Seconds in all, over files and mirrors, spent on what does not arrive.
    rate : float
        Bytes a second at which a transfer earns the time it takes, so that a slow but living
        line may finish and a trickling one may not.
    """

    timeout: float = 5.0
    total: float = 20.0
    rate: float = 250_000.0


def download(
    collection: Collection[Any],
    names: Iterable[str],
    folder: Path,
    *,
    progress: bool = True,
    patience: Patience | None = None,
) -> list[str]:
    """Bring files of a collection, as ``<name>.gz``, into a folder, each once it is verified.

    Every mirror is asked once, in order; the first file it fails to deliver intact passes this
    file and the following ones on to the next mirror.

    Returns
    -------
    list of str
        What went wrong at which mirror; the files may be complete nonetheless.
    """
    if importlib.util.find_spec("pooch") is None:
        return ["the mirrors: not asked, because downloading needs pooch (pip install pooch)"]
    # Before the clock starts: on a slow disk these imports take seconds.
    for module in ("pooch", "requests"):
        importlib.import_module(module)
    failures = []
    remaining = {name: collection.files[name] for name in names}
    clock = _Clock(patience or Patience())
    for mirror in collection.mirrors:
        try:
            for name, file in list(remaining.items()):
                url = f"{mirror}{name}.gz" if collection.gzipped else f"{mirror}{name}"
                content = _receive(url, _Body(file.size + _OVERHEAD, clock), progress)
                if collection.gzipped:
                    file.read(gunzip(io.BytesIO(content), url, file.size), url)
                else:
                    file.read(content, url)
                    content = gzip.compress(content, mtime=0)
                write_atomic(folder / f"{name}.gz", content)
                del remaining[name]
        except (OSError, ValueError) as error:
            failures.append(f"{mirror}: {error}")
    return failures


class _Clock:
    """The time left to all transfers together."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.deadline = time.monotonic() + patience.total

    def credit(self, size: int) -> None:
        self.deadline += size / self.patience.rate


class _Body:
    """A file-like sink that refuses bytes past its limit or after its time."""

    def __init__(self, limit: int, clock: _Clock) -> None:
        self.content = bytearray()
        self.limit = limit
        self.clock = clock
        self.latest = time.monotonic()

    def seconds_left(self) -> float:
        # Connecting and the first bytes may each take the timeout.
        patience = 2 * self.clock.patience.timeout
        return min(self.latest + patience, self.clock.deadline) - time.monotonic()

    def write(self, chunk: bytes) -> None:
        # This also ends a transfer that its reader gave up on: it must not linger.
        if self.seconds_left() <= 0:
            raise TimeoutError("took too long")
        if len(self.content) + len(chunk) > self.limit:
            raise ValueError(f"sent more than the {self.limit} bytes the file can have.")
        self.content += chunk
        self.latest = time.monotonic()
        self.clock.credit(len(chunk))

    def flush(self) -> None:
        """Nothing is buffered elsewhere."""


def _receive(url: str, body: _Body, progress: bool) -> bytes:
    """The bytes behind a URL.

    The transfer runs in a thread of its own because no timeout of a socket bounds all it may do:
    resolve a name, try address after address, or receive a byte at a time.
    """
    if body.seconds_left() <= 0:
        raise TimeoutError("not asked, for lack of time.")
    raised: list[Exception] = []
    bar = _bar(url, body.limit) if progress else None

    def transfer() -> None:
        import pooch

        responses: list[Any] = []
        timeout = body.clock.patience.timeout
        get = pooch.HTTPDownloader(
            progressbar=bar or False,
            chunk_size=65_536,
            timeout=(timeout, timeout),
            hooks={"response": lambda response, **_: responses.append(response)},
        )
        try:
            get(url, body, None)
        except Exception as error:  # carried over to the thread that waits
            raised.append(error)
        finally:
            # pooch leaves the connection open when a transfer fails.
            for response in responses:
                response.close()

    thread = threading.Thread(target=transfer, daemon=True)
    thread.start()
    try:
        while thread.is_alive() and (left := body.seconds_left()) > 0:
            thread.join(left)
    finally:
        if bar is not None:
            bar.close()
    if raised:
        raise raised[0]
    if thread.is_alive():
        raise TimeoutError(f"{url.rpartition('/')[2]} did not arrive in time.")
    return bytes(body.content)


def _bar(url: str, total: int) -> Any:
    if importlib.util.find_spec("tqdm") is None:
        return None
    from tqdm import tqdm

    # disable=None: a bar in a terminal, silence in a log.
    name = url.rpartition("/")[2]
    return tqdm(total=total, desc=name, unit="B", unit_scale=True, leave=False, disable=None)
