"""Tasks stored as parquet files: a data set in the hub's cache, or a local folder.

Nothing is downloaded here; see `preparing`.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from orthoreg_jax.storage import StorageError, read_json

from .class_names import ClassNames, Name, first_name, labels_in_order
from .content import Content, NotThereError, names_on_disk, splits_to_read, with_validation
from .notes import Note, listed, shown
from .parquet import Schema, read_schema, read_split
from .repositories import Repository
from .split import Split
from .table import SPLITS

RECORD = "hub.json"  # in a data folder: the revision fetched of each set
# train-00000-of-00002-0123abcd.parquet, train_0.parquet, train.parquet; or 0000.parquet in train/.
FILE = re.compile(r"(?P<split>.*?)(?:[-_.](?P<number>\d+)(?:-of-(?P<all>\d+))?(?:-[0-9a-f]+)?)?")


def read_hub(
    data: pathlib.Path,
    set_: Repository,
    labels: Sequence[str],
    classes: Sequence[Name],
    needed: Sequence[str],
) -> Content:
    """Reads a set of parquet files as a task.

    The files are below `data`, in a folder with the set's name, or else in the hub's cache.

    Args:
      data: the data folder.
      set_: the set, with the names of its columns and splits.
      labels: the set's class names in the order of `classes`; empty: the names in the set.
      classes: class names in prompts.
      needed: splits to read.

    Raises:
      ValueError: the set is missing or incomplete, or its classes cannot be matched to the task's.
    """
    root, title, paths = find_set(data, set_)
    there = split_files(paths, set_.config, title)
    present = present_splits(there, set_, needed, title)
    first = there[next(iter(present.values()))][0]
    schema = read_schema(root / first, set_.image, set_.label)
    order, positions, notes = class_order(schema, set_, labels, classes, title)

    def read(split: str) -> Split:
        files = [root / path for path in there[present[split]]]
        for path in files:
            if (other := read_schema(path, schema.image, schema.label)).names != schema.names:
                raise ValueError(
                    f"{shown(path)}: names other classes ({listed(other.names)}) than "
                    f"{first} ({listed(schema.names)}); fetch the set again"
                )
        images, numbers = read_split(files, schema, f"{title}/{split}")
        if len(numbers) and numbers.max() >= len(positions):
            raise ValueError(
                f"{title}: its {present[split]} labels run to {numbers.max()}, but there are "
                f"{len(positions)} classes"
            )
        return Split(images, positions[numbers])

    splits, more = with_validation(read, present, needed, title)
    count = sum(len(split) for split in splits.values())
    return Content(order, splits, (Note(count, f"images of {title}"), *more, *notes))


def class_order(
    schema: Schema,
    set_: Repository,
    labels: Sequence[str],
    classes: Sequence[Name],
    title: str,
) -> tuple[tuple[str, ...], Int[np.ndarray, " c"], list[Note]]:
    """The set's names in the order of our classes, and the position of each of its numbers.

    Raises:
      ValueError: the set's classes cannot be matched to ours.
    """
    count = len(labels) or len(classes)
    numbers = tuple(map(str, range(len(schema.names) or count)))
    named = schema.names not in ((), numbers)
    if not named and not count:
        raise ValueError(
            f"{title}: does not name its classes; give 'classes' in the order of its numbers"
        )
    names = schema.names if named else numbers
    if not labels:
        labels = labels_in_order(names, classes) if named else numbers
    known = ClassNames(labels, classes)
    places = [known.find(name) for name in names]
    if set(places) == set(range(len(labels))) and len(places) == len(labels):
        order = np.array(places, np.int32)
    elif set_.numbered and len(names) == len(labels):
        wrong = [f"{name} is number {number}, but ours is number {place}"
                 for number, (name, place) in enumerate(zip(names, places, strict=True))
                 if named and place not in (None, number)]  # fmt: skip
        if wrong:
            raise ValueError(f"{title}: its classes are in another order: {listed(wrong, most=3)}")
        order = np.arange(len(labels), dtype=np.int32)
    else:
        strange = [name for name, place in zip(names, places, strict=True) if place is None]
        what = f"calls classes {listed(strange)}" if strange else f"has {len(names)} classes"
        raise ValueError(
            f"{title}: {what}, but the task's {len(labels)} are {listed(labels)}; add 'labels', "
            "the set's names (or numbers) in the order of the task's classes"
        )
    by_number = not named and bool(classes) and tuple(map(first_name, classes)) != numbers
    notes = [Note(len(order), "classes read by number, as the set names none")] * by_number
    return tuple(labels), order, notes


def find_set(data: pathlib.Path, set_: Repository) -> tuple[pathlib.Path, str, list[str]]:
    """The folder of a set's files, its title with the revision, and the paths of its files.

    Raises:
      NotThereError: the set is not below the data folder, and not complete in the hub's cache.
      ValueError: the name is not valid.
    """
    folder = data / set_.name
    if folder.is_dir():
        return folder, shown(folder), _below(folder)
    if set_.name.count("/") != 1 or set_.name.startswith((".", "/", "~")):
        raise ValueError(f"{shown(folder)}: no such folder, and not USER/NAME of a set on the hub")
    import huggingface_hub

    record = recorded(data, set_)
    revision = record.get("commit") or set_.revision or "main"
    try:
        found = huggingface_hub.snapshot_download(
            set_.name,
            repo_type="dataset",
            revision=revision,
            local_files_only=True,
            allow_patterns=[],  # fetch nothing; whether all files exist is checked by name below
        )
    except (OSError, ValueError) as error:
        raise NotThereError(
            f"{set_.name}: revision {revision} is not in the hub's cache, {hub_cache()}; fetch it "
            "with `orthoreg data prepare`"
        ) from error
    root = pathlib.Path(found)
    missing = [path for path in record.get("files", ()) if not (root / path).is_file()]
    if missing:
        raise NotThereError(
            f"{set_.name}: {listed(missing)} are no longer in the hub's cache, {hub_cache()}; "
            "fetch them with `orthoreg data prepare`"
        )
    return root, f"{set_.name}@{root.name[:12]}", list(record.get("files", ())) or _below(root)


def is_there(data: pathlib.Path, set_: Repository) -> bool:
    """Whether any of a set's files are below the data folder or in the hub's cache."""
    try:
        return bool(find_set(data, set_)[2])
    except NotThereError:
        return False


def hub_cache() -> pathlib.Path:
    """Folder in which the hub's own library caches downloads."""
    import huggingface_hub.constants  # its package loads submodules only when asked by name

    return pathlib.Path(huggingface_hub.constants.HF_HUB_CACHE)


