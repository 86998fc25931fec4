"""Notes for people on data that is read all the same: counts, and the first few names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

FIRST = 3


class Note(NamedTuple):
    """A note on a number of files: the count, what it says, and the names of the first."""

    number: int
    what: str
    first: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line."""
        names = f" ({listed(self.first, self.number, FIRST)})" if self.first else ""
        what = self.what
        if self.number == 1:
            what = what.replace("images", "image", 1).replace("classes", "class", 1)
        return f"{self.number} {what}{names}"


def note(what: str, names: Sequence[str]) -> Note:
    """A note on files by their names."""
    return Note(len(names), what, tuple(map(shown, names[:FIRST])))


def shown(name: str | os.PathLike[str]) -> str:
    """A file name that any terminal can show: bytes and unprintable characters are escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def listed(names: Iterable[str], count: int | None = None, most: int = 5) -> str:
    """The first `most` of `count` names, separated by commas."""
    names = list(names)
    more = (len(names) if count is None else count) > most
    return ", ".join(names[:most]) + (", ..." if more else "")
