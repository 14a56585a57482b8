"""Damaged data: IDX files, files of records, CSV files, folders of images."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from damage import bytes_damaged
from damaged_cases import HARMLESS, SILENT, UNSEEN, Case, short
from PIL import Image

from pbnn.data import Task, from_csv, from_images
from pbnn.data.idx import header_size, parse, read_bytes
from pbnn.data.images import from_idx, from_records
from pbnn.data.registry import Collection, IdxFile, RecordFile, TableFile
from pbnn.files import sha256

FILE_ERRORS = (ValueError, OSError)
ROWS, SIDE = 12, 3
CLASSES = 10


def idx_bytes(array: np.ndarray) -> bytes:
    """The content of an IDX file of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def images_and_labels(rng: Random) -> tuple[np.ndarray, np.ndarray]:
    """A few small grey images and their classes."""
    pixels = np.frombuffer(rng.randbytes(ROWS * SIDE**2), np.uint8).reshape(ROWS, SIDE, SIDE)
    return pixels, np.array([rng.randrange(CLASSES) for _ in range(ROWS)], np.uint8)


def idx_files(rng: Random, folder: Path) -> Iterator[Case]:
    """Images and labels, raw and gzipped, of which one file is damaged."""
    path = folder / "file"
    while True:
        sound = images_and_labels(rng)
        place = rng.randrange(2)
        content = idx_bytes(sound[place])
        gzipped = rng.random() < 0.4
        stored = gzip.compress(content, mtime=0) if gzipped else content
        ahead = rng.choice((None, header_size(sound[place].ndim)))
        damage, changed = bytes_damaged(rng, stored, ahead)
        file = path.with_suffix(".gz" if gzipped else "")

        def read(
            file: Path = file, changed: bytes = changed, sound: Any = sound, place: int = place
        ) -> str:
            file.write_bytes(changed)
            shape = sound[place].shape
            size = header_size(len(shape)) + math.prod(shape)
            array = parse(read_bytes(file, size), str(file), shape)
            arrays = {str(at): array if at == place else each for at, each in enumerate(sound)}
            found = from_idx(Collection(str(file), "", {}), arrays)
            if np.array_equal(array, sound[place]):
                return HARMLESS
            # By hand: the head as it must be, as many bytes as it says, classes that exist.
            head = len(idx_bytes(sound[place])) - math.prod(shape)
            raw = gzip.decompress(changed) if file.suffix else changed
            whole = raw[:head] == idx_bytes(sound[place])[:head] and len(raw) == size
            same = raw[head:] == array.tobytes()
            return UNSEEN if whole and same and max(found.classes) < CLASSES else SILENT

        kind = "gzip: " if gzipped else ""
        yield Case(f"{kind}{damage}", read, FILE_ERRORS, str(file), short(changed))


def verified_files(rng: Random, folder: Path) -> Iterator[Case]:
    """Files whose SHA-256 is known, as those of `pbnn.data.load`: an IDX file and a table."""
    while True:
        array = images_and_labels(rng)[0]
        table = b"1, a\n2, b\n" * rng.randint(1, 9)
        content, known = rng.choice(
            (
                (idx_bytes(array), IdxFile(array.shape, sha256(idx_bytes(array)))),
                (table, TableFile(len(table), 2, sha256(table))),
            )
        )
        gzipped = rng.random() < 0.5
        damage, changed = bytes_damaged(
            rng, gzip.compress(content, mtime=0) if gzipped else content
        )
        file = folder / ("file.gz" if gzipped else "file")

        def read(
            file: Path = file,
            changed: bytes = changed,
            known: Any = known,
            content: bytes = content,
        ) -> str:
            file.write_bytes(changed)
            found = read_bytes(file, known.size)
            known.read(found, str(file))
            return HARMLESS if found == content else SILENT

        kind = "gzip: " if gzipped else ""
        yield Case(f"{kind}{damage}", read, FILE_ERRORS, str(file), short(changed))


