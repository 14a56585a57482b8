"""The page of a study's folder: all that is there and nothing that runs, loads or changes."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pbnn.certificates import PREDICTORS, SHARES, Budget, Provenance
from pbnn.certificates.statement import event_of, stated
from pbnn.reporting import page, write_records_csv, write_timings_csv
from pbnn.reporting.contents import MOST_RECORDS, MOST_ROWS
from pbnn.reporting.markup import blocks, described, inline
from pbnn.reporting.meaning import EVENTS, events_of, meaning, near, up
from pbnn.reporting.page import head_of, main, render, write_page
from pbnn.reporting.vectors import inlined

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.run(
    ["git", "ls-files", "reports/*/study.json"], cwd=ROOT, capture_output=True, text=True
).stdout.split()
REPORTS = [(ROOT / path).parent for path in TRACKED]
EVIL = '<script>alert("1")</script><img src=x onerror=alert(1)>&amp;'
VOID = {"meta", "link", "input", "img", "br"}
SVG = """<?xml version="1.0"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 10 10"
 xmlns="http://www.w3.org/2000/svg" onload="alert(1)">
<metadata><a href="https://example.org">m</a></metadata><script>alert(1)</script>
<style>@import url(https://example.org/a.css);</style>
<defs><clipPath id="p1"><rect x="0" y="0.123456" width="1" height="1"/></clipPath>
<path id="m1" d="M 0 1.23456789
L 1 1" style="fill: url(https://example.org/f.svg#a); stroke: #ff0000"/></defs>
<g id="unused" clip-path="url(#p1)" onclick="alert(1)"><use xlink:href="#m1" x="3"/>
<image xlink:href="https://example.org/a.png"/><image xlink:href="data:image/png;base64,AAAA"/>
<a xlink:href="javascript:alert(1)"><text>gone</text></a><text>1 &lt; 2</text></g>
<foreignObject><div>gone</div></foreignObject></svg>
"""


class Elements(HTMLParser):
    """Every element that is opened, and whether each is closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def elements(text, *tags):
    return [attrs for tag, attrs in Elements(text).found if tag in tags]


def certificate(**given):
    budget = Budget(0.05, seeds=2, choices=10)
    plain = {"risk": 0.1, "kl": 30.0, "n": 5000, "budget": budget}
    plain |= {"events": budget.events(exact=True), "provenance": Provenance(EVIL, 0, {})}
    return stated("maurer", **(plain | given))


def record(place, **config):
    key = f"{place:016x}"
    config = {"dataset": "digits", "method": f"m{place % 3}", "seed": place, "same": 1} | config
    measures = {"error": place / 7, "bound_gibbs": 0.123456789 + place}
    return {"key": key, "config": config, "measures": measures, "seconds": {"training": 2.5}}


@pytest.fixture
def folder(tmp_path):
    """A small folder of everything, all hostile."""
    path = tmp_path / "report"
    path.mkdir()
    about = {
        "schema_version": 1,
        "command": "python studies/a.py --seeds 2",
        "sources": {"d": EVIL},
    }
    about |= {
        "versions": {"python": "3", "commit": "abc123"},
        "hardware": {"cpu": "X", "gpu": None},
    }
    (path / "study.json").write_text(json.dumps(about | {"other": EVIL}))
    text = f"# Title {EVIL}\n\nIntro.\n\n| a | b {EVIL} |\n|--:|:--|\n| 1 | {EVIL} |\n\n## More\n\n"
    text += f"![What {EVIL} shows](one.svg)\n\n| c |\n|---|\n| 2 |\n"
    (path / "table.md").write_text(text)
    for name in ("one", "two"):
        (path / f"{name}.svg").write_text(SVG)
    records = [record(0), record(1, method=EVIL), record(2, recipe={"x": EVIL})]
    write_records_csv(records, path / "records.csv")
    write_timings_csv(records, path / "timings.csv")
    (path / "table.csv").write_text(
        f'bound,name\n0.123456789,"{EVIL.replace(chr(34), chr(34) * 2)}"\n'
    )
    run = {"gibbs": certificate().to_dict(), "other": {"predictor": EVIL}}
    (path / "certificates.json").write_text(
        json.dumps({"schema_version": 1, records[0]["key"]: run})
    )
    return path


def test_all_that_the_folder_holds_is_on_its_page_in_order(folder):
    text = render(folder, "What is it?\n\nWords of ``code``.", {"two": "What `two` shows."})
    parts = [
        "<h1>What is it?</h1>", "Words of <code>code</code>.", "python studies/a.py --seeds 2",
        "Intro.", '<h2 id="figures">', "Figure 1. What <code>two</code> shows.", "Figure 2. What ",
        ">More<", "table.csv, 1 row<", ">0.123457<", "records.csv, 3 records",
        "errs with probability at most 0.1428", "Unreadable",
        "git checkout abc123", ".venv/bin/python studies/a.py --seeds 2",
        "<dt>Seeds of the records</dt><dd>0, 1, 2</dd>", "<dt>GPU</dt><dd>none</dd>",
    ]  # fmt: skip
    places = [text.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)


def test_nothing_of_a_hostile_folder_runs_or_loads(folder):
    text = render(folder, EVIL, {"two": EVIL})
    assert text.count("&lt;script&gt;") > 8
    scripts = elements(text, "script")
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert [attrs["href"] for attrs in elements(text, "image")] == [
        "data:image/png;base64,AAAA"
    ] * 2
    assert not elements(text, "img", "iframe", "object", "embed", "foreignobject", "base", "form")
    for tag, attrs in Elements(text).found:
        assert not [name for name in attrs if name.startswith("on")]
        for value in attrs.values():
            assert "javascript:" not in (value or "")
            assert tag == "meta" or "example.org" not in (value or "")


def test_data_of_records_end_no_script_and_come_back_whole(folder):
    text = render(folder)
    (data,) = re.findall(r'id="data">(.*?)</script>', text, re.S)
    assert not set("<>&") & set(data)
    columns = {column["name"]: column for column in json.loads(data)}
    method = columns["config.method"]
    values = method["values"]
    assert [values[code] for code in method.get("codes", range(3))] == ["m0", EVIL, "m2"]
    same = columns["config.same"]
    assert [same["values"][code] for code in same["codes"]] == [1, 1, 1]
    assert columns["seconds.training"]["codes"] == [0, 0, 0]


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.name)
def test_a_committed_page_is_that_of_its_folder_and_needs_nothing_else(path):
    about = json.loads((path / "study.json").read_text(encoding="utf-8"))
    head = head_of(ROOT / about["command"].split()[1])
    text = render(path, *head)
    committed = path / "index.html"
    found = committed.read_text(encoding="utf-8") if committed.exists() else "none"
    assert found == text, "make pages"
    assert len(text) < 5e6
    found = Elements(text).found
    ids = [attrs["id"] for _, attrs in found if "id" in attrs]
    assert len(set(ids)) == len(ids)
    named = {attrs["href"][1:] for _, attrs in found if attrs.get("href", "").startswith("#")}
    assert named <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    for tag, attrs in found:
        assert "src" not in attrs
        link = attrs.get("href", "#")
        if tag == "a" and not link.startswith(("#", "https://", "http://")):
            assert (path / link).exists()
        elif tag != "a":
            assert link.startswith(("#", "data:"))
    levels = [int(tag[1]) for tag, _ in found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    drawn = {figure.stem for figure in path.glob("*.svg")}
    assert drawn <= set(head[1]), "CAPTIONS of the study"
    assert text.count("<figcaption>") == len(drawn)


def test_the_same_folder_elsewhere_has_the_same_page(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy" / folder.name)
    first = write_page(folder, "A.").read_bytes()
    assert write_page(copy, "A.").read_bytes() == first
    assert write_page(folder, "A.").read_bytes() == first


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("table.md", "further"),
        ("records.csv", "records"),
        ("certificates.json", "certificates"),
        ("timings.csv", None),
        ("study.json", None),
        ("table.csv", None),
    ],
)
def test_what_is_missing_is_left_out(folder, name, section):
    whole = {attrs["id"] for attrs in elements(render(folder), "h2")}
    (folder / name).unlink()
    left = {attrs["id"] for attrs in elements(render(folder), "h2")}
    assert whole - left <= {section, "asked"}
    assert section is None or section not in left
    for path in folder.iterdir():
        path.unlink()
    assert [attrs["id"] for attrs in elements(render(folder), "h2")] == ["again"]


def test_a_damaged_file_is_named(folder):
    (folder / "one.svg").write_text("<svg")
    with pytest.raises(ValueError, match=r"one\.svg is not a readable SVG"):
        render(folder)
    (folder / "one.svg").write_text("<html/>")
    with pytest.raises(ValueError, match=r"one\.svg is not an SVG"):
        render(folder)
    (folder / "study.json").write_text("{")
    with pytest.raises(ValueError, match=r"study\.json"):
        render(folder)


def test_many_rows_and_records_are_cut_and_said_to_be(folder):
    (folder / "table.csv").write_text("a,b\n" + "1,2\n" * (MOST_ROWS + 1))
    write_records_csv(map(record, range(MOST_RECORDS + 1)), folder / "records.csv")
    text = render(folder)
    assert f"the first {MOST_ROWS} of {MOST_ROWS + 1} rows; table.csv has all" in text
    assert f"the first {MOST_RECORDS:,} of {MOST_RECORDS + 1:,} records" in text
    assert len([1 for attrs in elements(text, "tr") if "data-key" in attrs]) == MOST_RECORDS
    write_records_csv(
        (record(place, long=f"{place}" * 2000) for place in range(400)), folder / "records.csv"
    )
    assert "the first 200 of 400 records" in render(folder)


def test_figures_have_ids_of_their_own_and_a_title(tmp_path):
    (tmp_path / "a.svg").write_text(SVG)
    one, other = (str(inlined(tmp_path / "a.svg", name, EVIL)) for name in ("f1", "f2"))
    assert one.replace("f1-", "f2-") == other
    ids = {
        attrs["id"] for attrs in elements(one, "title", "clippath", "path", "g") if "id" in attrs
    }
    assert ids == {"f1-title", "f1-0", "f1-1"}
    (svg,) = elements(one, "svg")
    assert svg == {"role": "img", "aria-labelledby": "f1-title", "viewbox": "0 0 10 10"}
    assert "M 0 1.235 L 1 1" in one
    assert "1 &lt; 2" in one
    assert "stroke: #ff0000" in one
    assert "gone" not in one
    assert "example.org" not in one


def test_a_page_of_markdown_becomes_blocks():
    text = "# T\n\nOne `a|b` *two*\n**three** 2 * 3 * 4 a_b\n\n- x\n- y\n  z\n\n"
    text += "```sh\n<a>\n\nb\n```\n\n"
    text += (
        "    code\n\n![What](a.svg)\nAfter.\n\n| a |  |\n|:--|--:|\n| x \\| y | 1 |\n| short |\n"
    )
    found = blocks(text)
    kinds = ["heading", "paragraph", "list", "code", "code", "image", "paragraph", "table"]
    assert [block.kind for block in found] == kinds
    one = "One <code>a|b</code> <em>two</em> <strong>three</strong> 2 * 3 * 4 a_b"
    assert found[1].text == one
    assert found[2].rows == (("x",), ("y z",))
    assert found[3].text == "&lt;a&gt;\n\nb"
    assert found[7].rows == (("a", ""), ("x | y", "1"), ("short", ""))


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("[a](b.csv)", '<a href="b.csv">a</a>'),
        ("[a](javascript:b)", "a"),
        ("[a](data:text/html,b)", "a"),
        (
            "see https://example.org/a, and",
            'see <a href="https://example.org/a">https://example.org/a</a>, and',
        ),
        ("`<b>` & <b>", "<code>&lt;b&gt;</code> &amp; &lt;b&gt;"),
        ('[a]("onclick=b)', '<a href="&#34;onclick=b">a</a>'),
        ("``a`` and `b`", "<code>a</code> and <code>b</code>"),
        ("*shortcut* of x*y*z", "<em>shortcut</em> of x*y*z"),
    ],
)
def test_a_line_of_markdown(text, html):
    assert inline(text) == html


