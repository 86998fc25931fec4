"""Words of messages: counts with their noun, and the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def plural(number: int, one: str, many: str = "") -> str:
    """A word in the form that goes with a number.

    Args:
      number: how many.
      one: the form for one.
      many: for any other number; empty: the first with an "s".

    Examples:
      >>> plural(1, "task"), plural(0, "task"), plural(2, "is", "are")
      ('task', 'tasks', 'are')
    """
    return one if number == 1 else many or f"{one}s"


def counted(number: int, one: str, many: str = "") -> str:
    """A number and a word in its form; see `plural`.

    Examples:
      >>> counted(1, "task"), counted(2, "class", "classes")
      ('1 task', '2 classes')
    """
    return f"{number} {plural(number, one, many)}"


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """The known name that is most like `name`; "" if none is.

    Args:
      name: what was given.
      known: what exists.
      likeness: the least, from 0 to 1, as difflib's ratio.

    Examples:
      >>> nearest("mnits", ["mnist", "emoji"]), nearest("cats", ["mnist", "emoji"])
      ('mnist', '')
    """
    # Capitals and separators count for nothing: "MNIST" and "fashion-mnist" are near.
    folded = {each.lower().replace("-", "_"): each for each in known}
    near = difflib.get_close_matches(name.lower().replace("-", "_"), folded, 1, likeness)
    return folded[near[0]] if near else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The question about the nearest name, to end a message with; "" if no name is near.

    Examples:
      >>> f"no task 'mnits'{did_you_mean('mnits', ['mnist'])}"
      "no task 'mnits'; did you mean mnist?"
    """
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else ""
