"""Processes of this machine that compute together, started as torchrun starts them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from pbnn.distributed import Processes, processes

HERE = Path(__file__).resolve().parent
FOUND = {
    "PYTHONPATH": os.pathsep.join(
        filter(None, [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")])
    )
}
"""For processes that import what lies here, and this checkout."""


def free_ports(count: int) -> list[str]:
    """Ports that nobody listens at just now."""
    with contextlib.ExitStack() as opened:
        found = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in found]


def together(
    command: Sequence[str],
    count: int,
    *,
    turns: int = 1,
    timeout: float,
    settings: Mapping[str, str] | None = None,
) -> list[str]:
    """What each of `count` processes with this command prints; one thread each.

    Parameters
    ----------
    command : sequence of str
    count : int
        At the start all are one group; `in_turn` makes others, up to `turns` one after another.
    turns : int
    timeout : float
        Seconds for all of it.
    settings : mapping, optional
        Of their environment.

    Raises
    ------
    RuntimeError
        If one fails, with what all have written to stderr by then.
    TimeoutError
        If they do not end in time.
    """
    ports = free_ports(turns)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": ports[0], "PORTS": " ".join(ports)}
    common |= {"WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"} | FOUND | dict(settings or {})
    with contextlib.ExitStack() as opened:
        running, outputs, errors = [], [], []
        for rank in range(count):
            # Files, as a pipe that nobody reads may be full.
            for files in (outputs, errors):
                files.append(opened.enter_context(tempfile.TemporaryFile("w+")))
            environment = os.environ | common | {"RANK": str(rank)}
            files = {"stdout": outputs[-1], "stderr": errors[-1]}
            process = subprocess.Popen(command, env=environment, **files)
            opened.enter_context(process)
            opened.callback(process.kill)  # before it is waited for
            running.append(process)
        wait_for(running, timeout)
        if any(process.returncode for process in running):
            raise RuntimeError("\n".join(map(content_of, errors)))
        return [content_of(output) for output in outputs]


def wait_for(running: Sequence[subprocess.Popen[str]], timeout: float) -> None:
    """Until all have ended or one has failed, as the others would wait for it."""
    end = time.monotonic() + timeout
    while None in (ends := [process.poll() for process in running]) and not any(ends):
        if time.monotonic() > end:
            raise TimeoutError(f"Processes must end within {timeout} s.")
        time.sleep(0.05)


def content_of(file: IO[str]) -> str:
    """All that was written to a file."""
    file.seek(0)
    return file.read()


def in_turn(counts: Sequence[int], timeout: float) -> Iterator[tuple[int, Processes]]:
    """Groups of the first so many processes, one after another, each with its number.

    A process meets those that it is in, and waits for the others where its next one begins.
    """
    rank, ports = int(os.environ["RANK"]), os.environ["PORTS"].split()
    for turn, (count, port) in enumerate(zip(counts, ports, strict=False)):
        os.environ |= {"WORLD_SIZE": str(count), "MASTER_PORT": port}
        if rank < count:
            with processes(timeout) as here:
                yield turn, here
