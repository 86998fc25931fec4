"""Folders in which people have the field's tasks as torchvision, or their authors, lay them out.

A layout is a row of the table: where it is, what tells it, and the function that reads a split. To
add one, write a reader in the module of its kind of file, and a row.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..notes import shown
from ..split import Split
from . import binary, idx, mat, text

# Labels are positions in the catalogue's classes, whose order is the published one.
Reader = Callable[[pathlib.Path, str], Split]


class FolderLayout(NamedTuple):
    """Where a task's images are, and how to read them.

    Attributes:
      folder: below the data folder, or below the task's folder in it.
      files: of each split, in that folder, which tell that it is there; of MNIST's files, any may
        be compressed.
      read: the split of a folder.
    """

    folder: str
    files: Mapping[str, tuple[str, ...]]
    read: Reader


def _by_split(train: str, test: str) -> dict[str, tuple[str, ...]]:
    return {"train": (train,), "test": (test,)}


def _digits(folder: str, start: str = "") -> FolderLayout:
    """MNIST and what was published in its form."""
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
    """Directories of classes, and lists that say which image is in which split.

    Attributes:
      root: that the lists speak of, below the data folder.
      lists: text files, of each split; of several it is all of them.
    """

    root: str
    lists: Mapping[str, tuple[str, ...]]


# Other places, beside the catalogue's, of images with the published lists.
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

# Folders of pickles, which can run code and are never read, and where the same is without.
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
    """The folder of a task's layout, and split -> its files, of those that are there; or None."""
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
    """What to say of a task that is there as pickles; "" if it is not."""
    name, archive = PICKLED_FOLDERS.get(task, ("", ""))
    for folder in (data / name, data / task / name):
        if name and folder.is_dir():
            return (
                f"{shown(folder)} holds pickles, which can run code and are never read; unpack "
                f"{archive}, of https://www.cs.toronto.edu/~kriz/cifar.html, next to it"
            )
    return ""


def unread(data: pathlib.Path, task: str) -> str:
    """What to say of a task that is there in a form that is not read; "" if it is not."""
    patterns, kind, advice = UNREAD.get(task, ((), "", ""))
    for pattern in patterns:
        if found := sorted((data / task).glob(pattern)):
            return f"{shown(found[0])}: {kind} are not read; {advice}"
    return pickled(data, task)
