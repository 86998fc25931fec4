"""Reads a config file and applies the overrides of the command line."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any, cast

from ml_collections import ConfigDict

from orthoreg_jax.shipped_configs import locate_config

from .following import follow_tasks
from .options import Options, default_config, flatten_config, unknown_option
from .validation import check_types, validate
from .value_types import describe_kind, entry

NO_KEY = re.compile(r'Key "(.+?)" does not exist')


def load_config(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> Options:
    """Reads the config from a file's `get_config()`, applies overrides and checks it.

    Where an override replaces `tasks`, the file's options that name tasks follow; standard error
    gets a line on what is then not measured.

    Args:
      path: a Python file whose `get_config()` returns a ConfigDict based on `default_config`; or
        the name of a config that comes with the package: "embedded", "paper", ...
      overrides: texts like "training.steps=200" or "tasks=mnist,vehicles".

    Raises:
      ValueError: no such file, no `get_config`, an unknown key or a bad value; all are named.

    Examples:
      >>> config = oj.load_config("embedded", ["training.steps=200", "tasks=mnist,emoji"])
      >>> config.training.steps, config.tasks
      (200, ('mnist', 'emoji'))
    """
    config, note = read_config(path, overrides)
    if note:  # not by `say`, which would start JAX's devices before a script has joined others
        print(f"note: {note}", file=sys.stderr, flush=True)
    return config


def read_config(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> tuple[Options, str]:
    """As `load_config`, and what is not measured, which is not printed; see `follow_tasks`."""
    path = locate_config(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:  # a user's own file may raise anything
        raise ValueError(f"config {str(path)!r}: {_reason(error)}") from error
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"config {str(path)!r}: get_config() returned {type(config).__name__}, expected a "
            "ConfigDict (is its last line `return config`?)"
        )
    override(config, overrides)
    check_types(config)
    named = {text.partition("=")[0] for text in overrides}
    note = follow_tasks(config, named) if "tasks" in named else ""
    validate(config)
    return cast(Options, config), note


def _reason(error: Exception) -> str:
    """Says what went wrong in a config file."""
    # ml_collections' own message lists all options of a section with their values.
    if isinstance(error, AttributeError) and (found := NO_KEY.search(str(error))):
        return f"{found[1]}: {unknown_option(found[1], flatten_config(default_config()))}"
    reason = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f"{type(error).__name__}: {reason}"


def override(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Applies texts like "training.steps=200" to a config.

    Raises:
      ValueError: the option is unknown, or the value has another type than the option.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        flat = flatten_config(config)
        if not equals or key not in flat:
            problem = unknown_option(key, flat)
            raise ValueError(f"--config.{text}: {problem}; the options are {', '.join(flat)}")
        *parents, name = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[name] = _parse(key, value, flat[key])


def _parse(key: str, text: str, old: Any) -> Any:
    """Parses a value as the type of the value that it replaces."""
    kind = type(old)
    try:
        if kind is str:
            return text
        if kind is tuple:
            return _parse_tuple(text, type(entry(old)))
        value = ast.literal_eval(text.capitalize() if kind is bool else text)
        if type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
    except (ValueError, SyntaxError):
        pass
    raise ValueError(
        f"--config.{key}={text}: not a value for this option; allowed: {describe_kind(old)}, for "
        f"example {','.join(map(str, old)) if kind is tuple else old}"
    )


def _parse_tuple(text: str, item: type) -> tuple[Any, ...]:
    parts = [part.strip(" '\"") for part in text.strip("()[] ").split(",")]
    return tuple(item(part) for part in parts if part)
