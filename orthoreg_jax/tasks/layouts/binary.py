"""Files of fixed-size records: the binary versions of CIFAR and STL10."""

from __future__ import annotations

import pathlib

import numpy as np
from jaxtyping import Int, UInt8

from ..notes import shown
from ..split import ArrayImages, Split


def read_cifar10(folder: pathlib.Path, split: str) -> Split:
    """CIFAR10: a label, then the red, green and blue planes of 32 x 32 pixels."""
    names = [f"data_batch_{number}.bin" for number in range(1, 6)]
    return _read_cifar(
        [folder / name for name in (names if split == "train" else ["test_batch.bin"])], 1
    )


def read_cifar100(folder: pathlib.Path, split: str) -> Split:
    """CIFAR100: a coarse and a fine label, of which the fine one is used, then as CIFAR10."""
    return _read_cifar([folder / f"{split}.bin"], 2)


def _read_cifar(paths: list[pathlib.Path], labels: int) -> Split:
    records = np.concatenate([_records(path, labels + 3 * 32 * 32) for path in paths])
    pixels = records[:, labels:].reshape(-1, 3, 32, 32)
    images = ArrayImages(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
    return Split(images, records[:, labels - 1].astype(np.int32))


def read_stl10(folder: pathlib.Path, split: str) -> Split:
    """STL10: red, green and blue planes of 96 x 96 pixels, column by column; labels from 1."""
    pixels = _records(folder / f"{split}_X.bin", 3 * 96 * 96).reshape(-1, 3, 96, 96)
    labels = _records(folder / f"{split}_y.bin", 1)[:, 0]
    if len(labels) != len(pixels):
        raise ValueError(
            f"{shown(folder)}: {split}_X.bin holds {len(pixels)} images and {split}_y.bin "
            f"{len(labels)} labels; copy both again"
        )
    return Split(ArrayImages(np.ascontiguousarray(pixels.transpose(0, 3, 2, 1))), from_one(labels))


def from_one(labels: UInt8[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Labels counted from 1, as labels counted from 0."""
    return labels.astype(np.int32) - 1


def _records(path: pathlib.Path, size: int) -> UInt8[np.ndarray, "n size"]:
    """Records of a file, one a row.

    Raises:
      ValueError: the file does not exist, or its size is not a multiple of the records'.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ValueError(f"{shown(path)}: cannot be read ({error.strerror}); copy it") from error
    if len(content) % size or not len(content):
        raise ValueError(
            f"{shown(path)}: its {len(content)} bytes are not whole records of {size}; copy it "
            "again"
        )
    return content.reshape(-1, size)
