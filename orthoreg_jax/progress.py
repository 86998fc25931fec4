"""Progress of a command: a live line on a terminal, plain lines elsewhere, notes."""

from __future__ import annotations

import io
import sys
import time
from typing import IO, Any

import tqdm

from .hosts import is_first

PLAIN_SECONDS = 15.0


class Progress:
    """Counts the steps of one phase.

    On a terminal a live line with rate, values and time left; elsewhere one plain line at the end
    and one every 15 seconds, so that logs stay short.
    """

    def __init__(
        self, label: str, total: int, stream: IO[str] | None = None, unit: str = "it"
    ) -> None:
        """Starts the phase `label` of `total` steps, each of which is a `unit`."""
        self._label, self._total, self._count, self._unit = label, total, 0, unit
        # Only the first process prints.
        self._stream = stream or (sys.stderr if is_first() else io.StringIO())
        self._start = self._last = time.monotonic()
        self._values: dict[str, float] = {}
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm.tqdm(
                desc=label,
                total=total,
                file=self._stream,
                dynamic_ncols=True,
                leave=True,
                unit=unit,
            )

    def update(self, steps: int = 1, **values: float) -> None:
        """Counts steps and shows `values` after them, e.g. loss=0.5."""
        self._count += steps
        # A value of exactly 0 does not apply to this run (no penalty).
        self._values.update({key: value for key, value in values.items() if value})
        if self._bar is not None:
            if values:
                self._bar.set_postfix(_shown(self._values), refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._last > PLAIN_SECONDS and self._count < 0.9 * self._total:
            self._last = time.monotonic()
            self._print()

    def _print(self) -> None:
        seconds = time.monotonic() - self._start
        rate = self._count / max(seconds, 1e-9)
        left = (self._total - self._count) / max(rate, 1e-9)
        values = "".join(f"  {key} {value}" for key, value in _shown(self._values).items())
        ending = f"  {left:.0f} s left" if self._count < self._total else f"  {seconds:.1f} s"
        pace = f"{rate:.1f} {self._unit}/s"
        print(
            f"{self._label}  {self._count}/{self._total}  {pace}{values}{ending}",
            file=self._stream,
            flush=True,
        )

    def __enter__(self) -> Progress:
        """Itself."""
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Ends the line."""
        if self._bar is not None:
            self._bar.close()
        elif error is None:
            self._print()


def say(note: str) -> None:
    """Prints a note to standard error about something ignored, guessed or defaulted."""
    if is_first():
        print(f"note: {note}", file=sys.stderr, flush=True)


def _shown(values: dict[str, float]) -> dict[str, str]:
    return {key: f"{value:.4g}" for key, value in values.items()}
