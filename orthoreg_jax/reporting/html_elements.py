"""HTML elements: escaped text, tables, figures, and the page's style sheet and script."""

from __future__ import annotations

import html
import pathlib
import re
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from .style import PALETTE, method_mode, method_sign
from .tables import Table

HERE = pathlib.Path(__file__).parent
SCRIPT = (HERE / "page.js").read_text(encoding="utf-8")
LIGHT, DARK = (
    ":root { " + " ".join(f"--{name}: {pair[dark]};" for name, pair in PALETTE.items()) + " }\n"
    for dark in (0, 1)
)
STYLE_SHEET = f"{LIGHT}@media screen and (prefers-color-scheme: dark) {{ {DARK}}}\n" + (
    HERE / "page.css"
).read_text(encoding="utf-8")


class Drawing(NamedTuple):
    """A figure, ready for the page."""

    svg: str
    csv: str  # the numbers it shows


def escape(text: object) -> str:
    """Escapes any text for an element or an attribute."""
    return html.escape(str(text), quote=True)


def prose(text: str) -> str:
    """Escapes text for a paragraph or a cell, without line breaks before % or around ±."""
    return escape(text).replace(" %", "&nbsp;%").replace(" ± ", "&nbsp;±&nbsp;")


def join_words(words: list[str]) -> str:
    """Joins words as "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def section(anchor: str, title: str, *body: str) -> str:
    """A section of the page, whose heading links to itself."""
    heading = f'<h2><a href="#{anchor}">{escape(title)}</a></h2>'
    return "\n".join([f'<section id="{anchor}">', heading, *body, "</section>"])


def format_html(table: Table, methods: Mapping[str, str] | None = None, kind: str = "") -> str:
    """A table with its notes; a first cell that is not empty begins a group of rows.

    Args:
      table: the table, with cells as text.
      methods: names by label; cells with such a label get the method's marker.
      kind: an additional CSS class.
    """
    methods, above = methods or {}, table.rows[0]
    sortable = "sortable" if table.title and len(table.rows) > 2 else ""
    head = "".join(
        _heading(cell, column < table.left, sortable) for column, cell in enumerate(table.header)
    )
    rows = []
    for row in table.rows:
        cells = []
        for column, cell in enumerate(row):
            tag = '<td class="word">' if column < table.left else "<td>"
            # A group's label is in every row, but hidden until the user sorts the table.
            again = not (row[0] or cell)
            text = _cell(above[column] if again else cell, methods)
            cells.append(
                f'{tag}<span class="again">{text}</span></td>' if again else f"{tag}{text}</td>"
            )
        above = row if row[0] else above
        rows.append(f"<tr{' class=first' if row[0] else ''}>{''.join(cells)}</tr>")
    scroll = (
        f' tabindex="0" role="region" aria-label="{escape(table.title)}"' if table.title else ""
    )
    notes = "".join(f'<p class="note">{prose(note)}</p>' for note in table.notes)
    body = "\n".join(rows)
    return (
        f'<div class="wide"{scroll}><table class="{sortable} {kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{notes}"
    )


def _heading(text: str, word: bool, sortable: str) -> str:
    kind = ' class="word"' if word else ""
    if not sortable:
        return f'<th scope="col"{kind}>{prose(text)}</th>'
    button = f'<button type="button">{prose(text)}</button>'
    return f'<th scope="col" aria-sort="none"{kind}>{button}</th>'


def _cell(text: str, methods: Mapping[str, str]) -> str:
    """A cell: a method with its marker; a number, with its spread and interval in small print."""
    if text in methods:
        return method_key(methods[text]) + prose(text)
    verdict, _, numbers = text.partition(": ")
    if verdict in ("yes", "no", "no change", "within noise"):
        return f"{prose(verdict)} <small>{prose(numbers)}</small>"
    return re.sub(r"(&nbsp;±&nbsp;[\d.]+|\[[^]]*\])", r"<small>\1</small>", prose(text))


def method_key(method: str) -> str:
    """The marker of a method in its colour, as in the figures."""
    colour = f"color: var(--{method_mode(method)})"
    return f'<span class="key" style="{colour}" aria-hidden="true">{method_sign(method)}</span>'


def format_figure(name: str, seen: str, caption: str, drawing: Drawing) -> str:
    """A figure, what it shows, and its numbers as a file."""
    picture = f'<img src="{data_link("image/svg+xml", drawing.svg)}" alt="{escape(seen)}">'
    link = f'<a download="{name}.csv" href="{data_link("text/csv", drawing.csv)}">its numbers</a>'
    return (
        f'<figure><div class="picture" tabindex="0">{picture}</div>'
        f"<figcaption>{prose(seen)} {prose(caption)}"
        f'<span class="files"><br>Download {link} (CSV); the figure is <code>plots/{name}.svg'
        "</code></span></figcaption></figure>"
    )


def data_link(media: str, text: str) -> str:
    """A file as a data URL, so that the page is self-contained."""
    content = urllib.parse.quote(text, safe=" '()*+,-./:;=?@[]_{|}~!$")
    return f"data:{media};charset=utf-8,{content}"
