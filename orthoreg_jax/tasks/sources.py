"""Finds a task's images in directories, published lists, or sets prepared by tfds."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from .catalogue import Known
from .class_names import ClassNames, Name, labels_in_order
from .content import SPLIT_FOLDERS, Content, NotThereError, names_on_disk, with_validation
from .folder import find_images, join, label_images, listed_images, read_directory
from .hub import is_there, read_hub
from .layouts import FOLDER_LAYOUTS, LISTED, Listed, find_layout, unread
from .metadata import find_tables, read_tables
from .notes import Note, listed, note, shown
from .records import find_builder, read_records
from .repositories import REPOSITORIES
from .split import Split, TransposedImages
from .table import SPLITS


def read_folder(
    directory: pathlib.Path, labels: Sequence[str], classes: Sequence[Name], needed: Sequence[str]
) -> Content:
    """A user's own task: DIRECTORY/SPLIT/CLASS/image; the split val is optional.

    Two other layouts work, too. Images are DIRECTORY/CLASS/image, and DIRECTORY/SPLIT.txt lists
    those of a split in order, one path below DIRECTORY a line. Or images are anywhere below
    DIRECTORY/SPLIT, and a table has their classes (see `metadata`). The split val may be called
    valid or validation.

    Args:
      directory: folder of the task.
      labels: names of the class directories; empty: the directories of train (or test), in the
        order of `classes`, or alphabetically if `classes` is empty.
      classes: class names in prompts; directories may have these names, too.
      needed: splits to read.

    Raises:
      ValueError: a split is missing, or exists in two forms.
    """
    place = shown(directory)
    if not directory.is_dir():
        raise ValueError(f"{place}: no such directory")
    lists = names_on_disk(lambda name: (directory / f"{name}.txt").exists(), place)
    folders = names_on_disk(lambda name: (directory / name).is_dir(), place)
    # A class may be called "train", so a directory is a split only if it contains directories.
    whole = [name for name in folders.values() if _holds_directories(directory / name)]
    if lists and whole:
        raise ValueError(
            f"{place}: lists ({', '.join(f'{name}.txt' for name in lists.values())}) and "
            f"directories ({', '.join(f'{name}/' for name in whole)}) both say which image is in "
            "which split; move one of the two elsewhere"
        )
    if lists:
        return _read_lists(directory, lists, labels, classes, needed)
    if tables := find_tables(directory, folders):
        return read_tables(directory, tables, labels, classes, needed)
    notes: list[Note] = []
    if not labels:
        first = directory / next((folders[split] for split in SPLITS if split in folders), "train")
        paths = find_images(first).paths if first.is_dir() else []
        found = {path.partition("/")[0] for path in paths if "/" in path}
        labels = labels_in_order(_readable(first, found), classes)
    names = ClassNames(labels, classes)

    def read(split: str) -> Split:
        data, more = read_directory(directory / folders[split], names)
        notes.extend(more)
        return data

    splits, more = with_validation(read, folders, needed, place)
    used = set(folders.values())
    beside = sorted(each.name for each in directory.iterdir() if each.is_dir())
    if others := [name for name in beside if name not in used]:
        notes.append(note("ignored: directories that belong to no split", others))
    return Content(tuple(labels), splits, (*more, *notes))


def _read_lists(
    root: pathlib.Path,
    files: Mapping[str, str],
    labels: Sequence[str],
    classes: Sequence[Name],
    needed: Sequence[str],
) -> Content:
    """Splits from lists SPLIT.txt of images below `root`."""
    there = find_images(root)
    images = {split: listed_images(root, root / f"{name}.txt", there)
              for split, name in files.items()}  # fmt: skip
    if not labels:
        found = {path.rpartition("/")[0] for paths, _ in images.values() for path in paths}
        labels = labels_in_order(_readable(root, found), classes)
    names = ClassNames(labels, classes)

    def read(split: str) -> Split:
        return label_images(root, images[split][0], names)

    splits, notes = with_validation(read, files, needed, shown(root))
    for _, more in images.values():
        notes += more
    return Content(tuple(labels), splits, (*notes, *_unlisted(there.paths, images)))


def _unlisted(
    there: Sequence[str], images: Mapping[Any, tuple[Sequence[str], object]]
) -> list[Note]:
    named = {path for paths, _ in images.values() for path in paths}
    unlisted = [path for path in there if path not in named]
    return [note("ignored: images that no list names", unlisted)] if unlisted else []


def _readable(root: pathlib.Path, names: set[str]) -> list[str]:
    """Directory names as class names, in alphabetical order.

    Raises:
      ValueError: a name that cannot be shown as text.
    """
    if strange := [name for name in sorted(names) if shown(name) != name]:
        raise ValueError(
            f"{shown(root)}: the directories {listed(map(shown, strange))} have names that are not "
            "UTF-8 or contain unprintable characters, so they cannot name a class; rename them"
        )
    return sorted(names)


def _holds_directories(directory: pathlib.Path) -> bool:
    return any(each.is_dir() and not each.name.startswith(".") for each in directory.iterdir())


def read_set(
    data: pathlib.Path,
    name: str,
    splits: dict[str, str],
    labels: Sequence[str],
    classes: Sequence[Name],
    needed: Sequence[str],
) -> Content:
    """Reads a set prepared by tensorflow-datasets.

    Args:
      data: tfds' data directory.
      name: name of the set, or "set/config".
      splits: split -> tfds split, for example "train[:90%]" or "train+validation".
      labels: the set's names of the classes; empty: the names in the set, in the order of
        `classes` unless they are numbers.
      classes: class names in prompts.
      needed: splits to read.
    """
    builder = find_builder(data, name)
    if not labels:
        feature = builder.info.features["label"]
        numbers = [str(number) for number in range(feature.num_classes)]
        named = feature.names not in (None, numbers)
        labels = labels_in_order(feature.names, classes) if named else numbers

    def read(split: str) -> Split:
        return read_records(builder, splits[split], labels)

    found, notes = with_validation(read, splits, needed, name)
    return Content(tuple(labels), found, tuple(notes))


def read_known(
    data: pathlib.Path, name: str, known: Known, entry: dict[str, Any], needed: Sequence[str]
) -> Content:
    """Reads a task of the catalogue from directories, published lists, or a prepared set.

    Each source gives the split that the field trains on, whichever split was published.

    Raises:
      ValueError: none of the places has it; the message names them all, and where to get the data.
    """
    labels, classes = entry["labels"], entry["classes"]
    names = ClassNames(labels, classes)
    layouts = [_places(data, layout) for layout in known.layouts]
    directories = next((each for each in layouts if _there(each["test"])), layouts[-1])
    root, lists = _listed_places(data, name, known)
    notes: list[Note] = []
    halved = on_side = False
    packed = unread(data, name) and not _hold_folders(directories["test"])
    if _there(directories["test"]) and not packed:
        if "val" in directories:
            directories["val"] = [_by_any_name(place) for place in directories["val"]]
        present = _present(directories)

        def read(split: str) -> Split:
            found = [read_directory(place, names) for place in directories[split]]
            notes.extend(each for _, more in found for each in more)
            return join([part for part, _ in found])

    elif lists and _there(lists["test"]):
        present, halved = _present(lists), known.halved
        there = find_images(root)
        named = {file: listed_images(root, file, there) for split in present
                 for file in lists[split]}  # fmt: skip
        notes += [each for _, more in named.values() for each in more]
        notes += _unlisted(there.paths, named)

        def read(split: str) -> Split:
            return join([label_images(root, named[file][0], names) for file in lists[split]])

    elif layout := find_layout(data, name):
        (folder, present), on_side = layout, known.on_side
        notes += [Note(len(present), f"splits read from {shown(folder)}")]

        def read(split: str) -> Split:
            return FOLDER_LAYOUTS[name].read(folder, split)

    elif known.tfds_splits and any((data / known.tfds).glob("*/dataset_info.json")):
        content = read_set(data, known.tfds, dict(known.tfds_splits), labels, (), needed)
        return upright(content) if known.on_side else content
    elif is_there(data, REPOSITORIES[name]):
        content = read_hub(data, REPOSITORIES[name], labels, classes, needed)
        return upright(content) if known.on_side else content
    else:
        places = [f"{directories['test'][0]}/CLASS/"]
        places += [str(lists["test"][0])] if lists else []
        places += [f"{data / FOLDER_LAYOUTS[name].folder}/"] if name in FOLDER_LAYOUTS else []
        places += [f"{data / known.tfds}/ (prepared by tfds)"] if known.tfds_splits else []
        parts = [f"no data at {' or '.join(places)}, nor the set {REPOSITORIES[name].name} in the "
                 "hub's cache, which `orthoreg data prepare` fetches"]  # fmt: skip
        if root.is_dir() and lists:
            parts.append(f"{shown(root)} exists, but no list says which image is in which split")
        parts += filter(None, [unread(data, name)])
        parts.append(f"it is described at {known.source} (licence: {known.licence})")
        raise NotThereError("; ".join(parts))
    splits, more = with_validation(read, present, needed, name, halved)
    content = Content(tuple(labels), splits, (*more, *notes))
    return upright(content) if on_side else content


def _hold_folders(places: Sequence[pathlib.Path]) -> bool:
    return any(each.is_dir() for place in places if place.is_dir() for each in place.iterdir())


def upright(content: Content) -> Content:
    """Turns images upright that were published transposed."""
    splits = {split: Split(TransposedImages(data.images), data.labels)
              for split, data in content.splits.items()}  # fmt: skip
    count = sum(map(len, splits.values()))
    return content._replace(
        splits=splits, notes=(*content.notes, Note(count, "images stored on their side, rotated"))
    )


FoundLists = dict[str, list[pathlib.Path]]


def _listed_places(data: pathlib.Path, name: str, known: Known) -> tuple[pathlib.Path, FoundLists]:
    """Root and lists of a task, at the first place that has them."""
    choices = [Listed(known.root, known.lists), *LISTED.get(name, ())]
    there = [each for each in choices if each.lists and _there(_places(data, each.lists)["test"])]
    images = [each for each in choices if each.lists and (data / each.root).is_dir()]
    root, lists = next(iter([*there, *images, *choices]))
    return data / root, _places(data, lists)


def _places(data: pathlib.Path, places: Mapping[str, Sequence[str]]) -> FoundLists:
    return {split: [data / path for path in paths] for split, paths in places.items()}


def _present(places: FoundLists) -> dict[str, str]:
    """Split -> its names in the data, for the splits that exist."""
    return {split: " and ".join(path.name for path in paths)
            for split, paths in places.items() if _there(paths)}  # fmt: skip


def _there(places: Sequence[pathlib.Path]) -> bool:
    return all(place.exists() for place in places)


def _by_any_name(validation: pathlib.Path) -> pathlib.Path:
    """The directory of a validation split, under whichever of its names exists.

    Raises:
      ValueError: two of the names exist.
    """
    folder = validation.parent
    found = [folder / name for name in SPLIT_FOLDERS["val"] if (folder / name).is_dir()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ValueError(f"{shown(folder)}: contains {names}; keep one of them")
    return found[0] if found else validation
