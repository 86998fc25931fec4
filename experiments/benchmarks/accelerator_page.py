"""The page of `accelerator.py`: a section for each part, measured or not."""

from __future__ import annotations

from typing import Any

from parts import PARTS, Row
from parts.part import Parts


def page(name: str, parts: Parts) -> str:
    """The page's text."""
    lines = [f"# Measured on one accelerator: {name.replace('_', ' ')}"]
    if name == "dry":
        lines.append("A dry run, tiny and on any machine. It tests the script; ignore its numbers.")
    lines.append(
        'Precisions are those of float32 matrix products in JAX: "highest", "high" and "default" '
        '(on a GPU, "high" and "default" are TF32); "bfloat16" means bfloat16 activations with '
        'float32 weights, and other products at "default". Times are medians of queued calls, as '
        "in training. Weights and images are random, except in the runs of the last sections."
    )
    for part in PARTS:
        lines += section(part, parts)
    return "\n\n".join(lines) + "\n"


def section(name: str, parts: Parts) -> list[str]:
    """A part's section: heading, device, tables, and missing cells."""
    title, table = PARTS[name].title, PARTS[name].table
    if name not in parts:
        return [f"## {title}", "Not measured yet."]
    part = parts[name]
    facts = part["machine"]
    shown = ", ".join(f"{key} {value}" for key, value in facts.items() if key != "device")
    lines = [f"## {title}", f"    {part['command']}", f"{facts['device']} ({shown})."]
    failed = [row for row in part["rows"] if "error" in row]
    lines += table(parts) if len(failed) < len(part["rows"]) or not part["left"] else []
    if failed:
        lines.append("Failed:")
        lines.append("\n".join(f"- {_words(row)}: `{_line(row['error'])}`" for row in failed))
    if part["left"]:
        lines.append(f"Not measured yet: {len(part['left'])} cells, for want of time.")
    return lines


def _words(row: Row) -> str:
    """Describes a cell by its text fields."""
    texts = (row[key] for key in row if key not in ("error", "cell_seconds"))
    return " ".join(text for text in texts if isinstance(text, str) and text)


def _line(text: Any) -> str:
    return " ".join(str(text).replace("`", "'").split())
