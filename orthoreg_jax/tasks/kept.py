"""What was found of images, kept in the user's cache folder from one run to the next.

By name and stamp of the file (size, times, inode), so that the next look at unchanged files takes
a moment. Where there is no such folder, or it cannot be written, everything is determined again.
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

SETTLED = 2.0  # seconds: what changed later than so long ago may change again within one tick
SCHEMA = """CREATE TABLE IF NOT EXISTS images
(key BLOB PRIMARY KEY, stamp TEXT, sha256 BLOB, changes TEXT, whole INTEGER)"""


class Kept:
    """Facts in the user's cache folder; if anything is wrong with it, work continues without."""

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
        """Facts of files that are as they were, by their names; None for others."""
        keys = [_key(name) for name in names]
        query = f"SELECT * FROM images WHERE key IN ({', '.join('?' * len(keys))})"
        rows = self._ask(lambda table: table.execute(query, keys).fetchall()) or []
        found = {key: rest for key, *rest in rows}
        return [
            _facts(found[key], stamp) if stamp is not None and key in found else None
            for key, stamp in zip(keys, stamps, strict=True)
        ]

    def write(self, new: Sequence[tuple[str, Stamp | None, Facts]], seen: float) -> None:
        """Keeps facts by name and stamp, but for damage, which is to be looked at again.

        Args:
          new: names, stamps, facts.
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
        """What some work on the table gives; after a fault, None from then on.

        To wait for another process's lock at every block would take hours. A damaged file is
        removed: it holds nothing that cannot be found again.
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
    """What may be wrong with a cache; some builds of Python have no sqlite3."""
    try:
        from sqlite3 import Error
    except ImportError:
        return (OSError, ImportError)
    return (OSError, Error)


def _is_damage(error: Exception) -> bool:
    """Whether the file is none of a database, not just busy or on a full disk."""
    return type(error).__name__ == "DatabaseError"


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