def test_the_head_of_a_study_is_a_title_and_what_it_asks():
    title, asked = described("What? All of\n    it.\n\n    More.\n\n        code  # a\n    ")
    assert title == "What? All of it"
    assert [(block.kind, block.text) for block in asked] == [
        ("paragraph", "More."),
        ("code", "code  # a"),
    ]


@pytest.mark.parametrize("value", [0.0389, 1.0, 1e-9 / 3, 0.03890000001, 123456.7, 0.99999])
def test_bounds_are_rounded_up_and_by_less_than_a_digit(value):
    assert 0 <= float(up(value)) - value <= 1.001e-3 * value
    assert abs(float(near(value)) - value) <= 0.501e-3 * value
    assert up(0.0389) == "0.0389"


def statement(theorem, predictor):
    """A certificate of a kind, with the draws that it may have."""
    families = {"fixed": "fixed", "coded": "coded"}
    family = families.get(predictor.split()[0], "classes")
    family = "signs" if theorem == "tandem" else family
    drawn = theorem in ("maurer", "chernoff", "tandem", "derandomised")
    budget = Budget(0.05, seeds=3, choices=7, family=family)
    given = {"risk": 0.1, "kl": 0.0, "n": 500, "draws": 500 * drawn, "budget": budget}
    given |= {"events": budget.events(exact=not drawn), "provenance": Provenance("p", 0, {})}
    return given


