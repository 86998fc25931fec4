"""The documentation's code runs as it stands, its links lead somewhere, and it fetches nothing."""

import doctest
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_python_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}  # a page's blocks go on where the one before ended
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        exec(compile(block, str(path), "exec"), names)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_dialogues_are_true(path):
    blocks = re.findall(r"```pycon\n(.*?)```", path.read_text(), re.DOTALL)
    names = {"oj": oj, "jax": jax, "jnp": jnp, "np": np}
    parsed = doctest.DocTestParser().get_doctest("\n".join(blocks), names, path.stem, None, 0)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(parsed, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_take_five_minutes_at_most(path):
    assert len(path.read_text().split()) < 1100


def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocstrings", reason="the extra [docs] is not installed")
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, check=True, cwd=DOCS.parent, capture_output=True)
    pages = list(tmp_path.rglob("*.html"))
    assert tmp_path / "results" / "regime.html" in pages
    for page in pages:
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', text)
        assert not fetched, f"{page.name}: {fetched}"
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert "$" not in text and "arithmatex" not in text, f"{page.name}: formulas as typed"
