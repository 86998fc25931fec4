"""Tasks whose images are files, with one directory for each class.

Files and directories are found as torchvision's ImageFolder finds them: by the same suffixes,
through symbolic links, at any depth below a class directory. Skipped files are counted.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from orthoreg_jax.words import counted, plural

from .class_names import ClassNames, letters_and_digits, plain
from .decoding import decode
from .facts import Facts, Stamp, file_stamp
from .inspection import inspect_stored
from .notes import Note, listed, note, shown
from .split import Rows, Split

SUFFIXES = frozenset(".jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp".split())
# Directories that systems and programs leave behind, besides names that begin with a dot.
SYSTEM = frozenset(
    ("__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
)


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
          ValueError: the file is not a complete image; the message names it.
        """
        return decode(self.root / self.paths[row], shown(self.place(row)))

    def inspect(self, rows: Rows, whole: bool = False) -> list[Facts]:
        """Facts about some files."""
        return inspect_stored(self, rows, whole, f"images of {shown(self.root)}")

    def place(self, row: int) -> str:
        """Path of the file."""
        return str(self.root / self.paths[row])

    def name(self, row: int) -> str:
        """Path of the file, starting with the directory of its split."""
        return f"{self.root.name}/{self.paths[row]}"

    def stamp(self, row: int) -> Stamp:
        """Stamp of the file."""
        return file_stamp(self.root / self.paths[row])

    def content(self, row: int) -> bytes:
        """Bytes of the file."""
        return (self.root / self.paths[row]).read_bytes()


class FolderImages(NamedTuple):
    """What a directory contains.

    Attributes:
      paths: image files, relative to the directory, in order.
      broken: path -> what is wrong with it: links to nothing, pipes.
      skipped: reason -> paths.
      directories: names of its immediate subdirectories that may be classes.
    """

    paths: list[str]
    broken: dict[str, str]
    skipped: dict[str, list[str]]
    directories: list[str]

    def notes(self, split: str) -> list[Note]:
        """Notes on what was skipped, by reason; paths begin with the split's directory."""
        return [
            note(f"skipped: {reason}", _below(split, paths))
            for reason, paths in self.skipped.items()
        ]


def find_images(root: pathlib.Path) -> FolderImages:
    """Finds all images below a directory, and follows links.

    Raises:
      ValueError: a directory cannot be read.
    """
    found = FolderImages([], {}, {}, [])
    _search(root, "", found, (os.path.realpath(root),))
    found.paths.sort()
    return found


def _search(root: pathlib.Path, below: str, found: FolderImages, above: tuple[str, ...]) -> None:
    """Adds the contents of `below` to `found`; `above` are the real paths of its parents."""
    try:
        with os.scandir(root / below) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{shown(root / below)}: cannot be read ({error.strerror})") from error
    for entry in inside:
        path = f"{below}/{entry.name}" if below else entry.name
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith(".") or entry.name in SYSTEM:
            found.skipped.setdefault("hidden, or system files", []).append(path)
        elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            linked = entry.is_symlink()
            real = os.path.realpath(entry.path) if linked else os.path.join(above[-1], entry.name)
            if real in above:
                found.skipped.setdefault("a link to a directory that contains it", []).append(path)
                continue
            if not below:
                found.directories.append(path)
            _search(root, path, found, (*above, real))
        elif entry.is_symlink() and not os.path.exists(entry.path):
            found.broken[path] = "is a link to nothing"
        elif suffix not in SUFFIXES:
            reason = f"ending {shown(suffix)}" if suffix else "no ending"
            found.skipped.setdefault(reason, []).append(path)
        elif not os.path.isfile(entry.path) if entry.is_symlink() else not entry.is_file():
            found.broken[path] = "is not a file"
        else:
            found.paths.append(path)


def read_directory(directory: pathlib.Path, names: ClassNames) -> tuple[Split, list[Note]]:
    """Reads a split that is a directory with one subdirectory for each class.

    Args:
      directory: the split's directory.
      names: names of the classes.

    Returns:
      The split, and notes on what was skipped.

    Raises:
      ValueError: the directory does not exist or has no image, a subdirectory is not a class of the
        task or has no image, or a link leads nowhere.
    """
    if not directory.is_dir():
        raise ValueError(f"{shown(directory)}: no such directory")
    found = find_images(directory)
    if found.broken:
        parts = [f"{shown(path)} {what}" for path, what in list(found.broken.items())[:5]]
        raise ValueError(
            f"{shown(directory)}: {listed(parts, len(found.broken))}; restore the files, or "
            "remove the names"
        )
    paths = [path for path in found.paths if "/" in path]
    full = {path.partition("/")[0] for path in paths}
    empty = [name for name in found.directories if name not in full]
    notes = found.notes(directory.name)
    if stray := [path for path in found.paths if "/" not in path]:
        notes.append(note("skipped: not in a class directory", _below(directory.name, stray)))
    if empty or not paths:
        where = f" in the directories {listed(map(shown, empty))}" if empty and paths else ""
        raise ValueError(
            f"{shown(directory)}: holds no image{where} (files in a directory of their class that "
            f"end in {', '.join(sorted(SUFFIXES))}); add some, or remove what is not a class"
            f"{''.join(f'; {each}' for each in notes)}"
        )
    split = label_images(directory, paths, names)
    directories = {path: path.rpartition("/")[0] for path in paths}
    places = {each: names.find(each) for each in dict.fromkeys(directories.values())}
    if deep := [path for path, each in directories.items() if places[each] is None]:
        notes.append(
            note("in subdirectories of their class directory", _below(directory.name, deep))
        )
    times = Counter(places.values())
    if alike := [each for each, place in places.items() if place is not None and times[place] > 1]:
        what = "directories that name the same class as another one"
        notes.append(note(what, _below(directory.name, alike)))
    return split, notes


