"""The file tasks.json of a data folder: which keys an entry may have, and what they hold."""

from __future__ import annotations

import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from orthoreg_jax.storage import StorageError, read_text

from .notes import listed, shown

TABLE = "tasks.json"
SPLITS = ("train", "val", "test")
# A task's name is that of a folder in a run, beside evaluation.json and the like.
NAME = re.compile(r"\w[\w.+-]{0,59}")
FILES = (".json", ".html", ".md", ".safetensors", ".npz", ".lock")


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or not value.strip():
        return False
    return not any(unicodedata.category(each) in ("Cc", "Cs") for each in value)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_by_split(value: object) -> bool:
    if not isinstance(value, dict) or not set(value) <= set(SPLITS):
        return False
    return all(map(_is_text, value.values()))


Kind = tuple[Callable[[object], bool], str]
A_TEXT: Kind = (_is_text, "a text, non-empty and printable")
LIST_OF_TEXTS: Kind = (_is_texts, "a list of texts, each non-empty and printable")
HASHES: Kind = (_is_by_split, "hashes by split")
TFDS: Kind = (
    _is_by_split,
    'tfds\' splits by ours, for example {"train": "train", "test": "test"}',
)
SET: Kind = (
    _is_by_split,
    'the set\'s splits by ours, for example {"train": "train", "test": "validation"}',
)
ANYTHING: Kind = (lambda value: True, "anything")

# What an entry may say beside its prompts, by where its images are; "about" is for people alone.
IMAGES: dict[str, dict[str, Kind]] = {
    "from": {},
    "part_of": {"title": A_TEXT, "part": LIST_OF_TEXTS},
    "folder": {"labels": LIST_OF_TEXTS},
    "tfds": {"labels": LIST_OF_TEXTS, "splits": TFDS},
    "hub": {
        "labels": LIST_OF_TEXTS,
        "splits": SET,
        "config": A_TEXT,
        "image": A_TEXT,
        "label": A_TEXT,
        "revision": A_TEXT,
    },
    "": {},  # arrays in NAME.npz
}
OWN = {"title": A_TEXT, "templates": LIST_OF_TEXTS, "classes": LIST_OF_TEXTS, "sha256": HASHES}


def read_table(source: str, directory: pathlib.Path) -> dict[str, Any]:
    """Entries of tasks.json, unchecked; a folder without one may hold tasks of the catalogue.

    Raises:
      ValueError: no such folder, or a file that is no table of entries.
    """
    if not os.path.isdir(directory):  # which a name too long for a path does not stop
        raise ValueError(f"data {source!r}: no such folder; allowed: 'embedded', or a folder")
    path = directory / TABLE
    if not os.path.lexists(path):
        return {}
    try:
        content = json.loads(read_text(path), object_pairs_hook=_unique)
    except (StorageError, ValueError, RecursionError) as error:
        raise ValueError(f"data {source!r}: {path} cannot be read ({error})") from error
    table = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(table, dict):
        raise ValueError(
            f'data {source!r}: {path} must read {{"tasks": {{NAME: {{"classes": [...], '
            '"templates": [...]}}}'
        )
    return table


def check_entry(entry: object, known: bool = False) -> Mapping[str, Any]:
    """An entry all of whose keys are known and hold what they should.

    Args:
      entry: of tasks.json.
      known: whether it is a task of the field, whose prompts need not be repeated.

    Raises:
      ValueError: keys that are unknown, or hold something else.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"its entry of {TABLE} is {_short(entry)}; it must be a table of keys")
    kinds = [kind for kind in IMAGES if kind in entry] or [""]
    if len(kinds) > 1:
        raise ValueError(
            f"its entry of {TABLE} has {' and '.join(map(repr, kinds))}, which say where its "
            "images are; keep one of them"
        )
    kind = kinds[0]
    own = {} if kind in ("from", "part_of") else OWN
    keys = ({kind: A_TEXT} if kind else {}) | own | IMAGES[kind] | {"about": ANYTHING}
    if unknown := [key for key in entry if key not in keys]:
        others = f"; or one of {', '.join(filter(None, IMAGES))}, for images elsewhere"
        raise ValueError(
            f"its entry of {TABLE} has {', '.join(repr(shown(key)) for key in unknown)}; allowed "
            f"{f'beside {kind!r}' if kind else 'with images in NAME.npz'}: {', '.join(keys)}, of "
            f"which 'about' may hold anything{'' if kind else others}"
        )
    wrong = [
        f"{key!r} must be {what}, not {_short(entry[key])}"
        for key, (is_right, what) in keys.items()
        if key in entry and not is_right(entry[key])
    ]
    needed = {"from": (), "part_of": ("part",), "tfds": ("templates", "splits"),
              "": ("templates", "classes")}.get(kind, ("templates",))  # fmt: skip
    if known and kind and "classes" not in entry:
        needed = tuple(key for key in needed if key != "templates")
    wrong += [f"it must have {key!r}, {keys[key][1]}" for key in needed if key not in entry]
    if wrong:
        raise ValueError(f"its entry of {TABLE}: {'; '.join(wrong)}")
    return entry


def check_name(name: object) -> None:
    """Refuses a name that a run could not call a folder.

    Raises:
      ValueError: such a name.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.lower().endswith(FILES):
        raise ValueError(
            "is not a valid task name, as it names a folder in a run; allowed: up to 60 letters, "
            "digits and _ + - ., the first no sign, and none of the endings "
            f"{listed(FILES, most=9)}"
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{listed(map(shown, twice))} appears twice in one table")
    return table


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]} ..."
