"""Folders in the hub's form "imagefolder" whose labels are in a table, not in directory names.

The table is metadata.csv or metadata.jsonl, in each split's directory or above them all. It has a
column `file_name`, a path relative to the table's directory, and a column `label`, the name or
number of a class.
"""

from __future__ import annotations

import csv
import io
import json
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from orthoreg_jax.words import counted, plural

from .class_names import ClassNames, Name, first_name, labels_in_order
from .content import Content, with_validation
from .folder import FileImages, find_images
from .notes import Note, listed, note, shown
from .split import Split

METADATA_FILES = ("metadata.csv", "metadata.jsonl")
FILE, LABEL = "file_name", "label"


class MetadataTable(NamedTuple):
    """Images in a table, or those of one split in it.

    Attributes:
      path: path of the table.
      files: paths of the images, relative to the table's directory.
      names: their classes.
      folder: directory of the split's images, relative to the table's; "": the table's own.
      outside: images that the table lists outside the splits' directories.
    """

    path: pathlib.Path
    files: tuple[str, ...]
    names: tuple[str, ...]
    folder: str = ""
    outside: tuple[str, ...] = ()


def find_tables(directory: pathlib.Path, folders: Mapping[str, str]) -> dict[str, MetadataTable]:
    """Split -> its table, if tables give the labels; {} if directories do.

    Args:
      directory: the task's folder.
      folders: split -> its directory's name.

    Raises:
      ValueError: some splits have a table with labels, and others do not.
    """
    if above := _read(directory):
        by_split: dict[str, list[tuple[str, str]]] = {split: [] for split in folders}
        split_of, outside = {name: split for split, name in folders.items()}, []
        for file, label in zip(above.files, above.names, strict=True):
            if split := split_of.get(file.partition("/")[0]):
                by_split[split].append((file, label))
            else:
                outside.append(file)
        return {
            split: above._replace(
                files=tuple(file for file, _ in rows),
                names=tuple(label for _, label in rows),
                folder=folders[split],
                outside=tuple(outside),
            )
            for split, rows in by_split.items()
            if rows
        }
    found = {split: _read(directory / name) for split, name in folders.items()}
    tables = {split: table for split, table in found.items() if table is not None}
    if tables and len(tables) < len(found):
        lacking = [folders[split] for split in found if split not in tables]
        raise ValueError(
            f"{shown(directory)}: {listed(lacking)} have no table with a column {LABEL!r} "
            f"({' or '.join(METADATA_FILES)}), but the other splits do; add one, or remove theirs"
        )
    return tables


def _read(directory: pathlib.Path) -> MetadataTable | None:
    """The table of a directory; None if it has none, or none with labels."""
    there = [directory / name for name in METADATA_FILES if (directory / name).is_file()]
    if len(there) > 1:
        raise ValueError(
            f"{shown(directory)}: holds {' and '.join(METADATA_FILES)}; keep one of them"
        )
    if not there:
        return None
    path = there[0]
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows: list[Any] = (
            list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
            if path.suffix == ".csv"
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{shown(path)}: cannot be read ({error})") from error
    if not any(isinstance(row, dict) and LABEL in row for row in rows):
        return None
    for number, row in enumerate(rows, 1):
        values = [row.get(key) for key in (FILE, LABEL)] if isinstance(row, dict) else [None]
        if not isinstance(values[0], str) or not isinstance(values[-1], (str, int)):
            raise ValueError(
                f"{shown(path)}: its row {number} has no {FILE!r}, or no {LABEL!r} that is a name "
                "or a number"
            )
    files = tuple(str(pathlib.PurePosixPath(row[FILE])) for row in rows)
    return MetadataTable(path, files, tuple(str(row[LABEL]) for row in rows))


def read_tables(
    directory: pathlib.Path,
    tables: Mapping[str, MetadataTable],
    labels: Sequence[str],
    classes: Sequence[Name],
    needed: Sequence[str],
) -> Content:
    """Reads splits whose labels are in tables.

    Args:
      directory: the task's folder.
      tables: tables of its splits.
      labels: the tables' class names in the order of `classes`; empty: the names in the tables.
      classes: class names in prompts.
      needed: splits to read.

    Raises:
      ValueError: a label matches no class, or an image is missing or appears twice.
    """
    names = {name for table in tables.values() for name in table.names}
    notes: list[Note] = []
    if not labels:
        if numbered := all(name.isdecimal() for name in names):
            count = max(len(classes), 1 + max(map(int, names)))
            labels = [str(number) for number in range(count)]
        else:
            labels = labels_in_order(sorted(names), classes)
        if numbered and classes and [first_name(name) for name in classes] != labels:
            what = "classes read by number, as the tables name none"
            notes.append(Note(len(labels), what))
    known = ClassNames(labels, classes)

    def read(split: str) -> Split:
        table = tables[split]
        places = {name: known.find(name) for name in set(table.names)}
        if strange := sorted(name for name, place in places.items() if place is None):
            raise ValueError(
                f"{shown(table.path)}: its labels {listed(map(shown, strange))} match none of the "
                f"{len(labels)} classes, which are called {listed(labels)}"
            )
        if twice := [file for file, count in Counter(table.files).items() if count > 1]:
            raise ValueError(f"{shown(table.path)}: names {listed(twice)} more than once")
        root = table.path.parent
        missing = [file for file in table.files if not (root / file).is_file()]
        if missing:
            raise ValueError(
                f"{shown(table.path)}: {len(missing)} of its {counted(len(table.files), 'image')} "
                f"{plural(len(missing), 'is', 'are')} missing, the first is "
                f"'{shown(missing[0])}'; copy the data again"
            )
        named, images = {*table.files}, find_images(root / table.folder).paths
        images = [str(pathlib.PurePosixPath(table.folder, path)) for path in images]
        if unlisted := [path for path in images if path not in named]:
            notes.append(note(f"ignored: images that {table.path.name} does not name", unlisted))
        numbers = [place for name in table.names if (place := places[name]) is not None]
        return Split(FileImages(root, table.files), np.array(numbers, np.int32))

    present = {split: table.path.name for split, table in tables.items()}
    splits, more = with_validation(read, present, needed, shown(directory))
    if outside := next(iter(tables.values())).outside:
        what = f"ignored: images that {present.popitem()[1]} lists outside the splits' directories"
        notes.append(note(what, outside))
    return Content(tuple(labels), splits, (*more, *notes))