PAIRS = [(theorem, one) for theorem, names in PREDICTORS.items() for one in names]
PAIRS.remove(("recursive", "randomised network"))


@pytest.mark.parametrize(("theorem", "predictor"), PAIRS)
def test_every_kind_of_certificate_has_words(theorem, predictor):
    made = stated(theorem, PREDICTORS[theorem].index(predictor), **statement(theorem, predictor))
    words = dict(meaning(made))
    assert list(words) == ["Promise", "How surely", "What was charged", "Evidence", "Origin"]
    assert up(made.bound) in words["Promise"]
    assert "500 certification examples" in words["How surely"]
    assert ("draw of the network" in words["How surely"]) == predictor.startswith("drawn")
    assert ("500 draws that estimate" in words["How surely"]) == bool(made.draws)
    delta = sum(made.events[event] for event in events_of(made))
    assert up(delta, 3) in words["How surely"]
    assert "3 seeds and by 7 priors" in words["What was charged"]
    assert up(made.budget.each(), 3) in words["What was charged"]
    if theorem in ("rivasplata", "clopper_pearson", "occam"):
        assert events_of(made) == [event_of(predictor, made.events)]


def test_all_shares_are_spoken_of_by_name():
    committed = json.loads((ROOT / "reports/certified_mnist/certificates.json").read_text())
    del committed["schema_version"]
    assert {name for family in SHARES.values() for kind in family.values() for name in kind} == set(
        EVENTS
    )
    text = render(ROOT / "reports" / "certified_mnist")
    assert all(EVENTS[name] in text for share in SHARES["recursive"].values() for name in share)
    assert text.count("steps, each the prior of the next") == sum(
        one["theorem"] == "recursive" for run in committed.values() for one in run.values()
    )


