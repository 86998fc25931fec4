"""A classification task: named classes, prompt templates, and images by split."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orthoreg_jax.words import counted

from .arrays import read_arrays
from .catalogue import KNOWN, entries, other_training_set
from .class_names import Name, first_name
from .content import HELD_OUT
from .facts import Facts, changed_images
from .hub import read_hub
from .notes import Note, note
from .repositories import Repository
from .sources import read_folder, read_known, read_set
from .split import Split
from .table import EMBEDDED, SPLITS, TABLE, check_entry, check_name, read_table
from .unknown import unknown_task

MOST_NAMED = 20
PROMPTS = ("title", "templates", "classes", "labels")  # keys that the catalogue provides


@dataclasses.dataclass(frozen=True, repr=False)
class Task:
    """One classification task.

    Attributes:
      name: name in configs and files.
      title: name in tables.
      classes: class names as prompts use them, in the order of the labels; a class with several
        names is a tuple.
      templates: prompts that contain one "{}".
      splits: "train", "val" and "test"; a control task has no "train". Each has `images`, where
        `images[row]` is a uint8 array (h, w, 3), and `labels`, positions in `classes`.
      notes: what was passed over or decided while its images were looked for.

    Examples:
      >>> task = oj.load_tasks("embedded", ["emoji"])["emoji"]
      >>> task.title, task.templates[0].format(task.classes[0])
      ('Emoji groups', 'an emoji of a smiley face')
    """

    name: str
    title: str
    classes: tuple[Name, ...]
    templates: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[Note, ...] = ()

    @property
    def holds_out(self) -> bool:
        """Whether its validation split was drawn from train, anew for each number of images."""
        return any(each.what == HELD_OUT for each in self.notes)

    def remarks(self) -> list[Note]:
        """Notes from the search for images, and on what reading them drops or changes."""
        found = [facts for data in self.splits.values() for facts in data.inspect()]
        return [*self.notes, *changed_images(found)]

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(split)} {name}" for name, split in self.splits.items())
        return f"Task({self.name!r}: {len(self.classes)} classes, {counts} images)"

    @property
    def prompts_sha256(self) -> str:
        """Hash of the classes and templates, from which the zero-shot head is built."""
        text = json.dumps([self.classes, self.templates])
        return hashlib.sha256(text.encode()).hexdigest()


def data_directory(source: str) -> pathlib.Path:
    """The folder of a data source: "embedded", or a path."""
    if source == "embedded":
        return EMBEDDED
    return pathlib.Path(source)


def load_tasks(source: str, names: Sequence[str], control: str | None = None) -> dict[str, Task]:
    """Reads and checks all tasks of an experiment before any work starts.

    A task is an entry in the data folder's tasks.json, or one of the field's (see `catalogue`).
    An entry has "classes" and "templates"; without either, it is the field's task of this name
    with images from elsewhere. It also has one of

    * nothing more: the images are in NAME.npz;
    * "folder": images are FOLDER/SPLIT/CLASS/*.jpg, or FOLDER/CLASS/*.jpg with lists of their
      paths in FOLDER/SPLIT.txt; "labels" are the directories' names in the order of "classes",
      needed where the two differ (without both, the directories name the classes);
    * "tfds": a set prepared by tensorflow-datasets below the data folder; "splits" says which of
      its splits are train, val and test;
    * "hub": parquet files of a hub data set that `orthoreg data prepare` fetched, or of a folder
      below the data folder; "config", "image" and "label" choose where it has several, "splits"
      says which of its splits are train, val and test, "revision" which commit, tag or branch;
    * "part_of" and "part": another task, with only the images of these classes; its head still
      distinguishes all classes;
    * "from": "embedded", or another data folder (relative to this one) that has the task of this
      name.

    The validation split may be called val, valid or validation. If it is missing, it is cut from
    train: 10 %, at most 5000 images, seed 0. An entry's "about" may contain anything.

    The header of every image is read; `check_tasks` decodes the images completely.

    Args:
      source: "embedded", or a folder.
      names: tasks to fine-tune; each needs train, val and test.
      control: a control task, which needs val and test only.

    Returns:
      Tasks by name, in the order given, the control task last.

    Raises:
      ValueError: all that is missing or wrong in any of the tasks, in one message.

    Examples:
      >>> digits = oj.load_tasks("embedded", ["digits"])["digits"]
      >>> digits.classes[:3], list(digits.splits)
      (('zero', 'one', 'two'), ['train', 'val', 'test'])
    """
    if isinstance(names, str):
        raise ValueError(f"names is the text {names!r}; give a list of names: [{names!r}]")
    directory = data_directory(source)
    needed = dict.fromkeys(names, SPLITS) | ({control: SPLITS[1:]} if control else {})
    return load_each(directory, read_table(source, directory), needed)


def load_each(
    directory: pathlib.Path, table: Mapping[str, Any], needed: Mapping[str, Sequence[str]]
) -> dict[str, Task]:
    """Tasks by name, with the splits that each needs; reads the header of every image.

    Raises:
      ValueError: all that is missing or wrong in any of the tasks, in one message.
    """
    problems: list[str] = []
    tasks: dict[str, Task] = {}
    for name, splits in needed.items():
        try:
            tasks[name] = load_task(directory, table, name, splits)
        except (ValueError, OSError) as error:  # OSError: the path is not valid
            problems.append(f"task {name!r}: {error}")
    if not problems:  # last, because it takes longest
        for name, task in tasks.items():
            found = [facts for data in task.splits.values() for facts in data.inspect()]
            if damage := unreadable_images(found):
                problems.append(f"task {name!r}: {damage}")
    if problems:
        raise ValueError("data: " + "\n  ".join(problems))
    return tasks


def unreadable_images(facts: Sequence[Facts]) -> str:
    """Message about images that cannot be read; "" if all can."""
    found = [each.problem for each in facts if each.problem]
    if not found:
        return ""
    more = f"\n    and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    images = counted(len(found), "image")
    return f"{images} cannot be read:\n    " + "\n    ".join(found[:MOST_NAMED]) + more


def load_task(
    directory: pathlib.Path, table: Mapping[str, Any], name: str, needed: Sequence[str]
) -> Task:
    """Loads one task by name; see `load_tasks`.

    Raises:
      ValueError: the task does not exist, or something in it is wrong.
    """
    check_name(name)
    if name in table:
        entry = check_entry(table[name], name in KNOWN)
        if "from" in entry:
            return _load_from(directory, entry["from"], name, needed)
        if "part_of" in entry:
            return _load_part(directory, table, name, entry, needed)
        return _load_entry(directory, name, entry, needed)
    if name in KNOWN:
        entry, known = entries()[name], KNOWN[name]
        content = read_known(directory, name, known, entry, needed)
        classes = tuple(entry["classes"])
        templates, notes = tuple(entry["templates"]), content.notes
        images = len(content.splits.get("train", ()))
        if images and (what := other_training_set(name, images)):
            notes = (Note(images, what), *notes)
        task = Task(name, entry["title"], classes, templates, content.splits, notes)
        return _checked(task)
    raise ValueError(unknown_task(directory, table, name))


def _load_from(directory: pathlib.Path, source: str, name: str, needed: Sequence[str]) -> Task:
    """Loads the task from another data folder."""
    there = data_directory(source) if source == "embedded" else directory / source
    table = read_table(source, there)
    if "from" in _keys(table.get(name)):
        raise ValueError(f"{there / TABLE} takes it from elsewhere, too; name that folder instead")
    return load_task(there, table, name, needed)


def _load_part(
    directory: pathlib.Path,
    table: Mapping[str, Any],
    name: str,
    entry: Mapping[str, Any],
    needed: Sequence[str],
) -> Task:
    """A task with only the images of some classes of another task."""
    whole_name, wanted = entry["part_of"], entry["part"]
    if {"part_of", "from"} & _keys(table.get(whole_name, {"part_of": ""})):
        raise ValueError(
            f"its entry in {TABLE} says part_of {whole_name!r}; allowed: a task with its own images"
        )
    whole = _load_entry(directory, whole_name, check_entry(table[whole_name]), needed)
    names = [first_name(each) for each in whole.classes]
    if not set(wanted) <= set(names):
        raise ValueError(
            f"its entry in {TABLE} says part {wanted!r}; allowed: a list of classes of "
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
    return dataclasses.replace(whole, name=name, title=entry.get("title", name), splits=splits)


def _keys(entry: object) -> set[str]:
    return set(entry) if isinstance(entry, dict) else set()


def entry_repository(entry: Mapping[str, Any]) -> Repository:
    """The data set that an entry with "hub" names."""
    keys = {key: entry[key] for key in ("config", "image", "label", "revision") if key in entry}
    return Repository(entry["hub"], entry.get("splits", {}), **keys)


def _load_entry(
    directory: pathlib.Path, name: str, entry: Mapping[str, Any], needed: Sequence[str]
) -> Task:
    """A task with its own images; without prompts in the entry, one of the field's tasks."""
    if "templates" not in entry:
        entry = {key: entries()[name][key] for key in PROMPTS} | dict(entry)
    labels = tuple(entry.get("labels", ()))
    classes: tuple[Name, ...] = tuple(entry.get("classes", ()))
    if "folder" in entry:
        content = read_folder(directory / entry["folder"], labels, classes, needed)
    elif "hub" in entry:
        content = read_hub(directory, entry_repository(entry), labels, classes, needed)
    elif "tfds" in entry:
        content = read_set(directory, entry["tfds"], entry["splits"], labels, classes, needed)
    else:
        content = read_arrays(directory / f"{name}.npz", needed)
        content = content._replace(labels=tuple(map(str, range(len(classes)))))
    classes = classes or tuple(label.replace("_", " ") for label in content.labels)
    if len(classes) != len(content.labels):
        raise ValueError(
            f"its entry in {TABLE} has {counted(len(classes), 'class', 'classes')}, but the data "
            f"has {len(content.labels)}: {', '.join(content.labels[:5])}; give one name for each, "
            "in this order"
        )
    if len({*classes}) < len(classes):
        raise ValueError("a class name appears twice; the zero-shot head cannot separate the two")
    title, templates = entry.get("title", name), tuple(entry["templates"])
    task = _checked(Task(name, title, classes, templates, content.splits, content.notes))
    hashes = entry.get("sha256", {})
    for split, data in task.splits.items():
        if split in hashes and hashes[split] != data.sha256:
            raise ValueError(
                f"the {split} split does not have the hash that {TABLE} lists; the data was "
                "changed or is another version: build or copy both again"
            )
    return task


def _checked(task: Task) -> Task:
    """Returns the task if its prompts, classes and splits are valid; raises ValueError if not."""
    wrong = [template for template in task.templates if template.count("{}") != 1]
    if wrong or not task.templates:
        raise ValueError(
            f"its templates {wrong or list(task.templates)} in {TABLE}; each must contain '{{}}' "
            "once, and there must be at least one"
        )
    if len(task.classes) < 2:
        raise ValueError(
            f"{counted(len(task.classes), 'class', 'classes')}; a task needs at least 2"
        )
    notes = list(task.notes)
    for split, data in task.splits.items():
        if len(data) == 0:
            raise ValueError(f"the {split} split contains no images")
        if data.labels.min() < 0 or data.labels.max() >= len(task.classes):
            raise ValueError(
                f"{split} labels run from {data.labels.min()} to {data.labels.max()}, but "
                f"{len(task.classes)} class names allow 0 to {len(task.classes) - 1}"
            )
        absent = sorted({*range(len(task.classes))} - {*data.labels.tolist()})
        if absent:
            names = [first_name(task.classes[label]) for label in absent]
            notes.append(note(f"classes without an image in {split}", names))
    return dataclasses.replace(task, notes=tuple(notes))
