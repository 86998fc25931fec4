"""A classification task: named classes, prompt templates, and images by split."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from orthoreg_jax.storage import StorageError, read_json

SPLITS = ("train", "val", "test")
TABLE = "tasks.json"


@dataclasses.dataclass(frozen=True)
class Split:
    """Images (RGB, or grey without a last axis) and labels of one split."""

    images: UInt8[np.ndarray, ...]
    labels: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def sha256(self) -> str:
        """Hash of the bytes of the images and of the labels (as little-endian int32)."""
        data = np.ascontiguousarray(self.images).tobytes()
        return hashlib.sha256(data + self.labels.astype("<i4").tobytes()).hexdigest()

    def rgb(self) -> UInt8[np.ndarray, "n h w 3"]:
        """The images with three channels."""
        if self.images.ndim == 4:
            return self.images
        return np.repeat(self.images[..., None], 3, axis=-1)


@dataclasses.dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
      name: as configs and files call it.
      title: as tables call it.
      classes: names as they read in a prompt, in the order of the labels.
      templates: prompts with one "{}".
      splits: "train", "val" and "test"; a control task has no "train".
    """

    name: str
    title: str
    classes: tuple[str, ...]
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

    Args:
      source: "embedded", or a folder with tasks.json and one .npz per task. An entry with
        "part_of", another task's name, and "part", a list of its classes, is that task with the
        images of these classes alone; its head still tells all classes apart.
      names: tasks to fine-tune; each needs train, val and test.
      control: a control task, which needs val and test only.

    Returns:
      Tasks by name, in the order given, the control task last.

    Raises:
      ValueError: everything that is missing or wrong in any of them, in one message.
    """
    if isinstance(names, str):
        raise ValueError(f"names is the text {names!r}; give a list of names: [{names!r}]")
    directory = data_directory(source)
    try:
        table = read_json(directory / TABLE)
    except StorageError as error:
        raise ValueError(
            f"data {source!r}: {error}; a data folder holds {TABLE}, which describes its tasks, "
            "and one .npz for each"
        ) from error
    table = table.get("tasks") if isinstance(table, dict) else None
    if not isinstance(table, dict) or not all(isinstance(item, dict) for item in table.values()):
        raise ValueError(
            f'data {source!r}: {TABLE} must read {{"tasks": {{NAME: {{"classes": [...], '
            '"templates": [...]}}}'
        )
    problems: list[str] = []
    tasks: dict[str, Task] = {}
    for name in (*names, *([control] if control else [])):
        if name not in table:
            problems.append(f"task {name!r} is not in {directory / TABLE}: {', '.join(table)}")
            continue
        needed = SPLITS[1:] if name == control else SPLITS
        try:
            tasks[name] = _load_entry(directory, table, name, needed)
        except ValueError as error:
            problems.append(f"task {name!r}: {error}")
    if problems:
        raise ValueError("data: " + "\n  ".join(problems))
    return tasks


def _load_entry(
    directory: pathlib.Path, table: dict[str, Any], name: str, needed: Sequence[str]
) -> Task:
    """A task of its own, or the images of some classes of another task."""
    entry = table[name]
    if "part_of" not in entry:
        return _load_task(directory, name, entry, needed)
    whole_name = entry["part_of"]
    if "part_of" in table.get(whole_name, {"part_of": ""}):
        raise ValueError(
            f"its entry of {TABLE} says part_of {whole_name!r}; allowed: a task with images of its "
            "own"
        )
    whole, wanted = _load_task(directory, whole_name, table[whole_name], needed), entry.get("part")
    if not isinstance(wanted, list) or not wanted or not set(wanted) <= set(whole.classes):
        raise ValueError(
            f"its entry of {TABLE} says part {wanted!r}; allowed: a list of classes of "
            f"{whole_name!r}: {', '.join(whole.classes)}"
        )
    labels = [whole.classes.index(name) for name in wanted]
    splits = {split: _part(data, labels) for split, data in whole.splits.items()}
    empty = [split for split, data in splits.items() if len(data) == 0]
    if empty:
        raise ValueError(f"no image of {', '.join(wanted)} in the split {', '.join(empty)}")
    title = str(entry.get("title", name))
    return dataclasses.replace(whole, name=name, title=title, splits=splits)


def _part(data: Split, labels: Sequence[int]) -> Split:
    rows = np.isin(data.labels, labels)
    return Split(data.images[rows], data.labels[rows])


def _load_task(
    directory: pathlib.Path, name: str, entry: dict[str, Any], needed: Sequence[str]
) -> Task:
    path = directory / f"{name}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; build or copy it there") from error
    except Exception as error:  # zipfile, zlib, numpy: each its own kind for a damaged file
        raise ValueError(f"{path} cannot be read ({error}); build or copy it again") from error
    missing = [
        f"{split}_{kind}"
        for split in needed
        for kind in ("images", "labels")
        if f"{split}_{kind}" not in arrays
    ]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays)}")
    splits = {
        split: Split(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in needed
    }
    classes, templates = _texts(entry, "classes"), _texts(entry, "templates")
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise ValueError(
            f"its templates {wrong or list(templates)} in {TABLE}; each must hold '{{}}' once, and "
            "there must be at least one"
        )
    if len(classes) < 2:
        raise ValueError(f"{len(classes)} class; a task needs at least 2")
    if len(set(classes)) < len(classes):
        raise ValueError("a class name stands twice; the zero-shot head cannot tell them apart")
    hashes = entry.get("sha256") or {}
    for split, data in splits.items():
        _check_split(split, data, len(classes))
        if hashes.get(split, data.sha256) != data.sha256:
            raise ValueError(
                f"the {split} split of {path} is not the one whose hash {TABLE} lists; the file "
                "was changed or is of another version: build or copy both again"
            )
    return Task(name, str(entry.get("title", name)), classes, templates, splits)


def _texts(entry: dict[str, Any], key: str) -> tuple[str, ...]:
    value = entry.get(key)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"its entry of {TABLE} must have {key!r}, a list of texts, not {value!r}")
    return tuple(value)


def _check_split(split: str, data: Split, classes: int) -> None:
    images, labels = data.images, data.labels
    if len(images) == 0:
        raise ValueError(f"the {split} split holds no image")
    shape = images.shape[1:]
    grey_or_rgb = images.ndim == 3 or (images.ndim == 4 and shape[-1] == 3)
    if images.dtype != np.uint8 or not grey_or_rgb:
        raise ValueError(
            f"{split} images are {images.dtype} of shape {images.shape}, expected uint8 "
            "(n, height, width) or (n, height, width, 3)"
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{split} labels are {labels.dtype} of shape {labels.shape}, expected one integer for "
            f"each of the {len(images)} images"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{split} labels run from {labels.min()} to {labels.max()}, but {classes} class names "
            f"allow 0 to {classes - 1}"
        )
