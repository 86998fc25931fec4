"""Images in parquet files, as the hub stores data sets: rows of an encoded image and a label.

Files are read a row group at a time, when an image of it is asked for. The groups read last are
kept: small sets stay in memory, and a pass in order reads each group once.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import io
import itertools
import json
import os
import pathlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from orthoreg_jax.extras import install

from .decoding import decode
from .facts import Facts, Stamp, file_stamp
from .inspection import inspect_stored
from .notes import listed, shown
from .split import Rows

ANYHOW = 1 << 30
LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")  # of a container


class Schema(NamedTuple):
    """What the rows of a set are.

    Attributes:
      image: column of encoded images.
      label: column of labels.
      names: of the classes, by their numbers; () if the files name none.
    """

    image: str
    label: str
    names: tuple[str, ...]


class Group(NamedTuple):
    """A row group: file, its number in it, its first row there, and the file's stamp."""

    path: pathlib.Path
    number: int
    first: int
    stamp: str


@dataclasses.dataclass(frozen=True)
class ParquetImages:
    """Images of some parquet files, one file after the other; encoded until they are asked for."""

    groups: tuple[Group, ...]
    starts: tuple[int, ...]  # first image of each group; at the end, the number of all
    column: str
    title: str  # of set and split, for people

    def __len__(self) -> int:
        """Number of images."""
        return self.starts[-1]

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image in RGB.

        Raises:
          ValueError: a row without a whole image; it is named.
        """
        return decode(io.BytesIO(self.content(row)), self.place(row))

    def inspect(self, rows: Rows, whole: bool = False) -> list[Facts]:
        """Facts of some images."""
        return inspect_stored(self, rows, whole, f"images of {self.title}")

    def place(self, row: int) -> str:
        """The file's absolute path, and the row in it."""
        group, within = self._find(row)
        return f"{os.path.abspath(group.path)}: row {group.first + within}"

    def name(self, row: int) -> str:
        """The file's name, and the row in it."""
        group, within = self._find(row)
        return f"{group.path.name} row {group.first + within}"

    def stamp(self, row: int) -> Stamp:
        """Of the row's file."""
        return self._stamps[self._find(row)[0].path]

    @functools.cached_property
    def _stamps(self) -> dict[pathlib.Path, Stamp]:
        return {path: file_stamp(path) for path in {group.path for group in self.groups}}

    def content(self, row: int) -> bytes:
        """The encoded image.

        Raises:
          ValueError: the row holds none, or its file cannot be read.
        """
        group, within = self._find(row)
        content = _GROUPS.read(group, self.column)[within].as_py()
        if not content:
            raise ValueError(
                f"{self.place(row)}: holds no bytes of an image, at most the name of a file; fetch "
                "or make the set with its images embedded"
            )
        return bytes(content)

    def _find(self, row: int) -> tuple[Group, int]:
        """The row's group, and its place there."""
        row = range(len(self))[row]
        place = bisect.bisect_right(self.starts, row) - 1
        return self.groups[place], row - self.starts[place]


def read_split(
    files: Sequence[pathlib.Path], schema: Schema, title: str
) -> tuple[ParquetImages, Int[np.ndarray, " n"]]:
    """Images and labels, as numbers, of a split that is some files.

    Raises:
      ValueError: a file that cannot be read, columns that are not there, rows without a label.
    """
    groups, sizes, labels = [], [], []
    for path in files:
        with _readable(path):
            file = open_parquet(path)
            facts, first, stamp = file.metadata, 0, file_stamp(path).text
            for number in range(facts.num_row_groups):
                groups.append(Group(path, number, first, stamp))
                sizes.append(facts.row_group(number).num_rows)
                first += sizes[-1]
            labels.append(_numbers(file, schema))
    starts = tuple(itertools.accumulate(sizes, initial=0))
    found = np.concatenate([np.zeros(0, np.int32), *labels])
    return ParquetImages(tuple(groups), starts, schema.image, title), found


def _numbers(file: Any, schema: Schema) -> Int[np.ndarray, " n"]:
    """The labels of one file; text is looked up among the names of the classes."""
    import pyarrow as pa

    held = file.schema_arrow
    for name in (schema.image, schema.label):
        if name not in held.names:
            raise ValueError(f"it has no column {name!r}, only {listed(held.names)}")
    column = file.read(columns=[schema.label], use_threads=False).column(0)
    if column.null_count:
        raise ValueError(f"{column.null_count} rows have no {schema.label!r}")
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise ValueError(f"its column {schema.label!r} holds {kind}; labels are integers")
    values = np.asarray(column.to_numpy())
    if len(values) and (values.min() < 0 or values.max() > np.iinfo(np.int32).max):
        raise ValueError(
            f"its labels run from {values.min()} to {values.max()}; -1 marks a split whose labels "
            "are not published"
        )
    return values.astype(np.int32)


