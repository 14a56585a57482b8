"""One page for a study's folder: a file without any other, made of what the folder holds.

``python -m pbnn.reporting.page reports/*`` writes it for folders that are there, with the heads of
their studies' files; `pbnn.study.run_study` writes the same after a study.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup, escape

from pbnn.files import read_json, write_atomic
from pbnn.reporting.contents import (
    PAGE,
    Table,
    escaped,
    of_csv,
    of_markdown,
    origin,
    read_records,
    table_of_records,
)
from pbnn.reporting.markup import Block, blocks, described, inline
from pbnn.reporting.meaning import SCHEMA_VERSION, statements
from pbnn.reporting.vectors import inlined

HERE = Path(__file__).parent
APART = {"records.csv", "curves.csv", "timings.csv"}
"""Tables that have a place of their own, or are drawn."""
HEADINGS = {
    "asked": "What was asked",
    "result": "Result",
    "figures": "Figures",
    "further": "Further tables",
    "records": "Records",
    "certificates": "Certificates",
    "again": "How to reproduce",
}


class Shown(NamedTuple):
    """A figure of the page."""

    name: str
    svg: Markup
    caption: Markup


def write_page(
    folder: str | os.PathLike[str],
    description: str | None = None,
    captions: Mapping[str, str] | None = None,
) -> Path:
    """Write a folder's page, index.html, and return its path. See `render`."""
    path = Path(folder) / PAGE
    write_atomic(path, render(folder, description, captions))
    return path


def render(
    folder: str | os.PathLike[str],
    description: str | None = None,
    captions: Mapping[str, str] | None = None,
) -> str:
    """The page of a study's folder, which loads nothing and is the same for the same files.

    What is missing in the folder is left out.

    Parameters
    ----------
    folder : path
        Holds some of study.json, Markdown pages, SVG figures, records.csv, timings.csv,
        certificates.json and other CSV files.
    description : str, optional
        What the study asks, such as the docstring of its file: a title, and paragraphs.
    captions : mapping, optional
        What figures show, by the names of their files without suffix; else their text in the
        Markdown pages is taken.

    Raises
    ------
    ValueError
        Naming the file, if one is damaged.
    """
    place = Path(folder)
    about = _about(place)
    pages = _pages(place, description or "")
    title, asked = described(description or _title(pages) or place.name)
    main, further = _parted(pages, str(title.striptags()))
    records = read_records(place)
    tables = _tables(place, bool(records))
    if not any(isinstance(it, Table) for it in main) and tables:
        main.append(tables.pop(0))
    certificates, certificates_note = statements(place, records)
    parts: dict[str, Any] = {
        "asked": asked,
        "main": main,
        "figures": _figures(place, pages, captions or {}, str(title.striptags())),
        "further": further,
        "files_read": tables,
        "certificates": certificates,
    } | _records(place, records)
    context = parts | origin(place, about, records)
    context |= {"title": title, "certificates_note": certificates_note}
    return _template().render(context, sections=_sections(context), **_inside())


def _about(folder: Path) -> dict[str, Any]:
    path = folder / "study.json"
    return read_json(path, "study", SCHEMA_VERSION) if path.exists() else {}


def _pages(folder: Path, description: str) -> list[list[Block]]:
    """Markdown pages, in the order in which the description names them."""

    def place(path: Path) -> tuple[bool, int, str]:
        where = description.find(path.stem)
        return path.stem != "table" and where < 0, where, path.name

    paths = sorted(folder.glob("*.md"), key=place)
    return [blocks(path.read_text(encoding="utf-8")) for path in paths]


def _title(pages: Iterable[Sequence[Block]]) -> str:
    """The first heading, as text."""
    found = (it.text for page in pages for it in page if (it.kind, it.level) == ("heading", 1))
    return str(Markup(next(found, "")).striptags())


def _parted(
    pages: Sequence[Sequence[Block]], title: str
) -> tuple[list[Block | Table], list[Block | Table]]:
    """All up to the first table, and what comes after it."""
    whole = of_markdown((block for page in pages for block in page), title)
    end = next((place for place, it in enumerate(whole) if isinstance(it, Table)), len(whole) - 1)
    return whole[: end + 1], whole[end + 1 :]


def _tables(folder: Path, records: bool) -> list[Table]:
    """The CSV files, the study's table first; a file that is another's copy stands once."""
    paths = sorted(folder.glob("*.csv"), key=lambda path: (path.name != "table.csv", path.name))
    seen: set[bytes] = set()
    found = []
    for path in paths:
        content = path.read_bytes()
        if content not in seen and not (path.name in APART and (records or path.stem != "records")):
            found.append(of_csv(path))
        seen.add(content)
    return [table for table in found if table.rows]


def _figures(
    folder: Path, pages: Sequence[Sequence[Block]], captions: Mapping[str, str], title: str
) -> list[Shown]:
    """Figures in the order of the captions, then of the pages, with what they show."""
    texts = {
        Path(block.link).stem: block.text
        for page in pages
        for block in page
        if block.kind == "image"
    }
    order = [*captions, *texts]
    # Where the bundled digits stood in for the data, names end in it.
    plain = {path: path.stem.removesuffix("_digits") for path in folder.glob("*.svg")}
    found: list[Shown] = []
    for path in sorted(plain, key=lambda path: (_place(order, plain[path]), path.name)):
        name = plain[path]
        words = name.replace("_", " ").capitalize()
        text = captions.get(name)
        caption = inline(text) if text else texts.get(path.stem) or escape(f"{words}, of: {title}")
        place = f"figure-{len(found) + 1}"
        found.append(Shown(place, inlined(path, place, str(caption.striptags())), caption))
    return found


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _records(folder: Path, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not records:
        return {"records": None, "data": "", "constants": []}
    path = folder / "table.csv"
    main = path.read_text(encoding="utf-8").partition("\n")[0].split(",") if path.exists() else []
    table, data, constants = table_of_records(records, main)
    return {"records": table, "data": data, "constants": escaped(constants)}


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    there = {
        "asked": context["asked"] or context["command"],
        "result": context["main"],
        "figures": context["figures"],
        "further": context["further"] or context["files_read"],
        "records": context["records"],
        "certificates": context["certificates"],
        "again": True,
    }
    return [(name, HEADINGS[name]) for name, content in there.items() if content]


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(HERE)
    made = jinja2.Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return made.get_template("page.html.jinja")


def _inside() -> dict[str, Any]:
    """Style and script, and the hash by which the page allows the one script."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(style), "script": Markup(script), "script_hash": digest}


def head_of(script: Path) -> tuple[str | None, dict[str, str]]:
    """The docstring of a study's file and its captions, `CAPTIONS`, without running it.

    Examples
    --------
    >>> head_of(Path("no such file"))
    (None, {})
    """
    if not script.is_file():
        return None, {}
    tree = ast.parse(script.read_text(encoding="utf-8"))
    captions: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CAPTIONS":
            captions = ast.literal_eval(node.value)
    return ast.get_docstring(tree), captions


def main(folders: Sequence[str]) -> None:
    """Write the page of each folder that holds a study; the heads are looked for from here."""
    for folder in map(Path, folders):
        if not (folder / "study.json").exists():
            continue
        words = shlex.split(_about(folder).get("command", ""))
        script = next((word for word in words if re.search(r"\.py$", word)), "")
        path = write_page(folder, *head_of(Path(script)))
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
