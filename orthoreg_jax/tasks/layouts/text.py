"""Splits in text files that name images and their classes: GTSRB, Oxford-IIIT Pet, Food101."""

from __future__ import annotations

import csv
import pathlib

import numpy as np

from ..catalogue import entries
from ..class_names import ClassNames
from ..folder import FileImages, label_images, read_directory
from ..notes import shown
from ..split import Split


def read_signs(folder: pathlib.Path, split: str) -> Split:
    """GTSRB: class directories for training, and a table of files and classes for testing."""
    labels = entries()["gtsrb"]["labels"]
    if split == "train":
        return read_directory(folder / "GTSRB" / "Training", ClassNames(labels))[0]
    table = folder / "GT-final_test.csv"
    rows = list(csv.DictReader(_lines(table), delimiter=";"))
    if not rows or not {"Filename", "ClassId"} <= set(rows[0]):
        raise ValueError(
            f"{shown(table)}: has no columns Filename and ClassId, separated by semicolons; the "
            "table with classes is in GTSRB_Final_Test_GT.zip"
        )
    paths = [f"GTSRB/Final_Test/Images/{row['Filename']}" for row in rows]
    return Split(FileImages(folder, tuple(paths)),
                 np.array([_number(row["ClassId"], table) for row in rows], np.int32))  # fmt: skip


def read_pets(folder: pathlib.Path, split: str) -> Split:
    """Oxford-IIIT Pet: lines with an image's name, which starts with its class, and 3 numbers."""
    table = folder / "annotations" / {"train": "trainval.txt", "test": "test.txt"}[split]
    entry = entries()["pets"]
    known = ClassNames(entry["labels"], entry["classes"])
    names = [line.split()[0] for line in _lines(table) if line.strip() and line[0] != "#"]
    places = {name: known.find(name.rpartition("_")[0]) for name in names}
    if strange := [name for name, place in places.items() if place is None]:
        raise ValueError(f"{shown(table)}: {strange[0]} has no class of the task; copy it again")
    labels = [place for name in names if (place := places[name]) is not None]
    paths = tuple(f"images/{name}.jpg" for name in names)
    return Split(FileImages(folder, paths), np.array(labels, np.int32))


def read_food(folder: pathlib.Path, split: str) -> Split:
    """Food101: lines with a class and the name of an image, without its suffix."""
    entry = entries()["food101"]
    table = folder / "meta" / f"{split}.txt"
    paths = [f"{line.strip()}.jpg" for line in _lines(table) if line.strip()]
    return label_images(folder / "images", paths, ClassNames(entry["labels"], entry["classes"]))


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown(path)}: cannot be read ({error}); copy it again") from error


def _number(value: str, path: pathlib.Path) -> int:
    if not value.strip().isdecimal():
        raise ValueError(f"{shown(path)}: {value!r} is not a class number; copy it again")
    return int(value)
