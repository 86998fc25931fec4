"""The field's tasks on the hub, as parquet files: rows of one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

HUB_SPLITS = {"train": "train", "test": "test"}


class Repository(NamedTuple):
    """A data set on the hub, or a folder with the same layout.

    Attributes:
      name: USER/NAME.
      splits: split -> name of the split in the set; without "val", it is cut from train.
      config: the set's configuration, where it has several.
      image: column of the images; "": the only possible one.
      label: column of the labels; "": the only one of classes, or else of integers.
      revision: commit, tag or branch; "": the newest, which `orthoreg data prepare` records.
      numbered: whether its labels are known to be in the order of our classes; needed where the
        set has no class names, or other names than ours.
    """

    name: str
    splits: Mapping[str, str] = HUB_SPLITS
    config: str = ""
    image: str = ""
    label: str = ""
    revision: str = ""
    numbered: bool = False


# The hub's own parquet conversion of a set published in another form.
CONVERTED = "refs/convert/parquet"

REPOSITORIES = {
    "cars": Repository("tanganke/stanford_cars"),
    "dtd": Repository("tanganke/dtd"),
    "eurosat": Repository("tanganke/eurosat"),
    "gtsrb": Repository("tanganke/gtsrb"),
    "mnist": Repository("ylecun/mnist"),
    "resisc45": Repository("tanganke/resisc45"),
    "sun397": Repository("tanganke/sun397"),
    "svhn": Repository("ufldl-stanford/svhn", config="cropped_digits"),
    "stl10": Repository("tanganke/stl10"),
    "pets": Repository("timm/oxford-iiit-pet", label="label"),
    "flowers102": Repository("dpdl-benchmark/oxford_flowers102", label="label"),
    "cifar100": Repository("tanganke/cifar100"),
    "pcam": Repository("1aurent/PatchCamelyon", label="label", numbered=True),
    # Published as tar files, in the order of the original numbers.
    "fer2013": Repository(
        "clip-benchmark/wds_fer2013", image="jpg", label="cls", revision=CONVERTED, numbered=True
    ),
    "cifar10": Repository("tanganke/cifar10"),
    "food101": Repository("ethz/food101", {"train": "train", "test": "validation"}),
    "fashion_mnist": Repository("zalando-datasets/fashion_mnist"),
    "rendered_sst2": Repository("nateraw/rendered-sst2"),
    "emnist": Repository("tanganke/emnist_mnist", numbered=True),
    "kmnist": Repository("tanganke/kmnist", numbered=True),  # its class names are numbers
    # Its class names are WordNet's, in the order of the identifiers.
    "imagenet": Repository(
        "ILSVRC/imagenet-1k", {"train": "train", "test": "validation"}, numbered=True
    ),
}
