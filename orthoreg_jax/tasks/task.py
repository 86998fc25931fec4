"""A classification task: named classes, prompt templates, and images by split."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from orthoreg_jax.storage import StorageError, read_json

from .catalogue import KNOWN, entries
from .sources import (
    SPLITS,
    Content,
    Name,
    first_name,
    read_arrays,
    read_folder,
    read_known,
    read_set,
)
from .split import Split

TABLE = "tasks.json"


@dataclasses.dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
      name: as configs and files call it.
      title: as tables call it.
      classes: names as they read in a prompt, in the order of the labels; several of one class
        stand as a tuple.
      templates: prompts with one "{}".
      splits: "train", "val" and "test"; a control task has no "train". Each has `images`, of which
        `images[row]` is a uint8 array (h, w, 3), and `labels`, positions in `classes`.
    """

    name: str
    title: str
    classes: tuple[Name, ...]
    templates: tuple[str, ...]
    splits: dict[str, Split]

    @property
    def prompts_sha256(self) -> str:
        """Hash of the classes and templates, which make the zero-shot head."""
        text = json.dumps([self.classes, self.templates])
        return hashlib.sha256(text.encode()).hexdigest()


def data_directory(source: str) -> pathlib.Path:
    """The folder of a data source: "embedded", or a path."""
    if source == "embedded":
        return pathlib.Path(__file__).parents[1] / "embedded" / "tasks"
    return pathlib.Path(source)


def load_tasks(source: str, names: Sequence[str], control: str | None = None) -> dict[str, Task]:
    """Reads and checks all tasks of an experiment, before any work starts.

    A task is an entry of the data folder's tasks.json, or one of the field's (see `catalogue`).
    An entry has "classes" and "templates", and one of

    * nothing more: the images are in NAME.npz;
    * "folder": images are FOLDER/SPLIT/CLASS/*.jpg, or FOLDER/CLASS/*.jpg with lists of their
      paths in FOLDER/SPLIT.txt; "labels" are the directories' names, in the order of "classes",
      and needed where the two differ (without both, the directories name the classes);
    * "tfds": a set prepared by tensorflow-datasets below the data folder; "splits" say which of
      its splits are train, val and test;
    * "part_of" and "part": another task with the images of these classes alone; its head still
      tells all classes apart;
    * "from": "embedded", or another data folder (relative to this one), whose task of this name it
      is.

    A validation split that is not there is cut from train: 10 %, at most 5000 images, seed 0.

    Args:
      source: "embedded", or a folder.
      names: tasks to fine-tune; each needs train, val and test.
      control: a control task, which needs val and test only.

    Returns:
      Tasks by name, in the order given, the control task last.

    Raises:
      ValueError: everything that is missing or wrong in any of them, in one message.

    Examples:
      >>> digits = oj.load_tasks("embedded", ["digits"])["digits"]
      >>> digits.classes[:3], list(digits.splits)
      (('zero', 'one', 'two'), ['train', 'val', 'test'])
    """
    if isinstance(names, str):
        raise ValueError(f"names is the text {names!r}; give a list of names: [{names!r}]")
    directory = data_directory(source)
    table = read_table(source, directory)
    problems: list[str] = []
    tasks: dict[str, Task] = {}
    for name in (*names, *([control] if control else [])):
        needed = SPLITS[1:] if name == control else SPLITS
        try:
            tasks[name] = load_task(directory, table, name, needed)
        except ValueError as error:
            problems.append(f"task {name!r}: {error}")
    if problems:
        raise ValueError("data: " + "\n  ".join(problems))
    return tasks


def read_table(source: str, directory: pathlib.Path) -> dict[str, Any]:
    """Entries of tasks.json; a folder without one may hold tasks of the catalogue."""
    if not directory.is_dir():
        raise ValueError(f"data {source!r}: no such folder; allowed: 'embedded', or a folder")
    if not (directory / TABLE).exists():
        return {}
    try:
        table = read_json(directory / TABLE)
    except StorageError as error:
        raise ValueError(f"data {source!r}: {error}") from error
    table = table.get("tasks") if isinstance(table, dict) else None
    if not isinstance(table, dict) or not all(isinstance(item, dict) for item in table.values()):
        raise ValueError(
            f'data {source!r}: {TABLE} must read {{"tasks": {{NAME: {{"classes": [...], '
            '"templates": [...]}}}'
        )
    return table


def load_task(
    directory: pathlib.Path, table: dict[str, Any], name: str, needed: Sequence[str]
) -> Task:
    """One task by its name; see `load_tasks`.

    Raises:
      ValueError: no such task, or something wrong with it.
    """
    if name in table:
        entry = table[name]
        if "from" in entry:
            return _load_from(directory, entry["from"], name, needed)
        if "part_of" in entry:
            return _load_part(directory, table, name, needed)
        return _load_entry(directory, name, entry, needed)
    if name in KNOWN:
        entry, known = entries()[name], KNOWN[name]
        content = read_known(directory, name, known, entry, needed)
        classes = tuple(c if isinstance(c, str) else tuple(c) for c in entry["classes"])
        task = Task(name, entry["title"], classes, tuple(entry["templates"]), content.splits)
        return _checked(task)
    raise ValueError(
        f"is not in {directory / TABLE} ({', '.join(table) or 'no such file'}), nor one of the "
        f"field's: {', '.join(KNOWN)}"
    )


