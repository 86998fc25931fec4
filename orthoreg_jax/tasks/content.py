"""What a source of images returns: the data's class names, and the splits needed."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from .notes import Note
from .split import Split, cut_validation
from .table import SPLITS

SPLIT_FOLDERS = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}  # on disk


HELD_OUT = "images held out of train as the missing validation split (10 %, at most 5000)"


class NotThereError(ValueError):
    """Some or all images are missing from the places where a task's images may be."""


class Content(NamedTuple):
    """What a source returns: the data's class names, splits, and notes."""

    labels: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[Note, ...] = ()


def names_on_disk(exists: Callable[[str], bool], place: str) -> dict[str, str]:
    """Split -> its name in the data, for the splits that exist.

    Raises:
      ValueError: a split exists under two names.
    """
    found = {
        split: [name for name in names if exists(name)] for split, names in SPLIT_FOLDERS.items()
    }
    if several := [name for names in found.values() if len(names) > 1 for name in names]:
        raise ValueError(f"{place}: contains {' and '.join(several)}; keep one of them")
    return {split: names[0] for split, names in found.items() if names}


def splits_to_read(
    needed: Iterable[str], present: Container[str], halved: bool = False
) -> set[str]:
    """The needed splits; instead of a missing val, the split from which it is cut."""
    wanted = set(needed)
    if "val" in wanted and "val" not in present:
        wanted = wanted - {"val"} | {"test" if halved else "train"}
    return wanted


def with_validation(
    read: Callable[[str], Split],
    present: Mapping[str, str],
    needed: Sequence[str],
    place: str,
    halved: bool = False,
) -> tuple[dict[str, Split], list[Note]]:
    """The needed splits; a missing val is cut from train or is half of test, which a note says.

    If `halved`, test is the same half, whether val is needed or not.
    """
    wanted = splits_to_read(needed, present, halved)
    cut = "val" in needed and "val" not in wanted
    missing = [split for split in SPLITS if split in wanted and split not in present]
    if missing:
        raise ValueError(
            f"{place}: has no {' and no '.join(missing)} split"
            f"{' (10 % of train would be validation)' * (cut and 'train' in missing)}; it has "
            f"{', '.join(present.values()) or 'none'}"
        )
    splits = {split: read(split) for split in SPLITS if split in wanted}
    notes = []
    if halved and "test" in splits:
        splits["test"], splits["val"] = cut_validation(splits["test"], 0.5)
        notes.append(Note(len(splits["val"]), "images of test, half of them, serve as validation"))
    elif cut:
        splits["train"], splits["val"] = cut_validation(splits["train"])
        notes.append(Note(len(splits["val"]), HELD_OUT))
    return {split: splits[split] for split in needed}, notes
