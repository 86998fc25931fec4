"""The options of a config, for `--help` and `init`, read from the source that defines them.

Comments are in the source alone, and importing it would import ml_collections, which takes longer
than all of --help.
"""

from __future__ import annotations

import ast
import pathlib
import re
import shutil
import textwrap
from typing import Any, NamedTuple

SOURCE = pathlib.Path(__file__).parent / "config" / "options.py"
LONGEST = 4  # entries of a list; longer lists are abbreviated
WIDEST = 100
INDENT = 6


class Option(NamedTuple):
    """An option.

    Attributes:
      name: dotted.
      default: its value.
      source: how the source writes the default.
      comment: what the source says of it.
      above: all lines of the source since the option before.
    """

    name: str
    default: Any
    source: str
    comment: str
    above: tuple[str, ...]


def parse_options() -> list[Option]:
    """All options, in the order of the source; METHOD stands for each method in `per_method`."""
    text = SOURCE.read_text(encoding="utf-8")
    lines = text.splitlines()
    (function,) = (
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name == "default_config"
    )
    names = {"config": ""}  # variable -> dotted name of its section
    found: list[Option] = []
    above: list[str] = []
    about, end = "", 0
    for node in function.body:
        own = lines[end : node.lineno - 1] if end else []
        comment = _last_comment(own) or about
        above = [*above, *own]
        end = node.end_lineno or node.lineno
        if isinstance(node, ast.For):  # the loop over methods
            added = [(f"per_method.METHOD.{name}", "0.0") for name in ("learning_rate", "strength")]
        elif isinstance(node, ast.Assign):
            targets = [ast.unparse(target) for target in node.targets]
            holder, _, last = targets[0].rpartition(".")
            name = f"{names[holder]}.{last}".strip(".") if holder else ""
            if ast.unparse(node.value) == "ConfigDict()":
                names |= dict.fromkeys(targets, name)
                about = comment  # it, and the lines above, are those of the first option, too
                continue
            added = [(name, _source(lines, node.value))]
        else:
            above = []
            continue
        for name, source in added:
            # Expressions in this package's own source, with only numbers and texts.
            value = eval(source)  # noqa: S307
            found.append(Option(name, value, source, comment, tuple(above)))
            about, above = "", []
    return found


def _source(lines: list[str], node: ast.expr) -> str:
    """The text of an expression; ast's own function takes longer than all else here."""
    part = lines[node.lineno - 1 : node.end_lineno]
    part[-1] = part[-1][: node.end_col_offset]
    return "\n".join([part[0][node.col_offset :], *part[1:]])


def _last_comment(lines: list[str]) -> str:
    """The text of the last comment in some lines, if nothing but blank lines follow it."""
    found: list[str] = []
    for line in reversed(lines):
        if line.strip():
            found.insert(0, line.strip().removeprefix("#").strip())
        elif found:
            break
    return " ".join(found)


def options_text() -> str:
    """The options part of `--help`: by section, each as it is written on the command line."""
    width = min(WIDEST, shutil.get_terminal_size().columns) - 2
    lines = [
        "options of the config, with their defaults; comments in full: orthoreg init FILE.py;",
        "values of another config, e.g. embedded: orthoreg init FILE.py --config embedded",
    ]
    section: str | None = None
    for option in parse_options():
        own, _, name = option.name.rpartition(".")
        if own != section:
            section = own
            lines += ["", f"  {own or 'model, data and methods'}:"]
        lines.append(f"    --config.{option.name}={_shown(option.default)}")
        lines += textwrap.wrap(
            _first_sentence(option.comment),
            width,
            initial_indent=" " * INDENT,
            subsequent_indent=" " * INDENT,
        )
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if not isinstance(value, tuple):
        return str(value)
    texts = [str(each) for each in value]
    return ",".join(texts if len(texts) <= LONGEST else [*texts[:2], "...", texts[-1]])


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.])\s+(?=[A-Z\"])", text, maxsplit=1)[0]
