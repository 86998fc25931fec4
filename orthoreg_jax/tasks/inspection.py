"""What is known of stored images: hashes, what reading changes, damage; looked up once for each.

What was found is kept in the user's cache folder, by name and stamp of the file (size, times,
inode), so that the next look at unchanged files takes a moment. Where there is no such folder, or
it cannot be written, everything is looked up anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from orthoreg_jax.progress import Progress
from orthoreg_jax.storage import cache_folder

from .decoding import RULE, THREADS, look, unreadable
from .notes import Note, note, shown

BLOCK = 512  # images whose facts are kept at once
SHOWN_FROM = 4 * BLOCK  # of so many images on, progress is shown
SETTLED = 2.0  # seconds: what changed later than so long ago may change again within one tick


class Facts(NamedTuple):
    """Of one stored image.

    Attributes:
      name: for people.
      sha256: of its content, as stored; b"" if it cannot be read.
      changes: what reading it leaves out or changes, in words that follow "images ...".
      problem: where it is and why it cannot be read, or "".
      whole: whether all of it was decoded, not the header alone.
    """

    name: str
    sha256: bytes
    changes: tuple[str, ...] = ()
    problem: str = ""
    whole: bool = True


class Stamp(NamedTuple):
    """What changes when a file's content may have changed, and when it last did, in seconds."""

    text: str
    changed: float


@runtime_checkable
class Stored(Protocol):
    """Encoded images by row."""

    def place(self, row: int) -> str:
        """Where an image is: a name that no other one has."""

    def name(self, row: int) -> str:
        """A short name of it."""

    def stamp(self, row: int) -> Stamp:
        """Of the file that the image is in.

        Raises:
          OSError, ValueError: it is not there, or no file.
        """

    def content(self, row: int) -> bytes:
        """One image as it is stored."""


def changed_images(facts: Sequence[Facts]) -> list[Note]:
    """How many images are read otherwise than they are stored, by what is left out or changed."""
    names: dict[str, list[str]] = {}
    for each in facts:
        for change in each.changes:
            names.setdefault(change, []).append(each.name)
    return [note(f"images {change}", found) for change, found in sorted(names.items())]


