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
LIVE_SECONDS = 0.1
ERASE_REST = "\x1b[K"
COLUMNS = 80  # for terminals that do not report their width


class Progress:
    """Counts the steps of one phase.

    A terminal shows a live line with rate, values and time left. Elsewhere, the same line is
    printed at the end and every 15 seconds, so that logs stay short.
    """

    def __init__(
        self,
        label: str,
        total: int,
        stream: IO[str] | None = None,
        unit: str = "it",
        plan: Plan | None = None,
    ) -> None:
        """Starts the phase `label` with `total` steps; `unit` names one step.

        A phase that is part of a plan also shows the time left for the whole plan.
        """
        self._label, self._total, self._count, self._unit = label, total, 0, unit
        # Only the first process prints.
        self._stream = stream or (sys.stderr if is_first() else io.StringIO())
        self._live = self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self._values: dict[str, float] = {}
        self._plan = plan or Plan()
        self._plan.begin(label, total, self._start)
        if self._live:  # the first step may take a while to compile
            self._print(self._start, end="")

    def update(self, steps: int = 1, **values: float) -> None:
        """Counts steps and shows `values`, e.g. loss=0.5."""
        now = time.monotonic()
        self._count += steps
        if steps:
            self._plan.advance(steps, now)
        # A value of exactly 0 does not apply to this run (there is no penalty).
        self._values.update({key: value for key, value in values.items() if value})
        pause = LIVE_SECONDS if self._live else PLAIN_SECONDS
        # A plain line shortly before the last one would add nothing.
        if now - self._shown > pause and (self._live or self._count < 0.9 * self._total):
            self._shown = now
            self._print(now, end="" if self._live else "\n")

    def _print(self, now: float, end: str) -> None:
        seconds = now - self._start
        rate = self._count / max(seconds, 1e-9)
        parts = [self._label, f"{self._count}/{self._total}"]
        # The most important parts come first, in case the terminal is narrow.
        if self._count >= self._total:
            parts.append(f"{seconds:.1f} s")
        elif self._count:
            parts.append(f"{spoken((self._total - self._count) / max(rate, 1e-9))} left")
        if whole := self._plan.describe():
            parts.append(f"run: {whole} left")
        parts += [f"{rate:.1f} {self._unit}/s"] * (self._count > 0)
        parts += [f"{key} {value:.4g}" for key, value in self._values.items()]
        line = "  ".join(parts)
        if self._live:
            line = f"\r{line[: _columns(self._stream) - 1]}{ERASE_REST}"
        print(line, end=end, file=self._stream, flush=True)

    def __enter__(self) -> Progress:
        """Itself."""
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Ends the line."""
        now = time.monotonic()
        self._plan.end(now)
        if error is None or self._live:
            self._print(now, end="\n")


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