def read_schema(path: pathlib.Path, image: str = "", label: str = "") -> Schema:
    """The columns of a set, and what its metadata calls the classes.

    Args:
      path: one of its files.
      image: column of the images; "": the only one that may be.
      label: column of the labels; "": the only one of classes, or else of integers.

    Raises:
      ValueError: no such columns, or several that may be meant.
    """
    import pyarrow as pa

    with _readable(path):
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
            f"{shown(path)}: its column {image!r} holds {kinds[image]}; images are bytes, or a "
            "struct of bytes and path"
        )
    named = [name for name in kinds if _class_names(features.get(name))]
    label = chosen("label", label, named, [name for name, kind in kinds.items() if is_number(kind)])
    return Schema(image, label, _class_names(features.get(label)))


def _features(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """What the library `datasets` noted of the columns, where it wrote the file."""
    found: Any = json.loads(metadata.get(b"huggingface", b"{}"))
    for key in ("info", "features"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _class_names(feature: Any) -> tuple[str, ...]:
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def open_parquet(path: pathlib.Path) -> Any:
    """A parquet file; its footer is read once.

    Raises:
      ValueError: pyarrow is not installed.
    """
    parquet = _pyarrow_parquet()
    return parquet.ParquetFile(path, metadata=_footer(path, file_stamp(path).text))


@functools.lru_cache(maxsize=4096)
def _footer(path: pathlib.Path, stamp: str) -> Any:
    del stamp  # another one is another file
    return _pyarrow_parquet().read_metadata(path)


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"reading parquet files needs pyarrow, which is not installed: {install('data')}"
        ) from error
    return pyarrow.parquet


@contextlib.contextmanager
def _readable(path: pathlib.Path) -> Iterator[None]:
    """Names the file that something is wrong with."""
    _pyarrow_parquet()
    try:
        yield
    except Exception as error:  # pyarrow's kinds for damaged files are many
        raise ValueError(f"{shown(path)}: {error}; fetch or copy it again") from error


class _Groups:
    """The columns of row groups that were read last; of several threads, one reads."""

    def __init__(self, most: int) -> None:
        self._most, self._held, self._lock = most, 0, threading.Lock()
        self._kept: OrderedDict[tuple[Group, str], Future[Any]] = OrderedDict()

    def read(self, group: Group, column: str) -> Any:
        """One column of a row group, as an array of pyarrow's."""
        key = group, column
        with self._lock:
            new = key not in self._kept
            future = self._kept.setdefault(key, Future())
            self._kept.move_to_end(key)
        if new:
            try:
                future.set_result(_read_column(group, column))
            except BaseException as error:  # for the threads that wait; it is not kept
                with self._lock:
                    self._kept.pop(key)
                future.set_exception(error)
            else:
                self._make_room(future.result().nbytes)
        return future.result()

    def _make_room(self, size: int) -> None:
        with self._lock:
            self._held += size
            for key in list(self._kept)[:-1]:  # from the one asked for longest ago
                if self._held <= self._most:
                    break
                if self._kept[key].done():
                    self._held -= self._kept.pop(key).result().nbytes


def _quarter_of_memory() -> int:
    """Bytes of row groups that a process keeps; 1 GiB if the system does not say what it has."""
    try:
        sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        limit = LIMIT.read_text().strip() if LIMIT.exists() else ""
        sizes += [int(limit)] if limit.isdecimal() else []
    except (OSError, ValueError, AttributeError):
        return ANYHOW
    return min(sizes) // 4


_GROUPS = _Groups(_quarter_of_memory())


def _read_column(group: Group, column: str) -> Any:
    with _readable(group.path):
        file = open_parquet(group.path)
        struct = any(name.startswith(f"{column}.") for name in _leaves(file))
        wanted = [f"{column}.bytes" if struct else column]
        table = file.read_row_group(group.number, columns=wanted, use_threads=False)
        values = table.column(0).combine_chunks()
        return values.field("bytes") if struct else values


def _leaves(file: Any) -> list[str]:
    return [file.schema.column(number).path for number in range(len(file.schema.names))]
