"""A small cluster to break: hosts that can be killed, in networks of their own, and a disk.

Networks of their own and a disk that is full or read-only need Linux and its administrator;
without them hosts are processes of one network, and the disk takes part in nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

BRIDGE = "pbnn-faults"
SUBNET = "10.213.77"
DISK_MEGABYTES = 256


def administrator() -> bool:
    """Whether this process may make networks and disks."""
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") is not None


def system(*words: str, check: bool = True) -> None:
    """Run a command of the system without its output."""
    subprocess.run(words, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Host:
    """A process group that is started in a place, killed and started again.

    Parameters
    ----------
    words : sequence of str
        Its command.
    log : path
        Where all that it says is appended.
    environment : mapping
        Variables besides those of this process.
    network : str, optional
        The network that it lives in, see `networks`.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        network: str | None = None,
    ) -> None:
        inside = ["ip", "netns", "exec", network] if network else []
        self.words, self.log = [*inside, *words], log
        self.environment = {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.words,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL to all of its processes: nothing is said, stored or tidied up."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def kill_worker(self) -> bool:
        """SIGKILL to the process that computes, which the one that watches it starts again."""
        if self.process is None or not self.alive:
            return False
        below = psutil.Process(self.process.pid).children(recursive=True)
        computing = [p for p in below if any("spawn_main" in word for word in p.cmdline())]
        for process in computing:
            process.kill()
        return bool(computing)

    def tail(self, characters: int = 2_000) -> str:
        """The last that it said."""
        said = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return said[-characters:]


@contextlib.contextmanager
def networks(names: Sequence[str], apart: bool) -> Iterator[dict[str, tuple[str | None, str]]]:
    """Of each name its network and its address there; one bridge joins them all."""
    if not apart:
        yield {name: (None, "127.0.0.1") for name in names}
        return
    made = {}
    try:
        system("ip", "link", "add", BRIDGE, "type", "bridge")
        system("ip", "address", "add", f"{SUBNET}.1/24", "dev", BRIDGE)
        system("ip", "link", "set", BRIDGE, "up")
        for number, name in enumerate(names):
            inside, outside, address = f"{BRIDGE}-{name}", f"pbf{number}", f"{SUBNET}.{number + 2}"
            made[name] = (inside, address)
            system("ip", "netns", "add", inside)
            pair = ("type", "veth", "peer", "name", "eth0", "netns", inside)
            system("ip", "link", "add", outside, *pair)
            system("ip", "link", "set", outside, "master", BRIDGE, "up")
            system("ip", "-n", inside, "link", "set", "lo", "up")
            system("ip", "-n", inside, "address", "add", f"{address}/24", "dev", "eth0")
            system("ip", "-n", inside, "link", "set", "eth0", "up")
        yield dict(made)
    finally:
        for inside, _ in made.values():
            system("ip", "netns", "delete", inside, check=False)
        system("ip", "link", "delete", BRIDGE, check=False)


class Disk:
    """A disk of some megabytes at a folder, to be filled up and made read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ballast = folder / ".ballast"

    @contextlib.contextmanager
    def mounted(self, possible: bool) -> Iterator[None]:
        """The disk, while it is needed; an ordinary folder where it is not possible."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not possible:
            yield
            return
        size = f"size={DISK_MEGABYTES}m"
        system("mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self.folder))
        try:
            yield
        finally:
            system("umount", str(self.folder), check=False)

    def fill(self) -> None:
        """Leave no room."""
        block = bytes(2**16)
        with self.ballast.open("wb", buffering=0) as out:
            while block:
                try:
                    out.write(block)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    block = block[: len(block) // 2]

    def free(self) -> None:
        """Room again."""
        self.ballast.unlink()

    def read_only(self, yes: bool) -> None:
        """Refuse all writing, or no longer."""
        system("mount", "-o", "remount,ro" if yes else "remount,rw", str(self.folder))
