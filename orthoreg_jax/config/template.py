"""A config file to start from: every option with its comment, commented out at its default."""

from __future__ import annotations

import os
import pathlib

from orthoreg_jax.option_list import parse_options
from orthoreg_jax.storage import replacing

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
    """Every option with what is above it in `default_config`, as comments."""
    found: list[str] = []
    for option in parse_options():
        if option.name == "per_method.METHOD.strength":
            continue  # a mode without a penalty has none
        path = option.name.replace(".METHOD", '["full"]')
        found += [*option.above, *f"    # config.{path} = {option.source}".splitlines()]
    lines = (line if not line or "#" in line[:6] else f"    # {line[4:]}" for line in found)
    return "\n".join(lines).lstrip("\n")