def recorded(data: pathlib.Path, set_: Repository) -> dict[str, Any]:
    """What was fetched of a set for this data folder: {"commit", "files"}; {} if nothing was.

    Raises:
      ValueError: the record cannot be read.
    """
    return records(data).get(record_key(set_), {})


def records(data: pathlib.Path) -> dict[str, dict[str, Any]]:
    """What was fetched, by set.

    Raises:
      ValueError: the file is not a valid record.
    """
    path = data / RECORD
    try:
        found = read_json(path) if os.path.lexists(path) else {}
    except StorageError as error:
        raise ValueError(f"{error}; remove it, and prepare the data again") from error
    if not isinstance(found, dict) or not all(map(_is_record, found.values())):
        raise ValueError(
            f"{shown(path)}: is not a record of fetched sets; remove it, and prepare the data again"
        )
    return found


def _is_record(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("commit"), str):
        return False
    files = value.get("files")
    return isinstance(files, list) and all(isinstance(each, str) for each in files)


def record_key(set_: Repository) -> str:
    """Key of a set in the record: its name, configuration and requested revision."""
    return f"{set_.name}{set_.config and f' {set_.config}'}{set_.revision and f'@{set_.revision}'}"


def present_splits(
    there: Mapping[str, Sequence[str]], set_: Repository, needed: Sequence[str], title: str
) -> dict[str, str]:
    """Split -> its name in the set, for the splits that the set has.

    Raises:
      NotThereError: the set lacks a split that is needed.
    """
    called = dict(set_.splits) or names_on_disk(lambda name: name in there, title)
    present = {split: name for split, name in called.items() if name in there}
    wanted = splits_to_read(needed, present)
    if missing := [called.get(split, split) for split in SPLITS if split in wanted - {*present}]:
        way = "" if set_.splits else "; say in 'splits' which of them are train, val and test"
        raise NotThereError(
            f"{title}: has no parquet file of the split {' and '.join(missing)}; it has those of "
            f"{listed(there) or 'none'}{way}"
        )
    return present


def _below(root: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.parquet"))


def split_files(paths: Iterable[str], config: str, title: str) -> dict[str, list[str]]:
    """Split -> its parquet files, in order.

    Args:
      paths: paths of all files of the set.
      config: directory of the set's configuration; "": it has only one.
      title: name of the set in errors.

    Raises:
      ValueError: the set has several configurations, or the names of its files show that others
        are missing.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted(paths):
        *above, file = path.split("/")
        match = FILE.fullmatch(file.removesuffix(".parquet"))
        if not file.endswith(".parquet") or match is None:
            continue
        split = match["split"]
        if split.isdigit() and above:  # 0000.parquet, from the hub's own conversion
            split = above.pop()
        if not config or config in above:
            found.setdefault(split, {}).setdefault("/".join(above), []).append(path)
    for split, places in found.items():
        if len(places) > 1:
            raise ValueError(
                f"{title}: its split {split} is in {listed(places)}; name one of them as 'config'"
            )
    files = {split: next(iter(places.values())) for split, places in found.items()}
    for split, names in files.items():
        _check_whole(split, names, title)
    return files


def _check_whole(split: str, names: Sequence[str], title: str) -> None:
    """Raises ValueError if the "-of-" in the names of the files shows that others are missing."""
    matches = [FILE.fullmatch(pathlib.PurePath(name).stem) for name in names]
    counts = {int(match["all"]) for match in matches if match and match["all"]}
    numbers = sorted(int(match["number"]) for match in matches if match and match["all"])
    if counts and (len(counts) > 1 or numbers != list(range(min(counts)))):
        raise NotThereError(
            f"{title}: its split {split} is incomplete: of {' or '.join(map(str, sorted(counts)))} "
            f"files it has {listed(map(str, numbers), most=20)}; fetch it again with `orthoreg "
            "data prepare`, or copy the rest"
        )
