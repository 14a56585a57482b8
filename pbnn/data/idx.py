"""The IDX format of MNIST: a magic number, big-endian sizes, then unsigned bytes."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

_UNSIGNED_BYTE = 8


def header_size(dimensions: int) -> int:
    """Bytes before the first item of an IDX file with so many dimensions."""
    return 4 + 4 * dimensions


def parse(content: bytes, where: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array in the bytes of an IDX file that must have the given shape.

    Nothing is allocated: the header is compared with `shape` and with the bytes present, and the
    array is a read-only view of `content`.

    Parameters
    ----------
    content : bytes
        The file, decompressed.
    where : str
        Its name, for the error message.
    shape : tuple of int
        What the header must say, e.g. (60000, 28, 28).

    Raises
    ------
    ValueError
        If the magic number, a size, or the number of bytes is wrong.

    References
    ----------
    LeCun, Cortes and Burges, The MNIST database of handwritten digits (1998).

    Examples
    --------
    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 0, 9]), "labels", (3,))
    array([7, 0, 9], dtype=uint8)
    """
    magic = bytes([0, 0, _UNSIGNED_BYTE, len(shape)])
    if content[:4] != magic:
        raise ValueError(
            f"{where} is not an IDX file of unsigned bytes in {len(shape)} dimension(s): "
            f"it must begin with {magic.hex()}, got {content[:4].hex() or 'nothing'}."
        )
    start = header_size(len(shape))
    if len(content) < start:
        raise ValueError(f"{where} ends inside its header of {start} bytes.")
    found = struct.unpack_from(f">{len(shape)}I", content, 4)
    if found != shape:
        raise ValueError(f"{where} must hold items of shape {shape}, but its header says {found}.")
    if len(content) - start != math.prod(shape):
        fault = "is cut short" if len(content) - start < math.prod(shape) else "goes on"
        raise ValueError(
            f"{where} {fault}: it must hold {math.prod(shape)} bytes after its header for {shape}."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a raw or gzipped file (by its suffix), of which `limit` bytes are expected.

    At most one byte more than `limit` is read or decompressed, however long the file is.

    Raises
    ------
    ValueError
        Naming the file, if its name ends in ``.gz`` and it is cut short, damaged or not gzip.
    """
    path = Path(path)
    with path.open("rb") as stream:
        if path.suffix == ".gz":
            return gunzip(stream, str(path), limit)
        return stream.read(limit + 1)


def gunzip(stream: IO[bytes], where: str, limit: int) -> bytes:
    """Decompress a stream under the rules of `read_bytes`.

    Examples
    --------
    >>> import io
    >>> gunzip(io.BytesIO(gzip.compress(b"digits")), "a.gz", limit=6)
    b'digits'
    """
    try:
        with gzip.GzipFile(fileobj=stream) as unzipped:
            return unzipped.read(limit + 1)
    except EOFError as error:
        raise ValueError(f"{where} is truncated: its gzip stream ends too early.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{where} is not a valid gzip file: {error}.") from error
