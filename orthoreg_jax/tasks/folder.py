"""Tasks whose images are files, one directory for each class."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from .split import Split

SUFFIXES = frozenset(".jpg .jpeg .png .ppm .bmp .webp .tif .tiff".split())


@dataclasses.dataclass(frozen=True)
class FileImages:
    """Image files below a directory, decoded one by one."""

    root: pathlib.Path
    paths: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image in RGB.

        Raises:
          ValueError: a file that is no whole image.
        """
        import PIL.Image

        path = self.root / self.paths[row]
        try:
            with PIL.Image.open(path) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # PIL's kinds for damaged files
            raise ValueError(
                f"{path}: cannot be read as an image ({error}); copy it again, or remove it"
            ) from error

    def fingerprint(self) -> bytes:
        """Names and sizes: reading every file of a large set would take minutes."""
        lines = [f"{path}\0{(self.root / path).stat().st_size}" for path in self.paths]
        return "\n".join(lines).encode()

    def content(self, row: int) -> bytes:
        """The bytes of a file."""
        return (self.root / self.paths[row]).read_bytes()


def find_images(directory: pathlib.Path) -> list[str]:
    """Paths of all image files below a directory, in order."""
    return sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def read_directory(
    directory: pathlib.Path, labels: Sequence[str], names: Mapping[str, int]
) -> Split:
    """A split that is a directory with one directory for each class.

    Args:
      directory: of the split.
      labels: of the task, for messages.
      names: from `class_keys`.

    Raises:
      ValueError: no such directory, no image, or a directory that is no class of the task.
    """
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such directory")
    return _read(directory, find_images(directory), labels, names)


def read_list(
    root: pathlib.Path, file: pathlib.Path, labels: Sequence[str], names: Mapping[str, int]
) -> Split:
    """A split that is a text file, one image a line, of the images below `root`.

    Lines are paths below `root`, with or without a leading "/", or names of files that occur
    once below it: the forms in which DTD, EuroSAT, RESISC45 and SUN397 publish their splits.

    Raises:
      ValueError: no such file, or images in it that are not there, or not unique.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    wanted = [line.strip().lstrip("/") for line in file.read_text(encoding="utf-8").splitlines()]
    wanted = [line for line in wanted if line]
    there = find_images(root)
    known = set(there)
    count = Counter(path.rpartition("/")[2] for path in there)
    by_name = {name: path for path in there if count[name := path.rpartition("/")[2]] == 1}
    paths = [line if line in known else by_name.get(line.rpartition("/")[2]) for line in wanted]
    missing = [line for line, path in zip(wanted, paths, strict=True) if path is None]
    if missing:
        raise ValueError(
            f"{file}: {len(missing)} of its {len(wanted)} images are not below {root}, the first "
            f"is {missing[0]!r}; copy the data again, or use the list that belongs to it"
        )
    return _read(root, [path for path in paths if path is not None], labels, names)


def class_keys(labels: Sequence[str], classes: Sequence[str]) -> dict[str, int]:
    """Position of every class by the names that its directory may have.

    A directory is called as the data's own label is or as the class in a prompt; capitals,
    spaces and signs do not count, so that "/a/abbey" is also "a_abbey" and "a/abbey".

    Raises:
      ValueError: two classes that cannot be told apart so.
    """
    keys: dict[str, int] = {}
    for group in (classes, labels):  # the data's own labels have the last word
        found = [name_key(name) for name in group]
        if group is labels and len(set(found)) < len(found):
            raise ValueError(f"two classes have the same name for files: {_twice(found)}")
        keys |= {key: position for position, key in enumerate(found)}
    return keys


def _read(
    root: pathlib.Path, paths: Sequence[str], labels: Sequence[str], names: Mapping[str, int]
) -> Split:
    if not paths:
        raise ValueError(f"{root}: holds no image ({', '.join(sorted(SUFFIXES))})")
    found = [names.get(name_key(path.rpartition("/")[0])) for path in paths]
    strange = {path.rpartition("/")[0] for path, label in zip(paths, found, strict=True)
               if label is None}  # fmt: skip
    if strange:
        raise ValueError(
            f"{root}: the directories {', '.join(sorted(strange)[:5])}"
            f"{' ...' if len(strange) > 5 else ''} are none of the {len(labels)} classes, which "
            f"are called {', '.join(labels[:5])}{' ...' if len(labels) > 5 else ''}"
        )
    return Split(FileImages(root, tuple(paths)), np.array(found, np.int32))


def name_key(name: str) -> str:
    """A name without what does not count: capitals, spaces and signs."""
    return "".join(character for character in name.lower() if character.isalnum())


def _twice(names: Sequence[str]) -> str:
    return ", ".join(sorted(name for name, count in Counter(names).items() if count > 1))
