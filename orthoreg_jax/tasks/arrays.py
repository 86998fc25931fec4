"""Tasks whose images are arrays in one .npz file."""

from __future__ import annotations

import contextlib
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .content import Content, names_on_disk, with_validation
from .notes import listed, note
from .split import ArrayImages, Split


def read_arrays(path: pathlib.Path, needed: Sequence[str]) -> Content:
    """Reads the splits of an .npz with SPLIT_images and SPLIT_labels; the split val is optional.

    Other arrays in the file are not unpacked. Labels are positions, so there are no class names.

    Raises:
      ValueError: the file is missing or damaged, or an array is missing or has a wrong type or
        shape.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing or not a file; build it or copy it there")
    with contextlib.ExitStack() as stack:
        archive = _readable_file(path, lambda: stack.enter_context(zipfile.ZipFile(path)))
        members = [name.removesuffix(".npy") for name in archive.namelist()]
        called = names_on_disk(lambda name: f"{name}_images" in members, str(path))
        used = [f"{name}_{kind}" for name in called.values() for kind in ("images", "labels")]
        missing = [name for name in used if name not in members]
        if missing:
            raise ValueError(f"{path} lacks {listed(missing)}; it contains {listed(members)}")

        def unpack(name: str, read: Callable[[Any], Any]) -> Any:
            def member() -> Any:
                with archive.open(f"{name}.npy") as file:
                    return read(file)

            return _readable_file(path, member)

        def read(split: str) -> Split:
            return _read_split(split, called[split], unpack)

        splits, notes = with_validation(read, called, needed, str(path))
    if unused := [name for name in members if name not in used]:
        notes.append(note("ignored: arrays that belong to no split", unused))
    return Content((), splits, tuple(notes))


def _readable_file(path: pathlib.Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # zipfile, zlib, numpy: each raises its own kinds
        raise ValueError(f"{path} cannot be read ({error}); build or copy it again") from error


def _read_split(split: str, name: str, unpack: Callable[[str, Callable[[Any], Any]], Any]) -> Split:
    """Reads one split; types and shapes are checked before anything is unpacked."""
    shape, dtype = unpack(f"{name}_images", _array_header)
    grey_or_rgb = len(shape) == 3 or (len(shape) == 4 and shape[-1] == 3)
    if dtype != np.uint8 or not grey_or_rgb or 0 in shape[1:]:
        raise ValueError(
            f"{split} images are {dtype} of shape {shape}, expected uint8 (n, height, width) or "
            "(n, height, width, 3)"
        )
    label_shape, label_dtype = unpack(f"{name}_labels", _array_header)
    if label_shape != shape[:1] or not np.issubdtype(label_dtype, np.integer):
        raise ValueError(
            f"{split} labels are {label_dtype} of shape {label_shape}, expected one integer for "
            f"each of the {shape[0]} images"
        )
    images, labels = (unpack(f"{name}_{kind}", np.lib.format.read_array)
                      for kind in ("images", "labels"))  # fmt: skip
    return Split(ArrayImages(images), labels.astype(label_dtype.newbyteorder("=")))


def _array_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in a file, without reading it."""
    first = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
