"""A config file to start from: every option with its comment, commented out at its default."""

from __future__ import annotations

import ast
import inspect
import os
import pathlib
import re

from orthoreg_jax.storage import replacing

from .options import default_config

CONFIG_TEMPLATE = '''\
"""What this experiment is to show.

Command:   orthoreg run --config {file} --workdir runs/{name}
"""

from ml_collections import ConfigDict

from orthoreg_jax.config import default_config


def get_config() -> ConfigDict:
    """Every option at its default: change what you need, and delete the rest."""
    config = default_config()
{options}
    return config
'''
SECTION = re.compile(r"    config\.(\w+) = (\1 = )?ConfigDict\(\)|    \w+\.\w+ = ConfigDict\(\)")
METHOD = '    config.per_method["full"].learning_rate = 0.0'


def write_template(path: str | os.PathLike[str]) -> pathlib.Path:
    """Writes a config file with every option; returns its path.

    Raises:
      ValueError: the file exists, or its name is not that of a Python file.
    """
    path = pathlib.Path(path)
    if path.suffix != ".py":
        raise ValueError(f"{path}: a config is a Python file; give it a name that ends in .py")
    if os.path.lexists(path):
        raise ValueError(f"{path}: exists already; give another name, or delete it")
    text = CONFIG_TEMPLATE.format(file=path, name=path.stem, options=_options())
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return path


def _options() -> str:
    """Lines of `default_config` between its first and last, as comments."""
    source = inspect.getsource(default_config)
    lines = source.splitlines()
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    # First and last lines of statements; the lines between statements are comments.
    ends = {node.lineno: (node, node.end_lineno or node.lineno) for node in function.body}
    first = next(line for line in ends if lines[line - 1] == "    config = ConfigDict()")
    found: list[str] = []
    at = first + 1
    while at < len(lines):
        node, end = ends.get(at, (None, at))
        text = lines[at - 1 : end]
        if isinstance(node, ast.For):
            found.append(_commented(METHOD))
        elif node is None:
            found += text
        elif not SECTION.fullmatch(text[0]):
            name = text[0].strip()
            prefix = "" if name.startswith("config.") else "config."
            found += map(_commented, [f"    {prefix}{name}", *text[1:]])
        at = end + 1
    return "\n".join(found)


def _commented(line: str) -> str:
    return f"    # {line[4:]}"
