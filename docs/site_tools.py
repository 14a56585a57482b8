"""What pages need of Sphinx besides its extensions: formulas, links, lists of names, mirrors."""

from __future__ import annotations

import html
import importlib
import inspect
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

DOCS = Path(__file__).parent
ROOT = DOCS.parent
MIRROR = DOCS / "project"
"""Pages of the repository that do not lie in docs/, copied with their links turned."""

# The first of two rooms with a name keeps it.
ROOMS = (
    *("bounds", "certificates", "networks", "layers", "posteriors", "functional", "objectives"),
    *("training", "evaluation", "class_risks", "module_risks", "binarize", "balance"),
    *("representation", "sweep", "distributed", "reporting", "data", "estimators", "metrics"),
    *("packed", "ensembles"),
)
WORDS = {"anytime", "entropy", "identity", "mean"}
"""Names that pages use for something else, too: no link."""


def names_of(module: Any) -> list[str]:
    """What a module offers: its list, or what is defined in it without an underscore."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


class Room(SphinxDirective):
    """A table of what a module offers, and below it the docstrings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        module = importlib.import_module(name)
        offered = names_of(module)
        documented = [each for each in offered if callable(getattr(module, each))]
        lines = ["```{eval-rst}", f".. currentmodule:: {name}", ""]
        if len(documented) > 1:
            lines += [".. autosummary::", "   :nosignatures:", ""]
            lines += [f"   {each}" for each in sorted(documented, key=str.casefold)]
        lines += ["", f".. automodule:: {name}", f"   :members: {', '.join(offered)}"]
        lines += ["   :imported-members:", "```"]
        return self.parse_text_to_nodes("\n".join(lines))


# Formulas: MathML, which browsers draw themselves, so that pages need no script and no network.


_SPELT_OTHERWISE = {r"\\dots\b": r"\\ldots", r"\\iff\b": r"\\;\\Leftrightarrow\\;"}


def _mathml(node: Any, *, block: bool) -> str:
    text = node.astext()
    for pattern, spelling in _SPELT_OTHERWISE.items():
        text = re.sub(pattern, spelling, text)
    text = re.sub(r"\\([td]?frac)(\d)(\d)", r"\\\1{\2}{\3}", text)
    try:
        found = tex2mathml(text, as_block=block)
    except MathError as error:
        logger.warning("%s in the formula %s", error, text, location=node)
        return f"<code>{html.escape(text)}</code>"
    # A name of a function has no space of its own around it, and a bar grows with its formula.
    found = re.sub(r"<mi>(ln|erf|sgn)</mi>", r'<mo lspace=".16em" rspace=".16em">\1</mo>', found)
    return re.sub(r"<mo[^>]*>(‖|∥)</mo>", r'<mo stretchy="false">\1</mo>', found)


def _visit_inline(writer: Any, node: Any) -> None:
    writer.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def _visit_block(writer: Any, node: Any) -> None:
    writer.body.append(f'<div class="math">{_mathml(node, block=True)}</div>')
    raise nodes.SkipNode


# Links: a name in code that the API has becomes a link to it.


@cache
def _objects() -> dict[str, str]:
    from pbnn.bounds import CATALOGUE

    found: dict[str, str] = {}
    for room in ROOMS:
        try:
            module = importlib.import_module(f"pbnn.{room}")
        except ModuleNotFoundError:
            continue
        for name in names_of(module):
            if callable(getattr(module, name)):
                found[f"pbnn.{room}.{name}"] = f"pbnn.{room}.{name}"
                found.setdefault(name, f"pbnn.{room}.{name}")
    for name, bound in CATALOGUE.items():
        function = getattr(bound.function, "func", bound.function)
        found.setdefault(name, f"pbnn.bounds.{function.__name__}")
    return found


class TrimExamples(SphinxTransform):
    """Leave out the blank line that ends an example for doctest."""

    default_priority = 200

    def apply(self, **_: Any) -> None:
        for block in self.document.findall(nodes.literal_block):
            if block.rawsource == block.astext():
                block.rawsource = block.astext().rstrip("\n")
                block.children = [nodes.Text(block.rawsource)]


class LinkNames(SphinxTransform):
    """Turn `name` in code into a link, in running text and tables."""

    default_priority = 200

    def apply(self, **_: Any) -> None:
        source = str(self.document.get("source", ""))
        if not source.endswith(".md") or "/api/" in source:
            return
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().removesuffix("()")
            target = None if name in WORDS else _objects().get(name)
            if target is None or isinstance(literal.parent, nodes.reference | pending_xref):
                continue
            link = pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=target,
                refdoc=self.env.docname,
                refexplicit=True,
            )
            literal.replace_self(link)
            link += literal


# Mirrors: README, CONTRIBUTING and the reports are pages, too.


def mirrored() -> dict[Path, Path]:
    """Page of the repository, and where its copy lies."""
    names = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    found = {ROOT / name: MIRROR / name.lower() for name in names}
    for page in sorted((ROOT / "reports").glob("*/*.md")):
        if not page.parent.name.endswith(("_quick", "_digits")):
            found[page] = MIRROR / page.relative_to(ROOT)
    return found


def turned(text: str, source: Path, place: Path) -> str:
    """The text with its relative links as they are from `place`, code left alone."""
    copies = {**mirrored(), DOCS / "examples": DOCS / "auto_examples" / "index.rst"}

    def turn(match: re.Match[str]) -> str:
        path, mark, anchor = match[2].partition("#")
        if not path or re.match(r"[a-z]+:|/", path):
            return match[0]
        target = Path(os.path.normpath(source.parent / path))
        there = os.path.relpath(copies.get(target, target), place.parent)
        return f"{match[1]}{there}{mark}{anchor})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)
    parts[::2] = [re.sub(r"(\]\()([^)\s]+)\)", turn, part) for part in parts[::2]]
    return "".join(parts)


def introduced(text: str, report: Path) -> str:
    """A page of a report with a heading, and with a link to the report as one page below it."""
    if not text.startswith("# "):
        text = f"# {report.name.replace('_', ' ').capitalize()}\n\n{text}"
    if not (report / "index.html").exists():
        return text
    heading, rest = text.split("\n", 1)
    link = "[The whole report as one page](index.html), with each run and what its numbers mean."
    return f"{heading}\n\n{link}\n{rest}"


def mirror(_: Sphinx) -> None:
    """Write the copies, where they differ, so that only what has changed is built again."""
    copies = mirrored()
    for source, place in copies.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        if source.parent.parent.name == "reports":
            text = introduced(text, source.parent)
        text = turned(text, source, place)
        if not place.exists() or place.read_text(encoding="utf-8") != text:
            place.write_text(text, encoding="utf-8")
    for old in set(MIRROR.rglob("*.md")) - set(copies.values()):
        old.unlink()


def turn_links(app: Sphinx, docname: str, content: list[str]) -> None:
    """Links of the pages of docs/ to pages that are mirrored."""
    page = Path(app.env.doc2path(docname))
    if page.suffix == ".md" and MIRROR not in page.parents:
        content[0] = turned(content[0], page, page)


def skip_foreign(_: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool:
    """Methods that scikit-learn writes into its estimators, with references to its own pages."""
    return skip or (name.startswith("set_") and name.endswith("_request"))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("room", Room)
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    app.add_transform(LinkNames)
    app.add_transform(TrimExamples)
    app.connect("builder-inited", mirror)
    app.connect("source-read", turn_links)
    app.connect("autodoc-skip-member", skip_foreign)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
