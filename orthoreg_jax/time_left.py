"""How much longer a run takes, at the speeds measured in it so far."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

# Time spent on a kind of work, without its first step, before its speed counts as known.
KNOWN_SECONDS = 3.0


class Work(NamedTuple):
    """What is left in a phase: steps of one kind, which all take equally long."""

    kind: Hashable
    steps: int


class Plan:
    """The phases that are left in a run.

    The speed of a kind of work is unknown until it has been done, so the known time is a lower
    bound until then. The first step of each kind is not counted, because it compiles.
    """

    def __init__(self) -> None:
        """Starts an empty plan."""
        self._ahead: dict[str, Work] = {}
        self._done: dict[Hashable, tuple[int, float]] = {}  # steps and seconds
        self._begun: set[Hashable] = set()
        self._now: tuple[str, float] | None = None  # the current phase, and when last counted

    def expect(self, label: str, kind: Hashable, steps: int) -> None:
        """Adds a phase to the plan."""
        self._ahead[label] = Work(kind, steps)

    def begin(self, label: str, steps: int, now: float) -> None:
        """Begins a phase with `steps` left; it need not have been expected."""
        kind = self._ahead[label].kind if label in self._ahead else label
        self._ahead[label] = Work(kind, steps)
        self._now = label, now

    def advance(self, steps: int, now: float) -> None:
        """Counts steps of the current phase."""
        assert self._now is not None
        label, since = self._now
        kind, left = self._ahead[label]
        self._ahead[label] = Work(kind, max(0, left - steps))
        if kind in self._begun:
            before, seconds = self._done.get(kind, (0, 0.0))
            self._done[kind] = before + steps, seconds + now - since
        self._begun.add(kind)
        self._now = label, now

    def end(self, now: float) -> None:
        """Ends the current phase; its time after the last step counts, too."""
        assert self._now is not None
        label, since = self._now
        kind = self._ahead.pop(label).kind
        if kind in self._done:
            steps, seconds = self._done[kind]
            self._done[kind] = steps, seconds + now - since
        self._now = None

    def drop(self, label: str) -> None:
        """Removes a phase that turned out to have nothing to do."""
        self._ahead.pop(label, None)

    def left(self) -> tuple[float, bool] | None:
        """Seconds left, and whether all work is included; None if no speed is known yet."""
        known = [work for work in self._ahead.values() if self._speed(work.kind)]
        if not known:
            return None
        seconds = sum(work.steps / self._speed(work.kind) for work in known)
        return seconds, len(known) == len(self._ahead)

    def _speed(self, kind: Hashable) -> float:
        steps, seconds = self._done.get(kind, (0, 0.0))
        return steps / seconds if seconds >= KNOWN_SECONDS else 0.0

    def describe(self) -> str:
        """The time left, in words; "" if it is unknown, or the current phase is the last."""
        left = self.left()
        if left is None or len(self._ahead) < 2:
            return ""
        seconds, whole = left
        return f"{'' if whole else 'over '}{spoken(seconds)}"


def spoken(seconds: float) -> str:
    """A time in words: 8 s, 12 min, 3 h 05 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
