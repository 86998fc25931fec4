"""Images in parquet files, as the hub stores data sets: rows of an encoded image and a label.

A row group is read when one of its images is needed. The most recently used groups stay in memory:
small sets stay there completely, and a pass in order reads each group once.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import io
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from .decoding import decode
from .facts import Facts, Stamp, file_stamp
from .inspection import inspect_stored
from .notes import shown
from .row_groups import GROUPS, Group, open_parquet, readable
from .split import Rows


class Schema(NamedTuple):
    """Columns and class names of a set.

    Attributes:
      image: column of encoded images.
      label: column of labels.
      names: class names by number; () if the files have none.
    """

    image: str
    label: str
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ParquetImages:
    """Images of parquet files, one file after another, encoded until they are read."""

    groups: tuple[Group, ...]
    starts: tuple[int, ...]  # first image of each group, and finally the number of images
    column: str
    title: str  # set and split, for messages

    def __len__(self) -> int:
        """Number of images."""
        return self.starts[-1]

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image in RGB.

        Raises:
          ValueError: a row does not contain a complete image; the message names it.
        """
        return decode(io.BytesIO(self.content(row)), self.place(row))

    def inspect(self, rows: Rows, whole: bool = False) -> list[Facts]:
        """Facts about some images."""
        return inspect_stored(self, rows, whole, f"images of {self.title}")

    def place(self, row: int) -> str:
        """Path of the file, and the row in it."""
        group, within = self._find(row)
        return f"{group.path}: row {group.first + within}"

    def name(self, row: int) -> str:
        """Name of the file, and the row in it."""
        group, within = self._find(row)
        return f"{group.path.name} row {group.first + within}"

    def stamp(self, row: int) -> Stamp:
        """Stamp of the row's file."""
        return self._stamps[self._find(row)[0].path]

    @functools.cached_property
    def _stamps(self) -> dict[pathlib.Path, Stamp]:
        return {path: file_stamp(path) for path in {group.path for group in self.groups}}

    def content(self, row: int) -> bytes:
        """The encoded image.

        Raises:
          ValueError: the row is empty, or its file cannot be read.
        """
        group, within = self._find(row)
        content = GROUPS.read(group, self.column)[within].as_py()
        if not content:
            raise ValueError(
                f"{self.place(row)}: contains no image bytes, at most the name of a file; fetch "
                "or build the set with its images embedded"
            )
        return bytes(content)

    def _find(self, row: int) -> tuple[Group, int]:
        """The row's group, and its position there."""
        row = range(len(self))[row]
        place = bisect.bisect_right(self.starts, row) - 1
        return self.groups[place], row - self.starts[place]


def read_split(
    files: Sequence[pathlib.Path], schema: Schema, title: str
) -> tuple[ParquetImages, Int[np.ndarray, " n"]]:
    """Images and labels, as numbers, of a split stored in some files.

    Raises:
      ValueError: a file cannot be read, a column is missing, or a row has no label.
    """
    groups, sizes, labels = [], [], []
    for path in files:
        with readable(path):
            file = open_parquet(path)
            facts, first, stamp = file.metadata, 0, file_stamp(path).text
            for number in range(facts.num_row_groups):
                groups.append(Group(path, number, first, stamp))
                sizes.append(facts.row_group(number).num_rows)
                first += sizes[-1]
            column = file.read(columns=[schema.label], use_threads=False).column(0)
        labels.append(_numbers(path, schema.label, column))
    starts = tuple(itertools.accumulate(sizes, initial=0))
    found = np.concatenate([np.zeros(0, np.int32), *labels])
    return ParquetImages(tuple(groups), starts, schema.image, title), found


def _numbers(path: pathlib.Path, name: str, column: Any) -> Int[np.ndarray, " n"]:
    """Labels of one file, from its column."""
    import pyarrow as pa

    kind, empty = column.type, column.null_count
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise ValueError(
            f"{shown(path)}: its column {name!r} holds {kind}, but labels are integers; name their "
            "column as 'label'"
        )
    if empty:
        raise ValueError(f"{shown(path)}: {empty} rows have no {name!r}; remove them")
    values = np.asarray(column.to_numpy())
    if len(values) and (values.min() < 0 or values.max() > np.iinfo(np.int32).max):
        raise ValueError(
            f"{shown(path)}: its labels run from {values.min()} to {values.max()}; -1 marks a "
            "split whose labels are not published: name another one in 'splits'"
        )
    return values.astype(np.int32)


def read_schema(path: pathlib.Path, image: str = "", label: str = "") -> Schema:
    """The columns of a set, and its class names from the metadata.

    Args:
      path: one of its files.
      image: column of the images; "": the only possible one.
      label: column of the labels; "": the only one of classes, or else of integers.

    Raises:
      ValueError: no column is suitable, or several are.
    """
    import pyarrow as pa

    with readable(path):
        held = open_parquet(path).schema_arrow
        features = _features(held.metadata or {})
    kinds = dict(zip(held.names, held.types, strict=True))

    def is_image(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" and is_image(field.type) for field in kind)
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    def is_number(kind: Any) -> bool:
        return pa.types.is_integer(kind) or pa.types.is_boolean(kind)

    def chosen(what: str, name: str, *choices: list[str]) -> str:
        found = [name] if name in kinds else next(filter(None, choices), [])
        if name not in ("", *kinds) or len(found) != 1:
            which = f"no column {name!r}" if name else f"{len(found)} columns that may be {what}s"
            raise ValueError(
                f"{shown(path)}: has {which}; its columns are "
                f"{', '.join(f'{each} ({kind})' for each, kind in kinds.items())}: name one of "
                f"them as {what!r}"
            )
        return found[0]

    image = chosen("image", image, [name for name, kind in kinds.items() if is_image(kind)])
    if not is_image(kinds[image]):
        raise ValueError(
            f"{shown(path)}: its column {image!r} holds {kinds[image]}, but images are bytes, or a "
            "struct of bytes and path"
        )
    named = [name for name in kinds if _class_names(features.get(name))]
    label = chosen("label", label, named, [name for name, kind in kinds.items() if is_number(kind)])
    return Schema(image, label, _class_names(features.get(label)))


def _features(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """What the library `datasets` noted about the columns, if it wrote the file."""
    found: Any = json.loads(metadata.get(b"huggingface", b"{}"))
    for key in ("info", "features"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _class_names(feature: Any) -> tuple[str, ...]:
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()
