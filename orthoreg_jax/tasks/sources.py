"""Where a task's images come from: arrays in one file, directories, or sets prepared by tfds."""

from __future__ import annotations

import contextlib
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .catalogue import Known
from .class_names import ClassNames, Name, first_name, labels_in_order
from .folder import find_images, label_images, listed_images, read_directory
from .notes import Note, listed, note, shown
from .records import find_builder, read_records
from .split import ArrayImages, Split, cut_validation
from .table import SPLITS

NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}  # on disk


class Content(NamedTuple):
    """What a source gives: classes as the data calls them, splits, and what is to be said."""

    labels: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[Note, ...] = ()


def read_arrays(path: pathlib.Path, needed: Sequence[str]) -> Content:
    """Splits of one .npz with SPLIT_images and SPLIT_labels, the split val being optional.

    What else the file holds is not unpacked; labels are positions, so that there are no names.

    Raises:
      ValueError: no such file, a damaged one, or arrays that are missing or no images.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing, or no file; build or copy it there")
    with contextlib.ExitStack() as stack:
        archive = _readable_file(path, lambda: stack.enter_context(zipfile.ZipFile(path)))
        members = [name.removesuffix(".npy") for name in archive.namelist()]
        called = _names_on_disk(lambda name: f"{name}_images" in members, str(path))
        used = [f"{name}_{kind}" for name in called.values() for kind in ("images", "labels")]
        missing = [name for name in used if name not in members]
        if missing:
            raise ValueError(f"{path} lacks {listed(missing)}; it holds {listed(members)}")

        def unpack(name: str, read: Callable[[Any], Any]) -> Any:
            def member() -> Any:
                with archive.open(f"{name}.npy") as file:
                    return read(file)

            return _readable_file(path, member)

        def read(split: str) -> Split:
            return _read_split(split, called[split], unpack)

        splits, notes = _with_validation(read, called, needed, str(path))
    if unused := [name for name in members if name not in used]:
        notes.append(note("not used: arrays that are no split's", unused))
    return Content((), splits, tuple(notes))


def _readable_file(path: pathlib.Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # zipfile, zlib, numpy: each its own kind for a damaged file
        raise ValueError(f"{path} cannot be read ({error}); build or copy it again") from error


def _read_split(split: str, name: str, unpack: Callable[[str, Callable[[Any], Any]], Any]) -> Split:
    """One split of arrays; types and shapes are checked before anything is unpacked."""
    shape, dtype = unpack(f"{name}_images", _array_header)
    grey_or_rgb = len(shape) == 3 or (len(shape) == 4 and shape[-1] == 3)
    if dtype != np.uint8 or not grey_or_rgb or 0 in shape[1:]:
        raise ValueError(
            f"{split} images are {dtype} of shape {shape}, expected uint8 (n, height, width) or "
            "(n, height, width, 3)"
        )
    label_shape, label_dtype = unpack(f"{name}_labels", _array_header)
    if label_shape != shape[:1] or not np.issubdtype(label_dtype, np.integer):
        raise ValueError(
            f"{split} labels are {label_dtype} of shape {label_shape}, expected one integer for "
            f"each of the {shape[0]} images"
        )
    images, labels = (unpack(f"{name}_{kind}", np.lib.format.read_array)
                      for kind in ("images", "labels"))  # fmt: skip
    return Split(ArrayImages(images), labels.astype(label_dtype.newbyteorder("=")))


def _array_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in a file, without reading it."""
    first = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def read_folder(
    directory: pathlib.Path, labels: Sequence[str], classes: Sequence[Name], needed: Sequence[str]
) -> Content:
    """A user's own task: DIRECTORY/SPLIT/CLASS/image, the split val being optional.

    Or DIRECTORY/CLASS/image, and which image is in which split, and in what order, in
    DIRECTORY/SPLIT.txt: one path below DIRECTORY a line. The split val may be called valid or
    validation.

    Args:
      directory: of the task.
      labels: names of the class directories; empty: those that train (or test) has, in the order
        of `classes`, or without them in that of the alphabet.
      classes: as prompts call them; directories may have these names too.
      needed: splits.

    Raises:
      ValueError: splits that are missing, or there in two forms.
    """
    place = shown(directory)
    if not directory.is_dir():
        raise ValueError(f"{place}: no such directory")
    lists = _names_on_disk(lambda name: (directory / f"{name}.txt").exists(), place)
    folders = _names_on_disk(lambda name: (directory / name).is_dir(), place)
    # A class may be called "train": a split's directory holds directories.
    whole = [name for name in folders.values() if _holds_directories(directory / name)]
    if lists and whole:
        raise ValueError(
            f"{place}: lists ({', '.join(f'{name}.txt' for name in lists.values())}) and "
            f"directories ({', '.join(f'{name}/' for name in whole)}) both say which image is in "
            "which split; move one of the two elsewhere"
        )
    if lists:
        return _read_lists(directory, lists, labels, classes, needed)
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

    splits, more = _with_validation(read, folders, needed, place)
    used = set(folders.values())
    beside = sorted(each.name for each in directory.iterdir() if each.is_dir())
    if others := [name for name in beside if name not in used]:
        notes.append(note("not used: directories that are no split's", others))
    return Content(tuple(labels), splits, (*more, *notes))


