"""Pieces of HTML: escaped text, tables, figures, and how they look."""

from __future__ import annotations

import html

from .style import inline_svg
from .tables import Table

STYLE_SHEET = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b636b; --paper: #fbfbfa;
  --card: #ffffff; --line: #dfe2e5; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #a3abb3; --paper: #15181b;
  --card: #1d2125; --line: #363c42; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3rem 0 .5rem; }
p, li { max-width: 44rem; }
.under { color: var(--soft); margin: 0 0 1.5rem; }
.formula { font-family: Georgia, "Times New Roman", serif; font-size: 1.1rem; margin: 1rem 0;
  padding: .6rem 1rem; border-left: 3px solid var(--accent); overflow-x: auto; }
.reading { border-left: 3px solid var(--line); padding-left: 1rem; }
.wide { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .6rem; text-align: right; vertical-align: top; }
th { vertical-align: bottom; }
th { font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--line); }
.word { text-align: left; min-width: 6rem; }
tr.first td { border-top: 1px solid var(--line); }
.note, figcaption { color: var(--soft); font-size: .9rem; max-width: 44rem; }
.note { margin: .35rem 0; }
figcaption { margin-top: .5rem; }
figure { margin: 1rem 0; }
.picture { overflow-x: auto; background: #fff; border: 1px solid var(--line); border-radius: 8px;
  padding: .75rem; }
.picture svg { display: block; width: 100%; min-width: 34rem; height: auto; }
details { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; }
summary { cursor: pointer; font-weight: 600; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
pre { overflow-x: auto; padding: .8rem 1rem; background: var(--card); font-size: .85rem;
  border: 1px solid var(--line); border-radius: 8px; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.hash td { overflow-wrap: anywhere; min-width: 8rem; }
"""


def escape(text: object) -> str:
    """Any text, made harmless, in an element or an attribute."""
    return html.escape(str(text), quote=True)


def prose(text: str) -> str:
    """Text for a paragraph or a cell: harmless, and no line breaks before % or around ±."""
    return escape(text).replace(" %", "&nbsp;%").replace(" ± ", "&nbsp;±&nbsp;")


def join_words(words: list[str]) -> str:
    """Words as a text: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def format_html(table: Table, kind: str = "") -> str:
    """A table with its notes; a first cell that is not empty begins a group of rows."""

    def cells(tag: str, row: tuple[str, ...]) -> str:
        words = [' class="word"' if column < table.left else "" for column in range(len(row))]
        return "".join(
            f"<{tag}{word}>{prose(cell)}</{tag}>" for word, cell in zip(words, row, strict=True)
        )

    rows = "\n".join(
        f"<tr{' class=first' if row[0] else ''}>{cells('td', row)}</tr>" for row in table.rows
    )
    notes = "".join(f'<p class="note">{prose(note)}</p>' for note in table.notes)
    return (
        f'<div class="wide"><table{kind}><thead><tr>{cells("th", table.header)}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{notes}"
    )


def format_figure(name: str, heading: str, caption: str, svg: str) -> str:
    """A figure and its caption."""
    return (
        f'<figure><div class="picture">{inline_svg(svg, name, escape(heading))}</div>'
        f"<figcaption>{prose(caption)}</figcaption></figure>"
    )
