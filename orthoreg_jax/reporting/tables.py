"""Tables of a run as data: one `Table` can be written as text, Markdown or HTML."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .summary import (
    Estimate,
)

NONE = "–"
EDGE = "*"


class Table(NamedTuple):
    """A table with cells as text. The first `left` columns are words, the rest numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    left: int = 1


def percent(share: float) -> str:
    """A fraction in per cent with two decimals, without the % sign; a dash if it is undefined."""
    return NONE if math.isnan(share) else f"{100 * share:.2f}"


def percent_estimate(value: Estimate) -> str:
    """An estimate of a fraction in per cent, e.g. "51.20 ± 0.31"."""
    spread = "" if value.deviation is None else f" ± {percent(value.deviation)}"
    return percent(value.mean) + spread


def number_estimate(value: Estimate, form: str = ".3g") -> str:
    """An estimate of any other number."""
    if math.isnan(value.mean):
        return NONE
    spread = "" if value.deviation is None else f" ± {value.deviation:{form}}"
    return f"{value.mean:{form}}{spread}"


def share_text(share: str) -> str:
    """A share of control accuracy for a heading: "95 %" for "0.95"."""
    return f"{100 * float(share):g} %"


def points(share: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * share:+.2f}".replace("-", "−")


def format_text(table: Table) -> str:
    """The table for a terminal."""
    lines = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(width) if column < table.left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    width = max(80, *map(len, text))
    return "\n".join([*text, *(textwrap.fill(note, min(width, 100)) for note in table.notes)])


def format_markdown(table: Table) -> str:
    """The table as a section of a Markdown file."""
    notes = [f"\n{_literal(note)}" for note in table.notes]
    lines = markdown_rows(table.header, table.rows, table.left)
    return "\n".join([f"## {table.title}\n", lines, *notes]) + "\n"


def markdown_rows(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table's lines in Markdown; the first `left` columns are words, the rest numbers."""
    marks = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in (header, marks, *rows)
    )


def _literal(note: str) -> str:
    """Escapes a leading edge mark, which Markdown would read as a list item."""
    return note.replace("*", "\\*")
