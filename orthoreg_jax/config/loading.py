"""Reads a config file and applies the overrides of the command line."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ml_collections import ConfigDict

from orthoreg_jax.shipped_configs import locate_config

from .following import follow_tasks
from .options import Options, default_config, flatten_config
from .unknown import unknown_option
from .validation import check_types, validate
from .value_types import describe_kind, entry

# In messages of ml_collections: a value of the wrong type, and the name of an unknown option.
WRONG_TYPE = re.compile(
    r"override field '(.+?)'.*?\. (.*) is of original type <class '(.+?)'>", re.S
)
QUOTED = re.compile(r"""['"]([\w+.]+)['"\\]""")


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
    config, note = load_with_note(path, overrides)
    if note:  # not by `say`, which would start JAX's devices before a script has joined others
        print(f"note: {note}", file=sys.stderr, flush=True)
    return config


def load_with_note(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> tuple[Options, str]:
    """As `load_config`, and what is not measured, which is not printed; see `follow_tasks`."""
    path = locate_config(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:  # a user's own file may raise anything
        raise ValueError(f"config {str(path)!r}: {_reason(error, str(path))}") from error
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


def _reason(error: Exception, file: str) -> str:
    """Where in a config file something went wrong, and what."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    place = f"line {line}: " if line is not None else ""
    # Messages of ml_collections are of its own terms, or list all options of a section.
    if frames and "ml_collections" in pathlib.Path(frames[-1].filename).parts:
        known = flatten_config(default_config())
        if found := WRONG_TYPE.search(str(error)):
            return f"{place}{_wrong_type(known, found[1], found[2], found[3])}"
        if isinstance(error, AttributeError | KeyError) and (found := QUOTED.search(str(error))):
            return f"{place}{found[1]}: {unknown_option(found[1], known)}"
    reason = error.args[0] if isinstance(error, KeyError) and error.args else error
    if isinstance(error, SyntaxError):
        reason = error.msg  # without the file and line, which are there already
    return f"{place}{type(error).__name__}: {reason}"


def _wrong_type(known: Mapping[str, Any], name: str, value: str, kind: str) -> str:
    """Message about a value that has not the type of its option, given by its last part."""
    options = [key for key in known if key.rpartition(".")[2] == name]
    if not options:
        return f"{name}: {unknown_option(name, known)}"
    example = known[options[0]]
    key = options[0] if len(options) == 1 else name
    shown = repr(value) if kind == "str" else value
    return f"{key} is {shown}, allowed: {describe_kind(example)}, for example {example!r}"


def override(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Applies texts like "training.steps=200" to a config.

    Raises:
      ValueError: the option is unknown, or the value has another type than the option.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        flat = flatten_config(config)
        if key not in flat:
            raise ValueError(f"--config.{text}: {unknown_option(key, flat)}")
        if not equals:
            raise ValueError(f"--config.{text}: has no value; write --config.{text}=VALUE")
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
