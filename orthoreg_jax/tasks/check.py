"""Checks an experiment's data: found or missing, image counts, hashes, duplicates."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from orthoreg_jax.extras import install
from orthoreg_jax.words import counted, plural

from .catalogue import KNOWN
from .class_names import first_name
from .facts import changed_images
from .notes import Note
from .split import content_sha256
from .table import SPLITS, read_table
from .task import Task, data_directory, load_task, unreadable_images


class SplitFacts(NamedTuple):
    """Facts about one split of a task."""

    images: int
    fewest: int  # images in the smallest class
    most: int
    sha256: str


class TaskFacts(NamedTuple):
    """Facts about one task.

    `problem` says what is missing or wrong; unless only images are damaged, the rest is empty.
    `duplicates` counts, for two splits, images of the second that are identical, byte for byte, to
    one of the first. `notes` say what was skipped, and what reading drops or changes.
    """

    name: str
    problem: str
    title: str = ""
    classes: tuple[str, ...] = ()
    splits: dict[str, SplitFacts] = {}
    duplicates: dict[tuple[str, str], int] = {}
    licence: str = ""
    notes: tuple[Note, ...] = ()

    def __str__(self) -> str:
        """A summary of a few lines."""
        wrong = f"{self.name}: MISSING OR WRONG\n  {self.problem}"
        if not self.splits:
            return wrong
        names = ", ".join(self.classes[:4]) + (", ..." if len(self.classes) > 4 else "")
        classes = counted(len(self.classes), "class", "classes")
        title = f"{self.title}, {classes} ({names})"
        lines = [wrong, f"  {title}"] if self.problem else [f"{self.name}: {title}"]
        for split, each in self.splits.items():
            per_class = f"{each.fewest} to " * (each.fewest < each.most) + f"{each.most} a class"
            images = plural(each.images, "image")
            lines.append(
                f"  {split:5} {each.images:7} {images}, {per_class}, sha256 {each.sha256[:16]}"
            )
        found = [f"{count} of {second} in {first}" for (first, second), count in
                 self.duplicates.items() if count]  # fmt: skip
        lines.append(f"  exact duplicates between splits: {', '.join(found) or 'none'}")
        lines += [f"  {each}" for each in self.notes]
        if self.licence:
            lines.append(f"  licence: {self.licence}")
        return "\n".join(lines)


def check_tasks(
    source: str, names: Sequence[str], control: str | None = None
) -> Iterator[TaskFacts]:
    """Facts about one task after another; a missing task does not stop the check.

    Every image is decoded, in parallel; the findings are cached. Printed one by one, the facts are
    the output of `orthoreg data check`.

    Args:
      source: as `config.data`.
      names: names of the tasks.
      control: name of the control task.

    Raises:
      ValueError: there is no such data folder, or its tasks.json cannot be read at all.

    Examples:
      >>> for facts in oj.check_tasks("embedded", ["digits"]):
      ...     print(facts.name, facts.problem or "found")
      digits found
    """
    directory = data_directory(source)
    table = read_table(source, directory)
    for name in (*names, *([control] if control else [])):
        needed = SPLITS[1:] if name == control else SPLITS
        try:
            facts = describe(load_task(directory, table, name, needed))
            yield facts if name in table else facts._replace(licence=KNOWN[name].licence)
        except (ValueError, OSError) as error:  # OSError: the path is not valid
            yield TaskFacts(name, str(error))


def describe(task: Task) -> TaskFacts:
    """Facts about a task; decodes every image."""
    facts, found = {}, {}
    for split, data in task.splits.items():
        found[split] = data.inspect(whole=True)
        counts = np.bincount(data.labels, minlength=len(task.classes))
        there = all(each.sha256 for each in found[split])
        digest = content_sha256(found[split], data.labels) if there else ""
        facts[split] = SplitFacts(len(data), int(counts.min()), int(counts.max()), digest)
    duplicates = {}
    for first, second in itertools.combinations(facts, 2):
        known = {each.sha256 for each in found[first]} - {b""}
        duplicates[first, second] = sum(each.sha256 in known for each in found[second])
    classes = tuple(first_name(name) for name in task.classes)
    every = list(itertools.chain.from_iterable(found.values()))
    notes = (*task.notes, *changed_images(every))
    damage = unreadable_images(every)
    return TaskFacts(task.name, damage, task.title, classes, facts, duplicates, "", notes)


def prepare_task(directory: pathlib.Path, name: str) -> str:
    """Downloads and prepares a task of the catalogue with tensorflow-datasets.

    Returns a line that says what was done.

    Args:
      directory: the data folder, which is also tfds' data directory.
      name: name of the task.

    Raises:
      ValueError: tfds does not have the task, or TensorFlow is not installed.
    """
    known = KNOWN.get(name)
    if known is None or not known.tfds_splits:
        reason = "is not one of the field's tasks" if known is None else "is not prepared by tfds"
        place = f"; it is described at {known.source}" if known else ""
        raise ValueError(f"{name}: {reason}; put its images into the data folder{place}")
    if (directory / known.tfds).is_dir():
        return f"{name}: already prepared, {directory / known.tfds}"
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{name}: preparing needs TensorFlow (reading does not); install it with "
            f"{install('prepare')}"
        ) from error
    import tensorflow_datasets as tfds

    builder = tfds.builder(known.tfds, data_dir=str(directory), file_format="array_record")
    builder.download_and_prepare()
    return f"{name}: prepared, {directory / known.tfds}"
