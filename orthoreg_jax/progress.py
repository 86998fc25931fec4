"""Progress of a command (a live line on a terminal, plain lines elsewhere), and notes."""

from __future__ import annotations

import io
import os
import sys
import time
from typing import IO, Any

from .hosts import is_first
from .time_left import Plan, spoken

PLAIN_SECONDS = 15.0
FIRST_SECONDS = 5.0  # until a phase's first plain line
LIVE_SECONDS = 0.1
ERASE_REST = "\x1b[K"
COLUMNS = 80  # for terminals that do not report their width


class Progress:
    """Counts the steps of one phase.

    A terminal shows a live line with values, time left and rate. Elsewhere, the same line is
    printed after 5 seconds, every 15 seconds and at the end, so that logs stay short.
    """

    def __init__(
        self,
        label: str,
        total: int,
        stream: IO[str] | None = None,
        unit: str = "it",
        plan: Plan | None = None,
        done: int = 0,
    ) -> None:
        """Starts the phase `label`.

        Args:
          label: its name.
          total: number of its steps.
          stream: where to print; None takes standard error, of the first process alone.
          unit: name of one step.
          plan: of which it is a part; the time left of the whole plan is shown, too.
          done: steps that were done earlier, by the command that this one goes on with.
        """
        self._label, self._total, self._count, self._unit = label, total, done, unit
        self._begun = done
        # Only the first process prints.
        self._stream = stream or (sys.stderr if is_first() else io.StringIO())
        self._live = self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self._values: dict[str, float] = {}
        self._plan = plan or Plan()
        self._plan.begin(label, total - done, self._start)
        self._first: tuple[int, float] | None = None  # count and time after the first step
        self._pause = LIVE_SECONDS if self._live else FIRST_SECONDS
        if self._live:  # the first step may take a while to compile
            self._print(self._start, end="")

    def update(self, steps: int = 1, **values: float) -> None:
        """Counts steps and shows `values`, e.g. loss=0.5."""
        now = time.monotonic()
        self._count += steps
        if steps:
            self._plan.advance(steps, now)
            self._first = self._first or (self._count, now)
        # A value of exactly 0 does not apply to this run (there is no penalty).
        self._values.update({key: value for key, value in values.items() if value})
        # A plain line shortly before the last one would add nothing.
        if now - self._shown > self._pause and (self._live or self._count < 0.9 * self._total):
            self._shown, self._pause = now, LIVE_SECONDS if self._live else PLAIN_SECONDS
            self._print(now, end="" if self._live else "\n")

    def _print(self, now: float, end: str) -> None:
        rate, values = self._rate(now), [f"{key} {x:.4g}" for key, x in self._values.items()]
        speed = [_spoken_rate(rate, self._unit)] if rate else []
        # The most important parts come first; the last ones are left out on narrow terminals.
        head = f"{self._label}  {self._count}/{self._total}"
        parts = [head, *values[:1], *self._times(now, rate), *speed, *values[1:]]
        if self._live:
            width = _columns(self._stream) - 1
            while len("  ".join(parts)) > width and len(parts) > 1:
                parts.pop()
            print(
                f"\r{'  '.join(parts)[:width]}{ERASE_REST}", end=end, file=self._stream, flush=True
            )
        else:
            print("  ".join(parts), end=end, file=self._stream, flush=True)

    def _rate(self, now: float) -> float:
        """Steps a second since the first step, which may have compiled; 0 while there is none.

        Of a phase of one step, its own.
        """
        if self._first is None:
            return 0.0
        count, since = self._first
        if count >= self._total:
            count, since = self._begun, self._start
        return (self._count - count) / max(now - since, 1e-9)

    def _times(self, now: float, rate: float) -> list[str]:
        """The time that the phase took, or that it has left; and the whole plan."""
        whole = self._plan.describe()
        if self._count >= self._total:
            return [f"{now - self._start:.1f} s", *([f"{whole} left"] if whole else [])]
        if not rate:
            return []
        own = spoken((self._total - self._count) / rate)
        return [f"{own} of {whole} left" if whole else f"{own} left"]

    def __enter__(self) -> Progress:
        """Itself."""
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Ends the line."""
        now = time.monotonic()
        self._plan.end(now)
        if error is None or self._live:
            self._print(now, end="\n")


def _spoken_rate(rate: float, unit: str) -> str:
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s/{unit}"


def _columns(stream: IO[str]) -> int:
    """Width of a terminal; some report none, such as those of containers and CI."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS
    except (OSError, ValueError):  # the stream has no file
        return COLUMNS


def say(note: str) -> None:
    """Prints a note to standard error about something ignored, guessed or defaulted."""
    if is_first():
        print(f"note: {note}", file=sys.stderr, flush=True)
