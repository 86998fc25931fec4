"""The options of a config for `--help`, read from the source that defines them.

Importing that module would import ml_collections, which takes longer than all of --help.
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
    """An option: its dotted name, its default, and its comment."""

    name: str
    default: Any
    comment: str


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
    about = ""  # comment on the section
    for node in function.body:
        comment = _comment_above(lines, node.lineno) or about
        if isinstance(node, ast.For):  # the loop over methods
            found += (Option(f"per_method.METHOD.{name}", 0.0, comment)
                      for name in ("learning_rate", "strength"))  # fmt: skip
        if not isinstance(node, ast.Assign):
            continue
        targets = [ast.unparse(target) for target in node.targets]
        holder, _, last = targets[0].rpartition(".")
        name = f"{names[holder]}.{last}".strip(".") if holder else ""
        about = ""
        if ast.unparse(node.value) == "ConfigDict()":
            names |= dict.fromkeys(targets, name)
            about = comment
        else:
            # An expression in this package's own source, with only numbers and texts.
            value = eval(compile(ast.Expression(node.value), str(SOURCE), "eval"))  # noqa: S307
            found.append(Option(name, value, comment))
    return found


def _comment_above(lines: list[str], number: int) -> str:
    """The comment above line `number`, counted from 1."""
    found: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.strip().startswith("#"):
            break
        found.insert(0, line.strip().removeprefix("#").strip())
    return " ".join(found)


def options_text() -> str:
    """The options part of `--help`: by section, each as it is written on the command line."""
    width = min(WIDEST, shutil.get_terminal_size().columns) - 2
    lines = ["options of the config, with their defaults; comments in full: orthoreg init FILE.py"]
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