def test_a_small_probability_is_explained_by_the_whole():
    words = dict(meaning(certificate()))
    told = "that its budget counts: those hold at once with probability at least 1 − 0.05;"
    assert words["How surely"].startswith("Alone, this fails with probability at most 0.00238,")
    assert told in words["How surely"]
    budget = Budget(0.05, choices=1, family="deployed")
    given = {"budget": budget, "events": budget.events(exact=True)}
    alone = stated("clopper_pearson", **(statement("clopper_pearson", "fixed network") | given))
    told = dict(meaning(alone))
    assert told["How surely"].startswith("This fails with probability at most 0.05,")
    assert "Alone" not in told["How surely"]


def test_runs_are_told_apart_by_widths_and_named_fields(folder):
    records = [
        record(place, method="pbg", network="tree", hidden=hidden, prior_share=0.5, prior="pbg")
        for place, hidden in enumerate(([500], [10, 10], [], None))
    ]
    write_records_csv(records, folder / "records.csv")
    run = {"gibbs": certificate().to_dict()}
    kept = {entry["key"]: run for entry in records}
    (folder / "certificates.json").write_text(json.dumps({"schema_version": 1} | kept))
    text = render(folder)
    for place, who in enumerate(("hidden 500, ", "hidden 10-10, ", "hidden unit, ", "")):
        title = f"<summary>pbg, network tree, {who}prior share 0.5, seed {place}: "
        assert title in text
    (head,) = re.findall(r'<th scope="col"[^>]*>hidden</th>', text)
    assert head
    for cell in ("500", "10-10", "unit"):
        assert re.search(rf"<td[^>]*>{cell}</td>", text)


def test_a_bound_of_one_promises_nothing():
    words = dict(meaning(certificate(risk=0.9, kl=1e6)))
    assert words["Promise"] == "None: the bound is 1, as for any predictor."


def test_the_command_writes_the_pages_of_studies(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "a.py").write_text(
        '"""The head."""\nCAPTIONS = {"two": "Second."}\nNO = 1/0'
    )
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    main(["report", "empty", "report/study.json"])
    text = (folder / "index.html").read_text()
    assert "<h1>The head</h1>" in text
    assert "Second." in text
    assert capsys.readouterr().out.count("MB") == 1
    assert not (tmp_path / "empty" / "index.html").exists()


def test_a_study_writes_its_page(folder, monkeypatch, capsys):
    import dataclasses

    from pbnn.study import run_study

    config = dataclasses.make_dataclass("Config", [("redraw", bool, False)])
    monkeypatch.setattr(sys, "argv", ["a.py"])
    run_study(lambda config: folder, config, "The question.", {"two": "Second."})
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert text == page.render(folder, "The question.", {"two": "Second."})
    assert str(folder) in capsys.readouterr().out
