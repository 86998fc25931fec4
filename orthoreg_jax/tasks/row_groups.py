"""Row groups of parquet files, read on demand; the most recently used stay in memory."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

from orthoreg_jax.extras import install

from .facts import file_stamp
from .notes import shown

UNKNOWN = 1 << 30  # bytes kept if the system does not report its memory
LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")  # a container's memory limit


class Group(NamedTuple):
    """A row group: its file, its number and first row there, and the file's stamp."""

    path: pathlib.Path
    number: int
    first: int
    stamp: str


def open_parquet(path: pathlib.Path) -> Any:
    """Opens a parquet file; its footer is read only once.

    Raises:
      ValueError: pyarrow is not installed.
    """
    parquet = _pyarrow_parquet()
    return parquet.ParquetFile(path, metadata=_footer(path, file_stamp(path).text))


@functools.lru_cache(maxsize=4096)
def _footer(path: pathlib.Path, stamp: str) -> Any:
    del stamp  # part of the cache's key: with another stamp, the file is read again
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
def readable(path: pathlib.Path) -> Iterator[None]:
    """Adds the file's name to errors raised while it is read."""
    _pyarrow_parquet()
    try:
        yield
    except Exception as error:  # pyarrow raises many kinds for damaged files
        raise ValueError(f"{shown(path)}: {error}; fetch or copy it again") from error


class Groups:
    """Columns of the most recently used row groups; if several threads want one, one reads it."""

    def __init__(self, most: int) -> None:
        self._most, self._held, self._lock = most, 0, threading.Lock()
        self._kept: OrderedDict[tuple[Group, str], Future[Any]] = OrderedDict()

    def read(self, group: Group, column: str) -> Any:
        """One column of a row group, as a pyarrow array."""
        key = group, column
        with self._lock:
            new = key not in self._kept
            future = self._kept.setdefault(key, Future())
            self._kept.move_to_end(key)
        if new:
            try:
                future.set_result(_read_column(group, column))
            except BaseException as error:  # passed to the waiting threads, not kept
                with self._lock:
                    self._kept.pop(key)
                future.set_exception(error)
            else:
                self._make_room(future.result().nbytes)
        return future.result()

    def _make_room(self, size: int) -> None:
        with self._lock:
            self._held += size
            for key in list(self._kept)[:-1]:  # least recently used first
                if self._held <= self._most:
                    break
                if self._kept[key].done():
                    self._held -= self._kept.pop(key).result().nbytes


def _quarter_of_memory() -> int:
    """Bytes of row groups that a process keeps; 1 GiB if the system does not report its memory."""
    try:
        sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        limit = LIMIT.read_text().strip() if LIMIT.exists() else ""
        sizes += [int(limit)] if limit.isdecimal() else []
    except (OSError, ValueError, AttributeError):
        return UNKNOWN
    return min(sizes) // 4


GROUPS = Groups(_quarter_of_memory())


def _read_column(group: Group, column: str) -> Any:
    with readable(group.path):
        file = open_parquet(group.path)
        struct = any(name.startswith(f"{column}.") for name in _leaves(file))
        wanted = [f"{column}.bytes" if struct else column]
        table = file.read_row_group(group.number, columns=wanted, use_threads=False)
        values = table.column(0).combine_chunks()
        return values.field("bytes") if struct else values


def _leaves(file: Any) -> list[str]:
    return [file.schema.column(number).path for number in range(len(file.schema.names))]
