"""Types of options: each has the type of its default."""

from __future__ import annotations

import math
from typing import Any


def entry(default: tuple[Any, ...]) -> Any:
    """An example entry of a tuple; empty tuples are for names."""
    return default[0] if default else ""


def same_kind(value: Any, default: Any) -> bool:
    """Whether a value has the type of an option's default; a float may be given as an int."""
    if isinstance(default, tuple):
        return isinstance(value, tuple | list) and all(same_kind(v, entry(default)) for v in value)
    if isinstance(default, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(default)


def describe_kind(default: Any) -> str:
    """Describes the type of a default, for messages."""
    if isinstance(default, tuple):
        return f"a list, each entry {describe_kind(entry(default))}"
    return {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False"}[
        type(default)
    ]
