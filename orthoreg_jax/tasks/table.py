"""tasks.json of a data folder: the keys that an entry may have, and the values they allow."""

from __future__ import annotations

import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from orthoreg_jax.storage import StorageError, read_text
from orthoreg_jax.words import nearest

from .notes import listed, shown

TABLE = "tasks.json"
EMBEDDED = pathlib.Path(__file__).parents[1] / "embedded" / "tasks"
SPLITS = ("train", "val", "test")
# A task's name also names a folder in a run, beside evaluation.json and other files.
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
A_TEXT: Kind = (_is_text, "a non-empty, printable text")
LIST_OF_TEXTS: Kind = (_is_texts, "a list of non-empty, printable texts")
HASHES: Kind = (_is_by_split, "a hash for each split")
TFDS: Kind = (
    _is_by_split,
    'a table from our splits to tfds\' splits, for example {"train": "train", "test": "test"}',
)
SET: Kind = (
    _is_by_split,
    'a table from our splits to the set\'s, for example {"train": "train", "test": "validation"}',
)
ANYTHING: Kind = (lambda value: True, "anything")

# Keys beside the prompts, by where the images are; "about" is a comment for readers.
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
    """Entries of tasks.json, unchecked; {} without that file.

    A folder without it may still hold tasks of the catalogue.

    Raises:
      ValueError: the folder does not exist, or the file is not a table of entries.
    """
    if not os.path.isdir(directory):  # does not raise if a name is too long for a path
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
        example = json.dumps({"tasks": entry_of_folder("birds")})
        raise ValueError(
            f'data {source!r}: {path} has no table "tasks"; its entries belong there, for example '
            f"{example}"
        )
    return table


def entry_of_folder(name: str) -> dict[str, Any]:
    """The entry of a task whose images are in the folder of its name, for messages."""
    return {name: {"folder": name, "templates": ["a photo of a {}."]}}


def check_entry(entry: object, known: bool = False) -> Mapping[str, Any]:
    """Checks that every key of an entry is known and has a value of the right kind.

    Args:
      entry: one entry of tasks.json.
      known: whether this is one of the field's tasks, which need no prompts in the entry.

    Raises:
      ValueError: keys that are unknown, or have a value of another kind.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"its entry in {TABLE} is {_short(entry)}; it must be a table of keys")
    kinds = [kind for kind in IMAGES if kind in entry] or [""]
    if len(kinds) > 1:
        raise ValueError(
            f"its entry in {TABLE} has {' and '.join(map(repr, kinds))}, each of which says where "
            "the images are; keep one of them"
        )
    kind = kinds[0]
    own = {} if kind in ("from", "part_of") else OWN
    keys = ({kind: A_TEXT} if kind else {}) | own | IMAGES[kind] | {"about": ANYTHING}
    if unknown := [key for key in entry if key not in keys]:
        others = f"; for images elsewhere, one of {', '.join(filter(None, IMAGES))}"
        meant = nearest(unknown[0], [*keys, *(() if kind else filter(None, IMAGES))])
        raise ValueError(
            f"its entry in {TABLE} has {', '.join(repr(shown(key)) for key in unknown)}"
            f"{f' (did you mean {meant!r}?)' if meant else ''}; allowed "
            f"{f'beside {kind!r}' if kind else 'with images in NAME.npz'}: {', '.join(keys)} "
            f"('about' may contain anything){'' if kind else others}"
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
        raise ValueError(f"its entry in {TABLE}: {'; '.join(wrong)}")
    return entry


def check_name(name: object) -> None:
    """Refuses a name that cannot be a folder of a run.

    Raises:
      ValueError: the name is not allowed.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.lower().endswith(FILES):
        raise ValueError(
            "is not a valid task name, because it also names a folder of a run; allowed: up to 60 "
            "letters, digits and _ + - ., a letter, digit or _ first, and none of the endings "
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
