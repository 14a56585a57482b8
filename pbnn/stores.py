"""Folders that hold records: of this machine, or of an object store that fsspec knows."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import Any, Protocol

from pbnn.files import write_atomic


class Store(Protocol):
    """Files by name, each of them whole or absent."""

    def read(self, name: str) -> bytes:
        """The content of a file; FileNotFoundError if there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def where(self, name: str) -> str:
        """What a person calls a file."""


class LocalStore:
    """A folder of this machine, or one that several share."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a file by a temporary one that takes its place."""
        write_atomic(self.folder / name, data)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def where(self, name: str) -> str:
        """Its path."""
        return str(self.folder / name)


class RemoteStore:
    """A folder of an object store, such as ``s3://bucket/runs``, whose files appear whole.

    Parameters
    ----------
    address : str
        As fsspec knows it; the package of its kind must be installed (``s3fs`` for ``s3://``).

    Examples
    --------
    >>> store = RemoteStore("memory://example/runs")
    >>> store.write("a.json", b"{}")
    >>> store.read("a.json"), store.where("a.json")
    (b'{}', 'memory://example/runs/a.json')
    """

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address.rstrip("/")
        try:
            self.system, self.root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise ValueError(f"`folder` must be one that fsspec reaches: {error}") from error

    def read(self, name: str) -> bytes:
        """The content of a file."""
        content: bytes = self.system.cat_file(f"{self.root}/{name}")
        return content

    def write(self, name: str, data: bytes) -> None:
        """Write a file; object stores show it once it is whole."""
        path = f"{self.root}/{name}"
        try:  # Each request may go round the world: a folder is made only if it is missed.
            self.system.pipe_file(path, data)
        except FileNotFoundError:
            self.system.makedirs(self.root, exist_ok=True)
            self.system.pipe_file(path, data)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.system.rm_file(f"{self.root}/{name}")

    def where(self, name: str) -> str:
        """Its address."""
        return f"{self.address}/{name}"


def store_at(folder: Any) -> Store:
    """The store of a path, or of an address with ``://``; ``file://`` is a path.

    Examples
    --------
    >>> store_at("runs").where("a.json")
    'runs/a.json'
    """
    text = os.fspath(folder)
    if text.startswith("file://"):
        return LocalStore(text.removeprefix("file://"))
    return _remote(text) if "://" in text else LocalStore(folder)


@functools.lru_cache(maxsize=16)
def _remote(address: str) -> RemoteStore:
    """One store of an address, which is connected to and made once."""
    return RemoteStore(address)
