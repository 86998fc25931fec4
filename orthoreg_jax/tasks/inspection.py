"""Inspects stored images once: hashes, what reading changes, damage."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from orthoreg_jax.progress import Progress

from .decoding import RULE, THREADS, look, unreadable
from .facts import Facts, Stamp
from .kept import Kept
from .notes import shown

IMAGES_AT_ONCE = 512  # images whose facts are cached together
SHOWN_FROM = 4 * IMAGES_AT_ONCE  # progress is shown for this many images or more


@runtime_checkable
class Stored(Protocol):
    """Encoded images by row."""

    def place(self, row: int) -> str:
        """Where an image is: a path that begins with the data folder, as it was given."""

    def name(self, row: int) -> str:
        """A short name of the image."""

    def stamp(self, row: int) -> Stamp:
        """Stamp of the file that contains the image.

        Raises:
          OSError, ValueError: the file does not exist, or is not a regular file.
        """

    def content(self, row: int) -> bytes:
        """Stored bytes of one image."""


def inspect_stored(
    images: Stored, rows: Sequence[int] | Int[np.ndarray, " n"], whole: bool, label: str
) -> list[Facts]:
    """Facts about some images, determined in parallel.

    Args:
      images: encoded images.
      rows: rows to inspect.
      whole: decode every pixel, not only the header.
      label: name of the progress line, shown for many images.
    """
    rows = [int(row) for row in rows]
    found: dict[int, Facts] = {}
    with Kept() as kept, ThreadPoolExecutor(THREADS) as pool, _progress(label, len(rows)) as bar:
        for start in range(0, len(rows), IMAGES_AT_ONCE):
            block = rows[start : start + IMAGES_AT_ONCE]
            names = [os.path.abspath(images.place(row)) for row in block]
            seen = time.time()
            stamps = list(pool.map(lambda row: _stamp(images, row), block))
            known = kept.read(names, stamps)
            old = {row: facts._replace(name=shown(images.name(row)))
                   for row, facts in zip(block, known, strict=True)
                   if facts is not None and facts.whole >= whole}  # fmt: skip
            new = [row for row in block if row not in old]
            found |= old | dict(
                zip(new, pool.map(lambda row: _inspect(images, row, whole), new), strict=True)
            )
            made = [(name, stamp, found[row]) for name, stamp, row in
                    zip(names, stamps, block, strict=True) if row not in old]  # fmt: skip
            kept.write(made, seen)
            if bar is not None:
                bar.update(len(block))
    return [found[row] for row in rows]


def _progress(label: str, total: int) -> Any:
    return Progress(label, total) if total >= SHOWN_FROM else contextlib.nullcontext()


def _stamp(images: Stored, row: int) -> Stamp | None:
    try:
        stamp = images.stamp(row)
    except (OSError, ValueError):  # reported by `_inspect`
        return None
    return stamp._replace(text=f"{stamp.text} {_rule()}")


def _inspect(images: Stored, row: int, whole: bool) -> Facts:
    name, digest = shown(images.name(row)), b""
    try:
        images.stamp(row)
        content = images.content(row)
        digest = hashlib.sha256(content).digest()
        return Facts(name, digest, look(content, whole), whole=whole)
    except Exception as error:  # Pillow raises many kinds for damaged files
        problem = f"{shown(images.place(row))}: {unreadable(error)}"
        return Facts(name, digest, problem=problem, whole=whole)


def _rule() -> str:
    import PIL

    return f"{RULE} {PIL.__version__}"