def _read_lists(
    root: pathlib.Path,
    files: Mapping[str, str],
    labels: Sequence[str],
    classes: Sequence[Name],
    needed: Sequence[str],
) -> Content:
    """Splits by lists SPLIT.txt of images below `root`."""
    there = find_images(root)
    images = {split: listed_images(root, root / f"{name}.txt", there)
              for split, name in files.items()}  # fmt: skip
    if not labels:
        found = {path.rpartition("/")[0] for paths, _ in images.values() for path in paths}
        labels = labels_in_order(_readable(root, found), classes)
    names = ClassNames(labels, classes)

    def read(split: str) -> Split:
        return label_images(root, images[split][0], names)

    splits, notes = _with_validation(read, files, needed, shown(root))
    for _, more in images.values():
        notes += more
    return Content(tuple(labels), splits, (*notes, *_unlisted(there.paths, images)))


def _unlisted(
    there: Sequence[str], images: Mapping[str, tuple[Sequence[str], object]]
) -> list[Note]:
    named = {path for paths, _ in images.values() for path in paths}
    unlisted = [path for path in there if path not in named]
    return [note("not used: images that no list names", unlisted)] if unlisted else []


def _readable(root: pathlib.Path, names: set[str]) -> list[str]:
    """Names of directories as classes, in the order of the alphabet.

    Raises:
      ValueError: a name that is no text.
    """
    if strange := [name for name in sorted(names) if shown(name) != name]:
        raise ValueError(
            f"{shown(root)}: the directories {listed(map(shown, strange))} have names that are not "
            "UTF-8, or hold signs that cannot be shown, so that they name no class; rename them"
        )
    return sorted(names)


def _holds_directories(directory: pathlib.Path) -> bool:
    return any(each.is_dir() and not each.name.startswith(".") for each in directory.iterdir())


def _names_on_disk(exists: Callable[[str], bool], place: str) -> dict[str, str]:
    """Split -> the name that it has there, for those that are there.

    Raises:
      ValueError: one of them has two names.
    """
    found = {split: [name for name in names if exists(name)] for split, names in NAMES.items()}
    if several := [name for names in found.values() if len(names) > 1 for name in names]:
        raise ValueError(f"{place}: holds {' and '.join(several)}; keep one of them")
    return {split: names[0] for split, names in found.items() if names}


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

    found, notes = _with_validation(read, splits, needed, name)
    return Content(tuple(labels), found, tuple(notes))


def read_known(
    data: pathlib.Path, name: str, known: Known, entry: dict[str, Any], needed: Sequence[str]
) -> Content:
    """A task of the catalogue: as directories, as published lists, or as a prepared set.

    Raises:
      ValueError: it is in none of the places; all are named, and where to get the data.
    """
    labels = entry["labels"]
    names = ClassNames(labels, [first_name(names_of) for names_of in entry["classes"]])
    directories = {split: data / path for split, path in known.folders.items()}
    lists = {split: data / path for split, path in known.lists.items()}
    notes: list[Note] = []
    if directories["test"].is_dir():
        if "val" in directories:  # by whichever of its names
            folder = directories["val"].parent
            called = _names_on_disk(lambda each: (folder / each).is_dir(), shown(folder))
            directories["val"] = folder / called.get("val", "val")
        present = {split: place.name for split, place in directories.items() if place.is_dir()}

        def read(split: str) -> Split:
            split_data, more = read_directory(directories[split], names)
            notes.extend(more)
            return split_data

    elif lists and lists["test"].is_file():
        present = {split: place.name for split, place in lists.items() if place.is_file()}
        root = data / known.root
        there = find_images(root)
        images = {split: listed_images(root, lists[split], there) for split in present}
        notes += [note for _, more in images.values() for note in more]
        notes += _unlisted(there.paths, images)

        def read(split: str) -> Split:
            return label_images(root, images[split][0], names)

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
    splits, more = _with_validation(read, present, needed, name)
    return Content(tuple(labels), splits, (*more, *notes))


def _with_validation(
    read: Callable[[str], Split], present: Mapping[str, str], needed: Sequence[str], place: str
) -> tuple[dict[str, Split], list[Note]]:
    """The needed splits; val is cut from train where there is none, which is said."""
    wanted = set(needed)
    cut = "val" in wanted and "val" not in present
    if cut:
        wanted = wanted - {"val"} | {"train"}
    missing = [split for split in SPLITS if split in wanted and split not in present]
    if missing:
        raise ValueError(
            f"{place}: has no {' and no '.join(missing)} split"
            f"{', of which 10 % would be the validation split' if cut else ''}; it has "
            f"{', '.join(present.values()) or 'none'}"
        )
    splits = {split: read(split) for split in SPLITS if split in wanted}
    notes = []
    if cut:
        splits["train"], splits["val"] = cut_validation(splits["train"])
        what = "images of train are the validation split, as there is none (10 %, at most 5000)"
        notes.append(Note(len(splits["val"]), what))
    return {split: splits[split] for split in needed}, notes
