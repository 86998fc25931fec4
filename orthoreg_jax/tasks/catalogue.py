"""The field's tasks: classes and prompts as published with CLIP, and where their data is.

`BENCHMARKS` are the lists that papers report: the eight of task arithmetic (and of OrthoReg), and
their extensions to 14 and 20 tasks. ImageNet is the control task of negation.
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

# Split -> directories, or lists of images, below the data folder; several are joined.
Places = Mapping[str, tuple[str, ...]]


class Known(NamedTuple):
    """One of the field's tasks.

    Attributes:
      epochs: fine-tuning epochs in the recipe that the papers share.
      train: training images in that recipe, without validation images.
      tfds: name of the set in tensorflow-datasets; "" if it has no suitable one.
      tfds_splits: split -> tfds split. Without "val", it is cut from train.
      layouts: directories of each split, with one subdirectory for each class; the first layout
        that exists is used, and val is optional in it.
      root: directory, below the data folder, to which the image lists refer.
      lists: text files that list the images of each split.
      halved: whether val is half of the test list, not a tenth of the train list.
      on_side: whether its images are published transposed, in files, by tfds and on the hub.
      source: where the data is described and available.
      licence: as its authors state it.
    """

    epochs: int
    train: int
    tfds: str
    tfds_splits: Mapping[str, str]
    layouts: tuple[Places, ...]
    source: str
    licence: str
    root: str = ""
    lists: Places = {}
    halved: bool = False
    on_side: bool = False


TRAIN_TEST = {"train": "train", "test": "test"}
RESEARCH = "for research, see its page"


def _usual(name: str) -> tuple[Places]:
    """NAME/train, NAME/val and NAME/test."""
    return ({split: (f"{name}/{split}",) for split in ("train", "val", "test")},)


KNOWN = {
    "cars": Known(
        35, 7330, "cars196", TRAIN_TEST, _usual("cars"),
        "J. Krause et al., 3D Object Representations for Fine-Grained Categorization (2013)",
        "non-commercial research",
    ),
    "dtd": Known(
        76, 3384, "dtd", {"train": "train+validation", "test": "test"},
        # The three published splits, or the field's two, where train contains train and val.
        ({"train": ("dtd/train", "dtd/val"), "test": ("dtd/test",)},
         {"train": ("dtd/train",), "test": ("dtd/val",)}),
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/", RESEARCH, "dtd/images",
        {"train": ("dtd/labels/train1.txt", "dtd/labels/val1.txt"),
         "test": ("dtd/labels/test1.txt",)},
    ),
    "eurosat": Known(
        12, 21_600, "eurosat/rgb", {}, _usual("EuroSAT_splits"),
        "https://github.com/phelber/EuroSAT", "MIT", "EuroSAT_RGB",
        # 16,200, 5,400 and 5,400 images; the field uses 21,600, 2,700 and 2,700.
        {"train": ("eurosat-train.txt", "eurosat-val.txt"), "test": ("eurosat-test.txt",)}, True,
    ),
    "gtsrb": Known(
        11, 23_976, "", {}, ({"train": ("gtsrb/GTSRB/Training",), "test": ("gtsrb/test",)},),
        "https://benchmark.ini.rub.de/", RESEARCH,
    ),
    "mnist": Known(
        5, 55_000, "mnist", TRAIN_TEST, _usual("mnist"),
        "Y. LeCun, C. Cortes, C. Burges, http://yann.lecun.com/exdb/mnist/", "CC BY-SA 3.0",
    ),
    "resisc45": Known(
        15, 17_010, "resisc45", {}, _usual("resisc45"),
        "G. Cheng, J. Han, X. Lu, Remote Sensing Image Scene Classification (2017)", RESEARCH,
        "resisc45/NWPU-RESISC45",
        # The field leaves the published validation list unused and cuts train.
        {split: (f"resisc45/resisc45-{split}.txt",) for split in ("train", "test")},
    ),
    "sun397": Known(
        14, 17_865, "sun397/standard-part1-120k", TRAIN_TEST,
        ({"train": ("sun397/train",), "test": ("sun397/val",)},),
        "https://vision.princeton.edu/projects/2010/SUN/", RESEARCH, "SUN397",
        {"train": ("Partitions/Training_01.txt",), "test": ("Partitions/Testing_01.txt",)},
    ),
    "svhn": Known(
        4, 68_257, "svhn_cropped", TRAIN_TEST, _usual("svhn"),
        "http://ufldl.stanford.edu/housenumbers/", "non-commercial use",
    ),
    "stl10": Known(
        60, 4500, "stl10", TRAIN_TEST, _usual("stl10"),
        "https://cs.stanford.edu/~acoates/stl10/", RESEARCH,
    ),
    "pets": Known(
        82, 3312, "oxford_iiit_pet", TRAIN_TEST, _usual("pets"),
        "https://www.robots.ox.ac.uk/~vgg/data/pets/", "CC BY-SA 4.0",
    ),
    "flowers102": Known(
        147, 918, "oxford_flowers102", TRAIN_TEST, _usual("flowers102"),
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/", RESEARCH,
    ),
    "cifar100": Known(
        6, 45_000, "cifar100", TRAIN_TEST, _usual("cifar100"),
        "https://www.cs.toronto.edu/~kriz/cifar.html", RESEARCH,
    ),
    "pcam": Known(
        1, 257_144, "patch_camelyon", TRAIN_TEST, _usual("pcam"),
        "https://github.com/basveeling/pcam", "CC0",
    ),
    "fer2013": Known(
        10, 25_839, "", {}, _usual("fer2013"),
        "I. Goodfellow et al., Challenges in Representation Learning (2013)", RESEARCH,
    ),
    "cifar10": Known(
        6, 45_000, "cifar10", TRAIN_TEST, _usual("cifar10"),
        "https://www.cs.toronto.edu/~kriz/cifar.html", RESEARCH,
    ),
    "food101": Known(
        4, 70_750, "food101", {"train": "train", "test": "validation"}, _usual("food101"),
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/", RESEARCH,
    ),
    "fashion_mnist": Known(
        5, 55_000, "fashion_mnist", TRAIN_TEST, _usual("fashion_mnist"),
        "https://github.com/zalandoresearch/fashion-mnist", "MIT",
    ),
    "rendered_sst2": Known(
        39, 6228, "", {}, ({"train": ("rendered-sst2/train",), "test": ("rendered-sst2/test",)},),
        "https://github.com/openai/CLIP/blob/main/data/rendered-sst2.md", RESEARCH,
    ),
    "emnist": Known(
        2, 235_000, "emnist/digits", TRAIN_TEST, _usual("emnist"),
        "https://www.nist.gov/itl/products-and-services/emnist-dataset", "public domain",
        on_side=True,
    ),
    "kmnist": Known(
        5, 55_000, "kmnist", TRAIN_TEST, _usual("kmnist"),
        "http://codh.rois.ac.jp/kmnist/", "CC BY-SA 4.0",
    ),
    "imagenet": Known(
        0, 0, "imagenet2012", {"train": "train", "test": "validation"},
        ({"train": ("imagenet/train",), "test": ("imagenet/val",)},),
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


def other_training_set(name: str, images: int) -> str:
    """Note on `images` if they are not the recipe's training set; "" if they are."""
    recipe = KNOWN[name].train
    if images == recipe or not recipe:
        return ""
    return (
        f"training images, but the field's recipe has {recipe}: the number of steps differs, and "
        "results are not comparable with published ones"
    )


@functools.cache
def entries() -> dict[str, dict[str, Any]]:
    """By task: title, the data's labels, class names in prompts, templates.

    A class that is a tuple has several names, as in CLIP's prompts for FER2013.
    """
    path = pathlib.Path(__file__).with_name("catalogue.json")
    table: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["tasks"]
    for entry in table.values():
        entry["classes"] = [each if isinstance(each, str) else tuple(each)
                            for each in entry["classes"]]  # fmt: skip
    return table
