"""Finding the files of a collection: a named folder, else the cache, else the mirrors."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from pbnn.data.download import Patience, download
from pbnn.data.idx import read_bytes
from pbnn.data.registry import Collection, Content, DataFile, DataUnavailable


def obtain(
    collection: Collection[Content],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    offline: bool = False,
    progress: bool = True,
    patience: Patience | None = None,
) -> dict[str, Content]:
    """The content of a collection by the name of their file, each verified by its SHA-256.

    A folder named by `data_dir` or by the environment variable ``PBNN_DATA`` must have every
    file. Otherwise each file comes from the user's cache or, unless `offline`, from a mirror into
    the cache, where a damaged file counts as missing and is replaced. Only a file that the
    collection calls optional may be missing, and then is not in the result.

    Raises
    ------
    FileNotFoundError
        If the named folder, or a file in it, is missing.
    ValueError
        Naming the file in the named folder whose content is wrong.
    DataUnavailable
        If neither cache nor mirrors have a file.
    """
    named = data_dir if data_dir is not None else os.environ.get("PBNN_DATA") or None
    if named is not None:
        return _read_named(collection, Path(named).expanduser())
    folder = cache_folder() / collection.folder
    found, tried = _read_cached(collection, folder)
    if tried and not collection.mirrors:
        tried.append("the mirrors: there is none")
    elif tried and offline:
        tried.append("the mirrors: not asked, because of `offline`")
    elif tried:
        missing = [name for name in collection.files if name not in found]
        tried += download(collection, missing, folder, progress=progress, patience=patience)
        found, _ = _read_cached(collection, folder)
    if len(found) < len(_expected(collection, folder)):
        raise DataUnavailable(_advice(collection, tried))
    return found


def cache_folder() -> Path:
    """The user's cache for pbnn: pooch's choice, or ``~/.cache/pbnn`` without pooch."""
    if importlib.util.find_spec("pooch") is not None:
        import pooch

        return Path(pooch.os_cache("pbnn"))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pbnn"


def _locate(folder: Path, name: str) -> Path | None:
    """The file, gzipped or raw: in this order, so that a download outranks a damaged raw file."""
    return next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)


def _expected(collection: Collection[Content], folder: Path) -> dict[str, DataFile[Content]]:
    """The files to read: an optional one only if it is there, so that a damaged one is noticed."""
    return {
        name: file
        for name, file in collection.files.items()
        if name not in collection.optional or _locate(folder, name)
    }


def _read(folder: Path, name: str, file: DataFile[Content]) -> Content:
    path = _locate(folder, name)
    if path is None:
        raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz.")
    return file.read(read_bytes(path, file.size), str(path))


def _read_named(collection: Collection[Content], data_dir: Path) -> dict[str, Content]:
    if not data_dir.is_dir():
        raise FileNotFoundError(f"`data_dir` (or PBNN_DATA) names no folder: {data_dir}.")
    folder = data_dir / collection.folder
    return {name: _read(folder, name, file) for name, file in _expected(collection, folder).items()}


def _read_cached(
    collection: Collection[Content], folder: Path
) -> tuple[dict[str, Content], list[str]]:
    """The intact files of the cache, and why the others are not."""
    found, reasons = {}, []
    for name, file in _expected(collection, folder).items():
        try:
            found[name] = _read(folder, name, file)
        except (OSError, ValueError) as error:
            reasons.append(f"the cache: {error}")
    return found, reasons


def _advice(collection: Collection[Any], tried: list[str]) -> str:
    lines = [
        f"{collection.title} is not available. Tried:",
        *(f"  - {attempt}" for attempt in tried),
        f"To provide it, put {', '.join(collection.files)} (raw or as .gz) into "
        f"<folder>/{collection.folder} and pass `data_dir`=<folder> or set PBNN_DATA=<folder>.",
    ]
    if collection.archive:
        lines.append(f"They come in {collection.archive}.")
    return "\n".join(lines)
