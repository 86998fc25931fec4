"""How much longer a run takes, at the speeds measured in it so far."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

# Time spent on a kind of work, without its first step, before its speed counts as known.
KNOWN_SECONDS = 3.0


class Work(NamedTuple):
    """What is left in a phase.

    Attributes:
      kind: all steps of one kind take equally long.
      steps: how many are left.
      stage: what the phase is, e.g. "fine-tuning"; kinds of one stage take about equally long.
    """

    kind: Hashable
    steps: int
    stage: str


class Left(NamedTuple):
    """Time left.

    Attributes:
      seconds: at the speeds that are known.
      guessed: whether some work is assumed to be as fast as other work of its stage.
      whole: whether all work is included; if not, more is left.
    """

    seconds: float
    guessed: bool
    whole: bool

    def __str__(self) -> str:
        """In words: "9 min", "~9 min" with guesses, "9 min+" if some work is not included."""
        return f"{'~' * self.guessed}{spoken(self.seconds)}{'+' * (not self.whole)}"


class Plan:
    """The phases that are left in a run.

    The speed of a kind of work is unknown until it has been done. Until then it is taken from the
    other kinds of its stage; a stage of which nothing has been done is not included. The first
    step of each kind is not counted, because it compiles.
    """

    def __init__(self) -> None:
        """Starts an empty plan."""
        self._ahead: dict[str, Work] = {}
        self._done: dict[str, dict[Hashable, tuple[int, float]]] = {}  # stage: steps and seconds
        self._begun: set[Hashable] = set()
        self._now: tuple[str, float] | None = None  # the current phase, and when last counted

    def expect(self, label: str, kind: Hashable, steps: int, stage: str) -> None:
        """Adds a phase to the plan."""
        self._ahead[label] = Work(kind, steps, stage)

    def begin(self, label: str, steps: int, now: float) -> None:
        """Begins a phase with `steps` left; it need not have been expected."""
        found = self._ahead.get(label, Work(label, steps, label))
        self._ahead[label] = found._replace(steps=steps)
        self._now = label, now

    def advance(self, steps: int, now: float) -> None:
        """Counts steps of the current phase."""
        assert self._now is not None
        label, since = self._now
        work = self._ahead[label]
        self._ahead[label] = work._replace(steps=max(0, work.steps - steps))
        if work.kind in self._begun:
            self._add(work, steps, now - since)
        self._begun.add(work.kind)
        self._now = label, now

    def end(self, now: float) -> None:
        """Ends the current phase; its time after the last step counts, too."""
        assert self._now is not None
        label, since = self._now
        work = self._ahead.pop(label)
        if self._measured(work) != (0, 0.0):
            self._add(work, 0, now - since)
        self._now = None

    def drop(self, label: str) -> None:
        """Removes a phase that turned out to have nothing to do."""
        self._ahead.pop(label, None)

    def left(self) -> Left | None:
        """The time left; None if no speed is known yet."""
        own = {label: _speed(*self._measured(work)) for label, work in self._ahead.items()}
        speeds = {label: own[label] or self._pace(work) for label, work in self._ahead.items()}
        known = [label for label, speed in speeds.items() if speed]
        if not known:
            return None
        seconds = sum(self._ahead[label].steps / speeds[label] for label in known)
        guessed = any(not own[label] and self._ahead[label].steps for label in known)
        return Left(seconds, guessed, len(known) == len(self._ahead))

    def describe(self) -> str:
        """The time left, in words; "" if it is unknown, or the current phase is the last."""
        left = self.left()
        return "" if left is None or len(self._ahead) < 2 else str(left)

    def describe_work(self) -> str:
        """What is left, as "10 x fine-tuning (3000 steps), 2 x evaluation (50 steps)"."""
        stages: dict[str, list[int]] = {}
        for work in self._ahead.values():
            stages.setdefault(work.stage, []).append(work.steps)
        return ", ".join(
            f"{len(steps)} x {stage} ({sum(steps)} steps)" for stage, steps in stages.items()
        )

    def _add(self, work: Work, steps: int, seconds: float) -> None:
        before = self._measured(work)
        self._done.setdefault(work.stage, {})[work.kind] = before[0] + steps, before[1] + seconds

    def _measured(self, work: Work) -> tuple[int, float]:
        """Steps of a kind of work that have been done, and their seconds."""
        return self._done.get(work.stage, {}).get(work.kind, (0, 0.0))

    def _pace(self, work: Work) -> float:
        """Speed of the other kinds of a stage, together."""
        done = self._done.get(work.stage, {}).values()
        return _speed(sum(steps for steps, _ in done), sum(seconds for _, seconds in done))


def _speed(steps: int, seconds: float) -> float:
    return steps / seconds if seconds >= KNOWN_SECONDS else 0.0


def spoken(seconds: float) -> str:
    """A time in words: 8 s, 12 min, 3 h 05 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
