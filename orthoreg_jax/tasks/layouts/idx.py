"""MNIST's idx files: an array of bytes after a header with its sizes, compressed or not."""

from __future__ import annotations

import gzip
import pathlib
import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from ..notes import shown
from ..split import ArrayImages, Split


def read_idx(path: pathlib.Path) -> UInt8[np.ndarray, ...]:
    """Reads an array of bytes: two zeros, the type 8, the number of axes, their sizes, the values.

    Args:
      path: path of the file; the suffix .gz means compressed.

    Raises:
      ValueError: the header is different, or the file has more or fewer bytes than it says.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{shown(path)}: cannot be read ({error}); copy it again") from error
    axes = content[3] if len(content) > 3 else 0
    start = 4 + 4 * axes
    sizes = content[4:start]
    shape = np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4").astype(np.int64)
    if content[:3] != b"\0\0\x08" or len(shape) != axes or len(content) - start != shape.prod():
        raise ValueError(
            f"{shown(path)}: is not an idx file of bytes, or incomplete; its {len(content)} bytes "
            f"begin with {content[:16]!r}; copy it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def either(path: pathlib.Path) -> pathlib.Path:
    """A file, or its compressed form if only that exists."""
    return path if path.exists() else path.with_name(f"{path.name}.gz")


def reader(train: str, test: str) -> Callable[[pathlib.Path, str], Split]:
    """A function that reads a split.

    Args:
      train: prefix of the train files' names.
      test: prefix of the test files' names.
    """

    def read(folder: pathlib.Path, split: str) -> Split:
        stem = {"train": train, "test": test}[split]
        images, labels = (read_idx(either(folder / f"{stem}-{kind}-ubyte"))
                          for kind in ("images-idx3", "labels-idx1"))  # fmt: skip
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{shown(folder)}: the files {stem}-* hold images of shape {images.shape} and "
                f"labels of shape {labels.shape}; copy them again"
            )
        return Split(ArrayImages(images), labels.astype(np.int32))

    return read
