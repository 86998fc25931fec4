"""Finds the class of a directory, however its name is written."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

Name = str | tuple[str, ...]  # of a class in prompts; if it has several, all are used


def first_name(name: Name) -> str:
    """The first, or only, name of a class."""
    return name if isinstance(name, str) else name[0]


def plain(name: str) -> str:
    """A name in Unicode's composed form: "é" is one character, not two."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """A name without capitals, spaces and separators: "Red-Fox" becomes "redfox", "C++" "c++"."""
    return "".join(character for character in plain(name).casefold() if character not in " -_/")


def letters_and_digits(name: str) -> str:
    """A name reduced to letters and digits."""
    return "".join(character for character in folded(name) if character.isalnum())


SPELLINGS = (plain, folded, letters_and_digits)  # strictest first


class ClassNames:
    """Names that the directories of a task's classes may have.

    A directory has the data's own label or the name of the class in a prompt. Without an exact
    match, capitals and separators are ignored, then all characters but letters and digits, so that
    "/a/abbey" also matches "a_abbey" and "a/abbey".
    """

    def __init__(self, labels: Sequence[str], classes: Sequence[Name] = ()) -> None:
        """Collects the names of all classes.

        Args:
          labels: names in the data.
          classes: names in prompts, in the same order.

        Raises:
          ValueError: a label appears twice.
        """
        self.labels = tuple(labels)
        if twice := [name for name, count in Counter(map(plain, labels)).items() if count > 1]:
            raise ValueError(f"two classes have the same name for files: {', '.join(twice)}")
        # The data's own labels take precedence.
        groups = [[first_name(name) for name in classes], self.labels]
        self._tables = [
            {name: places for group in groups for name, places in _places(form, group).items()}
            for form in SPELLINGS
        ]

    def find(self, directory: str) -> int | None:
        """Position of a directory's class; None if none matches, or more than one."""
        for form, table in zip(SPELLINGS, self._tables, strict=True):
            places = table.get(form(directory), ()) if form(directory) else ()
            if places:
                return places[0] if len(places) == 1 else None
        return None

    def find_above(self, directory: str) -> int | None:
        """As `find`, or else the class of the nearest parent directory."""
        while directory:
            place = self.find(directory)
            if place is not None:
                return place
            directory = directory.rpartition("/")[0]
        return None


def _places(form: Callable[[str], str], names: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(form(name), []).append(place)
    return places


def labels_in_order(labels: Sequence[str], classes: Sequence[Name]) -> Sequence[str]:
    """The data's class names in the order of `classes`, if `classes` is not empty.

    Raises:
      ValueError: the names do not tell which class is which.
    """
    if len(classes) != len(labels):  # none given, or too many or few, which is reported later
        return labels
    names = ClassNames(labels)
    places = [names.find(first_name(name)) for name in classes]
    if set(places) != set(range(len(labels))):
        raise ValueError(
            f"its entry has classes ({', '.join(map(first_name, classes[:3]))}, ...) whose names "
            f"are not those of the data ({', '.join(labels[:3])}, ...), and no 'labels'; add "
            "'labels', the data's names in the order of 'classes'"
        )
    return [labels[place] for place in places if place is not None]
