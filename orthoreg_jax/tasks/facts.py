"""The known facts of one stored image, and when to determine them again."""

from __future__ import annotations

import pathlib
import stat
from collections.abc import Sequence
from typing import NamedTuple

from .notes import Note, note


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
        raise ValueError("it is not a file")
    times = found.st_mtime_ns, found.st_ctime_ns
    return Stamp(f"{found.st_size} {found.st_ino} {times}", max(times) / 1e9)
