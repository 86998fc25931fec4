"""Folders in which torchvision or a data set's authors lay out the field's tasks.

A layout is a row of the table: its folder, the files that identify it, and the function that reads
a split. To add one, write a reader in the module of its file format, and a row.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..notes import shown
from ..split import Split
from . import binary, idx, mat, text

# Labels are positions in the catalogue's classes, which are in the published order.
Reader = Callable[[pathlib.Path, str], Split]


class FolderLayout(NamedTuple):
    """Where a task's images are, and how to read them.

    Attributes:
      folder: below the data folder, or below the task's folder in it.
      files: files in that folder that identify each split; MNIST's may be compressed.
      read: reads a split from the folder.
    """

    folder: str
    files: Mapping[str, tuple[str, ...]]
    read: Reader


def _by_split(train: str, test: str) -> dict[str, tuple[str, ...]]:
    return {"train": (train,), "test": (test,)}


def _digits(folder: str, start: str = "") -> FolderLayout:
    """MNIST, and data published in its form."""
    stems = (f"{start}train", f"{start}test" if start else "t10k")
    return FolderLayout(
        f"{folder}/raw",
        {split: (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
         for split, stem in zip(("train", "test"), stems, strict=True)},
        idx.reader(*stems),
    )  # fmt: skip


FOLDER_LAYOUTS = {
    "cars": FolderLayout(
        "stanford_cars",
        {
            "train": ("cars_train", "devkit/cars_train_annos.mat", "devkit/cars_meta.mat"),
            "test": ("cars_test", "cars_test_annos_withlabels.mat", "devkit/cars_meta.mat"),
        },
        mat.read_cars,
    ),
    "gtsrb": FolderLayout(
        "gtsrb", _by_split("GTSRB/Training", "GT-final_test.csv"), text.read_signs
    ),
    "svhn": FolderLayout("svhn", _by_split("train_32x32.mat", "test_32x32.mat"), mat.read_svhn),
    "flowers102": FolderLayout(
        "flowers-102",
        dict.fromkeys(("train", "test"), ("jpg", "imagelabels.mat", "setid.mat")),
        mat.read_flowers,
    ),
    "pets": FolderLayout(
        "oxford-iiit-pet",
        _by_split("annotations/trainval.txt", "annotations/test.txt"),
        text.read_pets,
    ),
    "food101": FolderLayout(
        "food-101", _by_split("meta/train.txt", "meta/test.txt"), text.read_food
    ),
    "mnist": _digits("MNIST"),
    "fashion_mnist": _digits("FashionMNIST"),
    "kmnist": _digits("KMNIST"),
    "emnist": _digits("EMNIST", "emnist-digits-"),
    "cifar10": FolderLayout(
        "cifar-10-batches-bin", _by_split("data_batch_1.bin", "test_batch.bin"), binary.read_cifar10
    ),
    "cifar100": FolderLayout(
        "cifar-100-binary", _by_split("train.bin", "test.bin"), binary.read_cifar100
    ),
    "stl10": FolderLayout(
        "stl10_binary", _by_split("train_X.bin", "test_X.bin"), binary.read_stl10
    ),
}


class Listed(NamedTuple):
    """Class directories, with lists that say which image is in which split.

    Attributes:
      root: directory, below the data folder, to which the lists refer.
      lists: text files of each split; several are joined.
    """

    root: str
    lists: Mapping[str, tuple[str, ...]]


# More places of images with the published lists, beside the catalogue's.
LISTED = {
    "dtd": (
        Listed(
            "dtd/dtd/images",
            {"train": ("dtd/dtd/labels/train1.txt", "dtd/dtd/labels/val1.txt"),
             "test": ("dtd/dtd/labels/test1.txt",)},
        ),
    ),
    "eurosat": tuple(
        Listed(
            "eurosat/2750",
            {"train": (f"{lists}eurosat-train.txt", f"{lists}eurosat-val.txt"),
             "test": (f"{lists}eurosat-test.txt",)},
        )
        for lists in ("eurosat/", "eurosat/2750/", "")
    ),
    "resisc45": (
        Listed(
            "NWPU-RESISC45",
            {split: (f"resisc45-{split}.txt",) for split in ("train", "test")},
        ),
    ),
    "sun397": tuple(
        Listed(
            "SUN397",
            {"train": (f"SUN397/{lists}Training_01.txt",),
             "test": (f"SUN397/{lists}Testing_01.txt",)},
        )
        for lists in ("Partitions/", "")
    ),
}  # fmt: skip

# Folders of pickles, which can run code and are never read, and archives of the same data without.
PICKLED_FOLDERS = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-binary.tar.gz"),
    "cifar100": ("cifar-100-python", "cifar-100-binary.tar.gz"),
}

# Archives that are not read, by task: what they are called in the task's folder, their
# kind, and how to have the same images otherwise.
UNREAD = {
    "pcam": (
        ("*.h5", "*.h5.gz"),
        "HDF5 files",
        "`orthoreg data prepare` fetches the same images as parquet; or write them as arrays",
    ),
    "fer2013": (
        ("*.tar", "test/*.tar"),
        "WebDataset archives",
        "`orthoreg data prepare` fetches the same images as parquet; or unpack them, and move each "
        "image to SPLIT/CLASS/",
    ),
}


def find_layout(data: pathlib.Path, task: str) -> tuple[pathlib.Path, dict[str, str]] | None:
    """The folder of a task's layout, and split -> its files, for existing splits; or None."""
    layout = FOLDER_LAYOUTS.get(task)
    if layout is None:
        return None
    for folder in (data, data / task):
        root = folder / layout.folder
        present = {split: " and ".join(files) for split, files in layout.files.items()
                   if all(idx.either(root / file).exists() for file in files)}  # fmt: skip
        if "test" in present:
            return root, present
    return None


def pickled(data: pathlib.Path, task: str) -> str:
    """Message for a task that exists only as pickles; "" if it does not."""
    name, archive = PICKLED_FOLDERS.get(task, ("", ""))
    for folder in (data / name, data / task / name):
        if name and folder.is_dir():
            return (
                f"{shown(folder)} holds pickles, which can run code and are never read; unpack "
                f"{archive}, from https://www.cs.toronto.edu/~kriz/cifar.html, next to it"
            )
    return ""


def unread(data: pathlib.Path, task: str) -> str:
    """What to say of a task that is there in a form that is not read; "" if it is not."""
    patterns, kind, advice = UNREAD.get(task, ((), "", ""))
    for pattern in patterns:
        if found := sorted((data / task).glob(pattern)):
            return f"{shown(found[0])}: {kind} are not read; {advice}"
    return pickled(data, task)
