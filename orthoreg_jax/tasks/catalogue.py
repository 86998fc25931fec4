"""The tasks of the field: classes and prompts as published with CLIP, and where their data is.

`BENCHMARKS` are the lists that papers report: the eight of task arithmetic (and of OrthoReg), and
their extensions to 14 and 20 tasks. ImageNet is the control task of negation.
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

ImageFolders = Mapping[str, str]  # split -> directory, or list of images, below the data folder


class Known(NamedTuple):
    """A task of the field.

    Attributes:
      epochs: of fine-tuning in the recipe that the papers share.
      tfds: name of the set in tensorflow-datasets; "" if it has none that serves.
      tfds_splits: split -> tfds split. Without "val", it is cut from train.
      folders: split -> directory with one directory for each class, below the data folder.
      root: directory that the image lists speak of, below the data folder.
      lists: split -> text file of images (the published split), below the data folder.
      source: where the data is described and to be had.
      licence: as its authors state it.
    """

    epochs: int
    tfds: str
    tfds_splits: Mapping[str, str]
    folders: ImageFolders
    source: str
    licence: str
    root: str = ""
    lists: ImageFolders = {}


TRAIN_TEST = {"train": "train", "test": "test"}
WITH_VALIDATION = {**TRAIN_TEST, "val": "validation"}
RESEARCH = "for research, see its page"


def _folders(name: str) -> dict[str, str]:
    """The usual layout; val is optional."""
    return {split: f"{name}/{split}" for split in ("train", "val", "test")}


KNOWN = {
    "cars": Known(
        35, "cars196", TRAIN_TEST, _folders("cars"),
        "J. Krause et al., 3D Object Representations for Fine-Grained Categorization (2013)",
        "non-commercial research",
    ),
    "dtd": Known(
        76, "dtd", WITH_VALIDATION, {"train": "dtd/train", "test": "dtd/val"},
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/", RESEARCH, "dtd/images",
        {split: f"dtd/labels/{split}1.txt" for split in ("train", "val", "test")},
    ),
    "eurosat": Known(
        12, "eurosat/rgb", {}, {s: f"EuroSAT_splits/{s}" for s in ("train", "val", "test")},
        "https://github.com/phelber/EuroSAT", "MIT", "EuroSAT_RGB",
        {split: f"eurosat-{split}.txt" for split in ("train", "val", "test")},
    ),
    "gtsrb": Known(
        11, "", {}, {"train": "gtsrb/GTSRB/Training", "test": "gtsrb/test"},
        "https://benchmark.ini.rub.de/", RESEARCH,
    ),
    "mnist": Known(
        5, "mnist", TRAIN_TEST, _folders("mnist"),
        "Y. LeCun, C. Cortes, C. Burges, http://yann.lecun.com/exdb/mnist/", "CC BY-SA 3.0",
    ),
    "resisc45": Known(
        15, "resisc45", {}, _folders("resisc45"),
        "G. Cheng, J. Han, X. Lu, Remote Sensing Image Scene Classification (2017)", RESEARCH,
        "resisc45/NWPU-RESISC45",
        {split: f"resisc45/resisc45-{split}.txt" for split in ("train", "val", "test")},
    ),
    "sun397": Known(
        14, "sun397", TRAIN_TEST, {"train": "sun397/train", "test": "sun397/val"},
        "https://vision.princeton.edu/projects/2010/SUN/", RESEARCH, "SUN397",
        {"train": "Partitions/Training_01.txt", "test": "Partitions/Testing_01.txt"},
    ),
    "svhn": Known(
        4, "svhn_cropped", TRAIN_TEST, _folders("svhn"),
        "http://ufldl.stanford.edu/housenumbers/", "non-commercial use",
    ),
    "stl10": Known(
        60, "stl10", TRAIN_TEST, _folders("stl10"),
        "https://cs.stanford.edu/~acoates/stl10/", RESEARCH,
    ),
    "pets": Known(
        82, "oxford_iiit_pet", TRAIN_TEST, _folders("pets"),
        "https://www.robots.ox.ac.uk/~vgg/data/pets/", "CC BY-SA 4.0",
    ),
    "flowers102": Known(
        147, "oxford_flowers102", WITH_VALIDATION, _folders("flowers102"),
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/", RESEARCH,
    ),
    "cifar100": Known(
        6, "cifar100", TRAIN_TEST, _folders("cifar100"),
        "https://www.cs.toronto.edu/~kriz/cifar.html", RESEARCH,
    ),
    "pcam": Known(
        1, "patch_camelyon", WITH_VALIDATION, _folders("pcam"),
        "https://github.com/basveeling/pcam", "CC0",
    ),
    "fer2013": Known(
        10, "", {}, _folders("fer2013"),
        "I. Goodfellow et al., Challenges in Representation Learning (2013)", RESEARCH,
    ),
    "cifar10": Known(
        6, "cifar10", TRAIN_TEST, _folders("cifar10"),
        "https://www.cs.toronto.edu/~kriz/cifar.html", RESEARCH,
    ),
    "food101": Known(
        4, "food101", {"train": "train", "test": "validation"}, _folders("food101"),
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/", RESEARCH,
    ),
    "fashion_mnist": Known(
        5, "fashion_mnist", TRAIN_TEST, _folders("fashion_mnist"),
        "https://github.com/zalandoresearch/fashion-mnist", "MIT",
    ),
    "rendered_sst2": Known(
        39, "", {}, {"train": "rendered-sst2/train", "val": "rendered-sst2/valid",
                     "test": "rendered-sst2/test"},
        "https://github.com/openai/CLIP/blob/main/data/rendered-sst2.md", RESEARCH,
    ),
    "emnist": Known(
        2, "emnist/digits", TRAIN_TEST, _folders("emnist"),
        "https://www.nist.gov/itl/products-and-services/emnist-dataset", "public domain",
    ),
    "kmnist": Known(
        5, "kmnist", TRAIN_TEST, _folders("kmnist"),
        "http://codh.rois.ac.jp/kmnist/", "CC BY-SA 4.0",
    ),
    "imagenet": Known(
        0, "imagenet2012", {"train": "train", "test": "validation"},
        {"train": "imagenet/train", "test": "imagenet/val"},
        "https://www.image-net.org/", "non-commercial research",
    ),
}  # fmt: skip

BENCHMARKS = {
    8: ("cars", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "sun397", "svhn"),
    14: ("stl10", "pets", "flowers102", "cifar100", "pcam", "fer2013"),
    20: ("cifar10", "food101", "fashion_mnist", "rendered_sst2", "emnist", "kmnist"),
}
BENCHMARKS[14] = BENCHMARKS[8] + BENCHMARKS[14]
BENCHMARKS[20] = BENCHMARKS[14] + BENCHMARKS[20]


@functools.cache
def entries() -> dict[str, dict[str, Any]]:
    """By task: title, labels as the data calls its classes, classes in prompts, templates.

    A class that is a list has several names, as CLIP's prompts for FER2013 have.
    """
    path = pathlib.Path(__file__).with_name("catalogue.json")
    table: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["tasks"]
    return table
