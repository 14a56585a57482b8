"""What the pages say of the repository: tests, files and theorems that they name are there."""

from __future__ import annotations

import ast
import re
import unicodedata
from pathlib import Path

import pytest

from pbnn.bounds import CATALOGUE

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/api/*.md")])
NAMED = sorted(
    {
        name
        for page in [*PAGES, *ROOT.glob("docs/examples/*.py")]
        for name in re.findall(r"tests/[\w/]+\.py(?:::\w+)?", page.read_text(encoding="utf-8"))
    }
)


def _text(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def _anchors(page: Path) -> set[str]:
    """What links may point to: headings as GitHub and MyST spell them."""
    heads = re.findall(r"^#+ (.+)$", _text(page), flags=re.M)
    plain = (re.sub(r"[^\w\- ]", "", head.lower()) for head in heads)
    return {head.strip().replace(" ", "-") for head in plain}


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_is_named_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert (ROOT / path).is_file()
    if function:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def test_the_page_of_mistakes_names_a_test_or_says_that_there_is_none() -> None:
    parts = re.split(r"^\*\*", _text(ROOT / "docs" / "mistakes.md"), flags=re.M)[1:]
    assert len(parts) > 50
    for part in parts:
        assert "*How large:*" in part, part
        assert "Caught by `tests/" in part or "No test here" in part, part


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _text(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in _anchors(file), target


def test_the_page_of_theory_has_every_bound_with_its_source() -> None:
    page = _text(ROOT / "docs" / "theory.md")
    plain = unicodedata.normalize("NFKD", page).encode("ascii", "ignore").decode()
    words = set(re.findall(r"[A-Za-z-]+|\d{4}", plain))
    for name, bound in CATALOGUE.items():
        assert f"`{name}`" in page, name
        for author, year in re.findall(r"([A-Z][A-Za-z-]+)[^;]*?(\d{4})", bound.source):
            assert {author, year} <= words, (name, author, year)
