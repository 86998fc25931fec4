"""What to do about a task that no table names."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from orthoreg_jax.words import did_you_mean, nearest

from .catalogue import KNOWN
from .notes import shown
from .table import EMBEDDED, TABLE, entry_of_folder, read_table


def unknown_task(directory: pathlib.Path, table: Mapping[str, Any], name: str) -> str:
    """Message about a task that is neither in a data folder's table nor one of the field's.

    It ends with what to write, where images or an embedded task have the name; else with the
    nearest name, or all names.
    """
    if directory == EMBEDDED:
        names = did_you_mean(name, table) or f": {', '.join(table)}"
        return f"is not one of the embedded tasks{names}"
    file = directory / TABLE
    there = os.path.lexists(file)
    what = f"is not in {shown(file)}{'' if there else ' (no such file)'}"
    if os.path.isdir(directory / name):
        entry = entry_of_folder(name)
        return f"{what}, but its images may be in {shown(directory / name)}; {_write(there, entry)}"
    if os.path.isfile(directory / f"{name}.npz"):
        entry = {name: {"classes": ["...", "..."], "templates": ["a photo of a {}."]}}
        arrays = shown(directory / f"{name}.npz")
        return f"{what}, but its images may be in {arrays}; {_write(there, entry)}"
    if name in read_table("embedded", EMBEDDED):
        entry = {name: {"from": "embedded"}}
        return f"{what}; to use the embedded one, {_write(there, entry)}"
    if near := nearest(name, [*table, *KNOWN]):
        return f"{what}, and not one of the field's tasks; did you mean {near}?"
    own = f", which has {', '.join(table)}" if table else ""
    return f"{what}{own}; and not one of the field's tasks: {', '.join(KNOWN)}"


def _write(there: bool, entry: Mapping[str, Any]) -> str:
    """What to write into a table that is there, or not yet."""
    if there:
        return f'add to "tasks" there: {json.dumps(entry, ensure_ascii=False)[1:-1]}'
    return f"write there: {json.dumps({'tasks': entry}, ensure_ascii=False)}"