def record_files(rng: Random, folder: Path) -> Iterator[Case]:
    """Files of labelled colour images, whose hash is not known."""
    shape, classes = (3, 2, 2), (4, 10)
    known = RecordFile(ROWS, classes, {}, shape)
    size = len(classes) + math.prod(shape)
    while True:
        labels = [bytes(rng.randrange(most) for most in classes) for _ in range(ROWS)]
        content = b"".join(label + rng.randbytes(math.prod(shape)) for label in labels)
        damage, changed = bytes_damaged(rng, content)
        if rng.random() < 0.3:
            place = rng.randrange(ROWS) * size + rng.randrange(len(classes))
            number = rng.randrange(256)
            damage, changed = (
                "other label",
                content[:place] + bytes([number]) + content[place + 1 :],
            )
        file = folder / "records.bin"

        def read(file: Path = file, changed: bytes = changed, content: bytes = content) -> str:
            file.write_bytes(changed)
            records = known.read(read_bytes(file, known.size), str(file))
            images = from_records(Collection("colours", "", {}), {"records.bin": records})
            if changed == content:
                return HARMLESS
            rows = [changed[start : start + size] for start in range(0, len(changed), size)]
            sound = len(changed) == len(content)
            sound = sound and all(row[at] < most for row in rows for at, most in enumerate(classes))
            right = [row[1] for row in rows] == images.classes.tolist()
            said = "unverified content" in images.source
            return UNSEEN if sound and right and said else SILENT

        yield Case(damage, read, FILE_ERRORS, str(file), short(changed))


HEAD = ["colour", "weight", "height", "kind"]
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
MISSING = ("", "?", "na", "n/a", "nan", "null")


def table_rows(rng: Random) -> list[list[str]]:
    """A table of a category, two numbers and a class."""
    rows = [["red", "1.5", "-2", "plum"], ["blue", "0.25", "3e1", "apple"]]
    for _ in range(rng.randint(1, 8)):
        weight = f"{rng.uniform(-5, 5):.3g}"
        kinds = ("plum", "apple", "pear"), ("red", "blue", "light green")
        rows.append([rng.choice(kinds[1]), weight, str(rng.randint(-9, 9)), rng.choice(kinds[0])])
    return [HEAD, *rows]


def written(rows: list[list[str]]) -> str:
    """A table as text."""
    return "".join(",".join(row) + "\n" for row in rows)


def cell_damaged(rng: Random, rows: list[list[str]]) -> tuple[str, bytes]:
    """What was done, and a table of which a cell, a row or a column is another."""
    rows = [list(row) for row in rows]
    row, column = rng.randrange(len(rows)), rng.randrange(len(HEAD))
    how = rng.choice(("other cell", "ragged row", "row twice", "column left out"))
    if how == "other cell":
        odd = (
            "",
            "?",
            "NaN",
            "nan",
            "inf",
            "-inf",
            "1e39",
            "1e999",
            "1_000",
            "0x1",
            "x",
            "\u0661",
            "\u00b2",
        )
        odd += (
            "1,5",
            "1;5",
            '"',
            '""',
            '"a',
            'a"b',
            "\0",
            "\r",
            "\n",
            " ",
            "null",
            "1.50",
            "9" * 400,
        )
        rows[row][column] = rng.choice(odd)
    elif how == "ragged row":
        rows[row] = rng.choice((rows[row][:-1], [*rows[row], "1"], rows[row][:1], []))
    elif how == "row twice":
        rows.insert(row, list(rows[row]))
    else:
        rows = [each[:column] + each[column + 1 :] for each in rows]
    return how, written(rows).encode()


def text_rewritten(rng: Random, rows: list[list[str]]) -> tuple[str, bytes]:
    """What was done, and the same table in another writing."""
    text = written(rows)
    ways: dict[str, Callable[[], bytes]] = {
        "byte-order mark": lambda: text.encode("utf-8-sig"),
        "UTF-16": lambda: text.encode("utf-16"),
        "line ends of Windows": lambda: text.replace("\n", "\r\n").encode(),
        "line ends of old": lambda: text.replace("\n", "\r").encode(),
        "quoted": lambda: "".join(
            ",".join(f'"{cell}"' for cell in row) + "\n" for row in rows
        ).encode(),
        "blanks before quotes": lambda: re.sub(r"[^,\n]+", r' "\g<0>"', text).encode(),
        "blanks": lambda: text.replace(",", " , ").encode(),
        "blank lines": lambda: text.replace("\n", "\n\n").encode(),
        "no last line end": lambda: text[:-1].encode(),
        "semicolons": lambda: text.replace(",", ";").encode(),
        "tabs": lambda: text.replace(",", "\t").encode(),
        "head alone": lambda: (",".join(HEAD) + "\n").encode(),
        "head left out": lambda: written(rows[1:]).encode(),
        "Latin-1": lambda: text.replace("plum", "pêche").encode("latin-1"),
    }
    how = rng.choice(tuple(ways))
    return how, ways[how]()


