"""A config file to start from: every option with its comment, commented out at its default."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orthoreg_jax.option_list import WIDEST, parse_options
from orthoreg_jax.storage import replacing

CONFIG_TEMPLATE = '''\
"""What this experiment is to show.

Command:   orthoreg run --config {file} --workdir runs/{name}
"""

from ml_collections import ConfigDict

from orthoreg_jax.config import default_config


def get_config() -> ConfigDict:
    """{about}"""
    config = default_config()
{options}
    return config
'''
DEFAULTS = "Every option at its default: change what you need, and delete the rest."
CHANGED = "Options of another config are set; all others are at their defaults."


def write_template(
    path: str | os.PathLike[str], values: Mapping[str, Any] | None = None
) -> pathlib.Path:
    """Writes a config file with every option; returns its path.

    Args:
      path: the file.
      values: options by dotted name, as of `flatten_config`; those that differ from their defaults
        are set. None: none are.

    Raises:
      ValueError: the file exists, its folder does not, or its name is not that of a Python file.
    """
    path = pathlib.Path(path)
    if path.suffix != ".py":
        raise ValueError(f"{path}: a config is a Python file; give it a name that ends in .py")
    if os.path.lexists(path):
        raise ValueError(f"{path}: exists already; give another name, or delete it")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such folder; create it, or give another name")
    about = DEFAULTS if values is None else CHANGED
    options = _options(values or {})
    text = CONFIG_TEMPLATE.format(file=path, name=path.stem, about=about, options=options)
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return path


def _options(values: Mapping[str, Any]) -> str:
    """Every option with what is above it in `default_config`; at its default it is a comment."""
    found: list[str] = []
    for option in parse_options():
        if option.name == "per_method.METHOD.strength":
            continue  # a mode without a penalty has none
        found += [line if not line or "#" in line[:6] else f"    # {line[4:]}"
                  for line in option.above]  # fmt: skip
        if ".METHOD." in option.name:
            changed = {key: value for key, value in values.items()
                       if key.startswith("per_method.") and value != option.default}  # fmt: skip
            default = f'config.per_method["full"].learning_rate = {option.source}'
        else:
            value = values.get(option.name, option.default)
            changed = {option.name: value} if value != option.default else {}
            default = "" if changed else f"config.{option.name} = {option.source}"
        found += [f"    # {line.removeprefix('    ')}" for line in default.splitlines()]
        for key, value in changed.items():
            found += _assignment(key, value)
    return "\n".join(found).lstrip("\n")


def _assignment(key: str, value: Any) -> Iterator[str]:
    """Lines that set an option."""
    place = re.sub(r"per_method\.([^.]+)", r'per_method["\1"]', f"config.{key}")
    if not isinstance(value, tuple):
        yield f"    {place} = {_shown(value)}"
        return
    entries = ", ".join(map(_shown, value)) + "," * (len(value) == 1)
    if len(line := f"    {place} = ({entries})") <= WIDEST:
        yield line
        return
    lines = [""]
    for each in map(_shown, value):
        if len(lines[-1]) + len(each) > WIDEST - 10:
            lines.append("")
        lines[-1] += f"{' ' * bool(lines[-1])}{each},"
    yield from [f"    {place} = (", *(f"        {line}" for line in lines), "    )"]


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
