"""The pages of reports in a browser: what they load, keys, width, and what axe finds.

Chromium is found in the path; axe in the file that PBNN_AXE names, such as axe.min.js of the npm
package axe-core.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pbnn.reporting.page import write_page

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "reports").glob("*/index.html"))
AXE = os.environ.get("PBNN_AXE", "")
RUN = "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations.map((v) => [v.impact, v.id, v.nodes.map((n) => n.html.slice(0, 200)).slice(0, 3)]))"  # noqa: E501
HOSTILE = '<img src="https://example.org/a.png" onerror="document.title = 1">'


def named(path: Path) -> str:
    return path.parent.name


def serious(browser) -> list[list[object]]:
    browser.value(Path(AXE).read_text(encoding="utf-8"))
    return [found for found in browser.value(RUN) if found[0] in ("serious", "critical")]


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_page_loads_nothing_and_complains_of_nothing(browser, path):
    browser.open(path)
    assert browser.requests == [path.resolve().as_uri()]
    assert not browser.complaints


@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_page_is_as_wide_as_the_window(browser, path, width):
    browser.open(path, width)
    assert browser.value("document.documentElement.scrollWidth") <= width
    browser.value("document.querySelectorAll('details').forEach((it) => { it.open = true })")
    assert browser.value("document.documentElement.scrollWidth") <= width


@pytest.mark.skipif(not AXE, reason="PBNN_AXE names no axe.min.js")
@pytest.mark.parametrize(("width", "dark"), [(360, False), (1280, True)])
@pytest.mark.parametrize("path", PAGES, ids=named)
def test_axe_finds_nothing_serious(browser, path, width, dark):
    browser.open(path, width, dark)
    assert not serious(browser)


@pytest.fixture
def records(browser, tmp_path):
    """A page of certified records, open; one value is hostile."""
    folder = tmp_path / "report"
    shutil.copytree(ROOT / "reports" / "self_supervised_prior", folder)
    text = (folder / "records.csv").read_text(encoding="utf-8")
    hostile = '"' + HOSTILE.replace('"', '""') + '"'
    text = text.replace(",untrained,", f",{hostile},")
    (folder / "records.csv").write_text(text, encoding="utf-8")
    path = write_page(folder, "A study.")
    browser.open(path)
    return path


def focus(browser, code: str, limit: int = 400) -> None:
    """Press Tab until an element has the focus, or fail."""
    for _ in range(limit):
        browser.press("Tab")
        if browser.value(f"document.activeElement === {code}"):
            return
    pytest.fail(f"no way to {code} by Tab")


def test_the_first_key_leads_past_the_sections(browser, records):
    browser.press("Tab")
    assert browser.value("document.activeElement.className") == "skip"
    assert browser.value("document.activeElement.getBoundingClientRect().left") >= 0
    outline = browser.value("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    browser.press("Enter")
    assert browser.value("location.hash") == "#main"


def test_records_are_sorted_by_keys(browser, records):
    head = "[...document.querySelectorAll('.records thead th')].find((it) => it.textContent === 'n' || it.textContent === 'gibbs_certificate')"  # noqa: E501
    focus(browser, f"{head}.querySelector('button')")
    column = f"[...document.querySelectorAll('.records tbody tr')].map((row) => row.cells[{head}.cellIndex].textContent).filter(Boolean).map(Number)"  # noqa: E501
    for order, signs in (("ascending", 1), ("descending", -1)):
        browser.press("Enter")
        assert browser.value(f"{head}.getAttribute('aria-sort')") == order
        values = browser.value(column)
        assert values == sorted(values, key=lambda value: signs * value)
        assert len(set(values)) > 3


def test_a_record_is_opened_and_closed_by_keys(browser, records):
    certified = "[...document.querySelectorAll('.records tbody tr')].find((row) => document.getElementById(`certificate-${row.dataset.key}`))"  # noqa: E501
    key = browser.value(f"{certified}.dataset.key")
    button = f"document.querySelector(`.records tr[data-key='{key}'] button`)"
    browser.value(f"{button}.focus()")
    detail = f"document.getElementById('detail-{key}')"
    for name in ("Enter", "Space"):
        assert browser.value(f"{button}.getAttribute('aria-expanded')") == "false"
        browser.press(name)
        assert browser.value(f"{button}.getAttribute('aria-expanded')") == "true"
        text = browser.value(f"{detail}.textContent")
        for words in ("Configuration", "Measures", "Seconds", "errs with probability at most"):
            assert words in text
        browser.press(name)
        assert browser.value(f"{detail} === null")


def test_records_are_filtered_by_words(browser, records):
    browser.value("document.querySelector('.filter input').focus()")
    browser.ask("Input.insertText", text="teacher learned")
    left = browser.value("[...document.querySelectorAll('.records tbody tr:not([hidden])')].length")
    assert browser.value("document.querySelector('.filter output').textContent").startswith(
        f"{left} of "
    )
    assert 0 < left < 10


def test_a_hostile_value_is_text(browser, records):
    browser.value("document.querySelectorAll('.records tbody button').forEach((it) => it.click())")
    assert HOSTILE in browser.value("document.querySelector('.records').textContent")
    assert browser.value("document.images.length") == 0
    assert browser.value("document.title") == "A study"
    assert browser.requests == [records.resolve().as_uri()]
    assert not browser.complaints


@pytest.mark.skipif(not AXE, reason="PBNN_AXE names no axe.min.js")
def test_axe_finds_nothing_serious_in_open_records(browser, records):
    browser.value("document.querySelectorAll('details').forEach((it) => { it.open = true })")
    browser.value("document.querySelector('.records tbody button').click()")
    assert not serious(browser), json.dumps(serious(browser), indent=1)