def _below(directory: str, paths: Sequence[str]) -> list[str]:
    return [f"{directory}/{path}" for path in paths]


def listed_images(
    root: pathlib.Path, file: pathlib.Path, there: FolderImages
) -> tuple[list[str], list[Note]]:
    """Paths of the images in a list: a text file, one image a line.

    A line is a path below `root`, with or without a leading "/", or the name of a file that occurs
    once below it. DTD, EuroSAT, RESISC45 and SUN397 publish their splits in these forms.

    Args:
      root: folder of the images.
      file: the list.
      there: what `root` contains.

    Returns:
      The paths in the order of the list, and notes on it.

    Raises:
      ValueError: the list does not exist, or an image in it is missing or ambiguous.
    """
    wanted = _lines(file)
    count = Counter(path.rpartition("/")[2] for path in there.paths)
    by_name = {path.rpartition("/")[2]: path for path in there.paths}
    known = {plain(path): path for path in there.paths} | {path: path for path in there.paths}

    def find(line: str) -> str | None:
        path = known.get(line) or known.get(plain(line))
        if path is not None:
            return path
        directory, _, name = line.rpartition("/")
        path = by_name[name] if count[name] == 1 else None
        # A file name alone is enough, unless the line also names another directory.
        same = (
            path is None
            or not directory
            or letters_and_digits(directory) == letters_and_digits(path.rpartition("/")[0])
        )
        return path if same else None

    paths = [find(line) for line in wanted]
    missing = [line for line, path in zip(wanted, paths, strict=True) if path is None]
    if missing:
        broken = f", which {there.broken[missing[0]]}" if missing[0] in there.broken else ""
        raise ValueError(
            f"{shown(file)}: {len(missing)} of its {counted(len(wanted), 'image')} "
            f"{plural(len(missing), 'is', 'are')} not below {shown(root)}, the first is "
            f"'{shown(missing[0])}'{broken}; copy the data again, or use the list that "
            "belongs to it"
        )
    found = [path for path in paths if path is not None]
    again = [path for path, times in Counter(found).items() if times > 1]
    what = f"named more than once by {shown(file.name)}"
    return found, [note(what, again)] if again else []


def join(parts: Sequence[Split]) -> Split:
    """Concatenates several splits of files."""
    if len(parts) == 1:
        return parts[0]
    images = [part.images for part in parts if isinstance(part.images, FileImages)]
    root = pathlib.Path(os.path.commonpath([each.root for each in images]))
    paths = [each.root / path for each in images for path in each.paths]
    files = FileImages(root, tuple(path.relative_to(root).as_posix() for path in paths))
    return Split(files, np.concatenate([part.labels for part in parts]))


def label_images(root: pathlib.Path, paths: Sequence[str], names: ClassNames) -> Split:
    """A split of files, where each image has the class of its directory.

    Raises:
      ValueError: no files, or a directory that matches no class of the task, or more than one.
    """
    if not paths:
        raise ValueError(f"{shown(root)}: its list names no images")
    directories = [path.rpartition("/")[0] for path in paths]
    classes = {each: names.find_above(each) for each in set(directories)}
    strange = sorted(directory for directory, place in classes.items() if place is None)
    if strange:
        raise ValueError(
            f"{shown(root)}: the directories {listed(map(shown, strange))} match none of the "
            f"{len(names.labels)} classes, which are called {listed(names.labels)}"
        )
    labels = [classes[directory] for directory in directories]
    return Split(FileImages(root, tuple(paths)), np.array(labels, np.int32))


def _lines(file: pathlib.Path) -> list[str]:
    """Lines of a list, decoded as file names are, whatever their bytes."""
    if not file.is_file():
        raise ValueError(f"{shown(file)}: no such file")
    try:
        text = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ValueError(f"{shown(file)}: cannot be read ({error.strerror})") from error
    lines = [os.fsdecode(line).strip().lstrip("/") for line in text.splitlines()]
    return [line for line in lines if line]
