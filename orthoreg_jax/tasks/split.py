"""Images and labels of one split of a task, wherever the images are."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

VALIDATION_SHARE, VALIDATION_MOST = 0.1, 5000


@runtime_checkable
class Images(Protocol):
    """Images by row; decoded when they are asked for."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image, decoded, in RGB, of its own size."""

    def fingerprint(self) -> bytes:
        """What tells this set of images from any other; cheap to make."""

    def content(self, row: int) -> bytes:
        """One image as it is stored: equal for exact duplicates."""


@dataclasses.dataclass(frozen=True)
class ArrayImages:
    """Images of one size in memory: uint8 (n, h, w, 3), or grey (n, h, w)."""

    array: UInt8[np.ndarray, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.array)

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image, grey ones with three equal channels."""
        image = self.array[row]
        return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)

    def rgb(self) -> UInt8[np.ndarray, "n h w 3"]:
        """All of them with three channels."""
        return self.array if self.array.ndim == 4 else np.repeat(self.array[..., None], 3, axis=-1)

    def fingerprint(self) -> bytes:
        """All bytes."""
        return np.ascontiguousarray(self.array).tobytes()

    def content(self, row: int) -> bytes:
        """The bytes of one image."""
        return np.ascontiguousarray(self.array[row]).tobytes()


@dataclasses.dataclass(frozen=True)
class ImageRows:
    """Some rows of other images."""

    images: Images
    rows: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image."""
        return self.images[int(self.rows[row])]

    def fingerprint(self) -> bytes:
        """That of all images, and which rows."""
        return self.images.fingerprint() + self.rows.astype("<i8").tobytes()

    def content(self, row: int) -> bytes:
        """One image as it is stored."""
        return self.images.content(int(self.rows[row]))


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and labels of one split; a label is a position in the task's classes."""

    images: Images
    labels: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def sha256(self) -> str:
        """Hash of the images' fingerprint and of the labels (as little-endian int32)."""
        labels = self.labels.astype("<i4").tobytes()
        return hashlib.sha256(self.images.fingerprint() + labels).hexdigest()

    def take(self, rows: Sequence[int] | Int[np.ndarray, " n"]) -> Split:
        """Some of its images, in the order of `rows`."""
        rows = np.asarray(rows, np.int64)
        if isinstance(self.images, ArrayImages):
            return Split(ArrayImages(self.images.array[rows]), self.labels[rows])
        return Split(ImageRows(self.images, rows), self.labels[rows])


def cut_validation(train: Split) -> tuple[Split, Split]:
    """Train and validation: 10 % of train, at most 5000 images, chosen with seed 0.

    For data whose authors publish no validation split; both parts keep the order of `train`.
    """
    size = min(int(VALIDATION_SHARE * len(train)), VALIDATION_MOST)
    order = np.random.default_rng(0).permutation(len(train))
    return train.take(np.sort(order[size:])), train.take(np.sort(order[:size]))
