"""How long a run still takes, at the speeds that were measured in it so far."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

# Of work of a kind, without its first step, before its speed counts as known.
KNOWN_SECONDS = 3.0


class Work(NamedTuple):
    """What is still to do in a phase: steps of one kind, which all take as long."""

    kind: Hashable
    steps: int


class Plan:
    """The phases that a run still has before it.

    Of kinds of work that have not been done yet nobody knows the speed: what is known is then the
    least that is left. A kind's very first step is not counted, as it compiles.
    """

    def __init__(self) -> None:
        """Nothing is to do."""
        self._ahead: dict[str, Work] = {}
        self._done: dict[Hashable, tuple[int, float]] = {}  # steps and seconds
        self._begun: set[Hashable] = set()
        self._now: tuple[str, float] | None = None  # the phase at work, and when it was counted

    def expect(self, label: str, kind: Hashable, steps: int) -> None:
        """A phase that is to come."""
        self._ahead[label] = Work(kind, steps)

    def begin(self, label: str, steps: int, now: float) -> None:
        """A phase begins, of `steps` that are left; one that was not expected is of its own."""
        kind = self._ahead[label].kind if label in self._ahead else label
        self._ahead[label] = Work(kind, steps)
        self._now = label, now

    def advance(self, steps: int, now: float) -> None:
        """Steps of the phase at work are done."""
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
        """The phase at work ends; what it did after its last step took time, too."""
        assert self._now is not None
        label, since = self._now
        kind = self._ahead.pop(label).kind
        if kind in self._done:
            steps, seconds = self._done[kind]
            self._done[kind] = steps, seconds + now - since
        self._now = None

    def drop(self, label: str) -> None:
        """A phase that turned out to have nothing to do."""
        self._ahead.pop(label, None)

    def left(self) -> tuple[float, bool] | None:
        """Seconds left, and whether they are all; None where no speed is known yet."""
        known = [work for work in self._ahead.values() if self._speed(work.kind)]
        if not known:
            return None
        seconds = sum(work.steps / self._speed(work.kind) for work in known)
        return seconds, len(known) == len(self._ahead)

    def _speed(self, kind: Hashable) -> float:
        steps, seconds = self._done.get(kind, (0, 0.0))
        return steps / seconds if seconds >= KNOWN_SECONDS else 0.0

    def describe(self) -> str:
        """The time left; empty where it is not known, or where the phase at work is the last."""
        left = self.left()
        if left is None or len(self._ahead) < 2:
            return ""
        seconds, whole = left
        return f"{'' if whole else 'over '}{spoken(seconds)}"


def spoken(seconds: float) -> str:
    """A time as people say it: 8 s, 12 min, 3 h 05 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
