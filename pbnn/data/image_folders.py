"""Tasks from folders of images, one folder per class."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pbnn.data.tasks import Task

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("BMP", "JPEG", "PNG", "PPM")
_GREY = frozenset({"1", "L"})


def from_images(
    folder: str | os.PathLike[str], size: tuple[int, int] | None = None, name: str | None = None
) -> Task:
    r"""A classification task from images in ``<folder>/<class>/<image>``.

    Classes, and the images within each, are in the order of the characters of their names; pixels
    are :math:`/255`. If every image is grey, there is one channel, else there are three, and a grey
    image has three equal ones. Files beside the folders of classes, and names that begin with a
    dot, do not count. Beyond the number of channels, no value depends on another image.

    Parameters
    ----------
    folder : path
        It holds a folder per class, and these hold nothing but BMP, JPEG, PNG or PNM images,
        grey or RGB. How a JPEG file is decoded may depend on the version of the library.
    size : pair of int, optional
        Height and width to which images are resized, bilinearly; by default they must all have
        the same.
    name : str, optional
        The task's name; by default the folder's.

    Returns
    -------
    Task
        Inputs (N, 1 or 3, height, width) in [0, 1]. Of two classes the first is -1 and the second
        +1 (float32), more are 0, 1, ... (int64). The source lists the classes.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    TypeError, ValueError
        If `size` is no pair of integers >= 1.
    ValueError
        For fewer than two classes, or naming a class without images, a file that is no such image
        or is damaged, or one of another size.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> root = Path(tempfile.mkdtemp())
    >>> for kind, white in (("night", 0), ("day", 255)):
    ...     (root / kind).mkdir()
    ...     Image.new("L", (3, 2), white).save(root / kind / "sky.png")
    >>> task = from_images(root, name="sky")
    >>> task.x.shape, task.x.max(axis=(1, 2, 3)).tolist(), task.y.tolist(), task.source
    ((2, 1, 2, 3), [1.0, 0.0], [-1.0, 1.0], 'images of day, night (+1)')
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` names no folder: {folder}.")
    _check_size(size)
    classes = [entry for entry in _entries(folder) if entry.is_dir()]
    if len(classes) < 2:
        found = ", ".join(entry.name for entry in classes) or "none"
        raise ValueError(
            f"{folder} must hold a folder for each of two or more classes, got {found}."
        )
    files = [_entries(entry) for entry in classes]
    if empty := [entry for entry, images in zip(classes, files, strict=True) if not images]:
        raise ValueError(f"{empty[0]} must hold at least one image, got none.")
    x = _pixels([file for images in files for file in images], size)
    y: NDArray[Any] = np.repeat(np.arange(len(classes), dtype=np.int64), [*map(len, files)])
    source = f"images of {', '.join(entry.name for entry in classes)}"
    if len(classes) == 2:
        y, source = (2 * y - 1).astype(np.float32), f"{source} (+1)"
    if size is not None:
        source += f", resized to {size[0]}x{size[1]} (height x width)"
    return Task.of(name or folder.resolve().name, x, y, source)


def _check_size(size: object) -> None:
    if size is None:
        return
    if not isinstance(size, Sequence) or not all(type(side) is int for side in size):
        raise TypeError(f"`size` must be a pair of integers (height, width), got {size!r}.")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"`size` must be (height, width), both >= 1, got {size!r}.")


def _entries(folder: Path) -> list[Path]:
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return sorted(entries, key=lambda entry: entry.name)


@contextmanager
def _opened(file: Path, whole: bool = False) -> Iterator[Image]:
    """An image, of which only the header is read or the whole, and an error that names its file."""
    from PIL import Image

    try:
        # A length inside of the file may lie: in memory no more can be read than there is.
        source = io.BytesIO(file.read_bytes()) if whole else file
        with Image.open(source, formats=_FORMATS) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{file} must be a readable {', '.join(_FORMATS)} image: {error}"
        ) from error


def _pixels(files: Sequence[Path], size: tuple[int, int] | None) -> NDArray[np.float32]:
    """The pixels of all images in one array (N, channels, height, width)."""
    from PIL.Image import Resampling

    grey, (height, width) = _layout(files, size)
    x = np.empty((len(files), 1 if grey else 3, height, width), dtype=np.float32)
    for row, file in zip(x, files, strict=True):
        with _opened(file, whole=True) as image:
            image = image.convert("L" if grey else "RGB")
            if image.size != (width, height):
                image = image.resize((width, height), Resampling.BILINEAR)
        pixels = np.asarray(image).reshape(height, width, -1).transpose(2, 0, 1)
        np.divide(pixels, np.float32(255), out=row, dtype=np.float32)
    return x


def _layout(files: Sequence[Path], size: tuple[int, int] | None) -> tuple[bool, tuple[int, int]]:
    """Whether all images are grey, and their height and width, from their headers."""
    headers = [_header(file) for file in files]
    _, first = headers[0]
    for file, (_, found) in zip(files, headers, strict=True):
        if size is None and found != first:
            raise ValueError(
                f"{file} must be as large as {files[0].name}, {first[0]}x{first[1]}, "
                f"unless `size` is given, got {found[0]}x{found[1]} (height x width)."
            )
    return all(grey for grey, _ in headers), size or first


def _header(file: Path) -> tuple[bool, tuple[int, int]]:
    with _opened(file) as image:
        mode, (width, height) = image.mode, image.size
    if mode not in _GREY and mode != "RGB":
        raise ValueError(f"{file} must be grey or RGB, 8 bits a channel, got mode {mode!r}.")
    return mode in _GREY, (height, width)
