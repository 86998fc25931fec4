"""Images and labels of one split of a task, wherever its images are."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from orthoreg_jax.words import counted

from .facts import Facts

VALIDATION_SHARE, VALIDATION_MOST = 0.1, 5000
Rows = Sequence[int] | Int[np.ndarray, " n"]


@runtime_checkable
class Images(Protocol):
    """Images by row, decoded when they are read."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image, decoded to RGB at its own size."""

    def inspect(self, rows: Rows, whole: bool = False) -> list[Facts]:
        """Facts about some images: hashes of their content, what reading changes, damage.

        Args:
          rows: rows of the images.
          whole: decode every pixel, not only the header.
        """


@dataclasses.dataclass(frozen=True)
class ArrayImages:
    """Images of one size in memory: uint8 (n, h, w, 3), or grey (n, h, w)."""

    array: UInt8[np.ndarray, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.array)

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image; grey ones get three equal channels."""
        image = self.array[row]
        return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)

    def rgb(self) -> UInt8[np.ndarray, "n h w 3"]:
        """All images, with three channels."""
        return self.array if self.array.ndim == 4 else np.repeat(self.array[..., None], 3, axis=-1)

    def inspect(self, rows: Rows, whole: bool = False) -> list[Facts]:
        """Hashes of type, shape and bytes of each image; arrays need no decoding."""
        del whole
        start = hashlib.sha256(f"{self.array.dtype} {self.array.shape[1:]}".encode())
        facts = []
        for row in rows:
            digest = start.copy()
            digest.update(np.ascontiguousarray(self.array[row]).data)
            facts.append(Facts(f"image {row}", digest.digest()))
        return facts


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

    def inspect(self, rows: Rows, whole: bool = False) -> list[Facts]:
        """Facts about some of these rows."""
        return self.images.inspect(self.rows[np.asarray(rows, np.int64)], whole)


@dataclasses.dataclass(frozen=True)
class TransposedImages:
    """Other images, transposed, for data that was published on its side."""

    images: Images

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image."""
        return np.ascontiguousarray(self.images[row].transpose(1, 0, 2))

    def inspect(self, rows: Rows, whole: bool = False) -> list[Facts]:
        """Facts about the stored images; the hash differs, as the pixels do."""
        return [
            each._replace(sha256=each.sha256 and hashlib.sha256(b"turned" + each.sha256).digest())
            for each in self.images.inspect(rows, whole)
        ]


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and labels of one split; a label is a position in the task's classes."""

    images: Images
    labels: Int[np.ndarray, " n"]

    def __repr__(self) -> str:
        classes = counted(len(np.unique(self.labels)), "class", "classes")
        return f"Split({counted(len(self), 'image')} of {classes})"

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def inspect(self, whole: bool = False) -> list[Facts]:
        """Facts about each image; files are read once, and decoded if `whole`."""
        return self.images.inspect(range(len(self)), True) if whole else self._facts

    @functools.cached_property
    def _facts(self) -> list[Facts]:
        return self.images.inspect(range(len(self)))

    @property
    def sha256(self) -> str:
        """Hash of the content of all images, and of the labels; see `content_sha256`."""
        return content_sha256(self._facts, self.labels)

    def take(self, rows: Rows) -> Split:
        """Some of the images, in the order of `rows`."""
        rows = np.asarray(rows, np.int64)
        if isinstance(self.images, ArrayImages):
            return Split(ArrayImages(self.images.array[rows]), self.labels[rows])
        return Split(ImageRows(self.images, rows), self.labels[rows])


def content_sha256(facts: Sequence[Facts], labels: Int[np.ndarray, " n"]) -> str:
    """Hash of the SHA-256 of each image, in order, and of the labels as little-endian int32.

    An image's SHA-256 is that of its file's bytes, or of its array's type, shape and bytes. File
    names and times do not count, nor does it matter whether a split was cut from another.

    Raises:
      ValueError: an image does not exist.
    """
    missing = [each.problem for each in facts if not each.sha256]
    if missing:
        raise ValueError(missing[0])
    digest = hashlib.sha256(b"".join(each.sha256 for each in facts))
    digest.update(labels.astype("<i4").tobytes())
    return digest.hexdigest()


def cut_validation(train: Split, share: float = VALIDATION_SHARE) -> tuple[Split, Split]:
    """Splits train into train and validation: 10 %, at most 5000 images, chosen with seed 0.

    For data published without a validation split; both parts keep the order of `train`.
    """
    size = min(int(share * len(train)), VALIDATION_MOST)
    order = np.random.default_rng(0).permutation(len(train))
    return train.take(np.sort(order[size:])), train.take(np.sort(order[:size]))
