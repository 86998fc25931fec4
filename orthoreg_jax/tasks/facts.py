"""Facts about one stored image, and when they must be determined again."""

from __future__ import annotations

import pathlib
import stat
from collections.abc import Sequence
from typing import NamedTuple

from .notes import Note, note


class Facts(NamedTuple):
    """Facts about one stored image.

    Attributes:
      name: name in messages.
      sha256: hash of its stored content; b"" if it cannot be read.
      changes: what reading it drops or changes, in words that follow "images ...".
      problem: where it is and why it cannot be read, or "".
      whole: whether the whole image was decoded, not only its header.
    """

    name: str
    sha256: bytes
    changes: tuple[str, ...] = ()
    problem: str = ""
    whole: bool = True


class Stamp(NamedTuple):
    """A text that changes when a file may have changed, and when it last did, in seconds."""

    text: str
    changed: float


def changed_images(facts: Sequence[Facts]) -> list[Note]:
    """Counts the images that are read differently from how they are stored, by kind of change."""
    names: dict[str, list[str]] = {}
    for each in facts:
        for change in each.changes:
            names.setdefault(change, []).append(each.name)
    return [note(f"images {change}", found) for change, found in sorted(names.items())]


def file_stamp(path: pathlib.Path) -> Stamp:
    """Stamp of a file: its size, inode, and the times of its last content and inode changes.

    Raises:
      OSError: the file does not exist.
      ValueError: it is not a regular file; opening a pipe would wait for ever.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a file")
    times = found.st_mtime_ns, found.st_ctime_ns
    return Stamp(f"{found.st_size} {found.st_ino} {times}", max(times) / 1e9)
