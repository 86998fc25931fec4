"""Caches facts about images in the user's cache folder between runs.

The key is a file's name and stamp (size, times, inode), so checking unchanged files again takes a
moment. If the folder does not exist or cannot be written, everything is determined again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from orthoreg_jax.storage import cache_folder

from .facts import Facts, Stamp

SETTLED = 2.0  # seconds: a file changed more recently may change again within one clock tick
SCHEMA = """CREATE TABLE IF NOT EXISTS images
(key BLOB PRIMARY KEY, stamp TEXT, sha256 BLOB, changes TEXT, whole INTEGER)"""


class Kept:
    """A cache of facts; if anything is wrong with it, work continues without it."""

    def __init__(self) -> None:
        """Opens nothing yet."""
        self._table: Any = None
        self._path = pathlib.Path()

    def __enter__(self) -> Kept:
        """Opens the table, or continues without it."""
        folder = cache_folder()
        if folder is not None:
            self._path = folder / "images.sqlite"
            with contextlib.suppress(*_faults()):
                import sqlite3

                folder.mkdir(parents=True, exist_ok=True)
                self._table = sqlite3.connect(self._path, timeout=5.0)
            self._ask(lambda table: table.execute(SCHEMA))
        return self

    def __exit__(self, *error: object) -> None:
        """Closes it."""
        if self._table is not None:
            self._table.close()

    def read(self, names: Sequence[str], stamps: Sequence[Stamp | None]) -> list[Facts | None]:
        """Facts of unchanged files, by their names; None for the others."""
        keys = [_key(name) for name in names]
        query = f"SELECT * FROM images WHERE key IN ({', '.join('?' * len(keys))})"
        rows = self._ask(lambda table: table.execute(query, keys).fetchall()) or []
        found = {key: rest for key, *rest in rows}
        return [
            _facts(found[key], stamp) if stamp is not None and key in found else None
            for key, stamp in zip(keys, stamps, strict=True)
        ]

    def write(self, new: Sequence[tuple[str, Stamp | None, Facts]], seen: float) -> None:
        """Stores facts by name and stamp; damaged images are left out, to be checked again.

        Args:
          new: names, stamps and facts.
          seen: when the stamps were taken, in seconds.
        """
        rows = [
            (_key(name), stamp.text, facts.sha256, json.dumps(facts.changes), int(facts.whole))
            for name, stamp, facts in new
            if stamp is not None and not facts.problem and seen - stamp.changed > SETTLED
        ]

        def store(table: Any) -> None:
            table.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?)", rows)
            table.commit()

        self._ask(store)

    def _ask(self, work: Callable[[Any], Any]) -> Any:
        """Result of `work` on the table; after an error, None from then on.

        Waiting for another process's lock at every block would take hours. A damaged file is
        removed, because all its content can be determined again.
        """
        if self._table is None:
            return None
        try:
            return work(self._table)
        except _faults() as error:
            with contextlib.suppress(*_faults()):
                self._table.close()
                if _is_damage(error):
                    self._path.unlink()
            self._table = None
            return None


def _faults() -> tuple[type[Exception], ...]:
    """Errors that a cache may raise; some builds of Python have no sqlite3."""
    try:
        from sqlite3 import Error
    except ImportError:
        return (OSError, ImportError)
    return (OSError, Error)


def _is_damage(error: Exception) -> bool:
    """Whether the file is not a valid database, rather than busy or on a full disk."""
    return type(error).__name__ == "DatabaseError"


def _key(name: str) -> bytes:
    return hashlib.sha256(os.fsencode(name)).digest()[:16]


def _facts(row: Sequence[Any], stamp: Stamp) -> Facts | None:
    """Facts in a row of the table, if the file is unchanged; None otherwise."""
    try:
        text, sha256, changes, whole = row
        facts = Facts("", sha256, tuple(json.loads(changes)), "", bool(whole))
        return facts if text == stamp.text else None
    except (ValueError, TypeError):  # the row is damaged
        return None
