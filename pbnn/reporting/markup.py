"""The Markdown of a report's pages, and the head of a study, as blocks of safe HTML.

Only what they are written in: headings, paragraphs, lists, code, pipe tables, images on lines of
their own, links, emphasis. All else is text.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

from markupsafe import Markup, escape

INLINE = re.compile(
    r"(?P<ticks>`+)(?P<code>.+?)(?P=ticks)"
    r"|\[(?P<text>[^\]]+)\]\((?P<link>[^)\s]+)\)"
    r"|(?P<url>https?://[^\s<>|]*[^\s<>|.,;:)])"
    r"|\*\*(?P<strong>\S(?:.*?\S)?)\*\*"
    r"|(?<![\w*])\*(?P<em>[^\s*](?:[^*]*[^\s*])?)\*(?![\w*])"
    r"|\\(?P<escaped>[\\`*_|\[\]])"
)
IMAGE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<link>[^)\s]+)\)")
HEADING = re.compile(r"(#{1,6})\s+(.*)")
ITEM = re.compile(r"[-*]\s+(.*)")
RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?")
SCHEME = re.compile(r"[A-Za-z][\w+.-]*:")


class Block(NamedTuple):
    """A piece of a page: its kind, its text, and what only this kind has."""

    kind: str
    """"heading", "paragraph", "list", "code", "image" or "table"."""
    text: Markup
    """Of an image what it says; of a heading, a paragraph or code the content."""
    level: int = 0
    """Of a heading: 1 for the title of the page."""
    link: str = ""
    """Of an image: the file."""
    rows: tuple[tuple[Markup, ...], ...] = ()
    """Of a table the cells, the head first; of a list one cell an item."""


def inline(text: str) -> Markup:
    """A line of Markdown as HTML; links lead to the web, or to files beside the page."""
    parts, place = [], 0
    for match in INLINE.finditer(text):
        parts.append(escape(text[place : match.start()]))
        parts.append(_element(match))
        place = match.end()
    return Markup("").join([*parts, escape(text[place:])])


def _element(match: re.Match[str]) -> Markup:
    found = match.groupdict()
    if found["code"] is not None:
        return Markup("<code>{}</code>").format(found["code"].strip())
    if found["strong"] is not None:
        return Markup("<strong>{}</strong>").format(inline(found["strong"]))
    if found["em"] is not None:
        return Markup("<em>{}</em>").format(inline(found["em"]))
    if found["escaped"] is not None:
        return escape(found["escaped"])
    link = found["url"] or found["link"]
    text = link if found["url"] else inline(found["text"])
    if SCHEME.match(link) and not link.startswith(("https://", "http://")):
        return Markup("{}").format(text)
    return Markup('<a href="{}">{}</a>').format(link, text)


def blocks(text: str) -> list[Block]:
    """The blocks of a page of Markdown.

    Examples
    --------
    >>> [block.kind for block in blocks("# Title\\n\\nWords.\\n\\n| a |\\n|--:|\\n| 1 |")]
    ['heading', 'paragraph', 'table']
    """
    return [block for lines in _chunks(text) for block in _of_chunk(lines)]


def described(text: str) -> tuple[Markup, list[Block]]:
    """The title of a study and what it asks, from the head of its file."""
    first, *rest = blocks(inspect.cleandoc(text)) or [Block("paragraph", Markup(""))]
    return Markup(str(first.text).removesuffix(".")), rest


def _chunks(text: str) -> Iterator[list[str]]:
    """Lines that belong together: up to an empty one, or to the end of fenced code."""
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not line.strip() and not fenced:
            if lines:
                yield lines
            lines = []
            continue
        lines.append(line)
    if lines:
        yield lines


def _of_chunk(lines: list[str]) -> Iterator[Block]:
    if lines[0].startswith("```"):
        yield Block("code", escape("\n".join(lines[1:-1] if len(lines) > 1 else [])))
    elif all(line.startswith("    ") for line in lines):
        yield Block("code", escape(inspect.cleandoc("\n".join(lines))))
    elif heading := HEADING.fullmatch(lines[0]):
        yield Block("heading", inline(heading[2]), level=len(heading[1]))
        if lines[1:]:
            yield from _of_chunk(lines[1:])
    elif image := IMAGE.fullmatch(lines[0].strip()):
        yield Block("image", escape(image["text"]), link=image["link"])
        if lines[1:]:
            yield from _of_chunk(lines[1:])
    elif len(lines) > 1 and "|" in lines[0] and RULE.fullmatch(lines[1].strip()):
        rows = tuple(_cells(line) for line in (lines[0], *lines[2:]))
        width = len(rows[0])
        yield Block("table", Markup(""), rows=tuple(_filled(row, width) for row in rows))
    elif ITEM.fullmatch(lines[0]):
        yield Block("list", Markup(""), rows=tuple((inline(item),) for item in _items(lines)))
    else:
        yield Block("paragraph", inline(" ".join(line.strip() for line in lines)))


def _cells(line: str) -> tuple[Markup, ...]:
    inner = re.sub(r"^\s*\||(?<!\\)\|\s*$", "", line)
    cells = re.split(r"(?<!\\)\|", inner)
    return tuple(inline(cell.strip().replace(r"\|", "|")) for cell in cells)


def _filled(row: tuple[Markup, ...], width: int) -> tuple[Markup, ...]:
    return (*row, *(Markup(""),) * (width - len(row)))[:width]


def _items(lines: list[str]) -> list[str]:
    """The items of a list, each on one line."""
    items: list[str] = []
    for line in lines:
        if item := ITEM.fullmatch(line):
            items.append(item[1])
        else:
            items[-1] += f" {line.strip()}"
    return items