def file_stamp(path: pathlib.Path) -> Stamp:
    """Of a file: its size, inode, and when its content and its inode were last changed.

    Raises:
      OSError: it is not there.
      ValueError: it is no regular file; opening a pipe would wait for ever.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no file")
    times = found.st_mtime_ns, found.st_ctime_ns
    return Stamp(f"{found.st_size} {found.st_ino} {times}", max(times) / 1e9)


def inspect_stored(
    images: Stored, rows: Sequence[int] | Int[np.ndarray, " n"], whole: bool, label: str
) -> list[Facts]:
    """Facts of some images, in parallel.

    Args:
      images: encoded.
      rows: of them.
      whole: decode every pixel, not the header alone.
      label: what the progress of many images is called.
    """
    rows = [int(row) for row in rows]
    found: dict[int, Facts] = {}
    with Kept() as kept, ThreadPoolExecutor(THREADS) as pool, _progress(label, len(rows)) as bar:
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            names = [images.place(row) for row in block]
            stamps = list(pool.map(lambda row: _stamp(images, row), block))
            known = kept.read(names, stamps)
            old = {row: facts._replace(name=shown(images.name(row)))
                   for row, facts in zip(block, known, strict=True)
                   if facts is not None and facts.whole >= whole}  # fmt: skip
            new = [row for row in block if row not in old]
            found |= old | dict(
                zip(new, pool.map(lambda row: _inspect(images, row, whole), new), strict=True)
            )
            kept.write([(name, stamp, found[row]) for name, stamp, row in
                        zip(names, stamps, block, strict=True) if row not in old])  # fmt: skip
            if bar is not None:
                bar.update(len(block))
    return [found[row] for row in rows]


def _progress(label: str, total: int) -> Any:
    return Progress(label, total) if total >= SHOWN_FROM else contextlib.nullcontext()


def _stamp(images: Stored, row: int) -> Stamp | None:
    try:
        stamp = images.stamp(row)
    except (OSError, ValueError):  # which `_inspect` says
        return None
    return stamp._replace(text=f"{stamp.text} {_rule()}")


def _inspect(images: Stored, row: int, whole: bool) -> Facts:
    name, digest = shown(images.name(row)), b""
    try:
        images.stamp(row)
        content = images.content(row)
        digest = hashlib.sha256(content).digest()
        return Facts(name, digest, look(content, whole), whole=whole)
    except Exception as error:  # Pillow's kinds for damaged files are many
        problem = f"{shown(images.place(row))}: {unreadable(error)}"
        return Facts(name, digest, problem=problem, whole=whole)


def _rule() -> str:
    import PIL

    return f"{RULE} {PIL.__version__}"


class Kept:
    """Facts in the user's cache folder; whatever is wrong with it, work goes on without."""

    def __init__(self) -> None:
        """Opens it, or not."""
        self._table: Any = None

    def __enter__(self) -> Kept:
        """Itself."""
        folder = cache_folder()
        if folder is not None:
            with contextlib.suppress(*_faults()):
                self._table = _open(folder / "images.sqlite")
        return self

    def __exit__(self, *error: object) -> None:
        """Closes it."""
        if self._table is not None:
            self._table.close()

    def read(self, names: Sequence[str], stamps: Sequence[Stamp | None]) -> list[Facts | None]:
        """Facts of files that are as they were, by their names; None for others."""
        keys = [_key(name) for name in names]
        query = f"SELECT * FROM images WHERE key IN ({', '.join('?' * len(keys))})"
        rows = self._ask(lambda table: table.execute(query, keys).fetchall()) or []
        found = {key: rest for key, *rest in rows}
        return [
            _facts(found[key], stamp) if stamp is not None and key in found else None
            for key, stamp in zip(keys, stamps, strict=True)
        ]

    def write(self, new: Sequence[tuple[str, Stamp | None, Facts]]) -> None:
        """Keeps facts by name and stamp, but for damage, which is to be looked at again."""
        rows = [
            (_key(name), stamp.text, facts.sha256, json.dumps(facts.changes), int(facts.whole))
            for name, stamp, facts in new
            if stamp is not None and not facts.problem and time.time() - stamp.changed > SETTLED
        ]

        def store(table: Any) -> None:
            table.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?)", rows)
            table.commit()

        self._ask(store)

    def _ask(self, work: Callable[[Any], Any]) -> Any:
        """What some work on the table gives; after a fault, None from then on.

        To wait for another process's lock at every block would take hours.
        """
        if self._table is None:
            return None
        try:
            return work(self._table)
        except _faults():
            self._table.close()
            self._table = None
            return None


def _open(path: pathlib.Path) -> Any:
    import sqlite3

    path.parent.mkdir(parents=True, exist_ok=True)
    table = sqlite3.connect(path, timeout=5.0)
    try:
        table.execute(
            "CREATE TABLE IF NOT EXISTS images (key BLOB PRIMARY KEY, stamp TEXT, sha256 BLOB, "
            "changes TEXT, whole INTEGER)"
        )
    except sqlite3.OperationalError:  # busy, or a full disk
        table.close()
        raise
    except sqlite3.DatabaseError:  # damaged; it holds nothing that cannot be found again
        table.close()
        path.unlink()
        raise
    return table


def _faults() -> tuple[type[Exception], ...]:
    """What may be wrong with a cache; some builds of Python have no sqlite3."""
    try:
        from sqlite3 import Error
    except ImportError:
        return (OSError, ImportError)
    return (OSError, Error)


def _key(name: str) -> bytes:
    return hashlib.sha256(os.fsencode(name)).digest()[:16]


def _facts(row: Sequence[Any], stamp: Stamp) -> Facts | None:
    """A row of the table, if it belongs to the file as it is now."""
    try:
        text, sha256, changes, whole = row
        facts = Facts("", sha256, tuple(json.loads(changes)), "", bool(whole))
        return facts if text == stamp.text else None
    except (ValueError, TypeError):  # damaged
        return None