def _load_from(directory: pathlib.Path, source: Any, name: str, needed: Sequence[str]) -> Task:
    """The task of another data folder."""
    if not isinstance(source, str):
        raise ValueError(
            f"its entry of {TABLE} says from {source!r}; allowed: 'embedded', or a data folder"
        )
    there = data_directory(source) if source == "embedded" else directory / source
    table = read_table(source, there)
    if "from" in table.get(name, {}):
        raise ValueError(f"{there / TABLE} has it from elsewhere, too; name that folder instead")
    return load_task(there, table, name, needed)


def _load_part(
    directory: pathlib.Path, table: dict[str, Any], name: str, needed: Sequence[str]
) -> Task:
    """The images of some classes of another task."""
    entry = table[name]
    whole_name, wanted = entry["part_of"], entry.get("part")
    if {"part_of", "from"} & set(table.get(whole_name, {"part_of": ""})):
        raise ValueError(
            f"its entry of {TABLE} says part_of {whole_name!r}; allowed: a task with images of its "
            "own"
        )
    whole = _load_entry(directory, whole_name, table[whole_name], needed)
    names = [first_name(each) for each in whole.classes]
    if not isinstance(wanted, list) or not wanted or not set(wanted) <= set(names):
        raise ValueError(
            f"its entry of {TABLE} says part {wanted!r}; allowed: a list of classes of "
            f"{whole_name!r}: {', '.join(names)}"
        )
    labels = [names.index(each) for each in wanted]
    splits = {
        split: data.take(np.flatnonzero(np.isin(data.labels, labels)))
        for split, data in whole.splits.items()
    }
    empty = [split for split, data in splits.items() if len(data) == 0]
    if empty:
        raise ValueError(f"no image of {', '.join(wanted)} in the split {', '.join(empty)}")
    title = str(entry.get("title", name))
    return dataclasses.replace(whole, name=name, title=title, splits=splits)


def _load_entry(
    directory: pathlib.Path, name: str, entry: dict[str, Any], needed: Sequence[str]
) -> Task:
    """A task with images of its own."""
    templates = _texts(entry, "templates")
    labels = _texts(entry, "labels") if "labels" in entry else ()
    classes: tuple[Name, ...] = _texts(entry, "classes") if "classes" in entry else ()
    if "folder" in entry:
        content = read_folder(directory / entry["folder"], labels, classes, needed)
    elif "tfds" in entry:
        splits = entry.get("splits")
        if not isinstance(splits, dict) or not set(splits) <= set(SPLITS):
            raise ValueError(
                f"its entry of {TABLE} must have 'splits', tfds' splits by ours, for example "
                f'{{"train": "train", "test": "test"}}, not {splits!r}'
            )
        content = read_set(directory, entry["tfds"], splits, labels, classes, needed)
    else:
        classes = _texts(entry, "classes")
        arrays = read_arrays(directory / f"{name}.npz", needed)
        content = Content(tuple(map(str, range(len(classes)))), arrays)
    classes = classes or tuple(label.replace("_", " ") for label in content.labels)
    if len(classes) != len(content.labels):
        raise ValueError(
            f"its entry of {TABLE} has {len(classes)} classes, and the data {len(content.labels)}: "
            f"{', '.join(content.labels[:5])}; give one name for each, in their order"
        )
    if len({*classes}) < len(classes):
        raise ValueError("a class name stands twice; the zero-shot head cannot tell them apart")
    task = Task(name, str(entry.get("title", name)), classes, templates, content.splits)
    hashes = entry.get("sha256") or {}
    for split, data in _checked(task).splits.items():
        if split in hashes and hashes[split] != data.sha256:
            raise ValueError(
                f"the {split} split is not the one whose hash {TABLE} lists; the data was changed "
                "or is of another version: build or copy both again"
            )
    return task


def _checked(task: Task) -> Task:
    """The task, if it can be worked with."""
    wrong = [template for template in task.templates if template.count("{}") != 1]
    if wrong or not task.templates:
        raise ValueError(
            f"its templates {wrong or list(task.templates)} in {TABLE}; each must hold '{{}}' "
            "once, and there must be at least one"
        )
    if len(task.classes) < 2:
        raise ValueError(f"{len(task.classes)} class; a task needs at least 2")
    for split, data in task.splits.items():
        if len(data) == 0:
            raise ValueError(f"the {split} split holds no image")
        if data.labels.min() < 0 or data.labels.max() >= len(task.classes):
            raise ValueError(
                f"{split} labels run from {data.labels.min()} to {data.labels.max()}, but "
                f"{len(task.classes)} class names allow 0 to {len(task.classes) - 1}"
            )
    return task


def _texts(entry: dict[str, Any], key: str) -> tuple[str, ...]:
    value = entry.get(key)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"its entry of {TABLE} must have {key!r}, a list of texts, not {value!r}")
    return tuple(value)
