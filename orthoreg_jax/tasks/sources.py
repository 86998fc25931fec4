"""Where a task's images come from: arrays in one file, directories, or sets prepared by tfds."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .catalogue import Known
from .folder import class_keys, find_images, name_key, read_directory, read_list
from .records import find_builder, read_records
from .split import ArrayImages, Split, cut_validation

SPLITS = ("train", "val", "test")
Name = str | tuple[str, ...]  # of a class in prompts; several: all of them are used


class Content(NamedTuple):
    """What a source gives: classes as the data calls them, and splits."""

    labels: tuple[str, ...]
    splits: dict[str, Split]


def read_arrays(path: pathlib.Path, needed: Sequence[str]) -> dict[str, Split]:
    """Splits of one .npz with SPLIT_images and SPLIT_labels, the split val being optional.

    Raises:
      ValueError: no such file, a damaged one, or arrays that are missing or no images.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; build or copy it there") from error
    except Exception as error:  # zipfile, zlib, numpy: each its own kind for a damaged file
        raise ValueError(f"{path} cannot be read ({error}); build or copy it again") from error
    present = [split for split in SPLITS if f"{split}_images" in arrays]
    missing = [f"{split}_labels" for split in present if f"{split}_labels" not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays)}")

    def read(split: str) -> Split:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        shape = images.shape[1:]
        grey_or_rgb = images.ndim == 3 or (images.ndim == 4 and shape[-1] == 3)
        if images.dtype != np.uint8 or not grey_or_rgb:
            raise ValueError(
                f"{split} images are {images.dtype} of shape {images.shape}, expected uint8 "
                "(n, height, width) or (n, height, width, 3)"
            )
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"{split} labels are {labels.dtype} of shape {labels.shape}, expected one integer "
                f"for each of the {len(images)} images"
            )
        return Split(ArrayImages(images), labels)

    return _with_validation(read, present, needed, str(path))


def read_folder(
    directory: pathlib.Path, labels: Sequence[str], classes: Sequence[Name], needed: Sequence[str]
) -> Content:
    """A user's own task: DIRECTORY/SPLIT/CLASS/image, the split val being optional.

    Or DIRECTORY/CLASS/image, and which image is in which split, and in what order, in
    DIRECTORY/SPLIT.txt: one path below DIRECTORY a line.

    Args:
      directory: of the task.
      labels: names of the class directories; empty: those that train (or test) has, in the order
        of `classes`, or without them in that of the alphabet.
      classes: as prompts call them; directories may have these names too.
      needed: splits.
    """
    lists = [split for split in SPLITS if (directory / f"{split}.txt").is_file()]
    present = lists or [split for split in SPLITS if (directory / split).is_dir()]
    if not labels:
        root = directory if lists else directory / (present[0] if present else "train")
        found = find_images(root) if root.is_dir() else []
        labels = labels_in_order(sorted({path.rpartition("/")[0] for path in found}), classes)
    keys = class_keys(labels, [first_name(name) for name in classes] or labels)

    def read(split: str) -> Split:
        if lists:
            return read_list(directory, directory / f"{split}.txt", labels, keys)
        return read_directory(directory / split, labels, keys)

    return Content(tuple(labels), _with_validation(read, present, needed, str(directory)))


def read_set(
    data: pathlib.Path,
    name: str,
    splits: dict[str, str],
    labels: Sequence[str],
    classes: Sequence[Name],
    needed: Sequence[str],
) -> Content:
    """A set prepared by tensorflow-datasets.

    Args:
      data: tfds' data directory.
      name: of the set, or "set/config".
      splits: split -> tfds split, for example "train[:90%]".
      labels: as the set calls its classes; empty: those of the set, in the order of `classes`
        unless they are numbers.
      classes: as prompts call them.
      needed: splits.
    """
    builder = find_builder(data, name)
    if not labels:
        feature = builder.info.features["label"]
        numbers = [str(number) for number in range(feature.num_classes)]
        named = feature.names not in (None, numbers)
        labels = labels_in_order(feature.names, classes) if named else numbers

    def read(split: str) -> Split:
        return read_records(builder, splits[split], labels)

    return Content(tuple(labels), _with_validation(read, list(splits), needed, name))


def read_known(
    data: pathlib.Path, name: str, known: Known, entry: dict[str, Any], needed: Sequence[str]
) -> Content:
    """A task of the catalogue: as directories, as published lists, or as a prepared set.

    Raises:
      ValueError: it is in none of the places; all are named, and where to get the data.
    """
    labels = entry["labels"]
    keys = class_keys(labels, [first_name(names_of) for names_of in entry["classes"]])
    directories = {split: data / path for split, path in known.folders.items()}
    lists = {split: data / path for split, path in known.lists.items()}
    if directories["test"].is_dir():
        present = [split for split, place in directories.items() if place.is_dir()]

        def read(split: str) -> Split:
            return read_directory(directories[split], labels, keys)

    elif lists and lists["test"].is_file():
        present = [split for split, place in lists.items() if place.is_file()]

        def read(split: str) -> Split:
            return read_list(data / known.root, lists[split], labels, keys)

    elif known.tfds_splits and (data / known.tfds).is_dir():
        return read_set(data, known.tfds, dict(known.tfds_splits), labels, (), needed)
    else:
        places = [f"{directories['test']}/CLASS/"]
        places += [str(lists["test"])] if lists else []
        places += [f"{data / known.tfds}/ (prepared by tfds)"] if known.tfds_splits else []
        raise ValueError(
            f"no data at {' or '.join(places)}; it is described at {known.source} "
            f"(licence: {known.licence})"
        )
    return Content(tuple(labels), _with_validation(read, present, needed, name))


def labels_in_order(labels: Sequence[str], classes: Sequence[Name]) -> Sequence[str]:
    """The data's own names of the classes, in the order of `classes`, if there are any.

    Raises:
      ValueError: classes by whose names it cannot be told which is which.
    """
    if len(classes) != len(labels):  # none are given, or it is said later that they do not fit
        return labels
    by_key = {name_key(label): label for label in labels}
    keys = [name_key(first_name(name)) for name in classes]
    if set(keys) != set(by_key):
        raise ValueError(
            f"its entry has classes ({', '.join(map(first_name, classes[:3]))}, ...) whose names "
            f"are not those of the data ({', '.join(labels[:3])}, ...), and no 'labels'; add "
            "'labels', the data's names in the order of 'classes'"
        )
    return [by_key[key] for key in keys]


def first_name(name: Name) -> str:
    """The name of a class that may have several."""
    return name if isinstance(name, str) else name[0]


def _with_validation(
    read: Callable[[str], Split], present: Sequence[str], needed: Sequence[str], place: str
) -> dict[str, Split]:
    """The needed splits; val is cut from train where there is none."""
    wanted = set(needed)
    cut = "val" in wanted and "val" not in present
    if cut:
        wanted = wanted - {"val"} | {"train"}
    missing = [split for split in SPLITS if split in wanted and split not in present]
    if missing:
        raise ValueError(
            f"{place}: has no {' and no '.join(missing)} split"
            f"{', of which 10 % would be the validation split' if cut else ''}; it has "
            f"{', '.join(present) or 'none'}"
        )
    splits = {split: read(split) for split in SPLITS if split in wanted}
    if cut:
        splits["train"], splits["val"] = cut_validation(splits["train"])
    return {split: splits[split] for split in needed}
