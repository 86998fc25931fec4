import functools
import html.parser
import json
import pathlib
import re
import urllib.parse
import xml.etree.ElementTree

import pytest

from orthoreg_jax.config import flatten_config, load_config
from orthoreg_jax.reporting.html_elements import Drawing
from orthoreg_jax.reporting.page import FIGURES, config_file, make_page
from orthoreg_jax.reporting.plots import figures
from orthoreg_jax.reporting.style import to_svg

from .conftest import HOSTILE, make_results

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Checker(html.parser.HTMLParser):
    """Fails on tags that do not close in order; collects tags, ids and references."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.references, self.text = [], [], [], [], []
        self.files = {}

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self._collect(tag, attributes)

    def handle_startendtag(self, tag, attributes):
        self._collect(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def _collect(self, tag, attributes):
        self.tags.append(tag)
        attributes = dict(attributes)
        if "download" in attributes:
            self.files[attributes["download"]] = attributes["href"]
        for name, value in attributes.items():
            if name == "id":
                self.ids.append(value)
            if name.split(":")[-1] in ("src", "href", "action", "data", "srcset"):
                self.references.append(value)


@functools.cache
def drawings():
    """Figures take most of the time; they are drawn once, with the worst title."""
    results = make_results(title=HOSTILE)
    return {
        name: Drawing(to_svg(panels.figure), panels.csv())
        for name, panels in ((name, draw()) for name, draw in figures(results, {}).items())
    }


def page_of(results):
    page = make_page(results, drawings(), pathlib.Path("runs/a<b"))
    checker = Checker()
    checker.feed(page)
    checker.close()
    return page, checker


def test_page_is_well_formed_and_complete(two_seeds):
    page, checker = page_of(two_seeds)
    assert checker.open == []
    assert page.count("<img") == len(drawings()) == 8
    assert len(checker.ids) == len(set(checker.ids))
    text = "".join(checker.text)
    for part in ("Task A", "75.00", "2 seeds", "160 test images", "not comparable", "λ = 10"):
        assert part in text.replace("\xa0", " ")


def test_no_marks_of_markdown_are_in_the_page(results, two_seeds):
    """Notes are written for the page and for table.md alike."""
    for each in (results, two_seeds):
        page, _ = page_of(each)
        assert "`" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_page_needs_no_network(results):
    page, checker = page_of(results)
    inside = ("#", "data:image/png;base64,", "data:image/svg+xml;", "data:text/csv;")
    assert all(reference.startswith(inside) for reference in checker.references)
    assert not re.search(r"url\((?!#|%23)|@import", page)
    assert "link" not in checker.tags and checker.tags.count("script") == 1
    assert "default-src 'none'" in page


def test_contents_list_every_section(results):
    page, checker = page_of(results)
    anchors = [reference[1:] for reference in checker.references if reference[:1] == "#"]
    sections = re.findall(r'<(?:section|details) id="(\w+)"', page)
    assert {*drawings(), "summary", "claims", "provenance"} <= set(sections)
    assert set(sections) <= set(anchors) <= set(checker.ids)


def test_the_same_results_give_the_same_page(results):
    assert page_of(results)[0] == page_of(results)[0]


def test_every_figure_is_in_the_page_with_its_numbers(results):
    page, checker = page_of(results)
    assert "img-src data:" in page  # else the page's own policy hides them
    pictures = [
        urllib.parse.unquote(reference.split(",", 1)[1])
        for reference in checker.references
        if reference.startswith("data:image/svg+xml")
    ]
    assert pictures == [drawing.svg for drawing in map(drawings().get, FIGURES) if drawing]
    for name, drawing in drawings().items():
        head, content = checker.files[f"{name}.csv"].split(",", 1)
        assert urllib.parse.unquote(content) == drawing.csv and "csv" in head
        assert xml.etree.ElementTree.fromstring(drawing.svg).tag.endswith("svg")


def test_page_escapes_what_users_name():
    page, checker = page_of(make_results(title=HOSTILE))
    assert checker.open == []
    assert checker.tags.count("script") == 1  # ours
    assert "&lt;script&gt;" in page
    assert "runs/a<b" not in page and "a&lt;b" in page


def test_only_the_embedded_model_gets_the_warning(results):
    results["config"]["model"] = "ViT-B/32"
    assert "not comparable" not in page_of(results)[0]


@pytest.mark.parametrize(("form", "power"), [("released", False), ("paper", True)])
def test_formula_is_that_of_the_config(results, form, power):
    results["config"]["penalty.form"] = form
    assert ("<sup>2</sup>" in page_of(results)[0]) == power


def test_config_file_gives_the_same_config_again(results, tmp_path):
    path = tmp_path / "again.py"
    path.write_text(config_file(results["config"]))
    again = json.loads(json.dumps(flatten_config(load_config(path))))
    assert again == results["config"]