def tables(rng: Random, folder: Path) -> Iterator[Case]:
    """CSV files whose bytes, cells or writing are changed."""
    file = folder / "table.csv"
    while True:
        rows = table_rows(rng)
        way = rng.random()
        if way < 0.4:
            damage, changed = bytes_damaged(rng, written(rows).encode())
        else:
            damage, changed = (cell_damaged if way < 0.8 else text_rewritten)(rng, rows)

        def read(rows: list[list[str]] = rows, changed: bytes = changed) -> str:
            file.write_bytes(written(rows).encode())
            sound = from_csv(file, "kind")
            file.write_bytes(changed)
            found = from_csv(file, "kind")
            if found.sha256 == sound.sha256 and found.source == sound.source:
                return HARMLESS
            return UNSEEN if reads_so(changed, found) else SILENT

        yield Case(damage, read, FILE_ERRORS, str(file), short(changed))


def reads_so(content: bytes, task: Task) -> bool:
    """Whether another reader of CSV files finds this task in the content."""
    try:
        text = content.decode("utf-8-sig")
        lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
        rows = [list(map(str.strip, row)) for row in lines]
    except (UnicodeDecodeError, csv.Error):
        return False
    head, *rows = [row for row in rows if row]
    if not rows or any(len(row) != len(head) for row in rows):
        return False
    columns = dict(zip(head, zip(*rows, strict=True), strict=True))
    if len(columns) < len(head) or not all(head):
        return False
    if any(cell.casefold() in MISSING for column in columns.values() for cell in column):
        return False
    labels = columns.pop("kind")
    blocks: list[list[list[float]]] = [[], []]
    for column in columns.values():
        numeric = [NUMBER.fullmatch(cell) is not None for cell in column]
        if any(numeric):
            if not all(numeric) or not all(abs(float(cell)) < 3.5e38 for cell in column):
                return False
            blocks[0].append([float(cell) for cell in column])
        else:
            blocks[1] += [[float(cell == one) for cell in column] for one in sorted(set(column))]
    classes = sorted(set(labels))
    if all(NUMBER.fullmatch(each) for each in classes):
        classes.sort(key=float)
    y = [classes.index(label) for label in labels]
    expected = y if len(classes) > 2 else [2 * each - 1 for each in y]
    x = np.array(blocks[0] + blocks[1], dtype=np.float32).T
    return len(classes) > 1 and np.array_equal(x, task.x) and expected == task.y.tolist()


FORMATS = ("png", "bmp", "ppm", "jpg")


def image_folders(rng: Random, folder: Path) -> Iterator[Case]:
    """Folders of small images of several formats, one of which is damaged."""
    root = folder / "images"
    while True:
        ending = rng.choice(FORMATS)
        shutil.rmtree(root, ignore_errors=True)
        for name in ("day", "night"):
            (root / name).mkdir(parents=True)
            for place in range(2):
                pixels = np.frombuffer(rng.randbytes(8 * 8 * 3), np.uint8).reshape(8, 8, 3)
                Image.fromarray(pixels).save(root / name / f"{place}.{ending}")
        file = root / rng.choice(("day", "night")) / f"{rng.randrange(2)}.{ending}"
        damage, changed = bytes_damaged(rng, file.read_bytes(), rng.choice((None, 60)))
        size = rng.choice((None, (4, 6)))

        def read(file: Path = file, changed: bytes = changed, size: Any = size) -> str:
            sound = from_images(root, size)
            file.write_bytes(changed)
            found = from_images(root, size)
            if found.sha256 == sound.sha256:
                return HARMLESS
            same = found.x.shape[0] == sound.x.shape[0] and found.x.shape[2:] == sound.x.shape[2:]
            apart = np.flatnonzero((found.x != sound.x).reshape(len(sound.x), -1).any(1))
            # Of the damaged image alone, and within its range.
            return UNSEEN if same and len(apart) == 1 and found.x.min() >= 0 else SILENT

        yield Case(f"{ending}: {damage}", read, FILE_ERRORS, "", short(changed))
