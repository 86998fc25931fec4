"""Which class a directory belongs to, however its name is written."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

Name = str | tuple[str, ...]  # of a class in prompts; several: all of them are used


def first_name(name: Name) -> str:
    """The name of a class that may have several."""
    return name if isinstance(name, str) else name[0]


def plain(name: str) -> str:
    """A name in the composed form of Unicode: "é" is one character, not two."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """A name without capitals, spaces and separators: "Red-Fox" is "redfox", "C++" is "c++"."""
    return "".join(character for character in plain(name).casefold() if character not in " -_/")


def letters_and_digits(name: str) -> str:
    """A name of letters and digits alone."""
    return "".join(character for character in folded(name) if character.isalnum())


SPELLINGS = (plain, folded, letters_and_digits)  # from the strictest on


class ClassNames:
    """The names that the directories of a task's classes may have.

    A directory is called as the data's own label is or as the class in a prompt. Where no name is
    the same, capitals and separators do not count, and then no signs, so that "/a/abbey" is also
    "a_abbey" and "a/abbey".
    """

    def __init__(self, labels: Sequence[str], classes: Sequence[Name] = ()) -> None:
        """Names of all classes.

        Args:
          labels: as the data calls them.
          classes: as prompts call them, in the same order.

        Raises:
          ValueError: a label that stands twice.
        """
        self.labels = tuple(labels)
        if twice := [name for name, count in Counter(map(plain, labels)).items() if count > 1]:
            raise ValueError(f"two classes have the same name for files: {', '.join(twice)}")
        # The data's own labels have the last word.
        groups = [[first_name(name) for name in classes], self.labels]
        self._tables = [
            {name: places for group in groups for name, places in _places(form, group).items()}
            for form in SPELLINGS
        ]

    def find(self, directory: str) -> int | None:
        """Position of the class of a directory, None if there is none, or not one alone."""
        for form, table in zip(SPELLINGS, self._tables, strict=True):
            places = table.get(form(directory), ()) if form(directory) else ()
            if places:
                return places[0] if len(places) == 1 else None
        return None

    def find_above(self, directory: str) -> int | None:
        """As `find`, or else the class of the nearest directory above."""
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
    """The data's own names of the classes, in the order of `classes`, if there are any.

    Raises:
      ValueError: classes by whose names it cannot be told which is which.
    """
    if len(classes) != len(labels):  # none are given, or it is said later that they do not fit
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
