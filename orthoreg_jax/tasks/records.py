"""Tasks that tensorflow-datasets prepared as array_record files, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from .decoding import decode
from .facts import Facts, Stamp, file_stamp
from .inspection import inspect_stored
from .split import Rows, Split

_DAMAGED = "cannot be read; prepare or copy the set again"


@dataclasses.dataclass(frozen=True)
class RecordImages:
    """Records of a prepared set; each image stays encoded until it is read."""

    source: Any  # tfds' random-access data source
    split: str  # set, config, version and split
    files: tuple[pathlib.Path, ...]  # the split's files

    def __len__(self) -> int:
        """Number of images."""
        return len(self.source)

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image in RGB.

        Raises:
          ValueError: a record does not contain a complete image.
        """
        return decode(io.BytesIO(self.content(row)), self.place(row))

    def inspect(self, rows: Rows, whole: bool = False) -> list[Facts]:
        """Facts about some images."""
        return inspect_stored(self, rows, whole, f"images of {self.split}")

    def place(self, row: int) -> str:
        """Folder of the set, and the record in it."""
        return f"{self.files[0].parent}: {self.name(row)}"

    def name(self, row: int) -> str:
        """Number and split of the record."""
        return f"record {row} of {self.split}"

    def stamp(self, row: int) -> Stamp:
        """Stamp of all files of the split."""
        del row
        return self._stamp

    @functools.cached_property
    def _stamp(self) -> Stamp:
        stamps = [file_stamp(path) for path in self.files]
        text = hashlib.sha256(repr([stamp.text for stamp in stamps]).encode()).hexdigest()
        return Stamp(text, max(stamp.changed for stamp in stamps))

    def content(self, row: int) -> bytes:
        """The encoded image."""
        encoded = self.source[row]["image"]
        return encoded if isinstance(encoded, bytes) else bytes(encoded)


def find_builder(data: pathlib.Path, name: str) -> Any:
    """The newest prepared version of the set `name` below `data`.

    Args:
      data: a tfds data directory.
      name: name of a set, or "set/config".

    Raises:
      ValueError: it does not exist, or is not stored as array_record files.
    """
    import tensorflow_datasets as tfds

    place = data / name
    versions = sorted(path.parent for path in place.glob("**/dataset_info.json"))
    if not versions:
        raise ValueError(f"{place}: contains no set prepared by tensorflow-datasets")
    try:
        builder = tfds.builder_from_directory(str(versions[-1]))
    except Exception as error:  # JSON, protobuf: each raises its own kind for a damaged file
        raise ValueError(f"{versions[-1]}: {_DAMAGED} ({error})") from error
    if builder.info.file_format.value != "array_record":
        raise ValueError(
            f"{versions[-1]}: is prepared as {builder.info.file_format.value} files, which only "
            "TensorFlow reads; prepare it again with --file_format=array_record"
        )
    return builder


def read_records(builder: Any, split: str, labels: Sequence[str]) -> Split:
    """Reads one split of a prepared set.

    Args:
      builder: from `find_builder`.
      split: as tfds writes it, for example "train", "train[:90%]" or "train+validation".
      labels: the set's names of the task's classes, in the order of the classes.

    Raises:
      ValueError: the split does not exist, the set has no features `image` and `label`, or its
        labels are not the task's.
    """
    import tensorflow_datasets as tfds

    features, known = builder.info.features, builder.info.splits
    parts = [part.partition("[")[0].strip() for part in split.split("+")]
    if not set(parts) <= set(known):
        raise ValueError(f"{builder.info.full_name}: has no split {split!r}, only {list(known)}")
    if not {"image", "label"} <= set(features):
        raise ValueError(
            f"{builder.info.full_name}: has the features {', '.join(features)}, but image and "
            "label are needed"
        )
    names = features["label"].names or [str(n) for n in range(features["label"].num_classes)]
    strange = [name for name in names if name not in labels]
    if strange:
        raise ValueError(
            f"{builder.info.full_name}: its labels {', '.join(strange[:5])} are not among the "
            f"task's, which are {', '.join(labels[:5])}"
        )
    positions = np.array([labels.index(name) for name in names], np.int32)
    keep_encoded = {"image": tfds.decode.SkipDecoding()}
    try:
        source = builder.as_data_source(split=split, decoders=keep_encoded)
        found = [int(source[row]["label"]) for row in range(len(source))]
    except Exception as error:  # array_record raises its own kinds
        raise ValueError(f"{builder.info.full_name}/{split}: {_DAMAGED} ({error})") from error
    files = tuple(pathlib.Path(path) for part in parts for path in known[part].filepaths)
    images = RecordImages(source, f"{builder.info.full_name}/{split}", files)
    return Split(images, positions[found])
