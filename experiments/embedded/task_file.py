"""One task: its images and labels by split, and its files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from orthoreg_jax.tasks.split import ArrayImages, Split

SPLITS = ("train", "val", "test")
MAX_TRAIN = 2000
MAX_TEST = 1000


@dataclass
class Task:
    """A classification task.

    ``splits[name]`` is (images, labels): uint8 (N, 32, 32) for grey images or (N, 32, 32, 3), and
    int32 (N,), where a label is a position in ``classes``.
    """

    name: str
    title: str
    classes: list[str]
    templates: tuple[str, ...]
    kind: str  # "photographs", "scans", "drawings", "silhouettes" or "glyphs"
    source: str
    licence: str
    split_rule: str
    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    shared: str  # which of its images pre-training sees, in words
    near_duplicates_dropped: int = 0
    exact_duplicates_dropped: int = 0
    control: bool = False
    hashes: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> dict:
        """Writes ``<name>.npz``; returns the task's entry for ``tasks.json``."""
        arrays: dict[str, Any] = {}
        for split in SPLITS:
            images, labels = self.splits[split]
            images, labels = np.ascontiguousarray(images), np.asarray(labels, np.int32)
            assert images.dtype == np.uint8 and images.shape[1:3] == (32, 32), self.name
            assert len(images) == len(labels), (self.name, split)
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
            self.hashes[split] = Split(ArrayImages(images), labels).sha256
        np.savez_compressed(folder / f"{self.name}.npz", **arrays)
        return {
            "title": self.title,
            "classes": self.classes,
            "templates": list(self.templates),
            "sha256": self.hashes,
            "about": {
                "control": self.control,
                "kind": self.kind,
                "source": self.source,
                "licence": self.licence,
                "images": {split: len(self.splits[split][1]) for split in SPLITS},
                "near_duplicates_dropped": self.near_duplicates_dropped,
                "exact_duplicates_dropped": self.exact_duplicates_dropped,
            },
        }


@dataclass
class Slice:
    """Images with captions for pre-training, and their note for the data card."""

    name: str
    images: np.ndarray
    captions: list[list[str]]
    note: str


def fill(templates: tuple[str, ...], names: list[str]) -> list[str]:
    """Fills all templates with all names, at most three: what zero-shot prompts will look like.

    The article is "a" before every word, as in the prompts.
    """
    captions = [template.format(name) for name in names for template in templates]
    return list(dict.fromkeys(captions))[:3]


def split_pool(labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows into train and val (10 %) with seed 0, with each class in proportion.

    Args:
      labels: the class of each row.

    Returns:
      The rows of train and of val, both in order.
    """
    labels = np.asarray(labels)
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    # Every tenth row, class by class.
    held_out = np.arange(len(order)) % 10 == 5
    return np.sort(order[~held_out]), np.sort(order[held_out])
